"""Shorter formulas from longer ones: backward elimination by description length."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch

from gradnas.laws.engine.data import EXACT, LawData, Work
from gradnas.laws.engine.edits import structure
from gradnas.laws.engine.levels import depth
from gradnas.laws.engine.refit import Fitted, description_length, refit
from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
    canonical,
)
from gradnas.laws.primitives import POWER, PRIMITIVES, Primitive

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
SHARE_OF_EXACT = 0.4  # the same, where a formula is a law to rounding
SHARE = 0.15  # of the work that a search may do, after which no further round begins
STEPS = 12  # of refitting candidates
MOST = 1.1  # times the work that is allowed: a round that would go beyond does not begin
KEPT = 8  # candidates of a formula that are fitted to the end
NICE_EXPONENTS = (-3.0, -2.0, -1.5, -1.0, -0.5, 0.5, 1.5, 2.0, 3.0, 4.0)


def without_dead_nodes(formula: Formula) -> Formula:
    """Without the nodes that the output does not depend on; lone plain edges are read through."""
    D = formula.features
    alive = _alive(formula)
    place: dict[int, int] = {d: d for d in range(D)}
    nodes: list[Node] = []
    weights: list[float] = []
    bias = formula.bias
    for j, node in enumerate(formula.nodes):
        if not alive[j]:
            continue
        weight = formula.weights[j]
        edges = tuple(replace(edge, source=place[edge.source]) for edge in node.edges)
        lone = edges[0] if len(edges) == 1 else None
        if lone and lone.function == "identity" and lone.a == 1.0:
            if lone.b == 0.0 and weight == 0.0:
                place[D + j] = lone.source  # whoever read the node reads its input instead
                continue
            reads_a_node = lone.source >= D
            # In the output the node stands for the one that it reads, which takes over its weight.
            if reads_a_node and weights[lone.source - D] == 0.0 and not _is_read(formula, j):
                weights[lone.source - D] = weight
                bias += weight * lone.b
                continue
        place[D + j] = D + len(nodes)
        nodes.append(Node(node.kind, edges))
        weights.append(weight)
    return Formula(D, tuple(nodes), tuple(weights), bias)


def _alive(formula: Formula) -> list[bool]:
    """Whether the output depends on a node, node by node."""
    D = formula.features
    alive = [weight != 0.0 for weight in formula.weights]
    # Later nodes first: a node is alive if one that reads it is.
    for j in reversed(range(len(formula.nodes))):
        if not alive[j]:
            continue
        for edge in formula.nodes[j].edges:
            if edge.source >= D:
                alive[edge.source - D] = True
    return alive


def _is_read(formula: Formula, j: int) -> bool:
    """Whether a later node reads node j."""
    for later in formula.nodes[j + 1 :]:
        if any(edge.source == formula.features + j for edge in later.edges):
            return True
    return False


def _with_edges(formula: Formula, j: int, edges: Sequence[Edge]) -> Formula:
    """With other edges into node j; a ratio without a denominator becomes a sum."""
    kind = formula.nodes[j].kind
    if kind == "ratio" and edges and not any(edge.below for edge in edges):
        kind = "sum"
    nodes = list(formula.nodes)
    nodes[j] = canonical(Node(kind, tuple(edges)))
    return without_dead_nodes(replace(formula, nodes=tuple(nodes)))


def _straight(edge: Edge, primitives: Mapping[str, Primitive]) -> float:
    """Where the tangent of an edge's function is zero, as the `b` of a plain input `x + b`.

    A function whose constants run off is nearly a straight line where the data are: that line's
    zero has nothing to do with the function's own `b`. The tangent is that in the middle of
    features of size 1.
    """
    if edge.function == POWER or edge.a == 0.0:
        return edge.b
    primitive = primitives[edge.function]
    middle = torch.tensor([edge.b + 0.5 * edge.a], dtype=torch.float64)
    value = primitive.function(middle)
    slope = primitive.slope(middle, value)
    zero = float((middle - value / slope)[0])  # of the tangent, as a value of a x + b
    b = (edge.b - zero) / edge.a
    return b if math.isfinite(b) else edge.b


def _simpler_edges(
    edge: Edge, functions: Sequence[str], primitives: Mapping[str, Primitive]
) -> list[Edge]:
    """Edges of one constant less or a simpler function, and exponents fixed at a nice number."""
    simpler_edges: list[Edge] = []
    if edge.b != 0.0:
        simpler_edges.append(replace(edge, b=0.0))
    for simpler in SIMPLER.get(edge.function, ()):
        if simpler in functions:
            keeps_slope = simpler in ("exp", "relu")
            a = edge.a if keeps_slope else 1.0
            b = _straight(edge, primitives) if simpler == "identity" else edge.b
            simpler_edges.append(Edge(edge.source, simpler, a, b, edge.below))
    if edge.function == POWER and not edge.fixed:
        nearest = sorted(NICE_EXPONENTS, key=lambda exponent: abs(exponent - edge.a))
        for exponent in nearest[:2]:
            simpler_edges.append(replace(edge, a=exponent, fixed=True))
    return simpler_edges


def shorter(
    formula: Formula,
    functions: Sequence[str],
    primitives: Mapping[str, Primitive] = PRIMITIVES,
) -> list[Formula]:
    """Everything that has one part less: a term, an edge, a constant, or a simpler function."""
    candidates: list[Formula] = []
    if formula.bias != 0.0 and formula.nodes:
        candidates.append(replace(formula, bias=0.0))
    if len(formula.outputs) > 1 or formula.bias != 0.0:
        for j in formula.outputs:
            weights = list(formula.weights)
            weights[j] = 0.0
            candidates.append(without_dead_nodes(replace(formula, weights=tuple(weights))))
    for j, node in enumerate(formula.nodes):
        for e, edge in enumerate(node.edges):
            rest = [*node.edges[:e], *node.edges[e + 1 :]]
            # A ratio keeps something above; without anything below it turns into a sum.
            nothing_above = node.kind == "ratio" and all(other.below for other in rest)
            if rest and not nothing_above:
                candidates.append(_with_edges(formula, j, rest))
            for simpler in _simpler_edges(edge, functions, primitives):
                edges = [*node.edges[:e], simpler, *node.edges[e + 1 :]]
                candidates.append(_with_edges(formula, j, edges))
    return candidates


def prune(
    items: Sequence[Fitted],
    data: LawData,
    functions: Sequence[str],
    spread: float,
    rounds: int = 12,
) -> list[list[Fitted]]:
    """Greedy backward elimination of each formula by description length.

    All formulas' candidates of a round are refitted together.

    Returns:
        For every formula the way that it went, the last being the shortest.
    """
    # A round refits the candidates of all formulas at once: batches are what makes it fast.
    ways = [[item] for item in items]
    lengths = [description_length(item, data, spread) for item in items]
    active = list(range(len(items)))
    is_exact = any(item.loss < EXACT * spread for item in items)
    share = SHARE_OF_EXACT if is_exact else SHARE
    # What is left when the work allowed is done gets the same, once.
    most_work = min(data.work.spent, data.work.limit) + share * data.work.limit
    for _ in range(rounds):
        jobs: list[tuple[int, Formula]] = []
        if data.work.ended or data.work.spent > most_work:
            break
        for i in active:
            candidates = shorter(ways[i][-1].formula, functions, data.primitives)
            for candidate in _different(candidates):
                jobs.append((i, candidate))
        if not jobs or data.work.spent + _work_of(jobs, data) > MOST * data.work.limit:
            break
        # Most candidates show in a few steps that they lead nowhere.
        results = refit(
            [formula for _, formula in jobs],
            data,
            steps=STEPS,
            groups=[i for i, _ in jobs],
            keep=KEPT,
        )
        best: dict[int, Fitted] = {}
        for (i, _), result in zip(jobs, results, strict=True):
            length = description_length(result, data, spread)
            if length < lengths[i]:
                lengths[i] = length
                best[i] = result
        if not best:
            break
        for i, result in best.items():
            ways[i].append(result)
        active = sorted(best)  # what has found nothing shorter is done
    return ways


def _work_of(jobs: Sequence[tuple[int, Formula]], data: LawData) -> float:
    """What refitting some formulas takes, about: most of them a few steps, some of them all."""
    levels = max(depth(formula) for _, formula in jobs)
    columns = sum(formula.constants + len(formula.nodes) for _, formula in jobs)
    work = Work()
    work.descent(levels, columns, len(data.y_N))
    return 0.7 * STEPS * work.spent


def _different(formulas: Sequence[Formula]) -> list[Formula]:
    """The first of each structure."""
    by_structure: dict[object, Formula] = {}
    for formula in formulas:
        by_structure.setdefault(structure(formula), formula)
    return list(by_structure.values())


def pareto(items: Sequence[Fitted], error: Callable[[Fitted], float]) -> list[Fitted]:
    """Those that no simpler one equals, by rising complexity."""
    ordered = sorted(items, key=lambda item: (item.formula.complexity, error(item)))
    kept: list[Fitted] = []
    lowest = math.inf
    for item in ordered:
        if error(item) < lowest * (1.0 - 1e-9):
            kept.append(item)
            lowest = error(item)
    return kept
