"""Random numbers by counter: a generator for (seed, stream, step), so that there is no state to save.

Adding up seeds and steps makes streams overlap (seed 1, step 0 is seed 0, step 1); hashing them does not.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

_MASK = (1 << 64) - 1


def mix(*numbers: int) -> int:
    """A well-mixed 63-bit number of any whole numbers, in order (splitmix64 finaliser, Steele et al. 2014)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = (state ^ (number & _MASK)) & _MASK
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def generator_for(*numbers: int) -> torch.Generator:
    """A CPU generator that depends on `numbers` alone."""
    return torch.Generator().manual_seed(mix(*numbers))


def random_state(device: torch.device) -> dict[str, Tensor]:
    """States of torch's global generators (CPU, and the device's)."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def set_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """The inverse of `random_state`."""
    torch.set_rng_state(state["cpu"].cpu())
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
