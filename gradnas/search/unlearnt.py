"""Weights that a search does not find: what runs and would never move."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterator, Mapping

from torch import Tensor, nn

from gradnas.search.checks import user_name
from gradnas.spaces.chosen import modules_beside


def say_what_does_not_learn(net: nn.Module) -> None:
    """Warn of weights in plain attributes, lists and dictionaries, where torch does not find them.

    As in plain training: no optimiser gets them from `parameters()`.
    """
    registered = {id(p) for p in net.parameters()}
    for path, module in net.named_modules():
        for attribute, beside in modules_beside(module):
            # Of what is frozen nobody expects that it learns: a teacher that is kept out of the
            # weights.
            lost = [p for p in beside.parameters() if p.requires_grad and id(p) not in registered]
            if lost:
                where = f"{path}.{attribute}" if path else attribute
                warnings.warn(
                    f"{where!r} of {type(net).__name__} holds a {type(beside).__name__} in a plain "
                    f"Python attribute or list, in which torch finds no modules: its {len(lost)} "
                    "weights do not learn. Use nn.ModuleList or nn.ModuleDict, or freeze them "
                    "with requires_grad_(False)",
                    stacklevel=3,  # the line that made the Search
                )


def say_what_was_met(loss: Tensor, known: Collection[Tensor]) -> None:
    """Warn of parameters in the graph of a loss that are none of the network's.

    They lie where no attribute tells: in a closure, in a global layer, in the loss function.

    Args:
        known: the weights that learn, and the alphas.
    """
    learning = {id(p) for p in known}
    shapes = []
    for leaf in _leaves(loss):
        if isinstance(leaf, nn.Parameter) and id(leaf) not in learning:
            shapes.append(str(tuple(leaf.shape)))
    if shapes:
        warnings.warn(
            f"the train loss depends on {len(shapes)} parameters that are not of the network "
            f"(shapes {', '.join(shapes[:3])}{', ...' if len(shapes) > 3 else ''}), which a search "
            "does not train: make them parameters of the network, or freeze them with "
            "requires_grad_(False)",
            stacklevel=4,  # the line that took the step
        )


def refuse_own_weights(loss: Tensor, params: Mapping[str, Tensor], method: str) -> None:
    """ValueError where a loss at other weights depends on the network's own.

    They were not found where the network keeps them (a tuple, a closure), so that the gradient
    would be of a loss that is nobody's.

    Args:
        params: the network's own weights, by name.
        method: what an error calls the gradient.
    """
    names = {id(p): name for name, p in params.items()}
    for leaf in _leaves(loss):
        if id(leaf) in names:
            raise ValueError(
                f"the network uses its weight {user_name(names[id(leaf)])!r} from where a search "
                f"does not find it (a tuple, a closure), and {method} evaluates it with other "
                "weights: use it as an attribute of a module, or FirstOrder()"
            )


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """What the graph of a loss begins with."""
    waiting = [loss.grad_fn]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            yield leaf
        for following, _ in node.next_functions:
            if following not in seen:
                seen.add(following)
                waiting.append(following)
