"""Losses and measures that set every output beside every target, because their shapes differ.

Outputs `(B, 1)` beside a target `(B,)` are spread by torch over `(B, B)`: the mean of that is
finite, has a gradient, and is another loss. torch warns of it in five of its losses and says
nothing where somebody writes `((outputs - target) ** 2).mean()`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Of torch.nn.functional, all that go element by element over (input, target).
LOSSES = (
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "gaussian_nll_loss",
    "hinge_embedding_loss",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "mse_loss",
    "poisson_nll_loss",
    "smooth_l1_loss",
    "soft_margin_loss",
)
ELEMENTWISE = (
    *("add", "sub", "rsub", "mul", "div", "pow", "maximum", "minimum", "fmod", "remainder"),
    *("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_xor"),
)
# Whoever changes a shape by hand means what comes of it.
BY_HAND = ("__getitem__", "unsqueeze", "view", "view_as", "reshape", "reshape_as", "expand")
BY_HAND += ("expand_as", "repeat", "unflatten", "select", "index_select", "gather")


def spread(one: Tensor, other: Tensor) -> tuple[int, ...] | None:
    """The shape of an outer product, where torch makes one of two tensors; else None."""
    if one.shape == other.shape:
        return None
    try:
        shape = torch.broadcast_shapes(one.shape, other.shape)
    except RuntimeError:  # torch says that they do not fit
        return None
    return tuple(shape) if shape.numel() > max(one.numel(), other.numel()) else None


class NoOuterProducts(TorchFunctionMode):
    """Within: outputs and targets that torch would spread over each other are refused.

    In torch's losses any two tensors; in other arithmetic those that are known.

    Args:
        outputs, target: what is known; what is computed of one of them, row by row, is known too.
        what: does the computing, in the sentence.

    Raises:
        ValueError: with both shapes.
    """

    def __init__(self, outputs: Any = None, target: Any = None, what: str = "the loss") -> None:
        super().__init__()
        self.what = what
        # By identity, and kept: another tensor would take its place.
        self.known: dict[int, tuple[Tensor, str]] = {}
        for value, kind in ((outputs, "outputs"), (target, "target")):
            leaves = value.values() if isinstance(value, Mapping) else value
            for leaf in leaves if isinstance(leaves, (tuple, list)) else [leaves]:
                if isinstance(leaf, Tensor):
                    self.known[id(leaf)] = (leaf, kind)

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        del types
        named = dict(kwargs or {})
        name = getattr(func, "__name__", "").strip("_")
        if name in LOSSES:
            pair = [*args, *(named[key] for key in ("input", "target", "var") if key in named)]
            self._check(name, pair[:2])
        elif name in ELEMENTWISE and self._kinds(args) == {"outputs", "target"}:
            self._check(name, args[:2])
        result = func(*args, **named)
        self._learn(func, args, result)
        return result

    def _kinds(self, args: tuple[Any, ...]) -> set[str]:
        return {self.known[id(arg)][1] for arg in args[:2] if id(arg) in self.known}

    def _check(self, name: str, pair: Any) -> None:
        if len(pair) < 2 or not all(isinstance(one, Tensor) for one in pair):
            return
        shape = spread(*pair)
        if shape is None:
            return
        first, second = tuple(pair[0].shape), tuple(pair[1].shape)
        raise ValueError(
            f"{self.what} sets every output beside every target: {name} is given shapes {first} "
            f"and {second}, which torch spreads over {shape}; give both the same shape, with "
            "outputs.squeeze(1) or target.unsqueeze(1) for example"
        )

    def _learn(self, func: Callable[..., Any], args: tuple[Any, ...], result: Any) -> None:
        """A cast, a sigmoid, an argmax of what is known."""
        if not self.known or not isinstance(result, Tensor) or not result.dim():
            return
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        if len(tensors) != 1 or id(tensors[0]) not in self.known:
            return
        (of,) = tensors
        by_hand = getattr(func, "__name__", "") in BY_HAND
        if not by_hand and result.shape[0] == of.shape[0]:
            self.known[id(result)] = (result, self.known[id(of)][1])


def no_outer_products(network: nn.Module) -> AbstractContextManager[object]:
    """Within: as `NoOuterProducts`, of torch's losses. Nothing for a network that is compiled.

    A compiler would compile it once more for what is on here, and again for what is not.
    """
    for module in network.modules():
        is_compiled = getattr(module, "_compiled_call_impl", None) is not None
        if is_compiled or type(module).__name__ == "OptimizedModule":
            return nullcontext()
    return NoOuterProducts()
