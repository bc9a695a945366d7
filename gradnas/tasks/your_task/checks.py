"""A task is tried out on one batch before there is a run folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.latency.counts import in_eval_mode
from gradnas.precision import autocast, cuda_products
from gradnas.randomness import random_state, seed_for, seeded, set_random_state
from gradnas.search.bound_net import BoundNet
from gradnas.search.broadcasts import NoOuterProducts, no_outer_products
from gradnas.search.checks import check_network, scalar
from gradnas.search.costs import counted_costs
from gradnas.spaces.failing import place_of
from gradnas.spaces.unreached import unreached
from gradnas.spaces.your_module import ModuleSupernet
from gradnas.tasks.your_task.calls import TaskCalls, measured
from gradnas.tasks.your_task.search import (
    TRAIN_ORDER,
    VALID_ORDER,
    example_of,
    new_supernet,
)
from gradnas.tasks.your_task.settings import TaskSearchConfig, TaskTrainConfig
from gradnas.tasks.your_task.sources import LoaderSource, Source
from gradnas.tasks.your_task.task import Task
from gradnas.tasks.your_task.training import ORDER, new_network


def check_task_search(config: TaskSearchConfig, task: Task, device: torch.device) -> list[str]:
    """Try a search out, and return what is to be said of choices that did not run.

    Raises:
        ValueError: no batch, a model that does not take one, a loss that is no scalar, a measure
            that is no number, an example that does not fit, a budget that cannot be kept; a choice
            that cannot run.
    """
    for_weights, for_alphas = task.divided(config.division_of())
    _check_workers(config.data.workers, [for_weights, for_alphas])
    with _no_trace(device):
        supernet = new_supernet(config)
        check_network(supernet)
        supernet.to(device)
        net = BoundNet(supernet, supernet.dense_draw(), None)
        for source, stream in ((for_weights, TRAIN_ORDER), (for_alphas, VALID_ORDER)):
            batch = _first_batch(source, config, stream, device)
            _try_out(task, supernet, net, batch, config, device)
        notes = _check_reached(supernet)
        if config.cost is not None:
            _check_cost(config, task, supernet, device)
    return notes


def _check_reached(supernet: ModuleSupernet) -> list[str]:
    """After the trial passes. ValueError for a choice that no pass can reach."""
    never, not_yet = unreached(supernet)
    if never:
        what = "a choice" if len(never) == 1 else "choices"
        raise ValueError(
            f"{type(supernet.net).__name__} has {what} that no pass reaches: {', '.join(never)}, "
            "so nothing would decide which operation is taken there: call it in forward, or leave "
            "it out"
        )
    return [
        f"the choice {text} did not run in a trial of every operation: where it never runs, "
        "nothing decides which operation is taken there"
        for text in not_yet
    ]


def steady_notes(config: TaskSearchConfig, task: Task) -> list[str]:
    """Sentences on data that are others each time they are read."""
    notes = []
    for source in (task.train_data, task.valid_data):
        if source is not None:
            notes.append(source.check_steady(seed_for(config.seed, TRAIN_ORDER)))
    if task.validates_on_training:
        notes.append(
            "validation data of the task are training data: the alphas learn from examples that "
            "the weights know, and nothing is held out to judge the result by; leave valid= out "
            "(the training data are halved then), or give others"
        )
    return [note for note in notes if note is not None]


def check_task_training(config: TaskTrainConfig, task: Task, device: torch.device) -> None:
    """ValueError for a training that cannot be: as of a search, and without test data."""
    if task.test_data is None:
        raise ValueError(
            "the task has no test data, on which a trained network is measured: give Task(test=...)"
        )
    sources = [task.train_data]
    if task.valid_data is not None:
        sources.append(task.valid_data)
    _check_workers(config.data.workers, [*sources, task.test_data])
    with _no_trace(device):
        network = new_network(config).to(device)
        for source in sources:
            batch = _first_batch(source, config, ORDER, device)
            _try_out(task, network, network, batch, config, device)


def _check_workers(workers: int, sources: Sequence[Source]) -> None:
    """ValueError for worker processes that no data would use."""
    if workers and all(isinstance(source, LoaderSource) for source in sources):
        raise ValueError(
            f"{workers} workers would read data sets with a length and an index, and these data "
            "come from loaders or streams: give the loader its num_workers, and leave workers out"
        )


@contextmanager
def _no_trace(device: torch.device) -> Iterator[None]:
    """Within: whatever is drawn leaves the random numbers of the run as they were."""
    state = random_state(device)
    try:
        with seeded(0), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the run says them again
            yield
    finally:
        set_random_state(state, device)


def _first_batch(source: Source, config: Any, stream: int, device: torch.device) -> Any:
    seed = seed_for(config.seed, stream)
    batches = source.stream(config.batch_size, seed, device, shuffle=True).epoch(0)
    return next(batches)


def _try_out(
    task: Task,
    module: nn.Module,
    net: Callable[..., Any],
    batch: Any,
    config: TaskSearchConfig | TaskTrainConfig,
    device: torch.device,
) -> None:
    """Loss and measures on one batch."""
    calls = TaskCalls()
    calls.task = task
    try:
        precision = config.precision
        checked = no_outer_products(module)
        with cuda_products(precision), autocast(precision, device), checked:
            outputs = calls.outputs(net, batch)
    except FAILURES as error:
        if is_ours(error):
            raise
        what = "loss" if task.loss_takes_network else "model"
        hint = ""
        if isinstance(error, TypeError) and not task.loss_takes_network:
            hint = (
                "; it is called with all of a batch but the last entry, which is the target: a "
                "loss of (net, batch) calls it as it likes"
            )
        place = place_of(error, getattr(module, "net", module))
        at = "" if place is None else f"{place}: "
        raise ValueError(
            f"the {what} of the task fails on a batch of {in_words(batch)}: {at}{reason(error)}"
            f"{hint}"
        ) from error
    try:
        with cuda_products(config.precision), autocast(config.precision, device):
            target = None if task.loss_takes_network else task.parts(batch)[1]
            with NoOuterProducts(outputs, target):
                loss, _ = calls.losses(outputs, batch)
    except FAILURES as error:
        if is_ours(error):
            raise
        raise ValueError(
            f"the loss of the task fails on outputs of {in_words(outputs)}: {reason(error)}"
        ) from error
    loss = scalar(loss, "train")
    if not torch.isfinite(loss):
        raise ValueError(f"the loss of the task is {loss.item()} on the first batch")
    with in_eval_mode(module):
        try:
            # One process may ask alone, such as the one that says what comes next.
            alone = {"of_all_ranks": False, "checked": True}
            measured(task, net, [batch], config.precision, device, **alone)
        except FAILURES as error:
            if is_ours(error):
                raise
            shapes = in_words(batch)
            if _loss_fails(calls, net, batch, config, device):
                raise ValueError(
                    f"the loss of the task fails on a batch of {shapes} where the network is in "
                    f"eval mode (net.training is False): {reason(error)}; a loss of (net, batch) "
                    "may return None there, where the model gives losses in train mode alone"
                ) from error
            raise ValueError(
                f"a measure of the task fails on a batch of {shapes}: {reason(error)}"
            ) from error


@torch.no_grad()
def _loss_fails(
    calls: TaskCalls,
    net: Callable[..., Any],
    batch: Any,
    config: TaskSearchConfig | TaskTrainConfig,
    device: torch.device,
) -> bool:
    """Whether model and loss cannot be run in the mode that the network is in."""
    try:
        with cuda_products(config.precision), autocast(config.precision, device):
            calls.losses(calls.outputs(net, batch), batch)
    except FAILURES:
        return True
    return False


def _check_cost(
    config: TaskSearchConfig, task: Task, supernet: ModuleSupernet, device: torch.device
) -> None:
    assert config.cost is not None
    example = example_of(task, config.cost, device)
    try:
        counted_costs(supernet, config.cost, example, device)
    except FAILURES as error:
        if is_ours(error):
            raise
        raise ValueError(
            f"the example of the task does not fit its model: {example!r} gives {reason(error)}"
        ) from error


PACKAGE = Path(__file__).parents[2]
MANY = 4  # entries of one shape, which are counted
FAILURES = (  # of a user's model, loss and measures
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NameError,
    RuntimeError,
    TypeError,
    ValueError,
)


def is_ours(error: Exception) -> bool:
    """Whether gradnas refuses something, and not the user's code or torch."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    raised_in = "" if trace is None else trace.tb_frame.f_code.co_filename
    return isinstance(error, ValueError) and Path(raised_in).is_relative_to(PACKAGE)


def reason(error: Exception) -> str:
    """An error in one line."""
    first = str(error).strip().splitlines()
    return f"{type(error).__name__}: {first[0]}" if first else type(error).__name__


def in_words(batch: Any) -> str:
    """The shapes of a batch: `(64, 3, 8, 8), (64,)`."""
    if isinstance(batch, Tensor):
        return str(tuple(batch.shape))
    if isinstance(batch, dict):
        return "{" + ", ".join(f"{name}: {in_words(item)}" for name, item in batch.items()) + "}"
    if isinstance(batch, (tuple, list)):
        found = []
        for words, same in groupby(in_words(item) for item in batch):
            number = len(list(same))
            found += [words] * number if number < MANY else [f"{number} times {words}"]
        return ", ".join(found)
    return type(batch).__name__
