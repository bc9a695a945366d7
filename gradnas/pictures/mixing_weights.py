"""Plots of mixing weights: a table of them, and lines over epochs.

Legend: E places, O operations, N tables (one more than finished epochs). All lengths are CSS
pixels; y grows downwards.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from gradnas.pictures.sheet import (
    FONT,
    INK,
    SEARCHED,
    SMALL,
    WIDTH,
    Dash,
    Sheet,
    plot_style,
    shade,
    thinned,
    whole_epochs,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LONGEST_NAME = 24  # characters of an operation's name

# words in an operation's name and the shades of its family, as in the pictures of cells; the last
# that fits counts
FAMILIES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("conv", "relu"), ("#15518c", "#5b9bd5", "#0e8ba0", "#8fb8de")),
    (("dil",), ("#6a42ad", "#b195dc", "#8b1e7d")),
    (("pool", "tanh", "sigmoid"), ("#b85c00", "#f0a64a", "#8a6d1b")),
    (("skip", "identity"), ("#35853a", "#7cc47f")),
    (("none", "zero"), ("#9aa5b1", "#616e7c")),
)
OTHERS = ("#b3261e", "#0f766e", "#a21caf", "#854d0e", "#334155", "#65a30d")
DASHES: tuple[Dash, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)))

# Of the table of mixing weights
LEFT = 74.0
ROW = 20.0
GROUP_GAP = 7.0


# -- names and colours -----------------------------------------------------------------------------


def edges(nodes: int) -> list[tuple[int, int]]:
    """(predecessor, intermediate node) for every row of a table of alphas.

    Predecessors 0 and 1 are a cell's inputs.
    """
    return [(predecessor, node) for node in range(nodes) for predecessor in range(node + 2)]


def edge_label(predecessor: int, node: int) -> str:
    """Such as `cₖ₋₂ → 0`."""
    source = ("cₖ₋₂", "cₖ₋₁")[predecessor] if predecessor < 2 else str(predecessor - 2)
    return f"{source} → {node}"


def edge_rows(nodes: int) -> list[tuple[str, int]]:
    """The label of every edge, and the node that it leads into."""
    return [(edge_label(predecessor, node), node) for predecessor, node in edges(nodes)]


class EdgePanel(NamedTuple):
    """Where the panel of an edge stands, and what is written beside it.

    Attributes:
        row, column: by the node that the edge leads into, and by the one that it leaves.
        label: above it.
        into: beside the panels of its row.
    """

    row: int
    column: int
    label: str
    into: str


def edge_panels(nodes: int) -> list[EdgePanel]:
    """A panel for every edge of a cell with two inputs."""
    panels = []
    for predecessor, node in edges(nodes):
        label = edge_label(predecessor, node)
        panels.append(EdgePanel(node, predecessor, label, f"into node {node}"))
    return panels


def readable(operation: str) -> str:
    """An operation's name as the pictures of cells write it, cut when it is very long."""
    name = re.sub(r"(\d)x(\d)", r"\1×\2", operation.replace("_", " "))
    if name == "skip connect":
        return "skip"
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def operation_styles(operations: Sequence[str]) -> list[tuple[str, Dash]]:
    """A colour and a dash pattern for each operation, all different.

    Operations of one family share a hue.
    """
    used: dict[tuple[str, ...], int] = {}
    styles = []
    for operation in operations:
        shades = _shades(operation)
        number = used.get(shades, 0)
        used[shades] = number + 1
        dash = DASHES[(number // len(shades)) % len(DASHES)]
        styles.append((shades[number % len(shades)], dash))
    return styles


def _shades(operation: str) -> tuple[str, ...]:
    """Of the last family that fits."""
    found = OTHERS
    for words, shades in FAMILIES:
        if any(word in operation for word in words):
            found = shades
    return found


# -- plots -----------------------------------------------------------------------------------------


@plot_style()
def heat_map(
    name: str,
    table_EO: Sequence[Sequence[float | None]],
    rows: Sequence[tuple[str, int]],
    operations: Sequence[str],
    chosen: set[tuple[int, int]],
) -> str:
    """A table of mixing weights; darker is larger.

    Args:
        table_EO: None stands for no operation.
        rows: labels, and groups that count from 0.
        chosen: places (row, column) that are framed.
    """
    width = min(96.0, (WIDTH - LEFT - 8) / len(operations))
    names = [readable(operation) for operation in operations]
    longest = max(map(len, names))
    slanted = longest * 6.2 > width
    top = 12.0 + (longest * 5.0 if slanted else 10.0)
    last_group = rows[-1][1]
    table_width = width * len(operations)
    height = ROW * len(table_EO) + GROUP_GAP * last_group
    # Slanted names lean out of the table to the right.
    sheet = Sheet(WIDTH if slanted else LEFT + table_width + 8, top + height + 8)
    axes = sheet.axes(LEFT, top, table_width, height)
    axes.set_axis_off()
    axes.set_xlim(0, table_width)
    axes.set_ylim(height, 0)

    turn: dict[str, Any] = {"ha": "center"}
    if slanted:
        turn = {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
    for o, text in enumerate(names):
        axes.text((o + 0.5) * width, -6, text, size=SMALL, **turn)
    largest = _largest([table_EO]) or 1.0
    for e, ((label, group), values) in enumerate(zip(rows, table_EO, strict=True)):
        y = e * ROW + group * GROUP_GAP
        axes.text(-8, y + ROW / 2, label, ha="right", va="center_baseline", size=FONT)
        for o, value in enumerate(values):
            if value is not None:
                framed = (e, o) in chosen
                _paint_weight(axes, o, y, width, value, value / largest, framed=framed)
    return sheet.svg(name, "mixing weights, places by operations")


def _largest(tables_NEO: Sequence[Sequence[Sequence[float | None]]]) -> float:
    """The largest mixing weight of all tables."""
    largest = 0.0
    for table_EO in tables_NEO:
        for values in table_EO:
            there = [value for value in values if value is not None]
            largest = max([largest, *there])
    return largest


def _paint_weight(
    axes: Axes, o: int, y: float, width: float, value: float, share: float, *, framed: bool
) -> None:
    """A mixing weight in column `o`; its `share` of the largest says how dark."""
    from matplotlib.patches import Rectangle

    frame: dict[str, Any] = {"linewidth": 0}
    if framed:
        frame = {"edgecolor": SEARCHED, "linewidth": 2.0, "zorder": 3}
    axes.add_patch(
        Rectangle((o * width + 1, y + 1), width - 2, ROW - 2, facecolor=shade(share), **frame)
    )
    if width < 32:  # too narrow for a number
        return
    axes.text(
        (o + 0.5) * width,
        y + ROW / 2,
        f"{value:.2f}",
        ha="center",
        va="center_baseline",
        size=SMALL,
        color="white" if share > 0.65 else INK,
        zorder=4,
    )


@plot_style()
def mixing_lines(
    name: str,
    tables_NEO: Sequence[Sequence[Sequence[float | None]]],
    panels: Sequence[EdgePanel],
    operations: Sequence[str],
    chosen: set[tuple[int, int]],
) -> str:
    """A small panel for each edge, with a line over the epochs for each operation.

    Panels stand in rows by node and in columns by predecessor; the lines of (edge, operation) in
    `chosen` are thick. None in a table stands for no operation.
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    styles = operation_styles(operations)
    epochs = thinned(len(tables_NEO))
    columns = min(len(operations), 4)  # of the legend
    legend_rows = -(-len(operations) // columns)
    left = 70.0
    top = 18.0 + 17.0 * legend_rows
    gap = 12.0
    num_rows = 1 + max(panel.row for panel in panels)
    num_columns = 1 + max(panel.column for panel in panels)
    width = (WIDTH - left - 6 - gap * (num_columns - 1)) / num_columns
    height = min(100.0, max(56.0, 0.62 * width))
    pitch = height + 24.0
    sheet = Sheet(WIDTH, top + pitch * num_rows + 34)
    largest = _largest(tables_NEO)
    for e, panel in enumerate(panels):
        x = left + panel.column * (width + gap)
        axes = sheet.axes(x, top + panel.row * pitch + 14, width, height)
        axes.set_title(panel.label, fontsize=SMALL, fontweight="normal", pad=3)
        for o, (colour, dash) in enumerate(styles):
            thickness = 2.6 if (e, o) in chosen else 1.2
            weights = [tables_NEO[n][e][o] for n in epochs]
            there = [weight for weight in weights if weight is not None]
            if not there:
                continue
            axes.plot(epochs, there, color=colour, ls=dash, lw=thickness)
        axes.set_ylim(0, 1.06 * largest)
        whole_epochs(axes, epochs[0], epochs[-1], 3)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        is_leftmost = panel.column == 0
        is_lowest = panel.row == num_rows - 1
        axes.tick_params(labelleft=is_leftmost, labelbottom=is_lowest, length=2)
        if is_lowest:
            axes.set_xlabel("epoch")
        if is_leftmost:
            axes.set_ylabel(panel.into)
    sheet.figure.legend(
        [Line2D([], [], color=colour, ls=dash, lw=2) for colour, dash in styles],
        [readable(operation) for operation in operations],
        loc="upper left",
        bbox_to_anchor=(left / WIDTH, 1.0),
        ncols=columns,
        borderpad=0,
    )
    return sheet.svg(name, "mixing weights over epochs, one panel per edge")
