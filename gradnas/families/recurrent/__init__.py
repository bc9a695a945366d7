"""Recurrent cells: what a language model does with a token and its state."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gradnas.architectures.base import Architecture
from gradnas.architectures.genotype import Genotype
from gradnas.config import JsonObject
from gradnas.families.base import Family
from gradnas.families.recurrent import recipes, report
from gradnas.pictures import cells
from gradnas.spaces import RecurrentCell
from gradnas.tasks.text import TEXT


class RecurrentCells(Family[Genotype, RecurrentCell]):
    """Genotypes with a recurrent cell."""

    noun = "cell"
    title = "Cell"
    called = "a recurrent cell"
    called_elsewhere = "a recurrent cell"
    kind = TEXT
    architecture = Genotype
    spaces = (RecurrentCell,)
    sections = report
    searches = recipes.SEARCHES
    trainings = recipes.TRAININGS
    after_data = recipes.AFTER_DATA
    after_search = recipes.AFTER_SEARCH

    def holds(self, architecture: Architecture) -> bool:
        return isinstance(architecture, Genotype) and architecture.kind == "recurrent"

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

    def training_after(self, what: str, searched: JsonObject) -> str:
        known = self.recipe_after(searched)
        if known is not None:
            return known
        # Of a search without a recipe its size says what it was like.
        space = searched.get("space")
        units = space.get("hidden") if isinstance(space, dict) else None
        is_small = isinstance(units, int) and units < recipes.PTB_SEARCH_UNITS
        return "text-eval" if is_small else "darts-ptb-eval"

    def training_space(
        self, space: RecurrentCell, architecture: Genotype, what: str, searched: JsonObject | None
    ) -> RecurrentCell:
        return replace(space, nodes=len(architecture.recurrent))


RECURRENT = RecurrentCells()
