"""How many cores and how much memory other processes leave on this machine."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch

from gradnas.data.ahead import num_cores
from gradnas.memory import MIB, measured_peak_mib, memory_left

SECONDS = 0.5  # that cores are watched
QUOTA = Path("/sys/fs/cgroup/cpu.max")
STATISTICS = Path("/proc/stat")


def free_cores() -> int:
    """Cores that this process may use and that others leave idle, while this one waits."""
    cores = num_cores()
    others = _busy_cores()
    return max(0, min(cores - round(others), _quota(cores)))


def room_for_processes() -> int | None:
    """So many more processes as large as this one has ever been fit the memory; None: unknown."""
    left = memory_left()
    if left is None:
        return None
    return int(left / (measured_peak_mib(torch.device("cpu")) * MIB))


def _quota(cores: int) -> int:
    """Whole cores that a container may use."""
    try:
        share, period = QUOTA.read_text(encoding="ascii").split()
        return min(cores, max(1, int(share) // int(period)))
    except (OSError, ValueError):  # no such limit: `max 100000`
        return cores


def _busy_cores() -> float:
    """Of the cores of this process, how many are at work, as a sum of shares."""
    before = _ticks()
    if before is None:
        # The load is a mean over a minute, in which this process may have computed.
        load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
        return max(0.0, load - torch.get_num_threads())
    time.sleep(SECONDS)
    after = _ticks() or before
    busy = 0.0
    for core, (idle, total) in after.items():
        idle_before, total_before = before.get(core, (idle, total))
        if total > total_before:
            busy += 1.0 - (idle - idle_before) / (total - total_before)
    return busy


def _ticks() -> dict[int, tuple[int, int]] | None:
    """Core -> ticks idle and in all; None on a system without these numbers."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        lines = STATISTICS.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    own = os.sched_getaffinity(0)
    found = {}
    for line in lines:
        name, _, rest = line.partition(" ")
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in own:
            # user, nice, system, idle, waiting for disks, interrupts (2), taken by other guests
            ticks = [int(word) for word in rest.split()[:8]]
            found[int(name[3:])] = (ticks[3] + ticks[4], sum(ticks))
    return found or None
