"""The training of an architecture from scratch, for any kind of data, and of random ones beside it.

The test data are read once, after the last epoch.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from gradnas import distributed, runs
from gradnas.config import read_object, to_json
from gradnas.families import family_of
from gradnas.memory import SavedTensors, step_mib
from gradnas.pictures.canvas import check_installed
from gradnas.programs.data_of_run import check_data, keep_data
from gradnas.programs.searching import timing
from gradnas.progress import Progress
from gradnas.randomness import generator_for
from gradnas.runs import Record
from gradnas.tasks import kind_of
from gradnas.tasks.base import TrainSettings
from gradnas.tasks.training import TrainTask

RANDOM = 13  # stream of random numbers: architectures for comparison


def start_training(
    config: TrainSettings, path: str | Path, data: object, device: torch.device
) -> runs.Run:
    """Make the run folder of a training: configuration, environment, architecture, picture.

    Its kind of data may add to it.

    Raises:
        ValueError: before there is a folder, for a setting that data or device cannot follow; a
            folder that holds a run.
    """
    check_installed()  # a picture is drawn with it
    kind = kind_of(config)
    kind.check_training(config, data, device)
    run = runs.Run.create(path, to_json(config), config.seed, device)
    architecture = config.genotype
    architecture.save(run.path / runs.GENOTYPE)
    family = family_of(architecture)
    family.picture(architecture, run.path / runs.PICTURE, space=config.space)
    kind.begin(run, data)
    keep_data(run, kind, data)
    return run


def train(
    config: TrainSettings,
    run: runs.Run,
    data: object,
    device: torch.device,
    progress: bool = True,
    title: str = "train",
    network: nn.Module | None = None,
) -> Record:
    """Run a training to its end, from where its folder stands; writes metrics, weights and results.

    Args:
        network: another than that of the configuration, with the same calls (for comparisons).

    Returns:
        The results: losses and measures of the test, weight counts.

    Raises:
        NonFiniteError: the loss became NaN; the last checkpoint is kept.
        runs.Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    kind = kind_of(config)
    check_data(run, kind, data)
    task = kind.train_task(config, data, device, network)
    is_main = distributed.is_main()

    # Where a run was stopped, go on from its last checkpoint.
    state, note = run.load_checkpoint()
    distributed.barrier()
    if state is not None:
        task.load_state_dict(state)
    bar = Progress(
        title,
        config.epochs,
        task.place.steps_per_epoch,
        task.epoch,
        task.place.steps_done,
        progress and is_main,
    )
    keeper = runs.Keeper(run if is_main else None, task.state_dict, config.checkpoint_seconds)
    with bar, keeper:
        if note:
            bar.say(note)
        stopped = False
        while task.epoch < config.epochs and not stopped:
            epoch = task.epoch
            began = time.monotonic()
            task.start_epoch()
            is_first = task.place.at_start
            for batch in task.batches():
                # The first step of each epoch also counts the memory that it needs.
                parts = _counted_step(task, batch) if is_first else task.step(batch)
                is_first = False
                bar.step(**task.bar(parts))
                stopped = config.max_steps is not None and task.num_steps >= config.max_steps
                if stopped:
                    break
                if not task.place.epoch_done:  # else it is saved with the metrics of the epoch
                    keeper.after_step()

            record = task.finish_epoch()
            if is_main:
                run.append(runs.METRICS, record)
                run.append(runs.TIMINGS, timing(epoch, began, device))
            bar.epoch(epoch, task.shown(record))
            for remark in task.remarks(record):
                bar.say(f"{title}: {remark}")
            keeper.after_step()
        keeper.save()

    results = task.results()
    results["read"] = kind.read(data).to_json()
    if is_main:
        weights = dict(task.network.state_dict())
        run.save_tensors(runs.WEIGHTS, weights, {"format": "gradnas-weights"})
        runs.write_json(run.path / runs.RESULTS, results)
    if config.random_cells:
        results["random_cells"] = train_random(config, run, data, device, progress)
        if is_main:
            runs.write_json(run.path / runs.RESULTS, results)
    if is_main:
        run.set_status("finished")
    return results


def _counted_step(task: TrainTask, batch: object) -> dict[str, Tensor]:
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
    measure = kind_of(config).measure
    values: list[float] = []
    texts: list[str] = []
    for k in range(config.random_cells):
        architecture = config.space.random_decision(generator_for(config.seed, RANDOM, k))
        own = replace(config, genotype=architecture, random_cells=0)
        folder = run.path / "random" / str(k)
        if distributed.is_main() and not (folder / runs.CONFIG).exists():
            start_training(own, folder, data, device)
        distributed.barrier()
        child = runs.Run(folder)
        if child.status().get("status") == "finished":
            results = read_object(folder / runs.RESULTS)
        else:
            title = f"random cell {k + 1}/{config.random_cells}"
            results = train(own, child, data, device, progress, title)
        values.append(results[f"test_{measure.key}"])
        texts.append(architecture.to_text())
    return {
        f"test_{measure.plural}": values,
        f"mean_test_{measure.key}": statistics.fmean(values),
        f"std_test_{measure.key}": statistics.stdev(values) if len(values) > 1 else 0.0,
        "genotypes": texts,
    }
