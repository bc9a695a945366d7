"""Sampling with the Gumbel-softmax: GDAS (hard) and SNAS (soft).

Legend: E edges, O operations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from gradnas.config import check_numbers
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
class GumbelSoftmax(Relaxation):
    """`soft = softmax((log softmax(alpha) + g) / temperature)` with Gumbel noise g.

    One sample for each edge and step.

    Args:
        hard: use the one-hot of the largest entry with the gradient of `soft` (straight-through),
            so that only the sampled operation of each edge is computed; False mixes all operations
            with `soft`.
        probe: of hard samples, how the gradient of `soft` gets the outputs of the operations that
            were not sampled, `dL/dg_j = <dL/dy, o_j(x)>`, as `BinaryGates` has them. `"none"`: not
            at all, as published; then the alphas see one operation of each edge, and about a
            hundredth of the true gradient. `"full"`: all are computed in the forward pass, without
            a graph; keeps one output of each. `"recompute"`: in backward, with the memory of one
            path. Cost: a forward pass of every operation in each step of the alphas, none in that
            of the weights.
        temperature: at the start of the search.
        temperature_end: at its end; linear in between, as in GDAS (10 to 0.1).

    Sources: Dong, Yang, "Searching for a Robust Neural Architecture in Four GPU Hours" (GDAS), CVPR
    2019, eq. 3 to 5; Xie et al., "SNAS", ICLR 2019 (arXiv 1812.09926), eq. 5. Where it differs: the
    GDAS code for NAS-Bench-201 adds the bare gate of operations that were not sampled, as if they
    gave 1 everywhere; here they add nothing, or with `probe` what they give.

    Raises:
        ValueError: a temperature that is not positive, another probe, a probe of soft samples
            (which compute every operation).
    """

    hard: bool = True
    probe: Literal["none", "full", "recompute"] = "none"
    temperature: float = 10.0
    temperature_end: float = 0.1

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and self.temperature_end > 0):
            raise ValueError(
                f"temperatures must be positive, got temperature={self.temperature}, "
                f"temperature_end={self.temperature_end}"
            )
        if self.probe not in ("none", "full", "recompute"):
            raise ValueError(f"probe must be 'none', 'full' or 'recompute', not {self.probe!r}")
        if self.probe != "none" and not self.hard:
            raise ValueError(
                f"probe={self.probe!r} is for hard samples: with hard=False every operation is "
                "computed anyway"
            )
        check_numbers(self)

    @property
    def once_differentiable(self) -> bool:
        return self.probe != "none"

    @property
    def needs_progress(self) -> bool:
        return self.temperature != self.temperature_end

    @property
    def trains_mixtures(self) -> bool:
        return not self.hard

    def noise(self, alphas: Tables, generator: torch.Generator) -> dict[str, Tensor]:
        gumbel = {}
        for name, alpha in alphas.items():
            gumbel[name] = gumbel_numbers(uniform_numbers(alpha.shape, generator))
        return gumbel

    def path(self, alphas: Tables, noise: Tables, progress: float) -> Draw:
        temperature = self.temperature + (self.temperature_end - self.temperature) * progress
        soft = {}
        log_p = {}
        for name, alpha in alphas.items():
            log_p[name] = torch.log_softmax(alpha, dim=-1)
            perturbed = log_p[name] + noise[name].to(log_p[name])
            soft[name] = torch.softmax(perturbed / temperature, dim=-1)
        if not self.hard:
            return Draw.dense(soft)

        mix = {}
        index = {}
        probability = {}
        log_probs = []
        for name, soft_EO in soft.items():
            # The temperature does not move the largest entry, so this is a sample of softmax(alpha)
            # whatever the temperature, and its log-probability is that of softmax(alpha).
            index_E1 = soft_EO.argmax(dim=-1, keepdim=True)
            mix[name] = straight_through(soft_EO, one_hot(soft_EO, index_E1))
            index[name] = index_E1
            probability[name] = log_p[name].exp()
            log_probs.append(log_p[name].gather(-1, index_E1).sum())
        log_prob = torch.stack(log_probs).sum() if log_probs else None
        return Draw(mix, _all_active(index), log_prob, probability)

    def draw(self, alphas: Tables, noise: Tables, progress: float) -> Draw:
        sampled = self.path(alphas, noise, progress)
        if self.probe == "none":
            return sampled
        probed = {}
        for name, rows in sampled.active.items():
            num_operations = alphas[name].shape[-1]
            probed[name] = tuple(others(row, num_operations) for row in rows)
        return replace(sampled, probed=probed, deferred=self.probe == "recompute")


def _all_active(index: Tables) -> dict[str, Active]:
    """`one_active` of every choice, read off the device together: each reading waits for it."""
    if not index:
        return {}
    sizes = [index_E1.numel() for index_E1 in index.values()]
    flat_n = torch.cat([index_E1.reshape(-1) for index_E1 in index.values()]).cpu()
    rows = flat_n.split(sizes)
    return {name: one_active(row) for name, row in zip(index, rows, strict=True)}
