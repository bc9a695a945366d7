"""The two forms of cells, and what a cell must be: edges from earlier states, a concat of nodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from gradnas.architectures.base import type_word

GenotypeKind: TypeAlias = Literal["conv", "recurrent"]


@dataclass(frozen=True)
class CellForm:
    """How the cells of one kind of genotype are numbered and written.

    Attributes:
        kind: its name.
        space: the class of the spaces that it is of.
        concats: cell -> the field of the original text that holds its concat; the field of its
            edges has the cell's name.
        inputs: states that a cell begins with, and just as many edges lead into every node. The
            nodes have the numbers that follow.
        counted_from: the number of the first node in errors.
    """

    kind: GenotypeKind
    space: str
    concats: Mapping[str, str]
    inputs: int
    counted_from: int

    def nodes(self, num_edges: int) -> range:
        """The numbers of the nodes of a cell with so many edges."""
        return range(self.inputs, self.inputs + num_edges // self.inputs)


CONV = CellForm(
    kind="conv",
    space="ConvCell",
    concats={"normal": "normal_concat", "reduce": "reduce_concat"},
    inputs=2,  # c_{k-2} and c_{k-1}
    counted_from=0,
)
RECURRENT = CellForm(
    kind="recurrent",
    space="RecurrentCell",
    concats={"recurrent": "concat"},
    inputs=1,  # s0
    counted_from=1,
)
CELL_FORMS = (CONV, RECURRENT)


def check_cell(
    form: CellForm, name: str, edges: object, concat: object, per_node: object = None
) -> None:
    """ValueError unless these edges and this concat make a cell of the form.

    Args:
        per_node: edges into every node; None: as many as the form says.
    """
    edges = checked_tuple(edges, f"{name} cell: edges", "(operation, predecessor) pairs")
    concat = checked_tuple(concat, f"{name} cell: concat", "node indices")
    if not edges:
        needed = ("one", "two")[form.inputs - 1]
        raise ValueError(f"{name} cell: it has no edges; it needs {needed} per node")
    counts = _counts(form, name, edges, per_node)
    number = 0
    for earlier_nodes, count in enumerate(counts):
        node = form.counted_from + earlier_nodes
        last_state = form.inputs + earlier_nodes - 1
        for _ in range(count):
            _check_edge(f"{name} cell, node {node}, edge {number}", edges[number], last_state)
            number += 1
    _check_concat(f"{name} cell", concat, range(form.inputs, form.inputs + len(counts)))


def _counts(
    form: CellForm, name: str, edges: tuple[object, ...], per_node: object
) -> tuple[int, ...]:
    """Edges into every node. ValueError where these cannot be their numbers."""
    if per_node is None:
        if len(edges) % form.inputs:
            raise ValueError(
                f"{name} cell: {len(edges)} edges are an odd number; every node needs two, or the "
                "edges a list for each node: [[('skip_connect', 0)], ...]"
            )
        return (form.inputs,) * (len(edges) // form.inputs)
    counts: list[int] = []
    if form is not CONV:
        raise ValueError(f"{name} cell: every node of a {form.kind} cell has one edge")
    for count in checked_tuple(per_node, f"{name} cell: inputs_per_node", "whole numbers"):
        # isinstance would let True pass
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise ValueError(f"{name} cell: every node needs an edge at least, not {count!r}")
        counts.append(count)
    if sum(counts) != len(edges):
        raise ValueError(
            f"{name} cell: inputs_per_node {counts} speaks of {sum(counts)} edges, but there "
            f"are {len(edges)}"
        )
    return tuple(counts)


def checked_tuple(value: object, what: str, of: str) -> tuple[object, ...]:
    """`value`, if it is a tuple. ValueError otherwise."""
    if not isinstance(value, tuple):
        raise ValueError(f"{what} must be a tuple of {of}, not {type_word(value)}")
    return value


def _check_edge(where: str, edge: object, last_state: int) -> None:
    """`last_state` is the largest index of a state that exists before the edge's node."""
    if not (isinstance(edge, tuple) and len(edge) == 2):
        raise ValueError(f"{where}: {edge!r} is not an (operation, predecessor) pair")
    operation, predecessor = edge
    if not isinstance(operation, str) or not operation:
        raise ValueError(f"{where}: the operation must be a non-empty string, not {operation!r}")
    if type(predecessor) is not int:  # isinstance would let True pass
        raise ValueError(f"{where}: the predecessor must be an int, not {predecessor!r}")
    if not 0 <= predecessor <= last_state:
        raise ValueError(
            f"{where}: predecessor {predecessor} does not precede it; it must be in 0..{last_state}"
        )


def _check_concat(where: str, concat: tuple[object, ...], nodes: range) -> None:
    known = f"the nodes {nodes[0]}..{nodes[-1]}"
    if not concat:
        raise ValueError(f"{where}: concat is empty; it needs at least one of {known}")
    for index in concat:
        if type(index) is not int or index not in nodes:
            raise ValueError(f"{where}: concat index {index!r} is not one of {known}")
    if len(set(concat)) < len(concat):
        raise ValueError(f"{where}: concat {list(concat)} names a node twice")
