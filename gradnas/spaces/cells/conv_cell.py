"""The cell space of DARTS for images: the space and its supernet.

Legend: B batch, C channels, H height, W width, E edges, O operations, K classes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from gradnas.architectures.genotype import Genotype
from gradnas.choice import Active, Draw
from gradnas.config import build, did_you_mean
from gradnas.derivation import cheapest_cost, ranked_within, top_edges
from gradnas.latency import Costs, CostView, LatencyTable
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.base import ImageSpace, Supernet, Weights
from gradnas.spaces.cells.conv_network import (
    ConvNetwork,
    cifar_stem,
    imagenet_stem,
)
from gradnas.spaces.cells.costs import (
    cell_options,
    cell_shares,
    cell_view,
    cells_of,
)
from gradnas.spaces.cells.edge_cell import EdgeCell
from gradnas.spaces.cells.fused_cell import (
    FusedCell,
    update_running_statistics,
)
from gradnas.spaces.cells.grouped_cell import (
    Statistics,
    updates_of,
)
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
    """Two cells, normal and reduction, stacked into a network (DARTS, arXiv 1806.09055, sections
    2.1 and 3.1).

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
        if self.stem not in ("cifar", "imagenet"):
            raise ValueError(f"stem must be 'cifar' or 'imagenet', not {self.stem!r}")
        operations = self.operations
        if not isinstance(operations, Mapping):
            for name in operations:
                if name not in OPERATIONS:
                    raise ValueError(f"unknown operation {name!r}{did_you_mean(name, OPERATIONS)}")
            operations = {name: OPERATIONS[name] for name in operations}
        for name, factory in operations.items():
            if not isinstance(name, str) or not name or "." in name or not callable(factory):
                raise ValueError(
                    f"operation {name!r} needs a name without dots and a factory (channels, stride, affine) -> module"
                )
        if all(name == "none" for name in operations):
            raise ValueError("a cell needs at least one operation besides 'none'")
        object.__setattr__(self, "operations", dict(operations))

    def __hash__(self) -> int:
        return hash((self.channels, self.cells, self.nodes, self.stem, self.names))

    # ---- description -----------------------------------------------------------------------------

    @property
    def factories(self) -> dict[str, Factory]:
        """Operation name -> factory, in alpha's column order."""
        return dict(self.operations)  # type: ignore[arg-type]  # __post_init__ made it a dictionary

    @property
    def names(self) -> tuple[str, ...]:
        """The operations in alpha's column order."""
        return tuple(self.operations)

    @property
    def predecessors(self) -> tuple[int, ...]:
        """Incoming edges of each intermediate node: 2, 3, 4, ..."""
        return tuple(range(2, self.nodes + 2))

    @property
    def num_edges(self) -> int:
        """Rows of each table of alphas."""
        return sum(self.predecessors)

    def edge(self, node: int, predecessor: int) -> int:
        """Row of alpha for the edge into intermediate node `node` (from 0)."""
        return sum(self.predecessors[:node]) + predecessor

    def source(self, edge: int) -> int:
        """The predecessor that a row of alpha starts from; the inverse of `edge`."""
        for count in self.predecessors:
            if edge < count:
                return edge
            edge -= count
        raise IndexError(f"there are only {self.num_edges} edges")

    def to_json(self) -> dict[str, Any]:
        """Fields for a configuration file; operations by name."""
        unknown = [
            name for name, factory in self.factories.items() if OPERATIONS.get(name) is not factory
        ]
        if unknown:
            raise ValueError(
                f"your own operation {unknown[0]!r} cannot be written into a configuration file"
            )
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {**fields, "operations": list(self.names)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str) -> ConvCell:
        """The inverse of `to_json`; operations must be known ones."""
        data = dict(data)
        names = data.pop("operations", list(DARTS_NAMES))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{where}.operations must be a list of names, not {names!r}")
        space = build(cls, data, where)
        try:
            return dataclasses.replace(space, operations=tuple(names))
        except ValueError as error:
            raise ValueError(f"{where}.operations: {error}") from error

    # ---- what it builds --------------------------------------------------------------------------

    def supernet(
        self,
        in_channels: int = 3,
        num_classes: int = 10,
        fused: bool = True,
        checkpoint_cells: bool = False,
    ) -> ConvSupernet:
        """The network with every choice open; alphas start at 1e-3 times a standard normal, as in
        DARTS.

        Args:
            fused: compute the cells by source node (`FusedCell`); False computes them edge by edge,
                as published: the same function, parameters and `state_dict`, several times slower.
            checkpoint_cells: keep only the inputs of each cell and compute its inside again in
                backward (Chen et al., arXiv 1604.06174): the memory of about one cell for one more
                    forward pass.
        """
        return ConvSupernet(self, in_channels, num_classes, fused, checkpoint_cells)

    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()) -> Genotype:
        """The two strongest edges into every node with their best operation (DARTS, section
        2.4)."""
        cells = {}
        names = self.names
        excluded = [k for k, name in enumerate(names) if name == "none"]
        for kind in ("normal", "reduce"):
            # float64: strengths that differ in alpha must not tie by rounding
            strength_EO = relaxation.probabilities(alphas[kind].detach().double())
            pairs = top_edges(strength_EO, self.predecessors, excluded)
            cells[kind] = [(names[operation], predecessor) for operation, predecessor in pairs]
        return Genotype.conv(normal=cells["normal"], reduce=cells["reduce"])

    def decision(self, what: Genotype | str) -> Genotype:
        """A genotype from its original text. ValueError for a text that is none."""
        return what if isinstance(what, Genotype) else Genotype.parse(what)

    @property
    def has_auxiliary_head(self) -> bool:
        return True

    @property
    def has_drop_path(self) -> bool:
        return True

    def collapse_note(self, skips: int) -> str | None:
        operations = 2 * self.nodes
        if 2 * skips < operations:
            return None
        return (
            f"{skips} of the {operations} operations of the normal cell are skip connections; the search may be "
            "collapsing (known of long or first-order searches): prefer the genotype of an earlier epoch in "
            "metrics.jsonl, fewer epochs, or a second-order gradient"
        )

    def random_decision(self, generator: torch.Generator) -> Genotype:
        """A cell pair drawn uniformly: two distinct predecessors for each node, operations other
        than `none`."""
        names = [name for name in self.names if name != "none"]

        def cell() -> list[tuple[str, int]]:
            edges = []
            for count in self.predecessors:
                for predecessor in torch.randperm(count, generator=generator)[:2].tolist():
                    edges.append(
                        (
                            names[int(torch.randint(len(names), (1,), generator=generator))],
                            predecessor,
                        )
                    )
            return edges

        return Genotype.conv(normal=cell(), reduce=cell())

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
        if not isinstance(genotype, Genotype) or genotype.kind != "conv":
            kind = genotype.kind if isinstance(genotype, Genotype) else type(genotype).__name__
            raise ValueError(
                f"a convolutional network needs a conv genotype, not one of kind {kind!r}"
            )
        known = {**OPERATIONS, **self.factories}
        for kind, edges in (("normal", genotype.normal), ("reduce", genotype.reduce)):
            for name, _ in edges:
                if name not in known:
                    raise ValueError(
                        f"unknown operation {name!r} in the {kind} cell{did_you_mean(name, known)}"
                    )
        return ConvNetwork(
            genotype.normal,
            genotype.normal_concat,
            genotype.reduce,
            genotype.reduce_concat,
            channels=self.channels,
            cells=self.cells,
            num_classes=num_classes,
            in_channels=in_channels,
            stem=self.stem,
            auxiliary=auxiliary,
            operations=known,
        )


class ConvSupernet(Supernet[Genotype]):
    """The network of cells with every choice open; `alphas["normal"]` and `alphas["reduce"]` are
    `(E, O)`."""

    def __init__(
        self,
        space: ConvCell,
        in_channels: int,
        num_classes: int,
        fused: bool = True,
        checkpoint_cells: bool = False,
    ) -> None:
        super().__init__()
        self.checkpoint_cells = checkpoint_cells
        self.space, self.in_channels, self.num_classes = space, in_channels, num_classes
        channels = space.channels
        if space.stem == "imagenet":
            self.stem0, self.stem1 = imagenet_stem(in_channels, channels)
            before = last = channels
        else:
            self.stem = cifar_stem(in_channels, 3 * channels)
            before = last = 3 * channels
        self.cells = nn.ModuleList()
        reduction_before = space.stem == "imagenet"
        for index in range(space.cells):
            reduction = index in (space.cells // 3, 2 * space.cells // 3)
            channels = 2 * channels if reduction else channels
            make = FusedCell if fused else EdgeCell
            self.cells.append(make(space, (before, last), channels, reduction, reduction_before))
            reduction_before, before, last = reduction, last, space.nodes * channels
        self.classifier = nn.Linear(last, num_classes)
        tables = {
            kind: 1e-3 * torch.randn(space.num_edges, len(space.names))
            for kind in ("normal", "reduce")
        }
        self.alphas = nn.ParameterDict(
            {kind: nn.Parameter(table) for kind, table in tables.items()}
        )

    def forward(self, x_BCHW: Tensor, *, draw: Draw | None = None) -> Tensor:
        """Images to logits `(B, K)`."""
        draw = draw if draw is not None else self.dense_draw()
        if self.space.stem == "imagenet":
            before = self.stem0(x_BCHW)
            last = self.stem1(before)
        else:
            before = last = self.stem(x_BCHW)
        statistics: Statistics = []
        for cell in self.cells:
            assert isinstance(cell, EdgeCell)
            kind = "reduce" if cell.reduction else "normal"
            gates = (draw.mix[kind], draw.active[kind])
            if (
                draw.probed is not None
            ):  # edge by edge, whatever the cell: a probe needs each operation on its own
                if self.checkpoint_cells:
                    raise ValueError(
                        "checkpoint_cells computes a cell again in backward, and this relaxation computes operations "
                        "there itself: build the supernet without checkpoint_cells"
                    )
                probes = (draw.probed[kind], draw.deferred)
                output = cell.edge_by_edge(before, last, *gates, *probes)
            elif self.checkpoint_cells and torch.is_grad_enabled():
                output = _checkpointed(cell, before, last, *gates)
            else:
                output = cell(before, last, *gates, statistics)
            before, last = last, output
        update_running_statistics(updates_of(statistics))
        return self.classifier(last.mean(dim=(2, 3)))

    def decide(self, relaxation: Relaxation = Softmax()) -> Genotype:
        return self.space.derive(dict(self.alphas.items()), relaxation)

    def skip_count(self, decision: Genotype) -> int:
        """Skip connections among the operations of the normal cell (the collapse of DARTS shows
        there)."""
        return sum(name == "skip_connect" for name, _ in decision.normal)

    def cost_view(self) -> CostView:
        with torch.random.fork_rng(
            devices=[]
        ):  # its weights are of no interest, and must not cost random numbers
            plain = ConvSupernet(self.space, self.in_channels, self.num_classes, fused=False)
            view = cell_view(plain)
        view.net.to(self.classifier.weight.device, self.classifier.weight.dtype)
        return view

    def costs(
        self, quantity: str, inputs: Sequence[Any], table: LatencyTable | None = None
    ) -> Costs:
        """As for every supernet; in an expectation each of the n edges into a node counts 2 / n."""
        return dataclasses.replace(
            super().costs(quantity, inputs, table), shares=cell_shares(self.space)
        )

    def cheapest(self, costs: Costs) -> float:
        return costs.fixed + cheapest_cost(
            cell_options(self.space, costs, dict(self.alphas.items()))
        )

    def ranked_within(
        self, strengths: Mapping[str, Tensor], costs: Costs, budget: float
    ) -> Iterator[Genotype]:
        ranked = ranked_within(cell_options(self.space, costs, strengths), budget - costs.fixed)
        return (cells_of(self.space, costs, strengths, picks) for picks in ranked)

    def one_hot_draw(self, genotype: Genotype) -> Draw:
        """Mixing weights 1 on the genotype's edges and operations, all other edges cut."""
        self._check_fits(genotype)
        choices = {}
        for kind, edges in (("normal", genotype.normal), ("reduce", genotype.reduce)):
            row: list[int | None] = [None] * self.space.num_edges
            for k, (name, predecessor) in enumerate(edges):
                row[self.space.edge(k // 2, predecessor)] = self.space.names.index(name)
            choices[kind] = row
        return Draw.one_hot(choices, {kind: table.detach() for kind, table in self.alphas.items()})

    def derived(self, decision: Genotype, weights: Weights = "keep") -> ConvNetwork:
        """The plain network of a genotype at the supernet's size; `"keep"` copies the supernet's
        tensors.

        Kept BatchNorms start at scale 1 and shift 0, as in the supernet; their running statistics
        are those of the supernet's mixture: recalibrate them before evaluation.

        Raises:
            ValueError: the genotype is not one of this space.
        """
        self._check_fits(decision)
        network = self.space.network(decision, self.num_classes, self.in_channels)
        network.to(self.classifier.weight.device, self.classifier.weight.dtype)
        if weights == "keep":
            for name in ("stem", "stem0", "stem1", "classifier"):
                if hasattr(self, name):
                    getattr(network, name).load_state_dict(getattr(self, name).state_dict())
            for source, target in zip(self.cells, network.cells, strict=True):
                edges = decision.reduce if source.reduction else decision.normal
                self._inherit_cell(source, target, edges)  # type: ignore[arg-type]
        return network

    def _check_fits(self, genotype: Genotype) -> None:
        nodes, names = self.space.nodes, self.space.names
        for kind, edges, concat in (
            ("normal", genotype.normal, genotype.normal_concat),
            ("reduce", genotype.reduce, genotype.reduce_concat),
        ):
            if len(edges) != 2 * nodes or tuple(concat) != tuple(range(2, nodes + 2)):
                raise ValueError(
                    f"the {kind} cell has {len(edges) // 2} nodes and the concatenation {list(concat)}; a cell of this "
                    f"supernet has {nodes} nodes, all of them concatenated"
                )
            for name, _ in edges:
                if name not in names:
                    raise ValueError(
                        f"the supernet has no operation {name!r}{did_you_mean(name, names)}"
                    )

    def _inherit_cell(
        self, source: EdgeCell, target: nn.Module, edges: Sequence[tuple[str, int]]
    ) -> None:
        for name in ("preprocess0", "preprocess1"):
            _copy(getattr(source, name).state_dict(), getattr(target, name))
        for k, (name, predecessor) in enumerate(edges):
            row = self.space.edge(k // 2, predecessor)
            _copy(source.operation_state(row, name), target.operations[k])  # type: ignore[index]


def _checkpointed(
    cell: nn.Module, before: Tensor, last: Tensor, mix_EO: Tensor, active: Active
) -> Tensor:
    """The output of a cell whose inside is computed again in backward, at any order of derivative.

    The tensors of the cell are kept as they are now: backward runs when `functional_call` has put
    back others. Running statistics are updated by the first computation alone.
    """
    params, buffers = dict(cell.named_parameters()), dict(cell.named_buffers())
    first = True

    def run(before: Tensor, last: Tensor, mix_EO: Tensor) -> Tensor:
        nonlocal first
        kept = buffers if first else {name: buffer.clone() for name, buffer in buffers.items()}
        first = False
        return functional_call(cell, {**params, **kept}, (before, last, mix_EO, active))

    return checkpoint(run, before, last, mix_EO, use_reentrant=False)


def _copy(state: Mapping[str, Tensor], target: nn.Module) -> None:
    """Load `state`; what only the target has must be the affine part of its BatchNorms."""
    missing, surplus = target.load_state_dict(state, strict=False)
    assert not surplus, surplus
    norms = {n for n, m in target.named_modules() if isinstance(m, nn.BatchNorm2d)}
    assert all(key.rpartition(".")[0] in norms for key in missing), missing
