"""The search over formulas: a pool that remembers, and rounds of growth from its best members."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from gradnas.laws.engine.atoms import (
    Atoms,
    add_term,
    structure,
)
from gradnas.laws.engine.growth import (
    best_pairs,
    changes,
    tangent,
)
from gradnas.laws.engine.refit import (
    EXACT,
    Fitted,
    LawData,
    description_length,
    refit,
)
from gradnas.laws.formula import Formula


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
        most = max(3, len(self.data.y_N) // 3)  # more constants than that explain noise
        for item in items:
            if math.isfinite(item.loss) and item.formula.constants <= most:
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

    def settled(self, complexity: int) -> bool:
        """Whether the best member is this simple and has grown without gain: its residuals look
        like noise.

        Growing tried every atom and every product and sum of two of them against the residuals.
        """
        key, (_, item) = min(self.members.items(), key=lambda m: m[1][0])
        return (
            key in self.expanded and item.formula.constants + item.formula.operations <= complexity
        )

    def front(self) -> list[tuple[object, Fitted]]:
        """The members that no simpler one equals, by rising complexity."""
        ordered = sorted(
            self.members.items(),
            key=lambda m: (m[1][1].formula.constants + m[1][1].formula.operations, m[1][1].loss),
        )
        kept, lowest = [], math.inf
        for key, (_, item) in ordered:
            if item.loss < 0.999 * lowest:
                kept.append((key, item))
                lowest = item.loss
        return kept

    def unexpanded(self, count: int) -> list[Fitted]:
        """Members to grow from that have not grown yet; they are marked.

        Half of them are the best by description length. The others are the best if errors below a
        share of the spread did not matter: without noise the description length alone would always
        prefer the longest approximation.
        """
        chosen: dict[object, Fitted] = {}
        open_ = [(key, pair) for key, pair in self.members.items() if key not in self.expanded]
        n = len(self.data.y_N)
        for floor, share in ((0.0, count - count // 2), (1e-2, count // 4 or 1), (1e-4, count)):

            def length(entry: tuple[object, tuple[float, Fitted]], floor: float = floor) -> float:
                exact, item = entry[1]
                if floor == 0.0 or self.data.loss != "squared":
                    return exact
                size = item.formula.constants + item.formula.operations
                return n * math.log(item.loss / self.spread + floor) + size * math.log(n)

            taken = 0
            for key, (_, item) in sorted(open_, key=length):
                if len(chosen) >= count or taken >= share:
                    break
                if key not in chosen:
                    chosen[key] = item
                    taken += 1
        self.expanded.update(chosen)
        return list(chosen.values())


def constant(data: LawData) -> Fitted:
    """The best formula without features."""
    mean = float((data.w_N * data.y_N).mean()) or 1e-12
    if data.loss == "logistic":
        mean = math.log(mean / (1.0 - mean))
    elif data.loss == "poisson":
        mean = math.log(mean)
    return refit([Formula(len(data.x_DN), (), (), mean)], data, steps=5)[0]


def seed_pool(pool: Pool, small: Atoms, large: Atoms, count: int, steps: int) -> None:
    """One-term formulas: every atom, and the products of an atom of features with any other, by
    score."""
    null = constant(pool.data)
    pool.add([null])
    if count == 0:
        return
    t = tangent(null, pool.data)
    pool.data.work.scores(len(small.atoms) * len(large.atoms), 0, 0)
    ones = torch.ones_like(t.root_w_N).unsqueeze(0)
    proposals = [
        add_term(null.formula, [a, b])
        for _, a, b in best_pairs(t.residual_N, ones, t.root_w_N, small, large, count)
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
    pool: Pool,
    small: Atoms,
    large: Atoms,
    rounds: int,
    width: int,
    count: int,
    steps: int,
    share: float = 1.0,
) -> None:
    """Rounds in which the best members grow by their most promising changes.

    They end when two have gained nothing, or when this share of the work that is allowed is done.
    """
    waited = 0
    for _ in range(rounds):
        if pool.exact or pool.data.work.over(share):
            return
        before = pool.length
        proposals: list[Formula] = []
        groups: dict[object, int] = {}
        for g, parent in enumerate(pool.unexpanded(width)):
            for change in changes(parent, pool.data, small, large, count):
                proposals.append(change.formula)
                groups.setdefault(structure(change.formula), g)
        fresh = _new(proposals, pool)
        if not fresh:
            return
        pool.add(
            refit(
                fresh,
                pool.data,
                steps,
                groups=[groups[structure(f)] for f in fresh],
                keep=max(6, count // 3),
            )
        )
        waited = waited + 1 if pool.length > before - 1.0 else 0
        if waited > 1:
            return
