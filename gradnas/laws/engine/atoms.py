"""The atoms that formulas grow by: every primitive of every feature, from a grid of constants.

Legend: N points, D features, G atoms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.engine.refit import LawData
from gradnas.laws.formula import (
    HOMOGENEOUS,
    Edge,
    Formula,
    Node,
    canonical,
    edge_value,
)
from gradnas.laws.primitives import (
    EXPONENTS,
    POWER,
    WORDS,
)

ALIKE = 0.97  # correlation of two atoms of a signature from which one stands for both
HERE = -1  # source of an atom's edge that reads the atom's own stem


@dataclass(frozen=True)
class Atom:
    """A function of a feature, or of a small node over features (its stem), with constants to start
    from."""

    edge: Edge
    stem: Node | None = None

    @property
    def signature(self) -> tuple[object, ...]:
        """What it is apart from its constants."""
        stem = (
            None
            if self.stem is None
            else (self.stem.kind, tuple((e.source, e.function) for e in self.stem.edges))
        )
        return (
            stem,
            self.edge.source,
            "sin" if self.edge.function == "cos" else self.edge.function,
        )


@dataclass(frozen=True)
class Atoms:
    """Atoms and their values; those of one signature lie side by side.

    Attributes:
        value_GN: scaled to a largest size of 1.
        sizes: what they were scaled by.
        starts: the first atom of each signature, and last the number of atoms.
        coarse: those atoms of each signature that are not nearly a straight line of another coarse
            one.
        coarse_starts: as `starts`, in `coarse`.
    """

    atoms: tuple[Atom, ...]
    value_GN: Tensor
    sizes: tuple[float, ...]
    starts: np.ndarray
    coarse: np.ndarray
    coarse_starts: np.ndarray

    def size(self, g: int) -> float:
        """Largest absolute value of atom g before scaling."""
        return self.sizes[g]

    def members(self, s: int) -> np.ndarray:
        """The atoms of signature s."""
        return np.arange(self.starts[s], self.starts[s + 1])


def allowed_functions(words: Sequence[str]) -> dict[str, bool]:
    """Function -> whether its `a` and `b` are fitted; of a word and its `linear_` form the latter
    counts."""
    found: dict[str, bool] = {}
    for word in words:
        if word != "none":
            function, fits_a, _ = WORDS.get(word, (word, True, True))
            found[function] = found.get(function, False) or fits_a or function == "identity"
    return found


def make_atoms(
    words: Sequence[str],
    data: LawData,
    scales_D: Sequence[float],
    stems: Sequence[Node | int],
    rich: bool = False,
) -> Atoms:
    """Atoms of features (an index) and stems (a node over features).

    Args:
        words: the primitives of the settings.
        scales_D: unit of each feature: a function without constants is applied to the unscaled
            feature.
        rich: with atoms that are rare, or that a product of others can stand for.
    """
    functions = allowed_functions(words)
    atoms: list[Atom] = []
    values: list[Tensor] = []
    sizes: list[float] = []
    starts = [0]
    for stem in stems:
        if isinstance(stem, Node):
            value = Formula(len(data.x_DN), (stem,), (1.0,))(data.x_DN.T, data.primitives)
            scale, source, node = 1.0, HERE, stem
        else:
            value, scale, source, node = data.x_DN[stem], scales_D[stem], stem, None
        if not bool(torch.isfinite(value).all()):
            continue
        for function, fitted in functions.items():
            if function == "cos" and "sin" in functions and fitted:
                continue
            if function == "tanh" and "logistic" in functions and fitted and not rich:
                continue
            first = len(atoms)
            shifts = node is None and "linear" in words
            for edge in _edges(function, fitted, value, source, data, scale, rich, shifts):
                out = edge_value(edge, value, data.primitives)
                largest = float(out.abs().max())
                if largest > 0 and largest < 1e100:  # false for NaN, too
                    atoms.append(Atom(edge, node))
                    values.append(out / largest)
                    sizes.append(largest)
            if len(atoms) > first:
                starts.append(len(atoms))
    stacked = torch.stack(values) if values else data.x_DN.new_zeros(0, data.x_DN.shape[1])
    coarse, coarse_starts = _coarse(stacked, starts)
    return Atoms(tuple(atoms), stacked, tuple(sizes), np.array(starts), coarse, coarse_starts)


def _coarse(value_GN: Tensor, starts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each signature the first atom, and each whose correlation with those taken before is below
    `ALIKE`."""
    centred = value_GN - value_GN.mean(1, keepdim=True)
    unit = centred / centred.norm(dim=1, keepdim=True).clamp(min=1e-30)
    taken, begins = [], [0]
    for first, last in pairwise(starts):
        alike = ((unit[first:last] @ unit[first:last].T).abs() >= ALIKE).numpy()
        left = np.ones(last - first, dtype=bool)
        for k in range(last - first):
            if left[k]:
                taken.append(first + k)
                left &= ~alike[k]
                left[k] = False
        begins.append(len(taken))
    return np.array(taken, dtype=np.int64), np.array(begins)


def _edges(
    function: str,
    fitted: bool,
    value_N: Tensor,
    source: int,
    data: LawData,
    scale: float,
    rich: bool,
    shifts: bool,
) -> list[Edge]:
    low, high = float(value_N.min()), float(value_N.max())
    if function == "identity":
        # Inside a product the point where a feature counts as zero matters: x - 1 times something.
        offsets = (
            (-0.5 * (low + high), 0.1 * (high - low) - low, 0.1 * (low - high) - high)
            if shifts
            else ()
        )
        return [Edge(source, function, 1.0, b, fixed=True) for b in (0.0, *offsets)]
    if function == POWER:
        powers = [Edge(source, POWER, p) for p in EXPONENTS] if low > 0 else []
        if rich and high > low:
            bases = (0.2 * (high - low) - low, high - 2.0 * low)
            powers += [Edge(source, POWER, p, b) for p in (-1.5, -0.5, 0.5, 1.5) for b in bases]
        return powers
    primitive = data.primitives[function]
    if not fitted:
        return (
            []
            if primitive.positive and low <= 0
            else [Edge(source, function, scale, 0.0, fixed=True)]
        )
    middle, half = 0.5 * (low + high), 0.5 * (high - low)
    if half <= 1e-9 * max(abs(low), abs(high)):
        return []
    if function == "square":
        # The square about a point is a square and a straight line; the point itself matters inside
        # other functions.
        about = [Edge(source, function, 1.0, -middle, fixed=True)] if rich else []
        return [Edge(source, function, fixed=True), *about]
    edges = []
    if function in ("ln", "reciprocal") and low > 0:
        edges.append(Edge(source, function, 1.0, 0.0, fixed=function in HOMOGENEOUS))
    elif function == "reciprocal" and high < 0:
        edges.append(Edge(source, function, 1.0, 0.0, fixed=True))
    for slope in primitive.slopes:
        for center in primitive.centers:
            shift = -(middle + center * half)  # a (x + shift) is zero at the center
            if function in ("ln", "reciprocal"):
                edges.append(Edge(source, function, 1.0, shift, fixed=function in HOMOGENEOUS))
            elif function == "exp":
                edges.append(Edge(source, function, slope / half, 0.0))
            elif function == "sin":
                a = slope / half
                edges.append(Edge(source, function, a, -a * middle + center))
            else:
                a = slope / half
                edges.append(Edge(source, function, a, a * shift))
    return edges


def pair_stems(data: LawData, features: Sequence[int]) -> list[Node]:
    """Squares, sums, differences, products and ratios of two features, the sum and the product of
    three or more.

    Ratios by a feature that is zero somewhere are left out.
    """

    def sum_of(*pairs: tuple[int, float]) -> Node:
        return canonical(Node("sum", tuple(Edge(d, "identity", a) for d, a in pairs)))

    def product_of(*pairs: tuple[int, str]) -> Node:
        return canonical(Node("product", tuple(Edge(d, f) for d, f in pairs)))

    away = {d: bool((data.x_DN[d].abs() > 1e-9).all()) for d in features}
    stems = [canonical(Node("sum", (Edge(d, "square"),))) for d in features]
    for k, i in enumerate(features):
        for j in features[k + 1 :]:
            stems += [sum_of((i, 1.0), (j, 1.0)), sum_of((i, 1.0), (j, -1.0))]
            stems += [product_of((i, "identity"), (j, "identity"))]
            stems += [product_of((i, "identity"), (j, "reciprocal"))] if away[j] else []
            stems += [product_of((j, "identity"), (i, "reciprocal"))] if away[i] else []
    if len(features) >= 3:
        stems.append(sum_of(*((d, 1.0) for d in features)))
        stems.append(product_of(*((d, "identity") for d in features)))
    return stems


# ---- formulas that grow --------------------------------------------------------------------------


def insert(formula: Formula, at: int, nodes: Sequence[Node]) -> Formula:
    """The formula with more nodes before node `at`; they are not in the output."""
    first, more = formula.features + at, len(nodes)

    def moved(node: Node) -> Node:
        return Node(
            node.kind,
            tuple(
                replace(e, source=e.source + more) if e.source >= first else e for e in node.edges
            ),
        )

    later = tuple(moved(node) for node in formula.nodes[at:])
    weights = (*formula.weights[:at], *(0.0 for _ in nodes), *formula.weights[at:])
    return replace(formula, nodes=(*formula.nodes[:at], *nodes, *later), weights=weights)


def with_node(formula: Formula, at: int, node: Node, weight: float | None = None) -> Formula:
    """The formula with another node in the place `at`, and perhaps another output weight."""
    nodes, weights = list(formula.nodes), list(formula.weights)
    nodes[at] = canonical(node)
    if weight is not None:
        weights[at] = weight
    return replace(formula, nodes=tuple(nodes), weights=tuple(weights))


def add_term(formula: Formula, atoms: Sequence[Atom]) -> Formula:
    """With one more term in the output: the product of some atoms."""
    nodes, edges = [], []
    for atom in atoms:
        source = atom.edge.source
        if atom.stem is not None:
            source = formula.features + len(formula.nodes) + len(nodes)
            nodes.append(atom.stem)
        edges.append(replace(atom.edge, source=source))
    if len(edges) == 1 and edges[0].function == "ln":
        edges[0] = replace(edges[0], fixed=True)  # ln a is part of the bias
    nodes.append(canonical(Node("product" if len(edges) > 1 else "sum", tuple(edges))))
    weights = (*formula.weights, *(0.0 for _ in nodes[:-1]), 1.0)
    return replace(formula, nodes=(*formula.nodes, *nodes), weights=weights)


def add_factor(formula: Formula, at: int, atom: Atom, instead: int | None = None) -> Formula:
    """With a node multiplied by an atom, or with the atom in the place of one of its factors.

    A node that is a sum or a ratio of several edges becomes the first factor of a product.
    """
    if atom.stem is not None:
        formula = insert(formula, at, [atom.stem])
        edge = replace(atom.edge, source=formula.features + at)
        at += 1
    else:
        edge = atom.edge
    node = formula.nodes[at]
    if node.kind == "product" or len(node.edges) == 1:
        edges = list(node.edges)
        if instead is None:
            edges = [replace(e, fixed=e.fixed and e.function != "ln") for e in edges]
            edges.append(edge)
        else:
            edges[instead] = edge
        return with_node(formula, at, Node("product", tuple(edges)))
    weight = formula.weights[at]
    inner = Edge(formula.features + at, "identity", fixed=True)
    product = Node("product", (inner, edge))
    grown = insert(formula, at + 1, [product])
    # Whatever read the old node reads the product now.
    old, new = formula.features + at, formula.features + at + 1
    nodes = [
        node
        if j <= at + 1
        else Node(
            node.kind, tuple(replace(e, source=new) if e.source == old else e for e in node.edges)
        )
        for j, node in enumerate(grown.nodes)
    ]
    weights = list(grown.weights)
    weights[at], weights[at + 1] = 0.0, weight
    return replace(grown, nodes=tuple(nodes), weights=tuple(weights))


def add_inside(
    formula: Formula, at: int, edge: int, atom: Atom, amount: float, times_source: bool
) -> Formula:
    """With the input `s` of an edge replaced by `s + amount * atom`, or by `s + amount * s *
    atom`."""
    source = formula.nodes[at].edges[edge].source
    nodes: list[Node] = []
    first = formula.features + at
    read = atom.edge
    if atom.stem is not None:
        nodes.append(atom.stem)
        read = replace(read, source=first)
    if times_source:
        nodes.append(canonical(Node("product", (Edge(source, "identity"), read))))
        added = first + len(nodes) - 1
    elif read.function == "identity":
        added = read.source
    else:
        nodes.append(canonical(Node("sum", (read,))))
        added = first + len(nodes) - 1
    nodes.append(
        Node("sum", (Edge(source, "identity", 1.0, fixed=True), Edge(added, "identity", amount)))
    )
    grown = insert(formula, at, nodes)
    target = at + len(nodes)
    edges = list(grown.nodes[target].edges)
    edges[edge] = replace(edges[edge], source=first + len(nodes) - 1)
    return replace(
        grown,
        nodes=(
            *grown.nodes[:target],
            Node(grown.nodes[target].kind, tuple(edges)),
            *grown.nodes[target + 1 :],
        ),
    )


def structure(formula: Formula) -> tuple[object, ...]:
    """What a formula is apart from its constants: equal for two that refitting would make equal."""
    nodes = tuple(
        (
            node.kind,
            weight != 0.0,
            tuple((e.source, e.function, e.below, e.fixed, e.b != 0.0) for e in node.edges),
        )
        for node, weight in zip(formula.nodes, formula.weights, strict=True)
    )
    return (*nodes, formula.bias != 0.0)
