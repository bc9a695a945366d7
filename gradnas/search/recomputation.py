"""Activation checkpointing inside a searched network.

A checkpointed part of a network runs a second time, in backward. A search evaluates its losses with
weights that the network holds during the forward pass alone: the second run would find the
network's own weights, and the gradient would be that of no loss at all. So what
`torch.utils.checkpoint` runs again is given the tensors of its pass, and what its choices mixed;
any other module of the network that is found running in backward is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils.hooks import RemovableHandle

from gradnas.modules.draws import OutsideSearch, current, using
from gradnas.modules.slots import Placed, holding, modules_of, with_copied_buffers
from gradnas.probing import bound_in_backward, is_bound

# The two functions of torch that every form of checkpointing goes through. They are not public:
# where torch has them no more, checkpointing is refused in backward like any other recomputation.
REENTRANT = "CheckpointFunction"
WITHOUT_REENTRANT = "_checkpoint_without_reentrant_generator"


def _again(placed: Placed | None, function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, which in backward finds the network with the tensors of its forward pass.

    And its choices with what they mix there: backward runs outside of the pass that said it.
    """
    draw = current()

    def run(*args: Any, **named: Any) -> Any:
        if not _in_backward():
            return function(*args, **named)
        # What is run again may hold checkpointed parts of its own, for a later moment of backward.
        told = nullcontext() if draw is None else using(draw)
        with bound_in_backward(), checkpoints_of_pass(placed), told:
            if placed is None:  # the network's own, which are still in it
                return function(*args, **named)
            # BatchNorm writes into the buffers that it is given: the second time, into copies.
            with holding(with_copied_buffers(placed)):
                return function(*args, **named)

    return run


def _in_backward() -> bool:
    return torch._C._current_graph_task_id() != -1


@contextmanager
def checkpoints_of_pass(placed: Placed | None) -> Iterator[None]:
    """Within, parts that are checkpointed are bound to the tensors of this pass.

    Args:
        placed: what the slots of the network hold in this pass; None: the network's own.
    """
    module: Any = torch.utils.checkpoint
    without_reentrant = getattr(module, WITHOUT_REENTRANT, None)
    reentrant = getattr(module, REENTRANT, None)
    if without_reentrant is None or reentrant is None:
        yield
        return

    def generator(function: Callable[..., Any], *settings: Any, **named: Any) -> Any:
        return without_reentrant(_again(placed, function), *settings, **named)

    class Applied:
        """Reentrant checkpointing differentiates by `.backward()` alone, a search by `.grad()`."""

        @staticmethod
        def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
            return module.checkpoint(
                function, *args, use_reentrant=False, preserve_rng_state=preserve
            )

    setattr(module, WITHOUT_REENTRANT, generator)
    setattr(module, REENTRANT, Applied)
    try:
        yield
    finally:
        setattr(module, WITHOUT_REENTRANT, without_reentrant)
        setattr(module, REENTRANT, reentrant)


@contextmanager
def recomputation_refused(net: nn.Module) -> Iterator[None]:
    """Within, a module of `net` with weights that runs in backward, unbound, is an error.

    Raises:
        OutsideSearch: naming the module.
    """
    compiled: set[nn.Module] = set()  # by `torch.compile`: their backward runs no module
    for module in modules_of(net):
        if "_orig_mod" in module._modules or module._compiled_call_impl is not None:
            compiled.update(module.modules())

    def check(module: nn.Module, args: Any) -> None:
        del args
        if not _in_backward() or is_bound() or module in compiled:
            return
        path = _path_of(module, net)
        if path is None:
            return
        raise OutsideSearch(
            f"{path!r} ({type(module).__name__}) was run again in backward, where the "
            "network no longer holds the weights of this pass: the gradient would be wrong. Use "
            "torch.utils.checkpoint for activation checkpointing, or leave it out during the search"
        )

    if compiled:
        # A hook on all modules would keep torch from running what it has compiled.
        handles = []
        for module in modules_of(net):
            if _holds_tensors(module) and module not in compiled:
                handles.append(module.register_forward_pre_hook(check))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        return
    with _Hook(check) as hook:
        token = _hook.set(hook)
        try:
            yield
        finally:
            _hook.reset(token)


class _Hook:
    """A hook on all modules, while it is entered."""

    def __init__(self, check: Callable[[nn.Module, Any], None]) -> None:
        self.check = check
        self.handle: RemovableHandle | None = None

    def __enter__(self) -> _Hook:
        self.handle = register_module_forward_pre_hook(self.check)
        return self

    def __exit__(self, *error: object) -> None:
        if self.handle is not None:
            self.handle.remove()
        self.handle = None


_hook: ContextVar[_Hook | None] = ContextVar("gradnas_recomputation_hook", default=None)


@contextmanager
def in_forward() -> Iterator[None]:
    """Within, the network holds the tensors of its pass, so that nothing has to be refused.

    Without the hook torch calls every module in a shorter way.
    """
    hook = _hook.get()
    if hook is None or hook.handle is None:
        yield
        return
    hook.__exit__()
    try:
        yield
    finally:
        hook.__enter__()


def _holds_tensors(module: nn.Module) -> bool:
    return bool(module._parameters) or bool(module._buffers)


def _path_of(module: nn.Module, net: nn.Module) -> str | None:
    """Of a module with tensors in a network; None of any other."""
    if not _holds_tensors(module):
        return None
    return next((path for path, inner in net.named_modules() if inner is module), None)
