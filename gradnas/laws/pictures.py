"""Pictures of laws: data against law beside the Pareto front, the computation graph, and the
typeset law.

The graph is drawn as a tree from the features on the left to the target on the right, every edge in
a row of its own, so nothing can cross or overlap; a feature or a node that is used twice stands
there twice.

Legend: N rows, D features. Lengths are points (1/72 inch); y grows downwards.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyBboxPatch
from matplotlib.textpath import TextPath
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from gradnas.config import did_you_mean
from gradnas.laws import text as law_text
from gradnas.laws.discover import (
    Law,
    Laws,
)
from gradnas.laws.formula import (
    Edge,
    Formula,
)
from gradnas.laws.primitives import POWER
from gradnas.pictures.sheet import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PALE,
    SEARCHED,
    SMALL,
    STYLE,
    inline,
)
from gradnas.runs import write_atomically

SUFFIXES: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "png": {},
    "pdf": {"CreationDate": None},
}
SMALLEST_ERROR = 1e-32  # what stands on a logarithmic axis for an exact law
LONGEST_NAME, LONGEST_TITLE = 24, 90  # characters
DIGITS = 4
PITCH, GAP, PAD = 34.0, 26.0, 7.0
SYMBOLS = {"sum": "Σ", "product": "Π", "ratio": "÷"}


@contextmanager
def _style() -> Iterator[None]:
    with matplotlib.style.context(["default", STYLE], after_reset=True):
        yield


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write a figure as SVG, PNG or PDF, by the suffix; the same figure gives the same bytes.

    Raises:
        ValueError: another suffix, or the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in SUFFIXES:
        known = ", ".join(f".{name}" for name in SUFFIXES)
        raise ValueError(
            f"{path}: a picture ends in {known}, not {path.suffix!r}{did_you_mean(suffix, SUFFIXES)}"
        )
    buffer = io.BytesIO()
    with _style():
        figure.savefig(
            buffer, format=suffix, dpi=160 if suffix == "png" else 72, metadata=SUFFIXES[suffix]
        )
    write_atomically(path, buffer.getvalue())
    return path


def page_svg(figure: Figure, name: str, label: str, *, paths: bool = False) -> str:
    """A figure as an `<svg>` element of a page; `name` is its own there. `paths`: letters as paths,
    not as text."""
    buffer = io.StringIO()
    with _style():
        if paths:  # a formula's letters stand where matplotlib's font has them
            matplotlib.rcParams["svg.fonttype"] = "path"
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return inline(buffer.getvalue(), name, label, figure.get_size_inches()[0] * 96)


def _figure(width: float, height: float) -> Figure:
    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasAgg(figure)
    return figure


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


# -- the typeset law -------------------------------------------------------------------------------


@_style()
def typeset(lines: Sequence[str], size: float = 15.0) -> Figure:
    """Lines of LaTeX, as matplotlib's mathtext sets it. A line that it cannot set stands there as
    it is."""
    boxes = [
        _text_size(f"${line}$", size, math=True) or _text_size(line, size) or (0.0, 0.0)
        for line in lines
    ]
    heights = [height + 14 for _, height in boxes]
    figure = _figure(max(width for width, _ in boxes) + 30, sum(heights) + 4)
    y = 2.0
    for line, height in zip(lines, heights, strict=True):
        math = _text_size(f"${line}$", size, math=True) is not None
        text = f"${line}$" if math else line
        place = 1 - (y + height / 2) / (sum(heights) + 4)
        figure.text(
            12 / figure.get_size_inches()[0] / 72,
            place,
            text,
            size=size,
            va="center",
            parse_math=math,
            color=INK,
        )
        y += height
    return figure


def _text_size(text: str, size: float, math: bool = False) -> tuple[float, float] | None:
    """Width and height of a line in points; None where mathtext cannot set it."""
    try:
        path = TextPath(
            (0, 0), text if math else text.replace("$", r"\$"), size=size, prop=FontProperties()
        )
    except ValueError:
        return None
    box = path.get_extents()
    return float(box.width), float(box.height)


# -- data against law, and the front ---------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """What `law_figure` shows.

    Args:
        x_ND, y_N: the data; of a class, 1 where it is the one that the law speaks of.
        predict: features -> what is predicted of y.
        names, target: of the features and of y.
        laws: the front, `place` the law of it that is shown.
        title: the law in one line.
        shares: y is 0 or 1, and the prediction its probability.
    """

    x_ND: np.ndarray
    y_N: np.ndarray
    predict: Callable[[np.ndarray], np.ndarray]
    names: Sequence[str]
    target: str
    laws: Laws
    place: int
    title: str
    shares: bool


@_style()
def law_figure(shown: Shown, size: tuple[float, float] = (630.0, 250.0)) -> Figure:
    """Data against law on the left, the Pareto front on the right."""
    figure = _figure(*size)
    left = figure.add_axes((0.075, 0.16, 0.49, 0.70))
    right = figure.add_axes((0.66, 0.16, 0.32, 0.70))
    if shown.x_ND.shape[1] == 1:
        _curve(left, shown)
    elif shown.shares:
        _calibration(left, shown)
    else:
        _observed(left, shown)
    _front(right, shown.laws, shown.place)
    title = (
        shown.title if len(shown.title) <= LONGEST_TITLE else shown.title[: LONGEST_TITLE - 1] + "…"
    )
    figure.text(0.012, 0.94, title, size=11, weight="bold", color=INK)
    return figure


def _curve(axes: Axes, shown: Shown) -> None:
    x_N = shown.x_ND[:, 0]
    low, high = float(x_N.min()), float(x_N.max())
    grid_N = np.linspace(low, high, 400)
    if shown.shares:
        _shares(axes, x_N, shown.y_N)
        axes.set_ylabel(f"P({_short(shown.target)})")
    else:
        axes.plot(x_N, shown.y_N, "o", ms=3.5, mew=0, color=BLUE, alpha=0.55, label="data")
        axes.set_ylabel(_short(shown.target))
    axes.plot(grid_N, shown.predict(grid_N[:, None]), "-", color=ORANGE, lw=2, label="law")
    axes.set_xlabel(_short(shown.names[0]))
    axes.legend(loc="best")


def _shares(axes: Axes, x_N: np.ndarray, y_N: np.ndarray) -> None:
    """Ticks at 0 and 1 for the rows, dots for the shares in tenths of the rows, with standard
    errors."""
    axes.plot(x_N, y_N, "|", ms=6, color=BLUE, alpha=0.4)
    means, shares, errors = _tenths(x_N, y_N)
    axes.errorbar(means, shares, errors, fmt="o", ms=4, color=BLUE, lw=1, label="share, by tenths")
    axes.set_ylim(-0.06, 1.06)


def _tenths(x_N: np.ndarray, y_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    parts = [
        part
        for part in np.array_split(np.argsort(x_N, kind="stable"), min(10, len(x_N)))
        if len(part)
    ]
    means = np.array([x_N[part].mean() for part in parts])
    shares = np.array([y_N[part].mean() for part in parts])
    return means, shares, np.sqrt(shares * (1 - shares) / np.array([len(part) for part in parts]))


def _calibration(axes: Axes, shown: Shown) -> None:
    p_N = shown.predict(shown.x_ND)
    good_N = np.isfinite(p_N)
    axes.plot([0, 1], [0, 1], "-", color=ORANGE, lw=1.2, label="law")
    _shares(axes, p_N[good_N], shown.y_N[good_N])
    axes.set_xlabel("probability by the law")
    axes.set_ylabel(f"share of {_short(shown.target)}")
    axes.legend(loc="upper left")


def _observed(axes: Axes, shown: Shown) -> None:
    found_N = shown.predict(shown.x_ND)
    both = np.concatenate([found_N[np.isfinite(found_N)], shown.y_N])
    ends = [float(both.min()), float(both.max())]
    axes.plot(ends, ends, "-", color=ORANGE, lw=1.2, label="law")
    axes.plot(found_N, shown.y_N, "o", ms=3.5, mew=0, color=BLUE, alpha=0.55, label="data")
    axes.set_xlabel(f"{_short(shown.target)} by the law")
    axes.set_ylabel(f"{_short(shown.target)}, observed")
    axes.legend(loc="upper left")


ERRORS = {
    "squared": "mean squared error",
    "logistic": "cross entropy",
    "poisson": "half the Poisson deviance",
}


def _front(axes: Axes, laws: Laws, place: int) -> None:
    complexities = [law.complexity for law in laws.front]
    train = [max(law.train_error, SMALLEST_ERROR) for law in laws.front]
    valid = [
        max(law.valid_error, SMALLEST_ERROR) if np.isfinite(law.valid_error) else np.nan
        for law in laws.front
    ]
    axes.plot(complexities, train, "-o", ms=4, color=BLUE, label="all rows")
    axes.plot(complexities, valid, "--o", ms=4, color=GREEN, label="cross-validated", mfc="none")
    axes.plot(
        complexities[place],
        train[place],
        "o",
        ms=11,
        mfc="none",
        mew=1.8,
        color=SEARCHED,
        label="shown",
    )
    finite = [e for e in [*train, *valid] if np.isfinite(e)]
    if max(finite) > 20 * min(finite):
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _: f"{value:g}")
        )  # the usual one writes formulas
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("complexity (constants + operations)")
    axes.set_title(f"Pareto front: {ERRORS[laws.front[place].loss]}", size=SMALL)
    axes.legend(loc="best")


# -- the computation graph -------------------------------------------------------------------------


@dataclass
class _Item:
    """A feature, an edge's function, a node, or the target; its inputs stand on its left."""

    label: str
    kind: str  # feature, function, node, target
    inputs: list[_Item] = field(default_factory=list)
    weight: str = ""  # on the line to its user
    below: bool = False  # in the denominator of its user
    x: float = 0.0
    y: float = 0.0

    @property
    def width(self) -> float:
        size = _text_size(self.label, SMALL + (3 if self.kind == "node" else 0)) or (0.0, 0.0)
        return max(size[0] + 2 * PAD, 24.0)


@_style()
def graph_figure(law: Law, names: Sequence[str], target: str) -> Figure:
    """The graph of a law: features, functions on the edges, nodes (Σ, Π, ÷), and the target with
    its constant."""
    root = _tree(law, names, target)
    columns = _placed(root)
    rows = [item.y for items in columns for item in items]
    widths = [max(item.width for item in items) for items in columns]
    lines = [max(len(_note(item)) * 6.0 for item in items) for items in columns]
    x = 16.0
    for items, width, line in zip(columns, widths, lines, strict=True):
        for item in items:
            item.x = (
                x + width - item.width if item.kind == "feature" else x + (width - item.width) / 2
            )
        x += width + GAP + line
    right = root.x + root.width + 16.0
    top, bottom = min(rows) - 24.0, max(rows) + 24.0
    figure = _figure(right, bottom - top)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, right)
    axes.set_ylim(bottom, top)
    _draw_item(axes, root)
    return figure


def _tree(law: Law, names: Sequence[str], target: str) -> _Item:
    formula = law.formula
    links = {"squared": "", "logistic": "log-odds of ", "poisson": "ln rate of "}
    bias = f" + {law_text.number(formula.bias, DIGITS)}" if formula.bias > 0 else ""
    bias = f" − {law_text.number(-formula.bias, DIGITS)}" if formula.bias < 0 else bias
    terms = [j for j, weight in enumerate(formula.weights) if weight != 0.0]
    label = f"{links[law.loss]}{_short(target)}"
    if not terms:
        return _Item(f"{label} = {law_text.number(formula.bias, DIGITS)}", "target")
    root = _Item(f"{label} = {'Σ' if len(terms) > 1 else 'z'}{bias}", "target")
    for j in terms:
        weight = formula.weights[j]
        item = _node(formula, names, j)
        item.weight = "" if weight == 1.0 else f"× {law_text.number(weight, DIGITS)}"
        root.inputs.append(item)
    return root


def _node(formula: Formula, names: Sequence[str], j: int) -> _Item:
    node = formula.nodes[j]
    inputs = [_edge(formula, names, edge) for edge in node.edges]
    if len(inputs) == 1 and node.kind != "ratio":
        return inputs[0]
    return _Item(SYMBOLS[node.kind], "node", inputs)


def _edge(formula: Formula, names: Sequence[str], edge: Edge) -> _Item:
    feature = edge.source < formula.features
    source = (
        _Item(_short(names[edge.source]), "feature")
        if feature
        else _node(formula, names, edge.source - formula.features)
    )
    source.below = False
    if edge.function == "identity" and edge.b == 0.0:
        source.weight = "" if edge.a == 1.0 else f"× {law_text.number(edge.a, DIGITS)}"
        found = source
    else:
        found = _Item(_function_text(edge, "z"), "function", [source])
    found.below = edge.below
    return found


def _function_text(edge: Edge, argument: str) -> str:
    """Such as `exp(-0.3 z)`, where z is what arrives."""
    a, b = law_text.number(edge.a, DIGITS), law_text.number(abs(edge.b), DIGITS)
    shift = "" if edge.b == 0.0 else f" {'+' if edge.b > 0 else '−'} {b}"
    if edge.function == POWER:
        return f"({argument}{shift})^{a}" if shift else f"{argument}^{a}"
    scaled = argument if edge.a == 1.0 else f"−{argument}" if edge.a == -1.0 else f"{a} {argument}"
    inner = scaled + shift
    plain = inner if inner == argument else f"({inner})"
    named = {"identity": inner, "square": f"{plain}²", "reciprocal": f"1 / {plain}"}
    return named.get(edge.function, f"{edge.function}({inner})")


def _placed(root: _Item) -> list[list[_Item]]:
    """Give every item its y, and return the items by column from the left."""
    by_depth: list[list[_Item]] = []
    row = 0

    def walk(item: _Item, depth: int) -> None:
        nonlocal row
        while len(by_depth) <= depth:
            by_depth.append([])
        by_depth[depth].append(item)
        for child in item.inputs:
            walk(child, depth + 1)
        if item.inputs:
            item.y = (item.inputs[0].y + item.inputs[-1].y) / 2
        else:
            item.y = PITCH * row
            row += 1

    walk(root, 0)
    return by_depth[::-1]


def _note(item: _Item) -> str:
    """What stands on the line to the item's user."""
    return f"{item.weight} {'below' if item.below else ''}".strip()


FACES = {  # fill and border
    "feature": ("#eef1f4", PALE),
    "function": ("#d4e6f7", "#3f7fbf"),
    "node": ("#fde6c8", "#d18b1f"),
    "target": ("#dcf0d8", "#4f9d49"),
}


def _draw_item(axes: Axes, item: _Item) -> None:
    for child in item.inputs:
        start, end = (child.x + child.width, child.y), (item.x, item.y)
        bend = end[0] - GAP / 2
        style = {"color": INK, "lw": 1.0, "ls": "--" if child.below else "-"}
        axes.plot(
            [start[0], bend, bend], [start[1], start[1], end[1]], solid_joinstyle="round", **style
        )
        arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.0, "shrinkA": 0, "shrinkB": 0}
        axes.annotate("", end, (bend, end[1]), arrowprops=arrow)
        axes.text(
            bend - 3, start[1] - 4, _note(child), ha="right", va="bottom", size=SMALL - 1, color=INK
        )
        _draw_item(axes, child)
    fill, border = FACES[item.kind]
    rounding = f"round,pad=0,rounding_size={11 if item.kind in ('node', 'feature') else 4}"
    box = FancyBboxPatch(
        (item.x, item.y - 11),
        item.width,
        22,
        boxstyle=rounding,
        fc=fill,
        ec=border,
        lw=1.2,
        zorder=3,
    )
    axes.add_patch(box)
    size = SMALL + (3 if item.kind == "node" else 0)
    place = (item.x + item.width / 2, item.y)
    axes.text(*place, item.label, ha="center", va="center", size=size, color=INK, zorder=4)
