"""The smooth maximum of the alphas as a term of their loss: beta-DARTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gradnas.objectives.terms import AlphaTerm, Fits, Tables, check_weight


@dataclass(frozen=True)
class BetaDecay(AlphaTerm):
    """`lambda(e) * mean over edges of log sum_k exp(alpha_k)`, with `lambda(e)` rising from 0.

    Its gradient is `lambda / edges * softmax(alpha)`: the larger a probability, the more it is
    pushed down. So the spread of the alphas stays small and no operation runs away early (weight
    decay on the alphas shrinks them, and not their probabilities). All alphas of an edge fall
    beside it, which a softmax does not see; so it is for weights that are one, and not for
    `Dirichlet`, nor for `BinaryGates("two")`, which puts back two alphas of an edge in each step.

    Cost: none.

    Args:
        end: what lambda rises to, linearly: epoch e of E has `end * e / E`. 50 for 100 epochs and
            25 for 50 are the line of the authors, half a unit an epoch.

    Source: Ye, Li, Li, Chen, Fan, Ouyang, "beta-DARTS", CVPR 2022 (arXiv 2203.01665), eq. 12. The
    mean over edges is that of the authors' code. Where it differs: the authors' second-order branch
    leaves the term out; here every gradient has it. Of several tables the mean is over the edges of
    all (their code for two tables does not run).

    Raises:
        ValueError: an `end` below 0.
    """

    end: float = 50.0
    fits: ClassVar[Fits] = "softmax"

    def __post_init__(self) -> None:
        check_weight("end", self.end)

    @property
    def needs_length(self) -> bool:
        return True

    def weight_at(self, done: float) -> float:
        return self.end * done

    def value(self, alphas: Tables) -> Tensor:
        maxima = [torch.logsumexp(alpha, dim=-1).reshape(-1) for alpha in alphas.values()]
        return torch.cat(maxima).mean()
