"""Wrong calls: every option of every command with every kind of wrong value.

The table comes from what the command line itself says it takes (the dataclasses that tyro reads),
so that an option that is added is tried too. Right is: exit code 2, one sentence that names the
option or what was given, no traceback, and no folder or file left.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
import random
import shutil
import sys
import types
import typing
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import forks
from kept import Kept
from programs import SHORT_STUDY, programs
from tyro.conf import Positional

LIMIT_SECONDS = 120.0  # a refusal takes one
NOT_NUMBERS = ("x", "", "None", "0x10", "1,5", "1e", "--", "\x1b[31m", "9" * 5000)
NOT_FINITE = ("nan", "inf", "-inf", "1e999")
NOT_WHOLE = ("1.5", "9" * 30, "-" + "9" * 30)
# Of options that are texts, what is none of theirs. An empty text is nobody's.
WRONG_TEXTS: dict[str, tuple[str, ...]] = {
    "recipe": ("", "digtis", "no/such.json", "FOLDER", "EMPTY.json", "DEEP.json", "BYTES.json"),
    "what": ("", "digtis", "no/such.json", "EMPTY.json", "DEEP.json", "BYTES.json", "FOLDER"),
    "data": ("", "no/such/folder", "EMPTY.json", "FOLDER", "x" * 300),
    "device": ("", "gpu", "cuda:99", "cpu:x", "meta"),
    "relaxation": ("", "softmaxx", "gumbel:temperature=nan", "gumbel:temperature=x", "gumbel:x",
                   "gumbel:nope=1", "no_module:Cls", "math:pi"),
    "gradient": ("", "nope", "unrolled:mode=exakt", "unrolled:epsilon=inf", "unrolled:steps=1e9",
                 "reinforce:samples=0"),
    "imports": ("no_such_module", "a b", "."),
    "target": ("", "no_such_column"),
    "features": ("", "no_such_column"),
    "weights": ("", "no_such_column"),
    "example": ("", "steven"),
    "primitives": ("", "linear_exq"),
    "kind": ("", "video"),
    "task": ("", "no/such.py", "FOLDER", "EMPTY.json", "PIPE", "my_task.py:nope"),
    "terms": ("", "betta", "beta-decay:weight=x", "beta-decay:nope=1", ","),
    "stabilizers": ("", "smoothdart", "perturbed-alphas:epsilon=nan", ","),
    "selection": ("", "strongestt", "perturbation:x", "perturbation:epochs=-1"),
    "form": ("", "a*x +", "__import__('os')", "lambda: 1", "a*q1(x)"),
    "start": ("", "a*x +", "__import__('os')"),
    "methods": ("", "drats", "darts,,snas", "darts,darts", "gumbel:nope=1", ","),
    "training": ("", "digits-evla", "no/such.json"),
    "devices": ("x", "0,,1", "-1"),
    "address": ("", "auto"),
    "partition": ("", "gpu"),
}  # fmt: skip
WRONG_INPUTS = ("", "no/such", "EMPTY.json", "FOLDER", "DEEP.json", "BYTES.json", "PIPE")
WRONG_OUTPUTS = ("EMPTY.json/x", "FOREIGN", "/proc/nothing/x")
WRONG_FILES = ("no/such/x", "FOLDER", "EMPTY.json/x.json")


@dataclass(frozen=True)
class Call:
    """A call that must be refused.

    Attributes:
        option: the field of the command's dataclass.
        value: that is wrong.
        words: one of these must stand in the sentence.
    """

    arguments: tuple[str, ...]
    option: str
    value: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(word if len(word) < 60 else f"{word[:60]}..." for word in self.arguments)


@dataclass
class Calls:
    """The calls, and what came of them.

    Args:
        kept: for the files that they name.
    """

    kept: Kept
    seed: int = 0
    only: tuple[str, ...] = ()
    counts: dict[str, Counter[str]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.place = self.kept.path
        for _, command in _commands():  # so that the forks need not
            importlib.import_module(command.work.partition(":")[0])
        of_runs = {"resume", "evaluate", "generate", "report", "watch", "export"}
        needs_runs = not self.only or bool(of_runs.intersection(self.only))
        self.bases = _bases(self.kept, needs_runs)
        self.calls = list(self._all())

    def run(self, number: int | None = None) -> bool:
        """Make so many of the calls, drawn by the seed; None: all. Whether they are done."""
        chosen = self.calls
        if number is not None and number < len(chosen):
            chosen = random.Random(self.seed).sample(chosen, number)
        log = self.kept.log("calls", str(self.seed), *self.only)
        known = dict(log.read())
        for call in chosen:
            words = " ".join(call.arguments)
            if words not in known:
                if self.kept.is_time_over:
                    return False
                known[words] = self._complaint(call)
                log.append([words, known[words]])
            complaint = known[words]
            counts = self.counts.setdefault(call.arguments[0], Counter())
            counts["wrong" if complaint else "refused"] += 1
            if complaint:
                self.wrong.append(f"{call}: {complaint}")
        return True

    def counted(self) -> Iterator[str]:
        """What came of them, in lines."""
        num_calls = 0
        for command, counts in self.counts.items():
            num_calls += counts.total()
            yield f"{command:10} refused {counts['refused']}, wrong {counts['wrong']}"
        yield f"{num_calls} of {len(self.calls)} wrong calls, {len(self.wrong)} wrong"

    def _complaint(self, call: Call) -> str | None:
        before = _listing(self.place)

        def work() -> int:
            from gradnas.cli import main

            # Where a test runs this, the streams of Python are others than those of the fork.
            with (
                open(1, "w", closefd=False) as sys.stdout,
                open(2, "w", closefd=False) as sys.stderr,
            ):
                return main(list(call.arguments))

        outcome = forks.call(work, self.place, limit_seconds=LIMIT_SECONDS, is_counted=False)
        lines = outcome.err.splitlines()
        said = [line for line in lines if line.startswith("gradnas: ")]
        if "Traceback" in outcome.err or "Traceback" in outcome.out:
            return f"a traceback, {lines[-1][:200]}"
        if outcome.code != 2:
            return f"exit code {outcome.code}: {(said or lines or ['nothing said'])[-1][:200]}"
        if len(said) != 1 or lines[-1] != said[0]:
            return f"{len(said)} sentences in {len(lines)} lines: {lines[-1:]}"[:300]
        if len(said[0]) > 1200 or not said[0].isprintable():
            return f"a sentence of {len(said[0])} characters, {said[0][:100]!r}"
        if not any(word and word in said[0] for word in call.words):
            return f"nothing of {call.words} is in: {said[0][:300]}"
        left = _listing(self.place) - before
        if left:
            return f"left: {sorted(left)[:5]}"
        return None

    def _all(self) -> Iterator[Call]:
        for name, command in _commands():
            if self.only and name[0] not in self.only:
                continue
            for option in dataclasses.fields(command):
                yield from self._of_option(name, command, option.name)

    def _of_option(self, name: tuple[str, ...], command: Any, option: str) -> Iterator[Call]:
        hint = typing.get_type_hints(command, include_extras=True)[option]
        is_positional = "Positional" in str(hint) or _is_marked_positional(hint)
        flag = _flag(option, hint)
        kinds = _kinds(hint)
        base = self.bases[name]
        if option == "action":
            return
        for value in self._values(option, kinds, name):
            words = (flag, option, option.replace("_", " "), value[:60] or "''", repr(value)[1:40])
            words = (*words, Path(value[:60]).name)
            if is_positional:
                arguments = _with_positional(base, value)
                words = (
                    *words,
                    "there is no",
                    "no run folder",
                    "needs",
                    "cannot read .",
                    ". is not",
                )
            else:
                arguments = (*base, f"{flag}={value}")
            yield Call((*name, *arguments), option, value, words)

    def _values(self, option: str, kinds: tuple[Any, ...], name: tuple[str, ...]) -> Iterator[str]:
        from gradnas.config import RANGES

        is_text = str in kinds
        if option == "out":
            is_folder = name[0] in ("search", "train", "discover", "study")
            yield from WRONG_OUTPUTS if is_folder else WRONG_FILES
            yield ""
        elif int in kinds or float in kinds:
            yield from NOT_NUMBERS
            yield from NOT_FINITE
            if int in kinds:
                yield from NOT_WHOLE
            if option in RANGES:
                range_ = RANGES[option]
                if range_.low > 0 or int in kinds:
                    yield str(int(range_.low) - 1)
                yield "-1" if range_.low >= 0 else "1e300"
                yield str(int(range_.high) + 1) if int in kinds else f"{range_.high * 1.1 + 1:g}"
        elif any(typing.get_origin(kind) is typing.Literal for kind in kinds):
            yield from ("x", "", "None", "0")
        elif bool in kinds:
            yield from ("maybe", "2")
        elif is_text or any("tuple" in str(kind) for kind in kinds):
            yield from WRONG_TEXTS.get(option, ())
        elif Path in kinds:
            yield from WRONG_INPUTS


def _listing(place: Path) -> set[str]:
    return {str(path.relative_to(place)) for path in place.rglob("*")}


def _commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """The words that name each command, and its dataclass."""
    union = importlib.import_module("gradnas.cli.main").AnyCommand
    for command in typing.get_args(union):
        cls, mark = typing.get_args(command)[:2]
        inner = {f.name: typing.get_type_hints(cls, include_extras=True)[f.name]
                 for f in dataclasses.fields(cls)}  # fmt: skip
        if set(inner) == {"action"}:
            for action in typing.get_args(inner["action"]):
                action_cls, action_mark = typing.get_args(action)[:2]
                yield (mark.name, action_mark.name), action_cls
        elif "action" in inner:
            yield (mark.name, *_literals(inner["action"])), cls
        else:
            yield (mark.name,), cls


def _literals(hint: Any) -> tuple[str, ...]:
    for kind in _kinds(hint):
        if typing.get_origin(kind) is typing.Literal:
            return typing.get_args(kind)[:1]
    return ()


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The types that an annotation offers, without None and without what is said about it."""
    if hasattr(hint, "__metadata__"):
        return _kinds(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        found: list[Any] = []
        for part in typing.get_args(hint):
            found += _kinds(part)
        return tuple(kind for kind in found if kind is not type(None))
    return (hint,)


def _is_marked_positional(hint: Any) -> bool:
    marker = typing.get_args(Positional[int])[1]
    while hasattr(hint, "__metadata__"):
        if any(mark is marker or mark == marker for mark in hint.__metadata__):
            return True
        hint = typing.get_args(hint)[0]
    return False


def _flag(option: str, hint: Any) -> str:
    for mark in getattr(hint, "__metadata__", ()):
        name = getattr(mark, "name", None)
        if isinstance(name, str):
            option = name
    return f"--{option.replace('_', '-')}"


def _with_positional(base: tuple[str, ...], value: str) -> tuple[str, ...]:
    """The base with another first word."""
    return (value, *base[1:])


def _bases(kept: Kept, needs_runs: bool) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Calls that would be right, by the command's words; runs and files that they need are made."""
    place = kept.path
    (place / "FOLDER").mkdir(exist_ok=True)
    (place / "FOREIGN").mkdir(exist_ok=True)
    (place / "FOREIGN" / "thesis.tex").write_text("mine")
    (place / "EMPTY.json").write_text("")
    (place / "DEEP.json").write_text("[" * 200_000)
    (place / "BYTES.json").write_bytes(bytes(range(256)))
    if not (place / "PIPE").exists():
        os.mkfifo(place / "PIPE")
    (place / "t.csv").write_text("x,w,y\n" + "".join(f"{k},1,{k * k}\n" for k in range(1, 13)))
    by_name = {program.name: program for program in programs(place)}

    def make(folder: Path, name: str) -> None:
        outcome = forks.run(by_name[name].command(folder), place)
        assert outcome.code == 0, outcome.err

    for name in ("train", "text-train") if needs_runs else ():
        kept.made(f"run-{name}", lambda folder, name=name: make(folder, name))
    if needs_runs:
        shutil.copytree(place / "run-train", place / "stopped", dirs_exist_ok=True)
        (place / "stopped" / "status.json").write_text('{"status": "interrupted"}')
    table = {"format": "gradnas-latency", "version": 1, "entries": {}}
    entry = {"ms": 1.0, "spread_ms": 0.1, "count": 9, "features": {"macs": 1.0}}
    table["entries"] = {f"Conv-id:{k}": entry for k in range(12)}
    (place / "table.json").write_text(json.dumps(table))
    image, words = str(place / "run-train"), str(place / "run-text-train")
    return {
        ("search",): (str(place / "search.json"),),
        ("train",): (str(place / "train.json"),),
        ("resume",): (str(place / "stopped"),),
        ("evaluate",): (image,),
        ("generate",): (words,),
        ("report",): (image,),
        ("watch",): (image,),
        ("draw",): ("DARTS_V2", "-o", "cells.svg"),
        ("export",): (image, "-o", "model.py"),
        ("latency", "measure"): (str(place / "search.json"), "--repeats", "1", "-o", "out.json"),
        ("latency", "fit"): (str(place / "table.json"), "-o", "fitted.json"),
        ("latency", "show"): (str(place / "table.json"),),
        ("data", "show"): ("digits",),
        ("discover",): (str(place / "t.csv"), "--target", "y", "--effort", "0.05"),
        ("study",): (str(place / "my_task.py"), *SHORT_STUDY),
        ("recipes",): (),
    }
