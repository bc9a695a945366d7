"""A sheet of sample images in rows, each with a name.

All lengths are points; H W are pixels down and across.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gradnas.pictures.canvas import (
    FONT,
    LINE,
    MARGIN,
    PALE,
    Canvas,
    Heading,
    blank,
    plain,
    plain_style,
    save_figure,
    text_width,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIDE = 54.0  # of a sample
BETWEEN = 5.0  # samples, and rows
GROUPS_APART = 14.0
HEAD = 16.0  # above the rows: what the groups are
MOST_LETTERS = 28  # of a name


@dataclass(frozen=True)
class SampleRow:
    """A name and its images, group by group.

    Attributes:
        groups: for each group of the sheet, images as uint8 (H, W, 3).
    """

    name: str
    groups: Sequence[Sequence[np.ndarray]]


def picture(
    rows: Sequence[SampleRow], groups: Sequence[str], path: Path | str, *, title: str
) -> Path:
    """Write the sheet by the suffix of its path: PNG, SVG or PDF.

    Args:
        groups: what the groups of every row are called: "training", "test".

    Raises:
        ValueError: another suffix, or the file cannot be written.
    """
    with warnings.catch_warnings():
        # Class names are of any script, and the typeface is not.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        return save_figure(path, lambda: figure(rows, groups, title=title))


@plain_style()
def figure(rows: Sequence[SampleRow], groups: Sequence[str], *, title: str) -> Figure:
    """A line of images for each row."""
    names = [_short(row.name) for row in rows]
    left = 10.0 + max((text_width(name, FONT) for name in names), default=0.0)
    # Where each group begins: as wide as the longest of its rows, and as its name.
    starts = []
    x = left
    for number, group in enumerate(groups):
        starts.append(x)
        most = max((len(row.groups[number]) for row in rows), default=0)
        x += max(most * (SIDE + BETWEEN), text_width(group, FONT)) + GROUPS_APART
    heading = Heading.of(title)
    width = max(x - GROUPS_APART, heading.width) + 2 * MARGIN
    height = 2 * MARGIN + heading.height + HEAD + len(rows) * (SIDE + BETWEEN)
    drawn, canvas = blank(width, height)
    heading.paint(canvas)

    y = MARGIN + heading.height
    for start, group in zip(starts, groups, strict=True):
        canvas.at(MARGIN, y).text(start, HEAD / 2, group, FONT, LINE, ha="left")
    y += HEAD
    for name, row in zip(names, rows, strict=True):
        canvas.at(MARGIN, y).text(0.0, SIDE / 2, name, FONT, ha="left")
        for start, samples in zip(starts, row.groups, strict=True):
            for place, pixels_HWC in enumerate(samples):
                _paint(canvas, MARGIN + start + place * (SIDE + BETWEEN), y, pixels_HWC)
        y += SIDE + BETWEEN
    return drawn


def _paint(canvas: Canvas, x: float, y: float, pixels_HWC: np.ndarray) -> None:
    """One image in a square whose left upper corner is (x, y) of the page."""
    # `imshow` sets the limits of the axes to its own image.
    limits_x = canvas.axes.get_xlim()
    limits_y = canvas.axes.get_ylim()
    box = (x, x + SIDE, y + SIDE, y)  # y grows downwards
    canvas.axes.imshow(
        pixels_HWC, extent=box, interpolation="nearest", aspect="auto", clip_on=False
    )
    canvas.axes.set(xlim=limits_x, ylim=limits_y)
    # A frame, for images with a white ground
    corners = [(x, y), (x + SIDE, y), (x + SIDE, y + SIDE), (x, y + SIDE), (x, y)]
    canvas.at(0.0, 0.0).curve(corners, PALE, 0.4, zorder=8)


def _short(name: str) -> str:
    text = plain(name)
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
