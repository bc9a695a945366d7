"""`accelerate`: a plain network whose blocks train on C++ kernels, on the CPU.

The network stays what it is: nothing is put into it or taken from it, so that its `state_dict`, its
pickles, copies and exports, its hooks and its eval mode are those of the plain one. Only for the
time of a call do the sequences that hold runs of known layers (`recognise`) compute these together
(`run`); every other layer is called.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas.modules.synchronised import norms_are_synchronised
from gradnas.spaces.blocks.cell import fits, run_cell
from gradnas.spaces.blocks.recognise import (
    Cell,
    Replaced,
    Run,
    cell_of,
    covers,
    is_known_sequence,
    pool_stride,
    reduction_of,
    reduction_weights,
    runs_of,
)
from gradnas.spaces.blocks.run import lies_channels_last, pooled, run_stages
from gradnas.spaces.blocks.stage import Last
from gradnas.spaces.cells.conv_network import ConvCellNetwork, drop_path, kept_paths
from gradnas.spaces.cells.running import Update, Updates, update_running_statistics
from gradnas.spaces.chains.mbconv_network import MBConv, Residual
from gradnas.spaces.hooks import has_hooks
from gradnas.spaces.native import has_memory, is_transformed
from gradnas.spaces.operations import FactorizedReduce

# (id and version of a state of a cell, stride) -> the state, and its pool
Pools = dict[tuple[int, int, int], tuple[Tensor, Tensor]]


def accelerate(network: nn.Module) -> Accelerated:
    """The network as a function that trains faster on a CPU, with the same parameters.

    Its numbers are those of the network up to rounding. What is recognised, in any `nn.Sequential`
    of any module: [ReLU or ReLU6], [depthwise convolution of 3, 5 or 7 pixels], [1x1 convolution],
    BatchNorm, once or several times, and the activation that follows. `print` says what was.

    Everything is as in the network itself in eval mode, for a hooked or changed layer, a frozen
    BatchNorm, on other devices than the CPU, under autocast, `torch.func`, `torch.compile` and
    without a C++ compiler; second derivatives are computed on torch's operations.

    Not for calls from several threads at once. What goes into a sequence that begins with an
    activation is kept for backward: a later `x += ...` on it, which the plain network allows, is an
    error of torch's (`RuntimeError`: modified by an inplace operation).

        fast = gradnas.accelerate(network)
        loss = F.cross_entropy(fast(images), labels)  # optimiser and checkpoints: of network
    """
    return Accelerated(network)


class Accelerated:
    """A network that `accelerate` took.

    Attributes:
        network: the module itself, unchanged.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def __call__(self, *args: Any, **named: Any) -> Any:
        with self.at_work():
            return self.network(*args, **named)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Within, whatever calls the network, or a part of it, has the kernels."""
        replaced = []
        cells = []
        passed = _Passed()
        try:
            for module in self.network.modules():
                forward: Any = None
                if "forward" in module.__dict__:
                    continue
                if is_known_sequence(module) and _has_norm(module):
                    forward = _in_sequence
                elif type(module) is FactorizedReduce:
                    forward = _in_reduction
                elif type(module) is Residual:
                    forward = _in_residual
                elif type(module) is ConvCellNetwork and "_added" not in module.__dict__:
                    pools: Pools = {}
                    module.__dict__["_added"] = Replaced(_added_in_cell, module, pools)
                    module.__dict__["_added"].of(module, "_added")
                    cells.append(module)
                    forward = functools.partial(_in_cell, passed, pools)
                if forward is not None:
                    # Not by an assignment, which registers what is assigned.
                    module.__dict__["forward"] = Replaced(forward, module)
                    module.__dict__["forward"].of(module, "forward")
                    replaced.append(module)
            yield
        finally:
            for module in replaced:
                del module.__dict__["forward"]
            for module in cells:
                del module.__dict__["_added"]

    def __repr__(self) -> str:
        lines = []
        num_taken = 0
        num_layers = 0
        for name, module in self.network.named_modules():
            if not list(module.children()):
                num_layers += 1
            if "forward" in module.__dict__:
                continue
            with _in_training(module):
                reduction = reduction_of(module)
                runs = runs_of(list(module.children())) if is_known_sequence(module) else []
            if reduction is not None:
                num_taken += len(list(module.children()))
                lines.append(f"  {name}: {type(module).__name__}")
            names = list(module._modules)
            for run in runs:
                num_taken += run.last - run.first
                kinds = []
                for layer in list(module.children())[run.first : run.last]:
                    kinds.append(type(layer).__name__)
                place = f"{name}.{names[run.first]}" if name else names[run.first]
                lines.append(f"  {place} to {names[run.last - 1]}: {', '.join(kinds)}")
        head = f"{num_taken} of {num_layers} layers are computed in {len(lines)} runs"
        return "\n".join([f"Accelerated {type(self.network).__name__}: {head}", *lines])


@contextmanager
def _in_training(module: nn.Module) -> Iterator[None]:
    """Within, the children are in training mode."""
    layers = list(module.children())
    modes = [layer.training for layer in layers]
    try:
        for layer in layers:
            layer.training = True
        yield
    finally:
        for layer, mode in zip(layers, modes, strict=True):
            layer.training = mode


def _is_followed() -> bool:
    """Whether something follows torch's own operations, or changes them."""
    if torch.compiler.is_compiling() or is_transformed() or norms_are_synchronised():
        return True
    if torch.is_autocast_enabled("cpu") or torch._C._len_torch_function_stack():
        return True
    if nn.modules.module._has_any_global_hook():
        return True
    # A checkpoint (torch.utils.checkpoint) will compute this again, when nothing is replaced.
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)
    return hooks is not None and "checkpoint" in getattr(hooks[0], "__module__", "")


def _has_norm(sequence: nn.Module) -> bool:
    return any(type(layer) is nn.BatchNorm2d for layer in sequence._modules.values())


def _in_sequence(sequence: nn.Module, input: Any) -> Any:
    """What `nn.Sequential.forward` does, with runs of known layers computed together."""
    layers: tuple[nn.Module, ...] = tuple(sequence._modules.values())  # type: ignore[assignment]
    if _is_followed():
        return _called(layers, input)
    x = input
    at = 0
    for run in runs_of(layers):
        x = _between(layers[at : run.first], x)
        y = _computed(run, run.weights, x)
        if y is None:
            x = _called(layers[run.first : run.last], x)
        else:
            # As the layers would give it: who takes a `view` depends on how it lies in memory.
            is_last = any(lies_channels_last(t) for t in (x, *run.weights))
            x = y if is_last else y.contiguous()
        at = run.last
    return _between(layers[at:], x)


def _between(layers: Sequence[nn.Module], x: Any) -> Any:
    """Layers that are in no run. A convolution of a whole map is a product of matrices.

    torch computes it as one of many pixels, which takes four times as long.
    """
    for layer in layers:
        y = _of_whole_map(layer, x) if type(x) is Tensor else None
        x = layer(x) if y is None else y
    return x


def _of_whole_map(layer: nn.Module, x_BCHW: Tensor) -> Tensor | None:
    """What a convolution gives whose kernel is as large as the map; None for any other layer."""
    if not covers(layer, tuple(x_BCHW.shape)):
        return None
    weight = layer._parameters["weight"]
    assert weight is not None
    if not has_memory(x_BCHW, weight) or x_BCHW.dtype != weight.dtype:
        return None
    # Channels last, as maps are here and weights mostly: a copy of neither is made then.
    rows = x_BCHW.permute(0, 2, 3, 1).flatten(1)
    return F.linear(rows, weight.permute(0, 2, 3, 1).flatten(1))[:, :, None, None]


def _in_reduction(module: FactorizedReduce, x: Any) -> Any:
    """A factorized reduction."""
    run = None
    if not _is_followed() and type(x) is Tensor and not any(side % 2 for side in x.shape[2:]):
        run = reduction_of(module)
    y = None
    if run is not None:
        y = _computed(run, reduction_weights(run), x)
    return FactorizedReduce.forward(module, x) if y is None else y


def _in_residual(module: Residual, x: Any) -> Any:
    """A block of a chain with its shortcut."""
    operation = module.operation
    forward = operation.__dict__.get("forward")
    is_known = type(operation) is MBConv and (forward is None or type(forward) is Replaced)
    if module.shortcut and is_known and not has_hooks(operation) and not _is_followed():
        layers: tuple[nn.Module, ...] = tuple(operation._modules.values())  # type: ignore[assignment]
        runs = runs_of(layers)
        if len(runs) == 1 and runs[0].last - runs[0].first == len(layers):
            y = _computed(runs[0], runs[0].weights, x, shortcut=True)
            if y is not None:
                return y
    return Residual.forward(module, x)


class _Passed:
    """The second input of the cell that was computed last, and as it left that cell.

    Where the next cell reads the latter, both gradients of the map meet in a kernel. Only of a map
    that operations made and with gradients: of a leaf, the graphs of two cells have nothing in
    common, and the backward pass of one would free the other; without gradients (`no_grad`, the
    first pass of a checkpoint) what leaves the cell has lost its history.
    """

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._again: Tensor | None = None
        self._version = 0

    def of(self, before: Tensor) -> Tensor:
        """What a cell reads for its first input."""
        is_kept = before is self._last and before._version == self._version
        return self._again if is_kept and self._again is not None else before

    def keep(self, last: Tensor, again: Tensor) -> None:
        if torch.is_grad_enabled() and last.grad_fn is not None:
            self._last = last
            self._again = again
            self._version = last._version


def _in_cell(
    passed: _Passed,
    pools: Pools,
    cell: ConvCellNetwork,
    before: Any,
    last: Any,
    drop_probability: float | Tensor = 0.0,
) -> Any:
    """A cell, as a whole where all of it is known."""
    if type(before) is Tensor and type(last) is Tensor and last.is_cpu and not _is_followed():
        known = cell_of(cell)
        if known is not None and fits(known.plan, before, last, known.weights):
            return _whole_cell(passed, cell, known, before, last, drop_probability)
    try:
        return ConvCellNetwork.forward(cell, before, last, drop_probability)
    finally:
        pools.clear()


def _whole_cell(
    passed: _Passed,
    cell: ConvCellNetwork,
    known: Cell,
    before: Tensor,
    last: Tensor,
    drop_probability: float | Tensor,
) -> Tensor:
    is_dropping = cell.training and (isinstance(drop_probability, Tensor) or drop_probability > 0.0)
    factors: list[Tensor | None] = []
    for operation in cell.operations:
        is_dropped = is_dropping and type(operation) is not nn.Identity
        factors.append(kept_paths(last, drop_probability).flatten() if is_dropped else None)
    y, again, statistics = run_cell(known.plan, factors, passed.of(before), last, known.weights)
    passed.keep(last, again)
    _keep(known.norms, statistics)
    return y


def _keep(norms: Sequence[nn.BatchNorm2d], statistics: Sequence[Tensor]) -> None:
    """What every BatchNorm saw goes into its running statistics."""
    updates: Updates = []
    for norm, kept_2C in zip(norms, statistics, strict=True):
        updates.append(Update(norm, *kept_2C.unbind()))
    update_running_statistics(updates)


def _added_in_cell(
    cell: ConvCellNetwork,
    pools: Pools,
    total: Tensor | None,
    k: int,
    x: Tensor,
    drop_probability: float | Tensor | None,
) -> Tensor:
    """An operation of a cell, its dropped paths and the sum of the node, as one."""
    operation = cell.operations[k]
    if type(operation) is nn.MaxPool2d and not cell.is_own(k) and not _is_followed():
        y = _pooled(operation, x, pools)
        if y is not None:
            cell._check(k, x, y)
            if drop_probability is not None:
                y = drop_path(y, drop_probability)
            return y if total is None else total + y
    layers = tuple(operation._modules.values())
    forward = operation.__dict__.get("forward")
    is_known = type(operation) is nn.Sequential and not has_hooks(operation) and not cell.is_own(k)
    is_known = is_known and (forward is None or type(forward) is Replaced)
    # On another device nothing is drawn here: it has random numbers of its own.
    if is_known and x.is_cpu and not _is_followed():
        runs = runs_of(layers)  # type: ignore[arg-type]
        if len(runs) == 1 and runs[0].last - runs[0].first == len(layers):
            factor = None
            state = torch.get_rng_state()
            if drop_probability is not None:
                factor = kept_paths(x, drop_probability).flatten()
            y = _computed(runs[0], runs[0].weights, x, factor, total)
            if y is not None:
                cell._check(k, x, y)
                return y
            torch.set_rng_state(state)  # the paths are drawn again
    return ConvCellNetwork._added(cell, total, k, x, drop_probability)


def _pooled(operation: nn.MaxPool2d, x: Tensor, pools: Pools) -> Tensor | None:
    """The pool of a state of a cell, computed once for all operations that take it."""
    stride = pool_stride(operation)
    if stride is None or type(x) is not Tensor or x.is_inference():
        return None
    place = (id(x), x._version, stride)
    if place not in pools:
        y = pooled(x, stride)
        if y is None:
            return None
        pools[place] = (x, y)  # with x, so that nothing else gets its place
    return pools[place][1]


def _computed(
    run: Run,
    weights: Sequence[Tensor],
    x: Any,
    factor_B: Tensor | None = None,
    other: Tensor | None = None,
    shortcut: bool = False,
) -> Tensor | None:
    """The output of a run, whose BatchNorms keep what they saw; None where it has to be called.

    Args:
        factor_B: what the output is multiplied by.
        other: what is added then.
        shortcut: whether x is.
    """
    if type(x) is not Tensor:
        return None
    last = Last(run.last_act, factor_B)
    computed = run_stages(run.stages, last, x, weights, other, shortcut)
    if computed is None:
        return None
    y, statistics = computed
    _keep(run.norms, statistics)
    return y


def _called(layers: Sequence[nn.Module], x: Any) -> Any:
    for layer in layers:
        x = layer(x)
    return x
