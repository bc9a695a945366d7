"""The files below a folder: links are followed, hidden ones are not, and nothing is lost unsaid."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gradnas import extras
from gradnas.data.names import is_hidden, kinds_of
from gradnas.data.summary import LeftOut

# Endings of files that are taken for images without a look at their contents.
SUFFIXES = (
    ".jpg",
    ".jpeg",
    ".jpe",
    ".jfif",
    ".png",
    ".bmp",
    ".gif",
    ".ppm",
    ".pgm",
    ".pbm",
    ".tif",
    ".tiff",
    ".webp",
)
# Formats that Pillow knows by name and cannot decode by itself, or that hold no picture.
NO_PICTURES = ("EPS", "MPEG", "WMF", "PDF")


@dataclass
class Skipped:
    """Paths that were not read, by reason; each list in the order of the walk."""

    others: list[str] = field(default_factory=list)  # files that are no images
    hidden_files: list[str] = field(default_factory=list)
    hidden_folders: list[str] = field(default_factory=list)
    dangling: list[str] = field(default_factory=list)  # links
    circles: list[str] = field(default_factory=list)  # links to a folder around them
    loose: list[str] = field(default_factory=list)  # images outside of the folders of classes

    def add(self, other: Skipped) -> None:
        """Take over what another walk skipped."""
        for name, own in vars(self).items():
            own += getattr(other, name)

    def left_out(self) -> list[LeftOut]:
        """What is to be said of it."""
        parts = []
        kinds = kinds_of(self.others)
        for paths, one, many in (
            (self.loose, "image outside the classes", "images outside the classes"),
            (self.others, f"file that is no image: {kinds}", f"files that are no images: {kinds}"),
            (self.dangling, "link to nowhere", "links to nowhere"),
            (self.circles, "link in a circle", "links in a circle"),
            (self.hidden_folders, "hidden folder", "hidden folders"),
            (self.hidden_files, "hidden file", "hidden files"),
        ):
            if paths:
                parts.append(LeftOut(len(paths), one, many, paths[0]))
        return parts


@dataclass
class Walk:
    """The image files below a folder, relative to a root, and what was skipped on the way."""

    paths: list[str] = field(default_factory=list)
    skipped: Skipped = field(default_factory=Skipped)


def walk_images(root: Path, inside: str, deep: bool = True) -> Walk:
    """The image files in `root/inside` and, if `deep`, below, sorted, relative to `root`.

    Links to folders are followed, but not back into a folder that one stands in. An image is what
    has the ending of one, or what Pillow opens whatever its ending.

    Raises:
        ValueError: a folder that cannot be read.
    """
    walk = Walk()
    # Of the folders around the set too: a link to one of them would lead back here.
    around = [identity(folder) for folder in (root / inside).resolve().parents]
    _walk(root, inside, around, walk, deep)
    walk.paths.sort()
    return walk


def identity(folder: Path) -> tuple[int, int]:
    """What a folder is known by, however it was reached."""
    state = folder.stat()
    # Where a system gives no inodes, the real path is one's own.
    return state.st_dev, state.st_ino or hash(os.path.realpath(folder))


def _walk(
    root: Path, inside: str, above: Sequence[tuple[int, int]], walk: Walk, deep: bool
) -> None:
    """Add what is in a folder; `above` tells those that it stands in, by device and inode."""
    folder = root / inside
    try:
        here = identity(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise ValueError(f"{folder} cannot be read: {error.strerror or error}") from error
    if here in above:
        walk.skipped.circles.append(inside)
        return
    for entry in entries:
        path = os.path.normpath(os.path.join(inside, entry.name))
        if _is_folder(entry):
            if is_hidden(entry.name):
                walk.skipped.hidden_folders.append(path)
            elif deep:
                _walk(root, path, [*above, here], walk, deep)
        elif is_hidden(entry.name):
            walk.skipped.hidden_files.append(path)
        elif entry.is_symlink() and not os.path.exists(entry.path):
            walk.skipped.dangling.append(path)
        elif not os.path.isfile(entry.path):
            walk.skipped.others.append(path)  # a socket, a pipe
        elif entry.name.lower().endswith(SUFFIXES) or is_picture(Path(entry.path)):
            walk.paths.append(path)
        else:
            walk.skipped.others.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder, or a link to one; a link to itself is none."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_picture(path: Path) -> bool:
    """Whether Pillow opens a file, whatever its name says, and knows how to decode it."""
    extras.need("PIL", extra="images", what="decoding images")
    from PIL import Image as images
    from PIL import ImageFile

    try:
        with images.open(path) as image:
            is_stub = isinstance(image, ImageFile.StubImageFile)
            return not is_stub and image.format not in NO_PICTURES
    except images.UnidentifiedImageError:
        return False
    except images.DecompressionBombError:
        return True  # refused, with its reason, when it is decoded
    except (OSError, SyntaxError, ValueError):
        return False
