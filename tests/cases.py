"""Lists of everything there is one of several of: a test that can, runs over all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradnas

ROOT = Path(__file__).resolve().parents[1]
SHARED_DATA = ROOT.parent / "shared" / "data"
# Drawn corpora to read; GRADNAS_CORPORA=100 for a long look.
CORPUS_EXAMPLES = int(os.environ.get("GRADNAS_CORPORA", "15"))

RELAXATIONS = [
    gradnas.Softmax(),
    gradnas.GumbelSoftmax(hard=True),
    gradnas.GumbelSoftmax(hard=False),
    gradnas.GumbelSoftmax(hard=True, temperature=1.0, temperature_end=1.0),
    gradnas.GumbelSoftmax(hard=True, probe="recompute"),
    gradnas.Dirichlet(),
    gradnas.BinaryGates(mode="full"),
    gradnas.BinaryGates(mode="recompute"),
    gradnas.BinaryGates(mode="two"),
    gradnas.Sigmoid(),
]
GRADIENTS = [
    gradnas.FirstOrder(),
    gradnas.Unrolled(mode="finite_difference"),
    gradnas.Unrolled(mode="exact"),
    gradnas.Unrolled(mode="exact", steps=2),
    gradnas.Implicit(solver="neumann", steps=3),
    gradnas.Implicit(solver="cg", steps=3),
]
# Small ones of every kind, for images of 8 pixels.
SPACES = {
    "cells": gradnas.ConvCell(channels=4, cells=3, nodes=2),
    "cells S1": gradnas.ConvCell.named("S1", channels=4, cells=2),
    "chain": gradnas.MBConvChain(
        stem_width=4,
        stem_stride=1,
        first_width=None,
        stages=(gradnas.Stage(4, 2), gradnas.Stage(6, 2, 2)),
        candidates=("mb1_k3", "mb2_k3", "identity"),
        last_width=8,
        image_size=8,
    ),
    "nas-bench-201": gradnas.NasBench201(channels=4, cells=1),
}
# What a paper changes of a plain search (softmax, the strongest operations), by its name here.
METHODS = {
    "softmax": {},
    "beta decay": {"terms": (gradnas.BetaDecay(),)},
    "sigmoid": {"relaxation": gradnas.Sigmoid()},
    "sigmoid, zero-one": {"relaxation": gradnas.Sigmoid(), "terms": (gradnas.ZeroOne(),)},
    "Dirichlet": {"relaxation": gradnas.Dirichlet()},
    "Dirichlet, divergence": {
        "relaxation": gradnas.Dirichlet(),
        "terms": (gradnas.DirichletKL(),),
    },
    "Gumbel, soft": {"relaxation": gradnas.GumbelSoftmax(hard=False)},
    "Gumbel, hard": {"relaxation": gradnas.GumbelSoftmax(hard=True)},
    "Gumbel, hard, probed": {"relaxation": gradnas.GumbelSoftmax(hard=True, probe="recompute")},
    "gates, all probed": {"relaxation": gradnas.BinaryGates(mode="full")},
    "gates, recomputed": {"relaxation": gradnas.BinaryGates(mode="recompute")},
    "gates, two": {"relaxation": gradnas.BinaryGates(mode="two")},
    "partial channels": {"relaxation": gradnas.PartialChannels(2)},
    "partial channels, Dirichlet": {
        "relaxation": gradnas.PartialChannels(2, inner=gradnas.Dirichlet())
    },
    "partial channels, gates": {
        "relaxation": gradnas.PartialChannels(
            2, inner=gradnas.BinaryGates(mode="two"), edge_normalisation=False
        )
    },
    "perturbed alphas": {"stabilizers": (gradnas.PerturbedAlphas(),)},
    "auxiliary skip": {"stabilizers": (gradnas.AuxiliarySkip(),)},
    "operation freezing": {"stabilizers": (gradnas.OperationFreezing(window=1),)},
    "candidate selection": {"selection": gradnas.CandidateSelection(likeliest=2, random=1)},
    "score selection": {"selection": gradnas.ScoreSelection(likeliest=2, random=1, repeats=1)},
    "perturbation selection": {"selection": gradnas.PerturbationSelection(interval=1)},
    "perturbation selection, blank": {
        "selection": gradnas.PerturbationSelection(interval=1, learn_alphas=False)
    },
}
REINFORCE = gradnas.Reinforce(samples=2)
PUBLISHED_CONV = ["NASNet", "AmoebaNet", "DARTS_V1", "DARTS_V2", "PC_DARTS_cifar", "PC_DARTS_image"]


def name_of(case: object) -> str:
    """For pytest's ids."""
    return repr(case)


def loss_on(batch: tuple[Tensor, Tensor]) -> Callable[[nn.Module], Tensor]:
    """The cross entropy of a network on one batch."""
    x, y = batch
    return lambda net: F.cross_entropy(net(x), y)


class TwoChoices(nn.Module):
    """A small convolutional module with two choices, BatchNorm and (optionally) dropout."""

    def __init__(self, dropout: float = 0.0, smooth: bool = True) -> None:
        super().__init__()
        act: type[nn.Module] = nn.Tanh if smooth else nn.ReLU
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first = gradnas.Choice(
            {
                "conv3": nn.Sequential(
                    nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), act()
                ),
                "conv5": nn.Sequential(
                    nn.Conv2d(4, 4, 5, padding=2, bias=False), nn.BatchNorm2d(4), act()
                ),
                "skip": nn.Identity(),
            },
            name="first",
        )
        self.second = gradnas.Choice(
            {"depthwise": nn.Conv2d(4, 4, 3, padding=1, groups=4), "pointwise": nn.Conv2d(4, 4, 1)},
            name="second",
        )
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(4, 5)

    def forward(self, x_BCHW: torch.Tensor) -> torch.Tensor:
        x_BCHW = self.second(self.first(self.stem(x_BCHW)))
        return self.head(self.dropout(x_BCHW.mean(dim=(2, 3))))


def batch(
    seed: int,
    size: int = 8,
    dtype: torch.dtype = torch.float32,
    channels: int = 3,
    side: int = 6,
    classes: int = 5,
):
    """Random images and labels."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, channels, side, side, generator=generator, dtype=dtype)
    return x, torch.randint(classes, (size,), generator=generator)
