"""What pictures of architectures are painted on: a page in points, boxes, lines, arrows and texts.

The same picture gives the same bytes: matplotlib's own settings hold whatever the user has set, ids
in an SVG come from a fixed salt, and no file holds the time.

All lengths are points (1/72 inch); y grows downwards.
"""

from __future__ import annotations

import hashlib
import html
import io
import re
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from gradnas import extras
from gradnas.config import did_you_mean
from gradnas.runs import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch
    from numpy.typing import ArrayLike

Point: TypeAlias = tuple[float, float]

PAGE = 675.0  # 900 pixels of a page; a wider picture must break its labels or its rows
MARGIN = 12.0
FONT = 8.5
LEADING = 10.5

INK = "#1f2933"
LINE = "#52606d"
PALE = "#b8c2cc"
TYPEFACE = "DejaVu Sans"  # comes with matplotlib

# A fixed salt, so that the ids in an SVG repeat
STYLE = {"svg.hashsalt": "gradnas", "svg.fonttype": "path", "mathtext.fontset": "dejavusans"}
PNG_DPI = 200
METADATA = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}


def check_installed() -> None:
    """MissingPackageError where what draws pictures is not installed, which the extras bring.

    Whoever imports matplotlib in this room comes after `plain_style`, `text_width` or
    `sheet.plot_style`, which ask here.
    """
    extras.need("matplotlib", "networkx", extra="reports", what="a picture")


# -- files and elements of a page ------------------------------------------------------------------


def save_figure(path: Path | str, make: Callable[[], Figure]) -> Path:
    """Write the figure that `make` gives by the suffix of its path, SVG, PNG or PDF.

    Raises:
        ValueError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in METADATA:
        known = ", ".join(f".{name}" for name in METADATA)
        hint = did_you_mean(suffix, METADATA)
        raise ValueError(f"{path}: a picture ends in {known}, not {path.suffix!r}{hint}")
    write_atomically(path, rendered(make(), suffix))
    return path


def svg_element(figure: Figure, label: str, key: str) -> str:
    """A figure as an `<svg>` element of its own; `key` tells it from others in the same page."""
    svg = rendered(figure, "svg").decode()
    prefix = "cells-" + hashlib.sha256(key.encode()).hexdigest()[:8]
    root, body = svg[svg.index("<svg") :].split(">", 1)
    size = root.split('viewBox="0 0 ')[1].split('"')[0]
    body = re.sub(r"\s*<metadata>.*?</metadata>", "", body, count=1, flags=re.DOTALL)
    body = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{prefix}-", body)
    body = body.replace("*{", f"#{prefix} *{{", 1)  # matplotlib's style would reach the whole page
    return (
        f'<svg id="{prefix}" role="img" aria-label="{html.escape(label)}" viewBox="0 0 {size}" '
        f'style="width:100%;max-width:{size.split()[0]}pt;height:auto" '
        f'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">{body}'
    )


def in_html(svg: str) -> str:
    """An `<svg>` element as HTML wants it, which knows no namespaces."""
    without_namespaces = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    return without_namespaces.replace("xlink:href=", "href=")


@contextmanager
def plain_style() -> Iterator[None]:
    """matplotlib's own settings and `STYLE`, whatever the user has set."""
    check_installed()
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


@plain_style()
def rendered(figure: Figure, suffix: str) -> bytes:
    """The bytes of a file of this kind."""
    buffer = io.BytesIO()
    dpi = PNG_DPI if suffix == "png" else 72
    figure.savefig(buffer, format=suffix, dpi=dpi, metadata=METADATA[suffix])
    return buffer.getvalue()


# -- texts -----------------------------------------------------------------------------------------


def plain(text: object) -> str:
    """Text that HTML and SVG can hold: a question mark in a diamond for what cannot be shown."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in str(text))


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """How wide a text is painted."""
    if not text:
        return 0.0
    check_installed()
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=TYPEFACE, weight=weight)
    outline = TextPath((0, 0), _escaped(text), size=size, prop=font)
    return float(outline.get_extents().width)


def _escaped(text: str) -> str:
    """A dollar in a name is a dollar; the labels of states alone, `$c_{k-2}$`, are mathematics."""
    is_label = re.fullmatch(r"\$[a-z]_\{[^{}]*\}\$", text)
    return text if is_label else text.replace("$", r"\$")


# -- painting --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Box:
    """A rounded rectangle with a text in its middle."""

    x: float  # left
    y: float  # middle
    width: float
    height: float
    lines: tuple[str, ...]

    @property
    def right(self) -> float:
        return self.x + self.width


@dataclass(frozen=True)
class Heading:
    """The title of a picture, in bold lines above it; without a title it takes no room."""

    lines: tuple[str, ...]

    @classmethod
    def of(cls, title: str | None) -> Heading:
        return cls(tuple(textwrap.wrap(title or "", 70)))

    @property
    def width(self) -> float:
        return max((text_width(line, FONT + 4, "bold") for line in self.lines), default=0.0)

    @property
    def height(self) -> float:
        return 17.0 * len(self.lines) + 9.0 if self.lines else 0.0

    def paint(self, canvas: Canvas) -> None:
        for i, line in enumerate(self.lines):
            canvas.text(0, 8 + 17.0 * i, line, FONT + 4, ha="left", weight="bold")


@dataclass(frozen=True)
class Canvas:
    """Axes in points, with an origin."""

    axes: Axes
    x: float
    y: float

    def at(self, x: float, y: float) -> Canvas:
        """The same axes with the origin at this place of the page."""
        return Canvas(self.axes, x, y)

    def _add(self, patch: Patch) -> None:
        patch.set_clip_on(False)  # nothing lies outside, and the SVG is shorter
        self.axes.add_artist(patch)  # not add_patch, which spends its time on data limits

    def curve(
        self,
        vertices: list[Point],
        colour: str,
        width: float,
        zorder: int,
        codes: ArrayLike | None = None,
    ) -> None:
        """A line through the vertices, or what matplotlib's path codes say of them."""
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path as Curve

        path = Curve([(x + self.x, y + self.y) for x, y in vertices], codes)
        patch = PathPatch(
            path, fill=False, edgecolor=colour, linewidth=width, zorder=zorder, capstyle="butt"
        )
        patch.set_snap(False)  # snapped to pixels, lines and curves would not meet
        self._add(patch)

    def arrow(self, x: float, y: float, colour: str) -> None:
        """The head of an arrow to the right, with its point at (x, y)."""
        from matplotlib.patches import Polygon

        tip_x = x + self.x - 1
        tip_y = y + self.y
        points = [(tip_x, tip_y), (tip_x - 5, tip_y - 2.6), (tip_x - 5, tip_y + 2.6)]
        self._add(Polygon(points, closed=True, facecolor=colour, edgecolor="none", zorder=5))

    def box(self, box: Box, fill: str, border: str, ink: str = INK, size: float = FONT) -> None:
        """The box with its lines of text."""
        from matplotlib.patches import FancyBboxPatch

        corner = (box.x + self.x, box.y - box.height / 2 + self.y)
        style = f"round,pad=0,rounding_size={min(4.0, box.height / 2)}"
        patch = FancyBboxPatch(
            corner, box.width, box.height, style, facecolor=fill, edgecolor=border, zorder=6
        )
        self._add(patch)
        first = box.y - LEADING * (len(box.lines) - 1) / 2
        for i, line in enumerate(box.lines):
            self.text(box.x + box.width / 2, first + LEADING * i, line, size, ink)

    def text(
        self, x: float, y: float, text: str, size: float, colour: str = INK, **style: Any
    ) -> None:
        """One line of text, in the middle of (x, y) unless the style says otherwise."""
        style = {"family": TYPEFACE, "ha": "center", "va": "center_baseline", **style}
        self.axes.text(
            x + self.x, y + self.y, _escaped(text), fontsize=size, color=colour, zorder=7, **style
        )


def blank(width: float, height: float) -> tuple[Figure, Canvas]:
    """An empty figure, and its canvas with the origin within the margin."""
    check_installed()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / 72, height / 72), dpi=PNG_DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    return figure, Canvas(axes, MARGIN, MARGIN)
