"""Hooks of a choice: they go over to what takes its place."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from torch import nn

from gradnas.choice import Choice

# Around a call, hooks of what lies inside come after those of what lies outside on the way in, and
# before them on the way out.
_OUTER_FIRST = ("_forward_pre_hooks", "_backward_pre_hooks")
_INNER_FIRST = ("_forward_hooks", "_backward_hooks")
_MARKS = (  # by the number of a hook
    "_forward_pre_hooks_with_kwargs",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
)
_OF_STATE = (
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


def has_hooks(module: nn.Module) -> bool:
    """Whether anything is hooked to a call of the module itself."""
    return any(getattr(module, name) for name in (*_OUTER_FIRST, *_INNER_FIRST))


def hand_over(choice: nn.Module, operation: nn.Module) -> None:
    """Give the hooks of a choice to the operation in its place, around those that it has.

    Raises:
        ValueError: one has backward hooks of the old kind and the other of the new.
    """
    if not has_hooks(choice):
        return
    kinds = {choice._is_full_backward_hook, operation._is_full_backward_hook} - {None}
    if len(kinds) > 1:
        name = getattr(choice, "name", None)
        raise ValueError(
            f"Choice {name!r} and its operation have backward hooks of two kinds: register "
            "both with register_full_backward_hook"
        )
    for kind in kinds:
        operation._is_full_backward_hook = kind
    for name in _OUTER_FIRST:
        setattr(operation, name, _joined(getattr(choice, name), getattr(operation, name)))
    for name in _INNER_FIRST:
        setattr(operation, name, _joined(getattr(operation, name), getattr(choice, name)))
    for name in _MARKS:
        setattr(operation, name, _joined(getattr(operation, name), getattr(choice, name)))


def _joined(first: dict[int, Any], then: dict[int, Any]) -> OrderedDict[int, Any]:
    # Hooks are numbered over all modules: none has the number of another.
    return OrderedDict([*first.items(), *then.items()])


def refuse_what_is_lost(choice: Choice) -> None:
    """ValueError for what a choice does beyond mixing, which a derived network could not do."""
    label = f"Choice {choice.name!r}"
    if type(choice).forward is not Choice.forward or "forward" in vars(choice):
        raise ValueError(
            f"{label} has a forward of its own, which the derived network would lose: put what it "
            "does into a module around the choice"
        )
    if any(getattr(choice, name) for name in _OF_STATE):
        raise ValueError(
            f"{label} has a hook of its state_dict, whose names the derived network does not have: "
            "register it on a module around the choice"
        )
    if choice._parameters or choice._buffers:
        raise ValueError(
            f"{label} holds parameters or buffers of its own, which the derived network would "
            "lose: put them into an operation or into a module around the choice"
        )
