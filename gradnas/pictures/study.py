"""The plot of a study: every architecture against what it cost, and the final trainings.

All lengths are CSS pixels; y grows downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gradnas.pictures.sheet import (
    BLUE,
    GREEN,
    ORANGE,
    RANDOM,
    SEARCHED,
    SMALL,
    WIDTH,
    Sheet,
    plot_style,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = (SEARCHED, BLUE, GREEN, ORANGE, "#7a4fa3", "#0f7f86", "#8a6d3b")
MARKERS = "Ds^vP*X"


@dataclass(frozen=True)
class ArmPoints:
    """An arm of a study.

    Attributes:
        points: (cost until then, value of a short training), in the order in which they were paid.
        finals: values of the final trainings.
    """

    name: str
    points: Sequence[tuple[float, float]]
    finals: Sequence[float]
    is_random: bool


@plot_style()
def study_plot(
    arms: Sequence[ArmPoints], *, label: str, scale: float, higher_is_better: bool
) -> str:
    """Short trainings against cost at the left, final trainings at the right."""
    height = 250.0
    rows = -(-len(arms) // 3)
    sheet = Sheet(WIDTH, 30 + height + 44 + 18.0 * rows)
    left = sheet.axes(56, 30, 470, height)
    right = sheet.axes(600, 30, WIDTH - 620, height)
    left.set_title(f"short trainings: {label} on held-out data")
    left.set_xlabel("CPU seconds that the method has cost (of the device on CUDA)")
    right.set_title("final trainings, test data")
    number = 0
    for place, arm in enumerate(arms):
        colour = RANDOM
        marker = "o"
        if not arm.is_random:
            colour = COLOURS[number % len(COLOURS)]
            marker = MARKERS[number % len(MARKERS)]
            number += 1
        _paint(left, arm, scale, colour, marker, higher_is_better)
        _paint_finals(right, arm, place, scale, colour, marker)
    right.set_xlim(-0.6, len(arms) - 0.4)
    right.set_xticks(range(len(arms)), [_broken(arm.name) for arm in arms], size=SMALL)
    right.grid(False, axis="x")
    right.margins(y=0.2)
    left.legend(
        loc="upper left",
        bbox_to_anchor=(-0.04, -(42.0 / height)),
        ncols=3,
        borderaxespad=0,
        columnspacing=1.4,
    )
    return sheet.svg("study", f"{label} against cost")


def _paint(
    axes: Axes, arm: ArmPoints, scale: float, colour: str, marker: str, higher: bool
) -> None:
    if not arm.points:
        return
    xs = [cost for cost, _ in arm.points]
    ys = [scale * value for _, value in arm.points]
    best = [ys[0]]
    for y in ys[1:]:
        best.append(max(best[-1], y) if higher else min(best[-1], y))
    axes.plot(xs, best, drawstyle="steps-post", color=colour, lw=1.2)
    axes.plot(xs, ys, marker, color=colour, ms=6, mec="white", mew=0.7, label=arm.name)


def _paint_finals(
    axes: Axes, arm: ArmPoints, place: int, scale: float, colour: str, marker: str
) -> None:
    if not arm.finals:
        return
    ys = [scale * value for value in arm.finals]
    # Beside each other, so that equal ones are all seen.
    xs = [place + 0.12 * (k - (len(ys) - 1) / 2) for k in range(len(ys))]
    mean = sum(ys) / len(ys)
    axes.plot([place - 0.3, place + 0.3], [mean, mean], color=colour, lw=1.6)
    axes.plot(xs, ys, marker, color=colour, ms=7, mec="white", mew=0.8)


def _broken(name: str) -> str:
    """A name in lines short enough to stand beside others."""
    lines = [""]
    for part in name.split("-"):
        joined = f"{lines[-1]}-{part}" if lines[-1] else part
        if len(joined) > 12 and lines[-1]:
            lines.append(part)
        else:
            lines[-1] = joined
    return "\n".join(lines)
