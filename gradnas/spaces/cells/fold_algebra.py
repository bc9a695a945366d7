"""What a fold computes from sums over pixels: all that is of the size of a weight or smaller.

The formulas and the legend are those of `gradnas.spaces.cells.fold`; numbers (1) to (5) are of
there. Everything here is in float64: it costs little beside the maps, which alone stay in their own
precision. Here N = K + T: what is only scaled has no algebra.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from gradnas.spaces.cells.kernels import EPS


class Folded(NamedTuple):
    """What is added up: `sum_k D_k M_k + sum_t factor_t Q_t + bias`.

    Attributes:
        M_KIO, factors_TC, bias_C: of it, rounded to the precision of the maps.
        mean_NC, var_NC: of what enters the BatchNorms; the variance with P in the denominator.
        r_NC: 1 / sqrt(variance + eps).
    """

    M_KIO: Tensor
    factors_TC: Tensor
    bias_C: Tensor
    mean_NC: Tensor
    var_NC: Tensor
    r_NC: Tensor


def folded(
    W_KOI: Tensor, a_N: Tensor, map_mean_NC: Tensor, V_KII: Tensor, var_TC: Tensor, like: Tensor
) -> Folded:
    """From the mixing weights and the statistics of the maps; `like` has the maps' precision."""
    K = len(W_KOI)
    # Of what enters the BatchNorms the variance follows from the maps': diag(W V W^T).
    var_KO = ((W_KOI @ V_KII) * W_KOI).sum(2)
    var_NC = torch.cat([var_KO, var_TC])
    r_NC = (var_NC + EPS).rsqrt()

    # (1) without a centred copy of any map: what the means give is subtracted as a bias.
    # Rounded as the kernel will: what is subtracted must be the mean of what it adds up.
    scale_KO = a_N[:K, None] * r_NC[:K]
    M_KIO = rounded((scale_KO[:, :, None] * W_KOI).transpose(1, 2), like)
    factors_TC = rounded(a_N[K:, None] * r_NC[K:], like)
    bias_C = -(map_mean_NC[:K, None, :] @ M_KIO).sum((0, 1))
    bias_C = bias_C - (map_mean_NC[K:] * factors_TC).sum(0)
    mean_KO = (W_KOI @ map_mean_NC[:K, :, None]).squeeze(2)
    mean_NC = torch.cat([mean_KO, map_mean_NC[K:]])
    return Folded(M_KIO, factors_TC, bias_C, mean_NC, var_NC, r_NC)


class Sums(NamedTuple):
    """Sums over the P pixels with the gradient g of what a fold gives.

    Attributes:
        sum_C: of g.
        near_C: the mean of g, rounded, in the precision of the maps.
        cross_KIO: `D_k^T (g - near)`.
        along_TC: of q g, of every pool.
    """

    pixels: int
    sum_C: Tensor
    near_C: Tensor
    cross_KIO: Tensor
    along_TC: Tensor


class FoldGradients(NamedTuple):
    """Gradients of a fold.

    Attributes:
        mix_N: of the mixing weights.
        weight_KOI: None where it is not needed.
        M_KOI, S_KII, bias_KI: of D_k it is `g M_k + D_k S_k + bias_k`, rounded.
        scale_TC, slope_TC, bias_TC: of Q_t it is `scale_t g + slope_t Q_t + bias_t`, rounded.
    """

    mix_N: Tensor
    weight_KOI: Tensor | None
    M_KOI: Tensor
    S_KII: Tensor
    bias_KI: Tensor
    scale_TC: Tensor
    slope_TC: Tensor
    bias_TC: Tensor


def fold_gradients(
    W_KOI: Tensor,
    a_N: Tensor,
    map_mean_NC: Tensor,
    V_KII: Tensor,
    r_NC: Tensor,
    sums: Sums,
    needs_weight: bool,
    like: Tensor,
) -> FoldGradients:
    """From the sums with the gradient; `like` has the maps' precision."""
    K = len(W_KOI)
    pixels = sums.pixels
    mean_C = sums.sum_C / pixels
    # A_k = X_k^T g = D_k^T (g - mean(g)). The kernel subtracts the rounded mean, and so takes
    # P (rounded - mean) m_k^T too much, which is added again.
    A_KOI = sums.cross_KIO.transpose(1, 2)
    off_C = pixels * (sums.near_C.double() - mean_C)
    A_KOI = A_KOI + off_C[:, None] * map_mean_NC[:K, None, :]
    # For a pool the diagonal of that, by the sum of q g, less mean times sum.
    A_TC = sums.along_TC - map_mean_NC[K:] * sums.sum_C

    # sum_i A_io W_oi, of (2) and (3); a pool's W is 1.
    AW_NC = torch.cat([(A_KOI * W_KOI).sum(2), A_TC])
    mix_N = (AW_NC * r_NC).sum(1)  # (2)
    scale_NC = a_N[:, None] * r_NC
    # (3): -1/2 r^3 a (sum_i A_io W_oi), as scale is a r.
    slope_NC = -0.5 * r_NC.square() * scale_NC * AW_NC

    weight_KOI = None
    if needs_weight:  # (4)
        weight_KOI = scale_NC[:K, :, None] * A_KOI
        weight_KOI = weight_KOI + 2.0 * slope_NC[:K, :, None] * (W_KOI @ V_KII)

    # (5): two products, of g and of D, and a bias for the means of both. Rounded first, for the
    # reason that `folded` gives.
    M_KOI = rounded(scale_NC[:K, :, None] * W_KOI, like)
    S_KII = (2.0 / pixels) * (W_KOI.transpose(1, 2) @ (slope_NC[:K, :, None] * W_KOI))
    S_KII = rounded(S_KII, like)
    bias_KI = -(mean_C @ M_KOI) - (map_mean_NC[:K, None, :] @ S_KII).squeeze(1)
    # For the pools, whose S_k is the diagonal 2/P s
    slope_TC = rounded((2.0 / pixels) * slope_NC[K:], like)
    scale_TC = rounded(scale_NC[K:], like)
    bias_TC = -(scale_TC * mean_C + slope_TC * map_mean_NC[K:])
    return FoldGradients(mix_N, weight_KOI, M_KOI, S_KII, bias_KI, scale_TC, slope_TC, bias_TC)


def rounded(t: Tensor, like: Tensor) -> Tensor:
    """In float64, to numbers of the other's precision."""
    return t.to(like.dtype).double()
