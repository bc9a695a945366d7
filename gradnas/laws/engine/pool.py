"""The search over formulas: a pool that remembers, and rounds of growth from its best members."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from gradnas.laws.engine.atoms import Atoms
from gradnas.laws.engine.data import EXACT, LawData
from gradnas.laws.engine.edits import (
    add_term,
    structure,
)
from gradnas.laws.engine.growth import (
    changes,
    tangent,
)
from gradnas.laws.engine.pairs import best_pairs
from gradnas.laws.engine.refit import Fitted, description_length, refit
from gradnas.laws.formula import Formula

SHORT = 20  # complexity of a formula that fits to rounding as no approximation does,
CLOSER = 1e-20  # and the share of the target's variance that a longer one must reach for that


@dataclass
class Pool:
    """Every structure that was refitted, with its best constants.

    Attributes:
        members: by structure, the description length and the formula.
        expanded: the structures that have grown.
        pruned: the structures of which no part can be left out.
        losses: of all formulas that came in, for how many proposals agree on a law.
    """

    data: LawData
    spread: float
    members: dict[object, tuple[float, Fitted]] = field(default_factory=dict)
    expanded: set[object] = field(default_factory=set)
    pruned: set[object] = field(default_factory=set)
    losses: list[float] = field(default_factory=list)

    def add(self, items: Sequence[Fitted]) -> None:
        """Keep what is finite."""
        # More constants than that explain noise.
        most_constants = max(3, len(self.data.y_N) // 3)
        for item in items:
            if not math.isfinite(item.loss) or item.formula.constants > most_constants:
                continue
            self.losses.append(item.loss)
            key = structure(item.formula)
            length = description_length(item, self.data, self.spread)
            if key not in self.members or length < self.members[key][0]:
                self.members[key] = (length, item)

    @property
    def items(self) -> list[Fitted]:
        """The formulas of all members."""
        return [item for _, item in self.members.values()]

    def best(self, count: int) -> list[Fitted]:
        """By description length."""
        ordered = sorted(self.members.values(), key=lambda member: member[0])
        return [item for _, item in ordered[:count]]

    def candidates(self, count: int) -> list[Fitted]:
        """As many members as were asked for, half by description length, half by error."""
        half = count // 2
        by_error = sorted(self.items, key=lambda item: item.loss)
        members = [*self.best(count - half), *by_error[:half]]
        return list({id(item): item for item in members if item.formula.nodes}.values())

    def unpruned(self, count: int) -> list[Fitted]:
        """The best, but for those that are known to have no shorter form."""
        best = self.best(count)
        return [item for item in best if structure(item.formula) not in self.pruned]

    def mark_pruned(self, item: Fitted) -> None:
        """Remember that a formula has no shorter form."""
        self.pruned.add(structure(item.formula))

    @property
    def length(self) -> float:
        """The smallest description length."""
        return min((length for length, _ in self.members.values()), default=math.inf)

    @property
    def exact(self) -> bool:
        """Whether a member fits to rounding error.

        A long one must do so more closely: it may be an approximation of a short law.
        """
        for item in self.items:
            share = EXACT if item.formula.complexity <= SHORT else CLOSER
            if item.loss < share * self.spread:
                return True
        return False

    def settled(self, complexity: int) -> bool:
        """Whether the best member is this simple and has grown without gain.

        Growing tried every atom and every product and sum of two of them against the residuals, so
        these look like noise.
        """
        best = min(self.members, key=lambda key: self.members[key][0])
        _, item = self.members[best]
        return best in self.expanded and item.formula.complexity <= complexity

    def front(self) -> list[Fitted]:
        """The members that no simpler one equals, by rising complexity."""
        kept: list[Fitted] = []
        lowest = math.inf
        for item in sorted(self.items, key=lambda item: (item.formula.complexity, item.loss)):
            # A gain of less than a thousandth is not worth any complexity.
            if item.loss < 0.999 * lowest:
                kept.append(item)
                lowest = item.loss
        return kept

    def unexpanded(self, count: int) -> list[Fitted]:
        """Members to grow from that have not grown yet; they are marked.

        Half of them are the best by description length. The others are the best if errors below a
        share of the spread did not matter: without noise the description length alone would always
        prefer the longest approximation.
        """
        chosen: dict[object, Fitted] = {}
        waiting = [key for key in self.members if key not in self.expanded]
        # Floor of the errors, as a share of the spread -> how many members are chosen by it; the
        # last fills up what is left of the `count`.
        shares = {0.0: count - count // 2, 1e-2: count // 4 or 1, 1e-4: count}
        for floor, share in shares.items():
            taken = 0
            for key in sorted(waiting, key=self._length_above(floor)):
                if len(chosen) >= count or taken >= share:
                    break
                if key not in chosen:
                    chosen[key] = self.members[key][1]
                    taken += 1
        self.expanded.update(chosen)
        return list(chosen.values())

    def _length_above(self, floor: float) -> Callable[[object], float]:
        """The description length of a member, errors below this share of the spread left out."""
        n = len(self.data.y_N)

        def length(key: object) -> float:
            length_of_member, item = self.members[key]
            if floor == 0.0 or self.data.loss != "squared":
                return length_of_member
            # n ln MSE with the floor beside the error: below it, a smaller error gains nothing.
            fit = n * math.log(item.loss / self.spread + floor)
            return fit + item.formula.complexity * math.log(n)

        return length


def constant(data: LawData) -> Fitted:
    """The best formula without features."""
    bias = float((data.w_N * data.y_N).mean()) or 1e-12  # 0.0 would be a formula without a bias
    # The value is the log-odds, or the log-rate: the constant whose mean is that of the target.
    if data.loss == "logistic":
        bias = math.log(bias / (1.0 - bias))
    elif data.loss == "poisson":
        bias = math.log(bias)
    return refit([Formula(len(data.x_DN), (), (), bias)], data, steps=5)[0]


def seed_pool(pool: Pool, small: Atoms, large: Atoms, count: int, steps: int) -> None:
    """One-term formulas: every atom, and the products of an atom of features with any other."""
    data = pool.data
    null = constant(data)
    pool.add([null])
    if count == 0:
        return
    at_fit = tangent(null, data)
    data.work.pairs(products=len(small.atoms) * len(large.atoms), sums=0)
    ones_1N = torch.ones_like(at_fit.root_w_N).unsqueeze(0)  # all that the formula has: its bias
    proposals: list[Formula] = []
    best = best_pairs(at_fit.residual_N, ones_1N, at_fit.root_w_N, small, large, count)
    for _, a, b in best:
        proposals.append(add_term(null.formula, [a, b]))
    for change in changes(null, data, small, large, count, inside=False):
        proposals.append(change.formula)
    pool.expanded.add(structure(null.formula))  # every change of it has just been tried
    pool.add(refit(_new(proposals, pool), data, steps))


def _new(proposals: Sequence[Formula], pool: Pool) -> list[Formula]:
    """The first of each structure that the pool does not have."""
    kept: dict[object, Formula] = {}
    for formula in proposals:
        key = structure(formula)
        if key not in pool.members:
            kept.setdefault(key, formula)
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

    Args:
        width: members that grow in a round.
        count: changes of each.
        steps: of refitting.
    """
    rounds_without_gain = 0
    for _ in range(rounds):
        if pool.exact or pool.data.work.over(share):
            return
        before = pool.length
        proposals: list[Formula] = []
        parents: dict[object, int] = {}
        for parent, item in enumerate(pool.unexpanded(width)):
            for change in changes(item, pool.data, small, large, count):
                proposals.append(change.formula)
                # Of equal structures `_new` keeps the first, so the first parent is its own.
                parents.setdefault(structure(change.formula), parent)
        fresh = _new(proposals, pool)
        if not fresh:
            return
        # Each member's changes compete among themselves: those of a worse one need more steps.
        groups = [parents[structure(formula)] for formula in fresh]
        keep = max(6, count // 3)
        pool.add(refit(fresh, pool.data, steps, groups=groups, keep=keep))
        # Less than one unit of description length counts as nothing.
        gained_little = pool.length > before - 1.0
        rounds_without_gain = rounds_without_gain + 1 if gained_little else 0
        if rounds_without_gain > 1:
            return
