"""Laws as text: one line, LaTeX, and Python source with NumPy.

With `digits=None` every constant is written as the shortest decimal that gives the same double
again, so all forms compute the same numbers; with `digits=4` they are for reading.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Sequence
from typing import Any

import sympy
from sympy import Expr
from sympy.printing import codeprinter
from sympy.printing.latex import LatexPrinter as _LatexPrinter
from sympy.printing.numpy import NumPyPrinter as _NumPyPrinter
from sympy.printing.str import StrPrinter as _StrPrinter

# sympy finds a printer's methods by the names of classes, which type checkers cannot follow.
LatexPrinter: Any = _LatexPrinter
NumPyPrinter: Any = _NumPyPrinter
StrPrinter: Any = _StrPrinter
NotPrinted: Any = vars(codeprinter)["PrintMethodNotImplementedError"]

GREEK = frozenset(
    (
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "zeta",
        "eta",
        "theta",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "pi",
        "rho",
        "sigma",
        "tau",
        "phi",
        "chi",
        "psi",
        "omega",
    )
)


def number(value: float | sympy.Float, digits: int | None = None) -> str:
    """A double as the shortest decimal that reads back the same, or rounded to `digits` digits."""
    value = float(value)
    text = repr(value) if digits is None else f"{value:.{digits}g}"
    return text.removesuffix(".0")


class _Text(StrPrinter):
    """`1.5*log(x1/x2)`: sympy's own notation, which `sympy.sympify` reads."""

    digits: int | None = None

    def _print_Float(self, expr: sympy.Float) -> str:
        return number(expr, self.digits)


class _Python(NumPyPrinter):
    def __init__(self, names: dict[str, str]) -> None:
        super().__init__({"allow_unknown_functions": False})
        self.names = names

    def _print_Float(self, expr: sympy.Float) -> str:
        return repr(float(expr))

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.names[expr.name]

    def _module_format(self, fqn: str, register: bool = True) -> str:
        del register
        return "np." + fqn.removeprefix("numpy.")

    def _print_Max(self, expr: sympy.Max) -> str:
        first, *others = [self._print(argument) for argument in expr.args]
        for other in others:  # np.maximum takes two, of any shapes
            first = f"np.maximum({first}, {other})"
        return first


class _Latex(LatexPrinter):
    digits: int | None = None

    def __init__(self, digits: int | None) -> None:
        super().__init__({"ln_notation": True})
        self.digits = digits

    def _print_Float(self, expr: sympy.Float) -> str:
        mantissa, _, exponent = number(expr, self.digits).partition("e")
        return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa

    def _print_Symbol(self, expr: sympy.Symbol, style: str = "plain") -> str:
        del style
        return latex_name(expr.name)

    def _print_Max(self, expr: sympy.Max, exp: str | None = None) -> str:
        assert exp is None  # `_print_Pow` writes the powers of functions
        return rf"\max\left({', '.join(self._print(argument) for argument in expr.args)}\right)"

    def _print_Pow(self, expr: sympy.Pow) -> str:
        base, exponent = expr.as_base_exp()
        # sympy writes \log{x}^{2} and 10^{-9}^{x}, which nobody reads in one way only.
        function = isinstance(base, sympy.Function | sympy.Max) and not isinstance(base, sympy.exp)
        if (function and not exponent.is_negative) or isinstance(base, sympy.Float):
            return rf"\left({self._print(base)}\right)^{{{self._print(exponent)}}}"
        return super()._print_Pow(expr)


def text(expression: Expr, digits: int | None = None) -> str:
    """One line in sympy's notation."""
    printer = _Text()
    printer.digits = digits
    return printer.doprint(expression)


def latex(expression: Expr, digits: int | None = None) -> str:
    """LaTeX, for mathematics mode.

    Names of one letter, of the form `x1` and of Greek letters are set as variables, others upright
    as `\\mathrm{name}`.
    """
    return _Latex(digits).doprint(expression)


def latex_name(name: str) -> str:
    """The name of a column, for mathematics mode."""
    letters, _, index = name.partition("_")
    numbered = re.fullmatch(r"([A-Za-z]+?)(\d+)", name)
    if numbered and not index:
        letters, index = numbered.groups()
    is_variable = letters in GREEK or re.fullmatch("[A-Za-z]", letters)
    if not is_variable or (index and not index.isalnum()):
        return rf"\mathrm{{{_escaped(name)}}}"
    if letters in GREEK:
        letters = "\\" + letters
    if not index:
        return letters
    if index.isdigit() or len(index) == 1:
        return f"{letters}_{{{index}}}"
    return rf"{letters}_{{\mathrm{{{index}}}}}"


def latex_word(word: str) -> str:
    """A number as it is, other words upright."""
    return word if re.fullmatch(r"-?\d+(\.\d+)?", word) else rf"\mathrm{{{_escaped(word)}}}"


def _escaped(name: str) -> str:
    kept = "".join(character if character.isprintable() else " " for character in name)
    kept = re.sub(r"[\\{}^~$]", " ", kept)
    return re.sub(r"([_%#& ])", r"\\\1", " ".join(kept.split())) or "?"


def python_names(names: Sequence[str]) -> list[str]:
    """Names of columns as different Python names of arguments."""
    different: list[str] = []
    for name in names:
        plain = re.sub(r"\W+", "_", name).strip("_") or "x"
        if plain[0].isdigit():
            plain = f"x_{plain}"
        if keyword.iskeyword(plain) or plain in ("np", "law"):
            plain += "_"
        while plain in different:
            plain += "_"
        different.append(plain)
    return different


def python_source(
    expressions: Sequence[Expr],
    names: Sequence[str],
    title: str,
    *,
    function: str = "law",
    arguments: Sequence[str] = (),
) -> str:
    """Source of a module with one function of NumPy arrays.

    It has one argument per feature, in the order of the table. Several expressions are returned as
    a tuple.

    Args:
        expressions: in the symbols `names`.
        names: of all features, used or not.
        title: first line of the docstring.
        arguments: lines of the docstring about the arguments.

    Raises:
        ValueError: an expression holds a function that NumPy does not have.
    """
    own = python_names(names)
    printer = _Python(dict(zip(names, own, strict=True)))
    values = []
    for expression in expressions:
        try:
            value = printer.doprint(expression)
        except (NotPrinted, TypeError) as error:
            raise ValueError(
                f"the law {text(expression, 4)} cannot be written with NumPy: {error}"
            ) from error
        if not expression.free_symbols:
            value = f"np.full(np.shape({own[0]}), {value})"
        values.append(value)
    lines = [
        "import numpy as np",
        "",
        "",
        f"def {function}({', '.join(own)}):",
        *_docstring(title, arguments),
        f"    return {_tuple_of(values)}",
    ]
    return "\n".join(lines) + "\n"


def _docstring(title: str, arguments: Sequence[str]) -> list[str]:
    """The lines of a function's docstring; what stands in the title cannot end it."""
    title = title.replace("\\", "/").replace('"""', "'''")
    if not arguments:
        return [f'    """{title}"""']
    own_lines = [f"    {line}" for line in arguments]
    return [f'    """{title}', "", *own_lines, '    """']


def _tuple_of(values: Sequence[str]) -> str:
    """One expression as it is, several as a tuple, one a line."""
    if len(values) == 1:
        return values[0]
    lines = [f"        {value}," for value in values]
    return "\n".join(["(", *lines, "    )"])
