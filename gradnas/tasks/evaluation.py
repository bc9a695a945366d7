"""Means over batches, and BatchNorm statistics that belong to the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from gradnas import distributed
from gradnas.modules.synchronised import synchronised_norms
from gradnas.runs import State
from gradnas.search.recalibration import recalibrate as recalibrate_norms

B = TypeVar("B")  # a batch


class Means:
    """Running means of named scalars over an epoch, in float64 on the device, with a state."""

    def __init__(self, state: State | None = None) -> None:
        self.totals: dict[str, Tensor] = {}
        self.count = 0.0
        if state:
            self.totals = dict(state["totals"])
            self.count = float(state["count"])

    def add(self, parts: Mapping[str, Tensor], weight: int) -> None:
        """Add values that are means over `weight` items."""
        for name, value in parts.items():
            part = value.detach().double() * weight
            before = self.totals.get(name)
            # A state that was loaded lies on the CPU.
            self.totals[name] = part if before is None else before.to(part.device) + part
        self.count += weight

    def state_dict(self) -> State:
        """Tensors and plain values."""
        return {"totals": dict(self.totals), "count": self.count}

    @staticmethod
    def joined(states: Sequence[State]) -> State:
        """The means of several ranks as those of one."""
        totals: dict[str, Tensor] = {}
        for state in states:
            for name, total in state["totals"].items():
                totals[name] = totals[name] + total.to(totals[name]) if name in totals else total
        return {"totals": totals, "count": sum(float(state["count"]) for state in states)}

    def values(self, prefix: str = "", of_all_ranks: bool = True) -> dict[str, float]:
        """The means, over the items of all ranks; or over those of this one, without a word to the
        others."""
        totals = {name: total.item() for name, total in self.totals.items()}
        count = self.count
        if of_all_ranks and distributed.world() > 1:
            # Both averaged: a rank with more items counts for more.
            averaged = distributed.mean_of_values({"": count, **totals})
            count = averaged.pop("")
            totals = averaged
        return {f"{prefix}{name}": total / count for name, total in totals.items()}


def _called(network: nn.Module, batch: object) -> object:
    return network(batch)


def recalibrate(
    network: nn.Module,
    batches: Iterable[B],
    run: Callable[[nn.Module, B], object] = _called,
) -> None:
    """Replace the running statistics of every BatchNorm by the mean over these batches.

    The network ends in eval mode.

    Args:
        run: calls the network on a batch; by default with the batch itself.
    """
    with synchronised_norms():
        recalibrate_norms(network, batches, run)
    network.eval()
