"""The digits that ship with scikit-learn: 1,797 grey images of 8x8 pixels, no download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from gradnas import extras
from gradnas.data.base import ImageData, stratified
from gradnas.data.fingerprint import Fingerprint, digest_of
from gradnas.data.found import Found
from gradnas.data.memory import MemorySplit, pixel_statistics
from gradnas.memory import check_fits

TEST_FRACTION = 0.2


def load_digits(
    image_size: int | None = None, test_fraction: float = TEST_FRACTION, seed: int = 0
) -> ImageData:
    """The handwritten digits of Alpaydin and Kaynak (1998), split by `seed`.

    `test_fraction` of each class is the test split. Grey levels 0..16 become 0..255. `image_size`
    other than 8 resizes the whole picture (bilinear, antialiased).
    """
    levels_NF, target_N = _levels_and_targets()
    levels_NHW = levels_NF.reshape(-1, 8, 8)
    pixels_NHW = np.round(levels_NHW * (255 / 16)).astype(np.uint8)
    images_NCHW = torch.from_numpy(pixels_NHW).unsqueeze(1)
    fingerprint = Fingerprint(
        {"images": len(levels_NF), "contents of the images": digest_of(images_NCHW)}
    )
    size = image_size or images_NCHW.shape[-1]
    if size != images_NCHW.shape[-1]:
        # As numbers, and as bytes
        needed = len(images_NCHW) * size * size * 5.0
        advice = "a smaller --image-size needs less"
        check_fits(needed, torch.device("cpu"), f"digits at {size}x{size} pixels", advice)
        resized_NCHW = F.interpolate(
            images_NCHW.float(), (size, size), mode="bilinear", antialias=True
        )
        images_NCHW = resized_NCHW.round().clamp(0, 255).to(torch.uint8)
    labels = torch.from_numpy(target_N.astype(np.int64))

    # Split before the statistics, which are those of the training images alone.
    whole = MemorySplit(images_NCHW, labels, mean=(0.0,), std=(1.0,))
    test, train = stratified(whole, test_fraction, seed)
    assert isinstance(train, MemorySplit)
    assert isinstance(test, MemorySplit)
    mean, std = pixel_statistics(train.images_NCHW)
    return ImageData(
        name="digits",
        num_classes=10,
        in_channels=1,
        image_size=size,
        class_names=tuple(str(digit) for digit in range(10)),
        mean=mean,
        std=std,
        train=MemorySplit(train.images_NCHW, train.labels, mean, std),
        test=MemorySplit(test.images_NCHW, test.labels, mean, std),
        found=Found(fingerprint, {(8, 8): len(labels)}, len(labels)),
    )


def _levels_and_targets() -> tuple[np.ndarray, np.ndarray]:
    """Grey levels 0..16 of (N, 64) pixels, and the digits (N,)."""
    extras.need("sklearn", extra="images", what="the set 'digits'")
    # The file alone: importing the package takes longer than the first steps of a search.
    package = find_spec("sklearn")
    assert package is not None
    for folder in package.submodule_search_locations or ():
        file = Path(folder) / "datasets" / "data" / "digits.csv.gz"
        if file.is_file():
            rows = np.loadtxt(file, delimiter=",")
            return rows[:, :-1], rows[:, -1]
    from sklearn.datasets import load_digits as from_scikit_learn

    levels_NF, target_N = from_scikit_learn(return_X_y=True)
    return np.asarray(levels_NF), np.asarray(target_N)
