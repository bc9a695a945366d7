"""A whole cell of a derived network as one operation of autograd.

Legend: B batch, C channels of a state, H height, W width, I channels of an input, O channels of
the output (those of the concatenated states together).

What this saves beside the runs one by one is memory traffic: nodes are written where the
concatenation wants them, the operations of a node are added up as they leave their BatchNorms, the
two input states are never written at all (their readers apply scale and shift), and the gradients
of a state are added up by the kernels that make them. Of a cell are kept its inputs, what enters
each BatchNorm, and the nodes that other nodes read.

The second input is also an output: the next cell reads it from there, so that both gradients of a
map meet in a kernel. Where the backward itself is to be differentiated (`create_graph`), it steps
aside for autograd on `plain_cell`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.spaces.blocks.cell_passes import (
    Backward,
    Factors,
    Forward,
    Plan,
    Statistics,
    parts_of,
    with_step,
)
from gradnas.spaces.blocks.kernels import kernels
from gradnas.spaces.blocks.run import (
    channels_last,
    kernels_for,
    num_inputs,
    num_outputs,
    plain_run,
    size_after,
)
from gradnas.spaces.blocks.stage import Last, is_halving
from gradnas.spaces.native import differentiable, has_memory


def fits(plan: Plan, before: Tensor, last: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether `run_cell` can compute it; what torch would refuse is for torch to refuse."""
    if before.ndim != 4 or last.ndim != 4 or before.shape[0] != last.shape[0]:
        return False
    if not has_memory(before, last, *weights) or kernels(last.dtype) is None:
        return False
    if any(t.dtype != last.dtype for t in (before, *weights)):
        return False
    sizes = []
    channels = [before.shape[1], last.shape[1]] + [plan.channels] * len(plan.runs())
    by_run = zip(plan.runs(), parts_of(plan, weights), channels, strict=False)
    for (stages, _), own, inputs in by_run:
        if num_inputs(stages, own) != inputs or num_outputs(stages, own) != plan.channels:
            return False
    for x, (stages, _) in zip((before, last), plan.inputs, strict=True):
        if is_halving(stages[0]) and (x.shape[2] % 2 or x.shape[3] % 2):
            return False
        sizes.append(size_after(stages, *x.shape[2:]))
    if sizes[0] != sizes[1] or last.shape[0] * sizes[0][0] * sizes[0][1] == 1:
        return False
    return _have_one_size(plan, last.shape[0], sizes[0])


def _have_one_size(plan: Plan, B: int, first: tuple[int, int]) -> bool:
    """Whether the operations of each node agree, and all that is concatenated."""
    sizes = [first, first]
    for node in plan.nodes:
        found = set()
        for op in node:
            H, W = sizes[op.source]
            if op.kind == "run":
                if is_halving(op.stages[0]) and (H % 2 or W % 2):
                    return False
                H, W = size_after(op.stages, H, W)
                if B * H * W == 1:
                    return False
            elif op.kind == "maximum":
                H, W = (H - 1) // op.stride + 1, (W - 1) // op.stride + 1
            found.add((H, W))
        if len(found) != 1:
            return False
        sizes.append(found.pop())
    return len({sizes[j] for j in plan.concat}) == 1


def run_cell(
    plan: Plan, factors: Factors, before: Tensor, last: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Statistics]:
    """The output, the second input again, and what each BatchNorm keeps, in the order of runs.

    Args:
        weights: of all runs, in the order of `Plan.runs`, without what is missing.
    """
    statistics: Statistics = []
    # Before the operation, so that autograd sees copies that are made here.
    both = (channels_last(before), channels_last(last))
    out, again = _Cell.apply(plan, tuple(factors), statistics, *both, *weights)
    return out, again, statistics


def plain_cell(
    plan: Plan, factors: Factors, before: Tensor, last: Tensor, *weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The same on torch's operations; no running statistics are changed."""
    remaining = iter(zip(plan.runs(), parts_of(plan, weights), strict=True))
    states = []
    for x in (before, last):
        (stages, _), own = next(remaining)
        states.append(plain_run(stages, Last(), x, *own)[0])
    of_operation = iter(factors)
    for node in plan.nodes:
        total: Tensor | None = None
        for op in node:
            x = states[op.source]
            if op.kind == "run":
                (stages, _), own = next(remaining)
                x = plain_run(stages, Last(), x, *own)[0]
            elif op.kind == "maximum":
                x = F.max_pool2d(x, 3, op.stride, 1)
            factor_B = next(of_operation)
            if factor_B is not None:
                x = x * factor_B.view(-1, 1, 1, 1)
            total = x if total is None else total + x
        assert total is not None
        states.append(total)
    return torch.cat([states[j] for j in plan.concat], dim=1), last.view_as(last)


class _Cell(torch.autograd.Function):
    """Arguments: plan, factors, a list for statistics, the two inputs, weights.

    Gives the output and the second input.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        factors: tuple[Tensor | None, ...],
        statistics: Statistics,
        before: Tensor,
        last: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        made = Forward(kernels_for(last), plan, factors, weights)
        out = made(before, last, statistics)
        ctx.plan = plan
        ctx.factors = factors
        ctx.ran = made.ran
        ctx.states = [made.place(state) for state in made.states]
        ctx.num_weights = len(weights)
        ctx.save_for_backward(*weights, *made.kept.tensors)
        ctx.set_materialize_grads(False)
        return out, last

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple:
        grad, grad_last = grads
        if grad is None:
            return None, None, None, None, grad_last, *(None for _ in range(ctx.num_weights))
        saved = ctx.saved_tensors
        weights, kept = saved[: ctx.num_weights], saved[ctx.num_weights :]
        needs = ctx.needs_input_grad[3:]
        before, last = (kept[ran.maps[0]] for ran in ctx.ran[:2])
        given = [g for g in (grad, grad_last) if g is not None]
        is_plain = has_memory(*given, *saved) and all(g.dtype == last.dtype for g in given)
        if torch.is_grad_enabled() or not is_plain:
            plain = functools.partial(plain_cell, ctx.plan, ctx.factors)
            found = differentiable(plain, (before, last, *weights), needs, [grad, grad_last])
            return None, None, None, *found
        back = Backward(kernels_for(grad), ctx, kept, weights, needs)
        return None, None, None, *back(with_step(grad), grad_last)
