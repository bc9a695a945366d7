"""What the sections of all families have in common.

Legend: N tables (one more than finished epochs).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gradnas.config import counted
from gradnas.pictures.plots import Line, Panel
from gradnas.reports.folder import Folder, Mixture


def still_open(folder: Folder, they_are: str) -> str:
    """What the caption of a picture adds while the search is at work."""
    if not folder.is_search or folder.state == "finished":
        return ""
    epoch = len(folder.metrics.rows)
    return f" {they_are} what the alphas said after epoch {epoch}, and may still change."


def heat_caption(num_tables: int, noun: str) -> str:
    """Below the table of mixing weights."""
    return (
        f"Mixing weights after {counted(num_tables - 1, 'epoch')}; darker is larger. "
        f"Framed: the derived {noun}."
    )


def entropy_panel(lines: Sequence[Line], undecided: float) -> Panel:
    """How decided a search is: the entropy falls from `undecided`, that of equal weights, to 0."""
    return Panel(
        "Entropy of the mixing weights (nats)",
        lines,
        from_zero=True,
        levels=[(undecided, "undecided")],
    )


def edge_mixtures(
    places: Sequence[str],
    operations: Sequence[str],
    mix_EO: Sequence[Sequence[float | None]],
    chosen: Collection[tuple[int, int]],
) -> list[Mixture]:
    """The last table of a cell, an edge after the other.

    Args:
        mix_EO: None where an edge has not this operation.
        chosen: (row, column) of what was derived; most edges of a cell have nothing.
    """
    mixtures = []
    for row, (place, values) in enumerate(zip(places, mix_EO, strict=True)):
        decided = [operations[column] for e, column in chosen if e == row]
        there = [(name, p) for name, p in zip(operations, values, strict=True) if p is not None]
        names = tuple(name for name, _ in there)
        weights = tuple(p for _, p in there)
        mixtures.append(Mixture(place, names, weights, decided[0] if decided else None))
    return mixtures
