"""Pictures of a training of DARTS for equations: losses and alphas by epoch, and the mixture.

Legend: E edges, O primitives, T epochs, K restarts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure

from gradnas.laws.darts_training import DARTSTraining
from gradnas.laws.pictures import new_figure, short, style
from gradnas.pictures.sheet import INK, PALE, SMALL

MOST_NAMED = 2  # primitives that stand on an edge
FAINT = 0.05  # probability below which a primitive is not named
ROW = 84.0  # points between the places of features, and of nodes
COLUMN = 260.0


def _places(training: DARTSTraining, names: Sequence[str]) -> list[str]:
    """Names of all sources: features, then nodes."""
    return [*names, *[f"node {j + 1}" for j in range(training.settings.space.nodes)]]


def mixture_edges(
    training: DARTSTraining, restart: int, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Each edge of a restart: "from", "to", and "probabilities" by primitive."""
    settings = training.settings
    space = settings.space
    alpha_EO = training.alphas["edges"].detach()[restart]
    strength_EO = settings.relaxation.probabilities(alpha_EO)
    places = _places(training, names)
    edges: list[dict[str, Any]] = []
    for (node, source), strength_O in zip(space.edges, strength_EO.tolist(), strict=True):
        edge = {
            "from": places[source],
            "to": places[space.features + node],
            "probabilities": dict(zip(space.words, strength_O, strict=True)),
        }
        edges.append(edge)
    return edges


@style()
def history_figure(training: DARTSTraining, restart: int, names: Sequence[str]) -> Figure:
    """The losses of all restarts, and the strengths of one restart's edges, by epoch."""
    settings = training.settings
    space = settings.space
    history = training.history
    strength_TEO = settings.relaxation.probabilities(
        torch.stack(history.alphas["edges"])[:, restart]
    )
    E = len(space.edges)
    figure = new_figure(620.0, 190.0 + 120.0 * E)
    heights = [1.5, *[1.0] * E]
    all_axes = figure.subplots(E + 1, 1, sharex=True, gridspec_kw={"height_ratios": heights})
    epochs = range(1, len(history.loss_TK) + 1)
    loss_TK = torch.stack(history.loss_TK)
    alpha_loss_TK = torch.stack(history.alpha_loss_TK)
    for k in range(settings.restarts):
        alone = k == restart
        colour = "#3f7fbf" if alone else PALE
        label = "constants" if alone else None
        all_axes[0].plot(epochs, loss_TK[:, k], color=colour, zorder=2 + alone, label=label)
    all_axes[0].plot(epochs, alpha_loss_TK[:, restart], color="#d18b1f", zorder=4, label="alphas")
    if bool((loss_TK > 0).all()) and bool((alpha_loss_TK[:, restart] > 0).all()):
        all_axes[0].set_yscale("log")
        # The library's pictures set no formulas: 10^-2 as it stands.
        all_axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    all_axes[0].set_ylabel("loss", size=SMALL)
    all_axes[0].legend(loc="upper right", fontsize=SMALL)
    places = _places(training, names)
    for e, (node, source) in enumerate(space.edges):
        axes = all_axes[e + 1]
        for o, word in enumerate(space.words):
            axes.plot(epochs, strength_TEO[:, e, o], label=word)
        axes.set_ylim(0.0, 1.0)
        title = f"{short(places[source])} to {places[space.features + node]}"
        axes.set_title(title, size=SMALL, loc="left")
    all_axes[1].legend(loc="upper left", fontsize=SMALL - 1, ncols=4)
    all_axes[-1].set_xlabel("epoch", size=SMALL)
    figure.tight_layout()
    return figure


@style()
def mixture_figure(training: DARTSTraining, restart: int, names: Sequence[str]) -> Figure:
    """Features on the left, nodes from left to right; a line is as wide as its edge is present.

    On each line stand the strongest primitives with their probabilities.
    """
    space = training.settings.space
    D = space.features
    edges = mixture_edges(training, restart, names)
    rows = max(D, space.nodes + 1)
    width = COLUMN * (space.nodes + 1) + 60.0
    height = ROW * rows + 40.0
    figure = new_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(height, 0)
    where: dict[str, tuple[float, float]] = {}
    places = _places(training, names)
    for place, name in enumerate(places):
        if place < D:
            where[name] = (50.0, 30.0 + ROW * place)
        else:
            j = place - D
            where[name] = (50.0 + COLUMN * (j + 1), 30.0 + ROW * (j + 0.35))
    for edge in edges:
        x0, y0 = where[edge["from"]]
        x1, y1 = where[edge["to"]]
        absent = edge["probabilities"].get("none", 0.0)
        present = max(0.0, 1.0 - absent)
        axes.plot([x0, x1], [y0, y1], color=PALE, lw=0.5 + 5.0 * present, zorder=1)
        strongest = sorted(edge["probabilities"].items(), key=lambda item: -item[1])
        words = [f"{word} {p:.2f}" for word, p in strongest[:MOST_NAMED] if p >= FAINT]
        # Before its target, where lines from different sources are still apart.
        x = x1 - 0.55 * COLUMN
        share = (x - x0) / (x1 - x0)
        y = y0 + share * (y1 - y0)
        label = ", ".join(words)
        axes.text(x, y, label, size=SMALL - 1, color=INK, ha="center", va="bottom", zorder=3)
    for place, name in enumerate(places):
        x, y = where[name]
        face = "#eef1f4" if place < D else "#fde6c8"
        box = {"boxstyle": "round", "fc": face, "ec": PALE}
        axes.text(
            x, y, short(name), size=SMALL, color=INK, ha="center", va="center", bbox=box, zorder=4
        )
    return figure
