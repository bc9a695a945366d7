"""The Pareto front of a search: the best of its pool, in the units of the data.

Legend: N points, D features.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from gradnas.laws.engine.data import EXACT, Work, mean_loss
from gradnas.laws.engine.digits import rounded
from gradnas.laws.engine.edits import structure
from gradnas.laws.engine.levels import depth
from gradnas.laws.engine.linear import linear_formulas
from gradnas.laws.engine.poles import has_pole
from gradnas.laws.engine.pool import Pool
from gradnas.laws.engine.problem import Problem
from gradnas.laws.engine.prune import pareto
from gradnas.laws.engine.refit import Fitted, description_length, refit
from gradnas.laws.formula import Formula
from gradnas.laws.law import Law
from gradnas.randomness import generator_for

FOLDS = 5
FOLD = 4  # stream of random numbers
LONGEST_FRONT = 10
MOST_STEPS = 30  # of refitting the laws on all rows,
STEPS_OF_FOLD = 6  # and without those of a fold, from there;
FEWEST_STEPS = 3  # with many rows or long laws
# Below this, a difference of description lengths is no very strong evidence (Kass, Raftery, 1995).
# Such a length stands for twice the negative logarithm of a probability, the scale of their table;
# "strong", 6, is not enough where many structures were tried.
STRONG = 10.0
OF_LINEAR = 14.0  # the same between a linear law and one of about a thousand structures
WORSE = 1.05  # times the error of a simpler law in cross-validation: more speaks against a law
SHOWN = 0.05  # of the error of every law without a pole: less shows that there is one


def front_of_laws(problem: Problem, pool: Pool) -> tuple[list[Law], Law]:
    """The laws by rising complexity, and the chosen one of them."""
    more_rows = len(problem.all.y_N) > len(problem.data.y_N)
    kept, best = _kept(pool, problem.settings.prune, more_rows)
    linear = _linear(problem, pool)
    known = {structure(item.formula) for item in kept}
    kept = [*kept, *(item for item in linear if structure(item.formula) not in known)]
    unrounded = _in_units(problem, kept)
    in_units = [rounded(item, problem.all) for item in unrounded]
    spread = problem.all.spread
    valid_errors = _validated(problem, [item.formula for item in in_units])
    laws: list[Law] = []
    for item, on_all, final, valid_error in zip(
        kept, unrounded, in_units, valid_errors, strict=True
    ):
        # On all rows, of which the search has perhaps seen few, but with the constants of features
        # of size 1: their sizes are part of it.
        judged = Fitted(item.formula, on_all.loss)
        law = Law(
            formula=final.formula,
            # Of the structure: a constant that was rounded to 1 counts in every fold of the data.
            complexity=final.formula.complexity,
            train_error=final.loss,
            valid_error=valid_error,
            description_length=description_length(judged, problem.all, spread),
            agreement=max(1, _agreement(pool, item)),
            loss=problem.loss,
            primitives=dict(problem.table),
            has_pole=has_pole(final.formula, problem.box, problem.table),
            rounding=EXACT * spread,
        )
        laws.append(law)

    shapes = {structure(item.formula) for item in linear}
    straight = [
        law for law, item in zip(laws, kept, strict=True) if structure(item.formula) in shapes
    ]
    chosen = choice(laws, straight) if problem.settings.prune else laws[kept.index(best)]

    # On all rows and with rounded constants some may not be better than a simpler one any more.
    front: list[Law] = []
    lowest = math.inf
    for law in sorted(laws, key=lambda law: (law.complexity, law.train_error)):
        if law.train_error < lowest or law is chosen:
            front.append(law)
            lowest = min(lowest, law.train_error)
    return front, chosen


def choice(laws: Sequence[Law], linear: Sequence[Law] = ()) -> Law:
    """The law that the data speak for.

    The simplest that no evidence speaks against, not the shortest: between lengths so close the
    data do not decide. Cross-validation and poles are evidence (`without_evidence_against`).

    Args:
        linear: those of the laws that are linear. Of thousands of other structures the best fits
            noise, too, so it takes stronger evidence to prefer it to one of these.
    """
    sound = without_evidence_against(
        laws, min((law.valid_error for law in linear), default=math.inf)
    )
    shortest = min(law.description_length for law in sound)
    near: list[Law] = []
    for law in sound:
        margin = OF_LINEAR if any(law is other for other in linear) else STRONG
        if law.description_length < shortest + margin:
            near.append(law)
    return min(near, key=lambda law: (law.complexity, law.description_length))


def without_evidence_against(laws: Sequence[Law], linear_error: float = math.inf) -> list[Law]:
    """The laws that may be chosen; never empty.

    A law is left out where a simpler one has an error in cross-validation that is smaller by more
    than 5%, where that of a linear law, `linear_error`, is, however complex it may be, and where it
    has a pole between the data, unless the data show it: its error in cross-validation is then a
    twentieth, or less, of that of every law without one.
    """
    without_pole = [law.valid_error for law in laws if not law.has_pole]
    least = min(without_pole, default=math.inf)
    sound: list[Law] = []
    for law in laws:
        shown = not law.has_pole or law.valid_error <= SHOWN * least
        is_behind = max(law.valid_error, law.rounding) > WORSE * linear_error
        if shown and not is_behind and not _contradicted(law, laws):
            sound.append(law)
    if sound:
        return sound
    # Every law is contradicted by another: the one that predicts best is left.
    return [min(laws, key=lambda law: (law.valid_error, law.complexity))]


def _contradicted(law: Law, laws: Sequence[Law]) -> bool:
    """Whether a simpler law predicts held-out rows better."""
    # Errors of rounding count as equal.
    error = max(law.valid_error, law.rounding)
    for other in laws:
        is_better = error > WORSE * max(other.valid_error, other.rounding)
        if is_better and other.complexity < law.complexity:
            return True
    return not math.isfinite(error)


def _kept(pool: Pool, by_length: bool, more_rows: bool) -> tuple[list[Fitted], Fitted]:
    """The formulas of the front, and the best of them.

    Args:
        more_rows: whether they are judged on more rows than they were found in.
        by_length: whether the best is the shortest description. Without pruning nothing is selected
            by its length: the law is what the search ended in.
    """
    best = pool.best(1)[0] if by_length else min(pool.items, key=lambda item: item.loss)
    # What fits better than the best is longer than it is worth.
    worth_it = [item for item in pool.items if item.loss >= best.loss or item is best]
    if more_rows:
        # More rows may show what it is worth.
        worth_it += [item for item in pool.best(LONGEST_FRONT) if item.loss < best.loss]
    least = EXACT * pool.spread
    # Errors of rounding count as equal.
    kept = pareto(worth_it, lambda item: max(item.loss, least))
    if best not in kept:
        kept.append(best)
    return kept[-LONGEST_FRONT:], best


def _linear(problem: Problem, pool: Pool) -> list[Fitted]:
    """Linear laws of numbers to measure the others by; none where a law leaves nothing."""
    asked = problem.settings.prune and problem.loss == "squared"
    if pool.exact or not asked or "identity" not in problem.functions:
        return []
    formulas = linear_formulas(problem.data, problem.features)
    return refit(formulas, problem.data, steps=8) if formulas else []


def _in_units(problem: Problem, kept: Sequence[Fitted]) -> list[Fitted]:
    """The formulas in the units of the data, refitted on all points."""
    plain = [problem.in_units(item.formula) for item in kept]
    refitted = refit(plain, problem.all, steps=_steps(problem, plain, MOST_STEPS, passes=1))
    in_units: list[Fitted] = []
    for formula, item, fitted in zip(plain, kept, refitted, strict=True):
        # A formula may be undefined at points that the search did not see: then it stays as it was.
        if not math.isfinite(fitted.loss):
            fitted = Fitted(formula, problem.in_units_of_loss(item.loss))
        in_units.append(fitted)
    return in_units


def _steps(problem: Problem, formulas: Sequence[Formula], most: int, passes: int) -> int:
    """How many steps some formulas are refitted by, each of so often.

    They were refitted before: where that takes too long, fewer will do.
    """
    one = Work()
    levels = max((depth(formula) for formula in formulas), default=0)
    columns = sum(formula.constants for formula in formulas)
    one.descent(levels, columns, len(problem.all.y_N))
    allowed = 0.4 * problem.final_work / (passes * one.spent)
    return int(min(most, max(FEWEST_STEPS, allowed)))


def _agreement(pool: Pool, item: Fitted) -> int:
    """How many of the refitted proposals ended at this loss, to one percent."""
    least = EXACT * pool.spread
    highest = 1.01 * max(item.loss, least)
    # All that fit to rounding agree, however small their losses are.
    lowest = 0.99 * item.loss if item.loss > least else -math.inf
    return sum(lowest <= loss <= highest for loss in pool.losses)


def _validated(problem: Problem, formulas: Sequence[Formula]) -> list[float]:
    """Mean loss by cross-validation.

    The structures stay, their constants are refitted without each fold.
    """
    data = problem.all
    n = len(data.y_N)
    order = torch.randperm(n, generator=generator_for(problem.seed, FOLD), device="cpu")
    totals = torch.zeros(len(formulas), dtype=torch.float64)
    weight = 0.0
    folds = min(FOLDS, n)
    steps = _steps(problem, formulas, STEPS_OF_FOLD, passes=folds)
    for fold in range(folds):
        held = order[fold::folds]  # every `folds`-th point of the random order
        rest = order[torch.isin(order, held, invert=True)]
        part = data.rows(held)
        refitted = refit(formulas, data.rows(rest), steps=steps)
        etas = [item.formula(part.x_DN.T, problem.table) for item in refitted]
        # A mean of means, each by the weight of its fold: folds may differ by a point.
        part_weight = float(data.w_N[held].sum())
        totals += mean_loss(torch.stack(etas), part) * part_weight
        weight += part_weight
    return (totals / weight).tolist()
