"""What an edge of a supernet passes on of one primitive: finite, whatever the constants are."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gradnas.laws.primitives import (
    POWER,
    Primitive,
    meaning,
)

# Bounds of what is passed on in the mixture: of what logarithms and divisions see, and of a value.
SMALLEST = 1e-3
LARGEST = 1e3


def passed_on(word: str, x: Tensor, a: Tensor, b: Tensor, table: Mapping[str, Primitive]) -> Tensor:
    """What a primitive passes on in the mixture: finite, and without a gradient that overflows."""
    function, fits_a, fits_b = meaning(word)
    if function == POWER:
        # |x|^a by its logarithm, whose gradient by a is bounded.
        log_x = torch.log(x.abs().clamp(min=SMALLEST, max=LARGEST))
        return torch.exp((a * log_x).clamp(-7.0, 7.0))
    z = x
    if fits_a:
        z = a * x
    elif word == "subtract":
        z = -x
    if fits_b:
        z = z + b
    primitive = table[function]
    safe = primitive.safe or primitive.function
    return safe(z).clamp(-LARGEST, LARGEST)
