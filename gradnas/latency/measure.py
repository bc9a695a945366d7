"""Timing of every distinct (operation, input shape) of a network on the device at hand."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from gradnas.latency.survey import CostView
from gradnas.latency.table import Device, Entry, LatencyTable

# A context manager around the function to time; what it does on entering and leaving is not timed.
Ready = Callable[[], AbstractContextManager[Callable[[], Any]]]


@dataclass(frozen=True)
class Timing:
    """How calls are timed.

    Everything that is timed takes turns: each round calls each of them once, in an order of its
    own, so that a busy moment of the machine hits all alike and no operation finds its weights in
    the cache because it ran just before.

    Args:
        warmup: rounds that are thrown away.
        repeats: rounds that count.
        clock: `"wall"`; `"cpu"` is the CPU time of the process, which other programs disturb less,
            and which equals the time that passes where one thread works.

    Raises:
        ValueError: a number below 1 (0 for the warm-up), another clock.
    """

    warmup: int = 5
    repeats: int = 50
    clock: Literal["wall", "cpu"] = "wall"

    def __post_init__(self) -> None:
        for name, least in (("warmup", 0), ("repeats", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.clock not in ("wall", "cpu"):
            raise ValueError(f"clock must be 'wall' or 'cpu', not {self.clock!r}")

    def check(self, device: torch.device) -> None:
        """ValueError where this clock would not measure that device."""
        if self.clock == "cpu" and (device.type != "cpu" or torch.get_num_threads() != 1):
            raise ValueError(
                f"clock='cpu' adds up the time of all threads, and measures {device.type} with "
                f"{torch.get_num_threads()} threads wrongly; take one CPU thread or clock='wall'"
            )


@dataclass(frozen=True)
class Sample:
    """Milliseconds of one thing that was timed: median, interquartile range, number of calls."""

    ms: float
    spread_ms: float
    count: int


def time_interleaved(
    works: Sequence[Ready],
    device: torch.device,
    timing: Timing = Timing(),
    on_round: Callable[[], None] | None = None,
) -> list[Sample]:
    """Time functions without arguments, taking turns (see `Timing`), without gradients.

    Each is given by a function that returns a context manager around it: `lambda:
    nullcontext(function)`.

    On CUDA each call lies between two events on the stream, and the device is synchronised after
    each round; calls therefore overlap with the launch of the next, as they do in a network.
    """
    timing.check(device)
    order = np.random.default_rng(0)
    samples: list[list[float]] = [[] for _ in works]
    one_round = _cuda_round if device.type == "cuda" else _synchronised_round
    with torch.no_grad():
        for number in range(timing.warmup + timing.repeats):
            found = one_round(works, order.permutation(len(works)).tolist(), device, timing)
            if number >= timing.warmup:
                for k, ms in found.items():
                    samples[k].append(ms)
            if on_round is not None:
                on_round()
    summaries = []
    for values in samples:
        low, middle, high = np.percentile(values, (25, 50, 75))
        summaries.append(Sample(float(middle), float(high - low), len(values)))
    return summaries


def _synchronised_round(
    works: Sequence[Ready], order: Sequence[int], device: torch.device, timing: Timing
) -> dict[int, float]:
    clock = time.process_time_ns if timing.clock == "cpu" else time.perf_counter_ns
    wait = getattr(torch, device.type).synchronize if device.type not in ("cpu", "meta") else None
    found = {}
    for k in order:
        with works[k]() as work:
            if wait is not None:
                wait()
            begin = clock()
            work()
            if wait is not None:
                wait()
            found[k] = (clock() - begin) / 1e6
    return found


def _cuda_round(
    works: Sequence[Ready], order: Sequence[int], device: torch.device, timing: Timing
) -> dict[int, float]:
    del timing
    events = {}
    with torch.cuda.device(device):
        for k in order:
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            with works[k]() as work:
                begin.record()
                work()
                end.record()
            events[k] = (begin, end)
        torch.cuda.synchronize(device)
    return {k: begin.elapsed_time(end) for k, (begin, end) in events.items()}


def measure(
    net: nn.Module | CostView,
    inputs: Sequence[Any],
    timing: Timing = Timing(),
    settings: Mapping[str, Any] | None = None,
    on_round: Callable[[], None] | None = None,
) -> LatencyTable:
    """Time every distinct (operation, input shape) of a network with choices, and its fixed parts,
    in eval mode.

    The sum of the entries that a derived network uses is its time from end to end.

    Args:
        net: any module with `Choice`s, on the device to measure; of a supernet its `cost_view()`.
        inputs: its inputs, on that device, with the batch size to measure.
        timing: rounds and clock.
        settings: what else to write into the table, e.g. the name of the space.
        on_round: called after each round, to show progress.

    Raises:
        ValueError: an operation with parameters did not run; a clock that does not fit the device.
    """
    view = net if isinstance(net, CostView) else CostView(net)
    net, units = view.net, view.survey(inputs)
    device = _device_of(net, inputs)
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        samples = time_interleaved([unit.ready for unit in units], device, timing, on_round)
    finally:
        for module, training in modes:
            module.training = training
    shapes = [list(x.shape) for x in inputs if isinstance(x, torch.Tensor)]
    entries = {}
    for unit, sample in zip(units, samples, strict=True):
        entries[unit.key] = Entry(
            ms=sample.ms,
            spread_ms=sample.spread_ms,
            count=sample.count,
            label=unit.label,
            macs=unit.macs,
            params=max(unit.params),
            features=unit.features,
        )
    described = {**(settings or {}), "inputs": shapes, "mode": "eval", **asdict(timing)}
    return LatencyTable(entries, Device.here(device), described, versions())


def _device_of(net: nn.Module, inputs: Sequence[Any]) -> torch.device:
    first = next(net.parameters(), None)
    if first is None:
        first = next((x for x in inputs if isinstance(x, torch.Tensor)), torch.zeros(()))
    return first.device


def versions() -> dict[str, str]:
    """Of what a latency depends on."""
    return {
        "gradnas": __import__("gradnas").__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
