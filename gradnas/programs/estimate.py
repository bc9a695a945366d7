"""How much memory and time a search would take on this device: predicted from a few of its own
steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import torch

from gradnas.data import ImageData
from gradnas.memory import measured_peak_mib
from gradnas.programs.image_search import (
    SearchConfig,
    SearchRun,
)

PROBE_STEPS = (2, 10)  # timed steps: at least, and at most where they are short
PROBE_SECONDS = 4.0  # long enough for the median of short steps


@dataclass(frozen=True)
class Estimate:
    """What a search is expected to take.

    Attributes:
        counted_mib: weights, gradients, optimisers and what autograd keeps: `peak_memory_mib` of
            the metrics.
        process_mib: peak of the process (CUDA: of allocated memory): `measured_peak_memory_mib` of
            the timings.
        step_seconds, warmup_step_seconds: one step with and one without a step of the alphas.
        evaluation_seconds: what follows the last step of an epoch.
        steps: of an epoch.
        epochs, warmup_epochs: of the search.
        device: in words.
    """

    counted_mib: float
    process_mib: float
    step_seconds: float
    warmup_step_seconds: float
    evaluation_seconds: float
    steps: int
    epochs: int
    warmup_epochs: int
    device: str

    @property
    def epoch_seconds(self) -> float:
        """An epoch in which the alphas learn: `seconds` of the timings."""
        return self.steps * self.step_seconds + self.evaluation_seconds

    @property
    def warmup_epoch_seconds(self) -> float:
        """An epoch in which they wait."""
        return self.steps * self.warmup_step_seconds + self.evaluation_seconds

    @property
    def search_seconds(self) -> float:
        """The whole search."""
        warmup = min(self.warmup_epochs, self.epochs)
        return warmup * self.warmup_epoch_seconds + (self.epochs - warmup) * self.epoch_seconds

    def __str__(self) -> str:
        lines = [
            f"on {self.device}, torch {torch.__version__}:",
            f"peak memory   {_size(self.process_mib)} ({_size(self.counted_mib)} of it for weights and one step)",
            f"one epoch     {duration(self.epoch_seconds)}: {self.steps} steps of {self.step_seconds:.3g} s, "
            f"evaluation {duration(self.evaluation_seconds)}",
        ]
        if self.warmup_epochs:
            lines.append(
                f"warm-up epoch {duration(self.warmup_epoch_seconds)}: steps of {self.warmup_step_seconds:.3g} s"
            )
        lines.append(f"whole search  {duration(self.search_seconds)} for {self.epochs} epochs")
        return "\n".join(lines)


def estimate_search(config: SearchConfig, data: ImageData, device: torch.device) -> Estimate:
    """Build the search, make some steps and evaluate some batches; nothing is written.

    Raises:
        NonFiniteError: as the search itself would.
    """
    state = SearchRun(config, data, device)
    search = state.search
    search.supernet.train()
    train = _without_end(state)

    def step() -> None:
        state.step(next(train))

    warmup = config.warmup_epochs
    search.schedule.warmup_epochs, search.schedule.alpha_every = 0, 1
    state.counted_step(next(train))  # also the warm-up of caches and kernels
    step_seconds = warmup_step_seconds = _median_seconds(step, device)
    search.schedule.warmup_epochs = warmup
    if warmup or config.alpha_every > 1:
        search.schedule.warmup_epochs = config.epochs
        warmup_step_seconds = _median_seconds(step, device)
        step_seconds = (
            warmup_step_seconds + (step_seconds - warmup_step_seconds) / config.alpha_every
        )
    # Evaluation costs a + b n for n batches: recalibration and building the network once, then the
    # batches.
    genotype, batches = search.result().genotype, len(state.held_out)
    few = min(3, batches)

    def evaluate(number: int) -> float:
        return _seconds(lambda: state.evaluate(genotype, 0, number), device)

    first = evaluate(1)
    evaluation = (
        first
        if batches == 1
        else first + (batches - 1) * max(0.0, evaluate(few) - first) / max(1, few - 1)
    )
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu ({torch.get_num_threads()} threads)"
    )
    return Estimate(
        counted_mib=state.memory_mib,
        process_mib=measured_peak_mib(device),
        step_seconds=step_seconds,
        warmup_step_seconds=warmup_step_seconds,
        evaluation_seconds=evaluation,
        steps=len(state.train),
        epochs=config.epochs,
        warmup_epochs=warmup,
        device=name,
    )


def _without_end(state: SearchRun) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    for epoch in count():
        yield from state.train.epoch(epoch)


def _median_seconds(step: Callable[[], None], device: torch.device) -> float:
    """The median over at least two steps; more where they are short."""
    taken: list[float] = []
    least, most = PROBE_STEPS
    while len(taken) < least or (len(taken) < most and sum(taken) < PROBE_SECONDS):
        taken.append(_seconds(step, device))
    return statistics.median(taken)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began


def _size(mib: float) -> str:
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB"


def duration(seconds: float) -> str:
    """`3.2 s`, `12 min`, `5 h 10 min`, `4 d 12 h`."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    hours, minutes_left = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    days, hours_left = divmod(hours, 24)
    return f"{days} d {hours_left} h" if days else f"{hours} h {minutes_left} min"
