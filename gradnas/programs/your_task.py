"""Searches and trainings on a task of one's own from Python: the same runs as on the command line.

What is found lies in a run folder, for `gradnas report` and everything else.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from gradnas import distributed, runs
from gradnas.architectures.choices import Choices
from gradnas.architectures.registry import load_architecture
from gradnas.architectures.shown import Shown
from gradnas.config import from_json, read_object
from gradnas.config.arguments import refuse_unknown
from gradnas.gradients import ArchitectureGradient, FirstOrder
from gradnas.objectives.cost import ExpectedCost
from gradnas.objectives.terms import AlphaTerm
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.precision import Precision
from gradnas.programs import searching, training
from gradnas.programs.going_on import begin, leave_word, set_threads, working_in
from gradnas.programs.reporting import write_report
from gradnas.programs.side_by_side import handing_on
from gradnas.programs.trained import TRAIN_FOLDER
from gradnas.relaxations import Relaxation, Softmax
from gradnas.runs import OnEpoch, Record
from gradnas.search.checks import check_combination
from gradnas.search.result import SearchResult
from gradnas.search.selecting import check_selection
from gradnas.search.steadying import check_stabilizers
from gradnas.search.terms import check_terms
from gradnas.search.verdict import Verdict
from gradnas.selections import Selection, Strongest
from gradnas.settings.formats import Guard
from gradnas.stabilizers import Stabilizer
from gradnas.tasks import kind_of
from gradnas.tasks.your_task.given import GivenTask
from gradnas.tasks.your_task.settings import TaskSearchConfig, TaskTrainConfig
from gradnas.tasks.your_task.space import choices_of
from gradnas.tasks.your_task.task import Task

HANDED_ON = "gradnas.programs.handed_on"  # goes on with a training in another process


@dataclass(frozen=True)
class TaskRun(Shown):
    """A finished run on a task of one's own, and its folder.

    Attributes:
        path: of the run folder.
        results: what its `results.json` holds.
    """

    path: Path
    results: Record

    @property
    def choices(self) -> dict[str, str]:
        """Choice -> operation."""
        decided = load_architecture(self.path / runs.GENOTYPE)
        return dict(decided.public)

    @property
    def result(self) -> SearchResult | None:
        """Of a search the decision with the supernet's weights."""
        return None

    def report(self) -> Path:
        """Write `report.html` into the folder, and say where it is."""
        return write_report(runs.Run.open(self.path))


@dataclass(frozen=True)
class SearchRun(TaskRun):
    """A finished search."""

    config: TaskSearchConfig
    task: Task

    @cached_property
    def result(self) -> SearchResult:
        """The decision with the supernet's weights, on the CPU; one process alone may ask."""
        with distributed.alone():
            live = kind_of(self.config).search_task(
                self.config.located(self.path), self.task, torch.device("cpu")
            )
            state, _ = runs.Run(self.path).load_checkpoint()
            assert state is not None
            live.load_state_dict(state)
        written = self.results.get("verdict")
        if written is not None:
            live.search.take_verdict(_with_decisions(Verdict.from_json(written)))
        return live.search.result()


@dataclass(frozen=True)
class TrainingRun(TaskRun):
    """A finished training."""

    config: TaskTrainConfig

    @cached_property
    def network(self) -> nn.Module:
        """The trained network, in eval mode, on the CPU."""
        return kind_of(self.config).load_trained(runs.Run(self.path), self.config)


def run_search(
    task: Task,
    *,
    out: str | Path,
    epochs: int = 20,
    batch_size: int = 64,
    relaxation: Relaxation = Softmax(),
    gradient: ArchitectureGradient = FirstOrder(),
    terms: Sequence[AlphaTerm] = (),
    stabilizers: Sequence[Stabilizer] = (),
    selection: Selection = Strongest(),
    weights: WeightOptimizer | None = None,
    alphas: AlphaOptimizer | None = None,
    cost: ExpectedCost | None = None,
    warmup_epochs: int = 0,
    alpha_every: int = 1,
    train_fraction: float = 0.5,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "fp32",
    capture: bool = False,
    workers: int = 0,
    max_steps: int | None = None,
    threads: int | None = None,
    candidates: int | None = None,
    guard: Guard = "warn",
    resume: bool = False,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    **unknown: Any,
) -> SearchRun:
    """Search on a task of one's own, with a run folder.

    Args:
        task: what is searched.
        out: the run folder, which is made.
        epochs, batch_size, warmup_epochs, alpha_every, train_fraction, max_steps, threads,
            candidates, guard: as in `gradnas.tasks.your_task.settings.TaskSearchConfig`.
        relaxation, gradient, terms, stabilizers, selection, alphas, cost, seed, precision: as in
            `Search`.
        weights: settings of SGD; by default those of `WeightOptimizer()`, or the task's own
            optimiser.
        device: cpu, cuda, cuda:N or auto.
        capture: replay the steps from a CUDA graph.
        workers: processes that read a data set.
        resume: go on with the run in `out`, whose settings hold: the others are not looked at.
        on_epoch: is told of every epoch at its end (`gradnas.runs.Epoch`), for a tracker of your
            own; after a kill perhaps again. What it raises ends the run, which may be resumed.

    Returns:
        What was found: `choices`, `results`, `result.derive()`.

    Raises:
        ValueError: a task or a setting that cannot be, before there is a folder; a folder that
            holds a run already, or none to go on with.
        NonFiniteError: a loss became NaN; the last checkpoint is kept.
        runs.Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    refuse_unknown(run_search, unknown)
    if resume:
        config = _stopped(TaskSearchConfig, out).with_task(GivenTask(task))
    else:
        config = TaskSearchConfig.of(GivenTask(task))
        config = replace(
            config,
            data=replace(config.data, workers=workers),
            epochs=epochs,
            batch_size=batch_size,
            relaxation=relaxation,
            gradient=gradient,
            terms=tuple(terms),
            stabilizers=tuple(stabilizers),
            selection=selection,
            weights=config.weights if weights is None else weights,
            alphas=alphas,
            cost=cost,
            warmup_epochs=warmup_epochs,
            alpha_every=alpha_every,
            train_fraction=train_fraction,
            seed=seed,
            device=device,
            precision=precision,
            capture=capture,
            max_steps=max_steps,
            threads=threads,
            candidates=candidates,
            guard=guard,
        )
    return _searched(task, config, Path(out), resume, progress, on_epoch)


def _searched(
    task: Task,
    config: TaskSearchConfig,
    folder: Path,
    resume: bool,
    progress: bool,
    on_epoch: OnEpoch | None,
) -> SearchRun:
    """The search of a configuration, begun or gone on with."""
    _check_methods(config)
    here = distributed.joined_device(config.device)
    with _own_threads(config.threads, folder, resume):
        live = searching.prepared_search(config, task, here)
        run, results = _carried_out(
            folder,
            resume,
            lambda: searching.start_search(config, folder, task, here, live),
            lambda run: searching.run_search(config, run, task, here, progress, live, on_epoch),
        )
    if "no_verdict" in results and not progress:  # else it stood there
        warnings.warn(f"there is no verdict: {results['no_verdict']}", stacklevel=3)
    return SearchRun(run.path, results, config, task)


def run_training(
    task: Task,
    found: SearchRun | str | Path | Mapping[str, str],
    *,
    out: str | Path | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    random: int = 0,
    seed: int = 0,
    device: str = "auto",
    precision: Precision = "fp32",
    workers: int = 0,
    max_steps: int | None = None,
    threads: int | None = None,
    resume: bool = False,
    progress: bool = True,
    on_epoch: OnEpoch | None = None,
    **unknown: Any,
) -> TrainingRun:
    """Train the network of a decision from scratch, and test it once.

    Args:
        task: as it was searched.
        found: what `run_search` returned, its folder, the file of `SearchResult.save`, or a mapping
            from choices to operations.
        out: the run folder, which is made; by default `train` in that of the search.
        epochs, batch_size: by default those of the search, or 20 and 64.
        lr: learning rate of SGD at the start, by default 0.025; None for a task with an optimiser
            of its own.
        random: so many networks with choices drawn at random are trained in the same way, for
            comparison; within the budget of the search, if it had one. On a CPU with free cores
            several are trained at once, in processes that get a copy of the task.
        seed, device, precision, workers, max_steps, threads, resume, on_epoch: as in `run_search`.

    Returns:
        `network`, `results`.

    Raises:
        ValueError: a task or a setting that cannot be, before there is a folder; a folder that
            holds a run already, or none to go on with; choices that the model does not have.
        NonFiniteError: a loss became NaN; the last checkpoint is kept.
        runs.Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    refuse_unknown(run_training, unknown)
    folder, decided = _decided(found)
    if out is None:
        if folder is None:
            raise ValueError("run_training needs out=, the run folder to make")
        out = folder / TRAIN_FOLDER
    if resume:
        config = _stopped(TaskTrainConfig, out).with_task(GivenTask(task))
    else:
        searched = None if folder is None else _read(TaskSearchConfig, folder)
        config = TaskTrainConfig.of(decided, searched).with_task(GivenTask(task))
        config = replace(
            config,
            data=replace(config.data, workers=workers),
            epochs=config.epochs if epochs is None else epochs,
            batch_size=config.batch_size if batch_size is None else batch_size,
            lr=config.lr if lr is None else lr,
            random_cells=random,
            seed=seed,
            device=device,
            precision=precision,
            max_steps=max_steps,
            threads=threads,
        )
    here = distributed.joined_device(config.device)
    place = Path(out)
    with _own_threads(config.threads, place, resume):
        live = training.prepared_training(config, task, here)
        run, results = _carried_out(
            place,
            resume,
            lambda: training.start_training(config, place, task, here, live),
            lambda run: training.train(
                config,
                run,
                task,
                here,
                progress,
                task=live,
                on_epoch=on_epoch,
                commands=handing_on(task, HANDED_ON),
            ),
        )
    return TrainingRun(run.path, results, config)


def _with_decisions(verdict: Verdict) -> Verdict:
    """A verdict from a file, its candidates with the architectures that they are."""
    candidates = []
    for own in verdict.candidates:
        candidates.append(replace(own, decision=Choices.parse(own.text)))
    return replace(verdict, candidates=tuple(candidates))


# -- run folders -----------------------------------------------------------------------------------


def _decided(found: SearchRun | str | Path | Mapping[str, str]) -> tuple[Path | None, Choices]:
    """The folder of the search, where there was one, and what was decided."""
    if isinstance(found, Mapping):
        return None, Choices(found)
    path = Path(found) if isinstance(found, str | Path) else found.path
    folder = path if path.is_dir() else None
    file = path
    if folder is not None:
        runs.Run.open(folder)
        file = folder / runs.GENOTYPE
        if not file.exists():
            raise ValueError(f"{folder} has no {runs.GENOTYPE} yet: the search is not finished")
    return folder, choices_of(load_architecture(file), file)


C = TypeVar("C", bound=TaskSearchConfig | TaskTrainConfig)


def _read(cls: type[C], folder: Path) -> C:
    """The configuration of a run on a task of one's own. ValueError for a run of another kind."""
    path = folder / runs.CONFIG
    description = read_object(path)
    name = description.get("type")
    if name != cls.__name__:
        raise ValueError(f"{path} is a {name}, and not a {cls.__name__}")
    config: Any = from_json(cls, description, str(path))
    return config.located(folder)


def _stopped(cls: type[C], out: str | Path) -> C:
    """The configuration of a run that was stopped."""
    run = runs.Run.open(out)
    if run.status().get("status") == "finished":
        raise ValueError(f"{out} is finished: there is nothing to go on with")
    return _read(cls, run.path)


def _carried_out(
    folder: Path,
    resume: bool,
    start: Callable[[], object],
    work: Callable[[runs.Run], Record],
) -> tuple[runs.Run, Record]:
    """Do the work in a folder that is made, or is there; when it stops, leave word of it there."""
    with working_in(folder, new=not resume):
        run = begin(folder, not resume, start)
        try:
            return run, work(run)
        except (runs.Interrupted, KeyboardInterrupt):
            leave_word(run, "interrupted")
            raise
        except Exception as error:
            leave_word(run, "failed", str(error))
            raise


def _check_methods(config: TaskSearchConfig) -> None:
    """ValueError for methods that do not go together."""
    adam = config.alphas or AlphaOptimizer(**config.relaxation.alpha_defaults)
    check_combination(config.relaxation, config.gradient, adam)
    check_terms(config.terms, config.relaxation, config.gradient)
    check_stabilizers(config.stabilizers, config.relaxation)
    check_selection(config.selection, config.relaxation, config.cost)


@contextlib.contextmanager
def _own_threads(threads: int | None, folder: Path, resume: bool) -> Iterator[None]:
    """Within: the number of threads that a run asks for; after it, as many as before."""
    before = torch.get_num_threads()
    try:
        for note in set_threads(threads, runs.Run(folder) if resume else None):
            warnings.warn(note, stacklevel=4)  # the line that called the run
        yield
    finally:
        torch.set_num_threads(before)
