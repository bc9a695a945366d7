"""Where the parts of a cell stand: lengths for the plan of its rows and lanes.

The layout cannot collide, whatever the genotype: an edge's horizontal line, its box and its arrow
lie in the row of that edge and nothing else does, and lanes contain no boxes. Hence lines cross
lines at right angles, and never a box or a label.

All lengths are points (1/72 inch); y grows downwards.
"""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass, replace

from gradnas.pictures.canvas import FONT, LEADING, Box, text_width
from gradnas.pictures.cell_plan import PITCH, Edge, Plan

LANE = 7.0  # between two lanes
ARROW = 16.0
PAD = 5.0  # within a box, left and right of its text
OUTPUT = 38.0  # width of the output


@dataclass(frozen=True)
class Row:
    """An edge with its level, and the box of its operation where it has one."""

    edge: Edge
    y: float
    box: Box | None


@dataclass(frozen=True)
class Layout:
    """A cell with lengths. `lanes` says x for every source whose lines bend."""

    plan: Plan
    states: tuple[Box, ...]
    rows: tuple[Row, ...]
    lanes: dict[int, float]
    output: Box

    @property
    def top(self) -> float:
        return min(box.y - box.height / 2 for box in self.boxes)

    @property
    def height(self) -> float:
        return max(box.y + box.height / 2 for box in self.boxes) - self.top

    @property
    def boxes(self) -> list[Box]:
        return [*self.states, self.output, *(row.box for row in self.rows if row.box)]


def layouts_of(plans: list[Plan], wrap: int) -> list[Layout]:
    """Layouts with boxes of one width and outputs in one line.

    Args:
        wrap: characters in a line of an operation's name.
    """
    widest = 0.0
    for plan in plans:
        for edge in plan.rows:
            for line in _wrapped(edge.operation, wrap):
                widest = max(widest, text_width(line, FONT))
    box_width = widest + 2 * PAD
    layouts = [_layout(plan, wrap, box_width) for plan in plans]
    x = max(layout.output.x for layout in layouts)
    return [replace(layout, output=replace(layout.output, x=x)) for layout in layouts]


def _layout(plan: Plan, wrap: int, box_width: float) -> Layout:
    labels = [_wrapped(edge.operation, wrap) for edge in plan.rows]
    # One height for all boxes of a cell, and more room between the rows where it needs that.
    box_height = max(len(lines) for lines in labels) * LEADING + 5.0
    # The plan's rows are made for labels of one line.
    spread = max(1.0, (box_height + 5.0) / PITCH)  # all levels by one factor: the plan stays
    levels = [y * spread for y in plan.state_levels()]
    levels_of_rows = [y * spread for y in plan.row_levels()]
    states, lanes, right = _columns(plan, levels, levels_of_rows, box_width)

    rows = []
    for edge, y, lines in zip(plan.rows, levels_of_rows, labels, strict=True):
        box = None
        if edge.operation:
            left = states[edge.target].x - ARROW - box_width
            box = Box(left, y, box_width, box_height, lines)
        rows.append(Row(edge, y, box))
    ends = [levels[i] for i in plan.graph.concat]
    lowest = min(ends)
    highest = max(ends)
    height = highest - lowest + 30.0
    output = Box(right + ARROW, (lowest + highest) / 2, OUTPUT, height, plan.graph.output)
    return Layout(plan, states, tuple(rows), lanes, output)


def _columns(
    plan: Plan, levels: list[float], levels_of_rows: list[float], box_width: float
) -> tuple[tuple[Box, ...], dict[int, float], float]:
    """The boxes of the states, the lanes of their lines, and where the last column ends."""
    entering: dict[int, list[float]] = {}
    leaving: dict[int, set[float]] = {}
    for edge, y in zip(plan.rows, levels_of_rows, strict=True):
        entering.setdefault(edge.target, []).append(y)
        leaving.setdefault(edge.source, set()).add(y)

    boxes: dict[int, Box] = {}
    lanes: dict[int, float] = {}
    x = 0.0
    for column, sources in enumerate(plan.lanes):
        states = [state for state, place in enumerate(plan.columns) if place == column]
        x += _room_before(plan, states, box_width)
        width = max(_state_width(plan.graph.labels[state]) for state in states)
        for state in states:
            label = plan.graph.labels[state]
            rows = entering.get(state, [0.0])  # an input has none
            # As tall as its rows are apart: each arrow ends at the box, in its own row.
            height = max(rows) - min(rows) + 17.0
            boxes[state] = Box(x, levels[state], width, height, (label,))
        x += width
        # A source whose only row is at its own height goes straight ahead, and needs no lane.
        bent = [source for source in sources if leaving[source] != {levels[source]}]
        # A little more than a lane on both sides, since the corners of the lines need room.
        for i, source in enumerate(bent):
            lanes[source] = x + LANE * (i + 1.2)
        x += LANE * (len(bent) + 1.4)
    in_order = tuple(boxes[state] for state in range(len(boxes)))
    return in_order, lanes, x


def _room_before(plan: Plan, states: list[int], box_width: float) -> float:
    """What stands between a column's states and the lanes before them: arrows, and boxes."""
    entering = [edge for edge in plan.rows if edge.target in states]
    arrow = ARROW if entering else 0.0
    box = box_width if any(edge.operation for edge in entering) else 0.0
    return arrow + box


def _state_width(label: str) -> float:
    return max(16.0, text_width(label, FONT + 1) + 2 * PAD)


def _wrapped(operation: str | None, wrap: int) -> tuple[str, ...]:
    return tuple(textwrap.wrap(readable(operation), wrap)) if operation else ("",)


def readable(operation: str) -> str:
    """The name of an operation as a picture writes it: `sep conv 3×3`."""
    if operation == "skip_connect":
        return "skip"
    words = operation.replace("_", " ").split()
    return re.sub(r"(\d)x(\d)", r"\1×\2", " ".join(words)) or "?"
