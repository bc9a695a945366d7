"""The cell space of NAS-Bench-201 (Dong and Yang, ICLR 2020, arXiv 2001.00326)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from gradnas.architectures.dense_cell import MOST_NODES, DenseCell
from gradnas.config import JsonObject, check_numbers
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.base import ImageSpace
from gradnas.spaces.factories import factories_of, names_for_json, space_of_operations
from gradnas.spaces.nas_bench_201.network import NasBench201Network
from gradnas.spaces.nas_bench_201.shape import BenchShape
from gradnas.spaces.nas_bench_201.supernet import NasBench201Supernet
from gradnas.spaces.operations import Factory

# The candidates of the benchmark; their order is that of alpha's columns and breaks ties.
BENCH_NAMES = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


@dataclass(frozen=True)
class NasBench201(ImageSpace[DenseCell]):
    """One cell, stacked in three stages; of its 15,625 architectures the benchmark trained all.

    A cell has its input, its output and nodes between; each node is the sum of one operation of
    every node before it. A stem of a 3x3 convolution and BatchNorm, three stages of `cells` cells
    with residual reductions between them, which halve the maps and double the channels, BatchNorm
    and ReLU, the mean over the pixels, a linear classifier. The defaults are the published size:
    73,306 weights and 243,040 more for every 3x3, 28,000 for every 1x1 convolution of the cell;
    1,686,106 in the supernet, beside 30 alphas (the authors' own has 6,720 more: biases before
    BatchNorms, which change nothing).

    Args:
        channels: of the first stage.
        cells: of each stage.
        nodes: of a cell, its input and its output among them.
        operations: candidate operations in alpha's column order: names of known ones, or a
            dictionary from names to factories `(channels, stride, affine) -> nn.Module`. All keep
            channels and size.

    Raises:
        ValueError: a setting outside its range, an unknown operation (the nearest name is given).
    """

    channels: int = 16
    cells: int = 5
    nodes: int = 4
    operations: Mapping[str, Factory] | Sequence[str] = field(default=BENCH_NAMES)

    def __post_init__(self) -> None:
        for name, least, most in (
            ("channels", 1, None),
            ("cells", 1, None),
            ("nodes", 2, MOST_NODES + 1),
        ):
            value = getattr(self, name)
            is_whole = isinstance(value, int) and not isinstance(value, bool)
            if not is_whole or value < least or (most is not None and value > most):
                limits = f"of at least {least}" if most is None else f"from {least} to {most}"
                raise ValueError(f"{name} must be a whole number {limits}, not {value!r}")
        check_numbers(self)
        factories = factories_of(self.operations)
        if len(factories) < 1:
            raise ValueError("a cell needs at least one operation")
        for name in factories:
            DenseCell(((name,),))  # refuses a name that the text form cannot hold
        # Names and the dictionary that they stand for are the same space: equal, with one repr.
        object.__setattr__(self, "operations", factories)

    def __hash__(self) -> int:
        # Not the factories themselves: equal spaces have equal names.
        return hash((self.channels, self.cells, self.nodes, self.names))

    # ---- description -----------------------------------------------------------------------------

    @cached_property
    def shape(self) -> BenchShape:
        """The sizes, and where each edge stands in alpha."""
        assert isinstance(self.operations, Mapping)
        return BenchShape(self.channels, self.cells, self.nodes, dict(self.operations))

    @property
    def names(self) -> tuple[str, ...]:
        """The operations in alpha's column order."""
        return tuple(self.operations)

    @property
    def num_edges(self) -> int:
        """Rows of the table of alphas."""
        return self.shape.num_edges

    def to_json(self) -> JsonObject:
        """Fields for a configuration file; operations by name."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["operations"] = names_for_json(self.shape.factories)
        return data

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> NasBench201:
        """The inverse of `to_json`; operations must be known ones."""
        return space_of_operations(cls, data, where, BENCH_NAMES)

    # ---- cells -----------------------------------------------------------------------------------

    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()) -> DenseCell:
        """The strongest operation of every edge; `none` is a decision like the others."""
        return self.shape.derive(alphas, relaxation)

    def decision(self, what: DenseCell | str) -> DenseCell:
        """A cell of this space from its text, `|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`.

        Raises:
            ValueError: another text, another number of nodes, an operation that is no candidate.
        """
        cell = DenseCell.parse(what) if isinstance(what, str) else what
        return self.shape.checked(cell)

    def random_decision(self, generator: torch.Generator) -> DenseCell:
        """A cell drawn uniformly."""
        return self.shape.random_decision(generator)

    def collapse_note(self, skips: int) -> str | None:
        num_edges = self.num_edges
        if 3 * skips < 2 * num_edges:
            return None
        return (
            f"{skips} of the {num_edges} operations of the cell are skip connections: the search "
            "may be collapsing, as DARTS is known to do in this space; prefer the cell of an "
            "earlier epoch in metrics.jsonl, or fewer epochs"
        )

    # ---- networks --------------------------------------------------------------------------------

    def supernet(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        fused: bool = True,
        checkpoint_cells: bool = False,
    ) -> NasBench201Supernet:
        """The network with every choice open; alphas start at 1e-3 times a standard normal.

        Args:
            fused: compute the cells by source node (`SharedCell`); False computes them edge by
                edge: the same function, parameters and `state_dict`.
            checkpoint_cells: keep only the input of each cell and compute its inside again in
                backward.
        """
        return NasBench201Supernet(self.shape, in_channels, num_classes, fused, checkpoint_cells)

    def network(
        self,
        cell: DenseCell | str,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        auxiliary: bool = False,
    ) -> NasBench201Network:
        """The plain network of a cell at this size, freshly initialised.

        Raises:
            ValueError: a cell of another space (see `decision`), or an auxiliary head: there is
                none.
        """
        if auxiliary:
            raise ValueError(
                "networks of NAS-Bench-201 have no auxiliary head: set auxiliary to False"
            )
        return self.shape.network(self.decision(cell), num_classes, in_channels)
