"""Which of many features matter, before structures are looked for among them.

Legend: N points, F features, G atoms, K columns of a basis.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from gradnas.laws.engine.atoms import Atoms
from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.growth import COSTS
from gradnas.laws.engine.pairs import orthonormal


def most_telling(data: LawData, atoms: Atoms, features: Sequence[int], count: int) -> list[int]:
    """The features whose atoms, and whose products in pairs, explain most, one after the other.

    Orthogonal matching pursuit. In each round the best atom stands against the best product of two
    features about their means: of a target `x4 * x8` neither shows anything alone.
    """
    # Times the root of its weight, a point counts in a plain inner product as much as it should.
    root_w_N = data.w_N.sqrt()
    d_GN = atoms.value_GN * root_w_N
    centred_FN = data.x_DN[list(features)]
    centred_FN = centred_FN - centred_FN.mean(1, keepdim=True)
    basis_KN = root_w_N.unsqueeze(0)  # the bias: ones, weighted
    chosen: list[int] = []
    while len(chosen) < count:
        q_KN = orthonormal(basis_KN)
        rest_N = data.y_N * root_w_N
        rest_N = rest_N - (rest_N @ q_KN.T) @ q_KN
        squared = float(rest_N @ rest_N)
        gain, g = _best_alone(d_GN, atoms, rest_N, q_KN, chosen)
        pair_gain, i, j = _best_product(centred_FN, root_w_N, rest_N, q_KN, features, chosen)
        if not squared > 0 or max(gain, pair_gain) < 0:
            break
        alone = _promise(squared, gain, COSTS["term"], data.n)
        together = _promise(squared, pair_gain, COSTS["pair"], data.n)
        if together < alone:
            for f in (i, j):
                if features[f] not in chosen:
                    chosen.append(features[f])
            added_N = centred_FN[i] * centred_FN[j] * root_w_N
        else:
            chosen.append(atoms.atoms[g].edge.source)
            added_N = d_GN[g]
        basis_KN = torch.cat([basis_KN, added_N.unsqueeze(0)])
    return chosen[:count]


def _promise(squared: float, gain: float, cost: int, n: float) -> float:
    """The change of a description length that a gain promises."""
    if gain < 0:
        return math.inf
    return n * math.log(max(squared - gain, 1e-12 * squared) / squared) + cost * math.log(n)


def _best_alone(
    d_GN: Tensor, atoms: Atoms, rest_N: Tensor, q_KN: Tensor, chosen: Sequence[int]
) -> tuple[float, int]:
    """What the best atom of a feature that is not chosen explains; negative where there is none."""
    left_GN = d_GN - (d_GN @ q_KN.T) @ q_KN
    size_G = (left_GN**2).sum(1)
    explained_G = (left_GN @ rest_N) ** 2 / size_G.clamp(min=1e-300)
    # Where nearly nothing of an atom is left beside the basis, the quotient is rounding error.
    usable_G = size_G > 1e-8 * (d_GN**2).sum(1)
    score_G = torch.where(usable_G, explained_G, -1.0)
    for g, atom in enumerate(atoms.atoms):
        # Features are asked for: other functions of one that is chosen need not compete.
        if atom.edge.source in chosen:
            score_G[g] = -1.0
    g = int(score_G.argmax())
    return float(score_G[g]), g


def _best_product(
    centred_FN: Tensor,
    root_w_N: Tensor,
    rest_N: Tensor,
    q_KN: Tensor,
    features: Sequence[int],
    chosen: Sequence[int],
) -> tuple[float, int, int]:
    """What the best product of two features explains, and their places; at least one is new."""
    first_FN = centred_FN * root_w_N
    # Every inner product with a product of two is a matrix product; see `engine/pairs.py`.
    left_FF = (first_FN**2) @ (centred_FN**2).T
    least_FF = 1e-6 * left_FF
    for q_N in q_KN:
        left_FF = left_FF - ((first_FN * q_N) @ centred_FN.T) ** 2
    gain_FF = ((first_FN * rest_N) @ centred_FN.T) ** 2 / left_FF.clamp(min=1e-300)
    usable_FF = left_FF > least_FF
    old_F = torch.tensor([feature in chosen for feature in features])
    usable_FF &= ~torch.outer(old_F, old_F)
    usable_FF.fill_diagonal_(False)
    gain_FF = torch.where(usable_FF, gain_FF, -1.0)
    k = int(gain_FF.argmax())
    i, j = divmod(k, len(features))
    return float(gain_FF[i, j]), i, j
