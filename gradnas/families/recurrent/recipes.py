"""Recipes of recurrent cells: DARTS on Penn Treebank, WikiText-2 and Python's help texts.

The numbers are those of DARTS (arXiv 1806.09055, appendices A.1.2 and A.2.2) and of its authors'
code, which is followed where the two differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from gradnas.architectures.genotype import Genotype
from gradnas.data import ChunkLengths, TextConfig
from gradnas.gradients import FirstOrder, Unrolled
from gradnas.objectives import TokenLikelihood
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.spaces import RecurrentCell, RecurrentDropout
from gradnas.tasks.text.settings import TextSearchConfig, TextTrainConfig

PTB_SEARCH_UNITS = 300


def darts_ptb() -> TextSearchConfig:
    """DARTS, second order, on Penn Treebank (give its folder with --data): 300 units, 8 nodes, 50
    epochs."""
    dropout = RecurrentDropout(output=0.75, state=0.25, input=0.75, embedding=0.2)
    return TextSearchConfig(
        space=RecurrentCell(
            hidden=PTB_SEARCH_UNITS, embedding=PTB_SEARCH_UNITS, nodes=8, dropout=dropout
        ),
        gradient=Unrolled(mode="finite_difference", epsilon=0.01, clip=True),
        data=TextConfig(source="ptb"),
        objective=TokenLikelihood(slowness=1e-3),
        chunks=ChunkLengths(base=35, short_probability=0.05),
        epochs=50,
        batch_size=256,
        weights=WeightOptimizer(
            lr=20.0, lr_end=20.0, momentum=0.0, weight_decay=5e-7, clip_norm=0.25
        ),
        alphas=AlphaOptimizer(lr=3e-3, betas=(0.9, 0.999), weight_decay=1e-3),
        seed=3,
    )


def darts_ptb_first_order() -> TextSearchConfig:
    """DARTS, first order, on Penn Treebank: as darts-ptb at about 2/5 of the time."""
    return replace(darts_ptb(), gradient=FirstOrder())


def text() -> TextSearchConfig:
    """A search of about a minute and a half on the English help texts that every Python has."""
    return TextSearchConfig(
        space=RecurrentCell(
            hidden=80, embedding=80, nodes=6, dropout=RecurrentDropout(output=0.1, input=0.1)
        ),
        gradient=FirstOrder(),
        data=TextConfig(source="pydoc", level="word"),
        epochs=6,
        warmup_epochs=1,
        batch_size=32,
        weights=WeightOptimizer(
            lr=10.0, lr_end=2.0, momentum=0.0, weight_decay=5e-7, clip_norm=0.25
        ),
        # some hundred steps instead of the 5,000 on Penn Treebank: the alphas must take larger ones
        alphas=AlphaOptimizer(lr=0.03, betas=(0.9, 0.999), weight_decay=1e-3),
        threads=1,  # matrices of this size are too small to share between threads
    )


def darts_ptb_eval(genotype: Genotype) -> TextTrainConfig:
    """DARTS' evaluation on Penn Treebank: 850 units, SGD, then averaged SGD, until you stop it
    (8000 epochs)."""
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


def darts_wikitext2_eval(genotype: Genotype) -> TextTrainConfig:
    """DARTS' evaluation on WikiText-2: as darts-ptb-eval with 700 units and less dropout of
    states."""
    config = darts_ptb_eval(genotype)
    dropout = replace(config.space.dropout, state=0.15)
    space = replace(config.space, hidden=700, embedding=700, dropout=dropout)
    data = TextConfig(source="Salesforce/wikitext:wikitext-2-v1")
    return replace(config, space=space, data=data, weight_decay=5e-7)


def text_eval(genotype: Genotype) -> TextTrainConfig:
    """Training on the help texts of Python in some minutes."""
    return TextTrainConfig(
        space=RecurrentCell(
            hidden=128, embedding=128, dropout=RecurrentDropout(output=0.3, input=0.2, state=0.1)
        ),
        genotype=genotype,
        data=TextConfig(source="pydoc", level="word"),
        chunks=ChunkLengths(base=35, short_probability=0.05, deviation=5.0),
        epochs=12,
        batch_size=20,
        test_batch_size=10,
        lr=10.0,
        weight_decay=1e-6,
        patience=2,
        threads=1,
    )


SEARCHES: dict[str, Callable[[], TextSearchConfig]] = {
    "darts-ptb": darts_ptb,
    "darts-ptb-first-order": darts_ptb_first_order,
    "text": text,
}
TRAININGS: dict[str, Callable[[Genotype], TextTrainConfig]] = {
    "darts-ptb-eval": darts_ptb_eval,
    "darts-wikitext2-eval": darts_wikitext2_eval,
    "text-eval": text_eval,
}
# What the result of a search is trained with when no recipe is named: by its data, else by its own
# recipe.
AFTER_DATA = {"pydoc": "text-eval"}
AFTER_SEARCH = {
    "darts-ptb": "darts-ptb-eval",
    "darts-ptb-first-order": "darts-ptb-eval",
    "text": "text-eval",
}
