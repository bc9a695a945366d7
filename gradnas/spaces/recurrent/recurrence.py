"""The time loop of recurrent cells: the search cell (all predecessors, all activations) and the
derived cell.

Legend: T time steps, B batch, H hidden units, G = 2 H (gate, then candidate), N nodes, E edges, F
activations, i a node from 1 to N, p a predecessor (0 is the first state s_0).

`search_cell` and `derived_cell` say in torch what is computed. On the CPU, with the activations
of DARTS, the same is done with a backward pass of its own: matrix products in torch, everything
between two products in one C++ kernel (`recurrence.cpp`). The search cell multiplies all
predecessors of a node by its matrix at once, the derived cell a state by the matrices of all its
successors at once; gradients of weights are products over all time steps where the layout allows
it. A backward pass of a backward pass (`Unrolled(mode="exact")`) takes the torch form.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.spaces.native import differentiable, library

Activation = Callable[[Tensor], Tensor]

SOURCE = Path(__file__).with_name("recurrence.cpp")
NATIVE = (
    "tanh",
    "relu",
    "sigmoid",
    "identity",
)  # in the order of the kernels' weights, after that of the state itself
EPS = 1e-5  # of nn.BatchNorm1d
SHORT = 8  # time steps; fewer without gradients take the torch form of the derived cell
_DTYPES = (torch.float32, torch.float64)


# ---- what is computed, in torch operations -------------------------------------------------------


def normalised(s_BH: Tensor) -> Tensor:
    """BatchNorm over the batch, without affine part and always with the statistics of the batch
    itself."""
    centred_BH = s_BH - s_BH.mean(0)
    return centred_BH * torch.rsqrt(centred_BH.square().mean(0) + EPS)


def _highway(s_BH: Tensor, pre_BG: Tensor, activation: Activation) -> Tensor:
    """`s + sigmoid(c) * (f(x) - s)` for the two halves c and x of the pre-activation."""
    c_BH, x_BH = pre_BG.chunk(2, dim=-1)
    return s_BH + torch.sigmoid(c_BH) * (activation(x_BH) - s_BH)


def search_cell(
    activations: Sequence[Activation],
    mask_BH: Tensor | None,
    input_TBG: Tensor,
    hidden_BH: Tensor,
    recurrent_HG: Tensor,
    nodes_NHG: Tensor,
    mix_EF: Tensor,
) -> Tensor:
    """The mixture of all edges and activations (DARTS, arXiv 1806.09055, appendix A.1.2, and the
    authors' code).

    `s_i = BatchNorm(sum_j sum_f mix_f (s_j + sigmoid(c_j) (f(x_j) - s_j)))` with `[c_j, x_j] =
    (mask * s_j) W_i`.

    Args:
        mask_BH: dropout mask of the hidden state and of all states, or None.
        input_TBG: the input's part of the pre-activation of s_0, without the hidden state's.
        mix_EF: mixing weight of each activation on each edge; they need not sum to one (`none`
            keeps its share).

    Returns:
        The outputs (T, B, H), each the mean of the states 1 to N.
    """
    outputs, N = [], nodes_NHG.shape[0]
    for pre_BG in input_TBG:
        fed_BH = hidden_BH if mask_BH is None else hidden_BH * mask_BH
        states = normalised(
            _highway(hidden_BH, pre_BG + fed_BH @ recurrent_HG, torch.tanh)
        ).unsqueeze(0)
        for i in range(N):
            fed = states if mask_BH is None else states * mask_BH
            c, x = (fed @ nodes_NHG[i]).chunk(2, dim=-1)
            mix = mix_EF[i * (i + 1) // 2 : (i + 1) * (i + 2) // 2, :, None, None]
            kept = states * mix.sum(1)
            mixed = sum(f(x) * mix[:, k] for k, f in enumerate(activations))
            s_BH = (kept + torch.sigmoid(c) * (mixed - kept)).sum(0)
            states = torch.cat([states, normalised(s_BH).unsqueeze(0)])
        hidden_BH = states[1:].mean(0)
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
    """The cell of a genotype: node i has one predecessor and one activation, and there is no
    BatchNorm.

    Arguments as in `search_cell`; the output is the mean of the nodes in `concat`.
    """
    outputs = []
    for pre_BG in input_TBG:
        fed_BH = hidden_BH if mask_BH is None else hidden_BH * mask_BH
        states = [_highway(hidden_BH, pre_BG + fed_BH @ recurrent_HG, torch.tanh)]
        for i, (f, p) in enumerate(zip(activations, predecessors, strict=True)):
            fed_BH = states[p] if mask_BH is None else states[p] * mask_BH
            states.append(_highway(states[p], fed_BH @ nodes_NHG[i], f))
        hidden_BH = torch.stack([states[i] for i in concat]).mean(0)
        outputs.append(hidden_BH)
    return torch.stack(outputs)


# ---- the kernels ---------------------------------------------------------------------------------


class Kernels:
    """The compiled functions for one dtype."""

    def __init__(self, found: ctypes.CDLL) -> None:
        i64, pointer = ctypes.c_int64, ctypes.c_void_p
        self.node_forward, self.node_backward = found.node_forward, found.node_backward
        head = [i64] * 4 + [pointer] * 4 + [ctypes.c_int]
        self.node_forward.argtypes = [*head, ctypes.c_double, *[pointer] * 3, ctypes.c_int]
        self.node_backward.argtypes = [*head, *[pointer] * 7, ctypes.c_int]
        self.token_rows = found.token_rows
        self.token_rows.argtypes = [
            i64,
            i64,
            pointer,
            pointer,
            ctypes.c_double,
            pointer,
            ctypes.c_int,
        ]
        for function in (self.node_forward, self.node_backward, self.token_rows):
            function.restype = None


@functools.cache
def native_kernels(dtype: torch.dtype) -> Kernels | None:
    found = library(SOURCE, dtype)
    return None if found is None else Kernels(found)


def kernels(*tensors: Tensor | None) -> Kernels | None:
    """The functions for such tensors, or None: then the torch form has to do."""
    given = [t for t in tensors if t is not None]
    dtype = given[0].dtype
    if dtype not in _DTYPES or torch.compiler.is_compiling() or torch.is_autocast_enabled("cpu"):
        return None
    if any(t.device.type != "cpu" or t.dtype != dtype or not t.numel() for t in given):
        return None
    # A tensor of torch.func's transforms or of a tracer has no memory of its own to hand over.
    if any(type(t) is not Tensor and not isinstance(t, torch.nn.Parameter) for t in given):
        return None
    if any(torch._C._functorch.is_functorch_wrapped_tensor(t) for t in given):
        return None
    return native_kernels(dtype)


def _address(t: Tensor | None) -> int | None:
    return None if t is None else t.data_ptr()


def contiguous(tensors: Sequence[Tensor | None]) -> list[Any]:
    return [None if t is None else t.contiguous() for t in tensors]


class _SearchCell(torch.autograd.Function):
    """`search_cell` for the activations of `NATIVE`; the weights of a predecessor are `(sum of mix,
    mix ...)`."""

    @staticmethod
    def plain(mask_BH: Tensor | None, *tensors: Tensor) -> tuple[Tensor]:
        *others, weights_E5 = tensors
        functions = [ACTIVATIONS[name] for name in NATIVE]
        return (search_cell(functions, mask_BH, *others, weights_E5[:, 1:]),)  # type: ignore[arg-type]

    @staticmethod
    def forward(ctx: Any, keep: bool, mask_BH: Tensor | None, *tensors: Tensor) -> Tensor:
        mask_BH, input_TBG, hidden_BH, recurrent_HG, nodes_NHG, weights_E5 = contiguous(
            [mask_BH, *tensors]
        )
        (T, B, G), N = input_TBG.shape, nodes_NHG.shape[0]
        H, E, steps = G // 2, weights_E5.shape[0], T if keep else 1
        native = native_kernels(input_TBG.dtype)
        assert native is not None
        states = input_TBG.new_empty(steps, N + 1, B, H)
        masked = states if mask_BH is None else torch.empty_like(states)
        inverse, first = input_TBG.new_empty(steps, N + 1, H), input_TBG.new_empty(steps, B, G)
        edges = input_TBG.new_empty(steps, E * B, G)
        outputs, fed_BH = input_TBG.new_empty(T, B, H), torch.empty_like(hidden_BH)
        one = _only_tanh(input_TBG)
        threads, mask, width = (
            torch.get_num_threads(),
            _address(mask_BH),
            H * B * input_TBG.element_size(),
        )
        line, table = H * input_TBG.element_size(), 5 * input_TBG.element_size()
        for t in range(T):
            k = t if keep else 0
            s, m, inv = states[k].data_ptr(), masked[k].data_ptr(), inverse[k].data_ptr()
            before = hidden_BH if t == 0 else outputs[t - 1]
            fed = before if mask_BH is None else torch.mul(before, mask_BH, out=fed_BH)
            torch.addmm(input_TBG[t], fed, recurrent_HG, out=first[k])
            native.node_forward(
                1,
                B,
                H,
                G,
                before.data_ptr(),
                first[k].data_ptr(),
                one.data_ptr(),
                mask,
                1,
                EPS,
                s,
                m,
                inv,
                threads,
            )
            for i in range(1, N + 1):
                row = i * (i - 1) // 2
                pre = edges[k, row * B : (row + i) * B]
                torch.mm(masked[k, :i].view(i * B, H), nodes_NHG[i - 1], out=pre)
                native.node_forward(
                    i, B, H, G, s, pre.data_ptr(), weights_E5.data_ptr() + row * table, mask, 1, EPS,
                    s + i * width, m + i * width, inv + i * line, threads,
                )  # fmt: skip
            torch.mean(states[k, 1:], 0, out=outputs[t])
        if keep:
            ctx.save_for_backward(
                mask_BH, input_TBG, hidden_BH, recurrent_HG, nodes_NHG, weights_E5, outputs,
                states, masked, inverse, first, edges,
            )  # fmt: skip
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (grad_TBH,) = grads
        mask_BH, *saved = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:]
        if torch.is_grad_enabled():
            plain = functools.partial(_SearchCell.plain, mask_BH)
            return None, None, *differentiable(plain, saved[:5], needs, (grad_TBH,))
        input_TBG, hidden_BH, recurrent_HG, nodes_NHG, weights_E5, outputs, states, *rest = saved
        masked, inverse, first, edges = rest
        (T, B, G), N = input_TBG.shape, nodes_NHG.shape[0]
        H = G // 2
        native = native_kernels(input_TBG.dtype)
        assert native is not None
        d_first, d_edges = torch.empty_like(first), torch.empty_like(edges[0])
        d_nodes = torch.zeros_like(nodes_NHG) if needs[3] else None
        d_weights = torch.zeros(weights_E5.shape, dtype=torch.float64) if needs[4] else None
        d_states, d_masked = torch.empty_like(states[0]), torch.empty_like(states[0])
        d_hidden = grad_TBH.new_zeros(B, H)
        one, share = _only_tanh(input_TBG), 1.0 / N
        threads, mask, size = torch.get_num_threads(), _address(mask_BH), input_TBG.element_size()
        width, line, table = H * B * size, H * size, 5 * size
        ds, dm, dw = d_states.data_ptr(), d_masked.data_ptr(), _address(d_weights)
        for t in reversed(range(T)):
            s, inv, x, w = (a.data_ptr() for a in (states[t], inverse[t], edges[t], weights_E5))
            d_masked.zero_()
            d_states[0].zero_()
            d_states[1:] = (grad_TBH[t] + d_hidden) * share
            for i in range(N, 0, -1):
                row = i * (i - 1) // 2
                d_pre = d_edges[row * B : (row + i) * B]
                native.node_backward(
                    i, B, H, G, s, x + row * 2 * width, w + row * table, mask, 1, s + i * width, inv + i * line,
                    ds + i * width, dm + i * width, d_pre.data_ptr(), ds, None if dw is None else dw + row * 5 * 8,
                    threads,
                )  # fmt: skip
                d_masked[:i].view(i * B, H).addmm_(d_pre, nodes_NHG[i - 1].t())
                if d_nodes is not None:
                    d_nodes[i - 1].addmm_(masked[t, :i].view(i * B, H).t(), d_pre)
            before = hidden_BH if t == 0 else outputs[t - 1]
            d_hidden = torch.zeros_like(d_hidden)
            native.node_backward(
                1, B, H, G, before.data_ptr(), first[t].data_ptr(), one.data_ptr(), mask, 1, s, inv, ds, dm,
                d_first[t].data_ptr(), d_hidden.data_ptr(), None, threads,
            )  # fmt: skip
            _through(d_hidden, d_first[t], recurrent_HG, mask_BH)
        d_recurrent = (
            _recurrent_gradient(hidden_BH, outputs, mask_BH, d_first) if needs[2] else None
        )
        found = None if d_weights is None else d_weights.to(weights_E5.dtype)
        return None, None, d_first, d_hidden, d_recurrent, d_nodes, found


def _only_tanh(like: Tensor) -> Tensor:
    """The weights of the first state: all of tanh."""
    return like.new_tensor([1.0, 1.0, 0.0, 0.0, 0.0])


def _through(
    d_hidden_BH: Tensor, d_pre_BG: Tensor, recurrent_HG: Tensor, mask_BH: Tensor | None
) -> None:
    """Add to the hidden state's gradient what comes through its product."""
    if mask_BH is None:
        d_hidden_BH.addmm_(d_pre_BG, recurrent_HG.t())
    else:
        d_hidden_BH.addcmul_(d_pre_BG @ recurrent_HG.t(), mask_BH)


def _recurrent_gradient(
    hidden_BH: Tensor, outputs_TBH: Tensor, mask_BH: Tensor | None, d_first_TBG: Tensor
) -> Tensor:
    before_TBH = torch.cat([hidden_BH.unsqueeze(0), outputs_TBH[:-1]])
    fed_TBH = before_TBH if mask_BH is None else before_TBH * mask_BH
    return fed_TBH.flatten(0, 1).t() @ d_first_TBG.flatten(0, 1)


class _DerivedCell(torch.autograd.Function):
    """`derived_cell` for the activations of `NATIVE`. `spec` is (names, predecessors, concat).

    States are stored node by node, so that the matrices of all successors of a state have one
    product for their gradient over all time steps.
    """

    @staticmethod
    def plain(spec: tuple, mask_BH: Tensor | None, *tensors: Tensor) -> tuple[Tensor]:
        names, predecessors, concat = spec
        functions = [ACTIVATIONS[name] for name in names]
        return (derived_cell(functions, predecessors, concat, mask_BH, *tensors),)  # type: ignore[arg-type]

    @staticmethod
    def forward(
        ctx: Any, keep: bool, spec: tuple, mask_BH: Tensor | None, *tensors: Tensor
    ) -> Tensor:
        mask_BH, input_TBG, hidden_BH, recurrent_HG, nodes_NHG = contiguous([mask_BH, *tensors])
        names, predecessors, concat = spec
        (T, B, G), N = input_TBG.shape, nodes_NHG.shape[0]
        H, steps = G // 2, T if keep else 1
        native = native_kernels(input_TBG.dtype)
        assert native is not None
        states = input_TBG.new_empty(N + 1, steps, B, H)
        masked = states if mask_BH is None else torch.empty_like(states)
        first = input_TBG.new_empty(steps, B, G)
        successors = [[i for i in range(N) if predecessors[i] == p] for p in range(N + 1)]
        matrices = [_side_by_side(nodes_NHG, own) for own in successors]
        pres = [input_TBG.new_empty(steps, B, len(own) * G) for own in successors]
        outputs, fed_BH = input_TBG.new_empty(T, B, H), torch.empty_like(hidden_BH)
        table, one = _one_hot(names, input_TBG), _only_tanh(input_TBG)
        threads, mask, size = torch.get_num_threads(), _address(mask_BH), input_TBG.element_size()
        for t in range(T):
            k = t if keep else 0
            before = hidden_BH if t == 0 else outputs[t - 1]
            fed = before if mask_BH is None else torch.mul(before, mask_BH, out=fed_BH)
            torch.addmm(input_TBG[t], fed, recurrent_HG, out=first[k])
            source, pre, stride, weights = before, first[k].data_ptr(), G, one.data_ptr()
            for i in range(N + 1):
                if i > 0:
                    p = predecessors[i - 1]
                    source, stride, weights = (
                        states[p, k],
                        len(successors[p]) * G,
                        table[i - 1].data_ptr(),
                    )
                    pre = pres[p][k].data_ptr() + successors[p].index(i - 1) * G * size
                native.node_forward(
                    1, B, H, stride, source.data_ptr(), pre, weights, mask, 0, EPS,
                    states[i, k].data_ptr(), masked[i, k].data_ptr(), None, threads,
                )  # fmt: skip
                if successors[i]:
                    torch.mm(masked[i, k], matrices[i], out=pres[i][k])
            torch.mean(states[list(concat), k], 0, out=outputs[t])
        if keep:
            ctx.spec = spec
            ctx.save_for_backward(
                mask_BH,
                input_TBG,
                hidden_BH,
                recurrent_HG,
                nodes_NHG,
                outputs,
                states,
                masked,
                first,
                *pres,
                *matrices,
            )
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple:
        (grad_TBH,) = grads
        mask_BH, *saved = ctx.saved_tensors
        needs = ctx.needs_input_grad[3:]
        if torch.is_grad_enabled():
            plain = functools.partial(_DerivedCell.plain, ctx.spec, mask_BH)
            return None, None, None, *differentiable(plain, saved[:4], needs, (grad_TBH,))
        input_TBG, hidden_BH, recurrent_HG, nodes_NHG, outputs, states, masked, first, *rest = saved
        names, predecessors, concat = ctx.spec
        (T, B, G), N = input_TBG.shape, nodes_NHG.shape[0]
        H = G // 2
        native = native_kernels(input_TBG.dtype)
        assert native is not None
        successors = [[i for i in range(N) if predecessors[i] == p] for p in range(N + 1)]
        pres, matrices = rest[: N + 1], rest[N + 1 :]
        d_first, d_pres = torch.empty_like(first), [torch.empty_like(pre) for pre in pres]
        d_states, d_masked, d_hidden = (
            grad_TBH.new_empty(N + 1, B, H),
            grad_TBH.new_zeros(N + 1, B, H),
            grad_TBH[0] * 0,
        )
        table, one, concat = _one_hot(names, input_TBG), _only_tanh(input_TBG), list(concat)
        threads, mask, size = torch.get_num_threads(), _address(mask_BH), input_TBG.element_size()
        for t in reversed(range(T)):
            d_states.zero_()
            d_states[concat] = (grad_TBH[t] + d_hidden) / len(concat)
            d_hidden = torch.zeros_like(d_hidden)
            for i in range(N, -1, -1):
                if successors[i]:
                    torch.mm(d_pres[i][t], matrices[i].t(), out=d_masked[i])
                source, target, stride = outputs[t - 1] if t else hidden_BH, d_hidden, G
                pre, d_pre, weights = first[t].data_ptr(), d_first[t].data_ptr(), one.data_ptr()
                if i > 0:
                    p = predecessors[i - 1]
                    source, target, stride = states[p, t], d_states[p], len(successors[p]) * G
                    place = successors[p].index(i - 1) * G * size
                    pre, d_pre = pres[p][t].data_ptr() + place, d_pres[p][t].data_ptr() + place
                    weights = table[i - 1].data_ptr()
                native.node_backward(
                    1, B, H, stride, source.data_ptr(), pre, weights, mask, 0, states[i, t].data_ptr(), None,
                    d_states[i].data_ptr(), d_masked[i].data_ptr(), d_pre, target.data_ptr(), None, threads,
                )  # fmt: skip
            _through(d_hidden, d_first[t], recurrent_HG, mask_BH)
        d_recurrent = (
            _recurrent_gradient(hidden_BH, outputs, mask_BH, d_first) if needs[2] else None
        )
        d_nodes = torch.empty_like(nodes_NHG) if needs[3] else None
        if d_nodes is not None:
            for p, own in enumerate(successors):
                if own:
                    d_HG = masked[p].flatten(0, 1).t() @ d_pres[p].flatten(0, 1)
                    for place, i in enumerate(own):
                        d_nodes[i] = d_HG[:, place * G : (place + 1) * G]
        return None, None, None, d_first, d_hidden, d_recurrent, d_nodes


def _side_by_side(nodes_NHG: Tensor, nodes: Sequence[int]) -> Tensor:
    """The matrices of some nodes in one, (H, number * G)."""
    if len(nodes) == 1:
        return nodes_NHG[nodes[0]]
    return torch.cat([nodes_NHG[i] for i in nodes], dim=1) if nodes else nodes_NHG.new_empty(0)


def _one_hot(names: Sequence[str], like: Tensor) -> Tensor:
    """The kernels' weights of nodes with one activation each, (N, 5)."""
    return like.new_tensor([[1.0, *(float(name == known) for known in NATIVE)] for name in names])


# ---- what spaces call ----------------------------------------------------------------------------

# The known activations, by name
ACTIVATIONS: dict[str, Activation] = {
    "tanh": torch.tanh,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "identity": lambda x: x,
    "gelu": F.gelu,
    "silu": F.silu,
    "sin": torch.sin,
    "leaky_relu": F.leaky_relu,
}


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
    native = all(name in NATIVE and f is ACTIVATIONS[name] for name, f in activations.items())
    if not native or kernels(*tensors, mix_EF, mask_BH) is None:
        return search_cell(list(activations.values()), mask_BH, *tensors, mix_EF)
    columns = [mix_EF.sum(1)]
    names = list(activations)
    for name in NATIVE:
        columns.append(
            mix_EF[:, names.index(name)] if name in names else torch.zeros_like(columns[0])
        )
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in (*tensors, mix_EF))
    return _SearchCell.apply(keep, mask_BH, *tensors, torch.stack(columns, dim=1))


def run_derived_cell(
    names: Sequence[str],
    activations: Sequence[Activation],
    predecessors: Sequence[int],
    concat: Sequence[int],
    mask_BH: Tensor | None,
    *tensors: Tensor,
) -> Tensor:
    """`derived_cell`, by the kernels where they can do it; `names` are those of the activations."""
    native = all(
        name in NATIVE and f is ACTIVATIONS[name]
        for name, f in zip(names, activations, strict=True)
    )
    keep = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    # For a few tokens, as in generation, laying matrices side by side would cost more than it
    # saves.
    short = not keep and len(tensors[0]) < SHORT
    if not native or short or kernels(*tensors, mask_BH) is None:
        return derived_cell(activations, predecessors, concat, mask_BH, *tensors)  # type: ignore[arg-type]
    return _DerivedCell.apply(
        keep, (tuple(names), tuple(predecessors), tuple(concat)), mask_BH, *tensors
    )
