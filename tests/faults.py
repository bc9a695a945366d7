"""Runs that something happens to: an error, a kill, a torn write, a full disk, at a step of a rank.

    python tests/faults.py --number 200 --seed 0

Every case is a run in forks of this process, one for each rank. It is disturbed, taken up again,
and must come to the bytes of the run that nobody disturbed, or say why it does not.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

KINDS = ("raise", "kill", "torn", "full", "stop")
HERE = Path(__file__).resolve().parent
TASK = str(HERE / "study" / "few_choices.py")
SECONDS = 120.0  # after which a case hangs
KEPT = ("metrics.jsonl", "genotype.json", "results.json", "alphas.safetensors", "config.json")
KEPT += ("weights.safetensors",)


@dataclass(frozen=True)
class Fault:
    """What happens, at which step of the process, and on which rank.

    Attributes:
        kind: `raise` an error of the user's code; `kill` by SIGKILL; `torn`, killed when half of
            the next checkpoint is written; `full`, every write fails; `stop` by SIGTERM.
    """

    kind: str
    step: int
    rank: int


class Broken(Exception):
    """What a user's own code may raise."""


def inject(fault: Fault, rank: int) -> None:
    """Let it happen in this process."""
    from gradnas import files
    from gradnas.runs import Keeper

    if rank != fault.rank:
        return
    after_step = Keeper.after_step
    write = files.write_atomically
    seen = {"steps": 0}

    def full(path, data, previous=None):
        del data, previous
        reason = os.strerror(errno.ENOSPC)
        raise ValueError(f"cannot write {path}: {reason}; what was there before is unchanged")

    def torn(path, data, previous=None):
        if path.name == "checkpoint.pt":
            with tempfile.NamedTemporaryFile(
                prefix=f".{path.name}.", dir=path.parent, delete=False
            ) as half:
                half.write(data[: len(data) // 2])
                half.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        write(path, data, previous)

    def counted(keeper):
        after_step(keeper)
        seen["steps"] += 1
        if seen["steps"] != fault.step:
            return
        if fault.kind == "raise":
            raise Broken("of the user's own")
        if fault.kind == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault.kind == "stop":
            os.kill(os.getpid(), signal.SIGTERM)
        if fault.kind in ("full", "torn"):
            from gradnas.runs import folder

            folder.write_atomically = full if fault.kind == "full" else torn

    Keeper.after_step = counted


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
    import torch._dynamo

    import gradnas.cli.resume
    import gradnas.cli.search
    import gradnas.cli.train
    import gradnas.pictures.plots

    assert torch._dynamo and gradnas.cli.train


def run(arguments: list[str], world: int = 1, fault: Fault | None = None) -> tuple[list[int], str]:
    """The exit codes of the ranks, and what they said; -1000 for one that hangs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = Path(tempfile.mkdtemp())
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            _in_child(arguments, rank, world, port, fault, place)
        children.append(child)
    until = time.monotonic() + SECONDS
    codes = [_ended(child, until) for child in children]
    said = "".join((place / str(rank)).read_text() for rank in range(world))
    shutil.rmtree(place)
    return codes, said


def _in_child(arguments, rank, world, port, fault, place) -> None:
    code = 1
    stack = contextlib.ExitStack()
    try:
        if world > 1:
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            os.environ.update(WORLD_SIZE=str(world), RANK=str(rank), LOCAL_RANK=str(rank))
        from gradnas.cli import main

        if fault is not None:
            inject(fault, rank)
        save_often()
        out = stack.enter_context((place / str(rank)).open("w", buffering=1))
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(out))
        code = main(arguments)
    except BaseException as error:  # noqa: BLE001, whatever it is: the fork ends here
        (place / str(rank)).open("a").write(f"{type(error).__name__}: {error}\n")
    finally:
        os._exit(code)


def _ended(child: int, until: float) -> int:
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return -1000
        time.sleep(0.01)


# ---- a case --------------------------------------------------------------------------------------

SMALL = ["--device", "cpu", "--threads", "1"]


def begin(program: str, out: Path, searched: Path) -> list[str]:
    """The command of a program."""
    if program == "search":
        return ["search", TASK, "--epochs", "4", "--batch-size", "16", *SMALL, "--out", str(out)]
    return ["train", str(searched), "--task", TASK, "--epochs", "6", *SMALL, "--out", str(out)]


def digests(out: Path) -> dict[str, str]:
    """Of the files that must not depend on what has happened."""
    found = {}
    for path in sorted(out.rglob("*")):
        if path.name in KEPT:
            found[str(path.relative_to(out))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def finished(out: Path, arguments: list[str], world: int) -> tuple[bool, str]:
    """Take a run up again until it is finished; whether that worked, and what was said."""
    from gradnas.runs import Run

    said = ""
    for _ in range(3):
        run_folder = Run(out)
        if run_folder.status().get("status") == "finished":
            return True, said
        again = arguments
        if (out / "config.json").exists() and run_folder.has_checkpoint:
            again = ["resume", str(out), "--task", TASK]
        codes, said = run(again, world)
        if -1000 in codes:
            return False, f"hangs\n{said}"
    return Run(out).status().get("status") == "finished", said


def campaign(number: int, seed: int, place: Path, say: Callable[[str], None]) -> list[str]:
    """So many faults; what was wrong, a line for each case."""
    preload()
    draw = random.Random(seed)
    searched = place / "searched"
    codes, said = run(begin("search", searched, searched))
    assert codes == [0], said
    whole: dict[tuple[str, int], dict[str, str]] = {}
    for program in ("search", "train"):
        for world in (1, 2):
            out = place / f"whole-{program}-{world}"
            codes, said = run(begin(program, out, searched), world)
            assert codes == [0] * world, said
            whole[program, world] = digests(out)
    wrong = []
    slowest = 0.0
    for case in range(number):
        program = draw.choice(("search", "train"))
        world = draw.choice((1, 1, 2))
        fault = Fault(draw.choice(KINDS), draw.randint(1, 12), draw.randrange(world))
        out = place / f"case-{case}"
        arguments = begin(program, out, searched)
        began = time.monotonic()
        codes, said = run(arguments, world, fault)
        slowest = max(slowest, time.monotonic() - began)
        is_silent = not all(codes) and any(codes) and not said.strip()
        ended, why = finished(out, arguments, world)
        what = f"{case}: {program} on {world}, {fault}: codes {codes}"
        if -1000 in codes:
            wrong.append(f"{what}: hangs")
        elif not ended:
            wrong.append(f"{what}: does not end: {why.strip()[-300:]}")
        elif digests(out) != whole[program, world]:
            wrong.append(f"{what}: other bytes")
        elif is_silent:
            wrong.append(f"{what}: says nothing")
        shutil.rmtree(out, ignore_errors=True)
        if case % 20 == 19:
            say(f"{case + 1} faults, {len(wrong)} wrong; the slowest end took {slowest:.1f} s")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        wrong = campaign(given.number, given.seed, Path(place), print)
    for line in wrong:
        print(line)
    print(f"{given.number} faults, {len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="agg")
    sys.path[:0] = [str(HERE.parent)]
    sys.exit(main())
