"""What simplicity costs: a law beside linear regression and gradient boosting on held-out folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
from sklearn.base import clone, is_classifier
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import KFold, StratifiedKFold
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from gradnas.laws.group_law import split_off

LAW = "law"
LINEAR = "linear"
BOOSTING = "gradient boosting"


@dataclass(frozen=True)
class Comparison:
    """Scores of held-out folds.

    Attributes:
        table: a pandas frame with a row for each model: mean, least, size (the mean of constants
            and operations of the laws, coefficients of the linear model, leaves of all trees).
        folds: a pandas frame with a row for each fold and a column for each model.
        laws: the law of each fold, as text: do they agree?
        score: "R2" or "accuracy".
        undefined: held-out rows where the law was undefined; the mean of the training rows (the
            most frequent class) stands for it there.
    """

    table: pandas.DataFrame
    folds: pandas.DataFrame
    laws: tuple[str, ...]
    score: str
    undefined: int

    def __str__(self) -> str:
        lines = [
            f"{self.score} of {len(self.folds)} held-out folds",
            self.table.to_string(float_format="{:.3f}".format),
        ]
        if self.undefined:
            lines.append(f"the law was undefined in {self.undefined} held-out rows")
        return "\n".join([*lines, *self.laws])


def compare(
    estimator: Any,
    X: Any,
    y: Any,
    folds: int = 5,
    random_state: int = 0,
    groups: Sequence[object] | str | None = None,
) -> Comparison:
    """The law is searched again in every fold, so that no held-out row has been seen.

    Args:
        estimator: an estimator of laws; it is cloned.
        folds: their number; of classes each has its share.
        groups: as of `fit`; the other two models then have a column for each group.
    """
    is_class = is_classifier(estimator)
    X, groups, _ = split_off(X, groups, None)
    frame = X if hasattr(X, "iloc") else pandas.DataFrame(np.asarray(X))
    plain = np.asarray(frame, dtype=np.float64)
    targets = np.asarray(y)
    labels = None if groups is None else np.asarray(groups)
    if labels is not None:
        dummies = pandas.get_dummies(pandas.Series(labels)).to_numpy(dtype=np.float64)
        plain = np.column_stack([plain, dummies[:, 1:]])
    splitter_class = StratifiedKFold if is_class else KFold
    splitter = splitter_class(folds, shuffle=True, random_state=random_state)
    records: list[dict[str, float]] = []
    sizes: list[dict[str, float]] = []
    laws: list[str] = []
    undefined = 0
    for train, test in splitter.split(plain, targets):
        fitted = clone(estimator)
        own_rows = frame.iloc if hasattr(X, "iloc") else np.asarray(X)
        more: dict[str, Any] = {} if labels is None else {"groups": labels[train]}
        fitted.fit(own_rows[train], _rows(y, train), **more)
        more = {} if labels is None else {"groups": labels[test]}
        predicted = fitted.predict(own_rows[test], **more)
        if not is_class:
            wrong = ~np.isfinite(np.asarray(predicted, dtype=np.float64))
            undefined += int(np.atleast_1d(wrong.reshape(len(wrong), -1).any(axis=1)).sum())
            predicted = np.where(wrong, targets[train].mean(axis=0), predicted)
        laws.append(fitted.text())
        fold = {LAW: _score(is_class, targets[test], predicted)}
        chosen = zip(fitted.laws_, fitted.chosen_, strict=True)
        size = {LAW: float(sum(front.front[place].complexity for front, place in chosen))}
        for name, model in _rivals(is_class, targets.ndim > 1, random_state).items():
            model.fit(plain[train], targets[train])
            fold[name] = _score(is_class, targets[test], model.predict(plain[test]))
            size[name] = _size(model)
        records.append(fold)
        sizes.append(size)
    by_fold = pandas.DataFrame.from_records(records)
    table = pandas.DataFrame(
        {
            "mean": by_fold.mean(),
            "least": by_fold.min(),
            "size": pandas.DataFrame.from_records(sizes).mean(),
        }
    )
    return Comparison(table, by_fold, tuple(laws), "accuracy" if is_class else "R2", undefined)


def _rows(y: Any, index: np.ndarray) -> Any:
    return y.iloc[index] if hasattr(y, "iloc") else np.asarray(y)[index]


def _score(is_class: bool, y: np.ndarray, predicted: np.ndarray) -> float:
    return float(accuracy_score(y, predicted) if is_class else r2_score(y, predicted))


def _rivals(is_class: bool, many: bool, seed: int) -> dict[str, Any]:
    if is_class:
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        return {LINEAR: linear, BOOSTING: GradientBoostingClassifier(random_state=seed)}
    boosting: Any = GradientBoostingRegressor(random_state=seed)
    if many:
        boosting = MultiOutputRegressor(boosting)
    return {LINEAR: LinearRegression(), BOOSTING: boosting}


def _size(model: Any) -> float:
    if isinstance(model, MultiOutputRegressor):
        return sum(_size(one) for one in model.estimators_)
    if hasattr(model, "steps"):
        model = model.steps[-1][1]
    if hasattr(model, "coef_"):
        return float(np.size(model.coef_) + np.size(model.intercept_))
    return float(sum(tree.get_n_leaves() for tree in model.estimators_.flat))
