"""What a search is worth where the truth of its space is known: looked up for a run folder.

Everything that is looked up is kept in the folder, `truth.json`, and not the truth itself: a report
shows it without the file.
"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.architectures.registry import load_architecture
from gradnas.config import JsonObject, from_json, read_object
from gradnas.families import family_of_space, recipes
from gradnas.programs.following import OF_A_TRAINING, training_seconds
from gradnas.reports.truth import read_truth
from gradnas.spaces.base import Space
from gradnas.tasks.base import SearchSettings
from gradnas.truth import Random, Truth

VERSION = 1
SHORT_EPOCHS = 12  # of a short training, as in NAS-Bench-201
NUMBERS = (1, 10, 100)  # of random architectures that are shown in any case
TRIED = 100  # random architectures that must be in a truth
TIMED = 3  # random networks whose steps tell what a short training takes


def truth_within(truth: Truth, space: Any) -> Truth:
    """The part of a truth that is of a space, which is all of the space as far as can be told.

    Raises:
        ValueError: it is the truth of another space, or an architecture of this one is not in it;
            no truth can be of such a space.
    """
    draw = getattr(space, "random_decision", None)
    if draw is None or not hasattr(space, "decision"):
        raise ValueError(
            f"--truth is for the spaces of gradnas, not for a {type(space).__name__}: look up its "
            "results by gradnas.Truth"
        )
    part = truth.of(space)
    generator = torch.Generator().manual_seed(0)
    for _ in range(TRIED):
        architecture = draw(generator)
        if not part.has(architecture, space):
            raise ValueError(
                f"{truth.source} has {len(part):,} architectures of this space, but not all: "
                f"{architecture.to_text()!r:.200} is missing, and the search may find what is not "
                "in it"
            )
    return part


def look_up(
    run: runs.Run, truth: Truth, space: Any, equal_cost: JsonObject | None = None
) -> JsonObject:
    """What the truth says of a search: of its architecture, and of that of every epoch.

    Args:
        equal_cost: of `cost_of_search`, as it was kept earlier; None: it is not known.

    Raises:
        ValueError: an architecture that the truth has not; there is nothing to look up yet.
    """
    family = family_of_space(space)
    records = run.records(runs.METRICS)
    texts = [str(record["genotype"]) for record in records if "genotype" in record]
    found: Architecture
    if (run.path / runs.GENOTYPE).exists():
        found = load_architecture(run.path / runs.GENOTYPE)
    elif texts:
        found = family.architecture.parse(texts[-1])
    else:
        raise ValueError(f"{run.path}: no epoch is finished yet, so there is nothing to look up")
    truth = _within_the_budget(run, truth, found, space)
    epochs = []
    for text in texts:
        own = family.architecture.parse(text)
        # Before the last epoch a search within a budget may stand outside it.
        epochs.append(truth.accuracy(own, space) if truth.has(own, space) else None)
    accuracy = truth.accuracy(found, space)
    numbers = list(NUMBERS)
    if equal_cost is not None:
        numbers.append(int(equal_cost["n"]))
    random = [asdict(truth.best_of_random(n)) for n in sorted(set(numbers))]
    return {
        "version": VERSION,
        "file": truth.source,
        "column": truth.final,
        "architectures": len(truth),
        "best": truth.best,
        "accuracy": accuracy,
        "regret": truth.regret(accuracy),
        "percentile": truth.percentile(accuracy),
        "epochs": epochs,
        "random": random,
        "equal_cost": equal_cost,
    }


def _within_the_budget(run: runs.Run, truth: Truth, found: Architecture, space: Any) -> Truth:
    """The part of the truth that a budget of multiply-adds leaves, where both are there."""
    cost = read_object(run.path / runs.CONFIG).get("cost")
    limit = cost.get("budget_macs") if isinstance(cost, dict) else None
    if limit is None or "multiply_adds" not in truth.columns:
        return truth
    # For images of another size than those of the truth the budget says nothing about its rows.
    if truth.columns["multiply_adds"].min() > float(limit):
        return truth
    part = truth.within("multiply_adds", float(limit))
    return part if part.has(found, space) else truth


def cost_of_search(
    run: runs.Run, config: SearchSettings, data: object, device: torch.device
) -> JsonObject | None:
    """How many random architectures a short training each could be had for, by the clock.

    A short training has the recipe that would follow the search, the search's own size of network
    and its data, and a few epochs; what it takes is told by some of its steps, made here and thrown
    away. None where that cannot be told: another kind of network, several processes.
    """
    space: Any = config.space
    seconds_of_search = 0.0
    for record in run.records(runs.TIMINGS):
        seconds_of_search += float(record.get("seconds", 0.0))
    searched = read_object(run.path / runs.CONFIG)
    generator = torch.Generator().manual_seed(0)
    total = 0.0
    for _ in range(TIMED):
        architecture = space.random_decision(generator)
        try:
            _, training = recipes.training_of(architecture, str(run.path), searched)
            known = {field.name for field in fields(training)}
            changes: dict[str, Any] = {"space": space, "epochs": SHORT_EPOCHS, "auxiliary": False}
            training = replace(training, **{k: v for k, v in changes.items() if k in known})
            training = config.hand_on(training)
            seconds = training_seconds(training, data, device)
        except OF_A_TRAINING:
            return None
        if not seconds:
            return None
        total += seconds
    seconds_of_one = total / TIMED
    return {
        "n": max(1, int(seconds_of_search / seconds_of_one)),
        "search_seconds": seconds_of_search,
        "short_training_seconds": seconds_of_one,
        "short_training_epochs": SHORT_EPOCHS,
    }


def keep(run: runs.Run, record: JsonObject) -> None:
    """Write what was looked up into the folder of the run."""
    runs.write_json(run.path / runs.TRUTH, record)


def kept(run: runs.Run) -> JsonObject | None:
    """What was looked up earlier; None where nothing was."""
    path = run.path / runs.TRUTH
    return read_truth(path) if path.exists() else None


def look_up_again(run: runs.Run, truth: Truth) -> JsonObject:
    """`look_up` from the folder alone, and keep it: of a search by whoever reports on it.

    Raises:
        ValueError: the folder is not of a search, or of another space.
    """
    where = run.path / runs.CONFIG
    config = read_object(where)
    if "genotype" in config:
        raise ValueError(f"{run.path} is a training: --truth is for searches")
    space: Any = from_json(Space, config.get("space"), f"{where}: space")  # type: ignore[type-abstract]
    truth = truth_within(truth, space)
    before = kept(run)
    record = look_up(run, truth, space, None if before is None else before.get("equal_cost"))
    keep(run, record)
    return record


def sentences(record: JsonObject) -> list[str]:
    """What the terminal says of it."""
    worse = record["percentile"]
    lines = [
        f"truth: {record['accuracy']:.2f}%, {record['regret']:.2f} points below the best of "
        f"{record['architectures']:,}; {worse:.1f}% of them are no better"
    ]
    lines.append("  " + "; ".join(random_words(record)))
    return lines


def random_words(record: JsonObject) -> list[str]:
    """The best of n random architectures, one phrase for each n."""
    cost = record.get("equal_cost")
    words = []
    for entry in record["random"]:
        random = Random(**entry)
        what = "one random" if random.n == 1 else f"best of {random.n} random"
        at_cost = " (equal cost)" if cost is not None and cost["n"] == random.n else ""
        words.append(f"{what}{at_cost} {random.mean:.2f} ± {random.sd:.2f}%")
    return words


def truth_of(path: Path | str) -> Truth:
    """Read a file of the truth for an option, `FILE` or `FILE:COLUMN`; errors name the option."""
    file, sign, column = str(path).rpartition(":")
    try:
        if sign and Path(file).suffix and not Path(path).exists():
            return Truth.load(file, final=column)
        return Truth.load(path)
    except ValueError as error:
        raise ValueError(f"--truth: {error}") from error
