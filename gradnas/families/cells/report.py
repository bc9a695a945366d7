"""The sections of a report that are of convolutional cells.

Legend: N tables (one more than finished epochs), E edges, O operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gradnas.architectures.genotype import Genotype
from gradnas.config import from_json
from gradnas.families.sections import edge_mixtures, entropy_panel, heat_caption, still_open
from gradnas.pictures import cells, mixing_weights, plots
from gradnas.pictures.canvas import in_html, plain
from gradnas.pictures.mixing_weights import edge_panels, edge_rows, edges
from gradnas.pictures.plots import Line, Panel
from gradnas.pictures.sheet import BLUE, GREEN, ORANGE
from gradnas.reports.folder import Folder, Mixture, Tables
from gradnas.reports.parts import figure, headed, notice
from gradnas.spaces import ConvCell
from gradnas.spaces.cells.shape import CellKind

TITLES = {"normal": "Normal cell", "reduce": "Reduction cell"}
COLOURS = {"normal": BLUE, "reduce": ORANGE}

COLLAPSE_ADVICE = (
    "Long and first-order searches are known to end so: skip connections win while the weights of "
    "the other operations are still poor, not because they make the better network. Prefer the "
    "genotype of an earlier epoch (metrics.jsonl has them all), search for fewer epochs, or use a "
    "second-order gradient."
)


def tables(folder: Folder) -> Tables:
    """A row for each edge and a column for each operation, of both cells."""
    shape = (len(edges(_nodes(folder))), _num_columns(folder))
    return Tables({"normal": shape, "reduce": shape}, "cell", "normal/0000")


def shown(folder: Folder) -> str:
    """Both cells."""
    if not isinstance(folder.architecture, Genotype):
        return ""
    text = (
        "Operations stand on the edges; c<sub>k-1</sub> and c<sub>k-2</sub> are the two cells "
        "before."
    )
    picture = in_html(cells.svg(folder.architecture))
    return figure(picture, text + still_open(folder, "They are"))


def collapse(folder: Folder) -> str | None:
    """A warning if at least half of the normal cell's operations are skip connections."""
    skips = folder.metrics.last("skip_connections")
    if not folder.is_search or skips is None or skips < _nodes(folder):
        return None
    return (
        f"{skips:.0f} of the {2 * _nodes(folder)} operations of the normal cell are skip "
        "connections: the search may have collapsed."
    )


def mixing(folder: Folder) -> str:
    """A table and curves of the mixing weights of each cell, and how decided they are."""
    if not folder.alphas:
        return ""
    parts = []
    warning = collapse(folder)
    if warning is not None:
        parts.append(notice(f"{warning} {COLLAPSE_ADVICE}"))
    nodes = _nodes(folder)
    operations = _operations(folder)
    parts.append(
        f"<p>On every edge of a cell, the search weighs {_num_columns(folder)} operations. An edge "
        "is written as <i>from → to</i>: cₖ₋₂ and cₖ₋₁ are the outputs of the two cells before, "
        "0, 1, … the nodes of the cell itself.</p>"
    )
    entropies = {}
    for name, alphas_NEO in folder.alphas.items():
        mix_NEO = folder.relaxation.probabilities(alphas_NEO)
        entropies[name] = _entropies(mix_NEO)
        values = [_spread(folder, name, table) for table in mix_NEO.tolist()]
        chosen = _chosen(folder, name)
        heat = mixing_weights.heat_map(
            f"plot-mix-{name}", values[-1], edge_rows(nodes), operations, chosen
        )
        parts.append(headed(TITLES[name], figure(heat, heat_caption(len(values), "cell"))))
        panels = edge_panels(nodes)
        lines = mixing_weights.mixing_lines(
            f"plot-lines-{name}", values, panels, operations, chosen
        )
        parts.append(figure(lines, "The same over the epochs. Thick: the derived cell."))

    # Where a search begins: all alphas equal
    equal_11O = torch.zeros(1, 1, _num_columns(folder), dtype=torch.float64)
    undecided = _entropies(folder.relaxation.probabilities(equal_11O))[0]
    parts.append(_decidedness(folder, entropies, undecided))
    return "\n".join(parts)


def mixtures(folder: Folder) -> list[Mixture]:
    """Every edge of both cells."""
    found = []
    for name, alphas_NEO in folder.alphas.items():
        places = [f"{name} {label}" for label, _ in edge_rows(_nodes(folder))]
        mix_EO = folder.relaxation.probabilities(alphas_NEO[-1])
        table = _spread(folder, name, mix_EO.tolist())
        found += edge_mixtures(places, _operations(folder), table, _chosen(folder, name))
    return found


def _nodes(folder: Folder) -> int:
    return folder.setting("space", "nodes", kind=int)


def _operations(folder: Folder) -> list[str]:
    """In the order of alpha's columns."""
    return folder.names("space", "operations")


def _sets(folder: Folder, name: str) -> list[list[str]] | None:
    """The operations of every edge of a cell, where edges have other ones than each other."""
    if "edge_operations" not in folder.setting("space", kind=dict):
        return None
    where = f"{folder.path}/config.json: space"
    space = from_json(ConvCell, folder.setting("space", kind=dict), where)
    kind: CellKind = "reduce" if name == "reduce" else "normal"
    return [[plain(own) for own in names] for names in (space.shape.sets or {})[kind]]


def _num_columns(folder: Folder) -> int:
    """Of a table of alphas."""
    sets = _sets(folder, "normal")
    return len(_operations(folder)) if sets is None else len(sets[0])


def _spread(folder: Folder, name: str, table_EO: list[list[float]]) -> list[list[float | None]]:
    """A table with a column for every operation of any edge; None where an edge has it not."""
    sets = _sets(folder, name)
    if sets is None:
        return [list(values) for values in table_EO]
    spread = []
    for names, values in zip(sets, table_EO, strict=True):
        own = dict(zip(names, values, strict=True))
        spread.append([own.get(operation) for operation in _operations(folder)])
    return spread


def _entropies(mix_NEO: Tensor) -> list[float]:
    """Entropy (nats) of an edge's mixing weights, the mean over the edges, for every table."""
    return torch.special.entr(mix_NEO).sum(-1).mean(-1).tolist()


def _decidedness(folder: Folder, entropies: Mapping[str, list[float]], undecided: float) -> str:
    lines = []
    equal_weights = []
    for name, own in entropies.items():
        lines.append(Line(TITLES[name].lower(), list(enumerate(own)), COLOURS[name]))
        # exp(entropy) is the number of operations of equal weight that have this entropy
        equal_weights.append(f"{math.exp(own[-1]):.1f} in the {TITLES[name].lower()}")
    panels = [entropy_panel(lines, undecided)]
    skips = folder.metrics.series("skip_connections")
    if skips:
        levels = [(float(_nodes(folder)), "half of the operations")]
        line = Line("normal cell", skips, GREEN)
        panels.append(Panel("Skip connections", [line], whole=True, levels=levels))
    text = (
        f"Entropy falls as the search decides: from that of {math.exp(undecided):.1f} operations "
        f"of equal weight to that of {' and '.join(equal_weights)}. Skip connections for half of "
        "the normal cell or more mark a collapse."
    )
    label = "entropy and number of skip connections over epochs"
    plot = plots.curves("plot-decided", panels, label)
    return headed("How decided, and how many skip connections", figure(plot, text))


def _chosen(folder: Folder, name: str) -> set[tuple[int, int]]:
    """(row, column) of the derived cell's operations in the table of a cell."""
    genotype = folder.architecture
    if not isinstance(genotype, Genotype) or genotype.kind != "conv":
        return set()
    rows = edges(_nodes(folder))
    columns = _operations(folder)
    places = set()
    for node, inputs in enumerate(genotype.inputs(name)):
        for operation, predecessor in inputs:
            edge = (predecessor, node)
            # A genotype of another size, or with an operation of another search, is not framed.
            if edge in rows and plain(operation) in columns:
                places.add((rows.index(edge), columns.index(plain(operation))))
    return places
