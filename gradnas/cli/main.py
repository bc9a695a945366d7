"""The command line: `gradnas search | resume | train | evaluate | generate | draw | report | export
| ...`.

Exit codes: 0 done, 1 the run failed, 2 wrong usage or input (one sentence on stderr), 130
interrupted and saved.
"""

from __future__ import annotations

import contextlib
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from tyro.conf import Positional, arg, subcommand

from gradnas import (
    distributed,
    precision,
    runs,
)
from gradnas.architectures.chain import Chain
from gradnas.architectures.genotype import Genotype
from gradnas.architectures.registry import load_architecture, published
from gradnas.cli.latency import LatencyCommand
from gradnas.config import from_json, read_object
from gradnas.families import family_of, family_of_space, recipes
from gradnas.gradients import Reinforce
from gradnas.objectives.cost import LIMITS, CostLimits, ExpectedCost
from gradnas.programs.estimating import estimate_search
from gradnas.programs.reporting import write_report
from gradnas.programs.searching import run_search, start_search
from gradnas.programs.trained import export_trained, trained_run
from gradnas.programs.training import start_training, train
from gradnas.search.rewards import check_samples
from gradnas.tasks import SEARCH_CONFIGS, TRAIN_CONFIGS, kind_of
from gradnas.tasks.base import SearchSettings, TrainSettings

# Options that were not given are None and leave the recipe's value; help shows what they take, and
# no default.
Whole = Annotated[int | None, arg(metavar="N", help_behavior_hint="")]
Number = Annotated[float | None, arg(metavar="X", help_behavior_hint="")]
Table = Annotated[Path | None, arg(metavar="TABLE", help_behavior_hint="")]
Share = Annotated[float | None, arg(metavar="SHARE", help_behavior_hint="")]
Text = Annotated[str | None, arg(metavar="TEXT", help_behavior_hint="")]
Device = Annotated[str | None, arg(metavar="DEVICE", help_behavior_hint="")]
Folder = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")]
Source = Annotated[str | None, arg(metavar="DATA", help_behavior_hint="")]
Flag = Annotated[bool | None, arg(help_behavior_hint="")]
Precision = Annotated[precision.Precision | None, arg(help_behavior_hint="")]
Run = Annotated[Path, arg(metavar="RUN", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class _Run:
    """Options of everything that makes a run folder."""

    data: Source = None
    """digits, cifar10, owner/name on the hub, or a folder of parquet files or of images by class;
    for text pydoc, one file, a folder with train.txt, valid.txt and test.txt, or owner/name on the
    hub; by default the recipe's, or that of the search."""
    out: Folder = None
    """Run folder; by default the next free one in runs/, for the training of a search RUN/train."""
    epochs: Whole = None
    """Length of the run."""
    batch_size: Whole = None
    """Images in a batch, or texts read side by side (of a search: in each of its two batches)."""
    seed: Whole = None
    """Of everything random."""
    device: Device = None
    """cpu, cuda, cuda:N or auto."""
    precision: Precision = None
    """bf16 runs under autocast; tf32 allows TF32 on CUDA."""
    image_size: Whole = None
    """Side in pixels to which images are brought."""
    workers: Whole = None
    """Loader processes, for sets too large for memory."""
    threads: Whole = None
    """CPU threads."""
    per_class: Whole = None
    """Train on so many images of every class alone (to try a setting out)."""
    channels: Whole = None
    """Channels of the first cell."""
    cells: Whole = None
    """Number of cells."""
    width_mult: Share = None
    """Factor of the widths of a chain."""
    level: Annotated[Literal["word", "char"] | None, arg(help_behavior_hint="")] = None
    """Of text: tokens are words or characters."""
    hidden: Whole = None
    """Of text: units of the recurrent cell, and size of the embedding."""
    nodes: Whole = None
    """Nodes of a searched cell."""
    max_steps: Whole = None
    """Stop after so many steps (to try a setting out)."""

    def given(self, config: Any, *more: str) -> dict[str, Any]:
        """Replacements for fields of a configuration, its data and its space by the options that
        were given."""
        common = (
            "epochs",
            "batch_size",
            "seed",
            "device",
            "precision",
            "threads",
            "max_steps",
            *more,
        )
        data = self._of("image_size", "workers", "per_class", "level")
        space = self._of("channels", "cells", "width_mult", "nodes", "hidden")
        for part, given in (
            (config, self._of(*common)),
            (config.data, data),
            (config.space, space),
        ):
            known = {field.name for field in fields(part)}
            for name in given:
                if name not in known:
                    kind = type(part).__name__
                    raise ValueError(
                        f"--{name.replace('_', '-')} is no setting of {kind}, which this run is of"
                    )
        if self.data is not None:
            data["source"] = self.data
        if "hidden" in space:
            space["embedding"] = space["hidden"]
        return {
            **self._of(*common),
            **({"data": replace(config.data, **data)} if data else {}),
            **({"space": replace(config.space, **space)} if space else {}),
        }

    def _of(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclass(frozen=True, kw_only=True)
class _Search(_Run):
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
    reinforce: Whole = None
    """Learn the alphas from the losses of so many sampled networks a step, not by a gradient
    through the network."""
    latency: Table = None
    """Table of latencies (gradnas latency measure, or of a phone), for --budget-ms or
    --target-ms."""


@dataclass(frozen=True, kw_only=True)
class SearchCommand(CostLimits, _Search):
    """Search for an architecture: by recipe (see `gradnas recipes`) or from the config.json of a
    run."""

    form: Annotated[Literal["mul#log", "add#linear"] | None, arg(help_behavior_hint="")] = None
    """How a target enters the loss: as a factor, or as a term."""
    estimate: Flag = None
    """Only say how much memory and time the search would take here, from a few steps; makes no run
    folder."""

    def run(self) -> None:
        config = self._config()
        check_samples(config.relaxation, config.gradient)  # before a run folder is made
        device = _device(config.device)
        data = config.load()
        if self.estimate:
            if config.threads is not None:
                torch.set_num_threads(config.threads)
            print(estimate_search(config, data, device))
            return
        stem = (
            Path(self.recipe).resolve().parent.name
            if self.recipe.endswith(".json")
            else self.recipe
        )
        _search(config, self.out or _free_folder(stem), data, device, new=True)

    def _config(self) -> Any:
        config: Any
        if self.recipe.endswith(".json"):
            kind, description = _typed(Path(self.recipe), *SEARCH_CONFIGS.values())
            config = from_json(kind, description, self.recipe).located(Path(self.recipe).parent)
        else:
            config = recipes.search_recipe(self.recipe)
        settings = (
            "valid_augment",
            "warmup_epochs",
            "valid_per_class",
            "checkpoint_cells",
            "capture",
        )
        if not config.takes_cost:
            costs = self._of(*LIMITS, "latency", "form")
            if costs:
                raise ValueError(
                    f"--{next(iter(costs)).replace('_', '-')} is for searches on images"
                )
            return replace(config, **self.given(config, *settings), **self._gradient())
        config = replace(config, **self.given(config, *settings), **self._gradient())
        return replace(config, cost=self._cost(config.cost))

    def _gradient(self) -> dict[str, Any]:
        return {} if self.reinforce is None else {"gradient": Reinforce(samples=self.reinforce)}

    def _cost(self, before: ExpectedCost | None) -> ExpectedCost | None:
        """The recipe's cost with the table, the limit and the form that were given."""
        limits = self._of(*LIMITS)
        if len(limits) > 1:
            raise ValueError(
                f"only one of --{' and --'.join(name.replace('_', '-') for name in limits)} can hold"
            )
        given: dict[str, Any] = {
            **self._of("form"),
            **({"table": self.latency} if self.latency is not None else {}),
        }
        if before is None and not limits:
            if given:
                raise ValueError(
                    "--latency and --form need a limit: --budget-ms or --target-ms, for example"
                )
            return None
        cost = (
            ExpectedCost(**given, **limits)
            if before is None
            else replace(before, **given, **_instead(limits))
        )
        cost.latency_table()  # refused now if it cannot be read
        return cost


# Like the other options, limits that were not given show what they take and no default.
SearchCommand.__annotations__.update(dict.fromkeys(LIMITS, Number))


def _instead(limits: dict[str, Any]) -> dict[str, Any]:
    """One limit in the place of another; nothing where none is given."""
    return {**dict.fromkeys(LIMITS), **limits} if limits else {}


@dataclass(frozen=True, kw_only=True)
class TrainCommand(_Run):
    """Train a derived network from scratch and evaluate it once on the test images, or on the test
    text."""

    what: Annotated[Positional[str], arg(metavar="RUN|GENOTYPE.json|NAME", help_behavior_hint="")]
    """Run folder of a search, genotype.json, name of a published cell, or the config.json of a
    training."""
    recipe: Text = None
    """Training recipe; by default the one that belongs to the kind of architecture and the data it
    was found on."""
    auxiliary: Flag = None
    """Whether to train with an auxiliary head."""
    valid_fraction: Share = None
    """Share of the training images held out and reported on each epoch."""
    compile: Annotated[
        Literal["no", "default", "reduce-overhead"] | None, arg(help_behavior_hint="")
    ] = None
    """torch.compile: default, or reduce-overhead for CUDA graphs; minutes at the start."""
    random_cells: Whole = None
    """Train so many random cells in the same way, for comparison."""

    def run(self) -> None:
        config, out = self._config()
        config = replace(
            config, **self.given(config, "auxiliary", "valid_fraction", "random_cells", "compile")
        )
        with torch.device("meta"):  # an unknown operation is refused before data are read
            space: Any = config.space
            space.network(config.genotype)
        device = _device(config.device)
        _train(config, self.out or out, config.load(), device, new=True)

    def _config(self) -> tuple[Any, Path]:
        path = Path(self.what)
        if path.is_file() and read_object(path).get("type") in TRAIN_CONFIGS:
            if self.recipe is not None:
                raise ValueError(
                    f"{path} is a whole configuration: it cannot be combined with --recipe {self.recipe}"
                )
            kind, description = _typed(path, *TRAIN_CONFIGS.values())
            config = from_json(kind, description, self.what)
            return config, _free_folder(f"{path.resolve().parent.name}-again")
        genotype, searched = _architecture(self.what)
        source = searched.get("data", {}).get("source")
        name = self.recipe or recipes.training_after(genotype, self.what, source)
        config: Any = recipes.training_recipe(name, genotype)
        config = replace(
            config, space=recipes.training_space(config, genotype, self.what, searched.get("space"))
        )
        if not name.endswith("imagenet-eval"):
            config = replace(config, data=recipes.training_data(config, searched.get("data", {})))
        return config, path / "train" if path.is_dir() else _free_folder(f"{path.stem}-{name}")


@dataclass(frozen=True)
class ResumeCommand:
    """Go on with a run that was stopped, from its last checkpoint."""

    folder: Positional[Run]
    """Run folder of a search or of a training."""
    device: Device = None
    """Another device than before (the result is then no longer the same to the bit)."""

    def run(self) -> None:
        run = runs.Run.open(self.folder)
        if run.status().get("status") == "finished":
            raise ValueError(f"{self.folder} is finished: there is nothing to go on with")
        path = run.path / runs.CONFIG
        kind, description = _typed(path, *SEARCH_CONFIGS.values(), *TRAIN_CONFIGS.values())
        config: Any = from_json(kind, description, str(path))
        device = _device(self.device or config.device)
        go_on = _search if kind in SEARCH_CONFIGS.values() else _train
        go_on(config, run.path, config.load(), device, new=False)


@dataclass(frozen=True)
class EvaluateCommand:
    """Evaluate a trained network on the test images, or on the test text."""

    folder: Positional[Run]
    """Run folder of a training, or of a search that was trained."""
    data: Source = None
    """Other images than those it was trained on (of the same shape and classes), or another
    text."""
    device: Device = None
    """cpu, cuda, cuda:N or auto."""

    def run(self) -> None:
        run, config = trained_run(self.folder)
        device = _device(self.device or config.device)
        print(kind_of(config).evaluate(run, config, self.data, device))


@dataclass(frozen=True)
class GenerateCommand:
    """Let a trained language model go on with a text."""

    folder: Positional[Run]
    """Run folder of a training on text, or of a search that was trained."""
    prompt: Annotated[str, arg(metavar="TEXT")] = ""
    """Text to go on with; words must be of the vocabulary. Empty: a new line."""
    tokens: Annotated[int, arg(metavar="N")] = 100
    """Words (or characters) to write."""
    temperature: Annotated[float, arg(metavar="T")] = 1.0
    """Below 1 keeps to the probable, 0 takes the most probable alone."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """The same seed writes the same text."""

    def run(self) -> None:
        run, config = trained_run(self.folder)
        kind = kind_of(config)
        print(kind.generate(run, config, self.prompt, self.tokens, self.temperature, self.seed))


@dataclass(frozen=True)
class DrawCommand:
    """Draw cells as an SVG, PNG or PDF picture."""

    what: Annotated[Positional[str], arg(metavar="RUN|GENOTYPE.json|NAME", help_behavior_hint="")]
    """Run folder, genotype.json, or the name of a published cell."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")]
    """Picture to write."""

    def run(self) -> None:
        genotype, searched = _architecture(self.what)
        title = self.what if not Path(self.what).exists() else None
        space = recipes.space_of(genotype, self.what, searched.get("space"))
        print(family_of(genotype).picture(genotype, self.out, title=title, space=space))


@dataclass(frozen=True)
class ReportCommand:
    """Write report.html, one self-contained page about a run."""

    folder: Positional[Run]
    """Run folder of a search or of a training."""

    def run(self) -> None:
        print(write_report(runs.Run.open(self.folder)))


@dataclass(frozen=True)
class ExportCommand:
    """Export a trained network as ONNX, as a torch program, or (of images) as readable source."""

    folder: Positional[Run]
    """Run folder of a training, or of a search that was trained."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")]
    """model.onnx, model.pt2 or model.py."""

    def run(self) -> None:
        for path in export_trained(runs.Run.open(self.folder), self.out):
            print(path)


@dataclass(frozen=True, kw_only=True)
class DiscoverCommand:
    """Find a short law in a table: print the Pareto front, write report, LaTeX and Python."""

    what: Annotated[
        Positional[str | None], arg(metavar="DATA.csv|CONFIG.json", help_behavior_hint="")
    ] = None
    """CSV file with a header line, or the config.json of a discovery."""
    target: Text = None
    """Column to explain."""
    features: Annotated[
        tuple[str, ...] | None, arg(metavar="COLUMN ...", help_behavior_hint="")
    ] = None
    """Columns to explain it with; by default all others."""
    weights: Text = None
    """Column of sample weights."""
    example: Text = None
    """Generated table instead of a file: weber-fechner, stevens, michaelis-menten, learning,
    damped-oscillation, gravitation, psychometric or decay-counts."""
    rows: Whole = None
    """Rows of the example."""
    noise: Share = None
    """Noise of the example, a share of the target's standard deviation."""
    output: Annotated[
        Literal["real", "probability", "counts", "class"] | None, arg(help_behavior_hint="")
    ] = None
    """What the target is."""
    primitives: Annotated[
        tuple[str, ...] | None, arg(metavar="WORD ...", help_behavior_hint="")
    ] = None
    """Functions that the law may use, such as linear linear_exp linear_ln."""
    nodes: Whole = None
    """Largest number of intermediate nodes."""
    effort: Share = None
    """Multiplies the budget."""
    max_complexity: Whole = None
    """Choose among laws of at most this complexity (constants + operations)."""
    plain_darts: Flag = None
    """DARTS as published for equations, for comparison."""
    out: Folder = None
    """Folder to make; by default the next free one in runs/."""
    seed: Whole = None
    """Of everything random."""

    def run(self) -> None:
        from gradnas.programs import (
            discovering as discovery,
        )  # sympy and pandas take a second to import

        names = (
            "target",
            "features",
            "weights",
            "example",
            "rows",
            "noise",
            "output",
            "primitives",
            "nodes",
            "effort",
        )
        names += ("max_complexity", "plain_darts", "seed")
        given = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        if self.what is not None and self.what.endswith(".json"):
            _, description = _typed(Path(self.what), discovery.DiscoverConfig)
            config = replace(from_json(discovery.DiscoverConfig, description, self.what), **given)
        else:
            config = discovery.DiscoverConfig(data=self.what, **given)
        stem = config.example or Path(str(config.data)).stem
        out = self.out or _free_folder(f"discover-{stem}")
        discovery.check_free(out)
        config, found, seconds = discovery.discover(config)
        print("\n".join(discovery.front_lines(found)))
        discovery.save_discovery(config, found, seconds, out)
        print(
            f"{seconds:.1f} s; {runs.REPORT}, {discovery.LAW_TEX}, {discovery.LAW_PY}, {runs.RESULTS} in {out}"
        )


@dataclass(frozen=True)
class RecipesCommand:
    """List the recipes and the published cells."""

    def run(self) -> None:
        for title, table in (("searches", recipes.SEARCHES), ("trainings", recipes.TRAININGS)):
            print(f"{title}:")
            for name, recipe in table.items():
                lines = textwrap.wrap(recipes.about(recipe), 49)
                print(
                    "\n".join(
                        f"  {word:28}{line}"
                        for word, line in zip([name] + [""] * 9, lines, strict=False)
                    )
                )
        cells = textwrap.fill(
            ", ".join(Genotype.names()), 76, initial_indent="  ", subsequent_indent="  "
        )
        print(f"published cells:\n{cells}")
        print(f"published chains:\n  {', '.join(Chain.names())}")


Command = (
    Annotated[SearchCommand, subcommand("search")]
    | Annotated[ResumeCommand, subcommand("resume")]
    | Annotated[TrainCommand, subcommand("train")]
    | Annotated[EvaluateCommand, subcommand("evaluate")]
    | Annotated[GenerateCommand, subcommand("generate")]
    | Annotated[DrawCommand, subcommand("draw")]
    | Annotated[ReportCommand, subcommand("report")]
    | Annotated[ExportCommand, subcommand("export")]
    | Annotated[LatencyCommand, subcommand("latency")]
    | Annotated[DiscoverCommand, subcommand("discover")]
    | Annotated[RecipesCommand, subcommand("recipes")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    description = "Gradient-based neural architecture search."
    form: Any = Command  # tyro takes a union of types, which type checkers do not take for a class
    markers = (tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone)
    command = tyro.cli(
        form, prog="gradnas", description=description, args=arguments, config=markers
    )
    try:
        command.run()
    except runs.Interrupted:
        return 130
    except ValueError as error:
        if os.environ.get("GRADNAS_TRACEBACK"):
            raise
        print(f"gradnas: {error}", file=sys.stderr)
        return 2
    except torch.OutOfMemoryError as error:
        print(
            f"gradnas: out of memory ({str(error).splitlines()[0]}); try a smaller --batch-size",
            file=sys.stderr,
        )
        return 1
    except KeyboardInterrupt:
        print("gradnas: stopped before anything was saved", file=sys.stderr)
        return 130
    finally:
        distributed.stop()
    return 0


# ---- parts of the commands -----------------------------------------------------------------------


def _search(
    config: SearchSettings, out: Path, data: Any, device: torch.device, *, new: bool
) -> None:
    run = _begin(out, new, config.threads, lambda: start_search(config, out, data, device))
    results = _guarded(run, lambda: run_search(config, run, data, device))
    if not distributed.is_main():
        return
    for sentence in kind_of(config).search_sentences(config, results):
        print(sentence)
    print(
        f"run folder: {run.path} ({runs.GENOTYPE}, {runs.PICTURE}, {runs.METRICS}, {runs.ALPHAS})"
    )
    print(f"next: gradnas train {run.path}")


def _train(config: TrainSettings, out: Path, data: Any, device: torch.device, *, new: bool) -> None:
    run = _begin(out, new, config.threads, lambda: start_training(config, out, data, device))
    results = _guarded(run, lambda: train(config, run, data, device))
    if not distributed.is_main():
        return
    kind = kind_of(config)
    noun = f"{family_of_space(config.space).noun}s"
    for sentence in kind.train_sentences(results, noun):
        print(sentence)
    print(f"run folder: {run.path} ({runs.WEIGHTS}, {runs.RESULTS}, {runs.METRICS})")
    for command in kind.next_commands(run):
        print(f"next: {command}")


def _begin(out: Path, new: bool, threads: int | None, start: Any) -> runs.Run:
    if threads is not None:
        torch.set_num_threads(threads)
    if new and distributed.is_main():
        start()
    distributed.barrier()
    run = runs.Run.open(out)
    if not new and distributed.is_main():
        # The same number of threads as before, or sums would differ in their last bits.
        torch.set_num_threads(read_object(run.path / runs.ENVIRONMENT)["threads"])
        run.set_status("running")
    return run


def _guarded(run: runs.Run, work: Any) -> dict[str, Any]:
    """Do the work; when it stops, leave word of it in the run folder and on the terminal."""
    again = f"gradnas resume {run.path}"
    try:
        return work()
    except runs.Interrupted:
        if distributed.is_main():
            run.set_status("interrupted")
        print(f"gradnas: stopped and saved; go on with: {again}", file=sys.stderr)
        raise
    except ValueError as error:
        # Where the disk is full this cannot be written either, and the first error says so already.
        with contextlib.suppress(ValueError):
            run.set_status("failed", message=str(error))
        raise ValueError(
            f"{error}; the last good state is kept in {run.path}; go on with: {again}"
        ) from error


def _device(name: str) -> torch.device:
    device = distributed.pick_device(name)
    if device.type == "cuda" and "LOCAL_RANK" in os.environ and device.index is None:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.start(device)
    return device


def _typed(path: Path, *wanted: Any) -> tuple[Any, dict[str, Any]]:
    """A configuration file's class, one of those wanted (the first where the file does not say),
    and its object."""
    description = read_object(path)
    kinds = {kind.__name__: kind for kind in wanted}
    found = str(description.get("type", next(iter(kinds))))
    if found not in kinds:
        commands = {"DiscoverConfig": "discover"}
        commands |= dict.fromkeys(SEARCH_CONFIGS, "search")
        commands |= dict.fromkeys(TRAIN_CONFIGS, "train")
        hint = f"; use: gradnas {commands[found]} {path}" if found in commands else ""
        raise ValueError(f"{path} is a {found}, not a {' or '.join(kinds)}{hint}")
    return kinds[found], description


def _architecture(what: str) -> tuple[Any, dict[str, Any]]:
    """Cells or a chain from a run folder, a file or a name, and the configuration of the run."""
    path = Path(what)
    if path.is_dir():
        run = runs.Run.open(path)
        if not (path / runs.GENOTYPE).exists():
            raise ValueError(
                f"{path} has no {runs.GENOTYPE} yet: the search is not finished (gradnas resume {path})"
            )
        return load_architecture(path / runs.GENOTYPE), read_object(run.path / runs.CONFIG)
    if path.suffix == ".json" or path.is_file():
        return load_architecture(path), {}
    try:
        return published(what), {}
    except ValueError as error:
        raise ValueError(f"{what!r} is no run folder, no file and {error}") from error


def _free_folder(stem: str) -> Path:
    """The first of runs/STEM-1, runs/STEM-2, ... that does not exist."""
    number = 1
    while (folder := Path("runs") / f"{stem}-{number}").exists():
        number += 1
    return folder


if __name__ == "__main__":
    sys.exit(main())
