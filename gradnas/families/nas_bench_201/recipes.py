"""Recipes of NAS-Bench-201 (Dong and Yang, ICLR 2020, arXiv 2001.00326), and one for a CPU.

The settings are those of the authors' scripts of the paper. There the weights take their step
before the alphas, and the clipping covers the alphas too; here the alphas come first and are not
clipped, as in DARTS.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gradnas.architectures.base import Architecture
from gradnas.data import Augment, DataConfig
from gradnas.gradients import FirstOrder
from gradnas.objectives import BetaDecay
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.relaxations import GumbelSoftmax, Softmax
from gradnas.spaces import NasBench201
from gradnas.tasks.images.settings import SearchConfig, TrainConfig

CIFAR_AUGMENT = Augment(crop_padding=4, flip=True)


def nas_bench_201_cifar10() -> SearchConfig:
    """DARTS, first order, on CIFAR-10 in the space of NAS-Bench-201: 16 channels, 5 cells a stage,
    50 epochs."""
    return SearchConfig(
        space=NasBench201(),
        relaxation=Softmax(),
        gradient=FirstOrder(),
        data=DataConfig(source="cifar10", augment=CIFAR_AUGMENT),
        valid_augment=True,
        epochs=50,
        batch_size=64,
        weights=WeightOptimizer(
            lr=0.025,
            lr_end=0.001,
            momentum=0.9,
            nesterov=True,
            weight_decay=5e-4,
            clip_norm=5.0,
        ),
        alphas=AlphaOptimizer(lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
    )


def nas_bench_201_cifar10_gdas() -> SearchConfig:
    """GDAS on CIFAR-10 in the space of NAS-Bench-201: one sampled cell a step, 250 epochs."""
    relaxation = GumbelSoftmax(hard=True, temperature=10.0, temperature_end=0.1)
    return replace(nas_bench_201_cifar10(), relaxation=relaxation, epochs=250)


def nas_bench_201_small() -> SearchConfig:
    """DARTS with beta decay in the space of NAS-Bench-201 for a CPU: 8 channels, one cell a stage,
    8,000 images of CIFAR-10 at 16 pixels, 25 epochs, within some minutes of one core."""
    # No setting of a paper. By the truth DARTS-PT is better in a smaller setting and worse in this
    # one, and beta decay steadier in both (benchmarks/proving_ground.jsonl).
    config = nas_bench_201_cifar10()
    return replace(
        config,
        space=NasBench201(channels=8, cells=1),
        data=DataConfig(
            source="cifar10",
            image_size=16,
            per_class=800,
            augment=Augment(crop_padding=2, flip=True),
        ),
        valid_augment=False,
        epochs=25,
        terms=(BetaDecay(end=25.0),),
        # 63 steps an epoch instead of 391: with the alphas' own rate they would decide nothing.
        alphas=replace(config.alphas or AlphaOptimizer(), lr=3e-3),
        threads=1,
    )


def nas_bench_201_eval(genotype: Architecture) -> TrainConfig:
    """The training of the benchmark: 200 epochs, SGD with Nesterov at 0.1, cosine to 0, batch
    256."""
    return TrainConfig(
        space=NasBench201(),
        genotype=genotype,
        data=DataConfig(source="cifar10", augment=CIFAR_AUGMENT),
        epochs=200,
        batch_size=256,
        auxiliary=False,
        lr=0.1,
        lr_end=0.0,
        schedule="cosine",
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        clip_norm=None,
        drop_path=0.0,
    )


SEARCHES: dict[str, Callable[[], SearchConfig]] = {
    "nas-bench-201-cifar10": nas_bench_201_cifar10,
    "nas-bench-201-cifar10-gdas": nas_bench_201_cifar10_gdas,
    "nas-bench-201-small": nas_bench_201_small,
}
TRAININGS: dict[str, Callable[[Architecture], TrainConfig]] = {
    "nas-bench-201-eval": nas_bench_201_eval,
}
AFTER_DATA = {"cifar10": "nas-bench-201-eval"}
AFTER_SEARCH: dict[str, str] = {}
