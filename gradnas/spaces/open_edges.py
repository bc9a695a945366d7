"""Edges with every operation open: what the cells of all supernets have in common.

Legend: B batch, C channels, H height, W width, E edges, O operations.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas.modules.draws import Active, Additions
from gradnas.probing import Probes, probed
from gradnas.spaces.edge_operations import AUXILIARY, EdgeOperations, is_zero
from gradnas.spaces.operations import FactorizedReduce


class OpenEdges(EdgeOperations):
    """A cell in which every edge mixes its operations, and has what methods add beside them."""

    # ---- what methods ask for --------------------------------------------------------------------

    def check(self, additions: Additions) -> None:
        """ValueError where the cell cannot have them."""
        share = additions.channel_share
        halves = any(self.stride(row) == 2 for row in range(self.num_edges))
        if self._channels % share or (halves and self._channels // share % 2):
            kind = "an even number of channels" if halves else "a whole number of channels"
            raise ValueError(
                f"PartialChannels(k={share}) needs {kind} in each part, and a cell of this "
                f"supernet has {self._channels}: choose another k, or more channels"
            )
        for row in range(self.num_edges):
            if additions.auxiliary_skip and AUXILIARY in self.own_names(row):
                raise ValueError(
                    f"an operation is called {AUXILIARY!r}, as the skip that AuxiliarySkip puts "
                    "beside the operations: give it another name"
                )

    def add(self, additions: Additions) -> None:
        """Have them from now on; the operations are new where they see fewer channels."""
        self.check(additions)
        self._added = additions
        if additions.channel_share > 1:
            self.make_edges()
        if not additions.auxiliary_skip:
            return
        for row, operations in enumerate(self.edges):
            assert isinstance(operations, nn.ModuleDict)
            skip: nn.Module = nn.Identity()
            if self.stride(row) == 2:
                skip = FactorizedReduce(self.channels, self.channels, affine=False)
            operations[AUXILIARY] = skip

    def columns(
        self, mix_EO: Tensor, active: Active, edge_E: Tensor | None, skip: float
    ) -> tuple[Tensor, Active]:
        """Mixing weights with further columns: of the auxiliary skip, and of what passes by.

        Args:
            mix_EO, active: of a draw.
            edge_E: weights of the edges, by which all columns are multiplied.
            skip: weight of the auxiliary skip.
        """
        added = self._added
        if added == Additions():
            return mix_EO, active
        columns = [mix_EO]
        one_E1 = torch.ones_like(mix_EO[:, :1])
        if added.auxiliary_skip:
            if skip:
                place = mix_EO.shape[1]
                active = tuple((*row, place) if row else () for row in active)
            columns.append(skip * one_E1)
        if added.channel_share > 1:
            # Of an edge that is cut nothing passes either.
            is_there = [1.0 if row else 0.0 for row in active]
            columns.append(torch.tensor(is_there, device=mix_EO.device).to(mix_EO).unsqueeze(1))
        wide_EO = torch.cat(columns, dim=1) if len(columns) > 1 else mix_EO
        if edge_E is not None:
            wide_EO = wide_EO * edge_E.to(wide_EO.dtype).unsqueeze(1)
        return wide_EO, active

    def seen(self, x_BCHW: Tensor) -> Tensor:
        """The channels of a node that operations see."""
        return x_BCHW if self._added.channel_share == 1 else x_BCHW[:, : self.channels]

    def with_rest(
        self, entered_BCHW: Tensor, sources: Sequence[tuple[int, Tensor]], mix_EO: Tensor
    ) -> Tensor:
        """A node from what operations gave it and the channels that pass by them, shuffled.

        Args:
            entered_BCHW: the sum over operations and edges, of a share of the channels.
            sources: row of alpha and whole source of every edge into the node.
            mix_EO: of `columns`; the last one weighs what passes by.
        """
        share = self._added.channel_share
        if share == 1:
            return entered_BCHW
        rest = None
        for row, x_BCHW in sources:
            part = x_BCHW[:, self.channels :]
            if self.stride(row) == 2:
                part = F.max_pool2d(part, 2, 2)
            part = part * mix_EO[row, -1].to(part.dtype)
            rest = part if rest is None else rest + part
        assert rest is not None
        # In channels, a table of (share, C / share) is transposed: the parts mix.
        whole_BCHW = torch.cat([entered_BCHW, rest.to(entered_BCHW.dtype)], dim=1)
        parts = whole_BCHW.unflatten(1, (share, self.channels))
        return parts.transpose(1, 2).flatten(1, 2)

    # ---- computing -------------------------------------------------------------------------------

    def sources(self, node: int, states: Sequence[Tensor]) -> list[tuple[int, Tensor]]:
        """Row of alpha and source of every edge into a node; nodes that have edges, from 0."""
        first = sum(self.shape.predecessors[:node])
        count = self.shape.predecessors[node]
        return [(first + source, states[source]) for source in range(count)]

    def add_nodes(
        self,
        states: list[Tensor],
        mix_EO: Tensor,
        active: Active,
        beside: Active | None,
        deferred: bool,
    ) -> None:
        """Compute every node edge by edge, and put it behind the states that a cell begins with.

        Args:
            beside, deferred: the draw's `probed` operations, and when they are computed.
        """
        for node in range(len(self.shape.predecessors)):
            sources = self.sources(node, states)
            total = None
            for row, x_BCHW in sources:
                seen_BCHW = self.seen(x_BCHW)
                for part in self.entering(seen_BCHW, row, mix_EO, active, beside, deferred):
                    total = part if total is None else total + part
            if total is None:
                step = self.stride(0)
                total = torch.zeros_like(self.seen(states[0])[:, :, ::step, ::step])
            states.append(self.with_rest(total, sources, mix_EO))

    def entering(
        self,
        x_BCHW: Tensor,
        row: int,
        mix_EO: Tensor,
        active: Active,
        beside: Active | None = None,
        deferred: bool = False,
    ) -> list[Tensor]:
        """What enters by one edge, to be added up: its active operations, each with its weight.

        Args:
            beside, deferred: the draw's `probed` operations, and when they are computed.
        """
        parts = []
        for column, operation in self._computed(row, active).items():
            part = self.output(operation, row, column, x_BCHW)
            parts.append(part * mix_EO[row, column])
        # A probe is for the gradient of a mixing weight; without one there is nothing to probe.
        if beside is not None and mix_EO.requires_grad and torch.is_grad_enabled():
            others = self._computed(row, beside)
            parts = [self._probed(parts, x_BCHW, row, mix_EO[row], others, deferred)]
        return parts

    def _computed(self, row: int, columns: Active) -> dict[int, nn.Module]:
        """Column -> module of the operations of an edge that there is something to compute for.

        `none` keeps its share of the softmax, but its output is zero.
        """
        names = self.names(row)
        computed = {}
        for column in columns[row]:
            operation = self.operation(row, names[column])
            if not is_zero(operation, self.stride(row)):
                computed[column] = operation
        return computed

    def _probed(
        self,
        parts: list[Tensor],
        x_BCHW: Tensor,
        row: int,
        mix_O: Tensor,
        others: Mapping[int, nn.Module],
        deferred: bool,
    ) -> Tensor:
        """What enters by one edge, with the gradients of operations beside the active ones."""
        if parts:
            y_BCHW = sum(parts[1:], parts[0])
        else:
            stride = self.stride(row)
            y_BCHW = torch.zeros_like(x_BCHW[:, :, ::stride, ::stride])
        probes = Probes(
            others,
            (x_BCHW,),
            {},
            x_BCHW.device,
            nullcontext,
            functools.partial(self.label_of, row),
        )
        return probed(y_BCHW, mix_O, probes, deferred, f"edge {row}")
