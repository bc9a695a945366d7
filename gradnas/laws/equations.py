"""`EquationRegressor` and `EquationClassifier`: short laws from tables, as scikit-learn estimators.

Legend: N rows, D features, K outputs or classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import sympy
from numpy.typing import ArrayLike
from sklearn.base import ClassifierMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.multiclass import check_classification_targets

from gradnas.laws.constraints import Constraint
from gradnas.laws.discover import (
    LawSettings,
    Loss,
)
from gradnas.laws.estimator import EquationEstimator
from gradnas.laws.fitted import FittedLaws
from gradnas.laws.group_law import GroupLaw, coded, split_off
from gradnas.laws.grouped import OF_ONE_GROUP, one_group, with_groups
from gradnas.laws.outputs import Classes, Numbers, Output
from gradnas.laws.primitives import Primitive
from gradnas.laws.robust import AskedLoss
from gradnas.laws.rows import (
    check_labels,
    check_target_values,
    checked_features,
    feature_names,
    prepared,
)
from gradnas.laws.wishes import Given, Wishes

if TYPE_CHECKING:
    import pandas

LOSSES: dict[str, Loss] = {"real": "squared", "probability": "logistic", "counts": "poisson"}


class EquationRegressor(RegressorMixin, EquationEstimator):
    """Explains numbers by a short law.

    Laws are graphs of scalar operations that are enumerated, grown, drawn at random and proposed by
    a differentiable search; all are refitted by Levenberg-Marquardt in float64 and pruned by their
    description length. In 67 of 67 recovered fits of a measured run no supernet of the
    differentiable search contributed: what finds laws is the rest. (`DARTSRegressor` is that search
    by itself.) See `gradnas.laws.discover.discover_laws`, which does it, and `LawSettings`.

    Args:
        output: "real" (squared error), "probability" (targets in [0, 1]: a law for the log-odds,
            with cross-entropy) or "counts" (targets of at least 0: a law for the logarithm of the
            rate, Poisson).
        primitives: words such as "linear_exp" (`gradnas.laws.primitives.WORDS`) or `Primitive`s of
            one's own; None takes those of `settings`.
        nodes: largest number of intermediate nodes; None takes that of `settings`.
        effort: multiplies the budget of `settings`.
        max_complexity: choose among the laws of at most this complexity (constants + operations).
        max_seconds: seconds by the clock after which nothing new is started; the law is the best so
            far, and may be another one on a faster machine. Ctrl-C does the same at once.
        settings: a `LawSettings`; None takes the default one. `LawSettings.plain_darts()` is DARTS
            as published.
        random_state: a number, a NumPy `RandomState`, or None for another law each time. The same
            number gives the same law.
        progress: show a bar with the best law so far on stderr.
        loss: "squared"; "absolute" (a law of the median) or "huber", which outliers hardly move; or
            a function `(prediction, target)` of two torch tensors that gives the loss of every row.
            Structures are looked for with rows weighted as the loss pulls at them, constants are
            fitted by the loss itself, and the errors of the front are its mean. With output="real".
        form: a law with open constants that are fitted, nothing is searched: a text such as
            "a*x1/(b + x1) + c" (what is no feature is a constant) or a sympy expression. Without
            open constants: a given law, to be scored.
        start: a form, or several, that the search begins with; their constants are fitted.
        constraints: `gradnas.Constraint`s that the laws keep in the ranges of the features in the
            data: they are checked at some 3,000 points there, and what breaks one is fitted again
            or dropped. Where no law keeps them, `fit` says so. With output="real".
        units: the unit of every feature by its name, such as `{"mass": "kg", "speed": "m/s"}`
            ("1": none), and `target_unit` that of the target, or of several a list. Only laws that
            agree in their units are looked for: those of the products without a unit, of which
            there are fewer than features. Words are those of `sympy.physics.units` and SI prefixes;
            the constants stay in the units of the data. With output="real" and squared errors.

    Attributes:
        constants_: the fitted constants of a form, by name.
        equation_: the chosen law, a sympy expression in the feature names (`equations_` of several
            outputs).
        pareto_: the Pareto front, a pandas frame.
        stability_: how many proposals agree on the chosen law.
        notes_: what was done to the data or left out, in sentences.
        laws_: a `gradnas.laws.discover.Laws` for each output.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    """

    _labels: tuple[object, ...] | None = None  # of the groups
    _group_column: str | None = None  # of the frame that they were in

    def __init__(
        self,
        *,
        output: Output = "real",
        primitives: Sequence[str | Primitive] | None = None,
        nodes: int | None = None,
        effort: float = 1.0,
        max_complexity: int | None = None,
        max_seconds: float | None = None,
        settings: LawSettings | None = None,
        random_state: int | np.random.RandomState | None = 0,
        progress: bool = False,
        loss: AskedLoss = "squared",
        form: Given | None = None,
        start: Given | Sequence[Given] | None = None,
        constraints: Sequence[Constraint] = (),
        units: Mapping[str, str] | None = None,
        target_unit: str | Sequence[str] | None = None,
    ) -> None:
        super().__init__(
            primitives=primitives,
            nodes=nodes,
            effort=effort,
            max_complexity=max_complexity,
            max_seconds=max_seconds,
            settings=settings,
            random_state=random_state,
            progress=progress,
        )
        self.output = output
        self.loss = loss
        self.form = form
        self.start = start
        self.constraints = constraints
        self.units = units
        self.target_unit = target_unit

    def _wishes(self) -> Wishes:
        return Wishes(self.loss, self.form, self.start, self.constraints)

    def _asked_units(self, outputs: int) -> tuple[Mapping[str, str], list[str]] | None:
        if self.units is None and self.target_unit is None:
            return None
        if self.units is None or self.target_unit is None:
            raise ValueError("units and target_unit belong together: give both, '1' for no unit")
        if self.output != "real" or not self._wishes().plain or self._labels is not None:
            raise ValueError(
                "units go with output='real' and a plain search: without loss, form, start, "
                "constraints and groups"
            )
        if isinstance(self.target_unit, str):
            of_targets = [self.target_unit] * outputs
        else:
            of_targets = list(self.target_unit)
        if len(of_targets) != outputs:
            raise ValueError(f"target_unit has {len(of_targets)} units for {outputs} targets")
        return self.units, of_targets

    @property
    def constants_(self) -> dict[str, float]:
        """The fitted constants of a form, by name.

        Raises:
            AttributeError: a search has no constants with names, or there are several outputs.
        """
        fitted = self._fitted("constants_")
        if self.form is None or len(fitted.fronts) > 1:
            raise AttributeError("constants_ are those of one form: form= and one target")
        return dict(fitted.fronts[0].constants)

    def fit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: Sequence[object] | str | None = None,
    ) -> Self:
        """Find the laws.

        Args:
            X: (N, D) array or pandas frame of numbers.
            y: (N,) or, for several outputs, (N, K) numbers.
            sample_weight: (N,); whole numbers count repetitions, others are scaled to a mean of 1.
            groups: (N,) labels of categories, such as species or laboratories, or the name of a
                column of X that holds them (`predict` then takes them from there): one structure is
                found for all, and those of its constants differ between groups that the description
                length says so of (`group_constants_`; `of_group` gives the law of one).

        Raises:
            ValueError: something that is not a finite number, columns of the same name, a target
                that is constant or outside of what `output` allows, fewer than 5 rows.
        """
        if self.output not in LOSSES:
            raise ValueError(f"output must be one of {', '.join(LOSSES)}, not {self.output!r}")
        self._notes = []
        check_target_values(y)
        X, groups, self._group_column = split_off(X, groups, None)
        x_ND, y_NK = checked_features(self, X, reset=True, y=y, multi_output=True, y_numeric=True)
        self._flat = y_NK.ndim == 1
        targets = _names_of_target(y, 1 if self._flat else y_NK.shape[1])
        y_NK = y_NK.reshape(len(y_NK), -1).astype(np.float64)
        names = feature_names(self, x_ND.shape[1])
        self._labels = None
        if groups is not None:
            code_N, self._labels = coded(groups, len(x_ND))
            x_ND = np.column_stack([x_ND, code_N])
            names = [*names, "the group"]
        x_ND, y_NK, w_N = prepared(x_ND, y_NK, sample_weight, names, self._note)
        for k, name in enumerate(targets):
            _check_target(y_NK[:, k], name, self.output)
        self._find(x_ND, y_NK, w_N, LOSSES[self.output], Numbers(targets, self.output))
        return self

    def predict(
        self, X: ArrayLike, law: int | None = None, groups: Sequence[object] | str | None = None
    ) -> np.ndarray:
        """The expected target, of the shape that `fit` had it in.

        NaN, with a warning, where the law is undefined.

        Args:
            law: row of the Pareto front; by default the chosen law.
            groups: (N,) labels, where `fit` had groups.
        """
        fitted = self._fitted("predict")
        X, groups, _ = split_off(X, groups, self._group_column)
        x_ND = checked_features(self, X)
        y_NK = fitted.predicted(with_groups(x_ND, groups, self._labels), law)
        return y_NK[:, 0] if self._flat else y_NK

    def score(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: Sequence[object] | str | None = None,
    ) -> float:
        """R2 of the prediction; arguments as of `fit`.

        Raises:
            ValueError: the law is undefined in a row, so that R2 has no value.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # what it says is raised below
            predicted = self.predict(X, groups=groups)
        undefined_N = np.atleast_1d(~np.isfinite(predicted.reshape(len(predicted), -1)).all(axis=1))
        if undefined_N.any():
            raise ValueError(
                f"the law is undefined in {int(undefined_N.sum())} of {len(undefined_N)} rows, "
                f"first in row {int(np.argmax(undefined_N))} (such as the logarithm of a negative "
                "number), so R2 has no value: leave these rows out, or choose another law of "
                "pareto_"
            )
        return float(r2_score(y, predicted, sample_weight=sample_weight))

    @property
    def group_constants_(self) -> pandas.DataFrame:
        """The constants that differ between groups: a row for each group, a column for each.

        Raises:
            AttributeError: `fit` had no groups, or there are several outputs.
        """
        import pandas

        fitted = self._fitted("group_constants_")
        law = fitted.law(0)
        if not isinstance(law, GroupLaw) or len(fitted.fronts) > 1:
            raise AttributeError("group_constants_ are those of groups= and one target")
        return pandas.DataFrame(dict(law.own), index=list(law.labels))

    def of_group(self, label: object) -> Self:
        """The law of one group alone, as a fitted estimator without groups.

        Raises:
            ValueError: `fit` had no groups, or not this one.
        """
        fitted = self._fitted("of_group")
        if self._labels is None:
            raise ValueError("of_group is of a fit with groups=")
        return one_group(self, fitted.fronts, self._labels, label)

    def _fitted(self, name: str) -> FittedLaws:
        fitted = super()._fitted(name)
        if self._labels is not None and name in OF_ONE_GROUP:
            raise ValueError(
                f"{name} is of one law, and every group has its own: ask of_group(label), such as "
                f"of_group({self._labels[0]!r}).{name}(...)"
            )
        return fitted

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.target_tags.multi_output = True
        return tags


class EquationClassifier(ClassifierMixin, EquationEstimator):
    """Explains classes by short laws for their log-odds.

    Two classes: one law for the log-odds of the second, fitted with cross-entropy; `equation_` is
    the probability of the second class. More classes: one law for the log-odds of each class
    against the rest, fitted one by one with cross-entropy; the softmax of the logarithms of their
    probabilities is what is predicted, which is to say the probabilities divided by their sum, and
    `equations_` holds it for each class. `log_odds_` holds the laws themselves.

    Arguments and attributes are those of `EquationRegressor`, without `output`, and `classes_`.
    """

    def fit(self, X: ArrayLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> Self:
        """Find the laws.

        Args:
            X: (N, D) array or pandas frame of numbers.
            y: (N,) class labels, numbers or text.
            sample_weight: (N,); whole numbers count repetitions, others are scaled to a mean of 1.

        Raises:
            ValueError: as of `EquationRegressor`; one class alone.
        """
        self._notes = []
        if y is not None:
            check_labels(y)
        x_ND, y_N = checked_features(self, X, reset=True, y=y)
        check_classification_targets(y_N)
        name = _names_of_target(y, 1)[0]
        labels, index_N = np.unique(y_N, return_inverse=True)
        index_N1 = index_N.reshape(-1, 1).astype(np.float64)
        names = feature_names(self, x_ND.shape[1])
        x_ND, index_N1, w_N = prepared(x_ND, index_N1, sample_weight, names, self._note)
        index_N = index_N1[:, 0].astype(np.int64)

        # Rows of weight 0 are gone, and with them perhaps a class.
        counts_K = np.bincount(index_N, w_N, minlength=len(labels))
        if (counts_K > 0).sum() < 2:
            raise ValueError(
                "a classifier needs at least 2 classes, but all rows (of positive weight) are of "
                "one class"
            )
        present = np.flatnonzero(counts_K)
        counts_K = counts_K[present]
        self.classes_ = labels[present]
        classes = Classes(name, self.classes_, prior_K=counts_K / counts_K.sum())
        y_NK = classes.encoded(labels[index_N])
        self._find(x_ND, y_NK, w_N, "logistic", classes)
        return self

    def predict_proba(self, X: ArrayLike, law: int | None = None) -> np.ndarray:
        """(N, K) probabilities of `classes_`.

        Where a law is undefined: the shares of the classes in the training data, with a warning.

        Args:
            law: row of the Pareto front; by default the chosen law.
        """
        fitted = self._fitted("predict_proba")
        return fitted.predicted(checked_features(self, X), law)

    def predict(self, X: ArrayLike, law: int | None = None) -> np.ndarray:
        """The most probable class of each row. Arguments as of `predict_proba`."""
        p_NK = self.predict_proba(X, law)
        return self.classes_[np.argmax(p_NK, axis=1)]

    @property
    def log_odds_(self) -> tuple[sympy.Expr, ...]:
        """The log-odds of each class against the rest (of two classes: of the second)."""
        fitted = self._fitted("log_odds_")
        return tuple(self.formula(k) for k in range(len(fitted.fronts)))


def _check_target(y_N: np.ndarray, name: str, output: Output) -> None:
    """Refuse a target without a law, or outside the range of its kind."""
    if np.ptp(y_N) == 0.0:
        raise ValueError(
            f"the target {name} has the same value, {y_N[0]:g}, in every row: there is no law to "
            "find"
        )
    low = float(y_N.min())
    high = float(y_N.max())
    if output == "probability" and (low < 0.0 or high > 1.0):
        raise ValueError(
            f"output='probability' needs targets from 0 to 1; {name} runs from {low:g} to {high:g}"
        )
    if output == "counts" and low < 0.0:
        raise ValueError(
            f"output='counts' needs targets of at least 0; the smallest of {name} is {low:g}"
        )


def _names_of_target(y: object, outputs: int) -> list[str]:
    """The name of a pandas series, or those of a frame's columns; else y, or y1, y2, ..."""
    names = list(y.columns) if hasattr(y, "columns") else [getattr(y, "name", None)]
    if len(names) == outputs and all(isinstance(name, str) and name for name in names):
        return names
    return ["y"] if outputs == 1 else [f"y{k + 1}" for k in range(outputs)]
