"""Whether a search has found what there is to find."""

from __future__ import annotations

from gradnas.laws.engine.pool import Pool
from gradnas.laws.engine.problem import Problem

FEW = 2  # features of which another law of the same length may fit as well
SIMPLE = 7  # complexity up to which a law that no change improves ends the search,
LONG = 14  # and where it leaves nothing that can be predicted; a longer one may fit the noise
NOISE = 1e-8  # share of the target's variance: what is left above it may be noise


def is_settled(problem: Problem, pool: Pool) -> bool:
    """Whether the best law has grown in vain and leaves nothing but noise.

    A short law need not leave what looks like noise: that no change of it gains is enough.
    """
    if pool.settled(SIMPLE):
        return not problem.is_behind(pool.best(1)[0].formula)
    return pool.settled(_longest(problem)) and is_explained(problem, pool)


def is_explained(problem: Problem, pool: Pool) -> bool:
    """Whether the best law leaves nothing, or nothing but noise."""
    best = pool.best(1)[0]
    if not is_noisy(pool):
        return pool.exact
    is_short = best.formula.complexity <= _longest(problem)
    return is_short and problem.leaves_noise(best.formula)


def is_noisy(pool: Pool) -> bool:
    """Whether what the best law leaves is so much that it may be noise."""
    return pool.best(1)[0].loss >= NOISE * pool.spread


def _longest(problem: Problem) -> int:
    """Complexity up to which a law that leaves noise ends the search.

    Of few features another law of that length may fit as well and be the right one, and looking
    for it costs little.
    """
    return SIMPLE if len(problem.features) <= FEW else LONG
