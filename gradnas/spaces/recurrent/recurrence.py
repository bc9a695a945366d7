"""The time loop of recurrent cells: the search cell, and the derived cell of a genotype.

Legend: T time steps, B batch, H hidden units, G = 2 H (gate, then candidate), N nodes, E edges, F
activations, i a node from 1 to N, p a predecessor (0 is the first state s_0).

`search_cell` (all predecessors, all activations) and `derived_cell` say in torch what is computed.
On the CPU, with the activations of DARTS, `native_search` and `native_derived` do the same with a
backward pass of their own: matrix products in torch, everything between two products in one C++
kernel (`recurrence.cpp`), which spares most passes over memory. A backward pass of a backward pass
(`Unrolled(mode="exact")`) takes the torch form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.modules.synchronised import moments, norms_are_synchronised
from gradnas.spaces.recurrent.kernels import EPS, NATIVE

Activation = Callable[[Tensor], Tensor]


def identity(x: Tensor) -> Tensor:
    """x itself."""
    return x


# The known activations, by name; functions of modules and no lambdas, so that networks which hold
# them can be pickled.
ACTIVATIONS: dict[str, Activation] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": identity,
    "gelu": F.gelu,
    "silu": F.silu,
    "sin": torch.sin,
    "leaky_relu": F.leaky_relu,
}


def is_native(name: str, function: Activation) -> bool:
    """Whether the kernels know an activation: users may give their own the name of a known one."""
    return name in NATIVE and function is ACTIVATIONS[name]


def normalised(s_BH: Tensor) -> Tensor:
    """BatchNorm over the batch, without affine part, always with the statistics of this batch.

    Also in evaluation: running statistics would be one average over all nodes and time steps, whose
    states differ. Over the batch of all processes where there are several.
    """
    if norms_are_synchronised():
        mean_H, variance_H, _ = moments(s_BH, [0])
        return (s_BH - mean_H) * torch.rsqrt(variance_H + EPS)
    centred_BH = s_BH - s_BH.mean(0)
    return centred_BH * torch.rsqrt(centred_BH.square().mean(0) + EPS)


def _highway(s_BH: Tensor, pre_BG: Tensor, activation: Activation) -> Tensor:
    """`s + sigmoid(c) * (f(x) - s)` for the two halves c and x of the pre-activation."""
    c_BH, x_BH = pre_BG.chunk(2, dim=-1)
    return s_BH + torch.sigmoid(c_BH) * (activation(x_BH) - s_BH)


def _fed(s: Tensor, mask_BH: Tensor | None) -> Tensor:
    """What a product reads of a state; one mask serves all time steps (arXiv 1512.05287)."""
    return s if mask_BH is None else s * mask_BH


def search_cell(
    activations: Sequence[Activation],
    mask_BH: Tensor | None,
    input_TBG: Tensor,
    hidden_BH: Tensor,
    recurrent_HG: Tensor,
    nodes_NHG: Tensor,
    mix_EF: Tensor,
) -> Tensor:
    """The mixture of all edges and activations (DARTS, arXiv 1806.09055, appendix A.1.2).

    As in the authors' code, `s_i = BatchNorm(sum_j sum_f mix_f (s_j + sigmoid(c_j) (f(x_j) -
    s_j)))` with `[c_j, x_j] = (mask * s_j) W_i`. The BatchNorm, of s_0 too, is there for the search
    alone: it keeps gradients from exploding, and derived cells do without it.

    Args:
        mask_BH: dropout mask of the hidden state and of all states, or None.
        input_TBG: the input's part of the pre-activation of s_0, without the hidden state's.
        mix_EF: mixing weight of each activation on each edge; they need not sum to one (`none`
            keeps its share).

    Returns:
        The outputs (T, B, H), each the mean of the states 1 to N.
    """
    N = nodes_NHG.shape[0]
    outputs = []
    for pre_BG in input_TBG:
        first_BG = pre_BG + _fed(hidden_BH, mask_BH) @ recurrent_HG
        s_BH = normalised(_highway(hidden_BH, first_BG, torch.tanh))
        states_iBH = s_BH.unsqueeze(0)
        for i in range(N):
            c_iBH, x_iBH = (_fed(states_iBH, mask_BH) @ nodes_NHG[i]).chunk(2, dim=-1)
            # The edges into a node are consecutive rows, from the first state's on.
            first_edge = i * (i + 1) // 2
            mix_iF11 = mix_EF[first_edge : first_edge + i + 1, :, None, None]
            # sum_f mix_f (s + c (f(x) - s)) = kept + c (mixed - kept): one product with the gate,
            # not one for each activation.
            kept_iBH = states_iBH * mix_iF11.sum(1)
            mixed_iBH = sum(f(x_iBH) * mix_iF11[:, k] for k, f in enumerate(activations))
            s_BH = (kept_iBH + torch.sigmoid(c_iBH) * (mixed_iBH - kept_iBH)).sum(0)
            states_iBH = torch.cat([states_iBH, normalised(s_BH).unsqueeze(0)])
        hidden_BH = states_iBH[1:].mean(0)
        outputs.append(hidden_BH)
    return torch.stack(outputs)


def derived_cell(
    activations: Sequence[Activation],
    predecessors: Sequence[int],
    concat: Sequence[int],
    mask_BH: Tensor | None,
    input_TBG: Tensor,
    hidden_BH: Tensor,
    recurrent_HG: Tensor,
    nodes_NHG: Tensor,
) -> Tensor:
    """The cell of a genotype: a node has one predecessor and one activation, and no BatchNorm.

    Arguments as in `search_cell`; the output is the mean of the nodes in `concat`.
    """
    outputs = []
    for pre_BG in input_TBG:
        first_BG = pre_BG + _fed(hidden_BH, mask_BH) @ recurrent_HG
        states = [_highway(hidden_BH, first_BG, torch.tanh)]
        for i, (f, p) in enumerate(zip(activations, predecessors, strict=True)):
            pre_BG = _fed(states[p], mask_BH) @ nodes_NHG[i]
            states.append(_highway(states[p], pre_BG, f))
        hidden_BH = torch.stack([states[i] for i in concat]).mean(0)
        outputs.append(hidden_BH)
    return torch.stack(outputs)
