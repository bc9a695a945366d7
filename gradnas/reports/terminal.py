"""A run as it is seen in a terminal: curves and mixing weights of block characters, as plain lines.

No line is wider than it may be. Names come from files: whoever prints the lines makes visible what
would move a cursor (`gradnas.config.visible`), which is done here before they are measured.
"""

from __future__ import annotations

import itertools
import statistics
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from gradnas.config import visible
from gradnas.progress import clock
from gradnas.reports.folder import Folder, Mixture
from gradnas.reports.health import signs, trouble
from gradnas.runs import Record

BLOCKS = "▁▂▃▄▅▆▇█"
MEASURES = ("train_", "search_valid_", "valid_", "derived_valid_")  # how their names begin
MOST_CURVES = 8
WIDEST_CURVE = 32
MOST_LINES = 4  # of a sentence about the health of a search
FEWEST_ROWS = 3  # for mixing weights
BAR_WIDTH = 30
GAP = 2  # between columns
TWO_COLUMNS = 76  # from so many characters on there may be two

Series = list[tuple[int, float]]  # (finished epochs, value)


@dataclass(frozen=True)
class Pace:
    """How fast a run goes.

    Attributes:
        epochs: how many there will be.
        per_epoch: seconds, of the last ones; None before the first has ended.
        since: seconds since the last one ended, or since the run began.
    """

    epochs: int
    per_epoch: float | None
    since: float

    def left(self, done: int) -> float | None:
        """Seconds to the end of the epochs; None where that is not known."""
        if self.per_epoch is None:
            return None
        return max(0.0, (self.epochs - done) * self.per_epoch - min(self.since, self.per_epoch))

    def share(self, done: int) -> float:
        """Of the work, from 0 to 1: the epoch under way is reckoned by its time."""
        if done >= self.epochs:
            return 1.0
        within = 0.0 if not self.per_epoch else min(0.95, self.since / self.per_epoch)
        return (done + within) / self.epochs


# -- the whole -------------------------------------------------------------------------------------


def screen(
    title: str,
    folder: Folder,
    mixtures: Sequence[Mixture],
    pace: Pace,
    remark: str,
    width: int,
    height: int,
) -> list[str]:
    """The lines of a run.

    Args:
        title: what it is.
        remark: its state, at the right.
        width, height: of the terminal, in characters; what does not fit is left out and counted.
    """
    head = [_ends(title, remark, width), progress(folder, pace, width)]
    curves = _curves(folder, width)
    if curves:
        head += ["", *curves]
    # What is wrong comes before the mixing weights, of which some lines must fit.
    room = height - len(head) - (FEWEST_ROWS + 1 if mixtures else 0) - 1
    health = _health(folder, width)[: max(room, 0)]
    head += ["", *health] if health else []
    if mixtures:
        rows = max(height - len(head) - 1, FEWEST_ROWS)
        head += ["", *_mixtures(mixtures, width, rows)]
    return [_cut(line, width) for line in head]


def progress(folder: Folder, pace: Pace, width: int) -> str:
    """Bar, epochs, and the time left."""
    done = len(folder.metrics.rows)
    parts = [f"epoch {done} of {pace.epochs}"]
    if pace.per_epoch is not None:
        parts.append(f"{_seconds(pace.per_epoch)} an epoch")
    if folder.state == "running":
        left = pace.left(done)
        if left is None:
            parts.append(f"the first for {clock(pace.since)} so far")
        elif done < pace.epochs:
            parts.append(f"{clock(left)} left")
    full = round(pace.share(done) * BAR_WIDTH)
    bar = "━" * full + "╌" * (BAR_WIDTH - full)
    return _cut(f"{bar}  {', '.join(parts)}", width)


def epoch_line(title: str, record: Record, epochs: int, left: float | None) -> str:
    """One line for an epoch, where there is no terminal."""
    values = []
    for key in shown_keys([record]):
        values.append(f"{words(key)} {record[key]:.4g}")
    text = f"{title}: epoch {record['epoch'] + 1}/{epochs}  {'  '.join(values)}"
    return visible(text if left is None else f"{text}  {clock(left)} left")


def narrow(text: str, width: int = 80) -> str:
    """A line as several, none wider than `width` unless a single word is; the others indented.

    What belongs together (a measure and its value) is parted from the rest by two spaces.
    """
    if len(text) <= width:
        return text
    inside = "\N{NO-BREAK SPACE}"  # between words that stay together
    parts = text.split("  ")
    if len(parts) > 1:
        parts = [part.replace(" ", inside) if len(part) < width - 4 else part for part in parts]
    lines = textwrap.wrap(
        "  ".join(parts),
        width,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace(inside, " ")


def shown_keys(rows: Sequence[Record]) -> list[str]:
    """The measures of the epochs: losses and what else is measured."""
    keys: dict[str, None] = {}
    for record in rows:
        for key, value in record.items():
            is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if key.startswith(MEASURES) and is_number:
                keys[key] = None
    return list(keys)


def words(key: str) -> str:
    """A name of a measure as one reads it."""
    return visible(key.replace("_", " "))


# -- curves ----------------------------------------------------------------------------------------


def blocks(values: Sequence[float], width: int) -> str:
    """Values as blocks, the lowest one low and the highest one high, the means of many as one."""
    if not values:
        return ""
    width = max(width, 1)
    if len(values) > width:
        edges = [round(i * len(values) / width) for i in range(width + 1)]
        values = [statistics.fmean(values[a:b]) for a, b in itertools.pairwise(edges)]
    low, high = min(values), max(values)
    if high == low:
        return BLOCKS[3] * len(values)
    scale = (len(BLOCKS) - 1) / (high - low)
    return "".join(BLOCKS[round((value - low) * scale)] for value in values)


def _curves(folder: Folder, width: int) -> list[str]:
    """A row for each measure, or two of them side by side."""
    series = {words(key): folder.metrics.series(key) for key in shown_keys(folder.metrics.rows)}
    entropy = _entropy(folder)
    if entropy:
        series = dict(itertools.islice(series.items(), MOST_CURVES - 1)) | {"entropy": entropy}
    series = dict(itertools.islice(series.items(), MOST_CURVES))
    columns = 2 if len(series) > 4 and width >= TWO_COLUMNS else 1
    own = (width - GAP * (columns - 1)) // columns
    labels = list(series)
    values = {label: [value for _, value in series[label]] for label in labels}
    last = {label: f"{values[label][-1]:.4g}" for label in labels}
    value_width = max((len(text) for text in last.values()), default=0)
    longest = max((len(label) for label in labels), default=0)
    label_width = min(longest, own - value_width - 8)
    room = min(own - label_width - value_width - 2, WIDEST_CURVE)
    cells = []
    for label in labels:
        name = f"{_cut(label, label_width):{label_width}}"
        cells.append(f"{name} {last[label]:>{value_width}} {blocks(values[label], room)}")
    return _in_columns(cells, columns, own)


def _health(folder: Folder, width: int) -> list[str]:
    """The signs of the health of a search, and what is wrong."""
    if not folder.is_search:
        return []
    text = ", ".join(signs(folder))
    wrong = trouble(folder)
    lines = [] if not text else [f"health: {text}"]
    if wrong is not None:
        lines += textwrap.wrap(visible(wrong), max(width, 20))[:MOST_LINES]
    return lines


def _entropy(folder: Folder) -> Series:
    """The mean over all tables, of a search."""
    series: Series = []
    for record in folder.metrics.rows:
        own = [value for key, value in record.items() if key.startswith("entropy_")]
        if own and all(isinstance(value, (int, float)) for value in own):
            series.append((record["epoch"] + 1, statistics.fmean(own)))
    return series


# -- mixing weights --------------------------------------------------------------------------------


def _mixtures(mixtures: Sequence[Mixture], width: int, rows: int) -> list[str]:
    """A row for each place, or two places side by side, and how many were left out."""
    columns = 1 if len(mixtures) < rows or width < TWO_COLUMNS else 2
    own = (width - GAP * (columns - 1)) // columns
    fitting = min(len(mixtures), columns * (rows - 1))
    if len(mixtures) > fitting:
        fitting = columns * (rows - 2)
    places = max(len(visible(mixture.place)) for mixture in mixtures)
    most = max(len(mixture.operations) for mixture in mixtures)
    cells = [_mixture(mixture, own, places, most, columns == 1) for mixture in mixtures[:fitting]]
    heading = "mixing weights (a block for each operation; * decided)"
    lines = [_cut(heading, width), *_in_columns(cells, columns, own)]
    if fitting < len(mixtures):
        lines.append(f"and {len(mixtures) - fitting} more: gradnas report shows all of them")
    return lines


def _mixture(mixture: Mixture, width: int, places: int, most: int, wide: bool) -> str:
    """Place, probabilities as blocks, the likeliest operation, and with room the next ones."""
    bars = min(most, 10)
    place = min(places, max(width - bars - 22, 8))
    top = max(mixture.probabilities)
    heights = [round(p / top * (len(BLOCKS) - 1)) if top > 0 else 0 for p in mixture.probabilities]
    shape = "".join(BLOCKS[height] for height in heights)
    order = sorted(
        range(len(mixture.operations)), key=mixture.probabilities.__getitem__, reverse=True
    )
    named = []
    for o in order:
        mark = "*" if mixture.operations[o] == mixture.decided else ""
        named.append((f"{mark}{visible(mixture.operations[o])}", f"{mixture.probabilities[o]:.2f}"))
    text = f"{_cut(visible(mixture.place), place):{place}} {_cut(shape, bars):{bars}} "
    room = width - len(text)
    for count in range(len(named), 0, -1) if wide else (1,):
        joined = "  ".join(f"{name} {value}" for name, value in named[:count])
        if len(joined) <= room:
            return text + joined
    name, value = named[0]
    return f"{text}{_cut(name, room - len(value) - 1)} {value}"


# -- lines -----------------------------------------------------------------------------------------


def _in_columns(cells: Sequence[str], columns: int, width: int) -> list[str]:
    """Cells row by row."""
    lines = []
    for start in range(0, len(cells), columns):
        row = cells[start : start + columns]
        lines.append((" " * GAP).join(f"{cell:{width}}" for cell in row).rstrip())
    return lines


def _ends(left: str, right: str, width: int) -> str:
    """One text at the left, one at the right."""
    right = _cut(visible(right), width // 2)
    left = _cut(visible(left), width - len(right) - GAP)
    return f"{left}{right:>{width - len(left)}}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else f"{text[: max(width - 1, 0)]}…"


def _seconds(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else clock(seconds)
