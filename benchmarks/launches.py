"""The kernel launches of one pass, counted on the CPU: each operation that is no view is one.

    # a forward and a backward pass; C16, 8 cells: the plain network and the grouped cell
    python benchmarks/launches.py

A convolution's backward counts as two where it gives two gradients. What an operation launches
inside itself beyond that (a copy to another layout, say) is not seen; on a GPU, `gpu_search.sh`
counts the kernels themselves.
"""

from __future__ import annotations

import argparse
import collections
import sys
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gradnas import ConvCell, Softmax
from gradnas.spaces.cells.fused_cell import FusedCell
from gradnas.spaces.cells.supernet import ConvSupernet

# operations that launch nothing: they make another view of the same memory, or memory without
# values
FREE = {
    *(
        "view",
        "_unsafe_view",
        "expand",
        "permute",
        "transpose",
        "t",
        "slice",
        "select",
        "split",
        "split_with_sizes",
    ),
    *("unsqueeze", "squeeze", "detach", "alias", "as_strided", "unbind", "narrow", "lift_fresh"),
    *("empty", "empty_like", "new_empty", "new_empty_strided", "empty_strided"),
}


class Launches(TorchDispatchMode):
    """Within: operation -> number of launches."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name == "convolution_backward":
            self.counts[name] += sum(args[-1])
        elif name not in FREE:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))


def passes(supernet: ConvSupernet, side: int = 32) -> dict[str, Callable[[], Any]]:
    """The two passes of a first-order step: gradient of the weights, gradient of the alphas."""
    device = next(supernet.parameters()).device
    x = torch.randn(2, 3, side, side, device=device)
    y = torch.zeros(2, dtype=torch.int64, device=device)
    alphas = dict(supernet.alphas.items())
    weights = [p for name, p in supernet.named_parameters() if not name.startswith("alphas.")]

    def of_weights() -> Any:
        draw = Softmax().draw({name: a.detach() for name, a in alphas.items()}, {}, 0.0)
        return torch.autograd.grad(F.cross_entropy(supernet(x, draw=draw), y), weights)

    def of_alphas() -> Any:
        for p in weights:
            p.requires_grad_(False)
        found = torch.autograd.grad(
            F.cross_entropy(supernet(x), y), list(alphas.values()), allow_unused=True
        )
        for p in weights:
            p.requires_grad_(True)
        return found

    return {"weights": of_weights, "alphas": of_alphas}


def count(one_pass: Callable[[], Any]) -> collections.Counter[str]:
    """Operation -> launches, after one pass that fills caches."""
    one_pass()
    with Launches() as launches:
        one_pass()
    return launches.counts


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, default=8)
    parser.add_argument("--details", action="store_true", help="the most frequent operations")
    options = parser.parse_args(arguments)
    space = ConvCell(channels=options.channels, cells=options.cells)
    for name, fused, grouped in (("plain", False, False), ("grouped", True, True)):
        FusedCell.grouped = grouped
        for kind, one_pass in passes(space.supernet(fused=fused)).items():
            found = count(one_pass)
            print(f"{name:8} pass for the gradient of the {kind:8} {found.total():6} launches")
            if options.details:
                print(
                    "   ", ", ".join(f"{n} {operation}" for operation, n in found.most_common(24))
                )


if __name__ == "__main__":
    main(sys.argv[1:])
