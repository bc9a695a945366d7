"""The search: from a configuration to an architecture in a run folder, for any kind of data.

Every random number is a function of (seed, step) or is saved, so a run that is killed and resumed
ends with the same files as one that was not.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from gradnas import distributed, runs
from gradnas.architectures.base import Architecture
from gradnas.config import to_json
from gradnas.environment import Moment
from gradnas.families import family_of
from gradnas.memory import measured_peak_mib
from gradnas.pictures.canvas import check_installed
from gradnas.programs.data_of_run import check_data, keep_data
from gradnas.programs.going_on import at_work, conditions, note_kernels, take_up
from gradnas.progress import Progress
from gradnas.runs import OnEpoch, Record
from gradnas.search.checks import check_gradients
from gradnas.search.chosen import Chosen
from gradnas.search.epoch import epoch_of
from gradnas.search.result import SearchResult, never_ran, result_of
from gradnas.search.verdict import Verdict
from gradnas.tasks import kind_of
from gradnas.tasks.base import SearchSettings
from gradnas.tasks.search import SearchTask, metrics_of

Task = SearchTask[Any, Any]


def prepared_search(config: SearchSettings, data: object, device: torch.device) -> Task:
    """The live task of a search, at its beginning. Nothing is written.

    Raises:
        ValueError: a setting that data or device cannot follow; a compiler that is not there.
    """
    conditions()
    kind = kind_of(config)
    notes = kind.check_search(config, data, device)
    task = kind.search_task(config, data, device)
    task.check_scores()
    task.notes = [*task.notes, *(notes or [])]
    return task


def start_search(
    config: SearchSettings,
    path: str | Path,
    data: object,
    device: torch.device,
    task: Task | None = None,
) -> runs.Run:
    """Make the run folder of a search: environment, what its kind of data adds, configuration.

    Args:
        task: of `prepared_search`; None makes one, to see that it can be made.

    Raises:
        ValueError: before there is a folder, for a setting that data or device cannot follow; a
            folder that holds a run or anything else.
    """
    check_installed()  # the picture at the end is drawn with it
    check_gradients()
    runs.Run(path).check_free()
    kind = kind_of(config)
    if task is None:
        prepared_search(config, data, device)
    written = to_json(config.kept())

    def add(run: runs.Run) -> None:
        config.keep_files(run.path)
        kind.begin(run, data)
        keep_data(run, kind, data)

    return runs.Run.create(path, written, config.seed, device, add=add, facts=conditions())


def run_search(
    config: SearchSettings,
    run: runs.Run,
    data: object,
    device: torch.device,
    progress: bool = True,
    task: Task | None = None,
    on_epoch: OnEpoch | None = None,
) -> Record:
    """Run a search to its end, from where its folder stands.

    Args:
        task: of `prepared_search`; None makes one.
        on_epoch: is told of every epoch when it has ended, on the first of several ranks.

    Returns:
        The results: the architecture as text, steps, and what its kind of data measures.

    Raises:
        ValueError: another process works in the folder; a checkpoint of other settings.
        NonFiniteError: a loss became NaN; the last checkpoint is kept.
        runs.Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    check_gradients()
    kind = kind_of(config)
    check_data(run, kind, data)
    located = config.located(run.path)
    if task is None:
        task = kind.search_task(located, data, device)
    task.is_told = on_epoch is not None
    with at_work(run):
        return _run(located, run, task, data, device, progress, on_epoch)


def _run(
    config: SearchSettings,
    run: runs.Run,
    task: Task,
    data: object,
    device: torch.device,
    progress: bool,
    on_epoch: OnEpoch | None,
) -> Record:
    search = task.search
    is_main = distributed.is_main()
    settings = config.state_settings()
    # Where a run was stopped, go on from its last checkpoint.
    sentences = task.first_notes() + take_up(
        run, settings, device, task.load_state_dict, task.redistributed
    )
    bar = _bar(config, task, progress and is_main)
    keeper = runs.Keeper(
        run if is_main else None, task.state_dict, config.checkpoint_seconds, settings
    )
    with bar, keeper:
        for sentence in sentences:
            bar.say(sentence)

        record: Record = {}
        stopped = False
        is_first_here = True
        while search.epoch < config.epochs and not stopped and search.health.stopped is None:
            epoch = search.epoch
            began = Moment.now()
            waited = task.waiting.seconds
            task.start_epoch()
            for sentence in task.select():
                bar.say(sentence)
            is_first = task.place.at_start
            for batch in task.waiting.on(task.batches()):
                # The first step of each epoch also counts the memory that it needs.
                report = task.counted_step(batch) if is_first else task.step(batch)
                is_first = False
                bar.step(**task.bar(report))
                if is_first_here and is_main:
                    changed = note_kernels(run)
                    if changed is not None:
                        bar.say(changed)
                is_first_here = False
                stopped = config.max_steps is not None and search.steps >= config.max_steps
                if stopped:
                    break
                if not task.place.epoch_done:  # else it is saved with the metrics of the epoch
                    keeper.after_step()

            record = task.finish_epoch(evaluated=not stopped)
            timed = timing(epoch, began, device)
            timed["waiting_seconds"] = task.waiting.seconds - waited
            if is_main:
                _keep_epoch(run, task, record, timed)
            _show(bar, task, epoch, record)
            told = epoch_of(search, record, config.epochs, timed["seconds"], run.path)
            search.health.act()  # before a tracker, which may end the run: the state is whole
            if is_main and on_epoch is not None:
                keeper.tell(on_epoch, told)
            keeper.after_step()
        keeper.save()
        # Nothing of the state changes by it: a run that is killed here makes it again.
        _say_what_never_ran(bar, task)
        measure = kind_of(config).of(config).measure
        is_judged = is_main and not stopped
        chosen = task.choose(measure) if is_judged else None
        found = result_of(search)  # whether anything was decided, the task says in its own words
        verdict = task.verdict(found, measure) if is_judged else None

    # Of a search that was stopped after its last epoch, the file has the metrics.
    last = _last_record(run, search.epoch) if is_main else record
    results = _results(task, found, last, chosen) | _verdict_record(verdict)
    results["read"] = kind_of(config).read(data).to_json()
    if is_main:
        run.save_tensors(runs.ALPHAS, task.trajectory)
        _write_found(config, run, found.decision, results)
        run.set_status("finished")
    return results


def _results(task: Task, found: SearchResult, last: Record, chosen: Chosen | str | None) -> Record:
    """The results of a search; `chosen`: the best candidate, or why there is none."""
    if isinstance(chosen, Chosen) or task.search.health.stopped is not None:
        # Those of the last epoch are of another decision: of a candidate's, or of one of before.
        stay = {key: value for key, value in last.items() if not _is_of_derived(key)}
        last = stay | metrics_of(task, found)
    results = task.results(found, last)
    if isinstance(chosen, str):
        results["no_selection"] = chosen
    return results


def _is_of_derived(key: str) -> bool:
    """Whether a metric of an epoch is of the network that was derived after it."""
    return key.startswith("derived_") or key == "discretisation_gap"


def _bar(config: SearchSettings, task: Task, enabled: bool) -> Progress:
    """Of all steps, from where the search stands."""
    return Progress(
        "search",
        config.epochs,
        task.place.steps_per_epoch,
        task.search.epoch,
        task.place.steps_done,
        enabled,
    )


def _keep_epoch(run: runs.Run, task: Task, record: Record, timed: Record) -> None:
    """Write what an epoch has shown."""
    run.append(runs.METRICS, record)
    run.append(runs.TIMINGS, timed)
    run.save_tensors(runs.ALPHAS, task.trajectory)


def _show(bar: Progress, task: Task, epoch: int, record: Record) -> None:
    """The line of an epoch, and what is to be said of it."""
    shown = {word: record[name] for name, word in task.shown.items() if name in record}
    bar.epoch(epoch, shown)
    for warning in _warnings(task, epoch, record):
        bar.say(f"warning: {warning}")


def _say_what_never_ran(bar: Progress, task: Task) -> None:
    idle = never_ran(task.search.supernet)
    if idle is not None and bar.enabled:
        bar.say(f"warning: {idle}")
    elif idle is not None:
        warnings.warn(idle, stacklevel=2)


def _verdict_record(verdict: Verdict | str | None) -> Record:
    """The entry of the results for a verdict, or for why there is none."""
    if verdict is None:
        return {}
    if isinstance(verdict, Verdict):
        return {"verdict": verdict.to_json()}
    return {"no_verdict": verdict}


def _last_record(run: runs.Run, epochs: int) -> Record:
    """The metrics of the last of so many epochs; empty where the file has lost them."""
    for record in reversed(run.records()):
        if record.get("epoch") == epochs - 1:
            return record
    return {}


def _warnings(task: Task, epoch: int, record: Record) -> list[str]:
    """What is to be said after an epoch; after the first, also that all of them are warm-up."""
    waiting = task.decidedness.all_warm_up() if epoch == 0 else None
    first = [] if waiting is None else [waiting]
    news = task.search.health.news
    return [*first, *task.warnings(record), *([] if news is None else [news])]


def _write_found(
    config: SearchSettings, run: runs.Run, architecture: Architecture, results: Record
) -> None:
    """Write the architecture, its picture and the results into the folder."""
    architecture.save(run.path / runs.GENOTYPE)
    run.save_results(results)
    # After the results: the picture marks what they call undecided.
    family = family_of(architecture)
    family.picture(architecture, run.path / runs.PICTURE, space=config.space, run=run.path)


def timing(epoch: int, began: Moment, device: torch.device) -> dict[str, float]:
    """The line of an epoch in the timings."""
    now = Moment.now()
    return {
        "epoch": epoch,
        "seconds": now.clock - began.clock,
        "cpu_seconds": now.cpu - began.cpu,
        "measured_peak_memory_mib": measured_peak_mib(device),
    }
