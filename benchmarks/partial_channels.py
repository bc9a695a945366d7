"""Partial channels: memory and CPU time of a first-order step, against all channels.

    python benchmarks/partial_channels.py                    # the supernet of DARTS, 8 images
    python benchmarks/partial_channels.py --space nas-bench-201

Memory is what autograd keeps of a step, counted, with weights and optimisers. Time is of the
process, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F

import gradnas
from gradnas.memory import SavedTensors, step_mib

SPACES = {"darts": gradnas.ConvCell(), "nas-bench-201": gradnas.NasBench201()}


def measured(space: gradnas.Space, k: int, images: int, steps: int) -> tuple[float, float, float]:
    """MiB that autograd keeps, MiB of a whole step, CPU seconds of a step (median)."""
    torch.manual_seed(0)
    relaxation = gradnas.Softmax() if k == 1 else gradnas.PartialChannels(k)
    search = gradnas.Search(space.supernet(), relaxation)  # type: ignore[missing-attribute]
    x = torch.randn(images, 3, 32, 32)
    y = torch.randint(10, (images,))
    seconds = []
    with SavedTensors() as kept:
        search.step(lambda net: F.cross_entropy(net(x), y), lambda net: F.cross_entropy(net(x), y))
    whole = step_mib(kept, search.supernet, [search.weight_optimizer, search.alpha_optimizer])
    own = step_mib(kept, torch.nn.Identity(), [])
    for _ in range(steps):
        began = time.process_time()
        search.step(lambda net: F.cross_entropy(net(x), y), lambda net: F.cross_entropy(net(x), y))
        seconds.append(time.process_time() - began)
    return own, whole, statistics.median(seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--space", choices=SPACES, default="darts")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print("| k | kept by autograd, MiB | whole step, MiB | CPU s a step |")
    print("|---|---|---|---|")
    for k in (1, 2, 4):
        own, whole, seconds = measured(SPACES[args.space], k, args.images, args.steps)
        print(f"| {k} | {own:.1f} | {whole:.1f} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
