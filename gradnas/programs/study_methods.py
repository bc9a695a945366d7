"""The methods that a study compares, by name: a search's configuration with other methods in it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from gradnas.gradients import ArchitectureGradient, FirstOrder, Unrolled
from gradnas.relaxations import BinaryGates, GumbelSoftmax, Relaxation, Sigmoid, Softmax
from gradnas.tasks.base import SearchSettings

Method = Callable[[SearchSettings], SearchSettings]


def with_method(
    config: SearchSettings, relaxation: Relaxation, gradient: ArchitectureGradient
) -> SearchSettings:
    """A configuration with these, and with Adam's settings that fit the relaxation.

    What the recipe has of the same class stays as it is there; the pace of the alphas, too.
    """
    known: Any = config
    if type(gradient) is type(config.gradient) and gradient == type(gradient)():
        gradient = config.gradient
    if type(relaxation) is type(config.relaxation) and relaxation == type(relaxation)():
        return replace(known, gradient=gradient)
    alphas = config.alphas
    if alphas is not None:
        alphas = replace(replace(alphas, **relaxation.alpha_defaults), lr=alphas.lr)
    return replace(known, relaxation=relaxation, gradient=gradient, alphas=alphas)


def _named(relaxation: Relaxation, gradient: ArchitectureGradient) -> Method:
    return lambda config: with_method(config, relaxation, gradient)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "default": lambda config: config,
        "darts": _named(Softmax(), Unrolled()),
        "darts-first-order": _named(Softmax(), FirstOrder()),
        "snas": _named(GumbelSoftmax(hard=False), FirstOrder()),
        "gdas": _named(GumbelSoftmax(hard=True), FirstOrder()),
        "fairdarts": _named(Sigmoid(), FirstOrder()),
        "proxylessnas": _named(BinaryGates(), FirstOrder()),
    }
)
