"""Weights of whole edges: what their alphas are called, and what they become.

Legend: E edges.
"""

from __future__ import annotations

import torch
from torch import Tensor


def edges_name(table: str) -> str:
    """What the alphas of the edges of a table are called among the alphas of a search."""
    return f"{table} edges"


def edge_softmax(alpha_E: Tensor, predecessors: tuple[int, ...]) -> Tensor:
    """A softmax over the edges into each node, in the order of the rows, `(E,)`.

    Args:
        predecessors: incoming edges of each node.
    """
    parts = [torch.softmax(part, dim=0) for part in alpha_E.split(list(predecessors))]
    return torch.cat(parts)
