"""Parquet files of a set by split, from their names: as the hub has named them over the years.

`train-00000-of-00002.parquet`, `train-00000-of-00002-4f2a.parquet` (with a hash),
`data/train-....parquet`, `default/train/0000.parquet`, `train_0.parquet`, `cifar10-train.parquet`,
`train.parquet`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from gradnas.data.names import is_hidden, listed, splits_within
from gradnas.data.summary import LeftOut

MOST_LEVELS = 3  # of folders between a set and its files
# Shard and number of shards, the way `datasets` writes them; a hash may follow.
SHARD = re.compile(r"(?:^|[-_.])(\d+)-of-(\d+)(?=$|[-_.])")
# A file by its number alone, after the name of the split or of nothing.
NUMBERED = re.compile(r"^(?:.*?[-_.])??(\d+)$")


def parquet_files(folder: Path) -> list[Path]:
    """All parquet files of a folder and of those in it, sorted by path; hidden ones are left out.

    Links are followed.
    """
    found: list[Path] = []
    _add_files(folder, MOST_LEVELS, found)
    return sorted(found)


def _add_files(folder: Path, levels: int, found: list[Path]) -> None:
    for entry in os.scandir(folder):
        if is_hidden(entry.name):
            continue
        if os.path.isfile(entry.path) and entry.name.lower().endswith(".parquet"):
            found.append(Path(entry.path))
        elif levels and os.path.isdir(entry.path):
            _add_files(Path(entry.path), levels - 1, found)


def by_split(folder: Path, files: Sequence[Path]) -> tuple[dict[str, list[Path]], list[LeftOut]]:
    """The files of each split in the order of their shards, and what is left out.

    Raises:
        ValueError: a name with two splits, files of one split in several folders, a shard that is
            missing or stands there twice.
    """
    named: dict[str | None, list[Path]] = {}
    for file in files:
        named.setdefault(split_of(file, folder), []).append(file)
    unnamed = named.pop(None, [])
    left_out = []
    splits = {split: own for split, own in named.items() if split is not None}
    if unnamed:
        one = "parquet file whose name tells no split"
        many = "parquet files whose names tell no split"
        left_out.append(LeftOut(len(unnamed), one, many, unnamed[0].name))
    return {split: ordered(own, split) for split, own in splits.items()}, left_out


def split_of(file: Path, folder: Path) -> str | None:
    """The split that a file is of: by its name, else by the folders that it is in; None: by none.

    Raises:
        ValueError: the name has two splits.
    """
    within = splits_within(file.stem)
    if len(within) > 1:
        raise ValueError(
            f"{file} may be of the {' or of the '.join(within)} split by its name: name one of them"
        )
    if within:
        return within[0]
    for part in reversed(file.relative_to(folder).parts[:-1]):
        within = splits_within(part)
        if len(within) == 1:
            return within[0]
    return None


def ordered(files: Sequence[Path], split: str) -> list[Path]:
    """The files of one split by the numbers in their names.

    Raises:
        ValueError: they lie in several folders, or a shard is missing or stands there twice.
    """
    folders = sorted({str(file.parent) for file in files})
    if len(folders) > 1:
        raise ValueError(
            f"parquet files of the {split} split lie in several folders ({listed(folders)}): are "
            "these several sets? give the folder of one"
        )
    sharded = []
    for file in files:
        match = SHARD.search(file.stem)
        if match is not None:
            sharded.append((int(match[1]), int(match[2]), file))
    if sharded and len(sharded) < len(files):
        others = [file for file in files if file not in [own for _, _, own in sharded]]
        raise ValueError(
            f"{sharded[0][2]} is one of {sharded[0][1]} files by its name, but {others[0].name} "
            "beside it is none of them: remove those that do not belong to the set"
        )
    if sharded:
        return _complete(sharded, split)
    return _numbered(files)


def _complete(sharded: Sequence[tuple[int, int, Path]], split: str) -> list[Path]:
    """The shards in their order; ValueError for one that is missing, twice there, or of others."""
    totals = sorted({total for _, total, _ in sharded})
    first = sharded[0][2]
    if len(totals) > 1:
        other = next(file for _, total, file in sharded if total != sharded[0][1])
        raise ValueError(
            f"{first} is one of {sharded[0][1]} files by its name, and {other.name} beside it one "
            f"of {totals[-1] if totals[-1] != sharded[0][1] else totals[0]}: they are of two "
            "versions of the set; remove one of them"
        )
    by_number: dict[int, Path] = {}
    for number, _, file in sharded:
        if number in by_number:
            raise ValueError(
                f"{by_number[number]} and {file.name} are both shard {number} of the {split} "
                "split: remove one of them"
            )
        by_number[number] = file
    total = totals[0]
    missing = [str(number) for number in range(total) if number not in by_number]
    if missing:
        raise ValueError(
            f"{first} is one of {total} files by its name, but {first.parent} holds "
            f"{len(sharded)} of them: shard {listed(missing)} is missing"
        )
    return [by_number[number] for number in sorted(by_number)]


def _numbered(files: Sequence[Path]) -> list[Path]:
    """Files with plain numbers in the order of these; ValueError for a gap. Others by name."""
    numbers = {}
    for file in files:
        match = NUMBERED.match(file.stem)
        if match is None:
            return sorted(files)
        numbers[file] = int(match[1])
    by_number = {number: file for file, number in numbers.items()}
    if len(by_number) < len(files) or len(files) == 1:
        return sorted(files)
    least = min(by_number)
    most = max(by_number)
    missing = [str(number) for number in range(least, most) if number not in by_number]
    # Counted from 0 or 1; other numbers may be years.
    if missing and least <= 1:
        raise ValueError(
            f"{by_number[least].parent} holds {by_number[least].name} to {by_number[most].name}, "
            f"but not the one with number {listed(missing)}: a shard is missing"
        )
    return [by_number[number] for number in sorted(by_number)]
