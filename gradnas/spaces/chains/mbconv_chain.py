"""The chain space of ProxylessNAS: inverted bottlenecks in stages, each with its own candidates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from gradnas.architectures.chain import Chain
from gradnas.config import check_numbers, did_you_mean
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.base import ImageSpace
from gradnas.spaces.chains.mbconv_network import ACTIVATIONS, ChainNetwork
from gradnas.spaces.chains.shape import (
    Block,
    Candidates,
    ChainShape,
    Stage,
    check_stride,
    check_whole,
    halved,
    lay_out,
    make_divisible,
)
from gradnas.spaces.chains.supernet import ChainSupernet

# The candidates of ProxylessNAS; their order is that of alpha's columns and breaks ties.
PROXYLESS_NAMES = ("mb3_k3", "mb6_k3", "mb3_k5", "mb6_k5", "mb3_k7", "mb6_k7", "zero")


DEFAULT_STAGES = (
    Stage(24, 4, 2),
    Stage(40, 4, 2),
    Stage(80, 4, 2),
    Stage(96, 4),
    Stage(192, 4, 2),
    Stage(320, 1),
)


@dataclass(frozen=True)
class MBConvChain(ImageSpace[Chain]):
    """A chain of blocks in stages (ProxylessNAS, arXiv 1812.00332, section 4.2).

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
    candidates: Candidates = PROXYLESS_NAMES
    activation: Literal["relu6", "relu"] = "relu6"
    last_width: int = 1280
    width_mult: float = 1.0
    image_size: int = 224
    dropout: float = 0.0
    chain: str | None = None

    def __post_init__(self) -> None:
        self._check_settings()
        # JSON and users give lists of plain numbers; a space has a hash only if it holds tuples.
        stages: list[Stage] = []
        for stage in self.stages:
            stages.append(stage if isinstance(stage, Stage) else Stage(*stage))
        object.__setattr__(self, "stages", tuple(stages))
        candidates: list[str | tuple[str, ...]] = []
        for entry in self.candidates:
            candidates.append(entry if isinstance(entry, str) else tuple(entry))
        object.__setattr__(self, "candidates", tuple(candidates))

        for block in self.blocks:
            where = f"block {block.place} of stage {block.stage}"
            if not block.candidates:
                raise ValueError(f"{where} has no candidates")
            if len(set(block.candidates)) < len(block.candidates):
                raise ValueError(f"{where} offers a candidate twice")
            for operation in block.candidates:
                block.check(operation)
        if self.chain is not None:
            self.decision(self.chain)

    def _check_settings(self) -> None:
        """ValueError for a value that is wrong whatever the other settings are."""
        check_whole("stem_width", self.stem_width, 1)
        check_whole("last_width", self.last_width, 1)
        check_whole("image_size", self.image_size, 1)
        if self.first_width is not None:
            check_whole("first_width", self.first_width, 1)
        check_stride("stem_stride", self.stem_stride)
        if self.activation not in ACTIVATIONS:
            hint = did_you_mean(str(self.activation), ACTIVATIONS)
            raise ValueError(f"activation must be 'relu6' or 'relu', not {self.activation!r}{hint}")
        is_number = isinstance(self.width_mult, (int, float))
        if isinstance(self.width_mult, bool) or not is_number or self.width_mult <= 0:
            raise ValueError(f"width_mult must be a number above 0, not {self.width_mult!r}")
        check_numbers(self)
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), not {self.dropout}")
        if isinstance(self.stages, (str, Mapping)) or not self.stages:
            raise ValueError(
                f"stages must be a sequence of Stage(width, blocks, stride), not {self.stages!r}"
            )
        if isinstance(self.candidates, str) or not self.candidates:
            raise ValueError(
                f"candidates must be a sequence of operations, not {self.candidates!r}"
            )

    @classmethod
    def named(cls, name: str) -> MBConvChain:
        """A published space; ValueError, with the nearest name, for a name not in `names()`.

        `proxyless` is the default space, `nas-bench-macro` that of the benchmark, and the others
        are those of the four published networks: their `network()` is that network.
        """
        if name not in _NAMED:
            known = ", ".join(_NAMED)
            hint = did_you_mean(str(name), _NAMED)
            raise ValueError(f"unknown chain space {name!r}{hint}; the names are {known}")
        return cls(**_NAMED[name])

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every name that `named` knows."""
        return tuple(_NAMED)

    # ---- description -----------------------------------------------------------------------------

    @property
    def blocks(self) -> tuple[Block, ...]:
        """All searchable blocks in order."""
        return self.shape.blocks

    @cached_property
    def shape(self) -> ChainShape:
        """The chain that these settings describe, with every width multiplied and rounded."""
        stem_width = self._scaled(self.stem_width)
        first_width = None if self.first_width is None else self._scaled(self.first_width)
        # The last width grows with the multiplier, but does not shrink.
        last_width = self._scaled(self.last_width) if self.width_mult > 1.0 else self.last_width
        stages = []
        for stage in self.stages:
            stages.append(dataclasses.replace(stage, width=self._scaled(stage.width)))
        blocks = lay_out(
            stages,
            self.candidates,
            channels=stem_width if first_width is None else first_width,
            size=halved(self.image_size, self.stem_stride),
        )
        return ChainShape(
            stem_width=stem_width,
            stem_stride=self.stem_stride,
            first_width=first_width,
            blocks=blocks,
            last_width=last_width,
            activation=self.activation,
            dropout=self.dropout,
            image_size=self.image_size,
        )

    def _scaled(self, width: int) -> int:
        """A width times `width_mult`; multiplied by 1 it is not rounded either."""
        if self.width_mult == 1.0:
            return width
        return make_divisible(width * self.width_mult)

    # ---- discrete architectures ------------------------------------------------------------------

    def decision(self, what: Chain | str) -> Chain:
        """A chain of this space from its text, a published name, or the code that `code` writes.

        Raises:
            ValueError: none of these, other numbers of stages or blocks, or an operation that does
                not fit its block.
        """
        return self.shape.decision(what)

    def code(self, chain: Chain | str) -> str:
        """One digit for each block, its column among the candidates (as NAS-Bench-Macro writes).

        Raises:
            ValueError: a block with more than ten candidates, an operation that is none of them.
        """
        return self.shape.code(chain)

    def short_code(self, decision: Chain) -> str | None:
        """`code`, or None where there is none."""
        for block, operation in self.shape.paired(decision):
            if operation not in block.candidates[:10]:
                return None
        return self.code(decision)

    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()) -> Chain:
        """The best operation of every block (ProxylessNAS, section 3.2.1); ties go to the first."""
        return self.shape.derive(alphas, relaxation)

    def random_decision(self, generator: torch.Generator) -> Chain:
        """A chain drawn uniformly from the candidates."""
        return self.shape.random_decision(generator)

    # ---- what it builds --------------------------------------------------------------------------

    def supernet(
        self, in_channels: int = 3, num_classes: int = 10, *, checkpoint_cells: bool = False
    ) -> ChainSupernet:
        """The network with every choice open; alphas start at 1e-3 times a standard normal.

        Raises:
            ValueError: nothing to choose, or `checkpoint_cells`: a chain has none.
        """
        if checkpoint_cells:
            raise ValueError(
                "a chain has no cells to compute again in backward; "
                "BinaryGates() keeps one path in memory"
            )
        return ChainSupernet(self.shape, in_channels, num_classes)

    def network(
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
        return self.shape.network(self.decision(chain), num_classes, in_channels)


def _stages(*widths: int) -> tuple[Stage, ...]:
    """The stages of ProxylessNAS with other widths."""
    stages = []
    for stage, width in zip(DEFAULT_STAGES, widths, strict=True):
        stages.append(dataclasses.replace(stage, width=width))
    return tuple(stages)


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
