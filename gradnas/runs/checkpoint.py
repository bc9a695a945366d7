"""A checkpoint file: written whole, read as data, checked before anything is believed.

It holds the state of a run, what its `.jsonl` files held at that moment, and the settings that the
state belongs to.
"""

from __future__ import annotations

import io
import json
import pickle
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import torch

from gradnas.config import Json, JsonObject, parse_json
from gradnas.files import cut, opened, read_file
from gradnas.runs.names import METRICS, TIMINGS

State = dict[str, Any]  # entries of a checkpoint: tensors and plain values, nested as they like

APPENDED = (METRICS, TIMINGS)  # the only files that a checkpoint speaks of
NAMED_CHANGES = 5  # of the settings, in a sentence


@dataclass(frozen=True)
class Appended:
    """What an appended file held when the checkpoint was written; `crc32` None: not known."""

    length: int
    crc32: int | None


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that was read.

    Attributes:
        files: of METRICS and TIMINGS, what they held.
        settings: what the state belongs to; None in checkpoints of earlier versions.
    """

    path: Path
    state: State
    files: Mapping[str, Appended]
    settings: JsonObject | None


def packed(state: State, folder: Path, settings: JsonObject | None) -> bytes:
    """The bytes of a checkpoint of a run in `folder`."""
    lengths = {}
    sums = {}
    for name in APPENDED:
        data = read_file(folder / name) if (folder / name).exists() else b""
        lengths[name] = len(data)
        sums[name] = zlib.crc32(data)
    entries: dict[str, Any] = {"lengths": lengths, "crc32": sums, "state": dict(state)}
    if settings is not None:
        entries["settings"] = json.dumps(settings, sort_keys=True)
    buffer = io.BytesIO()
    torch.save(entries, buffer)
    return buffer.getvalue()


# ---- reading -------------------------------------------------------------------------------------


def read_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint file without executing anything in it.

    Raises:
        ValueError: it is damaged, or not one of gradnas.
    """
    with opened(path) as file:
        _check_whole(file, path)
        file.seek(0)
        saved = _loaded(file, path)
    if not isinstance(saved, dict) or not {"lengths", "state"} <= saved.keys():
        raise ValueError(f"{path} is not a checkpoint of gradnas")
    state = saved["state"]
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise ValueError(f"{path} is not a checkpoint of gradnas: its state is no dictionary")
    files = _files(saved["lengths"], saved.get("crc32", {}), path)
    return Checkpoint(path, state, files, _settings(saved.get("settings"), path))


def _loaded(file: BinaryIO, path: Path) -> Any:
    """What the file holds, if that is tensors and plain values; nothing in it is run."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values and was not loaded"
        ) from error
    except Exception as error:  # whatever the reader meets in a file that was made to mislead it
        raise ValueError(f"{path} is damaged ({_first_line(error)})") from error


def _check_whole(file: BinaryIO, path: Path) -> None:
    """ValueError unless the file is the zip that torch.save writes, with the sums that it holds.

    Torch's reader does not look at them, and would take over a flipped bit.
    """
    # Only the zip form is read, so that torch's reader for old bare pickles is never reached.
    if not zipfile.is_zipfile(file):
        raise ValueError(f"{path} is damaged (it is cut off, or no checkpoint at all)")
    try:
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                # Torch stores without compression: what says otherwise could unfold without end.
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 0x1:
                    raise ValueError(f"{path} is not a checkpoint of gradnas: it is compressed")
            wrong = archive.testzip()
    except ValueError:
        raise
    except Exception as error:  # of damaged headers: many kinds
        raise ValueError(f"{path} is damaged ({_first_line(error)})") from error
    if wrong is not None:
        raise ValueError(f"{path} is damaged (the checksum of {wrong!r} in it is another)")


def _first_line(error: Exception) -> str:
    text = str(error)
    return text.splitlines()[0] if text.strip() else type(error).__name__


def _files(lengths: Json, sums: Json, path: Path) -> dict[str, Appended]:
    """What the file says of METRICS and TIMINGS; of no other file may it say anything."""
    for what, values in (("lengths", lengths), ("crc32", sums)):
        if not isinstance(values, dict) or not set(values) <= set(APPENDED):
            raise ValueError(
                f"{path} is not a checkpoint of gradnas: its {what} must be those of "
                f"{' and '.join(APPENDED)}"
            )
        for name, value in values.items():
            if type(value) is not int or value < 0:
                raise ValueError(
                    f"{path} is not a checkpoint of gradnas: the {what} of {name} must be a whole "
                    f"number of at least 0, not {value!r}"
                )
    return {name: Appended(length, sums.get(name)) for name, length in lengths.items()}


def _settings(text: Json, path: Path) -> JsonObject | None:
    if text is None:
        return None
    try:
        settings = parse_json(text, "settings") if isinstance(text, str) else None
    except ValueError:
        settings = None
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is not a checkpoint of gradnas: its settings are no JSON object")
    return settings


# ---- taking it over ------------------------------------------------------------------------------


def check_settings(checkpoint: Checkpoint, now: JsonObject) -> str | None:
    """A sentence where the checkpoint does not say which settings it belongs to.

    Raises:
        ValueError: it belongs to other settings; names those that differ.
    """
    if checkpoint.settings is None:
        return (
            f"{checkpoint.path.name} is of an earlier version, which did not keep the settings: "
            "whether they were changed since cannot be told"
        )
    changes = changed_settings(checkpoint.settings, json.loads(json.dumps(now)))
    if not changes:
        return None
    named = "; ".join(changes[:NAMED_CHANGES])
    if len(changes) > NAMED_CHANGES:
        named += f"; and {len(changes) - NAMED_CHANGES} more"
    raise ValueError(
        f"{checkpoint.path} belongs to other settings: {named}. Put them back to go on, or run "
        "the new ones in another folder"
    )


def changed_settings(before: Json, now: Json, where: str = "") -> list[str]:
    """What differs between two JSON trees: `weights.lr was 0.025 and is 0.05`."""
    if isinstance(before, dict) and isinstance(now, dict):
        changes = []
        for key in {**before, **now}:
            place = f"{where}.{key}" if where else str(key)
            if key not in now:
                changes.append(f"{place} was {_short(before[key])} and is no longer there")
            elif key not in before:
                changes.append(f"{place} was not there and is {_short(now[key])}")
            else:
                changes += changed_settings(before[key], now[key], place)
        return changes
    if type(before) is type(now) and before == now:
        return []
    return [f"{where or 'the whole'} was {_short(before)} and is {_short(now)}"]


def _short(value: Json) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def cut_back(checkpoint: Checkpoint, folder: Path) -> list[str]:
    """Cut off what was appended after a checkpoint; sentences where a file is not what it knew.

    Raises:
        ValueError: one of the files is a link, or no file.
    """
    notes = []
    for name, known in checkpoint.files.items():
        path = folder / name
        cut(path, known.length)
        data = read_file(path) if path.exists() else b""
        if len(data) < known.length:
            cut(path, data.rfind(b"\n") + 1)  # what is appended begins a line
            notes.append(
                f"{path} is shorter than when the checkpoint was written ({len(data)} of "
                f"{known.length} bytes): what was lost does not come back, and the run goes on"
            )
        elif known.crc32 is not None and zlib.crc32(data) != known.crc32:
            notes.append(
                f"{path} was changed since the checkpoint was written: its earlier lines are not "
                "those of this run alone"
            )
    return notes
