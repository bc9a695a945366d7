"""The sections of a report that are of cells of NAS-Bench-201.

Legend: N tables (one more than finished epochs), E edges, O operations.
"""

from __future__ import annotations

import math

import torch

from gradnas.architectures.dense_cell import DenseCell
from gradnas.families.sections import edge_mixtures, entropy_panel, heat_caption, still_open
from gradnas.pictures import dense_cells, mixing_weights, plots
from gradnas.pictures.canvas import in_html, plain
from gradnas.pictures.mixing_weights import EdgePanel
from gradnas.pictures.plots import Line, Panel
from gradnas.pictures.sheet import BLUE, GREEN
from gradnas.reports.folder import Folder, Mixture, Tables
from gradnas.reports.parts import figure, headed, notice
from gradnas.spaces.nas_bench_201.shape import CHOICE

COLLAPSE_ADVICE = (
    "DARTS is known to end so in this space: skip connections win while the weights of the "
    "convolutions are still poor, not because they make the better network. Prefer the cell of an "
    "earlier epoch (metrics.jsonl has them all), or another method."
)


def tables(folder: Folder) -> Tables:
    """A row for each edge and a column for each operation."""
    shape = (len(_edges(folder)), len(_operations(folder)))
    return Tables({CHOICE: shape}, "cell", f"{CHOICE}/0000")


def shown(folder: Folder) -> str:
    """The cell."""
    if not isinstance(folder.architecture, DenseCell):
        return ""
    text = (
        "Node 0 is the cell's input, its last node the output; each node is the sum of what enters "
        "it. An edge with none is not there."
    )
    picture = in_html(dense_cells.svg(folder.architecture))
    return figure(picture, text + still_open(folder, "It is"))


def collapse(folder: Folder) -> str | None:
    """A warning if no operation has weights, or two thirds of them are skip connections."""
    if not folder.is_search:
        return None
    edges = len(_edges(folder))
    cell = folder.architecture
    if isinstance(cell, DenseCell) and not any("conv" in name for name in cell.operations):
        return "no operation of the cell has weights: the search has collapsed."
    skips = folder.metrics.last("skip_connections")
    if skips is None or 3 * skips < 2 * edges:
        return None
    return (
        f"{skips:.0f} of the {edges} operations of the cell are skip connections: the search may "
        "have collapsed."
    )


def mixing(folder: Folder) -> str:
    """A table and curves of the mixing weights, and how decided they are."""
    if not folder.alphas:
        return ""
    operations = _operations(folder)
    parts = []
    warning = collapse(folder)
    if warning is not None:
        parts.append(notice(f"{warning} {COLLAPSE_ADVICE}"))
    parts.append(
        f"<p>On every edge of the cell, the search weighs {len(operations)} operations. An edge is "
        "written as <i>from → to</i>.</p>"
    )
    mix_NEO = folder.relaxation.probabilities(folder.alphas[CHOICE])
    values = mix_NEO.tolist()
    edges = _edges(folder)
    rows = [(f"{source} → {node}", node - 1) for source, node in edges]
    chosen = _chosen(folder)
    heat = mixing_weights.heat_map("plot-mix", values[-1], rows, operations, chosen)
    parts.append(figure(heat, heat_caption(len(values), "cell")))
    panels = []
    for source, node in edges:
        panels.append(EdgePanel(node - 1, source, f"{source} → {node}", f"into node {node}"))
    lines = mixing_weights.mixing_lines("plot-lines", values, panels, operations, chosen)
    parts.append(figure(lines, "The same over the epochs. Thick: the derived cell."))

    entropies_N = torch.special.entr(mix_NEO).sum(-1).mean(-1).tolist()
    # Where a search begins: all alphas equal
    equal_O = torch.zeros(1, 1, len(operations), dtype=torch.float64)
    undecided = float(torch.special.entr(folder.relaxation.probabilities(equal_O)).sum())
    decided = [entropy_panel([Line("cell", list(enumerate(entropies_N)), BLUE)], undecided)]
    skips = folder.metrics.series("skip_connections")
    if skips:
        levels = [(2 / 3 * len(edges), "two thirds of the operations")]
        decided.append(
            Panel("Skip connections", [Line("cell", skips, GREEN)], whole=True, levels=levels)
        )
    text = (
        f"Entropy falls as the search decides: from that of {math.exp(undecided):.1f} operations "
        f"of equal weight to that of {math.exp(entropies_N[-1]):.1f}."
    )
    label = "entropy and number of skip connections over epochs"
    plot = plots.curves("plot-decided", decided, label)
    parts.append(headed("How decided, and how many skip connections", figure(plot, text)))
    return "\n".join(parts)


def mixtures(folder: Folder) -> list[Mixture]:
    """Every edge of the cell."""
    if CHOICE not in folder.alphas:
        return []
    places = [f"edge {source} → {node}" for source, node in _edges(folder)]
    mix_EO = folder.relaxation.probabilities(folder.alphas[CHOICE][-1])
    return edge_mixtures(places, _operations(folder), mix_EO.tolist(), _chosen(folder))


def _edges(folder: Folder) -> list[tuple[int, int]]:
    """(source, node) for every row of the table of alphas."""
    nodes = folder.setting("space", "nodes", kind=int)
    return [(source, node) for node in range(1, nodes) for source in range(node)]


def _operations(folder: Folder) -> list[str]:
    """In the order of alpha's columns."""
    return folder.names("space", "operations")


def _chosen(folder: Folder) -> set[tuple[int, int]]:
    """(row, column) of the derived cell's operations."""
    cell = folder.architecture
    columns = _operations(folder)
    if not isinstance(cell, DenseCell):
        return set()
    places = set()
    for row, name in enumerate(cell.operations):
        # A cell with an operation of another search is not framed.
        if plain(name) in columns:
            places.add((row, columns.index(plain(name))))
    return places
