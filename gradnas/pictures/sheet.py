"""The sheet on which the plots of a report are made: an `<svg>` element for one HTML page.

Matplotlib's figures without pyplot. Text stays text, in the page's font. Every id carries the name
of its plot, so that several plots can stand in one page, and nothing in them depends on the time,
the machine or earlier plots.

All lengths are CSS pixels; y grows downwards.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from gradnas.pictures.canvas import check_installed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Colormap

WIDTH = 840.0  # of the page's text
FONT = 11.0
SMALL = 10.0
INK = "#1f2933"
PALE = "#7b8794"
GRID = "#e4e9ee"
BLUE = "#2368a8"
ORANGE = "#c96f12"
GREEN = "#3c8a3a"
SEARCHED = "#b3261e"
RANDOM = "#7b8794"
MOST_POINTS = 120  # of a line, more could not be told apart

Dash = str | tuple[float, tuple[float, ...]]  # of a line: a name, or lengths on and off

# A reader's matplotlibrc must not change a report. The salt makes the ids repeat; "none" keeps text
# as text.
STYLE: dict[str, object] = {
    "svg.hashsalt": "gradnas",
    "svg.fonttype": "none",
    "font.family": ["DejaVu Sans"],  # it comes with matplotlib, so lengths are the same everywhere
    "font.size": FONT,
    "axes.titlesize": FONT,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlecolor": INK,
    "axes.edgecolor": PALE,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.labelsize": SMALL,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": PALE,
    "ytick.color": PALE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "lines.linewidth": 1.7,
    "text.color": INK,
    "text.parse_math": False,  # a dollar in a name is a dollar
}

SHADES = ["#f7fafd", "#c9def1", "#86b5e0", "#2c6fb0", "#0b3a66"]  # from pale to dark


@contextmanager
def plot_style() -> Iterator[None]:
    """matplotlib's own settings and `STYLE`, whatever the user has set."""
    check_installed()
    import matplotlib.style

    with matplotlib.style.context(["default", STYLE], after_reset=True):
        yield


class Sheet:
    """A figure in pixels."""

    def __init__(self, width: float, height: float) -> None:
        check_installed()
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self.width = width
        self.height = height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(self.figure)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes whose left upper corner is (x, y)."""
        bottom = 1 - (y + height) / self.height  # matplotlib counts from below
        box = (x / self.width, bottom, width / self.width, height / self.height)
        return self.figure.add_axes(box)

    def svg(self, name: str, label: str) -> str:
        """The figure for an HTML page.

        Args:
            name: of this plot alone in the page.
            label: what it shows, for who cannot see it.
        """
        buffer = io.StringIO()
        with warnings.catch_warnings():
            # Lengths are measured with a font that may lack a letter; the browser has one that
            # does not.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return inline(buffer.getvalue(), name, label, self.width)


def inline(svg: str, name: str, label: str, width: float) -> str:
    """An SVG file of matplotlib as an element of a page.

    Its ids and its style apply to itself alone.
    """
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = svg.replace("*{", f"#{name} *{{").replace("xlink:href=", "href=")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    size = f"width:100%;max-width:{width:.0f}px;height:auto"
    head = (
        f'<svg id="{name}" class="plot" role="img" aria-label="{html.escape(label)}" {box[0]} '
        f'style="{size}">'
    )
    return head + svg[svg.index(">") + 1 :].rstrip()


# -- what several plots need -----------------------------------------------------------------------


def shade(share: float) -> str:
    """A colour between pale (0) and dark (1)."""
    from matplotlib.colors import to_hex

    return to_hex(_sequential()(share))


@cache
def _sequential() -> Colormap:
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("gradnas", SHADES)


def whole_epochs(axes: Axes, first: int, last: int, ticks: int) -> None:
    """Ticks at whole epochs; a single epoch stands in the middle."""
    from matplotlib.ticker import MaxNLocator

    room = 0.03 * (last - first) if last > first else 0.5
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))


def thinned(count: int) -> list[int]:
    """At most `MOST_POINTS` of the numbers below `count`, the first and the last among them."""
    if count <= MOST_POINTS:
        return list(range(count))
    return sorted({round(i * (count - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})
