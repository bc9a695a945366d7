"""Does a table add up? Derived networks are timed from end to end, beside their sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from gradnas.latency.counts import in_eval_mode
from gradnas.latency.measure import Timing, time_interleaved
from gradnas.latency.survey import CostView, Ready


@dataclass(frozen=True)
class Checked:
    """One derived network: its latency from end to end, and the sum of the table's entries."""

    whole_ms: float
    spread_ms: float  # interquartile range
    sum_ms: float
    fresh_ms: float  # from end to end, where the allocator gives memory back between calls

    @property
    def ratio(self) -> float:
        """Sum over whole: 1 where the table is right."""
        return self.sum_ms / self.whole_ms

    def __str__(self) -> str:
        sentence = (
            f"from end to end {self.whole_ms:.3f} ms (interquartile range {self.spread_ms:.3f}), "
            f"sum of the table {self.sum_ms:.3f} ms, {self.ratio:.2f} times"
        )
        if self.fresh_ms > 1.1 * self.whole_ms:
            sentence += f"; {self.fresh_ms:.3f} ms with memory that is given back and fetched anew"
        return sentence


def check_sums(
    view: CostView,
    inputs: Sequence[Any],
    networks: Sequence[nn.Module],
    sums_ms: Sequence[float],
    device: torch.device,
    timing: Timing,
    named: Mapping[str, Any] | None = None,
) -> list[Checked]:
    """Time derived networks in turn with the operations, so that they meet caches as those did.

    Args:
        view, inputs, timing: what the table was measured with.
        networks: in eval mode, on the device.
        sums_ms: what the table says of each.
        named: inputs by name, which the view is called with as well.
    """
    works: list[Ready] = []
    for network in networks:
        works.append(partial(nullcontext, partial(network, *inputs, **(named or {}))))
    for unit in view.survey(inputs):
        works.append(unit.ready)
    with in_eval_mode(view.net):
        samples = time_interleaved(works, device, timing)
    wholes = works[: len(networks)]
    fresh = time_interleaved(wholes, device, timing, keep_memory=False)
    checked = []
    for number, sum_ms in enumerate(sums_ms):
        sample = samples[number]
        checked.append(Checked(sample.ms, sample.spread_ms, sum_ms, fresh[number].ms))
    return checked
