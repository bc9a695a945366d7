"""The sections of a report that are of recurrent cells: states instead of maps.

Legend: N tables (one more than finished epochs), E edges, O activations.
"""

from __future__ import annotations

import math

import torch

from gradnas.architectures.genotype import Genotype
from gradnas.families.sections import edge_mixtures, entropy_panel, heat_caption, still_open
from gradnas.pictures import cells, mixing_weights, plots
from gradnas.pictures.canvas import in_html
from gradnas.pictures.plots import Line
from gradnas.pictures.sheet import BLUE
from gradnas.reports.folder import Folder, Mixture, Tables
from gradnas.reports.parts import escaped, figure, headed

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def state_edges(nodes: int) -> list[tuple[int, int]]:
    """(predecessor, node) for every row of the table of alphas.

    Nodes count from 1, and 0 is the first state.
    """
    return [(predecessor, node) for node in range(1, nodes + 1) for predecessor in range(node)]


def tables(folder: Folder) -> Tables:
    """A row for each edge and a column for each activation."""
    nodes = _nodes(folder)
    shape = (len(state_edges(nodes)), len(_activations(folder)))
    return Tables({"recurrent": shape}, "cell", "recurrent/0000")


def shown(folder: Folder) -> str:
    """The cell."""
    if not isinstance(folder.architecture, Genotype):
        return ""
    text = (
        "Activations stand on the edges between states; every edge has its node’s matrix and gate "
        "before them."
    )
    picture = in_html(cells.svg(folder.architecture))
    return figure(picture, text + still_open(folder, "They are"))


def mixing(folder: Folder) -> str:
    """A table of the mixing weights, and how decided they are."""
    if not folder.alphas:
        return ""
    (alphas_NEO,) = folder.alphas.values()
    mix_NEO = folder.relaxation.probabilities(alphas_NEO)
    activations = _activations(folder)
    rows = []
    for (_, node), label in zip(state_edges(_nodes(folder)), _labels(folder), strict=True):
        rows.append((label, node - 1))
    heat = mixing_weights.heat_map(
        "plot-mix-recurrent",
        mix_NEO[-1].tolist(),
        rows,
        activations,
        _chosen(folder),
    )
    entropies = torch.special.entr(mix_NEO).sum(-1).mean(-1).tolist()
    line = Line("recurrent cell", list(enumerate(entropies)), BLUE)
    panel = entropy_panel([line], math.log(len(activations)))
    plot = plots.curves("plot-decided", [panel], "entropy over epochs")
    about = (
        "<p>An edge is written as <i>from → to</i>; s₀ is made of the input and the last "
        "output.</p>"
    )
    parts = [
        about,
        figure(heat, escaped(heat_caption(len(mix_NEO), "cell"))),
        headed("How decided", figure(plot, "Entropy falls as the search decides.")),
    ]
    return "\n".join(parts)


def mixtures(folder: Folder) -> list[Mixture]:
    """Every edge of the cell."""
    if not folder.alphas:
        return []
    (alphas_NEO,) = folder.alphas.values()
    mix_EO = folder.relaxation.probabilities(alphas_NEO[-1])
    return edge_mixtures(_labels(folder), _activations(folder), mix_EO.tolist(), _chosen(folder))


def _labels(folder: Folder) -> list[str]:
    """Of the edges, in the order of the rows."""
    edges = state_edges(_nodes(folder))
    return [f"{_state(predecessor)} → {_state(node)}" for predecessor, node in edges]


def _nodes(folder: Folder) -> int:
    return folder.setting("space", "nodes", kind=int)


def _activations(folder: Folder) -> list[str]:
    """In the order of alpha's columns."""
    return folder.names("space", "activations")


def _chosen(folder: Folder) -> set[tuple[int, int]]:
    """(row, column) of the derived cell's activations in the table."""
    genotype = folder.architecture
    if not isinstance(genotype, Genotype) or len(genotype.recurrent) != _nodes(folder):
        return set()
    rows = state_edges(_nodes(folder))
    columns = _activations(folder)
    places = set()
    for node, (name, predecessor) in enumerate(genotype.recurrent, start=1):
        if name in columns:
            places.add((rows.index((predecessor, node)), columns.index(name)))
    return places


def _state(number: int) -> str:
    """Such as `s₁`."""
    return "s" + str(number).translate(SUBSCRIPTS)
