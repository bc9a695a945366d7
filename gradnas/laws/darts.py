"""DARTS for equations, whole: `DARTSRegressor` and `DARTSClassifier`.

Legend: N rows, D features, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.utils.multiclass import check_classification_targets

from gradnas.laws.darts_estimator import (
    DARTS_NAMES,
    WORDS,
    DARTSEstimator,
    front_of_restarts,
)
from gradnas.laws.darts_laws import Refine, Sampling
from gradnas.laws.engine.data import Loss
from gradnas.laws.fitting import Rows, tensors
from gradnas.laws.formula import Kind
from gradnas.laws.law import Laws
from gradnas.laws.outputs import JointClasses, Numbers
from gradnas.laws.primitives import Primitive
from gradnas.laws.rows import check_target_values, checked_features, feature_names, prepared


class DARTSRegressor(RegressorMixin, DARTSEstimator):
    """The published DARTS over a graph of scalar operations, whole.

    Every node reads all features and all nodes before it; an edge is a mixture of primitives with
    weights softmax(alpha) (or sigmoid(alpha), `fair`), and the prediction is the sum of all nodes.
    Alphas and constants are trained in turn; at the end every edge keeps one primitive, and the
    constants are fitted again. Neither features nor target are scaled.

    For finding laws use `EquationRegressor`: of 67 laws that it recovered in a measured run, a
    supernet contributed to none. This estimator is for those who want the differentiable system
    itself.

    Args:
        nodes: intermediate nodes.
        primitives: words (`gradnas.laws.primitives.WORDS`) or `Primitive`s.
        kinds: what a node may be, of "sum" (as published), "product", "ratio".
        fair: strengths that do not compete (FairDARTS), pushed towards 0 and 1 by `fair_weight`.
        order: 1, or 2 for the gradient through a step of the constants (DARTS, eq. 7).
        restarts: trained side by side; the law of the smallest loss is chosen.
        epochs: each of `alpha_updates` steps of the alphas (Adam, `alpha_lr`, ten times that of the
            reference, with which alphas hardly move in 100 epochs, `alpha_decay`) and
            `param_updates` of the constants (SGD, from `param_lr` to `param_lr_end` along a cosine,
            `momentum`, `param_decay`); the gradients of both are clipped to `clip_norm` for each
            restart, None for no clipping.
        batch_size: rows of a step; None: all.
        validation: share of rows that the alphas learn on, held out from the constants; 0: both
            learn on all rows, as in the reference.
        fewer_params: what an operation's alpha loses with each step, times its number of constants
            and one more; `fewer_operations`: the same for every operation but "none".
        output_weights, output_bias: whether weights and bias of the output are trained (with
            `output_decay`); else 1 and 0.
        sampling: how an edge's primitive is taken: the strongest ("max"), or drawn ("sample").
        refine: how constants are fitted at the end: "least_squares" (Levenberg-Marquardt), "sgd"
            (`refine_updates` more steps, as in the reference) or "none".
        output: "real" (squared error) or "probability" (cross-entropy of log-odds).
        checkpoint: a file that is written every `checkpoint_every` epochs; where it exists, `fit`
            goes on from it (with the same data and settings; `epochs` may be more).
        random_state: the same number gives the same law.

    Attributes:
        equation_, pareto_, notes_, laws_: as of `EquationRegressor`; the front holds the laws of
            the restarts.
        history_, restart_, space_: losses and alphas by epoch, the restart of the chosen law, the
            graph.

    Source: Liu, Simonyan, Yang, "DARTS", ICLR 2019 (arXiv 1806.09055), over the graphs of Musslick,
    "Recovering quantitative models of human information processing with differentiable architecture
    search" (2021).
    """

    def __init__(
        self,
        *,
        output: Literal["real", "probability"] = "real",
        nodes: int = 2,
        primitives: Sequence[str | Primitive] = WORDS,
        kinds: Sequence[Kind] = ("sum",),
        fair: bool = False,
        order: Literal[1, 2] = 1,
        restarts: int = 1,
        epochs: int = 100,
        alpha_updates: int = 1,
        param_updates: int = 10,
        batch_size: int | None = 64,
        validation: float = 0.0,
        alpha_lr: float = 0.03,
        alpha_decay: float = 1e-4,
        fewer_params: float = 3e-4,
        fewer_operations: float = 0.0,
        fair_weight: float = 1.0,
        param_lr: float = 0.025,
        param_lr_end: float = 0.01,
        momentum: float = 0.9,
        param_decay: float = 3e-4,
        clip_norm: float | None = 5.0,
        output_weights: bool = False,
        output_bias: bool = False,
        output_decay: float = 1e-2,
        sampling: Sampling = "max",
        refine: Refine = "least_squares",
        refine_updates: int = 100,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 10,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        own = {name: value for name, value in locals().items() if name in DARTS_NAMES}
        super().__init__(**own)
        self.output = output

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train, derive, and fit the constants.

        Args:
            X: (N, D) array or pandas frame of numbers.
            y: (N,) numbers; in [0, 1] with output="probability".
            sample_weight: (N,).

        Raises:
            ValueError: impossible settings, what is no finite number, a checkpoint of other data.
        """
        if self.output not in ("real", "probability"):
            raise ValueError(f"output is 'real' or 'probability', not {self.output!r}")
        self._notes: list[str] = []
        check_target_values(y)
        x_ND, y_N = checked_features(self, X, reset=True, y=y, y_numeric=True)
        y_N1 = y_N.reshape(-1, 1).astype(np.float64)
        name = getattr(y, "name", None) or "y"
        names = feature_names(self, x_ND.shape[1])
        x_ND, y_N1, w_N = prepared(x_ND, y_N1, sample_weight, names, self._notes.append)
        outside = y_N1.min() < 0.0 or y_N1.max() > 1.0
        if self.output == "probability" and outside:
            raise ValueError("output='probability' needs targets from 0 to 1")
        rows = Rows(*tensors(x_ND, y_N1[:, 0], w_N / w_N.mean()))
        found = self._train(rows, self.output, 1)
        link: Loss = "logistic" if self.output == "probability" else "squared"
        laws = front_of_restarts(found, rows, link, self._training_state, 0)
        self.restart_ = found[0].restart if found else 0
        if not found:
            self._notes.append("every edge of every restart is none: the law is a constant")
        elif found[0].loss > rows.spread and link == "squared":
            self._notes.append(
                "the law fits worse than a constant: train longer, with smaller steps (param_lr), "
                "or from more starts (restarts)"
            )
        self._keep(Numbers([str(name)], self.output), [laws], x_ND, y_N1, w_N)
        return self

    def predict(self, X: ArrayLike, law: int | None = None) -> np.ndarray:
        """(N,) the expected target; NaN, with a warning, where the law is undefined.

        Args:
            law: row of the front; by default the chosen law.
        """
        fitted = self._fitted("predict")
        return fitted.predicted(checked_features(self, X), law)[:, 0]


class DARTSClassifier(ClassifierMixin, DARTSEstimator):
    """`DARTSRegressor` for classes: one graph, and for every class its own weights of the nodes.

    The probabilities are the joint softmax of the classes' values, trained by cross-entropy; the
    weights and biases of the output are always trained. Two classes are two values, too. Arguments
    and attributes are those of `DARTSRegressor`, and `classes_`.
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Train, derive, and fit the constants.

        Args:
            X: (N, D) array or pandas frame of numbers.
            y: (N,) class labels.
            sample_weight: (N,).

        Raises:
            ValueError: as of `DARTSRegressor.fit`; one class alone.
        """
        self._notes: list[str] = []
        x_ND, y_N = checked_features(self, X, reset=True, y=y)
        check_classification_targets(y_N)
        labels, index_N = np.unique(y_N, return_inverse=True)
        if len(labels) < 2:
            raise ValueError("a classifier needs at least 2 classes, but all rows are of one class")
        names = feature_names(self, x_ND.shape[1])
        index_N1 = index_N.reshape(-1, 1).astype(np.float64)
        x_ND, index_N1, w_N = prepared(x_ND, index_N1, sample_weight, names, self._notes.append)
        self.classes_ = labels
        rows = Rows(*tensors(x_ND, index_N1[:, 0], w_N / w_N.mean()))
        found = self._train(rows, "classes", len(labels))
        if not found:
            raise ValueError(
                "every edge of every restart is none, or not finite: no class can be told from "
                "another; train longer, or with other primitives"
            )
        self.restart_ = found[0].restart
        fronts: list[Laws] = []
        for c in range(len(labels)):
            fronts.append(front_of_restarts(found[:1], rows, "logistic", self._training_state, c))
        name = str(getattr(y, "name", None) or "y")
        prior_K = np.bincount(index_N1[:, 0].astype(int), w_N, minlength=len(labels)) / w_N.sum()
        classes = JointClasses(name, labels, prior_K=prior_K)
        y_NK = classes.encoded(labels[index_N1[:, 0].astype(int)])
        self._keep(classes, fronts, x_ND, y_NK, w_N)
        return self

    def predict_proba(self, X: ArrayLike) -> np.ndarray:
        """(N, C) probabilities of `classes_`."""
        fitted = self._fitted("predict_proba")
        return fitted.predicted(checked_features(self, X))

    def predict(self, X: ArrayLike) -> np.ndarray:
        """(N,) the most probable class."""
        return self.classes_[np.argmax(self.predict_proba(X), axis=1)]

    def refit(self, *arguments: Any, **settings: Any) -> Self:
        """Not there: laws of one softmax are fitted together, by `fit`."""
        raise ValueError(
            "the laws of one softmax are fitted together: fit again, or take DARTSRegressor with "
            "output='probability', which can be refitted"
        )

    def uncertainty(self, *arguments: Any, **settings: Any) -> Any:
        """Not there: a softmax does not determine its values one by one."""
        raise ValueError(
            "the values of a softmax are determined only together, so their constants have no "
            "errors one by one: take EquationClassifier, whose laws are one against the rest"
        )
