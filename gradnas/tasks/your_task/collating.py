"""Examples as a batch, where a task gives no function that makes one of them."""

from __future__ import annotations

from typing import Any

from torch.utils.data._utils.collate import collate as collate_by
from torch.utils.data._utils.collate import default_collate_fn_map


def _none_of(batch: list[Any], *, collate_fn_map: Any = None) -> None:
    """None for a batch of nothing but None: an optional entry that no example has."""
    del collate_fn_map
    if any(entry is not None for entry in batch):
        raise TypeError("an entry is None in some examples and not in others")


COLLATED: dict[Any, Any] = {**default_collate_fn_map, type(None): _none_of}


def collated(examples: list[Any]) -> Any:
    """Examples as a batch, as torch's `default_collate` makes it; what all have as None stays None.

    Raises:
        ValueError: they do not fit together.
    """
    try:
        return collate_by(examples, collate_fn_map=COLLATED)
    except (TypeError, RuntimeError, KeyError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            f"examples do not make a batch: {lines[0]}; give a function that makes one of a list "
            "of examples, Task(collate=...)"
        ) from error
