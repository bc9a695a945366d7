"""Multiply-adds and parameters of any module, counted by running it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, is_traceable_wrapper_subclass
from torch.utils.flop_counter import flop_registry

from gradnas.latency.products import FORMULAS, makes_none


@contextmanager
def in_eval_mode(net: nn.Module) -> Iterator[None]:
    """Within: every module is in eval mode; after it, each in the mode that it was in.

    Modes of modules may differ: frozen layers stay in eval mode while a network trains.
    """
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def counting(
    on_products: Callable[[int], None], on_unknown: Callable[[str], None]
) -> Iterator[None]:
    """Within: every operator that torch carries out tells how many multiply-adds it makes.

    So it makes no difference whether they come from layers or from functions. Biases, BatchNorm,
    activations, pooling and additions count as nothing, as is usual in the field. The fused form of
    `nn.TransformerEncoderLayer` and `nn.MultiheadAttention` is off, so that their products are
    seen; they are the same ones.

    Args:
        on_products: is given the multiply-adds of each operator that multiplies.
        on_unknown: is given the name of each operator whose multiply-adds are not known.
    """
    was_fused = torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, was_fused)
        # A compiled part (`flex_attention` compiles itself) cannot be watched: as it was written.
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.no_grad())
        stack.enter_context(_Counter(on_products, on_unknown))
        yield


class _Counter(TorchDispatchMode):
    """Sees every operator where torch carries it out."""

    supports_higher_order_operators = True

    def __init__(
        self, on_products: Callable[[int], None], on_unknown: Callable[[str], None]
    ) -> None:
        super().__init__()
        self.on_products = on_products
        self.on_unknown = on_unknown

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        del types
        kwargs = kwargs or {}
        if isinstance(func, torch._ops.HigherOrderOperator):
            return self._higher_order(func, args, kwargs)
        name = func._schema.name
        formula = FORMULAS.get(name)
        registered = flop_registry.get(func._overloadpacket)  # a user's own are there as well
        tensors = list(_tensors((args, kwargs)))
        # Shapes of such tensors are not those of the products inside.
        is_odd = any(t.is_nested or is_traceable_wrapper_subclass(t) for t in tensors)
        if formula is None and registered is None and not is_odd:
            # In inference mode composed operators come whole.
            with self:
                composed = func.decompose(*args, **kwargs)
            if composed is not NotImplemented:
                return composed

        out = func(*args, **kwargs)
        if is_odd:
            if not makes_none(func, len(tensors)):
                self.on_unknown(f"{name} of a {_odd_type(tensors)}")
        elif formula is not None:
            # A multiply-add of complex numbers is four of real ones.
            factor = 4 if isinstance(out, Tensor) and out.is_complex() else 1
            self.on_products(factor * formula(args, out))
        elif registered is not None:
            # torch counts a multiply-add as two.
            self.on_products(registered(*args, **kwargs, out_val=out) // 2)
        elif not makes_none(func, len(tensors)):
            self.on_unknown(name)
        return out

    def _higher_order(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Operators that run functions: torch knows the cost of some as a whole."""
        out = func(*args, **kwargs)
        registered = flop_registry.get(func)
        if registered is None:
            self.on_unknown(str(func))
        else:
            self.on_products(registered(*args, **kwargs, out_val=out) // 2)
        return out


def _odd_type(tensors: Sequence[Tensor]) -> str:
    for tensor in tensors:
        if is_traceable_wrapper_subclass(tensor):
            return type(tensor).__name__
    return "nested tensor"


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def uncountable(operator: str, where: str) -> str:
    """What to say of an operator whose multiply-adds are not known."""
    return (
        f"the multiply-adds of {where} cannot be counted: nobody knows how many "
        f"{operator} makes. Register a formula for it with "
        "torch.utils.flop_counter.register_flop_formula, or count milliseconds or parameters"
    )


def count_macs(run: Callable[[], Any], where: str = "this function") -> int:
    """Multiply-adds of what `run` does, see `counting`.

    Args:
        where: what an error calls it.

    Raises:
        ValueError: an operator whose multiply-adds are not known (a Fourier transform, a matrix
            factorisation, an operator of another library).
    """
    total = 0
    unknown: list[str] = []

    def add(number: int) -> None:
        nonlocal total
        total += number

    with counting(add, unknown.append):
        run()
    if unknown:
        raise ValueError(uncountable(unknown[0], where))
    return total


def macs(module: nn.Module, *inputs: object) -> int:
    """Multiply-adds of one forward pass in eval mode; give one image for the usual number.

    The published ProxylessNAS networks have 439.2M (CPU), 465.3M (GPU) and 320.4M (Mobile) at
    1x3x224x224.

    Raises:
        ValueError: a module inside does what cannot be counted; the sentence names it.
    """
    total = 0
    running: list[str] = []
    unknown: list[tuple[str, str]] = []

    def add(number: int) -> None:
        nonlocal total
        total += number

    def note(operator: str) -> None:
        unknown.append((operator, running[-1]))

    with in_eval_mode(module), naming(module, running), counting(add, note):
        module(*inputs)
    if unknown:  # an error within the pass might be caught there
        raise ValueError(uncountable(*unknown[0]))
    return total


@contextmanager
def naming(net: nn.Module, running: list[str]) -> Iterator[None]:
    """Within: `running` lists the modules that are at work, the innermost last."""
    # Scripted modules take no hooks: what is within them goes by the name of what runs them.
    paths = {}
    for path, module in net.named_modules():
        if not isinstance(module, torch.jit.ScriptModule):
            paths[module] = path
    running.append(module_label("", net))

    def enter(module: nn.Module, args: Any) -> None:
        running.append(module_label(paths.get(module, ""), module))

    def leave(module: nn.Module, args: Any, output: Any) -> None:
        running.pop()

    # On the modules themselves: compiled ones complain of hooks that are there for all.
    handles = []
    for inner in paths:
        handles.append(inner.register_forward_pre_hook(enter))
        handles.append(inner.register_forward_hook(leave))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def module_label(path: str, module: nn.Module) -> str:
    """What an error calls a module."""
    kind = type(module).__name__
    return f"{path!r} ({kind})" if path else kind


def num_params(module: nn.Module) -> int:
    """Number of trainable and fixed parameters; a shared one counts once, buffers do not count."""
    return sum(p.numel() for p in module.parameters())
