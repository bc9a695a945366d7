"""Pictures of cells: every operation is a labelled box in a row of its own.

The order of rows and lanes is planned first (`cell_plan`), then everything gets its place
(`cell_layout`), and is painted here.

All lengths are points (1/72 inch); y grows downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gradnas.architectures.genotype import CellGenotype, Genotype
from gradnas.pictures.canvas import (
    FONT,
    INK,
    LINE,
    MARGIN,
    PAGE,
    PALE,
    Box,
    Canvas,
    Heading,
    Point,
    blank,
    plain,
    plain_style,
    save_figure,
    svg_element,
    text_width,
)
from gradnas.pictures.cell_layout import Layout, layouts_of
from gradnas.pictures.cell_plan import Graph, Plan, conv_graph, plan_of, recurrent_graph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RADIUS = 5.0  # of a line's corners
TITLE_HEIGHT = 22.0  # of a cell's title, with the space below it
CELL_EXTRA = 40.0  # what a cell takes beside its layout: its title, and the space before the next
LEGEND_PITCH = 16.0  # between two rows of the legend

SECOND = "#0e7c86"  # the second input and its lines
# family: fill, border, and words in the names of its operations; the last family that fits counts
FAMILIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "convolution": ("#d4e6f7", "#3f7fbf", ("conv",)),
    "dilated convolution": ("#e6dcf5", "#7d5bbe", ("dil",)),
    "pooling": ("#fde6c8", "#d18b1f", ("pool",)),
    "skip connection": ("#dcf0d8", "#4f9d49", ("skip",)),
    "rectifier": ("#d4e6f7", "#3f7fbf", ("relu",)),
    "bounded activation": ("#fde6c8", "#d18b1f", ("tanh", "sigmoid")),
    "identity": ("#dcf0d8", "#4f9d49", ("identity",)),
    "no connection": ("white", "#c3cad1", ("none",)),
    "other operation": ("#e9ecef", "#7b8794", ()),
}
TITLES = {"normal": "Normal cell", "reduce": "Reduction cell", "recurrent": "Recurrent cell"}
GRAPHS = {"normal": conv_graph, "reduce": conv_graph, "recurrent": recurrent_graph}


def picture(genotype: Genotype, path: Path | str, *, title: str | None = None) -> Path:
    """The cells of a genotype in an SVG, PNG or PDF file, by its suffix.

    The same genotype gives the same bytes.

    Raises:
        ValueError: the suffix is another one, or the file cannot be written.
    """
    return save_figure(path, lambda: figure(genotype, title=title))


def svg(genotype: Genotype, *, title: str | None = None) -> str:
    """The picture as an `<svg>` element for an HTML page.

    Its ids and its style apply to itself alone, so several can stand in one page.
    """
    shown = _showable(genotype)
    label = " and ".join(TITLES[name] for name, _ in shown.cells)
    return svg_element(figure(shown, title=title), label, f"{shown} {title}")


def _showable(genotype: Genotype) -> Genotype:
    """The same cells, with names of operations that a page can hold."""
    cells = []
    for name, cell in genotype.cells:
        edges = tuple((plain(operation), predecessor) for operation, predecessor in cell.edges)
        cells.append((name, CellGenotype(edges, cell.concat, cell.inputs_per_node)))
    return Genotype(tuple(cells))


def figure(genotype: Genotype, *, title: str | None = None) -> Figure:
    """All cells of a genotype, one above the other, with a legend."""
    return figure_of(genotype.cells, title)


# -- painting --------------------------------------------------------------------------------------


def figure_of(cells: Sequence[tuple[str, CellGenotype]], title: str | None) -> Figure:
    """Named cells, one above the other, with a legend."""
    return figure_of_graphs([(TITLES[name], GRAPHS[name](cell)) for name, cell in cells], title)


@plain_style()
def figure_of_graphs(graphs: Sequence[tuple[str, Graph]], title: str | None) -> Figure:
    """Cells with their titles, one above the other, with a legend."""
    plans = [plan_of(graph) for _, graph in graphs]
    # Names in lines of 16 characters; of 9, in narrower boxes, where a page would be too narrow.
    layouts = layouts_of(plans, wrap=16)
    if layouts[0].output.right + 2 * MARGIN > PAGE:
        layouts = layouts_of(plans, wrap=9)
    heading = Heading.of(title)
    # All layouts end at one x, see `layouts_of`.
    width = max(layouts[0].output.right, heading.width) + 2 * MARGIN
    legend = _legend(_families(plans), width - 2 * MARGIN)
    height = (
        MARGIN
        + heading.height
        + sum(layout.height + CELL_EXTRA for layout in layouts)
        + LEGEND_PITCH * len(legend)
        + 4.0
    )

    drawn, canvas = blank(width, height)
    heading.paint(canvas)
    y = MARGIN + heading.height
    for (heading_of_cell, _), layout in zip(graphs, layouts, strict=True):
        canvas.at(MARGIN, y).text(0, 7, heading_of_cell, FONT + 2, ha="left", weight="bold")
        _paint(canvas.at(MARGIN, y + TITLE_HEIGHT - layout.top), layout)
        y += layout.height + CELL_EXTRA
    for i, row in enumerate(legend):
        below = canvas.at(MARGIN, y + LEGEND_PITCH * i)
        for x, family in row:
            fill, border, _ = FAMILIES[family]
            below.box(Box(x, 4, 12, 9, ()), fill, border)
            below.text(x + 17, 4, family, FONT, LINE, ha="left")
    return drawn


def _families(plans: list[Plan]) -> list[str]:
    """The families of all operations in the picture, in the order of the table."""
    there = set()
    for plan in plans:
        for edge in plan.rows:
            if edge.operation:
                there.add(_family(edge.operation))
    return [family for family in FAMILIES if family in there]


def _family(operation: str) -> str:
    """The last family that fits: a dilated convolution is more than a convolution."""
    last_fitting = "other operation"
    for family, (_, _, words) in FAMILIES.items():
        if any(word in operation for word in words):
            last_fitting = family
    return last_fitting


def _legend(families: list[str], width: float) -> list[list[tuple[float, str]]]:
    """Rows of families with their left sides."""
    rows: list[list[tuple[float, str]]] = [[]]
    x = 0.0
    for family in families:
        entry_width = 17.0 + text_width(family, FONT)  # the square and the gap after it are 17
        if rows[-1] and x + entry_width > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, family))
        x += entry_width + 16.0
    return rows


def _paint(canvas: Canvas, layout: Layout) -> None:
    output = layout.output
    for i in layout.plan.graph.concat:
        box = layout.states[i]
        canvas.curve([(box.right, box.y), (output.x, box.y)], PALE, 0.9, 1)
        canvas.arrow(output.x, box.y, PALE)
    for source, box in enumerate(layout.states):
        ends = []
        for row in layout.rows:
            if row.edge.source == source:
                # Its line ends at the box of the operation; one without an operation at the state.
                end = row.box or layout.states[row.edge.target]
                ends.append((end.x, row.y))
        if ends:
            colour = _line_colour(source, layout.plan.graph.inputs)
            _paint_lines(canvas, (box.right, box.y), layout.lanes.get(source), ends, colour)
    for row in layout.rows:
        target = layout.states[row.edge.target]
        colour = _line_colour(row.edge.source, layout.plan.graph.inputs)
        if row.box:
            canvas.curve([(row.box.right, row.y), (target.x, row.y)], colour, 1.1, 4)
            fill, border, _ = FAMILIES[_family(row.edge.operation or "")]
            canvas.box(row.box, fill, border)
        canvas.arrow(target.x, row.y, colour)

    # Boxes lie above all lines, whenever they are painted: the canvas gives them that order.
    num_inputs = layout.plan.graph.inputs
    for box, colour in zip(layout.states[:num_inputs], (INK, SECOND), strict=False):
        canvas.box(box, colour, colour, "white", FONT + 1)
    for box in layout.states[num_inputs:]:
        canvas.box(box, "white", INK, INK, FONT + 1)
    label, how = output.lines
    middle = output.x + output.width / 2
    # Its two lines of text are of two sizes, which a box does not have.
    canvas.box(replace(output, lines=()), "#f1f3f5", LINE)
    canvas.text(middle, output.y - 5, label, FONT + 2)
    canvas.text(middle, output.y + 7, how, FONT - 1, LINE)


def _line_colour(source: int, num_inputs: int) -> str:
    return SECOND if source == 1 and num_inputs == 2 else LINE


def _paint_lines(
    canvas: Canvas, start: Point, lane: float | None, ends: list[Point], colour: str
) -> None:
    """All lines of one source, with rounded corners.

    No part is painted twice: that would make it look bolder. Where a horizontal line crosses the
    lane of another source, that lane is broken.
    """
    from matplotlib.path import Path as Curve

    x, y = start
    straight = [end for end, row in ends if row == y]
    if lane is None:  # a single line, straight ahead
        _paint_across(canvas, x, straight[0], y, colour)
        return
    for turn in (-RADIUS, RADIUS):  # upwards and downwards
        rows = [row for _, row in ends if (row - y) * turn > 0]
        rows.sort(key=lambda row: abs(row - y))
        for row in rows:
            # The corner from the lane into the row: CURVE3 takes the point that the curve bends
            # towards, the corner itself, and then the curve's end.
            vertices = [(lane, row - turn), (lane, row), (lane + RADIUS, row)]
            codes = [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3]
            # The farthest row has the whole lane, with the corner into it: the others join it.
            if row == rows[-1]:
                vertices = [(lane - RADIUS, y), (lane, y), (lane, y + turn), *vertices]
                codes = [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3, Curve.LINETO, *codes[1:]]
            canvas.curve(vertices, colour, 1.1, 2, codes)
    _paint_across(canvas, x, lane - RADIUS, y, colour)
    for end, row in ends:
        _paint_across(canvas, lane + RADIUS, end, row, colour)
    if straight:
        canvas.curve([(lane - RADIUS, y), (lane + RADIUS, y)], colour, 1.1, 4)


def _paint_across(canvas: Canvas, left: float, right: float, y: float, colour: str) -> None:
    # White first, above the lanes: where the line crosses one, the lane is broken.
    canvas.curve([(left + 1, y), (right, y)], "white", 3.6, 3)
    canvas.curve([(left, y), (right, y)], colour, 1.1, 4)
