"""One search for laws, stage by stage.

Enumeration of small graphs, then, unless a law fits exactly, other targets, supernets and random
graphs; in between the best laws are pruned and grow. What is found is refitted on all points, in
the units of the data, and rounded (`engine/front.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from gradnas.laws.engine.atoms import (
    Atoms,
    make_atoms,
    pair_stems,
)
from gradnas.laws.engine.data import LawData
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
from gradnas.laws.engine.refit import Fitted, description_length, refit
from gradnas.laws.engine.seeds import Field, reduced_formulas, seed_formulas
from gradnas.laws.engine.sides import Side
from gradnas.laws.engine.targets import targets
from gradnas.laws.formula import Formula
from gradnas.laws.law import (
    LawProgress,
    Laws,
)

MOST_IN_PAIRS = 5  # features whose pairs atoms are made of
FEW = 2  # features up to which enumeration is cheaper than the linear fits
SIMPLE = 7  # complexity up to which a law that no change improves ends the search,
LONG = 14  # and where it leaves nothing that can be predicted; a longer one may fit the noise
# Shares of the work after which a stage starts nothing new; what is left over goes to the next
# ones.
GROWTH = 0.5
NOISE = 1e-8  # share of the target's variance: what is left above it may be noise
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
            candidates=tuple(self.problem.in_units(item.formula) for item in self._others()),
        )

    def _others(self) -> list[Fitted]:
        """As many members as were asked for, half by description length, half by error."""
        half = self.candidates // 2
        by_error = sorted(self.pool.items, key=lambda item: item.loss)
        members = [*self.pool.best(self.candidates - half), *by_error[:half]]
        return list({id(item): item for item in members if item.formula.nodes}.values())

    def _search(self) -> None:
        settings = self.settings
        if self.start:
            # With their own constants, and with the best.
            self.pool.add(refit(self.start, self.problem.data, steps=0))
            self.pool.add(refit(self.start, self.problem.data, steps=30))
            self._prune(3)
        self._begin()
        # Without noise few rows say as much as many.
        best = self.pool.best(1)[0]
        if best.loss > NOISE * self.pool.spread and self.problem.widen():
            self._refit_on_more()
        settled = self.pool.exact
        if settings.enumerate and settings.improve:
            settled = settled or self._settled()
        if settings.enumerate and settings.effort >= 0.5 and not settled:
            self._explore_targets()
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

    def _settled(self) -> bool:
        """Whether the best law has grown in vain and leaves nothing but noise.

        A short law need not leave what looks like noise: that no change of it gains is enough.
        """
        if self.pool.settled(SIMPLE):
            return not self.problem.is_behind(self.pool.best(1)[0].formula)
        return self.pool.settled(self._longest) and self._is_explained()

    @property
    def _longest(self) -> int:
        """Complexity up to which a law that leaves noise ends the search.

        Of few features another law of that length may fit as well and be the right one, and
        looking for it costs little.
        """
        return SIMPLE if len(self.problem.features) <= FEW else LONG

    def _is_explained(self) -> bool:
        """Whether the best law leaves nothing, or nothing but noise."""
        best = self.pool.best(1)[0]
        if best.loss < NOISE * self.pool.spread:
            return self.pool.exact
        return best.formula.complexity <= self._longest and self.problem.leaves_noise(best.formula)

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
            if not self._is_explained():
                self._reduce(grows)
        self._enumerate()
        if not grows:
            return
        if not pool.exact:
            self._grow(rounds=1, width=2, share=GROWTH)
        if not pool.exact and not self._settled():
            if not many:
                self._reduce(grows)
            if not self._is_explained():
                self._seed(parts, share=PROPOSALS)
            self._report(0.12, "linear fits")
            self._grow(rounds=1, width=2, share=TARGETS)  # whether the best can
            self._grow(rounds=1, share=GROWTH)
        for _ in range(3):  # until the shortest form of the best law has grown in vain
            if pool.exact or self.problem.work.over(GROWTH):
                break
            self._prune(3)
            if self._settled():
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
                if pool.length < before and self._is_explained():
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

    def _explore_targets(self) -> None:
        """Every target for one round; those whose laws for y turn out best for more."""
        problem = self.problem
        admitted = targets(
            problem.data,
            problem.scale_y,
            problem.functions,
            self.settings.kinds,
            problem.features,
        )
        sides: list[Side] = []
        shared: tuple[Atoms, Atoms] | None = None  # of the targets that are defined on all rows
        for k, target in enumerate(admitted):
            if self.pool.exact or problem.work.over(TARGETS):
                break
            data = target.data
            on_all_rows = len(data.y_N) == len(problem.data.y_N)
            if on_all_rows and shared is not None:
                small, large = shared
            else:
                small, large = self._atoms_of(data)
            if on_all_rows:
                shared = (small, large)
            side = Side(target, Pool(data, data.spread), small, large)
            seed_pool(side.pool, small, large, count=20, steps=8)
            if self.settings.improve:
                side.grow(rounds=1)
            side.length = self._take_back(side)
            sides.append(side)
            self._report(0.2 + 0.4 * (k + 1) / len(admitted), target.name)
        if not self.settings.improve:
            return
        sides.sort(key=lambda side: side.length)
        for side in sides[:3]:
            if self.pool.exact or problem.work.over(TARGETS):
                break
            side.grow(rounds=2)
            self._take_back(side)

    def _atoms_of(self, data: LawData) -> tuple[Atoms, Atoms]:
        """Atoms of the features, and of them and their pairs, at the rows of a target."""
        problem = self.problem
        stems = [*problem.features, *pair_stems(data, self.paired)]
        small = make_atoms(problem.words, data, problem.scales, problem.features)
        large = make_atoms(problem.words, data, problem.scales, stems)
        return small, large

    def _take_back(self, side: Side) -> float:
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
        data = self.problem.data
        refitted = refit(back, data, steps=12)
        self.pool.add(refitted)
        lengths = [description_length(item, data, self.pool.spread) for item in refitted]
        return min(lengths, default=math.inf)

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
