"""Formulas as sympy expressions."""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import sympy as _sympy
from sympy import Expr

from gradnas.laws.formula import (
    ANGLES,
    Edge,
    Formula,
    Node,
)
from gradnas.laws.primitives import (
    POWER,
    PRIMITIVES,
    Primitive,
)

# sympy makes its functions at run time and wraps its operators, which type checkers misread: where
# expressions are calculated with, one is a `Term`; where they are handed on, an `Expr`.
sympy: Any = _sympy
Term = Any

T = TypeVar("T")

ULPS = 1e-14  # of a number, what a few roundings of doubles may change

SYMBOLS: dict[str, Callable[[Term], Term]] = {
    "identity": lambda z: z,
    "square": lambda z: z**2,
    "exp": sympy.exp,
    "ln": sympy.log,
    "reciprocal": lambda z: 1 / z,
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tanh": sympy.tanh,
    "logistic": lambda z: 1 / (1 + sympy.exp(-z)),
    "asin": sympy.asin,
    "acos": sympy.acos,
    "atan": sympy.atan,
    "abs": sympy.Abs,
    "min": lambda z: sympy.Min(z, 0),
    "max": lambda z: sympy.Max(z, 0),
    "cbrt": lambda z: sympy.sign(z) * sympy.Abs(z) ** sympy.Rational(1, 3),
    "relu": lambda z: sympy.Max(z, 0),
    "softplus": lambda z: sympy.log(1 + sympy.exp(z)),
    "softminus": lambda z: -sympy.log(1 + sympy.exp(-z)),
}


class Named(float):
    """A constant that is written as a symbol.

    Attributes:
        name: of the symbol.
    """

    name: str

    def __new__(cls, value: float, name: str) -> Named:
        made = super().__new__(cls, value)
        made.name = name
        return made


def _number(value: float) -> Term:
    """An integer where it is a small one, so that sympy can work with it; else the exact double."""
    if isinstance(value, Named):
        return sympy.Symbol(value.name, real=True)
    if float(value).is_integer() and abs(value) < 1e6:
        return sympy.Integer(int(value))
    return sympy.Float(value, 17)


def _edge(edge: Edge, x: Term, primitives: Mapping[str, Primitive]) -> Term:
    if edge.function == POWER:
        return (x + _number(edge.b)) ** _number(edge.a)
    symbol = SYMBOLS.get(edge.function) or primitives[edge.function].symbol
    if symbol is None:
        raise ValueError(
            f"primitive {edge.function!r} has no sympy form: give it one with "
            "Primitive(..., symbol=...)"
        )
    offset = _angle(edge.b) if edge.function in ANGLES else _number(edge.b)
    return symbol(_number(edge.a) * x + offset)


def _angle(value: float) -> Term:
    """A multiple of a twelfth of pi where the number is one: sympy knows what its sine is.

    So `sin(x + 1.5707963267948966)` is `cos(x)`.
    """
    twelfths = round(value / (math.pi / 12))
    if (
        twelfths
        and not isinstance(value, Named)
        and abs(value - twelfths * math.pi / 12) <= 1e-14 * abs(value)
    ):
        return sympy.Rational(twelfths, 12) * sympy.pi
    return _number(value)


def to_sympy(
    formula: Formula,
    names: Sequence[str] | None = None,
    primitives: Mapping[str, Primitive] = PRIMITIVES,
) -> Expr:
    """The formula as it stands, nothing simplified beyond what sympy does by itself.

    Its symbols are real, so that what holds for real numbers may be used to shorten it;
    `with_plain_symbols` takes that back.

    Args:
        names: of the features; by default x1, x2, ...
    """
    if names is None:
        names = [f"x{i + 1}" for i in range(formula.features)]
    values: list[Term] = [sympy.Symbol(name, real=True) for name in names]
    total: Term = _number(formula.bias)
    for node, weight in zip(formula.nodes, formula.weights, strict=True):
        value = _node(node, values, primitives)
        values.append(value)
        total = total + _number(weight) * value
    return total


def with_plain_symbols(expression: Expr) -> Expr:
    """The expression in symbols without assumptions, the ones that everybody else writes.

    For sympy `Symbol("x", real=True)` and `Symbol("x")` are two variables: with the former in a
    law, `subs`, `diff`, `solve` and `integrate` by the latter, or by a name, would do nothing and
    say nothing.
    """
    plain = {symbol: sympy.Symbol(str(symbol)) for symbol in expression.free_symbols}
    return expression.xreplace(plain)


def neat(expression: Expr) -> Expr:
    """The expression with shorter decimals for numbers that are one but for rounding.

    sympy multiplies the constants of a product, and 2.1 * 1.4002 is 2.9404399999999997. A double is
    replaced where a decimal of at most 14 digits is within 1e-14 of it.
    """
    shorter: dict[Term, Term] = {}
    for number in expression.atoms(sympy.Float):
        value = float(number)
        decimal = float(f"{value:.14g}")
        if decimal.is_integer() and abs(decimal) < 1e6:
            if abs(decimal - value) <= ULPS * abs(value):
                shorter[number] = sympy.Integer(int(decimal))
        elif len(repr(decimal)) + 3 < len(repr(value)):
            shorter[number] = sympy.Float(decimal, 17)
    return expression.xreplace(shorter)


def _node(node: Node, values: Sequence[Term], primitives: Mapping[str, Primitive]) -> Term:
    terms = [_edge(edge, values[edge.source], primitives) for edge in node.edges]
    if node.kind == "product":
        return sympy.Mul(*terms)
    above: list[Term] = []
    below: list[Term] = []
    for edge, term in zip(node.edges, terms, strict=True):
        (below if edge.below else above).append(term)
    if node.kind == "ratio":
        return sympy.Add(*above) / sympy.Add(*below)
    return sympy.Add(*above)


# What sympy raises where it cannot rewrite an expression.
CANNOT = (
    ArithmeticError,
    ValueError,
    TypeError,
    AttributeError,
    NotImplementedError,
    RecursionError,
)


class _TimeIsUp(Exception):
    """Raised in a thread whose simplification takes too long."""


def within(seconds: float, work: Callable[[], T]) -> T | None:
    """`work()`, or None where it takes longer than that or sympy cannot do it.

    It runs in a thread of its own, which is stopped at the time limit.
    """
    results: list[T] = []

    def run() -> None:
        try:
            results.append(work())
        except (_TimeIsUp, *CANNOT):
            return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive() and thread.ident is not None:
        # A thread cannot be ended from outside; it can be sent an exception, which it raises at its
        # next step of Python.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident), ctypes.py_object(_TimeIsUp)
        )
        thread.join(0.2)
    return results[0] if results else None


def _with_positive_logs(expression: Term) -> Term:
    """`-c log(a / b)` as `c log(b / a)`, as one would write it."""

    def is_negative_log(term: Term) -> bool:
        if not term.is_Mul or not term.as_coeff_Mul()[0].is_negative:
            return False
        return any(_is_log_of_ratio(factor) for factor in term.args)

    def turned(term: Term) -> Term:
        own = next(factor for factor in term.args if _is_log_of_ratio(factor))
        return -term / own * sympy.log(1 / own.args[0])

    return expression.replace(is_negative_log, turned)


def _is_log_of_ratio(factor: Term) -> bool:
    if not isinstance(factor, sympy.log):
        return False
    above, below = factor.args[0].as_numer_denom()
    has_variables = bool(above.free_symbols and below.free_symbols)
    return has_variables and not above.is_Add and not below.is_Add


def shortest(expression: Expr, seconds: float) -> Expr:
    """The shortest of a few ways to write an expression; itself if time runs out.

    They keep its numerical values.
    """

    def ways() -> Term:
        best = expression
        for write in (sympy.factor_terms, sympy.powsimp, sympy.together):
            way = write(expression)
            if sympy.count_ops(way) < sympy.count_ops(best):
                best = way
        return _with_positive_logs(best)

    best = within(seconds, ways) if seconds > 0 else None
    return expression if best is None else best
