"""Plots of a run on images: losses and accuracies over epochs, cost against accuracy."""

from __future__ import annotations

from gradnas import runs
from gradnas.latency import QUANTITIES, LatencyTable, Quantity
from gradnas.pictures import plots
from gradnas.pictures.plots import Line, Panel
from gradnas.pictures.sheet import BLUE, GREEN, ORANGE, PALE
from gradnas.reports.folder import Folder
from gradnas.reports.parts import escaped, figure, headed
from gradnas.reports.words import count, in_words_of

LARGE_GAP = 0.1  # between the accuracies of the supernet and of the network derived from it


def search_curves(folder: Folder) -> str:
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


def training_curves(folder: Folder, title: str) -> str:
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


def cost_against_accuracy(folder: Folder) -> str:
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
