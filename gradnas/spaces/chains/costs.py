"""What the operations of a chain cost: the form in which they are measured, and phones' tables."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gradnas.architectures.chain import IDENTITY, ZERO, bottleneck
from gradnas.choice import Choice
from gradnas.latency import (
    LATENCY,
    Costs,
    LatencyTable,
    mobile_features,
    mobile_key,
    predicted_note,
)
from gradnas.spaces.chains.shape import Block, ChainShape


def plain_choices(shape: ChainShape, in_channels: int, num_classes: int) -> nn.Module:
    """The chain as a module whose choices hold whole plain blocks, each with its shortcut.

    Derived networks have such blocks. In a supernet the shortcut lies outside the choice, and a
    removed block still adds zeros.
    """
    # Its weights are of no interest, and must not cost the run random numbers.
    with torch.random.fork_rng(devices=[]):
        modules: list[nn.Module] = []
        for block in shape.blocks:
            plain = {name: block.plain(name, shape.activation) for name in block.candidates}
            if block.is_searched:
                modules.append(Choice(plain, name=block.name))
            else:
                (only,) = plain.values()
                modules.append(only)
        return shape.assembled(modules, in_channels, num_classes)


def phone_costs(
    shape: ChainShape,
    table: LatencyTable,
    like: Mapping[str, Tensor],
    num_classes: int,
    in_channels: int,
) -> Costs:
    """Latencies from a table in the form that ProxylessNAS released for phones.

    Such a table names the sizes of maps in its keys: it is read for images of the space's size.

    Args:
        like: the alphas; blocks that have none count as fixed.

    Raises:
        ValueError: the table lacks an entry (and has no predictor), or the space has an operation
            that such tables cannot express (`identity` where the shape changes).
    """
    seen: dict[str, bool] = {}

    def ms(key: str, label: str) -> float:
        entry = table.look_up(key, mobile_features(key), label)
        seen[key] = entry.predicted
        return entry.ms

    fixed = 0.0
    for label, key in fixed_keys(shape, num_classes, in_channels).items():
        fixed += ms(key, label)
    tables = {}
    for block in shape.blocks:
        costs_ms = []
        for operation in block.candidates:
            key = block_key(block, operation)
            if key is None:
                costs_ms.append(0.0)
            else:
                costs_ms.append(ms(key, f"{operation} of {block.name}"))
        # A block that is not searched has one candidate, whose time is always spent.
        if block.name in like:
            tables[block.name] = torch.tensor(costs_ms, dtype=torch.float64)
        else:
            fixed += costs_ms[0]
    costs = Costs(LATENCY.name, fixed, tables)
    predicted = [key for key, is_predicted in seen.items() if is_predicted]
    if predicted:
        assert table.predictor is not None
        return costs.noted(predicted_note(predicted, len(seen), table.predictor))
    return costs


def fixed_keys(shape: ChainShape, num_classes: int, in_channels: int = 3) -> dict[str, str]:
    """Part -> key of what every chain has: stem, first block, last convolution, classifier."""
    # Maps as such keys write them: (height, width, channels)
    image = (shape.image_size, shape.image_size, in_channels)
    # What the blocks see first: the stem has halved the image, and the first block keeps the size.
    size = shape.blocks[0].size_in
    stem = (size, size, shape.stem_width)
    keys = {"stem": mobile_key("Conv", image, stem)}
    if shape.first_width is not None:
        # An MBConv of expansion 1, kernel 3, stride 1, without a shortcut.
        first = (size, size, shape.first_width)
        keys["first block"] = mobile_key("expanded_conv", stem, first, 1, 3, 1, False)
    last = shape.blocks[-1]
    before = (last.size_out, last.size_out, last.channels_out)
    after = (last.size_out, last.size_out, shape.last_width)
    keys["last convolution"] = mobile_key("Conv_1", before, after)
    keys["classifier"] = mobile_key("Logits", after, num_classes)
    return keys


def block_key(block: Block, operation: str) -> str | None:
    """Key of one candidate of a block; None where nothing is left of it, which costs nothing."""
    if operation in (ZERO, IDENTITY):
        if block.keeps_shape:
            return None
        raise ValueError(
            f"{block.name}: tables of phones have no key for {operation!r} where the shape "
            "changes; measure a table of this space instead (gradnas latency measure)"
        )
    sizes = bottleneck(operation)
    assert sizes is not None
    expansion, kernel = sizes
    return mobile_key(
        "expanded_conv",
        (block.size_in, block.size_in, block.channels_in),
        (block.size_out, block.size_out, block.channels_out),
        expansion,
        kernel,
        block.stride,
        block.keeps_shape,
    )
