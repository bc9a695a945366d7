"""A campaign of faults over all programs that make folders, each on one rank and on two.

    python tests/fault_campaign.py --number 200
    python tests/fault_campaign.py --number 200 --place DIR --seconds 280      # in pieces

With a place what is done is kept there, and the same command goes on with it. Exit code 1 where
anything was wrong; a case is drawn from the seed and its number alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from faults import (
    HANGS,
    HERE,
    KINDS,
    SECONDS,
    SMALL,
    TASK,
    Fault,
    Work,
    digests,
    ended,
    finished,
    inject,
    is_finished,
    preload,
    restore_writes,
    run,
)


def _same(found: dict[str, str], whole: dict[str, str]) -> bool:
    """Whether a folder came to the bytes of the one that nobody disturbed.

    A study in which a search failed has trained the best of the others; when the search is tried
    again, that training stays in the folder, beside the same results.
    """
    more = found.keys() - whole.keys()
    are_finals = all(name.startswith("trials/final-") for name in more)
    return are_finals and all(found.get(name) == own for name, own in whole.items())


def _tells(said: str) -> bool:
    """Whether a command's sentence, or the error of a call from Python, is there."""
    return "gradnas: " in said or "ValueError: cannot write" in said


# ---- programs ------------------------------------------------------------------------------------

STUDY = ["--seeds", "2", "--finals", "1", "--random", "2", "--epochs", "2", "--final-epochs", "6"]
STUDY += ["--batch-size", "32", "--workers", "1", *SMALL]


@dataclass(frozen=True)
class Case:
    """A program on so many ranks.

    Attributes:
        begin, go_on: carry it out in a folder: a command, or a function.
        clocks: by what its faults are counted.
    """

    name: str
    begin: Callable[[Path], list[str] | Work]
    go_on: Callable[[Path], list[str] | Work]
    world: int = 1
    clocks: tuple[str, ...] = ("steps",)


def cases(place: Path) -> list[Case]:
    """All programs that make folders; those that take several ranks on one and on two."""
    sys.path.insert(0, str(HERE.parent / "benchmarks" / "campaigns"))
    import programs

    found = []
    for program in programs.programs(place):
        if program.name == "study":
            continue  # it starts its trials anew; here one in forks counts their steps, see below
        if isinstance(program, programs.InPython):
            # `fit` takes a folder as it is: it returns an exit code.
            found.append(Case(program.name, _calls(program.begin), _calls(program.go_on)))
        elif program.name == "discover":
            found.append(Case(program.name, program.command, _again(()), clocks=("writes",)))
        else:
            for world in (1, 2):
                again = _again(program.more)
                name = f"{program.name} on {world}"
                found.append(
                    Case(name, program.command, again, world, ("steps", "steps", "writes"))
                )
    return [*found, Case("study", lambda out: _study(out, None), lambda out: _study(out, None))]


def _calls(work):
    return lambda out: lambda: work(out)


def _again(more):
    return lambda out: ["resume", str(out), *more]


def _study(out: Path, fault: Fault | None) -> Work:
    """A study whose trials are forks, one after the other."""

    def work() -> int:
        from gradnas.cli import main, study
        from gradnas.engines import Ended, Engine

        class Forks(Engine):
            def __init__(self):
                self.number = 0
                self.ended = []

            def submit(self, job):
                self.number += 1
                child = os.fork()
                if child == 0:
                    _trial(job, fault if fault and fault.trial == self.number else None)
                self.ended.append(Ended(job.name, ended(child, time.monotonic() + SECONDS)))

            def wait(self, seconds):
                ended, self.ended = self.ended, []
                return ended

            def cancel(self):
                return

        study.engine_of = lambda *_: Forks()
        return main(["study", TASK, *STUDY, "--resume-failed", "--out", str(out)])

    return work


def _trial(job, fault: Fault | None) -> None:
    code = 1
    restore_writes()
    try:
        from gradnas.cli import main

        if fault is not None:
            inject(fault)
        job.log.parent.mkdir(parents=True, exist_ok=True)
        log = job.log.open("a")
        with log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
            code = main(list(job.command[3:]))
    finally:
        os._exit(code)


# ---- a campaign ----------------------------------------------------------------------------------


class Campaign:
    """So many faults over all programs in turn, from where the record stands.

    Args:
        place: of the runs and of the record.
        names: of programs, as their names begin; empty: all.
    """

    def __init__(self, place: Path, seed: int, names: tuple[str, ...] = ()) -> None:
        self.place = place
        self.seed = seed
        (place / "programs").mkdir(parents=True, exist_ok=True)
        shutil.rmtree(place / "programs" / "text", ignore_errors=True)
        own = cases(place / "programs")
        self.cases = [case for case in own if case.name.startswith(names or "")]
        self.record = place / "record.jsonl"
        self.done = []
        if self.record.exists():
            self.done = [json.loads(line) for line in self.record.read_text().splitlines()]

    def go_on(self, number: int, seconds: float) -> None:
        """Cases until there are so many, or the time is over."""
        until = time.monotonic() + seconds
        while len(self.done) < number and time.monotonic() < until:
            entry = self.one(len(self.done))
            self.done.append(entry)
            with self.record.open("a") as file:
                file.write(json.dumps(entry) + "\n")

    def whole(self, case: Case) -> dict[str, str]:
        """What the program comes to when nobody disturbs it."""
        out = self.place / f"whole-{case.name.replace(' ', '-')}"
        if not (out.exists() and is_finished(out)):
            shutil.rmtree(out, ignore_errors=True)
            codes, said = run(case.begin(out), case.world)
            assert codes == [0] * case.world and is_finished(out), f"{case.name}: {codes}: {said}"
        return digests(out)

    def drawn(self, case: Case, number: int) -> Fault:
        """A fault that depends on the seed and its number alone."""
        draw = random.Random(f"{self.seed}-{number}")
        of = draw.choice(case.clocks)
        rank = draw.randrange(case.world)
        if case.name == "study":
            of = draw.choice(("steps", "writes"))
        # Only the first of several ranks writes files.
        rank = 0 if of == "writes" else rank
        kinds = KINDS if of == "steps" else tuple(kind for kind in KINDS if kind != "raise")
        step = draw.randint(1, 7 if of == "steps" else 16)
        trial = draw.randint(1, 6) if case.name == "study" and of == "steps" else 0
        return Fault(draw.choice(kinds), step, rank, of, trial)

    def one(self, number: int) -> dict[str, object]:
        """A case: what happened, and whether it came out right."""
        case = self.cases[number % len(self.cases)]
        whole = self.whole(case)
        fault = self.drawn(case, number)
        out = self.place / f"case-{number}"
        shutil.rmtree(out, ignore_errors=True)
        began = time.monotonic()
        work = _study(out, fault) if case.name == "study" else case.begin(out)
        codes, said = run(work, case.world, fault)
        took = time.monotonic() - began
        # What a study says of its trials is in its folder.
        failed = [path.read_text() for path in out.glob("failed/*.json")]
        was_hit = any(codes) or bool(failed) or bool(fault.trial)
        is_over, why = finished(out, case.begin(out), case.world, case.go_on(out))
        wrong = ""
        if HANGS in codes:
            wrong = "hangs"
        elif not is_over:
            wrong = f"does not end: {why.strip()[-300:]}"
        elif not _same(digests(out), whole):
            wrong = "other bytes"
        elif any(code > 0 for code in codes) and not said.strip():
            wrong = "says nothing"
        elif any(code > 0 for code in codes) and fault.kind == "full" and not _tells(said):
            wrong = f"no sentence: {said.strip()[-300:]}"
        shutil.rmtree(out, ignore_errors=True)
        return {
            "program": case.name,
            "fault": vars(fault),
            "codes": codes,
            "hit": was_hit,
            "seconds": round(took, 2),
            "said": said.strip()[-160:],
            "wrong": wrong,
        }

    def report(self, say: Callable[[str], None]) -> int:
        """Counts, and a line for each case that was wrong."""
        by_kind = Counter(entry["fault"]["kind"] for entry in self.done if entry["hit"])
        by_program = Counter(entry["program"] for entry in self.done if entry["hit"])
        wrong = [entry for entry in self.done if entry["wrong"]]
        missed = sum(not entry["hit"] for entry in self.done)
        slowest = max((entry["seconds"] for entry in self.done), default=0.0)
        for title, counts in (("kinds", by_kind), ("programs", by_program)):
            words = ", ".join(f"{name} {count}" for name, count in sorted(counts.items()))
            say(f"{title}: {words}")
        for number, entry in enumerate(self.done):
            if entry["wrong"]:
                say(f"WRONG {number}: {entry}")
        say(
            f"{len(self.done)} cases, {missed} of them over before their fault; {len(wrong)} "
            f"wrong; the slowest end came after {slowest:.1f} s"
        )
        return int(bool(wrong))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--number", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", default=(), help="programs, as their names begin")
    parser.add_argument("--place", type=Path, help="what is done is kept here")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of this piece")
    given = parser.parse_args()
    preload()
    with tempfile.TemporaryDirectory() as scratch:
        campaign = Campaign((given.place or Path(scratch)).resolve(), given.seed, tuple(given.only))
        campaign.go_on(given.number, given.seconds)
        return campaign.report(print)


if __name__ == "__main__":
    os.environ.update(OMP_NUM_THREADS="1", MPLBACKEND="agg", HF_HUB_OFFLINE="1")
    sys.path[:0] = [str(HERE.parent)]
    sys.exit(main())
