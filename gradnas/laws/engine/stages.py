"""One search for laws, stage by stage.

Enumeration of small graphs, then, unless a law fits exactly, other targets, supernets and random
graphs; in between the best laws are pruned and grow. What is found is refitted on all points, in
the units of the data, and rounded (`engine/front.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

from gradnas.laws.engine.atoms import (
    make_atoms,
    pair_stems,
)
from gradnas.laws.engine.front import front_of_laws
from gradnas.laws.engine.pool import (
    Pool,
    constant,
    grow,
    seed_pool,
)
from gradnas.laws.engine.problem import Problem
from gradnas.laws.engine.proposals import propose
from gradnas.laws.engine.prune import prune
from gradnas.laws.engine.refit import refit
from gradnas.laws.engine.seeds import Field, reduced_formulas, seed_formulas
from gradnas.laws.engine.settled import is_explained, is_noisy, is_settled
from gradnas.laws.engine.sides import MOST_IN_PAIRS, explore_targets
from gradnas.laws.formula import Formula
from gradnas.laws.law import (
    LawProgress,
    Laws,
)

FEW = 2  # features up to which enumeration is cheaper than the linear fits
# Shares of the work after which a stage starts nothing new; what is left over goes to the next
# ones.
GROWTH = 0.5
KEPT = 40  # members that are fitted again where there are more rows
TARGETS = 0.65
PROPOSALS = 0.9


class Discovery:
    """One call of `discover_laws`, on checked arrays."""

    def __init__(
        self,
        problem: Problem,
        on_progress: Callable[[LawProgress], None] | None,
        start: Sequence[Formula] = (),
        candidates: int = 0,
    ) -> None:
        self.problem = problem
        self.start = [problem.of_size_1(formula) for formula in start]
        self.candidates = candidates
        self.settings = problem.settings
        self.on_progress = on_progress
        self.notes = list(problem.notes)
        self.counts: dict[str, int] = {}
        self.pool = Pool(problem.data, problem.data.spread)
        self.paired = problem.features[:MOST_IN_PAIRS]
        effort = self.settings.effort
        # Members that grow in a round, and changes of each.
        self.width = max(1, round(4 * effort))
        self.count = max(6, round(24 * min(1.0, effort)))

    def _make_atoms(self) -> None:
        """`small`, the atoms of the features, and `large`, those of them and their pairs."""
        problem = self.problem
        data = problem.data
        self.small = make_atoms(problem.words, data, problem.scales, problem.features)
        self.large = self.small
        # Pairs of features are most of the cost of small data.
        is_hurried = self.settings.effort < 0.1 or problem.work.over(PROPOSALS)
        if not is_hurried and not self.pool.exact:
            stems = [*problem.features, *pair_stems(data, self.paired)]
            self.large = make_atoms(problem.words, data, problem.scales, stems, rich=True)

    def run(self) -> Laws:
        """All stages. Ctrl-C ends them: the best so far is the result."""
        work = self.problem.work
        self.pool.add([constant(self.problem.data)])
        try:
            self._search()
            front, chosen = front_of_laws(self.problem, self.pool)
        except KeyboardInterrupt:
            work.stopped = True
            self.notes.append("the search was stopped by hand: these laws are the best so far")
            front, chosen = front_of_laws(self.problem, self.pool)
        if work.ended and not work.stopped:
            self.notes.append(
                f"the {self.settings.max_seconds:.3g} seconds allowed were over before the search "
                "was: these laws are the best so far"
            )
        self.notes += self.problem.row_notes()
        if self.on_progress is not None:
            done = LawProgress(1.0, "done", chosen.formula, chosen.train_error)
            self.on_progress(done)
        return Laws(
            front=tuple(front),
            best=front.index(chosen),
            notes=tuple(self.notes),
            counts=self.counts,
            stopped=work.stopped,
            candidates=tuple(
                self.problem.in_units(item.formula)
                for item in self.pool.candidates(self.candidates)
            ),
        )

    def _search(self) -> None:
        settings = self.settings
        if self.start:
            # With their own constants, and with the best.
            self.pool.add(refit(self.start, self.problem.data, steps=0))
            self.pool.add(refit(self.start, self.problem.data, steps=30))
            self._prune(3)
        self._begin()
        # Without noise few rows say as much as many.
        if is_noisy(self.pool) and self.problem.widen():
            self._refit_on_more()
        settled = self.pool.exact
        if settings.enumerate and settings.improve:
            settled = settled or is_settled(self.problem, self.pool)
        if settings.enumerate and settings.effort >= 0.5 and not settled:
            explore_targets(self.problem, self.pool, self._of_targets)
        self.counts["enumerated and grown"] = len(self.pool.losses)
        ended = self.pool.exact or self.problem.work.ended
        if self.problem.features and not settled and not ended:
            self._propose()
        self._prune()
        is_cheap = not self.pool.exact and len(self.problem.features) <= FEW
        if settings.improve and (is_cheap or not settled):
            self._grow(rounds=3 if settings.effort >= 0.5 else 1)
            self._report(0.9, "growth")
            self._prune()

    # ---- stages ----------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Linear fits, every product and sum of two atoms, and growth from the best of them.

        What costs least comes first: of few features that are the products and sums.
        """
        settings = self.settings
        pool = self.pool
        features = self.problem.features
        grows = settings.enumerate and settings.improve
        parts: Iterator[list[Formula]] = iter(())
        if grows and features and settings.effort >= 0.25:
            field = _field_of(self.problem)
            parts = iter(()) if field is None else seed_formulas(field)
        many = len(features) > FEW
        if many:
            self._seed(parts, most=2)  # products, and sums that leave nothing
            if not is_explained(self.problem, self.pool):
                self._reduce(grows)
        self._enumerate()
        if not grows:
            return
        if not pool.exact:
            self._grow(rounds=1, width=2, share=GROWTH)
        if not pool.exact and not is_settled(self.problem, self.pool):
            if not many:
                self._reduce(grows)
            if not is_explained(self.problem, self.pool):
                self._seed(parts, share=PROPOSALS)
            self._report(0.12, "linear fits")
            self._grow(rounds=1, width=2, share=TARGETS)  # whether the best can
            self._grow(rounds=1, share=GROWTH)
        for _ in range(3):  # until the shortest form of the best law has grown in vain
            if pool.exact or self.problem.work.over(GROWTH):
                break
            self._prune(3)
            if is_settled(self.problem, self.pool):
                break
            self._grow(rounds=1, width=2, share=GROWTH)
        self._report(0.2, "growth")

    def _enumerate(self) -> None:
        """Every product and sum of two atoms; few where a law is known that fits exactly."""
        settings = self.settings
        self._make_atoms()
        seeds = 0
        if settings.enumerate and self.problem.features:
            seeds = max(8, round(40 * min(1.0, settings.effort)))
        if self.pool.exact or self.problem.work.over(PROPOSALS):
            seeds = min(seeds, 8)
        seed_pool(self.pool, self.small, self.large, count=seeds, steps=10)
        self._report(0.1, "enumeration")

    def _reduce(self, grows: bool) -> None:
        """The same for the problem with fewer features that symmetries of the target leave."""
        field = _field_of(self.problem)
        alone = len(self.problem.features) <= 1 or self.settings.effort < 0.25
        if field is None or alone or not grows or self.pool.exact:
            return
        smaller = self.problem.find_symmetries()
        if smaller is not None:
            self.counts["features after symmetries"] = len(smaller.sources)
            # They are cheaper than those of all features, and reach deeper.
            self._seed(reduced_formulas(field, smaller), share=TARGETS)
            self._report(0.11, "symmetries")

    def _seed(
        self, parts: Iterator[list[Formula]], most: int | None = None, share: float = GROWTH
    ) -> None:
        """What linear least squares finds, and what is left of it when it is pruned.

        Args:
            most: parts that are asked for; by default all.
            share: of the work, after which no more are.
        """
        pool = self.pool
        count = 0
        for _ in itertools.islice(itertools.count(), most):
            if pool.exact or self.problem.work.over(share):
                break
            formulas = next(parts, None)
            if formulas is None:
                break
            if formulas:
                count += len(formulas)
                one_group = [0] * len(formulas)
                fitted = refit(formulas, self.problem.data, 20, groups=one_group, keep=6)
                before = pool.length
                pool.add(fitted)
                if pool.length < before and is_explained(self.problem, self.pool):
                    break
        if count:
            self.counts["by linear fits"] = self.counts.get("by linear fits", 0) + count
            self._prune(1)

    def _refit_on_more(self) -> None:
        """Go on with more rows: the best members so far, refitted there."""
        members = [*self.pool.best(KEPT), *self.pool.front()]
        formulas = list(dict.fromkeys(item.formula for item in members))
        data = self.problem.data
        self.pool = Pool(data, data.spread)
        self.pool.add(refit(formulas, data, steps=10))
        self._make_atoms()
        self._grow(rounds=2, share=GROWTH)
        self._prune(3)

    def _propose(self) -> None:
        """Supernets, trained and derived, and random graphs; all are refitted."""
        proposals = propose(self.problem, share=PROPOSALS)
        self.notes += proposals.notes
        self.counts |= proposals.counts
        formulas = proposals.formulas
        one_group = [0] * len(formulas)
        self.pool.add(refit(formulas, self.problem.data, steps=20, groups=one_group, keep=32))
        self._report(0.8, "supernets")

    def _grow(self, rounds: int, width: int | None = None, share: float = 1.0) -> None:
        grow(
            self.pool,
            self.small,
            self.large,
            rounds=rounds,
            width=self.width if width is None else width,
            count=self.count,
            steps=10,
            share=share,
        )

    def _prune(self, count: int = 3) -> None:
        if not self.settings.prune or self.problem.work.ended:
            return
        in_a_hurry = self.settings.effort < 0.5 or self.problem.work.over(PROPOSALS)
        best = self.pool.unpruned(2 if in_a_hurry or self.pool.exact else count)
        ways = prune(best, self.problem.data, self.problem.functions, self.pool.spread)
        for way in ways:
            self.pool.add(way[1:])
            self.pool.mark_pruned(way[-1])  # it has no shorter form

    def _of_targets(self, share: float, name: str) -> None:
        """Report a target; `share` of them are done."""
        self._report(0.2 + 0.4 * share, name)

    def _report(self, share: float, stage: str) -> None:
        if self.on_progress is not None:
            best = self.pool.best(1)[0]
            formula = self.problem.in_units(best.formula)
            error = self.problem.in_units_of_loss(best.loss)
            self.on_progress(LawProgress(share, stage, formula, error))


def _field_of(problem: Problem) -> Field | None:
    """Where linear fits look; None where there is nothing for them."""
    kinds = problem.settings.kinds
    if problem.data.loss != "squared" or "product" not in kinds:
        return None
    return Field(
        data=problem.data,
        scales=problem.scales,
        scale_y=problem.scale_y,
        features=problem.features,
        functions=problem.functions,
        with_ratios="ratio" in kinds,
    )
