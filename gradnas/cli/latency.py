"""`gradnas latency measure | fit | show`: tables of latencies on the command line."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from gradnas import distributed, runs
from gradnas.architectures.registry import load_architecture
from gradnas.cli.begin import say
from gradnas.cli.commands.latency import FitCommand, MeasureCommand, ShowCommand
from gradnas.cli.lines import line
from gradnas.cli.methods import import_modules
from gradnas.cli.own_task import is_task_file, read_task, with_given
from gradnas.config import from_json, read_object, visible
from gradnas.families import recipes
from gradnas.latency import (
    LATENCY,
    Costs,
    CostView,
    Entry,
    LatencyTable,
    Timing,
    measure,
)
from gradnas.latency.check import check_sums
from gradnas.latency.fit import fit_table
from gradnas.progress import Progress
from gradnas.spaces.affordable import cost_of, least_cost
from gradnas.tasks import SEARCH_CONFIGS, kind_of
from gradnas.tasks.base import SearchSettings
from gradnas.tasks.sentences import NextStep
from gradnas.tasks.timed import Timed, Wanted
from gradnas.tasks.your_task.settings import TaskSearchConfig


def measure_space(command: MeasureCommand) -> None:
    import_modules(command.imports)
    torch.set_num_threads(command.threads)
    device = distributed.pick_device(command.device)
    timing = Timing(command.warmup, command.repeats, command.clock)
    timing.check(device)

    config = _config(command)
    torch.manual_seed(0)
    wanted = Wanted(command.batch_size, command.image_size, command.channels_last, device)
    timed = config.timed(wanted)
    supernet = timed.supernet
    _place(timed, supernet, device)
    view = supernet.cost_view().called_with(timed.call.named)
    _place(timed, view.net, device)

    with Progress("latency", 1, command.warmup + command.repeats) as bar:
        inputs = timed.call.inputs
        table = measure(view, inputs, timing, timed.settings, on_round=bar.step)
    out = command.out or Path(f"latency-{device.type}.json")
    table.save(out)
    line(
        f"{len(table.entries)} latencies on {table.device}, batch {timed.settings['batch_size']}, "
        f"{timed.about}: {out}"
    )
    costs = supernet.costs(LATENCY.name, timed.call.inputs, table, timed.call.named)
    cheapest = least_cost(supernet, costs)
    line(
        f"the cheapest architecture of the space takes {cheapest:.3f} ms{_for_how_many(table)} by "
        "the table"
    )

    _check(command, timed, view, costs, timing, device)
    line(_next_step(command, out, cheapest))


def _next_step(command: MeasureCommand, table: Path, cheapest: float) -> NextStep:
    what = Path(command.what)
    repeated = what / runs.CONFIG if what.is_dir() else what
    search = f"gradnas search {shlex.quote(str(repeated))} --latency {shlex.quote(str(table))}"
    return NextStep(f"{search} --budget-ms MS", f"(MS: {cheapest:.3f} or more)")


def _check(
    command: MeasureCommand,
    timed: Timed,
    view: CostView,
    costs: Costs,
    timing: Timing,
    device: torch.device,
) -> None:
    """Time whole networks beside their sums: of a run the one it found, and three others."""
    supernet = timed.supernet
    decisions = _spread_decisions(timed, costs)
    folder = Path(command.what)
    if (folder / runs.GENOTYPE).exists():
        label = f"the network of {folder}"
        decisions = {label: load_architecture(folder / runs.GENOTYPE), **decisions}
    networks = []
    sums_ms = []
    for decision in decisions.values():
        network = supernet.derived(decision)
        _place(timed, network, device)
        networks.append(network.eval())
        sums_ms.append(cost_of(supernet, decision, costs))
    call = timed.call
    checked = check_sums(view, call.inputs, networks, sums_ms, device, timing, call.named)
    line("check: whole networks, measured beside the operations")
    for label, one in zip(decisions, checked, strict=True):
        line(f"  {label}: {one}")
    is_off = any(not 0.8 <= one.ratio <= 1.25 for one in checked)
    if is_off:
        line(
            "  some sums are off by more than a fifth: measure with more --repeats or "
            "--clock cpu, and compare only latencies that differ by more than that"
        )


def _place(timed: Timed, network: nn.Module, device: torch.device) -> None:
    if timed.channels_last:
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    else:
        network.to(device)


def _config(command: MeasureCommand) -> SearchSettings:
    path = Path(command.what)
    if is_task_file(command.what):
        return TaskSearchConfig.of(read_task(command.what))
    if path.is_dir() or command.what.endswith(".json"):
        file = runs.Run.open(path).path / runs.CONFIG if path.is_dir() else path
        config, notes = with_given(_search_of(file), command.task)
        say(notes)
        return config
    config = recipes.search_recipe(command.what)
    if not config.takes_cost:
        raise ValueError(
            f"{command.what} is a search on {kind_of(config).name}; "
            "latencies are measured for searches on images and on tasks of your own"
        )
    return config


def _search_of(path: Path) -> SearchSettings:
    """The configuration in this file; ValueError if it is of no search with a cost."""
    description = read_object(path)
    first, *_ = SEARCH_CONFIGS
    name = str(description.get("type", first))
    kind = SEARCH_CONFIGS.get(name)
    if kind is None or not kind.takes_cost:
        raise ValueError(f"{path} is a {name}: latencies are measured of the space of a search")
    return from_json(kind, description, str(path)).located(path.parent)


def _spread_decisions(timed: Timed, costs: Costs) -> dict[str, Any]:
    """By the table the cheapest, the middle and the dearest of some random architectures."""
    generator = torch.Generator().manual_seed(0)
    drawn = [timed.random_decision(generator) for _ in range(21)]
    drawn.sort(key=lambda decision: cost_of(timed.supernet, decision, costs))
    return {
        "a cheap random one": drawn[0],
        "a middling random one": drawn[len(drawn) // 2],
        "a dear random one": drawn[-1],
    }


def fit(command: FitCommand) -> None:
    if command.out is None and command.table.suffix != ".json":
        raise ValueError(
            f"{command.table} is YAML, and gradnas writes JSON: say where to with --out TABLE.json"
        )
    fitted = fit_table(LatencyTable.load(command.table), command.seed)
    predictor = fitted.predictor
    assert predictor is not None
    fitted.save(command.out or command.table)
    line(f"{predictor.quality}: {command.out or command.table}")
    line(f"{predictor.base_ms:.4f} ms for any operation, and for one unit of each feature (ms):")
    for name, coefficient in sorted(zip(predictor.names, predictor.coefficients, strict=True)):
        if coefficient > 0:
            line(f"  {name:16}{coefficient:.3g}")


def show(command: ShowCommand) -> None:
    table = LatencyTable.load(command.table)
    device = f" on {table.device}" if table.device else ""
    line(f"{command.table}: {len(table.entries)} latencies{device}")
    settings = dict(table.settings)
    settings.pop("inputs", None)  # each entry says its own
    settings.pop("mode", None)
    for values in (settings, table.versions):
        if values:
            line(_listed(values))
    quality = "none (gradnas latency fit)"
    if table.predictor:
        quality = table.predictor.quality
    line(f"predictor: {quality}")

    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column(f"ms{_for_how_many(table)}", justify="right")
    shown.add_column("spread", justify="right")
    shown.add_column("n", justify="right")
    shown.add_column("where first", justify="left")
    shown.add_column("input -> output", overflow="fold")
    longest_first = sorted(table.entries.items(), key=lambda item: -item[1].ms)
    for key, entry in longest_first[: command.rows]:
        place, shapes = _described(key, entry)
        ms = f"{entry.ms:.4f}"
        spread = f"{entry.spread_ms:.4f}"
        shown.add_row(ms, spread, str(entry.count), visible(place), visible(shapes))
    console = Console()
    with console.capture() as captured:
        console.print(shown)
    # By ourselves: where the reader of a pipe went away, rich would end with another exit code.
    sys.stdout.write(captured.get())
    number = len(longest_first)
    if number > command.rows:
        line(f"... and {number - command.rows} more (--rows {number})")


def _for_how_many(table: LatencyTable) -> str:
    """Behind milliseconds: for how many examples they are, where the table says so."""
    batch = table.batch_size
    if batch is None:
        return ""
    what = "image" if "image_size" in table.settings else "example"
    return f" for {batch} {what}{'' if batch == 1 else 's'}"


def _listed(values: Mapping[str, object]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())


def _described(key: str, entry: Entry) -> tuple[str, str]:
    """Where an entry was met first, and its shapes with the settings of a phone's key."""
    kind, _, rest = key.partition("-input:")
    inputs, _, rest = rest.partition("-output:")
    outputs, _, settings = rest.partition("-")
    if settings.startswith("id:"):  # a digest says nothing to people
        settings = ""
    place = entry.label.replace(".operations.", ": ") or kind
    words = [inputs, "->", outputs, *settings.replace(":", " ").split("-")]
    return place, " ".join(words).strip()
