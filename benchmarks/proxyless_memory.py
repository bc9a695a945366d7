"""Memory of a step on the default chain: the mixture, three ways of gates, one plain network.

    # batch 2 at 224x224, 5 sampled architectures: some minutes
    python benchmarks/proxyless_memory.py
    python benchmarks/proxyless_memory.py --batch 4 --draws 2 --device cuda

`saved` is what autograd keeps at its peak, counted by hooks on every saved tensor: the same on
every machine. The plain network beside it is that of the same sampled architecture, in an ordinary
training step, so ratios are of pairs. `process` is the highest resident size (on CUDA: of allocated
tensors), less what it was before the first step, in a process of its own for each variant; it holds
the gradients of weights too, and is not of pairs.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from gradnas import BinaryGates, Chain, Draw, FirstOrder, MBConvChain, Relaxation, Softmax
from gradnas.memory import MIB, SavedTensors, measured_peak_mib
from gradnas.randomness import generator_for
from gradnas.spaces import Supernet

SPACE = MBConvChain()
ALPHA_STEPS = {
    "dense mixture": Softmax(),
    "full": BinaryGates("full"),
    "recompute": BinaryGates("recompute"),
    "two": BinaryGates("two"),
}
VARIANTS = ("plain", "weight step", "dense weight step", *ALPHA_STEPS)


def measure(variant: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Saved bytes of a step and of the plain network of the same architecture, for each draw;
    process memory."""
    device = torch.device(options.device)
    torch.manual_seed(0)
    supernet = SPACE.supernet(num_classes=1000).to(device).train()
    x_BCHW = torch.randn(options.batch, 3, options.side, options.side, device=device)
    y_B = torch.randint(1000, (options.batch,), device=device)
    alphas = dict(supernet.alphas.items())
    gates = ALPHA_STEPS.get(variant, BinaryGates("full"))
    found: dict[str, list[float]] = {"saved": [], "plain": [], "seconds": []}
    before = measured_peak_mib(device)
    for index in range(options.draws):
        sampler = gates if isinstance(gates, BinaryGates) else BinaryGates()
        noise = sampler.noise(alphas, generator_for(index))
        step, plain_step = steps(variant, supernet, gates, noise, x_BCHW, y_B)
        began = time.process_time()
        found["saved"].append(saved_mib(step))
        found["seconds"].append(time.process_time() - began)
        found["process"] = [measured_peak_mib(device) - before]
        if options.pairs:
            found["plain"].append(saved_mib(plain_step))
    return found


def steps(
    variant: str,
    supernet: Supernet,
    gates: Relaxation,
    noise: dict[str, Tensor],
    x_BCHW: Tensor,
    y_B: Tensor,
) -> tuple[Callable[[], None], Callable[[], None]]:
    """The step of a variant, and the training step of the plain network of the same architecture.

    Args:
        noise: of the draw.
    """
    params = {k: p for k, p in supernet.named_parameters() if not k.startswith("alphas")}
    alphas = dict(supernet.alphas.items())
    draw = BinaryGates("full").path(alphas, noise, 0.0)
    if isinstance(gates, BinaryGates):
        draw = gates.draw(alphas, noise, 0.0)

    def alpha_loss(weights: dict, tables: dict) -> Tensor:
        named_tables = {f"alphas.{name}": table for name, table in tables.items()}
        settings = {"draw": gates.draw(tables, noise, 0.0)}
        logits = functional_call(supernet, weights | named_tables, (x_BCHW,), settings)
        return F.cross_entropy(logits, y_B)

    def alpha_step() -> None:
        FirstOrder()(alpha_loss, alpha_loss, params, alphas)

    def weight_step() -> None:
        tables = {name: mix.detach() for name, mix in draw.mix.items()}
        path = Draw(tables, draw.active)
        if variant == "dense weight step":
            path = Draw.dense(
                {name: torch.softmax(alpha.detach(), -1) for name, alpha in alphas.items()}
            )
        loss = F.cross_entropy(supernet(x_BCHW, draw=path), y_B)
        torch.autograd.grad(loss, list(params.values()), allow_unused=True)

    plain = supernet.derived(chain_of(draw)).train()

    def plain_step() -> None:
        torch.autograd.grad(F.cross_entropy(plain(x_BCHW), y_B), list(plain.parameters()))

    step = {
        "plain": plain_step,
        "weight step": weight_step,
        "dense weight step": weight_step,
    }.get(variant, alpha_step)
    return step, plain_step


def chain_of(draw: Draw) -> Chain:
    """The architecture of the active operations."""
    operations = [block.candidates[draw.active[block.name][0][0]] for block in SPACE.blocks]
    return Chain.of(operations, [stage.blocks for stage in SPACE.stages])


def saved_mib(step: Callable[[], None]) -> float:
    """Peak of what autograd keeps."""
    with SavedTensors() as kept:
        step()
    return kept.peak_bytes / MIB


def main() -> None:
    """Measure every variant and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.variant:
        print(json.dumps(measure(options.variant, options)))
        return
    print(
        f"batch {options.batch}, {options.side}x{options.side}, {options.device}, torch "
        f"{torch.__version__}, "
        f"n = {options.draws} architectures; min / median / max\n"
    )
    print(
        "| step | saved MiB | ratio to the plain network | process MiB | CPU s "
        "|\n|---|---|---|---|---|"
    )
    for variant in VARIANTS:
        same = ["--batch", "--side", "--draws", "--device", "--threads"]
        given = [str(getattr(options, name[2:])) for name in same]
        command = [
            sys.executable,
            __file__,
            *(part for pair in zip(same, given, strict=True) for part in pair),
        ]
        outputs = [
            json.loads(
                subprocess.run(
                    [*command, "--variant", variant, "--pairs", pairs], check=True, stdout=-1
                ).stdout
            )
            for pairs in ("0", "1")
        ]
        found = outputs[1]
        process = outputs[0]["process"][0]  # the first ran nothing but the step itself
        ratios = [a / b for a, b in zip(found["saved"], found["plain"], strict=True)]
        print(
            f"| {variant} | {spread(found['saved'], 0)} | {spread(ratios, 2)} | {process:.0f} | "
            f"{statistics.median(found['seconds']):.1f} |",
            flush=True,
        )


def spread(values: list[float], digits: int) -> str:
    """Least, median and greatest."""
    return " / ".join(
        f"{v:.{digits}f}" for v in (min(values), statistics.median(values), max(values))
    )


if __name__ == "__main__":
    main()
