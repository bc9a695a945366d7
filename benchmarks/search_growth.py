"""How time and memory of a search step grow with batch, channels and cells.

    # a table, fitted exponents and a picture: a quarter of an hour on one core
    python benchmarks/search_growth.py --out benchmarks/search_growth.svg
    python benchmarks/search_growth.py --orders first --rounds 1

One size varies at a time around batch 64, 16 channels, 8 cells. Every point is a process of its own
(so its peak memory is its own), and the points take turns over the rounds. The exponent p of `y ~
size^p` is the slope of a least-squares line through the logarithms; time is the median over rounds
of CPU seconds (of wall seconds on CUDA).
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas import ConvCell, FirstOrder, Search, Unrolled
from gradnas.memory import MIB, SavedTensors, measured_peak_mib

BASE = {"batch": 64, "channels": 16, "cells": 8}
SIZES = {"batch": (16, 32, 64, 128), "channels": (8, 16, 32), "cells": (5, 8, 14)}
ORDERS = {"first": FirstOrder(), "second": Unrolled()}
MEASURES = {
    "seconds": "seconds a step",
    "saved_mib": "MiB kept by autograd",
    "process_mib": "MiB of the process",
}


def loss_on(x_BCHW: Tensor, y_B: Tensor) -> Callable[[nn.Module], Tensor]:
    """The loss of a network on one batch."""
    return lambda net: F.cross_entropy(net(x_BCHW), y_B)


def measure(order: str, sizes: dict[str, int], threads: int, name: str) -> dict[str, float]:
    """One step after a warm-up step of the same shape."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    device = torch.device(name)
    supernet = ConvCell(channels=sizes["channels"], cells=sizes["cells"]).supernet(
        in_channels=3, num_classes=10
    )
    search = Search(supernet.to(device, memory_format=torch.channels_last), gradient=ORDERS[order])  # type: ignore[call-overload]
    images = [torch.randn(sizes["batch"], 3, 32, 32, device=device) for _ in range(2)]
    images = [x.contiguous(memory_format=torch.channels_last) for x in images]
    targets = [torch.randint(10, (sizes["batch"],), device=device) for _ in range(2)]
    losses = [loss_on(x, y) for x, y in zip(images, targets, strict=True)]
    before = measured_peak_mib(device)
    with SavedTensors() as saved:
        search.step(*losses)
    cpu, wall = time.process_time(), time.perf_counter()
    search.step(*losses)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.perf_counter() - wall if device.type == "cuda" else time.process_time() - cpu
    peak = measured_peak_mib(device) - (0.0 if device.type == "cuda" else before)
    return {"seconds": seconds, "saved_mib": saved.peak_bytes / MIB, "process_mib": peak}


def exponent(sizes: list[int], values: list[float]) -> float:
    """Slope of the least-squares line through (log size, log value)."""
    x, y = [math.log(s) for s in sizes], [math.log(v) for v in values]
    x_mean, y_mean = statistics.fmean(x), statistics.fmean(y)
    return sum((a - x_mean) * (b - y_mean) for a, b in zip(x, y, strict=True)) / sum(
        (a - x_mean) ** 2 for a in x
    )


def plot(
    found: dict[tuple[str, str, int], dict[str, float]], orders: list[str], path: Path
) -> None:
    """One panel for each size and measure, logarithmic axes, the exponents in the legends."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    measures = {k: MEASURES[k] for k in ("seconds", "saved_mib")}
    figure, axes = plt.subplots(len(measures), len(SIZES), figsize=(10, 5.6), layout="constrained")
    for row, (measure_name, label) in enumerate(measures.items()):
        for column, (size_name, sizes) in enumerate(SIZES.items()):
            axis = axes[row][column]
            for order in orders:
                values = [found[order, size_name, size][measure_name] for size in sizes]
                power = exponent(list(sizes), values)
                axis.loglog(
                    sizes, values, "o-", label=f"{order} order: {size_name}$^{{{power:.2f}}}$"
                )
            axis.set_xticks(sizes, [str(size) for size in sizes])
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.yaxis.set_major_formatter(ScalarFormatter())
            axis.yaxis.set_minor_formatter(NullFormatter())
            axis.margins(y=0.2)
            axis.set_xlabel(size_name)
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8, frameon=False)
            if column == 0:
                axis.set_ylabel(label)
    figure.savefig(path)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--orders", nargs="+", choices=list(ORDERS), default=list(ORDERS))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="picture (SVG, PNG or PDF)")
    parser.add_argument("--point", nargs=2, metavar=("ORDER", "SIZES"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.point:
        print(
            json.dumps(
                measure(
                    options.point[0], json.loads(options.point[1]), options.threads, options.device
                )
            )
        )
        return
    points = {
        (o, name, size): {**BASE, name: size}
        for o in options.orders
        for name in SIZES
        for size in SIZES[name]
    }
    distinct = {(o, json.dumps(sizes)): [] for (o, _, _), sizes in points.items()}
    for turn in range(options.rounds):
        for (order, sizes), measured in distinct.items():
            shared = ["--threads", str(options.threads), "--device", options.device]
            command = [sys.executable, __file__, *shared, "--point", order, sizes]
            found = json.loads(
                subprocess.run(command, check=True, capture_output=True, text=True).stdout
            )
            measured.append(found)
            print(
                f"  round {turn + 1}, {order} order, {sizes}: {found}", file=sys.stderr, flush=True
            )
    medians = {
        key: {
            m: statistics.median(d[m] for d in distinct[key[0], json.dumps(sizes)])
            for m in MEASURES
        }
        for key, sizes in points.items()
    }
    print(
        f"{options.device}, {options.threads} thread(s), torch {torch.__version__}, 32x32 images, "
        f"around {BASE}; "
        f"median (spread) of n = {options.rounds}\n"
    )
    header = (
        "order",
        "size",
        "values",
        "s a step",
        "exponent",
        "MiB kept",
        "exponent",
        "MiB process",
        "exponent",
    )
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for order in options.orders:
        for name, sizes in SIZES.items():
            cells = [order, name, ", ".join(map(str, sizes))]
            for m in MEASURES:
                values = [medians[order, name, size][m] for size in sizes]
                shown = [f"{v:.2f}" if m == "seconds" else f"{v:.0f}" for v in values]
                if m == "seconds":
                    all_runs = [
                        [d[m] for d in distinct[order, json.dumps(points[order, name, size])]]
                        for size in sizes
                    ]
                    shown = [
                        f"{s} ({max(r) - min(r):.2f})" for s, r in zip(shown, all_runs, strict=True)
                    ]
                cells += [", ".join(shown), f"{exponent(list(sizes), values):.2f}"]
            print("| " + " | ".join(cells) + " |")
    if options.out is not None:
        plot(medians, options.orders, options.out)


if __name__ == "__main__":
    main(sys.argv[1:])
