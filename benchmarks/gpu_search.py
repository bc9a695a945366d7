"""All measurements of searches and trainings on a GPU, in one run of bounded length.

It needs no package of the command line.

    # on a CUDA device
    python benchmarks/gpu_search.py --data FOLDER_OF_CIFAR10 --out runs/gpu
    # everything once, tiny, on the CPU: to see that it works
    python benchmarks/gpu_search.py --dry
    # in the space of NAS-Bench-201, at its full size, with a method of proving_methods.py
    python benchmarks/gpu_search.py --space nas-bench-201 --truth FILE --data FOLDER --method NAME

1. Steps per second: the network as published (NCHW, and channels-last), the fused one, and the
   fused one recorded in a CUDA graph; first and second order; fp32, TF32, bf16. The variants of a
   row take turns.
2. Steps per second of the training of a derived network (DARTS_V2, 20 cells, 36 channels, batch 96,
   auxiliary head): NCHW, channels-last, TF32, bf16, and captured in CUDA graphs by torch.compile.
3. Kernels of one forward and backward pass, counted by the profiler.
4. What 50 epochs of CIFAR-10 (391 steps each) would take, and, as far as the time allows, a search
   of 50 epochs (or as many as fit): genotype, accuracies, minutes; with a truth what the cell
   reaches when it is trained.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from launches import Launches, passes
from proving_methods import METHODS
from torch import Tensor, nn
from train_step import images, trainer

from gradnas import ConvCell, FirstOrder, Genotype, NasBench201, Search, Unrolled
from gradnas.data import Augment, DataConfig
from gradnas.families.cells.recipes import cifar10_eval
from gradnas.families.recipes import search_recipe
from gradnas.programs import truths
from gradnas.programs.estimating import estimate_search
from gradnas.programs.searching import run_search, start_search
from gradnas.runs import NonFiniteError
from gradnas.search.capture import CapturedStep

ORDERS = {"first": FirstOrder(), "second": Unrolled()}
VARIANTS = ("plain", "plain channels-last", "fused", "fused, recorded")
STEPS_PER_EPOCH = 391  # 25,000 images in batches of 64
TRAININGS = (
    "plain",
    "channels-last",
    "channels-last, tf32",
    "channels-last, bf16",
    "channels-last, captured",
    "channels-last, captured, bf16",
)
# Parts of the time there is, after which no more steps are begun: the rest is the search's.
LAST_SEARCH_STEPS = 0.5
LAST_TRAINING_STEPS = 0.75
DRY = {
    "device": "cpu",
    "data": "digits",
    "channels": 4,
    "cells": 3,
    "batch": 4,
    "formats": ["fp32"],
    "steps": 1,
    "rounds": 1,
    "epochs": 1,
    "train_channels": 4,
    "train_cells": 3,
    "train_batch": 4,
    "max_steps": 2,
    "minutes": 60.0,
}

SPACES: dict[str, type[ConvCell] | type[NasBench201]] = {
    "darts": ConvCell,
    "nas-bench-201": NasBench201,
}
RECIPES = {"darts": "darts-cifar10-first-order", "nas-bench-201": "nas-bench-201-cifar10"}
CELLS = {"darts": 8, "nas-bench-201": 5}  # as published; of a stage


def space_of(options: argparse.Namespace) -> ConvCell | NasBench201:
    """The space at the size that was asked for."""
    return SPACES[options.space](channels=options.channels, cells=options.cells)


def loss(
    net: Any, x: torch.Tensor, y: torch.Tensor
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Cross entropy, and no parts."""
    return F.cross_entropy(net(x).float(), y), {}


def loss_on(x_BCHW: Tensor, y_B: Tensor) -> Callable[[nn.Module], Tensor]:
    """The loss of a network on one batch."""
    return lambda net: loss(net, x_BCHW, y_B)[0]


def stepper(
    variant: str, order: str, precision: str, options: argparse.Namespace
) -> Callable[[], Any]:
    """A function that makes one search step."""
    device = torch.device(options.device)
    torch.manual_seed(0)
    space = space_of(options)
    layout = torch.contiguous_format if variant == "plain" else torch.channels_last
    supernet: Any = space.supernet(fused=variant.startswith("fused"))
    search = Search(
        supernet.to(device, memory_format=layout), gradient=ORDERS[order], precision=precision
    )
    images = [
        torch.randn(options.batch, 3, 32, 32, device=device).contiguous(memory_format=layout)
        for _ in range(2)
    ]
    batches = [(x, torch.randint(10, (options.batch,), device=device)) for x in images]
    if variant == "fused, recorded":
        captured = CapturedStep(search, loss, capture=device.type == "cuda")
        return lambda: captured(*batches)
    losses = [loss_on(x, y) for x, y in batches]
    return lambda: search.step(*losses)


def wait(device: str) -> None:
    """Until the device has done everything."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def measure_steps(options: argparse.Namespace, last: float) -> dict[tuple[str, str, str], float]:
    """(precision, order, variant) -> seconds per step, and the table of steps per second on the
    way.

    Args:
        last: the moment after which no row is begun.
    """
    found: dict[tuple[str, str, str], float] = {}
    formats = ["fp32", "tf32", "bf16"] if options.device.startswith("cuda") else ["fp32", "bf16"]
    formats = options.formats or formats
    print(
        f"\n| precision | order | {' | '.join(VARIANTS)} | best over plain "
        f"|\n|{'---|' * (len(VARIANTS) + 3)}"
    )
    for precision in formats:
        for order in ORDERS:
            if time.monotonic() > last:
                print(f"| {precision} | {order} | not measured: no time left |", flush=True)
                continue
            times: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
            notes: dict[str, str] = {}
            steps: dict[str, Callable[[], Any]] = {}
            for variant in VARIANTS:
                try:
                    steps[variant] = stepper(variant, order, precision, options)
                    for _ in range(min(2, options.steps)):
                        steps[variant]()
                    wait(options.device)
                except (RuntimeError, NonFiniteError) as error:  # must not take the others with it
                    notes[variant] = f"failed: {str(error).splitlines()[0][:60]}"
                    steps.pop(variant, None)
            for _ in range(options.rounds):
                for variant, step in steps.items():
                    began = time.perf_counter()
                    for _ in range(options.steps):
                        step()
                    wait(options.device)
                    times[variant].append((time.perf_counter() - began) / options.steps)
            cells = []
            for variant in VARIANTS:
                if not times[variant]:
                    cells.append(notes[variant])
                    continue
                found[precision, order, variant] = middle = statistics.median(times[variant])
                cells.append(
                    f"{1 / middle:.2f} ({1 / max(times[variant]):.2f} to "
                    f"{1 / min(times[variant]):.2f})"
                )
            plain = found.get((precision, order, "plain"))
            best = min((found[k] for k in found if k[:2] == (precision, order)), default=0.0)
            cells.append(f"{plain / best:.1f}x" if plain else "")
            print(f"| {precision} | {order} | {' | '.join(cells)} |", flush=True)
    return found


def measure_training(options: argparse.Namespace, last: float) -> None:
    """Steps per second of the training of DARTS_V2, each variant by itself.

    Args:
        last: the moment after which no variant is begun.
    """
    device = torch.device(options.device)
    recipe = cifar10_eval(Genotype.named("DARTS_V2"))
    space = replace(recipe.space, channels=options.train_channels, cells=options.train_cells)
    config = replace(recipe, space=space, batch_size=options.train_batch)
    data = images(options.train_batch)
    print(
        f"\ntraining of DARTS_V2, C{options.train_channels}, {options.train_cells} cells, batch "
        f"{options.train_batch}, auxiliary head, drop path:\n\n"
        "| variant | steps per second | over plain | peak MiB | made ready in |\n"
        "|---|---|---|---|---|"
    )
    plain: float | None = None
    for variant in TRAININGS:
        if device.type != "cuda" and ("tf32" in variant or "captured" in variant):
            print(f"| {variant} | on CUDA alone |", flush=True)
            continue
        if time.monotonic() > last:
            print(f"| {variant} | not measured: no time left |", flush=True)
            continue
        began = time.perf_counter()
        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            _, step = trainer(variant, config, data, device)
            for _ in range(min(3, options.steps)):  # what is compiled is captured at its second
                step()
            ready = time.perf_counter() - began
            rates = []
            for _ in range(options.rounds):
                began = time.perf_counter()
                for _ in range(options.steps):
                    step()
                rates.append(options.steps / (time.perf_counter() - began))
        except (RuntimeError, ValueError) as error:  # must not take the others with it
            print(f"| {variant} | failed: {str(error).splitlines()[0][:60]} |", flush=True)
            continue
        middle = statistics.median(rates)
        plain = middle if variant == "plain" else plain
        ratio = "" if plain is None else f"{middle / plain:.2f}x"
        is_cuda = device.type == "cuda"
        peak = f"{torch.cuda.max_memory_allocated() / 2**20:.0f}" if is_cuda else ""
        spread = f"{middle:.2f} ({min(rates):.2f} to {max(rates):.2f})"
        print(f"| {variant} | {spread} | {ratio} | {peak} | {ready:.1f} s |", flush=True)


def count_kernels(options: argparse.Namespace) -> None:
    """Kernels of one pass by the profiler; on the CPU, launches as `launches.py` counts them."""
    space = space_of(options)
    for name, fused in (("plain", False), ("fused", True)):
        for kind, one_pass in passes(space.supernet(fused=fused).to(options.device)).items():
            one_pass()
            if options.device.startswith("cuda"):
                activity = torch.profiler.ProfilerActivity.CUDA
                with torch.profiler.profile(activities=[activity]) as profile:
                    one_pass()
                    wait(options.device)
                number = sum(
                    event.device_type == torch.autograd.DeviceType.CUDA
                    for event in profile.events()
                )
            else:
                with Launches() as launches:
                    one_pass()
                number = launches.counts.total()
            print(f"{name}, gradient of the {kind}: {number} kernels a pass")


def search(options: argparse.Namespace, deadline: float) -> None:
    """A first-order search of as many epochs as fit before the deadline, 50 at the most."""
    device = torch.device(options.device)
    config: Any = METHODS[options.method].change(search_recipe(RECIPES[options.space]))
    config = replace(
        config,
        space=space_of(options),
        data=DataConfig(source=options.data, augment=Augment(crop_padding=4, flip=True)),
        batch_size=options.batch,
        split_seed=0 if options.data == "digits" else None,
        device=options.device,
        capture=device.type == "cuda",
        precision=options.precision,
    )
    data = config.data.load()
    expected = estimate_search(config, data, device)
    print(f"\n{expected}")
    epochs = min(options.epochs, int((deadline - time.monotonic()) * 0.9 / expected.epoch_seconds))
    if epochs < 1:
        print("no time left for a search")
        return
    if epochs < options.epochs:
        print(
            f"only {epochs} of {options.epochs} epochs fit; the schedules are those of {epochs} "
            "epochs"
        )
    config = replace(config, epochs=epochs, max_steps=options.max_steps)
    began = time.monotonic()
    run = start_search(config, str(Path(options.out) / "search"), data, device)
    results = run_search(config, run, data, device)
    print(f"\nsearch of {epochs} epochs: {(time.monotonic() - began) / 60:.1f} minutes")
    for name, value in results.items():
        print(f"  {name}: {value}")
    if options.truth:
        record = truths.look_up(run, truths.truth_of(options.truth), config.space)
        print("\n".join(truths.sentences(record)))
        print(f"  after each epoch: {[round(value, 2) for value in record['epochs']]}")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--data", help="digits, or a folder with CIFAR-10; without it no search")
    parser.add_argument("--space", choices=SPACES, default="darts")
    parser.add_argument("--method", choices=METHODS, default="softmax", help="of the search")
    parser.add_argument("--truth", help="of the space: what was found is looked up there")
    parser.add_argument("--out", default="runs/gpu", help="folder of the search")
    parser.add_argument("--minutes", type=float, default=8.5, help="of the whole program")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--max-steps", type=int, help="of the search")
    parser.add_argument("--precision", default="fp32", help="of the search")
    parser.add_argument("--formats", nargs="+", help="of the search steps; all by default")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--channels", type=int, default=16)
    parser.add_argument("--cells", type=int, help="8 of darts, 5 a stage of nas-bench-201")
    parser.add_argument("--steps", type=int, default=5, help="in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-channels", type=int, default=36)
    parser.add_argument("--train-cells", type=int, default=20)
    parser.add_argument("--train-batch", type=int, default=96)
    parser.add_argument("--dry", action="store_true", help="everything once, tiny, on the CPU")
    options = parser.parse_args(arguments)
    if options.dry:
        vars(options).update(DRY)
    if options.cells is None:
        options.cells = CELLS[options.space]
    began = time.monotonic()
    deadline = began + 60 * options.minutes
    cuda = options.device.startswith("cuda")
    name = torch.cuda.get_device_name() if cuda else "CPU"
    print(
        f"{name}, torch {torch.__version__}; {options.space}, batch {options.batch}, "
        f"C{options.channels}, {options.cells} cells"
    )
    print(
        f"steps per second, median (slowest to fastest) of {options.rounds} rounds of "
        f"{options.steps} steps:"
    )
    found = measure_steps(options, began + LAST_SEARCH_STEPS * 60 * options.minutes)
    print()
    for (precision, order, variant), seconds in found.items():
        if variant == VARIANTS[-1]:
            minutes = 50 * STEPS_PER_EPOCH * seconds / 60
            print(
                f"50 epochs, {order} order, {precision}, recorded: {minutes:.1f} minutes without "
                "evaluation"
            )
    measure_training(options, began + LAST_TRAINING_STEPS * 60 * options.minutes)
    count_kernels(options)
    if options.data:
        search(options, deadline)


if __name__ == "__main__":
    main(sys.argv[1:])
