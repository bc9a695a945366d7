"""Sampling one path, and learning from what the other paths would have given: ProxylessNAS.

Legend: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from gradnas.choice import Active, Draw
from gradnas.relaxations.base import Relaxation, straight_through


@dataclass(frozen=True)
class BinaryGates(Relaxation):
    """One-hot gates g ~ softmax(alpha); the alphas learn by `dL/d alpha_i = sum_j dL/dg_j p_j
    (delta_ij - p_i)`.

    `dL/dg_j = <dL/dy, o_j(x)>` needs the outputs of operations that were not sampled; they are
    computed without a graph. The weights learn on one sampled path: the other operations are not
    run, and neither momentum, weight decay nor running statistics touch them.

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

    def check_alpha_optimizer(self, betas: tuple[float, float], weight_decay: float) -> None:
        if self.mode == "two" and (betas[0] != 0.0 or weight_decay != 0.0):
            raise ValueError(
                "BinaryGates(mode='two') leaves alphas of operations that were not sampled as they are, which needs "
                f"AlphaOptimizer(betas=(0.0, ...), weight_decay=0.0), not betas={betas}, weight_decay={weight_decay}"
            )

    def noise(self, alphas: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Uniform numbers in (0, 1): a column for each operation, and one for the active of two."""
        tiny = torch.finfo(torch.float64).tiny
        return {
            name: torch.rand(
                (*a.shape[:-1], a.shape[-1] + 1), generator=generator, dtype=torch.float64
            ).clamp_min(tiny)
            for name, a in alphas.items()
        }

    def path(
        self, alphas: Mapping[str, Tensor], noise: Mapping[str, Tensor], progress: float
    ) -> Draw:
        """One operation of every edge, drawn from softmax(alpha); its weight is exactly 1."""
        del progress
        mix, active = {}, {}
        for name, logits_EO in _on_cpu(alphas).items():
            index_E1 = _ordered(logits_EO, noise[name])[..., :1]
            mix[name] = _one_hot(alphas[name], index_E1)
            active[name] = _as_active(index_E1)
        return Draw(mix, active, _log_prob(alphas, active), _softmax(alphas))

    def draw(
        self, alphas: Mapping[str, Tensor], noise: Mapping[str, Tensor], progress: float
    ) -> Draw:
        """Gates to learn the alphas with: the active operation, and those that are probed beside
        it."""
        if self.mode != "two":
            plain = self.path(alphas, noise, progress)
            assert plain.probability is not None
            mix = {
                name: straight_through(plain.probability[name], plain.mix[name]) for name in alphas
            }
            probed = {
                name: tuple(
                    tuple(k for k in range(alphas[name].shape[-1]) if k not in row) for row in rows
                )
                for name, rows in plain.active.items()
            }
            return Draw(
                mix,
                plain.active,
                plain.log_prob,
                plain.probability,
                probed=probed,
                deferred=self.mode == "recompute",
            )
        mix, active, probed, probability = {}, {}, {}, {}
        for name, logits_EO in _on_cpu(alphas).items():
            alpha, pair_E2 = alphas[name], _pair(logits_EO, noise[name])
            both_E2 = torch.softmax(logits_EO.gather(-1, pair_E2), dim=-1)
            second_E1 = (noise[name][..., -1:] >= both_E2[..., :1]).long()
            active[name] = _as_active(pair_E2.gather(-1, second_E1))
            probed[name] = _as_active(pair_E2.gather(-1, 1 - second_E1))
            outside = torch.ones_like(alpha, dtype=torch.bool).scatter_(
                -1, pair_E2.to(alpha.device), False
            )
            probability[name] = torch.softmax(alpha.masked_fill(outside, -torch.inf), dim=-1)
            one_hot = _one_hot(alpha, pair_E2.gather(-1, second_E1))
            mix[name] = straight_through(probability[name], one_hot)
        return Draw(mix, active, _log_prob(alphas, active), probability, probed=probed)

    def after_update(
        self, before: Mapping[str, Tensor], after: Mapping[str, Tensor], noise: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """In `two`: both sampled alphas minus `ln((e^a' + e^b') / (e^a + e^b))`: all others keep
        their share."""
        if self.mode != "two":
            return dict(after)
        shifted = {}
        for name, logits_EO in _on_cpu(before).items():
            new = after[name].detach()
            pair_E2 = _pair(logits_EO, noise[name]).to(new.device)
            old_E1 = torch.logsumexp(
                before[name].detach().gather(-1, pair_E2), dim=-1, keepdim=True
            )
            new_E1 = torch.logsumexp(new.gather(-1, pair_E2), dim=-1, keepdim=True)
            shifted[name] = new.scatter_add(-1, pair_E2, (old_E1 - new_E1).expand(pair_E2.shape))
        return shifted


def _on_cpu(alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tables in float64 on the CPU, in one transfer: every device samples the same."""
    if not alphas:
        return {}
    flat = torch.cat([alpha.detach().reshape(-1) for alpha in alphas.values()]).to(
        "cpu", torch.float64
    )
    parts = flat.split([alpha.numel() for alpha in alphas.values()])
    return {
        name: part.view(alpha.shape)
        for (name, alpha), part in zip(alphas.items(), parts, strict=True)
    }


def _ordered(logits_EO: Tensor, noise: Tensor) -> Tensor:
    """Operations in the order in which they are drawn from softmax(alpha) without replacement
    (Gumbel's order)."""
    gumbel_EO = -torch.log(-torch.log(noise[..., :-1]))
    return (torch.log_softmax(logits_EO, dim=-1) + gumbel_EO).argsort(
        dim=-1, descending=True, stable=True
    )


def _pair(logits_EO: Tensor, noise: Tensor) -> Tensor:
    return _ordered(logits_EO, noise)[..., :2]


def _one_hot(like: Tensor, index: Tensor) -> Tensor:
    return torch.zeros_like(like, requires_grad=False).scatter_(-1, index.to(like.device), 1.0)


def _as_active(index: Tensor) -> Active:
    return tuple((k,) for k in index.reshape(-1).tolist())


def _softmax(alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.softmax(alpha, dim=-1) for name, alpha in alphas.items()}


def _log_prob(alphas: Mapping[str, Tensor], active: Mapping[str, Active]) -> Tensor | None:
    """Log-probability of the active operations under softmax(alpha)."""
    parts = []
    for name, alpha in alphas.items():
        log_p = torch.log_softmax(alpha, dim=-1).reshape(-1, alpha.shape[-1])
        index_E1 = torch.tensor(active[name], device=alpha.device)
        parts.append(log_p.gather(-1, index_E1).sum())
    return torch.stack(parts).sum() if parts else None
