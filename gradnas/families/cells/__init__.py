"""Convolutional cells: the normal and the reduction cell of an image classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gradnas.architectures.base import Architecture
from gradnas.architectures.genotype import Genotype
from gradnas.config import JsonObject, from_json
from gradnas.export.source import NetworkSource
from gradnas.families.base import Family
from gradnas.families.cells import recipes, report
from gradnas.families.cells.source import cells_source
from gradnas.pictures import cells
from gradnas.reports.folder import Folder
from gradnas.spaces import ConvCell
from gradnas.tasks.images import IMAGES


class Cells(Family[Genotype, ConvCell]):
    """Genotypes with a normal and a reduction cell."""

    noun = "cell"
    title = "Cells"
    called = "cells"
    called_elsewhere = "an architecture for images"
    kind = IMAGES
    architecture = Genotype
    spaces = (ConvCell,)
    sections = report
    searches = recipes.SEARCHES
    trainings = recipes.TRAININGS
    after_data = recipes.AFTER_DATA
    after_search = recipes.AFTER_SEARCH

    def holds(self, architecture: Architecture) -> bool:
        return isinstance(architecture, Genotype) and architecture.kind == "conv"

    def picture(
        self,
        architecture: Genotype,
        path: Path | str,
        *,
        title: str | None = None,
        space: object = None,
        run: Path | None = None,
    ) -> Path:
        del run
        return cells.picture(architecture, path, title=title)

    def source(
        self, architecture: Genotype, space: ConvCell, in_channels: int, num_classes: int
    ) -> NetworkSource:
        return cells_source(architecture, space, in_channels, num_classes)

    def training_after(self, what: str, searched: JsonObject) -> str:
        return self.recipe_after(searched) or "cifar10-eval"

    def space_of(self, what: str, searched: JsonObject | None) -> ConvCell | None:
        if searched is None or searched.get("type") != ConvCell.__name__:
            return None
        return from_json(ConvCell, searched, "config.space")

    def training_space(
        self, space: ConvCell, architecture: Genotype, what: str, searched: JsonObject | None
    ) -> ConvCell:
        # Random cells for comparison are then drawn with as many nodes, and with the operations
        # that the search had.
        own = self.space_of(what, searched)
        space = replace(space, nodes=architecture.num_nodes)
        if own is None or own.nodes != space.nodes:
            return space
        return replace(space, operations=own.operations, edge_operations=own.edge_operations)

    def collapse(self, folder: Folder) -> str | None:
        return report.collapse(folder)


CELLS = Cells()
