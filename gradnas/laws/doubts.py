"""What is to be said of a law that was found: that other rows will not follow it, and why.

Legend: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from sklearn.neighbors import KNeighborsRegressor

from gradnas.laws.engine.data import Loss
from gradnas.laws.fitting import tensors
from gradnas.laws.law import Laws
from gradnas.laws.losses import scale_of

MOST_ROWS = 3000  # that are compared with their neighbours
NEIGHBOURS = 7
WORSE = 3.0  # times the error on the rows of the fit: the law follows what is chance in them
UNEXPLAINED = 0.25  # of the target's variance, in cross-validation
FAR = 15.0  # standard deviations of the noise, by the median: no noise is so far off
FEW = 0.1  # of the rows; more of them are no outliers


def with_doubts(
    laws: Laws, x_ND: np.ndarray, y_N: np.ndarray, w_N: np.ndarray, loss: Loss, names: Sequence[str]
) -> Laws:
    """The laws with a note where the chosen one, of least squares, fails in cross-validation.

    One row far off the others decides a law of squares, and its R2 on these rows is near 1 then.
    """
    law = laws.front[laws.best]
    variance = float(np.average((y_N - np.average(y_N, weights=w_N)) ** 2, weights=w_N))
    is_bad = law.valid_error > max(WORSE * law.train_error, UNEXPLAINED * variance)
    # A measure of its own is not in the units of the variance.
    if loss != "squared" or law.measure or not is_bad:
        return laws
    explained = f"{max(0.0, 1.0 - law.valid_error / variance):.0%}"
    here = f"{1.0 - law.train_error / variance:.0%}"
    note = (
        f"the law explains {here} of the variance of these rows, and {explained} of that of rows "
        "that were left out: expect nothing of it on others"
    )
    far = _far_off(x_ND, y_N, w_N)
    if len(far):
        row = far[0]
        values = ", ".join(f"{name}={x:.4g}" for name, x in zip(names, x_ND[row], strict=False))
        which = f"the row with {values} is" if len(far) == 1 else f"{len(far)} rows are"
        note += (
            f"; {which} far off the rows nearby, and with squares such rows decide the law: look "
            "at them, or take loss='huber' (--loss huber)"
        )
    return replace(laws, notes=(*laws.notes, note))


def _far_off(x_ND: np.ndarray, y_N: np.ndarray, w_N: np.ndarray) -> np.ndarray:
    """Places of the few rows that are far off their neighbours, the farthest first."""
    if len(y_N) > MOST_ROWS:
        return np.array([], dtype=int)
    residual_N = rough_residuals(x_ND, y_N)
    scale = scale_of(*tensors(residual_N, w_N))
    far = np.flatnonzero(np.abs(residual_N) > FAR * scale)
    if not 0 < len(far) <= FEW * len(y_N):
        return np.array([], dtype=int)
    return far[np.argsort(-np.abs(residual_N[far]))]


def rough_residuals(x_ND: np.ndarray, y_N: np.ndarray) -> np.ndarray:
    """Targets minus the median of those of the nearest rows."""
    spread_D = x_ND.std(axis=0)
    scaled_ND = (x_ND - x_ND.mean(axis=0)) / np.where(spread_D > 0, spread_D, 1.0)
    count = min(NEIGHBOURS, len(x_ND) - 1)
    neighbours = KNeighborsRegressor(n_neighbors=count + 1).fit(scaled_ND, y_N)
    index = neighbours.kneighbors(scaled_ND, return_distance=False)
    others = np.array([[j for j in row if j != i][:count] for i, row in enumerate(index)])
    return y_N - np.median(y_N[others], axis=1)
