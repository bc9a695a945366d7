"""The chain with every choice open.

Legend: B batch, C channels, H height, W width, O operations, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gradnas.architectures.chain import IDENTITY, ZERO, Chain
from gradnas.choice import Choice
from gradnas.config import did_you_mean
from gradnas.derivation import Picks
from gradnas.latency import LATENCY, Costs, CostView, LatencyTable
from gradnas.modules.draws import Draw
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.base import Weights
from gradnas.spaces.chains.costs import phone_costs, plain_choices
from gradnas.spaces.chains.mbconv_network import ChainNetwork, Residual
from gradnas.spaces.chains.shape import Block, ChainShape
from gradnas.spaces.operations import Zero
from gradnas.spaces.your_module import OpenModule


class ChainSupernet(OpenModule[Chain]):
    """A chain in which every block holds a `Choice` of its candidates: `net` is a `ChainNetwork`.

    `alphas["block01"]` and so on are `(O,)`. The shortcut lies outside the choice: a block gives
    `x + sum_k mix_k o_k(x)`, so `zero` (and `identity` where the shape stays) is an operation whose
    output is 0.
    """

    def __init__(self, shape: ChainShape, in_channels: int, num_classes: int) -> None:
        if not any(block.is_searched for block in shape.blocks):
            raise ValueError(
                "there is nothing to search: every block of this space has one candidate"
            )
        blocks = [_open_block(block, shape.activation) for block in shape.blocks]
        net = shape.assembled(blocks, in_channels, num_classes)
        # The alphas start from torch's global seed, as the weights do.
        super().__init__(net, seed=int(torch.randint(2**31, ())))
        self.shape = shape
        self.in_channels = in_channels
        self.num_classes = num_classes

    # ---- architectures ---------------------------------------------------------------------------

    def decide(self, relaxation: Relaxation = Softmax()) -> Chain:
        return self.shape.derive(dict(self.alphas.items()), relaxation)

    def decision(self, picks: Picks) -> Chain:
        operations = []
        for block in self.shape.blocks:
            column = picks.get(block.name, 0)  # a block that is not searched has one candidate
            operations.append(block.candidates[column])
        return self.shape.chain(operations)

    def random_decision(self, generator: torch.Generator) -> Chain:
        return self.shape.random_decision(generator)

    def skip_count(self, decision: Chain) -> int:
        """Blocks that were removed."""
        count = 0
        for block, operation in self.shape.paired(decision):
            if block.keeps_shape and operation in (ZERO, IDENTITY):
                count += 1
        return count

    def one_hot_draw(self, chain: Chain | str) -> Draw:
        """Mixing weight 1 on the chain's operations.

        Raises:
            ValueError: an operation that is no candidate.
        """
        choices = {}
        for block, operation in self.shape.paired(self._offered(chain)):
            if block.is_searched:
                choices[block.name] = [block.candidates.index(operation)]
        tables = {name: alpha.detach() for name, alpha in self.alphas.items()}
        return Draw.one_hot(choices, tables)

    def _offered(self, decision: Chain | str) -> Chain:
        """The chain that is meant; ValueError where the supernet lacks one of its operations."""
        chain = self.shape.decision(decision)
        for block, operation in self.shape.paired(chain):
            if operation not in block.candidates:
                hint = did_you_mean(operation, block.candidates)
                raise ValueError(f"the supernet offers no {operation!r} for {block.name}{hint}")
        return chain

    # ---- costs -----------------------------------------------------------------------------------

    def cost_view(self) -> CostView:
        like = next(self.net.parameters())
        plain = plain_choices(self.shape, self.in_channels, self.num_classes)
        return CostView(plain.to(like.device, like.dtype))

    def costs(
        self,
        quantity: str,
        inputs: Sequence[Any],
        table: LatencyTable | None = None,
        named: Mapping[str, Any] | None = None,
    ) -> Costs:
        """As for every supernet.

        A table of a phone is read for images of the space's size, whatever the inputs.
        """
        if quantity == LATENCY.name and table is not None and table.is_mobile:
            alphas = dict(self.alphas.items())
            return phone_costs(self.shape, table, alphas, self.num_classes, self.in_channels)
        return super().costs(quantity, inputs, table, named)

    # ---- derived networks ------------------------------------------------------------------------

    def derived(self, decision: Chain | str, weights: Weights = "keep") -> ChainNetwork:
        """The plain network of a chain; `"keep"` copies the supernet's tensors.

        The running statistics of kept BatchNorms are those of the supernet's mixture: recalibrate
        them before evaluation.

        Raises:
            ValueError: the chain is not one of this space.
        """
        chain = self._offered(decision)
        network = self.shape.network(chain, self.num_classes, self.in_channels)
        like = next(self.net.parameters())
        network.to(like.device, like.dtype)
        if weights == "keep":
            supernet_state = self.net.state_dict()
            kept = {}
            for name in network.state_dict():
                kept[name] = supernet_state[self._name_here(name, network, chain)]
            network.load_state_dict(kept)
        return network

    def _name_here(self, name: str, network: ChainNetwork, chain: Chain) -> str:
        """The supernet's name of a tensor of a derived network.

        `blocks.3.operation.0.weight` there is `blocks.3.operation.operations.mb3_k5.0.weight` here,
        and without `operations.mb3_k5` where the block has one candidate. A derived block without a
        shortcut's wrapper (`identity` where the shape changes) lacks the first `operation` too.
        """
        part, *rest = name.split(".")
        if part != "blocks":
            return name
        # Blocks of the network that are not searched (the first one) come before those that are.
        place = int(rest[0])
        num_fixed = len(network.blocks) - len(chain.blocks)
        if place < num_fixed:
            return name
        index = place - num_fixed
        num_outer = 2 if isinstance(network.blocks[place], Residual) else 1
        # `rest` is the place of the block, then (in a shortcut's wrapper) "operation", then what is
        # the same in both networks.
        path = ["blocks", rest[0], "operation"]
        if self.shape.blocks[index].is_searched:
            path += ["operations", chain.blocks[index]]
        return ".".join([*path, *rest[num_outer:]])


def _open_block(block: Block, activation: str) -> nn.Module:
    """A block with every candidate."""
    operations: dict[str, nn.Module] = {}
    for operation in block.candidates:
        if block.keeps_shape and operation in (ZERO, IDENTITY):
            # Both leave the shortcut alone, and that is added outside the choice: beside it there
            # is nothing.
            operations[operation] = Zero(1)
        else:
            # Without its shortcut, which is added once for all candidates.
            plain = block.plain(operation, activation)
            operations[operation] = plain.operation if isinstance(plain, Residual) else plain
    if block.is_searched:
        return Residual(Choice(operations, name=block.name), block.keeps_shape)
    (only,) = operations.values()
    return Residual(only, block.keeps_shape)
