"""The plots of a report, as `<svg>` elements for one HTML page.

Matplotlib's figures without pyplot. Text stays text, in the page's font. Every id carries the name
of its plot, so that several plots can stand in one page, and nothing in them depends on the time,
the machine or earlier plots.

Legend: E edges, O operations, N tables (one more than finished epochs). All lengths are CSS pixels;
y grows downwards.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

WIDTH = 840.0  # of the page's text
FONT, SMALL = 11.0, 10.0
INK, PALE, GRID = "#1f2933", "#7b8794", "#e4e9ee"
BLUE = "#2368a8"
ORANGE = "#c96f12"
GREEN = "#3c8a3a"
SEARCHED, RANDOM = "#b3261e", "#7b8794"
LONGEST_NAME = 24  # characters of an operation's name
MOST_POINTS = 120  # of a line, more could not be told apart

# A reader's matplotlibrc must not change a report. The salt makes the ids repeat; "none" keeps text
# as text.
STYLE: dict[str, Any] = {
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

# words in an operation's name and the shades of its family, as in the pictures of cells; the last
# that fits counts
FAMILIES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("conv", "relu"), ("#15518c", "#5b9bd5", "#0e8ba0", "#8fb8de")),
    (("dil",), ("#6a42ad", "#b195dc", "#8b1e7d")),
    (("pool", "tanh", "sigmoid"), ("#b85c00", "#f0a64a", "#8a6d1b")),
    (("skip", "identity"), ("#35853a", "#7cc47f")),
    (("none", "zero"), ("#9aa5b1", "#616e7c")),
)
OTHERS = ("#b3261e", "#0f766e", "#a21caf", "#854d0e", "#334155", "#65a30d")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)))
SEQUENTIAL = LinearSegmentedColormap.from_list(
    "gradnas", ["#f7fafd", "#c9def1", "#86b5e0", "#2c6fb0", "#0b3a66"]
)


@dataclass(frozen=True)
class Line:
    """A line over epochs: (epoch, value) pairs."""

    label: str
    points: Sequence[tuple[int, float]]
    colour: str
    dash: Any = "-"
    width: float = 1.7


@dataclass(frozen=True)
class Panel:
    """One plot over epochs.

    Args:
        title: what is plotted, with its unit.
        lines: from back to front; lines of one label share an entry in the legend, an empty one has
            none.
        percent: values are shares, written as percentages.
        whole: values are counts.
        from_zero: the axis begins at 0, so that a small change looks small.
        levels: horizontal lines: value and text.
        fill: shade what lies between these two lines, and the legend's text for it.
    """

    title: str
    lines: Sequence[Line]
    percent: bool = False
    whole: bool = False
    from_zero: bool = False
    levels: Sequence[tuple[float, str]] = ()
    fill: tuple[Line, Line, str] | None = None


def edges(nodes: int) -> list[tuple[int, int]]:
    """(predecessor, intermediate node) for every row of a table of alphas; predecessors 0 and 1 are
    a cell's inputs."""
    return [(predecessor, node) for node in range(nodes) for predecessor in range(node + 2)]


def edge_label(predecessor: int, node: int) -> str:
    """Such as `cₖ₋₂ → 0`."""
    source = ("cₖ₋₂", "cₖ₋₁")[predecessor] if predecessor < 2 else str(predecessor - 2)
    return f"{source} → {node}"


def readable(operation: str) -> str:
    """An operation's name as the pictures of cells write it, cut when it is very long."""
    name = re.sub(r"(\d)x(\d)", r"\1×\2", operation.replace("_", " "))
    name = {"skip connect": "skip"}.get(name, name)
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def operation_styles(operations: Sequence[str]) -> list[tuple[str, Any]]:
    """A colour and a dash pattern for each operation: families share a hue, and no two have the
    same style."""
    used: dict[int, int] = {}
    styles = []
    for operation in operations:
        fitting = [
            i for i, (words, _) in enumerate(FAMILIES) if any(word in operation for word in words)
        ]
        family = fitting[-1] if fitting else -1
        shades = FAMILIES[family][1] if fitting else OTHERS
        number = used[family] = used.get(family, -1) + 1
        styles.append((shades[number % len(shades)], DASHES[(number // len(shades)) % len(DASHES)]))
    return styles


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.style.context(["default", STYLE], after_reset=True):
        yield


# -- plots -----------------------------------------------------------------------------------------


@_style()
def curves(name: str, panels: Sequence[Panel], label: str) -> str:
    """Plots over epochs side by side, each with its legend below."""
    height, legend = 200.0, 16.0 * max(_legend_rows(panel) for panel in panels)
    figure = _Figure(WIDTH, 28 + height + 40 + legend)
    width = (WIDTH - 10) / len(panels)
    for i, panel in enumerate(panels):
        axes = figure.axes(46 + i * width, 28, width - 66, height)
        _draw_panel(axes, panel)
        if any(line.label for line in panel.lines):
            below = -(36.0 / height)
            axes.legend(
                loc="upper left",
                bbox_to_anchor=(-0.02, below),
                ncols=2,
                borderaxespad=0,
                columnspacing=1.4,
            )
    return figure.svg(name, label)


@_style()
def comparison(
    name: str,
    accuracy: float,
    random: Sequence[float],
    mean: float,
    std: float,
    subject: str,
    label: str = "test accuracy (%)",
    factor: float = 100.0,
    others: str = "random cells",
) -> str:
    """A dot for each random cell, their mean with one standard deviation, and the cell that is
    compared with them.

    `label` says what is compared, and `factor` brings the values to its unit. An axis of
    percentages ends near 100.
    """
    row, top, left = 44.0, 30.0, 124.0
    stack = _stacked(random, [*random, accuracy])
    base = row * 1.5 + 10 * max(stack)
    height = base + row / 2
    figure = _Figure(WIDTH, top + height + 38)
    axes = figure.axes(left, top, WIDTH - left - 40, height)
    axes.set_ylim(height, 0)
    axes.set_yticks([row / 2, base], [subject, f"{others} (n = {len(random)})"], size=FONT)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    if len(random) > 1:
        axes.axvspan(factor * (mean - std), factor * (mean + std), color="#e9edf1", lw=0, zorder=0)
    text = "mean ± standard deviation" if len(random) > 1 else "mean"
    axes.text(factor * mean, -8, text, ha="center", size=SMALL, color="#52606d")
    axes.axvline(factor * mean, color="#52606d", lw=1.2, dashes=(4, 2))
    axes.plot(
        [factor * a for a in random],
        [base - 10 * k for k in stack],
        "o",
        color=RANDOM,
        ms=8,
        mec="white",
        mew=0.8,
    )
    axes.plot([factor * accuracy], [row / 2], "D", color=SEARCHED, ms=9, mec="white", mew=0.8)
    low, high = min(mean - std, accuracy, *random), max(mean + std, accuracy, *random)
    room = 0.12 * max(high - low, 2e-3)
    most = min(high + room, max(high, 1.0) + 0.3 * room) if factor == 100.0 else high + room
    axes.set_xlim(factor * (low - room), factor * most)
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.set_xlabel(label)
    return figure.svg(name, f"{label}: {subject} and {others}")


@_style()
def heat_map(
    name: str,
    table_EO: Sequence[Sequence[float | None]],
    nodes: int,
    operations: Sequence[str],
    chosen: set[tuple[int, int]],
    rows: Sequence[tuple[str, int]] | None = None,
) -> str:
    """A table of mixing weights; darker is larger, and cells (row, column) in `chosen` are framed.

    `rows` are labels and groups (from 0, `nodes` of them); by default the edges by node. None
    stands for no operation.
    """
    rows = rows if rows is not None else [(edge_label(*edge), edge[1]) for edge in edges(nodes)]
    left, row, gap = 74.0, 20.0, 7.0
    width = min(96.0, (WIDTH - left - 8) / len(operations))
    names = [readable(operation) for operation in operations]
    longest = max(map(len, names))
    slanted = longest * 6.2 > width
    top = 12.0 + (longest * 5.0 if slanted else 10.0)
    height = row * len(table_EO) + gap * (nodes - 1)
    figure = _Figure(WIDTH if slanted else left + width * len(operations) + 8, top + height + 8)
    axes = figure.axes(left, top, width * len(operations), height)
    axes.set_axis_off()
    axes.set_xlim(0, width * len(operations))
    axes.set_ylim(height, 0)
    largest = max(value for values in table_EO for value in values if value is not None) or 1.0
    for o, text in enumerate(names):
        turn: dict[str, Any] = (
            {"rotation": 40, "ha": "left", "rotation_mode": "anchor"}
            if slanted
            else {"ha": "center"}
        )
        axes.text((o + 0.5) * width, -6, text, size=SMALL, **turn)
    for e, ((label, group), values) in enumerate(zip(rows, table_EO, strict=True)):
        y = e * row + group * gap
        axes.text(-8, y + row / 2, label, ha="right", va="center_baseline", size=FONT)
        for o, value in enumerate(values):
            if value is None:
                continue
            share = value / largest
            frame: dict[str, Any] = (
                {"edgecolor": SEARCHED, "linewidth": 2.0, "zorder": 3}
                if (e, o) in chosen
                else {"linewidth": 0}
            )
            box = (o * width + 1, y + 1), width - 2, row - 2
            axes.add_patch(Rectangle(*box, facecolor=to_hex(SEQUENTIAL(share)), **frame))
            if width >= 32:
                ink = "white" if share > 0.65 else INK
                axes.text(
                    (o + 0.5) * width, y + row / 2, f"{value:.2f}", ha="center", va="center_baseline", size=SMALL,
                    color=ink, zorder=4,
                )  # fmt: skip
    return figure.svg(name, "mixing weights, places by operations")


@_style()
def mixing_lines(
    name: str,
    tables_NEO: Sequence[Any],
    nodes: int,
    operations: Sequence[str],
    chosen: set[tuple[int, int]],
) -> str:
    """A small panel for each edge, rows by node and columns by predecessor, with a line for each
    operation; those of (row, column) in `chosen` are thick."""
    styles, epochs = operation_styles(operations), _thinned(len(tables_NEO))
    columns = min(len(operations), 4)
    left, top, gap = 70.0, 18.0 + 17.0 * -(-len(operations) // columns), 12.0
    width = (WIDTH - left - 6 - gap * nodes) / (nodes + 1)
    height = min(100.0, max(56.0, 0.62 * width))
    pitch = height + 24.0
    figure = _Figure(WIDTH, top + pitch * nodes + 34)
    largest = max(value for table in tables_NEO for row in table for value in row)
    for e, (predecessor, node) in enumerate(edges(nodes)):
        axes = figure.axes(
            left + predecessor * (width + gap), top + node * pitch + 14, width, height
        )
        axes.set_title(edge_label(predecessor, node), fontsize=SMALL, fontweight="normal", pad=3)
        for o, (colour, dash) in enumerate(styles):
            width_px = 2.6 if (e, o) in chosen else 1.2
            axes.plot(
                epochs, [tables_NEO[n][e][o] for n in epochs], color=colour, ls=dash, lw=width_px
            )
        axes.set_ylim(0, 1.06 * largest)
        _whole_epochs(axes, epochs[0], epochs[-1], 3)
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.tick_params(labelleft=predecessor == 0, labelbottom=node == nodes - 1, length=2)
        if node == nodes - 1:
            axes.set_xlabel("epoch")
        if predecessor == 0:
            axes.set_ylabel(f"into node {node}")
    names = [readable(operation) for operation in operations]
    handles = [Line2D([], [], color=colour, ls=dash, lw=2) for colour, dash in styles]
    figure.figure.legend(
        handles,
        names,
        loc="upper left",
        bbox_to_anchor=(left / WIDTH, 1.0),
        ncols=columns,
        borderpad=0,
    )
    return figure.svg(name, "mixing weights over epochs, one panel per edge")


@_style()
def trade_off(
    name: str, points: Sequence[tuple[float, float, int]], cost: str, limit: float | None
) -> str:
    """Accuracy against cost, a point (cost, share, epoch) for each epoch, later ones darker;
    `limit` is a line."""
    figure = _Figure(WIDTH, 270)
    axes = figure.axes(58, 14, WIDTH - 90, 206)
    epochs = [epoch for _, _, epoch in points]
    span = max(1, max(epochs) - min(epochs))
    colours = [to_hex(SEQUENTIAL(0.25 + 0.65 * (epoch - min(epochs)) / span)) for epoch in epochs]
    axes.scatter(
        [x for x, _, _ in points], [100 * y for _, y, _ in points], c=colours, s=34, zorder=3
    )
    x, y, epoch = points[-1]
    axes.annotate(
        f"epoch {epoch}", (x, 100 * y), xytext=(6, 4), textcoords="offset points", size=SMALL
    )
    if limit is not None:
        axes.axvline(limit, color=SEARCHED, lw=1.2, dashes=(4, 2))
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate("limit", (limit, 1.0), xytext=(3, -9), size=SMALL, color=SEARCHED, **place)
    axes.margins(0.12)
    axes.set_xlabel(cost)
    axes.set_ylabel("accuracy on the alphas’ images (%)")
    return figure.svg(name, "accuracy against cost")


# -- parts -----------------------------------------------------------------------------------------


class _Figure:
    """A figure in pixels."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        FigureCanvasSVG(self.figure)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes whose left upper corner is (x, y)."""
        box = (
            x / self.width,
            1 - (y + height) / self.height,
            width / self.width,
            height / self.height,
        )
        return self.figure.add_axes(box)

    def svg(self, name: str, label: str) -> str:
        """The figure for an HTML page; `name` is its own in the page, `label` says what it
        shows."""
        buffer = io.StringIO()
        with warnings.catch_warnings():
            # Lengths are measured with a font that may lack a letter; the browser has one that does
            # not.
            warnings.filterwarnings("ignore", message="Glyph .* missing")
            self.figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
        return inline(buffer.getvalue(), name, label, self.width)


def inline(svg: str, name: str, label: str, width: float) -> str:
    """An SVG file of matplotlib as an element of a page: its ids and its style apply to itself
    alone."""
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    svg = svg.replace("*{", f"#{name} *{{").replace("xlink:href=", "href=")
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    size = f"width:100%;max-width:{width:.0f}px;height:auto"
    head = f'<svg id="{name}" class="plot" role="img" aria-label="{html.escape(label)}" {box[0]} style="{size}">'
    return head + svg[svg.index(">") + 1 :].rstrip()


def _draw_panel(axes: Axes, panel: Panel) -> None:
    scale = 100.0 if panel.percent else 1.0
    axes.set_title(panel.title)
    labels = set()
    for line in panel.lines:
        points = [line.points[i] for i in _thinned(len(line.points))]
        label = line.label if line.label not in labels else ""
        labels.add(line.label)
        xs, ys = [x for x, _ in points], [scale * y for _, y in points]
        marker: dict[str, Any] = (
            {"marker": "o", "ms": 3} if len(points) <= 30 and line.width > 1 else {}
        )
        style = {"color": line.colour, "ls": line.dash, "lw": line.width, "label": label or "_"}
        axes.plot(xs, ys, **style, **marker)
    if panel.fill is not None:
        lower, upper, text = panel.fill
        other = dict(upper.points)
        both = [(x, scale * y, scale * other[x]) for x, y in lower.points if x in other]
        shade = {"color": ORANGE, "alpha": 0.13, "lw": 0, "label": text}
        axes.fill_between(
            [x for x, _, _ in both], [y for _, y, _ in both], [z for _, _, z in both], **shade
        )
    xs = [x for line in panel.lines for x, _ in line.points]
    values = [scale * y for line in panel.lines for _, y in line.points]
    _whole_epochs(axes, min(xs), max(xs), 8)
    axes.set_xlabel("epoch")
    for value, text in panel.levels:
        axes.axhline(scale * value, color=SEARCHED, lw=1, dashes=(4, 2))
        place = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points"}
        axes.annotate(
            text,
            (0.99, scale * value),
            xytext=(0, 3),
            ha="right",
            size=SMALL,
            color=SEARCHED,
            **place,
        )
    if panel.whole:
        axes.set_ylim(-0.15, 1.15 * max([*values, *(v for v, _ in panel.levels), 1]))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    elif not panel.percent and min(values) > 0 and max(values) > 100 * min(values):
        axes.set_yscale("log")
        axes.set_title(f"{panel.title}, logarithmic")
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:g}")
        )  # the usual one writes formulas
        axes.yaxis.set_minor_locator(NullLocator())
    elif panel.from_zero:
        axes.set_ylim(0, 1.12 * max([*values, *(scale * v for v, _ in panel.levels)]))
    elif panel.percent:
        axes.set_ylim(*_percent_limits(values))


def _percent_limits(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    room = 0.06 * max(high - low, 1.0)
    return max(low - room, -1.0), min(high + room, 101.0)


def _whole_epochs(axes: Axes, first: int, last: int, ticks: int) -> None:
    """Ticks at whole epochs; a single epoch stands in the middle."""
    room = max(0.03 * (last - first), 0.0 if last > first else 0.5)
    axes.set_xlim(first - room, last + room)
    axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))


def _thinned(count: int) -> list[int]:
    """At most `MOST_POINTS` of the numbers below `count`, the first and the last among them."""
    if count <= MOST_POINTS:
        return list(range(count))
    return sorted({round(i * (count - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})


def _legend_rows(panel: Panel) -> int:
    entries = len({line.label for line in panel.lines if line.label}) + (panel.fill is not None)
    return -(-entries // 2)


def _stacked(values: Sequence[float], all_values: Sequence[float]) -> list[int]:
    """For each dot of a row, on which level it stands so that dots of nearly the same value do not
    hide each other."""
    apart = 0.018 * max(max(all_values) - min(all_values), 2e-3)
    levels: list[int] = []
    for i, value in enumerate(values):
        near = {levels[j] for j in range(i) if abs(values[j] - value) < apart}
        levels.append(next(k for k in range(i + 1) if k not in near))
    return levels
