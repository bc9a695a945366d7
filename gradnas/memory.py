"""How much memory a step needs: what autograd keeps, counted; process or device, measured."""

from __future__ import annotations

import gc
import resource
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

MIB = 1024.0 * 1024.0


class _Kept:
    """A tensor that autograd keeps for backward; its bytes count until it is let go."""

    __slots__ = ("count", "tensor")

    def __init__(self, tensor: Tensor, count: SavedTensors) -> None:
        self.tensor = tensor
        self.count = count
        count.add(tensor)

    def __del__(self) -> None:
        self.count.remove(self.tensor)


class SavedTensors:
    """Counts, within this context, the bytes that autograd keeps for backward.

    `live_bytes` are those of the moment, `peak_bytes` the most there were. Storages that several
    nodes keep count once. Unlike the size of the process, the figure is the same in every run on
    every device, so it may stand in the metrics of a reproducible run.
    """

    def __init__(self) -> None:
        self.live_bytes = 0
        self.peak_bytes = 0
        self._references: dict[int, int] = {}
        self._hooks: Any = None

    def add(self, tensor: Tensor) -> None:
        """Count a kept tensor."""
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        self._references[key] = self._references.get(key, 0) + 1
        if self._references[key] == 1:
            self.live_bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def remove(self, tensor: Tensor) -> None:
        """No longer count it."""
        storage = tensor.untyped_storage()
        key = storage.data_ptr()
        self._references[key] -= 1
        if self._references[key] == 0:
            del self._references[key]
            self.live_bytes -= storage.nbytes()

    def __enter__(self) -> SavedTensors:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda t: _Kept(t, self), lambda kept: kept.tensor
        )
        self._hooks.__enter__()
        # Graphs in reference cycles die when the collector runs, which depends on what ran before:
        # not in here.
        self._collecting = gc.isenabled()
        gc.disable()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)
        if self._collecting:
            gc.enable()


def optimizer_bytes(optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Bytes of the states (momentum buffers, moments) of optimisers."""
    total = 0
    for optimizer in optimizers:
        for state in optimizer.state.values():
            total += _bytes(value for value in state.values() if isinstance(value, Tensor))
    return total


def module_bytes(module: torch.nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return _bytes([*module.parameters(), *module.buffers()])


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def step_mib(
    kept: SavedTensors, module: torch.nn.Module, optimizers: Iterable[torch.optim.Optimizer]
) -> float:
    """Memory of a step within `kept`, in MiB.

    Counted are the weights and their gradients, the states of the optimisers, and what autograd
    kept.
    """
    weights_and_gradients = 2 * module_bytes(module)
    return (kept.peak_bytes + weights_and_gradients + optimizer_bytes(optimizers)) / MIB


def measured_peak_mib(device: torch.device) -> float:
    """Highest memory so far, which varies between runs.

    On a CUDA device that of its tensors, on a CPU that of the process.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if sys.platform == "darwin":  # there in bytes, elsewhere in KiB
        return peak / MIB
    return peak / 1024.0
