"""`gradnas search`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from tyro.conf import Positional, arg

from gradnas import distributed, runs
from gradnas.cli.begin import begin, device_of, free_folder, guarded, say, typed
from gradnas.cli.methods import import_modules, method_of
from gradnas.cli.options import (
    Flag,
    Imports,
    Method,
    Number,
    RunOptions,
    Table,
    Whole,
    flag,
    given,
)
from gradnas.config import from_json
from gradnas.families import recipes
from gradnas.gradients import ArchitectureGradient, Reinforce
from gradnas.objectives.cost import LIMITS, CostLimits, ExpectedCost
from gradnas.optimizers import AlphaOptimizer
from gradnas.programs.estimating import estimate_search
from gradnas.programs.searching import run_search, start_search
from gradnas.relaxations import Relaxation
from gradnas.search.search import check_combination
from gradnas.tasks import SEARCH_CONFIGS, kind_of
from gradnas.tasks.base import SearchSettings


@dataclass(frozen=True, kw_only=True)
class _SearchOptions(RunOptions):
    """Options of a search, before those of its cost."""

    recipe: Annotated[Positional[str], arg(metavar="RECIPE|CONFIG.json", help_behavior_hint="")]
    """Recipe, or path of a config.json."""
    valid_augment: Flag = None
    """Augment the alphas' images too, as the original code does."""
    warmup_epochs: Whole = None
    """Epochs at the start in which the alphas wait."""
    valid_per_class: Whole = None
    """Hold out so many images of every class for the alphas."""
    checkpoint_cells: Flag = None
    """Compute every cell again in backward: less memory, more time."""
    capture: Flag = None
    """Replay the steps from a CUDA graph; on CUDA devices."""
    alpha_lr: Number = None
    """Learning rate of the alphas."""
    relaxation: Method = None
    """From alphas to mixing weights: softmax, sigmoid, gumbel or binary-gates, with fields as in
    gumbel:hard=false, or module:Class of your own."""
    gradient: Method = None
    """How the alphas learn: first-order, unrolled, implicit or reinforce, with fields as in
    unrolled:mode=exact, or module:Class of your own."""
    imports: Imports = None
    """Modules with classes of your own that a CONFIG.json names."""
    reinforce: Whole = None
    """Learn the alphas from the losses of so many sampled networks a step, not by a gradient
    through the network."""
    latency: Table = None
    """Table of latencies (gradnas latency measure, or of a phone), for --budget-ms or
    --target-ms."""


@dataclass(frozen=True, kw_only=True)
class SearchCommand(CostLimits, _SearchOptions):
    """Search for an architecture: by recipe (see `gradnas recipes`) or from the config.json of a
    run."""

    form: Annotated[Literal["mul#log", "add#linear"] | None, arg(help_behavior_hint="")] = None
    """How a target enters the loss: as a factor, or as a term."""
    estimate: Flag = None
    """Only say how much memory and time the search would take here, from a few steps; makes no run
    folder."""

    def run(self) -> None:
        import_modules(self.imports)
        config = self._config()
        # Before a run folder is made
        alphas = config.alphas or AlphaOptimizer(**config.relaxation.alpha_defaults)
        check_combination(config.relaxation, config.gradient, alphas)
        device = device_of(config.device)
        data = config.load()
        if self.estimate:
            if config.threads is not None:
                torch.set_num_threads(config.threads)
            print(estimate_search(config, data, device))
            return
        out = self.out
        if out is None:
            is_file = self.recipe.endswith(".json")
            stem = Path(self.recipe).resolve().parent.name if is_file else self.recipe
            out = free_folder(stem)
        carry_out(config, out, data, device, new=True)

    def _config(self) -> SearchSettings:
        """The recipe, or the file, with the options that were given."""
        if self.recipe.endswith(".json"):
            path = Path(self.recipe)
            cls, description = typed(path, *SEARCH_CONFIGS.values())
            config = from_json(cls, description, self.recipe).located(path.parent)
        else:
            config = recipes.search_recipe(self.recipe)
        if not config.takes_cost:
            settings_of_costs = given(self, *LIMITS, "latency", "form")
            if settings_of_costs:
                first = next(iter(settings_of_costs))
                raise ValueError(f"{flag(first)} is for searches on images")
        changes = self.replacements(
            config,
            "valid_augment",
            "warmup_epochs",
            "valid_per_class",
            "checkpoint_cells",
            "capture",
        )
        config = replace(config, **changes, **self._methods(config))
        if config.takes_cost:
            config = replace(config, cost=self._cost(config.cost))
        return config

    def _methods(self, config: SearchSettings) -> dict[str, object]:
        """Relaxation, gradient and both optimisers, where options change them."""
        if self.reinforce is not None and self.gradient is not None:
            raise ValueError("only one of --reinforce and --gradient can hold")
        changes: dict[str, object] = {}
        if self.reinforce is not None:
            changes["gradient"] = Reinforce(samples=self.reinforce)
        if self.gradient is not None:
            changes["gradient"] = method_of(ArchitectureGradient, self.gradient, "--gradient")
        alphas = config.alphas
        relaxation = config.relaxation
        if self.relaxation is not None:
            relaxation = method_of(Relaxation, self.relaxation, "--relaxation")
            changes["relaxation"] = relaxation
            if alphas is not None:
                # Betas and weight decay that fit the new one; the pace stays that of the recipe.
                fitting = replace(alphas, **relaxation.alpha_defaults)
                alphas = replace(fitting, lr=alphas.lr)
        if self.alpha_lr is not None:
            if alphas is None:
                alphas = AlphaOptimizer(**relaxation.alpha_defaults)
            alphas = replace(alphas, lr=self.alpha_lr)
        if alphas is not config.alphas:
            changes["alphas"] = alphas
        if self.lr is not None:
            weights = config.weights
            # One that is constant stays so, and none rises towards its end.
            is_constant = weights.lr == weights.lr_end
            lr_end = self.lr if is_constant else min(weights.lr_end, self.lr)
            changes["weights"] = replace(weights, lr=self.lr, lr_end=lr_end)
        return changes

    def _cost(self, before: ExpectedCost | None) -> ExpectedCost | None:
        """The recipe's cost with the table, the limit and the form that were given."""
        limits = given(self, *LIMITS)
        if len(limits) > 1:
            names = " and ".join(flag(name) for name in limits)
            raise ValueError(f"only one of {names} can hold")
        settings = given(self, "form")
        if self.latency is not None:
            settings["table"] = self.latency
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


# Like the other options, limits that were not given show what they take and no default.
SearchCommand.__annotations__.update(dict.fromkeys(LIMITS, Number))


def carry_out(
    config: SearchSettings, out: Path, data: object, device: torch.device, *, new: bool
) -> None:
    """Search in a new folder, or go on in one; then say what came out, and what may follow."""
    run = begin(out, new, config.threads, lambda: start_search(config, out, data, device))
    say(kind_of(config).notes(data))
    results = guarded(run, lambda: run_search(config, run, data, device))
    if not distributed.is_main():
        return
    for sentence in kind_of(config).sentences.of_search(config, results):
        print(sentence)
    files = ", ".join([runs.GENOTYPE, runs.PICTURE, runs.METRICS, runs.ALPHAS])
    print(f"run folder: {run.path} ({files})")
    print(f"next: gradnas train {run.path}")
