"""Tables of numbers: CSV files, checked with sentences that name the column, and generated ones.

Legend: N rows, D features.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gradnas.config import did_you_mean
from gradnas.data.csv_text import frame_of, header_of, name_of, text_of

MOST_NAMED = 5  # columns or rows that an error lists
# Of a column's largest number: products of four columns, and squares of those of two, are doubles.
SMALLEST_SIZE = 1e-75
LARGEST_SIZE = 1e75


@dataclass(frozen=True)
class Table:
    """Features and target of a law.

    Attributes:
        x_ND: numbers, all finite.
        y_N: the target: numbers, or text where it names classes; `(N, K)` of several targets.
        names: of the features.
        target: name of the target; of several, all of them.
        targets: the names of several.
        weights_N: sample weights, if a column holds them.
        source: where it is from, in words.
    """

    x_ND: np.ndarray
    y_N: np.ndarray
    names: tuple[str, ...]
    target: str
    weights_N: np.ndarray | None = None
    source: str = ""
    targets: tuple[str, ...] = ()


# -- CSV files -------------------------------------------------------------------------------------


def load_table(
    path: str | Path,
    target: str | Sequence[str],
    features: Sequence[str] | None = None,
    weights: str | None = None,
    *,
    classes: bool = False,
) -> Table:
    """Read a CSV file with a header line; separated by commas, semicolons or tabs.

    Args:
        target: column to explain, or several; names with commas between them are several, unless
            there is a column of that name.
        features: columns to explain it with; by default all others.
        weights: column of sample weights.
        classes: the target names classes, so it may be text.

    Raises:
        ValueError: there is no such file or column (the nearest name is given), two columns have
            the same name, a row has more or fewer values than there are columns, a column holds
            text or misses numbers, or has numbers of a size that cannot be computed with. The
            sentence names columns and rows.
    """
    path = Path(path)
    text = text_of(path)
    header, separator = header_of(text, path)
    check_names(header, str(path))
    # Names as they stand in a header: on one line, without white space around them.
    targets = _targets_in(header, target)
    weights = None if weights is None else name_of(weights)
    if features:
        names = list(dict.fromkeys(name_of(feature) for feature in features))
    else:
        names = [name for name in header if name not in (*targets, weights)]
    roles: list[str] = []
    for target in targets:
        role = _check_roles(names, target, weights, is_chosen=bool(features))
        if role is not None:
            roles.append(role)
    wanted = list(dict.fromkeys([*names, *targets]))
    columns = wanted if weights is None else [*wanted, weights]
    _check_columns(columns, header, path)
    if roles:
        raise ValueError(roles[0])
    if classes and len(targets) > 1:
        raise ValueError(f"of classes there is one target at a time, not {' and '.join(targets)}")
    if not names:
        shown = " and ".join(repr(target) for target in targets)
        them = "it" if len(targets) == 1 else "them"
        raise ValueError(
            f"{path} has no column besides {shown}: there is nothing to explain {them} with"
        )
    frame = frame_of(text, header, separator, path)

    y = frame[targets] if len(targets) > 1 else frame[targets[0]]
    if classes:
        # Classes may be text, so that an empty cell is all that can be wrong with them.
        numeric = [name for name in columns if name not in targets]
        check_numeric(frame[numeric], str(path))
        is_empty_N = y.isna().to_numpy()
        if is_empty_N.any():
            raise ValueError(f"{path}: column {targets[0]!r} is empty in {_rows(is_empty_N)}")
    else:
        check_numeric(frame[columns], str(path))
    for name in columns:
        if name not in targets or not classes:
            check_size(frame[name].to_numpy(dtype=np.float64), f"{path}: column {name!r}")
    return Table(
        x_ND=frame[names].to_numpy(dtype=np.float64),
        y_N=y.to_numpy() if classes else y.to_numpy(dtype=np.float64),
        names=tuple(names),
        target=", ".join(targets),
        weights_N=None if weights is None else frame[weights].to_numpy(dtype=np.float64),
        source=str(path),
        targets=tuple(targets) if len(targets) > 1 else (),
    )


def _targets_in(header: Sequence[str], target: str | Sequence[str]) -> list[str]:
    """The names of the targets, each once."""
    given = [target] if isinstance(target, str) else list(target)
    names: list[str] = []
    for name in map(name_of, given):
        parts = [name_of(part) for part in name.split(",")]
        is_list = name not in header and any(part in header for part in parts)
        names += parts if is_list else [name]
    return list(dict.fromkeys(names))


def _check_roles(
    features: Sequence[str], target: str, weights: str | None, *, is_chosen: bool
) -> str | None:
    """What to say where one column would have two parts."""
    if is_chosen and target in features:
        return f"{target!r} is the target and cannot be a feature at the same time"
    if weights == target:
        return f"{target!r} is the target and cannot hold the weights at the same time"
    if is_chosen and weights in features:
        return f"{weights!r} holds the weights and cannot be a feature at the same time"
    return None


def _check_columns(wanted: Sequence[str], header: Sequence[str], path: Path) -> None:
    """ValueError for a column that is not in the header."""
    for name in wanted:
        if name not in header:
            shown = ", ".join(header[:20])
            if len(header) > 20:
                shown += ", ..."
            hint = did_you_mean(name, header)
            raise ValueError(f"{path} has no column {name!r}{hint}; it has: {shown}")


def check_size(values_N: np.ndarray, what: str) -> None:
    """Refuse numbers so large or so small that their squares and products are none any more.

    Args:
        values_N: finite numbers.
        what: they are, as the sentence begins.
    """
    largest = float(np.abs(values_N).max(initial=0.0))
    is_of_size = SMALLEST_SIZE <= largest <= LARGEST_SIZE
    if largest == 0.0 or is_of_size:
        return
    raise ValueError(
        f"{what} has numbers of a size around {largest:.0e}, and laws are computed with sizes from "
        f"{SMALLEST_SIZE:.0e} to {LARGEST_SIZE:.0e}: write it in another unit, for example divided "
        f"by {largest:.0e}"
    )


def check_names(names: Iterable[object], where: str) -> None:
    """Refuse columns without a name and names that stand twice, also those that look the same."""
    names = [
        unicodedata.normalize("NFC", name) if isinstance(name, str) else name for name in names
    ]
    counts = Counter(names)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        listed = ", ".join(repr(name) for name in twice[:MOST_NAMED])
        raise ValueError(
            f"{where} has several columns of the same name: {listed}; give every column its own"
        )
    if "" in names:
        raise ValueError(f"{where}: column {names.index('') + 1} has no name in the first line")


def check_numeric(frame: Any, where: str) -> None:
    """Refuse columns of a pandas frame that hold text, or numbers that are missing or infinite.

    Raises:
        ValueError: with the names of all such columns, and an example of the text or the rows that
            miss a number (counted from 1, without the header).
    """
    import pandas

    text = []
    hints: set[str] = set()
    missing = []
    for name in frame.columns:
        column = frame[name]
        too_long = f"{where}: column {name!r} holds a whole number of more than 300 digits"
        if column.dtype.kind in "fiu" and np.isfinite(column.to_numpy()).all():
            continue
        try:
            numbers = pandas.to_numeric(column, errors="coerce")
        except OverflowError:  # a whole number beyond all doubles
            raise ValueError(too_long) from None
        is_text_N = (numbers.isna() & ~column.isna()).to_numpy(dtype=bool)
        # pandas would make nanoseconds of dates; a category is none of a law's numbers either.
        is_category = isinstance(column.dtype, pandas.CategoricalDtype)
        if is_category or pandas.api.types.is_datetime64_any_dtype(column):
            is_text_N = np.ones(len(column), dtype=bool)
        if is_text_N.any():
            row = int(np.argmax(is_text_N))
            value = str(column.iloc[row])
            if re.fullmatch(r"\s*[+-]?[0-9]{301,}\s*", value):  # pandas below 3 leaves it as text
                raise ValueError(too_long)
            text.append(f"{name!r} (row {row + 1}: {value[:30]!r})")
            hints.add(_why_text(value, is_text_N))
            continue
        is_finite_N = np.isfinite(numbers.to_numpy(dtype=np.float64, na_value=np.nan))
        if not is_finite_N.all():
            missing.append(f"{name!r} in {_rows(~is_finite_N)}")
    if text:
        several = len(text) > 1
        columns_hold = "columns hold" if several else "a column holds"
        them = "them" if several else "it"
        raise ValueError(
            f"{where}: {columns_hold} text: {_some(text)}; a law needs numbers: "
            f"code {them} as numbers, or leave {them} out"
            # One reason of all columns is likely to be it.
            f"{hints.pop() if len(hints) == 1 else ''}"
        )
    if missing:
        raise ValueError(
            f"{where} contains NaN (a missing number) or inf: {_some(missing)}; "
            "drop or fill these rows"
        )


def _why_text(value: str, is_text_N: np.ndarray) -> str:
    """A guess at why a column of numbers holds text."""
    if re.fullmatch(r"\s*[+-]?\d+,\d+\s*", value):
        return "; are their commas decimal commas? Write 1.5, not 1,5"
    if is_text_N[0] and not is_text_N[1:].any() and len(is_text_N) > 1:
        return "; is the line below the names one of units? Leave it out"
    return ""


def _rows(wrong_N: np.ndarray) -> str:
    """Some rows in words, counted from 1."""
    rows = [str(row + 1) for row in np.flatnonzero(wrong_N)]
    if len(rows) == 1:
        return f"row {rows[0]}"
    return f"{len(rows)} rows ({_some(rows)})"


def _some(items: list[str]) -> str:
    """The first of the items, and whether there are more."""
    shown = ", ".join(items[:MOST_NAMED])
    return f"{shown}, ..." if len(items) > MOST_NAMED else shown


# -- generated examples ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Example:
    """A law of a textbook, with ranges of its features."""

    about: str
    law: str
    target: str
    ranges: dict[str, tuple[float, float]]
    function: Callable[..., np.ndarray]
    output: Literal["real", "counts", "class"] = "real"

    def table(self, rows: int = 100, noise: float = 0.02, seed: int = 0) -> Table:
        """Rows drawn uniformly from the ranges.

        The noise is normal, its size a share of the target's deviation. A target of output "class"
        is drawn from its probability instead, one of "counts" from its rate.
        """
        random = np.random.default_rng(seed)
        columns = []
        for low, high in self.ranges.values():
            columns.append(random.uniform(low, high, rows))
        x_ND = np.column_stack(columns)
        y_N = np.asarray(self.function(*x_ND.T))
        if self.output == "class":
            y_N = (random.uniform(size=rows) < y_N).astype(np.int64)
        elif self.output == "counts":
            y_N = random.poisson(y_N).astype(np.float64)
        else:
            y_N = y_N + noise * y_N.std() * random.standard_normal(rows)
        return Table(x_ND, y_N, tuple(self.ranges), self.target, source=f"{self.about}: {self.law}")


EXAMPLES: dict[str, Example] = {
    "weber-fechner": Example(
        "Weber-Fechner law of sensation",
        "sensation = 1.5 ln(intensity / threshold)",
        "sensation",
        {"intensity": (2.0, 50.0), "threshold": (0.5, 2.0)},
        lambda intensity, threshold: 1.5 * np.log(intensity / threshold),
    ),
    "stevens": Example(
        "Stevens' power law",
        "sensation = 2 intensity^0.6",
        "sensation",
        {"intensity": (0.1, 10.0)},
        lambda intensity: 2.0 * intensity**0.6,
    ),
    "michaelis-menten": Example(
        "Michaelis-Menten kinetics",
        "rate = 2 substrate / (0.5 + substrate)",
        "rate",
        {"substrate": (0.05, 5.0)},
        lambda substrate: 2.0 * substrate / (0.5 + substrate),
    ),
    "learning": Example(
        "Exponential learning",
        "performance = 1 - 0.8 exp(-0.3 trial)",
        "performance",
        {"trial": (0.0, 15.0)},
        lambda trial: 1.0 - 0.8 * np.exp(-0.3 * trial),
    ),
    "damped-oscillation": Example(
        "Damped oscillation",
        "displacement = exp(-0.3 time) sin(3 time)",
        "displacement",
        {"time": (0.0, 6.0)},
        lambda time: np.exp(-0.3 * time) * np.sin(3.0 * time),
    ),
    "gravitation": Example(
        "Attraction of two masses",
        "force = mass_1 mass_2 / distance^2",
        "force",
        {"mass_1": (1.0, 5.0), "mass_2": (1.0, 5.0), "distance": (1.0, 4.0)},
        lambda first, second, distance: first * second / distance**2,
    ),
    "psychometric": Example(
        "Psychometric function (yes or no, so logistic with cross-entropy)",
        "P(detected = 1) = logistic(2 contrast - 1)",
        "detected",
        {"contrast": (-2.0, 3.0)},
        lambda contrast: 1.0 / (1.0 + np.exp(1.0 - 2.0 * contrast)),
        output="class",
    ),
    "decay-counts": Example(
        "Radioactive decay (counts, so Poisson)",
        "counts ~ Poisson(exp(5 - 0.4 time))",
        "counts",
        {"time": (0.0, 10.0)},
        lambda time: np.exp(5.0 - 0.4 * time),
        output="counts",
    ),
}


def load_example(
    name: str, rows: int = 100, noise: float = 0.02, seed: int = 0
) -> tuple[Table, Example]:
    """A generated table and the law it comes from.

    Raises:
        ValueError: there is no such example (the sentence lists them), or a number of rows or a
            noise below 0.
    """
    if name not in EXAMPLES:
        hint = did_you_mean(name, EXAMPLES)
        known = ", ".join(EXAMPLES)
        raise ValueError(f"there is no example {name!r}{hint}; there are: {known}")
    is_a_noise = noise >= 0.0  # False for NaN, too
    if rows < 1 or not is_a_noise:
        raise ValueError(
            f"an example needs at least 1 row and a noise of at least 0, not {rows} and {noise}"
        )
    example = EXAMPLES[name]
    return example.table(rows, noise, seed), example
