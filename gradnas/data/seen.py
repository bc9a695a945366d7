"""What is noticed of images while they are decoded: their sizes, their bytes, what was ignored.

Legend: N images of a source.
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
ORIENTATION = 0x0112  # the EXIF tag
UPRIGHT = 1
OPAQUE = ("L", "RGB", "CMYK", "YCbCr", "1", "P")  # modes without transparency of their own


class Seen:
    """What was noticed of the images of one source; each has its own place, so threads may note."""

    def __init__(self, size: int) -> None:
        self.is_noted_N = np.zeros(size, dtype=bool)
        self.hashes_N = np.zeros((size, HASH_BYTES), dtype=np.uint8)
        self.pixels_N = np.zeros((size, HASH_BYTES), dtype=np.uint8)  # a hash of the pixels
        self.sizes_N2 = np.zeros((size, 2), dtype=np.int32)  # width, height
        self.is_turned_N = np.zeros(size, dtype=bool)
        self.is_transparent_N = np.zeros(size, dtype=bool)
        self.is_blank_N = np.zeros(size, dtype=bool)
        self.is_animated_N = np.zeros(size, dtype=bool)

    def note(self, index: int, encoded: bytes, image: Image) -> None:
        """Note an image as it was decoded."""
        found = hashlib.blake2b(encoded, digest_size=HASH_BYTES).digest()
        self.hashes_N[index] = np.frombuffer(found, dtype=np.uint8)
        self.sizes_N2[index] = image.size
        exif = image.info.get("exif")
        if exif:
            self.is_turned_N[index] = orientation(exif) != UPRIGHT
        if image.mode not in OPAQUE or "transparency" in image.info:
            self.is_transparent_N[index] = is_transparent(image)
        # Of a photograph in the MPO format the other pictures are previews.
        if image.format not in ("JPEG", "MPO"):
            self.is_animated_N[index] = getattr(image, "is_animated", False)
        self.is_noted_N[index] = True

    def note_pixels(self, index: int, pixels_HWC: np.ndarray) -> None:
        """Note the pixels of an image, as they are or as they are used: uint8 (H, W, 3)."""
        found = hashlib.blake2b(pixels_HWC.data, digest_size=HASH_BYTES).digest()
        self.pixels_N[index] = np.frombuffer(found, dtype=np.uint8)
        # The first row first: nearly all images are told by it alone.
        first_W = pixels_HWC[0]
        is_plain_row = bool((first_W == first_W[0]).all())
        self.is_blank_N[index] = is_plain_row and bool((pixels_HWC == first_W).all())

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
        pairs = self.sizes_N2[self.is_noted_N].tolist()
        return Counter((width, height) for width, height in pairs)


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
