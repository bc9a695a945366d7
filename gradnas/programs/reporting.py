"""The report of a run: one HTML page that needs nothing else, made from the run folder alone.

Whatever comes from files is escaped. The page holds no scripts and asks the net for nothing, and
the same folder gives the same bytes. What it says of the data is said by their kind
(`gradnas.tasks`), what it shows of the architecture by its family (`gradnas.families`).
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.architectures.registry import load_architecture
from gradnas.config import Json, JsonObject, counted
from gradnas.families import family_of_entry
from gradnas.families.base import Family
from gradnas.reports.blank import blank_section
from gradnas.reports.data import data_notices, data_read
from gradnas.reports.folder import Folder, read_alphas, read_folder
from gradnas.reports.health import health_section
from gradnas.reports.parts import CSS, escaped, notice, row, section
from gradnas.reports.truth import truth_section
from gradnas.reports.verdict import verdict_section
from gradnas.reports.waiting import share_words, waited
from gradnas.reports.words import (
    commands,
    duration,
    durations,
    in_words_of,
    notices,
)
from gradnas.tasks import SEARCH_CONFIGS, TRAIN_CONFIGS, kind_of


def write_report(run: runs.Run) -> Path:
    """Write `report.html` into the folder of a run, finished or not, and return its path.

    Raises:
        ValueError: it is no run folder, a file in it is damaged (the sentence names the file), or
            the page cannot be written.
    """
    folder = complete_folder(run.path)
    path = run.path / runs.REPORT
    runs.write_atomically(path, _page(folder).encode())
    return path


# -- reading what the family knows -----------------------------------------------------------------


def complete_folder(path: Path) -> Folder:
    """What the folder of a run holds, finished or not, with its architecture and its alphas.

    Raises:
        ValueError: it is no run folder, or a file in it is damaged (the sentence names the file).
    """
    return _complete(read_folder(path, SEARCH_CONFIGS, TRAIN_CONFIGS))


def _complete(folder: Folder) -> Folder:
    """The folder with its architecture and its alphas, and the folders within it likewise."""
    family = family_of_folder(folder)
    return replace(
        folder,
        noun=family.noun,
        drawn=family.drawn,
        options=kind_of(folder.config["type"]).words.options(folder),
        architecture=_architecture(folder, family),
        alphas=_alphas(folder, family),
        child=None if folder.child is None else _complete(folder.child),
        random=tuple(_complete(own) for own in folder.random),
    )


def _alphas(folder: Folder, family: Family) -> Mapping[str, Tensor]:
    """Those of a search that has stored some."""
    if not folder.is_search or not (folder.path / runs.ALPHAS).exists():
        return {}
    return read_alphas(folder.path, family.tables(folder))


def family_of_folder(folder: Folder) -> Family:
    """Of what a run searches or trains."""
    return family_of_entry(folder.setting("space", kind=dict))


def _architecture(folder: Folder, family: Family) -> Architecture | None:
    """That of the file, else of the configuration of a training, else of the last epoch."""
    if (folder.path / runs.GENOTYPE).exists():
        return load_architecture(folder.path / runs.GENOTYPE)
    where = folder.path / runs.CONFIG
    written = folder.config.get("genotype")
    if written is None and folder.metrics.rows:
        where = folder.metrics.path
        written = folder.metrics.rows[-1].get("genotype")
    if written is None:
        return None
    try:
        return family.architecture.parse(written)
    except ValueError as error:
        raise ValueError(f"{where} is damaged: {error}") from error


# -- the page --------------------------------------------------------------------------------------


def _page(folder: Folder) -> str:
    family = family_of_folder(folder)
    words = kind_of(folder.config["type"]).words
    what = "search" if folder.is_search else "training"
    name = folder.path.resolve().name
    lead = words.summary(folder)
    about = (
        f"{what.capitalize()} on {folder.source}, {counted(folder.epochs, 'epoch')}, "
        f"seed {folder.setting('seed', kind=int)}"
    )
    sections = [
        (family.title, family.shown(folder)),
        ("Verdict", verdict_section(folder)),
        ("By the truth", truth_section(folder)),
        ("Beside alphas that never learnt", blank_section(folder)),
        ("Health of the search", health_section(folder)),
        (f"Compared with random {family.noun}s", words.comparison(folder)),
        ("Cost against accuracy", words.costs(folder)),
        ("Over the epochs", words.curves(folder)),
        ("Mixing weights", family.mixing(folder)),
        ("Genotype", _text_form(folder)),
        ("Data", data_read(folder)),
        ("Settings", _side_by_side(folder, "config")),
        ("Environment", _side_by_side(folder, "environment")),
        ("Time and memory", _timings(folder)),
        ("How to go on", _commands(commands(folder, words.commands(folder)))),
    ]
    body = "\n".join(section(title, text) for title, text in sections if text)
    warnings = []
    for text in [*notices(folder, family.collapse(folder)), *data_notices(folder)]:
        warnings.append(notice(in_words_of(folder, text)))
    above = "\n".join(warnings)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gradnas: {escaped(name)}, report of a {what}</title>
<style>{CSS}</style>
</head>
<body>
<header>
<p class="about">{escaped(about)}</p>
<h1>gradnas: {escaped(name)}</h1>
</header>
{above}
<p class="lead {lead.tone}">{escaped(in_words_of(folder, lead.sentence))}</p>
{_tiles(folder, [*words.key_numbers(folder), *durations(folder)])}
{body}
</body>
</html>
"""


def _tiles(folder: Folder, numbers: Sequence[tuple[str, str]]) -> str:
    """The numbers that a reader looks for first, each with what it is."""
    if not numbers:
        return ""
    tiles = []
    for value, text in numbers:
        label = escaped(in_words_of(folder, text))
        tiles.append(f"<div><b>{escaped(value)}</b><span>{label}</span></div>")
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _text_form(folder: Folder) -> str:
    if folder.architecture is None:
        return ""
    return f"<pre>{escaped(folder.architecture.to_text())}</pre>"


# -- settings and environment ----------------------------------------------------------------------


def _side_by_side(folder: Folder, file: str) -> str:
    """A file of a search and of its training as tables beside each other."""
    tables = []
    for own in (folder, folder.child):
        if own is None:
            continue
        heading = ""
        if folder.child is not None:
            what = "Search" if own.is_search else "Training"
            heading = f"<h3>{what}</h3>"
        values = dict(getattr(own, file))
        if _is_shown_above(folder, values.get("genotype")):
            values["genotype"] = "as above"
        tables.append(f"<div>{heading}<table>{_rows(values)}</table></div>")
    layout = "pair" if len(tables) > 1 else "single"
    return f'<div class="{layout}">{"".join(tables)}</div>'


def _is_shown_above(folder: Folder, written: object) -> bool:
    """Whether an entry of a configuration is the architecture of the report."""
    above = folder.architecture
    return above is not None and written == above.to_text()


def _rows(values: JsonObject, depth: int = 0) -> str:
    """Rows of a nested table; the name of a class stands beside the field that holds it."""
    rows = []
    for key, value in values.items():
        if key == "type" and depth > 0:
            continue
        nested = isinstance(value, dict)
        text = f"<b>{escaped(value.get('type', ''))}</b>" if nested else escaped(_value(value))
        style = f"padding-left:{1.1 * depth:.1f}em"
        rows.append(f'<tr><th style="{style}">{escaped(key)}</th><td>{text}</td></tr>')
        if nested:
            rows.append(_rows(value, depth + 1))
    return "".join(rows)


def _value(value: Json) -> str:
    """A value of a JSON file as one writes it."""
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict) and {"key", "higher_is_better"} <= value.keys():  # a measure
        way = "more" if value["higher_is_better"] else "less"
        return f"{value['key']}, {way} is better"
    if isinstance(value, dict):
        return " ".join(f"{key} {_value(item)}" for key, item in value.items() if key != "type")
    if isinstance(value, list):
        between = "; " if any(isinstance(item, dict) for item in value) else ", "
        return between.join(_value(item) for item in value) or "none"
    return repr(value) if isinstance(value, float) else str(value)


# -- times and commands ----------------------------------------------------------------------------

TIMINGS_CAPTION = (
    "Counted: weights, gradients, optimiser states and what a step keeps for its backward pass. "
    "Measured: the highest so far of the whole process, or of the tensors on a CUDA device. "
    "An interrupted epoch counts from where it was resumed. Where much is waiting for data, "
    "--workers N decodes images that memory does not hold beside the steps."
)


def _timings(folder: Folder) -> str:
    """How long the epochs took and the memory they needed, of the search and of the trainings."""
    rows = []
    if folder.is_search:
        rows += _timings_of("search", [folder])
    training = folder.training
    if training is not None:
        rows += _timings_of("training", [training])
        others = in_words_of(folder, "random cells")
        rows += _timings_of(f"{others} ({len(training.random)})", training.random)
    if not rows:
        return ""
    head = row(
        (
            "",
            "epochs",
            "one epoch (median)",
            "all epochs",
            "waiting for data",
            "memory, counted",
            "memory, measured",
        ),
        tag="th",
    )
    return (
        f'<table class="wide">{head}{"".join(rows)}</table>\n'
        f'<p class="caption">{TIMINGS_CAPTION}</p>'
    )


def _timings_of(name: str, folders: Sequence[Folder]) -> list[str]:
    """A row of the table; none where no epoch is finished."""
    seconds = []
    counted = []
    measured = []
    waiting = []
    for own in folders:
        told = waited(own.timings)
        if told is not None:
            waiting.append(told)
        seconds += [value for _, value in own.timings.series("seconds")]
        counted += [value for _, value in own.metrics.series("peak_memory_mib")]
        measured += [value for _, value in own.timings.series("measured_peak_memory_mib")]
    if not seconds:
        return []
    cells = (
        name,
        str(len(seconds)),
        f"{statistics.median(seconds):.3g} s",
        duration(sum(seconds)),
        share_words(waiting),
        _largest_mib(counted),
        _largest_mib(measured),
    )
    return [row([escaped(cell) for cell in cells])]


def _largest_mib(values: Sequence[float]) -> str:
    return f"{max(values):,.0f} MiB" if values else ""


def _commands(lines: Sequence[tuple[str, str]]) -> str:
    rows = [row((f"<code>{escaped(line)}</code>", escaped(purpose))) for line, purpose in lines]
    return f'<table class="commands">{"".join(rows)}</table>'
