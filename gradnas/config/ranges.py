"""Which numbers the fields and options of these names take, wherever they stand.

A number far outside is a slip (a zero too many, another unit), and it must be told before anything
is allocated for it: the upper ends are far above what anybody has used, and far below what stops a
machine. What a class needs beside them, such as two images for BatchNorm, it checks itself.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

from gradnas.config.text import shown

LARGEST_WHOLE = 2**63 - 1  # what tensors and the generators of random numbers can hold


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`.

    Args:
        above_low, below_high: whether that end itself is left out.
    """

    low: float
    high: float
    above_low: bool = False
    below_high: bool = False

    def check(self, value: float, name: str) -> None:
        """ValueError that names the number, and the end that it is beyond."""
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{name} must be a finite number, not {value}")
        is_above = value > self.low or (value == self.low and not self.above_low)
        is_below = value < self.high or (value == self.high and not self.below_high)
        if self.high <= 1 and not (is_above and is_below):  # a share is best shown whole
            left = "(" if self.above_low else "["
            right = ")" if self.below_high else "]"
            interval = f"{left}{_number(self.low)}, {_number(self.high)}{right}"
            raise ValueError(f"{name} must be in {interval}, not {shown(value)}")
        if not is_above:
            word = "above" if self.above_low else "at least"
            raise ValueError(f"{name} must be {word} {_number(self.low)}, not {shown(value)}")
        if not is_below:
            word = "below" if self.below_high else "at most"
            raise ValueError(f"{name} must be {word} {_number(self.high)}, not {shown(value)}")


def _number(value: float) -> str:
    """1000000 as `1000000`, 0.5 as `0.5`, 1e18 as `1e+18`."""
    return str(int(value)) if value == int(value) and abs(value) < 1e12 else f"{value:g}"


_COUNT = Range(1, 10**9)
_WIDTH = Range(1, 65_536)
_SHARE = Range(0, 1, below_high=True)
_FACTOR = Range(0, 10**6)
_POSITIVE = Range(0, 1e18, above_low=True)

RANGES: dict[str, Range] = {
    # how long, how many
    "epochs": Range(1, 10**6),
    "warmup_epochs": Range(0, 10**6),
    "max_steps": _COUNT,
    "alpha_every": _COUNT,
    "patience": _COUNT,
    "batch_size": Range(1, 10**6),
    "eval_batch_size": Range(1, 10**6),
    "test_batch_size": Range(1, 10**6),
    "per_class": _COUNT,
    "valid_per_class": _COUNT,
    "random_cells": Range(0, 10_000),
    "random": Range(0, 10_000),
    "candidates": Range(0, 10_000),
    "rows": Range(0, 10**7),
    "tokens": Range(1, 10**6),
    "repeats": Range(1, 10**6),
    "warmup": Range(0, 10**6),
    "reinforce": Range(1, 10_000),
    "samples": Range(1, 10_000),
    "min_count": _COUNT,
    # the machine
    "threads": Range(1, 1024),
    "workers": Range(0, 1024),
    "checkpoint_seconds": Range(0, 10**9),
    # sizes of networks and of what enters them
    "image_size": Range(1, 16_384),
    "cost_image_size": Range(1, 16_384),
    "num_classes": Range(1, 10**6),
    "in_channels": _WIDTH,
    "max_pixels": Range(1, 10**10),
    "channels": _WIDTH,
    "hidden": _WIDTH,
    "embedding": _WIDTH,
    "stem_width": _WIDTH,
    "first_width": _WIDTH,
    "last_width": _WIDTH,
    "width": _WIDTH,
    "blocks": Range(1, 1000),
    "cells": Range(1, 1000),
    "nodes": Range(1, 64),
    "width_mult": Range(0, 100, above_low=True),
    "base": Range(1, 10**6),  # tokens of a chunk
    "least": Range(1, 10**6),
    "deviation": Range(0, 10**6),
    # optimisers
    "lr": Range(0, 1e30),  # what is too much, the first steps tell
    "lr_end": Range(0, 1e30),
    "warmup_lr": _FACTOR,
    "alpha_lr": _FACTOR,
    "momentum": Range(0, 1),
    "betas": _SHARE,
    "weight_decay": _FACTOR,
    "clip_norm": Range(0, 1e18, above_low=True),
    "gamma": Range(0, 10, above_low=True),
    "auxiliary_weight": _FACTOR,
    # shares and probabilities
    "train_fraction": Range(0, 1, above_low=True, below_high=True),
    "valid_fraction": _SHARE,
    "test_fraction": Range(0, 1, above_low=True, below_high=True),
    "label_smoothing": _SHARE,
    "drop_path": _SHARE,
    "dropout": _SHARE,
    # costs
    "budget_ms": _POSITIVE,
    "budget_macs": _POSITIVE,
    "budget_params": _POSITIVE,
    "target_ms": _POSITIVE,
    "target_macs": _POSITIVE,
    "target_params": _POSITIVE,
    # laws
    "noise": Range(0, 10**6),
    "effort": Range(0, 1000, above_low=True),
    "max_complexity": Range(1, 10**6),
}


def check_numbers(value: object, spelt: Callable[[str], str] = str) -> None:
    """Refuse a dataclass with a number in a field that cannot be one of it.

    Fields of no name in `RANGES` may hold any whole number of 64 bits and any finite number; a
    field that is True or False by default is one of these: a text such as "no" would count as True.

    Args:
        spelt: how the sentence writes the name of a field: as an option, for example.

    Raises:
        ValueError: the first field that is wrong, with the end of the range that it is beyond.
    """
    fields = dataclasses.fields(value)  # type: ignore[arg-type]
    for field in fields:
        held = getattr(value, field.name)
        if isinstance(field.default, bool) and not _is_switch(held):
            name = spelt(field.name)
            raise ValueError(f"{name} must be True or False, not {shown(held)}")
        for number in held if isinstance(held, tuple) else (held,):
            # Another type is the business of whoever reads the field.
            if isinstance(number, bool) or not isinstance(number, (int, float)):
                continue
            _check(number, field.name, spelt(field.name))


def _is_switch(held: object) -> bool:
    return not isinstance(held, float) and any(held is own for own in (True, False, 0, 1))


def _check(number: float, name: str, spelt: str) -> None:
    if name in RANGES:
        RANGES[name].check(number, spelt)
    elif isinstance(number, int) and abs(number) > LARGEST_WHOLE:
        raise ValueError(f"{spelt} must be a number of at most 64 bits, not {shown(number)}")
    elif isinstance(number, float) and not math.isfinite(number):
        raise ValueError(f"{spelt} must be a finite number, not {number}")
