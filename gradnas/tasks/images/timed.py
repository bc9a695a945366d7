"""Images to time the operations of a space with."""

from __future__ import annotations

import torch

from gradnas.memory import check_fits
from gradnas.modules.call import Call
from gradnas.spaces import ImageSpace
from gradnas.tasks.base import ImageSizes
from gradnas.tasks.timed import Timed, Wanted


def timed_images(space: ImageSpace, sizes: ImageSizes, wanted: Wanted) -> Timed:
    """The supernet for images of these sizes, and a batch of noise.

    Raises:
        ValueError: the batch does not fit the memory.
    """
    supernet = space.supernet(in_channels=sizes.channels, num_classes=sizes.classes)
    numbers = wanted.batch_size * sizes.channels * sizes.side**2
    advice = "a smaller --batch-size or --image-size needs less"
    check_fits(4.0 * numbers, wanted.device, "the batch of images", advice)
    shape = (wanted.batch_size, sizes.channels, sizes.side, sizes.side)
    x_BCHW = torch.randn(shape, device=wanted.device)
    if wanted.channels_last:
        x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    settings = {
        "space": type(space).__name__,
        "batch_size": wanted.batch_size,
        "image_size": sizes.side,
        "channels_last": wanted.channels_last,
    }
    return Timed(
        supernet,
        Call(x_BCHW),
        f"{sizes.side}x{sizes.side}",
        space.random_decision,
        wanted.channels_last,
        settings,
    )
