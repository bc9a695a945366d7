"""What a report says of runs on images: accuracies of classifiers."""

from __future__ import annotations

import math

from gradnas import runs
from gradnas.config import counted
from gradnas.latency import QUANTITIES, LatencyTable, Quantity
from gradnas.pictures import plots
from gradnas.pictures.plots import Line, Panel
from gradnas.pictures.sheet import BLUE, GREEN, ORANGE, PALE
from gradnas.reports.folder import Folder, RandomCells
from gradnas.reports.parts import bullets, escaped, figure, headed, joined
from gradnas.reports.words import (
    FEWEST_RANDOM,
    NOTHING_YET,
    Summary,
    count,
    done_of,
    in_words_of,
    number_word,
    quoted,
    so_far,
    subject,
)
from gradnas.tasks.base import Words

SMALL_TEST = 5000  # images; with fewer, a second decimal of a percentage means nothing
LARGE_GAP = 0.1  # between the accuracies of the supernet and of the network derived from it


class ImageWords(Words):
    """Accuracies of classifiers."""

    def summary(self, folder: Folder) -> Summary:
        training = folder.training
        if training is not None and training.result("test_accuracy") is not None:
            return _trained(folder, training)
        if not folder.metrics.rows:
            return NOTHING_YET
        return _searching(folder) if folder.is_search else _training(folder)

    def key_numbers(self, folder: Folder) -> list[tuple[str, str]]:
        training = folder.training
        accuracy = None if training is None else training.result("test_accuracy")
        if training is not None and accuracy is not None:
            return _trained_numbers(folder, training, accuracy)
        derived = folder.metrics.last("derived_valid_accuracy")
        if derived is None:
            return []
        numbers = []
        mixture = folder.metrics.last("valid_accuracy")
        if mixture is not None:
            numbers.append((percent(mixture), "supernet, on the alphas’ images"))
        numbers.append((percent(derived), "derived network, with its weights"))
        return numbers

    def comparison(self, folder: Folder) -> str:
        training = folder.training
        accuracy = None if training is None else training.result("test_accuracy")
        if training is None or accuracy is None:
            return ""
        random = _random_cells(training)
        if random is None:
            return in_words_of(
                folder,
                "<p>No random cells were trained in the same way. They show what the network "
                "reaches with any cell: train with <code>--random-cells 5</code>.</p>",
            )
        plot = plots.comparison(
            "plot-comparison",
            accuracy,
            random.values,
            random.mean,
            random.std,
            in_words_of(folder, subject(folder)),
            others=in_words_of(folder, "random cells"),
        )
        notes = comparison_notes(folder, training, random)
        return figure(plot) + bullets(escaped(in_words_of(folder, note)) for note in notes)

    def costs(self, folder: Folder) -> str:
        return _cost_against_accuracy(folder)

    def curves(self, folder: Folder) -> str:
        parts = []
        if folder.is_search:
            parts.append(_search_curves(folder))
        if folder.training is not None:
            title = "Training from scratch" if folder.is_search else ""
            parts.append(_training_curves(folder.training, title))
        return joined(parts)

    def commands(self, folder: Folder) -> list[tuple[str, str]]:
        training = folder.training
        if training is None or "test_accuracy" not in training.results:
            return []
        path = quoted(folder.path)
        exported = "the trained network for other programs (or .pt2, .py)"
        return [
            (f"gradnas evaluate {path}", "test accuracy of the trained network"),
            (f"gradnas export {path} -o model.onnx", exported),
        ]


def percent(share: float, images: float | None = None) -> str:
    """Such as `98.1%`; with as many decimals as a test of so many images supports."""
    return f"{100 * share:.{_decimals(images)}f}%"


def points(difference: float, images: float | None = None) -> str:
    """Such as `+0.5 points`."""
    text = f"{100 * difference:+.{_decimals(images)}f}"
    return f"{text.replace('-', '−')} points"


def _decimals(images: float | None) -> int:
    return 2 if images is not None and images >= SMALL_TEST else 1


def _random_cells(training: Folder) -> RandomCells | None:
    return training.random_cells("accuracy", "accuracies")


# -- the result ------------------------------------------------------------------------------------


def _searching(folder: Folder) -> Summary:
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


def _training(folder: Folder) -> Summary:
    """Of a training without a test, after an epoch at least."""
    done = len(folder.metrics.rows)
    train = folder.metrics.last("train_accuracy")
    if train is None:
        return Summary(f"{done_of(folder)}; the test accuracy is not known yet.")
    return Summary(
        f"After {done} of {counted(folder.epochs, 'epoch')} the network reaches "
        f"{percent(train)} on the images that it is trained on; its test accuracy is not known yet."
    )


def _trained(folder: Folder, training: Folder) -> Summary:
    accuracy = training.result("test_accuracy")
    assert accuracy is not None
    images = training.result("num_test_images")
    name = subject(folder)
    on = "the test images" if images is None else f"{images:,.0f} held-out test images"
    reaches = f"The {name} reaches {percent(accuracy, images)} on {on}"
    random = _random_cells(training)
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


def _trained_numbers(folder: Folder, training: Folder, accuracy: float) -> list[tuple[str, str]]:
    images = training.result("num_test_images")
    numbers = [(percent(accuracy, images), f"test accuracy, {subject(folder)}")]
    random = _random_cells(training)
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


# -- curves ----------------------------------------------------------------------------------------


def _search_curves(folder: Folder) -> str:
    mixture = _line(folder, "valid_accuracy", "supernet", BLUE)
    derived = _line(folder, "derived_valid_accuracy", "derived network, its weights", ORANGE)
    losses = [
        _line(folder, "train_loss", "training", PALE),
        _line(folder, "search_valid_loss", "search-valid", GREEN),
        _line(folder, "valid_loss", "valid, supernet", BLUE),
        _line(folder, "derived_valid_loss", "valid, derived network", ORANGE),
    ]
    accuracies = [
        _line(folder, "train_accuracy", "supernet, in training", PALE),
        mixture,
        derived,
    ]
    fill = None
    if mixture.points and derived.points:
        fill = (mixture, derived, "discretisation gap")
    text = (
        "Training: the images that train the weights. Search-valid: those that train the alphas, "
        "in the middle of the steps; valid: all of them, after the epoch. The derived network has "
        "the supernet’s weights and new batch statistics."
    )
    gap = folder.metrics.last("discretisation_gap")
    if gap is not None:
        so = ", so the supernet’s accuracy tells little about the cell" if gap > LARGE_GAP else ""
        text += (
            " The discretisation gap, by which the supernet is better than the network derived "
            f"from it, is {100 * gap:+.1f} points at the last epoch{so}."
        )
    return _plot_pair("plot-search", losses, accuracies, "Search", text, fill)


def _training_curves(folder: Folder, title: str) -> str:
    losses = _training_lines(folder, "loss")
    accuracies = _training_lines(folder, "accuracy")
    text = (
        "Training images are seen in training mode, augmented as set. "
        "Test images are used at the end alone."
    )
    return _plot_pair("plot-training", losses, accuracies, title, text)


def _training_lines(folder: Folder, key: str) -> list[Line]:
    """Pale lines of the random architectures behind those of the training."""
    label = in_words_of(folder, "random cells, training")
    lines = [_line(own, f"train_{key}", label, "#b8c2cc", 1.0) for own in folder.random]
    lines.append(_line(folder, f"train_{key}", "training images", BLUE))
    lines.append(_line(folder, f"valid_{key}", "held out for validation", ORANGE))
    return lines


def _line(folder: Folder, key: str, label: str, colour: str, width: float = 1.7) -> Line:
    return Line(label, folder.metrics.series(key), colour, width=width)


def _plot_pair(
    name: str,
    losses: list[Line],
    accuracies: list[Line],
    title: str,
    text: str,
    fill: tuple[Line, Line, str] | None = None,
) -> str:
    """Two plots side by side, of the lines that have points."""
    panels = []
    there = [line for line in losses if line.points]
    if there:
        panels.append(Panel("Loss (cross entropy)", there))
    there = [line for line in accuracies if line.points]
    if there:
        panels.append(Panel("Accuracy (%)", there, percent=True, fill=fill))
    if not panels:
        return ""
    label = f"{title or 'Training'}: loss and accuracy over epochs"
    return headed(title, figure(plots.curves(name, panels, label), escaped(text)))


# -- cost ------------------------------------------------------------------------------------------


def _cost_against_accuracy(folder: Folder) -> str:
    """What the derived network of every epoch costs and how accurate it is.

    Of the first cost of the search that was recorded; empty without one.
    """
    accuracies = dict(folder.metrics.series("derived_valid_accuracy"))
    for quantity in QUANTITIES:
        what = quantity.noun
        unit = quantity.large_unit + _for_how_many(folder, quantity)
        by_epoch = []
        costs = dict(folder.metrics.series(f"derived_{quantity.key}"))
        for epoch, cost in sorted(costs.items()):
            if epoch in accuracies:
                by_epoch.append((cost / quantity.large, accuracies[epoch], epoch))
        if not by_epoch:
            continue
        limit = _limit(folder, quantity)
        if limit is not None:
            limit /= quantity.large
        axis = f"{what} of the derived network ({unit})"
        text = (
            "A point for the network derived after each epoch, with the supernet’s weights; "
            f"darker is later. Its {what} after the last epoch: {by_epoch[-1][0]:.4g} {unit}."
        )
        return figure(plots.trade_off("plot-cost", by_epoch, axis, limit), escaped(text))
    return ""


def _for_how_many(folder: Folder, quantity: Quantity) -> str:
    """Behind milliseconds: for how many images they are, where the table of the run says so."""
    if not quantity.needs_table or not (folder.path / runs.LATENCY).exists():
        return ""
    batch = LatencyTable.load(folder.path / runs.LATENCY).batch_size
    if batch is None:
        return ""
    return f" for {count(batch, 'image')}"


def _limit(folder: Folder, quantity: Quantity) -> float | None:
    """The target or budget of the search."""
    cost = folder.config.get("cost")
    if not isinstance(cost, dict):
        return None
    target = cost.get(f"target_{quantity.suffix}")
    limit = cost.get(f"budget_{quantity.suffix}", target)
    is_number = isinstance(limit, (int, float)) and not isinstance(limit, bool)
    return float(limit) if is_number else None
