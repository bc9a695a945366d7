"""When is a law recovered?

`symbolic`: the printed law, its constants rounded to 2 significant digits, equals the truth.
Equality is tested at random points to 1e-9: no two different short formulas pass, and it always
ends, which a simplification may not.
`numeric`: it agrees with the truth to 1e-3 relative on fresh points in the range and beyond it, and
has no more additive terms than the truth.
`form` (for data with noise, where the best possible constants differ from the truth by more than
that): with its constants refitted to the truth it is `numeric`, and as printed it is off by less
than 12% of the largest value of the truth anywhere.

strict = symbolic or numeric. recovered = strict; with noise: strict or form.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import sympy
from equation_laws import EquationLaw
from scipy.optimize import least_squares

AGREES = 1e-3
NOISY_LIMIT = 0.12


class Truth(Protocol):
    """A law that is known."""

    @property
    def names(self) -> list[str]:
        """The features."""
        ...

    def values(self, x_ND: np.ndarray) -> np.ndarray:
        """The truth without noise."""
        ...


@dataclass(frozen=True)
class Verdict:
    """How one law was judged; `nodes` is the size of its expression tree."""

    symbolic: bool
    numeric: bool
    form: bool
    nodes: int

    @property
    def strict(self) -> bool:
        """By the constants as printed."""
        return self.symbolic or self.numeric

    def recovered(self, noise: float) -> bool:
        """By the constants as printed or, where there is noise, by the form."""
        return self.strict or (noise > 0 and self.form)


def size(expression: sympy.Expr) -> int:
    """Nodes of the expression tree."""
    return sum(1 for _ in sympy.preorder_traversal(expression))


def terms(expression: sympy.Expr) -> int:
    """Additive terms of the shortest of a few ways to write it."""
    exact = {f: sympy.Rational(float(f)) for f in expression.atoms(sympy.Float)}
    expression = expression.xreplace(exact)
    ways = [expression]
    for write in (sympy.together, sympy.factor_terms, sympy.expand):
        try:
            ways.append(write(expression))
        except (ArithmeticError, ValueError, TypeError, AttributeError, RecursionError):
            continue
    return min(len(sympy.Add.make_args(way)) for way in ways)


def rounded(expression: sympy.Expr, digits: int = 2) -> sympy.Expr:
    """With every decimal number rounded to some significant digits, as an exact fraction."""
    numbers: dict[sympy.Float, sympy.Rational] = {}
    for number in expression.atoms(sympy.Float):
        numbers[number] = sympy.Rational(f"{float(number):.{digits - 1}e}")
    return expression.xreplace(numbers)


def values(expression: sympy.Expr, names: list[str], x_ND: np.ndarray) -> np.ndarray:
    """Its values; NaN where it is undefined."""
    f = sympy.lambdify(names, expression, "numpy")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        out = np.asarray(f(*x_ND.T))
    if np.iscomplexobj(out):
        out = np.where(np.abs(np.imag(out)) < 1e-12, np.real(out), np.nan)
    return np.broadcast_to(out.astype(float), (len(x_ND),))


def judge(expression: sympy.Expr, law: EquationLaw, noise: float, x_ND: np.ndarray) -> Verdict:
    """Whether an expression is the law.

    Args:
        expression: in the features x1, x2, ...
        law: the truth.
        noise: of the training data, as a share of the target's standard deviation.
        x_ND: the training features.
    """
    probe_ND = np.concatenate([law.within(), law.beyond()])
    truth_N = law.values(probe_ND)
    largest = np.abs(truth_N).max()

    def gap(other: sympy.Expr) -> np.ndarray:
        return np.abs(values(other, law.names, probe_ND) - truth_N)

    def distance(other: sympy.Expr) -> float:
        gap_N = gap(other)
        if not np.isfinite(gap_N).all():
            return np.inf
        # Relative, but near a zero of the truth to its largest value.
        return float(np.max(gap_N / np.maximum(np.abs(truth_N), 1e-2 * largest)))

    few = terms(expression) <= terms(law.expression)
    ways = [expression, sympy.expand(expression), sympy.factor_terms(expression)]
    symbolic = any(distance(rounded(way)) < 1e-9 for way in ways)
    numeric = few and distance(expression) < AGREES
    form = False
    undecided = not symbolic and not numeric
    if noise > 0 and undecided and few:
        gap_N = gap(expression)
        off = float(gap_N.max() / largest) if np.isfinite(gap_N).all() else np.inf
        form = off < NOISY_LIMIT and refitted(expression, law, x_ND, distance)
    return Verdict(symbolic, numeric, form, size(expression))


def refitted(
    expression: sympy.Expr,
    law: Truth,
    x_ND: np.ndarray,
    distance: Callable[[sympy.Expr], float],
) -> bool:
    """Whether the constants of the expression can be moved so that it is the truth."""
    numbers = sorted(expression.atoms(sympy.Float), key=float)
    if not numbers:
        return False
    symbols = [sympy.Symbol(f"constant{i}", real=True) for i in range(len(numbers))]
    open_form = expression.xreplace(dict(zip(numbers, symbols, strict=True)))
    f = sympy.lambdify([*law.names, *symbols], open_form, "numpy")
    truth_N = law.values(x_ND)

    def residual(constants: np.ndarray) -> np.ndarray:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            # Complex, as a negative base under a power is on the way.
            out = np.real(np.asarray(f(*x_ND.T, *constants), dtype=complex))
            out = np.broadcast_to(out, truth_N.shape)
        return np.nan_to_num(out - truth_N, nan=1e6, posinf=1e6, neginf=-1e6)

    start = np.array([float(n) for n in numbers])
    scale = np.maximum(np.abs(start), 1e-3)
    fit = least_squares(residual, start, x_scale=scale, xtol=1e-14, ftol=1e-14, gtol=1e-14)
    fixed: dict[sympy.Symbol, sympy.Float] = {}
    for symbol, value in zip(symbols, fit.x, strict=True):
        fixed[symbol] = sympy.Float(value, 17)
    return distance(open_form.xreplace(fixed)) < AGREES
