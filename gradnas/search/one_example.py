"""The inputs of one example, from those of a batch: what multiply-adds are counted of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from gradnas.modules.call import Call

WHOLE = (
    "multiply-adds are of the whole example, since {reason}; give an example of one, and a budget "
    "for it"
)
# Modules that read time first and the batch second unless they are told otherwise.
TIME_FIRST = (
    nn.RNNBase,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
)


def batch_of(net: nn.Module, call: Call) -> int | str:
    """How many examples stand side by side in the inputs of a call.

    They do along the first dimension, in every tensor that has dimensions.

    Returns:
        Their number; or why it cannot be told, as a part of a sentence.
    """
    if call.examples == 1:
        return 1
    sizes = set()
    for value in (*call.inputs, *call.named.values()):
        for leaf in _leaves(value):
            if isinstance(leaf, Tensor):
                is_plain = not leaf.is_nested and leaf.layout is torch.strided
                if not is_plain and leaf.dim() and leaf.size(0) != 1:
                    return "its tensors are no plain ones"
                if leaf.dim():
                    sizes.add(leaf.size(0))
            elif isinstance(leaf, PackedSequence):
                if leaf.batch_sizes[0] != 1:
                    return "its sequences are packed"
                sizes.add(1)
            elif not isinstance(leaf, (int, float, complex, str, bytes, bool, type(None))):
                return f"a {type(leaf).__name__} does not tell how many examples it holds"
    if not sizes:
        return 1
    if len(sizes) > 1:
        listed = " and ".join(str(size) for size in sorted(sizes)[:3])
        return f"the first dimensions of its tensors differ ({listed})"
    (size,) = sizes
    for path, module in net.named_modules():
        if size > 1 and isinstance(module, TIME_FIRST) and not _is_batch_first(module):
            kind = type(module).__name__
            return f"{path!r} ({kind}) may take its first dimension, {size}, for the time"
    return size


def first_example(call: Call) -> Call:
    """The call with the first example alone, as a batch of one."""
    return call.mapped(_first)


def _first(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value[:1] if value.dim() else value
    if isinstance(value, Mapping):
        # Of the same class, which may look its entries up as attributes.
        make: Any = type(value)
        return make({key: _first(item) for key, item in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_first(item) for item in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_first(item) for item in value)
    return value


def _leaves(value: Any) -> Iterator[Any]:
    """What stands in nested containers."""
    if isinstance(value, Mapping):
        items: Any = value.values()
    elif isinstance(value, (list, tuple)) and not isinstance(value, PackedSequence):
        items = value
    else:
        yield value
        return
    for item in items:
        yield from _leaves(item)


def _is_batch_first(module: nn.Module) -> bool:
    attention = getattr(module, "self_attn", module)  # of the layers of a transformer
    return bool(getattr(attention, "batch_first", False))
