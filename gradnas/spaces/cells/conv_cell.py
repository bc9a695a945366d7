"""The cell space of DARTS for images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gradnas.architectures.genotype import Genotype
from gradnas.config import JsonObject, check_numbers, did_you_mean
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.base import ImageSpace
from gradnas.spaces.cells.conv_network import ConvNetwork
from gradnas.spaces.cells.robust import ROBUST_SPACES
from gradnas.spaces.cells.shape import KINDS, CellKind, CellShape, Sets
from gradnas.spaces.cells.supernet import ConvSupernet
from gradnas.spaces.factories import factories_of, is_ordered, names_for_json, space_of_operations
from gradnas.spaces.operations import OPERATIONS, Factory

# The candidates of DARTS; their order is that of alpha's columns and breaks ties.
DARTS_NAMES = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
DARTS_OPERATIONS: dict[str, Factory] = {name: OPERATIONS[name] for name in DARTS_NAMES}
"""The eight operations of DARTS (arXiv 1806.09055, 3.1), by name, in the order of its tables."""


@dataclass(frozen=True)
class ConvCell(ImageSpace[Genotype]):
    """Two cells, normal and reduction, stacked into a network (DARTS, arXiv 1806.09055, 2.1, 3.1).

    Args:
        channels: of the first cell; doubled at each of the two reduction cells.
        cells: at least 2; the reduction cells sit at one third and two thirds.
        nodes: intermediate nodes of a cell, each with an edge from both inputs and from every
            earlier node.
        stem: `"cifar"` keeps the resolution, `"imagenet"` divides it by 8.
        operations: candidate operations in alpha's column order: names of known ones, or a
            dictionary from names to factories `(channels, stride, affine) -> nn.Module`, e.g.
            `{**DARTS_OPERATIONS, "my_op": my_factory}`.
        edge_operations: where edges have other operations than each other: `"normal"` and
            `"reduce"` -> for every edge (into the first node from states 0 and 1, into the second
            from 0, 1 and 2, ...) the names of its operations, which are the columns of its row of
            alpha; as many for each edge. Names out of `operations`, or known ones.

    Raises:
        ValueError: a setting outside its range, an unknown operation (the nearest name is given).
    """

    has_auxiliary_head: ClassVar[bool] = True
    has_drop_path: ClassVar[bool] = True

    channels: int = 16
    cells: int = 8
    nodes: int = 4
    stem: Literal["cifar", "imagenet"] = "cifar"
    operations: Mapping[str, Factory] | Sequence[str] = field(default=DARTS_NAMES)
    edge_operations: Mapping[str, Sequence[Sequence[str]]] | None = None

    def __post_init__(self) -> None:
        for name, least in (("channels", 2), ("cells", 2), ("nodes", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(
                    f"{name} must be a whole number of at least {least}, not {value!r}"
                )
        check_numbers(self)
        if self.stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem must be 'cifar' or 'imagenet', not {self.stem!r}")
        factories = factories_of(self.operations)
        if self.edge_operations is not None:
            num_edges = sum(range(2, self.nodes + 2))
            known = {**OPERATIONS, **factories}
            columns = _columns_of_edges(self.edge_operations, known, num_edges)
            offered = {name for rows in columns.values() for names in rows for name in names}
            # Those that some edge has, in one order.
            factories = {name: known[name] for name in known if name in offered}
            object.__setattr__(self, "edge_operations", columns)
        if all(name == "none" for name in factories):
            raise ValueError("a cell needs at least one operation besides 'none'")
        # Names and the dictionary that they stand for are the same space: equal, with one repr.
        object.__setattr__(self, "operations", factories)

    def __hash__(self) -> int:
        # Not the factories themselves: equal spaces have equal names, and that is all a hash needs.
        return hash((self.channels, self.cells, self.nodes, self.stem, self.names))

    @classmethod
    def named(cls, name: str, **settings: Any) -> ConvCell:
        """A published space, with other settings where they are given: `named("S2", cells=5)`.

        `S1` to `S4` are those on which plain DARTS is known to fail (Zela et al., ICLR 2020, arXiv
        1909.09656): S1 has two operations on each edge, those that it most wanted there; S2
        `skip_connect` and `sep_conv_3x3`; S3 `none` too; S4 `sep_conv_3x3` and random numbers.

        Raises:
            ValueError: another name (the nearest is given), a setting outside its range.
        """
        if name not in ROBUST_SPACES:
            known = ", ".join(ROBUST_SPACES)
            hint = did_you_mean(str(name), ROBUST_SPACES)
            raise ValueError(f"unknown space of cells {name!r}{hint}; the names are {known}")
        return cls(**{**ROBUST_SPACES[name], **settings})

    # ---- description -----------------------------------------------------------------------------

    @cached_property
    def shape(self) -> CellShape:
        """The sizes, and where each edge and operation stands in alpha."""
        assert isinstance(self.operations, Mapping)
        factories = dict(self.operations)
        sets: Any = self.edge_operations  # checked, as tuples
        return CellShape(self.channels, self.cells, self.nodes, self.stem, factories, sets)

    @property
    def names(self) -> tuple[str, ...]:
        """The operations in alpha's column order."""
        return tuple(self.operations)

    @property
    def num_edges(self) -> int:
        """Rows of each table of alphas."""
        return self.shape.num_edges

    def to_json(self) -> JsonObject:
        """Fields for a configuration file; operations by name."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["operations"] = names_for_json(self.shape.factories)
        sets = self.shape.sets
        if sets is None:
            # As in the files of earlier versions, which know of no such field.
            del data["edge_operations"]
        else:
            data["edge_operations"] = {
                kind: [list(names) for names in rows] for kind, rows in sets.items()
            }
        return data

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> ConvCell:
        """The inverse of `to_json`; operations must be known ones."""
        others = dict(data)
        sets = others.pop("edge_operations", None)
        space = space_of_operations(cls, others, where, DARTS_NAMES)
        if sets is None:
            return space
        try:
            return dataclasses.replace(space, edge_operations=sets)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{where}.{error}") from error

    # ---- genotypes -------------------------------------------------------------------------------

    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()) -> Genotype:
        """The two strongest edges into each node with their best operation (DARTS, section 2.4)."""
        return self.shape.derive(alphas, relaxation)

    def decision(self, what: Genotype | str) -> Genotype:
        """A genotype from its original text. ValueError for a text that is none."""
        return what if isinstance(what, Genotype) else Genotype.parse(what)

    def random_decision(self, generator: torch.Generator) -> Genotype:
        """A cell pair drawn uniformly: two distinct predecessors a node, no operation `none`."""
        return self.shape.random_decision(generator)

    def collapse_note(self, skips: int) -> str | None:
        num_operations = 2 * self.nodes
        if 2 * skips < num_operations:
            return None
        return (
            f"{skips} of the {num_operations} operations of the normal cell are skip connections; "
            "the search may be collapsing (known of long or first-order searches): prefer the "
            "genotype of an earlier epoch in metrics.jsonl, fewer epochs, or a second-order "
            "gradient"
        )

    # ---- networks --------------------------------------------------------------------------------

    def supernet(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        fused: bool = True,
        checkpoint_cells: bool = False,
    ) -> ConvSupernet:
        """The network with every choice open; alphas start at 1e-3 times a standard normal.

        Args:
            fused: compute the cells by source node (`FusedCell`); False computes them edge by edge,
                as published: the same function, parameters and `state_dict`, several times slower.
            checkpoint_cells: keep only the inputs of each cell and compute its inside again in
                backward (Chen et al., arXiv 1604.06174): the memory of about one cell for one more
                forward pass.
        """
        return ConvSupernet(self.shape, in_channels, num_classes, fused, checkpoint_cells)

    def network(
        self,
        genotype: Genotype,
        num_classes: int = 10,
        in_channels: int = 3,
        auxiliary: bool = False,
    ) -> ConvNetwork:
        """The plain network of a genotype at this size, freshly initialised.

        Raises:
            ValueError: a genotype of another space, or with an operation that is not known here.
        """
        return self.shape.network(genotype, num_classes, in_channels, auxiliary)


def _columns_of_edges(
    given: object, factories: Mapping[str, Factory], num_edges: int
) -> dict[CellKind, Sets]:
    """The operations of every edge of both cells, checked.

    Raises:
        ValueError: a cell or an edge is missing, an unknown operation, one that stands twice, an
            edge with nothing but `none`, edges with unequal numbers of operations.
    """
    if not isinstance(given, Mapping) or set(given) != set(KINDS):
        raise ValueError(
            "edge_operations must be a dictionary with 'normal' and 'reduce', and for each a list "
            "of the operations of every edge"
        )
    columns: dict[CellKind, Sets] = {}
    for kind in KINDS:
        if not is_ordered(given[kind]):
            raise ValueError(
                f"edge_operations: the {kind} cell needs a list of the operations of every edge, "
                f"not {given[kind]!r:.80}"
            )
        rows: list[tuple[str, ...]] = []
        for row, given_names in enumerate(given[kind]):
            listed: list[Any] = list(given_names) if is_ordered(given_names) else [None]
            if not all(isinstance(name, str) for name in listed):
                raise ValueError(
                    f"edge_operations: edge {row} of the {kind} cell needs a list of names, in "
                    f"the order of alpha's columns, not {given_names!r:.80}"
                )
            rows.append(tuple(listed))
        if len(rows) != num_edges:
            raise ValueError(
                f"edge_operations: the {kind} cell has {num_edges} edges, and {len(rows)} of them "
                "have operations"
            )
        for row, names in enumerate(rows):
            where = f"edge_operations: edge {row} of the {kind} cell"
            for name in names:
                if name not in factories:
                    hint = did_you_mean(str(name), factories)
                    raise ValueError(f"{where}: unknown operation {name!r}{hint}")
            if len(set(names)) < len(names):
                raise ValueError(f"{where} offers an operation twice: {', '.join(names)}")
            if all(name == "none" for name in names):
                raise ValueError(f"{where} needs at least one operation besides 'none'")
        columns[kind] = tuple(rows)
    sizes = sorted({len(names) for rows in columns.values() for names in rows})
    if len(sizes) > 1:
        raise ValueError(
            f"edge_operations: edges have {sizes[0]} to {sizes[-1]} operations, and the rows of a "
            "table of alphas are equally long: give every edge as many ('none' may be one of them)"
        )
    return columns
