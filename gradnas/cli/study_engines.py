"""Where the trials of a study run: engines, workers and devices, from the options."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from gradnas.cli.commands.study import StudyCommand
from gradnas.cli.options import flag
from gradnas.engines import Engine, LocalEngine, RayEngine, SlurmEngine
from gradnas.engines.local import visible_devices
from gradnas.study.folder import StudyFolder
from gradnas.study.plan import StudySettings

OF_ENGINES = {
    "local": ("devices",),
    "ray": ("address", "gpus"),
    "slurm": ("partition", "hours", "cluster", "gpus"),
}


def check_engine(command: StudyCommand, engine: str) -> None:
    """ValueError for an option that this engine, or no study, has, or a number below 1."""
    own = OF_ENGINES[engine]
    for options in OF_ENGINES.values():
        for name in options:
            if name not in own and getattr(command, name) is not None:
                raise ValueError(f"{flag(name)} is no option of --engine {engine}")
    for name in ("seeds", "finals", "short_epochs", "final_epochs", "workers"):
        value = getattr(command, name)
        if value is not None and value < 1:
            raise ValueError(f"{flag(name)} must be at least 1, not {value}")
    if command.max_failures is not None and command.max_failures < 0:
        raise ValueError(f"--max-failures must be at least 0, not {command.max_failures}")
    if command.local_batch_norm:
        raise ValueError("each trial of a study is one process: leave out --local-batch-norm")
    if command.tensorboard:
        raise ValueError("a study writes no event files: leave out --tensorboard")


def devices_of(command: StudyCommand, wanted: str, device: torch.device) -> list[str]:
    """What each process on this machine sees of CUDA devices, in turn; empty: all see all.

    Without `--devices`, each is given one of all that there are.

    Args:
        wanted: the device of the searches, as it was named; `device`: what that is here.

    Raises:
        ValueError: `--devices` names one that is not there, or not one at all.
    """
    is_any = device.type == "cuda" and not wanted.startswith("cuda:")
    text = command.devices
    if text is None:
        is_local = command.engine in (None, "local")
        return visible_devices() if is_local and is_any else []
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if not name.isdigit():
            raise ValueError(f"--devices are numbers with commas between, not {text!r}")
    if not is_any:
        why = "the trials are on the CPU: this machine has no usable CUDA device"
        if wanted != "auto":
            why = f"the trials are on --device {wanted}"
        raise ValueError(f"--devices {text}: {why}; leave --devices out")
    known = visible_devices()
    for name in names:
        if int(name) >= len(known):
            raise ValueError(
                f"--devices {text}: there is no device {name}; the {len(known)} that this process "
                "sees are numbered from 0"
            )
    return [known[int(name)] for name in names]


def workers_of(command: StudyCommand, devices: Sequence[str]) -> int:
    """Trials at once."""
    if command.workers is not None:
        return command.workers
    return len(devices) or os.cpu_count() or 1


def engine_of(
    command: StudyCommand,
    name: str,
    workers: int,
    devices: Sequence[str],
    settings: StudySettings,
    folder: StudyFolder,
) -> Engine:
    """The engine that the options name.

    Raises:
        ValueError: an option that cannot hold; what it needs is not there.
    """
    threads = settings.threads
    gpus = command.gpus or 0
    if gpus < 0:
        raise ValueError(f"--gpus must be at least 0, not {gpus}")
    if name == "ray":
        return RayEngine(workers, command.address, threads, gpus)
    if name == "slurm":
        if gpus != int(gpus):
            raise ValueError(f"--gpus of Slurm are whole devices, not {gpus}")
        hours = 24.0 if command.hours is None else command.hours
        if hours <= 0:
            raise ValueError(f"--hours must be above 0, not {hours}")
        return SlurmEngine(
            folder.path / "slurm",
            workers,
            command.partition,
            hours,
            threads,
            int(gpus),
            command.cluster or "slurm",
        )
    return LocalEngine(workers, devices)
