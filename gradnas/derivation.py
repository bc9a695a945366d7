"""From tables of operation strengths to discrete choices; pure functions.

Legend: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def best_operation(strength_O: Tensor, excluded: Sequence[int] = ()) -> int:
    """Index of the strongest operation; ties go to the lowest index.

    Raises:
        ValueError: every operation is excluded, or a strength is not a number.
    """
    values = _values(strength_O)
    options = [k for k in range(len(values)) if k not in excluded]
    if not options:
        raise ValueError("there is no operation to choose: all are excluded")
    return max(options, key=lambda k: (values[k], -k))


def top_edges(
    strength_EO: Tensor, predecessors: Sequence[int], excluded: Sequence[int] = (), keep: int = 2
) -> list[tuple[int, int]]:
    """The rule of DARTS for every intermediate node of a cell.

    The strength of an edge is that of its best operation outside `excluded` (`none`); each node keeps its `keep`
    strongest edges, in descending order of strength, ties to the lower predecessor; the operation of a kept edge is its
    best one. `none` keeps its share of the softmax, so edges are compared by probability, not by alpha. Source: DARTS
    (arXiv 1806.09055), section 2.4.

    Args:
        strength_EO: rows grouped by node, within a node by predecessor.
        predecessors: number of incoming edges of each node, e.g. (2, 3, 4, 5); sums to E.
        excluded: columns that cannot be chosen.
        keep: edges kept for each node (fewer where a node has fewer predecessors).

    Returns:
        (operation, predecessor) pairs, node after node.

    Raises:
        ValueError: the table has the wrong number of rows, or a strength is not a number.
    """
    if strength_EO.shape[0] != sum(predecessors):
        raise ValueError(
            f"a table for nodes with {list(predecessors)} incoming edges has {sum(predecessors)} rows, "
            f"not {strength_EO.shape[0]}"
        )
    chosen, row = [], 0
    for count in predecessors:
        edges = []
        for predecessor in range(count):
            strengths = strength_EO[row + predecessor]
            operation = best_operation(strengths, excluded)
            edges.append((float(strengths[operation]), operation, predecessor))
        edges.sort(key=lambda edge: -edge[0])  # stable: ties keep the order of predecessors
        chosen += [(operation, predecessor) for _, operation, predecessor in edges[:keep]]
        row += count
    return chosen


def _values(strength_O: Tensor) -> list[float]:
    values = strength_O.detach().double().tolist()
    if any(v != v for v in values):
        raise ValueError("the alphas hold NaN: nothing can be derived from them")
    return values
