"""Pictures of chains: a box for every block, its colour the kernel and its width the expansion.

All lengths are points (1/72 inch); y grows downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from gradnas.architectures.base import Architecture
from gradnas.architectures.chain import Chain, bottleneck
from gradnas.architectures.genotype import Genotype
from gradnas.pictures import cells
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


@dataclass(frozen=True)
class _Part:
    """A box of the chain: what it says, how it looks, and the stage it belongs to (0: none)."""

    lines: tuple[str, ...]
    width: float
    colours: tuple[str, str]
    stage: int
    family: str | None = None


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
    right = max(x + part.width for row in rows for x, part in row)
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
    parts, captions = [], {}
    if space is not None:
        parts.append(_Part(("conv 3×3", f"{space.scaled(space.stem_width)}"), 46.0, PLAIN, 0))
        if space.first_width is not None:
            parts.append(_block("mb1_k3", 0))
    for number, stage in enumerate(chain.stages, 1):
        parts += [_block(operation, number) for operation in stage]
        captions[number] = (f"stage {number}", "")
    if space is not None:
        for number in captions:
            own = [block for block in space.blocks if block.stage == number]
            captions[number] = (f"stage {number}", f"{own[-1].channels_out} × {own[-1].size_out}²")
        parts.append(_Part(("conv 1×1", f"{space.head_width}"), 46.0, PLAIN, 0))
        parts.append(_Part(("pool", "linear"), 36.0, PLAIN, 0))
    return parts, captions


def _block(operation: str, stage: int) -> _Part:
    found = bottleneck(operation)
    if found is None:
        return _Part(("skip",), 26.0, SKIP, stage, "identity")
    expansion, kernel = found
    width = NARROW + PER_EXPANSION * min(expansion, 12)
    return _Part(
        (f"MB{expansion}", f"{kernel}×{kernel}"),
        width,
        KERNELS.get(kernel, OTHER_KERNEL),
        stage,
        str(kernel),
    )


def _rows(parts: list[_Part]) -> list[list[tuple[float, _Part]]]:
    """Boxes with their left sides, in rows that fit the page and break between stages where that is
    possible."""
    rows: list[list[tuple[float, _Part]]] = [[]]
    x, start = 0.0, 0
    while start < len(parts):
        end = start + 1
        while end < len(parts) and parts[start].stage and parts[end].stage == parts[start].stage:
            end += 1
        group = parts[start:end]
        length = sum(part.width + GAP for part in group) - GAP
        if rows[-1] and x + length > PAGE - 2 * MARGIN:
            rows.append([])
            x = 0.0
        for part in group:
            if rows[-1] and x + part.width > PAGE - 2 * MARGIN:
                rows.append([])
                x = 0.0
            rows[-1].append((x, part))
            x += part.width + GAP
        x += STAGE_GAP - GAP
        start = end
    return rows


def _paint_row(
    canvas: Canvas, row: list[tuple[float, _Part]], captions: dict[int, tuple[str, str]], last: bool
) -> None:
    y = HEIGHT / 2
    for (x, part), following in zip(row, [*row[1:], None], strict=True):
        box = Box(x, y, part.width, HEIGHT if part.family != "identity" else 18.0, part.lines)
        canvas.box(box, *part.colours, size=FONT - 0.5)
        end = following[0] if following is not None else (None if last else x + part.width + GAP)
        if end is not None:
            canvas.curve([(x + part.width, y), (end, y)], LINE, 1.1, 4)
            canvas.arrow(end, y, LINE)
    for stage in sorted({part.stage for _, part in row} - {0}):
        own = [(x, part) for x, part in row if part.stage == stage]
        left, right = own[0][0], own[-1][0] + own[-1][1].width
        canvas.curve([(left, HEIGHT + 6), (right, HEIGHT + 6)], LINE, 0.8, 4)
        for i, line in enumerate(captions[stage]):
            canvas.text(
                (left + right) / 2,
                HEIGHT + 14 + 10.5 * i,
                line,
                FONT - 0.5,
                INK if i == 0 else LINE,
            )


def _paint_legend(canvas: Canvas, parts: list[_Part]) -> None:
    x = 0.0
    kernels = sorted({int(part.family) for part in parts if part.family and part.family.isdigit()})
    entries = [
        (f"kernel {kernel}×{kernel}", KERNELS.get(kernel, OTHER_KERNEL)) for kernel in kernels
    ]
    if any(part.family == "identity" for part in parts):
        entries.append(("identity, or block removed", SKIP))
    for text, colours in entries:
        canvas.box(Box(x, 4, 12, 9, ()), *colours)
        canvas.text(x + 17, 4, text, FONT, LINE, ha="left")
        x += 17.0 + text_width(text, FONT) + 16.0
    canvas.text(x, 4, "width: expansion", FONT, LINE, ha="left")


def draw_architecture(
    found: Architecture, path: Path | str, *, title: str | None = None, space: object = None
) -> Path:
    """The picture of cells or of a chain; of a chain with its widths and sizes, where the space is
    known."""
    if isinstance(found, Genotype):
        return cells.picture(found, path, title=title)
    assert isinstance(found, Chain)
    known = space if isinstance(space, MBConvChain) else None
    return picture(found, path, title=title, space=known)
