"""Pictures of choices: a row for each, with its operations as boxes, the chosen one marked.

All lengths are points (1/72 inch); y grows downwards.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
CLOSED = ("#f1f3f5", "#f1f3f5", "#9aa5b1")

MARK = "✓ "
NAME_SIGNS = 28  # of a choice's name in one line
OPERATION_SIGNS = 30  # of an operation's name; what is longer is cut
HEIGHT = 19.0  # of a box
GAP = 7.0  # between two boxes
ROW = 26.0  # from one line of boxes to the next
BETWEEN = 9.0  # more from one choice to the next
PAD = 7.0
NARROWEST = 330.0  # room for the legend


@dataclass(frozen=True)
class _Row:
    """A choice: its name in lines, and its boxes with their looks, relative to its top."""

    name: tuple[str, ...]
    boxes: tuple[tuple[Box, tuple[str, str, str]], ...]
    height: float


def picture(
    chosen: Mapping[str, str],
    path: Path | str,
    *,
    title: str | None = None,
    operations: Mapping[str, Sequence[str]] | None = None,
) -> Path:
    """The choices in an SVG, PNG or PDF file, by its suffix. The same choices give the same bytes.

    Args:
        chosen: choice -> operation.
        operations: choice -> all operations that it offered; without it the chosen ones alone are
            shown. A choice that `chosen` says nothing about could not be reached.

    Raises:
        ValueError: the suffix is another one, or the file cannot be written.
    """
    return save_figure(path, lambda: figure(chosen, title=title, operations=operations))


def svg(chosen: Mapping[str, str], *, operations: Mapping[str, Sequence[str]] | None = None) -> str:
    """The picture as an `<svg>` element for an HTML page."""
    key = f"choices {dict(chosen)} {operations}"
    return svg_element(figure(chosen, operations=operations), "Table of choices", key)


@plain_style()
def figure(
    chosen: Mapping[str, str],
    *,
    title: str | None = None,
    operations: Mapping[str, Sequence[str]] | None = None,
) -> Figure:
    """A row for each choice, with a legend where there is more than the chosen operations."""
    offered = operations
    if offered is None:
        offered = {name: (operation,) for name, operation in chosen.items()}
    names = {name: _lines(name) for name in offered}
    left = 14.0 + max((_names_width(lines) for lines in names.values()), default=0.0)
    rows = []
    right = NARROWEST
    for name, own in offered.items():
        row = _row(names[name], own, chosen.get(name), left)
        rows.append(row)
        right = max([right, *(box.right for box, _ in row.boxes)])

    heading = Heading.of(title)
    legend = _legend(chosen, offered)
    width = max(right, heading.width) + 2 * MARGIN
    rows_height = sum(row.height + BETWEEN for row in rows)
    legend_height = 14.0 if legend else 0.0
    drawn, canvas = blank(width, 2 * MARGIN + heading.height + rows_height + legend_height)
    heading.paint(canvas)
    y = MARGIN + heading.height
    for row in rows:
        _paint_row(canvas.at(MARGIN, y), row)
        y += row.height + BETWEEN
    _paint_legend(canvas.at(MARGIN, y + 4.0), legend)
    return drawn


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


def _row(name: tuple[str, ...], operations: Sequence[str], chosen: str | None, left: float) -> _Row:
    """The boxes of one choice from left to right, in as many lines as the page asks for."""
    boxes = []
    x = left
    line = 0
    for operation in operations:
        is_chosen = operation == chosen
        text = _label(operation)
        if is_chosen:
            text = MARK + text
        width = text_width(text, FONT) + 2 * PAD
        if x > left and x + width > PAGE - 2 * MARGIN:
            line += 1
            x = left
        look = CHOSEN if is_chosen else OTHER
        if chosen is None:
            look = CLOSED
        boxes.append((Box(x, HEIGHT / 2 + ROW * line, width, HEIGHT, (text,)), look))
        x += width + GAP
    boxes_height = HEIGHT + ROW * line
    name_height = HEIGHT + LEADING * (len(name) - 1)
    return _Row(name, tuple(boxes), max(boxes_height, name_height))


def _legend(
    chosen: Mapping[str, str], offered: Mapping[str, Sequence[str]]
) -> list[tuple[str, tuple[str, str, str]]]:
    """What is there besides chosen operations, and how it looks."""
    entries = []
    if any(len(operations) > 1 for operations in offered.values()):
        entries.append(("chosen", CHOSEN))
        entries.append(("not chosen", OTHER))
    if any(name not in chosen for name in offered):
        entries.append(("choice that is never reached", CLOSED))
    return entries


def _paint_row(canvas: Canvas, row: _Row) -> None:
    for i, line in enumerate(row.name):
        canvas.text(0, HEIGHT / 2 + LEADING * i, line, FONT, ha="left")
    for box, (fill, border, ink) in row.boxes:
        canvas.box(box, fill, border, ink)


def _paint_legend(canvas: Canvas, entries: list[tuple[str, tuple[str, str, str]]]) -> None:
    x = 0.0
    for text, (fill, border, _) in entries:
        canvas.box(Box(x, 4, 12, 9, ()), fill, border)
        canvas.text(x + 17, 4, text, FONT, LINE, ha="left")
        x += 17.0 + text_width(text, FONT) + 16.0
