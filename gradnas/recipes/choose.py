"""Named settings: each recipe is a function that returns a whole configuration.

Sources are given beside the numbers; where paper and code of DARTS differ, the code that produced the results is
followed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from gradnas.architectures.chain import Chain
from gradnas.architectures.genotype import Genotype
from gradnas.config import did_you_mean, from_json
from gradnas.data import Augment, DataConfig, TextConfig
from gradnas.gradients import FirstOrder, Unrolled
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.programs.image_search import SearchConfig
from gradnas.programs.image_training import TrainConfig
from gradnas.programs.text_search import TextSearchConfig
from gradnas.programs.text_training import TextTrainConfig
from gradnas.recipes import chains as recipes_chain
from gradnas.recipes import text as recipes_text
from gradnas.spaces import ConvCell, ImageSpace, MBConvChain, RecurrentCell

AnySearch = SearchConfig | TextSearchConfig
AnyTraining = TrainConfig | TextTrainConfig

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
        # 12 steps an epoch instead of 391 on CIFAR-10: the alphas must take larger ones to decide anything.
        weights=WeightOptimizer(lr=0.05, lr_end=0.001),
        alphas=AlphaOptimizer(lr=0.1, betas=(0.5, 0.999), weight_decay=1e-3),
        threads=1,  # maps of 8x8 pixels are too small to share between threads
    )


def cifar10_eval(genotype: str) -> TrainConfig:
    """DARTS' evaluation on CIFAR-10: 20 cells, 36 channels, 600 epochs, cutout, auxiliary head, drop path."""
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


def imagenet_eval(genotype: str) -> TrainConfig:
    """DARTS' evaluation on ImageNet, mobile setting: 14 cells, 48 channels, 250 epochs at 224 pixels."""
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


def digits_eval(genotype: str) -> TrainConfig:
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


SEARCHES: dict[str, Callable[[], AnySearch]] = {
    "darts-cifar10": darts_cifar10,
    "darts-cifar10-first-order": darts_cifar10_first_order,
    "digits": digits,
    **recipes_chain.SEARCHES,
    **recipes_text.SEARCHES,
}
TRAININGS: dict[str, Callable[[str], AnyTraining]] = {
    "cifar10-eval": cifar10_eval,
    "imagenet-eval": imagenet_eval,
    "digits-eval": digits_eval,
    **recipes_chain.TRAININGS,
    **recipes_text.TRAININGS,
}
# What the result of a search on these data is trained with when no recipe is named; else with cifar10-eval.
TRAINING_AFTER = {"digits": "digits-eval"}


def search_recipe(name: str) -> AnySearch:
    """A search recipe by name. Raises ValueError that gives the nearest name and all of them."""
    if name not in SEARCHES:
        raise ValueError(
            f"unknown recipe {name!r}{did_you_mean(name, SEARCHES)}; searches: {', '.join(SEARCHES)}"
        )
    return SEARCHES[name]()


def training_recipe(name: str, genotype: str) -> AnyTraining:
    """A training recipe by name. Raises ValueError that gives the nearest name and all of them."""
    if name not in TRAININGS:
        raise ValueError(
            f"unknown recipe {name!r}{did_you_mean(name, TRAININGS)}; trainings: {', '.join(TRAININGS)}"
        )
    return TRAININGS[name](genotype)


def training_after(genotype: Genotype | Chain, what: str, source: str | None) -> str:
    """The recipe that an architecture is trained with when none is named: by its kind and the data it was found on."""
    if isinstance(genotype, Genotype) and genotype.kind == "recurrent":
        return recipes_text.TRAINING_AFTER.get(source or "", "darts-ptb-eval")
    if isinstance(genotype, Genotype):
        return TRAINING_AFTER.get(source or "", "cifar10-eval")
    if what in Chain.names():
        return "proxyless-imagenet-eval"
    return recipes_chain.TRAINING_AFTER.get(source or "", "proxyless-cifar10-eval")


def space_of(what: str, searched: Mapping[str, Any] | None) -> ImageSpace | None:
    """The space of a published chain, or of the run with this entry in its configuration; None where it is unknown."""
    if what in Chain.names():
        return MBConvChain.named(what)
    if searched is None or searched.get("type") not in (MBConvChain.__name__, ConvCell.__name__):
        return None
    return from_json(ImageSpace, dict(searched), "config.space")


def training_data(config: AnyTraining, searched: Mapping[str, Any]) -> Any:
    """The data to train on: those of the search before it (`searched`, the entry of its configuration), where there
    was one."""
    if not searched.get("source"):
        return config.data
    kept = ("source", "level", "min_count") if isinstance(config.data, TextConfig) else ("source",)
    return replace(config.data, **{name: searched[name] for name in kept if name in searched})


def training_space(
    config: AnyTraining, genotype: Genotype | Chain, what: str, searched: Mapping[str, Any] | None
) -> ImageSpace | RecurrentCell:
    """The size of network to train: a chain at its own, cells at that of the recipe.

    Raises:
        ValueError: a chain with a recipe for cells, a recurrent cell with one for images, or the other way round.
    """
    space = config.space
    recurrent = isinstance(genotype, Genotype) and genotype.kind == "recurrent"
    if isinstance(space, RecurrentCell) != recurrent:
        kind = "a recurrent cell" if recurrent else "an architecture for images"
        raise ValueError(
            f"{what} is {kind}, and the recipe trains another kind of network: choose another --recipe"
        )
    if isinstance(space, RecurrentCell):
        assert isinstance(genotype, Genotype)
        return replace(space, nodes=len(genotype.recurrent))
    if isinstance(space, ConvCell) != isinstance(genotype, Genotype):
        kind = "cells" if isinstance(genotype, Genotype) else "a chain"
        raise ValueError(
            f"{what} is {kind}, and the recipe trains another kind of network: choose another --recipe"
        )
    if isinstance(space, MBConvChain):
        own = space_of(what, searched)
        if not isinstance(own, MBConvChain):
            return space
        return own if what in Chain.names() else replace(own, dropout=space.dropout)
    # Random cells for comparison are then drawn with as many nodes.
    assert isinstance(space, ConvCell) and isinstance(genotype, Genotype)
    return replace(space, nodes=len(genotype.normal) // 2)
