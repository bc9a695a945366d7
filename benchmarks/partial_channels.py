"""Partial channels: memory and CPU time of a first-order step, against all channels.

    python benchmarks/partial_channels.py                    # the supernet of DARTS, 8 images
    python benchmarks/partial_channels.py --space nas-bench-201
    python benchmarks/partial_channels.py --parts            # what it is that autograd keeps
    python benchmarks/partial_channels.py --parts --channels 32

Memory is what autograd keeps of a step, counted, with weights and optimisers. Time is of the
process, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from dataclasses import replace
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch.nn.functional as F

import gradnas
from gradnas.memory import MIB, SavedTensors, step_mib
from gradnas.spaces.nas_bench_201.network import ResidualReduction

SPACES: dict[str, Any] = {"darts": gradnas.ConvCell(), "nas-bench-201": gradnas.NasBench201()}


def measured(space: Any, k: int, images: int, steps: int) -> tuple[float, float, float]:
    """MiB that autograd keeps, MiB of a whole step, CPU seconds of a step (median)."""
    torch.manual_seed(0)
    relaxation = gradnas.Softmax() if k == 1 else gradnas.PartialChannels(k)
    search = gradnas.Search(space.supernet(), relaxation)
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


# What is kept outside operations, by the module or the function that keeps it.
WHOLE = ("stem", "stem0", "stem1", "classifier", "preprocess0", "preprocess1", "last")


class Parts:
    """Counts what autograd keeps of one forward pass, by who keeps it first.

    `operations`: made for C / k channels. `passing by`: the channels beside them, joined and
    shuffled. `whole`: what has all channels whatever k is.
    """

    def __init__(self, supernet: torch.nn.Module) -> None:
        self.bytes = {"operations": 0, "passing by": 0, "whole": 0}
        self._seen: set[int] = set()
        self._alive: list[torch.Tensor] = []  # so that no address is used twice
        self._inside: list[str] = []
        for name, module in supernet.named_modules():
            own = name.rpartition(".")[2]
            if own in WHOLE or isinstance(module, ResidualReduction):
                module.register_forward_pre_hook(lambda *_: self._inside.append("whole"))
                module.register_forward_hook(lambda *_: self._left())

    def _left(self) -> None:
        self._inside.pop()

    def keep(self, tensor: torch.Tensor) -> torch.Tensor:
        """Called for every tensor that is kept."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self._seen or isinstance(tensor, torch.nn.Parameter):
            return tensor
        self._seen.add(storage.data_ptr())
        self._alive.append(tensor)
        where = self._inside[-1] if self._inside else "operations"
        frame = sys._getframe(1)
        while frame is not None and not self._inside:
            if frame.f_code.co_name == "with_rest":
                where = "passing by"
                break
            frame = frame.f_back  # type: ignore[assignment]
        self.bytes[where] += storage.nbytes()
        return tensor


def parts_of(space: Any, k: int, images: int) -> Parts:
    """What is kept of one pass of the supernet."""
    torch.manual_seed(0)
    relaxation = gradnas.Softmax() if k == 1 else gradnas.PartialChannels(k)
    search = gradnas.Search(space.supernet(), relaxation)
    parts = Parts(search.supernet)
    draw = search.passes.path(search.alphas, search.passes.noise(1))
    with torch.autograd.graph.saved_tensors_hooks(parts.keep, lambda tensor: tensor):
        logits = search.supernet(torch.randn(images, 3, 32, 32), draw=draw)
        assert logits.requires_grad
    return parts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parts", action="store_true", help="by what keeps it, one pass")
    parser.add_argument("--space", choices=SPACES, default="darts")
    parser.add_argument("--channels", type=int, help="of the first stage; without it as published")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    args = parser.parse_args()
    torch.set_num_threads(1)
    space = SPACES[args.space]
    if args.channels is not None:
        space = replace(space, channels=args.channels)
    if args.parts:
        print("| k | operations, MiB | passing by, MiB | whole, MiB |")
        print("|---|---|---|---|")
        for k in (1, 2, 4, 8):
            found = [value / MIB for value in parts_of(space, k, args.images).bytes.values()]
            print(f"| {k} | {' | '.join(f'{value:.1f}' for value in found)} |", flush=True)
        return
    print("| k | kept by autograd, MiB | whole step, MiB | CPU s a step |")
    print("|---|---|---|---|")
    for k in (1, 2, 4):
        own, whole, seconds = measured(space, k, args.images, args.steps)
        print(f"| {k} | {own:.1f} | {whole:.1f} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main()
