"""Fitting a predictor on a latency table, with scikit-learn.

Legend: N operations, F features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import LinearRegression

from gradnas.latency.predictor import Predictor
from gradnas.latency.table import LatencyTable

FEWEST = 10  # operations to fit on


def fit_table(table: LatencyTable, seed: int = 0) -> LatencyTable:
    """The same table with a predictor fitted on its entries. ValueError for too few of them."""
    entries = list(table.entries.values())
    return table.with_predictor(
        fit([entry.features for entry in entries], [entry.ms for entry in entries], seed)
    )


def fit(features: Sequence[Mapping[str, float]], ms: Sequence[float], seed: int = 0) -> Predictor:
    """Fit a predictor; its held-out error comes from five fits that each leave a fifth of the
    operations out.

    Args:
        features: of each operation; those that not all operations have are left out.
        ms: of each operation.
        seed: of the division into fifths.

    Raises:
        ValueError: too few operations.
    """
    rows = [(own, value) for own, value in zip(features, ms, strict=True) if own]
    if len(rows) < FEWEST:
        raise ValueError(
            f"{len(rows)} operations with known features are too few to fit a predictor on; it takes at least {FEWEST}"
        )
    names = tuple(name for name in rows[0][0] if all(name in own for own, _ in rows))
    x_NF = np.array([[float(own[name]) for name in names] for own, _ in rows])
    y_N = np.array([value for _, value in rows])
    held_out_N = np.empty_like(y_N)
    for part in np.array_split(np.random.default_rng(seed).permutation(len(rows)), 5):
        rest = np.setdiff1d(np.arange(len(rows)), part)
        coefficients_F, base = _least_squares(x_NF[rest], y_N[rest])
        held_out_N[part] = base + x_NF[part] @ coefficients_F
    spread = ((y_N - y_N.mean()) ** 2).sum()
    r2 = 1.0 - ((held_out_N - y_N) ** 2).sum() / spread if spread else 0.0
    error = np.median(np.abs(held_out_N - y_N) / np.maximum(y_N, 1e-9))
    coefficients_F, base = _least_squares(x_NF, y_N)
    return Predictor(
        names, tuple(coefficients_F.tolist()), base, float(r2), float(error), len(rows)
    )


def _least_squares(x_NF: np.ndarray, y_N: np.ndarray) -> tuple[np.ndarray, float]:
    weight_N = 1.0 / np.sqrt(np.maximum(y_N, 1e-6))
    scale_F = np.maximum(
        x_NF.max(axis=0), 1e-12
    )  # of one size, so that the solver treats all alike
    columns = np.concatenate([x_NF / scale_F, np.ones((len(y_N), 1))], axis=1)
    solver = LinearRegression(positive=True, fit_intercept=False)
    solver.fit(columns * weight_N[:, None], y_N * weight_N)
    return solver.coef_[:-1] / scale_F, float(solver.coef_[-1])
