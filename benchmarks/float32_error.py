"""How exact float32 gradients are: the fused and the plain network, against float64.

    # 40 networks of 8 channels and 3 cells
    python benchmarks/float32_error.py
    python benchmarks/float32_error.py --channels 16 --cells 8 --batch 16 --networks 6

For each network (its own weights, alphas and images) the error of all gradients together, relative
to float64. One network alone says little: where rounding moves a value across the kink of a ReLU,
in either network, the gradient jumps by much more than the rounding. So many small ones are taken,
and medians and quartiles are compared: they are those of networks without such a jump. The root
mean square, beside them, is that of the jumps.
"""

from __future__ import annotations

import argparse
import copy
import math
import statistics
import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas import ConvCell
from gradnas.spaces.cells.fused_cell import FusedCell


def gradients(net: torch.nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """All gradients of weights and alphas, in one float64 vector."""
    grads = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    return torch.cat([g.flatten() for g in grads]).double()


def errors(seed: int, options: argparse.Namespace) -> dict[str, float]:
    """Relative error of the float32 gradients of each way to compute."""
    torch.manual_seed(seed)
    space = ConvCell(channels=options.channels, cells=options.cells)
    plain = space.supernet(fused=False).double()
    with torch.no_grad():
        for alpha in plain.alphas.values():
            alpha.normal_()
    x = torch.randn(options.batch, 3, options.side, options.side, dtype=torch.float64)
    y = torch.randint(10, (options.batch,))
    exact = gradients(plain, x, y)
    fused = space.supernet().double()
    fused.load_state_dict(plain.state_dict())
    found = {}
    for name, net, grouped in (
        ("plain", plain, False),
        ("fused", fused, False),
        ("grouped", fused, True),
    ):
        FusedCell.grouped = grouped
        found[name] = (
            (gradients(copy.deepcopy(net).float(), x.float(), y) - exact).norm() / exact.norm()
        ).item()
    return found


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--cells", type=int, default=3)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--side", type=int, default=8)
    parser.add_argument("--networks", type=int, default=40)
    options = parser.parse_args(arguments)
    found = [errors(seed, options) for seed in range(options.networks)]
    squares = {name: math.sqrt(statistics.fmean(f[name] ** 2 for f in found)) for name in found[0]}
    for name in ("plain", "fused", "grouped"):
        quartiles = {k: statistics.quantiles([f[k] for f in found], n=4) for k in ("plain", name)}
        ratios = [
            mine / plain for mine, plain in zip(quartiles[name], quartiles["plain"], strict=True)
        ]
        print(
            f"{name:8} relative gradient error, quartiles: "
            f"{', '.join(f'{q:.2e}' for q in quartiles[name])} = "
            f"{', '.join(f'{r:.2f}' for r in ratios)} x plain; root mean square "
            f"{squares[name]:.2e}; n = {len(found)}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
