"""What is said of a mistyped command: one sentence, out of the box that tyro draws."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

from gradnas.cli.groups import grouped
from gradnas.cli.lines import line

T = TypeVar("T")

HELP = {"-h", "--help"}
WIDE = "10000"  # columns, for a box whose lines are not broken
KINDS = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path", "STR": "a text"}


class _Shown(io.StringIO):
    """What is printed, of the form that standard output would have got."""

    encoding = "ascii"

    def __init__(self) -> None:
        super().__init__()
        self._place = sys.stdout
        self.encoding = (getattr(sys.stdout, "encoding", None) or "ascii").lower()

    def isatty(self) -> bool:
        return self._place.isatty()


def one_sentence(parse: Callable[[], T], arguments: Sequence[str]) -> T:
    """What `parse` gives; where it ends with a box about mistyped words, a sentence in its place.

    Help goes to standard output, its options in groups.

    Args:
        arguments: that it parses.

    Raises:
        SystemExit: as `parse` does.
    """
    columns = os.environ.get("COLUMNS")
    box = io.StringIO()
    try:
        if HELP.intersection(arguments):  # as wide as the terminal
            shown = _Shown()
            try:
                with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(shown):
                    return parse()
            except SystemExit as end:
                if end.code != 2:
                    print(grouped(shown.getvalue()), end="")
                    raise
        os.environ["COLUMNS"] = WIDE
        with contextlib.redirect_stderr(box):
            return parse()
    except SystemExit as end:
        if end.code == 2:
            line(f"gradnas: {sentence_of(box.getvalue())}", error=True)
        raise
    finally:
        if columns is None:
            os.environ.pop("COLUMNS", None)
        else:
            os.environ["COLUMNS"] = columns


def sentence_of(box: str) -> str:
    """The sentence that stands in a box of tyro's, which is drawn in Unicode or in ASCII."""
    parts: list[list[str]] = [[]]  # the rows between its rules
    for row in box.splitlines():
        inside = row.strip().strip("│╭╮╰╯").strip()
        is_border = row.strip().startswith(("╭", "╰"))
        is_rule = len(inside) > 4 and not inside.strip("─-")
        if is_border or is_rule:
            parts.append([])
        elif inside:
            parts[-1].append(inside)
    is_ascii = "─" not in box
    if is_ascii and len(parts) > 1:
        del parts[0]  # the title, which in Unicode is a part of the border
    texts = [" ".join(part) for part in parts if part]
    if not texts:
        return "this command cannot be understood: see gradnas --help"
    return _plainly(parts, texts)


def _plainly(parts: list[list[str]], texts: list[str]) -> str:
    text = texts[0]

    wrong = re.match(r"Error parsing (\S+): no type matching (.+?) could be instantiated", text)
    if wrong is not None:
        given = re.search(r"instantiated from \[(.*?)\]\.", text)
        value = shortened(given[1]) if given else "what was given"
        return f"{wrong[1]} must be {_kind(wrong[2])}, not {value}"

    choice = re.match(r"invalid choice (.+) for argument '(.+?)'\. Expected one of \((.*)\)", text)
    if choice is not None:
        # Options that were not given are None, which nobody can type.
        options = {option for option in re.findall(r"'([^']*)'", choice[3]) if option != "None"}
        return (
            f"{choice[2]} must be one of {', '.join(sorted(options))}, not {shortened(choice[1])}"
        )

    without = re.match(r"Missing value for argument '(.+?)'", text)
    if without is not None:
        return f"{without[1]} needs a value"

    missing = re.match(r"Missing from ([^:]+): ", text)
    if missing is not None:
        names = [row for row in next(part for part in parts if part)[1:] if "(required)" not in row]
        return f"{missing[1]} needs {' and '.join(names)}: see {missing[1]} --help"

    unknown = re.match(r"Unrecognized options:\s*(.*)", text)
    if unknown is not None:
        hint = ""
        for other in texts[1:]:
            if other.startswith("Available subcommands"):
                hint = f"; the commands are {other.partition(': ')[2]}"
            near = re.match(r"Perhaps you meant: (\S+)", other)
            if near is not None:
                hint = f" (did you mean {near[1]}?)"
        return f"unknown here: {unknown[1] or 'a value where none is taken'}{hint}"
    return text


def shortened(value: str) -> str:
    return value if len(value) <= 80 else f"{value[:80]}..."


def _kind(metavar: str) -> str:
    """`INT` or `{a,b}` in words."""
    if metavar.startswith("{"):
        return f"one of {', '.join(sorted(metavar.strip('{}').split(',')))}"
    return KINDS.get(metavar, metavar)
