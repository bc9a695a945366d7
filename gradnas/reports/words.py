"""What a report says in plain words: what came out, how sure that is, and how far a run has
come."""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from gradnas import runs
from gradnas.pictures.canvas import plain
from gradnas.reports.folder import Folder, RandomCells

FEWEST_RANDOM = 3  # random cells; fewer have no spread worth the name
SMALL_TEST = 5000  # images; with fewer, a second decimal of a percentage means nothing
NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

Tone = Literal["good", "open", "bad"]


@dataclass(frozen=True)
class Summary:
    """The result in one sentence, and whether it is clearly good, clearly bad, or neither."""

    sentence: str
    tone: Tone = "open"


def percent(share: float, images: float | None = None) -> str:
    """Such as `98.1%`; with as many decimals as a test of so many images supports."""
    return f"{100 * share:.{2 if images is not None and images >= SMALL_TEST else 1}f}%"


def points(difference: float, images: float | None = None) -> str:
    """Such as `+0.5 points`."""
    text = f"{100 * difference:+.{2 if images is not None and images >= SMALL_TEST else 1}f}"
    return f"{text.replace('-', '−')} points"


def count(number: int, noun: str) -> str:
    """Such as `five random cells`."""
    words = NUMBERS[number] if number < len(NUMBERS) else str(number)
    return f"{words} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Such as `12.3 s`, `5 min`, `2.1 h`."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def in_words_of(folder: Folder, text: str) -> str:
    """The sentence with chains for cells, where the run is on chains."""
    return (
        re.sub(r"(?<![-\w])(c|C)ell(s?)\b", _chain_for_cell, text)
        if folder.chain_space is not None
        else text
    )


def _chain_for_cell(found: re.Match[str]) -> str:
    return f"{'C' if found[1] == 'C' else 'c'}hain{found[2]}"


def subject(folder: Folder) -> str:
    """What the trained cell may be called: `searched cell` only where this search ended with it."""
    training = folder.training
    if not folder.is_search or training is None:
        return "cell"
    return "searched cell" if training.genotype == folder.genotype else "trained cell"


# -- the result ------------------------------------------------------------------------------------


def summary(folder: Folder) -> Summary:
    """The result of a run in one sentence."""
    training = folder.training
    if training is not None and training.result("test_accuracy") is not None:
        return _trained(folder, training)
    if not folder.metrics.rows:
        return Summary("No epoch is finished yet, so there are no results to show.")
    mixture, derived = (
        folder.metrics.last(key) for key in ("valid_accuracy", "derived_valid_accuracy")
    )
    done = len(folder.metrics.rows)
    if not folder.is_search:
        train = folder.metrics.last("train_accuracy")
        if train is None:
            return Summary(
                f"{done} of {folder.epochs} epochs are done; the test accuracy is not known yet."
            )
        reached = f" the network reaches {percent(train)} on the images that it is trained on;"
        return Summary(
            f"After {done} of {folder.epochs} epochs{reached} its test accuracy is not known yet."
        )
    after = (
        "The search is finished:"
        if folder.state == "finished"
        else f"After {done} of {folder.epochs} epochs,"
    )
    if derived is None:
        steps = folder.metrics.last("steps")
        made = "" if steps is None else f" after {steps:.0f} steps"
        return Summary(
            f"The search has stopped{made}, before an evaluation: how good its cell is was not looked at."
        )
    reaches = f"the network derived from it, with its weights, {percent(derived)}"
    if mixture is None:
        reaches = (
            f"the network derived from the supernet, with its weights, reaches {percent(derived)}"
        )
    else:
        reaches = f"the supernet reaches {percent(mixture)} and {reaches}"
    return Summary(
        f"{after} on the images that train the alphas, but not the weights, {reaches}. How good the cell is once it is "
        "trained from scratch is not known yet."
    )


def _trained(folder: Folder, training: Folder) -> Summary:
    accuracy, images = training.result("test_accuracy"), training.result("num_test_images")
    assert accuracy is not None
    name, random = subject(folder), training.random_cells
    on = "the test images" if images is None else f"{images:,.0f} held-out test images"
    reaches = f"The {name} reaches {percent(accuracy, images)} on {on}"
    if random is None:
        return Summary(
            f"{reaches} after {training.epochs} epochs of training. No random cells were trained in the same way, so "
            f"this does not tell whether {'the search helped' if folder.is_search else 'the cell is a good one'}."
        )
    return compared(reaches, accuracy, random, images, searched=name == "searched cell")


def compared(
    reaches: str,
    accuracy: float,
    random: RandomCells,
    images: float | None = None,
    *,
    searched: bool,
) -> Summary:
    """The verdict on a cell beside random ones: a difference counts when it is larger than one
    standard deviation of theirs and than one test image. `reaches` begins the sentence."""
    number = len(random.accuracies)
    others = f"{reaches}; {count(number, 'random cell')} trained in the same way {'reaches' if number == 1 else 'reach'}"
    if number < FEWEST_RANDOM:
        values = " and ".join(percent(value, images) for value in random.accuracies)
        question = (
            "whether the search helped"
            if searched
            else "whether the cell is better than random ones"
        )
        return Summary(
            f"{others} {values}: {'one is' if number == 1 else 'two are'} too few to tell {question}."
        )
    others += f" {percent(random.mean, images)} ± {percent(random.std, images)} (mean ± standard deviation, n = {number})"
    difference = accuracy - random.mean
    one_image = 1 / images if images else 0.0
    if abs(difference) <= max(random.std, one_image) + 1e-12:
        same = (
            "the search made no clear difference"
            if searched
            else "the cell is not clearly different from random ones"
        )
        return Summary(f"{others}: {same}.")
    better, worse = ("the search helped", "the search did worse") if searched else (
        "the cell is better than random ones", "the cell is worse than random ones")  # fmt: skip
    outcome = better if difference > 0 else worse
    if abs(difference) < 2 * random.std:
        hint = "though by less than two standard deviations, which is a hint and no proof"
        return Summary(f"{others}: {outcome}, {hint}.")
    return Summary(f"{others}: {outcome}.", "good" if difference > 0 else "bad")


def comparison_notes(folder: Folder, training: Folder, random: RandomCells) -> list[str]:
    """Sentences that say how much the comparison of a trained cell with random ones is worth."""
    accuracy, images = training.result("test_accuracy"), training.result("num_test_images")
    assert accuracy is not None
    number, difference = len(random.accuracies), accuracy - random.mean
    other = "it" if number == 1 else "their mean"
    first = f"The {subject(folder)} is {_rank(accuracy, random)}, and differs from {other} by {points(difference, images)}"
    if number >= FEWEST_RANDOM:
        first += (
            f", {abs(difference) / random.std:.1f} standard deviations" if random.std > 0 else ""
        )
        first += ". A difference counts when it is larger than one standard deviation of them and than one test image"
    notes = [f"{first}."]
    if images:
        error = math.sqrt(max(random.mean * (1 - random.mean), 0.0) / images)
        notes.append(
            f"One test image is {100 / images:.2g} points; the choice of these {images:,.0f} images alone makes an "
            f"accuracy near {percent(random.mean, images)} uncertain by about ±{100 * error:.2g} points."
        )
    notes.append(
        "Every cell was trained once, with one seed: with another, each of these numbers would be another one."
    )
    weights = training.result("num_params")
    others = [value for own in training.random if (value := own.result("num_params")) is not None]
    if weights is not None and others:
        spread = f"of the random cells {min(others):,.0f} to {max(others):,.0f}"
        if len(others) == 1:
            spread = f"of the random cell {others[0]:,.0f}"
        larger = difference > 0 and weights > max(others)
        also = "; being the largest may be a part of why it is better" if larger else ""
        notes.append(f"Its network has {weights:,.0f} weights, those {spread}{also}.")
    return notes


def _rank(accuracy: float, random: RandomCells) -> str:
    number, beaten = len(random.accuracies), sum(accuracy > value for value in random.accuracies)
    if number == 1:
        return "better than the random cell" if beaten else "not better than the random cell"
    many = "none" if not beaten else NUMBERS[beaten] if beaten < len(NUMBERS) else str(beaten)
    return f"better than {many} of the {count(number, 'random cell')}"


# -- how far a run has come ------------------------------------------------------------------------


def notices(folder: Folder) -> list[str]:
    """What a reader must know before anything else: a run that is not finished or has failed, a
    collapsing search."""
    found = []
    for own in (folder, folder.child):
        if own is not None and own.state != "finished":
            found.append(_unfinished(own, "run" if own is folder else "training in train/"))
    if folder.child is not None and subject(folder) == "trained cell":
        found.append("The cell that was trained is not the one that this search ended with.")
    if (warning := collapse(folder)) is not None:
        found.append(f"{warning} See below, under the mixing weights.")
    return found


def _unfinished(folder: Folder, what: str) -> str:
    done = len(folder.metrics.rows)
    far = f"{done} of {folder.epochs} epochs are done"
    if folder.random and done >= folder.epochs:
        trained = sum(own.state == "finished" for own in folder.random)
        wanted = folder.setting("random_cells", kind=int)
        far = f"all {done} epochs are done, and {trained} of {count(wanted, 'random cell')} trained"
    message = plain(folder.status.get("message", "")).strip()
    happened = {
        "failed": f"has failed{f' ({message})' if message else ''}",
        "interrupted": "was interrupted and saved",
        "running": "is not finished: it is still at work, or it was killed",
    }.get(folder.state, "is not finished")
    return f"The {what} {happened}; {far}."


def collapse(folder: Folder) -> str | None:
    """A warning if at least half of the normal cell's operations are skip connections."""
    skips = folder.metrics.last("skip_connections")
    if (
        not folder.is_search
        or skips is None
        or folder.chain_space is not None
        or skips < folder.nodes
    ):
        return None
    return (
        f"{skips:.0f} of the {2 * folder.nodes} operations of the normal cell are skip connections: the search may "
        "have collapsed."
    )


COLLAPSE_ADVICE = (
    "Long and first-order searches are known to end so: skip connections win while the weights of the other operations "
    "are still poor, not because they make the better network. Prefer the genotype of an earlier epoch (metrics.jsonl "
    "has them all), search for fewer epochs, or use a second-order gradient."
)


def key_numbers(folder: Folder) -> list[tuple[str, str]]:
    """The numbers that a reader looks for first, each with what it is."""
    found: list[tuple[str, str]] = []
    training = folder.training
    if training is not None and (accuracy := training.result("test_accuracy")) is not None:
        images, random = training.result("num_test_images"), training.random_cells
        found.append((percent(accuracy, images), f"test accuracy, {subject(folder)}"))
        if random is not None:
            spread = f" ± {percent(random.std, images)}" if len(random.accuracies) > 1 else ""
            found.append(
                (
                    percent(random.mean, images) + spread,
                    f"random cells, n = {len(random.accuracies)}",
                )
            )
        if (weights := training.result("num_params")) is not None:
            found.append((f"{weights:,.0f}", "weights"))
    elif (derived := folder.metrics.last("derived_valid_accuracy")) is not None:
        if (mixture := folder.metrics.last("valid_accuracy")) is not None:
            found.append((percent(mixture), "supernet, on the alphas’ images"))
        found.append((percent(derived), "derived network, with its weights"))
    for own in (folder, folder.child):
        if own is not None and own.timings.rows:
            seconds = sum(value for _, value in own.timings.series("seconds"))
            found.append((duration(seconds), "of searching" if own.is_search else "of training"))
    return found


def commands(folder: Folder) -> list[tuple[str, str]]:
    """What can be done with the run next: command and purpose, with the folder's path as it was
    given."""
    path, training = _quoted(folder.path), folder.training
    found: list[tuple[str, str]] = []
    for own in (folder, folder.child):
        if own is not None and own.state != "finished":
            what = "search" if own.is_search else "training"
            found.append(
                (
                    f"gradnas resume {_quoted(own.path)}",
                    f"go on with the {what} from its last checkpoint",
                )
            )
    has_genotype = (folder.path / runs.GENOTYPE).exists()
    if folder.is_search and folder.child is None and has_genotype:
        found.append(
            (
                f"gradnas train {path} --random-cells 5",
                "train the cell from scratch, and five random ones too",
            )
        )
    if training is not None and "test_perplexity" in training.results:
        found.append((f"gradnas evaluate {path}", "test perplexity of the trained model"))
        found.append((f"gradnas generate {path} --tokens 100", "text that the model writes"))
        found.append(
            (
                f"gradnas export {path} -o model.onnx",
                "the trained model for other programs (or .pt2)",
            )
        )
    if training is not None and "test_accuracy" in training.results:
        found.append((f"gradnas evaluate {path}", "test accuracy of the trained network"))
        found.append(
            (
                f"gradnas export {path} -o model.onnx",
                "the trained network for other programs (or .pt2, .py)",
            )
        )
    if has_genotype:
        found.append(
            (f"gradnas draw {path} -o cells.pdf", "the cells as a picture (or .svg, .png)")
        )
    again = "search" if folder.is_search else "train"
    found.append(
        (
            f"gradnas {again} {_quoted(folder.path / runs.CONFIG)}",
            "run the same again in a new folder",
        )
    )
    return found


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
