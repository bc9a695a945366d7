"""`discover_laws`: from arrays to a Pareto front of laws.

Legend: N points, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import torch

from gradnas.data.tabular import check_size
from gradnas.environment import threads_of_torch
from gradnas.laws.engine.data import Loss as Loss
from gradnas.laws.engine.problem import Problem
from gradnas.laws.engine.stages import Discovery
from gradnas.laws.formula import Formula
from gradnas.laws.law import Law as Law
from gradnas.laws.law import LawProgress as LawProgress
from gradnas.laws.law import Laws as Laws
from gradnas.laws.law import LawSettings as LawSettings

FEWEST_POINTS = 5


def discover_laws(
    x_ND: np.ndarray,
    y_N: np.ndarray,
    settings: LawSettings = LawSettings(),
    weights_N: np.ndarray | None = None,
    loss: Loss = "squared",
    seed: int = 0,
    on_progress: Callable[[LawProgress], None] | None = None,
    names: Sequence[str] | None = None,
    start: Sequence[Formula] = (),
    candidates: int = 0,
) -> Laws:
    """A Pareto front of laws for one target.

    Several outputs: one call each. Several classes: one call each, of the class against the rest,
    with `loss="logistic"`.
    The same arguments and seed give the same laws.

    Args:
        x_ND, y_N: finite numbers; targets in [0, 1] for "logistic", at least 0 for "poisson".
        weights_N: sample weights, not negative.
        names: of the features, for the notes; by default x1, x2, ...
        start: formulas in the units of the data, to begin with.
        candidates: how many more formulas the result is to hold beside its front.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite or of a size whose squares
            are not, targets outside the range
            of the loss, fewer points than a law needs.
    """
    x = np.asarray(x_ND, dtype=np.float64)
    y = np.asarray(y_N, dtype=np.float64)
    shapes_fit = x.ndim == 2 and y.ndim == 1 and len(x) == len(y)
    if not shapes_fit or x.shape[1] == 0:
        raise ValueError(f"features are (N, D) and the target (N,), not {x.shape} and {y.shape}")
    w = np.ones_like(y) if weights_N is None else np.asarray(weights_N, dtype=np.float64)
    if w.shape != y.shape or not np.isfinite(w).all() or (w < 0).any():
        raise ValueError("sample weights are one finite number of at least 0 for each row")
    _check_values(x, y, loss)
    for d, column_N in enumerate(x.T):
        check_size(column_N, f"the feature {names[d] if names else d + 1}")
    check_size(y, "the target")
    check_size(w, "the column of weights")
    if w.sum() < FEWEST_POINTS:
        raise ValueError(
            f"a law needs at least {FEWEST_POINTS} points with a positive weight, got {w.sum():g}"
        )
    if names is None:
        names = [f"x{d + 1}" for d in range(x.shape[1])]
    kept = w > 0
    # The whole engine is on the CPU and differentiates, whatever holds where it is called.
    with on_one_cpu_thread():
        problem = Problem(x[kept], y[kept], w[kept], settings, loss, seed, list(names))
        return Discovery(problem, on_progress, start, candidates).run()


@contextmanager
def on_one_cpu_thread() -> Iterator[None]:
    """The CPU, gradients, and one thread, whatever holds where it is called."""
    # The tensors are so small that threads would only wait for each other, and with other processes
    # on the same cores for ten times as long as the work takes.
    one_thread = threads_of_torch(1)
    with _on_the_cpu(), torch.inference_mode(False), torch.enable_grad(), one_thread:
        yield


def _on_the_cpu() -> AbstractContextManager[object]:
    """The CPU as default device; nothing where it is that already.

    A device that is set in Python is looked at in every call of torch, and a search makes many
    small ones: they would take twice as long.
    """
    if torch.get_default_device().type == "cpu":
        return nullcontext()
    return torch.device("cpu")


def _check_values(x_ND: np.ndarray, y_N: np.ndarray, loss: Loss) -> None:
    """Refuse what is not finite, and targets outside the range of the loss."""
    if not np.isfinite(x_ND).all() or not np.isfinite(y_N).all():
        raise ValueError(
            "features and target must be finite numbers: there is NaN or inf among them"
        )
    if loss == "logistic" and not ((y_N >= 0) & (y_N <= 1)).all():
        raise ValueError(
            "with the logistic loss the target is a probability: all values must be in [0, 1]"
        )
    if loss == "poisson" and not (y_N >= 0).all():
        raise ValueError(
            "with the poisson loss the target is a count: all values must be at least 0"
        )
