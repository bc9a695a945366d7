"""How the network of a task is called on a batch, and what is measured of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.modules.call import Call
from gradnas.precision import Precision, autocast, cuda_products
from gradnas.search.bound_net import PlainNet
from gradnas.search.broadcasts import NoOuterProducts
from gradnas.search.checks import scalar
from gradnas.search.evaluating import detached
from gradnas.search.judging import Grouped
from gradnas.search.slices import measured_by_group
from gradnas.tasks.calls import Calls, Parts
from gradnas.tasks.evaluation import Means
from gradnas.tasks.your_task.counting import examples_at
from gradnas.tasks.your_task.measures import Score
from gradnas.tasks.your_task.task import Task

NO_LOSS = "the loss of the task gives nothing where the network is in eval mode"


class TaskCalls(Calls[Any]):
    """A task's batches, loss and measures."""

    task: Task

    def outputs(self, net: Callable[..., Any], batch: Any) -> Any:
        """Those of the network; where the loss takes the network itself, the loss."""
        task = self.task
        if task.loss_takes_network:
            if isinstance(net, nn.Module):  # a loss may call net.method(name, ...)
                net = PlainNet(net)
            return task.evaluating(lambda: task.loss(net, batch))
        call, _ = task.parts(batch)
        return task.evaluating(lambda: call.on(net))

    def losses(self, outputs: Any, batch: Any) -> tuple[Any, Parts]:
        loss = outputs
        if not self.task.loss_takes_network:
            _, target = self.task.parts(batch)
            loss = self.task.loss(outputs, target)
        # The search refuses what is no scalar, with a sentence.
        return loss, {"loss": loss} if isinstance(loss, Tensor) and loss.dim() == 0 else {}

    def size(self, batch: Any) -> int:
        return examples_in(self.task, batch)


def examples_in(task: Task, batch: Any) -> int:
    """The number of examples in a batch."""
    if task.size is None:
        return examples_at(task.path_of_examples, batch)
    size = task.size(batch)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        raise ValueError(f"size(batch) of the task must be a whole number above 0, not {size!r}")
    return size


@torch.no_grad()
def measured(
    task: Task,
    network: Callable[..., Any],
    batches: Iterable[Any],
    precision: Precision,
    device: torch.device,
    of_all_ranks: bool = True,
    checked: bool = False,
) -> dict[str, float]:
    """The mean loss and every measure of a network; the caller sets its mode.

    Args:
        of_all_ranks: together; else of this one, which need not be one of several that ask.
        checked: refuse measures that set every output beside every target.

    Raises:
        ValueError: a measure that is no finite number; no batches.
    """
    calls = TaskCalls()
    calls.task = task
    means = Means()
    meters = [score.meter() for score in task.scores]
    for batch in batches:
        size = examples_in(task, batch)
        with cuda_products(precision), autocast(precision, device):
            outputs = calls.outputs(network, batch)
            loss, parts = calls.losses(outputs, batch)
        if loss is not None:  # a model may give losses in train mode alone
            scalar(loss, "validation")
        elif not task.scores:
            raise ValueError(NO_LOSS + ", and without measures it decides: give Task(measures=...)")
        means.add(parts, size)
        for meter in meters:
            if meter.score.takes_network:
                with cuda_products(precision), autocast(precision, device):
                    meter.add(network, batch, size)
            else:
                pair = _outputs_and_target(task, meter.score.name, outputs, batch)
                what = f"the measure {meter.score.name!r}"
                with NoOuterProducts(*pair, what) if checked else nullcontext():
                    meter.add(*pair, size)
    if not means.count:
        raise ValueError("there are no batches to measure the network on")
    values = means.values(of_all_ranks=of_all_ranks)
    for meter in meters:
        values[meter.score.name] = meter.value()
    return values


def grouped(task: Task, score: Score | None, network: Any, batch: Any) -> Grouped:
    """A measure (the loss without one) of every group of a batch, each with its examples."""
    size = examples_in(task, batch)
    function = task.loss if score is None else score.given
    by_network = task.loss_takes_network if score is None else score.takes_network
    evaluating = task.evaluating if score is None else score.evaluating
    if by_network or task.loss_takes_network:
        value = evaluating(lambda: function(network, batch))
        if value is None:
            raise ValueError(NO_LOSS)
        return [(float(value), float(size))]
    call, target = task.parts(batch)

    def value(outputs: Any, target: Any) -> float:
        found = function(outputs, target)
        if found is None:
            raise ValueError(NO_LOSS)
        return float(found)

    outputs = task.evaluating(lambda: call.on(network))
    return measured_by_group(value, outputs, target, size)


def _outputs_and_target(task: Task, name: str, outputs: Any, batch: Any) -> tuple[Any, Any]:
    if task.loss_takes_network:
        raise ValueError(
            "the loss of the task takes (net, batch), so nobody knows what the outputs are that "
            "the "
            f"measure {name!r} is of: write it as a function of (net, batch) too"
        )
    _, target = task.parts(batch)
    return outputs, target


class _Called(BaseException):
    """Leaves a loss once its network is called; no `except Exception` of the loss stops it.

    Attributes:
        call: of the network; None where it was another method, whose name `method` is.
    """

    def __init__(self, call: Call | None, method: str = "forward") -> None:
        self.call = call
        self.method = method


class _StandIn:
    """A network that is not run."""

    training = False  # as where it is exported, and where its costs are counted

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        raise _Called(Call(*inputs, **named))

    def method(self, name: str, *inputs: Any, **named: Any) -> Any:
        raise _Called(Call(*inputs, **named) if name == "forward" else None, name)


def call_on(task: Task, batch: Any) -> Call:
    """What the network is called with first on a batch; it is not run.

    Raises:
        ValueError: the loss does not call it.
    """
    if not task.loss_takes_network:
        return task.parts(batch)[0]

    try:
        task.loss(_StandIn(), batch)
    except _Called as found:
        if found.call is not None:
            return found.call.mapped(detached)  # a loss may ask for gradients by its inputs
        raise ValueError(
            f"the loss of the task calls net.method({found.method!r}, ...), which does not tell "
            "what the network itself is called with: give Task(example=gradnas.Call(...))"
        ) from None
    raise ValueError(
        "the loss of the task does not call the network it is given, so nobody knows what it is "
        "called with: give Task(example=gradnas.Call(...))"
    )


def example_call(task: Task, number: int = 1) -> Call:
    """The example of a task; else the call on `number` examples of its training data.

    Raises:
        ValueError: it was not given, and the data come from a loader.
    """
    if task.example is not None:
        return Call.of(task.example)
    batch = task.train_data.some(number)
    if batch is None:
        raise ValueError(
            "the train data come from a loader, whose batches do not tell what one example is: "
            "give "
            "Task(example=...), the inputs of the model"
        )
    call = call_on(task, batch)
    if task.path_of_examples is not None:  # else the first dimensions of its tensors tell it
        call.examples = examples_in(task, batch)
    return call
