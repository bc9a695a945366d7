"""For the reference: `a, b: text` in a docstring is an entry for each name.

Our docstrings say of several arguments at once what is the same for all; the reader of docstrings
that the site uses (griffe) would take the first for a name and the others for its type.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ENTRY = re.compile(r"^( {4,})(\w+(?:, \w+)+): (.*)$")


def one_name_each(doc: str) -> str:
    """The docstring with an entry for each name."""
    written: list[str] = []
    lines = doc.split("\n")
    place = 0
    while place < len(lines):
        entry = ENTRY.match(lines[place])
        if entry is None:
            written.append(lines[place])
            place += 1
            continue
        indent, names, text = entry.groups()
        block = [text]
        place += 1
        while place < len(lines) and lines[place].startswith(indent + " "):
            block.append(lines[place].strip())
            place += 1
        for name in names.split(", "):
            written.append(f"{indent}{name}: {' '.join(block)}")
    return "\n".join(written)


class NameEach(griffe.Extension):
    """Rewrites the docstrings of what the site shows."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        del kwargs
        if obj.docstring is not None:
            obj.docstring.value = one_name_each(obj.docstring.value)
