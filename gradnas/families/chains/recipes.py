"""Recipes of chains: ProxylessNAS on ImageNet, CIFAR-10 and digits, and NAS-Bench-Macro.

Sources are given beside the numbers. Where the paper and the code of its authors differ, the code
is followed; what neither tells (they released no search on CIFAR-10) is ours, and said so.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gradnas.architectures.base import Architecture
from gradnas.data import Augment, DataConfig
from gradnas.gradients import FirstOrder
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.relaxations import BinaryGates, Softmax
from gradnas.selections import ScoreSelection
from gradnas.spaces import MBConvChain, Stage
from gradnas.tasks.images.settings import SearchConfig, TrainConfig

CIFAR_AUGMENT = Augment(crop_padding=4, flip=True)
CIFAR_SPACE = MBConvChain(
    stem_stride=1,
    stages=(
        Stage(24, 4),
        Stage(40, 4, 2),
        Stage(80, 4, 2),
        Stage(96, 4),
        Stage(192, 4, 2),
        Stage(320, 1),
    ),
    image_size=32,
)
DIGITS_SPACE = MBConvChain(
    stem_width=16,
    stem_stride=1,
    first_width=None,
    stages=(Stage(16, 2), Stage(32, 2, 2), Stage(48, 2, 2)),
    candidates=("mb3_k3", "mb6_k3", "mb6_k5", "zero"),
    last_width=128,
    image_size=8,
)


def proxyless_imagenet() -> SearchConfig:
    """ProxylessNAS, gradient version, on ImageNet: 40 epochs of warm-up, then 120 of search."""
    return SearchConfig(
        space=MBConvChain(),
        relaxation=BinaryGates(mode="recompute"),
        gradient=FirstOrder(),
        data=DataConfig(
            source="ILSVRC/imagenet-1k",
            image_size=224,
            augment=Augment(
                resized_crop=(0.08, 1.0), flip=True, color_jitter=(32.0 / 255.0, 0.0, 0.5, 0.0)
            ),
            workers=8,
        ),
        valid_per_class=50,
        split_seed=0,
        label_smoothing=0.1,
        epochs=160,
        warmup_epochs=40,
        alpha_every=5,
        batch_size=256,
        weights=WeightOptimizer(
            lr=0.025,
            lr_end=0.0,
            momentum=0.9,
            nesterov=True,
            weight_decay=4e-5,
            clip_norm=None,
            per_iteration=True,
            warmup_lr=0.05,
        ),
        alphas=AlphaOptimizer(lr=1e-3, betas=(0.0, 0.999), weight_decay=0.0),
    )


def proxyless_cifar10() -> SearchConfig:
    """ProxylessNAS, two paths, on CIFAR-10: the chain of ImageNet at 32 pixels, 500 images of each
    class for alpha."""
    # 5,000 images for alpha and 200 epochs are the paper's; its space (a tree in a PyramidNet) is
    # another.
    config = proxyless_imagenet()
    return replace(
        config,
        space=CIFAR_SPACE,
        relaxation=BinaryGates(mode="two"),
        data=DataConfig(source="cifar10", augment=CIFAR_AUGMENT),
        valid_per_class=500,
        epochs=200,
        alphas=replace(config.alphas or AlphaOptimizer(), lr=6e-3),
        batch_size=128,
    )


def proxyless_digits() -> SearchConfig:
    """ProxylessNAS, two paths, on scikit-learn's 8x8 digits in about a minute."""
    config = proxyless_imagenet()
    return replace(
        config,
        space=DIGITS_SPACE,
        relaxation=BinaryGates(mode="two"),
        data=DataConfig(source="digits", augment=Augment(crop_padding=1)),
        valid_per_class=40,
        label_smoothing=0.0,
        epochs=20,
        warmup_epochs=5,
        alpha_every=1,
        batch_size=32,
        weights=replace(config.weights, lr=0.05, warmup_lr=0.05, clip_norm=5.0),
        # 33 steps an epoch instead of 5,000 on ImageNet: the alphas must take larger ones to decide
        # anything.
        alphas=AlphaOptimizer(lr=0.05, betas=(0.0, 0.999), weight_decay=0.0),
        threads=1,  # maps of 8x8 pixels are too small to share between threads
    )


def nas_bench_macro_cifar10() -> SearchConfig:
    """ProxylessNAS, two paths, on CIFAR-10 in the public benchmark space of 6,561 chains (Su et
    al., CVPR 2021)."""
    config = proxyless_cifar10()
    return replace(config, space=MBConvChain.named("nas-bench-macro"), epochs=60, warmup_epochs=15)


def nas_bench_macro_small() -> SearchConfig:
    """Mixtures in the space of NAS-Bench-Macro for a CPU: 1,800 images of CIFAR-10 at 16 pixels, 8
    epochs, and of 288 candidates the best by SWAP; within some minutes of one core."""
    # Alphas and weights of so few steps do not order these chains as whole trainings do (within 60
    # million multiply-adds the likeliest may be below the mean); the number of patterns of
    # activation does, as far as it goes.
    config = nas_bench_macro_cifar10()
    return replace(
        config,
        relaxation=Softmax(),
        data=replace(config.data, image_size=16, per_class=180),
        valid_per_class=80,
        label_smoothing=0.0,
        epochs=8,
        warmup_epochs=2,
        alpha_every=1,
        batch_size=32,
        weights=replace(config.weights, lr=0.05, warmup_lr=0.05, clip_norm=5.0),
        alphas=AlphaOptimizer(lr=0.01, betas=(0.5, 0.999), weight_decay=1e-3),
        selection=ScoreSelection(likeliest=32, random=256),
        # A budget is for the images of the benchmark, whatever the search reads.
        cost_image_size=32,
        threads=1,
    )


def proxyless_imagenet_eval(genotype: Architecture) -> TrainConfig:
    """The authors' training of a chain on ImageNet: 300 epochs, cosine per step, no decay on
    BatchNorm."""
    jitter = (0.4, 0.4, 0.4, 0.1)
    return TrainConfig(
        space=MBConvChain(dropout=0.1),
        genotype=genotype,
        data=DataConfig(
            source="ILSVRC/imagenet-1k",
            image_size=224,
            augment=Augment(resized_crop=(0.08, 1.0), flip=True, color_jitter=jitter),
            workers=8,
        ),
        epochs=300,
        batch_size=256,
        auxiliary=False,
        label_smoothing=0.1,
        lr=0.05,
        lr_end=0.0,
        schedule="cosine",
        per_iteration=True,
        momentum=0.9,
        nesterov=True,
        weight_decay=4e-5,
        no_decay="norms",
        clip_norm=None,
        drop_path=0.0,
    )


def proxyless_cifar10_eval(genotype: Architecture) -> TrainConfig:
    """A chain on CIFAR-10 with the settings of proxyless-imagenet-eval, cutout, and twice its
    learning rate."""
    return replace(
        proxyless_imagenet_eval(genotype),
        space=CIFAR_SPACE,
        data=DataConfig(source="cifar10", augment=replace(CIFAR_AUGMENT, cutout=16)),
        batch_size=128,
        lr=0.1,
        weight_decay=3e-4,
    )


def proxyless_digits_eval(genotype: Architecture) -> TrainConfig:
    """Training a chain on the 8x8 digits in some seconds."""
    return replace(
        proxyless_cifar10_eval(genotype),
        space=DIGITS_SPACE,
        data=DataConfig(source="digits", augment=Augment(crop_padding=1)),
        epochs=20,
        batch_size=64,
        threads=1,
    )


SEARCHES: dict[str, Callable[[], SearchConfig]] = {
    "proxyless-imagenet": proxyless_imagenet,
    "proxyless-cifar10": proxyless_cifar10,
    "proxyless-digits": proxyless_digits,
    "nas-bench-macro-cifar10": nas_bench_macro_cifar10,
    "nas-bench-macro-small": nas_bench_macro_small,
}
TRAININGS: dict[str, Callable[[Architecture], TrainConfig]] = {
    "proxyless-imagenet-eval": proxyless_imagenet_eval,
    "proxyless-cifar10-eval": proxyless_cifar10_eval,
    "proxyless-digits-eval": proxyless_digits_eval,
}
# What a chain is trained with when no recipe is named: by the data that it was found on, else by
# the recipe of its search, else with proxyless-cifar10-eval (for images of any size: a chain keeps
# its own).
AFTER_DATA = {
    "digits": "proxyless-digits-eval",
    "cifar10": "proxyless-cifar10-eval",
    "ILSVRC/imagenet-1k": "proxyless-imagenet-eval",
}
AFTER_SEARCH = {"proxyless-digits": "proxyless-digits-eval"}
