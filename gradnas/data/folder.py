"""Image files in folders of classes: `train/<class>/*.jpg` with `test/<class>/`, `val/<class>/`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from gradnas.config import Json, did_you_mean
from gradnas.data.files import SUFFIXES, Skipped, Walk, walk_images
from gradnas.data.fingerprint import digest
from gradnas.data.names import (
    SPLIT_WORDS,
    TEST,
    TRAIN,
    VALIDATION,
    check_different,
    composed,
    is_hidden,
    listed,
    split_named,
)
from gradnas.data.stream import BadImage, Source
from gradnas.data.summary import LeftOut

MOST_SIZES = 100_000  # files of a split whose sizes a fingerprint asks for


# ---- splits --------------------------------------------------------------------------------------


def split_folders(folder: Path) -> dict[str, Path]:
    """Split -> its folder in `folder`, whatever the case of its name.

    Raises:
        ValueError: two folders of one split.
    """
    found: dict[str, Path] = {}
    for name in folders_in(folder):
        split = split_named(name)
        if split is None:
            continue
        if split in found:
            raise ValueError(
                f"{folder} holds {found[split].name}/ and {name}/, which are both a {split} split: "
                "leave one of them"
            )
        found[split] = folder / name
    return found


def folders_in(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted, without hidden ones; links are followed."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.is_dir()]
    return sorted(name for name in names if not is_hidden(name))


# ---- classes -------------------------------------------------------------------------------------


class FolderSplit:
    """One split: its class folders and the image files in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.walks: dict[str, Walk] = {}
        for name in folders_in(root):
            self.walks[name] = walk_images(root, name)
        check_different(self.walks, str(root))
        self.skipped = _skipped_beside(root, self.walks)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its classes, sorted."""
        return tuple(self.walks)


def _skipped_beside(root: Path, walks: Mapping[str, Walk]) -> Skipped:
    """What is not read in `root` itself and in its classes."""
    skipped = Skipped()
    beside = walk_images(root, ".", deep=False)
    skipped.add(beside.skipped)
    skipped.loose += beside.paths
    for walk in walks.values():
        skipped.add(walk.skipped)
    return skipped


def find_classes(
    folder: Path,
) -> tuple[tuple[str, ...], FolderSource, dict[str, FolderSource], list[LeftOut]]:
    """Class names, training images, images of the other splits, and what is left out.

    The training split is `train/`; `test/` and `val/` (also `valid`, `validation`, `dev`, in any
    case) count if they have folders of classes: the test split of a competition is a folder of
    unsorted files.

    Raises:
        ValueError: an empty or unknown class, classes one level deeper, two folders of one split.
    """
    places = split_folders(folder)
    train = FolderSplit(places[TRAIN])
    names = train.names
    if not names:
        raise ValueError(
            f"{train.root} has no folders of classes: expected train/<class>/*.jpg (or .png, ...)"
        )
    check_depth(train)
    own = FolderSource(train, names, warnings=warnings_of_depth(train))
    others: dict[str, FolderSource] = {}
    left_out: list[LeftOut] = []
    for split in (TEST, VALIDATION):
        if split not in places:
            continue
        if not folders_in(places[split]):
            number = len(os.listdir(places[split]))
            one = f"{split} split without folders of classes"
            left_out.append(LeftOut(1, one, one, f"{places[split].name}/, {number:,} files"))
            continue
        found = FolderSplit(places[split])
        others[split] = FolderSource(found, names, mapped(found, names, train.root))
    return names, own, others, left_out


def mapped(split: FolderSplit, names: Sequence[str], known_from: object) -> dict[str, str]:
    """The split's own names of the classes `names`, by name.

    Raises:
        ValueError: the split has a class that is not among `names`.
    """
    by_spelling = {composed(name): name for name in names}
    own_names = {}
    for name in split.names:
        if composed(name) not in by_spelling:
            raise ValueError(
                f"{split.root / name} is the folder of a class that {known_from} does not have"
                f"{did_you_mean(name, names)}"
            )
        own_names[by_spelling[composed(name)]] = name
    return own_names


def check_depth(split: FolderSplit) -> None:
    """ValueError where the only folder of a split holds no class but the folders of the classes."""
    if len(split.names) != 1:
        return
    place = split.root / split.names[0]
    while len(folders_in(place)) == 1 and not walk_images(place, ".", deep=False).paths:
        place = place / folders_in(place)[0]
    below = folders_in(place)
    if len(below) < 2 or walk_images(place, ".", deep=False).paths:
        return
    raise ValueError(
        f"{split.root} has the single class {split.names[0]!r}: the classes are one level deeper, "
        f"in {place} ({listed(below)}); move them up into {split.root}, and those of the other "
        "splits likewise"
    )


def warnings_of_depth(split: FolderSplit) -> list[str]:
    """Whether every class has folders in it and no image of its own: are those the classes?"""
    for name in split.names:
        paths = split.walks[name].paths
        inside = {path.split(os.sep)[1] for path in paths if path.count(os.sep) > 1}
        if len(inside) < 2 or any(path.count(os.sep) == 1 for path in paths):
            return []
    name = split.names[0]
    below = folders_in(split.root / name)
    return [
        f"every class in {split.root} has its images in folders below it ({name}/ has "
        f"{listed(below)}): they are taken for parts of the classes {listed(split.names)}"
    ]


class FolderSource(Source):
    """The image files of a split, by class and path.

    Args:
        split: the split.
        class_names: by label.
        own_names: what the split calls them, where it spells them otherwise; a class may lack its
            folder.
        warnings: what looks wrong in its folders.

    Raises:
        ValueError: a class folder without any image.
    """

    def __init__(
        self,
        split: FolderSplit,
        class_names: Sequence[str],
        own_names: Mapping[str, str] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        self.root = split.root
        self.warnings = tuple(warnings)
        self.class_names = tuple(class_names)
        self._skipped = split.skipped
        paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(class_names):
            own = name if own_names is None else own_names.get(name)
            if own is None or own not in split.walks:
                continue
            files = split.walks[own].paths
            if not files:
                raise ValueError(_empty(split, own))
            paths += files
            labels += [label] * len(files)
        # One array of bytes, not a list of strings: worker processes then share it instead of
        # copying every string.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self.labels = torch.tensor(labels, dtype=torch.int64, device="cpu")
        if len(paths) <= MOST_SIZES:
            self._check_bytes()

    def _check_bytes(self) -> None:
        """ValueError for the first file without bytes: now, and not when its turn comes."""
        for index, size in enumerate(self._sizes()):
            if size == 0:
                raise BadImage(
                    f"{self.where(index)} is not an image that can be read: it has no bytes"
                )

    def _sizes(self, step: int = 1) -> Iterable[int]:
        """Bytes of every `step`-th file; -1 for one that is gone."""
        for index in range(0, len(self), step):
            try:
                yield self._path(index).stat().st_size
            except OSError:
                yield -1

    def read(self, index: int) -> bytes:
        try:
            return self._path(index).read_bytes()
        except OSError as error:
            raise BadImage(f"{self.where(index)} cannot be read: {error.strerror}") from error

    def where(self, index: int) -> str:
        return str(self._path(index))

    def place(self, index: int) -> str:
        return str(self._path(index).relative_to(self.root.parent))

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        return tuple(self._skipped.left_out())

    def about(self, split: str) -> dict[str, Json]:
        """Names of the files, and sizes where asking for them does not take long."""
        entries: dict[str, Json] = {f"file names of the {split} images": digest(self._names())}
        step = max(1, len(self) // MOST_SIZES)
        sizes = (str(size).encode() for size in self._sizes(step))
        entries[f"file sizes of the {split} images"] = digest(sizes)
        return entries

    def _names(self) -> Iterable[bytes]:
        for path in self._paths:
            yield os.fsencode(os.fsdecode(bytes(path)).replace(os.sep, "/"))

    def _path(self, index: int) -> Path:
        return self.root / os.fsdecode(bytes(self._paths[index]))


def _empty(split: FolderSplit, name: str) -> str:
    """What to say of a class folder without images."""
    left_out = split.walks[name].skipped.left_out()
    instead = f"; it holds {', '.join(part.text for part in left_out)}" if left_out else ""
    return f"{split.root / name} has no image files ({' '.join(SUFFIXES)}){instead}"


def has_class_folders(root: Path) -> bool:
    """Whether images lie in folders of `root`; the first one that is found tells."""
    names = folders_in(root)
    for name in names:
        for _, _, files in os.walk(root / name):
            if any(file.lower().endswith(SUFFIXES) for file in files):
                return True
    # Behind links, or without the ending of one
    return any(walk_images(root, name).paths for name in names)


def hint_of_folder(folder: Path) -> str:
    """Where the set may be instead of in this folder; empty where nothing tells."""
    for name in folders_in(folder):
        if TRAIN in split_folders(folder / name):
            return f"; {folder / name} holds a training split: is that the set?"
    classes = []
    for name in folders_in(folder):
        if walk_images(folder, name).paths:
            classes.append(name)
    if len(classes) > 1:
        if split_named(folder.resolve().name) is not None:
            return f"; give the folder around it, {folder.resolve().parent}"
        words = SPLIT_WORDS[TRAIN][0]
        return (
            f"; its folders ({listed(classes)}) look like classes: move them into {words}/ within "
            "it, and give test_fraction (--test-fraction 0.2)"
        )
    return ""
