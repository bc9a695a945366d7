"""Named settings: each recipe is a function that returns a whole configuration.

Sources are given beside the numbers; where paper and code of DARTS differ, the code that produced the results is
followed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gradnas.config import did_you_mean
from gradnas.data import Augment, ChunkLengths, DataConfig, TextConfig
from gradnas.experiment import SearchConfig
from gradnas.gradients import FirstOrder, Unrolled
from gradnas.objectives import TokenLikelihood
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.spaces import ConvCell, RecurrentCell, RecurrentDropout
from gradnas.text_search import TextSearchConfig
from gradnas.text_training import TextTrainConfig
from gradnas.training import TrainConfig

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
        weights=WeightOptimizer(lr=0.025, lr_end=0.001, momentum=0.9, weight_decay=3e-4, clip_norm=5.0),
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


def darts_ptb() -> TextSearchConfig:
    """DARTS, second order, on Penn Treebank (give its folder with --data): 300 units, 8 nodes, 50 epochs."""
    dropout = RecurrentDropout(output=0.75, state=0.25, input=0.75, embedding=0.2)
    return TextSearchConfig(
        space=RecurrentCell(hidden=300, embedding=300, nodes=8, dropout=dropout),
        gradient=Unrolled(mode="finite_difference", epsilon=0.01, clip=True),
        data=TextConfig(source="ptb"),
        objective=TokenLikelihood(slowness=1e-3),
        chunks=ChunkLengths(base=35, short_probability=0.05),
        epochs=50,
        batch_size=256,
        weights=WeightOptimizer(lr=20.0, lr_end=20.0, momentum=0.0, weight_decay=5e-7, clip_norm=0.25),
        alphas=AlphaOptimizer(lr=3e-3, betas=(0.9, 0.999), weight_decay=1e-3),
        seed=3,
    )


def darts_ptb_first_order() -> TextSearchConfig:
    """DARTS, first order, on Penn Treebank: as darts-ptb at about 2/5 of the time."""
    return replace(darts_ptb(), gradient=FirstOrder())


def text() -> TextSearchConfig:
    """A search of about a minute and a half on the English help texts that every Python has."""
    return TextSearchConfig(
        space=RecurrentCell(hidden=80, embedding=80, nodes=6, dropout=RecurrentDropout(output=0.1, input=0.1)),
        gradient=FirstOrder(),
        data=TextConfig(source="pydoc", level="word", min_count=3),
        epochs=6,
        warmup_epochs=1,
        batch_size=32,
        weights=WeightOptimizer(lr=10.0, lr_end=2.0, momentum=0.0, weight_decay=5e-7, clip_norm=0.25),
        # some hundred steps instead of the 5,000 on Penn Treebank: the alphas must take larger ones
        alphas=AlphaOptimizer(lr=0.03, betas=(0.9, 0.999), weight_decay=1e-3),
        threads=1,  # matrices of this size are too small to share between threads
    )


def darts_ptb_eval(genotype: str) -> TextTrainConfig:
    """DARTS' evaluation on Penn Treebank: 850 units, SGD, then averaged SGD, until you stop it (8000 epochs)."""
    dropout = RecurrentDropout(output=0.75, state=0.25, input=0.75, embedding=0.2, words=0.1)
    return TextTrainConfig(
        space=RecurrentCell(hidden=850, embedding=850, dropout=dropout),
        genotype=genotype,
        data=TextConfig(source="ptb"),
        objective=TokenLikelihood(slowness=1e-3),
        chunks=ChunkLengths(base=35, short_probability=0.05, deviation=5.0),
        epochs=8000,
        batch_size=64,
        eval_batch_size=10,
        test_batch_size=1,
        lr=20.0,
        weight_decay=8e-7,
        clip_norm=0.25,
        patience=5,
        seed=1267,
    )


def darts_wikitext2_eval(genotype: str) -> TextTrainConfig:
    """DARTS' evaluation on WikiText-2: as darts-ptb-eval with 700 units and less dropout of states."""
    config = darts_ptb_eval(genotype)
    dropout = replace(config.space.dropout, state=0.15)
    space = replace(config.space, hidden=700, embedding=700, dropout=dropout)
    data = TextConfig(source="Salesforce/wikitext:wikitext-2-v1")
    return replace(config, space=space, data=data, weight_decay=5e-7)


def text_eval(genotype: str) -> TextTrainConfig:
    """Training on the help texts of Python in some minutes."""
    return TextTrainConfig(
        space=RecurrentCell(hidden=128, embedding=128, dropout=RecurrentDropout(output=0.3, input=0.2, state=0.1)),
        genotype=genotype,
        data=TextConfig(source="pydoc", level="word", min_count=3),
        chunks=ChunkLengths(base=35, short_probability=0.05, deviation=5.0),
        epochs=12,
        batch_size=20,
        test_batch_size=10,
        lr=10.0,
        weight_decay=1e-6,
        patience=2,
        threads=1,
    )


SEARCHES: dict[str, Callable[[], AnySearch]] = {
    "darts-cifar10": darts_cifar10,
    "darts-cifar10-first-order": darts_cifar10_first_order,
    "darts-ptb": darts_ptb,
    "darts-ptb-first-order": darts_ptb_first_order,
    "digits": digits,
    "text": text,
}
TRAININGS: dict[str, Callable[[str], AnyTraining]] = {
    "cifar10-eval": cifar10_eval,
    "imagenet-eval": imagenet_eval,
    "darts-ptb-eval": darts_ptb_eval,
    "darts-wikitext2-eval": darts_wikitext2_eval,
    "digits-eval": digits_eval,
    "text-eval": text_eval,
}
# What the result of a search on these data is trained with when no recipe is named; else with cifar10-eval.
TRAINING_AFTER = {"digits": "digits-eval", "pydoc": "text-eval"}
DEFAULT_TRAININGS = {"conv": "cifar10-eval", "recurrent": "darts-ptb-eval"}


def search_recipe(name: str) -> AnySearch:
    """A search recipe by name. Raises ValueError that gives the nearest name and all of them."""
    if name not in SEARCHES:
        raise ValueError(f"unknown recipe {name!r}{did_you_mean(name, SEARCHES)}; searches: {', '.join(SEARCHES)}")
    return SEARCHES[name]()


def training_recipe(name: str, genotype: str) -> AnyTraining:
    """A training recipe by name. Raises ValueError that gives the nearest name and all of them."""
    if name not in TRAININGS:
        raise ValueError(f"unknown recipe {name!r}{did_you_mean(name, TRAININGS)}; trainings: {', '.join(TRAININGS)}")
    return TRAININGS[name](genotype)
