"""The laws that `fit` found: which is chosen, its formula, its values.

Legend: N rows, D features, K outputs.
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sympy import Expr

from gradnas.laws import text as law_text
from gradnas.laws.engine.front import without_evidence_against
from gradnas.laws.law import Law, Laws
from gradnas.laws.outputs import Outputs


@dataclass(frozen=True)
class FittedLaws:
    """A front of laws for each output, and what they are about.

    Args:
        fronts: one for each output.
        names: of the features.
        outputs: what the laws are about.
        max_complexity: of the laws that are chosen among; None: all.
        rows_ND: some of the rows that the laws were found in.
        written: formulas as sympy expressions by output and row, filled as they are asked for.
    """

    fronts: Sequence[Laws]
    names: list[str]
    outputs: Outputs
    max_complexity: int | None
    written: dict[tuple[int, int], Expr]
    rows_ND: np.ndarray

    def chosen(self, k: int) -> int:
        """The place of the chosen law in the front of output k."""
        laws = self.fronts[k]
        if self.max_complexity is None:
            return laws.best
        small: list[int] = []
        for place, law in enumerate(laws.front):
            if law.complexity <= self.max_complexity:
                small.append(place)
        if not small:
            simplest = min(law.complexity for law in laws.front)
            raise ValueError(
                f"max_complexity={self.max_complexity}: the simplest law has a complexity of "
                f"{simplest}"
            )
        among = without_evidence_against([laws.front[place] for place in small])
        best = min(among, key=lambda law: law.description_length)
        return laws.front.index(best)

    def row(self, k: int, law: int | None) -> int:
        """A checked row of the front of output k, from 0; None: that of the chosen law."""
        if law is None:
            return self.chosen(k)
        size = len(self.fronts[k].front)
        if len(self.fronts) > 1:
            raise ValueError("law= chooses from one front, but there are several outputs")
        if isinstance(law, bool) or not isinstance(law, numbers.Integral):
            raise ValueError(f"law is a row of the front, 0 to {size - 1}, not {law!r}")
        if not -size <= law < size:
            raise ValueError(f"there is no law {law}: the front has {size}, counted from 0")
        return int(law) % size

    def law(self, k: int, law: int | None = None) -> Law:
        """One law of the front of output k."""
        return self.fronts[k].front[self.row(k, law)]

    def formula(self, k: int, place: int) -> Expr:
        """A law as a sympy expression, without the link of a probability or a rate."""
        if (k, place) not in self.written:
            self.written[k, place] = self.fronts[k].front[place].expression(self.names)
        return self.written[k, place]

    def line(self, k: int, place: int, digits: int | None) -> str:
        """A law of the front of output k in one line, without its left side.

        Args:
            digits: significant digits of the constants, and more where the values need them; None
                writes them exactly.
        """
        return self.written_out(self.formula(k, place), digits)

    def written_out(self, expression: Expr, digits: int | None) -> str:
        """An expression in the features as text; arguments as of `line`."""
        return law_text.text(expression, self.digits(expression, digits), self.names)

    def in_latex(self, expression: Expr, digits: int | None) -> str:
        """An expression in the features as LaTeX; arguments as of `line`."""
        return law_text.latex(expression, self.digits(expression, digits), self.names)

    def digits(self, expression: Expr, digits: int | None) -> dict[float, int] | None:
        """How many digits each constant of an expression is written with; None: all."""
        if digits is None:
            return None
        is_whole = isinstance(digits, numbers.Integral) and not isinstance(digits, bool)
        if not is_whole or not 1 <= digits <= law_text.MOST_DIGITS:
            raise ValueError(
                f"digits is a whole number from 1 to {law_text.MOST_DIGITS}, or None for all of "
                f"them, not {digits!r}"
            )
        return law_text.digits_needed(expression, self.names, self.rows_ND, digits)

    def expressions(self, law: int | None) -> tuple[Expr, ...]:
        """What is predicted, as sympy expressions."""
        formulas = [self.formula(k, self.row(k, law)) for k in range(len(self.fronts))]
        return self.outputs.expressions(formulas)

    def predicted(self, x_ND: np.ndarray, law: int | None = None) -> np.ndarray:
        """What is predicted of every row, with a warning where a law is undefined."""
        x_ND = np.require(x_ND, requirements=["C", "W"])  # torch wants memory it may write to
        columns: list[np.ndarray] = []
        with np.errstate(all="ignore"):
            for k in range(len(self.fronts)):
                columns.append(self.outputs.values(self.law(k, law), x_ND))
        values_NK = np.column_stack(columns)
        undefined = int((~np.isfinite(values_NK)).any(axis=1).sum())
        if undefined:
            warnings.warn(
                f"the law is undefined in {undefined} of {len(x_ND)} rows (such as the logarithm "
                "of a negative number)",
                UserWarning,
                stacklevel=3,
            )
        return self.outputs.predicted(values_NK)
