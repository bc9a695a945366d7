"""Splits, plans and batches in memory: what an epoch yields, and that nothing but (seed, epoch,
batch) decides it.

Legend: N images of a split, B images of a batch, C channels, H W pixels down and across, 5 columns
of random numbers.
"""

import random
import subprocess
import sys

import numpy as np
import pytest
import torch

from gradnas.data import Augment, MemorySplit, halves, load_images, stratified
from gradnas.data.augment import random_numbers
from gradnas.data.base import Plan
from gradnas.data.memory import pixel_statistics
from gradnas.randomness import generator_for, seed_for

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
FULL = Augment(crop_padding=2, flip=True, cutout=3)


def random_split(
    num: int = 50, size: int = 8, channels: int = 3, num_classes: int = 5
) -> MemorySplit:
    numbers = torch.Generator().manual_seed(1)
    images_NCHW = torch.randint(
        0, 256, (num, channels, size, size), dtype=torch.uint8, generator=numbers
    )
    labels = torch.randint(0, num_classes, (num,), generator=numbers)
    return MemorySplit(images_NCHW, labels, MEAN[:channels], STD[:channels])


def coordinates_split(num: int, size: int) -> MemorySplit:
    """Images whose channels say (row + 1, column + 1, image) of every pixel; black padding is 0 in
    the first two."""
    row_HW, column_HW = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    images_NCHW = torch.stack(
        [
            torch.stack([row_HW + 1, column_HW + 1, torch.full_like(row_HW, n % 256)])
            for n in range(num)
        ]
    )
    return MemorySplit(images_NCHW.to(torch.uint8), torch.arange(num), (0.0,) * 3, (1 / 255,) * 3)


def listed(batches, epoch=0, start=0):
    return list(batches.epoch(epoch, start))


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        torch.equal(x, x2) and torch.equal(y, y2)
        for (x, y), (x2, y2) in zip(first, second, strict=True)
    )


# ---- seeds ---------------------------------------------------------------------------------------


def test_seeds_are_splitmix64_and_tells_all_neighbours_apart():
    # The first output of splitmix64 from state 0, as published.
    assert seed_for(0) == 0xE220A8397B1DCDAF
    hashes = {
        seed_for(seed, epoch, index) & 0xFFFFFFFF
        for seed in range(20)
        for epoch in range(20)
        for index in range(20)
    }
    assert len(hashes) == 8000  # distinct even in the 32 bits that torch's CPU generator keeps
    short = [(), (0,), (0, 0), (1, 0), (0, 1), (-1,)]
    assert len({seed_for(*numbers) for numbers in short}) == 6
    flipped = [(seed_for(7) ^ seed_for(7 ^ (1 << bit))).bit_count() for bit in range(64)]
    assert 26 < sum(flipped) / 64 < 38  # half of the 64 bits on average


def test_no_global_random_state_is_read_or_changed():
    def states():
        return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    split = random_split()
    # Importing scikit-learn may import rich, which draws from Python's global generator as it is
    # imported.
    load_images("digits")
    before = states()
    first = listed(split.batches(16, augment=FULL, shuffle=True, seed=3))
    halves(split, seed=1), stratified(split, 0.5, 1), load_images("digits")
    after = states()
    assert (
        torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]
    )
    torch.manual_seed(99)
    assert same(first, listed(split.batches(16, augment=FULL, shuffle=True, seed=3)))


# ---- plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize(
    ("size", "batch_size"), [(24, 12), (25, 12), (26, 12), (27, 12), (12, 12), (15, 4), (50, 16)]
)
def test_every_image_counts_once_and_no_rank_is_left_empty(size, batch_size, world):
    plans = [Plan(size, batch_size, True, 5, rank, world) for rank in range(world)]
    single = Plan(size, batch_size, True, 5)
    order_N = single.order(3)
    assert sorted(order_N.tolist()) == list(range(size))
    assert all(torch.equal(plan.order(3), order_N) for plan in plans)
    assert len({len(plan) for plan in plans}) == 1
    seen = []
    for index in range(len(plans[0])):
        first, last = plans[0].span(index)
        parts = [order_N[first:last][plan.share(last - first)] for plan in plans]
        sizes = [len(part) for part in parts]
        assert min(sizes) > 0 and max(sizes) - min(sizes) <= 1
        assert torch.equal(torch.cat(parts), order_N[first:last])
        seen += order_N[first:last].tolist()
    rest = size % batch_size
    assert seen == order_N.tolist()
    if rest >= 2 * world or rest == 0:
        assert [plans[0].span(i) for i in range(len(plans[0]))] == [
            single.span(i) for i in range(len(single))
        ]
    else:  # too few for a batch of their own: they join the one before
        assert len(plans[0]) == size // batch_size
        assert plans[0].span(len(plans[0]) - 1)[1] == size


@pytest.mark.parametrize(("size", "world"), [(33, 1), (34, 2), (35, 2), (101, 3)])
def test_no_rank_trains_on_a_single_image_that_is_left_over(size, world):
    """BatchNorm has no statistics of one image on a map of one pixel."""
    plans = [Plan(size, 8, True, 5, rank, world) for rank in range(world)]
    for plan in plans:
        shares = []
        for index in range(len(plan)):
            first, last = plan.span(index)
            piece = plan.share(last - first)
            shares.append(piece.stop - piece.start)
        assert min(shares) >= 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"rank": 2, "world": 2}, r"rank is 0\.\.1 for world=2, not 2"),
        ({"batch_size": 3, "world": 4}, "batch_size=3, world=4"),
        ({"batch_size": 0}, "batch_size=0, world=1"),
        ({"size": 0}, "a split of 0 images is too small for 1 process"),
    ],
)
def test_impossible_plans_are_refused(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        Plan(**{"size": 50, "batch_size": 16, "shuffle": True, "seed": 0, **arguments})


# ---- batches -------------------------------------------------------------------------------------


def test_unaugmented_batches_are_exactly_the_normalised_images_in_order():
    split = random_split()
    batches = split.batches(16, shuffle=False)
    assert [len(y) for _, y in listed(batches)] == [16, 16, 16, 2] and len(batches) == 4
    x_NCHW = torch.cat([x for x, _ in listed(batches)])
    mean, std = torch.tensor(MEAN).double().view(3, 1, 1), torch.tensor(STD).double().view(3, 1, 1)
    torch.testing.assert_close(
        x_NCHW.double(), (split.images_NCHW / 255.0 - mean) / std, atol=1e-6, rtol=1e-6
    )
    assert torch.equal(torch.cat([y for _, y in listed(batches)]), split.labels)
    x_BCHW, y_B = listed(batches)[0]
    assert x_BCHW.dtype == torch.float32 and y_B.dtype == torch.int64
    assert x_BCHW.is_contiguous(memory_format=torch.channels_last) and x_BCHW.stride(1) == 1


def test_an_epoch_is_a_function_of_seed_and_epoch():
    batches = random_split().batches(16, augment=FULL, shuffle=True, seed=7)
    first = listed(batches, 2)
    listed(batches, 5)
    assert same(first, listed(batches, 2))
    assert same(first, listed(random_split().batches(16, augment=FULL, shuffle=True, seed=7), 2))
    assert not same(first, listed(batches, 3))
    assert not same(
        first, listed(random_split().batches(16, augment=FULL, shuffle=True, seed=8), 2)
    )


def test_epochs_differ_in_order_and_in_augmentation():
    shuffled = random_split().batches(50, shuffle=True)
    assert not torch.equal(listed(shuffled, 0)[0][1], listed(shuffled, 1)[0][1])
    ordered = random_split().batches(50, augment=FULL, shuffle=False)
    (x0_BCHW, y0_B), (x1_BCHW, y1_B) = listed(ordered, 0)[0], listed(ordered, 1)[0]
    assert torch.equal(y0_B, y1_B) and not torch.equal(x0_BCHW, x1_BCHW)


@pytest.mark.parametrize("start", [0, 1, 3, 4, 9])
def test_an_epoch_entered_late_is_the_rest_of_the_epoch(start):
    batches = random_split().batches(16, augment=FULL, shuffle=True)
    assert same(listed(batches, 1, start), listed(batches, 1)[start:])


def test_negative_epochs_and_starts_are_refused_at_once():
    batches = random_split().batches(16, shuffle=True)
    with pytest.raises(ValueError, match="epoch and start count from 0: epoch=0, start=-1"):
        batches.epoch(0, -1)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_share_the_batches_of_one_process(world):
    split = random_split(48)
    single = listed(split.batches(16, augment=FULL, shuffle=True, seed=1), 1)
    ranks = [
        listed(split.batches(16, augment=FULL, shuffle=True, seed=1, rank=rank, world=world), 1)
        for rank in range(world)
    ]
    joined = [
        (torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))
        for parts in zip(*ranks, strict=True)
    ]
    assert same(single, joined)


def test_several_epochs_can_be_read_at_once():
    batches = random_split().batches(16, augment=FULL, shuffle=True)
    pairs = list(zip(batches.epoch(0), batches.epoch(1), strict=True))
    assert same([pair[0] for pair in pairs], listed(batches, 0)) and same(
        [p[1] for p in pairs], listed(batches, 1)
    )


# ---- augmentation --------------------------------------------------------------------------------


def test_crop_flip_and_cutout_agree_with_a_loop_over_images():
    split, num = random_split(40), 40
    augment = Augment(crop_padding=3, flip=True, cutout=5)
    x_BCHW, _ = listed(split.batches(num, augment=augment, shuffle=False, seed=4), 6)[0]
    numbers_B5 = random_numbers(num, augment, 8, 8, generator_for(4, 2, 6, 0))
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)
    for n, (down, right, mirrored, row, column) in enumerate(numbers_B5.tolist()):
        canvas_CHW = torch.zeros(3, 14, 14)
        canvas_CHW[:, 3:11, 3:11] = split.images_NCHW[n].float()
        wanted_CHW = canvas_CHW[:, down : down + 8, right : right + 8]
        wanted_CHW = wanted_CHW.flip(2) if mirrored else wanted_CHW
        wanted_CHW = (wanted_CHW / 255 - mean) / std
        wanted_CHW[:, max(row - 2, 0) : row + 3, max(column - 2, 0) : column + 3] = 0
        torch.testing.assert_close(x_BCHW[n], wanted_CHW, atol=1e-5, rtol=1e-5)


def test_crop_offsets_are_uniform_and_half_of_the_images_are_flipped():
    padding, size, num = 2, 8, 20_000
    split = coordinates_split(256, size).subset([n % 256 for n in range(num)])
    x_BCHW, _ = listed(
        split.batches(num, augment=Augment(crop_padding=padding, flip=True), shuffle=False)
    )[0]
    middle = x_BCHW[:, :, size // 2, size // 2 - 1 : size // 2 + 1]  # never in the padding
    mirrored_B = middle[:, 1, 1] < middle[:, 1, 0]
    down_B = (middle[:, 0, 0] - 1 - size // 2).long() + padding
    leftmost_B = (
        torch.where(mirrored_B, middle[:, 1, 1] - size // 2, middle[:, 1, 0] - size // 2).long()
        + padding
    )
    counts = (down_B * 5 + leftmost_B).bincount(minlength=25)
    assert len(counts) == 25
    chi_squared = float(((counts - num / 25) ** 2 / (num / 25)).sum())
    assert chi_squared < 52  # 24 degrees of freedom: exceeded once in a thousand
    assert abs(float(mirrored_B.float().mean()) - 0.5) < 3.3 * 0.5 / num**0.5
    flips_at_left = float(mirrored_B[leftmost_B == 0].float().mean())
    assert abs(flips_at_left - 0.5) < 0.04  # flip does not depend on the crop


def test_cropping_pads_with_black_before_normalisation():
    split = MemorySplit(
        torch.full((400, 3, 8, 8), 255, dtype=torch.uint8),
        torch.zeros(400, dtype=torch.long),
        MEAN,
        STD,
    )
    x_BCHW, _ = listed(split.batches(400, augment=Augment(crop_padding=4), shuffle=False))[0]
    for channel in range(3):
        black, white = -MEAN[channel] / STD[channel], (1 - MEAN[channel]) / STD[channel]
        values = sorted(x_BCHW[:, channel].unique().tolist())
        assert values == pytest.approx([black, white], abs=1e-5)


@pytest.mark.parametrize("side", [1, 4, 5, 16])
def test_cutout_has_the_area_of_a_clipped_square_with_uniform_centre(side):
    size, num = 12, 8000
    split = MemorySplit(
        torch.full((num, 3, size, size), 200, dtype=torch.uint8),
        torch.zeros(num, dtype=torch.long),
        MEAN,
        STD,
    )
    x_BCHW, _ = listed(split.batches(num, augment=Augment(cutout=side), shuffle=False))[0]
    hole_BHW = (x_BCHW == 0).all(1)
    assert torch.equal(hole_BHW, (x_BCHW == 0).any(1))
    rows_B, columns_B = hole_BHW.any(2).sum(1), hole_BHW.any(1).sum(1)
    assert torch.equal(hole_BHW.sum((1, 2)), rows_B * columns_B)  # one rectangle each
    lengths = [min(c - side // 2 + side, size) - max(c - side // 2, 0) for c in range(size)]
    expected = (sum(lengths) / size) ** 2
    assert set(rows_B.tolist()) == set(lengths)
    assert float(hole_BHW.sum((1, 2)).float().mean()) == pytest.approx(expected, rel=0.03)


def test_switching_one_augmentation_on_leaves_the_others_as_they_were():
    split = coordinates_split(64, 8)
    plain = listed(split.batches(64, augment=Augment(crop_padding=2), shuffle=True))[0][0]
    holed = listed(split.batches(64, augment=Augment(crop_padding=2, cutout=3), shuffle=True))[0][0]
    assert torch.equal(torch.where(holed == 0, 0, plain), holed) and not torch.equal(plain, holed)


@pytest.mark.parametrize(
    "name, value", [("resized_crop", (0.1, 1.0)), ("color_jitter", (0.4, 0.4, 0.4, 0.1))]
)
def test_augmentation_of_decoding_is_refused_for_images_in_memory(name, value):
    with pytest.raises(
        ValueError, match=f"{name} works on images as they are decoded.*memory_limit_mib=0"
    ):
        random_split().batches(4, augment=Augment(**{name: value}), shuffle=True)


# ---- splits --------------------------------------------------------------------------------------


def test_subsets_pick_images_and_labels():
    split = random_split()
    part = split.subset([4, 2, 9, 7]).subset(torch.tensor([3, 0]))
    assert torch.equal(part.images_NCHW, split.images_NCHW[[7, 4]]) and torch.equal(
        part.labels, split.labels[[7, 4]]
    )
    x_BCHW, y_B = listed(part.batches(2, shuffle=False))[0]
    whole_BCHW, whole_B = listed(split.batches(50, shuffle=False))[0]
    assert torch.equal(x_BCHW, whole_BCHW[[7, 4]]) and torch.equal(y_B, whole_B[[7, 4]])
    assert part._pixels_NHWC is split._pixels_NHWC  # no copy
    assert len(split.subset([])) == 0
    for bad in ([50], [-1]):
        with pytest.raises(ValueError, match=rf"index {bad[0]} is outside 0\.\.49"):
            split.subset(bad)
    with pytest.raises(ValueError, match="indices are a list of whole numbers"):
        split.subset(torch.ones(50, dtype=torch.bool))


def test_memory_splits_refuse_what_does_not_fit_together():
    images_NCHW = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    labels = torch.zeros(4, dtype=torch.long)
    with pytest.raises(
        ValueError, match=r"images are uint8 of shape \(N, C, H, W\), not torch.float32"
    ):
        MemorySplit(images_NCHW.float(), labels, MEAN, STD)
    with pytest.raises(
        ValueError, match=r"labels are whole numbers of shape \(4,\), not torch.int64 \(3,\)"
    ):
        MemorySplit(images_NCHW, labels[:3], MEAN, STD)
    with pytest.raises(ValueError, match="labels are whole numbers"):
        MemorySplit(images_NCHW, labels.float(), MEAN, STD)
    with pytest.raises(ValueError, match="mean and std are 3 numbers each"):
        MemorySplit(images_NCHW, labels, (0.5,), (0.5,))
    with pytest.raises(ValueError, match="std above 0"):
        MemorySplit(images_NCHW, labels, MEAN, (0.5, 0.0, 0.5))


def test_halves_follow_the_order_of_the_files_or_a_seed():
    split = random_split(51)
    first, second = halves(split)
    assert torch.equal(first.labels, split.labels[:25]) and torch.equal(
        second.labels, split.labels[25:]
    )
    first, second = halves(coordinates_split(50, 4), 0.2, seed=3)
    rows = first.labels.tolist() + second.labels.tolist()
    assert len(first) == 10 and sorted(rows) == list(range(50))
    assert first.labels.tolist() != list(range(10)) and first.labels.tolist() == sorted(
        first.labels.tolist()
    )
    again = halves(coordinates_split(50, 4), 0.2, seed=3)[0]
    other = halves(coordinates_split(50, 4), 0.2, seed=4)[0]
    assert torch.equal(first.labels, again.labels) and not torch.equal(first.labels, other.labels)


def test_halves_refuse_empty_parts_and_images_sorted_by_class():
    with pytest.raises(ValueError, match=r"fraction=0.01 of 50 images leaves one part empty"):
        halves(random_split(), 0.01)
    with pytest.raises(ValueError, match=r"sorted by class.*give a seed"):
        halves(coordinates_split(50, 4))


def test_stratified_parts_have_the_same_share_of_every_class():
    split = random_split(500)
    first, second = stratified(split, 0.3, seed=0)
    counts, total = first.labels.bincount(), split.labels.bincount()
    assert counts.tolist() == [round(0.3 * n) for n in total.tolist()]
    assert torch.equal(counts + second.labels.bincount(), total)
    assert not torch.equal(first.labels, stratified(split, 0.3, seed=1)[0].labels)
    with pytest.raises(ValueError, match="leaves one part empty"):
        stratified(split, 0.001, seed=0)


def test_pixel_statistics_are_those_of_all_pixels():
    images_NCHW = random_split(2100, 4).images_NCHW.clone()
    images_NCHW[:, 2] = 17
    mean, std = pixel_statistics(images_NCHW)
    wide = images_NCHW.double().transpose(0, 1).reshape(3, -1) / 255
    assert mean == pytest.approx(wide.mean(1).tolist(), abs=1e-12)
    assert std[:2] == pytest.approx(wide.std(1, correction=0)[:2].tolist(), abs=1e-12)
    assert std[2] == pytest.approx(1 / 255)  # a constant channel normalises to 0, not to nan


# ---- digits --------------------------------------------------------------------------------------


def test_digits_are_scikit_learns_in_a_fixed_stratified_split():
    data = load_images("digits")
    assert (data.name, data.num_classes, data.in_channels, data.image_size) == ("digits", 10, 1, 8)
    assert data.class_names == tuple("0123456789") and len(data.train) + len(data.test) == 1797
    assert 355 <= len(data.test) <= 363 and data.test.labels.bincount().min() >= 34
    assert data.train.images_NCHW.max() == 255 and set(
        data.train.images_NCHW.unique().tolist()
    ) <= {round(level * 255 / 16) for level in range(17)}
    x_NCHW, _ = listed(data.train.batches(len(data.train), shuffle=False))[0]
    assert float(x_NCHW.mean()) == pytest.approx(0, abs=1e-4) and float(
        x_NCHW.std()
    ) == pytest.approx(1, abs=1e-3)
    again, other = load_images("digits"), load_images("digits", seed=1, test_fraction=0.5)
    assert torch.equal(data.test.images_NCHW, again.test.images_NCHW)
    assert 895 <= len(other.test) <= 902
    # Together the parts are all the digits, each once.
    from sklearn.datasets import load_digits

    levels = np.round(load_digits()["images"] * (255 / 16)).reshape(-1, 64)
    parts = torch.cat([data.train.images_NCHW, data.test.images_NCHW]).reshape(-1, 64).numpy()
    assert sorted(map(tuple, levels.astype(int).tolist())) == sorted(map(tuple, parts.tolist()))


def test_digits_can_be_resized():
    data, plain = load_images("digits", image_size=16), load_images("digits")
    assert data.train.images_NCHW.shape[1:] == (1, 16, 16) and data.image_size == 16
    assert torch.equal(data.train.labels, plain.train.labels)
    from PIL import Image

    for n in range(0, 100, 10):  # Pillow resizes the same way, by other code
        picture = Image.fromarray(plain.train.images_NCHW[n, 0].numpy()).resize(
            (16, 16), Image.Resampling.BILINEAR
        )
        difference_HW = np.asarray(picture).astype(int) - data.train.images_NCHW[n, 0].numpy()
        assert np.abs(difference_HW).max() <= 1


@pytest.mark.slow
def test_words_import_with_torch_and_numpy_alone():
    blocked = (
        "import sys\n"
        "for name in ('PIL', 'pyarrow', 'sklearn', 'datasets', 'pandas'):\n"
        "    sys.modules[name] = None\n"
    )
    program = (
        blocked
        + "import gradnas.data, gradnas.data.base, gradnas.data.augment, gradnas.data.stream"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
