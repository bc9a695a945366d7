"""How a set of images was found, beside the images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gradnas.data.fingerprint import Fingerprint
from gradnas.data.summary import LeftOut


@dataclass(frozen=True)
class Found:
    """How a set of images was found, beside the images.

    Attributes:
        fingerprint: of all its images, before any were taken out for a test.
        sizes: (width, height) in pixels -> number of images, of those looked at.
        num_looked_at: images whose sizes are known; fewer than all where they are streamed.
        left_out: what lies beside the images and was not read.
        warnings: what looks wrong, each a sentence.
    """

    fingerprint: Fingerprint
    sizes: Mapping[tuple[int, int], int]
    num_looked_at: int
    left_out: Sequence[LeftOut] = ()
    warnings: Sequence[str] = ()


NOTHING_FOUND = Found(Fingerprint({}), {}, 0)
