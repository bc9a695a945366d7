"""A predictor of latencies, fitted on a table, for operations that the table lacks.

Legend: N operations, F features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradnas.config import build

FEWEST = 10  # operations to fit on


@dataclass(frozen=True)
class Predictor:
    """`ms = base_ms + sum_f coefficient_f * feature_f`, with no coefficient below zero.

    The features are numbers of layers by type and of what they read, write and multiply, so the coefficients are costs:
    of a call, of a thousand values written, of a million multiply-adds. A sum of costs extrapolates sensibly, is read
    at a glance, and is plain data. It is fitted by non-negative least squares, with rows weighted by `1 / sqrt(ms)`:
    between least absolute error, in which short operations would not count, and least relative error.

    Attributes:
        names: of the features, in the order of `coefficients`.
        coefficients: milliseconds per unit of each feature.
        base_ms: of every operation.
        held_out_r2, held_out_error: of predictions for operations that were not fitted on (each fifth from the other
            four): coefficient of determination, and median relative error.
        count: operations it was fitted on.
    """

    names: tuple[str, ...]
    coefficients: tuple[float, ...]
    base_ms: float
    held_out_r2: float
    held_out_error: float
    count: int

    def __post_init__(self) -> None:
        if len(self.names) != len(self.coefficients):
            raise ValueError(f"{len(self.names)} names of features, but {len(self.coefficients)} coefficients")

    @property
    def quality(self) -> str:
        """A phrase about how far it can be trusted."""
        return (
            f"held-out operations: median error {100 * self.held_out_error:.0f}%, R2 {self.held_out_r2:.2f}, "
            f"{self.count} measured"
        )

    def predict(self, features: Mapping[str, float]) -> float:
        """Milliseconds. ValueError where a feature is missing that it was fitted with."""
        missing = [name for name in self.names if name not in features]
        if missing:
            raise ValueError(
                f"the predictor was fitted with other features than this operation has: {', '.join(missing)}"
            )
        pairs = zip(self.names, self.coefficients, strict=True)
        return self.base_ms + sum(coefficient * features[name] for name, coefficient in pairs)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Any, where: str) -> Predictor:
        """The inverse of `to_json`; ValueError that says what is wrong."""
        if not isinstance(data, Mapping):
            raise ValueError(f"{where} must be an object")
        return build(Predictor, data, where)


def fit(features: Sequence[Mapping[str, float]], ms: Sequence[float], seed: int = 0) -> Predictor:
    """Fit a predictor; its held-out error comes from five fits that each leave a fifth of the operations out.

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
            f"{len(rows)} operations with known features are too few to fit a predictor on: at least {FEWEST} are needed"
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
    return Predictor(names, tuple(coefficients_F.tolist()), base, float(r2), float(error), len(rows))


def _least_squares(x_NF: np.ndarray, y_N: np.ndarray) -> tuple[np.ndarray, float]:
    from sklearn.linear_model import LinearRegression  # here, so that latency tables need torch and numpy alone

    weight_N = 1.0 / np.sqrt(np.maximum(y_N, 1e-6))
    scale_F = np.maximum(x_NF.max(axis=0), 1e-12)  # of one size, so that the solver treats all alike
    columns = np.concatenate([x_NF / scale_F, np.ones((len(y_N), 1))], axis=1)
    solver = LinearRegression(positive=True, fit_intercept=False)
    solver.fit(columns * weight_N[:, None], y_N * weight_N)
    return solver.coef_[:-1] / scale_F, float(solver.coef_[-1])
