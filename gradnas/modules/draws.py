"""`Draw` is one setting of all choices of a network; `using` says which one holds.

Legend: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Active = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Draw:
    """One setting of all choices, made by a relaxation from the alphas.

    Attributes:
        mix: choice name -> mixing weights, `(E, O)`, or `(O,)` for a single choice. Differentiable
            in the alphas.
        active: choice name -> for each edge (one edge for a single choice) the operations that must
            be computed, in ascending order. The others have mixing weight zero and are never run.
        log_prob: scalar log-probability of the sampled architecture, where the relaxation samples;
            else None.
        probability: choice name -> probability of each operation, shaped and differentiable as
            `mix`, where the relaxation samples; None where the mixing weights themselves are the
            probabilities.
        probed: choice name -> for each edge further operations, of mixing weight zero, whose
            outputs the gradient of the mixing weights needs: they are computed without a graph, and
            only where that gradient is wanted.
        deferred: compute them in backward, which keeps no outputs.
        skip: weight of the input of every edge, beside its operations; 0: none (see `Additions`).
    """

    mix: Mapping[str, Tensor]
    active: Mapping[str, Active]
    log_prob: Tensor | None = None
    probability: Mapping[str, Tensor] | None = None
    probed: Mapping[str, Active] | None = None
    deferred: bool = False
    skip: float = 0.0

    @property
    def probabilities(self) -> Mapping[str, Tensor]:
        """What an expectation over architectures, such as the latency, weighs operations with."""
        return self.mix if self.probability is None else self.probability

    @property
    def is_dense(self) -> bool:
        """Whether every operation is computed."""
        for name, rows in self.active.items():
            num_operations = self.mix[name].shape[-1]
            if any(len(row) < num_operations for row in rows):
                return False
        return True

    @staticmethod
    def dense(mix: Mapping[str, Tensor]) -> Draw:
        """A draw in which every operation is active."""
        everything: dict[str, Active] = {}
        for name, weights in mix.items():
            num_edges = 1 if weights.dim() == 1 else weights.shape[0]
            num_operations = weights.shape[-1]
            everything[name] = (tuple(range(num_operations)),) * num_edges
        return Draw(mix, everything)

    def settled(self, fixed: Mapping[str, Mapping[int, int | None]]) -> Draw:
        """With weight 1 on one operation of some edges, whatever was drawn there.

        Args:
            fixed: choice name -> edge (0 of a single choice) -> its operation, or None to cut it.
        """
        mix = dict(self.mix)
        active = dict(self.active)
        for name, columns in fixed.items():
            table = mix[name]
            rows = list(active[name])
            decided = torch.zeros_like(table)
            is_open = torch.ones_like(table)
            decided_EO = decided.view(-1, table.shape[-1])
            open_EO = is_open.view(-1, table.shape[-1])
            for edge, column in columns.items():
                open_EO[edge] = 0.0
                rows[edge] = () if column is None else (column,)
                if column is not None:
                    decided_EO[edge, column] = 1.0
            mix[name] = table * is_open + decided
            active[name] = tuple(rows)
        return replace(self, mix=mix, active=active)

    @staticmethod
    def one_hot(choices: Mapping[str, Sequence[int | None]], like: Mapping[str, Tensor]) -> Draw:
        """The draw of one discrete architecture.

        Args:
            choices: choice name -> for each edge the index of its operation, or None to cut it.
            like: choice name -> a table of the shape, type and device that is wanted.
        """
        mix = {name: torch.zeros_like(table) for name, table in like.items()}
        active: dict[str, Active] = {}
        for name, indices in choices.items():
            is_single = mix[name].dim() == 1
            mix_EO = mix[name].unsqueeze(0) if is_single else mix[name]  # a view of the table
            rows: list[tuple[int, ...]] = []
            for edge, index in enumerate(indices):
                if index is None:
                    rows.append(())
                else:
                    rows.append((index,))
                    mix_EO[edge, index] = 1.0
            active[name] = tuple(rows)
        return Draw(mix, active)


@dataclass(frozen=True)
class Additions:
    """What a method asks of a supernet beside operations and their alphas.

    Attributes:
        channel_share: operations see the first of so many equal parts of the channels; the other
            parts pass by them (PC-DARTS). 1: they see all.
        edge_weights: every edge has an alpha of its own, and a softmax of those that enter a node
            weighs them.
        auxiliary_skip: beside its operations every edge passes on its input, with a weight that
            each draw says (DARTS-).
    """

    channel_share: int = 1
    edge_weights: bool = False
    auxiliary_skip: bool = False

    def __or__(self, other: Additions) -> Additions:
        return Additions(
            max(self.channel_share, other.channel_share),
            self.edge_weights or other.edge_weights,
            self.auxiliary_skip or other.auxiliary_skip,
        )


class OutsideSearch(ValueError, RuntimeError):
    """A network with choices ran where no search says what they mix."""


_current: ContextVar[Draw | None] = ContextVar("gradnas_draw", default=None)


@contextmanager
def using(draw: Draw) -> Iterator[None]:
    """Within this block every `Choice` that runs takes its mixing weights from `draw`."""
    token = _current.set(draw)
    try:
        yield
    finally:
        _current.reset(token)


def current() -> Draw | None:
    """The setting that holds here; None outside of `using`."""
    return _current.get()
