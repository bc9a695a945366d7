"""An expression as a `Formula`: the way back from `gradnas.laws.symbolic`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sympy import Expr

from gradnas.laws.formula import Edge, Formula, Node
from gradnas.laws.primitives import POWER, PRIMITIVES, Primitive
from gradnas.laws.symbolic import Term, sympy

# sympy's functions that primitives compute under another name.
NAMES = {
    "exp": "exp",
    "log": "ln",
    "sin": "sin",
    "cos": "cos",
    "tanh": "tanh",
    "asin": "asin",
    "acos": "acos",
    "atan": "atan",
    "Abs": "abs",
}
# Functions that no search uses, for given laws.
GIVEN: dict[str, Primitive] = {
    name: Primitive(name, function, symbol)
    for name, function, symbol in (
        ("tan", torch.tan, sympy.tan),
        ("sinh", torch.sinh, sympy.sinh),
        ("cosh", torch.cosh, sympy.cosh),
        ("asinh", torch.asinh, sympy.asinh),
        ("acosh", torch.acosh, sympy.acosh),
        ("atanh", torch.atanh, sympy.atanh),
        ("sign", torch.sign, sympy.sign),
        ("floor", torch.floor, sympy.floor),
        ("ceiling", torch.ceil, sympy.ceiling),
        ("erf", torch.erf, sympy.erf),
        ("erfc", torch.erfc, sympy.erfc),
    )
}


def formula_of(expression: Expr, features: Sequence[str]) -> tuple[Formula, dict[str, Primitive]]:
    """The formula of an expression in features and numbers, and the functions that it needs.

    Factors of 1 and exponents are given, other numbers are constants that a refit may move.

    Raises:
        ValueError: a symbol that is no feature, a function that is not known.
    """
    builder = _Builder(features)
    formula = builder.formula(expression)
    return formula, {**PRIMITIVES, **builder.used}


class _Builder:
    """The nodes so far, and where each part stands."""

    def __init__(self, features: Sequence[str]) -> None:
        self.features = list(features)
        self.nodes: list[Node] = []
        self.places: dict[Term, int] = {}
        self.used: dict[str, Primitive] = {}

    def formula(self, expression: Term) -> Formula:
        """The sum of the expression's terms, each a node."""
        D = len(self.features)
        bias, terms = _terms(expression)
        weights: dict[int, float] = {}
        for factor, term in terms:
            source = self.source(term)
            if source < D:
                source = self._added(Node("sum", (Edge(source, "identity", fixed=True),)))
            weights[source - D] = weights.get(source - D, 0.0) + factor
        all_weights = tuple(weights.get(j, 0.0) for j in range(len(self.nodes)))
        return Formula(D, tuple(self.nodes), all_weights, bias)

    def _added(self, node: Node) -> int:
        self.nodes.append(node)
        return len(self.features) + len(self.nodes) - 1

    def source(self, part: Term) -> int:
        """Where a part that is neither a number nor a multiple of one is computed."""
        if part.is_Symbol:
            if part.name not in self.features:
                raise ValueError(f"{part.name} is no feature: there are {', '.join(self.features)}")
            return self.features.index(part.name)
        if part not in self.places:
            self.places[part] = self._added(self._node(part))
        return self.places[part]

    def _node(self, part: Term) -> Node:
        if part.is_Add:
            return self._sum(part)
        if part.is_Mul:
            return Node("product", tuple(self._edge(factor) for factor in part.args))
        if isinstance(part, sympy.Max | sympy.Min):
            return self._extreme(part)
        return Node("sum", (self._edge(part),))

    def _sum(self, part: Term) -> Node:
        bias, terms = _terms(part)
        edges: list[Edge] = []
        for factor, term in terms:
            # The constant term stands in the first edge.
            b = bias if not edges else 0.0
            edges.append(Edge(self.source(term), "identity", factor, b, fixed=factor == 1.0))
        return Node("sum", tuple(edges))

    def _extreme(self, part: Term) -> Node:
        """`max(u, v) = v + max(u - v, 0)`."""
        first, *others = part.args
        rest = others[0] if len(others) == 1 else type(part)(*others)
        function = "max" if isinstance(part, sympy.Max) else "min"
        if rest.is_number:
            first, rest = rest, first
        a, source, b = self._affine(first - rest)
        edge = Edge(source, function, a, b, fixed=a == 1.0)
        bias, terms = _terms(rest)
        if not terms:
            # Both are numbers, or the rest is: `0 x + b` is a number.
            return Node("sum", (edge, Edge(0, "identity", 0.0, bias, fixed=True)))
        edges = [edge]
        for factor, term in terms:
            b = bias if len(edges) == 1 else 0.0
            edges.append(Edge(self.source(term), "identity", factor, b, fixed=factor == 1.0))
        return Node("sum", tuple(edges))

    def _affine(self, argument: Term) -> tuple[float, int, float]:
        """`a`, the source of x, and `b` of an argument `a x + b`."""
        bias, terms = _terms(argument)
        if not terms:
            return 0.0, 0, bias
        if len(terms) == 1:
            factor, term = terms[0]
            return factor, self.source(term), bias
        return 1.0, self.source(argument), 0.0

    def _edge(self, part: Term) -> Edge:
        """A factor, as a function of something."""
        if part.is_Pow:
            return self._power(part)
        name = type(part).__name__
        known = NAMES.get(name)
        if known is None and name in GIVEN:
            known = name
            self.used[name] = GIVEN[name]
        if known is not None:
            a, source, b = self._affine(part.args[0])
            return Edge(source, known, a, b, fixed=a == 1.0)
        if part.is_number:
            return Edge(0, "identity", 0.0, _real(part), fixed=True)
        if part.is_Symbol or part.is_Add or isinstance(part, sympy.Max | sympy.Min):
            return Edge(self.source(part), "identity", fixed=True)
        raise ValueError(f"a law cannot hold the function {name}")

    def _power(self, part: Term) -> Edge:
        base = part.base
        exponent = part.exp
        if not exponent.is_number:
            # u^v = exp(v ln u)
            logarithm = sympy.Float(_real(sympy.log(base)), 17) if base.is_number else None
            product = exponent * (sympy.log(base) if logarithm is None else logarithm)
            a, source, b = self._affine(product)
            return Edge(source, "exp", a, b, fixed=a == 1.0)
        number = _real(exponent)
        if number in (-1.0, 2.0):
            a, source, b = self._affine(base)
            name = "reciprocal" if number == -1.0 else "square"
            return Edge(source, name, a, b, fixed=a == 1.0)
        a, source, b = self._affine(base)
        if a != 1.0:  # a power has no factor inside
            edge = Edge(source, "identity", a, b)
            source = self._added(Node("sum", (edge,)))
            b = 0.0
        return Edge(source, POWER, number, b, fixed=bool(exponent.is_Rational))


def _real(number: Term) -> float:
    value = complex(number)
    if value.imag != 0.0 or value.real != value.real:
        raise ValueError(f"{number} is no real number")
    return value.real


def _terms(expression: Term) -> tuple[float, list[tuple[float, Term]]]:
    """The constant term, and the others as factors times what has none."""
    bias = 0.0
    terms: list[tuple[float, Term]] = []
    for term in sympy.Add.make_args(expression):
        if term.is_number:
            bias += _real(term)
            continue
        numbers: list[Term] = []
        others: list[Term] = []
        for factor in sympy.Mul.make_args(term):
            (numbers if factor.is_number else others).append(factor)
        terms.append((_real(sympy.Mul(*numbers)), sympy.Mul(*others)))
    return bias, terms
