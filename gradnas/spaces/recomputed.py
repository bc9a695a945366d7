"""A cell whose inside is computed again in backward: the memory of one cell for one more pass.

Chen et al., arXiv 1604.06174.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gradnas.modules.slots import held_by, holding, with_copied_buffers


def recomputed(cell: nn.Module, *inputs: Any) -> Tensor:
    """The output of a cell whose inside is computed again in backward, at any order of derivative.

    The tensors of the cell are kept as they are now: backward runs when others have been put back.
    Running statistics are updated by the first computation alone.
    """
    held = held_by(cell)
    first = True

    def run(*inputs: Any) -> Tensor:
        nonlocal first
        if first:
            first = False
            return cell(*inputs)
        # BatchNorm writes into the buffers that it is given: this time, into copies.
        with holding(with_copied_buffers(held)):
            return cell(*inputs)

    return checkpoint(run, *inputs, use_reentrant=False)
