"""Laws as text: one line, LaTeX, and Python source with NumPy.

With `digits=None` every constant is written as the shortest decimal that gives the same double
again, so all forms compute the same numbers; with `digits=4` they are for reading.
"""

from __future__ import annotations

import builtins
import keyword
import math
import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
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

MOST_DIGITS = 17  # that a double has

GREEK_TEXT = """
alpha beta gamma delta epsilon zeta eta theta kappa lambda mu
nu xi pi rho sigma tau phi chi psi omega
"""
GREEK = frozenset(GREEK_TEXT.split())


def number(value: float | sympy.Float, digits: int | None = None) -> str:
    """A double as the shortest decimal that reads back the same, or rounded to `digits` digits."""
    value = float(value)
    text = repr(value) if digits is None else f"{value:.{digits}g}"
    return text.removesuffix(".0")


Digits = int | Mapping[float, int] | None


def _digits_of(value: float, digits: Digits) -> int | None:
    """How many significant digits a constant is written with; None: all."""
    if isinstance(digits, Mapping):
        # A printer writes the sign of a negative constant apart.
        return digits.get(value, digits.get(-value))
    return digits


class _Text(StrPrinter):
    """`1.5*log(x1/x2)`: sympy's own notation, which `sympy.sympify` reads."""

    digits: Digits = None
    names: Mapping[str, str]

    def _print_Float(self, expr: sympy.Float) -> str:
        return number(expr, _digits_of(float(expr), self.digits))

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.names.get(expr.name, expr.name)


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

    def _print_Min(self, expr: sympy.Min) -> str:
        first, *others = [self._print(argument) for argument in expr.args]
        for other in others:
            first = f"np.minimum({first}, {other})"
        return first


class _Latex(LatexPrinter):
    digits: Digits = None

    def __init__(self, digits: Digits, dots: bool, names: Mapping[str, str]) -> None:
        settings: dict[str, object] = {"ln_notation": True, "inv_trig_style": "full"}
        if dots:
            settings["mul_symbol"] = "dot"
        super().__init__(settings)
        self.digits = digits
        self.names = names

    def _print_Float(self, expr: sympy.Float) -> str:
        shown = number(expr, _digits_of(float(expr), self.digits))
        mantissa, _, exponent = shown.partition("e")
        return rf"{mantissa} \cdot 10^{{{int(exponent)}}}" if exponent else mantissa

    def _print_Symbol(self, expr: sympy.Symbol, style: str = "plain") -> str:
        del style
        return self.names.get(expr.name) or latex_name(expr.name)

    def _print_Max(self, expr: sympy.Max, exp: str | None = None) -> str:
        assert exp is None  # `_print_Pow` writes the powers of functions
        return rf"\max\left({', '.join(self._print(argument) for argument in expr.args)}\right)"

    def _print_Min(self, expr: sympy.Min, exp: str | None = None) -> str:
        assert exp is None
        return rf"\min\left({', '.join(self._print(argument) for argument in expr.args)}\right)"

    def _print_Pow(self, expr: sympy.Pow) -> str:
        base, exponent = expr.as_base_exp()
        # sympy writes \log{x}^{2} and 10^{-9}^{x}, which nobody reads in one way only.
        function = isinstance(base, sympy.Function | sympy.Max | sympy.Min) and not isinstance(
            base, sympy.exp
        )
        if (function and not exponent.is_negative) or isinstance(base, sympy.Float):
            return rf"\left({self._print(base)}\right)^{{{self._print(exponent)}}}"
        return super()._print_Pow(expr)


def text(expression: Expr, digits: Digits = None, names: Sequence[str] | None = None) -> str:
    """One line in sympy's notation, which `sympy.sympify` reads.

    Args:
        digits: significant digits of the constants: one number for all, or for each constant its
            own (`digits_needed`); None writes them exactly.
        names: of all features. Those that sympy would read as something else are written as
            `text_names` says; None: all stand as they are.
    """
    printer = _Text()
    printer.digits = digits
    own = [] if names is None else text_names(names)
    printer.names = dict(zip(names or [], own, strict=True))
    return printer.doprint(expression)


def text_of(expression: Expr, names: Sequence[str], written: Mapping[str, str]) -> str:
    """As `text`, with other symbols, such as constants, written as `written` says."""
    printer = _Text()
    printer.names = {**dict(zip(names, text_names(names), strict=True)), **written}
    return printer.doprint(expression)


def latex(expression: Expr, digits: Digits = None, names: Sequence[str] = ()) -> str:
    """LaTeX, for mathematics mode.

    Names of one letter, of the form `x1` and of Greek letters are set as variables, others upright
    as `\\mathrm{name}`, with dots between factors, where two words would read as one.

    Args:
        digits: as of `text`.
        names: of all features, which are set so that no two look alike.
    """
    own = dict(zip(names, latex_names(names), strict=True))
    has_words = False
    for symbol in expression.free_symbols:
        name = str(symbol)
        has_words |= "mathrm" in (own.get(name) or latex_name(name))
    return _Latex(digits, dots=has_words, names=own).doprint(expression)


def digits_needed(
    expression: Expr, names: Sequence[str], x_ND: np.ndarray, digits: int
) -> dict[float, int]:
    """For each constant as many significant digits as the law's values need; at least `digits`.

    In `3*x - 299998.7` four digits of the second constant would leave nothing of a target that runs
    over 7. Constants get digits, the one with the largest effect first, until what is printed is
    within `10^(1 - digits)` standard deviations of the law everywhere.

    Args:
        names: of the features, the columns of `x_ND`.
    """
    constants = sorted(expression.atoms(sympy.Float), key=float)
    needed = {float(constant): digits for constant in constants}
    values = list(needed)
    evaluate = _values(expression, names, x_ND, constants)
    exact_N = evaluate(values)
    known_N = np.isfinite(exact_N)
    if not values or not known_N.any():
        return needed
    allowed = 10.0 ** (1 - digits) * float(exact_N[known_N].std())

    def off(rounded: Sequence[float]) -> float:
        gap_N = np.abs(evaluate(rounded) - exact_N)[known_N]
        gap = float(gap_N.max())
        return gap if math.isfinite(gap) else math.inf

    while True:
        rounded = [float(number(value, needed[value])) for value in values]
        open_values = [value for value in values if needed[value] < MOST_DIGITS]
        if off(rounded) <= allowed or not open_values:
            return needed
        effects: dict[float, float] = {}
        for value in open_values:
            alone = [rounded[i] if other == value else other for i, other in enumerate(values)]
            effects[value] = off(alone)
        worst = max(effects, key=lambda value: effects[value])
        if effects[worst] == 0.0:  # what is off lies in constants that have all their digits
            return needed
        needed[worst] += 1


def _values(
    expression: Expr, names: Sequence[str], x_ND: np.ndarray, constants: Sequence[Any]
) -> Callable[[Sequence[float]], np.ndarray]:
    """The law's values at some rows as a function of its constants; NaN where it is undefined."""
    places: dict[Any, Any] = {constant: sympy.Dummy() for constant in constants}
    symbols = [sympy.Symbol(name) for name in names]
    arguments = [*symbols, *places.values()]
    compiled = sympy.lambdify(
        arguments, expression.xreplace(places), modules=["scipy", "numpy"], dummify=True
    )

    def values(numbers: Sequence[float]) -> np.ndarray:
        with np.errstate(all="ignore"):
            try:
                out = compiled(*x_ND.T, *numbers)
            except (NameError, TypeError, AttributeError):
                # A function of one's own that NumPy does not have: nothing is known of its values.
                return np.full(len(x_ND), np.nan)
        out = np.asarray(out)
        if np.iscomplexobj(out):
            out = np.where(out.imag == 0.0, out.real, np.nan)
        return np.broadcast_to(out.astype(np.float64), (len(x_ND),))

    return values


def text_names(names: Sequence[str]) -> list[str]:
    """Names of columns as they stand in `text`: different, and a variable each for `sympify`.

    Identifiers stay, unless they mean something to sympy (`N`, `E`, `beta`) or to Python
    (`lambda`, and functions such as `id` and `sum`, which `sympify` reads as such): these get an
    underscore.
    """
    different: list[str] = []
    for name in python_names(names):
        while hasattr(sympy, name) or hasattr(builtins, name) or name in different:
            name += "_"
        different.append(name)
    return different


def legend(names: Sequence[str], used: Iterable[str]) -> list[str]:
    """A line for each feature that is used and stands in `text` under another name."""
    lines: list[str] = []
    for own, name in zip(text_names(names), names, strict=True):
        if own != name and name in used:
            lines.append(f"where {own} is the column {name!r}")
    return lines


def latex_names(names: Sequence[str]) -> list[str]:
    """Names of columns for mathematics mode, all different: `x1` beside `x_1` is set as it is."""
    different: dict[str, str] = {}
    for name in names:
        written = latex_name(name)
        if _looks(written) in different:
            written = rf"\mathrm{{{_escaped(name)}}}"
        while _looks(written) in different:
            written += "'"
        different[_looks(written)] = written
    return list(different.values())


def _looks(written: str) -> str:
    """The same for letters that look alike, such as the micro sign and the Greek letter."""
    return unicodedata.normalize("NFKC", written)


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
    kept = re.sub(r"[\\{}^~]", " ", kept)
    return re.sub(r"([_%#&$ ])", r"\\\1", " ".join(kept.split())) or "?"


def python_names(names: Sequence[str]) -> list[str]:
    """Names of columns as different Python names of arguments."""
    different: list[str] = []
    for name in names:
        # Python reads names in this form, in which other letters may be the same ones.
        letters = unicodedata.normalize("NFKC", name)
        kept = [letter if f"x{letter}".isidentifier() else " " for letter in letters]
        plain = re.sub(" +", "_", "".join(kept)).strip("_") or "x"
        if not plain.isidentifier():
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
