"""The loss of the task itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gradnas.modules.draws import Draw
from gradnas.objectives.base import Objective


@dataclass(frozen=True)
class CrossEntropy(Objective):
    """Cross entropy, with label smoothing, plus a share of an auxiliary head's cross entropy.

    `loss = CE(logits) + auxiliary_weight * CE(auxiliary_logits)`; with smoothing s the target is
    `(1 - s) * one_hot + s / K`. Parts: `loss`, `accuracy` (share of the batch, in [0, 1]).

    Raises:
        ValueError: a smoothing outside [0, 1).
    """

    label_smoothing: float = 0.0
    auxiliary_weight: float = 0.4

    def __post_init__(self) -> None:
        if not 0.0 <= self.label_smoothing < 1.0:
            raise ValueError(f"label_smoothing must be in [0, 1), not {self.label_smoothing}")

    def __call__(
        self, outputs: Any, targets: Tensor, draw: Draw | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        del draw
        logits_BK = outputs
        auxiliary_BK = None
        if isinstance(outputs, tuple):  # a network with an auxiliary head, in training
            logits_BK, auxiliary_BK = outputs
        loss = self._cross_entropy(logits_BK, targets)
        is_right_B = logits_BK.detach().argmax(dim=1) == targets
        parts = {"loss": loss.detach(), "accuracy": is_right_B.double().mean()}
        if auxiliary_BK is not None and self.auxiliary_weight:
            # It helps the gradient reach the early cells, and is no part of what is reported.
            loss = loss + self.auxiliary_weight * self._cross_entropy(auxiliary_BK, targets)
        return loss, parts

    def _cross_entropy(self, logits_BK: Tensor, targets: Tensor) -> Tensor:
        # In float32 also under autocast: bf16 has too few digits for a sum of exponentials.
        return F.cross_entropy(logits_BK.float(), targets, label_smoothing=self.label_smoothing)
