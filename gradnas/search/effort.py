"""How much a pass takes, counted: the same on every machine, which seconds are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from gradnas.modules.inplace import tensors_of

# What things take on one core of today, roughly; the same numbers on every machine.
OPERATOR_S = 1e-5
ELEMENT_S = 1e-9
FLOP_S = 2.5e-11
COPIED_MODULE_S = 8e-5


class Effort(NamedTuple):
    """What one call of a network did."""

    operators: int  # of torch that ran
    elements: int  # that they gave
    flops: int  # in products of matrices and convolutions

    @property
    def seconds(self) -> float:
        """About so many on one core; only what they are beside others means anything."""
        return OPERATOR_S * self.operators + ELEMENT_S * self.elements + FLOP_S * self.flops

    def share_of(self, other: Effort) -> float:
        """How much of another call this one takes, by what it takes the largest share of."""
        shares = []
        for own, theirs in zip(self, other, strict=True):
            if theirs:
                shares.append(own / theirs)
        return min(max(shares, default=1.0), 1.0)


class _NoModules:
    """In the place of what tells a `FlopCounterMode` in which module a product is made.

    That hooks into every module and every tensor, which takes longer than the call.
    """

    parents = frozenset(("Global",))

    def __enter__(self) -> _NoModules:
        return self

    def __exit__(self, *error: object) -> None:
        pass


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


def copying_seconds(net: nn.Module) -> float:
    """As `Effort.seconds`, of a copy of a network."""
    num_modules = sum(1 for _ in net.modules())
    num_elements = sum(tensor.numel() for tensor in [*net.parameters(), *net.buffers()])
    return COPIED_MODULE_S * num_modules + ELEMENT_S * num_elements


@torch.no_grad()
def effort_of(call: Callable[[], object]) -> Effort:
    """Count what a call does."""
    flops = FlopCounterMode(display=False)
    nothing: Any = _NoModules()
    flops.mod_tracker = nothing
    counting = _Counting()
    with flops, counting:
        call()
    return Effort(counting.operators, counting.elements, flops.get_total_flops())
