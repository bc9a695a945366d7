"""Products of simple functions of the features, as columns that a linear fit chooses among.

Monomials, special functions (`engine/specials.py`), and products of one with the other. The
scientist's laws are mostly short sums of such columns, for the target or for a simple function of
it.

Legend: N points, D features, G columns.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.engine.atoms import LARGEST, Atom
from gradnas.laws.engine.data import LawData
from gradnas.laws.formula import Edge, Formula, edge_value
from gradnas.laws.primitives import POWER

# What an exponent of a feature costs beside the others; columns are taken by rising cost.
COSTS = {
    1.0: 1.0,
    -1.0: 1.1,
    2.0: 1.6,
    -2.0: 2.2,
    0.5: 1.7,
    -0.5: 1.9,
    3.0: 2.5,
    -3.0: 3.0,
    4.0: 3.0,
    5.0: 3.5,
    6.0: 4.0,
}
# Of products of so many features: the exponents that are tried.
EXPONENTS: dict[int, tuple[float, ...]] = {
    1: tuple(COSTS),
    2: (1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 3.0),
    3: (1.0, -1.0, 2.0, -2.0),
    4: (1.0, -1.0, 2.0, -2.0),
    5: (1.0, -1.0),
    6: (1.0, -1.0),
    7: (1.0,),
    8: (1.0,),
}
FACTORS = ("identity", "square", "reciprocal", POWER)
AWAY = 1e-6  # from zero, of features of size 1: nearer ones are not divided by


@dataclass(frozen=True)
class Column:
    """A product of atoms, and what it costs to write."""

    atoms: tuple[Atom, ...]
    cost: float


@dataclass(frozen=True)
class Library:
    """Columns, each a part or a product of two parts, and their values, `(G, N)`, of size 1.

    Attributes:
        parts: what columns are made of.
        pairs_G2: for each column the places of its two parts; -1 for none. There may be thousands
            of columns, of which few are ever written out.
        sizes_G: what the values were divided by.
        cost_G: what it costs to write them.
        count_G: how many factors they have.
        mask_G: the features that are among the factors, as bits; 0 for functions of them.
    """

    parts: tuple[Column, ...]
    pairs_G2: np.ndarray
    value_GN: Tensor
    sizes_G: Tensor
    cost_G: Tensor
    count_G: np.ndarray
    mask_G: np.ndarray

    def __len__(self) -> int:
        return len(self.value_GN)

    def column(self, g: int) -> Column:
        """One column, written out."""
        atoms: list[Atom] = []
        for k in self.pairs_G2[g].tolist():
            if k >= 0:
                atoms += self.parts[k].atoms
        return Column(tuple(atoms), float(self.cost_G[g]))

    @property
    def columns(self) -> list[Column]:
        """All columns, written out."""
        return [self.column(g) for g in range(len(self))]

    def first(self, most: int) -> Library:
        """The first columns."""
        return self.select(np.arange(min(most, len(self))))

    def select(self, places: Sequence[int] | np.ndarray) -> Library:
        """Some of the columns."""
        index = torch.as_tensor(np.asarray(places, dtype=np.int64))
        return Library(
            self.parts,
            self.pairs_G2[index.numpy()],
            self.value_GN[index],
            self.sizes_G[index],
            self.cost_G[index],
            self.count_G[index.numpy()],
            self.mask_G[index.numpy()],
        )


def power_of(d: int, exponent: float, functions: Sequence[str]) -> Edge | None:
    """A feature to a power, in the simplest function that is allowed; None where none is."""
    plain = {1.0: "identity", 2.0: "square", -1.0: "reciprocal"}
    function = plain.get(exponent, POWER)
    if function == "identity" or function in functions:
        if function == POWER:
            return Edge(d, POWER, exponent, fixed=True)
        return Edge(d, function, fixed=True)
    if POWER in functions:
        return Edge(d, POWER, exponent, fixed=True)
    return None


def monomials(
    data: LawData,
    features: Sequence[int],
    functions: Sequence[str],
    most: int,
    only: Sequence[float] = tuple(COSTS),
) -> list[Column]:
    """Products of powers of different features, by rising cost.

    Args:
        only: the exponents that are wanted.
    """
    powers: dict[tuple[int, float], Edge] = {}
    for d in features:
        x_N = data.x_DN[d]
        is_away = bool((x_N.abs() > AWAY).all())
        is_positive = bool((x_N > 0).all())
        for exponent in COSTS:
            whole = exponent.is_integer()
            if (exponent < 0 and not is_away) or (not whole and not is_positive):
                continue
            edge = power_of(d, exponent, functions)
            if edge is not None:
                powers[d, exponent] = edge
    # There are tens of thousands of ways, of which few are written out.
    found: list[tuple[float, tuple[int, ...], tuple[float, ...]]] = []
    for count in range(1, len(features) + 1):
        exponents = [exponent for exponent in EXPONENTS.get(count, ()) if exponent in only]
        ways: list[tuple[float, tuple[float, ...]]] = []
        for way in itertools.product(exponents, repeat=count):
            # Of many factors only one may be a square: the others make up the numbers.
            if count == 4 and sum(abs(exponent) == 2.0 for exponent in way) > 1:
                continue
            ways.append((sum(COSTS[exponent] for exponent in way), way))
        for chosen in itertools.combinations(features, count):
            has_all = all((d, exponent) in powers for d in chosen for exponent in exponents)
            for cost, way in ways:
                if has_all or all(key in powers for key in zip(chosen, way, strict=True)):
                    found.append((cost, chosen, way))
    found.sort(key=lambda entry: entry[0])
    columns: list[Column] = []
    for cost, chosen, way in found[:most]:
        atoms = tuple(Atom(powers[key]) for key in zip(chosen, way, strict=True))
        columns.append(Column(atoms, cost))
    return columns


def library(data: LawData, columns: Sequence[Column]) -> Library:
    """The columns that are finite and not constant, with their values."""
    cached: dict[Atom, Tensor] = {}

    def value(atom: Atom) -> Tensor:
        if atom not in cached:
            cached[atom] = atom_value(atom, data)
        return cached[atom]

    values: list[Tensor] = []
    for column in columns:
        value_N = value(column.atoms[0])
        for atom in column.atoms[1:]:
            value_N = value_N * value(atom)
        values.append(value_N)
    value_GN = torch.stack(values) if values else data.x_DN.new_zeros(0, data.x_DN.shape[1])
    pairs_G2 = np.full((len(columns), 2), -1)
    pairs_G2[:, 0] = np.arange(len(columns))
    cost_G = torch.tensor([column.cost for column in columns], dtype=torch.float64)
    count_G = np.array([len(column.atoms) for column in columns], dtype=np.int64)
    mask_G = np.array([_mask(column) for column in columns], dtype=np.int64)
    ones_G = torch.ones_like(cost_G)
    return _usable(Library(tuple(columns), pairs_G2, value_GN, ones_G, cost_G, count_G, mask_G))


def _mask(column: Column) -> int:
    mask = 0
    for atom in column.atoms:
        if atom.stem is None and atom.edge.function in FACTORS:
            mask |= 1 << min(atom.edge.source, 62)
    return mask


def _usable(columns: Library) -> Library:
    """The columns that are finite and not constant, scaled to size 1."""
    largest_G = columns.value_GN.abs().amax(1)
    value_GN = columns.value_GN / largest_G.clamp(min=1e-300).unsqueeze(1)
    varied_G = (value_GN.amax(1) - value_GN.amin(1)) > 1e-9
    usable_G = (largest_G > 0) & (largest_G < LARGEST) & varied_G  # false for NaN, too
    scaled = replace(columns, value_GN=value_GN, sizes_G=columns.sizes_G * largest_G)
    return scaled.select(usable_G.nonzero().flatten().numpy())


def products(first: Library, second: Library, most: int) -> Library:
    """Products of a column of the one, and one of the other; the `most` cheapest.

    None that has powers of a feature twice. Of a library with itself every two columns once.
    """
    cost_AB = first.cost_G.unsqueeze(1) + second.cost_G
    overlap_AB = torch.from_numpy((first.mask_G[:, None] & second.mask_G[None, :]) != 0)
    cost_AB = cost_AB.masked_fill(overlap_AB, torch.inf)
    if first is second:
        cost_AB = torch.where(torch.ones_like(cost_AB).triu(1) > 0, cost_AB, torch.inf)
    flat = cost_AB.flatten()
    order = flat.argsort(stable=True)[:most]
    order = order[torch.isfinite(flat[order])]
    i = order // max(1, len(second))
    j = order % max(1, len(second))
    parts = first.parts if first is second else (*first.parts, *second.parts)
    offset = 0 if first is second else len(first.parts)
    a = i.numpy()
    b = j.numpy()
    return _usable(
        Library(
            parts,
            np.stack([first.pairs_G2[a, 0], second.pairs_G2[b, 0] + offset], axis=1),
            first.value_GN[i] * second.value_GN[j],
            first.sizes_G[i] * second.sizes_G[j],
            flat[order],
            first.count_G[a] + second.count_G[b],
            first.mask_G[a] | second.mask_G[b],
        )
    )


def together(libraries: Sequence[Library]) -> Library:
    """All columns of some libraries, by rising cost, and none twice (to rounding)."""
    parts: list[Column] = []
    pairs: list[np.ndarray] = []
    for some in libraries:
        pairs.append(np.where(some.pairs_G2 >= 0, some.pairs_G2 + len(parts), -1))
        parts += some.parts
    whole = Library(
        tuple(parts),
        np.concatenate(pairs),
        torch.cat([some.value_GN for some in libraries]),
        torch.cat([some.sizes_G for some in libraries]),
        torch.cat([some.cost_G for some in libraries]),
        np.concatenate([some.count_G for some in libraries]),
        np.concatenate([some.mask_G for some in libraries]),
    )
    order = whole.cost_G.argsort(stable=True).numpy()
    # Equal columns have the same projection on any direction, but for rounding.
    direction_N = torch.cos(torch.arange(whole.value_GN.shape[1], dtype=torch.float64) ** 2)
    mark = (whole.value_GN[order] @ direction_N).numpy().round(9)
    _, firsts = np.unique(mark, return_index=True)
    return whole.select(order[np.sort(firsts)])


def atom_value(atom: Atom, data: LawData) -> Tensor:
    """The value of an atom at every point."""
    if atom.stem is None:
        return edge_value(atom.edge, data.x_DN[atom.edge.source], data.primitives)
    stem = Formula(len(data.x_DN), (atom.stem,), (1.0,))
    return edge_value(atom.edge, stem(data.x_DN.T, data.primitives), data.primitives)
