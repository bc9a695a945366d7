"""`discover_laws`: from arrays to a Pareto front of laws.

Legend: N points, D features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from gradnas.gradients import ArchitectureGradient, FirstOrder
from gradnas.law_explore import Pool, grow, seed_pool
from gradnas.law_prune import pareto, prune, rounded, unscaled
from gradnas.law_refit import EXACT, Fitted, LawData, description_length, refit
from gradnas.law_symbolic import to_sympy
from gradnas.law_targets import Target, targets
from gradnas.law_terms import Atoms, allowed_functions, make_atoms, pair_stems
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.equation_formula import Formula
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
    return Discovery(x_ND, y_N, settings, weights_N, loss, seed, on_progress).run()


class Discovery:
    """One call of `discover_laws`, stage by stage."""

    def __init__(
        self,
        x_ND: np.ndarray,
        y_N: np.ndarray,
        settings: LawSettings,
        weights_N: np.ndarray | None,
        loss: Loss,
        seed: int,
        on_progress: Callable[[LawProgress], None] | None,
    ) -> None:
        self.words, self.table = resolve(settings.primitives)
        self.settings, self.loss, self.seed, self.on_progress = settings, loss, seed, on_progress
        x = torch.as_tensor(np.asarray(x_ND, dtype=np.float64)).T.contiguous()
        y = torch.as_tensor(np.asarray(y_N, dtype=np.float64))
        w = torch.ones_like(y) if weights_N is None else torch.as_tensor(np.asarray(weights_N, dtype=np.float64))
        self.all = LawData(x, y, w / w.mean(), loss, self.table)
        self.scales = [float(row.abs().max()) or 1.0 for row in x]
        self.scale_y = float(y.abs().max()) or 1.0 if loss == "squared" else 1.0
        scaled = x / torch.tensor(self.scales, dtype=torch.float64).unsqueeze(1)
        self.data = LawData(scaled, y / self.scale_y, self.all.w_N, loss, self.table)
        self.functions = list(allowed_functions(self.words))
        self.notes: list[str] = []
        self.counts: dict[str, int] = {}

    def run(self) -> Laws:
        """All stages."""
        data = self.data
        features = list(range(len(data.x_DN)))
        small = make_atoms(self.words, data, self.scales, features)
        large = make_atoms(self.words, data, self.scales, [*features, *pair_stems(len(features))], rich=True)
        pool = Pool(data, data.spread)
        seed_pool(pool, small, large, count=40, steps=10)
        grow(pool, small, large, rounds=2, width=4, count=24, steps=10)
        if not pool.exact:
            self._explore_targets(pool, features)
        self._prune(pool)
        grow(pool, small, large, rounds=3, width=4, count=24, steps=10)
        self._prune(pool)
        return self._front(pool)

    def _explore_targets(self, pool: Pool, features: list[int]) -> None:
        """Every target for one round; those whose laws for y turn out best for more."""
        sides: list[tuple[float, Target, Pool, Atoms, Atoms]] = []
        for target in targets(self.data, self.scale_y, self.functions, self.settings.kinds):
            data = target.data
            small = make_atoms(self.words, data, self.scales, features)
            large = make_atoms(self.words, data, self.scales, [*features, *pair_stems(len(features))])
            side = Pool(data, data.spread)
            seed_pool(side, small, large, count=20, steps=8)
            grow(side, small, large, rounds=1, width=3, count=16, steps=8)
            sides.append((self._back(target, side, pool), target, side, small, large))
            if pool.exact:
                return
        sides.sort(key=lambda entry: entry[0])
        for _, target, side, small, large in sides[:3]:
            grow(side, small, large, rounds=2, width=3, count=16, steps=8)
            self._back(target, side, pool)
            if pool.exact:
                return

    def _back(self, target: Target, side: Pool, pool: Pool) -> float:
        """Take a target's best laws to the pool of y; the best description length among them."""
        chosen = {id(item): item for item in [*side.best(4), *(item for _, item in side.front()[-6:])]}
        back = [target.back(item.formula) for item in chosen.values() if item.formula.nodes]
        back += [replace(formula, bias=1e-3) for formula in back]
        found = refit(back, self.data, steps=12)
        pool.add(found)
        return min((description_length(item, self.data, pool.spread) for item in found), default=math.inf)

    def _prune(self, pool: Pool) -> None:
        for way in prune(pool.best(6), self.data, self.functions, pool.spread):
            pool.add(way[1:])

    def _front(self, pool: Pool) -> Laws:
        data = self.data
        spread = pool.spread
        best = pool.best(1)[0]
        items = [item for _, item in pool.members.values()]
        front = pareto(items, lambda f: max(f.loss, EXACT * spread))
        front = [f for f in front if f.loss >= best.loss or f is best]
        laws = []
        for item in front[-10:]:
            own = unscaled(item.formula, self.scales, self.scale_y)
            (fitted,) = refit([own], self.all, steps=30)
            if not math.isfinite(fitted.loss):
                fitted = Fitted(own, item.loss * self.scale_y**2)
            fitted = rounded(fitted, self.all)
            f = fitted.formula
            length = description_length(item, data, spread)
            laws.append(
                Law(f, f.constants + f.operations, fitted.loss, fitted.loss, length, 1, self.loss, dict(self.table))
            )
        place = min(range(len(laws)), key=lambda i: laws[i].description_length)
        return Laws(tuple(laws), place, tuple(self.notes), self.counts)
