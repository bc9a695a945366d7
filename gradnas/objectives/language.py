"""The loss of a language model, with the regularisation of its states.

Legend: T time steps, B batch, V vocabulary, H hidden units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gradnas.config import check_numbers
from gradnas.modules.draws import Draw
from gradnas.objectives.base import Objective


@dataclass(frozen=True)
class TokenLikelihood(Objective):
    """Mean negative log-likelihood of the next token (nats), plus penalties on the cell's outputs.

    `loss = NLL + activation * mean(dropped^2) + slowness * mean((h_{t+1} - h_t)^2)`. Part: `loss`,
    the first term.

    Args:
        activation: weight of the squared outputs after dropout ("AR").
        slowness: weight of the squared differences of outputs that follow each other ("TAR").

    Source: Merity, McCann, Socher, "Revisiting activation regularization for language RNNs" (arXiv
    1708.01009).

    Raises:
        ValueError: a negative weight.
    """

    activation: float = 0.0
    slowness: float = 0.0

    def __post_init__(self) -> None:
        if self.activation < 0 or self.slowness < 0:
            raise ValueError(f"the weights of penalties must not be negative, not {self}")
        check_numbers(self)

    def __call__(
        self, outputs: Any, targets: Tensor | None = None, draw: Draw | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """`outputs` is the `LanguageLoss` that a model gives when it is told the targets."""
        del targets, draw
        loss = outputs.nll
        parts = {"loss": loss.detach()}
        if self.activation:
            loss = loss + self.activation * outputs.dropped_TBH.square().mean()
        # As published, this one is of the outputs before dropout. One step alone has no neighbour,
        # and the mean over nothing would be NaN.
        states_TBH = outputs.states_TBH
        if self.slowness and len(states_TBH) > 1:
            loss = loss + self.slowness * states_TBH.diff(dim=0).square().mean()
        return loss, parts
