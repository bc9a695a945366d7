"""Files that are read, damaged in every way, and the commands that read them.

Right is a refusal in one sentence, or the outcome of the file as it was. A text that still is JSON
but says something else may lead to another outcome: that is counted by itself. Of tensors (the
checkpoint, weights, alphas) no other outcome is right.
"""

from __future__ import annotations

import functools
import json
import random
import shutil
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forks
import programs

WRONG_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    10**40,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../etc/passwd",
    "\x1b[31m",
    [],
    {},
    [[]],
    {"type": []},
)
DEEP = "[" * 200_000
CASE_SECONDS = 120  # a case takes less than one; what takes longer hangs


@dataclass(frozen=True)
class Reading:
    """A file of a run folder and the commands that read it, each with the folder put in for RUN.

    Attributes:
        program: whose folder it is.
        is_stopped: the folder is of a run that was stopped after its last epoch.
    """

    file: str
    program: str
    commands: tuple[tuple[str, ...], ...]
    is_stopped: bool = False

    @property
    def is_of_tensors(self) -> bool:
        return Path(self.file).suffix in (".pt", ".safetensors")


RESUME = ("resume", "RUN")
REPORT = ("report", "RUN")
WATCH = ("watch", "RUN")
EVALUATE = ("evaluate", "RUN")
GENERATE = ("generate", "RUN", "--tokens", "5")
DRAW = ("draw", "RUN", "-o", "x.svg")
SHORT = ("--epochs", "1", "--max-steps", "1")
TRAIN = ("train", "RUN", *SHORT, "--channels", "2", "--cells", "2")
OWN_TASK = ("--task", "my_task.py")
SHOW_TABLE = ("latency", "show", "RUN/table.json")
FIT_TABLE = ("latency", "fit", "RUN/table.json")
READINGS = (
    Reading("checkpoint.pt", "search", (RESUME,), is_stopped=True),
    Reading("checkpoint.pt", "text-train", (RESUME,), is_stopped=True),
    Reading("config.json", "search", (RESUME, REPORT, WATCH), is_stopped=True),
    Reading("config.json", "search", (TRAIN, DRAW)),
    Reading("config.json", "train", (EVALUATE, REPORT)),
    Reading("config.json", "text-train", (EVALUATE, GENERATE)),
    Reading("config.json", "task-search", ((*RESUME, *OWN_TASK), REPORT), is_stopped=True),
    Reading("config.json", "task-train", ((*EVALUATE, *OWN_TASK), REPORT, WATCH)),
    Reading("config.json", "fit", (REPORT, WATCH)),
    Reading("config.json", "discover", (RESUME, REPORT), is_stopped=True),
    Reading("environment.json", "search", (RESUME, REPORT), is_stopped=True),
    Reading("status.json", "search", (RESUME, REPORT, WATCH), is_stopped=True),
    Reading("data.json", "search", (RESUME, REPORT), is_stopped=True),
    Reading("data.json", "search", (TRAIN,)),
    Reading("data.json", "task-search", ((*RESUME, *OWN_TASK),), is_stopped=True),
    Reading("images.json", "search", (RESUME,), is_stopped=True),
    Reading("images.json", "search", (TRAIN,)),
    Reading("metrics.jsonl", "search", (RESUME, REPORT, WATCH), is_stopped=True),
    Reading("timings.jsonl", "search", (REPORT, WATCH)),
    Reading("alphas.safetensors", "search", (REPORT, WATCH)),
    Reading("weights.safetensors", "train", (EVALUATE,)),
    Reading("weights.safetensors", "text-train", (GENERATE,)),
    Reading("results.json", "train", (EVALUATE, REPORT)),
    Reading("results.json", "search", (REPORT, WATCH)),
    Reading("results.json", "task-search", (REPORT, WATCH)),
    Reading("results.json", "task-train", ((*EVALUATE, *OWN_TASK), REPORT)),
    Reading("genotype.json", "search", (DRAW, REPORT, TRAIN, WATCH)),
    Reading("genotype.json", "task-search", (DRAW, (*TRAIN[:2], *SHORT, *OWN_TASK))),
    Reading("vocabulary.json", "text-train", (GENERATE, EVALUATE)),
    Reading("table.json", "table", (SHOW_TABLE, FIT_TABLE)),
)


# ---- what is done to a file ----------------------------------------------------------------------


def mutated(data: bytes, numbers: random.Random, is_json: bool) -> tuple[str, bytes]:
    """What was done, and the bytes after it."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [_one_bit, _one_bit, _bits, _cut, _slice]
    ways += [_noise, _zeros, _twice, _nothing]
    if is_json:
        ways += [_value, _value, _value, _key, _deep]
    way = numbers.choice(ways)
    return way.__name__.strip("_"), way(data, numbers)


def _one_bit(data: bytes, numbers: random.Random) -> bytes:
    place = numbers.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << numbers.randrange(8)]) + data[place + 1 :]


def _bits(data: bytes, numbers: random.Random) -> bytes:
    for _ in range(numbers.randint(2, 20)):
        data = _one_bit(data, numbers)
    return data


def _cut(data: bytes, numbers: random.Random) -> bytes:
    return data[: numbers.randrange(len(data))]


def _slice(data: bytes, numbers: random.Random) -> bytes:
    first, last = sorted(numbers.randrange(len(data)) for _ in range(2))
    return data[:first] + data[last:]


def _noise(data: bytes, numbers: random.Random) -> bytes:
    place = numbers.randrange(len(data))
    return data[:place] + numbers.randbytes(40) + data[place + 40 :]


def _zeros(data: bytes, numbers: random.Random) -> bytes:
    place = numbers.randrange(len(data))
    return data[:place] + bytes(min(512, len(data) - place)) + data[place + 512 :]


def _twice(data: bytes, numbers: random.Random) -> bytes:
    return data + data


def _nothing(data: bytes, numbers: random.Random) -> bytes:
    return b""


def _deep(data: bytes, numbers: random.Random) -> bytes:
    return DEEP.encode()


def _value(data: bytes, numbers: random.Random) -> bytes:
    """A value somewhere in the tree is replaced by one of another kind."""
    return _with_one_changed(data, numbers, lambda holder, key: _put(holder, key, numbers))


def _put(holder: Any, key: Any, numbers: random.Random) -> None:
    holder[key] = numbers.choice(WRONG_VALUES)


def _key(data: bytes, numbers: random.Random) -> bytes:
    """An entry is gone, or stands under another name."""

    def change(holder: Any, key: Any) -> None:
        value = holder.pop(key)
        if isinstance(holder, dict) and numbers.random() < 0.5:
            holder[f"{key}x"] = value

    return _with_one_changed(data, numbers, change)


def _with_one_changed(
    data: bytes, numbers: random.Random, change: Callable[[Any, Any], None]
) -> bytes:
    lines = data.decode().splitlines(keepends=True)
    # Of a .jsonl file one line; any other JSON is one tree.
    is_of_lines = len(lines) > 1 and lines[0].rstrip().endswith("}")
    k = numbers.randrange(len(lines)) if is_of_lines else 0
    tree = json.loads(lines[k] if is_of_lines else data)
    places: list[tuple[Any, Any]] = []
    ahead = [tree]
    while ahead:
        value = ahead.pop()
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        places += [(value, key) for key in keys]
        ahead += [value[key] for key in keys if isinstance(value[key], (dict, list))]
    change(*numbers.choice(places))
    text = json.dumps(tree) if is_of_lines else json.dumps(tree, indent=2)
    if is_of_lines:
        lines[k] = f"{text}\n"
        return "".join(lines).encode()
    return f"{text}\n".encode()


# ---- the campaign --------------------------------------------------------------------------------


class Mutations:
    """A campaign of mutations; everything is written below `place`."""

    def __init__(self, place: Path, seed: int, only: tuple[str, ...] = ()) -> None:
        self.place = place
        self.seed = seed
        self.readings = []
        for reading in READINGS:
            if not only or reading.file in only or reading.program in only:
                self.readings.append(reading)
        self.wrong: list[str] = []
        self.counts: dict[str, Counter[str]] = {}

    def run(self, number: int) -> None:
        """So many mutations of every file."""
        self.make_folders()
        for reading in self.readings:
            verbs = ", ".join(command[0] for command in reading.commands)
            key = f"{reading.file} ({reading.program}: {verbs})"
            log = self.place / "verdicts.jsonl"
            log.unlink(missing_ok=True)
            # In one fork for each file, where no case pays for a start.
            limit = CASE_SECONDS * (number + 10)
            ended = forks.call(
                lambda reading=reading, key=key, log=log: self.read(reading, key, number, log),
                self.place,
                limit_seconds=limit,
            )
            shutil.rmtree(self.place / "run", ignore_errors=True)
            counts = self.counts.setdefault(key, Counter())
            lines = log.read_text().splitlines() if log.exists() else []
            for case, line in enumerate(lines):
                verdict, why = json.loads(line)
                counts[verdict] += 1
                if verdict == "wrong":
                    self.wrong.append(f"{key}, case {case}: {why}")
            if ended.code != 0:
                counts["wrong"] += 1
                said = ended.err.strip()[-300:]
                self.wrong.append(f"{key}, case {len(lines)}: ended by {ended.code}: {said}")
            print(f"{key:54} {_listed(counts)}", flush=True)

    def total(self) -> str:
        """How many mutations of how many files, and what came of them."""
        counts: Counter[str] = Counter()
        for own in self.counts.values():
            counts.update(own)
        return f"{counts.total()} mutations of {len(self.counts)} files: {_listed(counts)}"

    def read(self, reading: Reading, key: str, number: int, log: Path) -> int:
        """All cases of one file, in this process."""
        expected = [self.outcome(reading, command, None) for command in reading.commands]
        for whole, _ in expected:
            assert whole.code == 0, whole.err
        with log.open("w") as file:
            for case in range(number):
                signal.alarm(CASE_SECONDS)
                numbers = random.Random(f"{self.seed} {key} {case}")
                verdict = self.verdict(reading, numbers, case, expected)
                file.write(json.dumps(verdict) + "\n")
                file.flush()
                signal.alarm(0)
        return 0

    def make_folders(self) -> None:
        """A finished run of every program that is needed, and one that was stopped at its end."""
        needed = {reading.program for reading in self.readings}
        for program in programs.programs(self.place) + programs.tables(self.place):
            if program.name not in needed:
                continue
            finished = self.place / f"finished-{program.name}"
            begin = functools.partial(program.begin, finished)
            outcome = forks.call(begin, self.place)
            assert outcome.code == 0, outcome.err
            stopped = self.place / f"stopped-{program.name}"
            shutil.copytree(finished, stopped)
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
        if not reading.is_of_tensors and _says_something_else(before, after):
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
        if content is not None:
            (folder / reading.file).write_bytes(content)
        outcome = forks.here([word.replace("RUN", "run") for word in command], self.place)
        files = {}
        for name, data in programs.files_of(folder).items():
            is_of_moment = Path(name).name in programs.OF_THE_MOMENT - {"report.html"}
            # The file itself, and the state of the run, are no outcome.
            if not is_of_moment and name not in (reading.file, "status.json"):
                files[name] = data
        shutil.rmtree(folder)
        return outcome, files


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {counts[name]}" for name in ("refused", "same", "another", "wrong"))


def _without_times(out: str) -> str:
    """What a command prints, without the next one, which says how long it will take."""
    return out.partition("next: ")[0]


def _says_something_else(before: bytes, after: bytes) -> bool:
    """Whether both are JSON, or lines of it, and not the same."""
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

    def __init__(self, place: Path, seed: int, only: tuple[str, ...] = ()) -> None:
        super().__init__(place, seed, only)
        self.readings = [reading for reading in self.readings if reading.is_of_tensors]

    def read(self, reading: Reading, key: str, number: int, log: Path) -> int:
        from gradnas.runs import Run

        run = Run(self.folder(reading))
        path = run.path / reading.file
        whole = path.read_bytes()
        expected = self.loaded(run, reading)
        with log.open("w") as file:
            for case in range(number):
                numbers = random.Random(f"{self.seed} {key} {case}")
                way, data = mutated(whole, numbers, is_json=False)
                path.write_bytes(data)
                verdict = ("wrong", f"{way}: read as something else")
                try:
                    if _are_same(self.loaded(run, reading), expected):
                        verdict = ("same", "")
                except ValueError:
                    verdict = ("refused", "")
                file.write(json.dumps(verdict) + "\n")
        path.write_bytes(whole)
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
