"""The trained network of a task of one's own for other programs, compared with torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.architectures.choices import Choices
from gradnas.export.called import FAILURES, Exported, write_called
from gradnas.modules.call import Call
from gradnas.modules.nesting import mapped
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
    calls = _calls_of_data(task) or _calls_of_example(task, network)
    written = write_called(
        network,
        path,
        calls.call,
        calls.other,
        calls.compared,
        architecture=decided,
        facts={"data": "own task"},
    )
    for sentence in _said(written, path, calls):
        say(sentence)
    return [path]


@dataclass(frozen=True)
class _Calls:
    """What a network is exported with.

    Attributes:
        call, other: for two numbers of examples; without the other a batch has that size alone.
        compared: what file and network are compared on.
        where: what these are called.
    """

    call: Call
    other: Call | None
    compared: list[Call]
    where: str = "held-out examples"


def _calls_of_data(task: Task) -> _Calls | None:
    """Of the task's data; None where these do not tell what its example names."""
    other = None
    try:
        call = _of(task, task.train_data, EXPORTED_EXAMPLES)
        if task.train_data.size is not None:
            other = _of(task, task.train_data, OTHER_EXAMPLES)
        held_out = task.test_data or task.valid_data or task.train_data
        compared = [_of(task, held_out, n) for n in (COMPARED_EXAMPLES, EXPORTED_EXAMPLES)]
    except _NotInExample:
        return None
    if task.example is not None and other is not None and repr(call) == repr(other):
        return None  # the loss calls it first with something that is no batch
    return _Calls(call, other, compared)


class _NotInExample(Exception):
    """The data do not tell the inputs of the example."""


def _of(task: Task, source: Source, number: int) -> Call:
    """A call on some examples, with the inputs that the task's example names.

    Of a loader on its first batch.
    """
    batch = source.some(number)
    if batch is None:
        with seeded(0):
            batch = next(source.stream(number, 0, CPU, shuffle=False).epoch(0))
    batch = to_device(batch, CPU)
    if task.example is None:
        return call_on(task, batch)
    example = Call.of(task.example)
    try:
        call = call_on(task, batch)
    except ValueError as error:
        raise _NotInExample from error
    if len(example.inputs) != len(call.inputs) or not set(example.named) <= set(call.named):
        raise _NotInExample
    # A loss may give the network more than it needs elsewhere, such as labels.
    return Call(*call.inputs, **{name: call.named[name] for name in example.named})


@torch.no_grad()
def _calls_of_example(task: Task, network: nn.Module) -> _Calls:
    """Of the task's example, which is repeated where the network takes that for a batch."""
    example = Call.of(task.example).mapped(lambda value: to_device(value, CPU))
    calls = []
    for number in (EXPORTED_EXAMPLES, OTHER_EXAMPLES):
        repeated = example.mapped(partial(_repeated, number))
        try:
            repeated.on(network)
        except FAILURES:
            break
        calls.append(repeated)
    if len(calls) < 2:
        return _Calls(example, None, [example], "the example")
    return _Calls(calls[0], calls[1], [*calls, example], "the example")


def _repeated(number: int, value: Any) -> Any:
    def leaf(leaves: Sequence[Any], where: str) -> Any:
        del where
        is_batch = isinstance(leaves[0], Tensor) and leaves[0].dim() > 0
        return torch.cat([leaves[0]] * number) if is_batch else leaves[0]

    return mapped(leaf, [value])


def _said(written: Exported, path: Path, calls: _Calls) -> list[str]:
    sentences = []
    if not written.any_batch:
        sentences.append(
            f"{path.name} takes batches of one size alone, {calls.call!r}: {written.fixed_because}"
        )
    if written.difference is None:
        why = "no held-out batch has that size"
        if path.suffix == ".onnx":
            why = "onnxruntime is missing: pip install 'gradnas[onnx]'"
        sentences.append(f"{path.name} was not compared with torch: {why}")
    else:
        sentences.append(
            f"largest difference to torch on {calls.where}: {written.difference:.2g} "
            f"(outputs up to {written.largest:.3g})"
        )
    return sentences
