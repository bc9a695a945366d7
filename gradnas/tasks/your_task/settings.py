"""The configurations of searches and trainings on a task of one's own.

A task is code, and no file holds it: a configuration names where it came from and lists what can be
known of it without running it. To be run it is bound to the task, which the user gives anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from gradnas import runs
from gradnas.architectures.choices import Choices
from gradnas.config import check_numbers
from gradnas.gradients import ArchitectureGradient, FirstOrder
from gradnas.objectives.cost import ExpectedCost
from gradnas.objectives.terms import AlphaTerm
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.precision import Precision
from gradnas.randomness import seeded
from gradnas.relaxations import Relaxation, Softmax
from gradnas.search.feed import size_of, to_device
from gradnas.search.health import check_guard
from gradnas.selections import Selection, Strongest
from gradnas.settings.formats import Guard
from gradnas.stabilizers import Stabilizer
from gradnas.tasks.base import SearchSettings, Settings, TrainSettings
from gradnas.tasks.costs import located
from gradnas.tasks.division import Division
from gradnas.tasks.measure import Measure
from gradnas.tasks.timed import Timed, Wanted
from gradnas.tasks.your_task.calls import example_call
from gradnas.tasks.your_task.given import TASK_COPY, GivenTask, TaskData, option_for
from gradnas.tasks.your_task.measures import LOSS
from gradnas.tasks.your_task.space import TaskSpace
from gradnas.tasks.your_task.task import Task


class TaskSettings(Settings):
    """What the configurations of runs on tasks of one's own have in common."""

    if TYPE_CHECKING:

        @property
        def space(self) -> TaskSpace: ...
        @property
        def data(self) -> TaskData: ...
        @property
        def measures(self) -> tuple[Measure, ...]: ...

    def with_task(self, given: GivenTask) -> Self:
        config: Any = self
        before = [measure.key for measure in config.measures]
        now = [measure.key for measure in given.task.all_measures]
        if before and before != now:
            raise ValueError(
                f"the measures of {given.source} are {', '.join(now)}, and those of the run were "
                f"{', '.join(before)}"
            )
        return replace(
            config,
            data=config.data.bound(given),
            space=config.space.bound(given),
            measures=given.task.all_measures,
        )

    def task_change(self, sha256: str | None) -> str | None:
        before = self.data.sha256
        if before is None or sha256 is None or before == sha256:
            return None
        return f"{self.data.source} is no longer as it was when the run began"

    @property
    def task_option(self) -> str:
        return option_for(self.data.source)

    def with_source(self, source: str) -> Self:
        raise ValueError(
            "the data of a run on a task of your own are those of its file: leave out --data "
            f"{source}"
        )

    def check_architecture(self) -> None:
        """Whether its choices fit was seen when the task was given: nothing more is built."""

    def keep_files(self, folder: Path) -> None:
        super().keep_files(folder)
        given = self.data.given
        if given is not None and given.text is not None:
            runs.write_atomically(folder / TASK_COPY, given.text)


@dataclass(frozen=True)
class TaskSearchConfig(TaskSettings, SearchSettings):
    """A search on a task of one's own.

    Args:
        space: the choices of the task's model.
        measures: of the task, the deciding one first.
        train_fraction: share of the training data for the weights, where the task has no validation
            data; the rest is for the alphas.
        terms: of the alphas alone, added to their loss.
        stabilizers: change how the weights learn.
        selection: how the decision is had in the end; the rounds of one that measures are the last
            of the `epochs`.
        warmup_epochs: epochs at the start in which the alphas wait.
        alpha_every: the alphas take a step before every so many steps of the weights.
        batch_size: examples in a batch; a loader makes its own.
        weights: settings of SGD; None: the task brings its optimiser.
        alphas: None takes the settings that fit the relaxation.
        cost: an expected cost in the loss of the alphas, of the task's example.
        capture: replay the steps of whole batches from a CUDA graph; CUDA only.
        max_steps: stop after so many steps, without evaluation (to try a setting out).
        threads, checkpoint_seconds: as in `gradnas.tasks.images.settings.TrainConfig`.
        candidates: so many of the likeliest architectures are measured at the end, within a tenth
            of the work of the search; None: 8, within 4.5%; 0: the result is not compared with
            anything.
        guard: what follows where the search becomes unhealthy: `"warn"` says so, `"stop"` ends it
            with the last decision that was good, `"off"` measures nothing that costs anything.
        division: of the training data, in place of `train_fraction` and the seed (of a study).
    """

    takes_cost: ClassVar[bool] = True

    space: TaskSpace
    measures: tuple[Measure, ...] = (LOSS,)
    relaxation: Relaxation = field(default_factory=Softmax)
    gradient: ArchitectureGradient = field(default_factory=FirstOrder)
    terms: tuple[AlphaTerm, ...] = ()
    stabilizers: tuple[Stabilizer, ...] = ()
    selection: Selection = field(default_factory=Strongest)
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
    candidates: int | None = None
    guard: Guard = "warn"
    division: Division | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        check_guard(self.guard)

    @classmethod
    def of(cls, given: GivenTask) -> TaskSearchConfig:
        """The settings of a search on a task before anything else is said.

        Raises:
            ValueError: the model of the task holds no choice.
        """
        task = given.task
        return cls(
            space=TaskSpace.of(task.new_model),
            measures=task.all_measures,
            data=TaskData().bound(given),
            weights=None if task.optimizer is not None else WeightOptimizer(),
        )

    def timed(self, wanted: Wanted) -> Timed:
        if wanted.image_size is not None:
            raise ValueError("--image-size is for images; a task of your own has example=")
        task = self.data.load()
        call = example_call(task, wanted.batch_size)
        size = call.examples or size_of([*call.inputs, *call.named.values()]) or 1
        with seeded(self.seed):
            supernet = self.space.supernet(seed=self.seed)
        return Timed(
            supernet,
            call.mapped(lambda value: to_device(value, wanted.device)),
            repr(call),
            self.space.random_decision,
            channels_last=False,  # as it is searched and trained
            settings={"space": "TaskSpace", "batch_size": size, "channels_last": False},
        )

    def division_of(self) -> Division:
        """How the training data are divided."""
        return self.division or Division(self.train_fraction, self.seed)

    def division_for(self, data: Task, seed: int) -> Division:
        del data
        return Division(self.train_fraction, seed)

    def divided_as(self, division: Division) -> TaskSearchConfig:
        return replace(self, division=division)

    def hand_on(self, config: TrainSettings) -> TrainSettings:
        given = self.data.given
        return config if given is None else config.with_task(given)

    def located(self, folder: Path) -> TaskSearchConfig:
        return replace(self, cost=located(self.cost, folder))


@dataclass(frozen=True)
class TaskTrainConfig(TaskSettings, TrainSettings):
    """A training on a task of one's own.

    Args:
        space: the choices of the task's model.
        genotype: the operation of every choice.
        measures: of the task, the deciding one first; none before it is given.
        batch_size: examples in a batch; a loader makes its own.
        lr, momentum, weight_decay: of SGD; the learning rate falls along a cosine over the epochs.
            None: the task brings its optimiser, or its whole training.
        clip_norm: largest global L2 norm of the gradient, None for no clipping; of SGD alone.
        random_cells: so many networks with choices drawn at random are trained in the same way
            afterwards, each in a folder `random/K` of the run.
        cost: of the search before it; with a budget, random networks are within it too.
        max_steps: stop after so many steps, and evaluate (to try a setting out).
        accelerated, threads, checkpoint_seconds: as in `gradnas.tasks.images.settings.TrainConfig`.
        division: train on the part of the training data that trains the weights of a search, and
            measure on the other part (or on the task's validation data); the test data are not
            read.
    """

    takes_cost: ClassVar[bool] = True

    space: TaskSpace
    genotype: Choices
    measures: tuple[Measure, ...] = ()
    data: TaskData = field(default_factory=TaskData)
    epochs: int = 20
    batch_size: int = 64
    lr: float | None = 0.025
    momentum: float = 0.9
    weight_decay: float = 3e-4
    clip_norm: float | None = 5.0
    precision: Precision = "fp32"
    accelerated: bool = True
    random_cells: int = 0
    cost: ExpectedCost | None = None
    max_steps: int | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    checkpoint_seconds: float = 20.0
    division: Division | None = None

    def __post_init__(self) -> None:
        check_numbers(self)

    @classmethod
    def of(cls, decided: Choices, searched: TaskSearchConfig | None = None) -> TaskTrainConfig:
        """The settings of a training before its task is given: as long as the search was."""
        config = cls(space=TaskSpace({}), genotype=decided)
        if searched is None:
            return config
        is_within = searched.cost is not None and searched.cost.is_budget
        return replace(
            config,
            space=searched.space,
            epochs=searched.epochs,
            batch_size=searched.batch_size,
            cost=searched.cost if is_within else None,
        )

    def with_task(self, given: GivenTask) -> TaskTrainConfig:
        config = super().with_task(given)
        config.space.decision(config.genotype)
        task = given.task
        brings = "optimiser" if task.trainer is None else "training"
        is_own = task.optimizer is not None or task.trainer is not None
        if not self.measures:  # of a run that is to begin
            return replace(config, lr=None) if is_own else config
        if is_own != (self.lr is None):
            did = "brings its own" if is_own else "does not bring an"
            raise ValueError(
                f"{given.source} {did} {brings}, which was otherwise when the run began"
            )
        return config

    @property
    def weights(self) -> WeightOptimizer | None:
        """SGD with its settings; None where the task brings its own."""
        if self.lr is None:
            return None
        return WeightOptimizer(
            self.lr, 0.0, self.momentum, weight_decay=self.weight_decay, clip_norm=self.clip_norm
        )

    def load(self) -> Task:
        task = self.data.load()
        return task if self.division is None else task.measured_on_the_rest(self.division)

    def located(self, folder: Path) -> TaskTrainConfig:
        return replace(self, cost=located(self.cost, folder))


def steps_of(epochs: int, per_epoch: int | None, max_steps: int | None) -> int | None:
    """Steps of a whole run; None where the length of an epoch is not known."""
    if per_epoch is None:
        return max_steps
    steps = epochs * per_epoch
    return steps if max_steps is None else min(steps, max_steps)
