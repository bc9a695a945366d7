"""Files of the truth of a space: their columns, and which of them is which.

A file is a `.npz` of numpy, without pickle, or a `.csv` with a line of names. It has a column of
texts, the architectures in the text form of their space or its short code: the only one, else the
one that is called `arch`, `architecture`, `cell`, `chain` or `genotype` (in a `.csv` where all
columns look like numbers, else the first); and columns of numbers of the same length:

- what an architecture reaches: the column `accuracy`, else `test_accuracy`, else the only column of
  numbers that may be an accuracy, else the first of them that says so (`test_200_epochs`,
  `cifar100`, `top1`). Costs, numbers of rows and spreads are none, by their names (`latency_ms`,
  `params`, `id`, `test_accuracy_std`) or because they are not between 0 and 100;
- what it reaches in a short training, by which random ones may be compared: the column `short`,
  else the first whose name begins with `valid` and is none of a cost, a loss or an error; a file
  need not have one.

Accuracies are in percent; where all are at most 1 they are taken as shares.

Legend: N architectures of the file.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from gradnas.files import read_file

ARCHITECTURES = ("arch", "architecture", "cell", "chain", "genotype")
FINAL = ("accuracy", "test_accuracy")
SHORT = "short"
MOST_BYTES = 1 << 30  # of one array in an .npz

# Words of a column's name, by which it is no accuracy, is one, or is one of a short training.
_COSTS = (
    "adds err error energy flops gflops id idx index latency loss macs mb memory "
    "mflops mj mparams ms multiply number params perplexity ppl rank row sd sec seconds seed size "
    "std time us weights"
)
_NONE = frozenset(_COSTS.split())
_SOME = frozenset(("acc", "accuracy", "eval", "score", "test", "top1"))
_SETS = ("cifar", "imagenet", "mnist", "svhn", "digits")
_OF_VALIDATION = frozenset(("short", "val", "valid", "validation"))


def read_columns(
    path: Path, final: str | None, short: str | None
) -> tuple[list[str], dict[str, np.ndarray], str, str | None]:
    """The architectures of a file, its columns of numbers, and the names of two of these.

    Args:
        final, short: names of columns, in place of those that are found by their names.

    Returns:
        N texts; name -> N numbers, of `final` and `short` in percent; the names of these two.

    Raises:
        ValueError: it cannot be read or has another form; the sentence names the file.
    """
    readers = {".npz": _npz_columns, ".csv": _csv_columns}
    if path.suffix.lower() not in readers:
        raise ValueError(f"{path}: a truth is a .npz or a .csv file")
    columns = readers[path.suffix.lower()](path)
    architectures = columns[_architectures_in(columns, path)]
    numbers = {name: values for name, values in columns.items() if values.dtype.kind != "U"}
    if short is None:
        of_valid = []
        for name in numbers:
            if name.startswith("valid") and name != final and not _NONE.intersection(_words(name)):
                of_valid.append(name)
        short = SHORT if SHORT in columns else next(iter(of_valid), None)
    if final is None:
        final = _final_in(columns, short, path)
    if short == final:
        short = None
    for name in (final, short):
        if name is not None and name in columns:
            numbers[name] = _in_percent(name, columns[name], architectures, path)
    return [str(text).strip() for text in architectures], numbers, final, short


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]


def _architectures_in(columns: Mapping[str, np.ndarray], path: Path) -> str:
    """The column of architectures."""
    texts = [name for name, values in columns.items() if values.dtype.kind == "U"]
    named = [name for name in texts if name.lower() in ARCHITECTURES]
    if len(texts) == 1:
        return texts[0]
    if len(named) == 1:
        return named[0]
    raise ValueError(
        f"{path}: a truth has one column of texts, the architectures, not {len(texts)} "
        f"({', '.join(texts) or 'its columns are numbers'}); of several the one is taken that is "
        f"called {ARCHITECTURES[0]}"
    )


def _final_in(columns: Mapping[str, np.ndarray], short: str | None, path: Path) -> str:
    """The column that says what an architecture reaches."""
    for name in FINAL:
        if name in columns:
            return name
    may_be = []
    for name, values in columns.items():
        if values.dtype.kind == "U" or _NONE.intersection(_words(name)):
            continue
        known = values[~np.isnan(values)]
        if known.size and known.min() >= 0.0 and known.max() <= 100.0:
            may_be.append(name)
    whole = [name for name in may_be if name != short and not _is_of_validation(name)] or may_be
    if len(whole) == 1:
        return whole[0]
    for name in whole:
        words = _words(name)
        if _SOME.intersection(words) or any(word.startswith(_SETS) for word in words):
            return name
    if not whole:
        raise ValueError(
            f"{path}: a truth has a column of numbers, the accuracies, in percent or as shares; "
            f"there is none among {', '.join(columns)}"
        )
    raise ValueError(
        f"{path}: which of {', '.join(whole)} is the accuracy? Call it {FINAL[0]}, or name it: "
        f"--truth {path}:{whole[0]}, gradnas.Truth.load(path, final={whole[0]!r})"
    )


def _is_of_validation(name: str) -> bool:
    return bool(_OF_VALIDATION.intersection(_words(name)))


def _in_percent(name: str, values: np.ndarray, architectures: np.ndarray, path: Path) -> np.ndarray:
    """The accuracies of a column, in percent; ValueError for what is none."""
    if values.dtype.kind == "U":
        for text, architecture in zip(values, architectures, strict=True):
            if _numbers_or_texts([text]).dtype.kind == "U":
                raise ValueError(
                    f"{path}: {name!r} of {architecture!s:.100} is no number: {str(text)!r}"
                )
    numbers = np.asarray(values, dtype=np.float64)
    largest = numbers.max(initial=0.0)
    if numbers.min(initial=0.0) < 0.0 or largest > 100.0:
        wrong = int(np.argmax((numbers < 0.0) | (numbers > 100.0)))
        raise ValueError(
            f"{path}: {name!r} is {numbers[wrong]:g} in row {wrong + 1}: accuracies are percent, "
            "or shares"
        )
    return 100.0 * numbers if largest <= 1.0 else numbers


def _npz_columns(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an `.npz` file; nothing in it is run."""
    import zipfile

    data = io.BytesIO(read_file(path))
    columns: dict[str, np.ndarray] = {}
    try:
        with zipfile.ZipFile(data) as archive:
            large = [e.filename for e in archive.infolist() if e.file_size > MOST_BYTES]
        if not large:
            data.seek(0)
            with np.load(data, allow_pickle=False) as file:
                columns = {name: _as_text(file[name]) for name in file.files}
    except Exception as error:  # whatever the readers meet in a damaged file
        reason = str(error) or type(error).__name__
        wrong = "is no .npz file" if isinstance(error, zipfile.BadZipFile) else "cannot be read"
        raise ValueError(f"{path} {wrong}: {reason}") from error
    if large:
        raise ValueError(f"{path}: {large[0]} is larger than 1 GiB")
    for name, values in columns.items():
        if values.dtype.kind not in "Uiufb":
            raise ValueError(f"{path}: the column {name!r} has the type {values.dtype}")
        if values.ndim != 1:
            raise ValueError(f"{path}: the column {name!r} has the shape {values.shape}")
    return columns


def _as_text(values: np.ndarray) -> np.ndarray:
    """Bytes as text, all else as it is."""
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def _csv_columns(path: Path) -> dict[str, np.ndarray]:
    """The columns of a table of text; those that are numbers throughout become numbers."""
    import csv

    try:
        text = read_file(path).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as text: {error}") from error
    rows = [row for row in rows if row]
    if len(rows) < 2:
        raise ValueError(f"{path}: a truth has a line of names and a line for each architecture")
    names = [name.strip() for name in rows[0]]
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: two columns have one name: {', '.join(names)}")
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise ValueError(
                f"{path}: line {number} has {len(row)} entries, the line of names {len(names)}"
            )
    columns = {}
    for place, name in enumerate(names):
        columns[name] = _numbers_or_texts([row[place].strip() for row in rows[1:]])
    # Codes of digits: `00001111` is a chain, and not the number 1111.
    of_codes = [name for name in names if name.lower() in ARCHITECTURES]
    if not of_codes and not any(values.dtype.kind == "U" for values in columns.values()):
        of_codes = names[:1]
    for name in of_codes:
        place = names.index(name)
        columns[name] = np.asarray([row[place].strip() for row in rows[1:]], dtype=np.str_)
    return columns


def _numbers_or_texts(entries: list[str]) -> np.ndarray:
    try:
        return np.asarray([float(entry) for entry in entries])
    except ValueError:
        return np.asarray(entries, dtype=np.str_)
