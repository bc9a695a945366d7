"""What the campaigns compute once for the same arguments: pictures, and the data that come along.

A report draws for a second, and a thousand damaged files end in a few different reports. Only
functions are remembered that depend on nothing but their arguments.
"""

from __future__ import annotations

import functools
import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forks


def remember(folder: Path) -> None:
    """Put remembering functions in the places of those that draw and load.

    Args:
        folder: where pictures are kept, for other processes; it is made.
    """
    folder.mkdir(exist_ok=True)
    from gradnas.data.config import DataConfig
    from gradnas.pictures import cells, chains, choices, mixing_weights, plots

    for module in (cells, chains, choices):
        module.svg = _once(module.svg, folder)
        module.picture = _file_once(module.picture, folder)
    for name in ("heat_map", "mixing_lines"):
        setattr(mixing_weights, name, _once(getattr(mixing_weights, name), folder))
    for name in ("curves", "comparison", "trade_off"):
        setattr(plots, name, _once(getattr(plots, name), folder))
    load: Any = _shared(DataConfig.load)
    DataConfig.load = load


def _shared(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, called once for the same arguments; all callers get the same value."""
    known: dict[bytes, Any] = {}

    @functools.wraps(function)
    def remembering(*args: Any) -> Any:
        key = pickle.dumps(args)
        if key not in known:
            known[key] = function(*args)
        return known[key]

    return remembering


def _once(function: Callable[..., Any], folder: Path) -> Callable[..., Any]:
    """The same for what gives bytes or a text, which are kept in files."""

    @functools.wraps(function)
    def remembering(*args: Any, **kwargs: Any) -> Any:
        place = _place(folder, function, args, kwargs)
        if not place.exists():
            _write(place, pickle.dumps(function(*args, **kwargs)))
        return pickle.loads(place.read_bytes())

    return remembering


def _file_once(function: Callable[..., Path], folder: Path) -> Callable[..., Path]:
    """The same for what writes a picture and gives its path, the second argument."""

    @functools.wraps(function)
    def remembering(drawn: Any, path: Path | str, **kwargs: Any) -> Path:
        from gradnas.runs import write_atomically

        place = _place(folder, function, (drawn, Path(path).suffix), kwargs)
        if not place.exists():
            written = function(drawn, path, **kwargs)
            _write(place, written.read_bytes())
            return written
        write_atomically(Path(path), place.read_bytes())
        return Path(path)

    return remembering


def _place(folder: Path, function: Callable[..., Any], args: Any, kwargs: Any) -> Path:
    name = f"{function.__module__}.{function.__qualname__}"
    return folder / hashlib.sha256(pickle.dumps((name, args, kwargs))).hexdigest()


def _write(place: Path, data: bytes) -> None:
    """Whole or not at all; not among the calls that are counted for kills."""
    half = place.with_suffix(f".{os.getpid()}")
    half.write_bytes(data)
    forks.ORIGINALS["replace"](half, place)
