"""What data are known again by: counts, names, labels, sizes, and hashes of their contents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.config import Json, JsonObject

HASH = "blake2b:"  # before a hash, so that a difference is told without its letters
MOST_NAMED = 4  # differences within one entry that a sentence lists


@dataclass(frozen=True)
class Fingerprint:
    """What data are known again by.

    Attributes:
        entries: what a sentence calls it ("training images", "contents of the training images") ->
            a number, a text, a list of names, a dictionary of numbers by name, or a hash of
            `digest`. What only some loads can know is left out there, and not compared.
    """

    entries: Mapping[str, Json]

    def differences(self, now: Fingerprint) -> list[str]:
        """What `now` has of another value, each a part of a sentence; empty: the same data."""
        told = []
        hashed = []
        for name, before in self.entries.items():
            if name not in now.entries or now.entries[name] == before:
                continue
            if isinstance(before, str) and before.startswith(HASH):
                hashed.append(f"the {name} differ")
            else:
                told.append(_difference(name, before, now.entries[name]))
        # A hash tells nothing where numbers and names say already what is other.
        return told or hashed

    def to_json(self) -> JsonObject:
        """The entries."""
        return dict(self.entries)

    @classmethod
    def from_json(cls, obj: Json, where: str) -> Fingerprint:
        """The inverse of `to_json`. ValueError that names `where`."""
        if not isinstance(obj, dict):
            raise ValueError(f"{where} is damaged: a fingerprint is an object, not {obj!r}")
        return cls(obj)


def digest(parts: Iterable[bytes]) -> str:
    """A hash of these parts in this order; where one ends and the next begins counts too."""
    whole = hashlib.blake2b(digest_size=16)
    for part in parts:
        whole.update(len(part).to_bytes(8, "little"))
        whole.update(part)
    return HASH + whole.hexdigest()


def digest_of(tensor: Tensor) -> str:
    """A hash of the values, the shape and the type of a tensor."""
    about = f"{tensor.dtype} {tuple(tensor.shape)}".encode()
    # As bytes, since numpy does not have every type.
    plain = tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8)
    return digest([about, plain.numpy().tobytes()])


def _difference(name: str, before: Json, now: Json) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        return f"the {name} differ ({_by_name(before, now)})"
    if isinstance(before, list) and isinstance(now, list):
        return f"the {name} differ ({_of_lists(before, now)})"
    return f"the number of {name} was {_shown(before)}, and is {_shown(now)}"


def _by_name(before: Mapping[str, Json], now: Mapping[str, Json]) -> str:
    parts = []
    for key in dict.fromkeys([*before, *now]):
        if before.get(key) == now.get(key):
            continue
        if key not in now:
            parts.append(f"{key} is gone")
        elif key not in before:
            parts.append(f"{key} is new")
        else:
            parts.append(f"{key} was {_shown(before[key])}, and is {_shown(now[key])}")
    return _first_ones(parts)


def _of_lists(before: Sequence[Json], now: Sequence[Json]) -> str:
    parts = [f"{item} is gone" for item in before if item not in now]
    parts += [f"{item} is new" for item in now if item not in before]
    return _first_ones(parts) if parts else "in another order"


def _first_ones(parts: Sequence[str]) -> str:
    num_more = len(parts) - MOST_NAMED
    more = [f"and {num_more} more"] if num_more > 0 else []
    return ", ".join([*parts[:MOST_NAMED], *more])


def _shown(value: Json) -> str:
    return f"{value:,}" if isinstance(value, (int, float)) else str(value)
