"""Words that settings of numbers, of images and of searches take."""

from __future__ import annotations

from typing import Literal

Precision = Literal["fp32", "tf32", "bf16"]  # as `gradnas.precision` sets them
Fit = Literal["crop", "squeeze", "pad"]  # as `gradnas.data.augment.fit` brings an image to size
Guard = Literal["warn", "stop", "off"]  # as `gradnas.search.health` follows them
