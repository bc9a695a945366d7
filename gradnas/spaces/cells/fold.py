"""The fold: what enters a node as one matrix product, BatchNorms and mixing weights included.

Legend: B batch, C channels, H height, W width, P pixels (B * H * W); K convolutions, T pools, S
maps that are only scaled, N = K + T + S maps in all (in statistics N = K + T); I channels in, O
channels out (both are C). Maps are `(B, C, H, W)` in channels-last memory.

Every convolution of a cell ends with a pointwise product and a BatchNorm without scale and shift,
and all that is done with the result is to multiply it by its mixing weight and add it up:

    y = sum_k a_k BN(D_k W_k^T),    D_k (P, I) the output of the depthwise convolution, W_k (O, I),
    a_k a scalar.

The statistics of Z_k = D_k W_k^T follow from those of D_k. With m_k = mean(D_k), X_k = D_k - m_k
and V_k = X_k^T X_k / P, the mean of Z_k is W_k m_k and its variance is v_k = diag(W_k V_k W_k^T).
With r_k = (v_k + eps)^(-1/2),

    y = sum_k X_k M_k,    M_k = a_k W_k^T diag(r_k)    (I, O),                                   (1)

which is one matrix product over all inputs side by side: no Z_k, no normalised Z_k is ever formed.
Centring before the product V_k = X^T X is what keeps float32 accurate; E[D D^T] - m m^T loses the
digits. For the gradient, let g = dL/dy and A_k = X_k^T g (which is dL/dM_k). Then

    dL/da_k = sum_io A_io W_oi r_o,                                                              (2)
    dL/dr_o = a_k sum_i A_io W_oi,    s_o = dL/dv_o = -1/2 r_o^3 dL/dr_o,                        (3)
    dL/dW_oi = a_k r_o A_io + 2 s_o (W_k V_k)_oi,                                                (4)
    dL/dD_k = (g - mean(g)) M_k^T + X_k S_k,    S_k = 2/P W_k^T diag(s) W_k,                     (5)

the last term because dv_o = 2/P (W_k X^T dX W_k^T)_oo; X has mean zero, so it needs no centring of
its own. A pool with its BatchNorm is the same with W_k = 1, and everything diagonal.

Second derivatives (`Unrolled(mode="exact")`, `Implicit`): with `create_graph` the explicit backward
steps aside and autograd differentiates the plain form of the same operation, as often as it likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradnas.spaces.cells.fold_algebra import Sums, fold_gradients, folded
from gradnas.spaces.cells.kernels import EPS, compiled, kernels, num_pixels, unbiased
from gradnas.spaces.cells.places import channels_last
from gradnas.spaces.native import differentiable, has_memory

# Per channel the mean, and the variance with P - 1 in the denominator, as BatchNorm keeps it
Running = tuple[Tensor, Tensor]


def fold_mix(
    mix_N: Tensor,
    weights: Sequence[Tensor],
    num_pools: int,
    maps: Sequence[Tensor],
    running: Running | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`sum_k a_k BN(D_k W_k^T) + sum_t a_t BN(Q_t) + sum_s a_s X_s`, and what the BatchNorms saw.

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
    channels = maps[0].shape[1]
    num_norms = len(weights) + num_pools
    if running is None and num_norms and maps[0].numel() == channels:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {maps[0].shape}"
        )
    if weights:
        weight_KOI = torch.stack([w.flatten(1) for w in weights])
    else:
        weight_KOI = mix_N.new_zeros(0, channels, channels)
    # The kernels normalise by the batch's own statistics only.
    by_torch = running is not None or kernels(*maps) is None or not has_memory(mix_N, *weights)
    method = _Fold.plain if by_torch else _Fold.apply
    return method(num_pools, running, mix_N, weight_KOI, *maps)


class _Fold(torch.autograd.Function):
    """Arguments: number of pools, running statistics, `mix_N`, `weight_KOI`, and the N maps."""

    @staticmethod
    def plain(
        num_pools: int, running: Running | None, mix_N: Tensor, weight_KOI: Tensor, *maps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The same on torch's operations."""
        B, C, H, W = maps[0].shape
        pixels = B * H * W
        K = len(weight_KOI)
        T = num_pools
        # Statistics need more digits than bf16 has.
        with torch.autocast(maps[0].device.type, enabled=False):
            dtype = mix_N.dtype
            weight_KOI = weight_KOI.to(dtype)
            X_NPC = [m.permute(0, 2, 3, 1).reshape(pixels, C).to(dtype) for m in maps]
            D_KPI = torch.stack(X_NPC[:K]) if K else mix_N.new_zeros(0, pixels, C)
            Q_TPC = torch.stack(X_NPC[K : K + T]) if T else mix_N.new_zeros(0, pixels, C)
            if running is None:
                mean_KI1 = D_KPI.mean(1).unsqueeze(2)
                mean_T1C = Q_TPC.mean(1, keepdim=True)
                D_KPI = D_KPI - mean_KI1.transpose(1, 2)
                Q_TPC = Q_TPC - mean_T1C
                # V_k, of the maps that are centred above; from it the diagonal of W V W^T alone.
                covariance_KII = D_KPI.transpose(1, 2) @ D_KPI / pixels
                mean_NC = torch.cat([(weight_KOI @ mean_KI1).squeeze(2), mean_T1C.squeeze(1)])
                var_KO = ((weight_KOI @ covariance_KII) * weight_KOI).sum(2)
                var_NC = torch.cat([var_KO, Q_TPC.square().mean(1)])
            else:
                mean_NC, var_NC = running
            scale_NC = mix_N[: K + T, None] * (var_NC + EPS).rsqrt()  # a_k r_k
            # (1): all inputs side by side, times all matrices one below the other
            matrices_KIO = (scale_NC[:K, :, None] * weight_KOI).transpose(1, 2)
            y_PC = D_KPI.transpose(0, 1).reshape(pixels, K * C) @ matrices_KIO.reshape(K * C, C)
            y_PC = y_PC + (Q_TPC * scale_NC[K:, None, :]).sum(0)
            if running is not None:  # the maps were not centred above
                y_PC = y_PC - (scale_NC * mean_NC).sum(0)
            for a, x_PC in zip(mix_N[K + T :], X_NPC[K + T :], strict=True):
                y_PC = y_PC + a * x_PC
            y_BCHW = y_PC.to(maps[0].dtype).reshape(B, H, W, C).permute(0, 3, 1, 2)
        return y_BCHW, mean_NC.detach(), var_NC.detach() * unbiased(pixels)

    @staticmethod
    def forward(
        ctx: Any, num_pools: int, _: None, mix_N: Tensor, weight_KOI: Tensor, *maps: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        native = compiled(maps[0])
        pixels = num_pixels(maps[0])
        K = len(weight_KOI)
        T = num_pools
        # All that is of the size of a weight or smaller is computed in float64: it costs little
        # beside the maps, and they alone stay in their own precision.
        W_KOI = weight_KOI.double()
        a_N = mix_N.double()

        # Statistics of the maps as they come, before any product.
        means: list[Tensor] = []
        covariances: list[Tensor] = []
        pool_variances: list[Tensor] = []
        for d in maps[:K]:
            mean_I, covariance_II = native.covariance(d)
            means.append(mean_I)
            covariances.append(covariance_II)
        for q in maps[K : K + T]:
            mean_C, var_C = native.moments(q)
            means.append(mean_C)
            pool_variances.append(var_C)
        channels = maps[0].shape[1]
        map_mean_NC = _rows(means, channels)
        V_KII = torch.stack(covariances) if K else W_KOI  # without convolutions (0, C, C) as well
        var_TC = _rows(pool_variances, channels)
        found = folded(W_KOI, a_N[: K + T], map_mean_NC, V_KII, var_TC, maps[0])
        M_KIO, factors_TC, bias_C, r_NC = found.M_KIO, found.factors_TC, found.bias_C, found.r_NC
        scaled = list(zip(maps[K : K + T], factors_TC, strict=True))
        # What is only scaled has one factor for all channels, and no mean to subtract.
        ones_C = torch.ones_like(bias_C)
        for x, a in zip(maps[K + T :], a_N[K + T :], strict=True):
            scaled.append((x, a * ones_C))
        y_BCHW = native.sum_products(maps[:K], M_KIO, scaled, bias_C)

        ctx.num_pools = num_pools
        ctx.save_for_backward(mix_N, weight_KOI, *maps, map_mean_NC, V_KII, r_NC)
        mean_NC = found.mean_NC
        var_NC = found.var_NC * unbiased(pixels)  # as BatchNorm keeps it
        ctx.mark_non_differentiable(mean_NC, var_NC)
        return y_BCHW, mean_NC, var_NC

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        grad = grads[0]  # the statistics have none
        mix_N, weight_KOI, *maps, map_mean_NC, V_KII, r_NC = ctx.saved_tensors
        needs_mix, needs_weight, *needs_maps = ctx.needs_input_grad[2:]
        # With `create_graph` this backward is to be differentiated itself.
        native = None if torch.is_grad_enabled() else kernels(grad)
        if native is None:

            def plain(*tensors: Tensor) -> tuple[Tensor, ...]:
                return _Fold.plain(ctx.num_pools, None, *tensors)[:1]

            needs = [needs_mix, needs_weight, *needs_maps]
            return None, None, *differentiable(plain, (mix_N, weight_KOI, *maps), needs, [grad])

        grad = channels_last(grad)
        pixels = num_pixels(grad)
        K = len(weight_KOI)
        T = ctx.num_pools
        W_KOI = weight_KOI.double()
        a_N = mix_N.double()
        sum_C = native.sums(grad)
        # For a product x^T (g - near) over the pixels, near the rounded mean of g; for a pool only
        # the diagonal is needed: the sum of q g.
        near_C = (sum_C / pixels).to(grad.dtype)
        crosses = [native.cross(d, grad, mean_y=near_C) for d in maps[:K]]
        cross_KIO = torch.stack(crosses) if K else W_KOI
        along_TC = _rows([native.sums(grad, q) for q in maps[K : K + T]], len(sum_C))
        sums = Sums(pixels, sum_C, near_C, cross_KIO, along_TC)
        found = fold_gradients(
            W_KOI, a_N[: K + T], map_mean_NC, V_KII, r_NC, sums, needs_weight, grad
        )
        grad_mix = torch.zeros_like(a_N)
        grad_mix[: K + T] = found.mix_N
        grad_weight = None
        if found.weight_KOI is not None:
            grad_weight = found.weight_KOI.to(weight_KOI.dtype)
        both_K2OI = torch.stack([found.M_KOI, found.S_KII], dim=1).to(grad.dtype)
        grad_maps: list[Tensor | None] = []
        for n, (x_BCHW, needs_map) in enumerate(zip(maps, needs_maps, strict=True)):
            is_scaled_only = n >= K + T
            if is_scaled_only and needs_mix:
                grad_mix[n] = native.sums(grad, x_BCHW).sum()
            if not needs_map:
                grad_map = None
            elif is_scaled_only:
                grad_map = grad * mix_N[n]
            elif n < K:
                both_2OI = both_K2OI[n]
                grad_map = native.sum_products([grad, x_BCHW], both_2OI, bias_O=found.bias_KI[n])
            else:
                pairs = [(grad, found.scale_TC[n - K]), (x_BCHW, found.slope_TC[n - K])]
                grad_map = native.sum_products([], W_KOI, pairs, found.bias_TC[n - K])
            grad_maps.append(grad_map)
        return None, None, grad_mix.to(mix_N.dtype), grad_weight, *grad_maps


def _rows(vectors: list[Tensor], channels: int) -> Tensor:
    """Vectors of C numbers as rows, also where there are none."""
    if not vectors:
        return torch.zeros(0, channels, dtype=torch.float64, device="cpu")
    return torch.stack(vectors)
