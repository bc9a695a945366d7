"""Timing of every distinct (operation, input shape) of a network on the device at hand."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from gradnas.config import Json
from gradnas.latency.allocator import keeping_memory
from gradnas.latency.counts import in_eval_mode
from gradnas.latency.entry import Device, Entry
from gradnas.latency.survey import CostView, Ready
from gradnas.latency.table import LatencyTable
from gradnas.version import __version__


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
                "clock='cpu' adds up the time of all threads, and measures "
                f"{device.type} with {torch.get_num_threads()} threads wrongly; "
                "take one CPU thread or clock='wall'"
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
    keep_memory: bool = True,
) -> list[Sample]:
    """Time functions without arguments, taking turns (see `Timing`), without gradients.

    Each is given by a function that returns a context manager around it: `lambda:
    nullcontext(function)`.

    On CUDA each call lies between two events on the stream, and the device is synchronised after
    each round; calls therefore overlap with the launch of the next, as they do in a network. On a
    CPU memory stays with the process, as it does from layer to layer of a network.

    Args:
        keep_memory: False leaves the allocator as it is.
    """
    timing.check(device)
    generator = np.random.default_rng(0)  # its own: no other random number moves by a measurement
    samples_ms: list[list[float]] = [[] for _ in works]
    one_round = _cuda_round if device.type == "cuda" else _synchronised_round
    memory = keeping_memory(device) if keep_memory else nullcontext()
    with torch.no_grad(), memory:
        for number in range(timing.warmup + timing.repeats):
            # An order of its own for each round: what runs before an operation, and so what lies in
            # the caches, is then not the same every time.
            order = generator.permutation(len(works)).tolist()
            ms_by_work = one_round(works, order, device, timing)
            if number >= timing.warmup:
                for k, ms in ms_by_work.items():
                    samples_ms[k].append(ms)
            if on_round is not None:
                on_round()
    samples = []
    for ms_of_work in samples_ms:
        # Quartiles, since a call that the system interrupts may take ten times as long.
        low, middle, high = np.percentile(ms_of_work, (25, 50, 75))
        samples.append(Sample(float(middle), float(high - low), len(ms_of_work)))
    return samples


def _synchronised_round(
    works: Sequence[Ready], order: Sequence[int], device: torch.device, timing: Timing
) -> dict[int, float]:
    """Milliseconds of one call of each work, waiting for the device before and after it."""
    clock = time.process_time_ns if timing.clock == "cpu" else time.perf_counter_ns
    # A CPU has done its work when a call returns.
    wait = None
    if device.type not in ("cpu", "meta"):
        wait = getattr(torch, device.type).synchronize
    ms_by_work = {}
    for k in order:
        with works[k]() as work:
            if wait is not None:
                wait()
            begin = clock()
            work()
            if wait is not None:
                wait()
            ms_by_work[k] = (clock() - begin) / 1e6  # from nanoseconds
    return ms_by_work


def _cuda_round(
    works: Sequence[Ready], order: Sequence[int], device: torch.device, timing: Timing
) -> dict[int, float]:
    """Milliseconds of one call of each work between two events; waits once, after the round.

    Waiting for the device around every call would add the launch to the time of the kernels.
    """
    del timing
    begins = {}
    ends = {}
    with torch.cuda.device(device):
        for k in order:
            begins[k] = torch.cuda.Event(enable_timing=True)
            ends[k] = torch.cuda.Event(enable_timing=True)
            with works[k]() as work:
                begins[k].record()
                work()
                ends[k].record()
        torch.cuda.synchronize(device)
    return {k: begins[k].elapsed_time(ends[k]) for k in order}


def measure(
    net: nn.Module | CostView,
    inputs: Sequence[object],
    timing: Timing = Timing(),
    settings: Mapping[str, Json] | None = None,
    on_round: Callable[[], None] | None = None,
) -> LatencyTable:
    """Time every distinct (operation, input shape) of a network with choices, in eval mode.

    Its fixed parts are timed too. The sum of the entries that a derived network uses is its time
    from end to end.

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
    units = view.survey(inputs)
    device = _device_of(view.net, inputs)
    with in_eval_mode(view.net):
        samples = time_interleaved([unit.ready for unit in units], device, timing, on_round)
    entries = {}
    for unit, sample in zip(units, samples, strict=True):
        # `params` of the entry are those of one use; a module that ran before counts 0 in a later.
        entries[unit.key] = Entry(
            ms=sample.ms,
            spread_ms=sample.spread_ms,
            count=sample.count,
            label=unit.label,
            macs=unit.macs,
            params=unit.params,
            features=unit.features,
        )
    shapes = [list(x.shape) for x in inputs if isinstance(x, torch.Tensor)]
    described = dict(settings or {})
    described |= {"inputs": shapes, "mode": "eval"}
    described |= asdict(timing)
    return LatencyTable(entries, Device.here(device), described, versions())


def _device_of(net: nn.Module, inputs: Sequence[object]) -> torch.device:
    for parameter in net.parameters():
        return parameter.device
    for value in inputs:
        if isinstance(value, torch.Tensor):
            return value.device
    return torch.zeros(()).device  # torch's default, for a network of neither


def versions() -> dict[str, str]:
    """Of what a latency depends on."""
    return {
        "gradnas": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
