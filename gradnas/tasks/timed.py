"""What is timed of a search: its supernet, and what it is called with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from gradnas.config import Json
from gradnas.modules.call import Call
from gradnas.spaces.base import Supernet


@dataclass(frozen=True)
class Wanted:
    """How latencies are to be measured.

    Attributes:
        batch_size: examples in a call.
        image_size: side in pixels; None: that of the data.
        channels_last: memory format of images and weights.
        device: where.
    """

    batch_size: int
    image_size: int | None
    channels_last: bool
    device: torch.device


@dataclass(frozen=True)
class Timed:
    """A supernet to be timed.

    Attributes:
        supernet: on the CPU.
        call: what it is called with, on the device, in its memory format.
        about: the shape of an example in words: "8x8".
        random_decision: draws an architecture.
        channels_last: the memory format of its weights.
        settings: what the table says of them.
    """

    supernet: Supernet[Any]
    call: Call
    about: str
    random_decision: Callable[[torch.Generator], Any]
    channels_last: bool
    settings: Mapping[str, Json] = field(default_factory=dict)
