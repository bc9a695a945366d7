"""The C++ kernels of recurrent cells (`recurrence.cpp`): when they can be used, and how called.

Legend: T time steps, B batch, H hidden units, G = 2 H (gate, then candidate).

Kernels get addresses, not tensors: a time step of a search cell makes as many calls as it has
nodes, and slicing a tensor for each argument would take longer than small nodes themselves.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradnas.spaces.native import address, has_memory, library

SOURCE = Path(__file__).with_name("recurrence.cpp")
# The activations that the kernels know. A predecessor has five weights for them: that of the state
# itself, then one for each of these, in this order.
NATIVE = ("tanh", "relu", "sigmoid", "identity")
NUM_WEIGHTS = 1 + len(NATIVE)
EPS = 1e-5  # of nn.BatchNorm1d
_DTYPES = (torch.float32, torch.float64)


class Kernels:
    """The compiled functions for one dtype."""

    def __init__(self, compiled: ctypes.CDLL) -> None:
        size = ctypes.c_int64
        pointer = ctypes.c_void_p
        flag = ctypes.c_int
        threads = ctypes.c_int

        # n, B, H, stride; states, pre, weights, mask; normalise
        shared = [size, size, size, size, pointer, pointer, pointer, pointer, flag]
        self.node_forward = compiled.node_forward
        self.node_forward.argtypes = [
            *shared,
            ctypes.c_double,  # eps
            *[pointer] * 3,  # out, masked, inverse
            threads,
        ]
        self.node_backward = compiled.node_backward
        self.node_backward.argtypes = [
            *shared,
            *[pointer] * 4,  # out, inverse, grad, grad_masked
            *[pointer] * 3,  # grad_pre, grad_states, grad_weights
            threads,
        ]
        self.token_rows = compiled.token_rows
        self.token_rows.argtypes = [
            size,  # rows
            size,  # vocabulary
            pointer,  # logits
            pointer,  # targets
            ctypes.c_double,  # scale
            pointer,  # negative log-likelihoods
            threads,
        ]
        for function in (self.node_forward, self.node_backward, self.token_rows):
            function.restype = None


@functools.cache
def native_kernels(dtype: torch.dtype) -> Kernels | None:
    """The functions for a dtype, compiled at first use; None without a compiler."""
    compiled = library(SOURCE, dtype)
    return None if compiled is None else Kernels(compiled)


def kernels(*tensors: Tensor | None) -> Kernels | None:
    """The functions for such tensors, or None: then the torch form has to do."""
    given = [t for t in tensors if t is not None]
    dtype = given[0].dtype
    if dtype not in _DTYPES:
        return None
    if torch.is_autocast_enabled("cpu") or any(t.dtype != dtype for t in given):
        return None
    return native_kernels(dtype) if has_memory(*given) else None


def contiguous(tensors: Sequence[Tensor | None]) -> list[Any]:
    """The tensors as kernels need them: row-major, without gaps."""
    return [None if t is None else t.contiguous() for t in tensors]


def check(dtype: torch.dtype, **given: tuple[Tensor | None, tuple[int, ...]]) -> None:
    """Check the tensors of a pass once, before its time steps compute with their addresses.

    Args:
        given: name -> (tensor or None, the shape that it must have).

    Raises:
        ValueError: see `native.address`.
    """
    for name, (t, shape) in given.items():
        if t is not None:
            address(name, t, dtype, shape)


class NodeKernels:
    """The kernels of a node for one pass over a chunk: what is the same for all nodes is kept.

    Args:
        like: a tensor of the pass's dtype.
        mask_BH: dropout mask of what nodes read, or None.
        normalise: BatchNorm over the batch behind every node.

    Attributes:
        state_bytes, inverse_bytes: of a node's state (B, H) and inverse standard deviation (H).
        pre_bytes, weights_bytes: of a predecessor's pre-activation (B, G) and weights (5).
    """

    def __init__(self, like: Tensor, B: int, H: int, mask_BH: Tensor | None, normalise: bool):
        native = native_kernels(like.dtype)
        assert native is not None  # `kernels` was asked first
        self._native = native
        self._B = B
        self._H = H
        self._mask_BH = mask_BH  # kept, since its address alone would not keep it alive
        self._mask: int | None = None
        if mask_BH is not None:
            self._mask = address("the dropout mask", mask_BH, like.dtype, (B, H))
        self._normalise = int(normalise)
        self._threads = torch.get_num_threads()
        element_bytes = like.element_size()
        self.state_bytes = B * H * element_bytes
        self.inverse_bytes = H * element_bytes
        self.pre_bytes = B * 2 * H * element_bytes
        self.weights_bytes = NUM_WEIGHTS * element_bytes

    def forward(
        self,
        num: int,
        *,
        stride: int,
        states: int,
        pre: int,
        weights: int,
        out: int,
        masked: int,
        inverse: int | None = None,
    ) -> None:
        """One node: writes its state, the masked state, and what it was normalised by.

        Args:
            num: of predecessors.
            stride: columns of a row of `pre`: G, or more where other nodes' columns lie between.
            states, pre, weights: addresses of the predecessors' states (num, B, H),
                pre-activations (num, B, stride) and weights (num, 5).
            out, masked: where the state (B, H) and its product with the mask go.
            inverse: where the inverse standard deviation (H) goes, if nodes are normalised.
        """
        self._native.node_forward(
            num,
            self._B,
            self._H,
            stride,
            states,
            pre,
            weights,
            self._mask,
            self._normalise,
            EPS,
            out,
            masked,
            inverse,
            self._threads,
        )

    def backward(
        self,
        num: int,
        *,
        stride: int,
        states: int,
        pre: int,
        weights: int,
        out: int,
        grad: int,
        grad_masked: int,
        grad_pre: int,
        grad_states: int,
        grad_weights: int | None = None,
        inverse: int | None = None,
    ) -> None:
        """The backward pass of a node, from the gradients of its state and of its masked state.

        Args:
            num, stride, states, pre, weights, out, inverse: as in `forward`, filled.
            grad, grad_masked: of the state and of the masked state, (B, H).
            grad_pre: written, in the layout of `pre`.
            grad_states: added to, (num, B, H).
            grad_weights: added to, (num, 5) in float64; None where nobody asks.
        """
        self._native.node_backward(
            num,
            self._B,
            self._H,
            stride,
            states,
            pre,
            weights,
            self._mask,
            self._normalise,
            out,
            inverse,
            grad,
            grad_masked,
            grad_pre,
            grad_states,
            grad_weights,
            self._threads,
        )


# ---- what the cells share ------------------------------------------------------------------------


def tanh_weights(like: Tensor) -> Tensor:
    """The weights of the state that a time step begins with: all of tanh."""
    return one_hot_weights(["tanh"], like)[0]


def one_hot_weights(names: Sequence[str], like: Tensor) -> Tensor:
    """The kernels' weights of nodes with one activation each, (number, 5)."""
    rows = []
    for name in names:
        row = [0.0] * NUM_WEIGHTS
        row[0] = 1.0  # the state itself counts as much as what is mixed with it
        row[1 + NATIVE.index(name)] = 1.0
        rows.append(row)
    return like.new_tensor(rows)


def add_hidden_gradient(
    d_hidden_BH: Tensor, d_pre_BG: Tensor, recurrent_HG: Tensor, mask_BH: Tensor | None
) -> None:
    """Add to the hidden state's gradient what comes through its product with `recurrent_HG`."""
    if mask_BH is None:
        d_hidden_BH.addmm_(d_pre_BG, recurrent_HG.t())
    else:
        d_hidden_BH.addcmul_(d_pre_BG @ recurrent_HG.t(), mask_BH)


def recurrent_gradient(
    hidden_BH: Tensor, outputs_TBH: Tensor, mask_BH: Tensor | None, d_first_TBG: Tensor
) -> Tensor:
    """The gradient of `recurrent_HG`: one product over all time steps.

    The sum over time steps of (mask * hidden state before the step)^T d_pre.
    """
    before_TBH = torch.cat([hidden_BH.unsqueeze(0), outputs_TBH[:-1]])
    fed_TBH = before_TBH if mask_BH is None else before_TBH * mask_BH
    return fed_TBH.flatten(0, 1).t() @ d_first_TBG.flatten(0, 1)
