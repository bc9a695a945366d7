"""Labels of rows as class numbers, whatever the column holds: numbers, text, bool, categories.

Legend: N rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from gradnas.config import did_you_mean
from gradnas.data.names import check_different, composed, listed


@dataclass(frozen=True)
class Labels:
    """The labels of some rows.

    Attributes:
        numbers_N: int64; with names, where they are one of 0..len(names)-1, the number of a name.
        names: of the classes, by number; None where the rows have numbers alone.
        names_in_rows: the names were in the rows themselves: their numbers mean nothing elsewhere.
    """

    numbers_N: np.ndarray
    names: tuple[str, ...] | None = None
    names_in_rows: bool = False


def labels_of(values: pa.ChunkedArray, names: Sequence[str] | None, where: str) -> Labels:
    """The labels in a column.

    Args:
        names: of classes by number, where the file has them.
        where: the file and the column, for an error: `t.parquet: column label`.

    Raises:
        ValueError: a row without a label, or values that are neither whole numbers nor text.
    """
    file, _, column = where.partition(": column ")
    if pa.types.is_dictionary(values.type):
        return _categories(values, names, where)
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise ValueError(f"{file}, row {row}, has no label (column {column} is null)")
    if pa.types.is_boolean(values.type):
        numbers_N = np.array(values.to_pylist(), dtype=np.int64)
        return Labels(
            numbers_N, tuple(names) if names else ("False", "True"), names_in_rows=not names
        )
    if _holds_words(values.type):
        return _texts(values.to_pylist(), names, where)
    if not pa.types.is_integer(values.type):
        raise ValueError(
            f"{file}: labels are whole numbers, but column {column} is of type {values.type}"
        )
    numbers_N = values.to_numpy().astype(np.int64)
    if names is None:
        return Labels(numbers_N)
    check_different(names, file)
    outside = np.flatnonzero(numbers_N >= len(names))
    if len(outside):
        row = int(outside[0])
        raise ValueError(
            f"{file}, row {row}, has label {numbers_N[row]}, but labels are 0..{len(names) - 1} "
            f"({len(names)} classes)"
        )
    return Labels(numbers_N, tuple(names))


def _holds_words(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view()


def _texts(texts: Sequence[str], names: Sequence[str] | None, where: str) -> Labels:
    """Labels that are names; of those that the file gives, where it does, else sorted."""
    file, _, _ = where.partition(": column ")
    known = tuple(names) if names else tuple(sorted(set(texts)))
    check_different(known, file)
    numbers = {name: number for number, name in enumerate(known)}
    for row, text in enumerate(texts):
        if not text.strip():
            raise ValueError(f"{file}, row {row}, has no label (an empty text)")
        if text not in numbers:
            raise ValueError(
                f"{file}, row {row}, has label {text!r}, but the classes are {listed(known)}"
                f"{did_you_mean(text, known)}"
            )
    numbers_N = np.array([numbers[text] for text in texts], dtype=np.int64)
    return Labels(numbers_N, known, names_in_rows=True)


def _categories(values: pa.ChunkedArray, names: Sequence[str] | None, where: str) -> Labels:
    """Labels of a column of categories: these count, and not the codes that stand for them.

    Their order is that of the file, also of categories without rows.
    """
    plain = values.cast(values.type.value_type)
    if not _holds_words(values.type.value_type) or names or plain.null_count:
        return labels_of(plain, names, where)
    categories: dict[str, None] = {}
    for chunk in values.chunks:
        categories.update(dict.fromkeys(chunk.dictionary.to_pylist()))
    return _texts(plain.to_pylist(), [name for name in categories if name is not None], where)


# ---- one numbering for several files -------------------------------------------------------------


def joined_names(by_file: Mapping[str, Labels]) -> tuple[str, ...] | None:
    """The classes of the files of one split, by number; None where they have numbers alone.

    The names of the first file in its order, then those that others add; text is sorted.

    Raises:
        ValueError: some files name their classes, and others do not.
    """
    files = list(by_file)
    parts = list(by_file.values())
    with_names = [part.names is not None for part in parts]
    if not any(with_names):
        return None
    if not all(with_names):
        named = files[with_names.index(True)]
        bare = files[with_names.index(False)]
        raise ValueError(
            f"{named} names its classes, but {bare}, of the same split, has numbers alone: what "
            "they stand for there is not known; write both in the same way"
        )
    if len({part.names for part in parts}) == 1:
        return parts[0].names
    union: dict[str, None] = {}
    for part in parts:
        assert part.names is not None
        union.update(dict.fromkeys(composed(name) for name in part.names))
    check_different(union, files[0])
    if all(part.names_in_rows for part in parts):
        return tuple(sorted(union))
    return tuple(union)


def renumbered(labels: Labels, names: Sequence[str], where: str, known_from: str) -> np.ndarray:
    """The labels as numbers of the classes `names`, by name: int64 (N,).

    Numbers below 0, which stand for labels that are not told, stay as they are.

    Raises:
        ValueError: a row is of a class that is not among them.
    """
    if labels.names is None:
        return labels.numbers_N
    by_spelling = {composed(name): number for number, name in enumerate(names)}
    table = []
    for own in labels.names:
        table.append(by_spelling.get(composed(own), -1))
    table_C = np.array(table, dtype=np.int64)
    is_told_N = labels.numbers_N >= 0
    renumbered_N = np.where(is_told_N, table_C[labels.numbers_N * is_told_N], labels.numbers_N)
    unknown = np.flatnonzero(is_told_N & (renumbered_N < 0))
    if len(unknown):
        row = int(unknown[0])
        name = labels.names[labels.numbers_N[row]]
        raise ValueError(
            f"{where}, row {row}, is of the class {name!r}, which {known_from} does not have "
            f"({listed(names)}){did_you_mean(name, names)}"
        )
    return renumbered_N
