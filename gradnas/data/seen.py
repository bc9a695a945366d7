"""What is noticed of images while they are decoded: their sizes, their bytes, what was ignored.

Legend: N images of a source, B images of a block, H W pixels down and across, P pixels of an image.
"""

from __future__ import annotations

import hashlib
import struct
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

HASH_BYTES = 16
NUM_COMPARED = 61  # pixels of an image that tell nearly all images from a blank one
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = 1
OPAQUE = ("L", "RGB", "CMYK", "YCbCr", "1", "P")  # modes without transparency of their own


class Seen:
    """What was noticed of the images of one source; each has its own place, so threads may note."""

    def __init__(self, size: int) -> None:
        self.is_noted_N = np.zeros(size, dtype=bool)
        # Hashes as plain bytes: to store one takes a seventh of the time of a row of numbers.
        self.hashes_N = np.zeros(size, dtype=f"V{HASH_BYTES}")
        self.pixels_N = np.zeros(size, dtype=f"V{HASH_BYTES}")  # a hash of the pixels
        self.sizes_N2 = np.zeros((size, 2), dtype=np.int32)  # width, height
        self.is_turned_N = np.zeros(size, dtype=bool)
        self.is_transparent_N = np.zeros(size, dtype=bool)
        self.is_blank_N = np.zeros(size, dtype=bool)
        self.is_animated_N = np.zeros(size, dtype=bool)

    def note(self, index: int, encoded: bytes, image: Image) -> None:
        """Note an image as it was decoded."""
        self.hashes_N[index] = hashlib.blake2b(encoded, digest_size=HASH_BYTES).digest()
        width, height = image.size
        self.sizes_N2[index, 0] = width
        self.sizes_N2[index, 1] = height
        exif = image.info.get("exif")
        if exif:
            self.is_turned_N[index] = orientation(exif) != UPRIGHT
        if image.mode not in OPAQUE or "transparency" in image.info:
            self.is_transparent_N[index] = is_transparent(image)
        # Of a photograph in the MPO format the other pictures are previews.
        if image.format not in ("JPEG", "MPO"):
            self.is_animated_N[index] = getattr(image, "is_animated", False)
        self.is_noted_N[index] = True

    def note_pixels(self, start: int, pixels_BHWC: np.ndarray) -> None:
        """Note the pixels of images from `start` on, as they are or as they are used.

        Of many at once: between the calls of a decoder, numpy takes several times as long for each.

        Args:
            pixels_BHWC: uint8 (B, H, W, 3), contiguous.
        """
        for index, pixels_HWC in enumerate(pixels_BHWC, start):
            found = hashlib.blake2b(pixels_HWC.data, digest_size=HASH_BYTES)
            self.pixels_N[index] = found.digest()
        pixels_BP3 = pixels_BHWC.reshape(len(pixels_BHWC), -1, 3)
        some_BP3 = pixels_BP3[:, :: max(1, pixels_BP3.shape[1] // NUM_COMPARED)]
        may_be_blank_B = (some_BP3 == pixels_BP3[:, :1]).all(axis=(1, 2))
        for place in np.flatnonzero(may_be_blank_B).tolist():
            pixels_P3 = pixels_BP3[place]
            self.is_blank_N[start + place] = (pixels_P3 == pixels_P3[0]).all()

    @classmethod
    def of_parts(cls, parts: Sequence[tuple[np.ndarray, Seen]]) -> Seen:
        """What was seen of a source, from parts of it: their rows in it, and what was seen."""
        whole = cls(sum(len(rows) for rows, _ in parts))
        for rows, seen in parts:
            for name, values in vars(whole).items():
                values[rows] = getattr(seen, name)
        return whole

    def part(self, rows: np.ndarray) -> Seen:
        """What was seen of some of the images."""
        some = Seen(len(rows))
        for name, values in vars(self).items():
            getattr(some, name)[:] = values[rows]
        return some

    @property
    def all_noted(self) -> bool:
        """Whether every image was."""
        return bool(self.is_noted_N.all())

    def sizes(self) -> Counter[tuple[int, int]]:
        """(width, height) in pixels -> how many images were noted with it."""
        found: Counter[tuple[int, int]] = Counter()
        for size, rows in self.rows_by_size().items():
            found[size] = len(rows)
        return found

    def rows_by_size(self) -> dict[tuple[int, int], np.ndarray]:
        """(width, height) in pixels -> the rows that were noted with it; both in order of rows."""
        rows = np.flatnonzero(self.is_noted_N)
        sizes_N2 = self.sizes_N2[rows].astype(np.int64)
        both_N = (sizes_N2[:, 0] << 32) | sizes_N2[:, 1]
        order = np.argsort(both_N, kind="stable")
        _, starts = np.unique(both_N[order], return_index=True)
        parts = [own for own in np.split(rows[order], starts[1:]) if len(own)]
        found = {}
        for own in sorted(parts, key=lambda own: int(own[0])):
            width, height = self.sizes_N2[own[0]].tolist()
            found[width, height] = own
        return found


def orientation(exif: bytes) -> int:
    """The orientation that EXIF data give (1..8); upright where they give none, or are damaged.

    Read here, because Pillow warns of any damage in them, and images with that are read.
    """
    data = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return UPRIGHT
    try:
        (offset,) = struct.unpack_from(f"{order}I", data, 4)
        (count,) = struct.unpack_from(f"{order}H", data, offset)
        for place in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", data, place)
            if tag == ORIENTATION:
                return value if 1 <= value <= 8 else UPRIGHT
    except struct.error:
        return UPRIGHT
    return UPRIGHT


def is_transparent(image: Image) -> bool:
    """Whether a part of the image is not opaque."""
    if "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("PA", "La", "RGBa"):
        image = image.convert("RGBA")
    if image.mode not in ("LA", "RGBA"):
        return False
    alpha_HW = np.asarray(image.getchannel("A"))
    return bool((alpha_HW < 255).any())
