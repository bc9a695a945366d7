"""Estimators whose laws have constants by group: their rows, and the law of one group.

Legend: N rows, D features.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from gradnas.laws.group_law import GroupLaw
from gradnas.laws.law import Law, Laws
from gradnas.laws.studied import StudiedLaws

Estimator = TypeVar("Estimator", bound=StudiedLaws)
# What is asked of the law of one group.
OF_ONE_GROUP = frozenset(
    ("to_python", "to_c", "to_julia", "to_torch", "plot", "draw", "uncertainty", "refit")
)


def with_groups(
    x_ND: np.ndarray, groups: Sequence[object] | None, labels: tuple[object, ...] | None
) -> np.ndarray:
    """Rows with the numbers of their groups as a last column, where there are groups.

    Raises:
        ValueError: groups where `fit` had none, or none where it had some; a group that `fit` has
            not seen.
    """
    if labels is None:
        if groups is not None:
            raise ValueError("groups= was not given to fit, so there are no constants by group")
        return x_ND
    if groups is None:
        raise ValueError("fit had groups=, so every row needs its group here: groups=")
    labels_N = np.asarray(groups, dtype=object).reshape(-1).tolist()
    if len(labels_N) != len(x_ND):
        raise ValueError(f"groups has {len(labels_N)} labels for {len(x_ND)} rows")
    number = {label: g for g, label in enumerate(labels)}
    for row, label in enumerate(labels_N):
        if label not in number:
            raise ValueError(
                f"the group {label!r} of row {row} was not there in fit; there were "
                f"{', '.join(str(known) for known in labels)}"
            )
    code_N = np.array([number[label] for label in labels_N], dtype=np.float64)
    return np.column_stack([x_ND, code_N])


def one_group(
    estimator: Estimator, fronts: Sequence[Laws], labels: tuple[object, ...], label: object
) -> Estimator:
    """A fitted estimator of one group's laws and rows, without groups."""
    if label not in labels:
        raise ValueError(
            f"there is no group {label!r}; there are {', '.join(str(known) for known in labels)}"
        )
    own: list[Laws] = []
    for laws in fronts:
        front: list[Law] = []
        for law in laws.front:
            assert isinstance(law, GroupLaw)
            front.append(law.of_group(label))
        own.append(replace(laws, front=tuple(front), constants={}))
    other = copy.copy(estimator)
    other.laws_ = own
    other._formulas = {}
    other._labels = None
    g = labels.index(label)
    x_ND, y_NK = estimator._kept
    mine_N = x_ND[:, -1] == g
    other._kept = (x_ND[mine_N][:, :-1], y_NK[mine_N])
    x_ND, y_NK, w_N, _ = estimator._training
    mine_N = x_ND[:, -1] == g
    share = estimator._training[3] / max(float(w_N.sum()), 1e-300)
    points = float(w_N[mine_N].sum()) * share
    other._training = (x_ND[mine_N][:, :-1], y_NK[mine_N], w_N[mine_N], points)
    return other
