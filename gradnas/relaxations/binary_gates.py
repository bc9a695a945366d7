"""Sampling one path, and learning from what the other paths would have given: ProxylessNAS.

Legend: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gradnas.modules.draws import Active, Draw
from gradnas.relaxations.base import (
    Relaxation,
    Tables,
    gumbel_numbers,
    one_active,
    one_hot,
    others,
    straight_through,
    uniform_numbers,
)


@dataclass(frozen=True)
class BinaryGates(Relaxation):
    """One-hot gates g ~ softmax(alpha): each pass runs one path of the network.

    The alphas learn by `dL/d alpha_i = sum_j dL/dg_j p_j (delta_ij - p_i)`. Its `dL/dg_j = <dL/dy,
    o_j(x)>` needs the outputs of operations that were not sampled; they are computed without a
    graph. The weights learn on one sampled path: the other operations are not run, and neither
    momentum, weight decay nor running statistics touch them.

    Args:
        mode: how the other outputs are had.
            `"full"`: all of them, in the forward pass; keeps one output of each operation.
            `"recompute"`: all of them, in backward; needs the memory of one path (the authors'
                `full_v2`).
            `"two"`: two operations are sampled without replacement; the active one is sampled from
            the softmax q over their two alphas, `dL/d alpha_a = q_a q_b (dL/dg_a - dL/dg_b) = -dL/d
            alpha_b`, and after the optimiser's step both are shifted so that the probability of no
            other operation has changed (the paper's algorithm).

    A search with `"two"` needs Adam with beta1 = 0 and no weight decay: otherwise operations that
    were not sampled would drift.

    Source: Cai, Zhu, Han, "ProxylessNAS", ICLR 2019 (arXiv 1812.00332), sections 3.1 and 3.2.

    Raises:
        ValueError: another mode.
    """

    mode: Literal["full", "recompute", "two"] = "two"

    def __post_init__(self) -> None:
        if self.mode not in ("full", "recompute", "two"):
            raise ValueError(f"mode must be 'full', 'recompute' or 'two', not {self.mode!r}")

    @property
    def once_differentiable(self) -> bool:
        return True

    @property
    def trains_mixtures(self) -> bool:
        return False

    @property
    def alpha_defaults(self) -> dict[str, Any]:
        """Adam of the authors' code: the first moment would move what was not sampled."""
        return {"lr": 1e-3, "betas": (0.0, 0.999), "weight_decay": 0.0}

    @property
    def corrects_updates(self) -> bool:
        return self.mode == "two"

    def check_alpha_optimizer(self, betas: tuple[float, float], weight_decay: float) -> None:
        if self.mode != "two":
            return
        has_momentum = betas[0] != 0.0
        if has_momentum or weight_decay != 0.0:
            raise ValueError(
                "BinaryGates(mode='two') leaves alphas of operations that were not sampled as they "
                "are, which needs AlphaOptimizer(betas=(0.0, ...), weight_decay=0.0), not "
                f"betas={betas}, weight_decay={weight_decay}"
            )

    def noise(self, alphas: Tables, generator: torch.Generator) -> dict[str, Tensor]:
        """Uniform numbers in (0, 1): a column for each operation, and one for the active of two."""
        uniform = {}
        for name, alpha in alphas.items():
            num_operations = alpha.shape[-1]
            shape = (*alpha.shape[:-1], num_operations + 1)
            uniform[name] = uniform_numbers(shape, generator)
        return uniform

    def path(self, alphas: Tables, noise: Tables, progress: float) -> Draw:
        """One operation of every edge, drawn from softmax(alpha); its weight is exactly 1."""
        del progress
        mix = {}
        active = {}
        for name, logits_EO in _on_cpu(alphas).items():
            # The first of the operations in their sampled order is a sample of softmax(alpha).
            index_E1 = _ordered(logits_EO, noise[name])[..., :1]
            mix[name] = one_hot(alphas[name], index_E1)
            active[name] = one_active(index_E1)
        return Draw(mix, active, _log_prob(alphas, active), _softmax(alphas))

    def draw(self, alphas: Tables, noise: Tables, progress: float) -> Draw:
        """Gates to learn the alphas with: the operation that runs, and those probed beside it."""
        if self.mode == "two":
            return _draw_of_two(alphas, noise)
        sampled = self.path(alphas, noise, progress)
        assert sampled.probability is not None
        mix = {}
        probed = {}
        for name, probability_EO in sampled.probability.items():
            # Forward the gate, backward the softmax: that is the formula of the class.
            mix[name] = straight_through(probability_EO, sampled.mix[name])
            num_operations = probability_EO.shape[-1]
            probed[name] = tuple(others(row, num_operations) for row in sampled.active[name])
        return Draw(
            mix,
            sampled.active,
            sampled.log_prob,
            sampled.probability,
            probed=probed,
            deferred=self.mode == "recompute",
        )

    def after_update(self, before: Tables, after: Tables, noise: Tables) -> dict[str, Tensor]:
        """In `"two"`: the two sampled alphas, shifted so that all others keep their probability.

        The softmax of another operation has changed only by its denominator, in which the two
        contribute `e^a + e^b`. Both minus `ln((e^a' + e^b') / (e^a + e^b))` restore that sum and
        keep their new ratio.
        """
        if self.mode != "two":
            return dict(after)
        shifted = {}
        for name, logits_EO in _on_cpu(before).items():
            new_EO = after[name].detach()
            old_EO = before[name].detach()
            # The same noise and the alphas of before: the pair that was drawn for the gradient.
            pair_E2 = _pair(logits_EO, noise[name]).to(new_EO.device)
            old_E1 = torch.logsumexp(old_EO.gather(-1, pair_E2), dim=-1, keepdim=True)
            new_E1 = torch.logsumexp(new_EO.gather(-1, pair_E2), dim=-1, keepdim=True)
            shift_E2 = (old_E1 - new_E1).expand(pair_E2.shape)
            shifted[name] = new_EO.scatter_add(-1, pair_E2, shift_E2)
        return shifted


def _draw_of_two(alphas: Tables, noise: Tables) -> Draw:
    """Two operations of every edge: one runs, the other is probed beside it."""
    mix = {}
    active: dict[str, Active] = {}
    probed: dict[str, Active] = {}
    probability = {}
    for name, logits_EO in _on_cpu(alphas).items():
        alpha_EO = alphas[name]
        # Two operations of every edge, sampled without replacement (section 3.2 of the paper).
        pair_E2 = _pair(logits_EO, noise[name])
        if pair_E2.shape[-1] < 2:  # of a single one there is nothing to learn
            active[name] = one_active(pair_E2)
            probed[name] = ((),) * pair_E2.numel()
            probability[name] = torch.softmax(alpha_EO, dim=-1)
            mix[name] = probability[name]
            continue
        q_E2 = torch.softmax(logits_EO.gather(-1, pair_E2), dim=-1)

        # One of the two runs. Its own uniform number decides: with the pair's numbers, the order of
        # the pair and the choice within it would depend on each other, and q would not be the
        # probability.
        uniform_E1 = noise[name][..., -1:]
        takes_second_E1 = (uniform_E1 >= q_E2[..., :1]).long()
        active_E1 = pair_E2.gather(-1, takes_second_E1)
        probed_E1 = pair_E2.gather(-1, 1 - takes_second_E1)
        active[name] = one_active(active_E1)
        probed[name] = one_active(probed_E1)

        # q once more, in place among all operations and as a function of alpha: the gradient of
        # this softmax reaches the two alphas alone, and that of the others is exactly zero.
        outside_EO = torch.ones_like(alpha_EO, dtype=torch.bool)
        outside_EO.scatter_(-1, pair_E2.to(alpha_EO.device), False)
        probability[name] = torch.softmax(alpha_EO.masked_fill(outside_EO, -torch.inf), dim=-1)
        gate_EO = one_hot(alpha_EO, active_E1)
        mix[name] = straight_through(probability[name], gate_EO)
    return Draw(mix, active, _log_prob(alphas, active), probability, probed=probed)


def _on_cpu(alphas: Tables) -> dict[str, Tensor]:
    """Tables in float64 on the CPU, so that every device samples the same."""
    if not alphas:
        return {}
    # In one transfer: each would wait for the device.
    flat = torch.cat([alpha.detach().reshape(-1) for alpha in alphas.values()])
    parts = flat.to("cpu", torch.float64).split([alpha.numel() for alpha in alphas.values()])
    tables = {}
    for (name, alpha), part in zip(alphas.items(), parts, strict=True):
        tables[name] = part.view(alpha.shape)
    return tables


def _ordered(logits_EO: Tensor, noise: Tensor) -> Tensor:
    """Operations in the order in which softmax(alpha) draws them without replacement."""
    scores_EO = torch.log_softmax(logits_EO, dim=-1) + gumbel_numbers(noise[..., :-1])
    return scores_EO.argsort(dim=-1, descending=True, stable=True)


def _pair(logits_EO: Tensor, noise: Tensor) -> Tensor:
    return _ordered(logits_EO, noise)[..., :2]


def _softmax(alphas: Tables) -> dict[str, Tensor]:
    return {name: torch.softmax(alpha, dim=-1) for name, alpha in alphas.items()}


def _log_prob(alphas: Tables, active: Mapping[str, Active]) -> Tensor | None:
    """Log-probability of the active operations under softmax(alpha)."""
    if not alphas:
        return None
    parts = []
    for name, alpha in alphas.items():
        log_p_EO = torch.log_softmax(alpha, dim=-1).reshape(-1, alpha.shape[-1])
        index_E1 = torch.tensor(active[name], device=alpha.device)
        parts.append(log_p_EO.gather(-1, index_E1).sum())
    return torch.stack(parts).sum()
