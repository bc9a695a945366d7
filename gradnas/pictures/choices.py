"""Pictures of choices: a row for each, with its operations as boxes, the chosen one marked.

All lengths are points (1/72 inch); y grows downwards.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

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
    blank,
    plain,
    plain_style,
    save_figure,
    svg_element,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# fill, border and ink
CHOSEN = ("#dcf0d8", "#4f9d49", INK)
OTHER = ("white", PALE, LINE)
UNDECIDED = ("#fdf3d8", "#c98a12", INK)
CLOSED = ("#f1f3f5", "#f1f3f5", "#9aa5b1")
CURVES = ("white", "#4f9d49", INK)

MARK = "✓ "
DOUBT = "? "  # of an operation that was chosen, and that nothing shows to be better
NAME_SIGNS = 28  # of a choice's name in one line
OPERATION_SIGNS = 30  # of an operation's name; what is longer is cut
HEIGHT = 19.0  # of a box
GAP = 7.0  # between two boxes
ROW = 26.0  # from one line of boxes to the next
BETWEEN = 9.0  # more from one choice to the next
PAD = 7.0
NARROWEST = 330.0  # room for the legend
CURVE = 16.0  # height of the probabilities below a box
INDENT = 12.0  # of a choice below the name of its module


@dataclass(frozen=True)
class Known:
    """What a picture may tell beside the operations that were chosen.

    Attributes:
        operations: choice -> all operations that it offered; without it the chosen ones alone are
            shown. A choice that nothing was chosen for could not be reached.
        places: choice -> where in the module it is, paths with dots: the rows are then its tree.
        history: choice -> the probabilities of its operations after each epoch, `(N, O)`.
        undecided: choices of which the measurements do not say that what was chosen is better.
    """

    operations: Mapping[str, Sequence[str]] | None = None
    places: Mapping[str, Sequence[str]] = field(default_factory=dict)
    history: Mapping[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    undecided: Collection[str] = ()


@dataclass(frozen=True)
class _Row:
    """A choice: its name in lines, and its boxes with their looks, relative to its top.

    Attributes:
        indent: of the name, in points.
        above: the module that it is in, where that is another than of the row before.
        curves: the probabilities of each box over the epochs; empty where they are not known.
    """

    name: tuple[str, ...]
    boxes: tuple[tuple[Box, tuple[str, str, str]], ...]
    height: float
    indent: float = 0.0
    above: str = ""
    curves: tuple[Sequence[float], ...] = ()


def picture(
    chosen: Mapping[str, str],
    path: Path | str,
    *,
    title: str | None = None,
    known: Known = Known(),
) -> Path:
    """The choices in an SVG, PNG or PDF file, by its suffix. The same choices give the same bytes.

    Args:
        chosen: choice -> operation.

    Raises:
        ValueError: the suffix is another one, or the file cannot be written.
    """
    return save_figure(path, lambda: figure(chosen, title=title, known=known))


def svg(chosen: Mapping[str, str], known: Known = Known()) -> str:
    """The picture as an `<svg>` element for an HTML page."""
    key = f"choices {dict(chosen)} {known.operations} {sorted(known.undecided)}"
    return svg_element(figure(chosen, known=known), "Table of choices", key)


@plain_style()
def figure(
    chosen: Mapping[str, str],
    *,
    title: str | None = None,
    known: Known = Known(),
) -> Figure:
    """A row for each choice, with a legend where there is more than the chosen operations."""
    offered = known.operations
    if offered is None:
        offered = {name: (operation,) for name, operation in chosen.items()}
    in_tree = sorted(offered, key=lambda name: _order(known, name))
    labels = {name: _lines(_label_in_tree(known, name)) for name in in_tree}
    indent = {name: INDENT if _parent(known, name) else 0.0 for name in in_tree}
    widths = [indent[name] + _names_width(labels[name]) for name in in_tree]
    left = 14.0 + max(widths, default=0.0)
    rows = []
    right = NARROWEST
    parent = ""
    for name in in_tree:
        history = known.history.get(name)
        is_open = name in known.undecided
        own = _row(labels[name], offered[name], chosen.get(name), left, history, is_open)
        above = _parent(known, name) if _parent(known, name) != parent else ""
        parent = _parent(known, name)
        row = replace(own, indent=indent[name], above=above)
        rows.append(row)
        right = max([right, *(box.right for box, _ in row.boxes)])

    heading = Heading.of(title)
    legend = _legend(chosen, offered, known)
    legend_width = sum(33.0 + text_width(text, FONT) for text, _ in legend)
    width = max(right, heading.width, legend_width) + 2 * MARGIN
    rows_height = sum(row.height + BETWEEN + (LEADING if row.above else 0.0) for row in rows)
    legend_height = 14.0 if legend else 0.0
    drawn, canvas = blank(width, 2 * MARGIN + heading.height + rows_height + legend_height)
    heading.paint(canvas)
    y = MARGIN + heading.height
    for row in rows:
        if row.above:
            canvas.at(MARGIN, y).text(0, 4.0, row.above, FONT, LINE, ha="left")
            y += LEADING
        _paint_row(canvas.at(MARGIN, y), row)
        y += row.height + BETWEEN
    _paint_legend(canvas.at(MARGIN, y + 4.0), legend)
    return drawn


def _order(known: Known, name: str) -> tuple[int, int]:
    """As the module has them, where that is known."""
    places = list(known.places)
    return (places.index(name), 0) if name in places else (len(places), 0)


def _parent(known: Known, name: str) -> str:
    """The module that a choice is in: its path as a person reads it."""
    places = known.places.get(name)
    if not places:
        return ""
    above, dot, _ = places[0].rpartition(".")
    return plain(above.replace(".operations.", ": ")) if dot else ""


def _label_in_tree(known: Known, name: str) -> str:
    """The name below its module, and in how many places it is; one that was given stays."""
    places = known.places.get(name)
    if not places:
        return name
    number = f" ×{len(places)}" if len(places) > 1 else ""
    own = places[0].rpartition(".")[2] if name == places[0].replace(".", "/") else name
    return f"{own}{number}"


def _names_width(lines: Sequence[str]) -> float:
    return max(text_width(line, FONT) for line in lines)


def _lines(name: str) -> tuple[str, ...]:
    """The name of a choice, such as `blocks/3/body`, in lines that end after a part of it."""
    lines = [""]
    for part in re.findall(r"[^/._]*[/._]|[^/._]+", plain(name)):
        # A part that fills more than a line is broken anywhere.
        pieces = [part[i : i + NAME_SIGNS] for i in range(0, len(part), NAME_SIGNS)]
        for piece in pieces:
            if len(lines[-1]) + len(piece) > NAME_SIGNS:
                lines.append("")
            lines[-1] += piece
    return tuple(lines)


def _label(operation: str) -> str:
    """The name of an operation, cut when it is very long."""
    text = plain(operation)
    return text if len(text) <= OPERATION_SIGNS else text[: OPERATION_SIGNS - 1] + "…"


def _row(
    name: tuple[str, ...],
    operations: Sequence[str],
    chosen: str | None,
    left: float,
    history: Sequence[Sequence[float]] | None = None,
    is_open: bool = False,
) -> _Row:
    """The boxes of one choice from left to right, in as many lines as the page asks for."""
    has_history = history is not None and len(history[-1]) == len(operations)
    height = HEIGHT + (CURVE if has_history else 0.0)
    boxes = []
    curves = []
    x = left
    line = 0
    for column, operation in enumerate(operations):
        is_chosen = operation == chosen
        text = _label(operation)
        if is_chosen:
            text = (DOUBT if is_open else MARK) + text
        if has_history:
            assert history is not None
            text += f" {100 * history[-1][column]:.0f}%"
            curves.append([probabilities[column] for probabilities in history])
        width = text_width(text, FONT) + 2 * PAD
        if x > left and x + width > PAGE - 2 * MARGIN:
            line += 1
            x = left
        look = OTHER
        if is_chosen:
            look = UNDECIDED if is_open else CHOSEN
        if chosen is None:
            look = CLOSED
        y = HEIGHT / 2 + (ROW + height - HEIGHT) * line
        boxes.append((Box(x, y, width, HEIGHT, (text,)), look))
        x += width + GAP
    boxes_height = height + (ROW + height - HEIGHT) * line
    name_height = HEIGHT + LEADING * (len(name) - 1)
    return _Row(name, tuple(boxes), max(boxes_height, name_height), curves=tuple(curves))


def _legend(
    chosen: Mapping[str, str], offered: Mapping[str, Sequence[str]], known: Known
) -> list[tuple[str, tuple[str, str, str]]]:
    """What is there besides chosen operations, and how it looks."""
    entries = []
    if any(len(operations) > 1 for operations in offered.values()):
        if any(name not in known.undecided for name in chosen):
            entries.append(("chosen", CHOSEN))
        if any(name in known.undecided for name in chosen):
            entries.append(("chosen, but undecided", UNDECIDED))
        entries.append(("not chosen", OTHER))
    if any(name not in chosen for name in offered):
        entries.append(("choice that is never reached", CLOSED))
    if known.history:
        entries.append(("below: probability over the epochs", CURVES))
    return entries


def _paint_row(canvas: Canvas, row: _Row) -> None:
    for i, line in enumerate(row.name):
        canvas.text(row.indent, HEIGHT / 2 + LEADING * i, line, FONT, ha="left")
    for box, (fill, border, ink) in row.boxes:
        canvas.box(box, fill, border, ink)
    for (box, (_, border, _)), curve in zip(row.boxes, row.curves, strict=False):
        _paint_curve(canvas, box, curve, border)


def _paint_curve(canvas: Canvas, box: Box, curve: Sequence[float], colour: str) -> None:
    """The probability of an operation over the epochs, below its box."""
    bottom = box.y + HEIGHT / 2 + CURVE - 2.0
    room = CURVE - 4.0
    step = (box.width - 2 * PAD) / max(1, len(curve) - 1)
    left = box.x + PAD
    canvas.curve([(left, bottom), (box.right - PAD, bottom)], "#e4e7eb", 0.6, 4)
    points = [(left + step * n, bottom - room * p) for n, p in enumerate(curve)]
    if len(points) > 1:
        canvas.curve(points, colour, 1.1, 5)


def _paint_legend(canvas: Canvas, entries: list[tuple[str, tuple[str, str, str]]]) -> None:
    x = 0.0
    for text, (fill, border, _) in entries:
        canvas.box(Box(x, 4, 12, 9, ()), fill, border)
        canvas.text(x + 17, 4, text, FONT, LINE, ha="left")
        x += 17.0 + text_width(text, FONT) + 16.0
