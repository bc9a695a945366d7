"""What a report says of the data that were read, of any kind."""

from __future__ import annotations

from gradnas import runs
from gradnas.config import Json
from gradnas.reports.folder import Folder
from gradnas.reports.parts import escaped, headed, joined, row


def data_read(folder: Folder) -> str:
    """What was read for a search and for its training; once where it was the same."""
    searched = _table(folder)
    child = folder.child
    if child is None or not child.data:
        return searched
    trained = _table(child)
    if trained == searched:
        return searched
    return joined([headed("Search", searched), headed("Training", trained)])


def data_notices(folder: Folder) -> list[str]:
    """What looked wrong in the data, and whether they were replaced under way."""
    found = []
    for own in (folder, folder.child):
        if own is None or not own.data:
            continue
        found += _texts(own, "changes")
        found += _texts(own, "read", "warnings")
    sentences = dict.fromkeys(found)  # of a search and its training the same ones
    return [f"{text[:1].upper()}{text[1:]}." for text in sentences]


def _table(folder: Folder) -> str:
    if not folder.data:
        return ""  # of an earlier version
    rows = [row((escaped("Source"), escaped(_text(folder, "read", "source"))))]
    facts = _entry(folder, "read", "facts")
    if not isinstance(facts, dict):
        raise ValueError(f"{_where(folder)}: read.facts must be an object, not {facts!r}")
    for key in facts:
        title = _text(folder, "read", "facts", key, "title")
        text = _text(folder, "read", "facts", key, "text")
        rows.append(row((escaped(title), escaped(text))))
    left_out = _entry(folder, "read", "left_out")
    if not isinstance(left_out, list):
        raise ValueError(f"{_where(folder)}: read.left_out must be a list, not {left_out!r}")
    for part in left_out:
        text = part.get("text") if isinstance(part, dict) else part
        rows.append(row((escaped("Left out"), escaped(text))))
    return f"<table>{''.join(rows)}</table>"


def _where(folder: Folder) -> str:
    return str(folder.path / runs.DATA)


def _entry(folder: Folder, *keys: str) -> Json:
    value: Json = folder.data
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _text(folder: Folder, *keys: str) -> str:
    value = _entry(folder, *keys)
    if not isinstance(value, str):
        raise ValueError(f"{_where(folder)}: {'.'.join(keys)} must be a text, not {value!r}")
    return value


def _texts(folder: Folder, *keys: str) -> list[str]:
    values = _entry(folder, *keys)
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise ValueError(
            f"{_where(folder)}: {'.'.join(keys)} must be a list of texts, not {values!r}"
        )
    return values
