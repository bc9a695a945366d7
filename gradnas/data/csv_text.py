"""The text of a CSV file: its header, its separator, its rows; errors name the row."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from gradnas.config import check_file
from gradnas.data.characters import decoded

# White space, and marks of no width: those of byte order, of joined words, soft hyphens.
_AROUND = re.compile(
    "^[\\s\ufeff\u200b-\u200f\u2060\u00ad]+|[\\s\ufeff\u200b-\u200f\u2060\u00ad]+$"
)
SEPARATORS = (",", ";", "\t")  # of two that part a line equally often the first counts
ROWS_COMPARED = 20  # that tell which of them it is


def text_of(path: Path) -> str:
    """The characters of a file, whatever marks of Unicode it begins with."""
    try:
        check_file(path, "a CSV file")
        return decoded(path.read_bytes(), str(path))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error


def rows_of(text: str, separator: str, path: Path) -> Iterator[list[str]]:
    """The rows of a table, with the header; empty lines are none."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=separator, skipinitialspace=True)
    try:
        for row in reader:
            is_empty = not row or (len(row) == 1 and not row[0].strip())
            if not is_empty:
                yield row
    except csv.Error as error:
        raise ValueError(
            f"{path} is not a readable CSV file: {error}, near line {reader.line_num}"
        ) from error


def header_of(text: str, path: Path) -> tuple[list[str], str]:
    """Names of the columns, and the separator: the one that parts the first line most often.

    Where the rows below are parted into as many values by another one alone, it is that one: a name
    may hold a comma, `Time, s;Height`. A quoted name may go over several lines.
    """
    separator = ""
    fields: list[str] = []
    fits = False
    for candidate in SEPARATORS:
        first = list(islice(rows_of(text, candidate, path), 1 + ROWS_COMPARED))
        parted = first[0] if first else []
        parts_rows = len(parted) > 1 and {len(row) for row in first[1:]} == {len(parted)}
        if (parts_rows, len(parted)) > (fits, len(fields)):
            separator = candidate
            fields = parted
            fits = parts_rows
    if not fields:
        raise ValueError(f"{path} is empty: its first line must name the columns")
    names = [name_of(field) for field in fields]
    if all(_is_number(name) for name in names):
        first_line = separator.join(fields)[:40].strip()
        raise ValueError(
            f"the first line of {path} holds numbers ({first_line}); it must name the columns"
        )
    return names, separator


def name_of(field: str) -> str:
    """The name of a column on one line, without white space and invisible marks around it.

    A letter with an accent is one character, however the file or a terminal composes it.
    """
    on_one_line = re.sub(r"\s*[\r\n]+\s*", " ", _AROUND.sub("", field))
    return unicodedata.normalize("NFC", on_one_line)


def frame_of(text: str, header: Sequence[str], separator: str, path: Path) -> Any:
    """The rows below the header as a pandas frame; ValueError for one of another length."""
    # Imported here: only those who read tables need it.
    import pandas

    num_columns = len(header)
    number = -1
    for number, row in enumerate(rows_of(text, separator, path)):
        if len(row) != num_columns:
            values = "1 value" if len(row) == 1 else f"{len(row)} values"
            raise ValueError(
                f"{path}: row {number} has {values}, but the header names {num_columns} columns"
                f"{_why_longer(row, num_columns, separator)}"
            )
        lost = None if number == 0 else next(filter(_is_lost, row), None)
        if lost is not None:
            name = header[row.index(lost)]
            raise ValueError(
                f"{path}: column {name!r} holds {lost.strip()} in row {number}, which is 0 as a "
                "number of 64 bits: write it in another unit"
            )
    if number < 1:
        raise ValueError(f"{path} has a header line but no rows")
    try:
        frame = pandas.read_csv(
            io.StringIO(text, newline=""),
            sep=separator,
            # The names are ours, on one line and without the white space around them.
            header=0,
            names=list(header),
            # Without this pandas takes the first column for row names where rows are longer than
            # the header.
            index_col=False,
            skipinitialspace=True,
            # A column's type is a matter of all its rows, not of those of a part of the file.
            low_memory=False,
        )
    except (pandas.errors.ParserError, pandas.errors.EmptyDataError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path} is not a readable CSV file: {reason}") from error
    if len(frame) != number:
        raise ValueError(
            f"{path} can be read in two ways, as {number} rows and as {len(frame)}: look at its "
            "quotes and its empty lines"
        )
    return frame


def _is_lost(value: str) -> bool:
    """Whether a number is so small that it would be read as 0."""
    if "e-" not in value and "E-" not in value:
        return False
    try:
        is_zero = float(value) == 0.0
    except ValueError:
        return False  # a text
    return is_zero and re.search("[1-9]", re.split("[eE]", value)[0]) is not None


def _why_longer(row: Sequence[str], num_columns: int, separator: str) -> str:
    """A guess at why a row does not have as many values as there are names."""
    are_whole = all(re.fullmatch(r"\s*[-+]?\d+\s*", value) for value in row)
    if separator == "," and are_whole and len(row) == 2 * num_columns:
        return ": are its commas decimal commas? Write 1.5, not 1,5"
    if len(row) > num_columns and not row[-1].strip():
        return ": it ends with a separator"
    if len(row) > num_columns:
        return ": a value with a separator in it must stand in quotes"
    return ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
