"""Formulas that linear least squares finds, before anything is searched: they cost next to nothing.

Sums of columns of a library for the target and for functions of it (`engine/sparse.py`), rational
functions among them, and products (`engine/powers.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from gradnas.laws.engine.combined import as_formula
from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.library import (
    Library,
    library,
    monomials,
    products,
    together,
)
from gradnas.laws.engine.powers import laws_of_products
from gradnas.laws.engine.pursuit import BEAM, EXCHANGED, pursue
from gradnas.laws.engine.reductions import Reduced
from gradnas.laws.engine.sparse import solved_sum, sums
from gradnas.laws.engine.specials import specials
from gradnas.laws.engine.targets import Target, functions_of_target
from gradnas.laws.formula import Formula

SUMS = 3  # formulas of each target, and
LOOKED_AT = 4  # ways of the short look at a target, among
LOOKED_AMONG = 6000  # columns, the cheapest; where they leave
NOTHING = 1e-11  # of it or less, what they find comes first
RATIOS = 2  # that are ratios
MOST_MONOMIALS = 800
FEW = 200  # of them, that these and specials are multiplied by
MOST_PRODUCTS = 6000
MOST_TIMES_SPECIALS = 16000
FEW_SPECIALS = 60  # that are multiplied by each other
MOST_OF_SPECIALS = 1000
MOST_TIMES_TARGET = 160  # columns that are multiplied by the target
MOST_FACTORS = 3  # of such a column
MOST_ABOVE = 500  # columns beside them


@dataclass(frozen=True)
class Field:
    """Where formulas are looked for: data of size 1, and what they stand for.

    Attributes:
        scales, scale_y: what the features and the target are in the units of the data.
        features: those that are searched.
        functions: what is allowed.
        with_ratios: whether rational functions are.
    """

    data: LawData
    scales: Sequence[float]
    scale_y: float
    features: Sequence[int]
    functions: Sequence[str]
    with_ratios: bool


def seed_formulas(field: Field) -> Iterator[list[Formula]]:
    """The formulas, for the data of the field, not yet refitted.

    They come in parts, so that who finds a law in one need not ask for the next: products first,
    then what a short look at the target and at functions of it finds where that leaves nothing,
    then sums for the target itself, then for functions of it, the most promising ones first.
    """
    data = field.data
    functions = field.functions
    yield laws_of_products(data, field.scales, field.features, functions)
    own = Target("y", data, lambda formula: formula)
    others = functions_of_target(data, field.scale_y, functions)
    shared = _library(data, field.scales, field.features, functions)

    def columns_of(target: Target) -> Library:
        if len(target.data.y_N) == len(data.y_N):
            return shared
        return _library(target.data, field.scales, field.features, functions)

    left, formulas = _look(own.data, shared, BEAM, EXCHANGED)
    yield formulas if left < NOTHING else []
    # A short look at each says which go first.
    looks: list[tuple[float, int, Target, Library]] = []
    for k, target in enumerate(others):
        columns = columns_of(target)
        left, formulas = _look(target.data, columns)
        looks.append((left, k, target, columns))
        if left < NOTHING:
            yield [target.back(formula) for formula in formulas]
    yield _sums(own.data, shared, field.with_ratios)
    for _, _, target, columns in sorted(looks, key=lambda look: look[:2]):
        # Of a rational function the target itself and its square are looked at.
        ratios = field.with_ratios and target.name == "y squared"
        yield [target.back(formula) for formula in _sums(target.data, columns, ratios)]


def reduced_formulas(field: Field, reduced: Reduced) -> Iterator[list[Formula]]:
    """The formulas of a problem with fewer features, for the data of the field."""
    smaller = Field(
        data=reduced.data,
        scales=reduced.units_R,
        scale_y=reduced.unit,
        features=reduced.features,
        functions=field.functions,
        with_ratios=field.with_ratios,
    )
    D = len(field.data.x_DN)
    for formulas in seed_formulas(smaller):
        yield [reduced.back(formula, D, field.functions) for formula in formulas]


def _library(
    data: LawData, scales: Sequence[float], features: Sequence[int], functions: Sequence[str]
) -> Library:
    plain = library(data, monomials(data, features, functions, MOST_MONOMIALS))
    special = library(data, specials(data, scales, features, functions))
    few_specials = special.first(FEW_SPECIALS)
    few = plain.first(FEW)
    columns = together(
        [
            plain,
            special,
            products(few, few, MOST_PRODUCTS),
            products(few, special, MOST_TIMES_SPECIALS),
            products(few_specials, few_specials, MOST_OF_SPECIALS),
        ]
    )
    data.work.library(columns.value_GN.numel())
    return columns


def _look(
    data: LawData, columns: Library, ways: int = LOOKED_AT, exchanged: int = 0
) -> tuple[float, list[Formula]]:
    """The share of the target that the cheapest columns leave, and what finds it."""
    few = columns.first(LOOKED_AMONG)
    found = pursue(data, few.value_GN, few.cost_G, beam=ways, exchanged=exchanged)
    plain = [False] * len(few)
    formulas: list[Formula] = []
    for places, left in found[:SUMS]:
        chosen = solved_sum(data, few, places, left)
        formula = None if chosen is None else as_formula(len(data.x_DN), chosen, few, plain)
        if formula is not None and formula.nodes:
            formulas.append(formula)
    return (found[0][1] if found else 1.0), formulas


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
    order = np.arange(len(columns))  # by rising cost
    above = order[:MOST_ABOVE]
    below = order[columns.count_G <= MOST_FACTORS][:MOST_TIMES_TARGET]
    few = columns.select(np.concatenate([above, below]))
    places = range(len(few))
    times = [k >= len(above) for k in range(len(places))]
    value_GN = few.value_GN.clone()
    value_GN[len(above) :] *= data.y_N
    for chosen in sums(data, few, value_GN, times, RATIOS):
        if any(times[place] for place in chosen.places):
            formula = as_formula(features, chosen, few, times)
            if formula is not None and formula.nodes:
                formulas.append(formula)
    return formulas
