"""Laws for use elsewhere: C, Julia, a torch module, and a LaTeX table of the front."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sympy
from sympy import Expr
from sympy.printing.c import C99CodePrinter as _C99CodePrinter
from sympy.printing.str import StrPrinter as _StrPrinter

from gradnas.laws import text as law_text
from gradnas.laws.fitted import FittedLaws

if TYPE_CHECKING:
    import torch

C99CodePrinter: Any = _C99CodePrinter
StrPrinter: Any = _StrPrinter

# Words that the languages keep for themselves (C++ too, which C is compiled as), names that the
# sources use, and macros of <math.h> and of compilers.
C_TEXT = """
auto break case char const continue default do double else enum extern float for goto if inline int
long register restrict return short signed sizeof static struct switch typedef union unsigned void
volatile while law out y0 y1 yn j0 j1 jn pow exp log sin cos tan asin acos atan sinh cosh tanh sqrt
cbrt fabs fmax fmin floor ceil erf erfc gamma tgamma main hypot expm1 log1p exp2 log2 log10 fma
asinh acosh atanh
alignas alignof bool constexpr false nullptr static_assert thread_local true typeof typeof_unqual
and bitand bitor catch class compl concept const_cast decltype delete dynamic_cast explicit export
friend mutable namespace new noexcept not operator or private protected public reinterpret_cast
requires static_cast template this throw try typeid typename using virtual wchar_t xor
NAN INFINITY I HUGE_VAL HUGE_VALF HUGE_VALL SNAN SNANF SNANL MAXFLOAT HUGE DOMAIN SING OVERFLOW
UNDERFLOW PLOSS TLOSS X_TLOSS MATH_ERRNO MATH_ERREXCEPT math_errhandling linux unix i386 near far
M_E M_LOG2E M_LOG10E M_LN2 M_LN10 M_PI M_PI_2 M_PI_4 M_1_PI M_2_PI M_2_SQRTPI M_SQRT2 M_SQRT1_2
FP_NAN FP_INFINITE FP_ZERO FP_SUBNORMAL FP_NORMAL FP_FAST_FMA FP_FAST_FMAF FP_FAST_FMAL FP_ILOGB0
FP_ILOGBNAN
"""
JULIA_TEXT = """
baremodule begin break catch const continue do else elseif end export false finally for function
global if import in isa let local macro module mutable outer public quote return struct true try
type using where while law pi im exp log sin cos tan asin acos atan sinh cosh tanh sqrt abs sign max
min floor ceil erf float asinh acosh atanh Real
"""
C_WORDS = frozenset(C_TEXT.split())
JULIA_WORDS = frozenset(JULIA_TEXT.split())
JULIA_FUNCTIONS = {
    "Abs": "abs",
    "Max": "max",
    "Min": "min",
    "ceiling": "ceil",
}
# What sympy has under the name that Julia has it.
SAME_TEXT = "exp log sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh sign floor"
SAME_IN_JULIA = frozenset(SAME_TEXT.split())


class _C(C99CodePrinter):
    def __init__(self, names: dict[str, str]) -> None:
        # Without macros such as M_PI: C99 does not have them.
        settings = {"strict": True, "allow_unknown_functions": False, "math_macros": {}}
        super().__init__(settings)
        self.names = names

    def _print_Float(self, expr: sympy.Float) -> str:
        return repr(float(expr))

    def _print_NumberSymbol(self, expr: sympy.NumberSymbol) -> str:
        return repr(float(expr))

    def _print_Integer(self, expr: sympy.Integer) -> str:
        return f"{int(expr)}.0"  # 1/2 of whole numbers would be 0, and large ones overflow

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.names[expr.name]


class _Julia(StrPrinter):
    names: dict[str, str]

    def _print_Float(self, expr: sympy.Float) -> str:
        return repr(float(expr))

    def _print_Symbol(self, expr: sympy.Symbol) -> str:
        return self.names[expr.name]

    def _print_Exp1(self, expr: sympy.Basic) -> str:
        del expr
        return "exp(1)"

    def _print_Pow(self, expr: sympy.Pow, rational: bool = False) -> str:
        return super()._print_Pow(expr, rational=rational).replace("**", "^")

    def _print_Function(self, expr: sympy.Function) -> str:
        name = type(expr).__name__
        own = JULIA_FUNCTIONS.get(name, name if name in SAME_IN_JULIA else None)
        if own is None:
            raise ValueError(f"the law holds the function {name}, which plain Julia does not have")
        return f"{own}({', '.join(self._print(argument) for argument in expr.args)})"

    _print_Abs = _print_Function
    _print_Max = _print_Function
    _print_Min = _print_Function


def ascii_names(names: Sequence[str], reserved: frozenset[str]) -> list[str]:
    """Names of columns as different identifiers of ASCII letters, none of them `reserved`."""
    different: list[str] = []
    for name in names:
        plain = re.sub(r"[^0-9A-Za-z]+", "_", name).strip("_") or "x"
        if plain[0].isdigit():
            plain = f"x_{plain}"
        while plain in reserved or plain in different:
            plain += "_"
        different.append(plain)
    return different


def _comment(names: Sequence[str], own: Sequence[str], targets: Sequence[str]) -> list[str]:
    """What the function is, as lines that no column name can end."""
    lines = [f"{', '.join(targets)} as a function of {', '.join(names)}."]
    for mine, name in zip(own, names, strict=True):
        if mine != name:
            lines.append(f"{mine}: {name}")
    kept: list[str] = []
    for line in lines:
        plain = "".join(character if character.isprintable() else " " for character in line)
        kept.append(plain.replace("*/", "* /").replace("\\", "/").replace("??", "? ?"))
    return kept


def c_source(expressions: Sequence[Expr], names: Sequence[str], targets: Sequence[str]) -> str:
    """A C99 function `law` of doubles; several outputs are written to its last argument `out`.

    Raises:
        ValueError: an expression holds a function that C does not have.
    """
    own = ascii_names(names, C_WORDS)
    printer = _C(dict(zip(names, own, strict=True)))
    values: list[str] = []
    for expression in expressions:
        try:
            values.append(printer.doprint(expression))
        except (law_text.NotPrinted, TypeError) as error:
            raise ValueError(
                f"the law {law_text.text(expression, 4)} cannot be written in C: {error}"
            ) from error
    arguments = [f"double {name}" for name in own]
    lines = ["#include <math.h>", ""]
    lines += [f"/* {line} */" for line in _comment(names, own, targets)]
    if len(values) == 1:
        lines += [f"double law({', '.join(arguments)})", "{"]
        lines += [f"    return {values[0]};", "}"]
    else:
        lines += [f"void law({', '.join(arguments)}, double out[{len(values)}])", "{"]
        lines += [f"    out[{k}] = {value};" for k, value in enumerate(values)]
        lines += ["}"]
    return "\n".join(lines) + "\n"


def julia_source(expressions: Sequence[Expr], names: Sequence[str], targets: Sequence[str]) -> str:
    """A Julia function `law` of real numbers (`law.(x1, x2)` of columns); several give a tuple.

    Raises:
        ValueError: an expression holds a function that plain Julia does not have.
    """
    own = ascii_names(names, JULIA_WORDS)
    printer = _Julia()
    printer.names = dict(zip(names, own, strict=True))
    values = [printer.doprint(expression) for expression in expressions]
    lines = [f"# {line}" for line in _comment(names, own, targets)]
    lines.append(f"function law({', '.join(f'{name}::Real' for name in own)})")
    # Whole numbers would overflow in powers.
    lines += [f"    {name} = float({name})" for name in own]
    lines.append(f"    return {values[0] if len(values) == 1 else '(' + ', '.join(values) + ')'}")
    lines.append("end")
    return "\n".join(lines) + "\n"


class LawSources(ABC):
    """The part of an estimator that writes laws for use elsewhere."""

    @abstractmethod
    def _fitted(self, name: str) -> FittedLaws:
        """The laws that were found; an AttributeError says that `name` needs them."""

    def to_torch(self, law: int | None = None, dtype: torch.dtype | None = None) -> torch.nn.Module:
        """The law as a torch module of `(N, D)` features, in the order of the table.

        It gives what `predict` gives (the probability of the second class; of several outputs or
        classes `(N, K)`), on any device. Its decimals are one parameter, `constants`, that can be
        trained further; whole numbers stay.

        Args:
            law: row of the Pareto front; by default the chosen one.
            dtype: of the constants; by default torch's default one.

        Raises:
            ValueError: the law holds a function that torch does not have.
        """
        import torch

        from gradnas.laws.program import LawModule

        fitted = self._fitted("to_torch")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        return LawModule(fitted.expressions(law), fitted.names, dtype)

    def to_c(self, law: int | None = None) -> str:
        """Source of `double law(double feature, ...)` in C99, in the order of the table.

        Where a law is undefined it is NaN. Several outputs or classes:
        `void law(..., double out[K])`.

        Args:
            law: row of the Pareto front; by default the chosen one.
        """
        fitted = self._fitted("to_c")
        return c_source(fitted.expressions(law), fitted.names, fitted.outputs.targets)

    def to_julia(self, law: int | None = None) -> str:
        """Source of `law(feature, ...)` in Julia, in the order of the table.

        Where a law is undefined Julia raises its DomainError. Several outputs or classes are a
        tuple.

        Args:
            law: row of the Pareto front; by default the chosen one.
        """
        fitted = self._fitted("to_julia")
        return julia_source(fitted.expressions(law), fitted.names, fitted.outputs.targets)

    def latex_table(self, digits: int | None = 4) -> str:
        """The Pareto front as a LaTeX table (of the package booktabs), a star at the chosen law.

        Args:
            digits: as of `text`.
        """
        fitted = self._fitted("latex_table")
        tables: list[str] = []
        for k, laws in enumerate(fitted.fronts):
            left = law_text.latex_name(fitted.outputs.targets[k])
            lines = [
                r"\begin{tabular}{crrrl}",
                r"\toprule",
                rf"& complexity & error & validated & ${left}$ \\",
                r"\midrule",
            ]
            for place, law in enumerate(laws.front):
                formula = fitted.in_latex(fitted.formula(k, place), digits)
                cells = [
                    r"$\star$" if place == fitted.chosen(k) else "",
                    str(law.complexity),
                    _in_latex(law.train_error),
                    _in_latex(law.valid_error),
                ]
                lines.append(f"{' & '.join(cells)} & ${formula}$ \\\\")
            lines += [r"\bottomrule", r"\end{tabular}"]
            tables.append("\n".join(lines))
        return "\n\n".join(tables) + "\n"


def _in_latex(value: float) -> str:
    """A number of three digits."""
    mantissa, _, exponent = f"{value:.3g}".partition("e")
    if mantissa in ("inf", "nan"):
        return r"$\infty$" if mantissa == "inf" else "--"
    return rf"${mantissa} \cdot 10^{{{int(exponent)}}}$" if exponent else mantissa
