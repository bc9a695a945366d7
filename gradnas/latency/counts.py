"""Multiply-adds and parameters of any module, counted by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def in_eval_mode(net: nn.Module) -> Iterator[None]:
    """Within: every module is in eval mode; after it, each in the mode that it was in.

    Modes of modules may differ: frozen layers stay in eval mode while a network trains.
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def count_macs(run: Callable[[], object]) -> int:
    """Multiply-adds of the convolutions and matrix products that `run` makes.

    They are counted where torch carries them out, so it makes no difference whether they come from
    layers or from functions. Biases, BatchNorm, activations, pooling and additions count as
    nothing, as is usual in the field.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() // 2  # torch counts a multiply-add as two


def macs(module: nn.Module, *inputs: object) -> int:
    """Multiply-adds of one forward pass in eval mode; give one image for the usual number.

    The published ProxylessNAS networks have 439.2M (CPU), 465.3M (GPU) and 320.4M (Mobile) at
    1x3x224x224.
    """
    with in_eval_mode(module):
        return count_macs(lambda: module(*inputs))


def num_params(module: nn.Module) -> int:
    """Number of trainable and fixed parameters; a shared one counts once, buffers do not count."""
    return sum(p.numel() for p in module.parameters())
