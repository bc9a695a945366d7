"""torch's fast path of attention, which reads weights of children and does not call them."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

from gradnas.choice import Choice

_WITH_FAST_PATH = (nn.TransformerEncoderLayer, nn.TransformerEncoder, nn.MultiheadAttention)


def keep_off_fast_path(net: nn.Module) -> None:
    """Layers that hold a Choice compute it step by step, also in eval mode.

    In eval mode the fast path goes by what a layer's children were when it was made: a Choice in
    their place would be passed over, or asked for weights that it has not.
    """
    for module in net.modules():
        if not isinstance(module, _WITH_FAST_PATH) or _is_kept_off(module):
            continue
        if any(isinstance(inner, Choice) for inner in module.modules()):
            module.forward = functools.partial(_step_by_step, module.forward)


def back_as_it_was(module: nn.Module) -> None:
    """Undo `keep_off_fast_path` for a module in whose place there is no Choice any more."""
    if not _is_kept_off(module):
        return
    (own,) = module.forward.args  # type: ignore[missing-attribute]
    if getattr(own, "__func__", None) is type(module).forward:
        del module.forward
    else:
        module.forward = own


def _is_kept_off(module: nn.Module) -> bool:
    return getattr(module.forward, "func", None) is _step_by_step


def _step_by_step(forward: Any, *args: Any, **kwargs: Any) -> Any:
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return forward(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(was_enabled)
