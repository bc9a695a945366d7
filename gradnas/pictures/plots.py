"""Plots of a report over epochs, against random architectures, and of accuracy against cost.

All lengths are CSS pixels; y grows downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gradnas.pictures.canvas import text_width
from gradnas.pictures.sheet import (
    FONT,
    ORANGE,
    RANDOM,
    SEARCHED,
    SMALL,
    WIDTH,
    Dash,
    Sheet,
    plot_style,
    shade,
    thinned,
    whole_epochs,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class Line:
    """A line over epochs: (epoch, value) pairs."""

    label: str
    points: Sequence[tuple[int, float]]
    colour: str
    dash: Dash = "-"
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

    @property
    def scale(self) -> float:
        """What values are multiplied by."""
        return 100.0 if self.percent else 1.0

    @property
    def epochs(self) -> tuple[int, int]:
        """The first and the last of all lines."""
        epochs = []
        for line in self.lines:
            epochs += [epoch for epoch, _ in line.points]
        return min(epochs), max(epochs)


# -- over epochs -----------------------------------------------------------------------------------


@plot_style()
def curves(name: str, panels: Sequence[Panel], label: str) -> str:
    """Plots over epochs side by side, each with its legend below."""
    height = 200.0
    legend = 16.0 * max(_legend_rows(panel) for panel in panels)
    sheet = Sheet(WIDTH, 28 + height + 40 + legend)
    width = (WIDTH - 10) / len(panels)
    for i, panel in enumerate(panels):
        axes = sheet.axes(46 + i * width, 28, width - 66, height)
        _paint_panel(axes, panel)
        if any(line.label for line in panel.lines):
            axes.legend(
                loc="upper left",
                bbox_to_anchor=(-0.02, -(36.0 / height)),
                ncols=2,
                borderaxespad=0,
                columnspacing=1.4,
            )
    return sheet.svg(name, label)


def _legend_rows(panel: Panel) -> int:
    """Of two entries each."""
    labels = {line.label for line in panel.lines if line.label}
    entries = len(labels) + (panel.fill is not None)
    return -(-entries // 2)


def _paint_panel(axes: Axes, panel: Panel) -> None:
    axes.set_title(panel.title)
    labels = set()
    for line in panel.lines:
        _paint_line(axes, line, panel, is_first=line.label not in labels)
        labels.add(line.label)
    if panel.fill is not None:
        _paint_between(axes, panel, *panel.fill)
    first, last = panel.epochs
    whole_epochs(axes, first, last, 8)
    axes.set_xlabel("epoch")
    for value, text in panel.levels:
        _paint_level(axes, panel.scale * value, text)
    _set_limits(axes, panel)


def _paint_line(axes: Axes, line: Line, panel: Panel, *, is_first: bool) -> None:
    """A line of the panel, the first of its label with an entry in the legend."""
    points = [line.points[i] for i in thinned(len(line.points))]
    xs = [x for x, _ in points]
    ys = [panel.scale * y for _, y in points]
    label = line.label if is_first else ""
    style: dict[str, Any] = {
        "color": line.colour,
        "ls": line.dash,
        "lw": line.width,
        "label": label or "_",  # matplotlib leaves these out of the legend
    }
    # A dot for each epoch, as long as they can be told apart
    if len(points) <= 30 and line.width > 1:
        style |= {"marker": "o", "ms": 3}
    axes.plot(xs, ys, **style)


def _paint_between(axes: Axes, panel: Panel, lower: Line, upper: Line, text: str) -> None:
    """Shade what lies between two lines, at the epochs that both have."""
    other = dict(upper.points)
    xs = []
    lows = []
    highs = []
    for epoch, value in lower.points:
        if epoch in other:
            xs.append(epoch)
            lows.append(panel.scale * value)
            highs.append(panel.scale * other[epoch])
    axes.fill_between(xs, lows, highs, color=ORANGE, alpha=0.13, lw=0, label=text)


def _paint_level(axes: Axes, level: float, text: str) -> None:
    axes.axhline(level, color=SEARCHED, lw=1, dashes=(4, 2))
    axes.annotate(
        text,
        (0.99, level),
        xytext=(0, 3),
        ha="right",
        size=SMALL,
        color=SEARCHED,
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
    )


def _set_limits(axes: Axes, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

    values = []
    for line in panel.lines:
        values += [panel.scale * value for _, value in line.points]
    levels = [panel.scale * value for value, _ in panel.levels]
    lowest = min(values)
    highest = max(values)
    spans_decades = lowest > 0 and highest > 100 * lowest
    if panel.whole:
        axes.set_ylim(-0.15, 1.15 * max([*values, *levels, 1]))
        axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    elif spans_decades and not panel.percent:
        axes.set_yscale("log")
        axes.set_title(f"{panel.title}, logarithmic")
        # matplotlib's own formatter writes formulas
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
    elif panel.from_zero:
        axes.set_ylim(0, 1.12 * max([*values, *levels]))
    elif panel.percent:
        room = 0.06 * max(highest - lowest, 1.0)
        axes.set_ylim(max(lowest - room, -1.0), min(highest + room, 101.0))


# -- comparisons -----------------------------------------------------------------------------------


@plot_style()
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
    """An architecture beside random ones: a dot for each, their mean and one standard deviation.

    `label` says what is compared, and `factor` brings the values to its unit. An axis of
    percentages ends near 100.
    """
    from matplotlib.ticker import MaxNLocator

    row = 44.0
    top = 30.0
    labels = [subject, f"{others} (n = {len(random)})"]
    left = max(124.0, *(text_width(label, FONT) + 16.0 for label in labels))
    levels = _stacked(random, [*random, accuracy])
    base = row * 1.5 + 10 * max(levels)
    height = base + row / 2
    sheet = Sheet(WIDTH, top + height + 38)
    axes = sheet.axes(left, top, WIDTH - left - 40, height)
    axes.set_ylim(height, 0)
    axes.set_yticks([row / 2, base], labels, size=FONT)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)

    text = "mean"
    if len(random) > 1:
        text = "mean ± standard deviation"
        axes.axvspan(factor * (mean - std), factor * (mean + std), color="#e9edf1", lw=0, zorder=0)
    axes.text(factor * mean, -8, text, ha="center", size=SMALL, color="#52606d")
    axes.axvline(factor * mean, color="#52606d", lw=1.2, dashes=(4, 2))
    xs = [factor * value for value in random]
    ys = [base - 10 * level for level in levels]
    axes.plot(xs, ys, "o", color=RANDOM, ms=8, mec="white", mew=0.8)
    axes.plot([factor * accuracy], [row / 2], "D", color=SEARCHED, ms=9, mec="white", mew=0.8)

    low = min(mean - std, accuracy, *random)
    high = max(mean + std, accuracy, *random)
    room = 0.12 * max(high - low, 2e-3)
    most = high + room
    if factor == 100.0:
        # Nothing is above 100%, so that there is little room beyond it.
        most = min(most, max(high, 1.0) + 0.3 * room)
    axes.set_xlim(factor * (low - room), factor * most)
    axes.xaxis.set_major_locator(MaxNLocator(8))
    axes.set_xlabel(label)
    return sheet.svg(name, f"{label}: {subject} and {others}")


def _stacked(values: Sequence[float], all_values: Sequence[float]) -> list[int]:
    """For each dot of a row its level, so that dots of nearly the same value are all seen."""
    apart = 0.018 * max(max(all_values) - min(all_values), 2e-3)
    levels: list[int] = []
    for value in values:
        taken = set()
        for before, level in zip(values, levels, strict=False):
            if abs(before - value) < apart:
                taken.add(level)
        level = 0
        while level in taken:
            level += 1
        levels.append(level)
    return levels


@plot_style()
def trade_off(
    name: str, points: Sequence[tuple[float, float, int]], cost: str, limit: float | None
) -> str:
    """Accuracy against cost, a point (cost, share, epoch) for each epoch; later ones are darker.

    `limit` is a line.
    """
    sheet = Sheet(WIDTH, 270)
    axes = sheet.axes(58, 14, WIDTH - 90, 206)
    first = min(epoch for _, _, epoch in points)
    last = max(epoch for _, _, epoch in points)
    span = max(1, last - first)
    xs = []
    ys = []
    colours = []
    for x, share, epoch in points:
        xs.append(x)
        ys.append(100 * share)
        # Not from 0: the palest shade could not be seen on the page.
        colours.append(shade(0.25 + 0.65 * (epoch - first) / span))
    axes.scatter(xs, ys, c=colours, s=34, zorder=3)
    latest = f"epoch {points[-1][2]}"
    axes.annotate(latest, (xs[-1], ys[-1]), xytext=(6, 4), textcoords="offset points", size=SMALL)
    if limit is not None:
        axes.axvline(limit, color=SEARCHED, lw=1.2, dashes=(4, 2))
        axes.annotate(
            "limit",
            (limit, 1.0),
            xytext=(3, -9),
            size=SMALL,
            color=SEARCHED,
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
        )
    axes.margins(0.12)
    axes.set_xlabel(cost)
    axes.set_ylabel("accuracy on the alphas’ images (%)")
    return sheet.svg(name, "accuracy against cost")
