"""Runs that something happens to: an error, a kill, a torn write, a full disk, when one likes.

A run is made in forks of this process, one for each rank. It is disturbed, taken up again, and must
come to the bytes of the run that nobody disturbed, or say why it does not.
`python tests/fault_campaign.py` does so many times.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

KINDS = ("raise", "kill", "torn", "full", "stop")
SMALL = ["--device", "cpu", "--threads", "1"]
HERE = Path(__file__).resolve().parent
TASK = str(HERE / "study" / "few_choices.py")
SECONDS = 120.0  # after which a case hangs
HANGS = -1000  # its exit code
KEPT = ("metrics.jsonl", "genotype.json", "results.json", "alphas.safetensors", "config.json")
KEPT += ("weights.safetensors", "law.tex", "law.py")


@dataclass(frozen=True)
class Fault:
    """What happens, when, and to whom.

    Attributes:
        kind: `raise` an error of the user's code; `kill` by SIGKILL; `torn`, killed when half of
            the next file is written; `full`, every write fails from now on; `stop` by SIGTERM.
        step: after how many steps of the process; with `of="writes"` at which write of a file.
        rank: of the process.
        trial: of a study, the how-manieth of its trials that are started it happens to; 0: to the
            process of the study itself.
    """

    kind: str
    step: int
    rank: int = 0
    of: str = "steps"
    trial: int = 0


class Broken(Exception):
    """What a user's own code may raise."""


_write = os.write


def restore_writes() -> None:
    """In a fork of a process that has a fault: write as ever."""
    os.write = _write


def inject(fault: Fault, rank: int = 0) -> None:
    """Let it happen in this process."""
    from gradnas.runs import Keeper

    if rank != fault.rank:
        return
    after_step = Keeper.after_step
    seen = {"steps": 0, "writes": 0}

    def full(handle, data):
        del handle, data
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def torn(handle, data):
        _write(handle, bytes(data)[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    def happen():
        if fault.kind == "raise":
            raise Broken("of the user's own")
        if fault.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
        if fault.kind in ("full", "torn"):
            os.write = full if fault.kind == "full" else torn

    def counted_step(keeper):
        after_step(keeper)
        seen["steps"] += 1
        if seen["steps"] == fault.step:
            happen()

    def counted_write(handle, data):
        seen["writes"] += 1
        if seen["writes"] == fault.step:
            happen()
        write = _write if os.write is counted_write else os.write
        return write(handle, data)

    if fault.of == "steps":
        Keeper.after_step = counted_step
    else:
        os.write = counted_write


def save_often() -> None:
    """Keep a checkpoint after every few steps, so that a run that is taken up has one."""
    from gradnas.runs import Keeper

    make = Keeper.__init__

    def impatient(keeper, *arguments, **named):
        make(keeper, *arguments, **named)
        keeper.seconds = 0.01

    Keeper.__init__ = impatient


def preload() -> None:
    """Import what every fork needs, once."""
    import matplotlib.backends.backend_agg
    import matplotlib.figure
    import torch._dynamo

    import gradnas.cli.discover
    import gradnas.cli.resume
    import gradnas.cli.search
    import gradnas.cli.study
    import gradnas.cli.study_trial
    import gradnas.cli.train
    import gradnas.pictures.plots
    from gradnas.programs import following

    assert torch._dynamo and gradnas.cli.train and matplotlib.figure
    following.training_seconds = lambda *_: None  # measured at each end of a search


Work = Callable[[], int]


def run(
    work: list[str] | Work, world: int = 1, fault: Fault | None = None
) -> tuple[list[int], str]:
    """The exit codes of the ranks, and what they said; HANGS for one that does.

    Args:
        work: a command of gradnas, or what carries it out and returns an exit code.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = Path(tempfile.mkdtemp())
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            _in_child(work, rank, world, port, fault, place)
        children.append(child)
    until = time.monotonic() + SECONDS
    codes = [ended(child, until) for child in children]
    said = "".join((place / str(rank)).read_text() for rank in range(world))
    shutil.rmtree(place)
    return codes, said


def _in_child(work, rank, world, port, fault, place) -> None:
    code = 1
    stack = contextlib.ExitStack()
    try:
        if world > 1:
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            os.environ.update(WORLD_SIZE=str(world), RANK=str(rank), LOCAL_RANK=str(rank))
        from gradnas.cli import main

        if fault is not None and not fault.trial:
            inject(fault, rank)
        save_often()
        out = stack.enter_context((place / str(rank)).open("w", buffering=1))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(out))
        code = main(work) if isinstance(work, list) else work()
    except BaseException as error:  # noqa: BLE001, whatever it is: the fork ends here
        (place / str(rank)).open("a").write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def ended(child: int, until: float) -> int:
    """The exit code of a fork; HANGS, and it is killed, where it has none at that moment."""
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return HANGS
        time.sleep(0.01)


# ---- its end -------------------------------------------------------------------------------------


def digests(out: Path) -> dict[str, str]:
    """Of the files that must not depend on what has happened."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.name in KEPT:
            found[str(path.relative_to(out))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def is_finished(out: Path) -> bool:
    """Whether a run, or a study and all its trials, has come to its end."""
    from gradnas.runs import Run

    if (out / "study.json").exists():
        states = [Run(trial).status().get("status") for trial in (out / "trials").glob("*")]
        is_whole = (out / "results.json").exists() and (out / "report.html").exists()
        return is_whole and set(states) == {"finished"} and not list(out.glob("failed/*"))
    return Run(out).status().get("status") == "finished"


def finished(out: Path, begin, world: int, go_on=None) -> tuple[bool, str]:
    """Take a run up again until it is finished; whether that worked, and what was said."""
    go_on = go_on or ["resume", str(out), "--task", TASK]
    said = ""
    for _ in range(3):
        if is_finished(out):
            return True, said
        codes, said = run(go_on if (out / "config.json").exists() else begin, world)
        if HANGS in codes:
            return False, f"hangs\n{said}"
    return is_finished(out), said
