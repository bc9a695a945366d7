"""What the campaigns compute once for the same arguments: pictures, and the data that come along.

A report draws for a second, and a thousand damaged files end in a few different reports. Only
functions are remembered that depend on nothing but their arguments.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any


def remember() -> None:
    """Put remembering functions in the places of those that draw and load."""
    from gradnas.data.config import DataConfig
    from gradnas.pictures import cells, chains, choices, mixing_weights, plots

    for module in (cells, chains, choices):
        module.svg = _once(module.svg)
        module.picture = _file_once(module.picture)
    for name in ("heat_map", "mixing_lines"):
        setattr(mixing_weights, name, _once(getattr(mixing_weights, name)))
    for name in ("curves", "comparison", "trade_off"):
        setattr(plots, name, _once(getattr(plots, name)))
    load: Any = _once(DataConfig.load, is_shared=True)
    DataConfig.load = load


def _once(function: Callable[..., Any], *, is_shared: bool = False) -> Callable[..., Any]:
    """The function, called once for the same arguments.

    Args:
        is_shared: hand out the one value; otherwise each caller has its own copy.
    """
    known: dict[bytes, Any] = {}

    @functools.wraps(function)
    def remembering(*args: Any, **kwargs: Any) -> Any:
        key = pickle.dumps((args, kwargs))
        if key not in known:
            value = function(*args, **kwargs)
            known[key] = value if is_shared else pickle.dumps(value)
        return known[key] if is_shared else pickle.loads(known[key])

    return remembering


def _file_once(function: Callable[..., Path]) -> Callable[..., Path]:
    """The same for what writes a picture and gives its path, the second argument."""
    known: dict[bytes, bytes] = {}

    @functools.wraps(function)
    def remembering(drawn: Any, path: Path | str, **kwargs: Any) -> Path:
        from gradnas.runs import write_atomically

        key = pickle.dumps((drawn, Path(path).suffix, kwargs))
        if key not in known:
            written = function(drawn, path, **kwargs)
            known[key] = written.read_bytes()
            return written
        write_atomically(Path(path), known[key])
        return Path(path)

    return remembering
