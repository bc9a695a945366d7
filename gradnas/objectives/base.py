"""What every objective is: outputs of a network -> a scalar to minimise, and named parts to report.

Legend: B batch, K classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor

from gradnas.modules.draws import Draw


class Objective(ABC):
    """A subclass is a frozen dataclass in a file of its own."""

    @abstractmethod
    def __call__(
        self, outputs: Any, targets: Any, draw: Draw | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, a scalar, and detached scalars to report (each a mean over the batch).

        Args:
            outputs: what the network returned.
            targets: the batch's targets.
            draw: the mixing weights of this pass, for objectives with a cost; None outside a
                search.
        """
