"""The search over formulas: a pool that remembers, and rounds of growth from its best members."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from gradnas.law_growth import best_pairs, changes, tangent
from gradnas.law_refit import EXACT, Fitted, LawData, description_length, refit
from gradnas.law_terms import Atoms, add_term, structure
from gradnas.spaces.equation_formula import Formula


@dataclass
class Pool:
    """Every structure that was refitted, with its best constants."""

    data: LawData
    spread: float
    members: dict[object, tuple[float, Fitted]] = field(default_factory=dict)
    expanded: set[object] = field(default_factory=set)
    losses: list[float] = field(default_factory=list)

    def add(self, items: Sequence[Fitted]) -> None:
        """Keep what is finite."""
        for item in items:
            if math.isfinite(item.loss):
                self.losses.append(item.loss)
                key = structure(item.formula)
                length = description_length(item, self.data, self.spread)
                if key not in self.members or length < self.members[key][0]:
                    self.members[key] = (length, item)

    def best(self, count: int) -> list[Fitted]:
        """By description length."""
        return [item for _, item in sorted(self.members.values(), key=lambda pair: pair[0])[:count]]

    @property
    def length(self) -> float:
        """The smallest description length."""
        return min((length for length, _ in self.members.values()), default=math.inf)

    @property
    def exact(self) -> bool:
        """Whether a member fits to rounding error."""
        return any(item.loss < EXACT * self.spread for _, item in self.members.values())

    def unexpanded(self, count: int) -> list[Fitted]:
        """The best that have not grown yet; they are marked."""
        ordered = sorted(self.members.items(), key=lambda pair: pair[1][0])
        chosen = [(key, item) for key, (_, item) in ordered if key not in self.expanded][:count]
        self.expanded.update(key for key, _ in chosen)
        return [item for _, item in chosen]


def constant(data: LawData) -> Fitted:
    """The best formula without features."""
    mean = float((data.w_N * data.y_N).mean()) or 1e-12
    if data.loss == "logistic":
        mean = math.log(mean / (1.0 - mean))
    elif data.loss == "poisson":
        mean = math.log(mean)
    return refit([Formula(len(data.x_DN), (), (), mean)], data, steps=5)[0]


def seed_pool(pool: Pool, small: Atoms, large: Atoms, count: int, steps: int) -> None:
    """One-term formulas: every atom, and the products of an atom of features with any other, by score."""
    null = constant(pool.data)
    pool.add([null])
    t = tangent(null, pool.data)
    ones = torch.ones_like(t.root_w_N).unsqueeze(0)
    proposals = [
        add_term(null.formula, [a, b]) for _, a, b in best_pairs(t.residual_N, ones, t.root_w_N, small, large, count)
    ]
    proposals += [c.formula for c in changes(null, pool.data, small, large, count, inside=False)]
    pool.expanded.add(structure(null.formula))
    pool.add(refit(_new(proposals, pool), pool.data, steps))


def _new(proposals: Sequence[Formula], pool: Pool) -> list[Formula]:
    kept: dict[object, Formula] = {}
    for formula in proposals:
        key = structure(formula)
        if key not in pool.members and key not in kept:
            kept[key] = formula
    return list(kept.values())


def grow(
    pool: Pool, small: Atoms, large: Atoms, rounds: int, width: int, count: int, steps: int, patience: int = 1
) -> None:
    """Rounds in which the best members grow by their most promising changes, until nothing is gained."""
    waited = 0
    for _ in range(rounds):
        if pool.exact:
            return
        before = pool.length
        proposals: list[Formula] = []
        for parent in pool.unexpanded(width):
            proposals += [change.formula for change in changes(parent, pool.data, small, large, count)]
        fresh = _new(proposals, pool)
        if not fresh:
            return
        pool.add(refit(fresh, pool.data, steps, race=lambda m: max(8, m // 3)))
        waited = waited + 1 if pool.length > before - 1.0 else 0
        if waited > patience:
            return
