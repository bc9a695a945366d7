"""What a search is worth by the truth of its space, as its report shows it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradnas import runs
from gradnas.config import JsonObject, check_numbers, from_json, read_object
from gradnas.pictures import plots
from gradnas.pictures.plots import Line, Panel
from gradnas.pictures.sheet import BLUE
from gradnas.reports.folder import Folder, number
from gradnas.reports.parts import escaped, figure, row
from gradnas.truth import Random

CAPTION = (
    "Looked up in {file}, which says what each of {count} architectures reaches when it is trained "
    "({column}). Percentile: how many of them are no better. Random ones are drawn uniformly, and "
    "the best of them is told by {by}; mean and standard deviation of what that one reaches are "
    "exact."
)
EQUAL_COST = (
    "Equal cost: a training of {epochs} epochs of a random network of the size of the search takes "
    "{one:.3g} s here, by some of its steps, and the search took {search:.3g} s."
)


@dataclass(frozen=True)
class EqualCost:
    """How many random architectures a short training each could be had for.

    Attributes:
        n: of them.
        search_seconds, short_training_seconds: of the search, and of one short training.
    """

    n: int
    search_seconds: float
    short_training_seconds: float
    short_training_epochs: int

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True)
class LookedUp:
    """What `truth.json` says of a search; accuracies in percent.

    Attributes:
        file, column: where its architectures were looked up.
        architectures: of the file.
        best: of all.
        accuracy, regret, percentile: of what was found.
        epochs: accuracy of what the search would have answered after each; None for none of these.
    """

    version: int
    file: str
    column: str
    architectures: int
    best: float
    accuracy: float
    regret: float
    percentile: float
    epochs: tuple[float | None, ...]
    random: tuple[Random, ...]
    equal_cost: EqualCost | None


def read_truth(path: Path) -> JsonObject:
    """What was looked up, from its file. ValueError where that is damaged."""
    record = read_object(path)
    try:
        from_json(LookedUp, record, path.name)  # everything that is read of it has its type
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return record


def truth_section(folder: Folder) -> str:
    """HTML; empty where nothing was looked up.

    Raises:
        ValueError: the file in the folder is damaged.
    """
    path = folder.path / runs.TRUTH
    if not path.exists():
        return ""
    return _section(read_truth(path), str(path))


def _section(record: JsonObject, where: str) -> str:
    def value(key: str) -> float:
        return number(record[key], f"{where}: {key}")

    rows = [
        row(("accuracy of what was found", f"{value('accuracy'):.2f}%")),
        row(("below the best of all (regret)", f"{value('regret'):.2f} points")),
        row(("percentile", f"{value('percentile'):.1f}%")),
    ]
    cost = record["equal_cost"]
    by = ""
    for entry in record["random"]:
        n = int(entry["n"])
        mean = number(entry["mean"], f"{where}: random")
        sd = number(entry["sd"], f"{where}: random")
        by = str(entry["by"])
        what = "one random architecture" if n == 1 else f"best of {n} random ones"
        if cost is not None and int(cost["n"]) == n:
            what += ", at equal cost"
        rows.append(row((escaped(what), f"{mean:.2f} ± {sd:.2f}%")))
    text = CAPTION.format(
        file=record["file"], count=f"{value('architectures'):,.0f}", column=record["column"], by=by
    )
    if cost is not None:
        text += " " + EQUAL_COST.format(
            epochs=cost["short_training_epochs"],
            one=number(cost["short_training_seconds"], f"{where}: equal_cost"),
            search=number(cost["search_seconds"], f"{where}: equal_cost"),
        )
    parts = [f"<table>{''.join(rows)}</table>", f'<p class="caption">{escaped(text)}</p>']
    curve = _curve(record, where)
    if curve is not None:
        parts.insert(1, curve)
    return "\n".join(parts)


def _curve(record: JsonObject, where: str) -> str | None:
    """What the search would have answered after every epoch; None without an epoch."""
    points: list[tuple[int, float]] = []
    for epoch, accuracy in enumerate(record["epochs"], 1):
        if accuracy is not None:
            points.append((epoch, number(accuracy, f"{where}: epochs")))
    if not points:
        return None
    best = number(record["best"], f"{where}: best")
    levels: list[tuple[float, str]] = [(best, "best of all")]
    one: list[Any] = [entry for entry in record["random"] if entry["n"] == 10]
    for entry in one:
        levels.append((number(entry["mean"], f"{where}: random"), "best of 10 random"))
    panel = Panel(
        "Accuracy of the derived architecture, trained (%)",
        [Line("after each epoch", points, BLUE)],
        levels=levels,
    )
    plot = plots.curves("plot-truth", [panel], "true accuracy of what is derived, over epochs")
    caption = "A collapse shows as a fall: the search goes on, and what it would answer is worse."
    return figure(plot, caption)
