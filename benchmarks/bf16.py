"""Does this processor gain from bf16? Products and convolutions in bf16 beside float32, one thread.

    python benchmarks/bf16.py

What the processor multiplies in bf16 by itself is asked of torch (AVX-512 BF16, AMX). Times are CPU
seconds, the least of several calls that take turns; errors are against float64. A whole training
step: python benchmarks/train_step.py --variants accelerated channels-last "channels-last, bf16"
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

KINDS = ("avx512_bf16", "amx_bf16", "avx512_f", "avx2", "sve_bf16", "bf16")


def work() -> dict[str, tuple[Callable[..., Tensor], list[Tensor], float]]:
    """Name -> function, its tensors in float32, and operations (two for each multiply-add)."""
    found: dict[str, tuple[Callable[..., Tensor], list[Tensor], float]] = {}
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    found["product, 1024 x 1024"] = (torch.mm, [a, b], 2.0 * 1024**3)
    for channels, side in ((36, 32), (144, 8)):
        x = torch.randn(32, channels, side, side).contiguous(memory_format=torch.channels_last)
        pixels = 32 * side * side
        pointwise = torch.randn(channels, channels, 1, 1)
        depthwise = torch.randn(channels, 1, 3, 3)
        name = f"{channels} channels, {side} x {side}, batch 32"
        found[f"1x1 convolution, {name}"] = (F.conv2d, [x, pointwise], 2.0 * pixels * channels**2)

        def by_channel(x: Tensor, weight: Tensor) -> Tensor:
            return F.conv2d(x, weight, padding=1, groups=x.shape[1])

        operations = 2.0 * pixels * channels * 9
        found[f"3x3 depthwise, {name}"] = (by_channel, [x, depthwise], operations)
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    capabilities = torch.cpu.get_capabilities()
    known = [
        f"{kind}: {'yes' if capabilities[kind] else 'no'}" for kind in KINDS if kind in capabilities
    ]
    print(f"torch {torch.__version__}; {', '.join(known)}; n = {options.repeats}\n")
    print("| work | fp32, ms | Gop/s | bf16, ms | Gop/s | fp32 / bf16 | error of fp32, of bf16 |")
    print("|---" * 7 + "|")
    for name, (function, tensors, operations) in work().items():
        halves = [t.bfloat16() for t in tensors]
        exact = function(*(t.double() for t in tensors))
        times: list[list[float]] = [[], []]
        errors = []
        for repeat in range(options.repeats + 1):
            for k, given in enumerate((tensors, halves)):
                began = time.process_time()
                found = function(*given)
                if repeat:
                    times[k].append(time.process_time() - began)
                else:
                    errors.append(float((found.double() - exact).norm() / exact.norm()))
        full, half = min(times[0]), min(times[1])
        print(
            f"| {name} | {1e3 * full:.2f} | {operations / full / 1e9:.0f} | {1e3 * half:.2f} | "
            f"{operations / half / 1e9:.0f} | {full / half:.2f} | {errors[0]:.0e}, "
            f"{errors[1]:.0e} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
