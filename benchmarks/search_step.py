"""Time and memory of one search step: the plain network by edge and the fused cell.

    # plain (NCHW), plain in channels-last, fused; batch 64, C16, 8 cells, 32x32, 1 thread: a
    # quarter of an hour
    python benchmarks/search_step.py
    python benchmarks/search_step.py --batch 16 --cells 3 --repeats 5 --orders first
    # demo
    python benchmarks/search_step.py --channels 8 --cells 3 --nodes 3 --side 8 --repeats 9 \\
        --orders first

The variants take turns in one process, so that a busy machine slows all of them alike; ratios are
of medians. Freed memory stays with the process for all variants, as in `gradnas search`; with
`--return-memory` the C library gives it back, as in a loop of one's own. Memory is measured in a
process of its own for each variant: `saved` is what autograd keeps at its peak, `process` the
highest resident size, less what it was before the first step.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas import ConvCell, FirstOrder, Search, Unrolled
from gradnas.memory import MIB, SavedTensors, freed_memory_kept, measured_peak_mib
from gradnas.spaces.cells.kernels import kernels

VARIANTS = ("plain", "plain channels-last", "fused")
ORDERS = {"first": FirstOrder(), "second": Unrolled()}


def loss_on(x_BCHW: Tensor, y_B: Tensor) -> Callable[[nn.Module], Tensor]:
    """The loss of a network on one batch."""
    return lambda net: F.cross_entropy(net(x_BCHW), y_B)


def stepper(variant: str, order: str, options: argparse.Namespace) -> Callable[[], None]:
    """A function that makes one search step."""
    torch.manual_seed(0)
    space = ConvCell(channels=options.channels, cells=options.cells, nodes=options.nodes)
    layout = torch.contiguous_format if variant == "plain" else torch.channels_last
    supernet = space.supernet(fused=variant == "fused").to(memory_format=layout)
    search = Search(supernet, gradient=ORDERS[order])
    shape = (options.batch, 3, options.side, options.side)
    images = [torch.randn(shape).contiguous(memory_format=layout) for _ in range(2)]
    targets = [torch.randint(10, (options.batch,)) for _ in range(2)]
    losses = [loss_on(x, y) for x, y in zip(images, targets, strict=True)]
    return lambda: search.step(*losses) and None


def measure_times(options: argparse.Namespace) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(order, variant) -> (CPU seconds, wall seconds) of every step after the warm-up."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for order in options.orders:
        steps = {variant: stepper(variant, order, options) for variant in options.variants}
        for repeat in range(options.warmup + options.repeats):
            for variant, step in steps.items():
                gc.collect()
                cpu, wall = time.process_time(), time.perf_counter()
                step()
                seconds = time.process_time() - cpu, time.perf_counter() - wall
                if repeat >= options.warmup:
                    found.setdefault((order, variant), []).append(seconds)
                label = (
                    f"{order} order, {variant}, {'warm-up' if repeat < options.warmup else 'step'}"
                )
                print(
                    f"  {label}: {seconds[0]:.2f} s CPU, {seconds[1]:.2f} s wall",
                    file=sys.stderr,
                    flush=True,
                )
    return found


def measure_memory(variant: str, order: str, options: argparse.Namespace) -> dict[str, float]:
    """Peak memory of a step, MiB; to be run in a process of its own."""
    step = stepper(variant, order, options)
    before = measured_peak_mib(torch.device("cpu"))
    with SavedTensors() as saved:
        step()
    peak = measured_peak_mib(torch.device("cpu"))
    return {"saved_mib": saved.peak_bytes / MIB, "process_mib": peak - before}


def in_subprocess(variant: str, order: str, arguments: list[str]) -> dict[str, float]:
    """`measure_memory` in a fresh process."""
    command = [sys.executable, __file__, *arguments, "--memory-of", variant, order]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument(
        "--side", type=int, default=32, help="height and width of the images, pixels"
    )
    parser.add_argument("--repeats", type=int, default=3, help="measured steps of each variant")
    parser.add_argument(
        "--warmup", type=int, default=1, help="steps before that, at the same shape"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--orders", nargs="+", choices=list(ORDERS), default=list(ORDERS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--return-memory", action="store_true")
    parser.add_argument("--no-memory", action="store_true", help="times only")
    parser.add_argument(
        "--memory-of", nargs=2, metavar=("VARIANT", "ORDER"), help=argparse.SUPPRESS
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(measure_memory(*options.memory_of, options)))
        return
    memories = {}
    # First: a child process inherits the highest resident size of its parent.
    if not options.no_memory:
        memories = {
            (o, v): in_subprocess(v, o, arguments) for o in options.orders for v in options.variants
        }
    with nullcontext() if options.return_memory else freed_memory_kept():
        times = measure_times(options)
    print(
        f"batch {options.batch}, C{options.channels}, {options.cells} cells, "
        f"{options.side}x{options.side}, "
        f"{options.threads} thread(s), torch {torch.__version__}, freed memory "
        f"{'returned' if options.return_memory else 'kept'}, compiled kernels: "
        f"{'yes' if kernels(torch.zeros(1, 16, 4, 4)) else 'no'}; seconds are min / median / max "
        "of "
        f"n = {options.repeats}"
    )
    header = (
        "order",
        "variant",
        "CPU s",
        "wall s",
        "CPU ratio",
        "saved MiB",
        "process MiB",
        "memory ratio",
    )
    header = header[:5] if options.no_memory else header
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for order in options.orders:
        reference, first_memory = None, None
        for variant in options.variants:
            cpu, wall = zip(*times[order, variant], strict=True)
            middle = statistics.median(cpu)
            reference = middle if reference is None else reference
            spread = [
                f"{min(t):.2f} / {statistics.median(t):.2f} / {max(t):.2f}" for t in (cpu, wall)
            ]
            cells = [order, variant, *spread, f"{reference / middle:.2f}x"]
            if not options.no_memory:
                memory = memories[order, variant]
                first_memory = memory if first_memory is None else first_memory
                ratios = [
                    first_memory[k] / max(1.0, memory[k]) for k in ("saved_mib", "process_mib")
                ]
                cells += [f"{memory['saved_mib']:.0f}", f"{memory['process_mib']:.0f}"]
                cells.append(f"{ratios[0]:.2f}x, {ratios[1]:.2f}x")
            print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
