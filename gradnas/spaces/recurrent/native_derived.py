"""The derived cell by the C++ kernels, with a backward pass of its own.

Legend: T time steps, B batch, H hidden units, G = 2 H (gate, then candidate), N nodes, i a node
from 1 to N, p a predecessor (0 is the first state s_0).

A state is multiplied by the matrices of all its successors at once, and a node reads its own
columns of that product: one matrix product for each state that is read, not one for each node.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradnas.spaces.native import differentiable
from gradnas.spaces.recurrent.kernels import (
    NodeKernels,
    add_hidden_gradient,
    check,
    contiguous,
    kernels,
    one_hot_weights,
    recurrent_gradient,
    tanh_weights,
)
from gradnas.spaces.recurrent.recurrence import (
    ACTIVATIONS,
    Activation,
    derived_cell,
    is_native,
)

SHORT = 8  # time steps; fewer without gradients take the torch form


class _Wiring(NamedTuple):
    """A derived cell: activation and predecessor of nodes 1 to N, and the nodes of the output."""

    names: tuple[str, ...]
    predecessors: tuple[int, ...]
    concat: tuple[int, ...]

    def successors(self) -> list[list[int]]:
        """For every state, the nodes that read it, in the order of their columns."""
        num_states = len(self.predecessors) + 1
        nodes: list[list[int]] = [[] for _ in range(num_states)]
        for i, p in enumerate(self.predecessors, 1):
            nodes[p].append(i)
        return nodes


class _DerivedCell(torch.autograd.Function):
    """`derived_cell` for the activations of `NATIVE`.

    States are stored node by node, so that the matrices of all successors of a state have one
    product for their gradient over all time steps.
    """

    @staticmethod
    def plain(wiring: _Wiring, mask_BH: Tensor | None, *tensors: Tensor) -> tuple[Tensor]:
        input_TBG, hidden_BH, recurrent_HG, nodes_NHG = tensors
        functions = [ACTIVATIONS[name] for name in wiring.names]
        outputs_TBH = derived_cell(
            functions,
            wiring.predecessors,
            wiring.concat,
            mask_BH,
            input_TBG,
            hidden_BH,
            recurrent_HG,
            nodes_NHG,
        )
        return (outputs_TBH,)

    @staticmethod
    def forward(
        ctx: Any, keep: bool, wiring: _Wiring, mask_BH: Tensor | None, *tensors: Tensor
    ) -> Tensor:
        mask_BH, *rest = contiguous([mask_BH, *tensors])
        input_TBG, hidden_BH, recurrent_HG, nodes_NHG = rest
        T, B, G = input_TBG.shape
        H = G // 2
        N = nodes_NHG.shape[0]
        check(
            input_TBG.dtype,
            input=(input_TBG, (T, B, 2 * H)),
            hidden=(hidden_BH, (B, H)),
            recurrent=(recurrent_HG, (H, G)),
            nodes=(nodes_NHG, (len(wiring.names), H, G)),
        )
        concat = list(wiring.concat)
        successors = wiring.successors()

        # What a backward pass reads. Without one a single time step is kept, which the next one
        # writes over.
        steps = T if keep else 1
        states = input_TBG.new_empty(N + 1, steps, B, H)
        masked = states if mask_BH is None else torch.empty_like(states)
        first = input_TBG.new_empty(steps, B, G)
        matrices = [_side_by_side(nodes_NHG, own) for own in successors]
        pres = [input_TBG.new_empty(steps, B, len(own) * G) for own in successors]
        outputs = input_TBG.new_empty(T, B, H)
        fed_BH = torch.empty_like(hidden_BH)

        node = NodeKernels(input_TBG, B, H, mask_BH, normalise=False)
        tanh_5 = tanh_weights(input_TBG)
        weights_N5 = one_hot_weights(wiring.names, input_TBG)
        column_bytes = G * input_TBG.element_size()  # of one node's columns in a product
        for t in range(T):
            k = t if keep else 0
            before = hidden_BH if t == 0 else outputs[t - 1]
            fed = before if mask_BH is None else torch.mul(before, mask_BH, out=fed_BH)
            torch.addmm(input_TBG[t], fed, recurrent_HG, out=first[k])
            node.forward(
                1,
                stride=G,
                states=before.data_ptr(),
                pre=first[k].data_ptr(),
                weights=tanh_5.data_ptr(),
                out=states[0, k].data_ptr(),
                masked=masked[0, k].data_ptr(),
            )
            if successors[0]:
                torch.mm(masked[0, k], matrices[0], out=pres[0][k])
            for i, p in enumerate(wiring.predecessors, 1):
                place = successors[p].index(i)
                node.forward(
                    1,
                    stride=len(successors[p]) * G,
                    states=states[p, k].data_ptr(),
                    pre=pres[p][k].data_ptr() + place * column_bytes,
                    weights=weights_N5[i - 1].data_ptr(),
                    out=states[i, k].data_ptr(),
                    masked=masked[i, k].data_ptr(),
                )
                if successors[i]:
                    torch.mm(masked[i, k], matrices[i], out=pres[i][k])
            torch.mean(states[concat, k], 0, out=outputs[t])
        if keep:
            ctx.wiring = wiring
            ctx.save_for_backward(mask_BH, *rest, outputs, states, masked, first, *pres, *matrices)
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (grad_TBH,) = grads
        wiring = ctx.wiring
        mask_BH, *saved = ctx.saved_tensors
        needs = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled() or kernels(grad_TBH) is None:
            # A backward pass through this one is asked for, or one for many gradients at once:
            # only torch operations have it.
            plain = functools.partial(_DerivedCell.plain, wiring, mask_BH)
            return None, None, None, *differentiable(plain, saved[:4], needs, (grad_TBH,))
        return None, None, None, *_gradients(wiring, mask_BH, saved, needs, grad_TBH)


def _gradients(
    wiring: _Wiring,
    mask_BH: Tensor | None,
    saved: Sequence[Tensor],
    needs: Sequence[bool],
    grad_TBH: Tensor,
) -> tuple[Tensor | None, ...]:
    """Those of input, hidden state, recurrent matrix and nodes' matrices."""
    input_TBG, hidden_BH, recurrent_HG, nodes_NHG = saved[:4]
    outputs, states, masked, first = saved[4:8]
    _, _, needs_recurrent, needs_nodes = needs
    T, B, G = input_TBG.shape
    H = G // 2
    N = nodes_NHG.shape[0]
    concat = list(wiring.concat)
    successors = wiring.successors()
    pres = saved[8 : 8 + N + 1]
    matrices = saved[8 + N + 1 :]

    # d_x is the gradient of x
    d_first = torch.empty_like(first)
    d_pres = [torch.empty_like(pre) for pre in pres]
    d_states = grad_TBH.new_empty(N + 1, B, H)
    d_masked = grad_TBH.new_zeros(N + 1, B, H)  # stays 0 for states that no node reads
    d_hidden = grad_TBH.new_zeros(B, H)

    node = NodeKernels(input_TBG, B, H, mask_BH, normalise=False)
    tanh_5 = tanh_weights(input_TBG)
    weights_N5 = one_hot_weights(wiring.names, input_TBG)
    column_bytes = G * input_TBG.element_size()
    for t in reversed(range(T)):
        # The output is the mean of some nodes' states, and is the next step's hidden state.
        d_states.zero_()
        d_states[concat] = (grad_TBH[t] + d_hidden) / len(concat)
        for i in range(N, 0, -1):
            if successors[i]:
                torch.mm(d_pres[i][t], matrices[i].t(), out=d_masked[i])
            p = wiring.predecessors[i - 1]
            columns = successors[p].index(i) * column_bytes
            node.backward(
                1,
                stride=len(successors[p]) * G,
                states=states[p, t].data_ptr(),
                pre=pres[p][t].data_ptr() + columns,
                weights=weights_N5[i - 1].data_ptr(),
                out=states[i, t].data_ptr(),
                grad=d_states[i].data_ptr(),
                grad_masked=d_masked[i].data_ptr(),
                grad_pre=d_pres[p][t].data_ptr() + columns,
                grad_states=d_states[p].data_ptr(),
            )
        if successors[0]:
            torch.mm(d_pres[0][t], matrices[0].t(), out=d_masked[0])
        before = hidden_BH if t == 0 else outputs[t - 1]
        d_hidden = torch.zeros_like(d_hidden)
        node.backward(
            1,
            stride=G,
            states=before.data_ptr(),
            pre=first[t].data_ptr(),
            weights=tanh_5.data_ptr(),
            out=states[0, t].data_ptr(),
            grad=d_states[0].data_ptr(),
            grad_masked=d_masked[0].data_ptr(),
            grad_pre=d_first[t].data_ptr(),
            grad_states=d_hidden.data_ptr(),
        )
        add_hidden_gradient(d_hidden, d_first[t], recurrent_HG, mask_BH)
    d_recurrent = None
    if needs_recurrent:
        d_recurrent = recurrent_gradient(hidden_BH, outputs, mask_BH, d_first)
    d_nodes = None
    if needs_nodes:
        d_nodes = _nodes_gradient(nodes_NHG, masked, d_pres, successors)
    # The input is added to the first pre-activation: their gradients are one.
    return d_first, d_hidden, d_recurrent, d_nodes


def _nodes_gradient(
    nodes_NHG: Tensor, masked: Tensor, d_pres: Sequence[Tensor], successors: list[list[int]]
) -> Tensor:
    """The gradient of the nodes' matrices: for every state one product over all time steps."""
    G = nodes_NHG.shape[2]
    d_nodes = torch.empty_like(nodes_NHG)
    for p, own in enumerate(successors):
        if own:
            d_side_by_side = masked[p].flatten(0, 1).t() @ d_pres[p].flatten(0, 1)
            for place, i in enumerate(own):
                d_nodes[i - 1] = d_side_by_side[:, place * G : (place + 1) * G]
    return d_nodes


def _side_by_side(nodes_NHG: Tensor, nodes: Sequence[int]) -> Tensor:
    """The matrices of some nodes in one, (H, number * G)."""
    if not nodes:
        return nodes_NHG.new_empty(0)
    if len(nodes) == 1:
        return nodes_NHG[nodes[0] - 1]  # as it is, without a copy
    return torch.cat([nodes_NHG[i - 1] for i in nodes], dim=1)


def run_derived_cell(
    names: Sequence[str],
    activations: Sequence[Activation],
    predecessors: Sequence[int],
    concat: Sequence[int],
    mask_BH: Tensor | None,
    input_TBG: Tensor,
    hidden_BH: Tensor,
    recurrent_HG: Tensor,
    nodes_NHG: Tensor,
) -> Tensor:
    """`derived_cell`, by the kernels where they can do it; `names` are those of the activations."""
    tensors = (input_TBG, hidden_BH, recurrent_HG, nodes_NHG)
    pairs = zip(names, activations, strict=True)
    all_known = all(is_native(name, function) for name, function in pairs)
    needs_grad = any(t.requires_grad for t in tensors)
    keep = torch.is_grad_enabled() and needs_grad
    # For a few tokens, as in generation, laying matrices side by side would cost more than it
    # saves.
    is_short = not keep and len(input_TBG) < SHORT
    if not all_known or is_short or kernels(*tensors, mask_BH) is None:
        return derived_cell(activations, predecessors, concat, mask_BH, *tensors)
    wiring = _Wiring(tuple(names), tuple(predecessors), tuple(concat))
    return _DerivedCell.apply(keep, wiring, mask_BH, *tensors)
