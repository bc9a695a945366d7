"""What is done to one Pillow image, and which augmentations can be declared.

Legend: C channels, H W pixels down and across.
"""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from gradnas.data import Augment
from gradnas.data.augment import color_jitter, crop_box, fit, resized_crop, turn_hue


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, from 0 to 255."""
    across_HW = np.broadcast_to(np.linspace(0, 255, width), (height, width))
    down_HW = np.broadcast_to(np.linspace(0, 255, height)[:, None], (height, width))
    return Image.fromarray(
        np.stack([across_HW, down_HW, across_HW * 0], axis=2).round().astype(np.uint8)
    )


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ({"crop_padding": -1}, "crop_padding is a whole number of pixels of at least 0, not -1"),
        ({"cutout": 1.5}, "cutout is a whole number of pixels of at least 0, not 1.5"),
        ({"resized_crop": (0.0, 1.0)}, "resized_crop is .* not .0.0, 1.0."),
        ({"resized_crop": (0.5, 0.2)}, "0 < smallest <= largest <= 1"),
        ({"resized_crop": (0.5,)}, "smallest, largest"),
        ({"color_jitter": (0.1, 0.1, 0.1)}, "brightness, contrast, saturation, hue"),
        ({"color_jitter": (0.1, -0.1, 0.1, 0.1)}, "each at least 0"),
        ({"color_jitter": (0.1, 0.1, 0.1, 0.6)}, "hue at most 0.5"),
    ],
)
def test_impossible_augmentations_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Augment(**arguments)


def test_an_augmentation_survives_json():
    augment = Augment(4, True, 16, (0.08, 1.0), (0.4, 0.4, 0.4, 0.2))
    again = Augment(**json.loads(json.dumps(dataclasses.asdict(augment))))
    assert (
        again == augment
        and hash(again) == hash(augment)
        and Augment() == Augment(0, False, 0, None, None)
    )


def test_random_crops_have_the_declared_areas_ratios_and_places():
    width, height, scale = 640, 480, (0.08, 1.0)
    numbers = generator()
    boxes = np.array([crop_box(width, height, scale, numbers) for _ in range(4000)])
    left, top, right, bottom = boxes.T
    assert left.min() >= 0 and top.min() >= 0 and right.max() <= width and bottom.max() <= height
    area = (right - left) * (bottom - top) / (width * height)
    ratio = (right - left) / (bottom - top)
    assert area.min() > 0.078 and area.max() <= 1 and ratio.min() > 0.74 and ratio.max() < 1.35
    assert area.min() < 0.1 and area.max() > 0.9
    # Large crops are rarer than small ones only through the tries that do not fit: below 0.5 (where
    # all ratios fit at this shape) the area is uniform.
    small = area[area < 0.5]
    assert np.histogram(small, bins=6, range=(0.08, 0.5))[0] == pytest.approx(
        len(small) / 6, rel=0.15
    )
    assert np.log(ratio[area < 0.5]).mean() == pytest.approx(0, abs=0.02)
    # Uniform.
    assert np.log(ratio[area < 0.5]).std() == pytest.approx(
        math.log(16 / 9) / math.sqrt(12), rel=0.05
    )
    free = (left / (width - (right - left)))[area < 0.5]
    assert free.mean() == pytest.approx(0.5, abs=0.03) and free.std() == pytest.approx(
        1 / math.sqrt(12), rel=0.05
    )


@pytest.mark.parametrize(
    "size, box",
    [((300, 20), (136, 0, 163, 20)), ((20, 300), (0, 136, 20, 163)), ((40, 40), (0, 0, 40, 40))],
)
def test_shapes_that_no_try_fits_give_a_centred_crop(size, box):
    scale = (1.0, 1.0)  # the whole area with another ratio never fits
    numbers = generator()
    assert crop_box(*size, scale, numbers) == box


def test_a_resized_crop_shows_the_part_that_its_box_says():
    image = gradient(200, 100)
    for seed in range(20):
        left, top, right, bottom = crop_box(200, 100, (0.1, 0.6), generator(seed))
        out_HWC = np.asarray(resized_crop(image, 32, (0.1, 0.6), generator(seed))).astype(float)
        assert out_HWC.shape == (32, 32, 3)
        middle = out_HWC[15:17, 15:17].mean((0, 1))
        assert middle[0] == pytest.approx(((left + right - 1) / 2) * 255 / 199, abs=2)
        assert middle[1] == pytest.approx(((top + bottom - 1) / 2) * 255 / 99, abs=3)
        assert (np.diff(out_HWC[16, :, 0]) >= 0).all()


@pytest.mark.parametrize("width, height", [(300, 200), (200, 300), (50, 40), (224, 300), (28, 28)])
def test_evaluation_takes_the_centre_of_the_resized_image(width, height):
    out = fit(gradient(width, height), 28)
    assert out.size == (28, 28)
    out_HWC = np.asarray(out).astype(float)
    assert out_HWC[13:15, 13:15, :2].mean() == pytest.approx(127.5, abs=5)
    if (width, height) != (28, 28):  # 28 of 32 pixels of the short side are shown
        short = 1 if height < width else 0
        shown = out_HWC[..., short].max() - out_HWC[..., short].min()
        assert shown == pytest.approx(255 * 27 / 32, rel=0.06)


def test_an_image_of_the_right_size_is_left_alone():
    image = gradient(28, 28)
    assert fit(image, 28) is image
    assert fit(gradient(500, 375), 224).size == (224, 224)


@pytest.mark.parametrize(
    "turns, color",
    [(1 / 3, (0, 255, 0)), (-1 / 3, (0, 0, 255)), (0.5, (0, 255, 255)), (0.0, (255, 0, 0))],
)
def test_turning_the_hue_of_red(turns, color):
    out = turn_hue(Image.new("RGB", (2, 2), (255, 0, 0)), turns).getpixel((0, 0))
    # One step of Pillow's hue, 1/256 of a turn, is 6 levels.
    assert out == pytest.approx(color, abs=6)


def test_jitter_of_strength_zero_changes_nothing():
    image = gradient(20, 10)
    assert color_jitter(image, (0, 0, 0, 0), generator()) is image


def test_brightness_factors_are_uniform():
    image = Image.new("RGB", (1, 1), (100, 100, 100))
    numbers = generator()
    factors = [
        color_jitter(image, (0.4, 0, 0, 0), numbers).getpixel((0, 0))[0] / 100 for _ in range(3000)
    ]
    assert min(factors) >= 0.59 and max(factors) <= 1.41
    assert np.mean(factors) == pytest.approx(1, abs=0.02)
    assert np.std(factors) == pytest.approx(0.8 / math.sqrt(12), rel=0.05)
    strong = [color_jitter(image, (2.0, 0, 0, 0), numbers).getpixel((0, 0))[0] for _ in range(300)]
    # Factors in 0..3, never below 0.
    assert max(strong) == 255 and 0 < np.mean(np.array(strong) < 30) < 0.2


def test_contrast_moves_away_from_the_mean_and_saturation_from_grey():
    # 100..151: nothing is clipped.
    image = gradient(32, 32).point([100 + level // 5 for level in range(256)] * 3)
    mean = np.asarray(image.convert("L")).mean()
    for seed in range(10):
        wide = np.asarray(color_jitter(image, (0, 0.5, 0, 0), generator(seed))).astype(float)
        grey = np.asarray(
            color_jitter(image.convert("L").convert("RGB"), (0, 0, 0.9, 0), generator(seed))
        )
        assert np.array_equal(grey, np.asarray(image.convert("L").convert("RGB")))
        factor = wide[..., 0].std() / np.asarray(image)[..., 0].std()
        clear = np.asarray(image)[16, 16].astype(float)
        assert 0.45 < factor < 1.55
        assert wide[16, 16] - mean == pytest.approx((clear - mean) * factor, abs=2)
    flat = Image.new("RGB", (4, 4), (90, 90, 90))
    assert color_jitter(flat, (0, 0.9, 0, 0), generator()).getpixel((0, 0)) == (90, 90, 90)


def test_the_four_properties_are_changed_in_random_order():
    image = gradient(16, 16)
    orders = set()

    class Recorder:
        def __init__(self, name, enhancer):
            self.name, self.enhancer = name, enhancer

        def __call__(self, picture):
            seen.append(self.name)
            return self.enhancer(picture)

    from PIL import ImageEnhance

    with pytest.MonkeyPatch.context() as patch:
        for name in ("Brightness", "Contrast", "Color"):
            patch.setattr(ImageEnhance, name, Recorder(name, getattr(ImageEnhance, name)))
        numbers = generator()
        for _ in range(100):
            seen: list[str] = []
            color_jitter(image, (0.4, 0.4, 0.4, 0.2), numbers)
            orders.add(tuple(seen))
    assert len(orders) == 6 and all(len(order) == 3 for order in orders)
