"""Operations that stop learning where they only learn the train data by heart: OLES."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gradnas.config import check_numbers
from gradnas.stabilizers.base import Stabilizer

RELEASED = 0.4
FORMULA = 0.0


@dataclass(frozen=True)
class OperationFreezing(Stabilizer):
    """An operation stops learning for good where its train and validation gradients disagree.

    The similarity of the two gradients of an operation's weights is averaged over a window of
    steps; below a threshold the operation (of one edge of one cell) is frozen: no gradient, no
    decay, no momentum. Operations with many weights fit the train half first, and then lose to skip
    connections on the other. Stems, inputs of cells and strided skips never freeze.

    Compared are the gradient of the last step of the weights (as clipped) and that of the
    validation loss at the weights that it led to.

    Cost: one more pass over the validation batch for each step of the alphas (the authors get this
    gradient with that of the alphas), and memory for one gradient of all operations.

    Args:
        form: `"released"`: as the authors' code compares, `cos(g_train + g_valid, g_train)` along
            the first dimension of each tensor, averaged over its other places and then over the
            operation's tensors; `window + 1` values are added and divided by `window`. Gradients of
            equal size at right angles have 0.71 there. `"formula"`: the paper's, the cosine of the
            two gradients as flat vectors, the mean over `window` values.
        window: steps of the alphas that are averaged.
        threshold: None: 0.4 for the released form, which it was chosen for; 0 for the formula, our
            choice: as soon as they disagree.

    Source: Jiang, Ji, Zhu, Yuan, Huang, "Operation-level early stopping for robustifying
    differentiable NAS" (OLES), NeurIPS 2023, eq. 5 and 6. Where it differs: weights that were
    frozen have no decay and no momentum (in older versions of torch the authors' kept both).

    Raises:
        ValueError: a window below 1, another form, a threshold beyond cosines; in a search, a
            space whose operations have no weights, or a gradient that does not differentiate the
            validation loss.
    """

    form: Literal["released", "formula"] = "released"
    window: int = 20
    threshold: float | None = None

    def __post_init__(self) -> None:
        if self.form not in ("released", "formula"):
            raise ValueError(f"form must be 'released' or 'formula', not {self.form!r}")
        if not isinstance(self.window, int) or self.window < 1:
            raise ValueError(f"window must be a whole number of at least 1, not {self.window!r}")
        is_number = isinstance(self.threshold, (int, float)) or self.threshold is None
        # The mean of the released form is that of one value more than it divides by.
        if not is_number or not -2.0 <= self.least <= 2.0:
            raise ValueError(
                "threshold is what a mean of cosines is compared with, from -2 to 2, not "
                f"{self.threshold!r}"
            )
        check_numbers(self)

    @property
    def least(self) -> float:
        """The mean similarity below which an operation freezes."""
        if self.threshold is not None:
            return self.threshold
        return RELEASED if self.form == "released" else FORMULA

    @property
    def steps(self) -> int:
        """Values that are added up before the mean is looked at."""
        return self.window + 1 if self.form == "released" else self.window

    def similarity(self, train: Sequence[Tensor], valid: Sequence[Tensor]) -> Tensor:
        """Of the two gradients of one operation, a scalar.

        Args:
            train, valid: one tensor for each of its weights.
        """
        if self.form == "formula":
            one = torch.cat([g.reshape(-1) for g in train])
            other = torch.cat([g.reshape(-1) for g in valid])
            return torch.cosine_similarity(one, other, dim=0)
        values = []
        for g_train, g_valid in zip(train, valid, strict=True):
            cosines = torch.cosine_similarity(g_train + g_valid, g_train, dim=0)
            values.append(cosines.mean())
        return torch.stack(values).mean()
