"""Random numbers by counter: a generator for (seed, stream, step), so that no state is saved.

Adding up seeds and steps makes streams overlap (seed 1, step 0 is seed 0, step 1); hashing them
does not.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor


def seed_for(*numbers: int) -> int:
    """A 64-bit hash of whole numbers (each taken modulo 2^64); order and count matter.

    One round of splitmix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number
    generators") per number, so neighbouring seeds, epochs and indices give unrelated results, which
    `seed + epoch` would not.
    """
    mask = (1 << 64) - 1
    state = 0
    for number in numbers:
        z = ((state ^ (number & mask)) + 0x9E3779B97F4A7C15) & mask
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
        state = z ^ (z >> 31)
    return state


def generator_for(*numbers: int) -> torch.Generator:
    """A CPU generator of its own, seeded with `seed_for(*numbers)`; the global one is left alone.

    torch's CPU generator keeps the low 32 bits of a seed, so among very many images some pairs
    share their numbers.
    """
    return torch.Generator().manual_seed(seed_for(*numbers))


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


def other_random_state() -> dict[str, Any]:
    """States of numpy's and Python's global generators, as plain values.

    It takes a fraction of a millisecond: for checkpoints, and not for every step.
    """
    _, key, position, has_gauss, gauss = np.random.get_state(legacy=True)
    version, numbers, next_gauss = random.getstate()
    return {
        "numpy": [np.asarray(key).tolist(), position, has_gauss, gauss],
        "python": [version, list(numbers), next_gauss],
    }


def set_other_random_state(state: Mapping[str, Any]) -> None:
    """The inverse of `other_random_state`."""
    key, position, has_gauss, gauss = state["numpy"]
    np.random.set_state(("MT19937", np.array(key, np.uint32), position, has_gauss, gauss))
    version, numbers, next_gauss = state["python"]
    random.setstate((version, tuple(numbers), next_gauss))


def seed_all(seed: int) -> None:
    """Begin torch's, numpy's and Python's global generators at a seed."""
    torch.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


@contextmanager
def generators_kept() -> Iterator[None]:
    """Within, numpy's and Python's global generators may be drawn from; then they are as before.

    For passes that a search does not need, through a user's code. Those of torch the passes of a
    search put back themselves.
    """
    numpy_state = np.random.get_state()
    python_state = random.getstate()
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Within: the global CPU generators of torch, numpy and Python's `random` begin at these
    numbers.

    After it they are where they were. For a user's code that draws from them (augmentations,
    loaders, initial weights), so that what it draws is a function of the numbers alone.
    """
    seed = seed_for(*numbers)
    torch_state = torch.get_rng_state()
    with generators_kept():
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)
        random.seed(seed)
        try:
            yield
        finally:
            torch.set_rng_state(torch_state)
