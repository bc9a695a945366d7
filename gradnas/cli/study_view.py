"""`gradnas study status` and `gradnas study report`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from gradnas import runs
from gradnas.cli.lines import line
from gradnas.config import JsonObject
from gradnas.programs.study_report import lines_of, write_study_report
from gradnas.programs.study_truth import look_up_study, truth_lines
from gradnas.programs.truths import truth_of
from gradnas.progress import clock
from gradnas.study.folder import COSTS, StudyFolder
from gradnas.study.outcome import costs_of, measure_of, outcome_of, results_of
from gradnas.study.plan import PHASES
from gradnas.study.trials import TrialState, all_states
from gradnas.tasks.measure import Measure
from gradnas.truth import Truth

SECONDS_BETWEEN_LOOKS = 1.0
FEWEST_LINES = 6  # of trials, however low the terminal is


def say_outcome(study: StudyFolder, form: str, truth: Truth | None = None) -> None:
    """What a study has come to, at its end; the page is written too.

    Args:
        truth: where its architectures are looked up.
    """
    looked_up = None if truth is None else look_up_study(study, truth)
    page = write_study_report(study)
    found = outcome_of(study)
    if form == "json":
        said: JsonObject = {"results": results_of(found), "costs": costs_of(study, found)}
        if looked_up is not None:
            said["truth"] = looked_up
        line(json.dumps(said, indent=1))
        return
    for text in lines_of(found):
        line(text)
    if looked_up is not None:
        for text in truth_lines(looked_up):
            line(text)
    line(f"study: {study.path} ({runs.RESULTS}, {COSTS}); page: {page}")


def report(folder: Path, form: str, truth: Path | None = None) -> None:
    """Write the page, and say what the study has come to."""
    study = StudyFolder.open(folder)
    say_outcome(study, form, None if truth is None else truth_of(truth))


def status(folder: Path, form: str) -> None:
    """How far a study has come: again and again in a terminal, once elsewhere."""
    study = StudyFolder.open(folder)
    measure = measure_of(study)
    if form == "json":
        line(json.dumps(_as_json(study, measure), indent=1))
        return
    if not sys.stdout.isatty():
        for text in _lines(study, measure, 10_000):
            line(text)
        return
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(file=sys.stdout)
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                lines = _lines(study, measure, console.height - 1)
                shown = Text("\n".join(lines), no_wrap=True, overflow="crop")
                live.update(shown, refresh=True)
                if not runs.is_locked(study.path):
                    return  # nobody works on it
                time.sleep(SECONDS_BETWEEN_LOOKS)
    except KeyboardInterrupt:
        return  # who watches has seen enough; the study goes on


def _as_json(study: StudyFolder, measure: Measure) -> JsonObject:
    trials = []
    for state in all_states(study, f"test_{measure.key}"):
        trials.append(
            {
                "name": state.name,
                "phase": state.phase,
                "state": state.state,
                "epoch": state.epoch,
                "epochs": state.epochs,
                "seconds_left": state.left,
                "cost": round(state.cost, 2),
                measure.key: state.value,
                "sentence": state.sentence,
            }
        )
    return {
        "study": str(study.path),
        "at_work": runs.is_locked(study.path),
        "trials": trials,
        "best": _best(study),
    }


def _best(study: StudyFolder) -> JsonObject:
    """Method -> the best in a short training so far."""
    best: JsonObject = {}
    for arm in outcome_of(study).arms:
        if arm.chosen is not None:
            best[arm.name] = {"found_by": arm.chosen.found_by, "short": arm.chosen.short}
    return best


def _lines(study: StudyFolder, measure: Measure, height: int) -> list[str]:
    """The table, cut to a height: what is at work or failed before what waits or is done."""
    states = list(all_states(study, f"test_{measure.key}"))
    head = [_title(study, states)]
    for arm in outcome_of(study).arms:
        if arm.chosen is not None and arm.chosen.short is not None:
            head.append(
                f"best of {arm.name} so far: {measure.text(arm.chosen.short)} in a short training "
                f"({arm.chosen.found_by}; {len(arm.candidates)} tried)"
            )
    room = max(FEWEST_LINES, height - len(head) - 3)
    first = ("running", "failed", "stopped", "waiting", "finished")
    ordered = sorted(states, key=lambda own: first.index(own.state))
    shown = {own.name for own in ordered[:room]}
    lines = [*head, "", _row("trial", "state", "epochs", "left", "value")]
    for own in states:
        if own.name not in shown:
            continue
        left = "" if own.left is None else clock(own.left)
        value = "" if own.value is None else measure.text(own.value)
        epochs = f"{own.epoch}/{own.epochs}"
        lines.append(_row(own.name, own.state, epochs, left, value or own.sentence))
    if len(states) > room:
        lines.append(f"... and {len(states) - room} more")
    return lines


def _row(name: str, state: str, epochs: str, left: str, value: str) -> str:
    return f"{name:<34}{state:<10}{epochs:>9}{left:>9}  {value}"[:200].rstrip()


def _title(study: StudyFolder, states: Sequence[TrialState]) -> str:
    parts = []
    for phase in PHASES:
        own = [state for state in states if state.phase == phase]
        if own:
            done = sum(state.is_over for state in own)
            failed = sum(state.state == "failed" for state in own)
            more = f", {failed} failed" if failed else ""
            parts.append(f"{phase} {done}/{len(own)}{more}")
    state = "at work" if runs.is_locked(study.path) else "not at work"
    return f"{study.path} ({state}): {'; '.join(parts) or 'nothing begun'}"
