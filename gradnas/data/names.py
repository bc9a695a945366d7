"""Names of splits and of classes, as people write them."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

TRAIN = "train"
VALIDATION = "validation"
TEST = "test"
# How a split may be called, in any case of letters.
SPLIT_WORDS = {
    TRAIN: ("train", "training"),
    VALIDATION: ("val", "valid", "validation", "dev"),
    TEST: ("test", "testing"),
}
# Folders that systems and programs leave behind; those that begin with a dot are hidden anyway.
SYSTEM_FOLDERS = (
    "__MACOSX",
    "__pycache__",
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
)
SYSTEM_FILES = ("Thumbs.db", "ehthumbs.db", "desktop.ini", "Icon\r")
MOST_LISTED = 6


def split_named(name: str) -> str | None:
    """The split that a folder of this name holds; None for a folder of another name."""
    for split, words in SPLIT_WORDS.items():
        if name.lower() in words:
            return split
    return None


def splits_within(name: str) -> list[str]:
    """The splits whose words stand in the name of a file: `cifar10-train_0` has `train`."""
    words = re.findall(r"[a-z]+", name.lower())
    return [split for split, own in SPLIT_WORDS.items() if any(word in own for word in words)]


def is_hidden(name: str) -> bool:
    """Whether nobody put this file or folder here to be read."""
    return name.startswith(".") or name in SYSTEM_FOLDERS or name in SYSTEM_FILES


def composed(name: str) -> str:
    """A name in one spelling: file systems differ in how they write letters with accents."""
    return unicodedata.normalize("NFC", name)


def check_different(names: Iterable[str], where: str) -> None:
    """ValueError where two classes have one name, but for spaces around it or accents."""
    by_plain: dict[str, str] = {}
    for name in names:
        plain = composed(name).strip()
        if plain in by_plain:
            raise ValueError(
                f"{where} has the classes {by_plain[plain]!r} and {name!r}, which are one name but "
                "for spaces, or for how accents are written: make them one class, or name them "
                "apart"
            )
        by_plain[plain] = name


def listed(names: Sequence[str]) -> str:
    """Names in a sentence: all, or the first ones of many."""
    if len(names) <= MOST_LISTED:
        return ", ".join(names)
    return f"{', '.join(names[: MOST_LISTED - 1])}, ... ({len(names)} in all)"


def kinds_of(names: Iterable[str]) -> str:
    """The endings of file names, most frequent first: `.txt, .csv`."""
    endings: Counter[str] = Counter()
    for name in names:
        _, dot, ending = name.rpartition(".")
        endings[f".{ending.lower()}" if dot else "no ending"] += 1
    return listed([ending for ending, _ in endings.most_common()])
