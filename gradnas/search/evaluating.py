"""Calls of a user's functions while nothing learns: without a graph, unless they need one.

A penalty on the gradient of the input, the residual of a differential equation, forces as the
gradient of an energy: such a loss differentiates by itself, also where it is only measured.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from gradnas.modules.inplace import tensors_of
from gradnas.modules.nesting import mapped

T = TypeVar("T")

LACKS_GRAPH = "does not require grad"  # as torch says it of what was computed under `no_grad`


class Evaluating:
    """One function of the user's, where gradients are switched off around it.

    Attributes:
        needs_graph: whether it was seen to differentiate by itself.
    """

    def __init__(self) -> None:
        self.needs_graph = False

    def __call__(self, run: Callable[[], T]) -> T:
        """What `run` gives; without a graph where gradients are switched off."""
        if torch.is_grad_enabled():
            return run()
        if not self.needs_graph:
            state = torch.get_rng_state()
            try:
                return run()
            except RuntimeError as error:
                if LACKS_GRAPH not in str(error):
                    raise
            torch.set_rng_state(state)  # as if it had run once
            self.needs_graph = True
        with torch.enable_grad():
            return detached(run())


def detached(value: T) -> T:
    """A nesting whose tensors have no graph behind them; the same one where none has."""
    if not any(tensor.requires_grad for tensor in tensors_of(value)):
        return value

    def leaf(leaves: Sequence[Any], where: str) -> Any:
        del where
        return leaves[0].detach() if isinstance(leaves[0], Tensor) else leaves[0]

    return mapped(leaf, [value])
