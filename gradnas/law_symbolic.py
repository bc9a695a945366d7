"""Formulas as sympy expressions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sympy as _sympy

from gradnas.spaces.equation_formula import Edge, Formula
from gradnas.spaces.equation_primitives import POWER, PRIMITIVES, Primitive

sympy: Any = _sympy  # its functions are classes made at run time, which a type checker misreads

SYMBOLS: dict[str, Callable[[Any], Any]] = {
    "identity": lambda z: z,
    "square": lambda z: z**2,
    "exp": sympy.exp,
    "ln": sympy.log,
    "reciprocal": lambda z: 1 / z,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tanh": sympy.tanh,
    "logistic": lambda z: 1 / (1 + sympy.exp(-z)),
    "relu": lambda z: sympy.Max(z, 0),
    "softplus": lambda z: sympy.log(1 + sympy.exp(z)),
    "softminus": lambda z: -sympy.log(1 + sympy.exp(-z)),
}


def _number(value: float) -> Any:
    return sympy.Integer(int(value)) if float(value).is_integer() and abs(value) < 1e6 else sympy.Float(value, 17)


def _edge(edge: Edge, x: Any, primitives: Mapping[str, Primitive]) -> Any:
    if edge.function == POWER:
        return (x + _number(edge.b)) ** _number(edge.a)
    symbol = SYMBOLS.get(edge.function) or primitives[edge.function].symbol
    if symbol is None:
        raise ValueError(f"primitive {edge.function!r} has no sympy form: give it one with Primitive(..., symbol=...)")
    return symbol(_number(edge.a) * x + _number(edge.b))


def to_sympy(
    formula: Formula, names: Sequence[str] | None = None, primitives: Mapping[str, Primitive] = PRIMITIVES
) -> Any:
    """The formula as it stands, nothing simplified beyond what sympy does by itself.

    Args:
        names: of the features; by default x1, x2, ...
    """
    names = names if names is not None else [f"x{i + 1}" for i in range(formula.features)]
    values: list[Any] = [sympy.Symbol(name, real=True) for name in names]
    total: Any = _number(formula.bias)
    for node, weight in zip(formula.nodes, formula.weights, strict=True):
        terms = [(edge.below, _edge(edge, values[edge.source], primitives)) for edge in node.edges]
        if node.kind == "product":
            value = sympy.Mul(*[t for _, t in terms])
        else:
            value = sympy.Add(*[t for below, t in terms if not below])
            if node.kind == "ratio":
                value = value / sympy.Add(*[t for below, t in terms if below])
        values.append(value)
        total = total + _number(weight) * value
    return total
