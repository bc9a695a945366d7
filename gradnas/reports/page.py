"""The report of a run: one HTML page that needs nothing else, made from the run folder alone.

Whatever comes from files is escaped. The page holds no scripts and asks the net for nothing, and
the same folder gives the same bytes. `report_folder` reads the folder, `report_words` says what
came out, `report_plots` draws.
"""

from __future__ import annotations

import html
import math
import statistics
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradnas import runs
from gradnas.architectures.genotype import (
    CellGenotype,
    Genotype,
)
from gradnas.pictures import cells, plots
from gradnas.pictures.canvas import in_html, plain
from gradnas.pictures.plots import Line, Panel, edges
from gradnas.reports.chains import (
    chain_alphas,
    chain_picture,
    cost_against_accuracy,
)
from gradnas.reports.folder import (
    Folder,
    read_folder,
)
from gradnas.reports.text import (
    text_alphas,
    text_comparison,
    text_curves,
    text_numbers,
    text_summary,
)
from gradnas.reports.words import (
    COLLAPSE_ADVICE,
    collapse,
    commands,
    comparison_notes,
    duration,
    in_words_of,
    key_numbers,
    notices,
    subject,
    summary,
)

LARGE_GAP = 0.1
CELLS = {"normal": "Normal cell", "reduce": "Reduction cell"}


def write_report(run: runs.Run) -> Path:
    """Write `report.html` into the folder of a search or of a training, finished or not, and return
    its path.

    Raises:
        ValueError: it is no run folder, a file in it is damaged (the sentence names the file), or
            the page cannot be written.
    """
    path = run.path / runs.REPORT
    runs.write_atomically(path, _page(read_folder(run.path)).encode())
    return path


# -- the page --------------------------------------------------------------------------------------


def _page(folder: Folder) -> str:
    what = "search" if folder.is_search else "training"
    name, lead = (
        folder.path.resolve().name,
        text_summary(folder) if folder.is_text else summary(folder),
    )
    about = f"{what.capitalize()} on {folder.source}, {folder.epochs} epochs, seed {folder.setting('seed', kind=int)}"
    chain = folder.chain_space is not None
    if folder.is_text:
        sections = [
            ("Cell", _cells(folder)),
            ("Compared with random cells", text_comparison(folder)),
            ("Over the epochs", text_curves(folder)),
            ("Mixing weights", text_alphas(folder)),
        ]
    else:
        sections = [
            ("Chain" if chain else "Cells", chain_picture(folder) if chain else _cells(folder)),
            (f"Compared with random {'chains' if chain else 'cells'}", _comparison(folder)),
            ("Cost against accuracy", cost_against_accuracy(folder)),
            ("Over the epochs", _curves(folder)),
            ("Mixing weights", chain_alphas(folder) if chain else _alphas(folder)),
        ]
    sections += [
        ("Genotype", _genotype(folder)),
        ("Settings", _side_by_side(folder, "config")),
        ("Environment", _side_by_side(folder, "environment")),
        ("Time and memory", _timings(folder)),
        ("How to go on", _commands(folder)),
    ]
    body = "\n".join(
        f"<section>\n<h2>{title}</h2>\n{text}\n</section>" for title, text in sections if text
    )
    warnings = "\n".join(
        f'<p class="notice">{_esc(in_words_of(folder, text))}</p>' for text in notices(folder)
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_esc(name)}: report of a {what}</title>
<style>{CSS}</style>
</head>
<body>
<header>
<p class="about">{_esc(about)}</p>
<h1>{_esc(name)}</h1>
</header>
{warnings}
<p class="lead {lead.tone}">{_esc(in_words_of(folder, lead.sentence))}</p>
{_tiles(folder)}
{body}
</body>
</html>
"""


def _tiles(folder: Folder) -> str:
    found = text_numbers(folder) if folder.is_text else key_numbers(folder)
    tiles = "".join(
        f"<div><b>{_esc(value)}</b><span>{_esc(in_words_of(folder, text))}</span></div>"
        for value, text in found
    )
    return f'<div class="tiles">{tiles}</div>' if found else ""


def _cells(folder: Folder) -> str:
    if not isinstance(folder.genotype, Genotype):
        return ""
    early = folder.is_search and folder.state != "finished"
    when = (
        f" They are what the alphas said after epoch {len(folder.metrics.rows)}, and may still change."
        if early
        else ""
    )
    picture = in_html(cells.svg(_drawable(folder.genotype)))
    text = "Operations stand on the edges; c<sub>k-1</sub> and c<sub>k-2</sub> are the two cells before."
    if folder.is_text:
        text = "Activations stand on the edges between states; every edge has its node’s matrix and gate before them."
    return _figure(picture, f"{text}{when}")


def _drawable(genotype: Genotype) -> Genotype:
    """The same cells, with names of operations that a picture can hold."""
    cells = []
    for name, cell in genotype.cells:
        edges = tuple((plain(operation), predecessor) for operation, predecessor in cell.edges)
        cells.append((name, CellGenotype(edges, cell.concat)))
    return Genotype(tuple(cells))


def _comparison(folder: Folder) -> str:
    training = folder.training
    if training is None or (accuracy := training.result("test_accuracy")) is None:
        return ""
    random = training.random_cells
    if random is None:
        return in_words_of(
            folder,
            "<p>No random cells were trained in the same way. They show what the network reaches with any cell: train "
            "with <code>--random-cells 5</code>.</p>",
        )
    name, others = in_words_of(folder, subject(folder)), in_words_of(folder, "random cells")
    plot = plots.comparison(
        "plot-comparison", accuracy, random.accuracies, random.mean, random.std, name, others=others
    )
    return _figure(plot) + _list(
        _esc(in_words_of(folder, note)) for note in comparison_notes(folder, training, random)
    )


# -- curves ----------------------------------------------------------------------------------------


def _curves(folder: Folder) -> str:
    parts = [_search_curves(folder)] if folder.is_search else []
    training = folder.training
    if training is not None:
        title = "Training from scratch" if folder.is_search else ""
        parts.append(_training_curves(training, title))
    return "\n".join(part for part in parts if part)


def _search_curves(folder: Folder) -> str:
    mixture = _line(folder, "valid_accuracy", "supernet", plots.BLUE)
    derived = _line(folder, "derived_valid_accuracy", "derived network, its weights", plots.ORANGE)
    losses = [
        _line(folder, "train_loss", "training", plots.PALE),
        _line(folder, "search_valid_loss", "search-valid", plots.GREEN),
        _line(folder, "valid_loss", "valid, supernet", plots.BLUE),
        _line(folder, "derived_valid_loss", "valid, derived network", plots.ORANGE),
    ]
    accuracies = [
        _line(folder, "train_accuracy", "supernet, in training", plots.PALE),
        mixture,
        derived,
    ]
    fill = (mixture, derived, "discretisation gap") if mixture.points and derived.points else None
    text = (
        "Training: the images that train the weights. Search-valid: those that train the alphas, in the middle of the "
        "steps; valid: all of them, after the epoch. The derived network has the supernet’s weights and new batch "
        "statistics."
    )
    if (gap := folder.metrics.last("discretisation_gap")) is not None:
        text += (
            f" The discretisation gap, by which the supernet is better than the network derived from it, is "
            f"{100 * gap:+.1f} points at the last epoch"
            f"{', so the supernet’s accuracy tells little about the cell' if gap > LARGE_GAP else ''}."
        )
    return _plot_pair("plot-search", losses, accuracies, "Search", text, fill)


def _training_curves(folder: Folder, title: str) -> str:
    pairs = []
    for kind in ("loss", "accuracy"):
        lines = [
            _line(
                own, f"train_{kind}", in_words_of(folder, "random cells, training"), "#b8c2cc", 1.0
            )
            for own in folder.random
        ]
        lines.append(_line(folder, f"train_{kind}", "training images", plots.BLUE))
        lines.append(_line(folder, f"valid_{kind}", "held out for validation", plots.ORANGE))
        pairs.append(lines)
    text = "Training images are seen in training mode, augmented as set. Test images are used at the end alone."
    return _plot_pair("plot-training", pairs[0], pairs[1], title, text)


def _line(folder: Folder, key: str, label: str, colour: str, width: float = 1.7) -> Line:
    return Line(label, folder.metrics.series(key), colour, width=width)


def _plot_pair(
    name: str,
    losses: list[Line],
    accuracies: list[Line],
    title: str,
    text: str,
    fill: tuple[Line, Line, str] | None = None,
) -> str:
    """Two plots side by side, of the lines that have points."""
    panels = [
        Panel("Loss (cross entropy)", [line for line in losses if line.points]),
        Panel(
            "Accuracy (%)", [line for line in accuracies if line.points], percent=True, fill=fill
        ),
    ]
    panels = [panel for panel in panels if panel.lines]
    if not panels:
        return ""
    heading = f"<h3>{title}</h3>\n" if title else ""
    return heading + _figure(
        plots.curves(name, panels, f"{title or 'Training'}: loss and accuracy over epochs"),
        _esc(text),
    )


# -- alphas ----------------------------------------------------------------------------------------


def _alphas(folder: Folder) -> str:
    if not folder.alphas:
        return ""
    warning = collapse(folder)
    parts = [f'<p class="notice">{_esc(warning)} {_esc(COLLAPSE_ADVICE)}</p>'] if warning else []
    parts.append(
        f"<p>On every edge of a cell, the search weighs {len(folder.operations)} operations. An edge is written as "
        "<i>from → to</i>: cₖ₋₂ and cₖ₋₁ are the outputs of the two cells before, 0, 1, … the nodes of the cell "
        "itself.</p>"
    )
    nodes, operations, relaxation = folder.nodes, folder.operations, folder.relaxation
    mixes = {
        name: relaxation.probabilities(alphas_NEO) for name, alphas_NEO in folder.alphas.items()
    }
    for name, mix_NEO in mixes.items():
        chosen, tables = _chosen(folder, name), mix_NEO.tolist()
        heat = plots.heat_map(f"plot-mix-{name}", tables[-1], nodes, operations, chosen)
        lines = plots.mixing_lines(f"plot-lines-{name}", tables, nodes, operations, chosen)
        after = f"Mixing weights after {len(tables) - 1} epochs; darker is larger. Framed: the derived cell."
        parts += [f"<h3>{CELLS[name]}</h3>", _figure(heat, after)]
        parts.append(_figure(lines, "The same over the epochs. Thick: the derived cell."))
    uniform = relaxation.probabilities(torch.zeros(1, 1, len(operations), dtype=torch.float64))
    parts.append(
        _decidedness(
            folder, {name: _entropies(mix) for name, mix in mixes.items()}, _entropies(uniform)[0]
        )
    )
    return "\n".join(parts)


def _entropies(mix_NEO: Tensor) -> list[float]:
    """Entropy (nats) of an edge's mixing weights, the mean over the edges, for every table."""
    return torch.special.entr(mix_NEO).sum(-1).mean(-1).tolist()


def _decidedness(folder: Folder, entropies: Mapping[str, list[float]], undecided: float) -> str:
    colours = {"normal": plots.BLUE, "reduce": plots.ORANGE}
    lines = [
        Line(CELLS[name].lower(), list(enumerate(own)), colours[name])
        for name, own in entropies.items()
    ]
    levels = [(undecided, "undecided")]
    panels = [Panel("Entropy of the mixing weights (nats)", lines, from_zero=True, levels=levels)]
    skips = _line(folder, "skip_connections", "normal cell", plots.GREEN)
    if skips.points:
        levels = [(float(folder.nodes), "half of the operations")]
        panels.append(Panel("Skip connections", [skips], whole=True, levels=levels))
    equal = " and ".join(
        f"{math.exp(own[-1]):.1f} in the {CELLS[name].lower()}" for name, own in entropies.items()
    )
    text = (
        f"Entropy falls as the search decides: from that of {math.exp(undecided):.1f} operations of equal weight to "
        f"that of {equal}. Skip connections for half of the normal cell or more mark a collapse."
    )
    plot = plots.curves(
        "plot-decided", panels, "entropy and number of skip connections over epochs"
    )
    return f"<h3>How decided, and how many skip connections</h3>\n{_figure(plot, text)}"


def _chosen(folder: Folder, name: str) -> set[tuple[int, int]]:
    """(row, column) of the derived cell's operations in the table of a cell."""
    if not isinstance(folder.genotype, Genotype) or folder.genotype.kind != "conv":
        return set()
    rows = {edge: row for row, edge in enumerate(edges(folder.nodes))}
    columns = {operation: column for column, operation in enumerate(folder.operations)}
    found = {
        (rows.get((predecessor, node)), columns.get(plain(operation)))
        for node, inputs in enumerate(folder.genotype.inputs(name))
        for operation, predecessor in inputs
    }
    return {(row, column) for row, column in found if row is not None and column is not None}


# -- tables and texts ------------------------------------------------------------------------------


def _genotype(folder: Folder) -> str:
    if folder.genotype is None:
        return ""
    return f"<pre>{_esc(folder.genotype.to_text())}</pre>"


def _side_by_side(folder: Folder, file: str) -> str:
    """A file of a search and of its training as tables beside each other."""
    tables = []
    for own in (folder, folder.child):
        if own is not None:
            heading = (
                f"<h3>{'Search' if own.is_search else 'Training'}</h3>"
                if folder.child is not None
                else ""
            )
            values = dict(getattr(own, file))
            if folder.genotype is not None and values.get("genotype") == folder.genotype.to_text():
                values["genotype"] = "as above"
            tables.append(f"<div>{heading}<table>{_rows(values)}</table></div>")
    return f'<div class="{"pair" if len(tables) > 1 else "single"}">{"".join(tables)}</div>'


def _rows(values: Mapping[str, Any], depth: int = 0) -> str:
    """Rows of a nested table; the name of a class stands beside the field that holds it."""
    rows = []
    for key, value in values.items():
        if key == "type" and depth > 0:
            continue
        nested = isinstance(value, dict)
        text = f"<b>{_esc(value.get('type', ''))}</b>" if nested else _esc(_value(value))
        rows.append(
            f'<tr><th style="padding-left:{1.1 * depth:.1f}em">{_esc(key)}</th><td>{text}</td></tr>'
        )
        if nested:
            rows.append(_rows(value, depth + 1))
    return "".join(rows)


def _value(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return " ".join(f"{key} {_value(item)}" for key, item in value.items() if key != "type")
    if isinstance(value, list):
        between = "; " if any(isinstance(item, dict) for item in value) else ", "
        return between.join(_value(item) for item in value) or "none"
    return repr(value) if isinstance(value, float) else str(value)


def _timings(folder: Folder) -> str:
    training = folder.training
    named = [("search", [folder])] if folder.is_search else []
    named += [("training", [training])] if training is not None else []
    others = in_words_of(folder, "random cells")
    named += (
        [(f"{others} ({len(training.random)})", list(training.random))]
        if training and training.random
        else []
    )
    rows = []
    for name, folders in named:
        seconds = [value for own in folders for _, value in own.timings.series("seconds")]
        if not seconds:
            continue
        counted = [value for own in folders for _, value in own.metrics.series("peak_memory_mib")]
        measured = [
            value for own in folders for _, value in own.timings.series("measured_peak_memory_mib")
        ]
        memory = [f"{max(values):,.0f} MiB" if values else "" for values in (counted, measured)]
        cells = [
            name,
            str(len(seconds)),
            f"{statistics.median(seconds):.3g} s",
            duration(sum(seconds)),
            *memory,
        ]
        rows.append("<tr>" + "".join(f"<td>{_esc(cell)}</td>" for cell in cells) + "</tr>")
    if not rows:
        return ""
    names = (
        "",
        "epochs",
        "one epoch (median)",
        "all epochs",
        "memory, counted",
        "memory, measured",
    )
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        f'<table class="wide"><tr>{head}</tr>{"".join(rows)}</table>\n<p class="caption">Counted: weights, gradients, '
        "optimiser states and what a step keeps for its backward pass. Measured: the highest so far of the whole "
        "process, or of the tensors on a CUDA device. An interrupted epoch counts from where it was resumed.</p>"
    )


def _commands(folder: Folder) -> str:
    cells = ((_esc(command), _esc(purpose)) for command, purpose in commands(folder))
    rows = "".join(
        f"<tr><td><code>{command}</code></td><td>{purpose}</td></tr>" for command, purpose in cells
    )
    return f'<table class="commands">{rows}</table>'


def _figure(svg: str, caption: str = "") -> str:
    return f"<figure>\n{svg}\n{f'<figcaption>{caption}</figcaption>' if caption else ''}</figure>"


def _list(items: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>"


def _esc(text: object) -> str:
    return html.escape(plain(text))


CSS = """
:root { color-scheme: light; }
body { margin: 0 auto; max-width: 840px; padding: 28px 30px 60px; background: #fff; color: #1f2933;
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
h1 { margin: 0 0 14px; font-size: 30px; line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin: 40px 0 12px; padding-top: 12px; border-top: 1px solid #d5dce3; font-size: 20px; }
h3 { margin: 22px 0 6px; font-size: 15px; }
.about { margin: 0; color: #52606d; overflow-wrap: anywhere; }
.lead { margin: 16px 0; padding: 12px 16px; border-left: 5px solid #7b8794; background: #f4f6f8; font-size: 17px; }
.lead.good { border-color: #3c8a3a; background: #eff7ee; }
.lead.bad { border-color: #b3261e; background: #fcf0ef; }
.notice { margin: 12px 0; padding: 10px 16px; border-left: 5px solid #d18b1f; background: #fff7e8;
  overflow-wrap: anywhere; }
.tiles { display: flex; flex-wrap: wrap; gap: 10px; }
.tiles div { flex: 1 1 0; min-width: min-content; padding: 10px 14px; border: 1px solid #d5dce3; border-radius: 8px; }
.tiles b { display: block; font-size: 20px; line-height: 1.3; white-space: nowrap; }
.tiles span { color: #52606d; font-size: 13px; line-height: 1.3; display: block; }
figure { margin: 10px 0 18px; }
figure svg { display: block; }
svg.plot text { font-family: inherit !important; }
figcaption, .caption { margin-top: 6px; color: #52606d; font-size: 13px; }
pre { padding: 12px 14px; border-radius: 8px; background: #f4f6f8; font-size: 13px; white-space: pre-wrap;
  overflow-wrap: anywhere; user-select: all; }
code, pre { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { font-size: 13px; }
table { border-collapse: collapse; font-size: 13.5px; }
th, td { padding: 3px 16px 3px 0; border-bottom: 1px solid #e9edf1; text-align: left; vertical-align: top;
  overflow-wrap: anywhere; }
th { font-weight: 400; color: #52606d; white-space: nowrap; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 28px; }
.pair h3 { margin-top: 0; }
.pair table, table.wide, table.commands { width: 100%; }
ul { padding-left: 20px; }
li { margin: 4px 0; }
@media print {
  @page { margin: 14mm; }
  figure svg { max-width: 86% !important; }
  .lead { font-size: 14px; }
  h2 { margin-top: 20px; }
  body { padding: 0; font-size: 12px; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  h2, h3 { break-after: avoid; }
  figure, tr, .lead, .notice, .tiles { break-inside: avoid; }
}
@media (max-width: 640px) { .pair { grid-template-columns: 1fr; } }
"""
