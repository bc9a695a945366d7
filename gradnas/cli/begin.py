"""Where commands begin: devices, folders, configurations, and the guard around a run."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch

from gradnas import distributed, runs
from gradnas.architectures.base import Architecture
from gradnas.architectures.registry import load_architecture, published
from gradnas.config import JsonObject, read_object
from gradnas.runs import Record
from gradnas.tasks import SEARCH_CONFIGS, TRAIN_CONFIGS


def begin(out: Path, new: bool, threads: int | None, start: Callable[[], object]) -> runs.Run:
    """The run folder to work in.

    Args:
        new: make it, by `start`; otherwise it is one that was stopped.
        threads: of the configuration.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    if new and distributed.is_main():
        start()
    distributed.barrier()
    run = runs.Run.open(out)
    if not new and distributed.is_main():
        # The same number of threads as before, or sums would differ in their last bits.
        torch.set_num_threads(read_object(run.path / runs.ENVIRONMENT)["threads"])
        run.set_status("running")
    return run


C = TypeVar("C")  # a configuration


def guarded(run: runs.Run, work: Callable[[], Record]) -> Record:
    """Do the work; when it stops, leave word of it in the run folder and on the terminal."""
    again = f"gradnas resume {run.path}"
    try:
        return work()
    except runs.Interrupted:
        if distributed.is_main():
            run.set_status("interrupted")
        print(f"gradnas: stopped and saved; go on with: {again}", file=sys.stderr)
        raise
    except ValueError as error:
        # Where the disk is full this cannot be written either, and the first error says so already.
        with contextlib.suppress(ValueError):
            run.set_status("failed", message=str(error))
        raise ValueError(
            f"{error}; the last good state is kept in {run.path}; go on with: {again}"
        ) from error


def device_of(name: str) -> torch.device:
    """The device that was asked for; joins the processes of torchrun, where there are any."""
    device = distributed.pick_device(name)
    is_any_cuda = device.type == "cuda" and device.index is None
    if is_any_cuda and "LOCAL_RANK" in os.environ:
        # torchrun numbers the processes of a machine: each takes the device of its number.
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.start(device)
    return device


def typed(path: Path, *wanted: type[C]) -> tuple[type[C], JsonObject]:
    """A configuration file's class, one of those wanted, and its object.

    A file that does not say is taken to be of the first.

    Raises:
        ValueError: it is of another class; where a command takes those, the sentence names it.
    """
    description = read_object(path)
    classes = {cls.__name__: cls for cls in wanted}
    first = next(iter(classes))
    name = str(description.get("type", first))
    if name not in classes:
        commands = {"DiscoverConfig": "discover"}
        commands |= dict.fromkeys(SEARCH_CONFIGS, "search")
        commands |= dict.fromkeys(TRAIN_CONFIGS, "train")
        hint = f"; use: gradnas {commands[name]} {path}" if name in commands else ""
        raise ValueError(f"{path} is a {name}, not a {' or '.join(classes)}{hint}")
    return classes[name], description


def architecture_of(what: str) -> tuple[Architecture, JsonObject]:
    """An architecture, and the entries of the configuration that it was searched with.

    Args:
        what: a run folder, a file, or a published name. Only a run folder has a configuration.

    Raises:
        ValueError: it is none of the three, or the search has not finished.
    """
    path = Path(what)
    if path.is_dir():
        run = runs.Run.open(path)
        if not (path / runs.GENOTYPE).exists():
            raise ValueError(
                f"{path} has no {runs.GENOTYPE} yet: the search is not finished "
                f"(gradnas resume {path})"
            )
        searched = read_object(run.path / runs.CONFIG)
        return load_architecture(path / runs.GENOTYPE), searched
    if path.suffix == ".json" or path.is_file():
        return load_architecture(path), {}
    try:
        return published(what), {}
    except ValueError as error:
        raise ValueError(f"{what!r} is no run folder, no file and {error}") from error


def free_folder(stem: str) -> Path:
    """The first of runs/STEM-1, runs/STEM-2, ... that does not exist."""
    for number in itertools.count(1):
        folder = Path("runs") / f"{stem}-{number}"
        if not folder.exists():
            return folder
    raise AssertionError("counting does not end")
