"""The run folder.

Every file is written to a temporary name in the same folder, flushed to the disk and renamed, so
that whoever reads it sees the old file or the new one. `metrics.jsonl` alone is appended to; a
checkpoint records how long it was, and a resumed run cuts off what came later, so that a killed and
resumed run leaves the same file as one never killed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradnas.config import Json, JsonObject, parse_json, read_object, read_text
from gradnas.environment import environment, this_process
from gradnas.files import append, cut, read_file, sha256, write_atomically, write_json
from gradnas.runs import beginning
from gradnas.runs.checkpoint import (
    APPENDED,
    State,
    check_settings,
    cut_back,
    packed,
    read_checkpoint,
)
from gradnas.runs.lock import locked, remove_name
from gradnas.runs.names import (
    CHECKPOINT,
    CONFIG,
    ENVIRONMENT,
    METRICS,
    PREVIOUS,
    RESULTS,
    STATUS,
)

Record = dict[str, Any]  # a line of metrics, or results: name -> a number, a text, a JSON tree
DIGESTS = "sha256"  # entry of the results: file -> digest
OF_NUMPY = (torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.bool)


class Run:
    """One run folder. Only rank 0 should call what writes."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._digests: dict[str, str] = {}  # of the tensors that were written

    # ---- beginning -------------------------------------------------------------------------------

    @staticmethod
    def create(
        path: str | Path,
        config: JsonObject,
        seed: int,
        device: torch.device,
        *,
        add: Callable[[Run], None] | None = None,
        facts: Mapping[str, Json] | None = None,
    ) -> Run:
        """Make a new run folder with its environment and, last, its configuration.

        A run that was stopped before it saved anything is replaced.

        Args:
            add: writes what else the folder must hold from its beginning.
            facts: more entries of the environment.

        Raises:
            ValueError: the folder holds another run already or anything else, another process
                works in it, or it cannot be written to; a name in the configuration is no UTF-8.
        """
        run = Run(path)
        run.check_free()
        _check_readable(config)
        with beginning.made_folder(run.path), locked(run.path):
            run.check_free()
            run.set_status(beginning.BEGINNING)
            beginning.make_way(run.path)
            write_json(run.path / ENVIRONMENT, environment(device, seed) | dict(facts or {}))
            if add is not None:
                try:
                    add(run)
                except ValueError:
                    beginning.discard(run.path)
                    raise
            # After everything that a run needs: its presence says that the folder holds one.
            write_json(run.path / CONFIG, dict(config))
            run.set_status("running")
        return run

    def check_free(self) -> None:
        """ValueError if the folder holds anything that a new run may not replace.

        A run that was stopped before it saved anything may be replaced.
        """
        beginning.check_free(self.path)

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
        """`{"status": "running" | "finished" | "interrupted" | "failed", ...}`.

        Empty where the file is missing or damaged: no run depends on it.
        """
        return beginning.read_status(self.path)

    def set_status(self, status: str, **more: Json) -> None:
        """Replace the status file; that of a run at work says which process it is."""
        if status in ("running", beginning.BEGINNING):
            more = {**this_process(), **more}
        if status == "finished":
            remove_name(self.path)
        write_json(self.path / STATUS, {"status": status, **more})

    # ---- metrics ---------------------------------------------------------------------------------

    def append(self, name: str, record: Record) -> None:
        """Append one JSON line to `metrics.jsonl` or `timings.jsonl` and flush it to the disk."""
        line = json.dumps(dict(record), allow_nan=False) + "\n"
        append(self.path / name, line.encode())

    def records(self, name: str = METRICS) -> list[Record]:
        """All complete lines of a `.jsonl` file; an unfinished last line is passed over."""
        path = self.path / name
        if not path.exists():
            return []
        *complete, _unfinished = read_text(path).split("\n")
        try:
            records = []
            for number, line in enumerate(complete, 1):
                if not line:
                    continue
                record = parse_json(line, f"line {number}")
                if not isinstance(record, dict):
                    raise ValueError(f"line {number} holds no JSON object")
                records.append(record)
            return records
        except ValueError as error:
            raise ValueError(f"{path} is damaged: {error}") from error

    # ---- checkpoints -----------------------------------------------------------------------------

    def save_checkpoint(self, state: State, settings: JsonObject | None = None) -> None:
        """Write `checkpoint.pt`, keeping the one before as `checkpoint.previous.pt`.

        `state` may hold tensors and plain values only, so that it loads with `weights_only=True`.

        Args:
            settings: what the state belongs to; `load_checkpoint` compares them.
        """
        data = packed(state, self.path, settings)
        # Between its two renames there is only the previous checkpoint: `load_checkpoint` takes it
        # then.
        write_atomically(self.path / CHECKPOINT, data, previous=self.path / PREVIOUS)

    def load_checkpoint(
        self, settings: JsonObject | None = None
    ) -> tuple[State | None, str | None]:
        """The newest checkpoint that can be read, and sentences on what is not as it should be.

        Metrics written after that checkpoint are cut off. `(None, ...)` when there is no checkpoint
        at all yet.

        Args:
            settings: of the run as it is now.

        Raises:
            ValueError: there are checkpoint files, but none can be read; the one that can belongs
                to other settings.
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
            notes = [f"{problems[0]}; going on from {PREVIOUS}"] if problems else []
            unknown = None if settings is None else check_settings(saved, settings)
            if unknown is not None:
                notes.append(unknown)
            notes += cut_back(saved, self.path)
            return saved.state, "; ".join(notes) or None
        if problems:
            raise ValueError("; ".join(problems) + "; there is no other checkpoint to go on from")
        for name in APPENDED:
            cut(self.path / name, 0)
        return None, None

    # ---- results ---------------------------------------------------------------------------------

    def save_tensors(
        self, name: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
    ) -> None:
        """Write a `.safetensors` file atomically, of tensors on any device."""
        plain = {key: own.detach().to("cpu").contiguous() for key, own in tensors.items()}
        data = _serialised(plain, dict(metadata) if metadata else None)
        write_atomically(self.path / name, data)
        self._digests[name] = sha256(data)

    def save_results(self, results: Record) -> None:
        """Write `results.json`, with the digests of the tensors that were written before."""
        if self._digests:
            results = {**results, DIGESTS: dict(sorted(self._digests.items()))}
        write_json(self.path / RESULTS, results)

    def result(self, key: str) -> Json:
        """An entry of `results.json`; None where there is none, or no such file yet."""
        path = self.path / RESULTS
        return read_object(path).get(key) if path.exists() else None

    def load_tensors(self, name: str) -> dict[str, Tensor]:
        """Read a `.safetensors` file of a run.

        Raises:
            ValueError: it is missing or damaged, or not the one that the results were written
                with; names the file.
        """
        digests = self.result(DIGESTS)
        expected = digests.get(name) if isinstance(digests, dict) else None
        return read_tensors(self.path / name, expected)


def _serialised(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None) -> bytes:
    """The bytes of a `.safetensors` file."""
    # Here, so that searching needs torch and numpy alone.
    import safetensors.numpy
    import safetensors.torch

    # Of thousands of small tensors, as the alphas after every epoch are, this way takes a third.
    if all(tensor.dtype in OF_NUMPY for tensor in tensors.values()):
        arrays = {key: tensor.numpy() for key, tensor in tensors.items()}
        return safetensors.numpy.save(arrays, metadata)
    # Copies, because torch's way refuses tensors that share their memory.
    return safetensors.torch.save({k: t.clone() for k, t in tensors.items()}, metadata)


def _check_readable(config: JsonObject) -> None:
    """ValueError for a configuration that its run could never read again."""
    try:
        parse_json(json.dumps(dict(config)), CONFIG)
    except ValueError as error:
        raise ValueError(
            f"{error}: a file or folder whose name is no UTF-8 must be renamed"
        ) from None


def read_tensors(path: Path, digest: str | None = None) -> dict[str, Tensor]:
    """Read a `.safetensors` file; ValueError that names it when it is missing or damaged.

    Args:
        digest: SHA-256 that it must have; None: any.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    data = read_file(path)
    if digest is not None and sha256(data) != digest:
        raise ValueError(
            f"{path} is not the file that the run wrote: {RESULTS} holds another SHA-256. It is "
            "damaged or was replaced"
        )
    try:
        return load(data)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from error
