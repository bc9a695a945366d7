"""Methods of search where the truth is known: each by seeds, beside the best of random cells.

    python benchmarks/proving_ground.py                          # what is missing, then the table
    python benchmarks/proving_ground.py --table                  # the table of what there is
    python benchmarks/proving_ground.py --guard                  # where it would have stopped
    python benchmarks/proving_ground.py --methods softmax,gates --seeds 2 --setting small
    python benchmarks/proving_ground.py --share 0/2              # one process a core
    python benchmarks/proving_ground.py --share 1/2

Every cell of NAS-Bench-201 was trained by its authors, so what a search finds is looked up. The
methods stand in `proving_methods.py`, by name; the seeds are the outer loop, so that every method
has a row soon. A row is a line of JSON that is added to a file when its search has ended: a
program that is stopped goes on where it was, and the table grows over days. Several processes share
the work by `--share`, each with one thread.

The data are not part of this repository: CIFAR-10 (`--data`) and a file of the truth (`--truth`,
see `gradnas.Truth`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from proving_methods import METHODS, SETTINGS

from gradnas import Truth
from gradnas.architectures.dense_cell import DenseCell
from gradnas.architectures.registry import load_architecture
from gradnas.programs.searching import prepared_search, run_search, start_search
from gradnas.runs import GENOTYPE, METRICS
from gradnas.search.collapse import Collapse, collapse
from gradnas.search.sharpness import LAG, WAITING, Eigenvalue, growth
from gradnas.tasks.images.settings import SearchConfig

HERE = Path(__file__).parent
SHARED = HERE.resolve().parents[1] / "shared" / "data"
ROWS = HERE / "proving_ground.jsonl"
CPU = torch.device("cpu")
SHORT_TRAININGS = (1, 10, 100)  # random cells that the table stands beside

Row = dict[str, Any]


# ---- one row -------------------------------------------------------------------------------------


def row_of(name: str, seed: int, setting: str, args: argparse.Namespace, loaded: Loaded) -> Row:
    """Search by a method with a seed, and look its cells up."""
    method = METHODS[name]
    config = replace(SETTINGS[setting](), seed=seed)
    if config.data.source == "cifar10":
        config = replace(config, data=replace(config.data, source=args.data))
    config = method.change(config)
    data = loaded.data(config)
    truth = loaded.truth
    began = time.process_time()
    tried = 0
    texts: list[str] = []  # what it would have answered after every epoch
    health: Row = {}
    if method.answer is not None:
        torch.set_num_threads(1)
        answer = method.answer(config, data)
        cell = answer.architecture
        tried = answer.tried
    else:
        cell, texts, health = _searched(config, data, method.derive)
    health["cells"] = texts
    accuracy = truth.accuracy(cell)
    operations = cell.operations  # type: ignore[attr-defined]
    return {
        "setting": setting,
        "method": name,
        "seed": seed,
        "cell": cell.to_text(),
        "accuracy": round(accuracy, 3),
        "percentile": round(truth.percentile(accuracy), 2),
        "regret": round(truth.regret(accuracy), 3),
        "collapsed": not any("conv" in operation for operation in operations),
        "curve": [round(truth.accuracy(text), 3) for text in texts],
        "health": health,
        "tried": tried,
        "cpu_seconds": round(time.process_time() - began, 1),
        "epochs": config.epochs,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[1]:.0f}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    }


def _searched(config: SearchConfig, data: Any, derive: Any) -> tuple[Any, list[str], Row]:
    """What a search answers, what it would have answered after every epoch, and its health."""
    with tempfile.TemporaryDirectory() as folder:
        task = prepared_search(config, data, CPU)
        run = start_search(config, Path(folder) / "run", data, CPU, task)
        torch.set_num_threads(1)
        run_search(config, run, data, CPU, progress=False, task=task)
        records = run.records(METRICS)
        texts = [record["genotype"] for record in records]
        found = load_architecture(run.path / GENOTYPE)
        if derive is not None:
            found = derive(task)
        known = task.search.health
        health = _health_of(records, known.sharpness.series) | {"few": list(known.few)}
    return found, texts, health


def _health_of(records: Sequence[Row], eigenvalues: Iterable[Sequence[float]]) -> Row:
    """What was said of the health of a search, first and last, and the eigenvalues.

    Finished epochs are counted.
    """
    said = [(record["epoch"] + 1, record["health"]) for record in records if "health" in record]
    found: Row = {"eigenvalues": [[epochs, round(value, 5)] for epochs, value in eigenvalues]}
    if said:
        found["first"] = list(said[0])
        found["last"] = list(said[-1])
    return found


class Loaded:
    """Data and truth, read when they are first asked for."""

    def __init__(self, path: str) -> None:
        self.truth = Truth.load(path)
        self._data: dict[str, Any] = {}

    def data(self, config: SearchConfig) -> Any:
        """The images of a configuration."""
        key = repr(replace(config.data, augment=SETTINGS["small"]().data.augment))
        if key not in self._data:
            self._data[key] = config.load()
        return self._data[key]


# ---- rows ----------------------------------------------------------------------------------------


def read_rows(path: Path) -> list[Row]:
    """The rows of a file, of each method, seed and setting the last; none where there is no file.

    Raises:
        ValueError: a line is no row.
    """
    if not path.exists():
        return []
    rows: dict[tuple[str, str, int], Row] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            key = (row["setting"], row["method"], row["seed"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is no row: {error}") from error
        rows[key] = row
    return list(rows.values())


def add_row(path: Path, row: Row) -> None:
    """One line in one write, so that several processes can add to a file."""
    line = (json.dumps(row) + "\n").encode()
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, line)
        os.fsync(handle)
    finally:
        os.close(handle)


def missing(rows: Iterable[Row], methods: Sequence[str], seeds: int, setting: str) -> list[Any]:
    """(seed, method) of what is not there yet, seed after seed."""
    there = {(row["seed"], row["method"]) for row in rows if row["setting"] == setting}
    wanted = [(seed, method) for seed in range(seeds) for method in methods]
    return [pair for pair in wanted if pair not in there]


# ---- the table -----------------------------------------------------------------------------------


def table(rows: Sequence[Row], setting: str, truth: Truth) -> str:
    """The methods of a setting in Markdown, the best first, and random cells below."""
    by_method: dict[str, list[Row]] = {}
    for row in rows:
        if row["setting"] == setting:
            by_method.setdefault(row["method"], []).append(row)
    lines = [
        "| method | n | accuracy, mean ± sd | worst | percentile, mean | collapsed | "
        "best epoch, mean | CPU min, mean | minus softmax, mean ± sd of the same seeds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    plain = {row["seed"]: row["accuracy"] for row in by_method.get("softmax", [])}
    order = sorted(by_method, key=lambda name: -_mean(by_method[name], "accuracy"))
    for name in order:
        own = by_method[name]
        accuracies = [row["accuracy"] for row in own]
        sd = f" ± {statistics.stdev(accuracies):.2f}" if len(own) > 1 else ""
        bests = [max(row["curve"]) for row in own if row["curve"]]
        cells = (
            name,
            str(len(own)),
            f"{statistics.mean(accuracies):.2f}{sd}",
            f"{min(accuracies):.2f}",
            f"{_mean(own, 'percentile'):.1f}",
            f"{sum(row['collapsed'] for row in own)} of {len(own)}",
            f"{statistics.mean(bests):.2f}" if bests else "",
            f"{_mean(own, 'cpu_seconds') / 60:.2f}",
            "" if name == "softmax" else _paired(own, plain),
        )
        lines.append(f"| {' | '.join(cells)} |")
    for n in SHORT_TRAININGS:
        random = truth.best_of_random(n)
        what = "one random cell" if n == 1 else f"best of {n} random cells by {random.by}"
        percentile = truth.percentile(random.mean)
        cells = (what, "exact", f"{random.mean:.2f} ± {random.sd:.2f}", "", f"{percentile:.1f}")
        lines.append(f"| {' | '.join(cells)} | | | | |")
    return "\n".join(lines)


def _paired(own: Sequence[Row], plain: Mapping[int, float]) -> str:
    """How much better than the plain search, seed by seed; empty of fewer than two."""
    gains = [row["accuracy"] - plain[row["seed"]] for row in own if row["seed"] in plain]
    if len(gains) < 2:
        return ""
    return f"{statistics.mean(gains):+.2f} ± {statistics.stdev(gains):.2f}"


def stopped(row: Row) -> tuple[int, int] | None:
    """Where the guard would have stopped a search, and the epochs of the decision taken then.

    A search with `guard="stop"` is the same up to there, so that nothing has to be run again; it
    measures the eigenvalue more often where that is dear, so it may stop earlier. None where it
    would have gone on to its end.
    """
    config = METHODS[row["method"]].change(SETTINGS[row["setting"]]())
    waiting = max(config.warmup_epochs, WAITING * row["epochs"])
    series = [Eigenvalue(int(epochs), value) for epochs, value in row["health"]["eigenvalues"]]
    for after in range(1, row["epochs"] + 1):
        # Measured before the first step of the epoch that begins then.
        known = [one for one in series if one.epochs < after]
        grown = growth(known, waiting)
        if grown is not None and (good := _last_good(row, grown.epochs)):
            return after, good
        found = _collapse(row, after, config.warmup_epochs)
        if found is not None:
            return after, found.epochs
    return None


def _last_good(row: Row, epochs: int) -> int:
    """The last of so many finished epochs whose decision is not as after a collapse; 0: none is.

    Where a row does not tell its cells, the last of all.
    """
    cells = row["health"].get("cells", [])
    while cells and epochs and _has_few_weights(cells[epochs - 1]):
        epochs -= 1
    return epochs


def _collapse(row: Row, after: int, warmup_epochs: int) -> Collapse | None:
    """Whether a search had collapsed by an epoch; None in rows that do not tell."""
    cells = row["health"].get("cells", [])
    if "few" not in row["health"]:
        return None
    few = [_has_few_weights(cell) for cell in cells[:after]]
    return collapse(few, 0, warmup_epochs, 0 if after == row["epochs"] else LAG)


def _has_few_weights(text: str) -> bool:
    """As health counts it: none at all (4.7% of all cells), or nothing comes through."""
    is_cut = DenseCell.parse(text).is_cut(lambda _, operation: operation == "none")
    return is_cut or "conv" not in text


def guard_table(rows: Sequence[Row], setting: str) -> str:
    """What the guard says of the searches of a setting, and what it would have ended with."""
    lines = [
        "| method | seed | at the end | first word | stopped after | decision of epoch | then |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: (row["method"], row["seed"])):
        health = row.get("health", {})
        is_told = bool(health.get("eigenvalues")) or "few" in health
        if row["setting"] != setting or not is_told or not row["curve"]:
            continue
        found = stopped(row)
        said = ("", "", "")
        if found is not None:
            after, epochs = found
            said = (str(after), str(epochs), f"{row['curve'][epochs - 1]:.2f}")
        first = str(health["first"][0]) if "first" in health else ""
        cells = (row["method"], str(row["seed"]), f"{row['accuracy']:.2f}", first, *said)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(rows: Sequence[Row], key: str) -> float:
    values = [row[key] for row in rows]
    return statistics.mean(values) if values else math.nan


# ---- the program ---------------------------------------------------------------------------------


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--setting", choices=SETTINGS, default="small")
    parser.add_argument("--methods", help="names, with commas between; all without it")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--share", default="0/1", help="i/n: every n-th of what is missing")
    parser.add_argument("--data", default=str(SHARED / "cifar10"), help="CIFAR-10, folder or name")
    parser.add_argument("--truth", default=str(SHARED / "nas-bench-201" / "cifar10.npz"))
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--table", action="store_true", help="only print it")
    parser.add_argument("--guard", action="store_true", help="only say where it would have stopped")
    parser.add_argument("--list", action="store_true", help="only say which methods there are")
    args = parser.parse_args()
    if args.methods is None:
        args.methods = list(METHODS)
    else:
        args.methods = args.methods.split(",")
        for name in args.methods:
            if name not in METHODS:
                parser.error(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    own, _, parts = args.share.partition("/")
    if not (own.isdigit() and parts.isdigit() and int(own) < int(parts)):
        parser.error(f"--share is i/n with i below n, such as 0/2, not {args.share!r}")
    args.share = (int(own), int(parts))
    return args


def main() -> int:
    args = _arguments()
    if args.list:
        for name, method in METHODS.items():
            print(f"{name:24}{method.about}")
        return 0
    try:
        rows = read_rows(args.rows)
        loaded = Loaded(args.truth)
    except ValueError as error:
        print(f"proving_ground: {error}", file=sys.stderr)
        return 2
    if args.guard:
        print(guard_table(rows, args.setting))
        return 0
    failed: list[str] = []
    if not args.table:
        own, parts = args.share
        pairs = missing(rows, args.methods, args.seeds, args.setting)[own::parts]
        for seed, name in pairs:
            try:
                row = row_of(name, seed, args.setting, args, loaded)
            except (ValueError, RuntimeError) as error:
                # The others have hours of work to do; this one has no row, and is tried again.
                failed.append(name)
                print(f"{args.setting} {name} seed {seed} FAILED: {error}", file=sys.stderr)
                continue
            add_row(args.rows, row)
            short = {key: row[key] for key in ("accuracy", "percentile", "cpu_seconds", "cell")}
            print(f"{args.setting} {name} seed {seed}: {short}", flush=True)
    print(table(read_rows(args.rows), args.setting, loaded.truth))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
