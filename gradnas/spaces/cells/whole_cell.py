"""All nodes of a cell with every edge open, as one operation of autograd.

Legend: B batch, C channels, H height, W width, E edges, O operations (in `mix_EO`); in what enters
a node K maps by a product, T pools, N = K + T. Maps are `(B, C, H, W)` in channels-last memory.

`FusedCell` computes a cell from operations of autograd that each read and write whole maps. Here a
cell is one: all that leaves a source is a call of a kernel in each direction, and all that enters
a node is the fold, whose sums over pixels are a call too (`source_kernels`). What is shared by
edges (pools, halves of a factorized reduction, their statistics) is computed once; gradients of a
state are added up by the kernels that make them; without gradients of weights nothing is computed
or kept for them. Of a cell are kept its states, what enters the BatchNorms of separable
convolutions, and what enters the nodes.

Only cells of known operations in training mode are computed so (`fits`). Where the backward itself
is to be differentiated (`create_graph`), it steps aside for autograd on `plain_nodes`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.spaces.cells.fold import fold_mix
from gradnas.spaces.cells.kernels import kernels
from gradnas.spaces.cells.places import size_after
from gradnas.spaces.cells.running import Updates
from gradnas.spaces.cells.shape import INPUTS
from gradnas.spaces.cells.source_kernels import source_kernels
from gradnas.spaces.cells.stages import Item
from gradnas.spaces.cells.stencils import norm_relu_depthwise, pools, relu_depthwise
from gradnas.spaces.cells.whole_backward import Backward
from gradnas.spaces.cells.whole_forward import Forward
from gradnas.spaces.cells.whole_plan import Plan, halves_of, side_by_side
from gradnas.spaces.native import differentiable, has_memory


def fits(plan: Plan, states: Sequence[Tensor], mix_EO: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether `run_nodes` can compute it; what torch would refuse is for torch to refuse."""
    first, second = states
    if first.shape != second.shape or kernels(first, second) is None:
        return False
    if source_kernels(first.dtype) is None or torch.is_autocast_enabled("cpu"):
        return False
    if not has_memory(mix_EO, *weights) or any(w.dtype != first.dtype for w in weights):
        return False
    B, _, H, W = size_after(first, plan[0].stride)
    return mix_EO.is_floating_point() and B * H * W > 1


def run_nodes(
    plan: Plan, states: Sequence[Tensor], mix_EO: Tensor, weights: Sequence[Tensor]
) -> tuple[tuple[Tensor, ...], Updates]:
    """The intermediate nodes of a cell from its two prepared inputs; what its BatchNorms saw."""
    updates: Updates = []
    # An input without any active edge stays out, so that its weights have no gradient rather than
    # zeros.
    inputs = [x.detach() if s.is_empty else x for x, s in zip(states, plan, strict=False)]
    return _Nodes.apply(plan, updates, mix_EO, *inputs, *weights), updates


def plain_nodes(plan: Plan, mix_EO: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The same by smaller operations of autograd, from the two inputs and the weights."""
    states = list(tensors[:INPUTS])
    weights = tensors[INPUTS:]
    num_nodes = len(plan) - INPUTS
    # Of each node what enters it: places in `mix_EO` and maps; products have weights.
    products: list[list[tuple[Item, Tensor, Tensor]]] = [[] for _ in range(num_nodes)]
    pooled: list[list[tuple[Item, Tensor]]] = [[] for _ in range(num_nodes)]
    scaled: list[list[tuple[Item, Tensor]]] = [[] for _ in range(num_nodes)]
    for number, source in enumerate(plan):
        if number >= INPUTS:
            t = number - INPUTS
            parts = [*((item, x) for item, _, x in products[t]), *pooled[t], *scaled[t]]
            if parts:
                mix_N = mix_EO[[item.row for item, _ in parts], [item.column for item, _ in parts]]
                own = [weight for _, weight, _ in products[t]]
                maps = [x for _, x in parts]
                states.append(fold_mix(mix_N, own, len(pooled[t]), maps)[0])
            else:
                states.append(states[0].new_zeros(size_after(states[0], plan[0].stride)))
        x_BCHW = states[number]
        convolutions = source.spec(weights)
        if convolutions:
            depthwise = [c.depthwise for c in convolutions]
            dilations = [c.dilation for c in convolutions]
            found = relu_depthwise(x_BCHW, depthwise, dilations, source.stride)
            for k, (c, D_BCHW) in enumerate(zip(convolutions, found, strict=True)):
                if c.pointwise is not None and c.second is not None:
                    z_BHWC = F.linear(D_BCHW.permute(0, 2, 3, 1), c.pointwise.flatten(1))
                    D_BCHW = norm_relu_depthwise(z_BHWC.permute(0, 3, 1, 2), c.second)[0]
                item = source.convolutions[k]
                products[item.target].append((item, weights[source.last_weight(k)], D_BCHW))
        if source.maxima or source.averages:
            both = pools(x_BCHW, source.stride)
            for items, q_BCHW in zip((source.maxima, source.averages), both, strict=True):
                for item in items:
                    pooled[item.target].append((item, q_BCHW))
        if source.reductions:
            halves = [torch.relu(half) for half in halves_of(x_BCHW)]
            for k, item in enumerate(source.reductions):
                at = source.place_of_reduction(k)
                wide = side_by_side(weights[at], weights[at + 1])
                for weight, half in zip(wide, halves, strict=True):
                    products[item.target].append((item, weight, half))
        for item in source.identities:
            scaled[item.target].append((item, x_BCHW))
    return tuple(states[INPUTS:])


class _Nodes(torch.autograd.Function):
    """Arguments: plan, a list for what the BatchNorms see, `mix_EO`, the two inputs, weights."""

    @staticmethod
    def forward(
        ctx: Any, plan: Plan, updates: Updates, mix_EO: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        made = Forward(plan, mix_EO, tensors[INPUTS:], updates)
        nodes = made(tensors[:INPUTS])
        ctx.plan = plan
        ctx.num_tensors = len(tensors)
        ctx.tape = made.tape
        ctx.save_for_backward(mix_EO, *tensors, *nodes, *made.kept)
        return nodes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        mix_EO, *saved = ctx.saved_tensors
        tensors = saved[: ctx.num_tensors]
        needs = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or kernels(*grads) is None:
            plain = functools.partial(plain_nodes, ctx.plan)
            return None, None, *differentiable(plain, (mix_EO, *tensors), needs, grads)
        num_nodes = len(ctx.plan) - INPUTS
        nodes = saved[ctx.num_tensors : ctx.num_tensors + num_nodes]
        kept = saved[ctx.num_tensors + num_nodes :]
        back = Backward(ctx.plan, ctx.tape, mix_EO, tensors, nodes, kept, needs)
        return None, None, *back(grads)
