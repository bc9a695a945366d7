"""Time and memory of one training step of a derived network.

    # DARTS_V2, 20 cells, 36 channels, batch 96: plain (NCHW), channels-last, accelerated
    python benchmarks/train_step.py
    python benchmarks/train_step.py --cells 8 --channels 16 --batch 32 --repeats 5
    python benchmarks/train_step.py --chain proxyless_cpu --batch 32

The variants take turns in one process, so that a busy machine slows all of them alike; ratios are
of medians of CPU seconds (of wall seconds on CUDA). `saved` is what autograd keeps at its peak (not
known inside a compiled graph). Freed memory stays with the process for all variants, as in `gradnas
train`; with `--return-memory` the C library gives it back, as in a loop of one's own. Data and
augmentation are on the device: a step is crop, flip, cutout, normalise, forward, backward, SGD.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch

from gradnas import Chain, Genotype
from gradnas.data import ImageData, MemorySplit
from gradnas.families.cells.recipes import cifar10_eval
from gradnas.families.chains.recipes import proxyless_cifar10_eval
from gradnas.memory import MIB, SavedTensors, freed_memory_kept
from gradnas.tasks.images.settings import TrainConfig
from gradnas.tasks.images.training import ImageTraining

VARIANTS = {
    "plain": {"accelerated": False},
    "channels-last": {"accelerated": False},
    "accelerated": {},
    "channels-last, compiled": {"compile": "default"},
    "channels-last, bf16": {"precision": "bf16"},
    "channels-last, tf32": {"precision": "tf32"},
    "channels-last, captured": {"compile": "reduce-overhead"},  # in CUDA graphs
    "channels-last, captured, bf16": {"compile": "reduce-overhead", "precision": "bf16"},
    "channels-last, compiled, bf16": {"compile": "default", "precision": "bf16"},
}


def images(batch: int) -> ImageData:
    """Random pixels in CIFAR-10's shapes: two batches."""
    generator = torch.Generator().manual_seed(0)
    pixels_NCHW = torch.randint(256, (2 * batch, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels_N = torch.randint(10, (2 * batch,), generator=generator)
    split = MemorySplit(pixels_NCHW, labels_N, (0.5,) * 3, (0.25,) * 3)
    return ImageData(
        "random", 10, 3, 32, tuple("0123456789"), (0.5,) * 3, (0.25,) * 3, split, split
    )


def trainer(
    variant: str, config: TrainConfig, data: ImageData, device: torch.device
) -> tuple[ImageTraining, Callable]:
    """The training, and a function that makes one step of it."""
    training = ImageTraining(replace(config, **VARIANTS[variant]), data, device)
    layout = torch.contiguous_format if variant == "plain" else torch.channels_last
    training.network.to(memory_format=layout)  # type: ignore[call-overload]
    training.epoch = config.epochs // 2  # drop path at work
    training.start_epoch()
    batches = iter(())

    def step() -> None:
        nonlocal batches
        found = next(batches, None)
        if found is None:
            batches = training.train.epoch(0)
            found = next(batches)
        training.step((found[0].contiguous(memory_format=layout), found[1]))
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return training, step


def common_options(description: str | None, batch: int, cells: int) -> argparse.ArgumentParser:
    """What a benchmark of training steps is asked: network, sizes, threads; with its defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--genotype", default="DARTS_V2")
    parser.add_argument("--chain", help="a published chain, in place of cells")
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--channels", type=int, default=36)
    parser.add_argument("--cells", type=int, default=cells)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def configuration(options: argparse.Namespace) -> TrainConfig:
    """The training of a cell, or of a chain, on images of 32 pixels."""
    if options.chain is not None:
        return replace(proxyless_cifar10_eval(Chain.named(options.chain)), batch_size=options.batch)
    recipe = cifar10_eval(Genotype.named(options.genotype))
    space = replace(recipe.space, channels=options.channels, cells=options.cells)
    return replace(recipe, space=space, batch_size=options.batch)


def main(arguments: list[str]) -> None:
    parser = common_options(__doc__, batch=96, cells=20)
    parser.add_argument("--repeats", type=int, default=3, help="measured steps of each variant")
    parser.add_argument(
        "--warmup", type=int, default=1, help="steps before that; the first one compiles"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS)[:3])
    parser.add_argument("--return-memory", action="store_true")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    with nullcontext() if options.return_memory else freed_memory_kept():
        measure(options)


def measure(options: argparse.Namespace) -> None:
    """All variants in turns, and their table."""
    device = torch.device(options.device)
    config = configuration(options)
    data = images(options.batch)
    made = {variant: trainer(variant, config, data, device) for variant in options.variants}
    found: dict[str, list[tuple[float, float]]] = {variant: [] for variant in made}
    saved: dict[str, float] = {}
    for repeat in range(options.warmup + options.repeats):
        for variant, (training, step) in made.items():
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            if repeat == 0 and training.config.compile == "no":
                with SavedTensors() as kept:
                    step()
                saved[variant] = kept.peak_bytes / MIB
            else:
                step()
            seconds = time.process_time() - cpu, time.perf_counter() - wall
            if repeat >= options.warmup:
                found[variant].append(seconds)
            label = "warm-up" if repeat < options.warmup else "step"
            print(
                f"  {variant}, {label}: {seconds[0]:.2f} s CPU, {seconds[1]:.2f} s wall",
                file=sys.stderr,
                flush=True,
            )
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {options.threads} thread(s)"
    )
    cells = (
        f"{options.genotype}, C{options.channels}, {options.cells} cells, auxiliary head, drop path"
    )
    print(
        f"{options.chain or cells}, batch {options.batch}, {name}, torch {torch.__version__}, "
        f"freed memory {'returned' if options.return_memory else 'kept'}; "
        f"seconds are min / median / max of n = {options.repeats}\n"
    )
    print("| variant | CPU s | wall s | ratio | saved MiB |\n|---|---|---|---|---|")
    reference = None
    for variant, seconds in found.items():
        cpu, wall = zip(*seconds, strict=True)
        middle = statistics.median(wall if device.type == "cuda" else cpu)
        reference = middle if reference is None else reference
        spread = [f"{min(t):.2f} / {statistics.median(t):.2f} / {max(t):.2f}" for t in (cpu, wall)]
        memory = f"{saved[variant]:.0f}" if variant in saved else "-"
        print(
            f"| {variant} | {' | '.join(spread)} | {reference / middle:.2f}x | {memory} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
