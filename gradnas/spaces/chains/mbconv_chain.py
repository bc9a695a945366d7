"""The chain space of ProxylessNAS: inverted bottlenecks one after the other, each with its own
candidates.

Legend: B batch, C channels, H height, W width, O operations, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gradnas.architectures.chain import (
    IDENTITY,
    ZERO,
    Chain,
    bottleneck,
)
from gradnas.choice import Choice, Draw
from gradnas.config import did_you_mean
from gradnas.derivation import Picks, best_operation
from gradnas.latency import Costs, CostView, LatencyTable
from gradnas.latency.costs import Quantity
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.base import ImageSpace, Weights
from gradnas.spaces.chains.costs import (
    phone_costs,
    plain_choices,
)
from gradnas.spaces.chains.mbconv_network import (
    ACTIVATIONS,
    ChainNetwork,
    MBConv,
    chain_block,
)
from gradnas.spaces.chains.mbconv_network import Residual as Residual
from gradnas.spaces.operations import Zero
from gradnas.spaces.your_module import ModuleSupernet

# The candidates of ProxylessNAS; their order is that of alpha's columns and breaks ties.
PROXYLESS_NAMES = ("mb3_k3", "mb6_k3", "mb3_k5", "mb6_k5", "mb3_k7", "mb6_k7", "zero")


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of `divisor` nearest to `channels`, one more where that would take away more
    than a tenth."""
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def _check_whole(name: str, value: object, least: int) -> None:
    if type(value) is not int or value < least:  # isinstance would let True pass
        raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")


def _check_stride(name: str, value: object) -> None:
    if type(value) is not int or value not in (1, 2):
        raise ValueError(f"{name} must be 1 or 2, not {value!r}")


@dataclass(frozen=True)
class Stage:
    """Blocks of one width: the first of them has the stride and changes the width, the others keep
    the shape."""

    width: int
    blocks: int
    stride: int = 1

    def __post_init__(self) -> None:
        for name in ("width", "blocks"):
            _check_whole(name, getattr(self, name), 1)
        _check_stride("stride", self.stride)


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

    def check(self, operation: str) -> None:
        """ValueError where the operation does not fit the block, or does not exist."""
        where = f"block {self.place} of stage {self.stage}"
        if operation == ZERO and not self.keeps_shape:
            raise ValueError(
                f"{where} turns {self.channels_in} channels of {self.size_in}x{self.size_in} into {self.channels_out} "
                f"of {self.size_out}x{self.size_out}: {ZERO!r} would leave nothing of it; {IDENTITY!r} fits there"
            )
        try:
            bottleneck(operation)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


DEFAULT_STAGES = (
    Stage(24, 4, 2),
    Stage(40, 4, 2),
    Stage(80, 4, 2),
    Stage(96, 4),
    Stage(192, 4, 2),
    Stage(320, 1),
)


@dataclass(frozen=True)
class MBConvChain(ImageSpace):
    """A chain of blocks in stages (ProxylessNAS: Cai, Zhu, Han, ICLR 2019, arXiv 1812.00332,
    section 4.2).

    The defaults are the released ImageNet space: 21 searchable blocks with 141 candidates in all.

    Args:
        stem_width, stem_stride: of the 3x3 convolution at the start.
        first_width: of the fixed block after the stem (expansion 1, kernel 3, stride 1); None for
            no such block.
        stages: `Stage(width, blocks, stride)`, or plain `(width, blocks, stride)`.
        candidates: for every block, in alpha's column order, out of `mbE_kK` (expansion E, kernel
            K), `zero` and `identity`; `zero` is left out where the shape changes. Or one tuple for
            each block, taken as it is. A block with one candidate is not searched.
        activation: `"relu6"` or `"relu"`.
        last_width: of the 1x1 convolution at the end.
        width_mult: factor of all widths, which are then rounded to multiples of 8
            (`make_divisible`); the last one does not shrink. 1 leaves all widths as given.
        image_size: side in pixels of the images that sizes and costs are told for; other sizes run
            too.
        dropout: before the classifier of derived networks; the supernet has it too.
        chain: the architecture that `network()` builds when none is given: a text or a published
            name.

    `identity` passes its input on; where width or stride change it is a 1x1 convolution with that
    stride, with BatchNorm. `zero` removes the block, so that its shortcut alone is left.

    Raises:
        ValueError: a setting outside its range, an unknown candidate (the nearest name is given),
            `zero` on a block that changes the shape, a chain that does not fit.
    """

    stem_width: int = 32
    stem_stride: int = 2
    first_width: int | None = 16
    stages: tuple[Stage, ...] = DEFAULT_STAGES
    candidates: tuple[str, ...] | tuple[tuple[str, ...], ...] = PROXYLESS_NAMES
    activation: Literal["relu6", "relu"] = "relu6"
    last_width: int = 1280
    width_mult: float = 1.0
    image_size: int = 224
    dropout: float = 0.0
    chain: str | None = None

    def __post_init__(self) -> None:
        for name in ("stem_width", "last_width", "image_size"):
            _check_whole(name, getattr(self, name), 1)
        if self.first_width is not None:
            _check_whole("first_width", self.first_width, 1)
        _check_stride("stem_stride", self.stem_stride)
        if self.activation not in ACTIVATIONS:
            hint = did_you_mean(str(self.activation), ACTIVATIONS)
            raise ValueError(f"activation must be 'relu6' or 'relu', not {self.activation!r}{hint}")
        if (
            isinstance(self.width_mult, bool)
            or not isinstance(self.width_mult, (int, float))
            or self.width_mult <= 0
        ):
            raise ValueError(f"width_mult must be a number above 0, not {self.width_mult!r}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}")
        if isinstance(self.stages, (str, Mapping)) or not self.stages:
            raise ValueError(
                f"stages must be a sequence of Stage(width, blocks, stride), not {self.stages!r}"
            )
        stages = tuple(
            stage if isinstance(stage, Stage) else Stage(*stage) for stage in self.stages
        )
        object.__setattr__(self, "stages", stages)
        if isinstance(self.candidates, str) or not self.candidates:
            raise ValueError(
                f"candidates must be a sequence of operations, not {self.candidates!r}"
            )
        exact = tuple(c if isinstance(c, str) else tuple(c) for c in self.candidates)
        object.__setattr__(self, "candidates", exact)
        for block in self.blocks:
            if not block.candidates:
                raise ValueError(f"block {block.place} of stage {block.stage} has no candidates")
            if len(set(block.candidates)) < len(block.candidates):
                raise ValueError(
                    f"block {block.place} of stage {block.stage} offers a candidate twice"
                )
            for operation in block.candidates:
                block.check(operation)
        if self.chain is not None:
            self.decision(self.chain)

    @classmethod
    def named(cls, name: str) -> MBConvChain:
        """A published space: `proxyless` (the default), those of the four published networks, whose
        `network()` is that network, and `nas-bench-macro`. ValueError, with the nearest name, for
        any other."""
        if name not in _NAMED:
            known = ", ".join(_NAMED)
            raise ValueError(
                f"unknown chain space {name!r}{did_you_mean(str(name), _NAMED)}; the names are {known}"
            )
        return cls(**_NAMED[name])

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every name that `named` knows."""
        return tuple(_NAMED)

    # ---- description -----------------------------------------------------------------------------

    def scaled(self, width: int) -> int:
        """A width times `width_mult`."""
        return width if self.width_mult == 1.0 else make_divisible(width * self.width_mult)

    @property
    def head_width(self) -> int:
        """Width of the last convolution: it grows with `width_mult` but does not shrink."""
        return self.scaled(self.last_width) if self.width_mult > 1.0 else self.last_width

    @property
    def num_blocks(self) -> int:
        """Searchable blocks."""
        return sum(stage.blocks for stage in self.stages)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All searchable blocks in order."""
        count = self.num_blocks
        flat = all(isinstance(c, str) for c in self.candidates)
        if not flat and (
            len(self.candidates) != count or any(isinstance(c, str) for c in self.candidates)
        ):
            raise ValueError(
                f"candidates are operations for every block, or one tuple for each of the {count} blocks; got "
                f"{len(self.candidates)} entries"
            )
        channels = self.scaled(self.stem_width if self.first_width is None else self.first_width)
        size = _halved(self.image_size, self.stem_stride)
        blocks: list[Block] = []
        for number, stage in enumerate(self.stages, 1):
            for place in range(1, stage.blocks + 1):
                index, width = len(blocks), self.scaled(stage.width)
                stride = stage.stride if place == 1 else 1
                keeps_shape = stride == 1 and channels == width
                offered: Any = self.candidates if flat else self.candidates[index]
                if flat and not keeps_shape:
                    offered = tuple(operation for operation in offered if operation != ZERO)
                name, size_out = f"block{index + 1:02}", _halved(size, stride)
                blocks.append(
                    Block(name, number, place, channels, width, stride, size, size_out, offered)
                )
                channels, size = width, size_out
        return tuple(blocks)

    # ---- discrete architectures ------------------------------------------------------------------

    def decision(self, what: Chain | str) -> Chain:
        """A chain of this space from its text, a published name, or the code that `code` writes.

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
        lengths, found = (
            [stage.blocks for stage in self.stages],
            [len(stage) for stage in chain.stages],
        )
        if found != lengths:
            raise ValueError(
                f"a chain of this space has stages of {lengths} blocks, not of {found}"
            )
        for block, operation in zip(self.blocks, chain.blocks, strict=True):
            block.check(operation)
        return chain

    def _read(self, text: str) -> Chain:
        if text.isascii() and text.isdigit():
            blocks = self.blocks
            if len(text) != len(blocks):
                raise ValueError(
                    f"the code of a chain of this space has {len(blocks)} digits, not {len(text)}: {text}"
                )
            operations = []
            for place, (digit, block) in enumerate(zip(text, blocks, strict=True), 1):
                if int(digit) >= len(block.candidates):
                    raise ValueError(
                        f"digit {place} of the code {text!r} is {digit}, but its block has the candidates 0 to "
                        f"{len(block.candidates) - 1}: {', '.join(block.candidates)}"
                    )
                operations.append(block.candidates[int(digit)])
            return Chain.of(operations, [stage.blocks for stage in self.stages])
        return Chain.named(text) if text in Chain.names() else Chain.parse(text)

    def code(self, chain: Chain | str) -> str:
        """One digit for each block, its column among the candidates: the way NAS-Bench-Macro writes
        architectures.

        Raises:
            ValueError: a block with more than ten candidates, an operation that is none of them.
        """
        digits = []
        for block, operation in zip(self.blocks, self.decision(chain).blocks, strict=True):
            if operation not in block.candidates:
                raise ValueError(
                    f"{operation!r} is no candidate of {block.name}: {', '.join(block.candidates)}"
                )
            digits.append(block.candidates.index(operation))
        if max(digits) > 9:
            raise ValueError(
                "a code has one digit for each block, but a block here has more than ten candidates"
            )
        return "".join(map(str, digits))

    def short_code(self, decision: Chain) -> str | None:
        """`code`, or None where there is none."""
        pairs = zip(self.blocks, decision.blocks, strict=True)
        return (
            self.code(decision) if all(o in block.candidates[:10] for block, o in pairs) else None
        )

    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()) -> Chain:
        """The best operation of every block (ProxylessNAS, section 3.2.1); ties go to the first."""
        operations = []
        for block in self.blocks:
            index = 0
            if len(block.candidates) > 1:
                index = best_operation(
                    relaxation.probabilities(alphas[block.name].detach().double())
                )
            operations.append(block.candidates[index])
        return Chain.of(operations, [stage.blocks for stage in self.stages])

    def random_decision(self, generator: torch.Generator) -> Chain:
        """A chain drawn uniformly from the candidates."""
        picks = [
            int(torch.randint(len(b.candidates), (1,), generator=generator)) for b in self.blocks
        ]
        operations = [block.candidates[k] for block, k in zip(self.blocks, picks, strict=True)]
        return Chain.of(operations, [stage.blocks for stage in self.stages])

    # ---- what it builds --------------------------------------------------------------------------

    def supernet(  # type: ignore[override]
        self, in_channels: int = 3, num_classes: int = 10, *, checkpoint_cells: bool = False
    ) -> ChainSupernet:
        """The network with every choice open; alphas start at 1e-3 times a standard normal.

        Raises:
            ValueError: nothing to choose, or `checkpoint_cells`: a chain has none.
        """
        if checkpoint_cells:
            raise ValueError(
                "a chain has no cells to compute again in backward; BinaryGates() keeps one path in memory"
            )
        return ChainSupernet(self, in_channels, num_classes)

    def network(  # type: ignore[override]
        self,
        chain: Chain | str | None = None,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        auxiliary: bool = False,
    ) -> ChainNetwork:
        """The plain network of a chain, freshly initialised.

        Args:
            chain: a `Chain`, its text, its code, or a published name; None takes the space's own
                `chain`.

        Raises:
            ValueError: no chain at all, one that does not fit (see `decision`), or an auxiliary
                head: there is none.
        """
        if auxiliary:
            raise ValueError("a chain has no auxiliary head: set auxiliary to False")
        if chain is None:
            if self.chain is None:
                raise ValueError(
                    "which chain? This space has none of its own: network(chain, num_classes=...)"
                )
            chain = self.chain
        operations = self.decision(chain).blocks
        shapes = [(block.channels_in, block.channels_out, block.stride) for block in self.blocks]
        built = [
            chain_block(o, *shape, self.activation)
            for o, shape in zip(operations, shapes, strict=True)
        ]
        return self.assembled(built, in_channels, num_classes)

    def assembled(
        self, blocks: Sequence[nn.Module], in_channels: int, num_classes: int
    ) -> ChainNetwork:
        """A network around these modules for the searchable blocks, everything freshly
        initialised."""
        stem, first = self.scaled(self.stem_width), []
        if self.first_width is not None:
            first = [MBConv(stem, self.scaled(self.first_width), 1, 3, 1, self.activation)]
        return ChainNetwork(
            [*first, *blocks],
            channels=self.blocks[-1].channels_out,
            stem_width=stem,
            stem_stride=self.stem_stride,
            last_width=self.head_width,
            num_classes=num_classes,
            in_channels=in_channels,
            activation=self.activation,
            dropout=self.dropout,
        )


class ChainSupernet(ModuleSupernet):
    """The chain with every choice open: `net` is a `ChainNetwork` whose blocks hold a `Choice`
    each.

    `alphas["block01"]` and so on are `(O,)`. The shortcut lies outside the choice: a block gives `x
    + sum_k mix_k o_k(x)`, so `zero` (and `identity` where the shape stays) is an operation whose
    output is 0.
    """

    def __init__(self, space: MBConvChain, in_channels: int, num_classes: int) -> None:
        if all(len(block.candidates) == 1 for block in space.blocks):
            raise ValueError(
                "there is nothing to search: every block of this space has one candidate"
            )
        blocks = [_open_block(block, space.activation) for block in space.blocks]
        net = space.assembled(blocks, in_channels, num_classes)
        super().__init__(net, seed=int(torch.randint(2**31, ())))
        self.space, self.in_channels, self.num_classes = space, in_channels, num_classes
        self.initial = None  # fresh weights come from the space

    def decide(self, relaxation: Relaxation = Softmax()) -> Chain:  # type: ignore[override]
        return self.space.derive(dict(self.alphas.items()), relaxation)

    def cost_view(self) -> CostView:
        like = next(self.net.parameters())
        plain = plain_choices(self.space, self.in_channels, self.num_classes).to(
            like.device, like.dtype
        )
        return CostView(plain)

    def costs(
        self, quantity: Quantity, inputs: Sequence[Any], table: LatencyTable | None = None
    ) -> Costs:
        """As for every supernet; a table of a phone is read for images of the space's size,
        whatever the inputs."""
        if quantity == "latency" and table is not None and table.is_mobile:
            return phone_costs(
                self.space, table, dict(self.alphas.items()), self.num_classes, self.in_channels
            )
        return super().costs(quantity, inputs, table)

    def decision(self, picks: Picks) -> Chain:  # type: ignore[override]
        operations = [block.candidates[picks.get(block.name, 0)] for block in self.space.blocks]
        return Chain.of(operations, [stage.blocks for stage in self.space.stages])

    def skip_count(self, decision: Chain) -> int:  # type: ignore[override]
        """Blocks that were removed."""
        return sum(
            block.keeps_shape and operation in (ZERO, IDENTITY)
            for block, operation in zip(self.space.blocks, decision.blocks, strict=True)
        )

    def one_hot_draw(self, chain: Chain | str) -> Draw:  # type: ignore[override]
        """Mixing weight 1 on the chain's operations. ValueError for an operation that is no
        candidate."""
        chain = self._fitting(chain)
        pairs = zip(self.space.blocks, chain.blocks, strict=True)
        choices = {b.name: [b.candidates.index(o)] for b, o in pairs if b.name in self.alphas}
        return Draw.one_hot(choices, {name: table.detach() for name, table in self.alphas.items()})

    def derived(self, decision: Chain | str, weights: Weights = "keep") -> ChainNetwork:  # type: ignore[override]
        """The plain network of a chain; `"keep"` copies the supernet's tensors.

        The running statistics of kept BatchNorms are those of the supernet's mixture: recalibrate
        them before evaluation.

        Raises:
            ValueError: the chain is not one of this space.
        """
        chain = self._fitting(decision)
        network = self.space.network(chain, self.num_classes, self.in_channels)
        like = next(self.net.parameters())
        network.to(like.device, like.dtype)
        if weights == "keep":
            tensors = self.net.state_dict()
            renamed = {}
            for name in network.state_dict():
                # blocks.3.operation.0.weight of the derived network is
                # ...operation.operations.mb3_k5.0.weight here
                renamed[name] = tensors[self._source(name, network, chain)]
            network.load_state_dict(renamed)
        return network

    def _source(self, name: str, network: ChainNetwork, chain: Chain) -> str:
        """The supernet's name of a tensor of a derived network."""
        head, *rest = name.split(".")
        if head != "blocks":
            return name
        index = int(rest[0]) - (len(network.blocks) - len(chain.blocks))
        if index < 0:
            return name
        inner = rest[2:] if isinstance(network.blocks[int(rest[0])], Residual) else rest[1:]
        place = ["blocks", rest[0], "operation"]
        if len(self.space.blocks[index].candidates) > 1:
            place += ["operations", chain.blocks[index]]
        return ".".join([*place, *inner])

    def _fitting(self, decision: Chain | str) -> Chain:
        chain = self.space.decision(decision)
        for block, operation in zip(self.space.blocks, chain.blocks, strict=True):
            if operation not in block.candidates:
                hint = did_you_mean(operation, block.candidates)
                raise ValueError(f"the supernet offers no {operation!r} for {block.name}{hint}")
        return chain


def _open_block(block: Block, activation: str) -> nn.Module:
    """A block with every candidate."""
    operations: dict[str, nn.Module] = {}
    for operation in block.candidates:
        if block.keeps_shape and operation in (ZERO, IDENTITY):
            operations[operation] = Zero(1)  # beside the shortcut there is nothing
        else:
            plain = chain_block(
                operation, block.channels_in, block.channels_out, block.stride, activation
            )
            operations[operation] = plain.operation if isinstance(plain, Residual) else plain
    if len(operations) == 1:
        (only,) = operations.values()
        return Residual(only, block.keeps_shape)
    return Residual(Choice(operations, name=block.name), block.keeps_shape)


def _halved(size: int, stride: int) -> int:
    """Side of the maps after a padded convolution with this stride."""
    return (size + stride - 1) // stride


def _stages(*widths: int) -> tuple[Stage, ...]:
    """The stages of ProxylessNAS with other widths."""
    return tuple(
        dataclasses.replace(stage, width=w) for stage, w in zip(DEFAULT_STAGES, widths, strict=True)
    )


# Widths and dropout of the authors' released network descriptions
_NAMED: dict[str, dict[str, Any]] = {
    "proxyless": {},
    "proxyless_gpu": {"width_mult": 1.35, "dropout": 0.3, "chain": "proxyless_gpu"},
    "proxyless_cpu": {"width_mult": 1.12, "dropout": 0.2, "chain": "proxyless_cpu"},
    "proxyless_mobile": {
        "stages": _stages(32, 40, 80, 96, 192, 320),
        "dropout": 0.1,
        "chain": "proxyless_mobile",
    },
    "proxyless_mobile_14": {
        "stem_width": 48,
        "first_width": 24,
        "stages": _stages(40, 56, 112, 136, 256, 448),
        "last_width": 1792,
        "dropout": 0.3,
        "chain": "proxyless_mobile_14",
    },
    # Su et al., CVPR 2021, arXiv 2106.09298: three stages for 32x32 images, three candidates for
    # each block
    "nas-bench-macro": {
        "stem_stride": 1,
        "first_width": None,
        "stages": (Stage(64, 2, 2), Stage(128, 3, 2), Stage(256, 3, 2)),
        "candidates": ("identity", "mb3_k3", "mb6_k5"),
        "activation": "relu",
        "image_size": 32,
    },
}
