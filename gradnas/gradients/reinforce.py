"""The policy gradient of ProxylessNAS-R: sampled networks, and rewards from anywhere.

Legend: M sampled networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradnas.config import check_numbers
from gradnas.gradients.base import ArchitectureGradient, Loss, SGDStep, Tensors, grad


@dataclass(frozen=True)
class Reinforce(ArchitectureGradient):
    """`(1/M) sum_m (r_m - b) * d(-ln p_m)/d alpha`, with a moving baseline b.

    `Search` samples M networks for every alpha step and evaluates them without a graph. The reward
    r of one is minus the value of your validation loss, which may be any function of the network:
    nothing is differentiated through it. With a target in the search's cost, the reward counts the
    cost of the sampled network, exactly; a budget binds the expected cost, and the gradient of that
    is added instead.

    The baseline that rewards are compared with was formed before them. In the first step, before
    there is one, each reward is compared with the mean of the others.

    Args:
        samples: networks for each step, M.
        baseline_decay: `b <- decay * b + (1 - decay) * mean(r)` after each step.
        reward: `"loss"`: minus the loss, to which a cost is added as it says. `"accuracy"`: the
            value of the validation loss is minus an accuracy, and with a target T of the cost c, `r
            = accuracy * (T / c) ^ exponent`.
        exponent: of that form.

    Source: Cai, Zhu, Han, "ProxylessNAS", ICLR 2019 (arXiv 1812.00332), section 3.3.2; Williams,
    "Simple statistical gradient-following algorithms for connectionist reinforcement learning",
    1992.

    Raises:
        ValueError: fewer than one sample, a decay outside [0, 1), another kind of reward.
    """

    samples: int = 10
    baseline_decay: float = 0.99
    reward: Literal["loss", "accuracy"] = "loss"
    exponent: float = 0.1

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples must be at least 1, not {self.samples}")
        if not 0.0 <= self.baseline_decay < 1.0:
            raise ValueError(f"baseline_decay must be in [0, 1), not {self.baseline_decay}")
        if self.reward not in ("loss", "accuracy"):
            raise ValueError(f"reward must be 'loss' or 'accuracy', not {self.reward!r}")
        check_numbers(self)

    @property
    def num_samples(self) -> int:
        return self.samples

    def __call__(
        self,
        train_loss: Loss,
        valid_loss: Loss,
        params: Mapping[str, Tensor],
        alphas: Mapping[str, Tensor],
        inner: SGDStep | None = None,
    ) -> Tensors:
        raise ValueError(
            "Reinforce learns from the rewards of sampled networks and not from a loss of one "
            "mixture: use it in a Search, or call estimate(log_probs, rewards, alphas, baseline)"
        )

    def estimate(
        self,
        log_probs: Sequence[Tensor],
        rewards: Sequence[float],
        alphas: Mapping[str, Tensor],
        baseline: float | None,
    ) -> tuple[Tensors, float]:
        """The gradient of minus the expected reward, and the next baseline.

        Args:
            log_probs: of the sampled networks, scalars with a graph to `alphas`.
            rewards: one for each.
            alphas: the leaves that were sampled from.
            baseline: of the steps before; None at the first.
        """
        total = sum(rewards)
        mean = total / len(rewards)
        weighted = []
        for log_prob, reward in zip(log_probs, rewards, strict=True):
            # Whatever does not depend on this sample may be subtracted without a bias, since the
            # expectation of d ln p is zero. In the first step, before there is a baseline, that is
            # the mean of the others: the mean of all would hold the reward itself.
            expected = baseline
            if expected is None:
                expected = (total - reward) / max(1, len(rewards) - 1)
            weighted.append(log_prob * (reward - expected))
        surrogate = -torch.stack(weighted).mean()
        grads = grad(surrogate, alphas.values())

        # Only now: the baseline of a step must not know its rewards.
        next_baseline = mean
        if baseline is not None:
            decay = self.baseline_decay
            next_baseline = decay * baseline + (1.0 - decay) * mean
        return dict(zip(alphas, grads, strict=True)), next_baseline
