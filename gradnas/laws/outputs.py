"""What the laws of a fitted estimator are about: numbers, or the probabilities of classes.

Legend: N rows, K outputs or classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from sklearn.metrics import accuracy_score
from sympy import Expr

from gradnas.laws import text as law_text
from gradnas.laws.law import Law
from gradnas.laws.symbolic import Term, sympy

Output = Literal["real", "probability", "counts"]


class Outputs(ABC):
    """From the laws' formulas to what is predicted, in numbers and in symbols."""

    @property
    @abstractmethod
    def targets(self) -> list[str]:
        """What the fronts are about: the names of the targets, or `name=class`."""

    @property
    @abstractmethod
    def score_name(self) -> str:
        """What `score` is."""

    @abstractmethod
    def score(self, y_N: np.ndarray, predicted_N: np.ndarray, w_N: np.ndarray | None) -> float:
        """How well a prediction of all rows agrees with the target; NaN where that says nothing."""

    @abstractmethod
    def left_sides(self, latex: bool) -> list[str]:
        """What the equations are equal to."""

    @abstractmethod
    def about(self, k: int) -> str:
        """What the front of output k is about, in words."""

    @property
    def in_log_odds(self) -> bool:
        """Whether the laws are shown as log-odds, from which what is predicted follows."""
        return False

    @abstractmethod
    def expressions(self, formulas: Sequence[Expr]) -> tuple[Expr, ...]:
        """What is predicted, from the laws' formulas, as sympy expressions."""

    @abstractmethod
    def values(self, law: Law, x_ND: np.ndarray) -> np.ndarray:
        """What of a law at some rows the prediction is made from; NaN where it is undefined."""

    @abstractmethod
    def predicted(self, values_NK: np.ndarray) -> np.ndarray:
        """What is predicted, from the laws' values: numbers, or the probability of every class."""

    @abstractmethod
    def column(self, k: int) -> int:
        """The column of `predicted` that the law of output k is about."""

    @abstractmethod
    def encoded(self, y: ArrayLike) -> np.ndarray:
        """(N, K) targets as the laws see them."""


@dataclass(frozen=True)
class Numbers(Outputs):
    """Targets that are numbers, each explained by one law."""

    names: list[str]
    output: Output

    @property
    def targets(self) -> list[str]:
        return self.names

    @property
    def score_name(self) -> str:
        return "R2"

    def score(self, y_N: np.ndarray, predicted_N: np.ndarray, w_N: np.ndarray | None) -> float:
        """R2 of the rows where the law is defined, each counted once; of several, their mean."""
        del w_N
        if y_N.ndim > 1:
            both = zip(y_N.T, predicted_N.reshape(y_N.shape).T, strict=True)
            return float(np.mean([self.score(own_N, law_N, None) for own_N, law_N in both]))
        defined_N = np.isfinite(predicted_N)
        y_N = y_N[defined_N]
        spread = float(((y_N - y_N.mean()) ** 2).sum()) if len(y_N) else 0.0
        if not spread > 0:
            return float("nan")
        error = float(((y_N - predicted_N[defined_N]) ** 2).sum())
        return 1.0 - error / spread

    def left_sides(self, latex: bool) -> list[str]:
        if latex:
            return [law_text.latex_name(name) for name in self.names]
        return list(self.names)

    def about(self, k: int) -> str:
        link = {"real": "", "probability": "log-odds of ", "counts": "logarithm of the rate of "}
        return f"{link[self.output]}{self.names[k]}"

    def expressions(self, formulas: Sequence[Expr]) -> tuple[Expr, ...]:
        if self.output == "probability":
            return tuple(_logistic(formula) for formula in formulas)
        if self.output == "counts":
            return tuple(_exp(formula) for formula in formulas)
        return tuple(formulas)

    def values(self, law: Law, x_ND: np.ndarray) -> np.ndarray:
        return law.predict(x_ND)

    def predicted(self, values_NK: np.ndarray) -> np.ndarray:
        return values_NK

    def column(self, k: int) -> int:
        return k

    def encoded(self, y: ArrayLike) -> np.ndarray:
        y_N = np.asarray(y, dtype=np.float64)
        return y_N.reshape(len(y_N), -1)


@dataclass(frozen=True)
class Classes(Outputs):
    """Classes; of two the second has a law, of more each has one, against the rest.

    Attributes:
        name: of the target.
        labels: the classes.
        prior_K: their shares in the training data.
    """

    name: str
    labels: np.ndarray
    prior_K: np.ndarray

    @property
    def own(self) -> list[int]:
        """The classes that have a law."""
        return list(range(len(self.labels))) if len(self.labels) > 2 else [1]

    @property
    def targets(self) -> list[str]:
        return [f"{self.name}={label}" for label in self.labels[self.own]]

    @property
    def score_name(self) -> str:
        return "accuracy"

    def score(self, y_N: np.ndarray, predicted_N: np.ndarray, w_N: np.ndarray | None) -> float:
        return float(accuracy_score(y_N, predicted_N, sample_weight=w_N))

    def left_sides(self, latex: bool) -> list[str]:
        if not latex:
            return [f"P({target})" for target in self.targets]
        name = law_text.latex_name(self.name)
        words = [law_text.latex_word(str(label)) for label in self.labels[self.own]]
        return [rf"P\left({name} = {word}\right)" for word in words]

    def about(self, k: int) -> str:
        return f"log-odds of {self.targets[k]} against the rest"

    @property
    def in_log_odds(self) -> bool:
        return len(self.own) > 1

    def expressions(self, formulas: Sequence[Expr]) -> tuple[Expr, ...]:
        shares = [_logistic(formula) for formula in formulas]
        if len(shares) == 1:
            return tuple(shares)
        return tuple(share / sympy.Add(*shares) for share in shares)

    def values(self, law: Law, x_ND: np.ndarray) -> np.ndarray:
        return law.linear(x_ND)

    def predicted(self, values_NK: np.ndarray) -> np.ndarray:
        """The probabilities one against the rest, divided by their sum.

        Where a law is undefined: the shares of the classes in the training data.
        """
        eta_NK = values_NK
        if len(self.labels) == 2:
            eta_NK = np.column_stack([-eta_NK, eta_NK])
        with np.errstate(invalid="ignore"):
            # By the logarithms of the probabilities, so that none underflows before the division.
            log_p_NK = -np.logaddexp(0.0, -eta_NK)
            p_NK = np.exp(log_p_NK - log_p_NK.max(axis=1, keepdims=True))
            p_NK /= p_NK.sum(axis=1, keepdims=True)
        defined_N1 = np.isfinite(p_NK).all(axis=1, keepdims=True)
        return np.where(defined_N1, p_NK, self.prior_K)

    def column(self, k: int) -> int:
        return self.own[k]

    def encoded(self, y: ArrayLike) -> np.ndarray:
        labels_N = np.asarray(y).reshape(-1)
        for label in np.unique(labels_N):
            if label not in self.labels:
                raise ValueError(f"y holds the class {label!r}, which fit has not seen")
        columns = [labels_N == label for label in self.labels[self.own]]
        return np.column_stack(columns).astype(np.float64)


@dataclass(frozen=True)
class JointClasses(Classes):
    """Classes whose laws are fitted together: the softmax of their values is predicted."""

    @property
    def own(self) -> list[int]:
        return list(range(len(self.labels)))

    def expressions(self, formulas: Sequence[Expr]) -> tuple[Expr, ...]:
        powers = [_exp(formula) for formula in formulas]
        return tuple(power / sympy.Add(*powers) for power in powers)

    def predicted(self, values_NK: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):
            p_NK = np.exp(values_NK - values_NK.max(axis=1, keepdims=True))
            p_NK /= p_NK.sum(axis=1, keepdims=True)
        defined_N1 = np.isfinite(p_NK).all(axis=1, keepdims=True)
        return np.where(defined_N1, p_NK, self.prior_K)


def _exp(expression: Term) -> Term:
    """As it stands: sympy makes exp(1.4 - 2*x) into 4.0552*exp(-2*x), which hides the constant."""
    if expression.free_symbols:
        return sympy.exp(expression, evaluate=False)
    return sympy.exp(expression)


def _logistic(expression: Term) -> Term:
    return 1 / (1 + _exp(-expression))
