"""What a run runs on: versions, device and commit, and the process that works on it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gradnas.config import JsonObject
from gradnas.version import __version__


def environment(device: torch.device, seed: int) -> JsonObject:
    """What a reader needs to repeat a run: versions, device, threads, git commit, seed, command."""
    import numpy

    device_name = platform.processor() or platform.machine()
    if device.type == "cuda":
        device_name = torch.cuda.get_device_name(device)
    return {
        "gradnas": __version__,
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": device_name,
        "threads": torch.get_num_threads(),
        "git": _git_commit(),
        "seed": seed,
        "directory": os.getcwd(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _git_commit() -> str | None:
    """Commit of gradnas itself when it runs from a checkout, with `+` when files differ from it."""
    here = Path(__file__).resolve().parent
    command = ["git", "-C", str(here)]
    command += ["describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def this_process() -> JsonObject:
    """What the status of a run at work says of its process."""
    return {"host": platform.node(), "process": os.getpid()}


def is_at_work(state: Mapping[str, Any]) -> bool:
    """Whether a process may still be working on a run of this status."""
    process = state.get("process")
    if state.get("status") != "running" or not isinstance(process, int):
        return False
    if state.get("host") != platform.node():
        return True  # cannot be seen from here
    try:
        os.kill(process, 0)  # asks whether it is there, and sends nothing
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
