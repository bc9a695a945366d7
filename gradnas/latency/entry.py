"""What a latency table holds: the device it is of, and what was measured of one operation."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from gradnas.environment import processor_name


@dataclass(frozen=True)
class Device:
    """Where latencies hold.

    Attributes:
        kind: `cpu`, `cuda`, ...
        name: of the model.
        threads: of the CPU; None where they do not matter.
    """

    kind: str
    name: str
    threads: int | None = None

    @staticmethod
    def here(device: torch.device) -> Device:
        """The device that this process would measure on."""
        if device.type == "cuda":
            return Device("cuda", torch.cuda.get_device_name(device))
        name = processor_name() if device.type == "cpu" else platform.machine()
        return Device(device.type, name, torch.get_num_threads())

    def __str__(self) -> str:
        if self.threads is None:
            return f"{self.name} ({self.kind})"
        plural = "s" if self.threads > 1 else ""
        return f"{self.name} ({self.kind}, {self.threads} thread{plural})"


@dataclass(frozen=True)
class Entry:
    """What was measured of one (operation, input shape).

    Attributes:
        ms: median time of one call, in milliseconds (the mean, in tables of the released form).
        spread_ms: interquartile range of the calls (the standard deviation, in tables of the
            released form).
        count: calls behind it.
        label: where the operation was met first.
        macs, params: multiply-adds of the call (of the whole batch) and parameters, if known.
        features: what a predictor is trained on.

    Raises:
        ValueError: a time that is negative or no number.
    """

    ms: float
    spread_ms: float
    count: int
    label: str = ""
    macs: int | None = None
    params: int | None = None
    features: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("ms", "spread_ms"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a number of at least 0, not {value}")


@dataclass(frozen=True)
class Latency:
    """A latency out of a table, and whether it was measured or predicted."""

    ms: float
    predicted: bool
