"""Chains of blocks: an inverted bottleneck, or none, at every place of an image classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gradnas.architectures.base import Architecture
from gradnas.architectures.chain import Chain
from gradnas.config import JsonObject, from_json
from gradnas.export.source import NetworkSource
from gradnas.families.base import Family
from gradnas.families.chains import recipes, report
from gradnas.families.chains.source import chain_source
from gradnas.pictures import chains
from gradnas.spaces import MBConvChain
from gradnas.tasks.images import IMAGES


class Chains(Family[Chain, MBConvChain]):
    """Chains of blocks."""

    noun = "chain"
    drawn = "the chain"
    title = "Chain"
    called = "a chain"
    called_elsewhere = "an architecture for images"
    kind = IMAGES
    architecture = Chain
    spaces = (MBConvChain,)
    sections = report
    searches = recipes.SEARCHES
    trainings = recipes.TRAININGS
    after_data = recipes.AFTER_DATA
    after_search = recipes.AFTER_SEARCH

    def holds(self, architecture: Architecture) -> bool:
        return isinstance(architecture, Chain)

    def picture(
        self,
        architecture: Chain,
        path: Path | str,
        *,
        title: str | None = None,
        space: object = None,
        run: Path | None = None,
    ) -> Path:
        del run
        known = space if isinstance(space, MBConvChain) else None
        return chains.picture(architecture, path, title=title, space=known)

    def source(
        self, architecture: Chain, space: MBConvChain, in_channels: int, num_classes: int
    ) -> NetworkSource:
        return chain_source(architecture, space, in_channels, num_classes)

    def training_after(self, what: str, searched: JsonObject) -> str:
        if what in Chain.names():
            return "proxyless-imagenet-eval"
        return self.recipe_after(searched) or "proxyless-cifar10-eval"

    def space_of(self, what: str, searched: JsonObject | None) -> MBConvChain | None:
        if what in Chain.names():
            return MBConvChain.named(what)
        if searched is None or searched.get("type") != MBConvChain.__name__:
            return None
        return from_json(MBConvChain, searched, "config.space")

    def training_space(
        self, space: MBConvChain, architecture: Chain, what: str, searched: JsonObject | None
    ) -> MBConvChain:
        own = self.space_of(what, searched)
        if own is None:
            return space
        # A published chain brings the dropout of its paper; a searched one takes the recipe's.
        return own if what in Chain.names() else replace(own, dropout=space.dropout)


CHAINS = Chains()
