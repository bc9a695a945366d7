"""What the operations of a chain cost: the form in which they are measured, and their keys in
tables of phones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gradnas.architectures.chain import (
    IDENTITY,
    ZERO,
    bottleneck,
)
from gradnas.choice import Choice
from gradnas.latency import Costs, LatencyTable, mobile_features, mobile_key, predicted_note
from gradnas.spaces.chains.mbconv_network import chain_block

if TYPE_CHECKING:
    from gradnas.spaces.chains.mbconv_chain import (
        Block,
        MBConvChain,
    )


def plain_choices(space: MBConvChain, in_channels: int, num_classes: int) -> nn.Module:
    """The chain as a module whose choices hold whole plain blocks, each with its shortcut, as
    derived networks have.

    In a supernet the shortcut lies outside the choice, and a removed block still adds zeros; a
    derived network does not.
    """
    blocks: list[nn.Module] = []
    with torch.random.fork_rng(
        devices=[]
    ):  # its weights are of no interest, and must not cost random numbers
        for block in space.blocks:
            shape = (block.channels_in, block.channels_out, block.stride)
            plain = {name: chain_block(name, *shape, space.activation) for name in block.candidates}
            blocks.append(
                Choice(plain, name=block.name) if len(plain) > 1 else next(iter(plain.values()))
            )
        return space.assembled(blocks, in_channels, num_classes)


def phone_costs(
    space: MBConvChain,
    table: LatencyTable,
    like: Mapping[str, Tensor],
    num_classes: int,
    in_channels: int,
) -> Costs:
    """Costs from a table in the form that ProxylessNAS released for phones, for images of the
    space's size.

    Raises:
        ValueError: the table lacks an entry (and has no predictor), or the space has an operation
            that such tables cannot express (`identity` where the shape changes).
    """
    seen: dict[str, bool] = {}

    def ms(key: str, label: str) -> float:
        found = table.look_up(key, mobile_features(key), label)
        seen[key] = found.predicted
        return found.ms

    fixed = sum(
        ms(key, label) for label, key in fixed_keys(space, num_classes, in_channels).items()
    )
    tables = {}
    for block in space.blocks:
        costs = []
        for operation in block.candidates:
            key = block_key(block, operation)
            costs.append(0.0 if key is None else ms(key, f"{operation} of {block.name}"))
        if block.name in like:
            tables[block.name] = torch.tensor(costs, dtype=torch.float64)
        else:
            fixed += costs[0]
    costs = Costs("latency", fixed, tables)
    predicted = [key for key, guessed in seen.items() if guessed]
    if predicted:
        assert table.predictor is not None
        return costs.noted(predicted_note(predicted, len(seen), table.predictor))
    return costs


def fixed_keys(space: MBConvChain, num_classes: int, in_channels: int = 3) -> dict[str, str]:
    """Part -> key of what every chain of the space has: stem, first block, last convolution,
    classifier."""
    first, last = space.blocks[0], space.blocks[-1]
    stem, size, image = space.scaled(space.stem_width), first.size_in, space.image_size
    keys = {"stem": mobile_key("Conv", (image, image, in_channels), (size, size, stem))}
    if space.first_width is not None:
        width = space.scaled(space.first_width)
        keys["first block"] = mobile_key(
            "expanded_conv", (size, size, stem), (size, size, width), 1, 3, 1, False
        )
    end, wide = (
        (last.size_out, last.size_out, last.channels_out),
        (last.size_out, last.size_out, space.head_width),
    )
    keys["last convolution"] = mobile_key("Conv_1", end, wide)
    keys["classifier"] = mobile_key("Logits", wide, num_classes)
    return keys


def block_key(block: Block, operation: str) -> str | None:
    """Key of one candidate of a block; None where nothing is left of the block, which costs
    nothing."""
    if operation in (ZERO, IDENTITY):
        if block.keeps_shape:
            return None
        raise ValueError(
            f"{block.name}: tables of phones have no key for {operation!r} where the shape changes; measure a table of "
            "this space instead (gradnas latency measure)"
        )
    found = bottleneck(operation)
    assert found is not None
    expansion, kernel = found
    size_in = (block.size_in, block.size_in, block.channels_in)
    size_out = (block.size_out, block.size_out, block.channels_out)
    return mobile_key(
        "expanded_conv", size_in, size_out, expansion, kernel, block.stride, block.keeps_shape
    )
