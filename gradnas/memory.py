"""How much memory a step needs: what autograd keeps, counted; process or device, measured."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import platform
import re
import resource
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradnas.modules.slots import modules_of

MIB = 1024.0 * 1024.0


def plain_parts(tensor: Tensor) -> Sequence[Tensor]:
    """The tensors with a storage that a tensor is made of: of a sparse one places and values."""
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return tensor.crow_indices(), tensor.col_indices(), tensor.values()
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return tensor.ccol_indices(), tensor.row_indices(), tensor.values()
    return (tensor,)


class _Kept:
    """A tensor that autograd keeps for backward; its bytes count until it is let go."""

    __slots__ = ("count", "key", "num_bytes", "others", "tensor")

    def __init__(self, tensor: Tensor, count: SavedTensors) -> None:
        # A step that runs a thousand small operators makes a thousand of these.
        self.tensor = tensor
        self.count = count
        first = tensor
        self.others: list[_Kept] = []
        if tensor.layout is not torch.strided:
            first, *rest = plain_parts(tensor)
            self.others = [_Kept(part, count) for part in rest]
        storage = first.untyped_storage()
        self.key = key = storage.data_ptr()
        self.num_bytes = num_bytes = storage.nbytes()
        number = count.references.get(key, 0)
        count.references[key] = number + 1
        if number == 0:
            count.live_bytes += num_bytes
            if count.live_bytes > count.peak_bytes:
                count.peak_bytes = count.live_bytes

    def __del__(self) -> None:
        count = self.count
        number = count.references[self.key] - 1
        if number:
            count.references[self.key] = number
        else:
            del count.references[self.key]
            count.live_bytes -= self.num_bytes


class SavedTensors:
    """Counts, within this context, the bytes that autograd keeps for backward.

    `live_bytes` are those of the moment, `peak_bytes` the most there were. Storages that several
    nodes keep count once. Unlike the size of the process, the figure is the same in every run on
    every device, so it may stand in the metrics of a reproducible run.

    Attributes:
        references: where a storage begins -> how many of what is kept lie in it.
    """

    def __init__(self) -> None:
        self.live_bytes = 0
        self.peak_bytes = 0
        self.references: dict[int, int] = {}
        self._hooks: Any = None

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
    """Bytes of parameters and buffers, each counted once."""
    own: dict[int, Tensor] = {}
    for inner in modules_of(module):
        for tensor in (*inner._parameters.values(), *inner._buffers.values()):
            if tensor is not None:
                own[id(tensor)] = tensor
    return _bytes(own.values())


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


# ---- what is freed -------------------------------------------------------------------------------

# Numbers of glibc's `mallopt`.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
NEVER = -1
# What glibc comes to by itself where large blocks are freed, in bytes.
LARGEST_MMAP_THRESHOLD = 32 << 20
LARGEST_TRIM_THRESHOLD = 64 << 20
OWN_SETTINGS = ("MALLOC_", "GLIBC_TUNABLES")  # variables by which a user decides


@contextlib.contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within, the C library keeps what is freed; at the end it gives it back to the system.

    A step asks for the memory that the one before has freed. If it went back to the system in
    between, every page would be cleared and mapped anew in every step. Nothing changes where the C
    library is another than glibc, or the user has settings for it.
    """
    library = _glibc()
    if library is None:
        yield
        return
    library.mallopt(M_MMAP_THRESHOLD, 1 << 30)
    library.mallopt(M_TRIM_THRESHOLD, NEVER)
    try:
        yield
    finally:
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        library.mallopt(M_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD)
        library.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if any(name.startswith(OWN_SETTINGS) for name in os.environ):
        return None
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return None
    library = ctypes.CDLL(None)
    has_both = hasattr(library, "mallopt") and hasattr(library, "malloc_trim")
    return library if has_both else None


# ---- what cannot fit -----------------------------------------------------------------------------

# Of what autograd keeps, by a count on the meta device, so much is kept for certain: what is
# refused must not have fitted. Kernels of our own, which mixtures have, keep a third of what plain
# ones do.
SURE_SHARE = 0.5
SURE_SHARE_OF_MIXTURES = 0.2


def check_fits(needed: float, device: torch.device, what: str, advice: str) -> None:
    """ValueError where the device, or the machine, has less memory in all than `needed` bytes.

    Args:
        what: needs it, as the sentence begins.
        advice: how it would need less.
    """
    there = memory_of(device)
    if there is None or needed <= there:
        return
    place = "this machine" if device.type == "cpu" else str(device)
    raise ValueError(
        f"{what} needs at least {_gib(needed)} of memory, and {place} has {_gib(there)} in all: "
        f"{advice}"
    )


def _gib(number: float) -> str:
    gib = number / 2**30
    return f"{gib:,.0f} GiB" if gib >= 100 else f"{gib:.1f} GiB"


def memory_of(device: torch.device) -> int | None:
    """Bytes that the device has in all, used or not; None where that cannot be told.

    Of a CPU those of the machine with its swap, or of the container that this process is in.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    if device.type != "cpu":
        return None
    limits = [_of_cgroup()]
    with contextlib.suppress(OSError, ValueError):  # a system that does not say
        limits.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") + _swap())
    known = [limit for limit in limits if limit is not None]
    return min(known) if known else None


def _swap() -> int:
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):  # not Linux
        return 0
    found = re.search(r"^SwapTotal:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def _of_cgroup() -> int | None:
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            text = (Path("/sys/fs/cgroup") / name).read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError):
            continue
        if text.isdigit():  # else `max`
            return int(text)
    return None


def memory_left() -> int | None:
    """Bytes that processes may still take without swapping; None where that cannot be told."""
    found = []
    with contextlib.suppress(OSError, UnicodeDecodeError):  # not Linux
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        match = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
        if match:
            found.append(int(match[1]) * 1024)
    limit = _of_cgroup()
    if limit is not None:
        for name in ("memory.current", "memory/memory.usage_in_bytes"):
            with contextlib.suppress(OSError, ValueError):
                found.append(limit - int((Path("/sys/fs/cgroup") / name).read_text("ascii")))
    return max(0, min(found)) if found else None


class KeptOnMeta:
    """Counts, within this context, what autograd would keep of a pass on the meta device.

    `bytes` are those of all storages that are kept, each once, without the weights of `module`.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        weights = [*module.parameters(), *module.buffers()]
        # The storages themselves: a number of one that is gone may come again.
        self._seen = {t.untyped_storage()._cdata: t.untyped_storage() for t in weights}
        self.bytes = 0
        self._hooks: Any = None

    def _keep(self, tensor: Tensor) -> Tensor:
        for part in plain_parts(tensor):
            storage = part.untyped_storage()
            if storage._cdata not in self._seen:
                self._seen[storage._cdata] = storage
                self.bytes += storage.nbytes()
        return tensor

    def __enter__(self) -> KeptOnMeta:
        self._hooks = torch.autograd.graph.saved_tensors_hooks(self._keep, lambda kept: kept)
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooks.__exit__(*error)
