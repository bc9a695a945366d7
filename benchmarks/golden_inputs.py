"""What the runs of `golden.py` are given: configurations, tables, texts and pictures."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# What lies in the folder of the runs and was written here.
INPUTS = ("configs/", "corpus/", "pictures/", "data.csv", "phone.yaml")


def pseudo(seed: int) -> Iterable[int]:
    """Numbers from 0 to 2^31 - 1, the same everywhere and always."""
    state = seed
    while True:
        state = (1103515245 * state + 12345) % 2**31
        yield state >> 8


def edited(source: str, target: str, **changes: Any) -> str:
    """A configuration with some entries replaced, as another file; `a__b` reaches into entries."""
    config = json.loads(Path(source).read_text())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = config
        for parent in parents:
            place = place[parent]
        assert last in place, f"{source} has no {path}"
        place[last] = value
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(json.dumps(config, indent=2) + "\n")
    return target


def written(name: str, text: str) -> str:
    """A text file in the current folder."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


def fix_table(measured: str, target: str) -> None:
    """A measured table with a time that depends on the operation alone in the place of each."""
    table = json.loads(Path(measured).read_text())
    table["device"] = {"kind": "cpu", "name": "golden", "threads": 1}
    table["versions"] = {"gradnas": "golden"}
    for number, entry in enumerate(table["entries"].values()):
        entry |= {"ms": 0.05 + entry["macs"] * 5e-6 + 0.01 * (number % 7), "spread_ms": 0.01}
    Path(target).write_text(json.dumps(table, indent=2) + "\n")


def phone_table() -> str:
    """A table in the form that was released for phones."""
    lines = []
    numbers = iter(pseudo(3))
    for side, channels in ((32, 16), (16, 24), (8, 40)):
        for expand in (3, 6):
            for kernel in (3, 5, 7):
                shape = f"{side}x{side}x{channels}"
                key = f"expanded_conv-input:{shape}-output:{shape}"
                key += f"-expand:{expand}-kernel:{kernel}-stride:1-idskip:1"
                mean = side * side * channels * expand * kernel * 1e-5 + next(numbers) % 100 * 1e-3
                lines.append(f"{key}: {{count: 9, mean: {mean:.4f}, var: 0.01}}")
    return "\n".join(lines) + "\n"


def data_table() -> str:
    """Rows that follow a law of two variables."""
    numbers = iter(pseudo(5))
    rows = ["x,z,y"]
    for _ in range(60):
        x, z = (next(numbers) % 4000 / 1000 + 0.2 for _ in range(2))
        rows.append(f"{x},{z},{3 * x * z / (1.5 + x):.6f}")
    return "\n".join(rows) + "\n"


def corpus(folder: str) -> None:
    """A few hundred short sentences of few words."""
    words = ["the", "a", "cell", "gate", "finds", "loses", "edge", "node", "state"]
    words += ["word", "and", "or", "of", "in", "to", "by"]
    numbers = iter(pseudo(11))
    for split, num_lines in (("train", 260), ("valid", 60), ("test", 60)):
        sentences = []
        for k in range(num_lines):
            chosen = [words[next(numbers) % (4 + k % 13)] for _ in range(5 + k % 4)]
            sentences.append(" ".join(chosen))
        written(f"{folder}/{split}.txt", "\n".join(sentences) + "\n")


def folder_of_images(folder: str) -> None:
    """A few pictures of two classes, of different sizes."""
    import numpy as np
    from PIL import Image

    numbers = iter(pseudo(7))
    for split, count in (("train", 4), ("test", 2)):
        for label in ("cat", "dog"):
            where = Path(folder) / split / label
            where.mkdir(parents=True)
            for k in range(count):
                rows = 40 + 7 * k
                columns = 52 - 5 * k
                values = [next(numbers) % 256 for _ in range(rows * columns * 3)]
                picture = np.array(values, dtype=np.uint8).reshape(rows, columns, 3)
                Image.fromarray(picture).save(where / f"{k}.png")
