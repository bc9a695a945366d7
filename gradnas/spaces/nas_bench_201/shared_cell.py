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
on the active operations alone, and nothing is read back from the device. On a CPU with a C++
compiler a cell of built-in operations alone is one operation of autograd (`whole_cell.py`).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
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
    update_running_statistics,
    updates_of,
)
from gradnas.spaces.edge_operations import is_zero
from gradnas.spaces.nas_bench_201.cell import BenchCell
from gradnas.spaces.nas_bench_201.kernels import Convolution, Plan, Weighed
from gradnas.spaces.nas_bench_201.whole_cell import fits, run_cell
from gradnas.spaces.native import has_memory, is_transformed

Kind = Literal["convolution", "average", "identity"]


class Known(NamedTuple):
    """An operation that is exactly a built-in one."""

    kind: Kind
    width: int  # of a convolution's kernel
    layers: tuple[nn.Module, ...]


class Item(NamedTuple):
    """A convolution that leaves a node.

    Attributes:
        mean, variance: by which its BatchNorm normalises; None: by those of the batch.
    """

    target: int
    row: int
    column: int
    weight: Tensor
    norm: nn.BatchNorm2d
    mean: Tensor | None
    variance: Tensor | None


class Leaving(NamedTuple):
    """What leaves a node.

    Attributes:
        convolutions: kernel width -> all of that width, computed as one.
        scaled: (target, row, column, what is known) of what is only weighed.
    """

    convolutions: dict[int, list[Item]]
    scaled: list[tuple[int, int, int, Known | None]]


# For every row of alpha: column -> what is known of an active operation; None: it is called.
Rows = list[dict[int, Known | None]]


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
        leaving = [self._leaving(source, rows) for source in range(self.shape.nodes - 1)]
        y_BCHW = self._by_kernels(x_BCHW, mix_EO, leaving, seen)
        if y_BCHW is None:
            y_BCHW = self._by_torch(x_BCHW, mix_EO, leaving, seen)
        if statistics is None:
            update_running_statistics(updates_of(seen))
        return y_BCHW

    # ---- by kernels ------------------------------------------------------------------------------

    def _by_kernels(
        self, x_BCHW: Tensor, mix_EO: Tensor, leaving: list[Leaving], statistics: Statistics
    ) -> Tensor | None:
        """The cell as one operation; None where there are no kernels for it."""
        items = _items(leaving)
        plan = self._plan(leaving, mix_EO.shape[1])
        if plan is None or not fits(plan, x_BCHW, mix_EO, [item.weight for item in items]):
            return None
        is_live = plan.live()
        # What nothing depends on has no gradient, rather than zeros.
        x_BCHW = x_BCHW if is_live[0] else x_BCHW.detach()
        weights = []
        for item in items:
            weights.append(item.weight if is_live[item.target] else item.weight.detach())
        seen_2KC = None
        if not self.training and items:
            means = [item.mean for item in items if item.mean is not None]
            variances = [item.variance for item in items if item.variance is not None]
            if not has_memory(*means, *variances):
                return None
            seen_2KC = torch.stack(means + variances).double().unflatten(0, (2, -1))

        def plain(seen_2KC: Tensor | None, x_BCHW: Tensor, mix_EO: Tensor, *own: Tensor) -> Tensor:
            return self._by_torch(x_BCHW, mix_EO, _with(leaving, own, seen_2KC), [])

        y_BCHW, found_2KC = run_cell(plan, plain, seen_2KC, x_BCHW, mix_EO, weights)
        if seen_2KC is None and items:
            mean_Q, var_Q = found_2KC.flatten(1)
            norms = [[item.norm] for item in items]
            pixels = x_BCHW.numel() // self.channels
            statistics.append(Normalised(norms, mean_Q, (var_Q + EPS).rsqrt(), pixels))
        return y_BCHW

    def _plan(self, leaving: list[Leaving], num_columns: int) -> Plan | None:
        """What the kernels are to compute; None where they cannot."""
        if self._added.channel_share != 1:
            return None
        convolutions = []
        weighed = []
        for source, own in enumerate(leaving):
            for width, items in own.convolutions.items():
                for item in items:
                    place = item.row * num_columns + item.column
                    convolutions.append(Convolution(source, item.target, width, place))
            for target, row, column, known in own.scaled:
                if known is None:
                    return None
                place = row * num_columns + column
                weighed.append(Weighed(source, target, known.kind == "average", place))
        return Plan(self.shape.nodes, tuple(convolutions), tuple(weighed))

    # ---- by torch's operations -------------------------------------------------------------------

    def _by_torch(
        self, x_BCHW: Tensor, mix_EO: Tensor, leaving: list[Leaving], statistics: Statistics
    ) -> Tensor:
        nodes = self.shape.nodes
        mixes = _gathered(mix_EO, leaving, self.channels)
        parts: list[list[Tensor]] = [[] for _ in range(nodes)]
        states = [x_BCHW]
        for source in range(nodes - 1):
            self._leave(self.seen(states[source]), leaving[source], mixes, parts, statistics)
            entered = parts[source + 1]
            # Nothing enters: zeros, by operations that know of no input.
            zeros = None if entered else torch.zeros_like(self.seen(x_BCHW))
            total = sum(entered[1:], entered[0]) if zeros is None else zeros
            states.append(self.with_rest(total, self.sources(source, states), mix_EO))
        return states[-1]

    def _leaving(self, source: int, rows: Rows) -> Leaving:
        """What leaves a node, by kind."""
        leaving = Leaving({}, [])
        for target in range(source + 1, self.shape.nodes):
            row = self.shape.edge(target, source)
            for column, known in rows[row].items():
                if known is not None and known.kind == "convolution":
                    item = _item(target, row, column, known, self.training)
                    leaving.convolutions.setdefault(known.width, []).append(item)
                else:
                    leaving.scaled.append((target, row, column, known))
        return leaving

    def _leave(
        self,
        x_BCHW: Tensor,
        leaving: Leaving,
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
        self, z_BQHW: Tensor, items: list[Item], mix_Q: Tensor, statistics: Statistics
    ) -> Tensor:
        """BatchNorm of all maps side by side, each times its mixing weight."""
        norms = [item.norm for item in items]
        kept = norms[0].running_mean
        assert kept is not None
        # In the dtype of the statistics, which under autocast is not the map's.
        scale_Q = mix_Q.to(kept.dtype)
        means = [item.mean for item in items if item.mean is not None]
        variances = [item.variance for item in items if item.variance is not None]
        if means:
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
            found: dict[int, Known | None] = {}
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


def _gathered(mix_EO: Tensor, leaving: list[Leaving], channels: int) -> Iterator[Tensor]:
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


def _item(target: int, row: int, column: int, known: Known, training: bool) -> Item:
    _, convolution, norm = known.layers
    assert isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d)
    seen = (None, None) if training else (norm.running_mean, norm.running_var)
    return Item(target, row, column, convolution.weight, norm, *seen)


def _items(leaving: list[Leaving]) -> list[Item]:
    """All convolutions of a cell, in the order of the plan of the kernels."""
    return [item for own in leaving for items in own.convolutions.values() for item in items]


def _with(
    leaving: list[Leaving], weights: Sequence[Tensor], seen_2KC: Tensor | None
) -> list[Leaving]:
    """The same with other weights, and where given the means and variances to normalise by."""
    numbers = itertools.count()
    replaced = []
    for own in leaving:
        convolutions: dict[int, list[Item]] = {}
        for width, items in own.convolutions.items():
            convolutions[width] = []
            for item in items:
                k = next(numbers)
                item = item._replace(weight=weights[k])
                if seen_2KC is not None and item.mean is not None:
                    mean_C, var_C = seen_2KC[:, k].to(item.mean.dtype)
                    item = item._replace(mean=mean_C, variance=var_C)
                convolutions[width].append(item)
        replaced.append(own._replace(convolutions=convolutions))
    return replaced


_CONVOLUTION = itemgetter("stride", "dilation", "groups", "padding_mode")
_AVERAGE = itemgetter(
    "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"
)


def _known(operation: nn.Module, channels: int, training: bool) -> Known | None:
    """What an operation is, if it is exactly a built-in one that runs in this mode."""
    kind = type(operation)
    if not is_called_plainly(operation):
        return None
    if kind is nn.Identity:
        return Known("identity", 0, ())
    if kind is nn.AvgPool2d:
        is_known = _AVERAGE(operation.__dict__) == (3, 1, 1, False, False, None)
        return Known("average", 0, ()) if is_known else None
    if kind is nn.Sequential and len(operation._modules) == 3:
        return _convolution(operation, channels, training)
    return None


def _convolution(operation: nn.Module, channels: int, training: bool) -> Known | None:
    relu, convolution, norm = operation._modules.values()
    if relu is None or convolution is None or norm is None:
        return None
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
    return Known("convolution", width, (relu, convolution, norm))
