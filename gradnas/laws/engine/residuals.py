"""Whether anything in what a law leaves can be predicted from the features.

Legend: N points, D features, P permutations.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradnas.laws.engine.data import LawData
from gradnas.randomness import generator_for

PERMUTED = 40  # times
LIKELY = 0.05  # share of them that predicts as well: above it there is nothing
WIDTHS = (0.5, 1.0, 2.0)  # of the kernel, times the root of the number of features
RIDGES = (1e-3, 1e-1, 1.0)
FINE = (1e-8, 1e-6, 1e-4, 1e-2, 1.0)  # for a target itself, that need not have noise
MOST_POINTS = 300
STREAM = 11  # of random numbers


def left_out_errors(
    x_DN: Tensor,
    values_NP: Tensor,
    ridges: tuple[float, ...] = RIDGES,
    w_N: Tensor | None = None,
    widths: tuple[float, ...] = WIDTHS,
) -> Tensor:
    """The least mean squared error of kernel ridge regressions with each point left out, `(P,)`.

    Gaussian kernels of a few widths on standardised features; what is predicted for a point that is
    left out follows from the fit with it (Golub, Heath and Wahba, 1979).

    Args:
        w_N: weights of the errors.
        widths: of the kernel.
    """
    D = len(x_DN)
    standard_DN = x_DN - x_DN.mean(1, keepdim=True)
    standard_DN = standard_DN / standard_DN.std(1, keepdim=True).clamp(min=1e-200)
    distance_NN = torch.cdist(standard_DN.T, standard_DN.T) ** 2
    best_P = values_NP.new_full((values_NP.shape[1],), torch.inf)
    for width in widths:
        kernel_NN = torch.exp(-distance_NN / (2.0 * D * width**2))
        size_N, vector_NN = torch.linalg.eigh(kernel_NN)
        size_N = size_N.clamp(min=0.0)
        turned_NP = vector_NN.T @ values_NP
        for ridge in ridges:
            kept_N = ridge / (size_N + ridge)
            residual_NP = vector_NN @ (kept_N.unsqueeze(1) * turned_NP)
            own_N = (vector_NN**2) @ kept_N
            error_NP = (residual_NP / own_N.clamp(min=1e-12).unsqueeze(1)) ** 2
            if w_N is not None:
                error_NP = error_NP * w_N.unsqueeze(1)
            best_P = torch.minimum(best_P, error_NP.mean(0))
    return best_P


def surrogate_loss(data: LawData) -> float:
    """The mean squared error that the regressions reach on points they have not seen."""
    rows = slice(0, MOST_POINTS)
    y_N = data.y_N[rows]
    centred_N1 = (y_N - y_N.mean()).unsqueeze(1)
    return float(left_out_errors(data.x_DN[:, rows], centred_N1, FINE, data.w_N[rows])[0])


def is_noise(data: LawData, residual_N: Tensor, seed: int) -> bool:
    """Whether residuals are predicted no better than their permutations are.

    Args:
        residual_N: of the squared error.
    """
    rows = slice(0, MOST_POINTS)
    r_N = (residual_N * data.w_N.sqrt())[rows]
    if not bool(torch.isfinite(r_N).all()):
        return False
    r_N = r_N - r_N.mean()
    size = float(r_N.norm())
    if not size > 0:
        return True
    r_N = r_N / size
    generator = generator_for(seed, STREAM)
    columns = [r_N]
    for _ in range(PERMUTED):
        columns.append(r_N[torch.randperm(len(r_N), generator=generator, device="cpu")])
    errors_P = left_out_errors(data.x_DN[:, rows], torch.stack(columns, dim=1))
    as_good = float((errors_P[1:] <= errors_P[0]).double().mean())
    return as_good > LIKELY
