"""The health of a search, as its report and the terminal show it."""

from __future__ import annotations

from collections.abc import Sequence

from gradnas.pictures import plots
from gradnas.pictures.canvas import plain
from gradnas.pictures.plots import Line, Panel
from gradnas.pictures.sheet import BLUE, GREEN, ORANGE
from gradnas.reports.folder import Folder
from gradnas.reports.parts import escaped, figure, notice

# In the metrics, with what a terminal calls it
SIGNS = {
    "weightless_share": "without weights",
    "relative_entropy": "entropy",
    "agreement": "as 5 epochs ago",
    "discretisation_gap": "gap",
    "hessian_eigenvalue": "eigenvalue",
}
CAPTION = (
    "Entropy: of the mixing weights, as a share of that of equal ones, so that 100% is undecided. "
    "Without weights: the share of the operations that are decided which have none; searches by "
    "gradient are known to collapse to these. As 5 epochs ago: the share of the decision that was "
    "the same then. Eigenvalue: the largest one of the Hessian of the validation loss in the "
    "alphas, on the first batch of an epoch; where it grows, derived networks are known to get "
    "worse (RobustDARTS, arXiv 1909.09656)."
)


def health_section(folder: Folder) -> str:
    """HTML; empty for what is no search, and where nothing of its health was written."""
    if not folder.is_search:
        return ""
    panels = _panels(folder)
    if not panels:
        return ""
    sentence = trouble(folder)
    about = "<p>Nothing was found wrong.</p>"
    if sentence is not None:
        about = notice(sentence)
    elif "undecided" in folder.results:
        about = (
            "<p>Nothing was found wrong in these signs, but nothing was decided either: see "
            "above.</p>"
        )
    elif folder.results and "verdict" not in folder.results:
        about = (
            "<p>Nothing was found wrong in these signs. There is no verdict: whether what was "
            "chosen is better than something else was not measured.</p>"
        )
    caption = CAPTION
    missing = folder.results.get("no_hessian")
    if isinstance(missing, str):
        caption += f" There is no eigenvalue: {plain(missing)}."
    plot = plots.curves("plot-health", panels, "health of the search over epochs")
    return f"{about}\n{figure(plot, escaped(caption))}"


def trouble(folder: Folder) -> str | None:
    """What is wrong with a search, in a sentence: at its end, or after its last epoch."""
    found: dict[str, object] = dict(folder.results)
    if not folder.results and folder.metrics.rows:
        found = dict(folder.metrics.rows[-1])
    sentences = [_as_sentence(found.get(key)) for key in ("health", "gap")]
    return " ".join(text for text in sentences if text is not None) or None


def signs(folder: Folder) -> list[str]:
    """The last value of each sign, for a terminal."""
    found = []
    for key, word in SIGNS.items():
        value = folder.metrics.last(key)
        if value is not None:
            found.append(f"{word} {value:.3g}")
    return found


def news(rows: Sequence[dict[str, object]], number: int) -> str | None:
    """What was found wrong after an epoch, where nothing was after the one before.

    Args:
        number: of the row, from 0.
    """
    before = rows[number - 1].get("health") if number else None
    return None if before is not None else _as_sentence(rows[number].get("health"))


def _as_sentence(written: object) -> str | None:
    if not isinstance(written, str) or not written:
        return None
    text = plain(written)
    return f"{text[0].upper()}{text[1:]}."


def _panels(folder: Folder) -> list[Panel]:
    metrics = folder.metrics
    shares = [
        Line("entropy", metrics.series("relative_entropy"), BLUE),
        Line("without weights", metrics.series("weightless_share"), ORANGE),
        Line("as 5 epochs ago", metrics.series("agreement"), GREEN),
    ]
    panels = []
    there = [line for line in shares if line.points]
    if there:
        panels.append(Panel("Shares (%)", there, percent=True, from_zero=True))
    eigenvalues = metrics.series("hessian_eigenvalue")
    if eigenvalues:
        line = Line("", eigenvalues, BLUE)
        panels.append(Panel("Largest eigenvalue of the Hessian", [line], from_zero=True))
    return panels
