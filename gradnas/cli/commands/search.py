"""`gradnas search`: what it takes."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradnas.cli.options import (
    Flag,
    Imports,
    Method,
    Methods,
    Number,
    RunOptions,
    Table,
    TaskFile,
    Truth,
    Whole,
)
from gradnas.settings.formats import Guard
from gradnas.settings.limits import CostLimits


@dataclass(frozen=True, kw_only=True)
class _OptionsBeforeCosts(RunOptions):
    """Options of a search, before those of its cost."""

    valid_augment: Flag = None
    """Augment the alphas' images too, as the original code does."""
    warmup_epochs: Whole = None
    """Epochs at the start in which the alphas wait."""
    valid_per_class: Whole = None
    """Hold out so many images of every class for the alphas."""
    candidates: Whole = None
    """Measure so many of the likeliest architectures at the end, within a tenth of the search's
    work (else 8, within 4.5%), to see what was decided; 0 for no verdict."""
    guard: Annotated[Guard | None, arg(help_behavior_hint="")] = None
    """Where the search becomes unhealthy: warn, stop with the last decision that was good, or off,
    which measures nothing that costs time."""
    checkpoint_cells: Flag = None
    """Compute every cell again in backward: less memory, more time."""
    capture: Flag = None
    """Replay the steps from a CUDA graph; on CUDA devices."""
    alpha_lr: Number = None
    """Learning rate of the alphas."""
    relaxation: Method = None
    """From alphas to mixing weights: softmax, sigmoid, dirichlet, gumbel, binary-gates or
    partial-channels, with fields as in gumbel:hard=false or partial-channels:k=2,inner=dirichlet,
    or module:Class of your own."""
    gradient: Method = None
    """How the alphas learn: first-order, unrolled, implicit or reinforce, with fields as in
    unrolled:mode=exact, or module:Class of your own."""
    terms: Methods = None
    """Terms of the alphas alone, added to their loss: beta-decay (with softmax), zero-one (with
    sigmoid) or dirichlet-kl, with fields as in beta-decay:end=25; none for none."""
    stabilizers: Methods = None
    """What keeps the weights from letting the search collapse: perturbed-alphas, auxiliary-skip or
    operation-freezing, with fields as in perturbed-alphas:end=0.2; none for none."""
    selection: Method = None
    """How the decision is had in the end: strongest; candidate-selection, which measures some
    likely and some random ones with the weights of the search; score-selection, which scores such
    ones without a training; or perturbation-selection, which leaves out one operation after the
    other in the last epochs; with fields as in candidate-selection:random=32 or
    perturbation-selection:interval=1,learn_alphas=false."""
    reinforce: Whole = None
    """Learn the alphas from the losses of so many sampled networks a step, not by a gradient
    through the network."""
    latency: Table = None
    """Table of latencies (gradnas latency measure, or of a phone), for --budget-ms or
    --target-ms."""
    cost_image_size: Whole = None
    """Side in pixels of the images that a budget or a target is for (else that of the data)."""


@dataclass(frozen=True, kw_only=True)
class SearchOptions(CostLimits, _OptionsBeforeCosts):
    """What changes the configuration of a search, whoever makes searches."""

    form: Annotated[Literal["mul#log", "add#linear"] | None, arg(help_behavior_hint="")] = None
    """How a target enters the loss: as a factor, or as a term."""


# Like the other options, limits that were not given show what they take and no default.
SearchOptions.__annotations__.update({limit.name: Number for limit in fields(CostLimits)})


@dataclass(frozen=True, kw_only=True)
class SearchCommand(SearchOptions):
    """Search for an architecture: by recipe (see `gradnas recipes`) or from the config.json of a
    run."""

    work = "gradnas.cli.search:search"

    recipe: Annotated[
        Positional[str], arg(metavar="RECIPE|CONFIG.json|MY_TASK.py", help_behavior_hint="")
    ]
    """Recipe, path of a config.json, or file with a task of your own, which is run (MY_TASK.py:NAME
    where it is not called task)."""
    task: TaskFile = None
    """Of a config.json of such a search: the file."""
    imports: Imports = None
    """Modules with classes of your own that a CONFIG.json names."""
    estimate: Flag = None
    """Only say how much memory and time the search would take here, from a few steps; makes no run
    folder."""
    truth: Truth = None
    """What each architecture of the space reaches when it is trained (.npz or .csv, see the guide):
    what is found is looked up there, after every epoch too."""
