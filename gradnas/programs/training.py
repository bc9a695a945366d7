"""The training of an architecture from scratch, for any kind of data, and of random ones beside it.

The test data are read once, after the last epoch.
"""

from __future__ import annotations

import statistics
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradnas import distributed, runs
from gradnas.config import from_json, read_object, to_json
from gradnas.environment import Moment, threads_of_torch
from gradnas.families import family_of, family_of_space
from gradnas.memory import SavedTensors, step_mib
from gradnas.modules.synchronised import synchronised_norms
from gradnas.pictures.canvas import check_installed
from gradnas.programs import side_by_side
from gradnas.programs.data_of_run import check_data, keep_data
from gradnas.programs.going_on import at_work, conditions, note_kernels, take_up
from gradnas.programs.searching import timing
from gradnas.progress import Progress
from gradnas.randomness import generator_for
from gradnas.runs import Epoch, OnEpoch, Record
from gradnas.search.checks import check_gradients
from gradnas.tasks import kind_of
from gradnas.tasks.base import TrainSettings
from gradnas.tasks.training import TrainTask

Task = TrainTask[Any, Any]
RANDOM = 13  # stream of random numbers: architectures for comparison
MAIN = "train"  # title of the training beside which the random ones are


def prepared_training(
    config: TrainSettings,
    data: object,
    device: torch.device,
    network: nn.Module | None = None,
) -> Task:
    """The live task of a training, at its beginning. Nothing is written.

    Args:
        network: another than that of the configuration, with the same calls (for comparisons).

    Raises:
        ValueError: a setting that data or device cannot follow; a compiler that is not there.
    """
    conditions()
    kind = kind_of(config)
    kind.check_training(config, data, device)
    return kind.train_task(config, data, device, network)


def start_training(
    config: TrainSettings,
    path: str | Path,
    data: object,
    device: torch.device,
    task: Task | None = None,
) -> runs.Run:
    """Make the run folder of a training: environment, architecture, picture, configuration.

    Its kind of data may add to it.

    Args:
        task: of `prepared_training`; None makes one, to see that it can be made.

    Raises:
        ValueError: before there is a folder, for a setting that data or device cannot follow; a
            folder that holds a run or anything else.
    """
    check_installed()  # a picture is drawn with it
    check_gradients("a training")
    runs.Run(path).check_free()
    if task is None:
        prepared_training(config, data, device)
    architecture = config.genotype
    kind = kind_of(config)

    def add(run: runs.Run) -> None:
        config.keep_files(run.path)
        architecture.save(run.path / runs.GENOTYPE)
        family = family_of(architecture)
        family.picture(architecture, run.path / runs.PICTURE, space=config.space)
        kind.begin(run, data)
        keep_data(run, kind, data)

    facts = conditions()
    return runs.Run.create(path, to_json(config.kept()), config.seed, device, add=add, facts=facts)


def train(
    config: TrainSettings,
    run: runs.Run,
    data: object,
    device: torch.device,
    progress: bool = True,
    title: str = MAIN,
    network: nn.Module | None = None,
    task: Task | None = None,
    on_epoch: OnEpoch | None = None,
    commands: side_by_side.Commands | None = None,
) -> Record:
    """Run a training to its end, from where its folder stands; writes metrics, weights and results.

    Args:
        network: another than that of the configuration, with the same calls (for comparisons).
        task: of `prepared_training`; None makes one.
        on_epoch: is told of every epoch when it has ended, on the first of several ranks; not of
            those of random architectures.
        commands: with which other processes go on with the random architectures; None: they are
            trained in this one, one after another.

    Returns:
        The results: losses and measures of the test, weight counts.

    Raises:
        ValueError: another process works in the folder; a checkpoint of other settings; a random
            architecture whose process has failed, and which.
        NonFiniteError: the loss became NaN; the last checkpoint is kept.
        runs.Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    check_gradients("a training")
    kind = kind_of(config)
    check_data(run, kind, data)
    if task is None:
        task = kind.train_task(config, data, device, network)
    with at_work(run):
        _train(config, run, task, device, progress, title, on_epoch)
        results = task.results()
        results["read"] = kind.read(data).to_json()
        if distributed.is_main():
            weights = dict(task.network.state_dict())
            run.save_tensors(runs.WEIGHTS, weights, {"format": "gradnas-weights"})
            run.save_results(results)
        if config.random_cells:
            results["random_cells"] = train_random(config, run, data, device, progress, commands)
            if distributed.is_main():
                run.save_results(results)
        if distributed.is_main():
            run.set_status("finished")
    return results


def _train(
    config: TrainSettings,
    run: runs.Run,
    task: Task,
    device: torch.device,
    progress: bool,
    title: str,
    on_epoch: OnEpoch | None,
) -> None:
    """All epochs that are left."""
    is_main = distributed.is_main()
    settings = config.state_settings()
    # Where a run was stopped, go on from its last checkpoint.
    sentences = take_up(run, settings, device, task.load_state_dict, task.redistributed)
    if title == MAIN:
        sentences = task.first_notes() + sentences
    bar = Progress(
        title,
        config.epochs,
        task.place.steps_per_epoch,
        task.epoch,
        task.place.steps_done,
        progress and is_main,
    )
    keeper = runs.Keeper(
        run if is_main else None, task.state_dict, config.checkpoint_seconds, settings
    )
    with bar, keeper:
        for sentence in sentences:
            bar.say(sentence)
        stopped = False
        is_first_here = True
        while task.epoch < config.epochs and not stopped:
            epoch = task.epoch
            began = Moment.now()
            waited = task.waiting.seconds
            task.start_epoch()
            is_first = task.place.at_start
            for batch in task.waiting.on(task.batches()):
                # The first step of each epoch also counts the memory that it needs.
                with synchronised_norms():
                    parts = _counted_step(task, batch) if is_first else task.step(batch)
                is_first = False
                bar.step(**task.bar(parts))
                if is_first_here and is_main:
                    changed = note_kernels(run)
                    if changed is not None:
                        bar.say(changed)
                is_first_here = False
                stopped = config.max_steps is not None and task.num_steps >= config.max_steps
                if stopped:
                    break
                if not task.place.epoch_done:  # else it is saved with the metrics of the epoch
                    keeper.after_step()

            record = task.finish_epoch()
            timed = timing(epoch, began, device)
            if task.reads_batches:
                timed["waiting_seconds"] = task.waiting.seconds - waited
            if is_main:
                run.append(runs.METRICS, record)
                run.append(runs.TIMINGS, timed)
            bar.epoch(epoch, task.shown(record))
            for remark in task.remarks(record):
                bar.say(f"{title}: {remark}")
            if is_main and on_epoch is not None:
                seconds = timed["seconds"]
                told = Epoch(epoch + 1, config.epochs, record, seconds, folder=run.path)
                keeper.tell(on_epoch, told)
            keeper.after_step()
        keeper.save()


def _counted_step(task: Task, batch: object) -> dict[str, Tensor]:
    """A step that also counts the memory it needs."""
    with SavedTensors() as kept:
        parts = task.step(batch)
    task.memory_mib = step_mib(kept, task.network, [task.optimizer])
    return parts


def train_random(
    config: TrainSettings,
    run: runs.Run,
    data: object,
    device: torch.device,
    progress: bool,
    commands: side_by_side.Commands | None = None,
) -> Record:
    """Train architectures drawn at random in the same way, each in a folder `random/K` of the run.

    Those already finished are not trained again. On a CPU with free cores several are trained at
    once, each in a process of its own.

    Returns:
        What they reached: values, their mean and standard deviation, the architectures as text.
    """
    kind = kind_of(config)
    measure = kind.measure
    values: list[float] = []
    texts: list[str] = []
    threads = torch.get_num_threads()
    if device.type == "cpu" and distributed.world() == 1:
        threads = side_by_side.threads_of_each(config.threads, config.random_cells)
    with threads_of_torch(threads):
        networks = [_Random.of(config, run, data, device, k) for k in range(config.random_cells)]
        if commands is not None:
            _side_by_side(networks, config, run, device, progress, commands, threads)
        for own in networks:
            results = own.results(progress)
            values.append(results[f"test_{measure.key}"])
            texts.append(own.config.genotype.to_text())
    return {
        f"test_{measure.plural}": values,
        f"mean_test_{measure.key}": statistics.fmean(values),
        f"std_test_{measure.key}": statistics.stdev(values) if len(values) > 1 else 0.0,
        "genotypes": texts,
    }


@dataclass(frozen=True)
class _Random:
    """One of the random networks."""

    title: str
    config: TrainSettings
    run: runs.Run
    data: object
    device: torch.device

    @staticmethod
    def of(
        config: TrainSettings, run: runs.Run, data: object, device: torch.device, k: int
    ) -> _Random:
        architecture = kind_of(config).random_architecture(
            config, generator_for(config.seed, RANDOM, k)
        )
        return _Random(
            f"random {family_of_space(config.space).noun} {k + 1}/{config.random_cells}",
            replace(config, genotype=architecture, random_cells=0),
            runs.Run(run.path / "random" / str(k)),
            data,
            device,
        )

    @property
    def is_begun(self) -> bool:
        return (self.run.path / runs.CONFIG).exists()

    @property
    def planned(self) -> side_by_side.Planned:
        """For another process."""
        return side_by_side.Planned(self.title, self.run, self.begin)

    def begin(self, task: Task | None = None) -> None:
        """Make its folder; where there is one, say there where the data of the run are now."""
        if not self.is_begun:
            start_training(self.config, self.run.path, self.data, self.device, task)
            return
        path = self.run.path / runs.CONFIG
        before = read_object(path)
        config: Any = self.config
        begun: Any = from_json(type(config), before, str(path)).located(self.run.path)
        if begun.data != config.data:
            runs.write_json(path, before | {"data": to_json(config.data)})

    def results(self, progress: bool) -> Record:
        """What it reached; it is trained here where no other process has done so."""
        if self.is_begun and self.planned.is_finished:
            return read_object(self.run.path / runs.RESULTS)
        task = prepared_training(self.config, self.data, self.device)
        if distributed.is_main():
            self.begin(task)
        distributed.barrier()
        return train(self.config, self.run, self.data, self.device, progress, self.title, task=task)


def _side_by_side(
    networks: list[_Random],
    config: TrainSettings,
    run: runs.Run,
    device: torch.device,
    progress: bool,
    commands: side_by_side.Commands,
    threads: int,
) -> None:
    """Train them in processes of their own, if that is worth it and can be."""
    left = sum(not own.planned.is_finished for own in networks)
    seconds = sum(record.get("seconds", 0.0) for record in run.records(runs.TIMINGS))
    at_once = side_by_side.processes(left, threads, seconds, device)
    if at_once < 2:
        return
    noun = family_of_space(config.space).noun
    try:
        side_by_side.carry_out(
            [own.planned for own in networks],
            config.epochs,
            commands,
            at_once,
            threads,
            f"{len(networks)} random {noun}s, {at_once} at a time",
            progress and distributed.is_main(),
        )
    except side_by_side.NotByItself as error:
        if progress:
            print(f"random {noun}s are trained one after another: {error}", file=sys.stderr)
