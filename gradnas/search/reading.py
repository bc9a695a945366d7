"""One pass over a loader, which another process can take up where it was left.

The order of a shuffling loader follows from the states of torch's generators when the pass began
(its own, or the global one). With these it is begun again, and its batches are counted.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradnas.memory import plain_parts
from gradnas.randomness import random_state, set_random_state


class Reading(Iterator[Any]):
    """The iterator of a loader.

    Args:
        which: what a warning calls the loader: "train" or "validation".
        device: whose random state counts beside that of the CPU.
        state: from `state_dict` of a pass over the same loader: read on from there.

    Attributes:
        num_drawn: batches so far.
    """

    def __init__(
        self,
        loader: Iterable[Any],
        which: str,
        device: torch.device,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        self.loader = loader
        self.device = device
        self.num_drawn = 0
        self._last: Any = None
        if state is not None:
            set_generators(loader, which, state["generators"])
            set_random_state(state["began"], device)
        self._generators = generator_states(loader)
        self._began = random_state(device)
        self._before_last = self._began
        self._iterator = iter(loader)
        if state is not None:
            self._read_again(state, which)

    def __next__(self) -> Any:
        self._before_last = random_state(self.device)
        self._last = next(self._iterator)
        self.num_drawn += 1
        return self._last

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "drawn": self.num_drawn,
            "generators": self._generators,
            "began": self._began,
            "before_last": self._before_last,
            "last": digest(self._last),
        }

    def _read_again(self, state: Mapping[str, Any], which: str) -> None:
        drawn = state["drawn"]
        for number in range(drawn):
            if number == drawn - 1:  # augmented by the global numbers of that moment
                set_random_state(state["before_last"], self.device)
            try:
                next(self)
            except StopIteration:
                break
        if self.num_drawn < drawn or digest(self._last) != state["last"]:
            warnings.warn(
                f"the {which} loader ({type(self.loader).__name__}) does not give the batches that "
                "it gave before the state was saved: the search goes on, but it is not the one "
                "that was stopped. Let its order follow from torch's random numbers "
                "(DataLoader(..., shuffle=True, generator=torch.Generator())) or be fixed",
                stacklevel=2,
            )


def own_generators(loader: Any) -> list[torch.Generator]:
    """The generators that a loader, its samplers and its data set hold, each once."""
    batch_sampler = getattr(loader, "batch_sampler", None)
    holders = [
        loader,
        getattr(loader, "sampler", None),
        batch_sampler,
        getattr(batch_sampler, "sampler", None),
        getattr(loader, "dataset", None),
    ]
    found: dict[int, torch.Generator] = {}
    for holder in holders:
        for value in getattr(holder, "__dict__", {}).values():
            if isinstance(value, torch.Generator):
                found[id(value)] = value
    return list(found.values())


def generator_states(loader: Any) -> list[Tensor]:
    """The states of a loader's own generators."""
    return [generator.get_state() for generator in own_generators(loader)]


def set_generators(loader: Any, which: str, states: Sequence[Tensor]) -> None:
    """The inverse of `generator_states`; a warning where the loader has not as many."""
    generators = own_generators(loader)
    if len(generators) != len(states):
        warnings.warn(
            f"the {which} loader has {len(generators)} torch generators of its own, and had "
            f"{len(states)} when the state was saved: its order will be another",
            stacklevel=2,
        )
        return
    for generator, state in zip(generators, states, strict=True):
        generator.set_state(state.cpu())


def digest(batch: Any) -> str:
    """A hash of the tensors and plain values of a batch."""
    sha = hashlib.sha256()
    _feed(batch, sha)
    return sha.hexdigest()


def _feed(value: Any, sha: Any) -> None:
    if isinstance(value, Tensor):
        sha.update(str((tuple(value.shape), value.dtype)).encode())
        for part in plain_parts(value):
            if part.layout == torch.strided:
                plain = part.detach().cpu().contiguous().reshape(-1)
                sha.update(plain.view(torch.uint8).numpy().tobytes())
    elif isinstance(value, Mapping):
        for key, item in value.items():
            sha.update(str(key).encode())
            _feed(item, sha)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _feed(item, sha)
    elif value is None or isinstance(value, (bool, int, float, str)):
        sha.update(repr(value).encode())
