"""The sections of a report that are of choices in one's own module.

A module is code, which no run folder holds. The names of the operations are those that the
configuration of the run lists for its space, `{"choices": {"body": ["conv3", "conv5"]}}`; without
them the columns of the alphas are numbered.

Legend: N tables (one more than finished epochs), O operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradnas import runs
from gradnas.architectures.choices import Choices
from gradnas.config import counted, from_json, read_object
from gradnas.families.sections import entropy_panel, still_open
from gradnas.pictures import choices, mixing_weights, plots
from gradnas.pictures.canvas import in_html, plain
from gradnas.pictures.plots import Line, Panel
from gradnas.pictures.sheet import BLUE
from gradnas.relaxations import Relaxation
from gradnas.reports.folder import Folder, Mixture, Tables, read_alphas
from gradnas.reports.parts import escaped, figure, headed, row
from gradnas.spaces.module_space import ModuleSpace
from gradnas.spaces.your_module import ModuleSupernet
from gradnas.tasks.your_task.space import TaskSpace


def tables(folder: Folder) -> Tables:
    """One for each choice, with a column for each operation."""
    names = _operations(folder)
    shapes = {choice: (len(operations),) for choice, operations in names.items()}
    # None, not an empty table of shapes: the configuration does not say.
    return Tables(shapes or None, "choice", "body/0000")


def shown(folder: Folder) -> str:
    """The table of choices."""
    chosen = folder.architecture
    if not isinstance(chosen, Choices):
        return ""
    undecided = _undecided(folder.results) if folder.is_search else []
    known = choices.Known(_operations(folder) or None, _places(folder), _history(folder), undecided)
    svg = in_html(choices.svg(chosen, known))
    text = "A row for each choice of the module; marked: the operation that was decided."
    if undecided:
        text += " A question mark: nothing that was measured shows that it is the better one."
    return figure(svg, text + still_open(folder, "They are"))


def known_of(space: object, run: Path | None) -> choices.Known:
    """What a picture may tell, of the space and of the run folder of its search."""
    if not isinstance(space, (ModuleSpace, ModuleSupernet)):
        return choices.Known()
    places = space.places if isinstance(space, TaskSpace) else {}
    history: dict[str, list[list[float]]] = {}
    if run is not None and (run / runs.ALPHAS).exists():
        shapes = {name: (len(operations),) for name, operations in space.names.items()}
        tables = Tables(shapes, "choice", "body/0000")
        written = read_object(run / runs.CONFIG).get("relaxation")
        where = f"{run / runs.CONFIG}: relaxation"
        relaxation: Relaxation = from_json(Relaxation, written, where)  # type: ignore[type-abstract]
        for name, alphas_NO in read_alphas(run, tables).items():
            history[name] = relaxation.probabilities(alphas_NO).tolist()
    undecided: list[str] = []
    if run is not None and (run / runs.RESULTS).exists():
        undecided = _undecided(read_object(run / runs.RESULTS))
    return choices.Known(space.names, places, history, undecided)


def _undecided(results: Mapping[str, Any]) -> list[str]:
    """The choices of a finished search that no measurement shows to be decided.

    Those that its verdict calls undecided or could not compare; without a verdict all of them.
    """
    verdict = results.get("verdict")
    if not isinstance(verdict, Mapping):
        # Of a training, which has no steps, the choices were given to it.
        is_search = "steps" in results and isinstance(results.get("genotype"), str)
        return list(Choices.parse(results["genotype"])) if is_search else []
    named = verdict.get("undecided")
    found = [name for name in named if isinstance(name, str)] if isinstance(named, list) else []
    judged = verdict.get("choices")
    for choice in judged if isinstance(judged, list) else []:
        if isinstance(choice, Mapping) and choice.get("state") == "not compared":
            found.append(str(choice.get("name")))
    return list(dict.fromkeys(found))


def _places(folder: Folder) -> dict[str, list[str]]:
    listed = folder.setting("space", kind=dict).get("places")
    if not isinstance(listed, dict):
        return {}
    return {choice: folder.names("space", "places", choice) for choice in listed}


def _alphas(folder: Folder) -> Mapping[str, Tensor]:
    """Choice -> its alphas after each epoch.

    Raises:
        ValueError: they are those of something else than the configuration says.
    """
    operations = _operations(folder)
    for choice, alphas_NO in folder.alphas.items():
        names = operations.get(choice)
        number = alphas_NO.shape[-1]
        if alphas_NO.dim() != 2 or (names is not None and len(names) != number):
            expected = "a list of operations" if names is None else f"{len(names)} operations"
            raise ValueError(
                f"{folder.path / runs.ALPHAS}: {choice!r} has the shape {tuple(alphas_NO.shape)}, "
                f"where {runs.CONFIG} has {expected} of one choice"
            )
    return folder.alphas


def _history(folder: Folder) -> dict[str, list[list[float]]]:
    """The probabilities after each epoch."""
    found = {}
    for choice, alphas_NO in _alphas(folder).items():
        found[choice] = folder.relaxation.probabilities(alphas_NO).tolist()
    return found


def mixing(folder: Folder) -> str:
    """The probabilities of the operations over the epochs, and how decided they are."""
    if not folder.alphas:
        return ""
    mixes = {}
    for choice, alphas_NO in _alphas(folder).items():
        mixes[choice] = folder.relaxation.probabilities(alphas_NO)
    parts = [_table(folder, mixes)]
    pairs = list(mixes.items())
    for first in range(0, len(pairs), 2):  # two panels fill a line
        parts.append(_curves(folder, first, dict(pairs[first : first + 2])))
    parts.append(_decidedness(mixes))
    return "\n".join(parts)


def mixtures(folder: Folder) -> list[Mixture]:
    """Every choice."""
    chosen = folder.architecture if isinstance(folder.architecture, Choices) else {}
    found = []
    for choice, alphas_NO in _alphas(folder).items():
        values = folder.relaxation.probabilities(alphas_NO[-1]).tolist()
        names = tuple(_names(folder, choice, len(values)))
        decided = chosen.get(choice)
        found.append(Mixture(choice, names, tuple(values), decided))
    return found


def _operations(folder: Folder) -> dict[str, list[str]]:
    """Choice -> the names of its operations, of those that the configuration lists."""
    listed = folder.setting("space", kind=dict).get("choices")
    if not isinstance(listed, dict):
        return {}
    return {choice: folder.names("space", "choices", choice) for choice in listed}


def _names(folder: Folder, choice: str, count: int) -> list[str]:
    """The names of the columns of a choice."""
    names = _operations(folder).get(choice)
    return names if names is not None else [f"operation {o + 1}" for o in range(count)]


def _table(folder: Folder, mixes: Mapping[str, Tensor]) -> str:
    """A row for each choice: what was decided, how probable it is, and what comes next."""
    rows = [row(["choice", "decided", "probability", "likeliest other"], tag="th")]
    for choice, mix_NO in mixes.items():
        last_O = mix_NO[-1].tolist()
        names = _names(folder, choice, len(last_O))
        # Columns from the likeliest on; of equal ones the first stays first.
        by_probability = sorted(range(len(names)), key=last_O.__getitem__, reverse=True)
        decided = "not reached"
        probability = ""
        if isinstance(folder.architecture, Choices) and choice in folder.architecture:
            decided = plain(folder.architecture[choice])
            # The configuration may name other operations than the module had.
            if decided in names:
                probability = f"{last_O[names.index(decided)]:.3f}"
        others = [names[o] for o in by_probability if names[o] != decided]
        following = ""
        if others:
            following = f"{others[0]} ({last_O[names.index(others[0])]:.3f})"
        rows.append(row([escaped(cell) for cell in (choice, decided, probability, following)]))
    after = counted(len(next(iter(mixes.values()))) - 1, "epoch")  # the first is of the start
    caption = f'<p class="caption">Probabilities after {after}.</p>'
    return f'<table class="wide">{"".join(rows)}</table>\n{caption}'


def _curves(folder: Folder, number: int, mixes: Mapping[str, Tensor]) -> str:
    """The probability of every operation of some choices over the epochs, side by side."""
    panels = []
    any_decided = False
    for choice, mix_NO in mixes.items():
        names = _names(folder, choice, mix_NO.shape[-1])
        styles = mixing_weights.operation_styles(names)
        decided = None
        if isinstance(folder.architecture, Choices):
            decided = folder.architecture.get(choice)
        any_decided = any_decided or decided in names
        lines = []
        # A point for each table: x is the number of finished epochs.
        for o, name in enumerate(names):
            colour, dash = styles[o]
            width = 2.6 if name == decided else 1.2
            points = list(enumerate(mix_NO[:, o].tolist()))
            lines.append(Line(mixing_weights.readable(name), points, colour, dash, width))
        title = f"{plain(choice)}: probability (%)"
        panels.append(Panel(title, lines, percent=True, from_zero=True))
    about = f"{', '.join(mixes)}: probabilities over epochs"
    plot = plots.curves(f"plot-choice-{number}", panels, about)
    return figure(plot, "Thick: the operation that was decided." if any_decided else "")


def _decidedness(mixes: Mapping[str, Tensor]) -> str:
    entropies_N = [torch.special.entr(mix_NO).sum(-1) for mix_NO in mixes.values()]
    mean_N = torch.stack(entropies_N).mean(0).tolist()
    line = Line("mean over the choices", list(enumerate(mean_N)), BLUE)
    # Undecided: equal probabilities of O operations have the entropy ln O.
    total = sum(math.log(mix_NO.shape[-1]) for mix_NO in mixes.values())
    panel = entropy_panel([line], total / len(mixes))
    plot = plots.curves("plot-decided", [panel], "entropy over epochs")
    return headed("How decided", figure(plot, "Entropy falls as the search decides."))
