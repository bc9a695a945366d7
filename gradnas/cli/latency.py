"""`gradnas latency measure | fit | show`: tables of latencies on the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from tyro.conf import Positional, arg, subcommand

from gradnas import distributed, runs
from gradnas.architectures.registry import load_architecture
from gradnas.config import from_json, read_object
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
from gradnas.spaces import ImageSpace, Supernet
from gradnas.spaces.affordable import cost_of, least_cost
from gradnas.tasks import SEARCH_CONFIGS, kind_of
from gradnas.tasks.base import SearchSettings

TableFile = Annotated[Positional[Path], arg(metavar="TABLE.json", help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class MeasureCommand:
    """Time every distinct (operation, input shape) of a space on this device, and write a table.

    At the end three random networks of the space, and of a finished run the one it found, are timed
    from end to end beside the sums of the table.
    """

    what: Annotated[Positional[str], arg(metavar="RECIPE|CONFIG.json|RUN", help_behavior_hint="")]
    """Whose space: a search recipe, the config.json of a search, or its run folder."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")] = None
    """Table to write; by default latency-DEVICE.json."""
    device: Annotated[str, arg(metavar="DEVICE")] = "cpu"
    """cpu, cuda, cuda:N or auto."""
    threads: Annotated[int, arg(metavar="N")] = 1
    """CPU threads."""
    batch_size: Annotated[int, arg(metavar="N")] = 1
    """Images in a call."""
    image_size: Annotated[int | None, arg(metavar="N", help_behavior_hint="")] = None
    """Side in pixels; by default that of the data."""
    warmup: Annotated[int, arg(metavar="N")] = 10
    """Rounds that are thrown away."""
    repeats: Annotated[int, arg(metavar="N")] = 50
    """Rounds that count; every round calls every operation once."""
    clock: Literal["wall", "cpu"] = "wall"
    """cpu counts CPU time, which other programs disturb less; for one CPU thread."""
    channels_last: bool = True
    """Memory format of images and weights; gradnas trains and evaluates in this one."""

    def run(self) -> None:
        for name in ("threads", "batch_size", "image_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        torch.set_num_threads(self.threads)
        device = distributed.pick_device(self.device)
        timing = Timing(self.warmup, self.repeats, self.clock)
        timing.check(device)

        config = self._config()
        sizes = config.image_sizes(self.image_size)
        torch.manual_seed(0)
        space = config.image_space()
        supernet = space.supernet(in_channels=sizes.channels, num_classes=sizes.classes)
        x_BCHW = torch.randn(self.batch_size, sizes.channels, sizes.side, sizes.side, device=device)
        x_BCHW = x_BCHW.contiguous(memory_format=self._memory_format)
        self._place(supernet, device)
        view = supernet.cost_view()
        self._place(view.net, device)

        settings = {
            "space": type(space).__name__,
            "batch_size": self.batch_size,
            "image_size": sizes.side,
            "channels_last": self.channels_last,
        }
        with Progress("latency", 1, self.warmup + self.repeats) as bar:
            table = measure(view, (x_BCHW,), timing, settings, on_round=bar.step)
        out = self.out or Path(f"latency-{device.type}.json")
        table.save(out)
        print(
            f"{len(table.entries)} latencies on {table.device}, batch {self.batch_size}, "
            f"{sizes.side}x{sizes.side}: {out}"
        )
        costs = supernet.costs(LATENCY.name, (x_BCHW,), table)
        cheapest = least_cost(supernet, costs)
        print(f"the cheapest architecture of the space takes {cheapest:.3f} ms by the table")

        self._check(space, supernet, view, x_BCHW, costs, timing)

    def _check(
        self,
        space: ImageSpace[Any],
        supernet: Supernet[Any],
        view: CostView,
        x_BCHW: Tensor,
        costs: Costs,
        timing: Timing,
    ) -> None:
        """Time whole networks beside their sums: of a run the one it found, and three others."""
        decisions = _spread_decisions(space, supernet, costs)
        folder = Path(self.what)
        if (folder / runs.GENOTYPE).exists():
            label = f"the network of {folder}"
            decisions = {label: load_architecture(folder / runs.GENOTYPE), **decisions}
        networks = []
        sums_ms = []
        for decision in decisions.values():
            network = supernet.derived(decision)
            self._place(network, x_BCHW.device)
            networks.append(network.eval())
            sums_ms.append(cost_of(supernet, decision, costs))
        checked = check_sums(view, (x_BCHW,), networks, sums_ms, x_BCHW.device, timing)
        print("check: whole networks, measured beside the operations")
        for label, one in zip(decisions, checked, strict=True):
            print(f"  {label}: {one}")
        is_off = any(not 0.8 <= one.ratio <= 1.25 for one in checked)
        if is_off:
            print(
                "  some sums are off by more than a fifth: measure with more --repeats or "
                "--clock cpu, and compare only latencies that differ by more than that"
            )

    @property
    def _memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def _place(self, network: nn.Module, device: torch.device) -> None:
        network.to(device, memory_format=self._memory_format)  # type: ignore[call-overload]

    def _config(self) -> SearchSettings:
        path = Path(self.what)
        if path.is_dir():
            return _search_of(runs.Run.open(path).path / runs.CONFIG)
        if self.what.endswith(".json"):
            return _search_of(path)
        config = recipes.search_recipe(self.what)
        if not config.takes_cost:
            raise ValueError(
                f"{self.what} is a search on {kind_of(config).name}; "
                "latencies are measured for searches on images"
            )
        return config


def _search_of(path: Path) -> SearchSettings:
    """The configuration in this file; ValueError if it is of no search with a cost."""
    description = read_object(path)
    name = description.get("type", "SearchConfig")
    kind = SEARCH_CONFIGS.get(name)
    if kind is None or not kind.takes_cost:
        raise ValueError(f"{path} is a {name}: latencies are measured of the space of a search")
    return from_json(kind, description, str(path)).located(path.parent)


def _spread_decisions(
    space: ImageSpace[Any], supernet: Supernet[Any], costs: Costs
) -> dict[str, Any]:
    """By the table the cheapest, the middle and the dearest of some random architectures."""
    generator = torch.Generator().manual_seed(0)
    drawn = [space.random_decision(generator) for _ in range(21)]
    drawn.sort(key=lambda decision: cost_of(supernet, decision, costs))
    return {
        "a cheap random one": drawn[0],
        "a middling random one": drawn[len(drawn) // 2],
        "a dear random one": drawn[-1],
    }


@dataclass(frozen=True)
class FitCommand:
    """Fit a predictor on a measured table, for operations that it lacks, and keep it in the
    table."""

    table: TableFile
    """Table from gradnas latency measure, or of a phone."""
    out: Annotated[Path | None, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")] = None
    """Where to write the table with its predictor; by default back into TABLE.json."""
    seed: Annotated[int, arg(metavar="N")] = 0
    """Of the division into fifths, each of which is predicted from the other four."""

    def run(self) -> None:
        if self.out is None and self.table.suffix != ".json":
            raise ValueError(
                f"{self.table} is YAML, and gradnas writes JSON: say where to with --out TABLE.json"
            )
        fitted = fit_table(LatencyTable.load(self.table), self.seed)
        predictor = fitted.predictor
        assert predictor is not None
        fitted.save(self.out or self.table)
        print(f"{predictor.quality}: {self.out or self.table}")
        print(
            f"{predictor.base_ms:.4f} ms for any operation, and for one unit of each feature (ms):"
        )
        for name, coefficient in sorted(zip(predictor.names, predictor.coefficients, strict=True)):
            if coefficient > 0:
                print(f"  {name:16}{coefficient:.3g}")


@dataclass(frozen=True)
class ShowCommand:
    """Print a table of latencies, the longest first."""

    table: TableFile
    """Table of gradnas, or of a phone (JSON or YAML)."""
    rows: Annotated[int, arg(metavar="N")] = 40
    """At most so many rows."""

    def run(self) -> None:
        table = LatencyTable.load(self.table)
        device = f" on {table.device}" if table.device else ""
        print(f"{self.table}: {len(table.entries)} latencies{device}")
        settings = dict(table.settings)
        settings.pop("inputs", None)  # each entry says its own
        settings.pop("mode", None)
        for values in (settings, table.versions):
            if values:
                print(_listed(values))
        quality = "none (gradnas latency fit)"
        if table.predictor:
            quality = table.predictor.quality
        print(f"predictor: {quality}")

        shown = Table(box=None, pad_edge=False, header_style="bold")
        shown.add_column("ms", justify="right")
        shown.add_column("spread", justify="right")
        shown.add_column("n", justify="right")
        shown.add_column("where first", justify="left")
        shown.add_column("input -> output", overflow="fold")
        longest_first = sorted(table.entries.items(), key=lambda item: -item[1].ms)
        for key, entry in longest_first[: self.rows]:
            place, shapes = _described(key, entry)
            ms = f"{entry.ms:.4f}"
            spread = f"{entry.spread_ms:.4f}"
            shown.add_row(ms, spread, str(entry.count), place, shapes)
        Console().print(shown)
        number = len(longest_first)
        if number > self.rows:
            print(f"... and {number - self.rows} more (--rows {number})")


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


Action = (
    Annotated[MeasureCommand, subcommand("measure")]
    | Annotated[FitCommand, subcommand("fit")]
    | Annotated[ShowCommand, subcommand("show")]
)


@dataclass(frozen=True)
class LatencyCommand:
    """Measure, fit or show latencies of operations."""

    action: Action

    def run(self) -> None:
        self.action.run()
