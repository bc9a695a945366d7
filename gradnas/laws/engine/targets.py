"""Other targets in which a law may be simpler: ln y, 1/y, y^2, the root of y, the log-odds of y, y
over a feature.

A sum of terms that fits one of these is turned into a formula for y itself (its outer function
applied), and refitted there. A change of the target changes the noise: its points are weighted by
the inverse square of the derivative.

Legend: N points, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradnas.laws.engine.refit import LawData
from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
    canonical,
)
from gradnas.laws.primitives import POWER


@dataclass(frozen=True)
class Target:
    """A transformed problem, and the way back to formulas for y."""

    name: str
    data: LawData
    back: Callable[[Formula], Formula]


def _summed(
    formula: Formula, outer: Callable[[int, float, float], list[Edge]], signed: bool = False
) -> Formula:
    """`outer(a S + b)` as the only term, S being the formula's terms: `outer(source, a, b)` gives
    the factors.

    Args:
        signed: whether `a` must be positive, so that the sign of a lone term goes into S.
    """
    terms = [(j, w) for j, w in enumerate(formula.weights) if w != 0.0]
    D, nodes = formula.features, list(formula.nodes)
    if len(terms) == 1 and (not signed or terms[0][1] > 0):
        source, scale = D + terms[0][0], terms[0][1]
    else:
        scale = abs(terms[0][1])
        edges = [
            Edge(D + j, "identity", w / scale, fixed=i == 0 and w / scale in (1.0, -1.0))
            for i, (j, w) in enumerate(terms)
        ]
        nodes.append(Node("sum", tuple(edges)))
        source = D + len(nodes) - 1
    factors = outer(source, scale, formula.bias)
    nodes.append(canonical(Node("product" if len(factors) > 1 else "sum", tuple(factors))))
    return Formula(D, tuple(nodes), (*(0.0 for _ in nodes[:-1]), 1.0), 0.0)


def _exponential(formula: Formula) -> Formula:
    """exp of a sum, as a product: `exp(w ln g)` is the power `g^w`, the others stay
    exponentials."""
    D, factors = formula.features, []
    for j, (node, w) in enumerate(zip(formula.nodes, formula.weights, strict=True)):
        if w == 0.0:
            continue
        lone = node.edges[0]
        if len(node.edges) == 1 and lone.function == "ln" and lone.a > 0:
            factors.append(Edge(lone.source, POWER, w, lone.b / lone.a))
        elif len(node.edges) == 1 and lone.function == "identity":
            factors.append(Edge(lone.source, "exp", w))
        else:
            factors.append(Edge(D + j, "exp", w))
    nodes = (
        *formula.nodes,
        canonical(Node("product" if len(factors) > 1 else "sum", tuple(factors))),
    )
    return Formula(D, nodes, (*(0.0 for _ in formula.nodes), 1.0), 0.0)


def _power(exponent: float) -> Callable[[int, float, float], list[Edge]]:
    return lambda source, a, b: [Edge(source, POWER, exponent, b / a)]


def targets(
    data: LawData,
    scale_y: float,
    functions: Sequence[str],
    kinds: Sequence[str],
    features: Sequence[int],
) -> list[Target]:
    """The targets that the data and the allowed functions admit; the squared error alone has
    any."""
    if data.loss != "squared":
        return []
    found: list[Target] = []
    y = data.y_N

    def add(
        name: str,
        value_N: Tensor,
        slope_N: Tensor,
        keep: Tensor,
        back: Callable[[Formula], Formula],
    ) -> None:
        keep = keep & torch.isfinite(value_N) & torch.isfinite(slope_N) & (slope_N != 0)
        if int(keep.sum()) < max(8, 0.8 * len(y)):
            return
        rows = keep.nonzero().flatten()
        w = data.w_N[rows] / slope_N[rows] ** 2
        scale = float(value_N[rows].abs().max())
        if not scale > 0 or float(value_N[rows].std()) < 1e-9 * scale:
            return
        x_DN = data.x_DN[:, rows]
        n = data.rows(rows).n
        shrunk = LawData(
            x_DN, value_N[rows] / scale, w / w.mean(), "squared", data.primitives, n, data.work
        )

        def rescaled(formula: Formula) -> Formula:
            grown = replace(
                formula,
                weights=tuple(v * scale for v in formula.weights),
                bias=formula.bias * scale,
            )
            return back(grown)

        found.append(Target(name, shrunk, rescaled))

    positive = y > 0
    if "exp" in functions and POWER in functions:
        add("ln y", torch.log(y), 1.0 / y, positive, _exponential)
    if "reciprocal" in functions:
        same_sign = y * float(y.median().sign()) > 0
        add(
            "1 / y",
            1.0 / y,
            -1.0 / y**2,
            same_sign,
            lambda f: _summed(f, lambda s, a, b: [Edge(s, "reciprocal", a, b)]),
        )
    if POWER in functions:
        add("y squared", y**2, 2.0 * y, positive, lambda f: _summed(f, _power(0.5), signed=True))
    if POWER in functions:
        add(
            "1 / y squared",
            y**-2,
            -2.0 * y**-3,
            positive,
            lambda f: _summed(f, _power(-0.5), signed=True),
        )
    if "square" in functions:
        add(
            "root of y",
            y.sqrt(),
            0.5 / y.sqrt(),
            positive,
            lambda f: _summed(f, lambda s, a, b: [Edge(s, "square", a, b)]),
        )
    if "logistic" in functions:
        p = y * scale_y
        add(
            "log-odds of y",
            torch.logit(p),
            1.0 / (p * (1 - p)),
            (p > 0) & (p < 1),
            lambda f: _summed(f, lambda s, a, b: [Edge(s, "logistic", a, b)]),
        )
    if "product" in kinds and len(features) > 1:
        for d in features:
            x_N = data.x_DN[d]
            away = x_N.abs() > 1e-6
            add(
                f"y over feature {d}",
                y / x_N,
                1.0 / x_N,
                away,
                lambda f, d=d: _summed(
                    f,
                    lambda s, a, b: [
                        Edge(d, "identity", fixed=True),
                        Edge(s, "identity", a, b, fixed=True),
                    ],
                ),
            )
            if "reciprocal" in functions:
                add(
                    f"y times feature {d}",
                    y * x_N,
                    x_N,
                    away,
                    lambda f, d=d: _summed(
                        f,
                        lambda s, a, b: [
                            Edge(d, "reciprocal", fixed=True),
                            Edge(s, "identity", a, b, fixed=True),
                        ],
                    ),
                )
    return found
