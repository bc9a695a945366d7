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

from gradnas.spaces.native import differentiable
from gradnas.spaces.recurrent.recurrence import (
    contiguous,
    kernels,
    native_kernels,
)

ROWS = 256  # of logits at a time


def token_loss(x_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    """Mean negative log-likelihood of the targets under `softmax(x W^T + b)`."""
    return F.nll_loss(F.log_softmax(F.linear(x_NH, weight_VH, bias_V), dim=-1), targets_N)


class _TokenLoss(torch.autograd.Function):
    """`token_loss` without the table of all probabilities: rows come in blocks that stay in the
    cache, and give their gradients at once (a loss is a scalar, so that a backward pass can only
    scale them)."""

    @staticmethod
    def plain(targets_N: Tensor, *tensors: Tensor) -> tuple[Tensor]:
        return (token_loss(*tensors, targets_N),)  # type: ignore[arg-type]

    @staticmethod
    def forward(ctx: Any, needs: Sequence[bool], targets_N: Tensor, *tensors: Tensor) -> Tensor:
        x_NH, weight_VH, bias_V = contiguous(tensors)
        N, V, targets_N = len(x_NH), len(weight_VH), targets_N.contiguous()
        native = native_kernels(x_NH.dtype)
        assert native is not None
        d_x, d_weight, d_bias = (
            torch.zeros_like(t) if need else None for t, need in zip(tensors, needs, strict=True)
        )
        nll_N, logits_RV = x_NH.new_empty(N), x_NH.new_empty(min(ROWS, N), V)
        for n in range(0, N, ROWS):
            x_RH = x_NH[n : n + ROWS]
            out_RV = torch.addmm(bias_V, x_RH, weight_VH.t(), out=logits_RV[: len(x_RH)])
            target, nll = targets_N[n:].data_ptr(), nll_N[n:].data_ptr()
            native.token_rows(
                len(x_RH), V, out_RV.data_ptr(), target, 1.0 / N, nll, torch.get_num_threads()
            )
            if d_x is not None:
                torch.mm(out_RV, weight_VH, out=d_x[n : n + ROWS])
            if d_weight is not None:
                d_weight.addmm_(out_RV.t(), x_RH)
            if d_bias is not None:
                d_bias.add_(out_RV.sum(0))
        if any(needs):
            ctx.save_for_backward(targets_N, x_NH, weight_VH, bias_V, d_x, d_weight, d_bias)
        return nll_N.mean()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (grad,) = grads
        targets_N, *tensors = ctx.saved_tensors
        if torch.is_grad_enabled():
            plain = functools.partial(_TokenLoss.plain, targets_N)
            return (
                None,
                None,
                *differentiable(plain, tensors[:3], ctx.needs_input_grad[2:], (grad,)),
            )
        return None, None, *(None if d is None else d * grad for d in tensors[3:])


def run_token_loss(x_NH: Tensor, weight_VH: Tensor, bias_V: Tensor, targets_N: Tensor) -> Tensor:
    """`token_loss`, by the kernels where they can do it.

    Raises:
        ValueError: a target outside the vocabulary.
    """
    if kernels(x_NH, weight_VH, bias_V) is None:
        return token_loss(x_NH, weight_VH, bias_V, targets_N)
    if not 0 <= int(targets_N.min()) <= int(targets_N.max()) < len(weight_VH):
        raise ValueError(f"targets must be tokens in 0..{len(weight_VH) - 1}")
    needs = tuple(torch.is_grad_enabled() and t.requires_grad for t in (x_NH, weight_VH, bias_V))
    return _TokenLoss.apply(needs, targets_N, x_NH, weight_VH, bias_V)
