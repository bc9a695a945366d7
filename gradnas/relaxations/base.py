"""What every relaxation is: a way from alphas to mixing weights.

Legend: E edges, O operations; a table of alphas is `(E, O)`, or `(O,)` for a single choice.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gradnas.modules.draws import Active, Additions, Draw

Tables = Mapping[str, Tensor]  # choice name -> (E, O), or (O,) for a single choice


class _StraightThrough(torch.autograd.Function):
    # Not `hard + soft - soft.detach()`, the usual way: its rounding leaves a gate of 0.99999994
    # where 1 was meant.
    @staticmethod
    def forward(ctx: Any, soft: Tensor, hard: Tensor) -> Tensor:
        return hard.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def straight_through(soft: Tensor, hard: Tensor) -> Tensor:
    """Forward: the hard value, exactly. Backward: the gradient goes to the soft one."""
    return _StraightThrough.apply(soft, hard)


def uniform_numbers(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """Uniform numbers in (0, 1), float64 on the CPU.

    `torch.rand` may give an exact 0, of which `gumbel_numbers` would make an infinity.
    """
    numbers = torch.rand(tuple(shape), generator=generator, device="cpu", dtype=torch.float64)
    return numbers.clamp_min(torch.finfo(torch.float64).tiny)


def gumbel_numbers(uniform: Tensor) -> Tensor:
    """Samples of the standard Gumbel distribution, by inverting its distribution function.

    Added to the logarithms of probabilities they make a sample: the largest sum is at each
    operation with its probability, and the order of the sums is that of drawing all operations
    without replacement.
    """
    return -torch.log(-torch.log(uniform))


def one_hot(like: Tensor, index_E1: Tensor) -> Tensor:
    """Zeros shaped as `like`, with a one at the index of each row."""
    return torch.zeros_like(like).scatter_(-1, index_E1.to(like.device), 1.0)


def one_active(index_E1: Tensor) -> Active:
    """The operations of a draw that computes one on each edge."""
    return tuple((index,) for index in index_E1.reshape(-1).tolist())


def others(row: tuple[int, ...], num_operations: int) -> tuple[int, ...]:
    """The operations of an edge that are not in the row, in ascending order."""
    return tuple(index for index in range(num_operations) if index not in row)


class Relaxation(ABC):
    """Alphas -> `Draw`; a subclass is a frozen dataclass of its hyperparameters, in its own file.

    A relaxation keeps nothing between calls. What is random comes in as `noise`, drawn once for
    each architecture or weight step, so that all passes of one step see the same sample; how far
    the search has come comes in as `progress`.
    """

    @property
    def needs_progress(self) -> bool:
        """Whether the draw changes over the search, so that its length must be known."""
        return False

    def noise(self, alphas: Tables, generator: torch.Generator) -> dict[str, Tensor]:
        """The random numbers of one step; none by default.

        They are made on the CPU, so that every device sees the same.
        """
        return {}

    @abstractmethod
    def draw(self, alphas: Tables, noise: Tables, progress: float) -> Draw:
        """Mixing weights for all choices.

        Args:
            alphas: choice name -> table of logits.
            noise: what `noise` returned for this step.
            progress: the share of the search that is done, in [0, 1].
        """

    @property
    def competes(self) -> bool:
        """Whether the operations of an edge share a weight of one."""
        return True

    @property
    def additions(self) -> Additions:
        """What the supernet must have for it; nothing by default."""
        return Additions()

    @property
    def innermost(self) -> Relaxation:
        """The relaxation itself, or the one that it is made around."""
        return self

    @property
    def once_differentiable(self) -> bool:
        """Whether a draw's gradient cannot be differentiated again, as second derivatives need."""
        return False

    @property
    def trains_mixtures(self) -> bool:
        """Whether the weights learn on mixtures, so that the mixture is a network to evaluate."""
        return True

    @property
    def alpha_defaults(self) -> dict[str, Any]:
        """Settings of Adam on the alphas that fit, where they are not the general ones."""
        return {}

    @property
    def corrects_updates(self) -> bool:
        """Whether it has a rule of its own for the alphas after a step of their optimiser."""
        return type(self).after_update is not Relaxation.after_update

    def check_alpha_optimizer(self, betas: tuple[float, float], weight_decay: float) -> None:
        """ValueError, with the reason, where alphas must not be trained with these settings."""
        del betas, weight_decay

    def path(self, alphas: Tables, noise: Tables, progress: float) -> Draw:
        """The draw that the weights learn with; the same as for the alphas by default."""
        return self.draw(alphas, noise, progress)

    def after_update(self, before: Tables, after: Tables, noise: Tables) -> Tables:
        """The alphas after a step of their optimiser, corrected where the method asks for it.

        Args:
            before, after: the tables before and after the step.
            noise: of the draw that gave the gradient.
        """
        return after

    def probabilities(self, alpha: Tensor) -> Tensor:
        """The strength of each operation without noise, shaped as `alpha`, to derive from.

        What decides, what is reported and what a mixture is evaluated with. By default the mixing
        weights themselves, at the end of the search; of a relaxation with noise the softmax, so
        that one of another mean has a method of its own.

        Raises:
            ValueError: it treats choices by their names, and has no such method.
        """
        if type(self).noise is not Relaxation.noise:
            return torch.softmax(alpha, dim=-1)
        name = ""  # of no choice: the rule is that of all
        try:
            draw = self.draw({name: alpha}, {}, 1.0)
        except KeyError as error:
            raise ValueError(
                f"{type(self).__name__} treats choices by their names: give it a method "
                "probabilities(alpha), the strengths of operations without noise"
            ) from error
        return draw.probabilities[name]
