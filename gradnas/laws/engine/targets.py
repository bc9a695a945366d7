"""Other targets in which a law may be simpler, and the way back to laws for y.

They are ln y, 1/y, y^2, 1/y^2, the root of y, the log-odds of y, and y over or times a feature. A
sum of terms that fits one of these is turned into a formula for y itself (its outer function
applied), and refitted there. A change of the target changes the noise: its points are weighted by
the inverse square of the derivative.

Legend: N points, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from gradnas.laws.engine.atoms import LARGEST
from gradnas.laws.engine.data import LawData
from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
    as_product,
)
from gradnas.laws.primitives import POWER

# (source, a, b) -> the factors of `outer(a S + b)`, where S is the node `source`.
Outer = Callable[[int, float, float], list[Edge]]

FEWEST_ROWS = 8  # on which a target must be defined
FEWEST_SHARE = 0.8  # of the rows, on which a target must be defined


@dataclass(frozen=True)
class Target:
    """A transformed problem, and the way back to formulas for y."""

    name: str
    data: LawData
    back: Callable[[Formula], Formula]


@dataclass(frozen=True)
class _Transform:
    """A function of y, `value_N`, with its derivative `slope_N`, where it is `defined_N`.

    Attributes:
        back: from a formula for the function's value to one for y.
    """

    name: str
    value_N: Tensor
    slope_N: Tensor
    defined_N: Tensor
    back: Callable[[Formula], Formula]


def targets(
    data: LawData,
    scale_y: float,
    functions: Sequence[str],
    kinds: Sequence[str],
    features: Sequence[int],
) -> list[Target]:
    """The targets that the data and the allowed functions admit.

    The squared error alone has any.
    """
    if data.loss != "squared":
        return []
    transforms = _of_y(data.y_N, scale_y, functions)
    if "product" in kinds and len(features) > 1:
        for d in features:
            transforms += _of_y_and_feature(data, d, functions)
    admitted: list[Target] = []
    for transform in transforms:
        target = _admitted(transform, data)
        if target is not None:
            admitted.append(target)
    return admitted


def functions_of_target(data: LawData, scale_y: float, functions: Sequence[str]) -> list[Target]:
    """The targets that are functions of y alone, those of rare outer functions among them."""
    transforms = _of_y(data.y_N, scale_y, functions)
    own_N = data.y_N * scale_y
    if "asin" in functions and float(own_N.abs().max()) < 1.57:
        slope_N = scale_y * torch.cos(own_N)
        everywhere_N = torch.ones_like(own_N, dtype=torch.bool)
        back = partial(_outer_of_y, "asin", scale_y)
        transforms.append(_Transform("sine of y", torch.sin(own_N), slope_N, everywhere_N, back))
    if "ln" in functions and float(own_N.max() - own_N.min()) < 20.0:
        # exp(y - the largest y): the constant goes into the bias of the logarithm.
        value_N = torch.exp(own_N - own_N.max())
        back = partial(_outer_of_y, "ln", scale_y)
        everywhere_N = torch.ones_like(own_N, dtype=torch.bool)
        transforms.append(
            _Transform("exponential of y", value_N, scale_y * value_N, everywhere_N, back)
        )
    admitted = [_admitted(transform, data) for transform in transforms]
    return [target for target in admitted if target is not None]


def _outer_of_y(function: str, scale_y: float, formula: Formula) -> Formula:
    """`function` of the formula, over the unit of y."""
    formula = _outer(_function(function), formula)
    weights = tuple(weight / scale_y for weight in formula.weights)
    # An outer logarithm has a constant beside it, for the scale of what is inside.
    return replace(formula, weights=weights, bias=1e-3 if function == "ln" else 0.0)


def _of_y(y_N: Tensor, scale_y: float, functions: Sequence[str]) -> list[_Transform]:
    """The functions of y whose inverse is allowed.

    Args:
        scale_y: what y was divided by; log-odds are those of the target itself.
    """
    positive_N = y_N > 0
    transforms: list[_Transform] = []
    # Each is the inverse of an outer function that must be allowed in the law.
    if "exp" in functions and POWER in functions:
        value_N = torch.log(y_N)
        transforms.append(_Transform("ln y", value_N, 1.0 / y_N, positive_N, _exponential))
    if "reciprocal" in functions:
        # 1 / y jumps where y changes its sign: the rows of the more frequent sign are kept.
        same_sign_N = y_N * float(y_N.median().sign()) > 0
        back = partial(_outer, _function("reciprocal"))
        transforms.append(_Transform("1 / y", 1.0 / y_N, -1.0 / y_N**2, same_sign_N, back))
    if POWER in functions:
        back = partial(_outer, _power(0.5), signed=True)
        transforms.append(_Transform("y squared", y_N**2, 2.0 * y_N, positive_N, back))
        back = partial(_outer, _power(-0.5), signed=True)
        slope_N = -2.0 * y_N**-3
        transforms.append(_Transform("1 / y squared", y_N**-2, slope_N, positive_N, back))
    if "square" in functions:
        back = partial(_outer, _function("square"))
        slope_N = 0.5 / y_N.sqrt()
        transforms.append(_Transform("root of y", y_N.sqrt(), slope_N, positive_N, back))
    if "logistic" in functions:
        p_N = y_N * scale_y
        slope_N = 1.0 / (p_N * (1 - p_N))
        inside_N = (p_N > 0) & (p_N < 1)
        back = partial(_outer, _function("logistic"))
        transforms.append(_Transform("log-odds of y", torch.logit(p_N), slope_N, inside_N, back))
    return transforms


def _of_y_and_feature(data: LawData, d: int, functions: Sequence[str]) -> list[_Transform]:
    """y over feature d, for laws with it as a factor; y times it, for laws with it as a divisor."""
    y_N = data.y_N
    x_N = data.x_DN[d]
    away_N = x_N.abs() > 1e-6  # features have size 1: near 0 the quotient is all noise
    over = partial(_outer, _times_feature(d, "identity"))
    transforms = [_Transform(f"y over feature {d}", y_N / x_N, 1.0 / x_N, away_N, over)]
    if "reciprocal" in functions:
        times = partial(_outer, _times_feature(d, "reciprocal"))
        transforms.append(_Transform(f"y times feature {d}", y_N * x_N, x_N, away_N, times))
    return transforms


def _admitted(transform: _Transform, data: LawData) -> Target | None:
    """The problem for this function of y; None where it is defined in too few rows, or constant."""
    value_N = transform.value_N
    slope_N = transform.slope_N
    # What is larger, or its inverse, would overflow when squared and summed: a target that falls to
    # 1e-200 has a reciprocal, and no use for it.
    size_N = slope_N.abs()
    bounded_N = (value_N.abs() < LARGEST) & (size_N < LARGEST) & (size_N > 1.0 / LARGEST)
    usable_N = transform.defined_N & bounded_N  # false for NaN, too
    if int(usable_N.sum()) < max(FEWEST_ROWS, FEWEST_SHARE * len(data.y_N)):
        return None
    rows = usable_N.nonzero().flatten()
    # A function that is constant to rounding, such as y over a feature it is proportional to, is
    # no problem to search in.
    scale = float(value_N[rows].abs().max())
    if not scale > 0 or float(value_N[rows].std()) < 1e-9 * scale:
        return None
    # An error of dy in y is one of slope * dy in the function: with these weights the squared error
    # is, to first order, that of y.
    w_N = data.w_N[rows] / slope_N[rows] ** 2
    shrunk = LawData(
        data.x_DN[:, rows],
        value_N[rows] / scale,
        w_N / w_N.mean(),
        "squared",
        data.primitives,
        points=data.rows(rows).n,
        work=data.work,
    )
    return Target(transform.name, shrunk, partial(_rescaled_back, transform.back, scale))


def _rescaled_back(back: Callable[[Formula], Formula], scale: float, formula: Formula) -> Formula:
    """`back` of the formula times `scale`."""
    weights = tuple(weight * scale for weight in formula.weights)
    return back(replace(formula, weights=weights, bias=formula.bias * scale))


# ---- back to y -----------------------------------------------------------------------------------


def _function(name: str) -> Outer:
    return lambda source, a, b: [Edge(source, name, a, b)]


def _power(exponent: float) -> Outer:
    # (a S + b)^p is a^p (S + b/a)^p, and a^p goes into the output weight.
    return lambda source, a, b: [Edge(source, POWER, exponent, b / a)]


def _times_feature(d: int, function: str) -> Outer:
    """A function of feature d as one factor, and `a S + b` as the other."""
    return lambda source, a, b: [
        Edge(d, function, fixed=True),
        Edge(source, "identity", a, b, fixed=True),
    ]


def _outer(outer: Outer, formula: Formula, signed: bool = False) -> Formula:
    """`outer(a S + b)` as the only term, S being the formula's terms.

    Args:
        signed: whether `a` must be positive, so that the sign of a lone term goes into S.
    """
    D = formula.features
    nodes = list(formula.nodes)
    terms = formula.outputs
    first = terms[0]
    first_weight = formula.weights[first]
    alone = len(terms) == 1
    # A lone term is read where it stands, unless its sign has to go into S: then S is a node of one
    # edge with the coefficient -1.
    if alone and (not signed or first_weight > 0):
        source = D + first
        scale = first_weight
    else:
        # A node of its own for the sum, its first coefficient 1 or -1: the scale goes to the outer
        # function or to the output weight, and is not fitted twice.
        scale = abs(first_weight)
        edges: list[Edge] = []
        for j in terms:
            a = formula.weights[j] / scale
            is_given = j == first and a in (1.0, -1.0)
            edges.append(Edge(D + j, "identity", a, fixed=is_given))
        nodes.append(Node("sum", tuple(edges)))
        source = D + len(nodes) - 1
    nodes.append(as_product(outer(source, scale, formula.bias)))
    return Formula(D, tuple(nodes), _only_the_last(nodes), 0.0)


def _exponential(formula: Formula) -> Formula:
    """exp of a sum, as a product: `exp(w ln g)` is the power `g^w`, the others stay exponentials.

    The factor `exp(bias)` goes into the output weight.
    """
    D = formula.features
    factors: list[Edge] = []
    for j, (node, weight) in enumerate(zip(formula.nodes, formula.weights, strict=True)):
        if weight == 0.0:
            continue
        lone = node.edges[0] if len(node.edges) == 1 else None
        # exp(w ln(a x + b)) is a^w (x + b/a)^w, and a^w goes into the output weight.
        if lone and lone.function == "ln" and lone.a > 0:
            factors.append(Edge(lone.source, POWER, weight, lone.b / lone.a))
        elif lone and lone.function == "identity":
            factors.append(Edge(lone.source, "exp", weight))
        else:
            factors.append(Edge(D + j, "exp", weight))
    nodes = [*formula.nodes, as_product(factors)]
    return Formula(D, tuple(nodes), _only_the_last(nodes), 0.0)


def _only_the_last(nodes: Sequence[Node]) -> tuple[float, ...]:
    """Output weights that leave out all nodes but the last."""
    return (*[0.0] * (len(nodes) - 1), 1.0)
