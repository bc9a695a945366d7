"""The architecture gradient from the rewards of sampled networks, as `Search` takes it.

Legend: M sampled networks.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gradnas import distributed
from gradnas.gradients import ArchitectureGradient, Reinforce
from gradnas.gradients.base import Tensors, leaves, same_randomness
from gradnas.modules.draws import Draw
from gradnas.objectives.cost import accuracy_latency_reward
from gradnas.relaxations import Relaxation
from gradnas.search.bound_net import NetLoss
from gradnas.search.costs import Spending
from gradnas.search.passes import Passes, times
from gradnas.search.sampling import ALPHA_NOISE


class Rewards:
    """Samples networks, asks what they are worth, and hands that to `Reinforce`.

    Attributes:
        baseline: what rewards are compared with; None before the first step of the alphas.
    """

    def __init__(self, method: Reinforce, passes: Passes, spending: Spending | None) -> None:
        self.method = method
        self.passes = passes
        self.spending = spending
        self.baseline: float | None = None

    def gradient(self, valid_loss: NetLoss) -> tuple[Tensors, Tensor, float]:
        """The gradient, the mean loss of the samples, and the baseline of the next step.

        Changes nothing: the baseline is the caller's to take over, once the step is made.
        """
        # The graph from these leaves to the log-probabilities is all that is differentiated: what
        # happens between a sample and its reward is nobody's business (REINFORCE).
        tables = leaves(self.passes.alphas)
        draws: list[Draw] = []
        log_probs: list[Tensor] = []
        losses: list[Tensor] = []
        for sample in range(self.method.num_samples):
            noise = self.passes.noise(ALPHA_NOISE, sample)
            draw = self.passes.path(tables, noise)
            assert draw.log_prob is not None  # check_samples
            draws.append(draw)
            log_probs.append(draw.log_prob)
            losses.append(self._loss(valid_loss, draw))

        # Every rank sees its share of the batch; the reward is of the whole.
        losses_M = times(self.passes.factors.valid, torch.stack(losses))
        (mean_losses_M,) = distributed.mean([losses_M])
        # Hence every rank has the same rewards, and estimates the same gradient.
        rewards = []
        for loss, draw in zip(mean_losses_M, draws, strict=True):
            rewards.append(self._reward(loss, draw))
        grads, baseline = self.method.estimate(log_probs, rewards, tables, self.baseline)

        if self.spending is not None and self.spending.setting.is_budget:
            grads = self._with_budget(grads, tables, self.spending)
        return grads, mean_losses_M.mean(), baseline

    @torch.no_grad()
    def _loss(self, valid_loss: NetLoss, draw: Draw) -> Tensor:
        # Every sample sees the same dropout masks, and the weight step those it would have seen.
        with same_randomness(self.passes.params.values()):
            loss = self.passes.sampled(valid_loss, draw)
        # It may be any number, not a tensor at all.
        if not isinstance(loss, (Tensor, int, float)) or getattr(loss, "ndim", 0) != 0:
            got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else loss
            raise ValueError(f"the validation loss of a sampled network is a number, not {got}")
        return torch.as_tensor(loss, dtype=torch.float64, device=self.passes.device).detach()

    def _reward(self, loss: Tensor, draw: Draw) -> float:
        """The reward of a sampled network with this validation loss."""
        spending = self.spending
        if spending is None or spending.setting.is_budget:
            return -loss.item()
        spent = spending.of_sample(draw)
        # With a target the cost is a part of the reward: that of this network, not an expectation.
        if self.method.reward == "accuracy":
            target = spending.setting.limit
            exponent = self.method.exponent
            return accuracy_latency_reward(-loss.item(), spent.item(), target, exponent)
        return -spending.combine(loss, spent.to(loss)).item()

    def _with_budget(self, grads: Tensors, tables: Tensors, spending: Spending) -> Tensors:
        """The gradient with that of the budget's term.

        A budget binds the expected cost, whose gradient is known: sampling it would only add noise.
        """
        expected = spending.expected(self.passes.probabilities(tables))
        # Combined with a task loss of 0, what is left is the term of the budget.
        zero = torch.zeros((), dtype=torch.float64, device=self.passes.device)
        term = spending.combine(zero, expected)
        pulls = torch.autograd.grad(term, list(tables.values()), allow_unused=True)
        total = {}
        for name, pull in zip(tables, pulls, strict=True):
            # None: no cost depends on this choice.
            total[name] = grads[name] if pull is None else grads[name] + pull
        return total


def check_samples(relaxation: Relaxation, gradient: ArchitectureGradient) -> None:
    """ValueError where a gradient learns from sampled networks and the relaxation samples none."""
    if not gradient.num_samples:
        return
    # Asked on a table of its own: whether paths have a probability is no matter of the network.
    alphas = {"any": torch.zeros(1, 2, device="cpu")}
    draw = relaxation.path(alphas, relaxation.noise(alphas, torch.Generator()), 0.0)
    if draw.log_prob is None:
        raise ValueError(
            f"{type(gradient).__name__} learns from sampled networks, and "
            f"{type(relaxation.innermost).__name__} samples none; "
            "use BinaryGates() or GumbelSoftmax(hard=True)"
        )


def rewards_of(
    gradient: ArchitectureGradient, passes: Passes, spending: Spending | None
) -> Rewards | None:
    """The rewards that a gradient learns from; None where it samples no networks."""
    if not gradient.num_samples:
        return None
    assert isinstance(gradient, Reinforce)
    return Rewards(gradient, passes, spending)
