"""Pictures of chains: a box for every block, its colour the kernel and its width the expansion.

All lengths are points (1/72 inch); y grows downwards.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gradnas.architectures.chain import (
    Chain,
    bottleneck,
)
from gradnas.architectures.genotype import Genotype
from gradnas.pictures.cells import (
    FONT,
    INK,
    LINE,
    MARGIN,
    PAGE,
    PNG_DPI,
    Box,
    Canvas,
    cells_svg,
    draw_cells,
    plain_style,
    save_figure,
    svg_element,
    text_width,
)
from gradnas.spaces import MBConvChain

# kernel: fill and border
KERNELS = {3: ("#d4e6f7", "#3f7fbf"), 5: ("#fde6c8", "#d18b1f"), 7: ("#e6dcf5", "#7d5bbe")}
OTHER_KERNEL, SKIP, PLAIN = ("#f7d4e0", "#bf3f6b"), ("#dcf0d8", "#4f9d49"), ("#f1f3f5", LINE)
HEIGHT, GAP, STAGE_GAP, ROW = 30.0, 11.0, 20.0, 74.0
NARROW, PER_EXPANSION = (
    25.0,
    4.0,
)  # width of a block: a constant, and so much for each unit of expansion


@dataclass(frozen=True)
class _Part:
    """A box of the chain: what it says, how it looks, and the stage it belongs to (0: none)."""

    lines: tuple[str, ...]
    width: float
    colours: tuple[str, str]
    stage: int
    family: str | None = None


def draw_architecture(
    found: Genotype | Chain, path: Path | str, *, title: str | None = None, space: object = None
) -> Path:
    """Draw cells or a chain into an SVG, PNG or PDF file, by its suffix; the same architecture
    gives the same bytes.

    Args:
        space: of a chain, where it is known: the picture then tells widths and sizes.

    Raises:
        ValueError: the suffix is another one, or the file cannot be written.
    """
    if isinstance(found, Genotype):
        return draw_cells(found, path, title=title)
    return save_figure(path, lambda: chain_figure(found, title=title, space=space))


def architecture_svg(found: Genotype | Chain, *, space: object = None) -> str:
    """The picture as an `<svg>` element for an HTML page."""
    if isinstance(found, Genotype):
        return cells_svg(found)
    return svg_element(chain_figure(found, space=space), "Chain of blocks", f"{found} {space}")


@plain_style()
def chain_figure(chain: Chain, *, title: str | None = None, space: object = None) -> Figure:
    """The blocks in rows, stage by stage, with a legend."""
    described = space if isinstance(space, MBConvChain) else None
    parts, captions = _parts(chain, described)
    rows = _rows(parts)
    headings = textwrap.wrap(title or "", 70)
    above = 17.0 * len(headings) + 9.0 if headings else 0.0
    right = max(x + part.width for row in rows for x, part in row)
    width = (
        max(right + GAP, *(text_width(line, FONT + 4, "bold") for line in headings), 320.0)
        + 2 * MARGIN
    )
    height = 2 * MARGIN + above + ROW * len(rows) + 16.0
    figure = Figure(figsize=(width / 72, height / 72), dpi=PNG_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    canvas = Canvas(axes, MARGIN, MARGIN)
    for i, line in enumerate(headings):
        canvas.text(0, 8 + 17.0 * i, line, FONT + 4, ha="left", weight="bold")
    for i, row in enumerate(rows):
        _paint_row(
            Canvas(axes, MARGIN, MARGIN + above + ROW * i), row, captions, last=i == len(rows) - 1
        )
    _paint_legend(Canvas(axes, MARGIN, MARGIN + above + ROW * len(rows) + 4.0), parts)
    return figure


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
        canvas.box(replace(Box(x, 4, 12, 9, ()), lines=()), *colours)
        canvas.text(x + 17, 4, text, FONT, LINE, ha="left")
        x += 17.0 + text_width(text, FONT) + 16.0
    canvas.text(x, 4, "width: expansion", FONT, LINE, ha="left")
