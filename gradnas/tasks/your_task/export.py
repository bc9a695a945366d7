"""The trained network of a task of one's own for other programs, compared with torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from gradnas.architectures.choices import Choices
from gradnas.export.called import Exported, write_called
from gradnas.modules.call import Call
from gradnas.randomness import seeded
from gradnas.search.feed import to_device
from gradnas.tasks.your_task.calls import call_on
from gradnas.tasks.your_task.sources import Source
from gradnas.tasks.your_task.task import Task

EXPORTED_EXAMPLES = 2  # torch's exporter takes a 1 for a constant
OTHER_EXAMPLES = 3
COMPARED_EXAMPLES = 5
CPU = torch.device("cpu")


def export_task(
    network: nn.Module, task: Task, path: Path, decided: Choices, say: Callable[[str], None]
) -> list[Path]:
    """Write a network as ONNX or as a torch program; what is to be said of it is said.

    Raises:
        ValueError: a form or a network that cannot be exported.
    """
    if path.suffix == ".py":
        raise ValueError(
            f"a {type(network).__name__} of your own cannot be written as source: keep its class "
            "(gradnas.derive makes the network from it and genotype.json), or export to .pt2 or "
            ".onnx"
        )
    call = _call(task, EXPORTED_EXAMPLES)
    other = None if task.train_data.size is None else _call(task, OTHER_EXAMPLES)
    held_out = task.test_data or task.valid_data or task.train_data
    calls = [_of(task, held_out, number) for number in (COMPARED_EXAMPLES, EXPORTED_EXAMPLES)]
    written = write_called(
        network, path, call, other, calls, architecture=decided, facts={"data": "own task"}
    )
    for sentence in _said(written, path, call):
        say(sentence)
    return [path]


def _call(task: Task, number: int) -> Call:
    return _of(task, task.train_data, number)


def _of(task: Task, source: Source, number: int) -> Call:
    """A call on some examples; of a loader on its first batch."""
    batch = source.some(number)
    if batch is None:
        with seeded(0):
            batch = next(source.stream(number, 0, CPU, shuffle=False).epoch(0))
    return call_on(task, to_device(batch, CPU))


def _said(written: Exported, path: Path, call: Call) -> list[str]:
    sentences = []
    if not written.any_batch:
        sentences.append(
            f"{path.name} takes batches of one size alone, {call!r}: {written.fixed_because}"
        )
    if written.difference is None:
        why = "no held-out batch has that size"
        if path.suffix == ".onnx":
            why = "onnxruntime is missing: pip install 'gradnas[onnx]'"
        sentences.append(f"{path.name} was not compared with torch: {why}")
    else:
        sentences.append(
            f"largest difference to torch on held-out examples: {written.difference:.2g} "
            f"(outputs up to {written.largest:.3g})"
        )
    return sentences
