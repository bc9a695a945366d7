"""The scalar operations that equations are made of.

An edge of an equation carries `function(a * x + b)`; the edge `power` carries `(x + b) ** a`. Every
primitive has its true form, used in refitting, prediction and print, and a safe form, finite
everywhere, used in the supernet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from sympy import Expr
from torch import Tensor

LARGEST_EXPONENT = 10.0  # the safe exponential is linear beyond this


@dataclass(frozen=True)
class Primitive:
    """A scalar function of one number.

    Args:
        name: how it is called in settings; not that of another primitive.
        function: elementwise, tensor -> tensor of the same shape and dtype; the true form. NaN
            where it is undefined.
        symbol: the same function for sympy, expression -> expression. The built-in ones have theirs
            in `gradnas.laws.symbolic`.
        derivative: `(z, function(z)) -> function'(z)`; None: computed with autograd.
        safe: a form that is finite for every finite number, for the mixture; None: `function`
            itself.
        slopes: slopes `a` to start from, for a feature that runs from -1 to 1.
        centers: places of the feature, in [-1, 1], where `a * x + b` is zero at the start.
        positive: whether the function is defined for `z > 0` alone.
        numpy: the function as NumPy source, with `{z}` for the argument (for laws written out as
            Python); None for a primitive that only torch knows.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    symbol: Callable[[Expr], Expr] | None = None
    derivative: Callable[[Tensor, Tensor], Tensor] | None = field(default=None, repr=False)
    safe: Callable[[Tensor], Tensor] | None = field(default=None, repr=False)
    slopes: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
    centers: tuple[float, ...] = (-0.5, 0.0, 0.5)
    positive: bool = False
    numpy: str | None = None

    def __post_init__(self) -> None:
        if not self.name.isidentifier() or self.name.startswith("linear_"):
            raise ValueError(
                "a primitive's name is an identifier that does not start with linear_, not "
                f"{self.name!r}"
            )

    def __reduce__(self) -> str | tuple[object, ...]:
        # The built-in ones hold functions without a name, so a pickle holds the primitive's own
        # name instead.
        if PRIMITIVES.get(self.name) is self:
            return built_in, (self.name,)
        return super().__reduce__()

    def slope(self, z: Tensor, value: Tensor) -> Tensor:
        """`function'(z)`, where `value` is `function(z)`."""
        if self.derivative is not None:
            return self.derivative(z, value)
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            total = self.function(leaf).sum()
            if not total.requires_grad:  # a step: nothing in it has a derivative but zero
                return torch.zeros_like(z)
            (slope,) = torch.autograd.grad(total, leaf, allow_unused=True)
        return torch.zeros_like(z) if slope is None else slope


def _ln(z: Tensor) -> Tensor:
    return torch.log(torch.where(z > 0, z, torch.nan))


def _cbrt(z: Tensor) -> Tensor:
    return torch.sign(z) * z.abs().pow(1.0 / 3.0)


def _safe_exp(z: Tensor) -> Tensor:
    bounded = z.clamp(max=LARGEST_EXPONENT)
    return torch.exp(bounded) + (z - bounded) * math.exp(LARGEST_EXPONENT)


def _safe_reciprocal(z: Tensor) -> Tensor:
    return z / (z * z + 1e-3)


_ALL = [
    Primitive("identity", lambda z: z, derivative=lambda z, f: torch.ones_like(z), numpy="{z}"),
    Primitive("square", lambda z: z * z, derivative=lambda z, f: 2.0 * z, numpy="({z})**2"),
    Primitive(
        "exp",
        torch.exp,
        derivative=lambda z, f: f,
        safe=_safe_exp,
        slopes=(-8.0, -4.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0, 8.0),
        centers=(0.0,),
        numpy="np.exp({z})",
    ),
    Primitive(
        "ln",
        _ln,
        derivative=lambda z, f: 1.0 / z,
        safe=lambda z: torch.log(z.clamp(min=1e-3)),
        slopes=(1.0,),
        centers=(-1.1, -1.5, -3.0),
        positive=True,
        numpy="np.log({z})",
    ),
    Primitive(
        "reciprocal",
        lambda z: 1.0 / z,
        derivative=lambda z, f: -f * f,
        safe=_safe_reciprocal,
        slopes=(1.0,),
        centers=(-4.0, -2.0, -1.4, -1.1, -1.02, 1.02, 1.1, 1.4, 2.0),
        numpy="1.0 / ({z})",
    ),
    Primitive(
        "sin",
        torch.sin,
        derivative=lambda z, f: torch.cos(z),
        slopes=(0.8, 1.6, 2.4, 3.2, 4.2, 5.2, 6.4, 8.0, 10.0),
        centers=(0.0, math.pi / 2, math.pi / 4),
        numpy="np.sin({z})",
    ),
    Primitive(
        "cos",
        torch.cos,
        derivative=lambda z, f: -torch.sin(z),
        slopes=(0.8, 1.6, 2.4, 3.2, 4.2, 5.2, 6.4, 8.0, 10.0),
        centers=(0.0, math.pi / 2, math.pi / 4),
        numpy="np.cos({z})",
    ),
    Primitive(
        "tanh",
        torch.tanh,
        derivative=lambda z, f: 1.0 - f * f,
        slopes=(1.0, 2.0, 4.0),
        centers=(-1.0, -0.5, 0.0, 0.5, 1.0),
        numpy="np.tanh({z})",
    ),
    Primitive(
        "logistic",
        torch.sigmoid,
        derivative=lambda z, f: f * (1.0 - f),
        slopes=(2.0, 4.0, 8.0),
        centers=(-1.0, -0.5, 0.0, 0.5, 1.0),
        numpy="1.0 / (1.0 + np.exp(-({z})))",
    ),
    Primitive(
        "asin",
        torch.asin,
        derivative=lambda z, f: (1.0 - z * z).rsqrt(),
        safe=lambda z: torch.asin(z.clamp(-0.999, 0.999)),
        slopes=(0.5, 0.9),
        centers=(0.0,),
        numpy="np.arcsin({z})",
    ),
    Primitive(
        "acos",
        torch.acos,
        derivative=lambda z, f: -(1.0 - z * z).rsqrt(),
        safe=lambda z: torch.acos(z.clamp(-0.999, 0.999)),
        slopes=(0.5, 0.9),
        centers=(0.0,),
        numpy="np.arccos({z})",
    ),
    Primitive(
        "atan",
        torch.atan,
        derivative=lambda z, f: 1.0 / (1.0 + z * z),
        slopes=(1.0, 2.0, 4.0),
        centers=(-0.5, 0.0, 0.5),
        numpy="np.arctan({z})",
    ),
    Primitive(
        "abs",
        torch.abs,
        derivative=lambda z, f: torch.sign(z),
        slopes=(1.0,),
        centers=(-0.6, -0.3, 0.0, 0.3, 0.6),
        numpy="np.abs({z})",
    ),
    Primitive(
        "min",
        lambda z: z.clamp(max=0.0),
        derivative=lambda z, f: (z < 0).to(z.dtype),
        slopes=(-1.0, 1.0),
        centers=(-0.6, -0.3, 0.0, 0.3, 0.6),
        numpy="np.minimum({z}, 0.0)",
    ),
    Primitive(
        "max",
        torch.relu,
        derivative=lambda z, f: (z > 0).to(z.dtype),
        slopes=(-1.0, 1.0),
        centers=(-0.6, -0.3, 0.0, 0.3, 0.6),
        numpy="np.maximum({z}, 0.0)",
    ),
    Primitive(
        "cbrt",
        _cbrt,
        derivative=lambda z, f: 1.0 / (3.0 * f * f),
        safe=lambda z: _cbrt(torch.where(z.abs() < 1e-3, torch.sign(z) * 1e-3 + 1e-9, z)),
        slopes=(1.0, 2.0),
        centers=(-1.1, -0.5, 0.0, 0.5, 1.1),
        numpy="np.cbrt({z})",
    ),
    Primitive(
        "relu",
        torch.relu,
        derivative=lambda z, f: (z > 0).to(z.dtype),
        slopes=(-1.0, 1.0),
        centers=(-0.6, -0.3, 0.0, 0.3, 0.6),
        numpy="np.maximum({z}, 0.0)",
    ),
    Primitive(
        "softplus",
        F.softplus,
        derivative=lambda z, f: torch.sigmoid(z),
        slopes=(-4.0, 4.0, 8.0),
        numpy="np.logaddexp({z}, 0.0)",
    ),
    Primitive(
        "softminus",
        lambda z: -F.softplus(-z),
        derivative=lambda z, f: torch.sigmoid(-z),
        slopes=(-4.0, 4.0, 8.0),
        numpy="-np.logaddexp(-({z}), 0.0)",
    ),
]
PRIMITIVES: dict[str, Primitive] = {primitive.name: primitive for primitive in _ALL}


def built_in(name: str) -> Primitive:
    """The primitive of that name; for pickles."""
    return PRIMITIVES[name]


POWER = "power"
# That `power` starts from.
EXPONENTS = (-4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.5, 1.5, 2.0, 2.5, 3.0, 4.0)


class Word(NamedTuple):
    """What a word of the settings stands for: a function, and which of its constants are fitted."""

    function: str
    fits_a: bool
    fits_b: bool


# What settings may name: the words of the reference (autora-theorist-darts) and more; `none` is the
# absent edge.
WORDS: dict[str, Word] = {
    "add": Word("identity", False, False),
    "subtract": Word("identity", False, False),
    "mult": Word("identity", True, False),
    "linear": Word("identity", True, True),
    "power": Word(POWER, True, False),
    "linear_power": Word(POWER, True, True),
}
for _name in PRIMITIVES:
    if _name != "identity":
        WORDS[_name] = Word(_name, False, False)
for _name in PRIMITIVES:
    if _name != "identity":
        WORDS[f"linear_{_name}"] = Word(_name, True, True)


def meaning(word: str) -> Word:
    """What a word stands for; the name of a primitive of one's own is its `linear_` word."""
    return WORDS.get(word) or Word(word, True, True)


DEFAULT_WORDS = (
    "none",
    "linear",
    "linear_square",
    "linear_power",
    "linear_exp",
    "linear_ln",
    "linear_reciprocal",
    "linear_sin",
    "linear_tanh",
    "linear_logistic",
    "asin",
)


def resolve(words: Iterable[str | Primitive]) -> tuple[tuple[str, ...], dict[str, Primitive]]:
    """Checked words and the table of functions that they need.

    A `Primitive` of one's own is fitted as those words that begin with `linear_`.

    Raises:
        ValueError: a word that is not known (the message lists those that are), a primitive named
            like a built-in one, nothing but `none`.
    """
    names: list[str] = []
    table = dict(PRIMITIVES)
    for word in words:
        if isinstance(word, Primitive):
            if word.name in WORDS or word.name in ("none", "identity"):
                raise ValueError(
                    f"there is a primitive named {word.name!r} already: give yours another name"
                )
            table[word.name] = word
            names.append(word.name)
        elif word == "none" or word in WORDS:
            names.append(word)
        else:
            known = ", ".join(["none", *WORDS])
            raise ValueError(f"there is no primitive {word!r}; there are: {known}")
    if not set(names) - {"none"}:
        raise ValueError("primitives must hold more than 'none': no law could depend on a feature")
    return tuple(dict.fromkeys(names)), table
