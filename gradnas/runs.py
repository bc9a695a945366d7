"""The run folder: names, atomic writes, checkpoints, metrics.

Every file is written to a temporary name in the same folder, flushed to the disk and renamed, so
that whoever reads it sees the old file or the new one. `metrics.jsonl` alone is appended to; a
checkpoint records how long it was, and a resumed run cuts off what came later, so that a killed and
resumed run leaves the same file as one never killed.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from gradnas.config import Json, JsonObject, parse_json, read_object, read_text
from gradnas.environment import environment, is_at_work, this_process

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
STATUS = "status.json"
METRICS = "metrics.jsonl"
TIMINGS = "timings.jsonl"
CHECKPOINT = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"
ALPHAS = "alphas.safetensors"
GENOTYPE = "genotype.json"
WEIGHTS = "weights.safetensors"
RESULTS = "results.json"
DATA = "data.json"
PICTURE = "cells.svg"
REPORT = "report.html"
# Of a run that saved nothing and is begun again: the configuration first, without which the folder
# is no run, should this be stopped.
OF_A_RUN = (
    CONFIG,
    METRICS,
    TIMINGS,
    ALPHAS,
    GENOTYPE,
    WEIGHTS,
    RESULTS,
    DATA,
    PICTURE,
    REPORT,
)

State = dict[str, Any]  # entries of a checkpoint: tensors and plain values, nested as they like
Record = dict[str, Any]  # a line of metrics, or results: name -> a number, a text, a JSON tree
Handler = Callable[[int, FrameType | None], object] | int | None  # of a signal


def write_atomically(path: Path, data: bytes) -> None:
    """Write `data` under a temporary name beside `path`, flush, rename.

    Whoever reads `path` sees the old file or the new one; on failure it is as it was.

    Raises:
        ValueError: the disk is full, or the folder may not be written to; names the file.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)  # mkstemp makes it readable by its owner alone
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None and os.path.exists(temporary):
            os.unlink(temporary)
        raise ValueError(
            f"cannot write {path}: {error.strerror or error}; what was there before is unchanged"
        ) from error


def write_json(path: Path, value: Json) -> None:
    """Write indented JSON atomically."""
    write_atomically(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


class Run:
    """One run folder. Only rank 0 should call what writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    # ---- beginning -------------------------------------------------------------------------------

    @staticmethod
    def create(path: str | Path, config: JsonObject, seed: int, device: torch.device) -> Run:
        """Make a new run folder and write its configuration and environment.

        A run that was stopped before it saved anything is replaced.

        Raises:
            ValueError: the folder holds another run already, or cannot be written to.
        """
        run = Run(path)
        run.check_free()
        run._make_way()
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"cannot make the folder {run.path}: {error.strerror or error}"
            ) from error
        write_json(run.path / ENVIRONMENT, environment(device, seed))
        run.set_status("running")
        # Last: its presence says that the folder holds a run.
        write_json(run.path / CONFIG, dict(config))
        return run

    def check_free(self) -> None:
        """ValueError if the folder holds a run that a new one may not replace.

        A run that was stopped before it saved anything may be replaced.
        """
        if not (self.path / CONFIG).exists():
            return
        state = self.status()
        status = state.get("status", "unfinished")
        if status == "finished":
            raise ValueError(
                f"{self.path} already holds a finished run; choose another folder with --out"
            )
        if self.has_checkpoint or is_at_work(state):
            raise ValueError(
                f"{self.path} already holds a run ({status}); choose another folder with --out, or "
                f"continue it with: gradnas resume {self.path}"
            )

    def _make_way(self) -> None:
        """Remove the files of a run that saved nothing."""
        if not (self.path / CONFIG).exists():
            return
        for name in OF_A_RUN:
            (self.path / name).unlink(missing_ok=True)

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a state to go on from."""
        return (self.path / CHECKPOINT).exists() or (self.path / PREVIOUS).exists()

    @staticmethod
    def open(path: str | Path) -> Run:
        """An existing run folder; ValueError that says what is missing otherwise."""
        run = Run(path)
        if not run.path.is_dir():
            raise ValueError(f"there is no run folder {run.path}")
        if not (run.path / CONFIG).exists():
            raise ValueError(f"{run.path} is not a run folder: it has no {CONFIG}")
        return run

    def status(self) -> JsonObject:
        """`{"status": "running" | "finished" | "interrupted" | "failed", ...}`, or empty."""
        path = self.path / STATUS
        if not path.exists():
            return {}
        try:
            return read_object(path)
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    def set_status(self, status: str, **more: Json) -> None:
        """Replace the status file; that of a run at work says which process it is."""
        if status == "running":
            more = {**this_process(), **more}
        write_json(self.path / STATUS, {"status": status, **more})

    # ---- metrics ---------------------------------------------------------------------------------

    def append(self, name: str, record: Record) -> None:
        """Append one JSON line to `metrics.jsonl` or `timings.jsonl` and flush it to the disk."""
        line = json.dumps(dict(record), allow_nan=False) + "\n"
        try:
            with open(self.path / name, "a", encoding="utf-8") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise ValueError(f"cannot write {self.path / name}: {reason}") from error

    def records(self, name: str = METRICS) -> list[Record]:
        """All complete lines of a `.jsonl` file; an unfinished last line is passed over."""
        path = self.path / name
        if not path.exists():
            return []
        try:
            *complete, _unfinished = read_text(path).split("\n")
            records = []
            for number, line in enumerate(complete, 1):
                if line:
                    records.append(parse_json(line, f"line {number}"))
            return records
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    # ---- checkpoints -----------------------------------------------------------------------------

    def save_checkpoint(self, state: State) -> None:
        """Write `checkpoint.pt`, keeping the one before as `checkpoint.previous.pt`.

        `state` may hold tensors and plain values only, so that it loads with `weights_only=True`.
        """
        lengths = {name: _length(self.path / name) for name in (METRICS, TIMINGS)}
        buffer = io.BytesIO()
        torch.save({"lengths": lengths, "state": dict(state)}, buffer)
        current = self.path / CHECKPOINT
        fresh = self.path / f".{CHECKPOINT}.new"
        write_atomically(fresh, buffer.getvalue())
        # Between the two renames there is only the previous checkpoint: `load_checkpoint` takes it
        # then.
        if current.exists():
            os.replace(current, self.path / PREVIOUS)
        os.replace(fresh, current)

    def load_checkpoint(self) -> tuple[State | None, str | None]:
        """The newest checkpoint that can be read, and a sentence when it is not the newest file.

        Metrics written after that checkpoint are cut off. `(None, ...)` when there is no checkpoint
        at all yet.

        Raises:
            ValueError: there are checkpoint files, but none can be read.
        """
        problems = []
        for name in (CHECKPOINT, PREVIOUS):
            path = self.path / name
            if not path.exists():
                continue
            try:
                saved = read_checkpoint(path)
            except ValueError as error:
                problems.append(str(error))
                continue
            for file, length in saved["lengths"].items():
                _cut(self.path / file, length)
            note = f"{problems[0]}; going on from {PREVIOUS}" if problems else None
            return saved["state"], note
        if problems:
            raise ValueError("; ".join(problems) + "; there is no other checkpoint to go on from")
        _cut(self.path / METRICS, 0)
        _cut(self.path / TIMINGS, 0)
        return None, None

    # ---- tensors ---------------------------------------------------------------------------------

    def save_tensors(
        self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a `.safetensors` file atomically, of tensors on any device."""
        from safetensors.torch import save  # here, so that searching needs torch and numpy alone

        plain = {}
        for key, tensor in tensors.items():
            # Copies, because the format refuses tensors that share their memory.
            plain[key] = tensor.detach().to("cpu").contiguous().clone()
        words = dict(metadata) if metadata else None
        write_atomically(self.path / name, save(plain, words))

    def load_tensors(self, name: str) -> dict[str, Tensor]:
        """Read a `.safetensors` file; ValueError that names it when it is missing or damaged."""
        return read_tensors(self.path / name)


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cut(path: Path, length: int) -> None:
    if path.exists() and path.stat().st_size > length:
        os.truncate(path, length)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a `.safetensors` file; ValueError that names it when it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error


def read_checkpoint(path: Path) -> State:
    """Read one checkpoint file without executing anything in it.

    Raises:
        ValueError: it is damaged, or not one of gradnas.
    """
    # Only the zip form that torch.save writes, so that its reader for old bare pickles is never
    # reached.
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is damaged (it is cut off, or no checkpoint at all)")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and plain values and was not loaded"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path} is damaged ({reason})") from error
    if not isinstance(saved, dict) or not {"lengths", "state"} <= saved.keys():
        raise ValueError(f"{path} is not a checkpoint of gradnas")
    return saved


class NonFiniteError(ValueError):
    """A loss or a gradient became NaN or infinite; the step that produced it was not taken."""


class Interrupted(Exception):
    """The user (Ctrl-C) or the system (SIGTERM) asked the run to stop; its state is saved."""


class Keeper:
    """Saves the state of a run now and then, and once more when it is asked to stop.

    A context manager around the loop: inside it Ctrl-C and SIGTERM wait for the end of the step,
    the state is saved, and `Interrupted` is raised. A second Ctrl-C stops at once.

    Args:
        run: the folder, or None on ranks that do not write.
        state: returns the state to save.
        seconds: at the most so much work is lost when the process is killed.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self, run: Run | None, state: Callable[[], State], seconds: float = 20.0) -> None:
        self.run = run
        self.state = state
        self.seconds = seconds
        self._asked = False
        self._saved = time.monotonic()
        self._before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> Keeper:
        # Python lets no other thread set handlers.
        if threading.current_thread() is threading.main_thread():
            for number in self.SIGNALS:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:  # the second time: now
            raise KeyboardInterrupt
        self._asked = True

    def after_step(self) -> None:
        """Save if it is time; stop if that was asked for. Raises Interrupted."""
        if self._asked:
            self.save()
            raise Interrupted
        if time.monotonic() - self._saved > self.seconds:
            self.save()

    def save(self) -> None:
        """Save now."""
        if self.run is not None:
            self.run.save_checkpoint(self.state())
        self._saved = time.monotonic()
