"""Pictures of chains: a box for every block, its colour the kernel and its width the expansion.

All lengths are points (1/72 inch); y grows downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gradnas.architectures.chain import Chain, bottleneck
from gradnas.pictures.canvas import (
    FONT,
    INK,
    LINE,
    MARGIN,
    PAGE,
    Box,
    Canvas,
    Heading,
    blank,
    plain_style,
    save_figure,
    svg_element,
    text_width,
)
from gradnas.spaces import MBConvChain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# kernel: fill and border
KERNELS = {3: ("#d4e6f7", "#3f7fbf"), 5: ("#fde6c8", "#d18b1f"), 7: ("#e6dcf5", "#7d5bbe")}
OTHER_KERNEL = ("#f7d4e0", "#bf3f6b")
SKIP = ("#dcf0d8", "#4f9d49")
PLAIN = ("#f1f3f5", LINE)

HEIGHT = 30.0  # of a block
GAP = 11.0
STAGE_GAP = 20.0
ROW = 74.0
# The width of a block: a constant, and so much for each unit of expansion.
NARROW = 25.0
PER_EXPANSION = 4.0


# Of the parts that belong to none: stem, first block, head.
NO_STAGE = 0


@dataclass(frozen=True)
class _Part:
    """A box of the chain.

    Attributes:
        colours: fill and border.
        stage: that it belongs to.
        kernel: of a bottleneck.
    """

    lines: tuple[str, ...]
    width: float
    height: float
    colours: tuple[str, str]
    stage: int
    kernel: int | None = None


@dataclass(frozen=True)
class _Placed:
    """A part with its left side."""

    part: _Part
    x: float

    @property
    def right(self) -> float:
        return self.x + self.part.width


def picture(
    chain: Chain, path: Path | str, *, title: str | None = None, space: MBConvChain | None = None
) -> Path:
    """The chain in an SVG, PNG or PDF file, by its suffix. The same chain gives the same bytes.

    Args:
        space: where it is known, the picture tells widths and sizes.

    Raises:
        ValueError: the suffix is another one, or the file cannot be written.
    """
    return save_figure(path, lambda: figure(chain, title=title, space=space))


def svg(chain: Chain, *, space: MBConvChain | None = None) -> str:
    """The picture as an `<svg>` element for an HTML page."""
    return svg_element(figure(chain, space=space), "Chain of blocks", f"{chain} {space}")


@plain_style()
def figure(chain: Chain, *, title: str | None = None, space: MBConvChain | None = None) -> Figure:
    """The blocks in rows, stage by stage, with a legend."""
    parts, captions = _parts(chain, space)
    rows = _rows(parts)
    heading = Heading.of(title)
    right = max(row[-1].right for row in rows)
    width = max(right + GAP, heading.width, 320.0) + 2 * MARGIN
    height = 2 * MARGIN + heading.height + ROW * len(rows) + 16.0

    drawn, canvas = blank(width, height)
    heading.paint(canvas)
    top = MARGIN + heading.height
    for i, row in enumerate(rows):
        _paint_row(canvas.at(MARGIN, top + ROW * i), row, captions, last=i == len(rows) - 1)
    _paint_legend(canvas.at(MARGIN, top + ROW * len(rows) + 4.0), parts)
    return drawn


def _parts(
    chain: Chain, space: MBConvChain | None
) -> tuple[list[_Part], dict[int, tuple[str, str]]]:
    """The boxes in order, and for every stage the two lines below it."""
    parts = []
    captions = {}
    if space is not None:
        parts.append(_plain_part("conv 3×3", f"{space.shape.stem_width}", 46.0))
        if space.first_width is not None:
            parts.append(_block("mb1_k3", NO_STAGE))
    for number, stage in enumerate(chain.stages, 1):
        parts += [_block(operation, number) for operation in stage]
        captions[number] = (f"stage {number}", "")
    if space is not None:
        for number in captions:
            last = [block for block in space.blocks if block.stage == number][-1]
            captions[number] = (f"stage {number}", f"{last.channels_out} × {last.size_out}²")
        parts.append(_plain_part("conv 1×1", f"{space.shape.last_width}", 46.0))
        parts.append(_plain_part("pool", "linear", 36.0))
    return parts, captions


def _plain_part(above: str, below: str, width: float) -> _Part:
    return _Part((above, below), width, HEIGHT, PLAIN, NO_STAGE)


def _block(operation: str, stage: int) -> _Part:
    shape = bottleneck(operation)
    if shape is None:
        return _Part(("skip",), 26.0, 18.0, SKIP, stage)
    expansion, kernel = shape
    width = NARROW + PER_EXPANSION * min(expansion, 12)
    lines = (f"MB{expansion}", f"{kernel}×{kernel}")
    return _Part(lines, width, HEIGHT, KERNELS.get(kernel, OTHER_KERNEL), stage, kernel)


def _rows(parts: list[_Part]) -> list[list[_Placed]]:
    """Boxes with their left sides, in rows that fit the page.

    Rows break between stages where that is possible.
    """
    room = PAGE - 2 * MARGIN
    rows: list[list[_Placed]] = [[]]
    x = 0.0
    for group in _groups(parts):
        length = sum(part.width + GAP for part in group) - GAP
        if rows[-1] and x + length > room:
            rows.append([])
            x = 0.0
        for part in group:
            # Within a stage too, when the stage alone is longer than a row.
            if rows[-1] and x + part.width > room:
                rows.append([])
                x = 0.0
            rows[-1].append(_Placed(part, x))
            x += part.width + GAP
        x += STAGE_GAP - GAP
    return rows


def _groups(parts: list[_Part]) -> list[list[_Part]]:
    """The parts of a stage together, every other part alone."""
    groups: list[list[_Part]] = []
    for part in parts:
        joins = bool(groups) and part.stage != NO_STAGE and groups[-1][-1].stage == part.stage
        if joins:
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def _paint_row(
    canvas: Canvas, row: list[_Placed], captions: dict[int, tuple[str, str]], last: bool
) -> None:
    y = HEIGHT / 2
    for i, placed in enumerate(row):
        part = placed.part
        fill, border = part.colours
        box = Box(placed.x, y, part.width, part.height, part.lines)
        canvas.box(box, fill, border, size=FONT - 0.5)
        is_end = i == len(row) - 1
        if is_end and last:
            continue
        # At the end of a row that goes on below, the arrow leads out of it.
        end = placed.right + GAP if is_end else row[i + 1].x
        canvas.curve([(placed.right, y), (end, y)], LINE, 1.1, 4)
        canvas.arrow(end, y, LINE)
    for stage in sorted({placed.part.stage for placed in row} - {NO_STAGE}):
        own = [placed for placed in row if placed.part.stage == stage]
        _paint_caption(canvas, own[0].x, own[-1].right, captions[stage])


def _paint_caption(canvas: Canvas, left: float, right: float, lines: tuple[str, str]) -> None:
    """A line below the blocks of a stage, and what is said of it."""
    middle = (left + right) / 2
    name, maps = lines
    canvas.curve([(left, HEIGHT + 6), (right, HEIGHT + 6)], LINE, 0.8, 4)
    canvas.text(middle, HEIGHT + 14, name, FONT - 0.5, INK)
    canvas.text(middle, HEIGHT + 24.5, maps, FONT - 0.5, LINE)


def _paint_legend(canvas: Canvas, parts: list[_Part]) -> None:
    entries = []
    for kernel in sorted({part.kernel for part in parts if part.kernel is not None}):
        entries.append((f"kernel {kernel}×{kernel}", KERNELS.get(kernel, OTHER_KERNEL)))
    if any(part.colours == SKIP for part in parts):
        entries.append(("identity, or block removed", SKIP))
    x = 0.0
    for text, (fill, border) in entries:
        canvas.box(Box(x, 4, 12, 9, ()), fill, border)
        canvas.text(x + 17, 4, text, FONT, LINE, ha="left")
        x += 17.0 + text_width(text, FONT) + 16.0
    canvas.text(x, 4, "width: expansion", FONT, LINE, ha="left")
