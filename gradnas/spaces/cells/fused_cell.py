"""The cell with every edge open, computed by source node instead of edge by edge: the same
function, far cheaper.

Legend: B batch, C channels, H height, W width, P pixels (B * H * W), E edges, O operations (in
`mix_EO`); in the fold K convolutions, T pools, I channels in, O channels out. Maps are `(B, C, H,
W)` in channels-last memory.

What is shared. Every convolution starts with the ReLU of its source node, so one pass over a source
computes the depthwise convolutions of all its edges. A pool depends on the source (and stride)
alone: once for all edges. The identity costs nothing and `none` is not computed. Between the halves
of a separable convolution, BatchNorm, ReLU and depthwise convolution are one pass that keeps only
the input of the BatchNorm.

The fold. Every convolution ends with a pointwise product and a BatchNorm without scale and shift,
and all that is done with the result is to multiply it by its mixing weight and add it up:

    y = sum_k a_k BN(D_k W_k^T),    D_k (P, I) the output of the depthwise convolution, W_k (O, I),
    a_k a scalar.

The statistics of Z_k = D_k W_k^T follow from those of D_k. With m_k = mean(D_k), X_k = D_k - m_k
and V_k = X_k^T X_k / P, the mean of Z_k is W_k m_k and its variance is v_k = diag(W_k V_k W_k^T).
With r_k = (v_k + eps)^(-1/2),

    y = sum_k X_k M_k,    M_k = a_k W_k^T diag(r_k)    (I, O),

which is one matrix product over all inputs side by side: no Z_k, no normalised Z_k is ever formed.
Centring before the product V_k = X^T X is what keeps float32 accurate; E[D D^T] - m m^T loses the
digits. For the gradient, let g = dL/dy and A_k = X_k^T g (which is dL/dM_k). Then

    dL/da_k = sum_io A_io W_oi r_o,      dL/dr_o = a_k sum_i A_io W_oi,      s_o = dL/dv_o = -1/2
    r_o^3 dL/dr_o, dL/dW_oi = a_k r_o A_io + 2 s_o (W_k V_k)_oi,
    dL/dD_k = (g - mean(g)) M_k^T + X_k S_k,      S_k = 2/P W_k^T diag(s) W_k,

the last term because dv_o = 2/P (W_k X^T dX W_k^T)_oo; X has mean zero, so it needs no centring of
its own. A pool with its BatchNorm is the same with W_k = 1, and everything diagonal.

Second derivatives (`Unrolled(mode="exact")`, `Implicit`): with `create_graph` the explicit
backwards below step aside and autograd differentiates the plain form of the same operation, as
often as it likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas.choice import Active
from gradnas.spaces.cells.edge_cell import EdgeCell
from gradnas.spaces.cells.grouped_cell import (
    Statistics,
    Updates,
    grouped_nodes,
    updates_of,
)
from gradnas.spaces.cells.stencils import (
    EPS,
    channels_last,
    compiled,
    depthwise,
    differentiable,
    kernels,
    norm_relu_depthwise,
    pools,
    relu_depthwise,
    relu_pointwise,
)
from gradnas.spaces.operations import OPERATIONS, FactorizedReduce, Zero

# operation -> dilation of its (first) depthwise convolution, whether it is separable: a second half
# follows
CONVOLUTIONS = {
    "sep_conv_3x3": (1, True),
    "sep_conv_5x5": (1, True),
    "dil_conv_3x3": (2, False),
    "dil_conv_5x5": (2, False),
}
POOLS = ("max_pool_3x3", "avg_pool_3x3")


Running = tuple[
    Tensor, Tensor
]  # per channel: mean, and variance with P - 1 in the denominator, as BatchNorm keeps it


def _rounded(t: Tensor, like: Tensor) -> Tensor:
    """In float64, to numbers of the other's precision."""
    return t.to(like.dtype).double()


# ---- the fold ------------------------------------------------------------------------------------


class _Fold(torch.autograd.Function):
    """`maps` are K inputs of pointwise products, then T pools, then any number of maps that are
    only scaled."""

    @staticmethod
    def plain(
        num_pools: int, running: Running | None, mix_N: Tensor, weight_KOI: Tensor, *maps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        B, C, H, W = maps[0].shape
        K, T, pixels = len(weight_KOI), num_pools, B * H * W
        with torch.autocast(
            maps[0].device.type, enabled=False
        ):  # statistics need more digits than bf16 has
            dtype = mix_N.dtype
            X_NPC = [m.permute(0, 2, 3, 1).reshape(pixels, C).to(dtype) for m in maps]
            D_KPI = torch.stack(X_NPC[:K]) if K else mix_N.new_zeros(0, pixels, C)
            Q_TPC = torch.stack(X_NPC[K : K + T]) if T else mix_N.new_zeros(0, pixels, C)
            if running is None:
                mean_KI1, mean_T1C = D_KPI.mean(1).unsqueeze(2), Q_TPC.mean(1, keepdim=True)
                D_KPI, Q_TPC = D_KPI - mean_KI1.transpose(1, 2), Q_TPC - mean_T1C
                covariance_KII = D_KPI.transpose(1, 2) @ D_KPI / pixels
                mean_NC = torch.cat([(weight_KOI @ mean_KI1).squeeze(2), mean_T1C.squeeze(1)])
                var_KO = ((weight_KOI @ covariance_KII) * weight_KOI).sum(2)
                var_NC = torch.cat([var_KO, Q_TPC.square().mean(1)])
            else:
                mean_NC, var_NC = running
            scale_NC = mix_N[: K + T, None] * (var_NC + EPS).rsqrt()
            matrices_KIO = (scale_NC[:K, :, None] * weight_KOI).transpose(1, 2)
            y_PC = D_KPI.transpose(0, 1).reshape(pixels, K * C) @ matrices_KIO.reshape(K * C, C)
            y_PC = y_PC + (Q_TPC * scale_NC[K:, None, :]).sum(0)
            if running is not None:  # the batch was not centred above
                y_PC = y_PC - (scale_NC * mean_NC).sum(0)
            for a, x_PC in zip(mix_N[K + T :], X_NPC[K + T :], strict=True):
                y_PC = y_PC + a * x_PC
            y_BCHW = y_PC.to(maps[0].dtype).reshape(B, H, W, C).permute(0, 3, 1, 2)
        return y_BCHW, mean_NC.detach(), var_NC.detach() * (pixels / max(1, pixels - 1))

    @staticmethod
    def forward(
        ctx: Any, num_pools: int, _: None, mix_N: Tensor, weight_KOI: Tensor, *maps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        native = compiled(*maps)
        K, T, pixels = len(weight_KOI), num_pools, maps[0].numel() // maps[0].shape[1]
        W_KOI, a_N = weight_KOI.double(), mix_N.double()
        empty_C = a_N.new_zeros(0, maps[0].shape[1])
        covariances, moments = (
            [native.covariance(d) for d in maps[:K]],
            [native.moments(q) for q in maps[K : K + T]],
        )
        V_KII = torch.stack([v for _, v in covariances]) if K else W_KOI
        mean_NC = torch.cat([empty_C, *(m[None] for m, _ in [*covariances, *moments])])
        var_NC = torch.cat([((W_KOI @ V_KII) * W_KOI).sum(2), *(v[None] for _, v in moments)])
        scale_NC = (var_NC + EPS).rsqrt()
        # Rounded as the kernel will: what is subtracted must be the mean of what it adds up.
        M_KIO = _rounded(
            ((a_N[:K, None] * scale_NC[:K])[:, :, None] * W_KOI).transpose(1, 2), maps[0]
        )
        factors_TC = _rounded(a_N[K : K + T, None] * scale_NC[K:], maps[0])
        bias_C = -(mean_NC[:K, None, :] @ M_KIO).sum((0, 1)) - (mean_NC[K:] * factors_TC).sum(0)
        ones = torch.ones_like(bias_C)
        factors = [*factors_TC, *(a * ones for a in a_N[K + T :])]
        y_BCHW = native.sum_products(
            maps[:K], M_KIO, list(zip(maps[K:], factors, strict=True)), bias_C
        )
        ctx.num_pools = num_pools
        ctx.save_for_backward(mix_N, weight_KOI, *maps, mean_NC, V_KII, scale_NC)
        mean_NC = torch.cat([(W_KOI @ mean_NC[:K, :, None]).squeeze(2), mean_NC[K:]])
        var_NC = var_NC * (pixels / (pixels - 1))
        ctx.mark_non_differentiable(mean_NC, var_NC)
        return y_BCHW, mean_NC, var_NC

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        grad = grads[0]  # the statistics have none
        mix_N, weight_KOI, *maps, mean_NC, V_KII, scale_NC = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            plain = lambda *t: _Fold.plain(ctx.num_pools, None, *t)[:1]  # noqa: E731
            return None, None, *differentiable(plain, (mix_N, weight_KOI, *maps), needs, [grad])
        native = compiled(*maps)
        K, T, pixels = len(weight_KOI), ctx.num_pools, grad.numel() // grad.shape[1]
        grad, W_KOI, a_N = channels_last(grad), weight_KOI.double(), mix_N.double()
        sum_C = native.sums(grad)
        mean_C = sum_C / pixels
        # A_k = X_k^T g = D_k^T (g - mean(g)), and what the rounding of that mean changes; for a
        # pool only the diagonal
        near_C = _rounded(mean_C, grad)
        crosses = [native.cross(d, grad, mean_y=near_C.to(grad.dtype)) for d in maps[:K]]
        A_KOI = torch.stack(crosses).transpose(1, 2) if K else W_KOI
        A_KOI = A_KOI + pixels * (near_C - mean_C)[:, None] * mean_NC[:K, None, :]
        sums = [
            native.sums(grad, q) - m * sum_C
            for q, m in zip(maps[K : K + T], mean_NC[K:], strict=True)
        ]
        A_NC = torch.cat([(A_KOI * W_KOI).sum(2), *(s[None] for s in sums)])
        grad_mix = torch.zeros_like(a_N)
        grad_mix[: K + T] = (A_NC * scale_NC).sum(1)
        factor_NC = a_N[: K + T, None] * scale_NC
        slope_NC = -0.5 * scale_NC.square() * factor_NC * A_NC  # dL/d variance
        grad_weight = None
        if needs[1]:
            grad_weight = factor_NC[:K, :, None] * A_KOI + 2.0 * slope_NC[:K, :, None] * (
                W_KOI @ V_KII
            )
            grad_weight = grad_weight.to(weight_KOI.dtype)
        M_KOI = _rounded(factor_NC[:K, :, None] * W_KOI, grad)
        S_KII = _rounded(
            (2.0 / pixels) * (W_KOI.transpose(1, 2) @ (slope_NC[:K, :, None] * W_KOI)), grad
        )
        bias_KI = -(mean_C @ M_KOI) - (mean_NC[:K, None, :] @ S_KII).squeeze(1)
        both_K2OI = torch.stack([M_KOI, S_KII], dim=1).to(grad.dtype)
        slope_NC, factor_NC = _rounded((2.0 / pixels) * slope_NC, grad), _rounded(factor_NC, grad)
        grad_maps: list[Tensor | None] = []
        for n, (x_BCHW, need) in enumerate(zip(maps, needs[2:], strict=True)):
            if n >= K + T and needs[0]:
                grad_mix[n] = native.sums(grad, x_BCHW).sum()
            if not need:
                grad_maps.append(None)
            elif n < K:
                grad_maps.append(
                    native.sum_products([grad, x_BCHW], both_K2OI[n], bias_O=bias_KI[n])
                )
            elif n < K + T:
                bias_C = -(factor_NC[n] * mean_C + slope_NC[n] * mean_NC[n])
                pairs = [(grad, factor_NC[n]), (x_BCHW, slope_NC[n])]
                grad_maps.append(native.sum_products([], W_KOI, pairs, bias_C))
            else:
                grad_maps.append(grad * mix_N[n])
        return None, None, grad_mix.to(mix_N.dtype), grad_weight, *grad_maps


def fold_mix(
    mix_N: Tensor,
    weights: Sequence[Tensor],
    num_pools: int,
    maps: Sequence[Tensor],
    running: Running | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`sum_k a_k BN(D_k W_k^T) + sum_t a_t BN(Q_t) + sum_s a_s X_s`, and the statistics of the
    BatchNorms.

    Args:
        mix_N: the mixing weights a, of the convolutions, the pools, and what is only scaled.
        weights: of the K pointwise convolutions, `(C, C, 1, 1)`.
        maps: D, Q and X, `(B, C, H, W)`.
        running: means and variances to use instead of the batch's, each `(K + T, C)`.

    Returns:
        y `(B, C, H, W)`; mean and variance `(K + T, C)` of what entered the BatchNorms.

    Raises:
        ValueError: a single pixel has no variance.
    """
    K, channels = len(weights), maps[0].shape[1]
    if running is None and K + num_pools and maps[0].numel() == channels:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {maps[0].shape}"
        )
    weight_KOI = (
        torch.stack([w.flatten(1) for w in weights])
        if weights
        else mix_N.new_zeros(0, channels, channels)
    )
    method = _Fold.plain if running is not None or kernels(*maps) is None else _Fold.apply
    return method(num_pools, running, mix_N, weight_KOI, *maps)


# ---- the cell ------------------------------------------------------------------------------------


class _Node:
    """What enters a node: places (row, column) of mixing weights, pointwise weights, BatchNorms,
    maps, by kind."""

    def __init__(self) -> None:
        self.convolutions: list[tuple[int, int, Tensor, nn.BatchNorm2d, Tensor]] = []
        self.reductions: list[
            tuple[int, int, Tensor, nn.BatchNorm2d, Tensor]
        ] = []  # in pairs: the two halves
        self.pools: list[tuple[int, int, nn.BatchNorm2d, Tensor]] = []
        self.others: list[tuple[int, int, Tensor]] = []


class FusedCell(EdgeCell):
    """`EdgeCell`, computed as described at the top of this file.

    Same arguments, parameters, buffers and `state_dict`: only `forward` differs. Operations that
    are not in the tables above (a user's own, or a name given to another factory) run edge by edge
    as modules. Forward hooks of the modules of fused operations do not run.
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
        """As `EdgeCell.forward`; the result is in channels-last memory, except where it is computed
        in groups.

        Args:
            statistics: where given, what is computed in groups adds what its BatchNorms saw.
        """
        updates: Updates = []
        inputs = zip((self.preprocess0, self.preprocess1), (before_BCHW, last_BCHW), strict=True)
        if self.grouped if self.grouped is not None else before_BCHW.device.type != "cpu":
            states = [module(x_BCHW) for module, x_BCHW in inputs]
            seen: Statistics = [] if statistics is None else statistics
            states = grouped_nodes(self, states, mix_EO, active, seen)
            if statistics is None:
                update_running_statistics(updates_of(seen))
            return torch.cat(states, dim=1)
        states = [_prepare(module, x_BCHW, updates) for module, x_BCHW in inputs]
        nodes = [_Node() for _ in range(self.space.nodes)]
        for source in range(self.space.nodes + 2):
            if source >= 2:
                states.append(self._enter(nodes[source - 2], states[0], mix_EO, updates))
            self._leave(source, states[source], nodes, active, updates)
        update_running_statistics(updates)
        return torch.cat(states[2:], dim=1)

    def _leave(
        self, source: int, x_BCHW: Tensor, nodes: list[_Node], active: Active, updates: Updates
    ) -> None:
        """Compute what leaves a source node, up to the last pointwise products and BatchNorms."""
        stride = 2 if self.reduction and source < 2 else 1
        names, factories = self.space.names, self.space.factories
        convolutions, pooled, halves = [], None, None
        for target in range(max(0, source - 1), len(nodes)):
            row, node = self.space.edge(target, source), nodes[target]
            for column in active[row]:
                name = names[column]
                operation: Any = self.edges[row][name]  # type: ignore[index]
                known = factories[name] is OPERATIONS.get(name)
                if isinstance(operation, Zero):
                    continue
                if known and name in CONVOLUTIONS:
                    convolutions.append((node, row, column, operation, CONVOLUTIONS[name]))
                elif known and name in POOLS:
                    pooled = pools(x_BCHW, stride) if pooled is None else pooled
                    node.pools.append((row, column, operation[1], pooled[POOLS.index(name)]))
                elif isinstance(operation, FactorizedReduce) and self.training and _is_even(x_BCHW):
                    halves = [torch.relu(x) for x in _halves(x_BCHW)] if halves is None else halves
                    for weight, half_BCHW in zip(_side_by_side(operation), halves, strict=True):
                        node.reductions.append((row, column, weight, operation.bn, half_BCHW))
                else:
                    node.others.append((row, column, channels_last(operation(x_BCHW))))
        if not convolutions:
            return
        weights, dilations = [c[3][1].weight for c in convolutions], [c[4][0] for c in convolutions]
        maps = relu_depthwise(x_BCHW, weights, dilations, stride)
        for D_BCHW, (node, row, column, operation, (_, separable)) in zip(
            maps, convolutions, strict=True
        ):
            if separable:
                D_BCHW = self._second_half(D_BCHW, operation, updates)
            node.convolutions.append((row, column, operation[-2].weight, operation[-1], D_BCHW))

    def _second_half(self, D_BCHW: Tensor, operation: Any, updates: Updates) -> Tensor:
        """Of a separable convolution: pointwise product, BatchNorm, ReLU, depthwise convolution."""
        pointwise, norm, weight = operation[2].weight, operation[3], operation[5].weight
        z_BCHW = F.linear(D_BCHW.permute(0, 2, 3, 1), pointwise.flatten(1)).permute(0, 3, 1, 2)
        if not self.training:
            return depthwise(torch.relu(norm(z_BCHW)), weight, 1)
        if z_BCHW.numel() == z_BCHW.shape[1]:
            raise ValueError(
                f"Expected more than 1 value per channel when training, got input size {z_BCHW.shape}"
            )
        D_BCHW, mean_C, var_C = norm_relu_depthwise(z_BCHW, weight)
        updates.append((norm, mean_C, var_C))
        return D_BCHW

    def _enter(self, node: _Node, like_BCHW: Tensor, mix_EO: Tensor, updates: Updates) -> Tensor:
        """Add up what enters a node."""
        products = node.convolutions + node.reductions
        parts = [*products, *node.pools, *node.others]
        if not parts:
            step = 2 if self.reduction else 1
            return channels_last(torch.zeros_like(like_BCHW[:, :, ::step, ::step]))
        mix_N = mix_EO[[part[0] for part in parts], [part[1] for part in parts]]
        norms: list[Any] = [part[3] for part in products] + [pool[2] for pool in node.pools]
        running = None
        if not self.training and norms:
            running = (
                torch.stack([n.running_mean for n in norms]),
                torch.stack([n.running_var for n in norms]),
            )
        weights, maps = [part[2] for part in products], [part[-1] for part in parts]
        y_BCHW, mean_NC, var_NC = fold_mix(mix_N, weights, len(node.pools), maps, running)
        if self.training:
            found, first = list(zip(norms, mean_NC, var_NC, strict=True)), len(node.convolutions)
            last = first + len(node.reductions)
            pairs = zip(found[first:last:2], found[first + 1 : last : 2], strict=True)
            updates += (
                found[:first]
                + found[last:]
                + [(n, m + mo, v + vo) for (n, m, v), (_, mo, vo) in pairs]
            )
        return y_BCHW


def _is_even(x_BCHW: Tensor) -> bool:
    return x_BCHW.shape[2] % 2 == 0 and x_BCHW.shape[3] % 2 == 0


def _halves(x_BCHW: Tensor) -> list[Tensor]:
    """The pixels that the two convolutions of a factorized reduction see."""
    return [channels_last(x_BCHW[:, :, i::2, i::2]) for i in range(2)]


def _side_by_side(reduction: FactorizedReduce) -> tuple[Tensor, Tensor]:
    """Its two convolutions as two that add up, `(O, I)` each: zero rows for the channels that the
    other one gives."""
    even, odd = reduction.conv_even.weight.flatten(1), reduction.conv_odd.weight.flatten(1)
    return F.pad(even, (0, 0, 0, len(odd))), F.pad(odd, (0, 0, len(even), 0))


def _prepare(module: Any, x_BCHW: Tensor, updates: Updates) -> Tensor:
    """An input of the cell: ReLU, pointwise convolution (or factorized reduction), BatchNorm."""
    norm: Any
    if isinstance(module, FactorizedReduce) and _is_even(x_BCHW):
        norm = module.bn
        parts = zip(_halves(x_BCHW), (module.conv_even, module.conv_odd), strict=True)
        z_BCHW = torch.cat([relu_pointwise(x, conv.weight) for x, conv in parts], dim=1)
    elif type(module) is nn.Sequential:
        layers: list[Any] = list(module)
        _, convolution, norm = layers
        z_BCHW = relu_pointwise(channels_last(x_BCHW), convolution.weight)
    else:
        return channels_last(module(x_BCHW))
    if not module.training:
        return channels_last(norm(z_BCHW))
    # the fold of a single map that needs no product: its BatchNorm
    one = torch.ones(1, dtype=norm.running_mean.dtype, device=z_BCHW.device)
    y_BCHW, mean_NC, var_NC = fold_mix(one, [], 1, [channels_last(z_BCHW)])
    updates += zip([norm], mean_NC, var_NC, strict=True)
    return y_BCHW


def update_running_statistics(updates: Updates) -> None:
    """What every BatchNorm does in training mode, for many at once."""
    if not updates:
        return
    momentum = updates[0][0].momentum
    with torch.no_grad():
        for kept, new in (
            ([u[0].running_mean for u in updates], [u[1] for u in updates]),
            ([u[0].running_var for u in updates], [u[2] for u in updates]),
        ):
            torch._foreach_mul_(kept, 1.0 - momentum)
            torch._foreach_add_(
                kept, [n.to(k.dtype) for n, k in zip(new, kept, strict=True)], alpha=momentum
            )
        torch._foreach_add_([u[0].num_batches_tracked for u in updates], 1)
