"""`GroupLaw`: one structure with constants of each group's own.

Legend: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from sympy import Expr

from gradnas.laws import text as law_text
from gradnas.laws.formula import Formula
from gradnas.laws.law import Law
from gradnas.laws.symbolic import Term, sympy

FEWEST = 5  # rows of a group


@dataclass(frozen=True)
class GroupLaw(Law):
    """One structure with constants by group; the last column of its rows is the group's number.

    Attributes:
        labels: of the groups, in the order of their numbers.
        by_group: a formula for each.
        own: names of the constants that differ between groups, with their values by group.
        symbols: the law in the names of features and own constants.
    """

    labels: tuple[object, ...] = ()
    by_group: tuple[Formula, ...] = ()
    own: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    symbols: Expr | None = field(default=None, repr=False)

    def linear(self, x_ND: np.ndarray) -> np.ndarray:
        """The value of each row's own formula."""
        x = torch.as_tensor(np.asarray(x_ND, dtype=np.float64), device="cpu")
        value_N = np.full(len(x), np.nan)
        for g, formula in enumerate(self.by_group):
            mine = x[:, -1] == g
            value_N[mine.numpy()] = formula(x[mine][:, :-1], self.primitives).numpy()
        return value_N

    def expression(self, names: Sequence[str] | None = None, simplify_seconds: float = 1.0) -> Expr:
        """The law with a symbol for each constant that differs between groups."""
        del names, simplify_seconds
        assert self.symbols is not None
        return self.symbols

    def legend(self, digits: int | None = 4) -> list[str]:
        """A line for each constant that differs between groups, with its values."""
        lines: list[str] = []
        for name, values in self.own.items():
            pairs: list[str] = []
            for label, value in zip(self.labels, values, strict=True):
                pairs.append(f"{law_text.number(value, digits)} ({label})")
            lines.append(f"where {name} is {', '.join(pairs)}")
        return lines

    def of_group(self, label: object) -> Law:
        """The law of one group alone."""
        if label not in self.labels:
            raise ValueError(f"there is no group {label!r}; there are {_listed(self.labels)}")
        g = self.labels.index(label)
        written: Expr | None = None
        if self.written is not None:
            values: dict[Term, Term] = {}
            for name, numbers in self.own.items():
                values[sympy.Symbol(name)] = sympy.Float(numbers[g], 17)
            written = self.written.xreplace(values)
        return Law(
            formula=self.by_group[g],
            complexity=self.by_group[g].complexity,
            train_error=self.train_error,
            valid_error=self.valid_error,
            description_length=self.description_length,
            agreement=self.agreement,
            loss=self.loss,
            primitives=self.primitives,
            has_pole=self.has_pole,
            rounding=self.rounding,
            measure=self.measure,
            written=written,
        )


def _listed(labels: Sequence[object]) -> str:
    return ", ".join(str(label) for label in labels)


def coded(groups: Sequence[object], rows: int) -> tuple[np.ndarray, tuple[object, ...]]:
    """The number of each row's group, and the groups' labels.

    Raises:
        ValueError: not one label for every row, missing ones, fewer than two groups, a group of too
            few rows.
    """
    labels_N = np.asarray(groups, dtype=object).reshape(-1)
    if len(labels_N) != rows:
        raise ValueError(f"groups has {len(labels_N)} labels for {rows} rows")
    for row, label in enumerate(labels_N):
        if label is None or label != label:
            raise ValueError(f"groups has no label in row {row}")
    labels = sorted(set(labels_N.tolist()), key=lambda label: (str(type(label)), label))
    if len(labels) < 2:
        raise ValueError("groups needs at least two different labels; of one group leave it out")
    number = {label: g for g, label in enumerate(labels)}
    code_N = np.array([number[label] for label in labels_N.tolist()], dtype=np.float64)
    for g, label in enumerate(labels):
        count = int((code_N == g).sum())
        if count < FEWEST:
            raise ValueError(f"the group {label} has {count} rows; at least {FEWEST} are needed")
    return code_N, tuple(labels)


def split_off(
    X: Any, groups: Sequence[object] | str | None, column: str | None
) -> tuple[Any, Sequence[object] | None, str | None]:
    """Features and groups, where groups are a column of a frame.

    Args:
        groups: labels, or the name of a column.
        column: the name that `fit` had.

    Returns:
        Features without that column, labels, and the column's name.

    Raises:
        ValueError: there is no such column.
    """
    is_frame = hasattr(X, "columns") and hasattr(X, "iloc")
    if groups is None and column is not None and is_frame and column in list(X.columns):
        groups = column
    if not isinstance(groups, str):
        return X, groups, None
    if not is_frame or groups not in list(X.columns):
        raise ValueError(
            f"groups={groups!r} names a column of a pandas frame, and X has none of that name; "
            "or give one label for every row"
        )
    return X.drop(columns=[groups]), X[groups].tolist(), groups
