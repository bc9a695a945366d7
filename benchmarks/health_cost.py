"""What a measurement of the Hessian in the alphas costs, in steps of the search.

    OMP_NUM_THREADS=1 python benchmarks/health_cost.py

A measurement is one graph of the gradient and some products with vectors. What
`gradnas.search.sharpness` counts for them (3 steps for the graph and two products, 1.4 for every
further one, times `Supernet.steps_of_product`) is to be no less than what is measured here: CPU
seconds of one thread, beside first-order steps of the same search.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import gradnas
from gradnas.objectives import TokenLikelihood
from gradnas.optimizers import WeightOptimizer
from gradnas.search.curvature import curvature

Case = tuple[gradnas.Search, Callable[[Any], Tensor]]
STEPS = 4
FEW, MANY = 1, 4  # products


def images(supernet: Any, side: int, batch: int) -> Case:
    """A search on random images."""
    generator = torch.Generator().manual_seed(0)
    x_BCHW = torch.randn(batch, 3, side, side, generator=generator)
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    y_B = torch.randint(0, 10, (batch,), generator=generator)
    search = gradnas.Search(supernet.to(memory_format=torch.channels_last), seed=0)
    return search, lambda net: F.cross_entropy(net(x_BCHW), y_B)


def text(hidden: int, batch: int) -> Case:
    """A search on random tokens, 35 time steps."""
    generator = torch.Generator().manual_seed(0)
    tokens_TB = torch.randint(0, 500, (36, batch), generator=generator)
    supernet = gradnas.RecurrentCell(hidden=hidden, embedding=hidden).supernet(vocabulary=500)
    weights = WeightOptimizer(lr=1.0, lr_end=1.0, momentum=0.0, clip_norm=0.25)
    objective = TokenLikelihood()

    def loss(net: Any) -> Tensor:
        return objective(net(tokens_TB[:-1], None, tokens_TB[1:]), tokens_TB[1:])[0]

    return gradnas.Search(supernet, weights=weights, seed=0), loss


CASES: dict[str, Callable[[], Case]] = {
    "ConvCell, 4 channels, 3 cells, 16 px": lambda: images(
        gradnas.ConvCell(channels=4, cells=3, nodes=2).supernet(), 16, 32
    ),
    "the same, edge by edge": lambda: images(
        gradnas.ConvCell(channels=4, cells=3, nodes=2).supernet(fused=False), 16, 32
    ),
    "NasBench201, 8 channels, 16 px": lambda: images(
        gradnas.NasBench201(channels=8, cells=1).supernet(), 16, 32
    ),
    "RecurrentCell, 64 units": lambda: text(64, 32),
}


def measured(case: Case) -> tuple[float, float, float]:
    """CPU seconds of a step, of the graph, and of a product."""
    search, loss = case
    search.step(loss, loss)
    began = time.process_time()
    for _ in range(STEPS):
        search.step(loss, loss)
    step = (time.process_time() - began) / STEPS
    closure = search.passes.closure(loss, search.passes.noise(1))
    number = sum(alpha.numel() for alpha in search.alphas.values())
    start = torch.randn(number, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    seconds = []
    for products in (FEW, MANY):
        began = time.process_time()
        curvature(closure, search.params, search.alphas, products, start)
        seconds.append(time.process_time() - began)
    product = (seconds[1] - seconds[0]) / (MANY - FEW)
    return step, seconds[0] - FEW * product, product


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", help="only those whose name holds this")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| case | a step, CPU s | graph, steps | a product, steps | factor | two products, steps |"
    )
    print("|---|---|---|---|---|---|")
    for name, make in CASES.items():
        if args.case is not None and args.case not in name:
            continue
        case = make()
        step, graph, product = measured(case)
        factor = case[0].supernet.steps_of_product
        two = (graph + 2 * product) / step
        shown = f"{graph / step:.2f} | {product / step:.2f} | {factor} | {two:.1f} of {3 * factor}"
        print(f"| {name} | {step:.3f} | {shown} |")


if __name__ == "__main__":
    main()
