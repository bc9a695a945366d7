"""CIFAR-10 (Krizhevsky, 2009): its name on the hub, its statistics, and how it is recognised."""

from __future__ import annotations

HUB_NAME = "uoft-cs/cifar10"
CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
# Of the 50,000 training images, pixels in [0, 1]: the digits that the DARTS recipes use.
MEAN = (0.49139968, 0.48215827, 0.44653124)
STD = (0.24703233, 0.24348505, 0.26158768)


def is_cifar10(
    in_channels: int, image_size: int, class_names: tuple[str, ...], num_train: int
) -> bool:
    """Whether a set is CIFAR-10 or a part of it.

    That is: 32x32 RGB, its class names in its order, and at most 50,000 images. The count keeps out
    CINIC-10, which has the same names and size but other statistics (90,000 training images).
    """
    has_its_shape = in_channels == 3 and image_size == 32
    return has_its_shape and class_names == CLASS_NAMES and num_train <= 50_000
