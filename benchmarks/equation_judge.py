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

import numpy as np
import sympy
from equation_laws import EquationLaw
from scipy.optimize import least_squares

AGREES, NOISY_LIMIT = 1e-3, 0.12


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
    expression = expression.xreplace(
        {f: sympy.Rational(float(f)) for f in expression.atoms(sympy.Float)}
    )
    ways = [expression]
    for write in (sympy.together, sympy.factor_terms, sympy.expand):
        try:
            ways.append(write(expression))
        except (ArithmeticError, ValueError, TypeError, AttributeError, RecursionError):
            continue
    return min(len(sympy.Add.make_args(way)) for way in ways)


def rounded(expression: sympy.Expr, digits: int = 2) -> sympy.Expr:
    """With every decimal number rounded to some significant digits, as an exact fraction."""
    numbers = {
        f: sympy.Rational(f"{float(f):.{digits - 1}e}") for f in expression.atoms(sympy.Float)
    }
    return expression.xreplace(numbers)


def values(expression: sympy.Expr, names: list[str], x_ND: np.ndarray) -> np.ndarray:
    """Its values; NaN where it is undefined."""
    f = sympy.lambdify(names, expression, "numpy")
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        out = np.asarray(f(*x_ND.T))
    out = (
        np.where(np.abs(np.imag(out)) < 1e-12, np.real(out), np.nan)
        if np.iscomplexobj(out)
        else out
    )
    return np.broadcast_to(out.astype(float), (len(x_ND),))


def judge(expression: sympy.Expr, law: EquationLaw, noise: float, x_ND: np.ndarray) -> Verdict:
    """Args: the law that was found, in the features x1, x2, ... ; the truth; the noise; the
    training features."""
    probe_ND = np.concatenate([law.within(), law.beyond()])
    truth_N = law.values(probe_ND)
    largest = np.abs(truth_N).max()

    def distance(e: sympy.Expr) -> float:
        found_N = values(e, law.names, probe_ND)
        gap_N = np.abs(found_N - truth_N)
        return (
            float(np.max(gap_N / np.maximum(np.abs(truth_N), 1e-2 * largest)))
            if np.isfinite(gap_N).all()
            else np.inf
        )

    few = terms(expression) <= terms(law.expression)
    ways = [expression, sympy.expand(expression), sympy.factor_terms(expression)]
    symbolic = any(distance(rounded(way)) < 1e-9 for way in ways)
    numeric = few and distance(expression) < AGREES
    form = False
    if noise > 0 and not (symbolic or numeric) and few:
        gap_N = np.abs(values(expression, law.names, probe_ND) - truth_N)
        off = float(gap_N.max() / largest) if np.isfinite(gap_N).all() else np.inf
        form = off < NOISY_LIMIT and _refitted(expression, law, x_ND, distance)
    return Verdict(symbolic, numeric, form, size(expression))


def _refitted(
    expression: sympy.Expr,
    law: EquationLaw,
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
            out = np.broadcast_to(
                np.real(np.asarray(f(*x_ND.T, *constants), dtype=complex)), truth_N.shape
            )
        return np.nan_to_num(out - truth_N, nan=1e6, posinf=1e6, neginf=-1e6)

    start = np.array([float(n) for n in numbers])
    found = least_squares(
        residual, start, x_scale=np.maximum(np.abs(start), 1e-3), xtol=1e-14, ftol=1e-14, gtol=1e-14
    )
    fixed = dict(zip(symbols, (sympy.Float(v, 17) for v in found.x), strict=True))
    return distance(open_form.xreplace(fixed)) < AGREES
