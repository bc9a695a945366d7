"""The methods that `proving_ground.py` compares, by name, and the settings in which it does.

A method is a line of `METHODS`: what it changes of the configuration of a plain search (softmax,
first order, no term, no stabilizer), and where it needs that, how it answers in place of what the
search derives. Keep to the settings of its paper, scaled by nothing but the number of epochs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from gradnas import (
    AlphaOptimizer,
    AuxiliarySkip,
    BetaDecay,
    BinaryGates,
    Dirichlet,
    GumbelSoftmax,
    NasBench201,
    OperationFreezing,
    PartialChannels,
    PerturbationSelection,
    PerturbedAlphas,
    Relaxation,
    ScoreSelection,
    Sigmoid,
    Stabilizer,
    Unrolled,
    ZeroOne,
)
from gradnas.architectures.base import Architecture
from gradnas.data import Augment, DataConfig
from gradnas.families.recipes import search_recipe
from gradnas.search.proxies import Swap
from gradnas.tasks.baselines import RandomSearch, trials_at_equal_cost
from gradnas.tasks.images import IMAGES
from gradnas.tasks.images.settings import SearchConfig

Change = Callable[[SearchConfig], SearchConfig]


@dataclass(frozen=True)
class Answer:
    """What a method without a search gives.

    Attributes:
        architecture: its answer.
        tried: architectures that it trained or scored.
    """

    architecture: Architecture
    tried: int


@dataclass(frozen=True)
class Method:
    """One line of the table.

    Attributes:
        about: the paper, and what differs from it.
        change: of the configuration of the plain search.
        derive: the finished live search (`gradnas.tasks.search.SearchTask`) -> its answer; None:
            what the search derives by itself.
        answer: (configuration, data) -> an answer without a search; None: there is one.
    """

    about: str
    change: Change = lambda config: config
    derive: Callable[[Any], Architecture] | None = None
    answer: Callable[[SearchConfig, Any], Answer] | None = None


# ---- settings ------------------------------------------------------------------------------------


def small() -> SearchConfig:
    """Recipe nas-bench-201-small without its term: 4,000 + 4,000 images at 16 pixels."""
    return replace(_plain(search_recipe("nas-bench-201-small")), terms=())


def tiny() -> SearchConfig:
    """4 channels, one cell a stage, 1,600 + 1,600 images at 16 pixels, 20 epochs: a minute."""
    config = small()
    data = replace(config.data, per_class=320)
    return replace(
        config,
        space=NasBench201(channels=4, cells=1),
        data=data,
        epochs=20,
        # 25 steps an epoch: the alphas need a larger rate to decide anything.
        alphas=replace(config.alphas or AlphaOptimizer(), lr=1e-2),
    )


def medium() -> SearchConfig:
    """As tiny, with 3,200 + 3,200 images, and so twice as many steps: four minutes."""
    config = tiny()
    return replace(config, data=replace(config.data, per_class=640))


def mini() -> SearchConfig:
    """As tiny, with 800 + 800 images at 12 pixels, batches of 32 and 16 epochs: half a minute."""
    config = tiny()
    data = replace(config.data, per_class=160, image_size=12)
    return replace(config, data=data, epochs=16, batch_size=32)


def trial() -> SearchConfig:
    """Some seconds on digits, to see that every method runs; its figures mean nothing."""
    config = tiny()
    data = DataConfig(source="digits", augment=Augment(crop_padding=1), per_class=10)
    return replace(config, data=data, epochs=2, batch_size=25)


def digits() -> SearchConfig:
    """On 8x8 digits, where softmax is known to collapse (`--guard`): 60 steps an epoch, 16 epochs.

    The truth is that of other images: it says what the cells are, not how good they are here.
    """
    config = tiny()
    data = DataConfig(source="digits", augment=Augment(crop_padding=1))
    weights = replace(config.weights, lr=0.05)
    return replace(config, data=data, weights=weights, batch_size=12, epochs=16)


def deep() -> SearchConfig:
    """As digits, three cells a stage, as skip connections win in deep supernets (`--guard`)."""
    config = digits()
    alphas = replace(config.alphas or AlphaOptimizer(), lr=3e-2)
    space = NasBench201(channels=4, cells=3)
    return replace(config, space=space, alphas=alphas, batch_size=24, epochs=24)


def _plain(config: Any) -> SearchConfig:
    assert isinstance(config, SearchConfig)
    # No look at what was decided: the truth is known, and it would cost a tenth of the search.
    return replace(config, candidates=0, checkpoint_seconds=1e9)


def with_relaxation(config: SearchConfig, relaxation: Relaxation) -> SearchConfig:
    """Another relaxation, with the betas and the weight decay of the alphas that fit it.

    The rate of the alphas stays that of the setting.
    """
    alphas = config.alphas or AlphaOptimizer()
    fitting = replace(alphas, **relaxation.alpha_defaults)
    return replace(config, relaxation=relaxation, alphas=replace(fitting, lr=alphas.lr))


def with_stabilizer(config: SearchConfig, stabilizer: Stabilizer) -> SearchConfig:
    """With one thing that keeps the weights from letting the search collapse."""
    return replace(config, stabilizers=(stabilizer,))


def partial_channels(config: SearchConfig) -> SearchConfig:
    """Operations on a quarter of the channels; the alphas wait for 15 of 50 epochs."""
    config = with_relaxation(config, PartialChannels(4))
    return replace(config, warmup_epochs=round(0.3 * config.epochs))


def longer(config: SearchConfig) -> SearchConfig:
    """Four times as many epochs, and three times the rate of the alphas."""
    alphas = config.alphas or AlphaOptimizer()
    return replace(config, epochs=4 * config.epochs, alphas=replace(alphas, lr=3 * alphas.lr))


def faster(config: SearchConfig) -> SearchConfig:
    """Ten times the rate of the alphas, as of ten times as many of their steps."""
    alphas = config.alphas or AlphaOptimizer()
    return replace(config, alphas=replace(alphas, lr=10 * alphas.lr))


def perturbation(config: SearchConfig, **options: Any) -> SearchConfig:
    """The last epochs, a fifth of 25, are those of the selection: a round in each."""
    setting = PerturbationSelection(interval=1, **options)
    # A setting that is too short for its rounds is one to try things out in.
    return replace(config, selection=setting, epochs=max(config.epochs, 6))


def random_cells(config: SearchConfig, data: Any, pool: int | None = None) -> Answer:
    """The best of as many random cells as the search costs, each trained for two epochs.

    Args:
        pool: the best of so many times as many by their scores are trained.
    """
    task = IMAGES.search_task(config, data, torch.device("cpu"))
    trials = trials_at_equal_cost(task, epochs=2)
    drawn = None if pool is None else pool * trials
    found = RandomSearch(trials, epochs=2, pool=drawn, proxy=Swap(repeats=8)).run(task)
    return Answer(found[0].architecture, len(found))


SETTINGS: dict[str, Callable[[], SearchConfig]] = {
    "small": small,
    "medium": medium,
    "tiny": tiny,
    "mini": mini,
    "digits": digits,
    "deep": deep,
    "trial": trial,
}


# ---- methods -------------------------------------------------------------------------------------

METHODS: dict[str, Method] = {
    "softmax": Method("DARTS, first order (Liu et al., ICLR 2019)"),
    "softmax-long": Method("as softmax, four times as long with thrice the rate of alphas", longer),
    "softmax-fast": Method("as softmax, ten times the rate of the alphas", faster),
    "softmax-unrolled": Method(
        "DARTS, second order, by finite differences",
        lambda config: replace(config, gradient=Unrolled(mode="finite_difference")),
    ),
    "gumbel-hard": Method(
        "GDAS (Dong and Yang, CVPR 2019): without the bare scalars of its code",
        lambda config: with_relaxation(config, GumbelSoftmax(hard=True)),
    ),
    "gumbel-soft": Method(
        "SNAS (Xie et al., ICLR 2019): bilevel, temperature 1 to 0.03",
        lambda config: with_relaxation(
            config, GumbelSoftmax(hard=False, temperature=1.0, temperature_end=0.03)
        ),
    ),
    "gates": Method(
        "ProxylessNAS' gates, the others recomputed (Cai et al., ICLR 2019)",
        lambda config: with_relaxation(config, BinaryGates(mode="recompute")),
    ),
    "sigmoid": Method(
        "FairDARTS' gates alone (Chu et al., ECCV 2020): no zero-one term, the strongest derived",
        lambda config: with_relaxation(config, Sigmoid()),
    ),
    "fair-darts": Method(
        "FairDARTS (Chu et al., ECCV 2020): gates and zero-one term; the strongest derived",
        lambda config: replace(with_relaxation(config, Sigmoid()), terms=(ZeroOne(),)),
    ),
    "gumbel-probed": Method(
        "hard Gumbel samples, the others recomputed for the gradient; temperature 1",
        lambda config: with_relaxation(
            config, GumbelSoftmax(probe="recompute", temperature=1.0, temperature_end=1.0)
        ),
    ),
    "beta-decay": Method(
        "beta-DARTS (Ye et al., CVPR 2022): lambda to 25, as of 50 epochs",
        lambda config: replace(config, terms=(BetaDecay(end=25.0),)),
    ),
    "beta-decay-scores": Method(
        "beta-DARTS, of the 64 likeliest cells the best by SWAP (Peng et al., ICLR 2024)",
        lambda config: replace(
            config,
            terms=(BetaDecay(end=25.0),),
            selection=ScoreSelection(likeliest=64, random=0),
        ),
    ),
    "scores": Method(
        "of 64 random cells the best by SWAP; the search plays no part",
        lambda config: replace(config, selection=ScoreSelection(likeliest=0, random=64), epochs=1),
    ),
    "partial-channels": Method(
        "PC-DARTS (Xu et al., ICLR 2020): k = 4 with edge normalisation; batch and rate as plain",
        partial_channels,
    ),
    "dirichlet": Method(
        "DrNAS (Chen et al., ICLR 2021): not progressive, pull by weight decay",
        lambda config: with_relaxation(config, Dirichlet()),
    ),
    "darts-pt": Method(
        "DARTS-PT (Wang et al., ICLR 2021): a round in each of the last epochs",
        perturbation,
    ),
    "darts-pt-loss": Method(
        "DARTS-PT by the loss instead of the accuracy",
        lambda config: perturbation(config, criterion="loss"),
    ),
    "darts-pt-blank": Method(
        "DARTS-PT with alphas that never learn",
        lambda config: perturbation(config, learn_alphas=False),
    ),
    "sdarts-rs": Method(
        "SDARTS-RS (Chen and Hsieh, ICML 2020)",
        lambda config: with_stabilizer(config, PerturbedAlphas()),
    ),
    "darts-minus": Method(
        "DARTS- (Chu et al., ICLR 2021): linear decay",
        lambda config: with_stabilizer(config, AuxiliarySkip()),
    ),
    "oles": Method(
        "OLES (Jiang et al., NeurIPS 2023): the released comparison, threshold 0.4",
        lambda config: with_stabilizer(config, OperationFreezing()),
    ),
    "random-short": Method(
        "random cells, two epochs each, as many as the multiply-adds of the search allow",
        answer=random_cells,
    ),
    "random-swap": Method(
        "the same, of five times as many the best by SWAP (Peng et al., ICLR 2024)",
        answer=lambda config, data: random_cells(config, data, pool=5),
    ),
}
