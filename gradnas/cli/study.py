"""`gradnas study`."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from gradnas import runs
from gradnas.cli.begin import device_of, free_folder, typed
from gradnas.cli.commands.study import StudyCommand
from gradnas.cli.lines import line
from gradnas.cli.methods import import_modules, import_option, method_of
from gradnas.cli.options import flag, given
from gradnas.cli.own_task import is_task_file, read_task, task_path, with_given
from gradnas.cli.search import with_options
from gradnas.cli.study_engines import check_engine, devices_of, engine_of, workers_of
from gradnas.config import did_you_mean, from_json, to_json
from gradnas.engines.base import python
from gradnas.families import recipes
from gradnas.gradients import ArchitectureGradient
from gradnas.programs.searching import prepared_search
from gradnas.programs.study_methods import METHODS, with_method
from gradnas.programs.studying import (
    Study,
    short_epochs,
    training_of,
    training_recipe,
)
from gradnas.programs.truths import truth_of, truth_within
from gradnas.randomness import generator_for
from gradnas.relaxations import Relaxation
from gradnas.study.folder import StudyFolder
from gradnas.study.plan import RANDOM, StudySettings
from gradnas.study.statistics import check_installed
from gradnas.tasks import SEARCH_CONFIGS, kind_of
from gradnas.tasks.base import SearchSettings
from gradnas.tasks.division import Division
from gradnas.tasks.your_task.settings import TaskSearchConfig
from gradnas.truth import Truth

SEEDS = 4
FINALS = 3
# What is done with a study that was begun, and the options that it takes.
LOOK = {"status": ("format",), "report": ("format", "truth"), "trial": ("task", "imports")}


def study(command: StudyCommand) -> None:
    if command.what in LOOK:
        if command.folder is None:
            raise ValueError(f"gradnas study {command.what} needs the folder of a study")
        _check_looks(command)
        from gradnas.cli import study_trial, study_view

        if command.what == "trial":
            study_trial.trial(command.folder, command.task, command.imports)
        elif command.what == "status":
            study_view.status(command.folder, command.format or "text")
        else:
            study_view.report(command.folder, command.format or "text", command.truth)
        return
    if command.folder is not None:
        hint = did_you_mean(command.what, LOOK)
        raise ValueError(
            f"{command.what} {command.folder}: after a recipe comes no folder{hint}; name that of "
            "the study with --out"
        )
    _begin(command)


def _check_looks(command: StudyCommand) -> None:
    """ValueError where status or report is given an option that is for beginning a study."""
    taken = ("what", "folder", *LOOK[command.what])
    for own in fields(command):
        if own.name not in taken and getattr(command, own.name) is not None:
            raise ValueError(f"{flag(own.name)} is no option of gradnas study {command.what}")


def _begin(command: StudyCommand) -> None:
    check_installed()
    import_modules(command.imports)
    name = command.engine or "local"
    check_engine(command, name)
    config, task = _config(command)
    truth = None
    if command.truth is not None:
        truth = truth_within(truth_of(command.truth), config.space)
    out = Path(command.out) if command.out is not None else free_folder(f"{_stem(command)}-study")
    folder = StudyFolder(out)
    folder.check_free()
    device = device_of(config.device)
    devices = devices_of(command, config.device, device)
    data = config.load()
    workers = workers_of(command, devices)
    threads = _threads(config, folder, workers)
    division = config.division_for(data, config.seed)
    config = replace_known(config.divided_as(division), threads=threads)
    methods = _methods(command, config)
    settings = _settings(command, config, division, data, task, methods, threads)
    _check_methods(methods, command.what, data)

    with engine_of(command, name, workers, devices, settings, folder) as engine:
        making = runs.made_folder(out)
        with making, runs.locked(out):
            folder.remove_killed_writes()
            folder.begin(settings)
            if settings_file_is_new(folder):
                _keep_files(config, folder)
            if command.resume_failed:
                for again in folder.forget_failures():
                    line(f"note: {again} is tried again", error=True)
            work = Study(
                folder,
                data,
                lambda config: with_given(config, task)[0],
                _command_of_trials(folder, config, task),
                lambda text: line(text, error=True),
                max_failures=command.max_failures,
            )
            try:
                work.run(engine)
            except KeyboardInterrupt:
                line(
                    "gradnas: the trials save and stop; Ctrl-C once more stops them at once",
                    error=True,
                )
                try:
                    engine.cancel()
                finally:
                    line(
                        f"gradnas: stopped; the same command goes on with what is done in {out}",
                        error=True,
                    )
                raise
            work.write_outcome()
            _say_outcome(folder, command.format or "text", truth)


def settings_file_is_new(folder: StudyFolder) -> bool:
    """Whether no trial has been planned yet."""
    return not folder.names()


def _keep_files(config: SearchSettings, folder: StudyFolder) -> None:
    place = folder.path / "plan"
    place.mkdir(exist_ok=True)
    config.keep_files(place)


# ---- what is to be done --------------------------------------------------------------------------


def _config(command: StudyCommand) -> tuple[SearchSettings, str | None]:
    """The configuration of a search, and the task of the user's own, as it was named."""
    task = command.task
    if is_task_file(command.what):
        if task is not None:
            raise ValueError(f"{command.what} is a task itself: leave out --task {task}")
        task = command.what
        config: SearchSettings = TaskSearchConfig.of(read_task(task))
    elif command.what.endswith(".json"):
        path = Path(command.what)
        cls, description = typed(path, *SEARCH_CONFIGS.values())
        config = from_json(cls, description, command.what).located(path.parent)
        config, _ = with_given(config, task)
    else:
        config = recipes.search_recipe(command.what)
        config, _ = with_given(config, task)
    # Workers of a study are trials, not loaders; its candidates are trained.
    config = with_options(config, replace(command, workers=None, candidates=None))
    # A verdict of so many candidates, or none.
    return replace_known(config, candidates=command.candidates or 0), task


def _stem(command: StudyCommand) -> str:
    if command.what.endswith(".json"):
        return Path(command.what).resolve().parent.name
    return task_path(command.what).stem if is_task_file(command.what) else command.what


def _threads(config: SearchSettings, folder: StudyFolder, workers: int) -> int:
    """Cores of each trial; they belong to the study, on whatever machine it goes on."""
    if config.threads is not None:
        return config.threads
    if folder.is_begun:
        return folder.settings.threads
    return max(1, (os.cpu_count() or 1) // workers)


def _methods(command: StudyCommand, config: SearchSettings) -> dict[str, SearchSettings]:
    """The searches of each method, by the name that it has in the folder.

    Raises:
        ValueError: there is no such method, or options say another.
    """
    names = _method_names(command.methods)
    named = given(command, "relaxation", "gradient", "reinforce")
    others = [name for name in names if name != "default"]
    if named and others:
        first = flag(next(iter(named)))
        raise ValueError(
            f"{first} changes the recipe, which is the method default, and {others[0]} is another "
            "one: write such a method as RELAXATION+GRADIENT in --methods"
        )
    methods: dict[str, SearchSettings] = {}
    for name in names:
        if _plain(name) in methods:
            raise ValueError(f"--methods names {name} twice: in folders both are {_plain(name)}")
        methods[_plain(name)] = _method(name, config)
    return methods


def _settings(
    command: StudyCommand,
    config: SearchSettings,
    division: Division,
    data: object,
    task: str | None,
    methods: Mapping[str, SearchSettings],
    threads: int,
) -> StudySettings:
    written: dict[str, Any] = {}
    for name, own in methods.items():
        written[name] = to_json(own.kept())
        if task is not None:
            # Every trial is given the file; from where it is named says nothing of the study.
            written[name]["data"]["source"] = Path(task).name
    recipe = training_recipe(config, command.training)
    architecture: Any = config.space.random_decision(generator_for(config.seed))
    first = next(iter(written.values()))
    training = training_of(architecture, first, recipe, lambda own: with_given(own, task)[0])
    final = command.final_epochs or training.epochs
    fingerprint = json.dumps(kind_of(config).fingerprint(data).to_json(), sort_keys=True)
    return StudySettings(
        what=command.what,
        seeds=SEEDS if command.seeds is None else command.seeds,
        seed=config.seed,
        finals=FINALS if command.finals is None else command.finals,
        short_epochs=command.short_epochs or short_epochs(final),
        final_epochs=final,
        training=recipe,
        division=division,
        threads=threads,
        random=command.random,
        candidates=command.candidates or 0,
        methods=written,
        data=hashlib.sha256(fingerprint.encode()).hexdigest(),
    )


def replace_known(config: Any, **values: Any) -> Any:
    """A configuration with other values of fields that every one has."""
    return replace(config, **values)


def _method_names(text: str | None) -> list[str]:
    """The methods that `--methods` names; a comma within a method is followed by `field=`."""
    if text is None:
        return ["default"]
    names = []
    for part in re.split(r",(?!\s*\w+\s*=)", text):
        name = part.strip()
        if not name:
            raise ValueError(f"--methods {text!r}: a name is missing between two commas")
        if name in names:
            raise ValueError(f"--methods names {name} twice")
        if name != RANDOM:  # it is always there
            names.append(name)
    if not names:
        raise ValueError("--methods: random search is what the others are compared with; name one")
    return names


def _plain(name: str) -> str:
    """A method's name as a part of the name of a folder."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _method(name: str, config: SearchSettings) -> SearchSettings:
    """The configuration of the searches of a method.

    Raises:
        ValueError: there is no such method.
    """
    if name in METHODS:
        return METHODS[name](config)
    relaxation_text, _, gradient_text = name.partition("+")
    option = "--methods"
    try:
        relaxation = method_of(Relaxation, relaxation_text, option)
    except ValueError as error:
        hint = did_you_mean(name, METHODS)
        raise ValueError(
            f"--methods: no method is called {name!r}{hint}; there are {', '.join(METHODS)}, "
            f"{RANDOM}, or RELAXATION+GRADIENT ({error})"
        ) from error
    gradient = config.gradient
    if gradient_text:
        gradient = method_of(ArchitectureGradient, gradient_text, option)
    return with_method(config, relaxation, gradient)


def _check_methods(methods: Mapping[str, SearchSettings], what: str, data: object) -> None:
    """ValueError where the searches of a method cannot be."""
    for name, config in methods.items():
        try:
            prepared_search(config, data, device_of(config.device))
        except ValueError as error:
            raise ValueError(f"the method {name} does not fit {what}: {error}") from error


def _command_of_trials(
    folder: StudyFolder, config: SearchSettings, task: str | None
) -> Callable[[str], tuple[str, ...]]:
    options: list[str] = []
    if task is not None:
        options += ["--task", task]
    modules = import_option(config).strip()
    if modules:
        options += shlex.split(modules)

    def command(name: str) -> tuple[str, ...]:
        place = str(folder.trial(name).path)
        return python("-m", "gradnas", "study", "trial", place, *options)

    return command


def _say_outcome(folder: StudyFolder, form: str, truth: Truth | None) -> None:
    from gradnas.cli.study_view import say_outcome

    say_outcome(folder, form, truth)
