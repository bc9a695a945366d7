"""The picture of a law's computation graph.

It is a tree from the features on the left to the target on the right, every edge in a row of its
own, so nothing can cross or overlap; a feature or a node that is used twice stands there twice.

Lengths are points (1/72 inch); y grows downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from gradnas.laws import text as law_text
from gradnas.laws.formula import (
    Edge,
    Formula,
)
from gradnas.laws.law import Law
from gradnas.laws.pictures import (
    new_figure,
    short,
    style,
    text_size,
)
from gradnas.laws.primitives import POWER
from gradnas.pictures.sheet import INK, PALE, SMALL

DIGITS = 4
PITCH = 34.0  # between rows
GAP = 26.0  # between columns, beside the notes on the lines
PAD = 7.0  # beside a label
SYMBOLS = {"sum": "Σ", "product": "Π", "ratio": "÷"}
LINKS = {"squared": "", "logistic": "log-odds of ", "poisson": "ln rate of "}


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
    def font_size(self) -> float:
        return SMALL + 3 if self.kind == "node" else SMALL

    @property
    def width(self) -> float:
        width, _ = text_size(self.label, self.font_size) or (0.0, 0.0)
        return max(width + 2 * PAD, 24.0)

    @property
    def note(self) -> str:
        """What stands on the line to its user."""
        return f"{self.weight} {'below' if self.below else ''}".strip()


@style()
def graph_figure(law: Law, names: Sequence[str], target: str) -> Figure:
    """The graph of a law, from the features to the target.

    Between them are the functions on the edges and the nodes (Σ, Π, ÷); the target has its constant
    beside it.
    """
    root = _tree(law, names, target)
    rows: list[float] = []
    x = 16.0
    for items in _placed(root):
        width = max(item.width for item in items)
        for item in items:
            if item.kind == "feature":  # they end at the same place, all else is centred
                item.x = x + width - item.width
            else:
                item.x = x + (width - item.width) / 2
            rows.append(item.y)
        longest_note = max(len(item.note) * 6.0 for item in items)
        x += width + GAP + longest_note
    right = root.x + root.width + 16.0
    top = min(rows) - 24.0
    bottom = max(rows) + 24.0
    figure = new_figure(right, bottom - top)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, right)
    axes.set_ylim(bottom, top)
    _paint(axes, root)
    return figure


def _tree(law: Law, names: Sequence[str], target: str) -> _Item:
    """The target, with everything that it is made of."""
    formula = law.formula
    label = f"{LINKS[law.loss]}{short(target)}"
    terms = formula.outputs
    if not terms:
        return _Item(f"{label} = {law_text.number(formula.bias, DIGITS)}", "target")
    symbol = "Σ" if len(terms) > 1 else "z"
    root = _Item(f"{label} = {symbol}{_shift(formula.bias)}", "target")
    for j in terms:
        item = _node(formula, names, j)
        item.weight = _times(formula.weights[j])
        root.inputs.append(item)
    return root


def _shift(value: float) -> str:
    """Such as ` + 0.5`; nothing for 0."""
    if value == 0.0:
        return ""
    sign = "+" if value > 0 else "−"
    return f" {sign} {law_text.number(abs(value), DIGITS)}"


def _times(value: float) -> str:
    """Such as `× 0.5`; nothing for 1."""
    return "" if value == 1.0 else f"× {law_text.number(value, DIGITS)}"


def _node(formula: Formula, names: Sequence[str], j: int) -> _Item:
    node = formula.nodes[j]
    inputs = [_edge(formula, names, edge) for edge in node.edges]
    if len(inputs) == 1 and node.kind != "ratio":
        return inputs[0]
    return _Item(SYMBOLS[node.kind], "node", inputs)


def _edge(formula: Formula, names: Sequence[str], edge: Edge) -> _Item:
    if edge.source < formula.features:
        source = _Item(short(names[edge.source]), "feature")
    else:
        source = _node(formula, names, edge.source - formula.features)
    source.below = False
    if edge.function == "identity" and edge.b == 0.0:
        source.weight = _times(edge.a)
        item = source
    else:
        item = _Item(_function_text(edge, "z"), "function", [source])
    item.below = edge.below
    return item


def _function_text(edge: Edge, argument: str) -> str:
    """Such as `exp(-0.3 z)`, where z is what arrives."""
    a = law_text.number(edge.a, DIGITS)
    shift = _shift(edge.b)
    if edge.function == POWER:
        base = f"({argument}{shift})" if shift else argument
        return f"{base}^{a}"
    if edge.a == 1.0:
        inner = argument + shift
    elif edge.a == -1.0:
        inner = f"−{argument}{shift}"
    else:
        inner = f"{a} {argument}{shift}"
    if edge.function == "identity":
        return inner
    plain = inner if inner == argument else f"({inner})"
    if edge.function == "square":
        return f"{plain}²"
    if edge.function == "reciprocal":
        return f"1 / {plain}"
    return f"{edge.function}({inner})"


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


FACES = {  # fill and border
    "feature": ("#eef1f4", PALE),
    "function": ("#d4e6f7", "#3f7fbf"),
    "node": ("#fde6c8", "#d18b1f"),
    "target": ("#dcf0d8", "#4f9d49"),
}


def _paint(axes: Axes, item: _Item) -> None:
    """An item with everything on its left."""
    for child in item.inputs:
        _paint_line(axes, child, item)
        _paint(axes, child)
    fill, border = FACES[item.kind]
    corner = 11 if item.kind in ("node", "feature") else 4
    box = FancyBboxPatch(
        (item.x, item.y - 11),
        item.width,
        22,
        boxstyle=f"round,pad=0,rounding_size={corner}",
        fc=fill,
        ec=border,
        lw=1.2,
        zorder=3,
    )
    axes.add_patch(box)
    axes.text(
        item.x + item.width / 2,
        item.y,
        item.label,
        ha="center",
        va="center",
        size=item.font_size,
        color=INK,
        zorder=4,
    )


def _paint_line(axes: Axes, child: _Item, item: _Item) -> None:
    """The line from an input to its user, dashed into a denominator, with its note."""
    start = child.x + child.width
    bend = item.x - GAP / 2
    axes.plot(
        [start, bend, bend],
        [child.y, child.y, item.y],
        solid_joinstyle="round",
        color=INK,
        lw=1.0,
        ls="--" if child.below else "-",
    )
    arrow = {"arrowstyle": "-|>", "color": INK, "lw": 1.0, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", (item.x, item.y), (bend, item.y), arrowprops=arrow)
    axes.text(bend - 3, child.y - 4, child.note, ha="right", va="bottom", size=SMALL - 1, color=INK)
