"""An expression as a straight list of steps: computed with torch, and differentiated by it.

Legend: N rows, D features, P constants, S sets of constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from sympy import Expr
from torch import Tensor

from gradnas.laws.symbolic import Term, sympy

# sympy's functions of one argument, by the names of their classes.
FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "log": torch.log,
    "sin": torch.sin,
    "cos": torch.cos,
    "tan": torch.tan,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "sinh": torch.sinh,
    "cosh": torch.cosh,
    "tanh": torch.tanh,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "Abs": torch.abs,
    "sign": torch.sign,
    "floor": torch.floor,
    "ceiling": torch.ceil,
    "erf": torch.erf,
    "erfc": torch.erfc,
}

# Their derivatives, from the argument and the value.
SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "exp": lambda z, f: f,
    "log": lambda z, f: 1.0 / z,
    "sin": lambda z, f: torch.cos(z),
    "cos": lambda z, f: -torch.sin(z),
    "tan": lambda z, f: 1.0 + f * f,
    "asin": lambda z, f: (1.0 - z * z).rsqrt(),
    "acos": lambda z, f: -(1.0 - z * z).rsqrt(),
    "atan": lambda z, f: 1.0 / (1.0 + z * z),
    "sinh": lambda z, f: torch.cosh(z),
    "cosh": lambda z, f: torch.sinh(z),
    "tanh": lambda z, f: 1.0 - f * f,
    "asinh": lambda z, f: (1.0 + z * z).rsqrt(),
    "acosh": lambda z, f: (z * z - 1.0).rsqrt(),
    "atanh": lambda z, f: 1.0 / (1.0 - z * z),
    "Abs": lambda z, f: torch.sign(z),
    "sign": lambda z, f: torch.zeros_like(z),
    "floor": lambda z, f: torch.zeros_like(z),
    "ceiling": lambda z, f: torch.zeros_like(z),
    "erf": lambda z, f: 2.0 / math.sqrt(math.pi) * torch.exp(-z * z),
    "erfc": lambda z, f: -2.0 / math.sqrt(math.pi) * torch.exp(-z * z),
}


@dataclass(frozen=True)
class Step:
    """One step: `what` is "feature", "constant" or "number", or what is done with earlier steps.

    Args:
        inputs: places of earlier steps; of a feature or a constant its own place.
        value: of a number.
    """

    what: str
    inputs: tuple[int, ...] = ()
    value: float = 0.0


@dataclass(frozen=True)
class Program:
    """The steps of one or more expressions.

    Args:
        outputs: the places of the expressions' values.
        num_constants: P.
    """

    steps: tuple[Step, ...]
    outputs: tuple[int, ...]
    num_constants: int

    def __call__(self, x_ND: Tensor, constants_SP: Tensor) -> Tensor:
        """The values, `(..., N, K)` of K expressions; NaN where one is undefined.

        Args:
            constants_SP: `(..., P)`, each set for all rows.
        """
        values: list[Tensor] = []
        for step in self.steps:
            values.append(_value(step, values, x_ND, constants_SP))
        shape = torch.broadcast_shapes((*constants_SP.shape[:-1], len(x_ND)))
        columns = [values[place].expand(shape) for place in self.outputs]
        return torch.stack(columns, dim=-1)

    def with_slopes(self, x_ND: Tensor, constants_SP: Tensor) -> tuple[Tensor, Tensor]:
        """The values of the first expression, `(S, N)`, and their derivatives, `(S, P, N)`."""
        S, P = constants_SP.shape
        N = len(x_ND)
        values: list[Tensor] = []
        # None: the step does not depend on any constant.
        slopes: list[Tensor | None] = []
        for step in self.steps:
            value_SN = _value(step, values, x_ND, constants_SP).expand(S, N)
            slope_SPN: Tensor | None = None
            if step.what == "constant":
                slope_SPN = constants_SP.new_zeros(S, P, 1)
                slope_SPN[:, step.inputs[0]] = 1.0
            elif step.what not in ("feature", "number"):
                for position, place in enumerate(step.inputs):
                    inner = slopes[place]
                    if inner is None:
                        continue
                    by_input_SN = _slope(step, position, values, value_SN)
                    part = by_input_SN.unsqueeze(1) * inner
                    slope_SPN = part if slope_SPN is None else slope_SPN + part
            values.append(value_SN)
            slopes.append(slope_SPN)
        last = slopes[self.outputs[0]]
        if last is None:
            last = constants_SP.new_zeros(S, P, N)
        return values[self.outputs[0]], last.expand(S, P, N)


def _slope(step: Step, position: int, values: Sequence[Tensor], value: Tensor) -> Tensor:
    """The derivative of a step by one of its inputs."""
    inputs = [values[place] for place in step.inputs]
    own = inputs[position]
    if step.what == "sum":
        return torch.ones_like(own)
    if step.what == "product":
        others = torch.ones_like(own)
        for other, factor in enumerate(inputs):
            if other != position:
                others = others * factor
        return others
    if step.what == "integer power":
        return step.value * own ** int(step.value - 1)
    if step.what == "power":
        base, exponent = inputs
        if position == 0:
            return exponent * torch.pow(base, exponent - 1.0)
        return value * torch.log(base)
    if step.what in ("Max", "Min"):
        return (own == value).to(value.dtype)
    return SLOPES[step.what](own, value)


def _value(step: Step, values: Sequence[Tensor], x_ND: Tensor, constants_SP: Tensor) -> Tensor:
    if step.what == "feature":
        return x_ND[:, step.inputs[0]]
    if step.what == "constant":
        return constants_SP[..., step.inputs[0], None]
    if step.what == "number":
        return torch.full_like(x_ND[:, 0], step.value)
    inputs = [values[place] for place in step.inputs]
    first, *others = inputs
    if step.what == "integer power":
        return first ** int(step.value)
    if step.what == "power":
        return torch.pow(first, others[0])
    if step.what in FUNCTIONS:
        return FUNCTIONS[step.what](first)
    for other in others:
        if step.what == "sum":
            first = first + other
        elif step.what == "product":
            first = first * other
        elif step.what == "Max":
            first = torch.maximum(first, other)
        else:
            assert step.what == "Min"
            first = torch.minimum(first, other)
    return first


def program_of(
    expressions: Sequence[Expr], features: Sequence[str], constants: Sequence[str] = ()
) -> Program:
    """The steps of some expressions.

    Args:
        features, constants: names of the symbols, in the order of the columns and of the constants.

    Raises:
        ValueError: a symbol of another name, a function that torch does not have.
    """
    places: dict[Term, int] = {}
    steps: list[Step] = []
    leaves: dict[str, Step] = {}
    for p, name in enumerate(constants):
        leaves[name] = Step("constant", (p,))
    for d, name in enumerate(features):
        leaves[name] = Step("feature", (d,))

    def place_of(part: Term) -> int:
        if part not in places:
            step = _step(part, place_of, leaves)
            places[part] = len(steps)
            steps.append(step)
        return places[part]

    outputs = tuple(place_of(expression) for expression in expressions)
    return Program(tuple(steps), outputs, len(constants))


def _step(part: Term, place_of: Callable[[Term], int], leaves: Mapping[str, Step]) -> Step:
    if part.is_Symbol:
        if part.name not in leaves:
            raise ValueError(f"{part.name} is no feature: there are {', '.join(leaves)}")
        return leaves[part.name]
    if part.is_number:
        value = complex(part)
        if value.imag != 0.0:
            raise ValueError(f"{part} is no real number")
        return Step("number", value=value.real)
    if part.is_Pow:
        exponent = part.exp
        if exponent.is_Integer and abs(int(exponent)) < 100:
            # Exact for negative bases, and its derivative does not take a logarithm.
            return Step("integer power", (place_of(part.base),), float(exponent))
        return Step("power", (place_of(part.base), place_of(exponent)))
    name = type(part).__name__
    what = {"Add": "sum", "Mul": "product"}.get(name, name)
    if what not in ("sum", "product", "Max", "Min") and what not in FUNCTIONS:
        raise ValueError(
            f"the law holds the function {name}, which cannot be computed with torch here"
        )
    return Step(what, tuple(place_of(argument) for argument in part.args))


def with_constants(expression: Term, first: int = 0) -> tuple[Term, list[str], list[float]]:
    """The expression with a symbol for every decimal in it, their names, and their values.

    A decimal that stands in two places is two constants.

    Args:
        first: number of the first symbol.
    """
    names: list[str] = []
    values: list[float] = []

    def replaced(part: Term) -> Term:
        if part.is_Float:
            names.append(f"_c{first + len(names)}")
            values.append(float(part))
            return sympy.Symbol(names[-1])
        if not part.args or not part.atoms(sympy.Float):
            return part
        return part.func(*[replaced(argument) for argument in part.args])

    return replaced(expression), names, values


class LawModule(torch.nn.Module):
    """Laws as a network: `(N, D)` features to `(N,)`, or `(N, K)` of several outputs.

    Attributes:
        constants: the decimals of the laws, `(P,)`, which can be trained further.
    """

    def __init__(
        self, expressions: Sequence[Expr], features: Sequence[str], dtype: torch.dtype
    ) -> None:
        super().__init__()
        names: list[str] = []
        values: list[float] = []
        opened: list[Term] = []
        for expression in expressions:
            own, own_names, own_values = with_constants(expression, len(names))
            opened.append(own)
            names += own_names
            values += own_values
        self.program = program_of(opened, features, names)
        self.features = list(features)
        self.constants = torch.nn.Parameter(torch.tensor(values, dtype=dtype))

    def forward(self, x_ND: Tensor) -> Tensor:
        """What is predicted of every row; NaN where a law is undefined."""
        if x_ND.dim() != 2 or x_ND.shape[1] != len(self.features):
            raise ValueError(
                f"the law takes (N, {len(self.features)}) features ({', '.join(self.features)}), "
                f"not {tuple(x_ND.shape)}"
            )
        value_NK = self.program(x_ND, self.constants)
        return value_NK[:, 0] if value_NK.shape[1] == 1 else value_NK
