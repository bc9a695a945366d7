"""Pictures of cells: every operation is a labelled box in a row of its own.

The layout cannot collide, whatever the genotype. States stand in columns by their longest path from
the inputs, and every edge owns one row: its horizontal line, its box and its arrow lie there and
nothing else does. Between two columns run vertical lanes, one per source state, which contain no
boxes. Hence lines cross lines at right angles, and never a box or a label. A local search over the
lanes and the order of a node's rows keeps the crossings few.

All lengths are points (1/72 inch); y grows downwards.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import networkx as nx
from matplotlib.figure import Figure
from matplotlib.path import Path as Curve

from gradnas.architectures.genotype import CellGenotype, CellKind, Genotype
from gradnas.pictures.canvas import (
    FONT,
    INK,
    LEADING,
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

PITCH = 21.0  # between the rows of one node
BAND_GAP = 9.0  # more between the rows of two nodes
LANE = 7.0
RADIUS = 5.0
ARROW = 16.0
PAD = 5.0

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
    "other operation": ("#e9ecef", "#7b8794", ()),
}
TITLES = {"normal": "Normal cell", "reduce": "Reduction cell", "recurrent": "Recurrent cell"}


def picture(genotype: Genotype, path: Path | str, *, title: str | None = None) -> Path:
    """The cells of a genotype in an SVG, PNG or PDF file, by its suffix. The same genotype gives
    the same bytes.

    Raises:
        ValueError: the suffix is another one, or the file cannot be written.
    """
    return save_figure(path, lambda: figure(genotype, title=title))


def svg(genotype: Genotype, *, title: str | None = None) -> str:
    """The picture as an `<svg>` element for an HTML page. Its ids and its style apply to itself
    alone, so several can stand in one page."""
    shown = _showable(genotype)
    label = " and ".join(TITLES[name] for name, _ in shown.cells)
    return svg_element(figure(shown, title=title), label, f"{shown} {title}")


def _showable(genotype: Genotype) -> Genotype:
    """The same cells, with names of operations that a page can hold."""
    cells = []
    for name, cell in genotype.cells:
        edges = tuple((plain(operation), predecessor) for operation, predecessor in cell.edges)
        cells.append((name, CellGenotype(edges, cell.concat)))
    return Genotype(tuple(cells))


def figure(genotype: Genotype, *, title: str | None = None) -> Figure:
    """All cells of a genotype, one above the other, with a legend."""
    return _figure([(name, _graph(cell, genotype.kind)) for name, cell in genotype.cells], title)


# -- what is drawn ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Edge:
    source: int
    target: int
    operation: str | None  # None: the arrows from x_t and h_{t-1} to s_0, which have no choice


@dataclass(frozen=True)
class _Graph:
    """A cell of either kind. States 0 and 1 are its inputs."""

    labels: tuple[str, ...]  # per state
    edges: tuple[_Edge, ...]  # from top to bottom; the edges of one target are neighbours
    concat: tuple[int, ...]
    output: tuple[str, str]  # the output's label, and how it comes about

    @property
    def columns(self) -> list[int]:
        """Per state, the number of edges on its longest path from an input."""
        graph = nx.DiGraph()
        graph.add_nodes_from(range(len(self.labels)))
        graph.add_edges_from((edge.source, edge.target) for edge in self.edges)
        column = {
            state: i
            for i, states in enumerate(nx.topological_generations(graph))
            for state in states
        }
        return [column[state] for state in range(len(self.labels))]


def _graph(cell: CellGenotype, kind: CellKind) -> _Graph:
    if kind == "conv":
        labels = ["$c_{k-2}$", "$c_{k-1}$", *(str(i) for i in range(len(cell.edges) // 2))]
        edges = [_Edge(source, i // 2 + 2, name) for i, (name, source) in enumerate(cell.edges)]
        return _Graph(tuple(labels), tuple(edges), cell.concat, ("$c_{k}$", "concat"))
    labels = ["$x_{t}$", "$h_{t-1}$", *(f"$s_{{{i}}}$" for i in range(len(cell.edges) + 1))]
    incoming = {
        i + 3: _Edge(source + 2, i + 3, name) for i, (name, source) in enumerate(cell.edges)
    }
    # A tree: in preorder its lines do not cross
    tree = nx.DiGraph((edge.source, edge.target) for edge in incoming.values())
    edges = [_Edge(0, 2, None), _Edge(1, 2, None)]
    edges += [incoming[state] for state in nx.dfs_preorder_nodes(tree, 2) if state != 2]
    return _Graph(
        tuple(labels), tuple(edges), tuple(i + 2 for i in cell.concat), ("$h_{t}$", "mean")
    )


def _readable(operation: str) -> str:
    if operation == "skip_connect":
        return "skip"
    return " ".join(re.sub(r"(\d)x(\d)", r"\1×\2", operation.replace("_", " ")).split()) or "?"


def _family(operation: str) -> str:
    fitting = [
        family
        for family, (_, _, words) in FAMILIES.items()
        if any(word in operation for word in words)
    ]
    return fitting[-1] if fitting else "other operation"


# -- where it stands: the order of rows and lanes --------------------------------------------------


@dataclass(frozen=True)
class _Plan:
    """The discrete part of a layout: edges from top to bottom, and the sources of the lanes right
    of a column."""

    graph: _Graph
    columns: tuple[int, ...]
    rows: tuple[_Edge, ...]
    lanes: tuple[tuple[int, ...], ...]

    def row_levels(self) -> list[float]:
        """y of every row: neighbours at a pitch, with a gap between the rows of two targets."""
        levels, y = [], 0.0
        for i, edge in enumerate(self.rows):
            if i:
                y += PITCH + (BAND_GAP if self.rows[i - 1].target != edge.target else 0.0)
            levels.append(y)
        return levels

    def state_levels(self) -> list[float]:
        """y of every state: that of its rows' middle, and for an input near the rows that it feeds.

        An input's line must not lie in the row of another source, so it stands in one of its own
        rows, or at the height of a node, or above or below everything. The first input stands above
        the second unless that is far.
        """
        rows = list(zip(self.rows, self.row_levels(), strict=True))
        levels = [0.0, 0.0]
        for state in range(2, len(self.graph.labels)):
            own = [y for edge, y in rows if edge.target == state]
            levels.append(sum(own) / len(own))
        fed = [[y for edge, y in rows if edge.source == state] for state in (0, 1)]
        ends = [rows[0][1] - PITCH, rows[-1][1] + PITCH]
        middle = [sum(own) / len(own) if own else end for own, end in zip(fed, ends, strict=True)]
        pairs = [
            (abs(y0 - middle[0]) + abs(y1 - middle[1]) + (3 * PITCH if y1 < y0 else 0.0), y0, y1)
            for y0 in {*fed[0], *levels[2:], *ends}
            for y1 in {*fed[1], *levels[2:], *ends}
            if abs(y1 - y0) >= PITCH
        ]
        _, levels[0], levels[1] = min(pairs)
        return levels

    def crossings(self) -> int:
        """Twice the crossings among edges, plus those of an edge and a line to the output."""
        levels, rows = self.state_levels(), list(zip(self.rows, self.row_levels(), strict=True))
        across = [
            (self.columns[i], 1e9, levels[i], i, 1) for i in self.graph.concat
        ]  # from, to, y, source, weight
        lanes = []
        for column, sources in enumerate(self.lanes):
            for i, source in enumerate(sources):
                x = column + (i + 1) / (len(sources) + 2)
                own = [(edge.target, y) for edge, y in rows if edge.source == source]
                across.append((column, x, levels[source], source, 2))
                across += [(x, self.columns[target], y, source, 2) for target, y in own]
                ys = [levels[source], *(y for _, y in own)]
                lanes.append((x, min(ys), max(ys), source))
        return sum(
            weight
            for start, stop, y, source, weight in across
            for x, top, bottom, other in lanes
            if source != other and start < x < stop and top < y < bottom
        )

    def neighbours(self) -> Iterator[_Plan]:
        """Plans with two rows of one target, or two lanes of one column, exchanged."""
        for i in range(len(self.rows) - 1):
            if self.rows[i].target == self.rows[i + 1].target:
                yield _Plan(self.graph, self.columns, _exchanged(self.rows, i), self.lanes)
        for column, sources in enumerate(self.lanes):
            for i in range(len(sources) - 1):
                lanes = (*self.lanes[:column], _exchanged(sources, i), *self.lanes[column + 1 :])
                yield _Plan(self.graph, self.columns, self.rows, lanes)


def _exchanged(items: tuple[Any, ...], i: int) -> tuple[Any, ...]:
    return (*items[:i], items[i + 1], items[i], *items[i + 2 :])


def _plan(graph: _Graph) -> _Plan:
    columns = tuple(graph.columns)
    sources = sorted({edge.source for edge in graph.edges})
    lanes = (
        tuple(source for source in sources if columns[source] == i) for i in range(max(columns) + 1)
    )
    plan = _Plan(graph, columns, graph.edges, tuple(lanes))
    best = plan.crossings()
    while True:  # ends: the crossings decrease
        counts = [(other.crossings(), i, other) for i, other in enumerate(plan.neighbours())]
        count, _, other = min(counts, default=(best, 0, plan))
        if count >= best:
            return plan
        best, plan = count, other


# -- where it stands: lengths ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Layout:
    plan: _Plan
    states: tuple[Box, ...]
    rows: tuple[tuple[_Edge, float, Box | None], ...]  # with its y and its box
    lanes: dict[int, float]  # source: x
    output: Box

    @property
    def top(self) -> float:
        return min(box.y - box.height / 2 for box in self.boxes)

    @property
    def height(self) -> float:
        return max(box.y + box.height / 2 for box in self.boxes) - self.top

    @property
    def boxes(self) -> list[Box]:
        return [*self.states, self.output, *(box for _, _, box in self.rows if box)]


def _layout(plan: _Plan, wrap: int, box_width: float) -> _Layout:
    labels = [_wrapped(edge.operation, wrap) for edge in plan.rows]
    box_height = max(len(lines) for lines in labels) * LEADING + 5.0
    spread = max(1.0, (box_height + 5.0) / PITCH)  # the plan's rows are made for labels of one line
    levels = [y * spread for y in plan.state_levels()]
    ys = [y * spread for y in plan.row_levels()]
    widths = [max(16.0, text_width(label, FONT + 1) + 2 * PAD) for label in plan.graph.labels]
    states, lanes, x = {}, {}, 0.0
    for column, sources in enumerate(plan.lanes):
        own = [state for state in range(len(levels)) if plan.columns[state] == column]
        entering = [edge for edge in plan.rows if edge.target in own]
        x += (ARROW if entering else 0.0) + (
            box_width if any(edge.operation for edge in entering) else 0.0
        )
        width = max(widths[state] for state in own)
        for state in own:
            rows = [y for edge, y in zip(plan.rows, ys, strict=True) if edge.target == state] or [
                0.0
            ]
            height = max(rows) - min(rows) + 17.0
            states[state] = Box(x, levels[state], width, height, (plan.graph.labels[state],))
        x += width
        ends = [(edge.source, y) for edge, y in zip(plan.rows, ys, strict=True)]
        bent = [
            source
            for source in sources
            if {y for own, y in ends if own == source} != {levels[source]}
        ]
        lanes |= {source: x + LANE * (i + 1.2) for i, source in enumerate(bent)}
        x += LANE * (len(bent) + 1.4)
    rows = []
    for edge, y, lines in zip(plan.rows, ys, labels, strict=True):
        left = states[edge.target].x - ARROW - box_width
        rows.append(
            (edge, y, Box(left, y, box_width, box_height, lines) if edge.operation else None)
        )
    ends = [levels[i] for i in plan.graph.concat]
    middle, height = (min(ends) + max(ends)) / 2, max(ends) - min(ends) + 30.0
    output = Box(x + ARROW, middle, 38.0, height, plan.graph.output)
    return _Layout(plan, tuple(states[i] for i in range(len(states))), tuple(rows), lanes, output)


def _layouts(plans: list[_Plan], wrap: int) -> list[_Layout]:
    """Layouts with boxes of one width and outputs in one line."""
    lines = {
        line for plan in plans for edge in plan.rows for line in _wrapped(edge.operation, wrap)
    }
    box_width = max(text_width(line, FONT) for line in lines) + 2 * PAD
    layouts = [_layout(plan, wrap, box_width) for plan in plans]
    x = max(layout.output.x for layout in layouts)
    return [replace(layout, output=replace(layout.output, x=x)) for layout in layouts]


def _wrapped(operation: str | None, wrap: int) -> tuple[str, ...]:
    return tuple(textwrap.wrap(_readable(operation), wrap)) if operation else ("",)


# -- painting --------------------------------------------------------------------------------------


@plain_style()
def _figure(cells: list[tuple[str, _Graph]], title: str | None) -> Figure:
    plans = [_plan(graph) for _, graph in cells]
    layouts = _layouts(plans, wrap=16)
    if layouts[0].output.right + 2 * MARGIN > PAGE:
        layouts = _layouts(plans, wrap=9)
    heading = Heading.of(title)
    width = max(layouts[0].output.right, heading.width) + 2 * MARGIN
    legend = _legend(_families(plans), width - 2 * MARGIN)
    height = (
        MARGIN
        + heading.height
        + sum(layout.height + 40.0 for layout in layouts)
        + 16.0 * len(legend)
        + 4.0
    )

    drawn, canvas = blank(width, height)
    heading.paint(canvas)
    y = MARGIN + heading.height
    for (name, _), layout in zip(cells, layouts, strict=True):
        canvas.at(MARGIN, y).text(0, 7, TITLES[name], FONT + 2, ha="left", weight="bold")
        _paint(canvas.at(MARGIN, y + 22.0 - layout.top), layout)
        y += layout.height + 40.0
    for i, row in enumerate(legend):
        below = canvas.at(MARGIN, y + 16.0 * i)
        for x, family in row:
            fill, border, _ = FAMILIES[family]
            below.box(Box(x, 4, 12, 9, ()), fill, border)
            below.text(x + 17, 4, family, FONT, LINE, ha="left")
    return drawn


def _families(plans: list[_Plan]) -> list[str]:
    """The families of all operations in the picture, in the order of the table."""
    there = set()
    for plan in plans:
        for edge in plan.rows:
            if edge.operation:
                there.add(_family(edge.operation))
    return [family for family in FAMILIES if family in there]


def _legend(families: list[str], width: float) -> list[list[tuple[float, str]]]:
    """Rows of families with their left sides."""
    rows, x = [[]], 0.0
    for family in families:
        own = 17.0 + text_width(family, FONT)
        if rows[-1] and x + own > width:
            rows.append([])
            x = 0.0
        rows[-1].append((x, family))
        x += own + 16.0
    return rows


def _paint(canvas: Canvas, layout: _Layout) -> None:
    output = layout.output
    for i in layout.plan.graph.concat:
        box = layout.states[i]
        canvas.curve([(box.right, box.y), (output.x, box.y)], PALE, 0.9, 1)
        canvas.arrow(output.x, box.y, PALE)
    for source, box in enumerate(layout.states):
        ends = [
            ((own or layout.states[edge.target]).x, y)
            for edge, y, own in layout.rows
            if edge.source == source
        ]
        if ends:
            colour = SECOND if source == 1 else LINE
            _paint_lines(canvas, (box.right, box.y), layout.lanes.get(source), ends, colour)
    for edge, y, box in layout.rows:
        target, colour = layout.states[edge.target], SECOND if edge.source == 1 else LINE
        if box:
            canvas.curve([(box.right, y), (target.x, y)], colour, 1.1, 4)
            canvas.box(box, *FAMILIES[_family(edge.operation or "")][:2])
        canvas.arrow(target.x, y, colour)
    for box, colour in zip(layout.states, (INK, SECOND), strict=False):
        canvas.box(box, colour, colour, "white", FONT + 1)
    for box in layout.states[2:]:
        canvas.box(box, "white", INK, INK, FONT + 1)
    canvas.box(replace(output, lines=()), "#f1f3f5", LINE)
    canvas.text(output.x + output.width / 2, output.y - 5, output.lines[0], FONT + 2)
    canvas.text(output.x + output.width / 2, output.y + 7, output.lines[1], FONT - 1, LINE)


def _paint_lines(
    canvas: Canvas, start: Point, lane: float | None, ends: list[Point], colour: str
) -> None:
    """All lines of one source, with rounded corners. No part is painted twice: that would make it
    look bolder. Where a horizontal line crosses the lane of another source, that lane is broken."""
    x, y = start
    straight = [end for end, row in ends if row == y]
    if lane is None:  # a single line, straight ahead
        _paint_across(canvas, x, straight[0], y, colour)
        return
    for turn in (-RADIUS, RADIUS):  # upwards and downwards
        rows = sorted(
            (row for _, row in ends if (row - y) * turn > 0), key=lambda row: abs(row - y)
        )
        for row in rows:
            vertices = [(lane, row - turn), (lane, row), (lane + RADIUS, row)]
            codes = [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3]
            if row == rows[-1]:  # the farthest one continues the lane
                vertices = [(lane - RADIUS, y), (lane, y), (lane, y + turn), *vertices]
                codes = [Curve.MOVETO, Curve.CURVE3, Curve.CURVE3, Curve.LINETO, *codes[1:]]
            canvas.curve(vertices, colour, 1.1, 2, codes)
    _paint_across(canvas, x, lane - RADIUS, y, colour)
    for end, row in ends:
        _paint_across(canvas, lane + RADIUS, end, row, colour)
    if straight:
        canvas.curve([(lane - RADIUS, y), (lane + RADIUS, y)], colour, 1.1, 4)


def _paint_across(canvas: Canvas, left: float, right: float, y: float, colour: str) -> None:
    canvas.curve([(left + 1, y), (right, y)], "white", 3.6, 3)
    canvas.curve([(left, y), (right, y)], colour, 1.1, 4)
