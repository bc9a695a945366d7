"""How a classifier is called on a batch of images, and its losses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from gradnas.objectives import CrossEntropy
from gradnas.tasks.calls import Calls, Parts, mean_parts

ImageBatch = tuple[Tensor, Tensor]  # x_BCHW, y_B


class ImageCalls(Calls[ImageBatch]):
    """Classifiers are called with x_BCHW; their losses are cross entropies.

    Attributes:
        objective: what is reported.
        train_objective: of the weights.
    """

    objective: CrossEntropy
    train_objective: CrossEntropy

    def losses(self, outputs: Any, batch: ImageBatch) -> tuple[Tensor, Parts]:
        return self.objective(outputs, batch[1])

    def train_losses(self, outputs: Any, batch: ImageBatch) -> tuple[Tensor, Parts]:
        return self.train_objective(outputs, batch[1])


def evaluate(
    network: Callable[[Tensor], Any],
    batches: Iterable[ImageBatch],
    precision: str = "fp32",
) -> dict[str, float]:
    """Mean cross entropy `loss` and `accuracy` over batches of (x_BCHW, y_B).

    The caller sets the module's mode.
    """
    objective = CrossEntropy()

    def losses(batch: ImageBatch) -> Parts:
        x_BCHW, y_B = batch
        return objective(network(x_BCHW), y_B)[1]

    return mean_parts(losses, batches, precision)
