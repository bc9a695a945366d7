"""How much memory and time a search would take here, predicted from a few of its own steps."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gradnas.config import counted
from gradnas.memory import measured_peak_mib
from gradnas.search.result import result_of
from gradnas.tasks import kind_of
from gradnas.tasks.base import SearchSettings
from gradnas.tasks.search import SearchTask

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
            f"peak memory   {_size(self.process_mib)} ({_size(self.counted_mib)} of it for weights "
            "and one step)",
            f"one epoch     {time_needed(self.epoch_seconds)}: {counted(self.steps, 'step')} of "
            f"{self.step_seconds:.3g} s, evaluation {time_needed(self.evaluation_seconds)}",
        ]
        if self.warmup_epochs:
            lines.append(
                f"warm-up epoch {time_needed(self.warmup_epoch_seconds)}: steps of "
                f"{self.warmup_step_seconds:.3g} s"
            )
        whole = time_needed(self.search_seconds)
        lines.append(f"whole search  {whole} for {counted(self.epochs, 'epoch')}")
        return "\n".join(lines)


def estimate_search(config: SearchSettings, data: object, device: torch.device) -> Estimate:
    """Build the search, make some steps and evaluate some batches; nothing is written.

    Raises:
        ValueError: of this kind of data a search cannot be estimated.
        NonFiniteError: as the search itself would.
    """
    kind = kind_of(config)
    if kind.no_estimate is not None:
        raise ValueError(kind.no_estimate)
    task = kind.search_task(config, data, device)
    search = task.search
    task.start_epoch()
    steps = task.place.steps_per_epoch
    held_out = task.num_held_out
    if steps is None or held_out is None:
        raise ValueError(
            "how long an epoch is cannot be estimated: the loaders do not say how many batches "
            "they "
            "have (give them a __len__)"
        )
    batches = task.endless()

    def step() -> None:
        task.step(next(batches))

    # Steps with the alphas first, in any case, and in every step; then, where there are some, steps
    # without them.
    schedule = search.schedule
    warmup_epochs = schedule.warmup_epochs
    alpha_every = schedule.alpha_every
    schedule.warmup_epochs = 0
    schedule.alpha_every = 1
    task.counted_step(next(batches))  # also the warm-up of caches and kernels
    step_seconds = _median_seconds(step, device)
    warmup_step_seconds = step_seconds
    schedule.warmup_epochs = warmup_epochs
    if warmup_epochs or alpha_every > 1:
        schedule.warmup_epochs = config.epochs
        warmup_step_seconds = _median_seconds(step, device)
        more_with_alphas = step_seconds - warmup_step_seconds
        step_seconds = warmup_step_seconds + more_with_alphas / alpha_every
    return Estimate(
        counted_mib=task.memory_mib,
        process_mib=measured_peak_mib(device),
        step_seconds=step_seconds,
        warmup_step_seconds=warmup_step_seconds,
        evaluation_seconds=_evaluation_seconds(task, held_out, device),
        steps=steps,
        epochs=config.epochs,
        warmup_epochs=warmup_epochs,
        device=_in_words(device),
    )


def _evaluation_seconds(task: SearchTask[Any, Any], batches: int, device: torch.device) -> float:
    """An evaluation costs a + b n for n batches: a for building and recalibrating the network."""
    result = result_of(task.search)

    def seconds(number: int) -> float:
        return _seconds(lambda: task.evaluate(result, 0, number), device)

    first = seconds(1)
    if batches == 1:
        return first
    few = min(3, batches)
    for_one_more = max(0.0, seconds(few) - first) / (few - 1)
    return first + (batches - 1) * for_one_more


def _in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"cpu ({torch.get_num_threads()} threads)"


def _median_seconds(step: Callable[[], None], device: torch.device) -> float:
    """The median over at least two steps; more where they are short."""
    taken: list[float] = []
    least, most = PROBE_STEPS
    while len(taken) < most:
        if len(taken) >= least and sum(taken) >= PROBE_SECONDS:
            break
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


def time_needed(seconds: float) -> str:
    """`3.2 s`, `12 min`, `5 h 10 min`, `4 d 12 h`."""
    if seconds < 90:
        return f"{seconds:.3g} s"
    minutes = round(seconds / 60)
    hours, minutes_left = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    days, hours_left = divmod(hours, 24)
    return f"{days} d {hours_left} h" if days else f"{hours} h {minutes_left} min"
