"""What is done to the bytes of a file: seeded, and the same for the same numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

WRONG_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    1.5,
    10**40,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../etc/passwd",
    "\x1b[31m",
    [],
    {},
    [[]],
    {"type": []},
)
DEEP = "[" * 200_000


def mutated(data: bytes, numbers: random.Random, is_json: bool) -> tuple[str, bytes]:
    """What was done, and the bytes after it."""
    ways: list[Callable[[bytes, random.Random], bytes]] = [_one_bit, _one_bit, _bits, _cut, _slice]
    ways += [_noise, _zeros, _twice, _nothing]
    if is_json:
        ways += [_value, _value, _value, _key, _deep]
    way = numbers.choice(ways)
    return way.__name__.strip("_"), way(data, numbers)


def _one_bit(data: bytes, numbers: random.Random) -> bytes:
    place = numbers.randrange(len(data))
    return data[:place] + bytes([data[place] ^ 1 << numbers.randrange(8)]) + data[place + 1 :]


def _bits(data: bytes, numbers: random.Random) -> bytes:
    for _ in range(numbers.randint(2, 20)):
        data = _one_bit(data, numbers)
    return data


def _cut(data: bytes, numbers: random.Random) -> bytes:
    return data[: numbers.randrange(len(data))]


def _slice(data: bytes, numbers: random.Random) -> bytes:
    first, last = sorted(numbers.randrange(len(data)) for _ in range(2))
    return data[:first] + data[last:]


def _noise(data: bytes, numbers: random.Random) -> bytes:
    place = numbers.randrange(len(data))
    return data[:place] + numbers.randbytes(40) + data[place + 40 :]


def _zeros(data: bytes, numbers: random.Random) -> bytes:
    place = numbers.randrange(len(data))
    return data[:place] + bytes(min(512, len(data) - place)) + data[place + 512 :]


def _twice(data: bytes, numbers: random.Random) -> bytes:
    return data + data


def _nothing(data: bytes, numbers: random.Random) -> bytes:
    return b""


def _deep(data: bytes, numbers: random.Random) -> bytes:
    return DEEP.encode()


def _value(data: bytes, numbers: random.Random) -> bytes:
    """A value somewhere in the tree is replaced by one of another kind."""

    def change(holder: Any, key: Any) -> None:
        holder[key] = numbers.choice(WRONG_VALUES)

    return _with_one_changed(data, numbers, change)


def _key(data: bytes, numbers: random.Random) -> bytes:
    """An entry is gone, or stands under another name."""

    def change(holder: Any, key: Any) -> None:
        value = holder.pop(key)
        if isinstance(holder, dict) and numbers.random() < 0.5:
            holder[f"{key}x"] = value

    return _with_one_changed(data, numbers, change)


def _with_one_changed(
    data: bytes, numbers: random.Random, change: Callable[[Any, Any], None]
) -> bytes:
    """JSON with `change` made at a random place; of a .jsonl file in a random line."""
    lines = data.decode().splitlines(keepends=True)
    is_of_lines = len(lines) > 1 and lines[0].rstrip().endswith("}")
    if not is_of_lines:
        tree = json.loads(data)
        change(*numbers.choice(_places(tree)))
        return f"{json.dumps(tree, indent=2)}\n".encode()
    k = numbers.randrange(len(lines))
    tree = json.loads(lines[k])
    change(*numbers.choice(_places(tree)))
    lines[k] = f"{json.dumps(tree)}\n"
    return "".join(lines).encode()


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every dictionary and list in it, with each of its keys."""
    places: list[tuple[Any, Any]] = []
    ahead = [tree]
    while ahead:
        holder = ahead.pop()
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        places += [(holder, key) for key in keys]
        ahead += [holder[key] for key in keys if isinstance(holder[key], (dict, list))]
    return places
