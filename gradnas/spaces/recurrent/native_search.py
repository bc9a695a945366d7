"""The search cell by the C++ kernels, with a backward pass of its own.

Legend: T time steps, B batch, H hidden units, G = 2 H (gate, then candidate), N nodes, E edges, F
activations, i a node from 1 to N, 5 the kernels' weights of an edge.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gradnas.modules.synchronised import norms_are_synchronised
from gradnas.spaces.native import differentiable
from gradnas.spaces.recurrent.kernels import (
    NATIVE,
    NUM_WEIGHTS,
    NodeKernels,
    add_hidden_gradient,
    check,
    contiguous,
    kernels,
    recurrent_gradient,
    tanh_weights,
)
from gradnas.spaces.recurrent.recurrence import (
    ACTIVATIONS,
    Activation,
    is_native,
    search_cell,
)

FLOAT64_BYTES = 8


class _SearchCell(torch.autograd.Function):
    """`search_cell` for the activations of `NATIVE`, edges' weights as `(sum of mix, mix ...)`."""

    @staticmethod
    def plain(mask_BH: Tensor | None, *tensors: Tensor) -> tuple[Tensor]:
        input_TBG, hidden_BH, recurrent_HG, nodes_NHG, weights_E5 = tensors
        functions = [ACTIVATIONS[name] for name in NATIVE]
        outputs_TBH = search_cell(
            functions,
            mask_BH,
            input_TBG,
            hidden_BH,
            recurrent_HG,
            nodes_NHG,
            weights_E5[:, 1:],
        )
        return (outputs_TBH,)

    @staticmethod
    def forward(ctx: Any, keep: bool, mask_BH: Tensor | None, *tensors: Tensor) -> Tensor:
        mask_BH, *rest = contiguous([mask_BH, *tensors])
        input_TBG, hidden_BH, recurrent_HG, nodes_NHG, weights_E5 = rest
        T, B, G = input_TBG.shape
        H = G // 2
        N = nodes_NHG.shape[0]
        E = N * (N + 1) // 2
        check(
            input_TBG.dtype,
            input=(input_TBG, (T, B, 2 * H)),
            hidden=(hidden_BH, (B, H)),
            recurrent=(recurrent_HG, (H, G)),
            nodes=(nodes_NHG, (N, H, G)),
            weights=(weights_E5, (E, NUM_WEIGHTS)),
        )

        # What a backward pass reads. Without one a single time step is kept, which the next one
        # writes over.
        steps = T if keep else 1
        states = input_TBG.new_empty(steps, N + 1, B, H)
        masked = states if mask_BH is None else torch.empty_like(states)
        inverse = input_TBG.new_empty(steps, N + 1, H)
        first = input_TBG.new_empty(steps, B, G)
        edges = input_TBG.new_empty(steps, E * B, G)
        outputs = input_TBG.new_empty(T, B, H)
        fed_BH = torch.empty_like(hidden_BH)

        node = NodeKernels(input_TBG, B, H, mask_BH, normalise=True)
        tanh_5 = tanh_weights(input_TBG)
        all_weights = weights_E5.data_ptr()
        for t in range(T):
            k = t if keep else 0
            states_k = states[k].data_ptr()
            masked_k = masked[k].data_ptr()
            inverse_k = inverse[k].data_ptr()
            before = hidden_BH if t == 0 else outputs[t - 1]
            fed = before if mask_BH is None else torch.mul(before, mask_BH, out=fed_BH)
            torch.addmm(input_TBG[t], fed, recurrent_HG, out=first[k])
            node.forward(
                1,
                stride=G,
                states=before.data_ptr(),
                pre=first[k].data_ptr(),
                weights=tanh_5.data_ptr(),
                out=states_k,
                masked=masked_k,
                inverse=inverse_k,
            )
            for i in range(1, N + 1):
                edge = i * (i - 1) // 2  # the first one into node i
                # All predecessors of a node share its matrix: one product serves all its edges.
                pre = edges[k, edge * B : (edge + i) * B]
                torch.mm(masked[k, :i].view(i * B, H), nodes_NHG[i - 1], out=pre)
                node.forward(
                    i,
                    stride=G,
                    states=states_k,
                    pre=pre.data_ptr(),
                    weights=all_weights + edge * node.weights_bytes,
                    out=states_k + i * node.state_bytes,
                    masked=masked_k + i * node.state_bytes,
                    inverse=inverse_k + i * node.inverse_bytes,
                )
            torch.mean(states[k, 1:], 0, out=outputs[t])
        if keep:
            ctx.save_for_backward(mask_BH, *rest, outputs, states, masked, inverse, first, edges)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (grad_TBH,) = grads
        mask_BH, *saved = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or kernels(grad_TBH) is None:
            # A backward pass through this one is asked for, or one for many gradients at once:
            # only torch operations have it.
            plain = functools.partial(_SearchCell.plain, mask_BH)
            return None, None, *differentiable(plain, saved[:5], needs, (grad_TBH,))
        return None, None, *_gradients(mask_BH, saved, needs, grad_TBH)


def _gradients(
    mask_BH: Tensor | None, saved: Sequence[Tensor], needs: Sequence[bool], grad_TBH: Tensor
) -> tuple[Tensor | None, ...]:
    """Those of input, hidden state, recurrent matrix, nodes' matrices and weights."""
    input_TBG, hidden_BH, recurrent_HG, nodes_NHG, weights_E5 = saved[:5]
    outputs, states, masked, inverse, first, edges = saved[5:]
    _, _, needs_recurrent, needs_nodes, needs_weights = needs
    T, B, G = input_TBG.shape
    H = G // 2
    N = nodes_NHG.shape[0]

    # d_x is the gradient of x, of one time step alone where none later needs it.
    d_first = torch.empty_like(first)
    d_edges = torch.empty_like(edges[0])
    d_states = torch.empty_like(states[0])
    d_masked = torch.empty_like(states[0])
    d_hidden = grad_TBH.new_zeros(B, H)
    d_nodes = torch.zeros_like(nodes_NHG) if needs_nodes else None
    # In float64: a weight's gradient is a sum over all units, texts and time steps.
    d_weights = None
    if needs_weights:
        d_weights = torch.zeros_like(weights_E5, dtype=torch.float64)

    node = NodeKernels(input_TBG, B, H, mask_BH, normalise=True)
    tanh_5 = tanh_weights(input_TBG)
    all_weights = weights_E5.data_ptr()
    d_states_0 = d_states.data_ptr()
    d_masked_0 = d_masked.data_ptr()
    for t in reversed(range(T)):
        states_t = states[t].data_ptr()
        inverse_t = inverse[t].data_ptr()
        edges_t = edges[t].data_ptr()
        d_masked.zero_()
        d_states[0].zero_()
        # The output is the mean of the nodes' states, and is the next step's hidden state.
        d_states[1:] = (grad_TBH[t] + d_hidden) * (1.0 / N)
        for i in range(N, 0, -1):
            edge = i * (i - 1) // 2
            d_pre = d_edges[edge * B : (edge + i) * B]
            node.backward(
                i,
                stride=G,
                states=states_t,
                pre=edges_t + edge * node.pre_bytes,
                weights=all_weights + edge * node.weights_bytes,
                out=states_t + i * node.state_bytes,
                inverse=inverse_t + i * node.inverse_bytes,
                grad=d_states_0 + i * node.state_bytes,
                grad_masked=d_masked_0 + i * node.state_bytes,
                grad_pre=d_pre.data_ptr(),
                grad_states=d_states_0,
                grad_weights=_weights_address(d_weights, edge),
            )
            d_masked[:i].view(i * B, H).addmm_(d_pre, nodes_NHG[i - 1].t())
            if d_nodes is not None:
                d_nodes[i - 1].addmm_(masked[t, :i].view(i * B, H).t(), d_pre)
        before = hidden_BH if t == 0 else outputs[t - 1]
        d_hidden = torch.zeros_like(d_hidden)
        node.backward(
            1,
            stride=G,
            states=before.data_ptr(),
            pre=first[t].data_ptr(),
            weights=tanh_5.data_ptr(),
            out=states_t,
            inverse=inverse_t,
            grad=d_states_0,
            grad_masked=d_masked_0,
            grad_pre=d_first[t].data_ptr(),
            grad_states=d_hidden.data_ptr(),
        )
        add_hidden_gradient(d_hidden, d_first[t], recurrent_HG, mask_BH)
    d_recurrent = None
    if needs_recurrent:
        d_recurrent = recurrent_gradient(hidden_BH, outputs, mask_BH, d_first)
    if d_weights is not None:
        d_weights = d_weights.to(weights_E5.dtype)
    # The input is added to the first pre-activation: their gradients are one.
    return d_first, d_hidden, d_recurrent, d_nodes, d_weights


def _weights_address(d_weights_E5: Tensor | None, edge: int) -> int | None:
    """Where the gradient of an edge's weights lies, in float64; None where nobody asks for it."""
    if d_weights_E5 is None:
        return None
    return d_weights_E5.data_ptr() + edge * NUM_WEIGHTS * FLOAT64_BYTES


def run_search_cell(
    activations: dict[str, Activation],
    mask_BH: Tensor | None,
    input_TBG: Tensor,
    hidden_BH: Tensor,
    recurrent_HG: Tensor,
    nodes_NHG: Tensor,
    mix_EF: Tensor,
) -> Tensor:
    """`search_cell`, by the kernels where they can do it."""
    tensors = (input_TBG, hidden_BH, recurrent_HG, nodes_NHG)
    names = list(activations)
    all_known = all(is_native(name, function) for name, function in activations.items())
    if norms_are_synchronised():  # the kernels see the batch of this process alone
        return search_cell(list(activations.values()), mask_BH, *tensors, mix_EF)
    if not all_known or kernels(*tensors, mix_EF, mask_BH) is None:
        return search_cell(list(activations.values()), mask_BH, *tensors, mix_EF)
    # The gate takes from a state as much as is mixed with it: `sum of mix` (see `search_cell`).
    kept_E = mix_EF.sum(1)
    columns = [kept_E]
    for name in NATIVE:
        if name in names:
            columns.append(mix_EF[:, names.index(name)])
        else:
            columns.append(torch.zeros_like(kept_E))
    weights_E5 = torch.stack(columns, dim=1)
    needs_grad = any(t.requires_grad for t in (*tensors, mix_EF))
    keep = torch.is_grad_enabled() and needs_grad
    return _SearchCell.apply(keep, mask_BH, *tensors, weights_E5)
