"""What a report says of runs on text: perplexities of language models."""

from __future__ import annotations

import math

from gradnas.config import counted
from gradnas.pictures import plots
from gradnas.pictures.plots import Line, Panel
from gradnas.pictures.sheet import BLUE, GREEN, ORANGE, PALE
from gradnas.reports.folder import Folder, RandomCells
from gradnas.reports.parts import escaped, figure, headed, joined
from gradnas.reports.words import (
    NOTHING_YET,
    Summary,
    count,
    quoted,
    so_far,
    subject,
)
from gradnas.tasks.base import Words
from gradnas.tasks.measure import FEWEST_RANDOM
from gradnas.tasks.text.sentences import share_text


class TextWords(Words):
    """Perplexities of language models; less is better."""

    def summary(self, folder: Folder) -> Summary:
        training = folder.training
        perplexity = None if training is None else training.result("test_perplexity")
        if training is None or perplexity is None:
            return _unfinished(folder)
        return _trained(folder, training, perplexity)

    def key_numbers(self, folder: Folder) -> list[tuple[str, str]]:
        training = folder.training
        perplexity = None if training is None else training.result("test_perplexity")
        if training is None or perplexity is None:
            valid = folder.metrics.last("valid_perplexity")
            if valid is None:
                return []
            share = _in_brackets(folder, folder.metrics.last("valid_unknown"))
            return [(f"{valid:.1f}", f"perplexity on the validation text{share}")]
        share = _in_brackets(training, training.result("test_unknown"))
        numbers = [(f"{perplexity:.1f}", f"test perplexity{share}, {subject(folder)}")]
        random = _random_cells(training)
        if random is not None:
            many = len(random.values)
            spread = f" ± {random.std:.1f}" if many > 1 else ""
            numbers.append((f"{random.mean:.1f}{spread}", f"random cells, n = {many}"))
        weights = training.result("num_params")
        if weights is not None:
            numbers.append((f"{weights:,.0f}", "weights"))
        return numbers

    def comparison(self, folder: Folder) -> str:
        training = folder.training
        perplexity = None if training is None else training.result("test_perplexity")
        if training is None or perplexity is None:
            return ""
        random = _random_cells(training)
        if random is None:
            return (
                "<p>No random cells were trained in the same way. They show what the model reaches "
                "with any cell: train with <code>--random-cells 5</code>.</p>"
            )
        plot = plots.comparison(
            "plot-comparison",
            perplexity,
            random.values,
            random.mean,
            random.std,
            subject(folder),
            "test perplexity",
            1.0,
        )
        text = (
            "Less is better. Every cell was trained once, with one seed: with another, each number "
            "would be another one."
        )
        return figure(plot, escaped(text))

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
        if training is None or "test_perplexity" not in training.results:
            return []
        path = quoted(folder.path)
        exported = "the trained model for other programs (or .pt2)"
        return [
            (f"gradnas evaluate {path}", "test perplexity of the trained model"),
            (f"gradnas generate {path} --tokens 100", "text that the model writes"),
            (f"gradnas export {path} -o model.onnx", exported),
        ]


def _random_cells(training: Folder) -> RandomCells | None:
    return training.random_cells("perplexity", "perplexities")


def _in_brackets(folder: Folder, share: float | None) -> str:
    """How much of a text of a run is the sign for unknown words; nothing where it is not told."""
    if share is None:
        return ""
    level = "char" if folder.setting("data", kind=dict).get("level") == "char" else "word"
    return f" ({share_text(share, level)})"


# -- the result ------------------------------------------------------------------------------------


def _trained(folder: Folder, training: Folder, perplexity: float) -> Summary:
    tokens = training.result("num_test_tokens")
    reached = (
        f"The {subject(folder)} reaches a perplexity of {perplexity:.1f} "
        f"on {tokens or 0:,.0f} tokens of the test text"
        f"{_in_brackets(training, training.result('test_unknown'))}"
    )
    random = _random_cells(training)
    if random is None:
        helped = "the search helped" if folder.is_search else "the cell is a good one"
        return Summary(
            f"{reached}. No random cells were trained in the same way, "
            f"so this does not tell whether {helped}."
        )
    reached += (
        f"; {count(len(random.values), 'random cell')} trained in the same way: "
        f"{random.mean:.1f} ± {random.std:.1f} (mean ± standard deviation)"
    )
    if len(random.values) < FEWEST_RANDOM:
        return Summary(f"{reached}, too few to tell whether the search helped.")
    difference = random.mean - perplexity  # a smaller perplexity is better
    if abs(difference) <= random.std:
        return Summary(f"{reached}: no clear difference.")
    verdict = "better" if difference > 0 else "worse"
    if abs(difference) < 2 * random.std:
        hint = "by less than two standard deviations, which is a hint and no proof"
        return Summary(f"{reached}: {verdict}, {hint}.")
    return Summary(f"{reached}: {verdict} than random cells.", "good" if difference > 0 else "bad")


def _unfinished(folder: Folder) -> Summary:
    done = len(folder.metrics.rows)
    if not done:
        return NOTHING_YET
    valid = folder.metrics.last("valid_perplexity")
    if valid is None:
        return Summary(f"The run has stopped after {counted(done, 'epoch')}, before an evaluation.")
    share = _in_brackets(folder, folder.metrics.last("valid_unknown"))
    if not folder.is_search:
        return Summary(
            f"{so_far(folder)} the perplexity on the validation text is {valid:.1f}{share}; "
            "the test text was not read yet."
        )
    return Summary(
        f"{so_far(folder)} the mixture of all cells has a perplexity of {valid:.1f}{share} on the "
        "validation text, which trains the alphas. How good the cell is once it is trained from "
        "scratch is not known yet."
    )


# -- curves ----------------------------------------------------------------------------------------


def _search_curves(folder: Folder) -> str:
    lines = [
        _line(folder, "train_perplexity", "training text", PALE),
        _line(folder, "search_valid_perplexity", "validation text, in the steps", GREEN),
        _line(folder, "valid_perplexity", "validation text, after the epoch", BLUE),
    ]
    text = "Of the mixture. In the steps dropout is on, and the weights are those of the moment."
    return _plot("plot-search", "Search", lines, text)


def _training_curves(training: Folder, title: str) -> str:
    lines = []
    for own in training.random:
        lines.append(_line(own, "valid_perplexity", "random cells, validation", "#b8c2cc"))
    lines.append(_line(training, "train_perplexity", "training text", BLUE))
    lines.append(_line(training, "valid_perplexity", "validation text", ORANGE))
    text = "Training text with dropout; the weights kept are those of the best validation."
    averaged = [row["epoch"] + 1 for row in training.metrics.rows if row.get("averaged") is True]
    if averaged:
        text += (
            f" From epoch {averaged[0]} on averaged SGD: "
            "the validation is that of the mean of the weights."
        )
    return _plot("plot-training", title, lines, text)


def _line(folder: Folder, key: str, label: str, colour: str) -> Line:
    """Logarithms, so that the first epochs do not press the others flat."""
    points = []
    for epoch, perplexity in folder.metrics.series(key):
        points.append((epoch, math.log10(max(perplexity, 1.0))))
    return Line(label, points, colour)


def _plot(name: str, title: str, lines: list[Line], text: str) -> str:
    """The lines that have points."""
    there = [line for line in lines if line.points]
    if not there:
        return ""
    panel = Panel("Perplexity (power of ten)", there)
    plot = plots.curves(name, [panel], f"{title or 'Training'}: perplexity over epochs")
    return headed(title, figure(plot, escaped(text)))
