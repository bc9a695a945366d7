"""One search for laws, stage by stage.

Enumeration of small graphs, then, unless a law fits exactly, other targets, supernets and random
graphs; in between the best laws are pruned and grow. What is found is refitted on all points, in
the units of the data, and rounded.

Legend: N points, D features, F features that are searched.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch

from gradnas.laws.engine.atoms import (
    Atoms,
    allowed_functions,
    make_atoms,
    pair_stems,
)
from gradnas.laws.engine.graph import (
    EquationGraph,
    random_formulas,
)
from gradnas.laws.engine.growth import most_telling
from gradnas.laws.engine.pool import (
    Pool,
    grow,
    seed_pool,
)
from gradnas.laws.engine.prune import (
    pareto,
    prune,
    rounded,
    unscaled,
)
from gradnas.laws.engine.refit import (
    EXACT,
    Fitted,
    LawData,
    Loss,
    description_length,
    mean_loss,
    refit,
)
from gradnas.laws.engine.supernets import (
    SupernetSearch,
    search,
)
from gradnas.laws.engine.targets import (
    Target,
    targets,
)
from gradnas.laws.formula import Formula
from gradnas.laws.law import (
    Law,
    LawProgress,
    Laws,
    LawSettings,
)
from gradnas.laws.primitives import (
    POWER,
    resolve,
)
from gradnas.randomness import generator_for

MOST_FEATURES, MOST_IN_PAIRS = 8, 5  # that structures are looked for in
FOLDS = 5
LONGEST_FRONT = 10
SIMPLE = 7  # complexity up to which a law that no change improves ends the search
STRONG = 6.0  # a difference of description lengths below this is no strong evidence (Kass and Raftery, 1995)
POINTS = 100  # that `LawSettings.work_seconds` are meant for; more take longer in proportion
# Shares of the work after which a stage starts nothing new; what is left over goes to the next
# ones.
GROWTH, TARGETS, PROPOSALS = 0.5, 0.65, 0.9
FEWEST_RESTARTS = 8
SUBSET, RANDOM, FOLD = 2, 3, 4  # streams of random numbers


class Discovery:
    """One call of `discover_laws`, on checked arrays."""

    def __init__(
        self,
        x_ND: np.ndarray,
        y_N: np.ndarray,
        w_N: np.ndarray,
        settings: LawSettings,
        loss: Loss,
        seed: int,
        on_progress: Callable[[LawProgress], None] | None,
        names: Sequence[str],
    ) -> None:
        self.words, self.table = resolve(settings.primitives)
        self.settings, self.loss, self.seed, self.on_progress = settings, loss, seed, on_progress
        self.functions = list(allowed_functions(self.words))
        self.names = names
        self.notes: list[str] = []
        self.counts: dict[str, int] = {}
        x, y, w = (torch.as_tensor(np.ascontiguousarray(t)) for t in (x_ND.T, y_N, w_N))
        whole = LawData(x, y, w / w.mean(), loss, self.table, points=float(w.sum()))
        order = torch.randperm(len(y), generator=generator_for(seed, SUBSET))
        self.all = whole.rows(order[: 10 * settings.max_points].sort().values)
        self.scales = [float(row.abs().max()) or 1.0 for row in x]
        self.scale_y = (float(y.abs().max()) or 1.0) if loss == "squared" else 1.0
        scaled = x / torch.tensor(self.scales, dtype=torch.float64).unsqueeze(1)
        scaled_data = LawData(
            scaled, y / self.scale_y, whole.w_N, loss, self.table, points=whole.points
        )
        self.data = scaled_data.rows(order[: settings.max_points].sort().values)
        if len(y) > settings.max_points:
            self.notes.append(
                f"of {len(y)} rows, structures were looked for on {len(self.data.y_N)} drawn at random and the "
                f"constants fitted on {len(self.all.y_N)}"
            )
        self.work = self.data.work
        if settings.work_seconds is not None:
            self.work.limit = (
                settings.work_seconds * settings.effort * max(1.0, len(self.data.y_N) / POINTS)
            )
        self.features = self._choose_features()
        self._note_domains()

    def _choose_features(self) -> list[int]:
        """The features that structures are looked for in."""
        varied = [d for d, row in enumerate(self.data.x_DN) if float(row.max() - row.min()) > 0.0]
        constant = [self.names[d] for d in range(len(self.data.x_DN)) if d not in varied]
        if constant:
            self.notes.append(
                f"constant features cannot matter and were left out: {', '.join(constant)}"
            )
        if len(varied) > MOST_FEATURES:
            atoms = make_atoms(self.words, self.data, self.scales, varied)
            chosen = most_telling(self.data, atoms, MOST_FEATURES)
            self.notes.append(
                f"of {len(varied)} features, the {len(chosen)} that explain most were searched: "
                + ", ".join(self.names[d] for d in chosen)
            )
            return chosen
        return varied

    def _note_domains(self) -> None:
        positive = {name for name in self.functions if name == POWER or self.table[name].positive}
        lows = [(d, float(self.data.x_DN[d].min())) for d in self.features]
        crossing = [self.names[d] for d, low in lows if low <= 0]
        if positive and crossing:
            self.notes.append(
                f"{' and '.join(sorted(positive))} need positive numbers: not applied to "
                f"{', '.join(crossing)} as it is, "
                "but where something makes it positive"
            )

    # ---- stages ----------------------------------------------------------------------------------

    def run(self) -> Laws:
        """All stages."""
        settings, data = self.settings, self.data
        pool = Pool(data, data.spread)
        first = (
            self.features if len(self.features) <= MOST_IN_PAIRS else self.features[:MOST_IN_PAIRS]
        )
        small = make_atoms(self.words, data, self.scales, self.features)
        effort, large = settings.effort, small
        if effort >= 0.1:  # pairs of features are most of the cost of small data
            large = make_atoms(
                self.words, data, self.scales, [*self.features, *pair_stems(data, first)], rich=True
            )
        width, count = max(1, round(4 * effort)), max(6, round(24 * min(1.0, effort)))
        seeds = max(8, round(40 * min(1.0, effort))) if settings.enumerate and self.features else 0
        seed_pool(pool, small, large, count=seeds, steps=10)
        self._report(pool, 0.1, "enumeration")
        if settings.improve and settings.enumerate:
            grow(pool, small, large, rounds=2, width=width, count=count, steps=10, share=GROWTH)
            for _ in range(3):  # until the shortest form of the best law has grown in vain
                if pool.exact or self.work.over(GROWTH):
                    break
                self._prune(pool, 3)
                if pool.settled(SIMPLE):
                    break
                grow(pool, small, large, rounds=1, width=2, count=count, steps=10, share=GROWTH)
            self._report(pool, 0.2, "growth")
        settled = pool.exact or (settings.enumerate and settings.improve and pool.settled(SIMPLE))
        if settings.enumerate and effort >= 0.5 and not settled:
            self._explore_targets(pool, first)
        self.counts["enumerated and grown"] = len(pool.losses)
        if not (settled or pool.exact) and self.features:
            self._propose(pool)
        self._prune(pool)
        if settings.improve:
            grow(
                pool,
                small,
                large,
                rounds=3 if effort >= 0.5 else 1,
                width=width,
                count=count,
                steps=10,
            )
            self._report(pool, 0.9, "growth")
            self._prune(pool)
        return self._front(pool)

    def _report(self, pool: Pool, share: float, stage: str) -> None:
        if self.on_progress is not None:
            best = pool.best(1)[0]
            formula = unscaled(best.formula, self.scales, self.scale_y)
            self.on_progress(LawProgress(share, stage, formula, best.loss * self.scale_y**2))

    def _explore_targets(self, pool: Pool, paired: Sequence[int]) -> None:
        """Every target for one round; those whose laws for y turn out best for more."""
        sides: list[tuple[float, Target, Pool, Atoms, Atoms]] = []
        found = targets(self.data, self.scale_y, self.functions, self.settings.kinds, self.features)
        common: tuple[Atoms, Atoms] | None = None  # of the targets that are defined on all rows
        for k, target in enumerate(found):
            if pool.exact or self.work.over(TARGETS):
                break
            data = target.data
            whole = len(data.y_N) == len(self.data.y_N)
            if whole and common is not None:
                small, large = common
            else:
                stems = [*self.features, *pair_stems(data, paired)]
                small, large = (
                    make_atoms(self.words, data, self.scales, some)
                    for some in (self.features, stems)
                )
                common = (small, large) if whole else common
            side = Pool(data, data.spread)
            seed_pool(side, small, large, count=20, steps=8)
            if self.settings.improve:
                grow(side, small, large, rounds=1, width=3, count=16, steps=8)
            sides.append((self._back(target, side, pool), target, side, small, large))
            self._report(pool, 0.2 + 0.4 * (k + 1) / len(found), target.name)
        sides.sort(key=lambda entry: entry[0])
        for _, target, side, small, large in sides[:3] if self.settings.improve else []:
            if pool.exact or self.work.over(TARGETS):
                break
            grow(side, small, large, rounds=2, width=3, count=16, steps=8)
            self._back(target, side, pool)

    def _back(self, target: Target, side: Pool, pool: Pool) -> float:
        """Take a target's best laws to the pool of y; the best description length among them."""
        chosen = {
            id(item): item for item in [*side.best(4), *(item for _, item in side.front()[-6:])]
        }
        back = [target.back(item.formula) for item in chosen.values() if item.formula.nodes]
        back += [replace(formula, bias=1e-3) for formula in back]
        found = refit(back, self.data, steps=12)
        pool.add(found)
        return min(
            (description_length(item, self.data, pool.spread) for item in found), default=math.inf
        )

    def _propose(self, pool: Pool) -> None:
        """Supernets, trained and derived, and random graphs; all are refitted."""
        settings = self.settings
        restarts = (
            round(settings.restarts * settings.effort)
            if settings.restarts > 1
            else settings.restarts
        )
        count = round(settings.random_share * restarts)
        space = EquationGraph(
            len(self.features), settings.nodes, settings.primitives, settings.kinds
        )
        proposals: list[Formula] = []
        data = self.data
        if settings.proposals == "random":
            count += restarts
        elif restarts:
            none, one = (
                self.work.supernets(k, len(space.edges) * len(space.words), len(data.y_N))
                for k in (0, 1)
            )
            room = ((PROPOSALS * self.work.limit - self.work.spent) / settings.steps - none) / (
                one - none
            )
            if restarts > max(room, FEWEST_RESTARTS):
                asked, restarts = restarts, max(int(room), FEWEST_RESTARTS)
                self.notes.append(
                    f"{restarts} of {asked} supernets were trained: the work allowed was done by then"
                )
            how = SupernetSearch(
                restarts=restarts,
                steps=settings.steps,
                relaxation=settings.relaxation,
                gradient=settings.gradient,
                bilevel=settings.bilevel,
                output_in_closed_form=settings.output_in_closed_form,
            )
            searched = replace(data, x_DN=data.x_DN[self.features])
            outcome = search(space, searched, how, self.seed)
            proposals += outcome.formulas
            self.counts["supernets"] = restarts
            self.counts["supernets dropped as not finite"] = outcome.dropped
            if outcome.dropped:
                self.notes.append(
                    f"{outcome.dropped} of {restarts} supernets stopped being finite and were dropped"
                )
        proposals += random_formulas(space, count, generator_for(self.seed, RANDOM))
        self.counts["random graphs"] = count
        wide = [self._widened(formula) for formula in proposals]
        pool.add(refit(wide, data, steps=20, groups=[0] * len(wide), keep=32))
        self._report(pool, 0.8, "supernets")

    def _widened(self, formula: Formula) -> Formula:
        """A formula over the searched features as one over all of them."""
        D = len(self.data.x_DN)
        place = {f: d for f, d in enumerate(self.features)}
        place |= {len(self.features) + j: D + j for j in range(len(formula.nodes))}
        nodes = tuple(
            replace(
                node, edges=tuple(replace(edge, source=place[edge.source]) for edge in node.edges)
            )
            for node in formula.nodes
        )
        return replace(formula, features=D, nodes=nodes)

    def _prune(self, pool: Pool, count: int = 6) -> None:
        if self.settings.prune:
            few = self.settings.effort < 0.5 or self.work.over(PROPOSALS)
            for way in prune(
                pool.best(2 if few else count), self.data, self.functions, pool.spread
            ):
                pool.add(way[1:])

    # ---- the front -------------------------------------------------------------------------------

    def _front(self, pool: Pool) -> Laws:
        """The Pareto front in the units of the data."""
        spread = pool.spread
        best = pool.best(1)[0]
        if (
            not self.settings.prune
        ):  # nothing is selected by its length: the law is what the search ended in
            best = min((item for _, item in pool.members.values()), key=lambda item: item.loss)
        items = [
            item for _, item in pool.members.values() if item.loss >= best.loss or item is best
        ]
        kept = pareto(items, lambda f: max(f.loss, EXACT * spread))
        if best not in kept:
            kept.append(best)
        kept = kept[-LONGEST_FRONT:]
        plain = [unscaled(item.formula, self.scales, self.scale_y) for item in kept]
        fitted = [
            new if math.isfinite(new.loss) else Fitted(formula, item.loss * self.scale_y**2)
            for formula, item, new in zip(
                plain, kept, refit(plain, self.all, steps=30), strict=True
            )
        ]
        short = [rounded(item, self.all) for item in fitted]
        valid = self._validated([item.formula for item in short])
        laws = []
        for item, new, error in zip(kept, short, valid, strict=True):
            near = 1.01 * max(item.loss, EXACT * spread)
            agreement = sum(abs(loss) <= near and loss >= item.loss * 0.99 for loss in pool.losses)
            agreement = (
                agreement
                if item.loss > EXACT * spread
                else sum(loss <= near for loss in pool.losses)
            )
            f = new.formula
            length = description_length(item, self.data, spread)
            complexity = f.constants + f.operations
            laws.append(
                Law(
                    f,
                    complexity,
                    new.loss,
                    error,
                    length,
                    max(1, agreement),
                    self.loss,
                    dict(self.table),
                )
            )
        shortest = min(law.description_length for law in laws)
        near = [law for law in laws if law.description_length < shortest + STRONG]
        near = near if self.settings.prune else [laws[kept.index(best)]]
        chosen = min(near, key=lambda law: (law.complexity, law.description_length))
        laws = sorted(laws, key=lambda law: (law.complexity, law.train_error))
        lowest, front = math.inf, []
        for law in laws:
            if law.train_error < lowest or law is chosen:
                front.append(law)
                lowest = min(lowest, law.train_error)
        if self.on_progress is not None:
            self.on_progress(LawProgress(1.0, "done", chosen.formula, chosen.train_error))
        return Laws(tuple(front), front.index(chosen), tuple(self.notes), self.counts)

    def _validated(self, formulas: Sequence[Formula]) -> list[float]:
        """Mean loss by cross-validation: the structures stay, their constants are refitted without
        each fold."""
        n = len(self.all.y_N)
        order = torch.randperm(n, generator=generator_for(self.seed, FOLD))
        totals = torch.zeros(len(formulas), dtype=torch.float64)
        weight = 0.0
        for fold in range(min(FOLDS, n)):
            held = order[fold :: min(FOLDS, n)]
            rest = order[torch.isin(order, held, invert=True)]
            part = self.all.rows(held)
            found = refit(formulas, self.all.rows(rest), steps=6)
            etas = torch.stack([item.formula(part.x_DN.T, self.table) for item in found])
            totals += mean_loss(etas, part) * float(self.all.w_N[held].sum())
            weight += float(self.all.w_N[held].sum())
        return (totals / weight).tolist()
