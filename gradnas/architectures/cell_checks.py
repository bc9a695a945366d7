"""What a cell of a genotype must be: every edge comes from an earlier state, and the concat names
nodes."""

from __future__ import annotations

from typing import Any

from gradnas.architectures.base import type_word


def check_cell(name: str, edges: object, concat: object) -> None:
    """ValueError unless these edges and this concat make a cell of that name.

    A conv cell has two edges for each of its nodes, numbered from 2 on: its states 0 and 1 are the
    inputs. A recurrent cell has one for each of its nodes, numbered from 1 on: its state 0 is s0.
    """
    edges = checked_tuple(edges, f"{name} cell: edges", "(operation, predecessor) pairs")
    concat = checked_tuple(concat, f"{name} cell: concat", "node indices")
    is_conv = name != "recurrent"
    if not edges:
        needed = "two" if is_conv else "one"
        raise ValueError(f"{name} cell: it has no edges; it needs {needed} per node")
    if is_conv and len(edges) % 2:
        raise ValueError(f"{name} cell: {len(edges)} edges are an odd number; every node needs two")
    for number, edge in enumerate(edges):
        if is_conv:
            # The n-th node (from 0) follows two inputs and n nodes: the states 0..n+1 precede it.
            node = number // 2
            last_state = node + 1
        else:
            node = number + 1
            last_state = number
        _check_edge(f"{name} cell, node {node}, edge {number}", edge, last_state)
    if is_conv:
        first_node = 2
        last_node = len(edges) // 2 + 1
    else:
        first_node = 1
        last_node = len(edges)
    _check_concat(f"{name} cell", concat, first_node, last_node)


def checked_tuple(value: object, what: str, of: str) -> tuple[Any, ...]:
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


def _check_concat(where: str, concat: tuple[Any, ...], first_node: int, last_node: int) -> None:
    nodes = f"the nodes {first_node}..{last_node}"
    if not concat:
        raise ValueError(f"{where}: concat is empty; it needs at least one of {nodes}")
    for index in concat:
        if type(index) is not int or not first_node <= index <= last_node:
            raise ValueError(f"{where}: concat index {index!r} is not one of {nodes}")
    if len(set(concat)) < len(concat):
        raise ValueError(f"{where}: concat {list(concat)} names a node twice")
