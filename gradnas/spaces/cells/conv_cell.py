"""The cell space of DARTS for images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from gradnas.architectures.genotype import Genotype
from gradnas.config import JsonObject, build, check_numbers, did_you_mean
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.base import ImageSpace
from gradnas.spaces.cells.conv_network import ConvNetwork
from gradnas.spaces.cells.shape import CellShape
from gradnas.spaces.cells.supernet import ConvSupernet
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

    Raises:
        ValueError: a setting outside its range, an unknown operation (the nearest name is given).
    """

    channels: int = 16
    cells: int = 8
    nodes: int = 4
    stem: Literal["cifar", "imagenet"] = "cifar"
    operations: Mapping[str, Factory] | Sequence[str] = field(default=DARTS_NAMES)

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
        factories = _factories(self.operations)
        if all(name == "none" for name in factories):
            raise ValueError("a cell needs at least one operation besides 'none'")
        # Names and the dictionary that they stand for are the same space: equal, with one repr.
        object.__setattr__(self, "operations", factories)

    def __hash__(self) -> int:
        # Not the factories themselves: equal spaces have equal names, and that is all a hash needs.
        return hash((self.channels, self.cells, self.nodes, self.stem, self.names))

    # ---- description -----------------------------------------------------------------------------

    @cached_property
    def shape(self) -> CellShape:
        """The sizes, and where each edge and operation stands in alpha."""
        assert isinstance(self.operations, Mapping)
        factories = dict(self.operations)
        return CellShape(self.channels, self.cells, self.nodes, self.stem, factories)

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
        for name, factory in self.shape.factories.items():
            if OPERATIONS.get(name) is not factory:
                raise ValueError(
                    f"your own operation {name!r} cannot be written into a configuration file"
                )
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        data["operations"] = list(self.names)
        return data

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> ConvCell:
        """The inverse of `to_json`; operations must be known ones."""
        others = dict(data)
        names = others.pop("operations", list(DARTS_NAMES))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{where}.operations must be a list of names, not {names!r}")
        # Without the operations first, so that a mistake in them is told with their place.
        space = build(cls, others, where)
        try:
            return dataclasses.replace(space, operations=tuple(names))
        except ValueError as error:
            raise ValueError(f"{where}.operations: {error}") from error

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

    @property
    def has_auxiliary_head(self) -> bool:
        return True

    @property
    def has_drop_path(self) -> bool:
        return True

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


def _factories(operations: Mapping[str, Factory] | Sequence[str]) -> dict[str, Factory]:
    """Operation name -> factory; ValueError for an unknown name or what is no factory."""
    factories: dict[str, Factory] = {}
    if isinstance(operations, Mapping):
        factories.update(operations)
    else:
        for name in operations:
            if name not in OPERATIONS:
                raise ValueError(f"unknown operation {name!r}{did_you_mean(name, OPERATIONS)}")
            factories[name] = OPERATIONS[name]
    for name, factory in factories.items():
        # A dot would split the name of a module in a state dict.
        is_name = isinstance(name, str) and name != "" and "." not in name
        if not is_name or not callable(factory):
            raise ValueError(
                f"operation {name!r} needs a name without dots and a factory "
                "(channels, stride, affine) -> module"
            )
    return factories
