"""Where the time of an accelerated training step goes, beside limits by arithmetic and by memory.

    # DARTS_V2, C36, 8 cells, batch 32, 1 thread
    python benchmarks/train_profile.py --cells 8 --batch 32
    python benchmarks/train_profile.py --chain proxyless_cpu --batch 32

Every call of a compiled kernel is timed (CPU seconds). Its multiply-adds are those of the layers
(forward, and of backward both gradients; what backward computes a second time to save memory is not
counted) and its bytes the least that it could move: each map read or written once. The limits are
measured in the same run, before and after the steps, and the better is taken: a float32 matrix
product of 1024 x 1024, and a copy of 64 MiB. What no kernel accounts for is named by a profile of
torch's operations. Freed memory stays with the process, as in `gradnas train`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from train_step import common_options, configuration, images, trainer

from gradnas.memory import freed_memory_kept
from gradnas.spaces.blocks.kernels import Kernels

STEPS = 3


def best(work: Callable[[], Any], times: int = 12) -> float:
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def limits() -> tuple[float, float]:
    """The machine with these threads: operations and bytes per CPU second."""
    a = torch.randn(1024, 1024)
    x, y = torch.empty(1 << 24), torch.zeros(1 << 24)
    return 2 * 1024**3 / best(lambda: a @ a), 2 * 4 * (1 << 24) / best(lambda: x.copy_(y))


def work_of(name: str, arguments: tuple[Any, ...]) -> tuple[str, float, float]:
    """What a call is called, its operations (two for each multiply-add) and its least bytes."""
    if name.startswith("stage_"):
        B, H, W, I, O, S, K, D = arguments[:8]  # noqa: E741
        is_full = K > 0 and D == 0
        has_pointwise = arguments[12] is not None
        inputs = 2 * I if K == 0 and S == 2 else I
        pixels = B * ((H - 1) // S + 1) * ((W - 1) // S + 1)
        operations = 2 * pixels * (I * K * K + (inputs * O if has_pointwise else 0))
        depthwise = f"{K}x{K}{', dilated' if D == 2 else ''}" if K else ""
        if is_full:
            operations = 2 * pixels * I * K * K * O
            if name == "stage_backward":  # of the weights alone
                return (
                    f"backward, full {depthwise}",
                    operations,
                    4 * (B * H * W * I + 2 * pixels * O),
                )
            return f"forward, full {depthwise}", operations, 4 * (B * H * W * I + pixels * O)
        product = ("reduction" if inputs != I else "1x1") if has_pointwise else ""
        kind = " and ".join(part for part in (depthwise, product) if part)
        into, out = 4 * B * H * W * I, 4 * pixels * O
        if name == "stage_forward":
            return f"forward, {kind}", operations, into + out
        # Reads the input, what it gave and its gradient; writes the gradient of the input.
        return f"backward, {kind}", 2 * operations, 2 * into + 2 * out
    if name in ("combine", "gradient_sums"):
        values, terms = arguments[0] * arguments[1], arguments[3]
        kind = "sum of a node" if name == "combine" else "sums of gradients"
        return f"{kind}, {terms} terms", 4 * terms * values, 4.0 * (terms + 1) * values
    return name.replace("_", " "), 0.0, 0.0


def main(arguments: list[str]) -> None:
    parser = common_options(__doc__, batch=32, cells=8)
    parser.add_argument("--rest", type=int, default=12, help="how many of torch's operations")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with freed_memory_kept():
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """Both tables."""
    _, step = trainer(
        "accelerated", configuration(options), images(options.batch), torch.device("cpu")
    )
    for _ in range(2):  # warm-up
        step()
    first = limits()
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    work: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    call = Kernels._call

    def timed(self: Kernels, name: str, *values: Any) -> None:
        began = time.process_time()
        call(self, name, *values)
        spent = time.process_time() - began
        kind, operations, moved = work_of(name, values)
        seconds[kind] += spent / STEPS
        calls[kind] += 1
        work[kind][0] += operations / STEPS
        work[kind][1] += moved / STEPS

    Kernels._call = timed  # type: ignore[method-assign]
    began = time.process_time()
    for _ in range(STEPS):
        step()
    total = (time.process_time() - began) / STEPS
    Kernels._call = call  # type: ignore[method-assign]
    flops, bandwidth = (max(pair) for pair in zip(first, limits(), strict=True))
    print(
        f"{options.chain or options.genotype}, batch {options.batch}, {options.threads} thread(s): "
        f"{total:.3f} CPU s a step (n = {STEPS}); limits {flops / 1e9:.0f} Gop/s, "
        f"{bandwidth / 1e9:.1f} GB/s"
    )
    print(
        "| kernel | calls | CPU s | share | Gop | Gop/s | at the peak, s | GB | GB/s "
        "| at the bandwidth, s | time / larger limit |\n" + "|---" * 11 + "|"
    )
    sums = [0.0, 0.0, 0.0]
    for kind in sorted(seconds, key=lambda k: -seconds[k]):
        operations, moved = work[kind]
        spent = seconds[kind]
        least = (operations / flops, moved / bandwidth)
        sums = [a + b for a, b in zip(sums, (*least, max(least)), strict=True)]
        over = f"{spent / max(least):.1f}" if max(least) else "-"
        print(
            f"| {kind} | {calls[kind] // STEPS} | {spent:.3f} | {100 * spent / total:.0f}% | "
            f"{operations / 1e9:.1f} | {operations / spent / 1e9:.0f} | {least[0]:.3f} | "
            f"{moved / 1e9:.2f} | {moved / spent / 1e9:.1f} | {least[1]:.3f} | {over} |"
        )
    rest = total - sum(seconds.values())
    print(f"| torch and Python | | {rest:.3f} | {100 * rest / total:.0f}% | | | | | | | |")
    print(
        f"| sum | {sum(calls.values()) // STEPS} | {total:.3f} | 100% | | | {sums[0]:.3f} | | "
        f"| {sums[1]:.3f} | larger limits: {sums[2]:.3f} s |\n"
    )
    with profile(activities=[ProfilerActivity.CPU]) as found:
        step()
    print("| torch's operations, by a profile of one step | calls | CPU s |\n|---|---|---|")
    rows = [
        row
        for row in found.key_averages()
        if row.key not in ("_Run", "_RunBackward", "_Cell", "_CellBackward")
    ]
    rows.sort(key=lambda row: -row.self_cpu_time_total)
    for row in rows[: options.rest]:
        print(f"| {row.key} | {row.count} | {row.self_cpu_time_total / 1e6:.3f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
