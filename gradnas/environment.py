"""What a run runs on: versions, device and commit, and the process that works on it."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gradnas.config import JsonObject, visible
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
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "git": _git_commit(),
        "seed": seed,
        "directory": visible(os.getcwd()),
        "command": visible(" ".join([Path(sys.argv[0]).name, *sys.argv[1:]])),
    }


@dataclass(frozen=True)
class Moment:
    """A reading of two clocks, of which differences count.

    Attributes:
        clock: seconds that pass.
        cpu: seconds of all cores that this process and its ended children have used.
    """

    clock: float
    cpu: float

    @staticmethod
    def now() -> Moment:
        """The reading of now."""
        ended = os.times()
        # Of this process finer than `os.times`, which counts hundredths of a second.
        cpu = time.process_time() + ended.children_user + ended.children_system
        return Moment(time.monotonic(), cpu)


def processor_name() -> str:
    """The processor of this machine, as it calls itself."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        text = ""
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_commit() -> str | None:
    """Commit of gradnas itself when it runs from its checkout, with `+` when files differ from it.

    None in any other case: gradnas may be installed within a repository of the user's.
    """
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists() or not _is_of_gradnas(root / "pyproject.toml"):
        return None
    # Without optional locks git writes nothing, and cannot get in the way of another git.
    command = ["git", "--no-optional-locks", "-C", str(root)]
    command += ["describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=12"]
    # GIT_DIR, for example, is set within hooks, and names another repository.
    own = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=False, env=own
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _is_of_gradnas(project: Path) -> bool:
    try:
        lines = project.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False
    return 'name = "gradnas"' in lines


# What the last bits of results depend on, and how a sentence calls it.
COMPARED = {
    "gradnas": "gradnas",
    "git": "the commit of gradnas",
    "torch": "torch",
    "numpy": "numpy",
    "python": "Python",
    "device": "the device",
    "device_name": "the model of the device",
    "processor": "the processor",
    "threads": "the number of threads",
    "processes": "the number of processes",
    "batch_norm": "what is normalised over",
    "compiler": "the C++ compiler",
    "kernels": "what the kernels run on",
}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """A sentence that names what differs between two environments; None where nothing does.

    What one of them does not say, as in folders of earlier versions, is not compared.
    """
    changes = []
    for key, words in COMPARED.items():
        if key not in before or key not in now or before[key] == now[key]:
            continue
        changes.append(f"{words} was {_said(before[key])} and is {_said(now[key])}")
    if not changes:
        return None
    return f"not as when the run began: {', '.join(changes)}; results may differ in their last bits"


def _said(value: Any) -> str:
    return "none" if value is None else str(value)


@contextmanager
def threads_of_torch(number: int) -> Iterator[None]:
    """Within, torch computes with so many threads of the CPU; then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def this_process() -> JsonObject:
    """What the status of a run at work says of its process."""
    return {"host": platform.node(), "process": os.getpid()}


def is_at_work(state: Mapping[str, Any]) -> bool:
    """Whether a process may still be working on a run of this status."""
    process = state.get("process")
    if state.get("status") != "running" or type(process) is not int:
        return False
    if state.get("host") != platform.node():
        return True  # cannot be seen from here
    try:
        os.kill(process, 0)  # asks whether it is there, and sends nothing
    except (ProcessLookupError, OverflowError):  # the latter of a number that is none of a process
        return False
    except OSError:
        return True
    return True
