"""Time of a search step of NAS-Bench-201's supernet: edge by edge, by source on torch, by kernels.

    python benchmarks/bench_201_step.py                          # the three settings, n = 15
    python benchmarks/bench_201_step.py --settings paper --repeats 3
    python benchmarks/bench_201_step.py --orders first second --settings tiny

A step is one of the weights and one of the alphas, a batch of 64 each, with images and weights in
channels-last, as `gradnas search` has them. The variants take turns in one process, so that a busy
machine slows all of them alike; CPU seconds, ratios of medians.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas import FirstOrder, NasBench201, Search, Unrolled
from gradnas.memory import freed_memory_kept
from gradnas.spaces.nas_bench_201.shared_cell import SharedCell

SETTINGS = {"tiny": (4, 1, 16), "small": (8, 1, 16), "paper": (16, 5, 32)}  # channels, cells, side
VARIANTS = ("edges", "torch", "kernels")
ORDERS = {"first": FirstOrder(), "second": Unrolled()}
BATCH = 64


def loss_on(x_BCHW: Tensor, y_B: Tensor) -> Callable[[nn.Module], Tensor]:
    """The loss of a network on one batch."""
    return lambda net: F.cross_entropy(net(x_BCHW), y_B)


def stepper(variant: str, setting: str, order: str) -> Callable[[], None]:
    """A function that makes one search step."""
    channels, cells, side = SETTINGS[setting]
    torch.manual_seed(0)
    space = NasBench201(channels=channels, cells=cells)
    supernet = space.supernet(fused=variant != "edges").to(memory_format=torch.channels_last)
    search = Search(supernet, gradient=ORDERS[order])
    losses = []
    for _ in range(2):
        x_BCHW = torch.randn(BATCH, 3, side, side).contiguous(memory_format=torch.channels_last)
        losses.append(loss_on(x_BCHW, torch.randint(10, (BATCH,))))

    def step() -> None:
        by_torch = patch.object(SharedCell, "_by_kernels", lambda *_: None)
        with by_torch if variant == "torch" else nullcontext():
            search.step(*losses)

    return step


def measure(setting: str, order: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """CPU seconds of every step after the warm-up, by variant."""
    steps = {variant: stepper(variant, setting, order) for variant in options.variants}
    found: dict[str, list[float]] = {variant: [] for variant in steps}
    for repeat in range(options.warmup + options.repeats):
        for variant, step in steps.items():
            begin = time.process_time()
            step()
            if repeat >= options.warmup:
                found[variant].append(time.process_time() - begin)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--settings", nargs="+", choices=list(SETTINGS), default=list(SETTINGS))
    parser.add_argument("--orders", nargs="+", choices=list(ORDERS), default=["first"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=["torch", "kernels"])
    parser.add_argument("--repeats", type=int, default=15, help="measured steps of each variant")
    parser.add_argument("--warmup", type=int, default=2, help="steps before that")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"torch {torch.__version__}, {options.threads} thread(s), n = {options.repeats}")
    print(
        "| setting | order | variant | CPU s, min / median / max | ratio |\n|---|---|---|---|---|"
    )
    with freed_memory_kept():
        for setting in options.settings:
            for order in options.orders:
                first = None
                for variant, times in measure(setting, order, options).items():
                    middle = statistics.median(times)
                    first = middle if first is None else first
                    spread = f"{min(times):.3f} / {middle:.3f} / {max(times):.3f}"
                    row = (setting, order, variant, spread, f"{first / middle:.2f}")
                    print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
