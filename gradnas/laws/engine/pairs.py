"""The best two atoms at once: as a product, or as two terms.

The scores are those of `engine/growth.py`. There are as many pairs as atoms squared, so they are
computed in float32 by matrix products, in blocks that stay in the cache.

Legend: N points, G atoms, K columns of a basis, S signatures; R and C the atoms of the rows and
columns of one block of scores.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.engine.atoms import (
    Atom,
    Atoms,
)

ROWS = 96  # of atoms, in one block of scores of pairs

# The gain of a pair is computed in float32. Where less than this share of a direction is left
# beside the span of the others, the quotient would be rounding error.
LEAST_OF_PRODUCT = 1e-5
LEAST_OF_SUM = 1e-4


def orthonormal(basis_KN: Tensor) -> Tensor:
    """An orthonormal basis of the span of the rows."""
    # A derivative that overflows somewhere is no direction that a constant could move along.
    basis_KN = basis_KN[torch.isfinite(basis_KN).all(dim=1)]
    # Rows of equal length: otherwise a small one would count as dependent by its size alone.
    scaled = basis_KN / basis_KN.norm(dim=1, keepdim=True).clamp(min=1e-200)
    _, size, rows = torch.linalg.svd(scaled, full_matrices=False)
    # What is dependent to rounding spans nothing of its own, and its direction would be noise.
    return rows[size > 1e-9 * size.max()]


def _best_of_signatures(
    score: Callable[[np.ndarray, np.ndarray], Tensor],
    first: Atoms,
    second: Atoms,
    coarse: bool,
) -> np.ndarray:
    """The largest score of each pair of signatures, `(S, S)`; arguments as of `_best_two`.

    Of two equal sets of atoms only the lower triangle is filled: their scores are symmetric.
    """
    same = first is second
    row_atoms, row_starts = first.layout(coarse)
    column_atoms, column_starts = second.layout(coarse)
    best_SS = np.zeros((len(row_starts) - 1, len(column_starts) - 1), dtype=np.float32)
    s = 0
    while s < len(best_SS):
        # Signatures s up to `stop`: as many whole ones as fit into ROWS atoms, and at least one.
        fitting = int(np.searchsorted(row_starts, row_starts[s] + ROWS, side="right")) - 1
        stop = max(s + 1, fitting)
        width = stop if same else best_SS.shape[1]
        some_rows = row_atoms[row_starts[s] : row_starts[stop]]
        some_columns = column_atoms[: column_starts[width]]
        block = score(some_rows, some_columns).numpy()
        # The atoms of a signature stand side by side: `reduceat` takes the largest of each run.
        by_row = np.maximum.reduceat(block, row_starts[s:stop] - row_starts[s], axis=0)
        best_SS[s:stop, :width] = np.maximum.reduceat(by_row, column_starts[:width], axis=1)
        s = stop
    # Within a block of rows the pairs above the diagonal were scored too: each would come twice.
    return np.tril(best_SS) if same else best_SS


def _best_two(
    score: Callable[[np.ndarray, np.ndarray], Tensor],
    first: Atoms,
    second: Atoms,
    count: int,
    coarse: bool,
) -> list[tuple[float, Atom, Atom]]:
    """The best pairs of an atom of each, one per pair of signatures, best first.

    Args:
        coarse: pairs of signatures are compared by their coarse atoms; all atoms are looked at in
            the best of them.
        score: gains of the pairs of some atoms of `first` with some of `second`; symmetric if the
            two are the same. It is called for some signatures at a time, so that its matrices stay
            in the cache.
    """
    best_SS = _best_of_signatures(score, first, second, coarse)
    # Coarse scores only say where to look: twice as many are looked at before the best are taken.
    looked_at = 2 * count if coarse else count
    ranked = np.argsort(-best_SS, axis=None, kind="stable")[:looked_at]
    pairs: list[tuple[float, Atom, Atom]] = []
    for k in ranked.tolist():
        i, j = divmod(k, best_SS.shape[1])  # row and column of the k-th place
        if not best_SS[i, j] > 0:
            break
        rows = first.members(i)
        columns = second.members(j)
        block = score(rows, columns)
        g, h = divmod(int(block.argmax()), block.shape[1])
        pairs.append((float(block[g, h]), first.atoms[rows[g]], second.atoms[columns[h]]))
    pairs.sort(key=lambda pair: -pair[0])
    return pairs[:count]


def best_pairs(
    residual_N: Tensor, basis_KN: Tensor, root_w_N: Tensor, first: Atoms, second: Atoms, count: int
) -> list[tuple[float, Atom, Atom]]:
    """Products of two atoms that explain most of a residual, one per pair of signatures."""
    if not first.atoms or not second.atoms:
        return []
    q_KN = orthonormal(basis_KN * root_w_N).float()
    # The weights belong to the product, so only one of its factors carries them.
    a_GN = first.value_GN.float()
    b_GN = (second.value_GN * root_w_N).float()
    r_N = (residual_N * root_w_N).float()

    def score(rows: np.ndarray, columns: np.ndarray) -> Tensor:
        """`(r . ab)^2 / |(ab)'|^2` without ever forming the products `ab`.

        Every inner product with `ab` is a matrix product, as `q . ab = (a * q) . b`. The residual
        of a fit is orthogonal to its span (but for a bias that the formula lacks), so the
        numerator needs no `ab'`.
        """
        a_RN = a_GN[rows]
        b_NC = b_GN[columns].T
        # |(ab)'|^2 by Pythagoras: |ab|^2 less the squares of its parts along the basis.
        left_RC = (a_RN * a_RN) @ (b_NC * b_NC)
        least_RC = LEAST_OF_PRODUCT * left_RC
        for q_N in q_KN:
            along_RC = (a_RN * q_N) @ b_NC
            left_RC.addcmul_(along_RC, along_RC, value=-1.0)
        gain_RC = ((a_RN * r_N) @ b_NC).square_().div_(left_RC)
        return gain_RC.masked_fill_(left_RC <= least_RC, 0.0)

    return _best_two(score, first, second, count, coarse=False)


def best_sums(
    residual_N: Tensor, q_KN: Tensor, root_w_N: Tensor, atoms: Atoms, count: int
) -> list[tuple[float, Atom, Atom]]:
    """Pairs of atoms that explain most of a residual as two terms, one per pair of signatures.

    The drop of the squared error by both at once, from their inner products: what neither shows
    alone is found, too. For unit vectors that explain b and b' of it and meet at the cosine c it is
    `b^2 + (b' - c b)^2 / (1 - c^2)`.
    """
    if len(atoms.starts) < 3:  # fewer than two signatures
        return []
    # Directions beside what the constants that are there can do, of length 1.
    weighted_GN = atoms.value_GN * root_w_N
    beside_GN = weighted_GN - (weighted_GN @ q_KN.T) @ q_KN
    size_G = beside_GN.norm(dim=1)
    usable_G = size_G > 1e-5 * (atoms.value_GN * root_w_N).norm(dim=1)
    unit_GN = beside_GN / size_G.clamp(min=1e-200).unsqueeze(1)
    unit_GN = torch.where(usable_G.unsqueeze(1), unit_GN, 0.0)
    # What each explains alone, with its sign.
    r_N = residual_N * root_w_N
    b_G = (unit_GN @ (r_N - (r_N @ q_KN.T) @ q_KN)).float()
    unit_GN = unit_GN.float()
    squared_G = b_G * b_G

    def score(rows: np.ndarray, columns: np.ndarray) -> Tensor:
        # In place where it can be: a block of scores is written once and stays in the cache.
        cosine_RC = unit_GN[rows] @ unit_GN[columns].T
        b_R1 = b_G[rows].unsqueeze(1)
        gain_RC = torch.addcmul(b_G[columns], cosine_RC, b_R1, value=-1.0).square_()
        left_RC = cosine_RC.square_().neg_().add_(1.0)
        gain_RC.div_(left_RC.clamp(min=LEAST_OF_SUM)).add_(squared_G[rows].unsqueeze(1))
        return gain_RC.masked_fill_(left_RC <= LEAST_OF_SUM, 0.0)

    return _best_two(score, atoms, atoms, count, coarse=True)
