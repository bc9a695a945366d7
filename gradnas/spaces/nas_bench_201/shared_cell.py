"""The open cell of NAS-Bench-201, computed by source node: the same function in far fewer passes.

Legend: B batch, C channels, H height, W width, E edges, O operations, Q channels of maps that lie
side by side.

What leaves a node is computed once for all its edges: one ReLU, one convolution for all 3x3
convolutions and one for all 1x1 (their outputs side by side in the channels), one average pool.
A BatchNorm without scale and shift is followed by its mixing weight alone, and a BatchNorm has a
place for a scale: so one normalisation of all maps side by side, scaled by the mixing weights,
normalises and weighs in one pass, and gives the gradient of the mixing weights as that of its
scale. `skip_connect` and the pool are weighed as they are added, `none` is not computed.

All of it are torch's operations: any device, any precision, any order of derivative; shapes depend
on the active operations alone, and nothing is read back from the device.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from operator import itemgetter
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas.modules.draws import Active
from gradnas.spaces.cells.builtin import is_called_plainly, is_known_norm, is_known_relu
from gradnas.spaces.cells.kernels import EPS
from gradnas.spaces.cells.running import (
    Normalised,
    Statistics,
    running_of,
    update_running_statistics,
    updates_of,
)
from gradnas.spaces.edge_operations import is_zero
from gradnas.spaces.nas_bench_201.cell import BenchCell
from gradnas.spaces.native import is_transformed

Kind = Literal["convolution", "average", "identity"]


class _Known(NamedTuple):
    """An operation that is exactly a built-in one."""

    kind: Kind
    width: int  # of a convolution's kernel
    layers: tuple[nn.Module, ...]


class _Item(NamedTuple):
    """A convolution that leaves a node."""

    target: int
    row: int
    column: int
    weight: Tensor
    norm: nn.BatchNorm2d


class _Leaving(NamedTuple):
    """What leaves a node.

    Attributes:
        convolutions: kernel width -> all of that width, computed as one.
        scaled: (target, row, column, what is known) of what is only weighed.
    """

    convolutions: dict[int, list[_Item]]
    scaled: list[tuple[int, int, int, _Known | None]]


# For every row of alpha: column -> what is known of an active operation; None: it is called.
Rows = list[dict[int, _Known | None]]


class SharedCell(BenchCell):
    """`BenchCell`, computed as described at the top of this file.

    Same arguments, parameters, buffers and `state_dict`: only `forward` differs. Operations that
    are not exactly built-in ones as they were made (a user's own, one with a hook, a BatchNorm that
    was frozen) run as modules beside the others. Where a module serves two edges, and under the
    transforms of `torch.func`, the whole cell is computed edge by edge.
    """

    def forward(
        self, x_BCHW: Tensor, mix_EO: Tensor, active: Active, statistics: Statistics | None = None
    ) -> Tensor:
        rows = None if is_transformed() else self._rows(active)
        if rows is None:
            return self.edge_by_edge(x_BCHW, mix_EO, active)
        seen: Statistics = [] if statistics is None else statistics
        nodes = self.shape.nodes
        leaving = [self._leaving(source, rows) for source in range(nodes - 1)]
        mixes = _gathered(mix_EO, leaving, self.channels)
        parts: list[list[Tensor]] = [[] for _ in range(nodes)]
        states = [x_BCHW]
        for source in range(nodes - 1):
            self._leave(self.seen(states[source]), leaving[source], mixes, parts, seen)
            entered = parts[source + 1]
            # Nothing enters: zeros, by operations that know of no input.
            zeros = None if entered else torch.zeros_like(self.seen(x_BCHW))
            total = sum(entered[1:], entered[0]) if zeros is None else zeros
            states.append(self.with_rest(total, self.sources(source, states), mix_EO))
        if statistics is None:
            update_running_statistics(updates_of(seen))
        return states[-1]

    def _leaving(self, source: int, rows: Rows) -> _Leaving:
        """What leaves a node, by kind."""
        leaving = _Leaving({}, [])
        for target in range(source + 1, self.shape.nodes):
            row = self.shape.edge(target, source)
            for column, known in rows[row].items():
                if known is not None and known.kind == "convolution":
                    item = _item(target, row, column, known)
                    leaving.convolutions.setdefault(known.width, []).append(item)
                else:
                    leaving.scaled.append((target, row, column, known))
        return leaving

    def _leave(
        self,
        x_BCHW: Tensor,
        leaving: _Leaving,
        mixes: Iterator[Tensor],
        parts: list[list[Tensor]],
        statistics: Statistics,
    ) -> None:
        """Compute what leaves a node, and hand it to the nodes after it.

        Args:
            mixes: the mixing weights, in the order in which they are needed.
        """
        pooled: Tensor | None = None
        if leaving.scaled:
            for (target, row, column, known), mix in zip(
                leaving.scaled, next(mixes).unbind(), strict=True
            ):
                if known is None:
                    operation = self.operation(row, self.names(row)[column])
                    y_BCHW = self.output(operation, row, column, x_BCHW)
                elif known.kind == "identity":
                    y_BCHW = x_BCHW
                else:
                    if pooled is None:
                        pooled = F.avg_pool2d(x_BCHW, 3, 1, 1, count_include_pad=False)
                    y_BCHW = pooled
                parts[target].append(y_BCHW * mix.to(y_BCHW.dtype))
        if not leaving.convolutions:
            return
        positive_BCHW = torch.relu(x_BCHW)
        for width, items in leaving.convolutions.items():
            weight = torch.cat([item.weight for item in items])
            z_BQHW = F.conv2d(positive_BCHW, weight, padding=width // 2)
            y_BQHW = self._normalised(z_BQHW, items, next(mixes), statistics)
            for item, y_BCHW in zip(items, y_BQHW.split(self.channels, dim=1), strict=True):
                parts[item.target].append(y_BCHW)

    def _normalised(
        self, z_BQHW: Tensor, items: list[_Item], mix_Q: Tensor, statistics: Statistics
    ) -> Tensor:
        """BatchNorm of all maps side by side, each times its mixing weight."""
        norms = [item.norm for item in items]
        means, variances = running_of(norms)
        # In the dtype of the statistics, which under autocast is not the map's.
        scale_Q = mix_Q.to(means[0].dtype)
        if not self.training:
            return F.batch_norm(
                z_BQHW, torch.cat(means), torch.cat(variances), scale_Q, None, False, 0.0, EPS
            )
        B, _, H, W = z_BQHW.shape
        pixels = B * H * W
        if pixels == 1:
            raise ValueError(
                "Expected more than 1 value per channel when training, got input size "
                f"{z_BQHW.shape}"
            )
        # Rather than F.batch_norm: this one gives its statistics away, and takes no buffers.
        shift_Q = torch.zeros_like(scale_Q)
        y_BQHW, mean_Q, inverse_Q = torch.native_batch_norm(
            z_BQHW, scale_Q, shift_Q, None, None, True, 0.0, EPS
        )
        statistics.append(
            Normalised([[norm] for norm in norms], mean_Q.detach(), inverse_Q.detach(), pixels)
        )
        return y_BQHW

    def _rows(self, active: Active) -> Rows | None:
        """The active operations by what is known of them; `none` is left out.

        None where a module serves two edges: its running statistics depend on the order in which
        they run, and that is the order of the edges.
        """
        rows: Rows = []
        identities: list[int] = []  # of modules that may keep something of what they see
        for row, operations in enumerate(self.edges._modules.values()):
            assert operations is not None
            names = self.names(row)
            found: dict[int, _Known | None] = {}
            for column in active[row]:
                operation = operations._modules[names[column]]
                assert operation is not None
                if is_zero(operation, 1):
                    continue
                known = _known(operation, self.channels, self.training)
                found[column] = known
                if known is None:
                    identities += [id(module) for module in operation.modules()]
                else:
                    identities += [id(layer) for layer in known.layers]
            rows.append(found)
        return rows if len(set(identities)) == len(identities) else None


def _gathered(mix_EO: Tensor, leaving: list[_Leaving], channels: int) -> Iterator[Tensor]:
    """All mixing weights of a cell in the order of their use, by one look into the table.

    Numbers taken one by one would each cost some launches, forward and backward. For every node:
    those of what is only weighed, then for every width those of its convolutions, each as often as
    there are channels.
    """
    num_columns = mix_EO.shape[1]
    places: list[int] = []
    sizes: list[int] = []
    for own in leaving:
        if own.scaled:
            places += [row * num_columns + column for _, row, column, _ in own.scaled]
            sizes.append(len(own.scaled))
        for items in own.convolutions.values():
            for item in items:
                places += [item.row * num_columns + item.column] * channels
            sizes.append(len(items) * channels)
    if not places:
        return iter(())
    index = _index(tuple(places), mix_EO.device)
    return iter(mix_EO.flatten().index_select(0, index).split(sizes))


@functools.lru_cache(maxsize=256)
def _index(places: tuple[int, ...], device: torch.device) -> Tensor:
    # Kept: made anew it would be a transfer to the device in every pass.
    return torch.tensor(places, dtype=torch.int64, device=device)


def _item(target: int, row: int, column: int, known: _Known) -> _Item:
    _, convolution, norm = known.layers
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    return _Item(target, row, column, convolution.weight, norm)


_CONVOLUTION = itemgetter("stride", "dilation", "groups", "padding_mode")
_AVERAGE = itemgetter(
    "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"
)


def _known(operation: nn.Module, channels: int, training: bool) -> _Known | None:
    """What an operation is, if it is exactly a built-in one that runs in this mode."""
    kind = type(operation)
    if not is_called_plainly(operation):
        return None
    if kind is nn.Identity:
        return _Known("identity", 0, ())
    if kind is nn.AvgPool2d:
        is_known = _AVERAGE(operation.__dict__) == (3, 1, 1, False, False, None)
        return _Known("average", 0, ()) if is_known else None
    if kind is nn.Sequential and len(operation._modules) == 3:
        return _convolution(operation, channels, training)
    return None


def _convolution(operation: nn.Module, channels: int, training: bool) -> _Known | None:
    relu, convolution, norm = operation.children()
    if not is_known_relu(relu) or not is_known_norm(norm, channels, training):
        return None
    if type(convolution) is not nn.Conv2d or not is_called_plainly(convolution):
        return None
    parameters = convolution._parameters
    weight = parameters.get("weight")
    if weight is None or parameters.get("bias") is not None:
        return None
    if "_conv_forward" in convolution.__dict__:
        return None
    width = weight.shape[-1]
    has_form = (
        width in (1, 3)
        and weight.shape == (channels, channels, width, width)
        and _CONVOLUTION(convolution.__dict__) == ((1, 1), (1, 1), 1, "zeros")
        and convolution.padding == (width // 2, width // 2)
    )
    if not has_form:
        return None
    return _Known("convolution", width, (relu, convolution, norm))
