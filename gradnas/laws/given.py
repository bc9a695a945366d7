"""A given form, such as `a*x1/(b + x1) + c`, read without running anything of it."""

from __future__ import annotations

import ast
import difflib
import keyword
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from sympy import Expr

from gradnas.laws.symbolic import Term, sympy
from gradnas.laws.text import text_names

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "exp": sympy.exp,
    "log": sympy.log,
    "ln": sympy.log,
    "log10": lambda z: sympy.log(z) / sympy.log(10),
    "log2": lambda z: sympy.log(z) / sympy.log(2),
    "sqrt": sympy.sqrt,
    "cbrt": lambda z: sympy.sign(z) * sympy.Abs(z) ** sympy.Rational(1, 3),
    "sin": sympy.sin,
    "cos": sympy.cos,
    "tan": sympy.tan,
    "asin": sympy.asin,
    "acos": sympy.acos,
    "atan": sympy.atan,
    "arcsin": sympy.asin,
    "arccos": sympy.acos,
    "arctan": sympy.atan,
    "sinh": sympy.sinh,
    "cosh": sympy.cosh,
    "tanh": sympy.tanh,
    "abs": sympy.Abs,
    "Abs": sympy.Abs,
    "sign": sympy.sign,
    "max": sympy.Max,
    "Max": sympy.Max,
    "min": sympy.Min,
    "Min": sympy.Min,
    "relu": lambda z: sympy.Max(z, 0),
    "logistic": lambda z: 1 / (1 + sympy.exp(-z)),
    "softplus": lambda z: sympy.log(1 + sympy.exp(z)),
    "square": lambda z: z**2,
    "erf": sympy.erf,
}
LONGEST = 10_000  # characters of a form
DEEPEST = 100  # parts within parts
LARGEST_POWER = 1000  # of whole numbers: 9**9**9 would take all memory


@dataclass(frozen=True)
class Form:
    """A given form.

    Attributes:
        expression: in the symbols of features and open constants.
        constants: names of the open constants, in alphabetic order.
        features: names of all features.
    """

    expression: Expr
    constants: tuple[str, ...]
    features: tuple[str, ...]


def read_form(form: str | Expr, features: Sequence[str]) -> Form:
    """A form as text or as a sympy expression.

    What is no feature is an open constant. Features whose names are no identifiers, or mean
    something to sympy, go by the names that `text` gives them.

    Raises:
        ValueError: what is no expression of numbers, names and known functions; a constant that
            looks like a misspelt feature.
    """
    own = text_names(features)
    symbols: dict[str, Term] = {}
    for mine, name in zip(own, features, strict=True):
        symbols[mine] = sympy.Symbol(name)
    by_text = dict(symbols)
    ambiguous: dict[str, str] = {}
    for name in features:
        if name.isidentifier() and not keyword.iskeyword(name):
            symbols[name] = sympy.Symbol(name)
            if by_text.get(name, symbols[name]) != symbols[name]:
                ambiguous[name] = by_text[name].name
    if isinstance(form, str):
        expression = _Reader(form, symbols).expression()
    elif isinstance(form, sympy.Expr):
        plain: dict[Term, Term] = {}
        for symbol in form.free_symbols:
            plain[symbol] = symbols.get(symbol.name, sympy.Symbol(symbol.name))
        expression = form.xreplace(plain)
    else:
        raise ValueError(
            f"form is a text such as 'a*x1/(b + x1) + c', or a sympy expression, not {form!r}"
        )
    for name, other in ambiguous.items():
        if isinstance(form, str) and sympy.Symbol(name) in expression.free_symbols:
            raise ValueError(
                f"the form {form} holds {name}, which is a column, and how the text of a law "
                f"writes the column {other!r}: rename one of them"
            )
    if expression.has(sympy.zoo, sympy.nan, sympy.oo, -sympy.oo):
        raise ValueError(f"the form {form} has no finite value")
    constants: list[str] = []
    for symbol in expression.free_symbols:
        if symbol.name not in features:
            constants.append(symbol.name)
    used = [name for name in features if sympy.Symbol(name) in expression.free_symbols]
    for constant in constants:
        _check_constant(constant, list(symbols), features, used, expression)
    return Form(expression, tuple(sorted(constants)), tuple(features))


def _check_constant(
    constant: str,
    known: Sequence[str],
    features: Sequence[str],
    used: Sequence[str],
    expression: Term,
) -> None:
    """Refuse what is rather a feature than a constant: it would be fitted without a word."""
    simple = re.sub(r"[\W_]", "", constant).lower()
    for name in features:
        alike = re.sub(r"[\W_]", "", name).lower() == simple
        near = len(constant) > 3 and difflib.SequenceMatcher(None, constant, name).ratio() > 0.8
        if (alike or near) and name not in used:
            raise ValueError(
                f"the form {expression} holds {constant}, which is no feature, but {name} is one: "
                "write its name, or give the constant another one"
            )
    if re.fullmatch(r"[xX]_?\d+", constant):
        raise ValueError(
            f"the form {expression} holds {constant}, but there are only the features "
            f"{', '.join(dict.fromkeys(known))}; if it is a constant, give it another name"
        )


class _Reader:
    """Text to an expression, by Python's own grammar."""

    def __init__(self, text: str, symbols: dict[str, Term]) -> None:
        self.text = text
        self.symbols = symbols

    def expression(self) -> Term:
        """The right side of what is written.

        Raises:
            ValueError: see `read_form`.
        """
        text = self.text.strip()
        if len(text) > LONGEST:
            raise ValueError(f"a form has at most {LONGEST} characters, not {len(text)}")
        left, equals, right = text.partition("=")
        if equals:
            if not left.strip() or "=" in right:
                raise self._wrong("it has more than one side")
            text = right.strip()
        try:
            tree = ast.parse(text.replace("^", "**"), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise self._wrong(getattr(error, "msg", None) or "it is nested too deeply") from error
        return self._read(tree.body, 0)

    def _wrong(self, why: str) -> ValueError:
        return ValueError(
            f"the form {self.text!r} cannot be read: {why}; a form is made of numbers, features, "
            f"constants, + - * / ** and {', '.join(FUNCTIONS)}"
        )

    def _read(self, node: ast.expr, depth: int) -> Term:
        if depth > DEEPEST:
            raise self._wrong("it is nested too deeply")
        if isinstance(node, ast.Constant):
            return self._number(node.value)
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self._read(node.operand, depth + 1)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.BinOp):
            left = self._read(node.left, depth + 1)
            right = self._read(node.right, depth + 1)
            return self._joined(node.op, left, right)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._call(node, depth)
        raise self._wrong(f"it holds {ast.unparse(node)!r}")

    def _number(self, value: object) -> Term:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._wrong(f"{value!r} is no real number")
        if isinstance(value, int):
            if abs(value) >= 2**53:
                raise self._wrong(f"{value} has more digits than a double; write it as a decimal")
            return sympy.Integer(value)
        return sympy.Float(value, 17)

    def _name(self, name: str) -> Term:
        if name in self.symbols:
            return self.symbols[name]
        if name == "pi":
            return sympy.pi
        if name in ("E", "I", "inf", "nan"):
            raise self._wrong(f"{name} may mean a number or a constant; give it another name")
        if name in FUNCTIONS:
            raise self._wrong(f"{name} is a function and needs an argument")
        return sympy.Symbol(name)

    def _joined(self, operator: ast.operator, left: Term, right: Term) -> Term:
        if isinstance(operator, ast.Add):
            return left + right
        if isinstance(operator, ast.Sub):
            return left - right
        if isinstance(operator, ast.Mult):
            return left * right
        if isinstance(operator, ast.Div):
            if right == 0:
                raise self._wrong("it divides by 0")
            return left / right
        if isinstance(operator, ast.Pow):
            if left.is_number and right.is_number and abs(right) > LARGEST_POWER:
                raise self._wrong(f"{left}**{right} is too large")
            return left**right
        raise self._wrong(f"it holds the operator {type(operator).__name__}")

    def _call(self, node: ast.Call, depth: int) -> Term:
        assert isinstance(node.func, ast.Name)
        name = node.func.id
        if name not in FUNCTIONS:
            hint = difflib.get_close_matches(name, list(FUNCTIONS), n=1)
            raise self._wrong(f"there is no function {name}{f' ({hint[0]}?)' if hint else ''}")
        arguments = [self._read(argument, depth + 1) for argument in node.args]
        is_many = name.lower() in ("min", "max")
        if len(arguments) != 1 and not (is_many and arguments):
            raise self._wrong(f"{name} takes one argument, not {len(arguments)}")
        return FUNCTIONS[name](*arguments)
