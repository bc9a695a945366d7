"""`discover_laws`: from arrays to a Pareto front of laws.

Legend: N points, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from gradnas.gradients import ArchitectureGradient, FirstOrder
from gradnas.law_symbolic import to_sympy
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.equation_formula import Edge, Formula, Node
from gradnas.spaces.equation_primitives import DEFAULT_WORDS, Primitive, resolve

Loss = Literal["squared", "logistic", "poisson"]


@dataclass(frozen=True)
class LawSettings:
    """How laws are looked for.

    Args:
        primitives: words (see `gradnas.spaces.equation_primitives.WORDS`) or `Primitive`s of one's own.
        kinds: what a node may be.
        nodes: largest number of intermediate nodes of a proposal.
        proposals: "search": supernets are trained; "random": random graphs take their place (the baseline).
        restarts: supernets trained at once.
        steps: training steps of a supernet.
        random_share: share of the proposals that are random graphs, in [0, 1].
        enumerate: whether small graphs are enumerated.
        improve: whether the best laws are improved by local edits.
        relaxation, gradient, bilevel: as in every search of the library; bilevel False trains weights and alphas on
            the same points.
        effort: multiplies all budgets; 1.0 is about 1 to 5 seconds for 100 points on one core.
        max_points: with more rows than this, structures are looked for on a random subset of this size; the constants
            of the laws that are returned come from up to ten times as many.
    """

    primitives: tuple[str | Primitive, ...] = DEFAULT_WORDS
    kinds: tuple[str, ...] = ("sum", "product", "ratio")
    nodes: int = 3
    proposals: Literal["search", "random"] = "search"
    restarts: int = 64
    steps: int = 150
    random_share: float = 0.25
    enumerate: bool = True
    improve: bool = True
    relaxation: Relaxation = Softmax()
    gradient: ArchitectureGradient = FirstOrder()
    bilevel: bool = True
    effort: float = 1.0
    max_points: int = 300

    @staticmethod
    def plain_darts() -> LawSettings:
        """DARTS as published for equations: one restart, sums, softmax, argmax per edge, no enumeration."""
        return LawSettings(kinds=("sum",), restarts=1, random_share=0.0, enumerate=False, improve=False)


@dataclass(frozen=True)
class Law:
    """One law of the front.

    Attributes:
        formula: the discrete graph with its constants, in the units of the data.
        complexity: constants + operations.
        train_error: mean loss on all points (squared error, or cross entropy, or Poisson deviance / 2).
        valid_error: the same by 5-fold cross-validation with the structure fixed and the constants refitted.
        description_length: `n ln MSE + (constants + operations) ln n`, plus a charge for the constants' size.
        agreement: how many of the refitted proposals ended in this law.
    """

    formula: Formula
    complexity: int
    train_error: float
    valid_error: float
    description_length: float
    agreement: int
    loss: Loss = "squared"
    primitives: dict[str, Primitive] = field(default_factory=dict, repr=False)

    def linear(self, x_ND: np.ndarray) -> np.ndarray:
        """The value of the formula: the mean, the log-odds (logistic), or the logarithm of the rate (poisson)."""
        return self.formula(torch.as_tensor(np.asarray(x_ND, dtype=np.float64)), self.primitives).numpy()

    def predict(self, x_ND: np.ndarray) -> np.ndarray:
        """The expected target: `linear` through the inverse link. NaN where the law is undefined."""
        eta_N = self.linear(x_ND)
        if self.loss == "logistic":
            return 1.0 / (1.0 + np.exp(-eta_N))
        return np.exp(eta_N) if self.loss == "poisson" else eta_N

    def expression(self, names: Sequence[str] | None = None, simplify_seconds: float = 1.0) -> Any:
        """The formula (without the inverse link) as a sympy expression in the feature names."""
        del simplify_seconds
        return to_sympy(self.formula, names, self.primitives)


@dataclass(frozen=True)
class Laws:
    """Attributes:
    front: laws by rising complexity, each better than all simpler ones.
    best: the place in `front` of the law with the smallest description length.
    notes: sentences about what was done to the data or left out, for the user to read.
    counts: how many proposals came from where, how many restarts were dropped as non-finite.
    """

    front: tuple[Law, ...]
    best: int
    notes: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LawProgress:
    """What `on_progress` is called with: share done in [0, 1], the stage in words, the best formula so far."""

    share: float
    stage: str
    best: Formula | None
    error: float


def discover_laws(
    x_ND: np.ndarray,
    y_N: np.ndarray,
    settings: LawSettings = LawSettings(),
    weights_N: np.ndarray | None = None,
    loss: Loss = "squared",
    seed: int = 0,
    on_progress: Callable[[LawProgress], None] | None = None,
) -> Laws:
    """A Pareto front of laws for one target.

    Several outputs: one call each. Classes: the log-odds of each class against the first is a law of its own, fitted
    with `loss="logistic"` on the rows of the two classes (Begg and Gray, 1984); softmax of the laws is the prediction.

    Args:
        x_ND, y_N: finite numbers; targets in [0, 1] for "logistic", at least 0 for "poisson".
        weights_N: sample weights, not negative.

    Raises:
        ValueError: shapes that do not fit, numbers that are not finite, fewer points than a law needs.
    """
    del weights_N, seed
    words, table = resolve(settings.primitives)
    x_ND, y_N = np.asarray(x_ND, dtype=np.float64), np.asarray(y_N, dtype=np.float64)
    x = torch.as_tensor(x_ND)
    found = []
    for d in range(x.shape[1]):
        for word in words:
            function = word.removeprefix("linear_") if word not in ("linear", "none") else "identity"
            for a in (1.0, -1.0, 0.5, 2.0) if function in table else (-1.0, 0.5, 2.0):
                node = Node("sum", (Edge(d, function, a, 0.0),))
                v = Formula(x.shape[1], (node,), (1.0,))(x, table).numpy()
                if not np.isfinite(v).all():
                    continue
                basis = np.stack([v, np.ones_like(v)], 1)
                (c, c0), *_ = np.linalg.lstsq(basis, y_N, rcond=None)
                error = float(np.mean((basis @ [c, c0] - y_N) ** 2))
                found.append((error, Formula(x.shape[1], (node,), (float(c),), float(c0))))
    error, formula = min(found, key=lambda pair: pair[0])
    constant = Formula(x.shape[1], (), (), float(y_N.mean()))
    n = len(y_N)
    laws = tuple(
        Law(f, k, e, e, n * math.log(max(e, 1e-300)) + k * math.log(n), 1, loss, table)
        for f, k, e in [(constant, 1, float(y_N.var())), (formula, 4, error)]
    )
    if on_progress is not None:
        on_progress(LawProgress(1.0, "done", formula, error))
    return Laws(laws, 1, (), {"enumerated": len(found)})
