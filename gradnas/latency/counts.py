"""Multiply-adds and parameters of any module, counted by running it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_macs(run: Callable[[], Any]) -> int:
    """Multiply-adds of the convolutions and matrix products that `run` makes; nothing else is
    counted.

    They are counted where torch carries them out, so it makes no difference whether they come from
    layers or from functions. Biases, BatchNorm, activations, pooling and additions count as
    nothing, as is usual in the field.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2  # torch counts a multiply-add as two


def macs(module: nn.Module, *inputs: Any) -> int:
    """Multiply-adds of one forward pass in eval mode; give one image for the usual number.

    The published ProxylessNAS networks have 439.2M (CPU), 465.3M (GPU) and 320.4M (Mobile) at
    1x3x224x224.
    """
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        return count_macs(lambda: module(*inputs))
    finally:
        for m, training in modes:
            m.training = training


def num_params(module: nn.Module) -> int:
    """Number of trainable and fixed parameters; a shared one counts once, buffers do not count."""
    return sum(p.numel() for p in module.parameters())
