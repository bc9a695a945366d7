"""A predictor of latencies for operations that a table lacks; `fit` makes one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from gradnas.config import Json, JsonObject, build


@dataclass(frozen=True)
class Predictor:
    """`ms = base_ms + sum_f coefficient_f * feature_f`, with no coefficient below zero.

    The features are numbers of layers by type and of what they read, write and multiply, so the
    coefficients are costs: of a call, of a thousand values written, of a million multiply-adds. A
    sum of costs extrapolates sensibly, is read at a glance, and is plain data. It is fitted by
    non-negative least squares, with rows weighted by `1 / sqrt(ms)`: between least absolute error,
    in which short operations would not count, and least relative error.

    Attributes:
        names: of the features, in the order of `coefficients`.
        coefficients: milliseconds per unit of each feature.
        base_ms: of every operation.
        held_out_r2, held_out_error: of predictions for operations that were not fitted on (each
            fifth from the other four): coefficient of determination, and median relative error.
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
            raise ValueError(
                f"{len(self.names)} names of features, but {len(self.coefficients)} coefficients"
            )

    @property
    def quality(self) -> str:
        """A phrase about how far it can be trusted."""
        return (
            f"held-out operations: median error {100 * self.held_out_error:.0f}%, "
            f"R2 {self.held_out_r2:.2f}, {self.count} measured"
        )

    def predict(self, features: Mapping[str, float]) -> float:
        """Milliseconds. ValueError where a feature is missing that it was fitted with."""
        missing = [name for name in self.names if name not in features]
        if missing:
            raise ValueError(
                "the predictor was fitted with other features than this operation has: "
                f"{', '.join(missing)}"
            )
        pairs = zip(self.names, self.coefficients, strict=True)
        return self.base_ms + sum(coefficient * features[name] for name, coefficient in pairs)

    def to_json(self) -> JsonObject:
        """Plain data."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(data: Json, where: str) -> Predictor:
        """The inverse of `to_json`; ValueError that says what is wrong."""
        if not isinstance(data, Mapping):
            raise ValueError(f"{where} must be an object")
        return build(Predictor, data, where)
