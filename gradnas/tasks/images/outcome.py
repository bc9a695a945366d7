"""What came of a run on images, in sentences: accuracies beside those of random cells."""

from __future__ import annotations

import math

from gradnas.config import counted
from gradnas.reports.folder import Folder, RandomCells
from gradnas.reports.words import (
    Summary,
    count,
    done_of,
    number_word,
    so_far,
    subject,
)
from gradnas.tasks.measure import FEWEST_RANDOM

SMALL_TEST = 5000  # images; with fewer, a second decimal of a percentage means nothing


def percent(share: float, images: float | None = None) -> str:
    """Such as `98.1%`; with as many decimals as a test of so many images supports."""
    return f"{100 * share:.{_decimals(images)}f}%"


def points(difference: float, images: float | None = None) -> str:
    """Such as `+0.5 points`."""
    text = f"{100 * difference:+.{_decimals(images)}f}"
    return f"{text.replace('-', '−')} points"


def _decimals(images: float | None) -> int:
    return 2 if images is not None and images >= SMALL_TEST else 1


def random_cells(training: Folder) -> RandomCells | None:
    return training.random_cells("accuracy", "accuracies")


def searching(folder: Folder) -> Summary:
    """Of a search that was not trained, after an epoch at least."""
    mixture = folder.metrics.last("valid_accuracy")
    derived = folder.metrics.last("derived_valid_accuracy")
    if derived is None:
        steps = folder.metrics.last("steps")
        made = "" if steps is None else f" after {steps:.0f} steps"
        return Summary(
            f"The search has stopped{made}, before an evaluation: how good its cell is was not "
            "looked at."
        )
    if mixture is None:
        reaches = (
            f"the network derived from the supernet, with its weights, reaches {percent(derived)}"
        )
    else:
        reaches = (
            f"the supernet reaches {percent(mixture)} and the network derived from it, "
            f"with its weights, {percent(derived)}"
        )
    return Summary(
        f"{so_far(folder)} on the images that train the alphas, but not the weights, {reaches}. "
        "How good the cell is once it is trained from scratch is not known yet."
    )


def training_summary(folder: Folder) -> Summary:
    """Of a training without a test, after an epoch at least."""
    done = len(folder.metrics.rows)
    train = folder.metrics.last("train_accuracy")
    if train is None:
        return Summary(f"{done_of(folder)}; the test accuracy is not known yet.")
    return Summary(
        f"After {done} of {counted(folder.epochs, 'epoch')} the network reaches "
        f"{percent(train)} on the images that it is trained on; its test accuracy is not known yet."
    )


def trained(folder: Folder, training: Folder) -> Summary:
    accuracy = training.result("test_accuracy")
    assert accuracy is not None
    images = training.result("num_test_images")
    name = subject(folder)
    on = "the test images" if images is None else f"{images:,.0f} held-out test images"
    reaches = f"The {name} reaches {percent(accuracy, images)} on {on}"
    random = random_cells(training)
    if random is None:
        helped = "the search helped" if folder.is_search else "the cell is a good one"
        return Summary(
            f"{reaches} after {counted(training.epochs, 'epoch')} of training. No random cells "
            f"were trained in the same way, so this does not tell whether {helped}."
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
    """The verdict on a cell beside random ones. `reaches` begins the sentence.

    A difference counts when it is larger than one standard deviation of theirs and than one test
    image.
    """
    number = len(random.values)
    reach = "reaches" if number == 1 else "reach"
    others = f"{reaches}; {count(number, 'random cell')} trained in the same way {reach}"
    if number < FEWEST_RANDOM:
        values = " and ".join(percent(value, images) for value in random.values)
        few = "one is" if number == 1 else "two are"
        question = "whether the cell is better than random ones"
        if searched:
            question = "whether the search helped"
        return Summary(f"{others} {values}: {few} too few to tell {question}.")

    others += (
        f" {percent(random.mean, images)} ± {percent(random.std, images)} "
        f"(mean ± standard deviation, n = {number})"
    )
    difference = accuracy - random.mean
    one_image = 1 / images if images else 0.0
    # Sums of a few shares are not exact: a difference of just one image is none.
    if abs(difference) <= max(random.std, one_image) + 1e-12:
        same = "the cell is not clearly different from random ones"
        if searched:
            same = "the search made no clear difference"
        return Summary(f"{others}: {same}.")

    if searched:
        outcome = "the search helped" if difference > 0 else "the search did worse"
    else:
        side = "better" if difference > 0 else "worse"
        outcome = f"the cell is {side} than random ones"
    if abs(difference) < 2 * random.std:
        hint = "though by less than two standard deviations, which is a hint and no proof"
        return Summary(f"{others}: {outcome}, {hint}.")
    return Summary(f"{others}: {outcome}.", "good" if difference > 0 else "bad")


def trained_numbers(folder: Folder, training: Folder, accuracy: float) -> list[tuple[str, str]]:
    images = training.result("num_test_images")
    numbers = [(percent(accuracy, images), f"test accuracy, {subject(folder)}")]
    random = random_cells(training)
    if random is not None:
        many = len(random.values)
        spread = f" ± {percent(random.std, images)}" if many > 1 else ""
        numbers.append((percent(random.mean, images) + spread, f"random cells, n = {many}"))
    weights = training.result("num_params")
    if weights is not None:
        numbers.append((f"{weights:,.0f}", "weights"))
    return numbers


def comparison_notes(folder: Folder, training: Folder, random: RandomCells) -> list[str]:
    """Sentences that say how much the comparison of a trained cell with random ones is worth."""
    accuracy = training.result("test_accuracy")
    assert accuracy is not None
    images = training.result("num_test_images")
    number = len(random.values)
    difference = accuracy - random.mean
    other = "it" if number == 1 else "their mean"
    first = (
        f"The {subject(folder)} is {_rank(accuracy, random)}, and differs from {other} "
        f"by {points(difference, images)}"
    )
    if number >= FEWEST_RANDOM:
        if random.std > 0:
            first += f", {abs(difference) / random.std:.1f} standard deviations"
        first += (
            ". A difference counts when it is larger than one standard deviation of them "
            "and than one test image"
        )
    notes = [f"{first}."]
    if images:
        # The standard error of a share that was counted over so many images (binomial)
        variance = max(random.mean * (1 - random.mean), 0.0) / images
        notes.append(
            f"One test image is {100 / images:.2g} points; the choice of these {images:,.0f} "
            f"images alone makes an accuracy near {percent(random.mean, images)} uncertain by "
            f"about ±{100 * math.sqrt(variance):.2g} points."
        )
    notes.append(
        "Every cell was trained once, with one seed: with another, each of these numbers would be "
        "another one."
    )
    sizes = _note_of_sizes(training, better=difference > 0)
    if sizes is not None:
        notes.append(sizes)
    return notes


def _note_of_sizes(training: Folder, *, better: bool) -> str | None:
    """The numbers of weights: a larger network may be better for that alone."""
    weights = training.result("num_params")
    others = []
    for own in training.random:
        value = own.result("num_params")
        if value is not None:
            others.append(value)
    if weights is None or not others:
        return None
    spread = f"of the random cells {min(others):,.0f} to {max(others):,.0f}"
    if len(others) == 1:
        spread = f"of the random cell {others[0]:,.0f}"
    also = ""
    if better and weights > max(others):
        also = "; being the largest may be a part of why it is better"
    return f"Its network has {weights:,.0f} weights, those {spread}{also}."


def _rank(accuracy: float, random: RandomCells) -> str:
    number = len(random.values)
    beaten = sum(accuracy > value for value in random.values)
    if number == 1:
        return "better than the random cell" if beaten else "not better than the random cell"
    many = number_word(beaten) if beaten else "none"
    return f"better than {many} of the {count(number, 'random cell')}"
