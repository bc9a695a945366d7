"""A sheet of images as they reach the network, by class.

Legend: B images, C channels, H W pixels down and across.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradnas.data import ImageData, Split
from gradnas.pictures import samples
from gradnas.pictures.samples import SampleRow

MOST_CLASSES = 12
TRAINING_SAMPLES = 6
TEST_SAMPLES = 3


def sheet_of(data: ImageData, path: Path) -> Path:
    """Write the sheet: of each class, or of some of very many, images of training and test.

    They have been brought to size and normalised, as a network sees them without augmentation, and
    the normalisation is undone to show them.
    """
    rows = []
    splits = {"training": (data.train, TRAINING_SAMPLES)}
    if data.validation is not None:
        splits["validation"] = (data.validation, TEST_SAMPLES)
    splits["test"] = (data.test, TEST_SAMPLES)
    for label in _labels_shown(data.num_classes):
        groups = [_samples(split, label, number) for split, number in splits.values()]
        rows.append(SampleRow(data.class_names[label], groups))
    size = f"{data.image_size}x{data.image_size}"
    shown = ""
    if len(rows) < data.num_classes:
        shown = f", {len(rows)} of {data.num_classes:,} classes"
    title = f"{data.name}: as the network sees it, {size} pixels{shown}"
    return samples.picture(rows, list(splits), path, title=title)


def _labels_shown(num_classes: int) -> list[int]:
    """All classes, or some of many: evenly apart, the first and the last among them."""
    if num_classes <= MOST_CLASSES:
        return list(range(num_classes))
    places = np.linspace(0, num_classes - 1, MOST_CLASSES)
    return [round(place) for place in places.tolist()]


def _samples(split: Split, label: int, number: int) -> list[np.ndarray]:
    """Images of a class as uint8 (H, W, 3), evenly apart in the order of the split."""
    rows_N = (split.labels == label).nonzero().squeeze(1)
    if not len(rows_N):
        return []
    places = torch.linspace(0, len(rows_N) - 1, min(number, len(rows_N)), device="cpu")
    chosen = places.round().long()
    part = split.subset(rows_N[chosen])
    ((x_BCHW, _),) = part.batches(len(part), shuffle=False).epoch(0)
    pixels_BHWC = _pixels(x_BCHW, part).numpy()
    return list(pixels_BHWC)


def _pixels(x_BCHW: Tensor, split: Split) -> Tensor:
    """Normalised images as uint8 (B, H, W, 3)."""
    mean_C11 = torch.tensor(split.mean, device="cpu")[:, None, None]
    std_C11 = torch.tensor(split.std, device="cpu")[:, None, None]
    levels_BCHW = ((x_BCHW * std_C11 + mean_C11) * 255).round().clamp(0, 255)
    return levels_BCHW.to(torch.uint8).expand(-1, 3, -1, -1).permute(0, 2, 3, 1)
