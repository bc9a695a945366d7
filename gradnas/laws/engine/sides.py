"""The search for laws of other targets: functions of the target, and their way back.

Legend: N points.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from gradnas.laws.engine.atoms import Atoms, make_atoms, pair_stems
from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.pool import Pool, grow, seed_pool
from gradnas.laws.engine.problem import Problem
from gradnas.laws.engine.refit import Fitted, description_length, refit
from gradnas.laws.engine.targets import Target, targets
from gradnas.laws.formula import Formula

MOST_IN_PAIRS = 5  # features whose pairs atoms are made of
SHARE = 0.65  # of the work, after which no further target is begun


@dataclass
class Side:
    """The search for another target's laws.

    Attributes:
        length: the best description length of its laws for y.
    """

    target: Target
    pool: Pool
    small: Atoms
    large: Atoms
    length: float = math.inf

    def grow(self, rounds: int) -> None:
        """Rounds of growth that are a little smaller than those for y."""
        grow(self.pool, self.small, self.large, rounds=rounds, width=3, count=16, steps=8)


def explore_targets(problem: Problem, pool: Pool, on_target: Callable[[float, str], None]) -> None:
    """Every target for one round; those whose laws for y turn out best for more.

    Args:
        pool: of y; it takes the laws.
        on_target: called after each with the share of the targets that is done, and its name.
    """
    settings = problem.settings
    admitted = targets(
        problem.data,
        problem.scale_y,
        problem.functions,
        settings.kinds,
        problem.features,
    )
    sides: list[Side] = []
    shared: tuple[Atoms, Atoms] | None = None  # of the targets that are defined on all rows
    for k, target in enumerate(admitted):
        if pool.exact or problem.work.over(SHARE):
            break
        data = target.data
        on_all_rows = len(data.y_N) == len(problem.data.y_N)
        if on_all_rows and shared is not None:
            small, large = shared
        else:
            small, large = _atoms_of(problem, data)
        if on_all_rows:
            shared = (small, large)
        side = Side(target, Pool(data, data.spread), small, large)
        seed_pool(side.pool, small, large, count=20, steps=8)
        if settings.improve:
            side.grow(rounds=1)
        side.length = _take_back(problem, pool, side)
        sides.append(side)
        on_target((k + 1) / len(admitted), target.name)
    if not settings.improve:
        return
    sides.sort(key=lambda side: side.length)
    for side in sides[:3]:
        if pool.exact or problem.work.over(SHARE):
            break
        side.grow(rounds=2)
        _take_back(problem, pool, side)


def _atoms_of(problem: Problem, data: LawData) -> tuple[Atoms, Atoms]:
    """Atoms of the features, and of them and their pairs, at the rows of a target."""
    stems = [*problem.features, *pair_stems(data, problem.features[:MOST_IN_PAIRS])]
    small = make_atoms(problem.words, data, problem.scales, problem.features)
    large = make_atoms(problem.words, data, problem.scales, stems)
    return small, large


def _take_back(problem: Problem, pool: Pool, side: Side) -> float:
    """Take a target's best laws to the pool of y; the best description length among them."""
    different: dict[int, Fitted] = {}
    for item in [*side.pool.best(4), *side.pool.front()[-6:]]:
        different[id(item)] = item
    back: list[Formula] = []
    for item in different.values():
        if item.formula.nodes:
            back.append(side.target.back(item.formula))
    # With and without a constant term beside the outer function.
    back += [replace(formula, bias=1e-3) for formula in back]
    refitted = refit(back, problem.data, steps=12)
    pool.add(refitted)
    lengths = [description_length(item, problem.data, pool.spread) for item in refitted]
    return min(lengths, default=math.inf)
