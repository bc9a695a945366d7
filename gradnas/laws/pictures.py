"""Pictures of laws: data against law beside the Pareto front, and the typeset law.

Legend: N rows, D features. Lengths are points (1/72 inch).
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import TextPath, text_to_path
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from gradnas.config import did_you_mean
from gradnas.laws.law import Laws
from gradnas.pictures.sheet import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    SEARCHED,
    SMALL,
    STYLE,
    inline,
)
from gradnas.runs import write_atomically

SUFFIXES: dict[str, dict[str, None]] = {
    "svg": {"Date": None},
    "png": {},
    "pdf": {"CreationDate": None},
}
SMALLEST_ERROR = 1e-32  # what stands on a logarithmic axis for an exact law
LONGEST_NAME = 24  # characters
LONGEST_TITLE = 90


@contextmanager
def style() -> Iterator[None]:
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
            f"{path}: a picture ends in {known}, not {path.suffix!r}"
            f"{did_you_mean(suffix, SUFFIXES)}"
        )
    dpi = 160 if suffix == "png" else 72
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=suffix, dpi=dpi, metadata=SUFFIXES[suffix])
    write_atomically(path, buffer.getvalue())
    return path


def page_svg(figure: Figure, name: str, label: str, *, paths: bool = False) -> str:
    """A figure as an `<svg>` element of a page.

    Args:
        name: its own on the page.
        label: what it shows, in words.
        paths: letters as paths, not as text.
    """
    buffer = io.StringIO()
    with style(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # its text stays text, for any font
        are_formulas = all(text.get_parse_math() for text in figure.texts)
        if paths and are_formulas:  # their letters stand where matplotlib's font has them
            matplotlib.rcParams["svg.fonttype"] = "path"
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return inline(buffer.getvalue(), name, label, figure.get_size_inches()[0] * 96)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that can be saved without a display."""
    figure = Figure(figsize=(width / 72, height / 72))
    FigureCanvasAgg(figure)
    return figure


def short(name: str) -> str:
    """A name that may be long, cut."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


# -- the typeset law -------------------------------------------------------------------------------


@style()
def typeset(lines: Sequence[str], plain: Sequence[str], size: float = 15.0) -> Figure:
    """Lines of LaTeX, as matplotlib's mathtext sets it.

    Args:
        plain: the same lines as text; one stands in the place of a line that cannot be set: names
            of columns may hold any character.
    """
    texts: list[str] = []
    is_math: list[bool] = []
    widths: list[float] = []
    heights: list[float] = []
    for line, as_text in zip(lines, plain, strict=True):
        dialect = f"${mathtext(line)}$"
        as_math = text_size(dialect, size, math=True) if has_glyphs(dialect) else None
        width, height = as_math or text_size(as_text, size) or (0.0, 0.0)
        texts.append(as_text if as_math is None else dialect)
        is_math.append(as_math is not None)
        widths.append(width)
        heights.append(height + 14)
    total = sum(heights) + 4
    figure = new_figure(max(widths) + 30, total)
    x = 12 / figure.get_size_inches()[0] / 72
    y = 2.0
    for text, math, height in zip(texts, is_math, heights, strict=True):
        place = 1 - (y + height / 2) / total
        figure.text(x, place, text, size=size, va="center", parse_math=math, color=INK)
        y += height
    return figure


# What LaTeX and matplotlib's mathtext write in different ways, or mathtext not at all.
MATHTEXT = {r"\&": "&", '"': "\u201d", "`": "\u2018"}


def mathtext(latex: str) -> str:
    """A line of LaTeX in the dialect of mathtext."""
    for own, theirs in MATHTEXT.items():
        latex = latex.replace(own, theirs)
    return latex


def has_glyphs(text: str) -> bool:
    """Whether the font of pictures can draw every character of it."""
    font = get_font(findfont(FontProperties()))
    return all(font.get_char_index(ord(character)) for character in text)


def text_size(text: str, size: float, math: bool = False) -> tuple[float, float] | None:
    """Width and height of a line in points; None where it cannot be set."""
    if math:
        try:
            width, height, _ = text_to_path.get_text_width_height_descent(
                text, FontProperties(size=size), ismath=True
            )
        except ValueError:
            return None
        return float(width), float(height)
    if not text.isprintable() or not text.strip():
        return None  # perhaps not one visible character, of which there is no path
    with warnings.catch_warnings():
        # A character that the font lacks has the width of a box; readers of a page have others.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        path = TextPath((0, 0), text.replace("$", r"\$"), size=size, prop=FontProperties())
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


@style()
def law_figure(shown: Shown, size: tuple[float, float] = (630.0, 250.0)) -> Figure:
    """Data against law on the left, the Pareto front on the right."""
    figure = new_figure(*size)
    left = figure.add_axes((0.075, 0.16, 0.49, 0.70))
    right = figure.add_axes((0.66, 0.16, 0.32, 0.70))
    if shown.x_ND.shape[1] == 1:
        _curve(left, shown)
    elif shown.shares:
        _calibration(left, shown)
    else:
        _observed(left, shown)
    _front(right, shown.laws, shown.place)
    title = shown.title
    if len(title) > LONGEST_TITLE:
        title = title[: LONGEST_TITLE - 1] + "…"
    figure.text(0.012, 0.94, title, size=11, weight="bold", color=INK)
    return figure


def _curve(axes: Axes, shown: Shown) -> None:
    x_N = shown.x_ND[:, 0]
    grid_N = np.linspace(float(x_N.min()), float(x_N.max()), 400)
    if shown.shares:
        _shares(axes, x_N, shown.y_N)
        axes.set_ylabel(f"P({short(shown.target)})")
    else:
        axes.plot(x_N, shown.y_N, "o", ms=3.5, mew=0, color=BLUE, alpha=0.55, label="data")
        axes.set_ylabel(short(shown.target))
    axes.plot(grid_N, shown.predict(grid_N[:, None]), "-", color=ORANGE, lw=2, label="law")
    axes.set_xlabel(short(shown.names[0]))
    axes.legend(loc="best")


def _shares(axes: Axes, x_N: np.ndarray, y_N: np.ndarray) -> None:
    """Ticks at 0 and 1 for the rows; dots for the shares in tenths of them, with their errors."""
    axes.plot(x_N, y_N, "|", ms=6, color=BLUE, alpha=0.4)
    means, shares, errors = _tenths(x_N, y_N)
    axes.errorbar(means, shares, errors, fmt="o", ms=4, color=BLUE, lw=1, label="share, by tenths")
    axes.set_ylim(-0.06, 1.06)


def _tenths(x_N: np.ndarray, y_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean of x, the share of y, and its standard error, in each tenth of the rows by x."""
    order = np.argsort(x_N, kind="stable")
    parts = np.array_split(order, min(10, len(x_N)))
    means = np.array([x_N[part].mean() for part in parts])
    shares = np.array([y_N[part].mean() for part in parts])
    sizes = np.array([len(part) for part in parts])
    return means, shares, np.sqrt(shares * (1 - shares) / sizes)


def _calibration(axes: Axes, shown: Shown) -> None:
    p_N = shown.predict(shown.x_ND)
    defined_N = np.isfinite(p_N)
    axes.plot([0, 1], [0, 1], "-", color=ORANGE, lw=1.2, label="law")
    _shares(axes, p_N[defined_N], shown.y_N[defined_N])
    axes.set_xlabel("probability by the law")
    axes.set_ylabel(f"share of {short(shown.target)}")
    axes.legend(loc="upper left")


def _observed(axes: Axes, shown: Shown) -> None:
    predicted_N = shown.predict(shown.x_ND)
    both = np.concatenate([predicted_N[np.isfinite(predicted_N)], shown.y_N])
    ends = [float(both.min()), float(both.max())]
    axes.plot(ends, ends, "-", color=ORANGE, lw=1.2, label="law")
    axes.plot(predicted_N, shown.y_N, "o", ms=3.5, mew=0, color=BLUE, alpha=0.55, label="data")
    axes.set_xlabel(f"{short(shown.target)} by the law")
    axes.set_ylabel(f"{short(shown.target)}, observed")
    axes.legend(loc="upper left")


ERRORS = {
    "squared": "mean squared error",
    "logistic": "cross entropy",
    "poisson": "half the Poisson deviance",
}


def _front(axes: Axes, laws: Laws, place: int) -> None:
    complexities = [law.complexity for law in laws.front]
    train = [max(law.train_error, SMALLEST_ERROR) for law in laws.front]
    valid: list[float] = []
    for law in laws.front:
        # A fold can leave a law undefined; its point is left out.
        defined = np.isfinite(law.valid_error)
        valid.append(max(law.valid_error, SMALLEST_ERROR) if defined else np.nan)
    axes.plot(complexities, train, "-o", ms=4, color=BLUE, label="all rows")
    axes.plot(complexities, valid, "--o", ms=4, color=GREEN, label="cross-validated", mfc="none")
    ring = {"ms": 11, "mfc": "none", "mew": 1.8, "color": SEARCHED}
    axes.plot(complexities[place], train[place], "o", label="shown", **ring)
    finite = [error for error in [*train, *valid] if np.isfinite(error)]
    if max(finite) > 20 * min(finite):
        axes.set_yscale("log")
        # The usual formatter writes formulas.
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("complexity (constants + operations)")
    law = laws.front[place]
    axes.set_title(f"Pareto front: {law.measure or ERRORS[law.loss]}", size=SMALL)
    axes.legend(loc="best")
