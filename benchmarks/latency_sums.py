"""Do the latencies of operations add up to those of networks?

    OMP_NUM_THREADS=1 python benchmarks/latency_sums.py

ResNet blocks (3 x 3 and 5 x 5 kernels, expansions 1 and 3) at batch 1, 32 and 64, inverted
residuals, a U-Net whose levels have one convolution or two, and a stack of which each block may be
left out. A table is measured for each; of four decisions the sum is divided by the time of the
derived network, which is measured twice: here, in turn with the operations, and in a process of its
own that does nothing else and leaves its allocator alone. CPU time of one thread; medians. With
`--fresh-memory` the table is measured with glibc's allocator as it is.
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradnas
from gradnas.architectures.choices import Choices
from gradnas.latency import Timing, measure
from gradnas.latency.check import check_sums
from gradnas.spaces import ModuleSupernet
from gradnas.spaces.affordable import cost_of

DECISIONS = 4


# ---- networks ------------------------------------------------------------------------------------


def conv_bn(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """x + two convolutions of x, with `expansion` times as many channels between them."""

    def __init__(self, channels: int, kernel: int, expansion: int) -> None:
        super().__init__()
        self.first = conv_bn(channels, channels * expansion, kernel)
        self.second = conv_bn(channels * expansion, channels, kernel)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.second(self.first(x_BCHW))


def resnet() -> nn.Module:
    layers: list[nn.Module] = [conv_bn(3, 24, 3)]
    for channels, stride in ((24, 1), (48, 2), (96, 2)):
        if stride == 2:
            layers.append(conv_bn(channels // 2, channels, 3, 2))
        for _ in range(2):
            operations: dict[str, nn.Module] = {}
            for kernel in (3, 5):
                for expansion in (1, 3):
                    operations[f"k{kernel}e{expansion}"] = Residual(channels, kernel, expansion)
            layers.append(gradnas.Choice(operations))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, 10)]
    return nn.Sequential(*layers)


class Inverted(nn.Module):
    """x + expand, convolve each channel by itself, project: much memory, little arithmetic."""

    def __init__(self, channels: int, kernel: int, expansion: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.layers = nn.Sequential(
            conv_bn(channels, wide, 1),
            nn.Conv2d(wide, wide, kernel, padding=kernel // 2, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.Conv2d(wide, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return x_BCHW + self.layers(x_BCHW)


def inverted() -> nn.Module:
    layers: list[nn.Module] = [conv_bn(3, 16, 3)]
    for _ in range(3):
        operations: dict[str, nn.Module] = {}
        for kernel, expansion in ((3, 1), (5, 1), (3, 3), (5, 6)):
            operations[f"k{kernel}e{expansion}"] = Inverted(16, kernel, expansion)
        layers.append(gradnas.Choice(operations))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)]
    return nn.Sequential(*layers)


def level(channels_in: int, channels: int) -> gradnas.Choice:
    two = nn.Sequential(conv_bn(channels_in, channels, 3), conv_bn(channels, channels, 3))
    return gradnas.Choice(
        {
            "one": conv_bn(channels_in, channels, 3),
            "two": two,
            "wide": conv_bn(channels_in, channels, 5),
        }
    )


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList([level(3, 16), level(16, 32), level(32, 64)])
        self.up = nn.ModuleList([level(64 + 32, 32), level(32 + 16, 16)])
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        kept = []
        for number, down in enumerate(self.down):
            if number:
                x_BCHW = F.max_pool2d(x_BCHW, 2)
            x_BCHW = down(x_BCHW)
            kept.append(x_BCHW)
        for up, skipped_BCHW in zip(self.up, (kept[1], kept[0]), strict=True):
            x_BCHW = F.interpolate(x_BCHW, scale_factor=2.0)
            x_BCHW = up(torch.cat([x_BCHW, skipped_BCHW], dim=1))
        return self.head(x_BCHW)


def depth() -> nn.Module:
    layers: list[nn.Module] = [conv_bn(3, 32, 3, 2)]
    for _ in range(6):
        layers.append(gradnas.Choice({"block": Residual(32, 3, 2), "skip": nn.Identity()}))
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    batch: int
    side: int


CASES = {
    "resnet, batch 1": Case(resnet, 1, 32),
    "resnet, batch 32": Case(resnet, 32, 32),
    "resnet, batch 64": Case(resnet, 64, 32),
    "inverted, batch 64": Case(inverted, 64, 32),
    "u-net, batch 4": Case(UNet, 4, 64),
    "depth, batch 16": Case(depth, 16, 32),
}


# ---- measuring -----------------------------------------------------------------------------------


def made(case: Case) -> tuple[ModuleSupernet, Tensor]:
    torch.manual_seed(0)
    supernet = ModuleSupernet(case.make().eval())
    return supernet, torch.randn(case.batch, 3, case.side, case.side)


def decisions(supernet: ModuleSupernet) -> list[Choices]:
    """Two with the same operation everywhere, and random ones."""
    generator = torch.Generator().manual_seed(1)
    drawn = []
    for number in range(DECISIONS):
        picks = {}
        for name, operations in supernet.names.items():
            column = int(torch.randint(len(operations), (), generator=generator))
            picks[name] = {0: 0, 1: len(operations) - 1}.get(number, column)
        drawn.append(supernet.decision(picks))
    return drawn


def alone(name: str, number: int, repeats: int) -> None:
    """Print the milliseconds and page faults of a call, in a process that does nothing else."""
    supernet, x_BCHW = made(CASES[name])
    network = supernet.derived(decisions(supernet)[number]).eval()
    times = []
    with torch.no_grad():
        for _ in range(5):
            network(x_BCHW)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(repeats):
            begin = time.process_time_ns()
            network(x_BCHW)
            times.append((time.process_time_ns() - begin) / 1e6)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    print(np.median(times), faults / repeats)


def measured_alone(name: str, number: int, repeats: int) -> tuple[float, float]:
    command = [sys.executable, __file__, "--alone", name, str(number), "--repeats", str(repeats)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ms, faults = printed.split()
    return float(ms), float(faults)


@contextlib.contextmanager
def as_it_is(device: torch.device) -> Iterator[bool]:
    yield False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--cases", nargs="*", default=list(CASES))
    parser.add_argument("--fresh-memory", action="store_true")
    parser.add_argument("--alone", nargs=2, metavar=("CASE", "NUMBER"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.alone:
        alone(options.alone[0], int(options.alone[1]), options.repeats)
        return
    if options.fresh_memory:
        sys.modules[measure.__module__].keeping_memory = as_it_is  # type: ignore[attr-defined]

    print("| case | sum, ms | sum / here | sum / alone | page faults of a call alone |")
    print("|---|---|---|---|---|")
    timing = Timing(warmup=3, repeats=options.repeats, clock="cpu")
    for name in options.cases:
        supernet, x_BCHW = made(CASES[name])
        table = measure(supernet.cost_view(), (x_BCHW,), timing)
        costs = supernet.costs("latency", (x_BCHW,), table)
        drawn = decisions(supernet)
        networks = [supernet.derived(decision).eval() for decision in drawn]
        sums = [cost_of(supernet, decision, costs) for decision in drawn]
        here = check_sums(supernet.cost_view(), (x_BCHW,), networks, sums, x_BCHW.device, timing)
        own = [measured_alone(name, k, options.repeats) for k in range(len(drawn))]
        ratios_here = [checked.ratio for checked in here]
        ratios_alone = [ms / whole for ms, (whole, _) in zip(sums, own, strict=True)]
        print(
            f"| {name} | {min(sums):.2f} to {max(sums):.2f} | {spread(ratios_here)} | "
            f"{spread(ratios_alone)} | {spread([faults for _, faults in own], 0)} |",
            flush=True,
        )


def spread(values: list[float], decimals: int = 2) -> str:
    """Least, median and largest."""
    three = (min(values), float(np.median(values)), max(values))
    return ", ".join(f"{value:.{decimals}f}" for value in three)


if __name__ == "__main__":
    main()
