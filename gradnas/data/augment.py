"""What is done to a training image: declared in `Augment`, done on whole batches or on one image.

Legend: B images, C channels, H W pixels down and across, 5 the columns of `random_numbers`.

The order, for every kind of set: resized crop, colour jitter (both on the decoded Pillow image, so
streaming sets only), crop after zero padding, flip, scaling to [0, 1], subtraction of the mean and
division by the standard deviation, cutout. The last five run on a whole batch on its device,
without a loop over images. All random numbers come from the generators that are passed in and live
on the CPU, so every device sees the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.settings.formats import Fit

if TYPE_CHECKING:
    from PIL.Image import Image

CROP_TRIES = 10
CROP_RATIO = (3 / 4, 4 / 3)
# Short side over image size before the centre crop: the convention of ImageNet's evaluation
EVAL_ZOOM = 256 / 224


@dataclass(frozen=True)
class Augment:
    """What is done to a training image; everything is off by default.

    - `crop_padding`: pixels; the image is padded with zeros (black, before normalisation) on all
      sides and a window of the original size is cut out at a uniform offset.
    - `flip`: mirrored left to right with probability 1/2.
    - `cutout`: side in pixels of one square per image that is set to 0 after normalisation; its
      centre is uniform over the image and what falls outside is clipped (DeVries and Taylor, 2017,
      arXiv:1708.04552).
    - `resized_crop`: (smallest, largest) share of the image's area of a crop that is resized to the
      image size; its ratio of width to height is log-uniform in 3/4..4/3. Streaming sets only.
    - `color_jitter`: strengths of brightness, contrast, saturation (factors uniform in max(0, 1 -
      s)..1 + s) and hue (shift uniform in -s..s, in turns of the colour circle, at most 0.5), in
      random order. Streaming sets only.
    """

    crop_padding: int = 0
    flip: bool = False
    cutout: int = 0
    resized_crop: tuple[float, float] | None = None
    color_jitter: tuple[float, float, float, float] | None = None

    def __post_init__(self) -> None:
        for name in ("crop_padding", "cutout"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise ValueError(f"{name} is a whole number of pixels of at least 0, not {value!r}")
        # JSON gives lists; a tuple keeps the configuration hashable.
        if self.resized_crop is not None:
            object.__setattr__(self, "resized_crop", tuple(self.resized_crop))
            if not _is_range_of_shares(self.resized_crop):
                raise ValueError(
                    "resized_crop is (smallest, largest) share of the area, "
                    f"0 < smallest <= largest <= 1, not {self.resized_crop!r}"
                )
        if self.color_jitter is not None:
            object.__setattr__(self, "color_jitter", tuple(self.color_jitter))
            if not _are_strengths(self.color_jitter):
                raise ValueError(
                    "color_jitter is (brightness, contrast, saturation, hue), each at least 0 and "
                    f"hue at most 0.5, not {self.color_jitter!r}"
                )


def _is_range_of_shares(shares: Sequence[float]) -> bool:
    if len(shares) != 2:
        return False
    smallest, largest = shares
    return 0 < smallest <= largest <= 1


def _are_strengths(strengths: Sequence[float]) -> bool:
    if len(strengths) != 4:
        return False
    hue = strengths[3]
    return min(strengths) >= 0 and hue <= 0.5


PLAIN = Augment()


# ---- whole batches, as tensors -------------------------------------------------------------------


def random_numbers(
    num: int, augment: Augment, height: int, width: int, generator: torch.Generator
) -> Tensor:
    """The random numbers of `num` images of height x width pixels: int64 (num, 5) on the CPU.

    Columns: crop offset down and right in 0..2 crop_padding, flip 0 or 1, row and column of the
    cutout's centre. All five are made whether they are used or not, so that switching one
    augmentation on leaves the others as they were.
    """
    num_offsets = 2 * augment.crop_padding + 1
    ranges_5 = torch.tensor(
        [num_offsets, num_offsets, 2, height, width], dtype=torch.float64, device="cpu"
    )
    uniform_B5 = torch.rand(num, 5, generator=generator, device="cpu", dtype=torch.float64)
    # Below 1 before, hence below the range after: rounded down, every number of it is as likely.
    return (uniform_B5 * ranges_5).long()


def finish(
    x_BHWC: Tensor, numbers_B5: Tensor, augment: Augment, mean_C: Tensor, std_C: Tensor
) -> Tensor:
    """uint8 pixels, channels last -> augmented, normalised float32 x_BCHW in channels_last.

    `mean_C`, `std_C` are those of pixels in [0, 1]; `numbers_B5` come from `random_numbers`. All
    tensors on one device.
    """
    _, H, W, _ = x_BHWC.shape
    offset_B2 = numbers_B5[:, :2]
    flip_B = numbers_B5[:, 2]
    centre_B2 = numbers_B5[:, 3:]
    # Both in one gather. Without a flip, False turns the numbers drawn for it into zeros.
    if augment.crop_padding or augment.flip:
        x_BHWC = crop_and_flip(x_BHWC, offset_B2, flip_B * augment.flip, augment.crop_padding)
    # (x / 255 - mean) / std, with the division by 255 done on the C constants instead of all pixels
    x_BHWC = x_BHWC.float().sub_(255 * mean_C).div_(255 * std_C)
    if augment.cutout:
        hidden_BHW = squares(centre_B2, augment.cutout, H, W)
        x_BHWC.masked_fill_(hidden_BHW.unsqueeze(3), 0.0)
    return x_BHWC.permute(0, 3, 1, 2)


def crop_and_flip(x_BHWC: Tensor, offset_B2: Tensor, flip_B: Tensor, padding: int) -> Tensor:
    """The window at `offset_B2` (down, right) of each zero-padded image, mirrored where flip is 1.

    The window has the size of the image.
    """
    B, H, W, C = x_BHWC.shape
    device = x_BHWC.device
    row_BH = torch.arange(H, device=device) + offset_B2[:, :1]
    column_W = torch.arange(W, device=device)
    # Mirrored within the window, then moved with it.
    column_BW = torch.where(flip_B[:, None] == 1, W - 1 - column_W, column_W) + offset_B2[:, 1:]
    if padding:
        padded_BHWC = F.pad(x_BHWC, (0, 0, padding, padding, padding, padding))
    else:
        padded_BHWC = x_BHWC.contiguous()
    _, H_padded, W_padded, _ = padded_BHWC.shape
    # One flat gather of pixels: three times faster on CPU than indexing with three tensors. Pixel
    # (b, row, column) of a contiguous tensor lies at (b H + row) W + column.
    image_B11 = torch.arange(B, device=device)[:, None, None]
    line_BH1 = image_B11 * H_padded + row_BH[:, :, None]
    pixel_BHW = line_BH1 * W_padded + column_BW[:, None, :]
    return padded_BHWC.view(-1, C).index_select(0, pixel_BHW.view(-1)).view(B, H, W, C)


def squares(centre_B2: Tensor, side: int, height: int, width: int) -> Tensor:
    """True inside the square of each image, bool BHW.

    A square has the rows from centre - side // 2 on, `side` of them, clipped at the borders, and
    the columns likewise.
    """
    start_B2 = centre_B2 - side // 2
    row_BH = torch.arange(height, device=centre_B2.device) - start_B2[:, :1]
    column_BW = torch.arange(width, device=centre_B2.device) - start_B2[:, 1:]
    row_inside_BH = (row_BH >= 0) & (row_BH < side)
    column_inside_BW = (column_BW >= 0) & (column_BW < side)
    return row_inside_BH[:, :, None] & column_inside_BW[:, None, :]


# ---- one image, by Pillow ------------------------------------------------------------------------


FITS: tuple[Fit, ...] = get_args(Fit)


def fit(image: Image, size: int, how: Fit = "crop") -> Image:
    """The image as it is evaluated: brought to size x size pixels.

    An image that is already size x size is left as it is, so a set of that size streams as it loads
    into memory.

    Args:
        how: `"crop"` resizes the short side to round(size * 256 / 224) and takes the centre, as is
            usual for ImageNet: borders are lost. `"squeeze"` resizes both sides, whatever their
            ratio. `"pad"` resizes the long side and puts the image on a black square.
    """
    from PIL.Image import Resampling

    if image.size == (size, size):
        return image
    if how == "squeeze":
        return image.resize((size, size), Resampling.BILINEAR)
    if how == "pad":
        return _padded(image, size)
    short = round(size * EVAL_ZOOM)
    scale = short / min(image.size)
    # At least `short`, whatever rounding makes of the short side itself.
    width = max(short, round(image.width * scale))
    height = max(short, round(image.height * scale))
    left = (width - size) // 2  # of the centre
    top = (height - size) // 2
    resized = image.resize((width, height), Resampling.BILINEAR)
    return resized.crop((left, top, left + size, top + size))


def visible_share(width: int, height: int, size: int, how: Fit) -> float:
    """The share of an image's area that is left when it is brought to size: 0..1."""
    if how != "crop" or (width, height) == (size, size):
        return 1.0
    short = round(size * EVAL_ZOOM)
    scale = short / min(width, height)
    area = max(short, round(width * scale)) * max(short, round(height * scale))
    return size * size / area


def squared(image: Image, how: Fit) -> Image:
    """The image before a random part of it is taken: all of it in a square, unless it is cropped.

    So a training with `resized_crop` sees images of the ratio that an evaluation sees.
    """
    is_square = image.width == image.height
    return image if how == "crop" or is_square else fit(image, max(image.size), how)


def _padded(image: Image, size: int) -> Image:
    from PIL import Image as images

    scale = size / max(image.size)
    width = max(1, round(image.width * scale))
    height = max(1, round(image.height * scale))
    square = images.new(image.mode, (size, size))
    resized = image.resize((width, height), images.Resampling.BILINEAR)
    square.paste(resized, ((size - width) // 2, (size - height) // 2))
    return square


def fitting_words(size: int, how: Fit) -> str:
    """What `fit` does to an image of another size, in a sentence for users."""
    if how == "squeeze":
        return f"squeezed to {size}x{size}, whatever their ratio"
    if how == "pad":
        return f"brought to {size}x{size} with black borders where they are not square"
    short = round(size * EVAL_ZOOM)
    return (
        f"brought to {size}x{size} by resizing the short side to {short} and cutting out the "
        "centre, so their borders are lost (--fit squeeze or --fit pad keep all of them)"
    )


def crop_box(
    width: int, height: int, scale: tuple[float, float], generator: torch.Generator
) -> tuple[int, int, int, int]:
    """A random (left, top, right, bottom) in pixels for `resized_crop` (arXiv 1409.4842).

    The area is uniform in `scale` times the image's, width over height log-uniform in 3/4..4/3, and
    the place uniform; the first of ten tries that lies inside the image counts. If none does: the
    largest centred crop whose ratio is in range.
    """
    smallest, largest = scale
    log_low = math.log(CROP_RATIO[0])
    log_high = math.log(CROP_RATIO[1])
    # The numbers of all tries, used or not: what follows from the generator must not depend on how
    # many tries an image took.
    tries = torch.rand(
        CROP_TRIES, 4, generator=generator, device="cpu", dtype=torch.float64
    ).tolist()
    for u_area, u_ratio, u_left, u_top in tries:
        area = width * height * (smallest + (largest - smallest) * u_area)
        ratio = math.exp(log_low + (log_high - log_low) * u_ratio)
        # From area = w h and ratio = w / h.
        w = round(math.sqrt(area * ratio))
        h = round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            # w of `width` pixels have width - w + 1 places.
            left = int(u_left * (width - w + 1))
            top = int(u_top * (height - h + 1))
            return left, top, left + w, top + h
    # At least one of the two sides stays whole.
    w = min(width, round(height * CROP_RATIO[1]))
    h = min(height, round(width / CROP_RATIO[0]))
    left = (width - w) // 2
    top = (height - h) // 2
    return left, top, left + w, top + h


def resized_crop(
    image: Image, size: int, scale: tuple[float, float], generator: torch.Generator
) -> Image:
    """A random part of the image (`crop_box`), resized to size x size (bilinear, antialiased)."""
    from PIL.Image import Resampling

    box = crop_box(image.width, image.height, scale, generator)
    return image.crop(box).resize((size, size), Resampling.BILINEAR)


def color_jitter(
    image: Image, strengths: tuple[float, float, float, float], generator: torch.Generator
) -> Image:
    """Brightness, contrast, saturation and hue changed by random amounts in random order.

    Brightness blends with black, contrast with the image's mean grey, saturation with the grey
    image; hue turns the H channel of Pillow's HSV (256 steps to the circle). A strength of 0 leaves
    its property exactly as it was. See `Augment`.
    """
    from PIL import ImageEnhance

    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    hue = len(enhancers)  # the last of the four strengths
    # All numbers whether they are used or not, as in `random_numbers`.
    order = torch.randperm(4, generator=generator, device="cpu").tolist()
    uniform = torch.rand(4, generator=generator, device="cpu", dtype=torch.float64).tolist()
    for kind in order:
        strength = strengths[kind]
        u = uniform[kind]
        if strength == 0:
            continue
        if kind == hue:
            image = turn_hue(image, strength * (2 * u - 1))
        else:
            low = max(0.0, 1 - strength)
            high = 1 + strength
            image = enhancers[kind](image).enhance(low + (high - low) * u)
    return image


def turn_hue(image: Image, turns: float) -> Image:
    """The RGB image with its hue turned by `turns` of the circle (-0.5..0.5, in steps of 1/256)."""
    from PIL import Image as images

    # The hue is a circle: what passes its end goes on at its beginning.
    steps = round(turns * 256) % 256
    turned = [(level + steps) % 256 for level in range(256)]
    hue, saturation, value = image.convert("HSV").split()
    return images.merge("HSV", (hue.point(turned), saturation, value)).convert("RGB")
