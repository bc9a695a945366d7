"""`gradnas draw`, `report` and `recipes`: looking at what there is."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from gradnas import runs
from gradnas.cli.begin import architecture_of
from gradnas.cli.methods import import_modules
from gradnas.cli.options import Imports, Run
from gradnas.families import FAMILIES, family_of, recipes
from gradnas.programs.reporting import write_report


@dataclass(frozen=True)
class DrawCommand:
    """Draw cells as an SVG, PNG or PDF picture."""

    what: Annotated[Positional[str], arg(metavar="RUN|GENOTYPE|NAME", help_behavior_hint="")]
    """Run folder, genotype.json, name of a published cell, text of a genotype (or a file with one,
    such as a log), or FILE.py:NAME."""
    out: Annotated[Path, arg(aliases=["-o"], metavar="FILE", help_behavior_hint="")]
    """Picture to write."""

    def run(self) -> None:
        given = architecture_of(self.what)
        architecture = given.architecture
        title = given.name if given.is_named else None
        space = recipes.space_of(architecture, given.name, given.searched.get("space"))
        family = family_of(architecture)
        print(family.picture(architecture, self.out, title=title, space=space))


@dataclass(frozen=True)
class ReportCommand:
    """Write report.html, one self-contained page about a run."""

    folder: Positional[Run]
    """Run folder of a search or of a training."""
    imports: Imports = None
    """Modules with classes of your own that the run uses."""

    def run(self) -> None:
        import_modules(self.imports)
        print(write_report(runs.Run.open(self.folder)))


@dataclass(frozen=True)
class RecipesCommand:
    """List the recipes and the published cells."""

    def run(self) -> None:
        for title, table in (("searches", recipes.SEARCHES), ("trainings", recipes.TRAININGS)):
            print(f"{title}:")
            for name, recipe in table.items():
                print(_entry(name, recipes.about(recipe)))
        published = {}
        for family in FAMILIES:
            published[family.noun] = family.architecture.names()  # families may share a class
        for noun, names in published.items():
            if names:
                print(f"published {noun}s:")
                listed = ", ".join(names)
                print(textwrap.fill(listed, 76, initial_indent="  ", subsequent_indent="  "))


def _entry(name: str, text: str) -> str:
    """A name and, in a column beside it, what it is."""
    first, *others = textwrap.wrap(text, 49)
    lines = [f"  {name:28}{first}"]
    for line in others:
        lines.append(" " * 30 + line)
    return "\n".join(lines)
