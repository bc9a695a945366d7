"""`gradnas latency measure | fit | show`: tables of latencies on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional, arg, subcommand

from gradnas import (
    distributed,
    runs,
)
from gradnas.architectures.registry import load_architecture
from gradnas.config import from_json, read_object
from gradnas.families import recipes
from gradnas.latency import Costs, LatencyTable, Timing, Unit, measure, time_interleaved
from gradnas.latency.entry import Entry
from gradnas.latency.fit import fit_table
from gradnas.progress import Progress
from gradnas.spaces import Supernet
from gradnas.tasks.images.settings import SearchConfig

TableFile = Annotated[Positional[Path], arg(metavar="TABLE.json", help_behavior_hint="")]
# (channels, side in pixels, classes) of sets that need not be read for this
KNOWN_IMAGES = {"digits": (1, 8, 10), "cifar10": (3, 32, 10)}


@dataclass(frozen=True, kw_only=True)
class MeasureCommand:
    """Time every distinct (operation, input shape) of a space on this device, and write a table.

    Of a finished run its architecture is timed from end to end too, beside the sum of the table.
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
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        torch.set_num_threads(self.threads)
        device = distributed.pick_device(self.device)
        timing = Timing(self.warmup, self.repeats, self.clock)
        timing.check(device)
        config, folder = self._config()
        channels, side, classes = _images(config, self.image_size)
        torch.manual_seed(0)
        supernet: Supernet = config.space.supernet(in_channels=channels, num_classes=classes)
        memory: Any = torch.channels_last if self.channels_last else torch.contiguous_format
        supernet.to(device, memory_format=memory)  # type: ignore[call-overload]
        x_BCHW = torch.randn(self.batch_size, channels, side, side, device=device).contiguous(
            memory_format=memory
        )
        view = supernet.cost_view()
        view.net.to(device, memory_format=memory)  # type: ignore[call-overload]
        settings = {
            "space": type(config.space).__name__,
            "batch_size": self.batch_size,
            "image_size": side,
            "channels_last": self.channels_last,
        }
        with Progress("latency", 1, self.warmup + self.repeats) as bar:
            table = measure(view, (x_BCHW,), timing, settings, on_round=bar.step)
        out = self.out or Path(f"latency-{device.type}.json")
        table.save(out)
        assert table.device is not None
        print(
            f"{len(table.entries)} latencies on {table.device}, batch {self.batch_size}, {side}x{side}: {out}"
        )
        costs = supernet.costs("latency", (x_BCHW,), table)
        print(
            f"the cheapest architecture of the space takes {supernet.cheapest(costs):.3f} ms by the table"
        )
        if folder is not None and (folder / runs.GENOTYPE).exists():
            units = view.survey((x_BCHW,))
            _end_to_end(folder, supernet, costs, x_BCHW, memory, timing, units)

    def _config(self) -> tuple[SearchConfig, Path | None]:
        path = Path(self.what)
        if path.is_dir():
            where = runs.Run.open(path).path / runs.CONFIG
            return from_json(SearchConfig, _search_description(where), str(where)), path
        if self.what.endswith(".json"):
            return from_json(SearchConfig, _search_description(path), self.what), None
        config = recipes.search_recipe(self.what)
        if not isinstance(config, SearchConfig):
            raise ValueError(
                f"{self.what} is a search on text; latencies are measured for searches on images"
            )
        return config, None


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
        used = {n: c for n, c in zip(predictor.names, predictor.coefficients, strict=True) if c > 0}
        print(
            f"{predictor.base_ms:.4f} ms for any operation, and for one unit of each feature (ms):"
        )
        for name, coefficient in sorted(used.items(), key=lambda item: item[0]):
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
        print(
            f"{self.table}: {len(table.entries)} latencies"
            + (f" on {table.device}" if table.device else "")
        )
        settings = {k: v for k, v in table.settings.items() if k not in ("inputs", "mode")}
        for values in (settings, table.versions):
            if values:
                print(
                    ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in values.items())
                )
        print(
            f"predictor: {table.predictor.quality if table.predictor else 'none (gradnas latency fit)'}"
        )
        ordered = sorted(table.entries.items(), key=lambda item: -item[1].ms)
        shown = Table(box=None, pad_edge=False, header_style="bold")
        for name, justify in (
            ("ms", "right"),
            ("spread", "right"),
            ("n", "right"),
            ("where first", "left"),
        ):
            shown.add_column(name, justify=justify)  # type: ignore[arg-type]
        shown.add_column("input -> output", overflow="fold")
        for key, entry in ordered[: self.rows]:
            place, shapes = _described(key, entry)
            shown.add_row(
                f"{entry.ms:.4f}", f"{entry.spread_ms:.4f}", str(entry.count), place, shapes
            )
        Console().print(shown)
        if len(ordered) > self.rows:
            print(f"... and {len(ordered) - self.rows} more (--rows {len(ordered)})")


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


def _search_description(path: Path) -> dict[str, Any]:
    description = read_object(path)
    found = description.get("type", "SearchConfig")
    if found != "SearchConfig":
        raise ValueError(f"{path} is a {found}: latencies are measured of the space of a search")
    return description


def _images(config: SearchConfig, side: int | None) -> tuple[int, int, int]:
    """Channels, side and classes of the run's images; read only where they are not known by
    name."""
    if config.data.source in KNOWN_IMAGES:
        channels, own, classes = KNOWN_IMAGES[config.data.source]
        return channels, side or config.data.image_size or own, classes
    data = config.data.load()
    return data.in_channels, side or data.image_size, data.num_classes


def _end_to_end(
    folder: Path,
    supernet: Supernet,
    costs: Costs,
    x_BCHW: torch.Tensor,
    memory: Any,
    timing: Timing,
    units: Sequence[Unit],
) -> None:
    """Time the network that a run found, beside the table's sum; in turn with the operations, so
    that it meets caches in the state in which they met them."""
    decision = load_architecture(folder / runs.GENOTYPE)
    network = supernet.derived(decision).to(x_BCHW.device, memory_format=memory).eval()  # type: ignore[call-overload]
    works = [lambda: nullcontext(lambda: network(x_BCHW)), *(unit.ready for unit in units)]
    sample = time_interleaved(works, x_BCHW.device, timing)[0]
    print(
        f"the network of {folder}: measured from end to end {sample.ms:.3f} ms (interquartile range "
        f"{sample.spread_ms:.3f}), sum of the table {supernet.cost_of(decision, costs):.3f} ms"
    )


def _described(key: str, entry: Entry) -> tuple[str, str]:
    kind, _, rest = key.partition("-input:")
    shapes, _, more = rest.partition("-output:")
    output, _, settings = more.partition("-")
    if settings.startswith("id:"):
        settings = ""
    place = entry.label.replace(".operations.", ": ") or kind
    return place, " ".join([shapes, "->", output, *settings.replace(":", " ").split("-")]).strip()
