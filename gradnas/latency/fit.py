"""Fitting a predictor on a latency table, with scikit-learn.

Legend: N operations, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gradnas import extras
from gradnas.latency.predictor import Predictor
from gradnas.latency.table import LatencyTable

FEWEST = 10  # operations to fit on
PARTS = 5  # each is predicted from the others, for the error that is stated


def fit_table(table: LatencyTable, seed: int = 0) -> LatencyTable:
    """The same table with a predictor fitted on its entries. ValueError for too few of them."""
    entries = list(table.entries.values())
    features = [entry.features for entry in entries]
    ms = [entry.ms for entry in entries]
    return table.with_predictor(fit(features, ms, seed))


def fit(features: Sequence[Mapping[str, float]], ms: Sequence[float], seed: int = 0) -> Predictor:
    """Fit a predictor; its held-out error is of operations that were left out of the fit.

    Five fits each leave a fifth of the operations out.

    Args:
        features: of each operation; those that not all operations have are left out.
        ms: of each operation.
        seed: of the division into fifths.

    Raises:
        ValueError: too few operations.
    """
    extras.need("sklearn", extra="images", what="fitting a predictor")
    # A rest has no features: what no module does is never guessed, and nothing is learnt from it.
    known = []
    values = []
    for own, value in zip(features, ms, strict=True):
        if own:
            known.append(own)
            values.append(value)
    if len(known) < FEWEST:
        raise ValueError(
            f"{len(known)} operations with known features are too few to fit a predictor on; "
            f"it takes at least {FEWEST}"
        )
    names = []
    for name in known[0]:
        if all(name in own for own in known):
            names.append(name)
    rows = []
    for own in known:
        rows.append([float(own[name]) for name in names])
    x_NF = np.array(rows)
    y_N = np.array(values)

    held_out_N = np.empty_like(y_N)
    shuffled = np.random.default_rng(seed).permutation(len(y_N))
    for part in np.array_split(shuffled, PARTS):
        others = np.setdiff1d(np.arange(len(y_N)), part)
        coefficients_F, base = _least_squares(x_NF[others], y_N[others])
        held_out_N[part] = base + x_NF[part] @ coefficients_F
    spread = ((y_N - y_N.mean()) ** 2).sum()
    r2 = 0.0
    if spread:
        r2 = 1.0 - ((held_out_N - y_N) ** 2).sum() / spread
    relative_errors_N = np.abs(held_out_N - y_N) / np.maximum(y_N, 1e-9)

    coefficients_F, base = _least_squares(x_NF, y_N)
    return Predictor(
        names=tuple(names),
        coefficients=tuple(coefficients_F.tolist()),
        base_ms=base,
        held_out_r2=float(r2),
        held_out_error=float(np.median(relative_errors_N)),
        count=len(y_N),
    )


def _least_squares(x_NF: np.ndarray, y_N: np.ndarray) -> tuple[np.ndarray, float]:
    """Coefficients and base, none below zero, of rows weighted by 1 / sqrt(ms).

    See `Predictor` for why.
    """
    # Features are of very different sizes (a kernel of 3, a million values): each is brought to at
    # most 1, so that the solver treats all alike.
    scale_F = np.maximum(x_NF.max(axis=0), 1e-12)
    ones_N1 = np.ones((len(y_N), 1))
    columns = np.concatenate([x_NF / scale_F, ones_N1], axis=1)
    # Least squares weighs squared errors, so rows times w weigh them by w^2 = 1 / ms.
    weight_N = 1.0 / np.sqrt(np.maximum(y_N, 1e-6))
    from sklearn.linear_model import LinearRegression

    solver = LinearRegression(positive=True, fit_intercept=False)
    solver.fit(columns * weight_N[:, None], y_N * weight_N)
    return solver.coef_[:-1] / scale_F, float(solver.coef_[-1])
