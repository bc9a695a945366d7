"""How much memory a step needs: counted exactly for what autograd keeps, and measured for the
process or the device."""

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
        self.tensor, self.count = tensor, count
        count.add(tensor)

    def __del__(self) -> None:
        self.count.remove(self.tensor)


class SavedTensors:
    """Within this context, the bytes that autograd keeps for backward: `live_bytes`, and their peak
    `peak_bytes`.

    Storages that several nodes keep count once. Unlike the size of the process, the figure is the
    same in every run on every device, so it may stand in the metrics of a reproducible run.
    """

    def __init__(self) -> None:
        self.live_bytes = self.peak_bytes = 0
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

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)
        if self._collecting:
            gc.enable()


def optimizer_bytes(optimizers: Iterable[torch.optim.Optimizer]) -> int:
    """Bytes of the states (momentum buffers, moments) of optimisers."""
    states = (state for optimizer in optimizers for state in optimizer.state.values())
    return sum(
        t.numel() * t.element_size()
        for state in states
        for t in state.values()
        if isinstance(t, Tensor)
    )


def module_bytes(module: torch.nn.Module) -> int:
    """Bytes of parameters and buffers."""
    return sum(t.numel() * t.element_size() for t in [*module.parameters(), *module.buffers()])


def step_mib(
    kept: SavedTensors, module: torch.nn.Module, optimizers: Iterable[torch.optim.Optimizer]
) -> float:
    """Memory of a step within `kept`: weights and their gradients, optimiser states, and what
    autograd kept."""
    return (kept.peak_bytes + 2 * module_bytes(module) + optimizer_bytes(optimizers)) / MIB


def measured_peak_mib(device: torch.device) -> float:
    """Highest memory so far: allocated tensors on a CUDA device, the resident process on a CPU.
    Varies between runs."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MIB
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024.0  # bytes there, KiB on Linux
