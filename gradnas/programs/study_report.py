"""The page of a study, and its table for a terminal; from its folder alone."""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Sequence
from pathlib import Path

from gradnas import runs
from gradnas.config import counted
from gradnas.families import family_of
from gradnas.pictures.study import ArmPoints, study_plot
from gradnas.programs.study_truth import truth_table
from gradnas.reports.parts import CSS, bullets, escaped, figure, notice, row, section
from gradnas.reports.words import duration
from gradnas.study import plan
from gradnas.study.folder import StudyFolder
from gradnas.study.outcome import Arm, Outcome, outcome_of
from gradnas.study.statistics import CONFIDENCE
from gradnas.study.trials import cost_of, state_of
from gradnas.tasks.measure import Measure

CSS_OF_STUDY = """
td.number, th.number { text-align: right; }
img.cell { max-width: 100%; }
"""


def write_study_report(study: StudyFolder) -> Path:
    """Write `report.html` into the folder of a study, finished or not.

    Raises:
        ValueError: a file of the study is damaged, or the page cannot be written.
    """
    path = study.path / runs.REPORT
    runs.write_atomically(path, _page(study).encode())
    return path


# ---- the table -----------------------------------------------------------------------------------

HEADINGS = ("method", "n", "best short", "final", "sd", "finals", "cost", "final cost")


def rows_of(outcome: Outcome) -> list[tuple[str, ...]]:
    """A row for each arm: what was tried, what was chosen, what came out, what it cost."""
    measure = outcome.measure
    rows: list[tuple[str, ...]] = []
    for arm in outcome.arms:
        best = arm.chosen
        short = "" if best is None or best.short is None else measure.text(best.short)
        sd = arm.finals.sd
        rows.append(
            (
                arm.name,
                str(len(arm.candidates)),
                short,
                measure.text(arm.finals.mean) if arm.finals.n else "",
                "" if sd is None else measure.number(sd),
                str(arm.finals.n),
                duration(arm.cost),
                duration(arm.final_cost),
            )
        )
    return rows


def table_lines(outcome: Outcome) -> list[str]:
    """The table in characters, at most 80 wide where names are short."""
    rows = [HEADINGS, *rows_of(outcome)]
    widths = [max(len(cells[i]) for cells in rows) for i in range(len(HEADINGS))]
    lines = []
    for cells in rows:
        parts = [cells[0].ljust(widths[0])]
        for cell, width in zip(cells[1:], widths[1:], strict=True):
            parts.append(cell.rjust(width))
        lines.append("  ".join(parts).rstrip())
    return lines


def rank_sentence(outcome: Outcome) -> str:
    """How far the short trainings tell the order of the final ones."""
    if outcome.tau is None:
        return (
            f"whether short and final trainings agree cannot be told from {outcome.ranked} "
            f"architecture{'' if outcome.ranked == 1 else 's'} with both (three are needed)"
        )
    return (
        f"short and final trainings of {outcome.ranked} architectures agree in their order with "
        f"Kendall's tau {outcome.tau:+.2f} (1: the same, 0: no relation)"
    )


def chance_sentences(outcome: Outcome) -> list[str]:
    """What several comparisons show by chance alone; of one its interval says so."""
    number = len(outcome.against)
    if number < 2:
        return []
    share = 1 - CONFIDENCE**number
    return [
        f"{number} methods are compared, each at {CONFIDENCE:.0%}: where none differs from random "
        f"search, up to {share:.0%} of such studies show a difference of one of them"
    ]


def cost_sentences(outcome: Outcome) -> list[str]:
    """That costs are not equal, where the number of random architectures was given."""
    number = outcome.settings.random
    if number is None:
        return []
    costs = [
        f"{method} {duration(outcome.arm(method).cost)} and {random} search "
        f"{duration(outcome.arm(random).cost)}"
        for method, (random, _) in outcome.against.items()
    ]
    return [
        f"{counted(number, 'random architecture')} by --random, whatever the searches cost: this "
        f"compares at unequal cost ({'; '.join(costs)})"
    ]


def searched_sentences(outcome: Outcome) -> list[str]:
    """What searched networks reach against random ones in the short trainings, before any choice.

    This is about the method; the final trainings are about the two networks that were chosen.
    """
    said = []
    measure = outcome.measure
    for method, found in outcome.searched.items():
        if found is None:
            continue
        unit = " points" if measure.unit == "%" else measure.unit
        text = (
            f"before any choice: {method} {measure.text(found.first.mean)} (n = {found.first.n}), "
            f"random {measure.text(found.second.mean)} (n = {found.second.n}) on held-out data"
        )
        if found.low is not None and found.high is not None:
            low = measure.scale * found.low
            high = measure.scale * found.high
            text += f"; 95% interval of the difference {low:+.2f} to {high:+.2f}{unit}"
        said.append(text)
    return said


# ---- the page ------------------------------------------------------------------------------------


def _page(study: StudyFolder) -> str:
    outcome = outcome_of(study)
    settings = study.settings
    name = study.path.resolve().name
    lead = "; ".join(outcome.sentences) or "No method is compared with random search yet."
    searches = "1 search" if settings.seeds == 1 else f"{settings.seeds} searches"
    about = (
        f"Study of {settings.what}: {searches} a method, trainings of "
        f"{counted(settings.short_epochs, 'epoch')} to choose by, "
        f"{counted(settings.finals, 'final training')} of "
        f"{counted(settings.final_epochs, 'epoch')}"
    )
    notices = []
    for arm in outcome.arms:
        for trial, sentence in arm.failed:
            notices.append(notice(f"{trial} failed: {sentence}"))
    sections = [
        ("Methods", _table(outcome)),
        ("All runs", _picture(outcome, study)),
        ("What the numbers say", _said(outcome)),
        ("By the truth", truth_table(study, outcome)),
        ("Chosen architectures", _chosen(outcome)),
        ("Runs", _runs(study, outcome)),
    ]
    body = "\n".join(section(title, text) for title, text in sections if text)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(name)}: a study</title>
<style>{CSS}{CSS_OF_STUDY}</style>
</head>
<body>
<header>
<p class="about">{escaped(about)}</p>
<h1>{escaped(name)}</h1>
</header>
{"".join(dict.fromkeys(notices))}
<p class="lead">{escaped(_sentence(lead))}</p>
{body}
</body>
</html>
"""


def _sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    ended = text if text.endswith(".") else f"{text}."
    return ended[:1].upper() + ended[1:]


def _table(outcome: Outcome) -> str:
    head = [f'<th class="number">{escaped(title)}</th>' for title in HEADINGS[1:]]
    rows = [f"<tr><th>{HEADINGS[0]}</th>{''.join(head)}</tr>"]
    for cells in rows_of(outcome):
        numbers = [f'<td class="number">{escaped(cell)}</td>' for cell in cells[1:]]
        rows.append(f"<tr><td>{escaped(cells[0])}</td>{''.join(numbers)}</tr>")
    caption = (
        "n: architectures that were trained briefly on the data for the weights and measured on "
        "those held out for the alphas; the best one is trained anew on all training data, and "
        "tested once. Costs are CPU seconds of all cores (of the device on CUDA): of searches and "
        "short trainings, and of the final trainings."
    )
    return f'<table class="wide">{"".join(rows)}</table>\n<p class="caption">{escaped(caption)}</p>'


def points_of(arm: Arm, study: StudyFolder) -> ArmPoints:
    """What the picture shows of an arm."""
    spent = 0.0
    points = []
    paid: set[str] = set()
    for candidate in arm.candidates:
        for trial in (candidate.found_by, plan.short_name(candidate.architecture)):
            if trial not in paid and not trial.startswith("random "):
                spent += cost_of(study, trial)
                paid.add(trial)
        if candidate.short is not None:
            points.append((spent, candidate.short))
    return ArmPoints(arm.name, points, list(arm.finals.values), arm.name.startswith(plan.RANDOM))


def _picture(outcome: Outcome, study: StudyFolder) -> str:
    arms = [points_of(arm, study) for arm in outcome.arms]
    if not any(arm.points for arm in arms):
        return ""
    measure = outcome.measure
    svg = study_plot(
        arms,
        label=_label(measure),
        scale=measure.scale,
        higher_is_better=measure.higher_is_better,
    )
    caption = (
        "Left: every architecture in its short training, against what its method had cost until "
        "then; the lines are the best so far. Right: final trainings on the test data."
    )
    return figure(svg, escaped(caption))


def _label(measure: Measure) -> str:
    return f"{measure.key} ({measure.unit})" if measure.unit else measure.key


def _said(outcome: Outcome) -> str:
    lines = [*outcome.sentences, *cost_sentences(outcome), *chance_sentences(outcome)]
    lines += [*searched_sentences(outcome), rank_sentence(outcome)]
    note = (
        "Intervals are Welch's; they are about these trainings of these architectures. Another "
        "study may choose other ones."
    )
    return bullets([escaped(_sentence(text)) for text in [*lines, note]])


def _chosen(outcome: Outcome) -> str:
    parts = []
    shown: dict[str, list[str]] = {}
    for arm in outcome.arms:
        if arm.chosen is not None:
            shown.setdefault(arm.chosen.architecture.to_text(), []).append(arm.name)
    for arm in outcome.arms:
        if arm.chosen is None or shown[arm.chosen.architecture.to_text()][0] != arm.name:
            continue
        text = arm.chosen.architecture.to_text()
        names = ", ".join(shown[text])
        parts.append(f"<h3>{escaped(names)} (found by {escaped(arm.chosen.found_by)})</h3>")
        parts.append(_drawn(arm))
        parts.append(f"<pre>{escaped(text)}</pre>")
    return "\n".join(parts)


def _drawn(arm: Arm) -> str:
    """The picture of the chosen architecture, as an image that needs no file."""
    assert arm.chosen is not None
    architecture = arm.chosen.architecture
    with tempfile.TemporaryDirectory() as place:
        path = family_of(architecture).picture(architecture, Path(place) / "chosen.svg")
        data = base64.b64encode(path.read_bytes()).decode()
    alt = f"architecture chosen by {arm.name}"
    return f'<img class="cell" alt="{escaped(alt)}" src="data:image/svg+xml;base64,{data}">'


def _runs(study: StudyFolder, outcome: Outcome) -> str:
    key = f"test_{outcome.measure.key}"
    rows = [row(("run", "state", "epochs", "value", "cost"), tag="th")]
    for name in study.names():
        state = state_of(study, name, key)
        value = "" if state.value is None else outcome.measure.text(state.value)
        link = f'<a href="trials/{escaped(name)}/">{escaped(name)}</a>'
        cells = [state.state, f"{state.epoch}/{state.epochs}", value, duration(state.cost)]
        rows.append(row([link, *[escaped(cell) for cell in cells]]))
    return f'<table class="wide">{"".join(rows)}</table>'


def lines_of(outcome: Outcome) -> Sequence[str]:
    """What the terminal is told at the end of a study."""
    return [
        *table_lines(outcome),
        "",
        *outcome.sentences,
        *cost_sentences(outcome),
        *chance_sentences(outcome),
        *searched_sentences(outcome),
        rank_sentence(outcome),
    ]
