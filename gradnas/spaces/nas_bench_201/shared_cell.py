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

from operator import itemgetter
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas.choice import Active
from gradnas.spaces.cells.builtin import is_called_plainly, is_known_norm, is_known_relu
from gradnas.spaces.cells.kernels import EPS
from gradnas.spaces.cells.running import (
    Normalised,
    Statistics,
    running_of,
    update_running_statistics,
    updates_of,
)
from gradnas.spaces.nas_bench_201.cell import BenchCell
from gradnas.spaces.native import is_transformed
from gradnas.spaces.open_edges import is_zero

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
        parts: list[list[Tensor]] = [[] for _ in range(nodes)]
        states = [x_BCHW]
        for source in range(nodes - 1):
            self._leave(source, self.seen(states[source]), mix_EO, rows, parts, seen)
            entered = parts[source + 1]
            # Nothing enters: zeros, by operations that know of no input.
            zeros = None if entered else torch.zeros_like(self.seen(x_BCHW))
            total = sum(entered[1:], entered[0]) if zeros is None else zeros
            states.append(self.with_rest(total, self.sources(source + 1, states), mix_EO))
        if statistics is None:
            update_running_statistics(updates_of(seen))
        return states[-1]

    def _leave(
        self,
        source: int,
        x_BCHW: Tensor,
        mix_EO: Tensor,
        rows: Rows,
        parts: list[list[Tensor]],
        statistics: Statistics,
    ) -> None:
        """Compute what leaves a node, and hand it to the nodes after it."""
        convolutions: dict[int, list[_Item]] = {}
        pooled: Tensor | None = None
        for target in range(source + 1, self.shape.nodes):
            row = self.shape.edge(target, source)
            for column, known in rows[row].items():
                kind = None if known is None else known.kind
                if kind == "convolution":
                    assert known is not None
                    item = _item(target, row, column, known)
                    convolutions.setdefault(known.width, []).append(item)
                    continue
                if kind == "identity":
                    y_BCHW = x_BCHW
                elif kind == "average":
                    if pooled is None:
                        pooled = F.avg_pool2d(x_BCHW, 3, 1, 1, count_include_pad=False)
                    y_BCHW = pooled
                else:
                    operation = self.operation(row, self.names(row)[column])
                    y_BCHW = self.output(operation, row, column, x_BCHW)
                parts[target].append(y_BCHW * mix_EO[row, column].to(y_BCHW.dtype))
        if not convolutions:
            return
        positive_BCHW = torch.relu(x_BCHW)
        for width, items in convolutions.items():
            weight = torch.cat([item.weight for item in items])
            z_BQHW = F.conv2d(positive_BCHW, weight, padding=width // 2)
            mix_N = torch.stack([mix_EO[item.row, item.column] for item in items])
            y_BQHW = self._normalised(z_BQHW, items, mix_N, statistics)
            for item, y_BCHW in zip(items, y_BQHW.split(self.channels, dim=1), strict=True):
                parts[item.target].append(y_BCHW)

    def _normalised(
        self, z_BQHW: Tensor, items: list[_Item], mix_N: Tensor, statistics: Statistics
    ) -> Tensor:
        """BatchNorm of all maps side by side, each times its mixing weight."""
        norms = [item.norm for item in items]
        means, variances = running_of(norms)
        # In the dtype of the statistics, which under autocast is not the map's.
        scale_Q = mix_N.to(means[0].dtype).repeat_interleave(self.channels)
        if not self.training:
            return F.batch_norm(
                z_BQHW, torch.cat(means), torch.cat(variances), scale_Q, None, False, 0.0, EPS
            )
        B, _, H, W = z_BQHW.shape
        pixels = B * H * W
        if pixels == 1:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size "
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
