"""The configurations of searches and trainings on a task of one's own.

A task is code, and no file holds it: a configuration names where it came from and lists what can be
known of it without running it. To be run it is bound to the task, which the user gives anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from gradnas.architectures.choices import Choices
from gradnas.config import JsonObject, build, check_numbers, to_json
from gradnas.gradients import ArchitectureGradient, FirstOrder
from gradnas.objectives.cost import ExpectedCost
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.precision import Precision
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.module_space import CHOICES, ModuleSpace
from gradnas.spaces.your_module import choices_in, places_in
from gradnas.tasks.base import SearchSettings, TrainSettings
from gradnas.tasks.costs import located
from gradnas.tasks.measure import Measure
from gradnas.tasks.your_task.measures import LOSS
from gradnas.tasks.your_task.task import Task

IN_PYTHON = "a program"  # where a task comes from that was not read from a file


def not_here(source: str) -> ValueError:
    """The error where a run needs its task."""
    where = "MY_TASK.py" if source == IN_PYTHON else source
    return ValueError(
        f"this run is of a task of your own ({source}), and no file that a run folder names is "
        "run: "
        f"give it with --task {where}"
    )


@dataclass(frozen=True)
class TaskData:
    """Where the data of a run on a task of one's own are: in its task.

    Args:
        source: the file as it was named, `my_task.py` or `my_task.py:name`.
        sha256: of the file; None of a task that was made in Python.
        workers: processes that read a data set.
        task: the task itself, in no file.
    """

    source: str = IN_PYTHON
    sha256: str | None = None
    workers: int = 0
    task: Task | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        check_numbers(replace(self, task=None) if self.task is not None else self)

    def load(self) -> Task:
        """The task.

        Raises:
            ValueError: it was not given.
        """
        if self.task is None:
            raise not_here(self.source)
        return self.task

    def to_json(self) -> JsonObject:
        """What a file may hold."""
        return {"source": self.source, "sha256": self.sha256, "workers": self.workers}

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> TaskData:
        """The same without its task."""
        if "task" in data:
            raise ValueError(f"{where}: unknown field 'task'")
        return build(cls, data, where)


@dataclass(frozen=True)
class TaskSpace(ModuleSpace):
    """The choices of a task's model.

    Args:
        choices: name -> operations.
        places: name -> where in the model it is: paths of modules with dots.
        model: makes the module, in no file.
    """

    choices: Mapping[str, tuple[str, ...]]
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    model: Callable[[], nn.Module] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(cls, model: Callable[[], nn.Module]) -> TaskSpace:
        """That of a model, which is made once for it."""
        with torch.random.fork_rng(devices=[]):
            module = model()
        return cls(choices_in(module), places_in(module), model)

    def bound(self, model: Callable[[], nn.Module], source: str) -> TaskSpace:
        """The same with what makes the module.

        Raises:
            ValueError: a module with other choices.
        """
        own = TaskSpace.of(model)
        for name in [*self.choices, *own.choices]:
            before = self.choices.get(name)
            now = own.choices.get(name)
            if before != now:
                had = "no such choice" if before is None else list(before)
                has = "no such choice" if now is None else list(now)
                raise ValueError(
                    f"the model of {source} is not that of the run: at the choice {name!r} it has "
                    f"{has}, and the run had {had}"
                )
        return replace(own, choices=self.choices)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        return dict(self.choices)

    def module(self, **task: Any) -> nn.Module:
        if self.model is None:
            raise not_here("MY_TASK.py")
        return self.model(**task)

    # -- its entry in a configuration file --

    def to_json(self) -> JsonObject:
        return {CHOICES: to_json(self.choices), "places": to_json(self.places)}

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> TaskSpace:
        if "model" in data:
            raise ValueError(f"{where}: unknown field 'model'")
        return build(cls, data, where)


def _with_task(config: Any, task: Task, source: str, sha256: str | None) -> Any:
    """The configuration bound to its task."""
    data = replace(config.data, task=task, source=source, sha256=sha256)
    space = config.space.bound(task.new_model, source)
    before = [measure.key for measure in config.measures]
    now = [measure.key for measure in task.all_measures]
    if before != now:
        raise ValueError(
            f"the measures of {source} are {', '.join(now)}, and those of the run were "
            f"{', '.join(before)}"
        )
    return replace(config, data=data, space=space, measures=task.all_measures)


@dataclass(frozen=True)
class TaskSearchConfig(SearchSettings):
    """A search on a task of one's own.

    Args:
        space: the choices of the task's model.
        measures: of the task, the deciding one first.
        train_fraction: share of the training data for the weights, where the task has no validation
            data; the rest is for the alphas.
        warmup_epochs: epochs at the start in which the alphas wait.
        alpha_every: the alphas take a step before every so many steps of the weights.
        batch_size: examples in a batch; a loader makes its own.
        weights: settings of SGD; None: the task brings its optimiser.
        alphas: None takes the settings that fit the relaxation.
        cost: an expected cost in the loss of the alphas, of the task's example.
        capture: replay the steps of whole batches from a CUDA graph; CUDA only.
        max_steps: stop after so many steps, without evaluation (to try a setting out).
        threads, checkpoint_seconds: as in `gradnas.tasks.images.settings.TrainConfig`.
    """

    takes_cost: ClassVar[bool] = True

    space: TaskSpace
    measures: tuple[Measure, ...] = (LOSS,)
    relaxation: Relaxation = field(default_factory=Softmax)
    gradient: ArchitectureGradient = field(default_factory=FirstOrder)
    data: TaskData = field(default_factory=TaskData)
    train_fraction: float = 0.5
    epochs: int = 20
    warmup_epochs: int = 0
    alpha_every: int = 1
    max_steps: int | None = None
    batch_size: int = 64
    weights: WeightOptimizer | None = field(default_factory=WeightOptimizer)
    alphas: AlphaOptimizer | None = None
    cost: ExpectedCost | None = None
    precision: Precision = "fp32"
    capture: bool = False
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    checkpoint_seconds: float = 20.0

    def __post_init__(self) -> None:
        check_numbers(self)

    @classmethod
    def of(cls, task: Task, source: str = IN_PYTHON, sha256: str | None = None) -> TaskSearchConfig:
        """The settings of a search on a task before anything else is said.

        Raises:
            ValueError: the model of the task holds no choice.
        """
        return cls(
            space=TaskSpace.of(task.new_model),
            measures=task.all_measures,
            data=TaskData(source, sha256, task=task),
            weights=None if task.optimizer is not None else WeightOptimizer(),
        )

    def with_task(
        self, task: Task, source: str = IN_PYTHON, sha256: str | None = None
    ) -> TaskSearchConfig:
        return _with_task(self, task, source, sha256)

    def located(self, folder: Path) -> TaskSearchConfig:
        return replace(self, cost=located(self.cost, folder))


@dataclass(frozen=True)
class TaskTrainConfig(TrainSettings):
    """A training on a task of one's own.

    Args:
        space: the choices of the task's model.
        genotype: the operation of every choice.
        measures: of the task, the deciding one first.
        batch_size: examples in a batch; a loader makes its own.
        weights: settings of SGD; None: the task brings its optimiser, or its whole training.
        random_cells: so many networks with choices drawn at random are trained in the same way
            afterwards, each in a folder `random/K` of the run.
        cost: of the search before it; with a budget, random networks are within it too.
        max_steps: stop after so many steps, and evaluate (to try a setting out).
        threads, checkpoint_seconds: as in `gradnas.tasks.images.settings.TrainConfig`.
    """

    space: TaskSpace
    genotype: Choices
    measures: tuple[Measure, ...] = (LOSS,)
    data: TaskData = field(default_factory=TaskData)
    epochs: int = 20
    batch_size: int = 64
    weights: WeightOptimizer | None = field(default_factory=lambda: WeightOptimizer(lr_end=0.0))
    precision: Precision = "fp32"
    random_cells: int = 0
    cost: ExpectedCost | None = None
    max_steps: int | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    checkpoint_seconds: float = 20.0

    def __post_init__(self) -> None:
        check_numbers(self)

    @classmethod
    def of(
        cls, task: Task, decided: Choices, searched: TaskSearchConfig | None = None
    ) -> TaskTrainConfig:
        """The settings of a training before anything else is said: as long as the search was.

        Raises:
            ValueError: choices that the model of the task does not have.
        """
        space = TaskSpace.of(task.new_model)
        config = cls(
            space=space,
            genotype=space.decision(decided),
            measures=task.all_measures,
            data=TaskData(task=task),
        )
        if task.optimizer is not None or task.trainer is not None:
            config = replace(config, weights=None)
        if searched is None:
            return config
        is_within = searched.cost is not None and searched.cost.is_budget
        return replace(
            config,
            epochs=searched.epochs,
            batch_size=searched.batch_size,
            cost=searched.cost if is_within else None,
        )

    def with_task(
        self, task: Task, source: str = IN_PYTHON, sha256: str | None = None
    ) -> TaskTrainConfig:
        return _with_task(self, task, source, sha256)

    def located(self, folder: Path) -> TaskTrainConfig:
        return replace(self, cost=located(self.cost, folder))


def steps_of(epochs: int, per_epoch: int | None, max_steps: int | None) -> int | None:
    """Steps of a whole run; None where the length of an epoch is not known."""
    if per_epoch is None:
        return max_steps
    steps = epochs * per_epoch
    return steps if max_steps is None else min(steps, max_steps)
