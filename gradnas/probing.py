"""Outputs that the network does not use but the gradient of its mixing weights needs.

With a one-hot gate g the output of a place is `y = o_active(x)`, yet `dL/dg_k = <dL/dy, o_k(x)>`
asks for the output of every candidate k. A probe computes it without a graph: in the forward pass,
keeping the outputs, or in backward, keeping the inputs alone (ProxylessNAS: Cai, Zhu, Han, ICLR
2019, arXiv 1812.00332, section 3.2). Either way the probed operation sees the weights, random
numbers and precision of its forward pass, and leaves running statistics and random state as they
were.

Legend: O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call

from gradnas.randomness import random_state, set_random_state


class Probes:
    """Operations to be run beside the active one, as they were at the forward pass.

    Args:
        operations: column of the mixing weights -> operation.
        args, named: their inputs.
        device: of the output.
        context: what surrounds a call (the current draw, for choices inside an operation).
    """

    def __init__(
        self,
        operations: Mapping[int, nn.Module],
        args: tuple[Any, ...],
        named: Mapping[str, Any],
        device: torch.device,
        context: Callable[[], AbstractContextManager[Any]],
    ) -> None:
        self.inputs: list[Tensor] = []
        self._template = _take_apart((args, dict(named)), self.inputs)
        self._context, self._device = context, device
        self._random_state = random_state(device)
        self._autocast = (
            torch.is_autocast_enabled(device.type),
            torch.get_autocast_dtype(device.type),
        )
        # Inside functional_call a module holds the tensors of this pass alone: remembered here, not
        # looked up later.
        self._operations = {
            k: (operation, dict(operation.named_parameters()), dict(operation.named_buffers()))
            for k, operation in operations.items()
        }

    @property
    def columns(self) -> tuple[int, ...]:
        """Of the mixing weights."""
        return tuple(self._operations)

    @torch.no_grad()
    def output(self, column: int, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The output of an operation as a list of tensors."""
        operation, params, buffers = self._operations[column]
        tensors = {name: p.detach() for name, p in params.items()} | {
            n: b.clone() for n, b in buffers.items()
        }
        args, named = _put_together(self._template, iter([t.detach() for t in inputs]))
        enabled, dtype = self._autocast
        now = random_state(self._device)
        set_random_state(self._random_state, self._device)
        try:
            with self._context(), torch.autocast(self._device.type, dtype=dtype, enabled=enabled):
                found: list[Tensor] = []
                _take_apart(functional_call(operation, tensors, args, named), found)
        finally:
            set_random_state(now, self._device)
        return found


class _Probed(torch.autograd.Function):
    """Forward: the outputs as they are. Backward: `<grad, o_k>` for the mixing weight of every
    probed operation k."""

    @staticmethod
    def forward(
        ctx: Any, probes: Probes, deferred: bool, num_outputs: int, mix_O: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        outputs, kept = tensors[:num_outputs], tensors[num_outputs:]
        ctx.probes, ctx.deferred, ctx.num_outputs, ctx.num_kept = (
            probes,
            deferred,
            num_outputs,
            len(kept),
        )
        ctx.mix_like = (mix_O.shape, mix_O.dtype, mix_O.device)
        ctx.save_for_backward(*kept)
        return tuple(
            output.clone() for output in outputs
        )  # views could not be changed in place by what comes next

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return _gradients(ctx, *grads)


@once_differentiable
def _gradients(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    """Of the inputs of `_Probed.forward`."""
    shape, dtype, device = ctx.mix_like
    grad_mix_O = torch.zeros(shape, dtype=dtype, device=device)
    for place, column in enumerate(ctx.probes.columns):
        if ctx.deferred:
            outputs = ctx.probes.output(column, ctx.saved_tensors)
        else:
            outputs = ctx.saved_tensors[place * ctx.num_outputs : (place + 1) * ctx.num_outputs]
        pairs = zip(grads, outputs, strict=True)
        grad_mix_O[column] = sum((g.to(dtype) * o.to(dtype)).sum() for g, o in pairs)
    return None, None, None, grad_mix_O, *grads, *[None] * ctx.num_kept


def probed(output: Any, mix_O: Tensor, probes: Probes, deferred: bool, label: str) -> Any:
    """`output`, through which `mix_O` also receives the gradients of the probed operations.

    Args:
        output: of the active operations; a tensor or a nesting of tensors.
        deferred: run the operations in backward and not now.
        label: what an error calls the place.

    Raises:
        ValueError: a probed operation gives another shape than the active ones.
    """
    outputs: list[Tensor] = []
    template = _take_apart(output, outputs)
    kept = list(probes.inputs)
    if not deferred:
        kept = []
        for column in probes.columns:
            found = probes.output(column, probes.inputs)
            shapes = [[tuple(t.shape) for t in tensors] for tensors in (outputs, found)]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"{label}: operation {column} gives {shapes[1]}, but the active ones {shapes[0]}"
                )
            kept += found
    results = _Probed.apply(probes, deferred, len(outputs), mix_O, *outputs, *kept)
    return _put_together(template, iter(results))


class _Place:
    """Where a tensor was taken out."""


_PLACE = _Place()


def _take_apart(value: Any, tensors: list[Tensor]) -> Any:
    """The nesting of tuples, lists and dictionaries with its tensors moved, in order, to
    `tensors`."""
    if isinstance(value, Tensor):
        tensors.append(value)
        return _PLACE
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_take_apart(item, tensors) for item in value))
    if isinstance(value, (tuple, list)):
        return type(value)(_take_apart(item, tensors) for item in value)
    if isinstance(value, dict):
        return {key: _take_apart(item, tensors) for key, item in value.items()}
    return value


def _put_together(template: Any, tensors: Any) -> Any:
    """The inverse of `_take_apart`."""
    if isinstance(template, _Place):
        return next(tensors)
    if isinstance(template, tuple) and hasattr(template, "_fields"):
        return type(template)(*(_put_together(item, tensors) for item in template))
    if isinstance(template, (tuple, list)):
        return type(template)(_put_together(item, tensors) for item in template)
    if isinstance(template, dict):
        return {key: _put_together(item, tensors) for key, item in template.items()}
    return template
