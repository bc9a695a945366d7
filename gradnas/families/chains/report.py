"""The sections of a report that are of chains.

Legend: N tables (one more than finished epochs), O operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from gradnas import runs
from gradnas.architectures.chain import IDENTITY, ZERO, Chain
from gradnas.config import from_json
from gradnas.families.sections import entropy_panel, heat_caption, still_open
from gradnas.pictures import chains, mixing_weights, plots
from gradnas.pictures.canvas import in_html, plain
from gradnas.pictures.plots import Line, Panel
from gradnas.pictures.sheet import BLUE, GREEN
from gradnas.reports.folder import Folder, Mixture, Tables
from gradnas.reports.parts import figure, headed
from gradnas.spaces import ImageSpace, MBConvChain


def tables(folder: Folder) -> Tables:
    """A table for each block, with a column for each of its candidates."""
    shapes = {block.name: (len(block.candidates),) for block in _space(folder).blocks}
    return Tables(shapes, "block", "block01/0000")


def shown(folder: Folder) -> str:
    """The chain as blocks."""
    chain = folder.architecture
    if not isinstance(chain, Chain):
        return ""
    space = _space(folder)
    text = (
        "Colour: the kernel; width: the expansion; below each stage: channels × side² of its maps."
    )
    code = space.short_code(space.decision(chain))
    if code is not None:
        text += f" Code: <code>{code}</code>."
    picture = in_html(chains.svg(chain, space=space))
    return figure(picture, text + still_open(folder, "It is"))


def mixing(folder: Folder) -> str:
    """The mixing weights of every block, and how decided they are over the epochs."""
    if not folder.alphas:
        return ""
    mixes = {}
    for name, alphas_NO in folder.alphas.items():
        mixes[name] = folder.relaxation.probabilities(alphas_NO)
    num_tables = len(next(iter(mixes.values())))
    heat = _heat(folder, mixes)
    parts = [
        "<p>Blocks are written <i>stage.place</i>; the columns are their candidates.</p>",
        figure(heat, heat_caption(num_tables, "chain")),
        _decidedness(folder, mixes),
    ]
    return "\n".join(parts)


def mixtures(folder: Folder) -> list[Mixture]:
    """Every block that has something to decide."""
    chain = folder.architecture if isinstance(folder.architecture, Chain) else None
    found = []
    for number, block in enumerate(_space(folder).blocks):
        if block.name not in folder.alphas:
            continue
        values = folder.relaxation.probabilities(folder.alphas[block.name][-1]).tolist()
        decided = chain.blocks[number] if chain and number < len(chain.blocks) else None
        place = f"block {block.stage}.{block.place}"
        found.append(Mixture(place, tuple(block.candidates), tuple(values), decided))
    return found


def _space(folder: Folder) -> MBConvChain:
    """Raises ValueError where the configuration is damaged."""
    where = f"{folder.path / runs.CONFIG}: space"
    space = from_json(ImageSpace, folder.setting("space", kind=dict), where)  # type: ignore[type-abstract]
    assert isinstance(space, MBConvChain)
    return space


def _heat(folder: Folder, mixes: Mapping[str, Tensor]) -> str:
    """A row for each block and a column for each candidate of any block."""
    space = _space(folder)
    columns = _columns(space)
    rows = []
    values = []
    for block in space.blocks:
        rows.append((f"{block.stage}.{block.place}", block.stage - 1))
        # A block with a single candidate has nothing to decide, and no alphas.
        last = mixes[block.name][-1].tolist() if block.name in mixes else [1.0]
        weights = dict(zip(block.candidates, last, strict=True))
        values.append([weights.get(column) for column in columns])

    chosen = set()
    if isinstance(folder.architecture, Chain):
        for row, operation in enumerate(folder.architecture.blocks):
            if operation in columns:
                chosen.add((row, columns.index(operation)))
    names = [plain(column) for column in columns]
    return mixing_weights.heat_map("plot-mix-chain", values, rows, names, chosen)


def _columns(space: MBConvChain) -> list[str]:
    """All candidates: in the order of the blocks, those that remove a block last."""
    kept = []
    removing = []
    for block in space.blocks:
        for operation in block.candidates:
            group = removing if operation in (ZERO, IDENTITY) else kept
            if operation not in group:
                group.append(operation)
    return kept + removing


def _decidedness(folder: Folder, mixes: Mapping[str, Tensor]) -> str:
    entropies_N = [torch.special.entr(mix_NO).sum(-1) for mix_NO in mixes.values()]
    mean_N = torch.stack(entropies_N).mean(0).tolist()
    line = Line("mean over the blocks", list(enumerate(mean_N)), BLUE)
    # Blocks may have different numbers of candidates; those with one add log 1 = 0.
    total = sum(math.log(len(block.candidates)) for block in _space(folder).blocks)
    panels = [entropy_panel([line], total / len(mixes))]
    removed = folder.metrics.series("skip_connections")
    if removed:
        line = Line("derived chain", removed, GREEN)
        panels.append(Panel("Blocks removed", [line], whole=True))
    label = "entropy and number of removed blocks over epochs"
    plot = plots.curves("plot-decided", panels, label)
    caption = "Entropy falls as the search decides."
    return headed("How decided, and how many blocks removed", figure(plot, caption))
