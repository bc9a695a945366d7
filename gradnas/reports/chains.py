"""The parts of a report that are of chains, and the cost of what was found against its accuracy.

Legend: N tables (one more than finished epochs), O operations.
"""

from __future__ import annotations

import html
import math

import torch

from gradnas.architectures.chain import (
    IDENTITY,
    ZERO,
    Chain,
)
from gradnas.pictures import chains, plots
from gradnas.pictures.canvas import in_html, plain
from gradnas.pictures.plots import (
    Line,
    Panel,
)
from gradnas.reports.folder import Folder
from gradnas.spaces import MBConvChain

# keys of metrics.jsonl: what they are, unit, divisor
COSTS = {
    "latency_ms": ("latency", "ms", 1.0),
    "macs": ("multiply-adds", "millions", 1e6),
    "params": ("parameters", "millions", 1e6),
}


def chain_picture(folder: Folder) -> str:
    """The chain as blocks."""
    if not isinstance(folder.genotype, Chain):
        return ""
    early = folder.is_search and folder.state != "finished"
    when = (
        f" It is what the alphas said after epoch {len(folder.metrics.rows)}, and may still change."
        if early
        else ""
    )
    space = folder.chain_space
    picture = in_html(chains.svg(folder.genotype, space=space))
    code = None if space is None else space.short_code(space.decision(folder.genotype))
    written = f" Code: <code>{code}</code>." if code is not None else ""
    text = (
        "Colour: the kernel; width: the expansion; below each stage: channels × side² of its maps."
    )
    return f"<figure>\n{picture}\n<figcaption>{text}{written}{when}</figcaption></figure>"


def chain_alphas(folder: Folder) -> str:
    """Mixing weights of every block after the last epoch, and how decided they are over the
    epochs."""
    space = folder.chain_space
    if not folder.alphas or space is None:
        return ""
    mixes = {
        name: folder.relaxation.probabilities(alphas_NO)
        for name, alphas_NO in folder.alphas.items()
    }
    columns = _columns(space)
    chosen_by = (
        folder.genotype.blocks if isinstance(folder.genotype, Chain) else (None,) * space.num_blocks
    )
    rows, table, chosen = [], [], set()
    for block, operation in zip(space.blocks, chosen_by, strict=True):
        rows.append((f"{block.stage}.{block.place}", block.stage - 1))
        last = mixes[block.name][-1].tolist() if block.name in mixes else [1.0]
        weights = dict(zip(block.candidates, last, strict=True))
        table.append([weights.get(column) for column in columns])
        if operation in columns:
            chosen.add((len(rows) - 1, columns.index(operation)))
    names = [plain(column) for column in columns]
    epochs = len(next(iter(mixes.values()))) - 1
    heat = plots.heat_map("plot-mix-chain", table, len(space.stages), names, chosen, rows)
    entropies = (
        torch.stack([torch.special.entr(mix_NO).sum(-1) for mix_NO in mixes.values()])
        .mean(0)
        .tolist()
    )
    undecided = sum(math.log(len(block.candidates)) for block in space.blocks) / len(mixes)
    panels = [
        Panel(
            "Entropy of the mixing weights (nats)",
            [Line("mean over the blocks", list(enumerate(entropies)), plots.BLUE)],
            from_zero=True,
            levels=[(undecided, "undecided")],
        )
    ]
    removed = folder.metrics.series("skip_connections")
    if removed:
        panels.append(
            Panel("Blocks removed", [Line("derived chain", removed, plots.GREEN)], whole=True)
        )
    decided = plots.curves(
        "plot-decided", panels, "entropy and number of removed blocks over epochs"
    )
    parts = [
        "<p>Blocks are written <i>stage.place</i>; the columns are their candidates.</p>",
        f"<figure>\n{heat}\n<figcaption>Mixing weights after {epochs} epochs; darker is larger. Framed: the derived "
        "chain.</figcaption></figure>",
        "<h3>How decided, and how many blocks removed</h3>",
        f"<figure>\n{decided}\n<figcaption>Entropy falls as the search decides.</figcaption></figure>",
    ]
    return "\n".join(parts)


def _columns(space: MBConvChain) -> list[str]:
    """All candidates: in the order of the blocks, those that remove a block last."""
    seen = dict.fromkeys(operation for block in space.blocks for operation in block.candidates)
    return sorted(seen, key=lambda operation: operation in (ZERO, IDENTITY))


def cost_against_accuracy(folder: Folder) -> str:
    """What the derived architecture of every epoch costs and how accurate it is; empty without a
    cost in the search."""
    for key, (what, unit, divisor) in COSTS.items():
        costs = dict(folder.metrics.series(f"derived_{key}"))
        accuracies = dict(folder.metrics.series("derived_valid_accuracy"))
        points = [(costs[e] / divisor, accuracies[e], e) for e in sorted(costs) if e in accuracies]
        if not points:
            continue
        limit = _limit(folder, key)
        plot = plots.trade_off(
            "plot-cost",
            points,
            f"{what} of the derived network ({unit})",
            None if limit is None else limit / divisor,
        )
        text = (
            f"A point for the network derived after each epoch, with the supernet’s weights; darker is later. Its "
            f"{what} after the last epoch: {points[-1][0]:.4g} {unit}."
        )
        return f"<figure>\n{plot}\n<figcaption>{html.escape(text)}</figcaption></figure>"
    return ""


def _limit(folder: Folder, key: str) -> float | None:
    """The target or budget of the search."""
    cost = folder.config.get("cost")
    if not isinstance(cost, dict):
        return None
    name = "ms" if key == "latency_ms" else key
    found = cost.get(f"budget_{name}", cost.get(f"target_{name}"))
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else None
