"""Searches in S2 and S4, where plain DARTS goes wrong: what their cells reach when trained.

    python benchmarks/robust_spaces.py                        # what is missing, then the table
    python benchmarks/robust_spaces.py --table                # the table of what there is
    python benchmarks/robust_spaces.py --spaces S4 --seeds 2 --share 0/2

The spaces are those of Zela et al. (ICLR 2020): S2 has skip connections and separable convolutions,
S4 separable convolutions and noise. A search on a part of CIFAR-10 at 12 pixels, a training of what
it derived, both small; what is compared is the accuracy on the 10,000 test images. The methods
stand in `proving_methods.py`. Rows are lines of JSON that are added to a file, so that a program
that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from proving_ground import add_row, missing, read_rows
from proving_methods import METHODS

from gradnas import AlphaOptimizer, ConvCell, FirstOrder
from gradnas.architectures.registry import load_architecture
from gradnas.data import Augment
from gradnas.families.recipes import search_recipe, training_recipe
from gradnas.programs.searching import prepared_search, run_search, start_search
from gradnas.programs.training import prepared_training, start_training, train
from gradnas.runs import GENOTYPE, METRICS
from gradnas.tasks.images.settings import SearchConfig, TrainConfig

HERE = Path(__file__).parent
SHARED = HERE.resolve().parents[1] / "shared" / "data"
ROWS = HERE / "robust_spaces.jsonl"
CPU = torch.device("cpu")
SPACES = ("S2", "S4")

Row = dict[str, Any]


def search_config(space: str, method: str, seed: int, source: str) -> SearchConfig:
    """DARTS, first order, with 4 channels, 3 cells, 400 + 400 images of 12 pixels, 30 epochs.

    DARTS-PT takes the last 16 of them for its 17 rounds.
    """
    config = search_recipe(f"darts-{space.lower()}-cifar10")
    assert isinstance(config, SearchConfig)
    config = replace(
        config,
        space=ConvCell.named(space, channels=4, cells=3),
        gradient=FirstOrder(),
        data=replace(config.data, source=source, image_size=12, per_class=80),
        epochs=30,
        batch_size=64,
        # 7 steps an epoch instead of 391: the alphas must take larger ones to decide anything.
        alphas=replace(config.alphas or AlphaOptimizer(), lr=2e-2),
        seed=seed,
        threads=1,
        device="cpu",
        candidates=0,
    )
    return METHODS[method].change(config)


def train_config(genotype: Any, seed: int, source: str) -> TrainConfig:
    """8 channels, 5 cells, 3,200 images at 12 pixels, 8 epochs."""
    config = training_recipe("cifar10-eval", genotype)
    assert isinstance(config, TrainConfig)
    augment = replace(config.data.augment, cutout=0)
    return replace(
        config,
        space=ConvCell(channels=8, cells=5),
        data=replace(config.data, source=source, image_size=12, per_class=320, augment=augment),
        epochs=8,
        batch_size=64,
        auxiliary=False,
        drop_path=0.0,
        seed=seed,
        threads=1,
        device="cpu",
    )


def row_of(space: str, method: str, seed: int, source: str, loaded: dict[str, Any]) -> Row:
    """Search, train what was found, and test it.

    Args:
        loaded: images that were read before, by what they are.
    """
    began = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        config = search_config(space, method, seed, source)
        data = _images(config, loaded)
        task = prepared_search(config, data, CPU)
        run = start_search(config, Path(folder) / "search", data, CPU, task)
        run_search(config, run, data, CPU, progress=False, task=task)
        searched = time.process_time() - began
        last = run.records(METRICS)[-1]
        found: Any = load_architecture(run.path / GENOTYPE)
        training = train_config(found, seed, source)
        data = _images(training, loaded)
        whole = prepared_training(training, data, CPU)
        path = Path(folder) / "train"
        trained = start_training(training, path, data, CPU, whole)
        results = train(training, trained, data, CPU, progress=False, task=whole)
    return {
        "setting": space,
        "method": method,
        "seed": seed,
        "cell": found.to_json(),
        "weightless_share": last.get("weightless_share"),
        "accuracy": round(100 * results["test_accuracy"], 2),
        "health": last.get("health"),
        "search_cpu_seconds": round(searched, 1),
        "cpu_seconds": round(time.process_time() - began, 1),
        "torch": torch.__version__,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
    }


def _images(config: SearchConfig | TrainConfig, loaded: dict[str, Any]) -> Any:
    """Of a configuration, read once."""
    key = repr(replace(config.data, augment=Augment()))
    if key not in loaded:
        loaded[key] = config.load()
    return loaded[key]


def table(rows: Sequence[Row]) -> str:
    """Spaces and methods in Markdown."""
    lines = [
        "| space | method | n | test accuracy, mean ± sd | least | weightless share, mean | "
        "CPU min, mean |",
        "|---|---|---|---|---|---|---|",
    ]
    pairs = sorted({(row["setting"], row["method"]) for row in rows})
    for space, method in pairs:
        own = [row for row in rows if (row["setting"], row["method"]) == (space, method)]
        accuracies = [row["accuracy"] for row in own]
        sd = f" ± {statistics.stdev(accuracies):.2f}" if len(own) > 1 else ""
        weightless = statistics.mean(row["weightless_share"] for row in own)
        minutes = statistics.mean(row["cpu_seconds"] for row in own) / 60
        cells = (
            space,
            method,
            str(len(own)),
            f"{statistics.mean(accuracies):.2f}{sd}",
            f"{min(accuracies):.2f}",
            f"{weightless:.2f}",
            f"{minutes:.1f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--spaces", default=",".join(SPACES))
    parser.add_argument("--methods", default="softmax,darts-pt")
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--share", default="0/1", help="i/n: every n-th of what is missing")
    parser.add_argument("--data", default=str(SHARED / "cifar10"), help="CIFAR-10, folder or name")
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--table", action="store_true", help="only print it")
    args = parser.parse_args()
    methods = args.methods.split(",")
    for name in methods:
        if name not in METHODS or METHODS[name].answer is not None:
            parser.error(f"{name!r} is no method that searches; there are {', '.join(METHODS)}")
    torch.set_num_threads(1)
    if not args.table:
        own, parts = (int(part) for part in args.share.split("/"))
        rows = read_rows(args.rows)
        loaded: dict[str, Any] = {}
        spaces = args.spaces.split(",")
        todo = [(s, *pair) for s in spaces for pair in missing(rows, methods, args.seeds, s)]
        for space, seed, method in sorted(todo, key=lambda one: one[1])[own::parts]:
            row = row_of(space, method, seed, args.data, loaded)
            add_row(args.rows, row)
            print(space, method, seed, row["accuracy"], row["cpu_seconds"], flush=True)
    print(table(read_rows(args.rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
