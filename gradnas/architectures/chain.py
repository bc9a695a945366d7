"""Chains: the discrete result of a search over a chain of blocks, as a frozen value with its JSON
file and text.

The text form names the operation of every block, with a bar between stages: `mb3_k5 mb3_k3 zero
zero | mb3_k7 mb3_k3`. `mbE_kK` is an inverted bottleneck of expansion E and kernel K, `identity`
passes its input on, and `zero` is a block that was removed: its shortcut alone is left.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from gradnas.architectures.genotype import (
    Genotype,
    readable_json,
    write_text_atomically,
)
from gradnas.config import did_you_mean

Stages: TypeAlias = tuple[tuple[str, ...], ...]

FORMAT = "gradnas-chain"
VERSION = 1
SPACE_NAME = "MBConvChain"
ZERO, IDENTITY = "zero", "identity"

# Bounds on the work that a hostile text can cause: far beyond any published chain
MAX_EXPANSION, MAX_KERNEL, MAX_BLOCKS = 64, 31, 1_000
_MAX_CHARACTERS = 100_000
_BOTTLENECK = re.compile(r"mb([1-9][0-9]?)_k([1-9][0-9]?)")
_USUAL = (*(f"mb{e}_k{k}" for e in (3, 6) for k in (3, 5, 7)), ZERO, IDENTITY)


def bottleneck(operation: str) -> tuple[int, int] | None:
    """(expansion, kernel) of an operation `mbE_kK`; None for `zero` and `identity`.

    Raises:
        ValueError: the name of no operation of a chain (the nearest one is given), an even kernel,
            or one too large.
    """
    if operation in (ZERO, IDENTITY):
        return None
    found = _BOTTLENECK.fullmatch(operation) if isinstance(operation, str) else None
    if found is None:
        raise ValueError(
            f"unknown operation {operation!r}{did_you_mean(str(operation)[:40], _USUAL)}: a block is mbE_kK, such as "
            f"mb3_k5 (expansion 3, kernel 5), {ZERO} or {IDENTITY}"
        )
    expansion, kernel = int(found[1]), int(found[2])
    if expansion > MAX_EXPANSION or kernel > MAX_KERNEL or kernel % 2 == 0 or kernel < 3:
        raise ValueError(
            f"operation {operation!r}: an expansion is 1..{MAX_EXPANSION}, and a kernel odd, 3..{MAX_KERNEL}"
        )
    return expansion, kernel


@dataclass(frozen=True)
class Chain:
    """The operation of every block of a chain, stage by stage.

    Raises ValueError when it is made of anything else: wrong types, no block, a name that is no
    operation. Whether an operation fits its block is the space's business.
    """

    stages: Stages

    def __post_init__(self) -> None:
        if not isinstance(self.stages, tuple) or not all(
            isinstance(stage, tuple) for stage in self.stages
        ):
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

    # -- making one --------------------------------------------------------------------------------

    @classmethod
    def of(cls, blocks: Sequence[str], lengths: Sequence[int]) -> Chain:
        """The chain of these operations, in stages of these lengths. ValueError where their numbers
        do not agree."""
        if len(blocks) != sum(lengths):
            raise ValueError(
                f"stages of {list(lengths)} blocks hold {sum(lengths)} operations, not {len(blocks)}"
            )
        ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
        return cls(
            tuple(tuple(blocks[end - n : end]) for end, n in zip(ends, lengths, strict=True))
        )

    @classmethod
    def named(cls, name: str) -> Chain:
        """A published chain. Raises ValueError, with the nearest name, for a name not in
        `names()`."""
        if name not in _PUBLISHED:
            known = ", ".join(_PUBLISHED)
            raise ValueError(
                f"no published chain is named {name!r}{did_you_mean(str(name), _PUBLISHED)}; the names are {known}"
            )
        return cls.parse(_PUBLISHED[name])

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every name that `named` knows."""
        return tuple(_PUBLISHED)

    # -- reading one -------------------------------------------------------------------------------

    @property
    def blocks(self) -> tuple[str, ...]:
        """All operations in a row."""
        return tuple(operation for stage in self.stages for operation in stage)

    # -- text --------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """`mb3_k5 mb3_k3 zero zero | mb3_k7 ...`; `parse` reads it back."""
        return " | ".join(" ".join(stage) for stage in self.stages)

    __str__ = to_text

    @classmethod
    def parse(cls, text: str) -> Chain:
        """Read the text form. Raises ValueError for everything else."""
        if not isinstance(text, str):
            raise ValueError(f"a chain's text is a str, not {type(text).__name__}")
        if len(text) > _MAX_CHARACTERS:
            raise ValueError(f"chain text: {len(text)} characters, more than {_MAX_CHARACTERS}")
        return cls(tuple(tuple(stage.split()) for stage in text.split("|")))

    # -- JSON --------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The chain as a dict of JSON types; `from_json` reads it back."""
        stages = [list(stage) for stage in self.stages]
        return {"format": FORMAT, "version": VERSION, "space": SPACE_NAME, "stages": stages}

    @classmethod
    def from_json(cls, obj: Any, where: str = "chain") -> Chain:
        """The chain that `obj` describes; errors name it `where`.

        Raises ValueError, naming the field, for an unknown or missing field, a wrong type or value.
        """
        if not isinstance(obj, dict):
            raise ValueError(f"{where} must be an object, not {_type(obj)}")
        expected = {"format": FORMAT, "version": VERSION, "space": SPACE_NAME}
        for field, value in expected.items():
            found = obj.get(field)
            if type(found) is not type(value) or found != value:  # True is not version 1
                raise ValueError(f"{where}: field {field!r} must be {value!r}, not {found!r}")
        for field in obj:
            if field not in (*expected, "stages"):
                raise ValueError(
                    f"{where}: unknown field {field!r}{did_you_mean(str(field), (*expected, 'stages'))}"
                )
        stages = obj.get("stages")
        if not isinstance(stages, list) or not all(isinstance(stage, list) for stage in stages):
            raise ValueError(
                f"{where}: field 'stages' must be a list of lists of operations, not {stages!r:.100}"
            )
        try:
            return cls(tuple(tuple(stage) for stage in stages))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    # -- files -------------------------------------------------------------------------------------

    def save(self, path: Path | str) -> None:
        """Write the JSON file; a reader sees the old file or the whole new one. Raises OSError."""
        write_text_atomically(Path(path), readable_json(self.to_json()))

    @classmethod
    def load(cls, path: Path | str) -> Chain:
        """Read a JSON file of `save`, or a file with the text form.

        Raises ValueError, naming the file, if it holds neither, and OSError if it cannot be read.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            if text.lstrip().startswith(("{", "[")):  # no text form does
                return cls.from_json(json.loads(text))
            return cls.parse(text)
        except (
            ValueError,
            RecursionError,
        ) as error:  # the errors of JSON and of Unicode are ValueErrors
            raise ValueError(f"{path} does not hold a chain: {error}") from error


def load_architecture(path: Path | str) -> Genotype | Chain:
    """Read a file of `Genotype.save` or `Chain.save`, or either's text. ValueError, naming the
    file, for any other."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        obj = json.loads(text) if text.lstrip().startswith("{") else None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} does not hold a genotype: {error}") from error
    is_chain = obj.get("format") == FORMAT if isinstance(obj, dict) else "Genotype" not in text
    if (
        is_chain and obj is None and "mb" not in text
    ):  # the errors of cells are the better known ones
        is_chain = False
    return Chain.load(path) if is_chain else Genotype.load(path)


def _type(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _expand(text: str) -> str:
    """'53 00 | 76' as text: kernel and expansion of every block, 00 for one that was removed."""
    kept = {"00": ZERO, "|": "|"}
    return " ".join(
        kept[word] if word in kept else f"mb{word[1]}_k{word[0]}" for word in text.split()
    )


_MOBILE = "53 33 00 00 | 73 33 53 53 | 76 53 53 53 | 56 53 53 53 | 76 76 73 73 | 76"
# Cai, Zhu, Han 2019, arXiv:1812.00332, figure 5 and the authors' released network descriptions
_PUBLISHED = {
    "proxyless_gpu": _expand(
        "53 00 00 00 | 73 00 00 33 | 76 00 00 53 | 56 00 33 53 | 76 76 76 56 | 76"
    ),
    "proxyless_cpu": _expand(
        "36 33 33 33 | 36 33 33 53 | 36 00 00 33 | 56 33 33 33 | 56 53 53 33 | 56"
    ),
    "proxyless_mobile": _expand(_MOBILE),
    "proxyless_mobile_14": _expand(_MOBILE),
}
