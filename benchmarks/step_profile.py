"""Where the time of a fused step goes, beside what arithmetic and memory would take at best.

    # batch 64, C16, 8 cells, first order, 1 thread
    python benchmarks/step_profile.py

Every compiled kernel is timed (CPU seconds) and its multiply-adds and least traffic are counted
from the shapes: each map read or written once. The limits are measured here too: a float32 matrix
product of 512 x 512, and a copy of 64 MiB. What no kernel accounts for is torch's (stem,
classifier, small algebra) and Python's.
"""

from __future__ import annotations

import argparse
import inspect
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas import ConvCell, FirstOrder, Search, Unrolled
from gradnas.memory import freed_memory_kept
from gradnas.spaces.cells.kernels import Kernels, kernels
from gradnas.spaces.cells.source_kernels import SourceKernels

ORDERS = {"first": FirstOrder(), "second": Unrolled()}


def sizes(name: str, arguments: tuple[Any, ...], found: Any) -> tuple[float, float]:
    """Operations (two for each multiply-add) and bytes of one call."""
    tensors = [
        t
        for a in arguments
        for t in (a if isinstance(a, (list, tuple)) else [a])
        if isinstance(t, Tensor)
    ]
    # Not the weights of depthwise convolutions.
    maps = [t for t in tensors if t.dim() == 4 and t.shape[1] > 1]
    outputs = [
        t for t in (found if isinstance(found, (list, tuple)) else [found]) if isinstance(t, Tensor)
    ]
    flat = [
        t
        for o in (found if isinstance(found, (list, tuple)) else [])
        if isinstance(o, list)
        for t in o
        if isinstance(t, Tensor)
    ]
    moved = sum(t.numel() * t.element_size() for t in [*maps, *outputs, *flat])
    operations = 0.0
    if name in ("depthwise", "depthwise_backward"):
        for weight in arguments[1]:
            out = arguments[0].numel() / arguments[3] ** 2
            operations += (2 if name == "depthwise" else 4) * out * weight.shape[2] ** 2
    elif name in ("leave", "leave_backward"):
        operations, more = of_source(name, arguments)
        moved += more
    elif name == "enter_backward":
        grad, maps, others = arguments
        operations = 2 * grad.numel() * (len(maps) * grad.shape[1] + len(others))
    elif name == "sum_products":
        like = found
        pixels = like.numel() / like.shape[1]
        scaled = len(arguments[2])
        operations = 2 * pixels * like.shape[1] * (sum(x.shape[1] for x in arguments[0]) + scaled)
    elif name == "cross":
        operations = 2 * arguments[0].numel() * arguments[1].shape[1]
    elif name == "covariance":
        operations = 2 * arguments[0].numel() * arguments[0].shape[1]
    else:  # sums, moments, pools: a few operations for each value
        operations = {"pools": 18, "pools_backward": 27}.get(name, 3) * arguments[0].numel()
    return operations, moved


def of_source(name: str, arguments: tuple[Any, ...]) -> tuple[float, float]:
    """Operations of all that leaves a source, and bytes of the maps that `sizes` does not see."""
    x, convolutions, stride = arguments[:3]
    out, channels = x.numel() / stride**2, x.shape[1]
    operations, more = 0.0, 0.0
    for c in convolutions:
        first = 2 * out * c.depthwise.shape[2] ** 2
        second = 0 if c.second is None else 2 * out * c.second.shape[2] ** 2
        product = 2 * out * channels
        is_separable = c.second is not None
        if name == "leave":
            operations += first + second + product * (2 if is_separable else 1)  # with covariance
            continue
        operations += first + second + product * (3 if is_separable else 2)
        if arguments[8]:  # with weights; the first convolution of a separable one is run again
            operations += first + second + (first + product if is_separable else 0)
        # What is between the halves is written and read.
        more += 2 * 4 * out if is_separable else 0
    if name == "leave_backward":
        nodes = {e.grad_BCHW.data_ptr() for e in arguments[6]}
        more += 4 * out * len(nodes)
    return operations, more


def limits() -> tuple[float, float]:
    """The machine with these threads: operations and bytes per second."""
    a = torch.randn(512, 512)
    x, y = torch.empty(1 << 24), torch.zeros(1 << 24)

    def best(work: Callable[[], Any]) -> float:
        times = []
        for _ in range(12):
            began = time.process_time()
            work()
            times.append(time.process_time() - began)
        return min(times)

    return 2 * 512**3 / best(lambda: a @ a), 2 * 4 * (1 << 24) / best(lambda: x.copy_(y))


def loss_on(x_BCHW: Tensor, y_B: Tensor) -> Callable[[nn.Module], Tensor]:
    """The loss of a network on one batch."""
    return lambda net: F.cross_entropy(net(x_BCHW), y_B)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--order", choices=list(ORDERS), default="first")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with freed_memory_kept():
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """The table."""
    if kernels(torch.zeros(1, 16, 4, 4)) is None:
        raise SystemExit("there are no compiled kernels here (no C++ compiler?)")
    torch.manual_seed(0)
    supernet: Any = ConvCell(channels=options.channels, cells=options.cells).supernet()
    search = Search(supernet.to(memory_format=torch.channels_last), gradient=ORDERS[options.order])
    batches = [
        (
            torch.randn(options.batch, 3, 32, 32).contiguous(memory_format=torch.channels_last),
            torch.randint(10, (options.batch,)),
        )
        for _ in range(2)
    ]
    losses = [loss_on(x, y) for x, y in batches]
    for _ in range(2):  # warm-up
        search.step(*losses)
    seconds: dict[str, float] = defaultdict(float)
    calls: dict[str, int] = defaultdict(int)
    work: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])

    def timed(name: str, method: Any) -> Any:
        signature = inspect.signature(method)

        def call(self: Any, *positional: Any, **named: Any) -> Any:
            began = time.process_time()
            found = method(self, *positional, **named)
            seconds[name] += time.process_time() - began
            calls[name] += 1
            bound = signature.bind(self, *positional, **named)
            bound.apply_defaults()
            for k, amount in enumerate(sizes(name, bound.args[1:], found)):
                work[name][k] += amount
            return found

        return call

    names = (
        "depthwise",
        "depthwise_backward",
        "sum_products",
        "cross",
        "covariance",
        "sums",
        "moments",
        "pools",
    )
    for name in (*names, "pools_backward"):
        setattr(Kernels, name, timed(name, getattr(Kernels, name)))
    for name in ("leave", "leave_backward", "enter_backward"):
        setattr(SourceKernels, name, timed(name, getattr(SourceKernels, name)))
    began = time.process_time()
    search.step(*losses)
    total = time.process_time() - began
    flops, bandwidth = limits()
    print(
        f"{options.order} order, batch {options.batch}, C{options.channels}, {options.cells} "
        f"cells, {options.threads} "
        f"thread(s): {total:.2f} CPU s a step; limits {flops / 1e9:.0f} Gop/s, "
        f"{bandwidth / 1e9:.1f} GB/s"
    )
    print(
        "| kernel | calls | CPU s | share | Gop | at the peak, s | GB | at the bandwidth, s |\n"
        + "|---" * 8
        + "|"
    )
    limit = [0.0, 0.0]
    for name in sorted(seconds, key=lambda n: -seconds[n]):
        operations, moved = work[name]
        least = (operations / flops, moved / bandwidth)
        limit = [a + b for a, b in zip(limit, least, strict=True)]
        print(
            f"| {name} | {calls[name]} | {seconds[name]:.2f} | {100 * seconds[name] / total:.0f}% "
            "| "
            f"{operations / 1e9:.1f} | {least[0]:.2f} | {moved / 1e9:.1f} | {least[1]:.2f} |"
        )
    rest = total - sum(seconds.values())
    print(f"| torch and Python | | {rest:.2f} | {100 * rest / total:.0f}% | | | | |")
    print(
        f"| sum | {sum(calls.values())} | {total:.2f} | 100% | | {limit[0]:.2f} | | {limit[1]:.2f} "
        "|"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
