"""The truth of a space: what each of its architectures reaches when it is trained, from a file.

Public benchmarks have trained all architectures of a space (NAS-Bench-201, NAS-Bench-Macro, ...).
With such a file a search is measured without a training: by the accuracy of what it found, by how
far that is from the best (regret), by the share of architectures that are no better (percentile),
and beside the best of random ones.

`files` says how a file looks that has it.

Legend: N architectures of the file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from gradnas.architectures.base import Architecture
from gradnas.config import did_you_mean
from gradnas.truth.files import read_columns


class Known(Protocol):
    """A space, as far as its texts are read."""

    def decision(self, what: Any, /) -> Any:
        """An architecture from its text."""


@dataclass(frozen=True)
class Random:
    """What the best of n architectures reaches that are drawn uniformly.

    Attributes:
        n: how many are drawn, with repetition.
        mean, sd: of the accuracy of the best, in percent.
        by: the column by which the best is told.
    """

    n: int
    mean: float
    sd: float
    by: str


@dataclass(frozen=True, eq=False)
class Truth:
    """The accuracies of all architectures of a space.

    Args:
        texts: the architectures, N of them, all different.
        columns: name -> N numbers.
        final: the column that says what an architecture reaches.
        short: that of a short training of each, if there is one.
        source: where they were read, for sentences.

    Raises:
        ValueError: no rows, columns of unequal length, an architecture that stands twice, a number
            that is not finite, a column that is not there (the nearest name is given).
    """

    texts: Sequence[str]
    columns: Mapping[str, np.ndarray]
    final: str
    short: str | None = None
    source: str = "the truth"
    # The architectures of a space by the rows that they stand in, once they were read.
    _read: dict[int, tuple[object, dict[Any, int]]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not len(self.texts):
            raise ValueError(f"{self.source} holds no architectures")
        for name in (self.final, self.short):
            if name is not None and name not in self.columns:
                hint = did_you_mean(name, self.columns)
                raise ValueError(f"{self.source} has no column {name!r}{hint}")
        for name, values in self.columns.items():
            if values.shape != (len(self.texts),):
                raise ValueError(
                    f"{self.source}: the column {name!r} has the shape {values.shape}, and there "
                    f"are {len(self.texts)} architectures"
                )
        for name in (self.final, self.short):
            if name is not None and not np.isfinite(self.columns[name]).all():
                row = int(np.flatnonzero(~np.isfinite(self.columns[name]))[0])
                raise ValueError(
                    f"{self.source}: {name!r} of {self.texts[row]!r} is no finite number"
                )
        if len(self._rows_by_text) != len(self.texts):
            seen: set[str] = set()
            for text in self.texts:
                if text in seen:
                    raise ValueError(f"{self.source}: the architecture {text!r} stands twice")
                seen.add(text)

    # ---- reading ---------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: Path | str, final: str | None = None, short: str | None = None) -> Truth:
        """Read a file; see the top of `files` for its form.

        Args:
            final, short: names of columns, in place of those that are found by their names.

        Raises:
            ValueError: it cannot be read or has another form; the sentence names the file.
        """
        texts, columns, final, short = read_columns(Path(path), final, short)
        return cls(texts, columns, final, short, str(path))

    # ---- looking up ------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def _rows_by_text(self) -> dict[str, int]:
        return {text: row for row, text in enumerate(self.texts)}

    def row(self, architecture: Architecture | str, space: Known | None = None) -> int:
        """The row of an architecture, by its text; in a space also by another way to write it.

        Raises:
            ValueError: the file has no such architecture.
        """
        text = architecture if isinstance(architecture, str) else architecture.to_text()
        if text in self._rows_by_text:
            return self._rows_by_text[text]
        if space is not None:
            found = self._rows_in(space).get(space.decision(architecture))
            if found is not None:
                return found
        raise ValueError(
            f"{self.source} has no row for {text!r:.200}: it is the truth of another space"
        )

    def has(self, architecture: Architecture | str, space: Known | None = None) -> bool:
        """Whether there is a row of an architecture."""
        try:
            self.row(architecture, space)
        except ValueError:
            return False
        return True

    def of(self, space: Known) -> Truth:
        """The part that is of a space, which may offer fewer operations than the file knows.

        Raises:
            ValueError: none of it is; an architecture stands twice, in two ways to write it.
        """
        places = set(self._rows_in(space).values())
        if len(places) == len(self):
            return self
        chosen_N = np.asarray([row in places for row in range(len(self))])
        return _part(self, chosen_N, "what this space offers")

    def _rows_in(self, space: Known) -> dict[Any, int]:
        """The architectures of the file that a space has."""
        known = self._read.get(id(space))
        if known is not None:
            return known[1]
        rows: dict[Any, int] = {}
        refused: ValueError | None = None
        for row, text in enumerate(self.texts):
            try:
                decision = space.decision(text)
            except ValueError as error:
                refused = refused or error
                continue
            first = rows.setdefault(decision, row)
            if first != row:
                raise ValueError(
                    f"{self.source}: {self.texts[first]!r:.100} and {text!r:.100} are one "
                    "architecture, which stands twice"
                )
        if not rows:
            raise ValueError(
                f"{self.source} is not the truth of this {type(space).__name__}: "
                f"{self.texts[0]!r:.100} is none of its architectures"
            ) from refused
        self._read[id(space)] = (space, rows)  # with the space, so that no other has its id
        return rows

    # ---- measures --------------------------------------------------------------------------------

    @cached_property
    def values_N(self) -> np.ndarray:
        """What each architecture reaches, in percent, float64."""
        return np.asarray(self.columns[self.final], dtype=np.float64)

    @property
    def best(self) -> float:
        """The accuracy of the best architecture."""
        return float(self.values_N.max())

    def accuracy(self, architecture: Architecture | str, space: Known | None = None) -> float:
        """What an architecture reaches, in percent. ValueError for one that the file has not."""
        return float(self.values_N[self.row(architecture, space)])

    def regret(self, accuracy: float) -> float:
        """How far an accuracy is below the best, in points."""
        return self.best - accuracy

    def percentile(self, accuracy: float) -> float:
        """How many of the architectures reach at most this, in percent; of the best 100."""
        return 100.0 * float(np.mean(self.values_N <= accuracy))

    def best_of_random(self, n: int, by: str | None = None) -> Random:
        """The accuracy of the best of n architectures that are drawn uniformly, exactly.

        Of those that the column tells equal, each is as likely to be taken.

        Args:
            by: the column by which the best of them is told, the largest number; None takes the
                short training, and where there is none the truth itself, which no search knows.

        Raises:
            ValueError: n is no whole number or below 1, or there is no such column, or not for all
                architectures.
        """
        if n < 1 or n != int(n):
            raise ValueError(
                f"the best of n architectures needs a whole number n of at least 1, not {n}"
            )
        if by is None:
            by = self.final if self.short is None else self.short
        by_N = _numbers(self, by)
        # Groups of equal ones, the best first. The best drawn is of a group where nothing of the
        # groups before it is drawn, but something of it.
        _, group_N, sizes_G = np.unique(-by_N, return_inverse=True, return_counts=True)
        places = np.concatenate([[0], np.cumsum(sizes_G)]) / len(by_N)
        none_before = (1.0 - places) ** n
        probability_G = none_before[:-1] - none_before[1:]
        probability_N = (probability_G / sizes_G)[group_N]
        mean = float(probability_N @ self.values_N)
        variance = float(probability_N @ np.square(self.values_N - mean))
        return Random(n, mean, max(variance, 0.0) ** 0.5, by)

    # ---- parts -----------------------------------------------------------------------------------

    def within(self, column: str, limit: float) -> Truth:
        """The part in which a column is at most a limit: chains within a budget.

        Raises:
            ValueError: there is no such column, an architecture has no number in it, or nothing is
                within the limit.
        """
        return _part(self, _numbers(self, column) <= limit, f"{column} up to {limit:g}")


def _part(truth: Truth, chosen_N: np.ndarray, what: str) -> Truth:
    """The rows that are chosen."""
    places = np.flatnonzero(chosen_N)
    if not len(places):
        raise ValueError(f"{truth.source}: there is nothing with {what}")
    columns = {name: values[places] for name, values in truth.columns.items()}
    texts = [truth.texts[place] for place in places.tolist()]
    source = f"{truth.source} ({what})"
    return replace(truth, texts=texts, columns=columns, source=source, _read={})


def _numbers(truth: Truth, column: str) -> np.ndarray:
    """A column, float64; ValueError where there is none, or an architecture has no number."""
    if column not in truth.columns:
        raise ValueError(
            f"{truth.source} has no column {column!r}{did_you_mean(column, truth.columns)}"
        )
    numbers_N = np.asarray(truth.columns[column], dtype=np.float64)
    if np.isnan(numbers_N).any():
        row = int(np.flatnonzero(np.isnan(numbers_N))[0])
        raise ValueError(f"{truth.source}: {column!r} of {truth.texts[row]!r} is no number")
    return numbers_N
