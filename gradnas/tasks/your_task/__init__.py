"""Tasks of one's own: any model with choices, any data, any loss."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import torch
from torch import nn

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.architectures.choices import Choices
from gradnas.config import JsonObject, counted, from_json
from gradnas.data.fingerprint import Fingerprint
from gradnas.data.summary import DataSummary
from gradnas.export.source import SourceOf
from gradnas.precision import check_precision
from gradnas.tasks.costs import noted_warnings
from gradnas.tasks.kind import Kind
from gradnas.tasks.measure import Measure
from gradnas.tasks.trained_part import unsaid, unspoken
from gradnas.tasks.your_task.checks import check_task_search, check_task_training, steady_notes
from gradnas.tasks.your_task.export import export_task
from gradnas.tasks.your_task.measures import LOSS, direction_notes
from gradnas.tasks.your_task.random import random_choices
from gradnas.tasks.your_task.search import TaskSearch
from gradnas.tasks.your_task.sentences import TaskSentences
from gradnas.tasks.your_task.settings import TaskSearchConfig, TaskTrainConfig
from gradnas.tasks.your_task.summary import fingerprint_of, summary_of
from gradnas.tasks.your_task.task import Task
from gradnas.tasks.your_task.training import OwnTraining, TaskTraining, new_network
from gradnas.tasks.your_task.words import TaskWords

TRAINING = "own-task-eval"


def own_task_eval(genotype: Architecture) -> TaskTrainConfig:
    """The network of a task of your own (--task MY_TASK.py), with SGD and a cosine, as long as the
    search."""
    if not isinstance(genotype, Choices):
        raise ValueError(
            f"a task of your own (--task, or the recipe {TRAINING}) trains the choices of its "
            f"module, not a {genotype.noun}"
        )
    return TaskTrainConfig.of(genotype)


class YourTask(Kind[TaskSearchConfig, TaskTrainConfig, Task]):
    """Tasks of one's own, each with measures of its own.

    Args:
        measures: the one that decides first.
    """

    name = "a task of your own"
    search_config = TaskSearchConfig
    train_config = TaskTrainConfig
    other_data = (
        "data that are drawn at random must be the same each time, from a generator with a seed "
        "(torch.Generator().manual_seed(0))"
    )
    data_of_search = ("source", "sha256", "workers")
    trainings = MappingProxyType({TRAINING: own_task_eval})

    def __init__(self, measures: tuple[Measure, ...] = (LOSS,)) -> None:
        self.measure, *self.others = measures
        self.words = TaskWords()

    def of(self, config: TaskSearchConfig | TaskTrainConfig) -> YourTask:
        return YourTask(config.measures) if config.measures else self

    @property
    def sentences(self) -> TaskSentences:
        return TaskSentences(self.measure, self.others)

    # -- the data --

    def read(self, data: Task) -> DataSummary:
        return summary_of(data)

    def fingerprint(self, data: Task) -> Fingerprint:
        return fingerprint_of(data)

    # -- runs --

    def called(self, recipe: str) -> str:
        return "from scratch" if recipe == TRAINING else recipe

    def check_search(self, config: TaskSearchConfig, data: Task, device: torch.device) -> list[str]:
        check_precision(config.precision, device)
        if config.capture and device.type != "cuda":
            raise ValueError(
                f"capture records CUDA graphs, but the device is {device}: leave it out"
            )
        if config.weights is not None and data.optimizer is not None:
            raise ValueError(
                "the task brings its own optimiser of the weights: leave --lr and weights= out"
            )
        return check_task_search(config, data, device)

    def following(self, config: TaskTrainConfig, searched: JsonObject) -> TaskTrainConfig:
        if searched.get("type") != TaskSearchConfig.__name__:
            return config
        before = from_json(TaskSearchConfig, searched, "the configuration of the search")
        own = TaskTrainConfig.of(config.genotype, before)
        return replace(config, epochs=own.epochs, batch_size=own.batch_size, cost=own.cost)

    def check_training(self, config: TaskTrainConfig, data: Task, device: torch.device) -> None:
        check_precision(config.precision, device)
        is_own = data.optimizer is not None or data.trainer is not None
        if config.lr is not None and is_own:
            raise ValueError(
                "the task brings its own optimiser or its own training: leave --lr and lr= out"
            )
        check_task_training(config, data, device)

    def search_task(self, config: TaskSearchConfig, data: Task, device: torch.device) -> TaskSearch:
        with noted_warnings() as notes:
            task = TaskSearch(config, data, device)
        task.notes = [*notes, *task.search.supernet.notes(), *steady_notes(config, data)]
        task.notes += direction_notes(config.measures)
        return task

    def train_task(
        self,
        config: TaskTrainConfig,
        data: Task,
        device: torch.device,
        network: nn.Module | None = None,
    ) -> TaskTraining:
        kind = TaskTraining if data.trainer is None else OwnTraining
        return kind(config, data, device, network)

    def random_architecture(self, config: TaskTrainConfig, generator: torch.Generator) -> Choices:
        return random_choices(config, generator)

    # -- after a training --

    def untrained(self, run: runs.Run, config: TaskTrainConfig) -> nn.Module:
        # As before its training: what no file of weights holds (a random projection that is not
        # persistent) is drawn again.
        return new_network(config)

    def evaluate(
        self,
        run: runs.Run,
        config: TaskTrainConfig,
        source: str | None,
        device: torch.device,
        say: Callable[[DataSummary], None] = unsaid,
    ) -> str:
        if source is not None:
            raise ValueError("the data of a task of your own are those of its file: no --data")
        task = config.data.load()
        if task.test_data is None:
            raise ValueError("the task has no test data: give Task(test=...)")
        say(self.read(task))
        training = self.train_task(config, task, device, self.load_trained(run, config))
        test = training.evaluated(task.test_data)
        words = [f"{m.key} {m.text(test[m.key])}" for m in config.measures]
        if LOSS.key in test and LOSS.key not in [m.key for m in config.measures]:
            words.append(f"loss {test['loss']:.4f}")
        return f"test {'  '.join(words)}  on {counted(training.num_examples, 'example')}"

    def export(
        self,
        run: runs.Run,
        config: TaskTrainConfig,
        path: Path,
        source: SourceOf,
        say: Callable[[str], None] = unspoken,
    ) -> list[Path]:
        del source  # that of the published families alone
        task = config.data.load()
        network = self.load_trained(run, config).float()  # and not `to`, which takes complex apart
        return export_task(network, task, path, config.genotype, say)


YOUR_TASK = YourTask()
