"""What a search is worth, as its report shows it."""

from __future__ import annotations

from gradnas.config import counted
from gradnas.reports.folder import Folder
from gradnas.reports.parts import escaped, row
from gradnas.search import verdict_words
from gradnas.search.verdict import Verdict

LEAD = (
    "Lead: how much better what was chosen is than the best alternative that was measured in its "
    "place, all else the same; noise: half the width of a 95% interval of that difference. A "
    "choice is decided where the lead is larger than the noise; what was taken because it measured "
    "best on these very examples, or is measured on what the weights have learned from, is not "
    "confirmed by them."
)
SHOWN = 12  # candidates


def verdict_section(folder: Folder) -> str:
    """HTML; empty where nobody wanted a verdict, and no candidates were measured.

    Raises:
        ValueError: the results hold something else than a verdict.
    """
    return "\n".join(part for part in (_selection(folder), _verdict(folder)) if part)


def _selection(folder: Folder) -> str:
    """What was measured to decide, where the selection takes the best of candidates."""
    missing = folder.results.get("no_selection")
    if isinstance(missing, str):
        return f"<p>{escaped(missing[:1].upper() + missing[1:])}.</p>"
    found = folder.results.get("selection")
    if not isinstance(found, dict) or not isinstance(found.get("sentence"), str):
        return ""
    said = found["sentence"]
    text = f"{said[:1].upper()}{said[1:]}."
    if "alphas" in found:
        text += " The alphas alone decide nothing here, so it rests on what was measured."
    return f"<p>{escaped(text)}</p>"


def _verdict(folder: Folder) -> str:
    written = folder.results.get("verdict")
    missing = folder.results.get("no_verdict")
    if isinstance(missing, str):
        return "<p>" + escaped(f"There is none: {missing}") + "</p>"
    if written is None:
        return ""
    where = folder.path / "results.json"
    if not isinstance(written, dict):
        raise ValueError(f"{where}: verdict must be an object")
    try:
        verdict = Verdict.from_json(written)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    said = verdict_words.sentence(verdict, typed=True)
    parts = [f"<p>{escaped(said)}</p>", _numbers(verdict)]
    if verdict.choices:
        parts.append(_choices(verdict))
    caption = _caption(verdict)
    notes = " ".join(f"{note[:1].upper()}{note[1:]}." for note in verdict.notes)
    parts.append(f'<p class="caption">{escaped(caption)} {escaped(notes)}</p>')
    if verdict.likeliest > 1:
        parts.append(_candidates(verdict))
    return "\n".join(parts)


def _caption(verdict: Verdict) -> str:
    """How it was measured, and what the columns of the choices say, where they are shown."""
    recalibrated = ", BatchNorm recalibrated" if verdict.recalibrated else ""
    text = (
        f"All with the weights of the search{recalibrated}, on the same {verdict.kind} "
        f"{verdict.measure.noun}."
    )
    compared = any(choice.alternative is not None for choice in verdict.choices)
    return f"{text} {LEAD}" if compared else text


def _numbers(verdict: Verdict) -> str:
    text = verdict.measure.text
    rows = [row(("", verdict.measure.name), tag="th")]
    if verdict.mixture is not None:
        rows.append(row(("mixture of the search", text(verdict.mixture))))
    rows.append(row(("derived network", text(verdict.derived))))
    if verdict.likeliest > 1:
        best = f"best of the {verdict.likeliest} likeliest architectures"
        rows.append(row((best, text(verdict.best().value))))
    mean = verdict.random_mean
    if mean is not None:
        spread = verdict.random_sd
        shown = text(mean) + ("" if spread is None else f" ± {text(spread)}")
        rows.append(row((counted(len(verdict.random), "random architecture"), shown)))
    measured_on = f"{verdict.examples:,} {verdict.kind} {verdict.measure.noun}"
    rows.append(row(("measured on", measured_on)))
    return f"<table>{''.join(rows)}</table>"


def _choices(verdict: Verdict) -> str:
    text = verdict.measure.text
    table = [("choice", "chosen", "probability", "best alternative", "lead", "noise", "state")]
    for choice in verdict.choices:
        has_alternative = choice.alternative is not None
        cells = (
            choice.name,
            choice.chosen,
            "" if choice.probability is None else f"{choice.probability:.1%}",
            choice.alternative or "",
            text(choice.lead) if has_alternative else "",
            "" if choice.noise is None else text(choice.noise),
            choice.state if verdict.moved else "undecided",
        )
        table.append(cells)
    # What nothing was compared with has no alternative, and shows no columns of it.
    shown = [column for column in range(len(table[0])) if any(own[column] for own in table[1:])]
    rows = []
    for number, own in enumerate(table):
        cells_shown = [escaped(own[column]) for column in shown]
        rows.append(row(cells_shown, tag="th" if number == 0 else "td"))
    return f'<table class="wide">{"".join(rows)}</table>'


def _candidates(verdict: Verdict) -> str:
    text = verdict.measure.text
    head = ("", "architecture", verdict.measure.name, "better than derived by", "noise")
    rows = [row(head, tag="th")]
    for place, candidate in enumerate(verdict.candidates[:SHOWN], 1):
        is_likely = place <= verdict.likeliest
        cells = (
            "derived" if place == 1 else f"{place}." if is_likely else "one change",
            candidate.text,
            text(candidate.value),
            "" if place == 1 else text(candidate.gain),
            "" if place == 1 or candidate.noise is None else text(candidate.noise),
        )
        rows.append(row([escaped(cell) for cell in cells]))
    more = len(verdict.candidates) - SHOWN
    rest = f'<p class="caption">and {more} more</p>' if more > 0 else ""
    return (
        "<details><summary>The architectures that were measured</summary>"
        f'<table class="wide">{"".join(rows)}</table>{rest}</details>'
    )
