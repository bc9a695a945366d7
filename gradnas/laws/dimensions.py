"""Laws of quantities with units, by dimension analysis.

What has units can be written as a product of powers of the features, which has the unit of the
target, times a function of products without a unit (Buckingham, 1914). There are fewer of those
than features, and every law of them agrees in its units.

Legend: N points, D features, G groups without a unit.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from tokenize import TokenError

import numpy as np
import sympy
from sympy.parsing.sympy_parser import parse_expr
from sympy.physics import units as sympy_units
from sympy.physics.units.systems.si import dimsys_SI

from gradnas.laws.formula import Edge, Formula, Node, as_product
from gradnas.laws.primitives import POWER

PREFIXES = ("da", "k", "M", "G", "T", "h", "d", "c", "m", "u", "µ", "n", "p", "f")
WITHOUT = ("", "1", "-", "dimensionless")  # how no unit is written
_WORD = re.compile(r"[^\W\d_]+")
_READABLE = re.compile(r"(?:[^\W_]|[ *./()+-])*")

Exponents = tuple[Fraction, ...]


@dataclass(frozen=True)
class Dimensions:
    """The products that laws may be made of.

    Attributes:
        factor: the exponents of the features in a product of the unit of the target.
        groups: the exponents of the products without a unit.
    """

    factor: Exponents
    groups: tuple[Exponents, ...]

    def without_units(self, x_ND: np.ndarray) -> np.ndarray:
        """`(N, G)` values of the groups; a constant column where there is none."""
        columns = [_product(x_ND, group) for group in self.groups]
        return np.column_stack(columns) if columns else np.ones((len(x_ND), 1))

    def scale(self, x_ND: np.ndarray) -> np.ndarray:
        """The product that has the unit of the target, `(N,)`."""
        return _product(x_ND, self.factor)

    def in_units(self, formula: Formula) -> Formula:
        """A formula of the groups as one for the target, of the features."""
        D = len(self.factor)
        nodes: list[Node] = []
        sources: list[int] = []
        for group in self.groups or ((Fraction(0),) * D,):
            lone = [d for d, exponent in enumerate(group) if exponent != 0]
            if len(lone) == 1 and group[lone[0]] == 1:
                sources.append(lone[0])
                continue
            nodes.append(as_product(_edges(group) or [Edge(0, POWER, 0.0, fixed=True)]))
            sources.append(D + len(nodes) - 1)
        first = D + len(nodes)
        weights = [0.0] * len(nodes)
        for node, weight in zip(formula.nodes, formula.weights, strict=True):
            edges: list[Edge] = []
            for edge in node.edges:
                is_node = edge.source >= formula.features
                source = edge.source - formula.features + first if is_node else sources[edge.source]
                edges.append(Edge(source, edge.function, edge.a, edge.b, edge.below, edge.fixed))
            nodes.append(Node(node.kind, tuple(edges)))
            weights.append(weight)
        outer = _edges(self.factor)
        if not outer:
            return Formula(D, tuple(nodes), tuple(weights), formula.bias)
        # Each term is multiplied by the factor, the constant one too.
        for j, weight in enumerate(list(weights)):
            if weight != 0.0:
                term = Edge(D + j, "identity", fixed=True)
                nodes.append(as_product([*outer, term]))
                weights[j] = 0.0
                weights.append(weight)
        if formula.bias != 0.0:
            nodes.append(as_product(outer))
            weights.append(formula.bias)
        return Formula(D, tuple(nodes), tuple(weights), 0.0)


def dimensions(
    units: Sequence[str], target_unit: str, names: Sequence[str], x_ND: np.ndarray
) -> Dimensions:
    """The products of the simplest exponents that are defined on the data.

    Raises:
        ValueError: a unit that is not known; a target whose unit no product of the features has.
    """
    of_features = [unit_exponents(unit, name) for unit, name in zip(units, names, strict=True)]
    of_target = unit_exponents(target_unit, "the target")
    bases = sorted({base for one in (*of_features, of_target) for base in one})
    matrix = sympy.Matrix(
        [[one.get(base, sympy.Integer(0)) for one in of_features] for base in bases]
    )
    wanted = sympy.Matrix([of_target.get(base, sympy.Integer(0)) for base in bases])
    rank = matrix.rank() if bases else 0
    D = len(units)
    best: tuple[Fraction, Dimensions] | None = None
    for repeated in itertools.combinations(range(D), rank):
        found = _with_repeated(matrix, wanted, repeated, rank, x_ND)
        if found is not None:
            size = sum(
                (abs(e) for group in (found.factor, *found.groups) for e in group), Fraction(0)
            )
            if best is None or size < best[0]:
                best = (size, found)
    if best is None:
        raise ValueError(
            f"no product of powers of the features has the unit of the target, {target_unit!r}, "
            "and is defined on all rows: check units and target_unit, or leave them out"
        )
    return best[1]


def _with_repeated(
    matrix: sympy.Matrix,
    wanted: sympy.Matrix,
    repeated: Sequence[int],
    rank: int,
    x_ND: np.ndarray,
) -> Dimensions | None:
    """The products with these features as the ones that the others are made free of units by."""
    D = matrix.shape[1] if rank else x_ND.shape[1]
    if rank == 0:
        if any(entry != 0 for entry in wanted):
            return None
        one = [tuple(Fraction(int(d == k)) for d in range(D)) for k in range(D)]
        return Dimensions((Fraction(0),) * D, tuple(one))
    every_row = list(range(matrix.rows))
    base = matrix.extract(every_row, list(repeated))
    if base.rank() < rank:
        return None

    def solved(right: sympy.Matrix) -> list[Fraction] | None:
        if base.row_join(right).rank() > rank:
            return None
        solution = (base.T * base).LUsolve(base.T * right)
        return [Fraction(int(e.p), int(e.q)) for e in solution]

    own = solved(wanted)
    if own is None:
        return None
    factor = [Fraction(0)] * D
    for d, exponent in zip(repeated, own, strict=True):
        factor[d] = exponent
    groups: list[Exponents] = []
    for d in range(D):
        if d in repeated:
            continue
        others = solved(matrix.extract(every_row, [d]))
        assert others is not None
        group = [Fraction(0)] * D
        group[d] = Fraction(1)
        for r, exponent in zip(repeated, others, strict=True):
            group[r] = -exponent
        groups.append(tuple(group))
    found = Dimensions(tuple(factor), tuple(groups))
    products = [_product(x_ND, found.factor), *(_product(x_ND, group) for group in groups)]
    return found if all(np.isfinite(product_N).all() for product_N in products) else None


def unit_exponents(unit: str, name: str) -> dict[str, sympy.Rational]:
    """The powers of the base dimensions of a unit, such as `"m/s**2"`; empty for `""` and `"1"`.

    Raises:
        ValueError: words that are no units.
    """
    text = unit.strip().replace("^", "**").replace("·", "*")
    if text in WITHOUT:
        return {}
    unreadable = f"the unit of {name}, {unit!r}, cannot be read: write it as 'kg*m/s**2'"
    if not _READABLE.fullmatch(text):
        raise ValueError(unreadable)
    known: dict[str, object] = {}
    for word in _WORD.findall(text):
        known[word] = _unit_of(word, unit, name)
    numbers = {kind.__name__: kind for kind in (sympy.Integer, sympy.Float, sympy.Rational)}
    try:
        value = sympy.sympify(parse_expr(text, local_dict=known, global_dict=numbers))
    except (SyntaxError, TokenError, TypeError, NameError, AttributeError, ValueError) as error:
        raise ValueError(unreadable) from error
    exponents: dict[str, sympy.Rational] = {}
    for factor, power in value.as_powers_dict().items():
        if factor.is_number:
            continue
        rational = sympy.nsimplify(power)
        if not isinstance(factor, sympy_units.Quantity) or not rational.is_Rational:
            raise ValueError(f"the unit of {name}, {unit!r}, is no product of powers of units")
        own = dimsys_SI.get_dimensional_dependencies(factor.dimension)
        for base, exponent in own.items():
            key = str(getattr(base, "name", base))
            exponents[key] = exponents.get(key, sympy.Integer(0)) + exponent * rational
    return {base: exponent for base, exponent in exponents.items() if exponent != 0}


def _unit_of(word: str, unit: str, name: str) -> object:
    """A unit by its name; of one with a prefix that without it, of which the dimension is that."""
    if word in ("degC", "degF", "celsius", "fahrenheit"):
        raise ValueError(
            f"the unit of {name}, {unit!r}, has a zero of its own: give temperatures in 'K'"
        )
    candidates = [word]
    candidates += [word[len(prefix) :] for prefix in PREFIXES if word.startswith(prefix)]
    for candidate in candidates:
        found = getattr(sympy_units, candidate, None) if candidate else None
        if isinstance(found, sympy_units.Quantity):
            return found
    raise ValueError(
        f"the unit of {name}, {unit!r}, has an unknown word {word!r}; units are written as "
        "'kg*m/s**2', and '1' is no unit"
    )


def _edges(exponents: Sequence[Fraction]) -> list[Edge]:
    edges: list[Edge] = []
    plain = {1.0: "identity", 2.0: "square", -1.0: "reciprocal"}
    for d, exponent in enumerate(exponents):
        if exponent != 0:
            function = plain.get(float(exponent), POWER)
            a = float(exponent) if function == POWER else 1.0
            edges.append(Edge(d, function, a, fixed=True))
    return edges


def _product(x_ND: np.ndarray, exponents: Sequence[Fraction]) -> np.ndarray:
    product_N = np.ones(len(x_ND))
    with np.errstate(all="ignore"):
        for column_N, exponent in zip(x_ND.T, exponents, strict=True):
            if exponent != 0:
                product_N = product_N * column_N ** float(exponent)
    return product_N


def chosen_units(units: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """The unit of each feature, in their order.

    Raises:
        ValueError: a feature without a unit, or a unit of something else.
    """
    missing = [name for name in names if name not in units]
    if missing:
        raise ValueError(
            f"units names no unit of {', '.join(missing)}: give one for every feature, '1' for none"
        )
    unknown = [name for name in units if name not in names]
    if unknown:
        raise ValueError(f"units names {', '.join(map(str, unknown))}, which is no feature")
    return [units[name] for name in names]
