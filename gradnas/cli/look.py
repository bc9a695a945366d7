"""`gradnas draw`, `report` and `recipes`: looking at what there is."""

from __future__ import annotations

import textwrap

from gradnas import runs
from gradnas.cli.begin import DISCOVERY, architecture_of, say
from gradnas.cli.commands.look import DrawCommand, RecipesCommand, ReportCommand
from gradnas.cli.lines import line
from gradnas.cli.methods import import_modules
from gradnas.cli.own_task import changes_of
from gradnas.config import read_object
from gradnas.families import FAMILIES, family_of, recipes
from gradnas.programs import truths
from gradnas.programs.reporting import write_report


def draw(command: DrawCommand) -> None:
    given = architecture_of(command.what)
    architecture = given.architecture
    title = given.name if given.is_named else None
    space = recipes.space_of(architecture, given.name, given.searched.get("space"))
    family = family_of(architecture)
    line(family.picture(architecture, command.out, title=title, space=space, run=given.folder))


def report(command: ReportCommand) -> None:
    import_modules(command.imports)
    if command.task is not None:
        say(changes_of(command.folder, command.task))
    run = runs.Run.open(command.folder)
    if read_object(run.path / runs.CONFIG).get("type") == DISCOVERY:
        from gradnas.programs.discovering import found_report  # here, because it needs sympy

        line(found_report(run))
        return
    if command.truth is not None:
        for sentence in truths.sentences(truths.look_up_again(run, truths.truth_of(command.truth))):
            line(sentence)
    line(write_report(run))


def list_recipes(command: RecipesCommand) -> None:
    for title, table in (("searches", recipes.SEARCHES), ("trainings", recipes.TRAININGS)):
        line(f"{title}:")
        for name, recipe in table.items():
            line(_entry(name, recipes.about(recipe)))
    published = {}
    for family in FAMILIES:
        published[family.noun] = family.architecture.names()  # families may share a class
    for noun, names in published.items():
        if names:
            line(f"published {noun}s:")
            listed = ", ".join(names)
            line(textwrap.fill(listed, 76, initial_indent="  ", subsequent_indent="  "))


def _entry(name: str, text: str) -> str:
    """A name and, in a column beside it, what it is."""
    first, *others = textwrap.wrap(text, 49)
    lines = [f"  {name:28}{first}"]
    for other in others:
        lines.append(" " * 30 + other)
    return "\n".join(lines)
