"""Formulas with something more in them: nodes, terms, factors, additions to an input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from gradnas.laws.engine.atoms import Atom
from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
    as_product,
    canonical,
)


def insert(formula: Formula, at: int, nodes: Sequence[Node]) -> Formula:
    """The formula with more nodes before node `at`; they are not in the output."""
    # What is read from there on stands `len(nodes)` places later.
    first_moved = formula.features + at
    later: list[Node] = []
    for node in formula.nodes[at:]:
        edges: list[Edge] = []
        for edge in node.edges:
            moved = len(nodes) if edge.source >= first_moved else 0
            edges.append(replace(edge, source=edge.source + moved))
        later.append(Node(node.kind, tuple(edges)))
    not_in_output = [0.0] * len(nodes)
    return replace(
        formula,
        nodes=(*formula.nodes[:at], *nodes, *later),
        weights=(*formula.weights[:at], *not_in_output, *formula.weights[at:]),
    )


def with_node(formula: Formula, at: int, node: Node) -> Formula:
    """The formula with another node in the place `at`."""
    return replace(formula, nodes=(*formula.nodes[:at], node, *formula.nodes[at + 1 :]))


def add_term(formula: Formula, atoms: Sequence[Atom]) -> Formula:
    """With one more term in the output: the product of some atoms."""
    nodes: list[Node] = []
    edges: list[Edge] = []
    for atom in atoms:
        source = atom.edge.source
        if atom.stem is not None:
            # A stem becomes a node of its own, before the one that reads it.
            source = formula.features + len(formula.nodes) + len(nodes)
            nodes.append(atom.stem)
        edges.append(replace(atom.edge, source=source))
    if len(edges) == 1 and edges[0].function == "ln":
        edges[0] = replace(edges[0], fixed=True)  # ln a is part of the bias
    stems_not_in_output = [0.0] * len(nodes)
    nodes.append(as_product(edges))
    return replace(
        formula,
        nodes=(*formula.nodes, *nodes),
        weights=(*formula.weights, *stems_not_in_output, 1.0),
    )


def add_factor(formula: Formula, at: int, atom: Atom, instead: int | None = None) -> Formula:
    """With a node multiplied by an atom, or with the atom in the place of one of its factors.

    A node that is a sum or a ratio of several edges becomes the first factor of a product.
    """
    factor = atom.edge
    if atom.stem is not None:
        formula = insert(formula, at, [atom.stem])
        factor = replace(factor, source=formula.features + at)
        at += 1  # the stem stands before the node now
    node = formula.nodes[at]
    if node.kind != "product" and len(node.edges) > 1:
        return _multiplied(formula, at, factor)
    edges = list(node.edges)
    if instead is not None:
        edges[instead] = factor
    else:
        # In a product ln a is no part of the bias any more, so a is fitted again.
        edges = [replace(edge, fixed=edge.fixed and edge.function != "ln") for edge in edges]
        edges.append(factor)
    return with_node(formula, at, canonical(Node("product", tuple(edges))))


def _multiplied(formula: Formula, at: int, factor: Edge) -> Formula:
    """With a product of node `at` and a factor, in the place of the node wherever it is read."""
    # Places among features and nodes, as edges count their sources.
    node_place = formula.features + at
    product_place = node_place + 1
    product = Node("product", (Edge(node_place, "identity", fixed=True), factor))
    grown = insert(formula, at + 1, [product])
    nodes = list(grown.nodes[: at + 2])  # up to the product, which goes on reading the node itself
    for node in grown.nodes[at + 2 :]:
        edges: list[Edge] = []
        for edge in node.edges:
            reads_node = edge.source == node_place
            edges.append(replace(edge, source=product_place) if reads_node else edge)
        nodes.append(Node(node.kind, tuple(edges)))
    weights = list(grown.weights)
    weights[at] = 0.0
    weights[at + 1] = formula.weights[at]
    return replace(grown, nodes=tuple(nodes), weights=tuple(weights))


def add_inside(
    formula: Formula, at: int, edge: int, atom: Atom, amount: float, times_source: bool
) -> Formula:
    """With more in the input `s` of an edge: `s + amount * atom`, or `s + amount * s * atom`."""
    source = formula.nodes[at].edges[edge].source
    first_new = formula.features + at  # what edges call the first of the new nodes
    nodes: list[Node] = []
    addition = atom.edge
    if atom.stem is not None:
        nodes.append(atom.stem)
        addition = replace(addition, source=first_new)
    if times_source:
        nodes.append(as_product([Edge(source, "identity"), addition]))
        added = first_new + len(nodes) - 1
    elif addition.function == "identity":
        # A plain input needs no node: the sum reads it with the amount as coefficient.
        added = addition.source
    else:
        nodes.append(as_product([addition]))
        added = first_new + len(nodes) - 1
    # `s` itself keeps the coefficient 1: its scale is that of the edge.
    plain = Edge(source, "identity", 1.0, fixed=True)
    nodes.append(Node("sum", (plain, Edge(added, "identity", amount))))
    grown = insert(formula, at, nodes)

    # The edge reads the sum now.
    at += len(nodes)
    node = grown.nodes[at]
    edges = list(node.edges)
    edges[edge] = replace(edges[edge], source=first_new + len(nodes) - 1)
    return with_node(grown, at, Node(node.kind, tuple(edges)))


def structure(formula: Formula) -> tuple[object, ...]:
    """What a formula is apart from its constants: equal for two that refitting would make equal."""
    parts: list[object] = []
    for node, weight in zip(formula.nodes, formula.weights, strict=True):
        edges: list[object] = []
        for edge in node.edges:
            has_b = edge.b != 0.0
            edges.append((edge.source, edge.function, edge.below, edge.fixed, has_b))
        parts.append((node.kind, weight != 0.0, tuple(edges)))
    parts.append(formula.bias != 0.0)
    return tuple(parts)
