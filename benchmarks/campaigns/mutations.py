"""Mutations: files that are damaged in every way, and what the commands make of them.

Right is a refusal in one sentence, or the outcome of the file as it was. A text that still is JSON
but says something else may lead to another outcome: that is counted by itself. Of tensors (the
checkpoint, weights, alphas) no other outcome is right.
"""

from __future__ import annotations

import functools
import json
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import forks
import programs
from damage import mutated
from kept import Kept, Log
from readings import READINGS, Reading
from remembered import remember

ROUNDS = (12, 50, 150)  # mutations of every file before any has more
CASE_SECONDS = 120  # a case takes less than one; what takes longer hangs


class Mutations:
    """A campaign of mutations; everything is written below the folder of `kept`."""

    def __init__(self, kept: Kept, seed: int, only: tuple[str, ...] = ()) -> None:
        remember(kept.path / "remembered")
        self.kept = kept
        self.place = kept.path
        self.seed = seed
        self.readings = []
        for reading in READINGS:
            if not only or reading.file in only or reading.program in only:
                self.readings.append(reading)
        self.wrong: list[str] = []
        self.counts: dict[str, Counter[str]] = {}
        self.seconds: dict[str, float] = {}

    def run(self, number: int) -> bool:
        """So many mutations of every file, of all a few first; whether they are all done."""
        self.make_folders()
        is_whole = True
        readings = self.readings
        for round_ in (*ROUNDS, number):
            for reading in list(self.readings):
                if not self.kept.is_time_over:
                    self._go_on(reading, min(round_, number))
        for reading in readings:
            log = self.log(reading)
            counts = self.counts.setdefault(reading.key, Counter())
            for case, (verdict, why, seconds) in enumerate(log.read()[:number]):
                counts[verdict] += 1
                self.seconds[reading.key] = self.seconds.get(reading.key, 0.0) + seconds
                if verdict == "wrong":
                    self.wrong.append(f"{reading.key}, case {case}: {why}")
            is_whole &= counts.total() == number
        return is_whole

    def _go_on(self, reading: Reading, number: int) -> None:
        """What is left of the cases of one file."""
        log = self.log(reading)
        while len(log.read()) < number and not self.kept.is_time_over:
            before = len(log.read())
            # In one fork, where no case pays for a start; in another where a case has ended it.
            ended = forks.call(
                lambda: self.read(reading, number, log),
                self.place,
                limit_seconds=CASE_SECONDS * (number + 10),
            )
            shutil.rmtree(self.place / "run", ignore_errors=True)
            if ended.code != 0:
                said = ended.err.strip()[-300:]
                log.append(["wrong", f"ended by {ended.code}: {said}", 0.0])
                if len(log.read()) == before + 1 and "AssertionError" in said:
                    # Its commands fail with the whole file.
                    self.readings = [own for own in self.readings if own is not reading]
                    return

    def log(self, reading: Reading) -> Log:
        return self.kept.log(type(self).__name__, str(self.seed), reading.key)

    def counted(self) -> Iterator[str]:
        """What came of them, in lines."""
        whole: Counter[str] = Counter()
        for key, counts in self.counts.items():
            whole.update(counts)
            one = 1000.0 * self.seconds.get(key, 0.0) / max(1, counts.total())
            yield f"{key:62} {_listed(counts)}; {one:.0f} ms each"
        yield f"{whole.total()} mutations of {len(self.counts)} files: {_listed(whole)}"

    def read(self, reading: Reading, number: int, log: Log) -> int:
        """The cases of one file that are left, in this process, as long as there is time."""
        forks.trials_are_forks()
        first = len(log.read())
        expected = [self.outcome(reading, command, None) for command in reading.commands]
        for whole, _ in expected:
            assert whole.code == 0, whole.err
        for case in range(first, number):
            if self.kept.is_time_over:
                break
            signal.alarm(CASE_SECONDS)
            began = time.process_time()
            numbers = random.Random(f"{self.seed} {reading.key} {case}")
            verdict, why = self.verdict(reading, numbers, case, expected)
            log.append([verdict, why, round(time.process_time() - began, 4)])
            signal.alarm(0)
        return 0

    def make_folders(self) -> None:
        """A finished run of every program that is needed, and one that was stopped at its end."""
        needed = {reading.program for reading in self.readings}
        for program in programs.programs(self.place) + programs.read_alone(self.place):
            if program.name not in needed:
                continue

            def make(folder: Path, program: programs.Program = program) -> None:
                outcome = forks.call(functools.partial(program.begin, folder), self.place)
                if outcome.code != 0:
                    raise RuntimeError(f"{program.name}: {outcome.err}")

            try:
                finished = self.kept.made(f"finished-{program.name}", make)
            except RuntimeError as error:
                self.wrong.append(str(error))
                self.readings = [own for own in self.readings if own.program != program.name]
                continue
            stopped = self.place / f"stopped-{program.name}"
            shutil.copytree(finished, stopped, dirs_exist_ok=True)
            (stopped / "status.json").write_text('{"status": "interrupted"}\n')

    def verdict(
        self, reading: Reading, numbers: random.Random, case: int, expected: list[Any]
    ) -> tuple[str, str]:
        """`refused`, `same`, `another` or `wrong`, and why."""
        k = case % len(reading.commands)
        before = (self.folder(reading) / reading.file).read_bytes()
        is_json = Path(reading.file).suffix in (".json", ".jsonl")
        way, after = mutated(before, numbers, is_json)
        outcome, files = self.outcome(reading, reading.commands[k], after)
        command = " ".join(reading.commands[k])
        if outcome.is_refusal:
            return "refused", ""
        if outcome.code != 0 or "Traceback" in outcome.err:
            return "wrong", f"{way}, {command}: exit code {outcome.code}: {outcome.err[-300:]!r}"
        whole, whole_files = expected[k]
        if (_without_times(outcome.out), files) == (_without_times(whole.out), whole_files):
            return "same", ""
        changed = [name for name in files if files[name] != whole_files.get(name)]
        if reading.is_open or _says_something_else(before, after):
            return "another", ""
        return "wrong", f"{way}, {command}: exit code 0, another outcome ({', '.join(changed)})"

    def folder(self, reading: Reading) -> Path:
        state = "stopped" if reading.is_stopped else "finished"
        return self.place / f"{state}-{reading.program}"

    def outcome(
        self, reading: Reading, command: tuple[str, ...], content: bytes | None
    ) -> tuple[forks.Outcome, dict[str, bytes]]:
        """What a command says and writes where the file has this content; None: its own."""
        folder = self.place / "run"
        shutil.copytree(self.folder(reading), folder)
        for pattern in reading.without:
            for path in folder.glob(pattern):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if content is not None:
            (folder / reading.file).write_bytes(content)
        outcome = forks.here([word.replace("RUN", "run") for word in command], self.place)
        files = {}
        for name, data in programs.files_of(folder).items():
            is_of_moment = programs.is_of_the_moment(name) and Path(name).name != "report.html"
            # The file itself, and the state of the run, are no outcome.
            if not is_of_moment and name not in (reading.file, "status.json"):
                files[name] = data
        shutil.rmtree(folder)
        return outcome, files


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in ("refused", "same", "another", "wrong"))


def _without_times(out: str) -> str:
    """What a command prints, without how long it took and the next one will take."""
    return re.sub(r"\b\d+\.\d s\b", "", out.partition("next: ")[0])


def _says_something_else(before: bytes, after: bytes) -> bool:
    """Whether both are JSON, or lines of it, and not the same. Tensors are not."""
    try:
        trees = [_tree(data) for data in (before, after)]
    except (ValueError, RecursionError):
        return False
    return repr(trees[0]) != repr(trees[1])


def _tree(data: bytes) -> Any:
    *complete, _unfinished = data.decode().split("\n")
    try:
        return json.loads(data)
    except (json.JSONDecodeError, RecursionError):
        if complete and not complete[0].endswith("}"):
            raise
        return [json.loads(line) for line in complete if line]


# ---- reading alone -------------------------------------------------------------------------------


class Tensors(Mutations):
    """Mutations of the files that hold tensors, read and not acted on: thousands in seconds.

    Right is a refusal, or the same tensors.
    """

    def __init__(self, kept: Kept, seed: int, only: tuple[str, ...] = ()) -> None:
        super().__init__(kept, seed, only)
        self.readings = [reading for reading in self.readings if reading.is_of_tensors]

    def read(self, reading: Reading, number: int, log: Log) -> int:
        from gradnas.runs import Run

        first = len(log.read())
        run = Run(self.place / "run")
        shutil.copytree(self.folder(reading), run.path)
        path = run.path / reading.file
        whole = path.read_bytes()
        expected = self.loaded(run, reading)
        for case in range(first, number):
            if self.kept.is_time_over:
                break
            began = time.process_time()
            numbers = random.Random(f"{self.seed} {reading.key} {case}")
            way, data = mutated(whole, numbers, is_json=False)
            path.write_bytes(data)
            verdict = ("wrong", f"{way}: read as something else")
            try:
                if _are_same(self.loaded(run, reading), expected):
                    verdict = ("same", "")
            except ValueError:
                verdict = ("refused", "")
            log.append([*verdict, round(time.process_time() - began, 4)])
        return 0

    def loaded(self, run: Any, reading: Reading) -> Any:
        """What the file holds."""
        from gradnas.runs import read_checkpoint

        if reading.file.endswith(".pt"):
            return read_checkpoint(run.path / reading.file).state
        return run.load_tensors(reading.file)


def _are_same(one: Any, other: Any) -> bool:
    """Whether two nests of tensors and plain values are equal."""
    import torch

    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(_are_same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        is_long = len(one) == len(other)
        return is_long and all(_are_same(a, b) for a, b in zip(one, other, strict=True))
    return one == other or repr(one) == repr(other)
