"""`EquationRegressor` and `EquationClassifier`: short laws from tables, as scikit-learn estimators.

Legend: N rows, D features, K outputs or classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, Self

import numpy as np
import sympy
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets

from gradnas.laws import text as law_text
from gradnas.laws.discover import (
    LawSettings,
    Loss,
)
from gradnas.laws.estimator import EquationEstimator
from gradnas.laws.primitives import Primitive

Output = Literal["real", "probability", "counts"]
LOSSES: dict[str, Loss] = {"real": "squared", "probability": "logistic", "counts": "poisson"}


class EquationRegressor(RegressorMixin, EquationEstimator):
    """Explains numbers by a short law.

    Every law of the Pareto front is found by a differentiable search over graphs of scalar
    operations, beside graphs that are enumerated and drawn at random; all are refitted by
    Levenberg-Marquardt in float64 and pruned by their description length. See
    `gradnas.laws.discover.discover_laws`, which does it, and `LawSettings`.

    Args:
        output: "real" (squared error), "probability" (targets in [0, 1]: a law for the log-odds,
            with cross-entropy) or "counts" (targets of at least 0: a law for the logarithm of the
            rate, Poisson).
        primitives: words such as "linear_exp" (`gradnas.laws.primitives.WORDS`) or `Primitive`s of
            one's own; None takes those of `settings`.
        nodes: largest number of intermediate nodes; None takes that of `settings`.
        effort: multiplies the budget of `settings`.
        max_complexity: choose among the laws of at most this complexity (constants + operations).
        settings: a `LawSettings`; None takes the default one. `LawSettings.plain_darts()` is DARTS
            as published.
        random_state: a number, a NumPy `RandomState`, or None for another law each time. The same
            number gives the same law.
        progress: show a bar with the best law so far on stderr.

    Attributes:
        equation_: the chosen law, a sympy expression in the feature names (`equations_` of several
            outputs).
        pareto_: the Pareto front, a pandas frame.
        stability_: how many proposals agree on the chosen law.
        notes_: what was done to the data or left out, in sentences.
        laws_: a `gradnas.laws.discover.Laws` for each output.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    """

    def __init__(
        self,
        *,
        output: Output = "real",
        primitives: Sequence[str | Primitive] | None = None,
        nodes: int | None = None,
        effort: float = 1.0,
        max_complexity: int | None = None,
        settings: LawSettings | None = None,
        random_state: Any = 0,
        progress: bool = False,
    ) -> None:
        super().__init__(
            primitives=primitives,
            nodes=nodes,
            effort=effort,
            max_complexity=max_complexity,
            settings=settings,
            random_state=random_state,
            progress=progress,
        )
        self.output = output

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Find the laws.

        Args:
            X: (N, D) array or pandas frame of numbers.
            y: (N,) or, for several outputs, (N, K) numbers.
            sample_weight: (N,); whole numbers count repetitions, others are scaled to a mean of 1.

        Raises:
            ValueError: something that is not a finite number, columns of the same name, a target
                that is constant or outside of what `output` allows, fewer than 5 rows.
        """
        if self.output not in LOSSES:
            raise ValueError(f"output must be one of {', '.join(LOSSES)}, not {self.output!r}")
        self._notes = []
        x_ND, y_NK = self._features(X, reset=True, y=y, multi_output=True, y_numeric=True)
        self._flat = y_NK.ndim == 1
        self._target_names = _names_of_target(y, 1 if self._flat else y_NK.shape[1])
        y_NK = y_NK.reshape(len(y_NK), -1).astype(np.float64)
        x_ND, y_NK, w_N = self._prepare(x_ND, y_NK, sample_weight)
        for k, name in enumerate(self._target_names):
            self._check_target(y_NK[:, k], name)
        loss = LOSSES[self.output]
        self._formulas = {}
        self.laws_ = [
            self._discover(x_ND, y_NK[:, k], w_N, loss, name, k)
            for k, name in enumerate(self._target_names)
        ]
        self._keep(x_ND, y_NK)
        return self

    def predict(self, X: Any, law: int | None = None) -> np.ndarray:
        """The expected target, of the shape that `fit` had it in. NaN, with a warning, where the
        law is undefined.

        Args:
            law: row of the Pareto front; by default the chosen law.
        """
        self._check_fitted("predict")
        y_NK = self._values(self._features(X), law)
        return y_NK[:, 0] if self._flat else y_NK

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.target_tags.multi_output = True
        return tags

    def _check_target(self, y_N: np.ndarray, name: str) -> None:
        if np.ptp(y_N) == 0.0:
            raise ValueError(
                f"the target {name} has the same value, {y_N[0]:g}, in every row: there is no law to find"
            )
        low, high = float(y_N.min()), float(y_N.max())
        if self.output == "probability" and (low < 0.0 or high > 1.0):
            raise ValueError(
                f"output='probability' needs targets from 0 to 1; {name} runs from {low:g} to {high:g}"
            )
        if self.output == "counts" and low < 0.0:
            raise ValueError(
                f"output='counts' needs targets of at least 0; the smallest of {name} is {low:g}"
            )

    def _expressions(self, law: int | None) -> tuple[sympy.Expr, ...]:
        self._check_fitted("equations_")
        link: Callable[[Any], Any] = {
            "real": lambda v: v,
            "probability": _logistic,
            "counts": _exp,
        }[self.output]
        return tuple(link(self.formula(k, self._row(k, law))) for k in range(len(self.laws_)))

    def _shown(self, x_ND: np.ndarray, law: int | None, output: int) -> np.ndarray:
        return self._values(x_ND, law)[:, output]

    def left_sides(self, *, latex: bool = False) -> list[str]:
        self._check_fitted("left_sides")
        return [law_text.latex_name(name) if latex else name for name in self._target_names]

    def _targets(self) -> list[str]:
        return self._target_names

    def _encoded(self, y: Any) -> np.ndarray:
        return np.asarray(y, dtype=np.float64).reshape(len(y), -1)


class EquationClassifier(ClassifierMixin, EquationEstimator):
    """Explains classes by short laws for their log-odds.

    Two classes: one law for the log-odds of the second, fitted with cross-entropy; `equation_` is
    the probability of the second class. More classes: one law for the log-odds of each class
    against the rest, fitted one by one with cross-entropy; the softmax of the logarithms of their
    probabilities is what is predicted, which is to say the probabilities divided by their sum, and
    `equations_` holds it for each class. `log_odds_` holds the laws themselves.

    Arguments and attributes are those of `EquationRegressor`, without `output`, and `classes_`.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Find the laws.

        Args:
            X: (N, D) array or pandas frame of numbers.
            y: (N,) class labels, numbers or text.
            sample_weight: (N,); whole numbers count repetitions, others are scaled to a mean of 1.

        Raises:
            ValueError: as of `EquationRegressor`; one class alone.
        """
        self._notes = []
        x_ND, y_N = self._features(X, reset=True, y=y)
        check_classification_targets(y_N)
        self._target_name = _names_of_target(y, 1)[0]
        self.classes_, index_N = np.unique(y_N, return_inverse=True)
        x_ND, index_NK, w_N = self._prepare(
            x_ND, index_N.reshape(-1, 1).astype(np.float64), sample_weight
        )
        index_N = index_NK[:, 0].astype(np.int64)
        counts_K = np.bincount(index_N, w_N, minlength=len(self.classes_))
        if (counts_K > 0).sum() < 2:
            raise ValueError(
                "a classifier needs at least 2 classes, but all rows (of positive weight) are of one class"
            )
        present = np.flatnonzero(counts_K)
        self.classes_, counts_K = self.classes_[present], counts_K[present]
        index_N = np.searchsorted(present, index_N)
        self._prior_K = counts_K / counts_K.sum()
        self._formulas = {}
        self.laws_ = []
        y_NK = np.column_stack([index_N == k for k in self._own()]).astype(np.float64)
        for k, name in enumerate(self._targets()):
            self.laws_.append(self._discover(x_ND, y_NK[:, k], w_N, "logistic", name, k))
        self._keep(x_ND, y_NK)
        return self

    def predict_proba(self, X: Any, law: int | None = None) -> np.ndarray:
        """(N, K) probabilities of `classes_`. Where a law is undefined: the shares of the classes
        in the training data, with a warning.

        Args:
            law: row of the Pareto front; by default the chosen law.
        """
        self._check_fitted("predict_proba")
        return self._probabilities(self._features(X), law)

    def _probabilities(self, x_ND: np.ndarray, law: int | None) -> np.ndarray:
        eta_NK = self._values(x_ND, law, linear=True)
        if len(self.classes_) == 2:
            eta_NK = np.column_stack([-eta_NK, eta_NK])
        with np.errstate(invalid="ignore"):
            score_NK = -np.logaddexp(
                0.0, -eta_NK
            )  # logarithms of the probabilities one against the rest
            p_NK = np.exp(score_NK - score_NK.max(axis=1, keepdims=True))
            p_NK /= p_NK.sum(axis=1, keepdims=True)
        return np.where(np.isfinite(p_NK).all(axis=1, keepdims=True), p_NK, self._prior_K)

    def predict(self, X: Any, law: int | None = None) -> np.ndarray:
        """The most probable class of each row. Arguments as of `predict_proba`."""
        p_NK = self.predict_proba(X, law)
        return self.classes_[np.argmax(p_NK, axis=1)]

    @property
    def log_odds_(self) -> tuple[sympy.Expr, ...]:
        """The log-odds of each class against the rest (of two classes: of the second), as sympy
        expressions."""
        self._check_fitted("log_odds_")
        return tuple(self.formula(k) for k in range(len(self.laws_)))

    def _expressions(self, law: int | None) -> tuple[sympy.Expr, ...]:
        self._check_fitted("equations_")
        shares = [_logistic(self.formula(k, self._row(k, law))) for k in range(len(self.laws_))]
        return tuple(
            shares if len(shares) == 1 else [share / sympy.Add(*shares) for share in shares]
        )

    def _shown(self, x_ND: np.ndarray, law: int | None, output: int) -> np.ndarray:
        return self._probabilities(x_ND, law)[:, self._own()[output]]

    def _own(self) -> list[int]:
        """The classes that have a law: all, or of two the second."""
        return list(range(len(self.classes_))) if len(self.classes_) > 2 else [1]

    def left_sides(self, *, latex: bool = False) -> list[str]:
        self._check_fitted("left_sides")
        labels = self.classes_[self._own()]
        if latex:
            name = law_text.latex_name(self._target_name)
            return [
                rf"P\left({name} = {law_text.latex_word(str(label))}\right)" for label in labels
            ]
        return [f"P({self._target_name}={label})" for label in labels]

    def _targets(self) -> list[str]:
        return [f"{self._target_name}={label}" for label in self.classes_[self._own()]]

    def _encoded(self, y: Any) -> np.ndarray:
        labels_N = np.asarray(y).reshape(-1)
        unknown = [label for label in np.unique(labels_N) if label not in self.classes_]
        if unknown:
            raise ValueError(f"y holds the class {unknown[0]!r}, which fit has not seen")
        return np.column_stack([labels_N == label for label in self.classes_[self._own()]]).astype(
            np.float64
        )


def _exp(expression: Any) -> Any:
    """As it stands: by itself sympy makes exp(1.4 - 2*x) into 4.0552*exp(-2*x), which hides the
    constant."""
    return (
        sympy.exp(expression, evaluate=False) if expression.free_symbols else sympy.exp(expression)
    )


def _logistic(expression: Any) -> Any:
    return 1 / (1 + _exp(-expression))


def _names_of_target(y: Any, outputs: int) -> list[str]:
    """The name of a pandas series, or those of a frame's columns; else y, or y1, y2, ..."""
    names = list(y.columns) if hasattr(y, "columns") else [getattr(y, "name", None)]
    if len(names) == outputs and all(isinstance(name, str) and name for name in names):
        return names
    return ["y"] if outputs == 1 else [f"y{k + 1}" for k in range(outputs)]
