"""The parts of a report that are of language models: perplexities instead of accuracies, states
instead of maps.

Legend: N tables (one more than finished epochs), E edges, O operations.
"""

from __future__ import annotations

import html
import math

import torch

from gradnas.architectures.genotype import Genotype
from gradnas.pictures import plots
from gradnas.pictures.plots import (
    Line,
    Panel,
)
from gradnas.reports.folder import Folder
from gradnas.reports.words import (
    FEWEST_RANDOM,
    Summary,
    count,
    duration,
    subject,
)


def text_edges(nodes: int) -> list[tuple[int, int]]:
    """(predecessor, node) for every row of the table of alphas; nodes count from 1, and 0 is the
    first state."""
    return [(predecessor, node) for node in range(1, nodes + 1) for predecessor in range(node)]


def text_summary(folder: Folder) -> Summary:
    """The result of a run on text in one sentence."""
    training = folder.training
    found = None if training is None else training.result("test_perplexity")
    if training is None or found is None:
        return _unfinished(folder)
    tokens = training.result("num_test_tokens")
    name, random = subject(folder), training.random_cells
    reached = f"The {name} reaches a perplexity of {found:.1f} on {tokens or 0:,.0f} tokens of the test text"
    if random is None:
        helped = "the search helped" if folder.is_search else "the cell is a good one"
        return Summary(
            f"{reached}. No random cells were trained in the same way, so this does not tell whether {helped}."
        )
    others = count(len(random.accuracies), "random cell")
    reached += f"; {others} trained in the same way: {random.mean:.1f} ± {random.std:.1f} (mean ± standard deviation)"
    if len(random.accuracies) < FEWEST_RANDOM:
        return Summary(f"{reached}, too few to tell whether the search helped.")
    difference = random.mean - found  # a smaller perplexity is better
    if abs(difference) <= random.std:
        return Summary(f"{reached}: no clear difference.")
    verdict = "better" if difference > 0 else "worse"
    if abs(difference) < 2 * random.std:
        return Summary(
            f"{reached}: {verdict}, by less than two standard deviations, which is a hint and no proof."
        )
    return Summary(f"{reached}: {verdict} than random cells.", "good" if difference > 0 else "bad")


def _unfinished(folder: Folder) -> Summary:
    done, valid = len(folder.metrics.rows), folder.metrics.last("valid_perplexity")
    if not done:
        return Summary("No epoch is finished yet, so there are no results to show.")
    after = (
        "The search is finished:"
        if folder.state == "finished"
        else f"After {done} of {folder.epochs} epochs,"
    )
    if valid is None:
        return Summary(f"The run has stopped after {done} epochs, before an evaluation.")
    if not folder.is_search:
        return Summary(
            f"{after} the perplexity on the validation text is {valid:.1f}; the test text was not read yet."
        )
    return Summary(
        f"{after} the mixture of all cells has a perplexity of {valid:.1f} on the validation text, which trains the "
        "alphas. How good the cell is once it is trained from scratch is not known yet."
    )


def text_numbers(folder: Folder) -> list[tuple[str, str]]:
    """The numbers that a reader looks for first, each with what it is."""
    found, training = [], folder.training
    if training is not None and (test := training.result("test_perplexity")) is not None:
        found.append((f"{test:.1f}", f"test perplexity, {subject(folder)}"))
        if (random := training.random_cells) is not None:
            spread = f" ± {random.std:.1f}" if len(random.accuracies) > 1 else ""
            found.append(
                (f"{random.mean:.1f}{spread}", f"random cells, n = {len(random.accuracies)}")
            )
        if (weights := training.result("num_params")) is not None:
            found.append((f"{weights:,.0f}", "weights"))
    elif (valid := folder.metrics.last("valid_perplexity")) is not None:
        found.append((f"{valid:.1f}", "perplexity on the validation text"))
    for own in (folder, folder.child):
        if own is not None and own.timings.rows:
            seconds = sum(value for _, value in own.timings.series("seconds"))
            found.append((duration(seconds), "of searching" if own.is_search else "of training"))
    return found


def text_comparison(folder: Folder) -> str:
    """The cell beside random ones; empty without them."""
    training = folder.training
    found = None if training is None else training.result("test_perplexity")
    if training is None or found is None:
        return ""
    random = training.random_cells
    if random is None:
        return (
            "<p>No random cells were trained in the same way. They show what the model reaches with any cell: train "
            "with <code>--random-cells 5</code>.</p>"
        )
    plot = plots.comparison(
        "plot-comparison",
        found,
        random.accuracies,
        random.mean,
        random.std,
        subject(folder),
        "test perplexity",
        1.0,
    )
    text = "Less is better. Every cell was trained once, with one seed: with another, each number would be another one."
    return _figure(plot, text)


def text_curves(folder: Folder) -> str:
    """Perplexities over the epochs, of the search and of the training."""
    parts = []
    if folder.is_search:
        lines = [
            _line(folder, "train_perplexity", "training text", plots.PALE),
            _line(folder, "search_valid_perplexity", "validation text, in the steps", plots.GREEN),
            _line(folder, "valid_perplexity", "validation text, after the epoch", plots.BLUE),
        ]
        text = (
            "Of the mixture. In the steps dropout is on, and the weights are those of the moment."
        )
        parts.append(_perplexities("plot-search", "Search", lines, text))
    training = folder.training
    if training is not None:
        lines = [
            _line(own, "valid_perplexity", "random cells, validation", "#b8c2cc")
            for own in training.random
        ]
        lines.append(_line(training, "train_perplexity", "training text", plots.BLUE))
        lines.append(_line(training, "valid_perplexity", "validation text", plots.ORANGE))
        switched = next(
            (row["epoch"] + 1 for row in training.metrics.rows if row.get("averaged") is True), None
        )
        text = "Training text with dropout; the weights kept are those of the best validation."
        if switched is not None:
            text += f" From epoch {switched} on averaged SGD: the validation is that of the mean of the weights."
        parts.append(
            _perplexities(
                "plot-training", "Training from scratch" if folder.is_search else "", lines, text
            )
        )
    return "\n".join(part for part in parts if part)


def _line(folder: Folder, key: str, label: str, colour: str) -> Line:
    """Logarithms, so that the first epochs do not press the others flat."""
    points = [(epoch, math.log10(max(value, 1.0))) for epoch, value in folder.metrics.series(key)]
    return Line(label, points, colour)


def _perplexities(name: str, title: str, lines: list[Line], text: str) -> str:
    lines = [line for line in lines if line.points]
    if not lines:
        return ""
    plot = plots.curves(
        name,
        [Panel("Perplexity (power of ten)", lines)],
        f"{title or 'Training'}: perplexity over epochs",
    )
    return (f"<h3>{title}</h3>\n" if title else "") + _figure(plot, text)


def text_alphas(folder: Folder) -> str:
    """Mixing weights of every edge after the last epoch, and how decided they are over the
    epochs."""
    if not folder.alphas:
        return ""
    (alphas_NEO,) = folder.alphas.values()
    mix_NEO, operations = folder.relaxation.probabilities(alphas_NEO), folder.operations
    rows = text_edges(folder.nodes)
    labels = [(f"s{_sub(predecessor)} → s{_sub(node)}", node - 1) for predecessor, node in rows]
    chosen = set()
    if isinstance(folder.genotype, Genotype) and len(folder.genotype.recurrent) == folder.nodes:
        for node, (name, predecessor) in enumerate(folder.genotype.recurrent, start=1):
            if name in operations:
                chosen.add((rows.index((predecessor, node)), operations.index(name)))
    heat = plots.heat_map(
        "plot-mix-recurrent", mix_NEO[-1].tolist(), folder.nodes, operations, chosen, labels
    )
    entropies = torch.special.entr(mix_NEO).sum(-1).mean(-1).tolist()
    line = Line("recurrent cell", list(enumerate(entropies)), plots.BLUE)
    levels = [(math.log(len(operations)), "undecided")]
    panel = Panel("Entropy of the mixing weights (nats)", [line], from_zero=True, levels=levels)
    return "\n".join(
        [
            "<p>An edge is written as <i>from → to</i>; s₀ is made of the input and the last output.</p>",
            _figure(
                heat,
                f"Mixing weights after {len(mix_NEO) - 1} epochs; darker is larger. Framed: the derived cell.",
            ),
            "<h3>How decided</h3>",
            _figure(
                plots.curves("plot-decided", [panel], "entropy over epochs"),
                "Entropy falls as the search decides.",
            ),
        ]
    )


def _sub(number: int) -> str:
    return "".join("₀₁₂₃₄₅₆₇₈₉"[int(digit)] for digit in str(number))


def _figure(svg: str, caption: str) -> str:
    return f"<figure>\n{svg}\n<figcaption>{html.escape(caption)}</figcaption></figure>"
