"""Recipes of convolutional cells: DARTS on CIFAR-10 and ImageNet, and on scikit-learn's digits.

Sources are given beside the numbers; where paper and code of DARTS differ, the code that produced
the results is followed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gradnas.architectures.base import Architecture
from gradnas.data import Augment, DataConfig
from gradnas.gradients import FirstOrder, Unrolled
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.spaces import ConvCell
from gradnas.tasks.images.settings import SearchConfig, TrainConfig

CIFAR_AUGMENT = Augment(crop_padding=4, flip=True)


def darts_cifar10() -> SearchConfig:
    """DARTS, second order, on CIFAR-10: 8 cells, 16 channels, 50 epochs (DARTS section 3.1)."""
    return SearchConfig(
        space=ConvCell(channels=16, cells=8, nodes=4),
        gradient=Unrolled(mode="finite_difference", epsilon=0.01),
        data=DataConfig(source="cifar10", augment=CIFAR_AUGMENT),
        epochs=50,
        batch_size=64,
        weights=WeightOptimizer(
            lr=0.025, lr_end=0.001, momentum=0.9, weight_decay=3e-4, clip_norm=5.0
        ),
        alphas=AlphaOptimizer(lr=3e-4, betas=(0.5, 0.999), weight_decay=1e-3),
        seed=2,
    )


def darts_cifar10_first_order() -> SearchConfig:
    """DARTS, first order, on CIFAR-10: as darts-cifar10 at about 2/5 of the time."""
    return replace(darts_cifar10(), gradient=FirstOrder())


def darts_s1_cifar10() -> SearchConfig:
    """DARTS, second order, in the space S1 of Zela et al. (ICLR 2020): two operations of its own on
    every edge."""
    return replace(darts_cifar10(), space=ConvCell.named("S1"))


def darts_s2_cifar10() -> SearchConfig:
    """The same in S2: skip connections and separable convolutions."""
    return replace(darts_cifar10(), space=ConvCell.named("S2"))


def darts_s3_cifar10() -> SearchConfig:
    """The same in S3: as S2, with none."""
    return replace(darts_cifar10(), space=ConvCell.named("S3"))


def darts_s4_cifar10() -> SearchConfig:
    """The same in S4: separable convolutions, and random numbers as the trap."""
    return replace(darts_cifar10(), space=ConvCell.named("S4"))


def digits() -> SearchConfig:
    """A search of about a minute on scikit-learn's 8x8 digits, which every installation has."""
    return SearchConfig(
        space=ConvCell(channels=8, cells=3, nodes=3),
        gradient=FirstOrder(),
        data=DataConfig(source="digits", augment=Augment(crop_padding=1)),
        split_seed=0,
        epochs=10,
        warmup_epochs=2,
        batch_size=64,
        # 12 steps an epoch instead of 391 on CIFAR-10: the alphas must take larger ones to decide
        # anything.
        weights=WeightOptimizer(lr=0.05, lr_end=0.001),
        alphas=AlphaOptimizer(lr=0.1, betas=(0.5, 0.999), weight_decay=1e-3),
        threads=1,  # maps of 8x8 pixels are too small to share between threads
    )


def cifar10_eval(genotype: Architecture) -> TrainConfig:
    """DARTS' evaluation on CIFAR-10: 20 cells, 36 channels, 600 epochs, cutout, auxiliary head,
    drop path."""
    return TrainConfig(
        space=ConvCell(channels=36, cells=20),
        genotype=genotype,
        data=DataConfig(source="cifar10", augment=Augment(crop_padding=4, flip=True, cutout=16)),
        epochs=600,
        batch_size=96,
        auxiliary=True,
        auxiliary_weight=0.4,
        lr=0.025,
        lr_end=0.0,
        schedule="cosine",
        momentum=0.9,
        weight_decay=3e-4,
        clip_norm=5.0,
        drop_path=0.2,
    )


def imagenet_eval(genotype: Architecture) -> TrainConfig:
    """DARTS' evaluation on ImageNet, mobile setting: 14 cells, 48 channels, 250 epochs at 224
    pixels."""
    jitter = (0.4, 0.4, 0.4, 0.2)
    return TrainConfig(
        space=ConvCell(channels=48, cells=14, stem="imagenet"),
        genotype=genotype,
        data=DataConfig(
            source="ILSVRC/imagenet-1k",
            image_size=224,
            augment=Augment(resized_crop=(0.08, 1.0), flip=True, color_jitter=jitter),
            workers=4,
        ),
        epochs=250,
        batch_size=128,
        auxiliary=True,
        auxiliary_weight=0.4,
        label_smoothing=0.1,
        lr=0.1,
        schedule="exponential",
        gamma=0.97,
        momentum=0.9,
        weight_decay=3e-5,
        clip_norm=5.0,
        drop_path=0.0,
    )


def digits_eval(genotype: Architecture) -> TrainConfig:
    """Training on the 8x8 digits in some seconds."""
    return TrainConfig(
        space=ConvCell(channels=8, cells=3),
        genotype=genotype,
        data=DataConfig(source="digits", augment=Augment(crop_padding=1)),
        epochs=14,
        batch_size=96,
        auxiliary=False,
        lr=0.05,
        drop_path=0.0,
        threads=1,
    )


SEARCHES: dict[str, Callable[[], SearchConfig]] = {
    "darts-cifar10": darts_cifar10,
    "darts-cifar10-first-order": darts_cifar10_first_order,
    "darts-s1-cifar10": darts_s1_cifar10,
    "darts-s2-cifar10": darts_s2_cifar10,
    "darts-s3-cifar10": darts_s3_cifar10,
    "darts-s4-cifar10": darts_s4_cifar10,
    "digits": digits,
}
TRAININGS: dict[str, Callable[[Architecture], TrainConfig]] = {
    "cifar10-eval": cifar10_eval,
    "imagenet-eval": imagenet_eval,
    "digits-eval": digits_eval,
}
# What the result of a search is trained with when no recipe is named: by its data, else by its own
# recipe, else with cifar10-eval.
AFTER_DATA = {"digits": "digits-eval", "cifar10": "cifar10-eval"}
AFTER_SEARCH = {
    "darts-cifar10": "cifar10-eval",
    "darts-cifar10-first-order": "cifar10-eval",
    "digits": "digits-eval",
}
