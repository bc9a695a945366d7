"""Rows as the search takes them: checked, in an order of their own, equal ones merged.

Legend: N rows, D features, K outputs or classes, C = D + K columns.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from sklearn.utils import validation as _validation

from gradnas.data.tabular import check_names, check_numeric, check_size
from gradnas.laws.engine.data import constant_note

validation: Any = _validation  # type checkers know an old version of it
FEWEST_ROWS = 5  # a slope, a constant, and three rows more to tell a law from chance
MOST_SORTED = 20_000  # rows; beyond, equal rows are not merged


def feature_names(estimator: Any, features: int | None = None) -> list[str]:
    """Names of the features of a scikit-learn estimator; x1, x2, ... where there are none.

    Args:
        features: their number, where `fit` has not got so far.
    """
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        return [str(name) for name in names]
    return [f"x{d + 1}" for d in range(features or estimator.n_features_in_)]


def checked_features(estimator: Any, X: Any, *, reset: bool = False, **checks: Any) -> Any:
    """X (and y, where given) as float64, checked; sentences name the column.

    Args:
        reset: whether the estimator takes its number and names of features from X, as in `fit`.
        checks: further arguments of scikit-learn's `validate_data`, such as `y`.
    """
    _check_kind(X, "X")
    is_frame = hasattr(X, "columns") and hasattr(X, "iloc")
    if is_frame and reset:
        check_names(list(X.columns), "X")
    if is_frame and not X.columns.has_duplicates:
        check_numeric(X, "X")
    checked = validation.validate_data(
        estimator, X, reset=reset, dtype=np.float64, ensure_all_finite=False, **checks
    )
    x_ND = checked[0] if isinstance(checked, tuple) else checked
    wrong_N = ~np.isfinite(x_ND).all(axis=1)
    if wrong_N.any():
        row = int(np.argmax(wrong_N))
        column = int(np.argmax(~np.isfinite(x_ND[row])))
        name = feature_names(estimator, x_ND.shape[1])[column]
        raise ValueError(
            f"X contains NaN or inf in {wrong_N.sum()} of {len(x_ND)} rows, first in row {row} of "
            f"{name}; drop or fill these rows"
        )
    return checked


def check_target_values(y: Any) -> None:
    """Refuse targets that are not numbers, or missing: with the row, as features are.

    Raises:
        ValueError: a masked array with masked values, dates or differences of times, NaN or inf.
    """
    _check_kind(y, "y")
    try:
        y_N = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError):
        return  # text and the like: scikit-learn's checks have a sentence for it
    wrong_N = ~np.isfinite(y_N.reshape(len(y_N), -1)).all(axis=1) if y_N.ndim else np.array(False)
    if wrong_N.any():
        # The words of scikit-learn's own sentence, which its checks of estimators look for.
        raise ValueError(
            f"Input y contains NaN or infinity in {int(wrong_N.sum())} of {len(y_N)} rows, first "
            f"in row {int(np.argmax(wrong_N))}; drop or fill these rows"
        )


def check_labels(y: Any) -> None:
    """Refuse class labels that are missing, or of which some are text and others are not.

    Raises:
        ValueError: such labels, with the first row.
    """
    labels = np.asarray(y, dtype=object).reshape(-1)
    words = [isinstance(label, str) for label in labels]
    for row, label in enumerate(labels):
        # NaN and NaT are not equal to themselves; what pandas has for them cannot be compared.
        is_missing = label is None or type(label).__name__ == "NAType" or bool(label != label)
        if is_missing:
            raise ValueError(f"Input y contains NaN or None, first in row {row}; drop these rows")
    if any(words) and not all(words):
        row = words.index(not words[0])
        raise ValueError(
            f"y has labels that are text and labels that are not, such as {labels[0]!r} and, in "
            f"row {row}, {labels[row]!r}: make them all text"
        )


def _check_kind(values: Any, name: str) -> None:
    """Refuse what NumPy would turn into other numbers without a word."""
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        row = int(np.argwhere(np.ma.getmaskarray(values))[0][0])
        raise ValueError(
            f"{name} is a masked array with masked values, first in row {row}: drop or fill them "
            "(its numbers below the mask would be taken)"
        )
    if getattr(values, "requires_grad", False):
        raise ValueError(f"{name} is a tensor that requires grad: give its numbers, .detach()")
    kind = getattr(getattr(values, "dtype", None), "kind", "")
    if kind in "mM" and kind:
        what = "differences of times" if kind == "m" else "dates"
        raise ValueError(
            f"{name} holds {what}: turn them into numbers first, such as seconds since the first"
        )


def prepared(
    x_ND: np.ndarray,
    y_NK: np.ndarray,
    sample_weight: ArrayLike | None,
    names: Sequence[str],
    note: Callable[[str], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows in an order of their own, equal ones merged, with their weights.

    Neither the order of the rows nor whether a row stands twice or has the weight 2 changes the
    law. Weights that are whole numbers count repetitions; others are scaled to a mean of 1.

    Args:
        names: of the features.
        note: called with a sentence about features that are not used.
    """
    w_N = np.ones(len(x_ND))
    if sample_weight is not None:
        w_N = validation._check_sample_weight(
            sample_weight, x_ND, dtype=np.float64, ensure_non_negative=True
        )
        kept_N = w_N > 0
        if not kept_N.any():
            raise ValueError("all sample weights are zero: at least one row has to count")
        x_ND = x_ND[kept_N]
        y_NK = y_NK[kept_N]
        w_N = w_N[kept_N]
        if (w_N != np.round(w_N)).any():
            w_N = w_N / w_N.mean()
    if len(x_ND) < FEWEST_ROWS:
        rows = "n_samples=1: 1 sample" if len(x_ND) == 1 else f"{len(x_ND)} rows"
        raise ValueError(
            f"{rows} with a positive weight cannot tell a law from chance: the smallest law has 2 "
            f"parameters, and at least {FEWEST_ROWS} rows are needed"
        )
    is_constant_D = np.ptp(x_ND, axis=0) == 0.0
    constant = [names[d] for d in np.flatnonzero(is_constant_D).tolist()]
    if constant:
        note(constant_note(constant))
    if len(constant) == x_ND.shape[1]:
        raise ValueError(
            "every feature has the same value in all rows: there is nothing to explain the target "
            "with"
        )
    for d, name in enumerate(names):
        check_size(x_ND[:, d], f"the feature {name}")
    check_size(y_NK, "the target")
    if len(x_ND) > MOST_SORTED:
        return x_ND, y_NK, w_N
    return _merged(x_ND, y_NK, w_N)


def _merged(
    x_ND: np.ndarray, y_NK: np.ndarray, w_N: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sorted rows, one of each, with the sum of the weights of those that are equal."""
    rows_NC = np.column_stack([x_ND, y_NK])
    # lexsort takes the last key first.
    order = np.lexsort(rows_NC.T[::-1])
    sorted_NC = rows_NC[order]
    differs = (np.diff(sorted_NC, axis=0) != 0.0).any(axis=1)
    starts = np.flatnonzero(np.concatenate([[True], differs]))
    w_sums = np.add.reduceat(w_N[order], starts)
    return x_ND[order][starts], y_NK[order][starts], w_sums
