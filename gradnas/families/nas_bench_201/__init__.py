"""Cells of NAS-Bench-201: one cell, stacked in three stages, an operation on every edge."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gradnas.architectures.base import Architecture
from gradnas.architectures.dense_cell import DenseCell
from gradnas.config import JsonObject, from_json
from gradnas.export.source import NetworkSource
from gradnas.families.base import Family
from gradnas.families.nas_bench_201 import recipes, report
from gradnas.families.nas_bench_201.source import bench_source
from gradnas.pictures import dense_cells
from gradnas.reports.folder import Folder
from gradnas.spaces import NasBench201
from gradnas.tasks.images import IMAGES


class DenseCells(Family[DenseCell, NasBench201]):
    """Cells whose nodes read all earlier ones."""

    noun = "cell"
    title = "Cell"
    drawn = "the cell"
    called = "a cell of NAS-Bench-201"
    called_elsewhere = "an architecture for images"
    kind = IMAGES
    architecture = DenseCell
    spaces = (NasBench201,)
    sections = report
    searches = recipes.SEARCHES
    trainings = recipes.TRAININGS
    after_data = recipes.AFTER_DATA
    after_search = recipes.AFTER_SEARCH

    def holds(self, architecture: Architecture) -> bool:
        return isinstance(architecture, DenseCell)

    def picture(
        self,
        architecture: DenseCell,
        path: Path | str,
        *,
        title: str | None = None,
        space: object = None,
        run: Path | None = None,
    ) -> Path:
        del space, run
        return dense_cells.picture(architecture, path, title=title)

    def source(
        self, architecture: DenseCell, space: NasBench201, in_channels: int, num_classes: int
    ) -> NetworkSource:
        return bench_source(architecture, space, in_channels, num_classes)

    def training_after(self, what: str, searched: JsonObject) -> str:
        return self.recipe_after(searched) or "nas-bench-201-eval"

    def space_of(self, what: str, searched: JsonObject | None) -> NasBench201 | None:
        if searched is None or searched.get("type") != NasBench201.__name__:
            return None
        return from_json(NasBench201, searched, "config.space")

    def training_space(
        self, space: NasBench201, architecture: DenseCell, what: str, searched: JsonObject | None
    ) -> NasBench201:
        own = self.space_of(what, searched)
        nodes = len(architecture.nodes) + 1
        # Random cells for comparison are then drawn from the same candidates.
        operations = space.operations if own is None else own.operations
        return replace(space, nodes=nodes, operations=operations)

    def collapse(self, folder: Folder) -> str | None:
        return report.collapse(folder)


DENSE_CELLS = DenseCells()
