"""Formulas that linear least squares finds, before anything is searched: they cost next to nothing.

Sums of columns of a library for the target and for functions of it (`engine/sparse.py`), rational
functions among them, and products (`engine/powers.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.library import (
    FEW,
    MOST_DIFFERENCES,
    MOST_MONOMIALS,
    MOST_WAVES,
    Library,
    differences,
    library,
    logarithms,
    monomials,
    products,
    waves,
)
from gradnas.laws.engine.powers import laws_of_products
from gradnas.laws.engine.problem import Problem
from gradnas.laws.engine.sparse import as_formula, sums
from gradnas.laws.engine.targets import Target, functions_of_target
from gradnas.laws.formula import Formula

SUMS = 6  # formulas of each target
MOST_TIMES_TARGET = 160  # columns that are multiplied by the target
MOST_FACTORS = 3  # of such a column
MOST_ABOVE = 500  # columns beside them


def seed_formulas(problem: Problem) -> Iterator[list[Formula]]:
    """The formulas, for the data of the search, not yet refitted.

    They come in parts, so that who finds a law in one need not ask for the next: products first,
    then sums for the target itself, then for functions of it.
    """
    data = problem.data
    functions = problem.functions
    if data.loss != "squared" or not problem.features or "product" not in problem.settings.kinds:
        return
    yield laws_of_products(data, problem.scales, problem.features, functions)
    own = Target("y", data, lambda formula: formula)
    others = functions_of_target(data, problem.scale_y, functions)
    shared: Library | None = None  # of the targets that are defined on all rows
    with_ratios = "ratio" in problem.settings.kinds
    for target in [own, *others]:
        on_all_rows = len(target.data.y_N) == len(data.y_N)
        columns = shared if on_all_rows else None
        if columns is None:
            columns = _library(target.data, problem.scales, problem.features, functions)
        if on_all_rows:
            shared = columns
        # Of a rational function the target itself and its square are looked at.
        ratios = with_ratios and target.name in ("y", "y squared")
        yield [target.back(formula) for formula in _sums(target.data, columns, ratios)]


def _library(
    data: LawData, scales: Sequence[float], features: Sequence[int], functions: Sequence[str]
) -> Library:
    plain = monomials(data, features, functions, MOST_MONOMIALS)
    waved = products(plain[:FEW], waves(data, scales, features, functions), MOST_WAVES)
    apart = differences(data, scales, features, functions)
    apart = products(plain[:FEW], apart, MOST_DIFFERENCES)
    logs = logarithms(data, features, functions)
    return library(data, [*logs, *plain, *waved, *apart])


def _sums(data: LawData, columns: Library, with_ratios: bool) -> list[Formula]:
    """The best sums of columns, and with columns times the target the best ratios of two sums."""
    if not len(columns):
        return []
    features = len(data.x_DN)
    plain = [False] * len(columns)
    formulas: list[Formula] = []
    for chosen in sums(data, columns, columns.value_GN, plain, SUMS):
        formula = as_formula(features, chosen, columns, plain)
        if formula is not None and formula.nodes:
            formulas.append(formula)
    if not with_ratios:
        return formulas
    order = sorted(range(len(columns)), key=lambda g: columns.columns[g].cost)
    above = order[:MOST_ABOVE]
    below = [g for g in order if len(columns.columns[g].atoms) <= MOST_FACTORS]
    places = [*above, *below[:MOST_TIMES_TARGET]]
    few = Library(
        tuple(columns.columns[g] for g in places),
        columns.value_GN[places],
        columns.sizes_G[places],
    )
    times = [k >= len(above) for k in range(len(places))]
    value_GN = few.value_GN.clone()
    value_GN[len(above) :] *= data.y_N
    for chosen in sums(data, few, value_GN, times, SUMS):
        if any(times[place] for place in chosen.places):
            formula = as_formula(features, chosen, few, times)
            if formula is not None and formula.nodes:
                formulas.append(formula)
    return formulas
