"""Text as a model of language reads it: several runs side by side, in chunks.

Legend: N tokens of a split, R rows of a stream, T rows of a chunk, B texts read side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from gradnas.config import check_numbers


class Chunk(NamedTuple):
    """Some rows of a stream, and the tokens that follow them.

    Gradients end where a chunk begins (truncated back-propagation), but the hidden state is carried
    over from the chunk before; where `starts` is true it must be zero, since no text of the stream
    comes before this chunk.
    """

    inputs_TB: Tensor
    targets_TB: Tensor
    starts: bool


@dataclass(frozen=True)
class ChunkLengths:
    """How long the chunks of an epoch are (DARTS; Merity et al., arXiv 1708.02182, section 4.5).

    Random, so that the chunks of another epoch begin at other tokens: with one length the same
    tokens would come first in their chunk every time, and their loss would never reach back. A
    chunk has `base` rows, or with `short_probability` half of that; with `deviation` a normal
    number of that standard deviation is added; at least `least`, at most `base + 4 * deviation`.
    """

    base: int = 35
    short_probability: float = 0.05
    deviation: float = 0.0
    least: int = 5

    def __post_init__(self) -> None:
        lengths_fit = self.base >= 1 and self.least >= 1
        is_probability = 0.0 <= self.short_probability <= 1.0
        if not lengths_fit or not is_probability or self.deviation < 0.0:
            raise ValueError(
                "chunk lengths need base and least of at least 1, short_probability in [0, 1] and "
                f"deviation >= 0, not {self}"
            )
        check_numbers(self)

    def length(self, generator: torch.Generator) -> int:
        """The length of one chunk, in rows."""
        uniform = torch.rand((), generator=generator, device="cpu").item()
        normal = torch.randn((), generator=generator, device="cpu").item()
        mean = self.base / 2 if uniform < self.short_probability else float(self.base)
        length = int(mean + self.deviation * normal)
        least = min(self.least, self.base)
        most = self.base + int(4 * self.deviation)
        return max(least, min(length, most))


class TextStream:
    """A split as B texts side by side, read from the top in chunks, again and again.

    The tokens are cut into B runs of R rows (what is left over is dropped); column b is the b-th
    run. The position is this object's own, so a stream for the alphas cannot drift away from its
    hidden state.

    Args:
        tokens_N: a split of a corpus.
        columns: B.
        device: where the chunks go.
        name: of the split, for errors.
        share: the columns that this object gives, of several processes that read the text together;
            None: all.

    Raises:
        ValueError: fewer tokens than two rows of all columns (says how many are needed).
    """

    def __init__(
        self,
        tokens_N: Tensor,
        columns: int,
        device: torch.device | str = "cpu",
        name: str = "text",
        share: slice | None = None,
    ) -> None:
        if columns < 1:
            raise ValueError(f"a stream needs at least one column, not {columns}")
        rows = len(tokens_N) // columns
        if rows < 2:
            raise ValueError(
                f"the {name} split has {len(tokens_N)} tokens, but {columns} streams of a batch "
                f"need at least {2 * columns} (a row of inputs and one of targets); use a smaller "
                "batch or a longer text"
            )
        runs_BR = tokens_N[: rows * columns].reshape(columns, rows)
        if share is not None:
            runs_BR = runs_BR[share]
        self.data_RB = runs_BR.t().contiguous().to(device)  # a chunk is then one piece of memory
        self.row = 0

    @property
    def rows(self) -> int:
        """Rows that are inputs: each has a row of targets after it."""
        return len(self.data_RB) - 1

    @property
    def finished(self) -> bool:
        """Whether the text was read to its end; the next chunk then starts over."""
        return self.row >= self.rows

    def next(self, length: int) -> Chunk:
        """The next `length` rows, fewer at the end of the text."""
        if length < 1:
            raise ValueError(f"a chunk has at least one row, not {length}")
        if self.finished:
            self.row = 0
        first = self.row
        last = min(first + length, self.rows)
        self.row = last
        inputs_TB = self.data_RB[first:last]
        targets_TB = self.data_RB[first + 1 : last + 1]
        return Chunk(inputs_TB, targets_TB, starts=first == 0)

    def rewind(self) -> None:
        """Back to the top."""
        self.row = 0

    def state_dict(self) -> dict[str, int]:
        """The position."""
        return {"row": self.row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The inverse of `state_dict`. ValueError for a position outside this text."""
        row = state["row"]
        if not 0 <= row <= self.rows:
            raise ValueError(
                f"row {row} lies outside a text of {self.rows} rows: the state is of another corpus"
            )
        self.row = row
