"""How much a pass takes, counted: the same on every machine, which seconds are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from gradnas.modules.inplace import tensors_of


class Effort(NamedTuple):
    """What one call of a network did."""

    operators: int  # of torch that ran
    elements: int  # that they gave
    flops: int  # in products of matrices and convolutions

    def share_of(self, other: Effort) -> float:
        """How much of another call this one takes, by what it takes the largest share of."""
        shares = []
        for own, theirs in zip(self, other, strict=True):
            if theirs:
                shares.append(own / theirs)
        return min(max(shares, default=1.0), 1.0)


class _Counting(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.operators = 0
        self.elements = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        self.operators += 1
        self.elements += sum(tensor.numel() for tensor in tensors_of(output))
        return output


@torch.no_grad()
def effort_of(call: Callable[[], object]) -> Effort:
    """Count what a call does."""
    flops = FlopCounterMode(display=False)
    counting = _Counting()
    with flops, counting:
        call()
    return Effort(counting.operators, counting.elements, flops.get_total_flops())
