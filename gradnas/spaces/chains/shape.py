"""The shape of a chain: its stages and blocks, the architectures that it holds, its networks.

Legend: B batch, C channels, H height, W width, O operations, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from gradnas.architectures.chain import IDENTITY, ZERO, Chain, bottleneck
from gradnas.config import check_numbers
from gradnas.derivation import best_operation
from gradnas.relaxations import Relaxation
from gradnas.spaces.chains.mbconv_network import ChainNetwork, MBConv, chain_block

# Operations for every block, or one tuple of them for each block
Candidates: TypeAlias = tuple[str, ...] | tuple[tuple[str, ...], ...]


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, or the next one.

    The next one where the nearest would take away more than a tenth of the channels.
    """
    nearest = int(channels + divisor / 2) // divisor * divisor
    rounded = max(divisor, nearest)
    if rounded < 0.9 * channels:
        return rounded + divisor
    return rounded


def halved(size: int, stride: int) -> int:
    """Side of the maps after a padded convolution with this stride."""
    return (size + stride - 1) // stride


def check_whole(name: str, value: object, least: int) -> None:
    """ValueError, naming the setting, unless it is an int of at least `least`."""
    if type(value) is not int or value < least:  # isinstance would let True pass
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


def check_stride(name: str, value: object) -> None:
    """ValueError, naming the setting, unless it is 1 or 2."""
    if type(value) is not int or value not in (1, 2):
        raise ValueError(f"{name} must be 1 or 2, not {value!r}")


# ---- stages and blocks -------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """Blocks of one width.

    The first of them has the stride and changes the width, the others keep the shape.
    """

    width: int
    blocks: int
    stride: int = 1

    def __post_init__(self) -> None:
        check_whole("width", self.width, 1)
        check_whole("blocks", self.blocks, 1)
        check_stride("stride", self.stride)
        check_numbers(self)


@dataclass(frozen=True)
class Block:
    """One searchable block, as the space describes it.

    Attributes:
        name: of its alpha, if it has more than one candidate.
        stage, place: of the block, from 1.
        channels_in, channels_out, stride: its shape.
        size_in, size_out: side in pixels of the maps that enter and leave, for images of the
            space's size.
        candidates: in alpha's column order.
    """

    name: str
    stage: int
    place: int
    channels_in: int
    channels_out: int
    stride: int
    size_in: int
    size_out: int
    candidates: tuple[str, ...]

    @property
    def keeps_shape(self) -> bool:
        """Whether the block has a shortcut, and may be removed."""
        return self.stride == 1 and self.channels_in == self.channels_out

    @property
    def is_searched(self) -> bool:
        """Whether there is a choice, and so an alpha."""
        return len(self.candidates) > 1

    def check(self, operation: str) -> None:
        """ValueError where the operation does not fit the block, or does not exist."""
        where = f"block {self.place} of stage {self.stage}"
        if operation == ZERO and not self.keeps_shape:
            before = f"{self.channels_in} channels of {self.size_in}x{self.size_in}"
            after = f"{self.channels_out} of {self.size_out}x{self.size_out}"
            raise ValueError(
                f"{where} turns {before} into {after}: {ZERO!r} would leave nothing of it; "
                f"{IDENTITY!r} fits there"
            )
        try:
            bottleneck(operation)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    def plain(self, operation: str, activation: str) -> nn.Module:
        """The module of one operation, with the shortcut where the shape allows one."""
        return chain_block(operation, self.channels_in, self.channels_out, self.stride, activation)


def lay_out(
    stages: Sequence[Stage], candidates: Candidates, channels: int, size: int
) -> tuple[Block, ...]:
    """The searchable blocks of these stages, in order.

    Args:
        stages: with the widths that are built.
        candidates: for every block, or one tuple for each block (see `MBConvChain`).
        channels, size: of the maps that enter the first block, the size in pixels.

    Raises:
        ValueError: candidates that are neither.
    """
    num_blocks = sum(stage.blocks for stage in stages)
    for_every_block = all(isinstance(entry, str) for entry in candidates)
    if not for_every_block:
        some_are_texts = any(isinstance(entry, str) for entry in candidates)
        if some_are_texts or len(candidates) != num_blocks:
            raise ValueError(
                "candidates are operations for every block, or one tuple for each of the "
                f"{num_blocks} blocks; got {len(candidates)} entries"
            )

    blocks: list[Block] = []
    for number, stage in enumerate(stages, 1):
        for place in range(1, stage.blocks + 1):
            stride = stage.stride if place == 1 else 1
            size_out = halved(size, stride)
            offered: Any = candidates
            if not for_every_block:
                offered = candidates[len(blocks)]
            elif stride != 1 or channels != stage.width:
                # A list meant for every block may hold `zero`, which cannot stand where the shape
                # changes. A tuple of one block's own is taken as it is, so that `zero` in it is an
                # error of its author's.
                offered = tuple(operation for operation in candidates if operation != ZERO)
            blocks.append(
                Block(
                    name=f"block{len(blocks) + 1:02}",
                    stage=number,
                    place=place,
                    channels_in=channels,
                    channels_out=stage.width,
                    stride=stride,
                    size_in=size,
                    size_out=size_out,
                    candidates=offered,
                )
            )
            channels = stage.width
            size = size_out
    return tuple(blocks)


# ---- the whole chain ---------------------------------------------------------------------------


@dataclass(frozen=True)
class ChainShape:
    """A chain with every width settled: what `MBConvChain` describes, ready to be built.

    Attributes:
        stem_width, stem_stride: of the 3x3 convolution at the start.
        first_width: of the fixed block after the stem; None for no such block.
        blocks: the searchable ones, in order.
        last_width: of the 1x1 convolution at the end.
        activation, dropout: as in `MBConvChain`.
        image_size: side in pixels of the images that the blocks' sizes are told for.
    """

    stem_width: int
    stem_stride: int
    first_width: int | None
    blocks: tuple[Block, ...]
    last_width: int
    activation: str
    dropout: float
    image_size: int

    @property
    def lengths(self) -> list[int]:
        """The number of blocks of each stage."""
        counts = [0] * self.blocks[-1].stage
        for block in self.blocks:
            counts[block.stage - 1] += 1
        return counts

    # ---- architectures ---------------------------------------------------------------------------

    def chain(self, operations: Sequence[str]) -> Chain:
        """The architecture with these operations, one for each block."""
        return Chain.of(operations, self.lengths)

    def paired(self, chain: Chain) -> list[tuple[Block, str]]:
        """Each block with its operation in a chain of this shape."""
        return list(zip(self.blocks, chain.blocks, strict=True))

    def decision(self, what: Chain | str) -> Chain:
        """A chain of this shape from its text, a published name, or the code that `code` writes.

        Raises:
            ValueError: none of these, other numbers of stages or blocks, or an operation that does
                not fit its block.
        """
        if isinstance(what, str):
            chain = self._read(what.strip())
        elif isinstance(what, Chain):
            chain = what
        else:
            raise ValueError(f"a chain is a Chain or a text, not a {type(what).__name__}")
        lengths = [len(stage) for stage in chain.stages]
        if lengths != self.lengths:
            raise ValueError(
                f"a chain of this space has stages of {self.lengths} blocks, not of {lengths}"
            )
        for block, operation in self.paired(chain):
            block.check(operation)
        return chain

    def _read(self, text: str) -> Chain:
        # A code is all digits; isdigit alone would also take the digits of other scripts.
        if text.isascii() and text.isdigit():
            return self._decoded(text)
        if text in Chain.names():
            return Chain.named(text)
        return Chain.parse(text)

    def _decoded(self, code: str) -> Chain:
        if len(code) != len(self.blocks):
            raise ValueError(
                f"the code of a chain of this space has {len(self.blocks)} digits, "
                f"not {len(code)}: {code}"
            )
        operations = []
        for place, (digit, block) in enumerate(zip(code, self.blocks, strict=True), 1):
            column = int(digit)
            if column >= len(block.candidates):
                raise ValueError(
                    f"digit {place} of the code {code!r} is {digit}, but its block has the "
                    f"candidates 0 to {len(block.candidates) - 1}: {', '.join(block.candidates)}"
                )
            operations.append(block.candidates[column])
        return self.chain(operations)

    def code(self, chain: Chain | str) -> str:
        """One digit for each block, its column among the candidates (as NAS-Bench-Macro writes).

        Raises:
            ValueError: a block with more than ten candidates, an operation that is none of them.
        """
        columns = []
        for block, operation in self.paired(self.decision(chain)):
            if operation not in block.candidates:
                raise ValueError(
                    f"{operation!r} is no candidate of {block.name}: {', '.join(block.candidates)}"
                )
            columns.append(block.candidates.index(operation))
        if max(columns) > 9:
            raise ValueError(
                "a code has one digit for each block, but a block here has more than ten candidates"
            )
        return "".join(str(column) for column in columns)

    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation) -> Chain:
        """The best operation of every block (ProxylessNAS, section 3.2.1); ties go to the first."""
        operations = []
        for block in self.blocks:
            column = 0
            if block.is_searched:
                alpha_O = alphas[block.name].detach().double()
                column = best_operation(relaxation.probabilities(alpha_O))
            operations.append(block.candidates[column])
        return self.chain(operations)

    def random_decision(self, generator: torch.Generator) -> Chain:
        """A chain drawn uniformly from the candidates."""
        operations = []
        for block in self.blocks:
            column = int(
                torch.randint(len(block.candidates), (1,), generator=generator, device="cpu")
            )
            operations.append(block.candidates[column])
        return self.chain(operations)

    # ---- networks --------------------------------------------------------------------------------

    def network(self, chain: Chain, num_classes: int, in_channels: int) -> ChainNetwork:
        """The plain network of a chain of this shape, freshly initialised."""
        modules = []
        for block, operation in self.paired(chain):
            modules.append(block.plain(operation, self.activation))
        return self.assembled(modules, in_channels, num_classes)

    def assembled(
        self, modules: Sequence[nn.Module], in_channels: int, num_classes: int
    ) -> ChainNetwork:
        """A network around these modules for the searchable blocks, all freshly initialised."""
        fixed: list[nn.Module] = []
        if self.first_width is not None:
            fixed.append(MBConv(self.stem_width, self.first_width, 1, 3, 1, self.activation))
        return ChainNetwork(
            [*fixed, *modules],
            channels=self.blocks[-1].channels_out,
            stem_width=self.stem_width,
            stem_stride=self.stem_stride,
            last_width=self.last_width,
            num_classes=num_classes,
            in_channels=in_channels,
            activation=self.activation,
            dropout=self.dropout,
        )
