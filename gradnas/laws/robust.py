"""Laws by other losses than squares: the loss itself, and searches with reweighted rows.

Legend: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.doubts import rough_residuals
from gradnas.laws.fitting import FormModel, FormulaModel, Rows, tensors
from gradnas.laws.formula import Formula
from gradnas.laws.law import Laws
from gradnas.laws.losses import (
    HUBER,
    Absolute,
    Huber,
    Logistic,
    LossFunction,
    OwnLoss,
    Poisson,
    Squared,
    bisquare,
    checked_own,
    scale_of,
)
from gradnas.laws.request import LawRequest

LossName = Literal["squared", "absolute", "huber"]
AskedLoss = LossName | OwnLoss
LINKED: dict[str, LossFunction] = {"logistic": Logistic(), "poisson": Poisson()}
CANDIDATES = 24
FIRST_EFFORT = 0.4  # of the search whose residuals say which rows are far off
MOST_SEARCHES = 2
SAME = 0.02  # mean change of the rows' weights below which another search would see the same


def loss_for(request: LawRequest, asked: AskedLoss, rows: Rows) -> tuple[LossFunction, str]:
    """The loss, and its name where that of the link does not say it."""
    if request.link != "squared":
        return LINKED[request.link], ""
    if asked == "squared":
        return Squared(), ""
    if asked == "absolute":
        return Absolute(), "mean absolute error"
    if asked == "huber":
        return Huber(HUBER * max(_rough_scale(request), 1e-300)), "mean Huber loss"
    assert callable(asked)
    name = getattr(asked, "__name__", type(asked).__name__)
    own = checked_own(asked, rows.y_N)
    return own, "mean loss" if name == "<lambda>" else f"mean {name}"


def huber_at(model: FormModel | FormulaModel, rows: Rows, theta_P: Tensor) -> tuple[Huber, str]:
    """Huber's loss with the scale of a law's residuals."""
    eta_1N, _ = model(rows.x_ND, theta_P[None])
    scale = scale_of(rows.y_N - torch.nan_to_num(eta_1N[0]), rows.w_N)
    delta = HUBER * max(scale, 1e-9 * rows.spread**0.5)
    return Huber(delta), f"mean Huber loss (quadratic up to {delta:.3g})"


def _rough_scale(request: LawRequest) -> float:
    residual_N, w_N = tensors(rough_residuals(request.x_ND, request.y_N), request.w_N)
    return scale_of(residual_N, w_N)


def reweighted(
    request: LawRequest,
    asked: AskedLoss,
    start: Sequence[Formula],
    extra: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[Laws, np.ndarray]:
    """Searches by squares whose rows weigh as the loss pulls at them; the last, and the weights.

    With a robust loss a row that is far off every good law has no weight, so that the structure is
    that of the others.
    """
    own = checked_own(asked, tensors(request.y_N)[0]) if callable(asked) else None
    factor_N = np.ones(len(request.y_N))
    effort = FIRST_EFFORT
    if own is None:
        residual_N, w_N = tensors(rough_residuals(request.x_ND, request.y_N), request.w_N)
        factor_N = _trust(residual_N, w_N)
    for k in range(MOST_SEARCHES):
        laws = request.searched(factor_N, effort, start, CANDIDATES, extra)
        law = laws.front[laws.best]
        value_N = law.linear(request.x_ND)
        known_N = np.isfinite(value_N)
        residual_N, eta_N, w_N = tensors(request.y_N - value_N, value_N, request.w_N)
        if own is not None:
            weight_1N, _ = own.weights(torch.nan_to_num(eta_N)[None], tensors(request.y_N)[0])
            new_N = _bounded(weight_1N[0].numpy())
        else:
            new_N = _trust(residual_N.nan_to_num(0.0), w_N)
        new_N = np.where(known_N, new_N, 0.0)
        change = float(np.abs(new_N / new_N.max() - factor_N / factor_N.max()).mean())
        factor_N = new_N
        is_full = effort == 1.0
        effort = 1.0
        if laws.stopped or (is_full and (change < SAME or k == MOST_SEARCHES - 1)):
            break
        start = [law.formula]
    return laws, factor_N


def _bounded(weight_N: np.ndarray) -> np.ndarray:
    """Weights of at most a hundred times their median: a residual of zero would take all."""
    positive_N = weight_N[weight_N > 0]
    if not len(positive_N):
        return np.ones_like(weight_N)
    middle = float(np.median(positive_N))
    return np.clip(weight_N / middle, 1e-3, 100.0)


def _trust(residual_N: Tensor, w_N: Tensor) -> np.ndarray:
    """How far each row is one of many that agree."""
    scale = scale_of(residual_N, w_N)
    size = float(residual_N.abs().mean())
    scale = max(scale, 1e-9 * size, 1e-300)
    return bisquare(residual_N, scale).numpy()
