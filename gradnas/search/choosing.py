"""Measuring candidates and taking the best: `CandidateSelection` and `ScoreSelection`."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from gradnas.architectures.base import Architecture
from gradnas.search.chosen import Chosen
from gradnas.search.comparing import Compared, Comparison, Judge
from gradnas.search.result import SearchResult
from gradnas.search.verdict import Difference, Scores, Yardstick


def best_candidate(
    search: Compared, result: SearchResult, judge: Judge, candidates: tuple[int, int]
) -> Chosen:
    """Measure candidates, and find the best of them; of equal ones the likelier.

    Args:
        result: of the search, by its alphas.
        candidates: so many of the likeliest and of random ones, at most.

    Raises:
        ValueError: the supernet lists no architectures, or draws none at random; there are fewer
            than two candidates.
    """
    likeliest, random = candidates
    comparison = Comparison(search, result, judge)
    batches = len(judge.sizes)
    if likeliest:
        comparison.measured(result.decision, batches)
        comparison.likeliest(likeliest, batches)
        if comparison.notes:
            raise ValueError(comparison.notes[0])
    number = len(comparison.found)
    drawn = comparison.more(random, batches)
    found = comparison.found
    if len(found) < 2:
        raise ValueError(f"there are {len(found)} candidates to compare, and it takes two")
    measure = judge.yardstick
    sign = 1.0 if measure.higher_is_better else -1.0
    best = max(found, key=lambda decision: sign * found[decision].mean)
    own = found[best]
    of_random = [found[decision].mean for decision in drawn]
    return Chosen(
        decision=best,
        measure=measure,
        value=own.mean,
        likeliest=number,
        random=len(found) - number,
        first=found[result.decision].mean if likeliest else None,
        random_mean=statistics.fmean(of_random) if of_random else None,
        random_sd=statistics.stdev(of_random) if len(of_random) > 1 else None,
        clear=_clear(found, best, measure),
        examples=round(sum(own.weights)),
        where=judge.where,
    )


def _clear(found: Mapping[Architecture, Scores], best: Architecture, measure: Yardstick) -> int:
    """How many others are worse by more than the noise."""
    higher = measure.higher_is_better
    others: Sequence[Scores] = [scores for own, scores in found.items() if own != best]
    return sum(Difference.of(found[best], scores, higher).is_clear for scores in others)
