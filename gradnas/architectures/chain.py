"""Chains: the discrete result of a search over a chain of blocks, as a frozen value with its JSON
file and text.

The text form names the operation of every block, with a bar between stages: `mb3_k5 mb3_k3 zero
zero | mb3_k7 mb3_k3`. `mbE_kK` is an inverted bottleneck of expansion E and kernel K, `identity`
passes its input on, and `zero` is a block that was removed: its shortcut alone is left.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gradnas.architectures.base import (
    MAX_CHARACTERS,
    Architecture,
    check_known,
    checked_object,
    is_version,
)
from gradnas.architectures.published import CHAINS
from gradnas.config import Json, JsonObject, did_you_mean

Stages: TypeAlias = tuple[tuple[str, ...], ...]

VERSION = 1
SPACE_NAME = "MBConvChain"
ZERO = "zero"
IDENTITY = "identity"

# Bounds on the work that a hostile text can cause: far beyond any published chain
MAX_EXPANSION = 64
MAX_KERNEL = 31
MAX_BLOCKS = 1_000

_BOTTLENECK = re.compile(r"mb([1-9][0-9]?)_k([1-9][0-9]?)")
# What a misspelt operation is compared with
_USUAL = ("mb3_k3", "mb3_k5", "mb3_k7", "mb6_k3", "mb6_k5", "mb6_k7", ZERO, IDENTITY)


def bottleneck(operation: str) -> tuple[int, int] | None:
    """(expansion, kernel) of an operation `mbE_kK`; None for `zero` and `identity`.

    Raises:
        ValueError: the name of no operation of a chain (the nearest one is given), an even kernel,
            or one too large.
    """
    if operation in (ZERO, IDENTITY):
        return None
    numbers = _BOTTLENECK.fullmatch(operation) if isinstance(operation, str) else None
    if numbers is None:
        hint = did_you_mean(str(operation)[:40], _USUAL)
        raise ValueError(
            f"unknown operation {operation!r}{hint}: a block is mbE_kK, such as "
            f"mb3_k5 (expansion 3, kernel 5), {ZERO} or {IDENTITY}"
        )
    expansion = int(numbers[1])
    kernel = int(numbers[2])
    kernel_fits = 3 <= kernel <= MAX_KERNEL and kernel % 2 == 1
    if expansion > MAX_EXPANSION or not kernel_fits:
        raise ValueError(
            f"operation {operation!r}: an expansion is 1..{MAX_EXPANSION}, "
            f"and a kernel odd, 3..{MAX_KERNEL}"
        )
    return expansion, kernel


@dataclass(frozen=True)
class Chain(Architecture):
    """The operation of every block of a chain, stage by stage.

    Raises ValueError when it is made of anything else: wrong types, no block, a name that is no
    operation. Whether an operation fits its block is the space's business.
    """

    stages: Stages

    format: ClassVar[str] = "gradnas-chain"
    noun: ClassVar[str] = "chain"
    published_texts: ClassVar[Mapping[str, str]] = CHAINS

    def __post_init__(self) -> None:
        if not _is_stages(self.stages):
            raise ValueError(f"stages must be a tuple of tuples of operations, not {self.stages!r}")
        if not self.stages or not all(self.stages):
            raise ValueError("a chain needs at least one stage, and every stage at least one block")
        if len(self.blocks) > MAX_BLOCKS:
            raise ValueError(f"a chain has at most {MAX_BLOCKS} blocks, not {len(self.blocks)}")
        for number, stage in enumerate(self.stages, 1):
            for place, operation in enumerate(stage, 1):
                try:
                    bottleneck(operation)
                except ValueError as error:
                    raise ValueError(f"stage {number}, block {place}: {error}") from error

    @classmethod
    def of(cls, blocks: Sequence[str], lengths: Sequence[int]) -> Chain:
        """The chain of these operations, in stages of these lengths.

        Raises ValueError where their numbers do not agree.
        """
        if len(blocks) != sum(lengths):
            raise ValueError(
                f"stages of {list(lengths)} blocks hold {sum(lengths)} operations, "
                f"not {len(blocks)}"
            )
        stages = []
        first = 0
        for length in lengths:
            stages.append(tuple(blocks[first : first + length]))
            first += length
        return cls(tuple(stages))

    @property
    def blocks(self) -> tuple[str, ...]:
        """All operations in a row."""
        return tuple(itertools.chain.from_iterable(self.stages))

    # -- text --------------------------------------------------------------------------------------

    def parts(self) -> dict[str, str]:
        """As the alphas of a search are called: `block01`."""
        return {f"block{place:02}": operation for place, operation in enumerate(self.blocks, 1)}

    def to_text(self) -> str:
        """`mb3_k5 mb3_k3 zero zero | mb3_k7 ...`; `parse` reads it back."""
        return " | ".join(" ".join(stage) for stage in self.stages)

    @classmethod
    def parse(cls, text: str) -> Chain:
        """Read the text form. Raises ValueError for everything else."""
        if not isinstance(text, str):
            raise ValueError(f"a chain's text is a str, not {type(text).__name__}")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"chain text: {len(text)} characters, more than {MAX_CHARACTERS}")
        return cls(tuple(tuple(stage.split()) for stage in text.split("|")))

    @classmethod
    def resembles(cls, text: str) -> bool:
        """Whether a text names a bottleneck."""
        return "mb" in text

    # -- JSON --------------------------------------------------------------------------------------

    def to_json(self) -> JsonObject:
        """The chain as a dict of JSON types; `from_json` reads it back."""
        return {
            "format": self.format,
            "version": VERSION,
            "space": SPACE_NAME,
            "stages": [list(stage) for stage in self.stages],
        }

    @classmethod
    def from_json(cls, obj: Json, where: str = "chain") -> Chain:
        """The chain that `obj` describes; errors name it `where`.

        Raises ValueError, naming the field, for an unknown or missing field, a wrong type or value.
        """
        obj = checked_object(obj, cls.format, where)
        if not is_version(obj.get("version"), VERSION):
            raise ValueError(
                f"{where}: field 'version' must be {VERSION}, not {obj.get('version')!r}"
            )
        if obj.get("space") != SPACE_NAME:
            raise ValueError(
                f"{where}: field 'space' must be {SPACE_NAME!r}, not {obj.get('space')!r}"
            )
        check_known(obj, ("format", "version", "space", "stages"), where)
        stages = obj.get("stages")
        if not isinstance(stages, list) or not all(isinstance(stage, list) for stage in stages):
            raise ValueError(
                f"{where}: field 'stages' must be a list of lists of operations, "
                f"not {stages!r:.100}"
            )
        try:
            return cls(tuple(tuple(stage) for stage in stages))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def _is_stages(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(stage, tuple) for stage in value)
