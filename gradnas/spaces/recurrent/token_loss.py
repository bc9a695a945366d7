"""The decoder's loss: the negative log-likelihood of tokens, without a table of all probabilities.

Legend: N tokens, H units, V vocabulary, R rows of logits at a time.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.spaces.native import address, differentiable, has_memory
from gradnas.spaces.recurrent.kernels import check, contiguous, kernels, native_kernels

ROWS = 256  # of logits at a time
# Targets may come in any of them; the losses, torch's and the kernel's, read the last.
WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def token_loss(x_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    """Mean negative log-likelihood of the targets under `softmax(x W^T + b)`."""
    return F.nll_loss(F.log_softmax(F.linear(x_NH, weight_VH, bias_V), dim=-1), targets_N)


class _TokenLoss(torch.autograd.Function):
    """`token_loss` without the table of all probabilities.

    Rows of logits come in blocks that stay in the processor's cache, and are turned into their own
    gradients at once: a loss is a scalar, so that a backward pass can only scale them.
    """

    @staticmethod
    def plain(targets_N: Tensor, *tensors: Tensor) -> tuple[Tensor]:
        x_NH, weight_VH, bias_V = tensors
        return (token_loss(x_NH, weight_VH, bias_V, targets_N),)

    @staticmethod
    def forward(ctx: Any, needs: Sequence[bool], targets_N: Tensor, *tensors: Tensor) -> Tensor:
        x_NH, weight_VH, bias_V = contiguous(tensors)
        targets_N = targets_N.contiguous()
        N = len(x_NH)
        V = len(weight_VH)
        H = x_NH.shape[1]
        check(x_NH.dtype, x=(x_NH, (N, H)), weight=(weight_VH, (V, H)), bias=(bias_V, (V,)))
        first_target = address("the targets", targets_N, torch.int64, (N,))
        native = native_kernels(x_NH.dtype)
        assert native is not None  # `kernels` was asked first
        needs_x, needs_weight, needs_bias = needs
        d_x = torch.zeros_like(x_NH) if needs_x else None
        d_weight = torch.zeros_like(weight_VH) if needs_weight else None
        d_bias = torch.zeros_like(bias_V) if needs_bias else None
        nll_N = x_NH.new_empty(N)
        buffer_RV = x_NH.new_empty(min(ROWS, N), V)
        for n in range(0, N, ROWS):
            x_RH = x_NH[n : n + ROWS]
            R = len(x_RH)
            logits_RV = torch.addmm(bias_V, x_RH, weight_VH.t(), out=buffer_RV[:R])
            native.token_rows(
                R,
                V,
                logits_RV.data_ptr(),
                first_target + n * targets_N.element_size(),
                1.0 / N,  # of the mean
                nll_N[n:].data_ptr(),
                torch.get_num_threads(),
            )
            d_logits_RV = logits_RV  # the kernel has written them in the logits' place
            if d_x is not None:
                torch.mm(d_logits_RV, weight_VH, out=d_x[n : n + ROWS])
            if d_weight is not None:
                d_weight.addmm_(d_logits_RV.t(), x_RH)
            if d_bias is not None:
                d_bias.add_(d_logits_RV.sum(0))
        if any(needs):
            ctx.save_for_backward(targets_N, x_NH, weight_VH, bias_V, d_x, d_weight, d_bias)
        return nll_N.mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (grad,) = grads
        targets_N, *saved = ctx.saved_tensors
        tensors = saved[:3]
        if torch.is_grad_enabled() or not has_memory(grad):
            # A backward pass through this one is asked for, or one for many gradients at once:
            # only torch operations have it.
            plain = functools.partial(_TokenLoss.plain, targets_N)
            needs = ctx.needs_input_grad[2:]
            return None, None, *differentiable(plain, tensors, needs, (grad,))
        scaled = [None if d is None else d * grad for d in saved[3:]]
        return None, None, *scaled


def run_token_loss(x_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    """`token_loss`, by the kernels where they can do it.

    Args:
        targets_N: whole numbers of any dtype.

    Raises:
        ValueError: targets that are no whole numbers, lie on another device, are not one for each
            row, or (on the CPU) are outside of the vocabulary.
    """
    targets_N = _tokens(targets_N, x_NH, vocabulary=len(weight_VH))
    if kernels(x_NH, weight_VH, bias_V) is None or not has_memory(targets_N):
        return token_loss(x_NH, weight_VH, bias_V, targets_N)
    # Asked for here: inside of `forward` gradients are always switched off.
    enabled = torch.is_grad_enabled()
    needs = tuple(enabled and t.requires_grad for t in (x_NH, weight_VH, bias_V))
    return _TokenLoss.apply(needs, targets_N, x_NH, weight_VH, bias_V)


def _tokens(targets_N: Tensor, x_NH: Tensor, vocabulary: int) -> Tensor:
    """Checked targets in int64, which is what both forms of the loss read."""
    if targets_N.dtype not in WHOLE:
        raise ValueError(f"targets are tokens, whole numbers, not {targets_N.dtype}")
    if targets_N.device != x_NH.device:
        raise ValueError(
            f"the targets are on {targets_N.device}, the network on {x_NH.device}: "
            "move them with .to(device)"
        )
    if targets_N.shape != x_NH.shape[:1]:
        raise ValueError(
            f"{tuple(x_NH.shape[:1])} targets are needed, not {tuple(targets_N.shape)}"
        )
    targets_N = targets_N.long()
    # The kernel reads the logit of a target by its address: it must not lie outside of the row.
    # Another device would have to be waited for; its own loss looks itself.
    if has_memory(targets_N):
        lowest = int(targets_N.min())
        highest = int(targets_N.max())
        if lowest < 0 or highest >= vocabulary:
            raise ValueError(f"targets must be tokens in 0..{vocabulary - 1}")
    return targets_N
