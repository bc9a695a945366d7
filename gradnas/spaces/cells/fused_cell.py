"""The cell with every edge open, computed by source node: the same function, far cheaper.

Legend: B batch, C channels, H height, W width, E edges, O operations (in `mix_EO`); in a fold N
maps. Maps are `(B, C, H, W)` in channels-last memory.

What is shared. Every convolution starts with the ReLU of its source node, so one pass over a source
computes the depthwise convolutions of all its edges. A pool depends on the source (and stride)
alone: once for all edges. The identity costs nothing and `none` is not computed. Between the halves
of a separable convolution, BatchNorm, ReLU and depthwise convolution are one pass that keeps only
the input of the BatchNorm. What enters a node is one matrix product (`gradnas.spaces.cells.fold`).
In training, a cell of known operations alone is one operation of autograd (`whole_cell`).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas.modules.draws import Active
from gradnas.modules.synchronised import norms_are_synchronised
from gradnas.spaces.cells.builtin import (
    Known,
    Layers,
    Rows,
    is_called_plainly,
    is_known_norm,
    is_known_pointwise,
    is_known_reduction,
    is_known_relu,
    known_operation,
)
from gradnas.spaces.cells.edge_cell import EdgeCell
from gradnas.spaces.cells.fold import Running, fold_mix
from gradnas.spaces.cells.grouped_cell import grouped_nodes
from gradnas.spaces.cells.places import channels_last
from gradnas.spaces.cells.running import (
    Statistics,
    Update,
    Updates,
    running_of,
    update_running_statistics,
    updates_of,
)
from gradnas.spaces.cells.shape import INPUTS
from gradnas.spaces.cells.stages import stages_of
from gradnas.spaces.cells.stencils import (
    DEPTHWISE,
    LAST_NORM,
    LAST_POINTWISE,
    NORM,
    POINTWISE,
    SECOND_DEPTHWISE,
    batch_norm,
    conv_weight,
    depthwise,
    norm_relu_depthwise,
    pools,
    relu_depthwise,
    relu_pointwise,
)
from gradnas.spaces.cells.whole_cell import fits, run_nodes
from gradnas.spaces.cells.whole_plan import halves_of, plan_of, side_by_side, weights_of
from gradnas.spaces.edge_operations import is_zero
from gradnas.spaces.native import is_transformed
from gradnas.spaces.operations import FactorizedReduce


class _Convolution(NamedTuple):
    """A known convolution that leaves a source."""

    node: _Node  # where it enters
    row: int  # of alpha
    column: int
    is_separable: bool
    layers: Layers


class _Product(NamedTuple):
    """A map that enters a node through a pointwise product and a BatchNorm."""

    row: int
    column: int
    weight: Tensor
    norm: nn.BatchNorm2d
    x_BCHW: Tensor


class _Pool(NamedTuple):
    """A map that enters a node through a BatchNorm alone."""

    row: int
    column: int
    norm: nn.BatchNorm2d
    x_BCHW: Tensor


class _Scaled(NamedTuple):
    """A map that enters a node as it is."""

    row: int
    column: int
    x_BCHW: Tensor


class _Node:
    """What enters a node, up to the last pointwise products and BatchNorms."""

    def __init__(self) -> None:
        self.convolutions: list[_Product] = []
        self.reductions: list[_Product] = []  # in pairs: the two halves
        self.pools: list[_Pool] = []
        self.others: list[_Scaled] = []


class FusedCell(EdgeCell):
    """`EdgeCell`, computed as described at the top of this file.

    Same arguments, parameters, buffers and `state_dict`: only `forward` differs. Operations that
    are not exactly built-in ones as they were made (`builtin.py`: a user's own, one with a hook or
    a BatchNorm that was frozen) run as modules beside the fused ones. Where a module serves two
    edges, and under the transforms of `torch.func`, the whole cell is computed edge by edge.
    """

    grouped: bool | None = None  # compute by `grouped_nodes`; None: everywhere but on the CPU

    def forward(
        self,
        before_BCHW: Tensor,
        last_BCHW: Tensor,
        mix_EO: Tensor,
        active: Active,
        statistics: Statistics | None = None,
    ) -> Tensor:
        """As `EdgeCell.forward`; in channels-last memory, except where it is computed in groups.

        Args:
            statistics: where given, what is computed in groups adds what its BatchNorms saw.
        """
        # What is fused normalises as it goes, by the maps of this process.
        is_apart = is_transformed() or (self.training and norms_are_synchronised())
        rows = None if is_apart else self._rows(active)
        if rows is None:
            return self.edge_by_edge(before_BCHW, last_BCHW, mix_EO, active)
        grouped = self.grouped
        if grouped is None:
            grouped = before_BCHW.device.type != "cpu"
        if grouped:
            return self._forward_grouped(before_BCHW, last_BCHW, mix_EO, rows, statistics)

        updates: Updates = []
        states = [
            _prepare(self.preprocess0, before_BCHW, updates),
            _prepare(self.preprocess1, last_BCHW, updates),
        ]
        whole = self._whole(states, mix_EO, rows, updates)
        if whole is not None:
            return torch.cat(whole, dim=1)
        # Each source hands its maps to the nodes after it, and a node is added up when its turn as
        # a source comes: by then all that enters it is there.
        nodes = [_Node() for _ in range(self.shape.nodes)]
        for source in range(self.shape.nodes + INPUTS):
            if source >= INPUTS:
                node = nodes[source - INPUTS]
                seen_BCHW = self._enter(node, self.seen(states[0]), mix_EO, updates)
                sources = self.sources(source - INPUTS, states)
                states.append(channels_last(self.with_rest(seen_BCHW, sources, mix_EO)))
            self._leave(source, channels_last(self.seen(states[source])), nodes, rows, updates)
        update_running_statistics(updates)
        return torch.cat(states[INPUTS:], dim=1)

    def _whole(
        self, states: list[Tensor], mix_EO: Tensor, rows: Rows, updates: Updates
    ) -> tuple[Tensor, ...] | None:
        """The nodes as one operation, where that is possible; `updates` are made then."""
        x_BCHW = states[0]
        if not self.training or self.seen(x_BCHW) is not x_BCHW:
            return None
        plan = plan_of(stages_of(self, rows, _is_even(x_BCHW)), self.reduction)
        if plan is None:
            return None
        weights = weights_of(plan)
        if not fits(plan, states, mix_EO, weights):
            return None
        nodes, own = run_nodes(plan, states, mix_EO, weights)
        update_running_statistics([*updates, *own])
        return nodes

    def _forward_grouped(
        self,
        before_BCHW: Tensor,
        last_BCHW: Tensor,
        mix_EO: Tensor,
        rows: Rows,
        statistics: Statistics | None,
    ) -> Tensor:
        inputs = [self.preprocess0(before_BCHW), self.preprocess1(last_BCHW)]
        seen: Statistics = [] if statistics is None else statistics
        nodes = grouped_nodes(self, inputs, mix_EO, rows, seen)
        if statistics is None:
            update_running_statistics(updates_of(seen))
        return torch.cat(nodes, dim=1)

    def _rows(self, active: Active) -> Rows | None:
        """The active operations by what is known of them.

        None where a module serves two edges: its running statistics depend on the order in which
        they run, and that is the order of the edges.
        """
        rows: Rows = []
        training = self.training
        channels = self.channels
        identities: list[int] = []  # of modules that may keep something of what they see
        for row, operations in enumerate(self.edges._modules.values()):
            assert operations is not None
            modules = operations._modules
            names = self.names(row)
            stride = self.stride(row)
            found: dict[int, Known | None] = {}
            for column in active[row]:
                operation = modules[names[column]]
                assert operation is not None
                if is_zero(operation, stride):
                    continue
                known = known_operation(operation, channels, stride, training)
                found[column] = known
                if known is None:
                    identities += [id(module) for module in operation.modules()]
                elif known.kind != "identity":
                    identities += [id(layer) for layer in known.layers]
            rows.append(found)
        return rows if len(set(identities)) == len(identities) else None

    def _leave(
        self, source: int, x_BCHW: Tensor, nodes: list[_Node], rows: Rows, updates: Updates
    ) -> None:
        """Compute what leaves a source node, up to the last pointwise products and BatchNorms."""
        stride = 2 if self.reduction and source < INPUTS else 1
        is_even = _is_even(x_BCHW)
        convolutions: list[_Convolution] = []
        # Shared by all edges from this source; computed when the first edge asks.
        pooled: tuple[Tensor, Tensor] | None = None
        halves: tuple[Tensor, Tensor] | None = None
        # Node t is state t + 2, and reads the states before it.
        for target in range(max(0, source - 1), len(nodes)):
            node = nodes[target]
            row = self.shape.edge(target, source)
            for column, known in rows[row].items():
                kind = None if known is None else known.kind
                layers = () if known is None else known.layers
                if kind in ("separable", "dilated"):
                    is_separable = kind == "separable"
                    convolutions.append(_Convolution(node, row, column, is_separable, layers))
                elif kind in ("maximum", "average"):
                    if pooled is None:
                        pooled = pools(x_BCHW, stride)
                    largest_BCHW, average_BCHW = pooled
                    map_BCHW = largest_BCHW if kind == "maximum" else average_BCHW
                    norm = batch_norm(layers[LAST_NORM])
                    node.pools.append(_Pool(row, column, norm, map_BCHW))
                elif kind == "reduction" and self.training and is_even:
                    # In training mode only: running statistics are of both halves together, and
                    # the fold would subtract their mean from each. An odd map is for the module to
                    # refuse.
                    if halves is None:
                        even_BCHW, odd_BCHW = halves_of(x_BCHW)
                        halves = (torch.relu(even_BCHW), torch.relu(odd_BCHW))
                    reduction, _ = layers
                    assert isinstance(reduction, FactorizedReduce)
                    wide = side_by_side(reduction.conv_even.weight, reduction.conv_odd.weight)
                    for weight, half_BCHW in zip(wide, halves, strict=True):
                        product = _Product(row, column, weight, reduction.bn, half_BCHW)
                        node.reductions.append(product)
                elif kind == "identity":
                    node.others.append(_Scaled(row, column, x_BCHW))
                else:
                    operation = self.operation(row, self.names(row)[column])
                    map_BCHW = channels_last(self.output(operation, row, column, x_BCHW))
                    node.others.append(_Scaled(row, column, map_BCHW))
        if convolutions:
            self._convolve(x_BCHW, convolutions, stride, updates)

    def _convolve(
        self, x_BCHW: Tensor, convolutions: list[_Convolution], stride: int, updates: Updates
    ) -> None:
        """All the known convolutions that leave a source, up to their last pointwise products."""
        weights = []
        dilations = []
        for c in convolutions:
            weights.append(conv_weight(c.layers[DEPTHWISE]))
            dilations.append(1 if c.is_separable else 2)
        maps = relu_depthwise(x_BCHW, weights, dilations, stride)
        for c, D_BCHW in zip(convolutions, maps, strict=True):
            if c.is_separable:
                D_BCHW = self._second_half(D_BCHW, c.layers, updates)
            weight = conv_weight(c.layers[LAST_POINTWISE])
            norm = batch_norm(c.layers[LAST_NORM])
            product = _Product(c.row, c.column, weight, norm, D_BCHW)
            c.node.convolutions.append(product)

    def _second_half(self, D_BCHW: Tensor, layers: Layers, updates: Updates) -> Tensor:
        """Of a separable convolution: pointwise product, BatchNorm, ReLU, depthwise convolution."""
        norm = batch_norm(layers[NORM])
        weight = conv_weight(layers[SECOND_DEPTHWISE])
        # As a matrix product: in channels-last memory the pixels are its rows, and nothing moves.
        pointwise = conv_weight(layers[POINTWISE])
        z_BHWC = F.linear(D_BCHW.permute(0, 2, 3, 1), pointwise.flatten(1))
        z_BCHW = z_BHWC.permute(0, 3, 1, 2)
        if not self.training:
            return depthwise(torch.relu(norm(z_BCHW)), weight, 1)
        if z_BCHW.numel() == z_BCHW.shape[1]:  # a single pixel: torch's own words
            raise ValueError(
                "Expected more than 1 value per channel when training, "
                f"got input size {z_BCHW.shape}"
            )
        D_BCHW, mean_C, var_C = norm_relu_depthwise(z_BCHW, weight)
        updates.append(Update(norm, mean_C, var_C))
        return D_BCHW

    def _enter(self, node: _Node, like_BCHW: Tensor, mix_EO: Tensor, updates: Updates) -> Tensor:
        """Add up what enters a node."""
        products = [*node.convolutions, *node.reductions]
        parts = [*products, *node.pools, *node.others]
        # Zeros of the node's size: all nodes of a reduction cell have half the size of its inputs.
        if not parts:
            step = 2 if self.reduction else 1
            return channels_last(torch.zeros_like(like_BCHW[:, :, ::step, ::step]))
        rows = [part.row for part in parts]
        columns = [part.column for part in parts]
        mix_N = mix_EO[rows, columns]  # one gather for all that enters
        norms = [part.norm for part in [*products, *node.pools]]
        running: Running | None = None
        if not self.training and norms:
            means, variances = running_of(norms)
            running = (torch.stack(means), torch.stack(variances))
        # `parts` in the order that the fold asks for: products, pools, and what is only scaled.
        weights = [product.weight for product in products]
        maps = [part.x_BCHW for part in parts]
        y_BCHW, mean_NC, var_NC = fold_mix(mix_N, weights, len(node.pools), maps, running)
        if self.training:
            seen: Updates = []
            for norm, mean_C, var_C in zip(norms, mean_NC, var_NC, strict=True):
                seen.append(Update(norm, mean_C, var_C))
            updates += _joined(seen, len(node.convolutions), len(node.reductions))
        return y_BCHW


def _joined(seen: Updates, num_convolutions: int, num_reductions: int) -> Updates:
    """What the BatchNorms saw, with the two halves of each factorized reduction joined.

    Each half fills its own channels and leaves zeros in the other's (`side_by_side`), so the sums
    of the two are the statistics of both together.
    """
    first = num_convolutions
    last = num_convolutions + num_reductions
    joined = seen[:first] + seen[last:]
    for even, odd in zip(seen[first:last:2], seen[first + 1 : last : 2], strict=True):
        joined.append(Update(even.norm, even.mean_C + odd.mean_C, even.var_C + odd.var_C))
    return joined


def _is_even(x_BCHW: Tensor) -> bool:
    return x_BCHW.shape[2] % 2 == 0 and x_BCHW.shape[3] % 2 == 0


def _prepare(module: nn.Module, x_BCHW: Tensor, updates: Updates) -> Tensor:
    """An input of the cell: ReLU, pointwise convolution (or factorized reduction), BatchNorm."""
    norm: nn.Module
    if is_known_reduction(module) and _is_even(x_BCHW):
        assert isinstance(module, FactorizedReduce)
        norm = module.bn
        even_BCHW, odd_BCHW = halves_of(x_BCHW)
        z_even_BCHW = relu_pointwise(even_BCHW, module.conv_even.weight)
        z_odd_BCHW = relu_pointwise(odd_BCHW, module.conv_odd.weight)
        z_BCHW = torch.cat([z_even_BCHW, z_odd_BCHW], dim=1)
    elif _is_known_input(module):
        _, convolution, norm = module.children()
        z_BCHW = relu_pointwise(channels_last(x_BCHW), conv_weight(convolution))
    else:
        return channels_last(module(x_BCHW))
    # In eval mode (by running statistics), and where a user has set it otherwise, the BatchNorm
    # runs as it is.
    if not is_known_norm(norm, z_BCHW.shape[1], training=True):
        return channels_last(norm(z_BCHW))
    norm = batch_norm(norm)
    # The fold of a single map that needs no product is its BatchNorm.
    # In the dtype of the statistics, which under autocast is not the map's.
    (mean_C,), _ = running_of([norm])
    one = torch.ones(1, dtype=mean_C.dtype, device=z_BCHW.device)
    y_BCHW, mean_NC, var_NC = fold_mix(one, [], 1, [channels_last(z_BCHW)])
    updates.append(Update(norm, mean_NC[0], var_NC[0]))
    return y_BCHW


def _is_known_input(module: nn.Module) -> bool:
    """Whether a module is exactly a `relu_conv_bn`; its BatchNorm is not looked at."""
    if type(module) is not nn.Sequential or len(module) != 3 or not is_called_plainly(module):
        return False
    relu, convolution, _ = module.children()
    return is_known_relu(relu) and is_known_pointwise(convolution)
