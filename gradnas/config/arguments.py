"""Arguments that a function does not have, with what is right in their place."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gradnas.config.trees import did_you_mean

# What other libraries call an argument, and what it is here.
ELSEWHERE = {
    "alpha_lr": "alphas=gradnas.AlphaOptimizer(lr={value})",
    "alpha_weight_decay": "alphas=gradnas.AlphaOptimizer(weight_decay={value})",
    "arch_lr": "alphas=gradnas.AlphaOptimizer(lr={value})",
    "lr": "weights=gradnas.WeightOptimizer(lr={value})",
    "momentum": "weights=gradnas.WeightOptimizer(momentum={value})",
    "optimizer": "weights=..., and for the alphas alphas=gradnas.AlphaOptimizer(...)",
    "weight_decay": "weights=gradnas.WeightOptimizer(weight_decay={value})",
}
COSTS = ("budget_", "target_")


def refuse_unknown(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """TypeError for arguments that the function does not have; nothing where none was given.

    Args:
        function: as users call it; its last parameter takes what has no other place.
        given: names and values of what that parameter took.
    """
    parameters = inspect.signature(function).parameters.values()
    known = [own.name for own in parameters if own.kind is not inspect.Parameter.VAR_KEYWORD]
    called = function.__qualname__.removesuffix(".__init__")
    for name, value in given.items():
        said = f"{called} has no argument {name!r}"
        right = ELSEWHERE.get(name)
        if name.startswith(COSTS) and "cost" in known:
            right = f"cost=gradnas.ExpectedCost({name}={{value}})"
        if right is not None and right.partition("=")[0] in known:
            raise TypeError(f"{said}: give {right.format(value=f'{value!r:.40}')}")
        raise TypeError(f"{said}{did_you_mean(name, known)}")
