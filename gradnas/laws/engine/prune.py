"""Shorter formulas from longer ones: pruning by description length, and constants rounded as far as
the data allow.

Legend: N points, K constants.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from gradnas.laws.engine.atoms import structure
from gradnas.laws.engine.batch import FormulaBatch
from gradnas.laws.engine.refit import (
    EXACT,
    Fitted,
    LawData,
    _point,
    description_length,
    mean_loss,
    refit,
)
from gradnas.laws.formula import (
    HOMOGENEOUS,
    Edge,
    Formula,
    Node,
    canonical,
)
from gradnas.laws.primitives import POWER

# What a function turns into when its constants run off: the simpler candidates that are tried in
# its place.
SIMPLER = {
    POWER: ("identity", "square", "reciprocal"),
    "logistic": ("identity", "exp"),
    "tanh": ("identity", "exp"),
    "softplus": ("identity", "exp", "relu"),
    "softminus": ("identity", "exp"),
    "exp": ("identity",),
    "ln": ("identity",),
    "sin": ("identity",),
    "cos": ("identity",),
    "square": ("identity",),
    "reciprocal": ("identity",),
}
NICE_EXPONENTS = (-3.0, -2.0, -1.5, -1.0, -0.5, 0.5, 1.5, 2.0, 3.0, 4.0)


def without_dead_nodes(formula: Formula) -> Formula:
    """Without the nodes that the output does not depend on, and with lone plain edges read
    through."""
    D = formula.features
    alive = [weight != 0.0 for weight in formula.weights]
    for j in reversed(range(len(formula.nodes))):
        if alive[j]:
            for edge in formula.nodes[j].edges:
                if edge.source >= D:
                    alive[edge.source - D] = True
    place: dict[int, int] = {d: d for d in range(D)}
    nodes: list[Node] = []
    weights: list[float] = []
    bias = formula.bias
    for j, node in enumerate(formula.nodes):
        if not alive[j]:
            continue
        edges = tuple(replace(edge, source=place[edge.source]) for edge in node.edges)
        lone = edges[0] if len(edges) == 1 else None
        if lone and lone.function == "identity" and lone.a == 1.0:
            weight = formula.weights[j]
            if lone.b == 0.0 and weight == 0.0:
                place[D + j] = lone.source
                continue
            used = any(
                edge.source == D + j for later in formula.nodes[j + 1 :] for edge in later.edges
            )
            if not used and lone.source >= D and weights[lone.source - D] == 0.0:
                weights[lone.source - D] = weight
                bias += weight * lone.b
                continue
        place[D + j] = D + len(nodes)
        nodes.append(Node(node.kind, edges))
        weights.append(formula.weights[j])
    return Formula(D, tuple(nodes), tuple(weights), bias)


def _swap(formula: Formula, j: int, edges: Sequence[Edge]) -> Formula:
    nodes = list(formula.nodes)
    node = Node(nodes[j].kind, tuple(edges))
    below = [edge.below for edge in node.edges]
    if node.kind == "ratio" and len(below) > 0 and not any(below):
        node = Node("sum", node.edges)
    nodes[j] = canonical(node)
    return without_dead_nodes(replace(formula, nodes=tuple(nodes)))


def shorter(formula: Formula, functions: Sequence[str]) -> list[Formula]:
    """Everything that has one part less: a term, an edge, a constant, or a simpler function."""
    found: list[Formula] = []
    if formula.bias != 0.0 and formula.nodes:
        found.append(replace(formula, bias=0.0))
    outputs = [j for j, weight in enumerate(formula.weights) if weight != 0.0]
    for j in outputs:
        weights = list(formula.weights)
        weights[j] = 0.0
        if len(outputs) > 1 or formula.bias != 0.0:
            found.append(without_dead_nodes(replace(formula, weights=tuple(weights))))
    for j, node in enumerate(formula.nodes):
        for e, edge in enumerate(node.edges):
            rest = [other for k, other in enumerate(node.edges) if k != e]
            if rest and not (node.kind == "ratio" and all(other.below for other in rest)):
                found.append(_swap(formula, j, rest))

            def put(new: Edge, j: int = j, e: int = e, node: Node = node) -> None:
                found.append(
                    _swap(
                        formula, j, [new if k == e else other for k, other in enumerate(node.edges)]
                    )
                )

            if edge.b != 0.0:
                put(replace(edge, b=0.0))
            for simpler in SIMPLER.get(edge.function, ()):
                if simpler in functions:
                    put(
                        Edge(
                            edge.source,
                            simpler,
                            edge.a if simpler == "exp" else 1.0,
                            edge.b,
                            edge.below,
                        )
                    )
            if edge.function == POWER and not edge.fixed:
                near = sorted(NICE_EXPONENTS, key=lambda p: abs(p - edge.a))[:2]
                for exponent in near:
                    put(replace(edge, a=exponent, fixed=True))
    return found


def prune(
    items: Sequence[Fitted],
    data: LawData,
    functions: Sequence[str],
    spread: float,
    rounds: int = 12,
) -> list[list[Fitted]]:
    """Greedy backward elimination of each formula by description length; all of them are refitted
    together.

    Returns:
        For every formula the way that it went, the last being the shortest.
    """
    ways = [[item] for item in items]
    lengths = [description_length(item, data, spread) for item in items]
    active = set(range(len(items)))
    for _ in range(rounds):
        jobs: list[tuple[int, Formula]] = []
        for i in sorted(active):
            seen: set[object] = set()
            for candidate in shorter(ways[i][-1].formula, functions):
                key = structure(candidate)
                if key not in seen:
                    seen.add(key)
                    jobs.append((i, candidate))
        if not jobs:
            break
        results = refit([formula for _, formula in jobs], data, steps=12)
        best: dict[int, tuple[float, Fitted]] = {}
        for (i, _), result in zip(jobs, results, strict=True):
            length = description_length(result, data, spread)
            if length < best.get(i, (lengths[i], result))[0]:
                best[i] = (length, result)
        active = set(best)
        for i, (length, result) in best.items():
            lengths[i] = length
            ways[i].append(result)
        if not best:
            break
    return ways


# ---- units ---------------------------------------------------------------------------------------


def unscaled(formula: Formula, scales_D: Sequence[float], scale_y: float) -> Formula:
    """The formula for features `x * scale` and a target `y * scale_y`: the same law in the units of
    the data."""
    D = formula.features
    sizes = {
        d: 1.0 / scale for d, scale in enumerate(scales_D)
    }  # what a source was, as a multiple of what it is now
    place = {d: d for d in range(D)}
    nodes: list[Node] = []
    weights: list[float] = []
    moved = 0.0  # logarithms of scales, which become part of the bias

    def put(node: Node, weight: float) -> int:
        nodes.append(node)
        weights.append(weight)
        return D + len(nodes) - 1

    for j, (node, weight) in enumerate(zip(formula.nodes, formula.weights, strict=True)):
        factor = node.kind == "product" or len(node.edges) == 1
        gain = 1.0
        edges: list[Edge] = []
        for edge in node.edges:
            h = sizes[edge.source]
            a = edge.a * h
            edge = replace(edge, source=place[edge.source])
            if edge.function == POWER:
                power = replace(edge, b=edge.b / h)
                if factor:
                    edges.append(power)
                    gain *= h**edge.a
                else:  # its scale needs an edge of its own
                    source = put(Node("sum", (replace(power, below=False),)), 0.0)
                    edges.append(Edge(source, "identity", h**edge.a, 0.0, edge.below))
            elif factor and edge.function in HOMOGENEOUS:
                sign = -1.0 if edge.function == "identity" and a < 0 else 1.0
                a *= sign
                edges.append(replace(edge, a=sign, b=edge.b / a, fixed=True))
                gain *= {"identity": a, "square": a * a, "reciprocal": 1.0 / a}[edge.function]
            elif (
                factor
                and edge.function == "ln"
                and len(node.edges) == 1
                and edge.fixed
                and weight != 0.0
                and a > 0
            ):
                edges.append(replace(edge, a=1.0, b=edge.b / a))
                moved += weight * math.log(a)
            else:
                edges.append(replace(edge, a=a))
        if not factor and all(edge.function == "identity" for edge in edges):
            first = {
                below: next((abs(e.a) for e in edges if e.below is below), 1.0)
                for below in (False, True)
            }
            edges = [replace(e, a=e.a / first[e.below], b=e.b / first[e.below]) for e in edges]
            gain = first[False] / (first[True] if node.kind == "ratio" else 1.0)
        place[D + j] = put(Node(node.kind, tuple(edges)), weight * gain * scale_y)
        sizes[D + j] = gain
    return Formula(D, tuple(nodes), tuple(weights), (formula.bias + moved) * scale_y)


# ---- digits --------------------------------------------------------------------------------------

_Place = tuple[str, int, int]


def _places(formula: Formula) -> list[tuple[_Place, float]]:
    """The fitted constants, in the order of the columns of the normal equations."""
    inner: list[tuple[_Place, float]] = []
    for part in ("a", "b"):
        for j, node in enumerate(formula.nodes):
            for e, edge in enumerate(node.edges):
                if (part == "a" and not edge.fixed) or (part == "b" and edge.b != 0.0):
                    inner.append(((part, j, e), getattr(edge, part)))
    outer = [(("weight", j, 0), w) for j, w in enumerate(formula.weights) if w != 0.0]
    bias = [(("bias", 0, 0), formula.bias)] if formula.bias != 0.0 else []
    return [*inner, *outer, *bias]


def _replaced(formula: Formula, values: dict[_Place, float]) -> Formula:
    nodes = []
    for j, node in enumerate(formula.nodes):
        edges = [
            replace(edge, a=values.get(("a", j, e), edge.a), b=values.get(("b", j, e), edge.b))
            for e, edge in enumerate(node.edges)
        ]
        nodes.append(Node(node.kind, tuple(edges)))
    weights = tuple(values.get(("weight", j, 0), w) for j, w in enumerate(formula.weights))
    return Formula(
        formula.features, tuple(nodes), weights, values.get(("bias", 0, 0), formula.bias)
    )


def rounded(fitted: Fitted, data: LawData, digits: int = 10) -> Fitted:
    """With each constant rounded to as few significant digits as a description length of its digits
    asks for.

    A digit costs ln 10 and the fit `n/2 ln MSE` (both times two). Constants are rounded one after
    the other, the best determined last, and those not rounded yet make up for the change, by the
    quadratic model of the loss at its optimum; the loss of the result is computed, not modelled.
    """
    formula = fitted.formula
    batch = FormulaBatch([formula], data.primitives)
    state = _point(batch, batch.theta(), batch.weight, data)
    places = _places(formula)
    P = int(batch.slot_used[0].sum())
    J = batch.source.shape[1]
    kept = [
        *range(P),
        *(state.theta_CP.shape[1] + j for j in range(J + 1) if bool(batch.in_output[0, j])),
    ]
    matrix = state.matrix[0][kept][:, kept]
    n = data.n
    loss = max(float(state.loss_C[0]), EXACT * data.spread)
    unit = (
        1.0 / loss if data.loss == "squared" else 1.0
    )  # from the change of the summed loss to that of n ln MSE
    current = torch.tensor([value for _, value in places], dtype=torch.float64)
    open_ = list(range(len(places)))
    if not places or not bool(torch.isfinite(matrix).all()):
        return fitted
    scale = matrix.diagonal().clamp(min=1e-200).rsqrt()
    matrix = matrix * scale.unsqueeze(0) * scale.unsqueeze(1) + 1e-12 * torch.eye(
        len(places), dtype=matrix.dtype
    )
    done: dict[_Place, float] = {}
    while open_:
        index = torch.tensor(open_)
        inverse = torch.linalg.pinv(matrix[index][:, index], hermitian=True)
        deviation = inverse.diagonal().clamp(min=1e-300).sqrt() * scale[index]
        relative = deviation / current[index].abs().clamp(min=1e-300)
        pick = int(
            relative.argmax()
        )  # the least certain first: the others can still make up for it
        k = open_[pick]
        value = float(current[k])
        options = []
        if places[k][0][0] in ("b", "bias"):  # none at all: an offset that the data do not show
            options.append((unit * (value / float(deviation[pick])) ** 2, 0.0))
        for d in range(1, digits + 1):
            candidate = float(f"{value:.{d - 1}e}")
            cost = unit * ((candidate - value) / float(deviation[pick])) ** 2 + 2.0 * d * math.log(
                10.0
            )
            options.append((cost, candidate))
        full = (
            2.0 * math.log(10.0) * min(15.0, max(digits, 1))
            if loss <= 2 * EXACT * data.spread
            else math.inf
        )
        cost, chosen = min(options)
        if cost > full:
            chosen = value
        change = (chosen - value) / float(scale[k])
        rest = [i for i in range(len(open_)) if i != pick]
        if rest:
            follow = inverse[rest, pick] / inverse[pick, pick] * change
            current[index[rest]] += follow * scale[index[rest]]
        current[k] = chosen
        done[places[k][0]] = chosen
        open_.remove(k)
    result = _replaced(formula, done)
    eta = result(data.x_DN.T, data.primitives).unsqueeze(0)
    new = float(mean_loss(eta, data)[0])
    rise = (
        n * (math.log(max(new, EXACT * data.spread)) - math.log(loss))
        if data.loss == "squared"
        else 2 * n * (new - loss)
    )
    if not math.isfinite(new) or rise > 5.0 * len(places):
        return fitted
    return Fitted(_mark_ones(result), new)


def _mark_ones(formula: Formula) -> Formula:
    """A coefficient that came out as 1 or -1 is no constant any more."""
    nodes = []
    for node in formula.nodes:
        edges = [
            replace(edge, fixed=edge.fixed or (edge.function != POWER and abs(edge.a) == 1.0))
            for edge in node.edges
        ]
        nodes.append(Node(node.kind, tuple(edges)))
    return replace(formula, nodes=tuple(nodes))


def pareto(items: Sequence[Fitted], error: Callable[[Fitted], float]) -> list[Fitted]:
    """Those that no simpler one equals, by rising complexity; errors below `EXACT` of the spread
    count as equal."""
    ordered = sorted(items, key=lambda f: (f.formula.constants + f.formula.operations, error(f)))
    kept: list[Fitted] = []
    lowest = math.inf
    for item in ordered:
        if error(item) < lowest * (1.0 - 1e-9):
            kept.append(item)
            lowest = error(item)
    return kept
