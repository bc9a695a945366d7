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

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gradnas.modules.inplace import Inputs
from gradnas.modules.nesting import (
    Place,
    described,
    equal,
    is_mixed,
    mapped,
    put_together,
    take_apart,
)
from gradnas.modules.slots import Placed, held_by, holding, with_copied_buffers
from gradnas.randomness import random_state, set_random_state

_bound: ContextVar[bool] = ContextVar("gradnas_bound", default=False)


@contextmanager
def bound_in_backward() -> Iterator[None]:
    """Within: modules that run in backward hold the tensors of their forward pass."""
    token = _bound.set(True)
    try:
        yield
    finally:
        _bound.reset(token)


def is_bound() -> bool:
    """Whether this is within `bound_in_backward`."""
    return _bound.get()


class _Operation(NamedTuple):
    """A module, with the tensors that it held at the forward pass."""

    module: nn.Module
    held: Placed


class Probes:
    """Operations to be run beside the active one, as they were at the forward pass.

    Args:
        operations: column of the mixing weights -> operation.
        args, named: their inputs.
        device: of the output.
        context: what surrounds a call (the current draw, for choices inside an operation).
        label_of: column -> what an error calls the operation.
    """

    def __init__(
        self,
        operations: Mapping[int, nn.Module],
        args: tuple[Any, ...],
        named: Mapping[str, Any],
        device: torch.device,
        context: Callable[[], AbstractContextManager[Any]],
        label_of: Callable[[int], str],
    ) -> None:
        self.inputs: list[Tensor] = []
        self._template = take_apart((args, dict(named)), self.inputs)
        self._context = context
        self.form: Any = None  # of the active output, with its places; `probed` says
        self.label = ""
        self._label_of = label_of
        self._device = device
        self._random_state = random_state(device)
        self._autocasts = torch.is_autocast_enabled(device.type)
        self._autocast_dtype = torch.get_autocast_dtype(device.type)
        # A module holds the tensors of this pass only as long as it runs: remembered here, not
        # looked up later.
        self._operations: dict[int, _Operation] = {}
        for column, module in operations.items():
            held: Placed = []
            for slot, tensor in held_by(module):
                if tensor is not None and not slot.is_buffer:
                    tensor = tensor.detach()
                held.append((slot, tensor))
            self._operations[column] = _Operation(module, held)

    @property
    def columns(self) -> tuple[int, ...]:
        """Of the mixing weights."""
        return tuple(self._operations)

    @torch.no_grad()
    def output(self, column: int, inputs: Sequence[Tensor]) -> list[Tensor]:
        """The tensors that an operation gives where the active ones give theirs.

        Raises:
            ValueError: it gives another shape or anything else that differs.
        """
        operation = self._operations[column]
        args, named = put_together(self._template, iter([t.detach() for t in inputs]))
        autocast = torch.autocast(
            self._device.type, dtype=self._autocast_dtype, enabled=self._autocasts
        )
        # The numbers that the operation would have seen in the active one's place, also where this
        # runs later, in backward.
        random_state_now = random_state(self._device)
        set_random_state(self._random_state, self._device)
        try:
            # Running statistics go into copies: a probe changes nothing.
            held = with_copied_buffers(operation.held)
            with holding(held), self._context(), autocast, bound_in_backward():
                given = Inputs(args, named)
                output = operation.module(*args, **named)
                given.check(operation.module, self._label_of(column))
        finally:
            set_random_state(random_state_now, self._device)
        return self._matched(column, output)

    def _matched(self, column: int, output: Any) -> list[Tensor]:
        outputs: list[Tensor] = []

        def take(parts: Sequence[Any], where: str) -> None:
            wanted, part = parts
            if isinstance(wanted, Place):
                fits = is_mixed(part) and tuple(part.shape) == wanted.shape
                outputs.append(part)
            else:
                fits = equal(wanted, part)
            if not fits:
                raise ValueError(
                    f"{self.label}{where}: operation {column} gives {described(part)}, but "
                    f"the active ones {described(wanted)}; only tensors of real numbers may differ "
                    "between operations, and not in shape"
                )

        mapped(take, [self.form, output])
        return outputs


class _Probed(torch.autograd.Function):
    """Forward: the outputs as they are. Backward: `<grad, o_k>` for the weight of every probe k."""

    @staticmethod
    def forward(
        ctx: Any, probes: Probes, deferred: bool, num_outputs: int, mix_O: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        outputs = tensors[:num_outputs]
        kept = tensors[num_outputs:]  # inputs of the probes where they are deferred, else outputs
        ctx.probes = probes
        ctx.deferred = deferred
        ctx.num_outputs = num_outputs
        ctx.num_kept = len(kept)
        ctx.mix_like = (mix_O.shape, mix_O.dtype, mix_O.device)
        ctx.save_for_backward(*kept)
        # Copies: views could not be changed in place by what comes next.
        return tuple(output.clone() for output in outputs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        return _gradients(ctx, *grads)


@once_differentiable  # here: on a static method it hides the name of `ctx` from type checkers
def _gradients(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
    """Of the inputs of `_Probed.forward`."""
    shape, dtype, device = ctx.mix_like
    grad_mix_O = torch.zeros(shape, dtype=dtype, device=device)
    for place, column in enumerate(ctx.probes.columns):
        if ctx.deferred:
            outputs = ctx.probes.output(column, ctx.saved_tensors)
        else:
            first = place * ctx.num_outputs
            outputs = ctx.saved_tensors[first : first + ctx.num_outputs]
        # In the precision of the mixing weights, not in that of the outputs: under autocast those
        # have 8 bits of fraction, too few for a sum over a whole batch.
        product = torch.zeros((), dtype=dtype, device=device)
        for grad, output in zip(grads, outputs, strict=True):
            product = product + (grad.to(dtype) * output.to(dtype)).sum()
        grad_mix_O[column] = product
    # One for each argument of forward: no gradient for the first three and for what was kept.
    return None, None, None, grad_mix_O, *grads, *[None] * ctx.num_kept


def probed(output: Any, mix_O: Tensor, probes: Probes, deferred: bool, label: str) -> Any:
    """`output`, through which `mix_O` also receives the gradients of the probed operations.

    Args:
        output: of the active operations; a tensor or a nesting of tensors.
        deferred: run the operations in backward and not now.
        label: what an error calls the place.

    Raises:
        ValueError: a probed operation gives another shape than the active ones (where it is
            deferred, in backward).
    """
    outputs: list[Tensor] = []
    probes.form = take_apart(output, outputs, is_mixed)
    probes.label = label
    if not outputs:  # nothing that mixing weights apply to
        return output
    kept = list(probes.inputs)
    if not deferred:
        kept = []
        for column in probes.columns:
            kept += probes.output(column, probes.inputs)
    results = _Probed.apply(probes, deferred, len(outputs), mix_O, *outputs, *kept)
    return put_together(probes.form, iter(results))
