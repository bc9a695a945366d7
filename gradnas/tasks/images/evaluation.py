"""The losses of a classifier on images."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from gradnas.objectives import CrossEntropy
from gradnas.tasks.batched import Parts, mean_parts


def evaluate(
    network: Callable[[Tensor], Any],
    batches: Iterable[tuple[Tensor, Tensor]],
    precision: str = "fp32",
) -> dict[str, float]:
    """Mean cross entropy `loss` and `accuracy` over batches of (x_BCHW, y_B). The caller sets the
    module's mode."""
    objective = CrossEntropy()

    def losses(batch: tuple[Tensor, Tensor]) -> Parts:
        x_BCHW, y_B = batch
        return objective(network(x_BCHW), y_B)[1]

    return mean_parts(losses, batches, precision)
