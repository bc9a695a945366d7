"""The training of an architecture from scratch, for any kind of data, and of random ones beside it.

The test data are read once, after the last epoch.
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradnas import distributed, runs
from gradnas.config import read_object, to_json
from gradnas.environment import Moment
from gradnas.families import family_of, family_of_space
from gradnas.memory import SavedTensors, step_mib
from gradnas.modules.synchronised import synchronised_norms
from gradnas.pictures.canvas import check_installed
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
) -> Record:
    """Run a training to its end, from where its folder stands; writes metrics, weights and results.

    Args:
        network: another than that of the configuration, with the same calls (for comparisons).
        task: of `prepared_training`; None makes one.
        on_epoch: is told of every epoch when it has ended, on the first of several ranks; not of
            those of random architectures.

    Returns:
        The results: losses and measures of the test, weight counts.

    Raises:
        ValueError: another process works in the folder; a checkpoint of other settings.
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
            results["random_cells"] = train_random(config, run, data, device, progress)
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
    config: TrainSettings, run: runs.Run, data: object, device: torch.device, progress: bool
) -> Record:
    """Train architectures drawn at random in the same way, each in a folder `random/K` of the run.

    Those already finished are not trained again.

    Returns:
        What they reached: values, their mean and standard deviation, the architectures as text.
    """
    kind = kind_of(config)
    measure = kind.measure
    values: list[float] = []
    texts: list[str] = []
    for k in range(config.random_cells):
        architecture = kind.random_architecture(config, generator_for(config.seed, RANDOM, k))
        own = replace(config, genotype=architecture, random_cells=0)
        folder = run.path / "random" / str(k)
        child = runs.Run(folder)
        is_begun = (folder / runs.CONFIG).exists()
        if is_begun and child.status().get("status") == "finished":
            results = read_object(folder / runs.RESULTS)
        else:
            noun = family_of_space(config.space).noun
            title = f"random {noun} {k + 1}/{config.random_cells}"
            task = prepared_training(own, data, device)
            if distributed.is_main() and not is_begun:
                start_training(own, folder, data, device, task)
            distributed.barrier()
            results = train(own, child, data, device, progress, title, task=task)
        values.append(results[f"test_{measure.key}"])
        texts.append(architecture.to_text())
    return {
        f"test_{measure.plural}": values,
        f"mean_test_{measure.key}": statistics.fmean(values),
        f"std_test_{measure.key}": statistics.stdev(values) if len(values) > 1 else 0.0,
        "genotypes": texts,
    }
