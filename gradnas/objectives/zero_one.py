"""Pushing independent weights towards 0 and 1: FairDARTS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from gradnas.objectives.terms import AlphaTerm, Fits, Tables, check_weight


@dataclass(frozen=True)
class ZeroOne(AlphaTerm):
    """`-weight * mean (sigmoid(alpha) - 0.5)^2` over all entries, for `Sigmoid`.

    Cost: none.

    Args:
        weight: as in the authors' code, constant.
        form: `"l2"`, the square above; `"l1"`: `-weight * mean |sigmoid(alpha) - 0.5|`, which the
            authors tried and which pulls as hard at 0.5 as at 0.

    Source: Chu, Zhou, Zhang, Li, "Fair DARTS", ECCV 2020 (arXiv 1911.12126), section 4.2. Where it
    differs: the authors' code adds it to the loss of the weights too, where it has no effect. The
    authors begin with alphas of exactly 0, where the gradient of the square is 0, and take steps of
    3e-3; a search here begins near 0.

    Raises:
        ValueError: a weight below 0, another form.
    """

    weight: float = 10.0
    form: Literal["l2", "l1"] = "l2"
    fits: ClassVar[Fits] = "independent"

    def __post_init__(self) -> None:
        check_weight("weight", self.weight)
        if self.form not in ("l2", "l1"):
            raise ValueError(f"form must be 'l2' or 'l1', not {self.form!r}")

    def weight_at(self, done: float) -> float:
        del done
        return self.weight

    def value(self, alphas: Tables) -> Tensor:
        distance = torch.sigmoid(torch.cat([a.reshape(-1) for a in alphas.values()])) - 0.5
        return -(distance.abs() if self.form == "l1" else distance.square()).mean()
