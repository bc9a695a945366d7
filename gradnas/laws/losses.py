"""What a law is fitted by: how far a prediction is from a target, row by row.

Robust losses are fitted by reweighted least squares (Holland and Welsch, 1977): in every round a
row weighs as much as the loss pulls at it, divided by its residual.

Legend: N rows, C laws or sets of constants.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

OwnLoss = Callable[[Tensor, Tensor], Tensor]
HUBER = 1.345  # standard deviations: 95% as efficient as least squares where noise is normal
# Standard deviations beyond which a row has no weight in a robust search (Beaton and Tukey, 1974).
BISQUARE = 4.685
NORMAL = 1.4826  # the standard deviation of normal noise, in median absolute deviations
SMOOTH = 0.1  # of the median residual: what a residual counts as at least, in an absolute error


class LossFunction(ABC):
    """A loss of the value of a formula (which is the log-odds or log-rate, where there is a link).

    Attributes:
        name: for people, in `pareto_` and reports.
        degree: 2 where it is the squared error, which a good law makes zero; else 0 or 1.
    """

    name: str
    degree: int = 0

    @abstractmethod
    def __call__(self, eta_CN: Tensor, y_N: Tensor) -> Tensor:
        """The loss of every row, `(C, N)`."""

    @abstractmethod
    def weights(self, eta_CN: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        """Curvature and minus the slope by the value, `(C, N)` each; no curvature is below 0."""

    def mean(self, eta_CN: Tensor, y_N: Tensor, w_N: Tensor) -> Tensor:
        """The weighted mean of each law, `(C,)`; inf where a row is undefined."""
        loss_C = (w_N * self(eta_CN, y_N)).mean(-1)
        return torch.where(torch.isfinite(loss_C), loss_C, torch.inf)


@dataclass(frozen=True)
class Squared(LossFunction):
    """The squared error."""

    name = "squared"
    degree = 2

    def __call__(self, eta_CN: Tensor, y_N: Tensor) -> Tensor:
        return (eta_CN - y_N) ** 2

    def weights(self, eta_CN: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ones_like(eta_CN), y_N - eta_CN


@dataclass(frozen=True)
class Logistic(LossFunction):
    """Cross-entropy of log-odds."""

    name = "logistic"

    def __call__(self, eta_CN: Tensor, y_N: Tensor) -> Tensor:
        return F.softplus(eta_CN) - y_N * eta_CN

    def weights(self, eta_CN: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        mean_CN = torch.sigmoid(eta_CN)
        return (mean_CN * (1.0 - mean_CN)).clamp(min=1e-6), y_N - mean_CN


@dataclass(frozen=True)
class Poisson(LossFunction):
    """Half the Poisson deviance of log-rates."""

    name = "poisson"

    def __call__(self, eta_CN: Tensor, y_N: Tensor) -> Tensor:
        return torch.exp(eta_CN) - y_N * eta_CN + torch.special.xlogy(y_N, y_N) - y_N

    def weights(self, eta_CN: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        mean_CN = torch.exp(eta_CN.clamp(max=50.0))
        return mean_CN.clamp(min=1e-6), y_N - mean_CN


@dataclass(frozen=True)
class Absolute(LossFunction):
    """The absolute error: a law of the median."""

    name = "absolute"
    degree = 1

    def __call__(self, eta_CN: Tensor, y_N: Tensor) -> Tensor:
        return (eta_CN - y_N).abs()

    def weights(self, eta_CN: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        residual_CN = y_N - eta_CN
        size_CN = residual_CN.abs()
        # A small residual would weigh so much that its row is never left again: it counts as a
        # part of the usual one, which becomes zero where the law fits most rows exactly.
        middle_C1 = size_CN.median(-1, keepdim=True).values
        least_C1 = (SMOOTH * middle_C1).clamp(min=1e-200)
        weight_CN = 1.0 / torch.maximum(size_CN, least_C1)
        return weight_CN, weight_CN * residual_CN


@dataclass(frozen=True)
class Huber(LossFunction):
    """Half the squared error up to `delta`, and linear beyond.

    Args:
        delta: in the units of the target.
    """

    delta: float
    name = "huber"

    def __call__(self, eta_CN: Tensor, y_N: Tensor) -> Tensor:
        size_CN = (eta_CN - y_N).abs()
        linear_CN = self.delta * (size_CN - 0.5 * self.delta)
        return torch.where(size_CN <= self.delta, 0.5 * size_CN**2, linear_CN)

    def weights(self, eta_CN: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        residual_CN = y_N - eta_CN
        weight_CN = (self.delta / residual_CN.abs().clamp(min=1e-300)).clamp(max=1.0)
        return weight_CN, weight_CN * residual_CN


@dataclass(frozen=True)
class Own(LossFunction):
    """A function of one's own.

    Args:
        function: `(prediction, target)` of equal shape to a loss for every row.
    """

    function: OwnLoss
    name = "own"

    def __call__(self, eta_CN: Tensor, y_N: Tensor) -> Tensor:
        return self.function(eta_CN, y_N.expand_as(eta_CN))

    def weights(self, eta_CN: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            leaf_CN = eta_CN.detach().requires_grad_()
            slope_CN = torch.autograd.grad(self(leaf_CN, y_N).sum(), leaf_CN)[0]
        gap_CN = eta_CN - y_N
        size_CN = gap_CN.abs().clamp(min=1e-12 * (y_N.abs().mean() + 1e-200))
        # Where the loss does not fall towards the target: its slope alone, at the size of the gap.
        weight_CN = torch.nan_to_num(slope_CN.abs() / size_CN, nan=0.0, posinf=0.0)
        return weight_CN, -torch.nan_to_num(slope_CN, nan=0.0, posinf=0.0, neginf=0.0)


def checked_own(function: OwnLoss, y_N: Tensor) -> Own:
    """A loss of the user's, tried at a few predictions.

    Raises:
        ValueError: it fails, does not give one finite number a row, or cannot be differentiated.
    """
    wanted = (
        "loss as a function takes two torch tensors of the same shape, prediction and target, and "
        "gives a tensor of that shape, the loss of every row"
    )
    spread = float(y_N.std()) or 1.0
    with torch.enable_grad():
        prediction_CN = (y_N + 0.1 * spread).unsqueeze(0).requires_grad_()
        try:
            loss_CN = function(prediction_CN, y_N.expand_as(prediction_CN))
        except Exception as error:
            raise ValueError(f"{wanted}; yours raised {type(error).__name__}: {error}") from error
        if not isinstance(loss_CN, Tensor):
            raise ValueError(f"{wanted}; yours gave a {type(loss_CN).__name__}")
        if loss_CN.shape != prediction_CN.shape:
            raise ValueError(
                f"{wanted}; yours gave {tuple(loss_CN.shape)} for {tuple(prediction_CN.shape)}"
            )
        if not loss_CN.requires_grad:
            raise ValueError(f"{wanted}; yours does not depend on the prediction by torch's means")
    if not torch.isfinite(loss_CN).all():
        row = int((~torch.isfinite(loss_CN[0])).nonzero()[0])
        raise ValueError(f"{wanted}; yours is not finite for the target {float(y_N[row]):.6g}")
    return Own(function)


def scale_of(residual_N: Tensor, w_N: Tensor) -> float:
    """The standard deviation of the noise, by the weighted median of the absolute residuals."""
    size_N = residual_N.abs()
    order = torch.argsort(size_N)
    share_N = torch.cumsum(w_N[order], 0) / w_N.sum()
    middle = int(torch.searchsorted(share_N, torch.tensor(0.5, dtype=share_N.dtype)))
    return NORMAL * float(size_N[order][min(middle, len(order) - 1)])


def bisquare(residual_N: Tensor, scale: float) -> Tensor:
    """Weights of rows from 1 to 0: Tukey's, which leave out what is far off."""
    share_N = (residual_N / (BISQUARE * scale)).abs().clamp(max=1.0)
    return (1.0 - share_N**2) ** 2
