"""Image files in folders of classes: `train/<class>/*.jpg` with `test/<class>/` or `val/...`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gradnas.data.stream import BadImage, Source

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
TEST_FOLDERS = ("test", "val", "validation")


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in `folder`, sorted, without hidden ones."""
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                names.append(entry.name)
    return sorted(names)


def find_classes(folder: Path) -> tuple[tuple[str, ...], FolderSource, FolderSource | None]:
    """Class names, training and test images of a folder with `train/`.

    The test images are those of the first of test/, val/ and validation/ that has folders of
    classes: a competition's hidden test split is a folder of unsorted files, and val/ is then what
    one tests on. ValueError for an empty or unknown class.
    """
    train = folder / "train"
    class_names = tuple(class_folders(train))
    if not class_names:
        raise ValueError(
            f"{train} has no folders of classes: expected train/<class>/*.jpg (or .png, ...)"
        )
    train_source = FolderSource(train, class_names)
    for name in TEST_FOLDERS:
        test = folder / name
        test_names = class_folders(test) if test.is_dir() else []
        if not test_names:
            continue
        for test_name in test_names:
            if test_name not in class_names:
                raise ValueError(
                    f"{test / test_name} is the folder of a class that {train} does not have"
                )
        return class_names, train_source, FolderSource(test, class_names)
    return class_names, train_source, None


class FolderSource(Source):
    """The image files in `root/<class>` and below, by class and path.

    ValueError for a class folder without any; a class may lack its folder (in a test split).
    """

    def __init__(self, root: Path, class_names: Sequence[str]) -> None:
        self._root = root
        paths: list[str] = []
        labels: list[int] = []
        for label, name in enumerate(class_names):
            files = sorted(image_files(root, name))
            if not files and (root / name).is_dir():
                raise ValueError(f"{root / name} has no image files ({' '.join(SUFFIXES)})")
            paths += files
            labels += [label] * len(files)
        # One array of bytes, not a list of strings: worker processes then share it instead of
        # copying every string.
        self._paths = np.array([os.fsencode(path) for path in paths])
        self.labels = torch.tensor(labels, dtype=torch.int64, device="cpu")

    def read(self, index: int) -> bytes:
        try:
            return self._path(index).read_bytes()
        except OSError as error:
            raise BadImage(f"{self.where(index)} cannot be read: {error.strerror}") from error

    def where(self, index: int) -> str:
        return str(self._path(index))

    def _path(self, index: int) -> Path:
        return self._root / os.fsdecode(bytes(self._paths[index]))


def image_files(root: Path, name: str) -> list[str]:
    """Paths of the image files in `root/name` and below, relative to `root`."""
    paths = []
    for folder, _, files in os.walk(root / name):
        inside = os.path.relpath(folder, root)
        for file in files:
            is_hidden = file.startswith(".")
            if file.lower().endswith(SUFFIXES) and not is_hidden:
                paths.append(os.path.join(inside, file))
    return paths
