"""`gradnas search`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from gradnas import distributed, runs
from gradnas.cli.begin import (
    begun_before,
    device_of,
    free_folder,
    guarded,
    out_folder,
    say,
    say_read,
    say_waiting,
    typed,
)
from gradnas.cli.commands.resume import ResumeCommand
from gradnas.cli.commands.search import SearchCommand, SearchOptions
from gradnas.cli.lines import line
from gradnas.cli.methods import import_modules, import_option, method_of, methods_of
from gradnas.cli.options import flag, given
from gradnas.cli.own_task import is_task_file, read_task, task_path, with_given
from gradnas.config import from_json
from gradnas.families import recipes
from gradnas.gradients import ArchitectureGradient, Reinforce
from gradnas.modules.synchronised import keep_norms_local
from gradnas.objectives.cost import LIMITS, ExpectedCost
from gradnas.objectives.terms import AlphaTerm
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.programs import event_files, truths
from gradnas.programs.estimating import estimate_search
from gradnas.programs.following import after_search
from gradnas.programs.going_on import begin, set_threads, working_in
from gradnas.programs.searching import prepared_search, run_search, start_search
from gradnas.relaxations import Relaxation
from gradnas.runs import Record
from gradnas.search.search import check_combination
from gradnas.search.selecting import check_selection
from gradnas.search.steadying import check_stabilizers
from gradnas.search.terms import check_terms
from gradnas.selections import Selection
from gradnas.stabilizers import Stabilizer
from gradnas.tasks import SEARCH_CONFIGS, kind_of
from gradnas.tasks.base import SearchSettings
from gradnas.tasks.your_task.settings import TaskSearchConfig
from gradnas.truth import Truth


def search(command: SearchCommand) -> None:
    import_modules(command.imports)
    keep_norms_local(bool(command.local_batch_norm))
    if command.tensorboard:
        event_files.check_installed()
    config = _config(command)
    # Before a run folder is made
    alphas = config.alphas or AlphaOptimizer(**config.relaxation.alpha_defaults)
    check_combination(config.relaxation, config.gradient, alphas)
    check_terms(config.terms, config.relaxation, config.gradient)
    check_stabilizers(config.stabilizers, config.relaxation)
    check_selection(config.selection, config.relaxation, getattr(config, "cost", None))
    device = device_of(config.device)
    if command.estimate:
        set_threads(config.threads)
        line(estimate_search(config, config.load(), device))
        return
    before = begun_before(command.out)
    if before is not None:
        go_on(before, command.task or own_task_of(command), command.imports)
        return
    out = out_folder(command.out)
    truth = None
    if command.truth is not None:
        truth = truths.truth_within(truths.truth_of(command.truth), config.space)
    data = config.load()
    if out is None:
        out = free_folder(_stem(command.recipe))
    tensorboard = bool(command.tensorboard)
    carry_out(config, out, data, device, new=True, tensorboard=tensorboard, truth=truth)


def own_task_of(command: SearchCommand) -> str | None:
    """The task that is searched, where the command names one in the place of a recipe."""
    return command.recipe if is_task_file(command.recipe) else None


def go_on(folder: Path, task: str | None, imports: str | None = None) -> None:
    """Go on with a run that these processes have begun before they were started again."""
    if runs.Run(folder).status().get("status") != "finished":
        ResumeCommand(folder=folder, task=task, imports=imports).run()


def _stem(recipe: str) -> str:
    """What a run folder is called after."""
    if recipe.endswith(".json"):
        return Path(recipe).resolve().parent.name
    return task_path(recipe).stem if is_task_file(recipe) else recipe


def _config(command: SearchCommand) -> SearchSettings:
    """The recipe, or the file, with the options that were given."""
    if is_task_file(command.recipe):
        config = _of_task(command)
    elif command.recipe.endswith(".json"):
        path = Path(command.recipe)
        cls, description = typed(path, *SEARCH_CONFIGS.values())
        config = from_json(cls, description, command.recipe).located(path.parent)
        config, notes = with_given(config, command.task)
        say(notes)
    else:
        config = recipes.search_recipe(command.recipe)
        config, _ = with_given(config, command.task)
    return with_options(config, command)


def with_options(config: SearchSettings, command: SearchOptions) -> SearchSettings:
    """The configuration of a search with the options that were given.

    Raises:
        ValueError: an option that this search does not have, or whose value cannot be one.
    """
    if not config.takes_cost:
        settings_of_costs = given(command, *LIMITS, "latency", "form")
        if settings_of_costs:
            first = next(iter(settings_of_costs))
            raise ValueError(f"{flag(first)} is for searches on images and on a task of your own")
    changes = command.replacements(
        config,
        "valid_augment",
        "warmup_epochs",
        "valid_per_class",
        "cost_image_size",
        "checkpoint_cells",
        "capture",
        "candidates",
        "guard",
    )
    config = replace(config, **changes, **_methods(command, config))
    if config.takes_cost:
        config = replace(config, cost=_cost(command, config.cost))
    return config


def _of_task(command: SearchCommand) -> SearchSettings:
    if command.task is not None:
        raise ValueError(f"{command.recipe} is a task itself: leave out --task {command.task}")
    return TaskSearchConfig.of(read_task(command.recipe))


def _methods(command: SearchOptions, config: SearchSettings) -> dict[str, object]:
    """Relaxation, gradient and both optimisers, where options change them."""
    if command.reinforce is not None and command.gradient is not None:
        raise ValueError("only one of --reinforce and --gradient can hold")
    changes: dict[str, object] = {}
    if command.reinforce is not None:
        changes["gradient"] = Reinforce(samples=command.reinforce)
    if command.gradient is not None:
        changes["gradient"] = method_of(ArchitectureGradient, command.gradient, "--gradient")
    alphas = config.alphas
    relaxation = config.relaxation
    if command.relaxation is not None:
        relaxation = method_of(Relaxation, command.relaxation, "--relaxation")
        changes["relaxation"] = relaxation
        if alphas is not None:
            # Betas and weight decay that fit the new one; the pace stays that of the recipe.
            fitting = replace(alphas, **relaxation.alpha_defaults)
            alphas = replace(fitting, lr=alphas.lr)
    if command.terms is not None:
        changes["terms"] = methods_of(AlphaTerm, command.terms, "--terms")
    if command.stabilizers is not None:
        changes["stabilizers"] = methods_of(Stabilizer, command.stabilizers, "--stabilizers")
    if command.selection is not None:
        changes["selection"] = method_of(Selection, command.selection, "--selection")
    if command.alpha_lr is not None:
        if alphas is None:
            alphas = AlphaOptimizer(**relaxation.alpha_defaults)
        alphas = replace(alphas, lr=command.alpha_lr)
    if alphas is not config.alphas:
        changes["alphas"] = alphas
    if command.lr is not None:
        changes["weights"] = _weights_with(config, command.lr)
    return changes


def _weights_with(config: SearchSettings, lr: float) -> WeightOptimizer:
    """The optimiser of the weights with another learning rate at the start.

    Raises:
        ValueError: the task brings its own.
    """
    weights = config.weights
    if weights is None:
        raise ValueError("--lr is for SGD, and the task brings its own optimiser of the weights")
    # One that is constant stays so, and none rises towards its end.
    is_constant = weights.lr == weights.lr_end
    return replace(weights, lr=lr, lr_end=lr if is_constant else min(weights.lr_end, lr))


def _cost(command: SearchOptions, before: ExpectedCost | None) -> ExpectedCost | None:
    """The recipe's cost with the table, the limit and the form that were given."""
    limits = given(command, *LIMITS)
    if len(limits) > 1:
        names = " and ".join(flag(name) for name in limits)
        raise ValueError(f"only one of {names} can hold")
    settings = given(command, "form")
    if command.latency is not None:
        settings["table"] = command.latency
    if before is not None:
        if limits:
            # One limit in the place of the recipe's, whichever that was.
            settings |= dict.fromkeys(LIMITS)
        cost = replace(before, **(settings | limits))
    elif limits:
        cost = ExpectedCost(**settings, **limits)
    elif settings:
        raise ValueError(
            "--latency and --form need a limit: --budget-ms or --target-ms, for example"
        )
    else:
        return None
    cost.latency_table()  # refused now if it cannot be read
    return cost


def carry_out(
    config: SearchSettings,
    out: Path,
    data: object,
    device: torch.device,
    *,
    new: bool,
    tensorboard: bool = False,
    follows: bool = True,
    truth: Truth | None = None,
) -> None:
    """Search in a new folder, or go on in one; then say what came out, and what may follow.

    Args:
        follows: whether to try the training that may follow; a study knows what does.
        truth: where what came out is looked up.
    """
    # In a call of its own, so that its network makes room for that of the next step.
    run, results = _searched(config, out, data, device, new=new, tensorboard=tensorboard)
    if not distributed.is_main():
        return
    for sentence in kind_of(config).sentences.of_search(config, results):
        line(sentence)
    if truth is not None:
        _look_up(run, truth, config, data, device)
    say_waiting(run)
    files = ", ".join([runs.GENOTYPE, runs.PICTURE, runs.METRICS, runs.ALPHAS])
    line(f"run folder: {run.path} ({files})")
    if follows:
        line(after_search(run, config, data))


def _look_up(
    run: runs.Run, truth: Truth, config: SearchSettings, data: object, device: torch.device
) -> None:
    """Keep in the folder what a truth says of a search that is over, and say it."""
    cost = truths.cost_of_search(run, config, data, device)
    try:
        record = truths.look_up(run, truth, config.space, cost)
    except ValueError as error:  # the search itself went well
        line(f"truth: {error}")
        return
    truths.keep(run, record)
    for sentence in truths.sentences(record):
        line(sentence)


def _searched(
    config: SearchSettings,
    out: Path,
    data: object,
    device: torch.device,
    *,
    new: bool,
    tensorboard: bool,
) -> tuple[runs.Run, Record]:
    threads_notes = set_threads(config.threads, None if new else runs.Run(out))
    task = prepared_search(config, data, device)
    with working_in(out, new=new):
        run = begin(out, new, lambda: start_search(config, out, data, device, task))
        say_read(kind_of(config).read(data))
        say([*threads_notes, *kind_of(config).notes(data)])
        with event_files.written(run, config.space, wanted=tensorboard, say=say) as on_epoch:
            results = guarded(
                run,
                lambda: run_search(config, run, data, device, task=task, on_epoch=on_epoch),
                config.task_option + import_option(config),
            )
    return run, results
