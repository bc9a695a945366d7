"""Memory that stays: without it a timing of one operation is a timing of the system's page faults.

After a call glibc gives large blocks back to the system, and the next call gets fresh pages, each
of which faults when it is first written. In a network memory goes from one layer to the next; where
operations are timed one by one in turns, each would pay for its own, the wide ones most.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Parameters of mallopt(3), and what glibc sets them to.
TRIM_THRESHOLD = -1  # bytes free at the end of the heap before they go back
MMAP_THRESHOLD = -3  # bytes of a block that gets pages of its own, which go back when it is freed
MMAP_MAX = -4  # such blocks at a time
DEFAULT_MMAP_MAX = 65536
# By itself glibc raises both thresholds as a program frees larger blocks, up to these values, and
# stops doing so once a program sets one: so these are what a program with large blocks would have.
HIGHEST_MMAP_THRESHOLD = 32 * 2**20
HIGHEST_TRIM_THRESHOLD = 2 * HIGHEST_MMAP_THRESHOLD

_SETTINGS = ("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_")


@contextmanager
def keeping_memory(device: torch.device) -> Iterator[bool]:
    """Within: memory that is freed on a CPU stays with the process, and is used again.

    It gives whether that is so: it is for glibc, unless the environment sets its allocator. On a
    GPU torch keeps memory itself.
    """
    libc = _glibc() if device.type == "cpu" else None
    if libc is None:
        yield False
        return
    libc.mallopt(MMAP_MAX, 0)
    libc.mallopt(TRIM_THRESHOLD, -1)
    try:
        yield True
    finally:
        libc.mallopt(MMAP_MAX, DEFAULT_MMAP_MAX)
        libc.mallopt(MMAP_THRESHOLD, HIGHEST_MMAP_THRESHOLD)
        libc.mallopt(TRIM_THRESHOLD, HIGHEST_TRIM_THRESHOLD)
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc and nobody has set its allocator."""
    is_set = any(name in os.environ for name in _SETTINGS)
    if is_set or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    if platform.libc_ver()[0] != "glibc":
        return None
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        return None
    libc.mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
    libc.malloc_trim.argtypes = [ctypes.c_size_t]
    return libc
