"""What a study is worth where the truth of its space is known: every architecture looked up.

As of a single search, what is looked up is kept in the folder, `truth.json`, and not the truth.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict
from typing import Any

from gradnas import runs
from gradnas.config import JsonObject, from_json, read_object
from gradnas.programs.truths import VERSION, truth_within
from gradnas.reports.parts import escaped, row
from gradnas.spaces.base import Space
from gradnas.study.folder import StudyFolder
from gradnas.study.outcome import Arm, Outcome, outcome_of
from gradnas.study.plan import RANDOM
from gradnas.truth import Truth

HEADINGS = (
    "method",
    "n",
    "true accuracy, mean ± sd",
    "percentile, mean",
    "chosen",
    "its percentile",
)
CAPTION = (
    "Looked up in {file}, which says what each of {count} architectures reaches when it is trained "
    "({column}), the best of them {best:.2f}%. n: architectures that were found or drawn; chosen: "
    "the best of them by the short trainings. Percentile: how many of all are no better."
)


def look_up_study(study: StudyFolder, truth: Truth) -> JsonObject:
    """Look up all architectures of a study, and keep what was found in its folder.

    Raises:
        ValueError: the truth is of another space.
    """
    outcome = outcome_of(study)
    space = _space_of(study)
    truth = truth_within(truth, space)
    arms = [_arm(arm, truth, space) for arm in outcome.arms if arm.candidates]
    numbers = {len(arm.candidates) for arm in outcome.arms if arm.name.startswith(RANDOM)}
    random = [asdict(truth.best_of_random(n)) for n in sorted(numbers - {0})]
    record: JsonObject = {
        "version": VERSION,
        "file": truth.source,
        "column": truth.final,
        "architectures": len(truth),
        "best": truth.best,
        "arms": arms,
        "random": random,
    }
    runs.write_json(study.path / runs.TRUTH, record)
    return record


def _space_of(study: StudyFolder) -> Any:
    config = next(iter(study.settings.methods.values()))
    where = f"{study.path}: space"
    return from_json(Space, config.get("space"), where)  # type: ignore[type-abstract]


def _arm(arm: Arm, truth: Truth, space: Any) -> JsonObject:
    accuracies = [truth.accuracy(own.architecture, space) for own in arm.candidates]
    chosen = None
    if arm.chosen is not None:
        chosen = truth.accuracy(arm.chosen.architecture, space)
    return {
        "name": arm.name,
        "accuracies": accuracies,
        "percentile": statistics.mean(truth.percentile(value) for value in accuracies),
        "chosen": chosen,
        "chosen_percentile": None if chosen is None else truth.percentile(chosen),
    }


# ---- what is shown -------------------------------------------------------------------------------


def _rows(record: JsonObject) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for arm in record["arms"]:
        values = arm["accuracies"]
        sd = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        chosen = arm["chosen"]
        rows.append(
            (
                str(arm["name"]),
                str(len(values)),
                f"{statistics.mean(values):.2f}{sd}%",
                f"{arm['percentile']:.1f}%",
                "" if chosen is None else f"{chosen:.2f}%",
                "" if chosen is None else f"{arm['chosen_percentile']:.1f}%",
            )
        )
    for entry in record["random"]:
        exact = f"{entry['mean']:.2f} ± {entry['sd']:.2f}%"
        rows.append((f"best of {entry['n']} random, exact", "", "", "", exact, ""))
    return rows


def truth_lines(record: JsonObject) -> list[str]:
    """What the terminal says of it."""
    lines = [f"truth (best of {record['architectures']:,}: {record['best']:.2f}%):"]
    for name, n, mean, percentile, chosen, own in _rows(record):
        found = f"{n} found {mean}, {percentile} of all no better" if n else ""
        best = ""
        if chosen:
            best = f"chosen {chosen}" + (f", {own} no better" if own else "")
        lines.append(f"  {name}: {'; '.join(part for part in (found, best) if part)}")
    return lines


def truth_table(study: StudyFolder, outcome: Outcome) -> str:
    """HTML of the page; empty where nothing was looked up.

    Raises:
        ValueError: the file in the folder is damaged.
    """
    del outcome
    path = study.path / runs.TRUTH
    if not path.exists():
        return ""
    record = read_object(path)
    try:
        rows = [row([escaped(cell) for cell in HEADINGS], tag="th")]
        rows += [row([escaped(cell) for cell in cells]) for cells in _rows(record)]
        caption = CAPTION.format(
            file=record["file"],
            count=f"{record['architectures']:,}",
            column=record["column"],
            best=record["best"],
        )
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {error}") from error
    table = f'<table class="wide">{"".join(rows)}</table>'
    return f'{table}\n<p class="caption">{escaped(caption)}</p>'
