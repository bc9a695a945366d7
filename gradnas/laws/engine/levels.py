"""In which order the nodes of many formulas can be computed, and which of them at once.

Legend: C formulas, J nodes, E edges of a node, M edges of all formulas, L those of a level.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.formula import Formula

SUM = 0
PRODUCT = 1
RATIO = 2


@dataclass(frozen=True)
class Products:
    """The products of so many factors, of a level.

    Attributes:
        node_P: their nodes, of all formulas.
        edge_PE: their edges, counted from the first one of the level.
    """

    node_P: Tensor
    edge_PE: Tensor


@dataclass(frozen=True)
class Ratios:
    """The ratios of a level.

    Attributes:
        node_R: their nodes, of all formulas.
        edge_K: their edges, counted from the first one of the level.
        ratio_K: the place in `node_R` that each of these belongs to.
        below_K1: whether it stands below.
    """

    node_R: Tensor
    edge_K: Tensor
    ratio_K: Tensor
    below_K1: Tensor


@dataclass(frozen=True)
class Level:
    """Edges that read features and nodes of earlier levels alone.

    Attributes:
        first, last: its edges among those of all formulas are `range(first, last)`.
        source_L: what they read: a feature, or from the number of features on a node.
        node_L: the nodes that they lead into.
        functions: codes of functions, with the first and the last edge but one of each.
        inner_K, inner_node_K: the edges that read a node, counted from the first one, and it.
    """

    first: int
    last: int
    source_L: Tensor
    node_L: Tensor
    functions: list[tuple[int, int, int]]
    products: list[Products]
    ratios: Ratios | None
    inner_K: Tensor
    inner_node_K: Tensor


def levels_of(
    source: np.ndarray,
    function: np.ndarray,
    kind: np.ndarray,
    below: np.ndarray,
    present: np.ndarray,
    features: int,
) -> tuple[Tensor, list[Level]]:
    """The places of all edges in `(C, J, E)`, level by level and by function, and the levels.

    Args:
        source, function, below, present: of each edge, `(C, J, E)`; `present` where there is one.
        kind: of each node, `(C, J)`.
    """
    _, J, E = source.shape
    place_M = np.flatnonzero(present)
    level_M = _depths(source, present, features).reshape(-1)[place_M // E]
    function_M = function.reshape(-1)[place_M]
    order = np.lexsort((function_M, level_M))  # by level, and in a level by function
    place_M = place_M[order]
    level_M = level_M[order]
    function_M = function_M[order]
    node_M = place_M // E  # of all formulas
    source_M = source.reshape(-1)[place_M]
    # A node's place in its own formula, turned into that among those of all.
    is_inner_M = source_M >= features
    source_M = np.where(is_inner_M, source_M + node_M // J * J, source_M)
    kind_M = kind.reshape(-1)[node_M]
    below_M = below.reshape(-1)[place_M]
    levels: list[Level] = []
    for first, last in _runs(level_M):
        own = slice(first, last)
        node_L = node_M[own]
        inner_K = np.flatnonzero(is_inner_M[own])
        functions: list[tuple[int, int, int]] = []
        for low, high in _runs(function_M[own]):
            functions.append((int(function_M[first + low]), first + low, first + high))
        level = Level(
            first=first,
            last=last,
            source_L=torch.from_numpy(source_M[own]),
            node_L=torch.from_numpy(node_L),
            functions=functions,
            products=_products(node_L, kind_M[own]),
            ratios=_ratios(node_L, kind_M[own], below_M[own]),
            inner_K=torch.from_numpy(inner_K),
            inner_node_K=torch.from_numpy(source_M[own][inner_K] - features),
        )
        levels.append(level)
    return torch.from_numpy(place_M), levels


def depth(formula: Formula) -> int:
    """The number of levels of a formula."""
    depths: list[int] = []
    for node in formula.nodes:
        read = [edge.source - formula.features for edge in node.edges]
        depths.append(1 + max((depths[j] for j in read if j >= 0), default=0))
    return max(depths, default=0)


def _depths(source: np.ndarray, present: np.ndarray, features: int) -> np.ndarray:
    """How many nodes stand at most between each node and the features, `(C, J)`."""
    count, J, _ = source.shape
    depth_CJ = np.zeros((count, J), dtype=np.int64)
    rows_C1 = np.arange(count)[:, None]
    for j in range(J):
        inner_CE = present[:, j] & (source[:, j] >= features)
        if inner_CE.any():
            read_CE = np.where(inner_CE, source[:, j] - features, 0)
            below_CE = np.where(inner_CE, depth_CJ[rows_C1, read_CE] + 1, 0)
            depth_CJ[:, j] = below_CE.max(axis=1)
    return depth_CJ


def _runs(values: np.ndarray) -> Sequence[tuple[int, int]]:
    """Where each run of equal values begins, and where it ends."""
    if not len(values):
        return []
    starts = np.flatnonzero(np.diff(values)) + 1
    bounds = [0, *starts.tolist(), len(values)]
    return list(itertools.pairwise(bounds))


def _products(node_L: np.ndarray, kind_L: np.ndarray) -> list[Products]:
    """Products of two factors and more, those of equally many together."""
    edge_K = np.flatnonzero(kind_L == PRODUCT)
    edge_K = edge_K[np.argsort(node_L[edge_K], kind="stable")]
    runs = _runs(node_L[edge_K])
    found: list[Products] = []
    for size in sorted({high - low for low, high in runs}):
        if size > 1:
            edge_PE = np.array([edge_K[low:high] for low, high in runs if high - low == size])
            node_P = node_L[edge_PE[:, 0]]
            found.append(Products(torch.from_numpy(node_P), torch.from_numpy(edge_PE)))
    return found


def _ratios(node_L: np.ndarray, kind_L: np.ndarray, below_L: np.ndarray) -> Ratios | None:
    edge_K = np.flatnonzero(kind_L == RATIO)
    if not len(edge_K):
        return None
    node_R, ratio_K = np.unique(node_L[edge_K], return_inverse=True)
    return Ratios(
        torch.from_numpy(node_R),
        torch.from_numpy(edge_K),
        torch.from_numpy(ratio_K.reshape(-1)),
        torch.from_numpy(below_L[edge_K]).unsqueeze(1),
    )
