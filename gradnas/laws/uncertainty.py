"""How well the rows determine the constants of a law: standard errors and intervals.

Legend: N rows, P constants, B samples.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from scipy.stats import t as student
from sympy import Expr
from torch import Tensor

from gradnas.laws import text as law_text
from gradnas.laws.fitting import FormModel, Rows, fit_from, undetermined
from gradnas.laws.given import Form
from gradnas.laws.losses import LossFunction, Squared
from gradnas.laws.symbolic import Term, sympy
from gradnas.randomness import generator_for

if TYPE_CHECKING:
    import pandas

Method = Literal["covariance", "bootstrap"]
SAMPLES = 200
SAMPLE_STEPS = 12
LEVEL = 0.95
BOOTSTRAP = 8  # stream of random numbers


@dataclass(frozen=True)
class OpenLaw:
    """A law with its constants opened.

    Attributes:
        form: with a symbol for each constant.
        values: of the constants.
    """

    form: Form
    values: tuple[float, ...]


@dataclass(frozen=True)
class Uncertainty:
    """The constants of a law and how sure they are.

    Attributes:
        law: with the constants' names.
        table: a pandas frame: constant, value, std_error, low, high (the 95% interval); NaN where
            the rows do not determine a constant beside the others.
        covariance: `(P, P)`, in the order of the table.
        method: "covariance" or "bootstrap".
        expression: the law with a symbol for each constant.
    """

    law: str
    table: pandas.DataFrame
    covariance: np.ndarray
    method: Method
    expression: Expr

    def __str__(self) -> str:
        return f"{self.law}\n{self.table.to_string(index=False, float_format='{:.4g}'.format)}"


def opened(expression: Expr, features: list[str]) -> OpenLaw:
    """A law with a symbol for every constant in it.

    Constants are decimals, and whole numbers other than 1 that are terms or factors (a search
    rounds constants to them); exponents that are whole or simple fractions are part of the
    structure. A number that stands in two places is one constant.
    """
    symbols: dict[float, Term] = {}

    def symbol_for(value: float) -> Term:
        if abs(value) not in symbols:
            name = f"k{len(symbols) + 1}"
            while name in features:
                name += "_"
            symbols[abs(value)] = sympy.Symbol(name)
        own = symbols[abs(value)]
        return own if value > 0 else -own

    def replaced(part: Term, is_exponent: bool) -> Term:
        if part.is_Float:
            return symbol_for(float(part))
        if part.is_Rational:
            is_structure = is_exponent or abs(part) == 1 or part == 0
            return part if is_structure else symbol_for(float(part))
        if not part.args:
            return part
        if part.is_Pow:
            return replaced(part.base, False) ** replaced(part.exp, True)
        return part.func(*[replaced(argument, False) for argument in part.args])

    law = replaced(expression, False)
    ordered = sorted(symbols.items(), key=lambda pair: int(pair[1].name[1:].rstrip("_")))
    names = tuple(symbol.name for _, symbol in ordered)
    return OpenLaw(Form(law, names, tuple(features)), tuple(value for value, _ in ordered))


def by_covariance(law: OpenLaw, rows: Rows, points: float, loss: LossFunction) -> np.ndarray:
    """`(P, P)`; NaN of constants that the rows do not determine.

    Of a squared error it is that of nonlinear least squares, with the variance of the residuals;
    of a likelihood the inverse of the Fisher information.
    """
    model = FormModel(law.form)
    theta_P = torch.tensor(law.values, dtype=torch.float64)
    eta_1N, slope_1PN = model(rows.x_ND, theta_P[None])
    curvature_1N, pull_1N = loss.weights(eta_1N, rows.y_N)
    loose = undetermined(model, rows, theta_P)
    known = [place for place in range(len(theta_P)) if place not in loose]
    slope_KN = slope_1PN[0][known]
    share_N = rows.w_N * points / len(rows.y_N)  # points that a row stands for
    information = (slope_KN * curvature_1N[0] * share_N) @ slope_KN.T
    scale = information.diagonal().clamp(min=1e-300).rsqrt()
    inverse = torch.linalg.pinv(information * scale[:, None] * scale, hermitian=True, rtol=1e-15)
    covariance = inverse * scale[:, None] * scale
    if isinstance(loss, Squared):
        freedom = points - len(known)
        squares = float((share_N * pull_1N[0] ** 2).sum())
        covariance = covariance * (squares / freedom if freedom > 0 else math.nan)
    full = np.full((len(theta_P), len(theta_P)), np.nan)
    full[np.ix_(known, known)] = covariance.numpy()
    return full


def by_bootstrap(law: OpenLaw, rows: Rows, loss: LossFunction, seed: int, samples: int) -> Tensor:
    """`(B, P)` constants, fitted to rows drawn with replacement."""
    model = FormModel(law.form)
    theta_1P = torch.tensor(law.values, dtype=torch.float64)[None]
    generator = generator_for(seed, BOOTSTRAP)
    fitted: list[Tensor] = []
    n = len(rows.y_N)
    for _ in range(samples):
        drawn = torch.randint(n, (n,), generator=generator)
        fit = fit_from(model, rows.part(drawn), loss, theta_1P, SAMPLE_STEPS)
        if math.isfinite(fit.loss):
            fitted.append(fit.theta_P)
    return torch.stack(fitted) if fitted else theta_1P[:0]


def uncertainty_of(
    expression: Expr | OpenLaw,
    features: list[str],
    left: str,
    rows: Rows,
    points: float,
    loss: LossFunction,
    method: Method,
    seed: int,
    samples: int = SAMPLES,
) -> Uncertainty:
    """The constants of a law and how sure they are.

    Args:
        points: how many rows `rows` stand for.
    """
    import pandas

    law = expression if isinstance(expression, OpenLaw) else opened(expression, features)
    values_P = np.array(law.values)
    if method == "covariance":
        covariance = by_covariance(law, rows, points, loss)
        error_P = np.sqrt(np.clip(np.diag(covariance), 0.0, None))
        freedom = max(1.0, points - len(values_P))
        reach = student.ppf(0.5 + LEVEL / 2, freedom) if isinstance(loss, Squared) else 1.96
        low_P = values_P - reach * error_P
        high_P = values_P + reach * error_P
    else:
        loose = undetermined(FormModel(law.form), rows, torch.tensor(values_P))
        drawn_BP = by_bootstrap(law, rows, loss, seed, samples).numpy()
        if len(drawn_BP) < 2:
            raise ValueError("the law is undefined in too many rows to draw samples of them")
        covariance = np.atleast_2d(np.cov(drawn_BP.T))
        error_P = np.sqrt(np.diag(covariance))
        low_P, high_P = np.quantile(drawn_BP, [0.5 - LEVEL / 2, 0.5 + LEVEL / 2], axis=0)
        for column_P in (error_P, low_P, high_P):
            column_P[loose] = np.nan
    table = pandas.DataFrame(
        {
            "constant": list(law.form.constants),
            "value": values_P,
            "std_error": error_P,
            "low": low_P,
            "high": high_P,
        }
    )
    line = law_text.text(law.form.expression, None, list(features))
    return Uncertainty(f"{left} = {line}", table, covariance, method, law.form.expression)


def with_errors(uncertainty: Uncertainty, features: list[str]) -> str:
    """The law in one line, with `(value ± standard error)` for each constant."""
    written: dict[str, str] = {}
    rows = uncertainty.table[["constant", "value", "std_error"]].itertuples(index=False)
    for name, value, error in rows:
        written[name] = f"({plus_minus(value, error)})"
    left, _, _ = uncertainty.law.partition(" = ")
    return f"{left} = {law_text.text_of(uncertainty.expression, features, written)}"


def plus_minus(value: float, error: float) -> str:
    """Such as `2.31 ± 0.04`: the error of two digits, the value as far as it says something."""
    if not math.isfinite(error):
        return f"{value:.4g} ± ?"
    if error <= 1e-12 * abs(value):
        return f"{value:.10g} ± {error:.1g}"
    decimals = 1 - math.floor(math.log10(error))
    if 0 <= decimals <= 9 and abs(value) < 1e6:
        return f"{value:.{decimals}f} ± {error:.{decimals}f}"
    digits = math.floor(math.log10(max(abs(value), error))) + decimals + 1
    return f"{value:.{min(max(digits, 2), 15)}g} ± {error:.2g}"
