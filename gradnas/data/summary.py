"""What was read: one value for any kind of data, its line, its JSON form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gradnas.config import Json, JsonObject


@dataclass(frozen=True)
class Fact:
    """One thing that is known of data that were read.

    Attributes:
        key: its name in a file: `splits`.
        title: its name in a table: "Splits".
        text: as a part of a sentence: "1,437 training and 360 test images".
        value: the same as plain values, for programs.
    """

    key: str
    title: str
    text: str
    value: Json


@dataclass(frozen=True)
class LeftOut:
    """What lies among the data and was not read.

    Attributes:
        count: how many.
        one, many: what they are: "file that is no image", "files that are no images".
        example: one of them.
    """

    count: int
    one: str
    many: str
    example: str

    @property
    def text(self) -> str:
        """Such as `2 files that are no images (a/notes.txt)`."""
        what = self.one if self.count == 1 else self.many
        such_as = "" if self.count == 1 else "such as "
        return f"{self.count:,} {what} ({such_as}{self.example})"


@dataclass(frozen=True)
class DataSummary:
    """What was read, before a search, a training or an evaluation.

    Attributes:
        source: what the data are called.
        facts: splits and their sizes first, what is done to them last.
        left_out: what was not read, and why.
        warnings: what looks wrong, each a sentence without a full stop.
    """

    source: str
    facts: Sequence[Fact] = ()
    left_out: Sequence[LeftOut] = ()
    warnings: Sequence[str] = ()

    def line(self) -> str:
        """All of it but the warnings, in one line for the terminal."""
        parts = [fact.text for fact in self.facts]
        if self.left_out:
            parts.append(f"left out: {', '.join(part.text for part in self.left_out)}")
        return f"{self.source}: {'; '.join(parts)}"

    def sentences(self) -> list[str]:
        """The line and the warnings, as they are printed: each a line."""
        return [f"data: {self.line()}", *(f"warning: {text}" for text in self.warnings)]

    def to_json(self) -> JsonObject:
        """For `results.json` and `data.json`."""
        facts = {}
        for fact in self.facts:
            facts[fact.key] = {"title": fact.title, "text": fact.text, "value": fact.value}
        left_out = []
        for part in self.left_out:
            left_out.append({"count": part.count, "text": part.text, "example": part.example})
        return {
            "source": self.source,
            "line": self.line(),
            "facts": facts,
            "left_out": left_out,
            "warnings": list(self.warnings),
        }
