"""Streamed images: the same numbers whatever the workers, the ranks or the start, and the same
pixels as in memory.

Legend: N images of a split, B images of a batch, C channels, H W pixels down and across.
"""

import random
import re

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_images import (
    pixels,
    png,
    write_folder,
    write_folder_set,
    write_parquet,
    write_parquet_set,
)

from gradnas.data import Augment, MemorySplit, StreamSplit, halves, load_images, stratified
from gradnas.data.parquet import ParquetSource

# Since Python 3.12 a fork of a process with threads, which torch always has, draws this warning.
pytestmark = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)

EVERYTHING = Augment(
    flip=True, cutout=5, resized_crop=(0.08, 1.0), color_jitter=(0.4, 0.4, 0.4, 0.2)
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes of 18 + 12 training and 2 + 3 test images of several sizes."""
    root = tmp_path_factory.mktemp("images")
    sizes = np.random.default_rng(3).integers(20, 60, (35, 2))
    pictures = [
        Image.fromarray(pixels(1, 6, 6, seed=n)[0]).resize(
            (int(w), int(h)), Image.Resampling.BICUBIC
        )
        for n, (h, w) in enumerate(sizes)
    ]
    write_folder(root, "train", {"cat": pictures[:18], "dog": pictures[18:30]})
    write_folder(root, "val", {"cat": pictures[30:32], "dog": pictures[32:]})
    return root


@pytest.fixture(scope="module")
def data(folder):
    return load_images(folder, image_size=24, memory_limit_mib=0)


def listed(batches, epoch=0, start=0):
    return list(batches.epoch(epoch, start))


def same(first, second) -> bool:
    return len(first) == len(second) and all(
        torch.equal(x, x2) and torch.equal(y, y2)
        for (x, y), (x2, y2) in zip(first, second, strict=True)
    )


def test_a_stream_has_the_interface_of_a_set_in_memory(data):
    assert isinstance(data.train, StreamSplit) and (
        data.in_channels,
        data.image_size,
        data.num_classes,
    ) == (3, 24, 2)
    assert len(data.train) == 30 and data.train.labels.tolist() == [0] * 18 + [1] * 12
    batches = data.train.batches(8, shuffle=False)
    assert len(batches) == 4 and [len(y) for _, y in listed(batches)] == [8, 8, 8, 6]
    x_BCHW, y_B = listed(batches)[0]
    assert (
        x_BCHW.shape == (8, 3, 24, 24)
        and x_BCHW.dtype == torch.float32
        and y_B.dtype == torch.int64
    )
    assert x_BCHW.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "augment", [Augment(), Augment(crop_padding=3, flip=True, cutout=5), EVERYTHING]
)
def test_workers_and_starts_change_nothing(data, augment):
    wanted = [
        listed(data.train.batches(8, augment=augment, shuffle=True, seed=2), epoch)
        for epoch in (0, 1)
    ]
    assert not same(*wanted)
    batches = data.train.batches(8, augment=augment, shuffle=True, seed=2, workers=2)
    assert all(same(listed(batches, epoch), wanted[epoch]) for epoch in (0, 1, 0))
    assert same(listed(batches, 1, 2), wanted[1][2:]) and listed(batches, 1, 4) == []


def test_an_epoch_left_early_and_two_at_once_do_no_harm(data):
    batches = data.train.batches(4, augment=EVERYTHING, shuffle=True, workers=1)
    wanted = [
        listed(data.train.batches(4, augment=EVERYTHING, shuffle=True), epoch) for epoch in (0, 1)
    ]
    for number, _ in enumerate(batches.epoch(5)):
        if number == 1:
            break
    assert same(listed(batches, 0), wanted[0])
    both = list(zip(batches.epoch(0), batches.epoch(1), strict=True))
    assert same([b[0] for b in both], wanted[0]) and same([b[1] for b in both], wanted[1])


def test_an_image_is_augmented_alike_in_batches_of_any_size(data):
    small = listed(data.train.batches(3, augment=EVERYTHING, shuffle=False))
    large = listed(data.train.batches(30, augment=EVERYTHING, shuffle=False))
    assert torch.equal(torch.cat([x for x, _ in small]), large[0][0])


def test_ranks_share_the_batches_of_one_process(data):
    single = listed(data.train.batches(10, augment=EVERYTHING, shuffle=True), 1)
    ranks = [
        listed(data.train.batches(10, augment=EVERYTHING, shuffle=True, rank=r, world=2), 1)
        for r in (0, 1)
    ]
    assert same(
        single,
        [(torch.cat([a[0], b[0]]), torch.cat([a[1], b[1]])) for a, b in zip(*ranks, strict=True)],
    )


def test_no_global_random_state_is_read_or_changed(data):
    def states():
        return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()

    before = states()
    for workers in (0, 1):
        first = listed(data.train.batches(8, augment=EVERYTHING, shuffle=True, workers=workers))
    after = states()
    assert (
        torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]
    )
    torch.manual_seed(99), np.random.seed(99), random.seed(99)
    assert same(first, listed(data.train.batches(8, augment=EVERYTHING, shuffle=True)))


def test_epochs_and_seeds_augment_differently(data):
    def x_of(seed, epoch, augment):
        return listed(data.train.batches(30, augment=augment, shuffle=False, seed=seed), epoch)[0][
            0
        ]

    for augment in (
        Augment(resized_crop=(0.2, 0.8)),
        Augment(color_jitter=(0.4, 0.4, 0.4, 0.2)),
        Augment(flip=True),
        Augment(crop_padding=2),
        Augment(cutout=4),
    ):
        first, plain = x_of(0, 0, augment), x_of(0, 0, Augment())
        for other in (x_of(0, 1, augment), x_of(1, 0, augment), plain):
            assert int((first != other).flatten(1).any(1).sum()) >= 10


# ---- against memory ------------------------------------------------------------------------------


@pytest.mark.parametrize("augment", [Augment(), Augment(cutout=4)])
def test_resized_images_have_the_same_pixels_in_memory(folder, data, augment):
    memory = load_images(folder, image_size=24)
    assert isinstance(memory.train, MemorySplit)
    shift, scale = (torch.tensor(part).view(3, 1, 1) for part in (memory.mean, memory.std))
    ours, theirs = (torch.tensor(part).view(3, 1, 1) for part in (data.mean, data.std))
    for (x_BCHW, y_B), (x2_BCHW, y2_B) in zip(
        listed(memory.train.batches(8, shuffle=True, seed=3), 2),
        listed(data.train.batches(8, shuffle=True, seed=3), 2),
        strict=True,
    ):
        assert torch.equal(y_B, y2_B)  # the order of images, too, is the same
        torch.testing.assert_close(
            x_BCHW * scale + shift, x2_BCHW * theirs + ours, atol=1e-5, rtol=1e-5
        )


def test_images_of_the_right_size_stream_as_they_are(tmp_path):
    write_parquet_set(tmp_path, num_train=10, names="abc")
    memory, stream = load_images(tmp_path), load_images(tmp_path, image_size=8, memory_limit_mib=0)
    x_NCHW = listed(stream.train.batches(10, shuffle=False))[0][0]
    mean, std = (torch.tensor(part).view(3, 1, 1) for part in (stream.mean, stream.std))
    torch.testing.assert_close(
        x_NCHW * std + mean, memory.train.images_NCHW / 255, atol=1e-6, rtol=1e-6
    )
    assert memory.class_names == stream.class_names == ("a", "b", "c")
    shuffled = listed(stream.train.batches(4, shuffle=True, workers=2))
    assert same(shuffled, listed(stream.train.batches(4, shuffle=True)))


def test_default_size_and_grey_images(tmp_path):
    write_folder_set(tmp_path)
    Image.fromarray(pixels(1, 30, 20)[0][..., 0]).save(tmp_path / "train" / "cat" / "000.png")
    data = load_images(tmp_path, memory_limit_mib=0)
    x_BCHW, _ = next(data.train.batches(2, shuffle=False).epoch(0))
    assert x_BCHW.shape == (2, 3, 224, 224) and data.in_channels == 3


def test_subsets_of_subsets_read_the_right_images(data):
    part = data.train.subset([20, 3, 28]).subset([2, 1])
    whole_NCHW = listed(data.train.batches(30, shuffle=False))[0][0]
    x_BCHW, y_B = listed(part.batches(2, shuffle=False))[0]
    assert torch.equal(x_BCHW, whole_NCHW[[28, 3]]) and y_B.tolist() == [1, 0]
    first, second = stratified(data.train, 0.5, seed=0)
    assert first.labels.tolist() == [0] * 9 + [1] * 6 and len(second) == 15
    first, second = halves(data.train, seed=0)
    assert len(first) == len(second) == 15
    with pytest.raises(ValueError, match=r"index 30 is outside 0\.\.29"):
        data.train.subset([30])


def test_crop_padding_and_cutout_work_on_streamed_images(tmp_path):
    white = Image.new("RGB", (16, 16), (255, 255, 255))
    write_folder(tmp_path, "train", {"a": [white] * 149, "b": [white]})
    write_folder(tmp_path, "test", {"a": [white]})
    split = load_images(tmp_path, image_size=16, memory_limit_mib=0).train
    x_BCHW, _ = listed(
        split.batches(150, augment=Augment(crop_padding=4, cutout=6), shuffle=False)
    )[0]
    hole_BHW = (x_BCHW == 0).all(1)
    black_BHW = x_BCHW[:, 0] < -2
    # Centres uniform over the image: 6 pixels a side, less what the borders cut off.
    lengths = [min(c + 3, 16) - max(c - 3, 0) for c in range(16)]
    assert float(hole_BHW.sum((1, 2)).float().mean()) == pytest.approx(
        (sum(lengths) / 16) ** 2, rel=0.1
    )
    # Offsets uniform in -4..4: on average 20/9 rows and columns of padding come in.
    kept = float((~(black_BHW | hole_BHW)).float().mean() / (~hole_BHW).float().mean())
    assert kept == pytest.approx(((16 - 20 / 9) / 16) ** 2, rel=0.05)


def test_a_stream_refuses_a_negative_number_of_workers(data):
    with pytest.raises(ValueError, match="workers is a number of processes of at least 0, not -1"):
        data.train.batches(4, shuffle=True, workers=-1)


# ---- bad images ----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_is_named_from_inside_a_worker(tmp_path, workers):
    write_folder_set(tmp_path / "files")
    file = tmp_path / "files" / "train" / "dog" / "002.png"
    file.write_bytes(png(pixels(1, 30, 30)[0])[:500])
    write_parquet_set(tmp_path / "rows", names="abc")
    rows = tmp_path / "rows" / "train-00000-of-00001.parquet"
    encoded = [png(image) for image in pixels(9)]
    write_parquet(rows, [*encoded[:7], b"no image", encoded[8]], [0, 1, 2] * 3, names="abc")
    for root, wanted in (
        (tmp_path / "files", f"{file} is corrupt or cut short: "),
        (
            tmp_path / "rows",
            f"{rows}, row 7, is not an image that can be read: no known image format",
        ),
    ):
        split = load_images(root, image_size=8, memory_limit_mib=0).train
        batches = split.batches(2, shuffle=False, workers=workers)
        for _ in range(2):  # the workers outlive it
            with pytest.raises(ValueError, match="^" + re.escape(wanted)) as caught:
                listed(batches)
            assert "\n" not in str(caught.value) and "Traceback" not in str(caught.value)
        # What comes before is still read.
        assert len(list(zip(range(3), batches.epoch(0), strict=False))) == 3


def test_a_reader_keeps_few_row_groups(tmp_path, monkeypatch):
    train_NHWC, _ = write_parquet_set(tmp_path, num_train=10)
    source = ParquetSource([tmp_path / "train-00000-of-00001.parquet"])
    assert [source.read(n) for n in range(10)] == [png(image) for image in train_NHWC]
    assert len(source._read_last._groups) == 4  # of 3 rows each
    monkeypatch.setattr("gradnas.data.parquet.CACHE_MIB", 0)
    source = ParquetSource([tmp_path / "train-00000-of-00001.parquet"])
    assert [source.read(n) for n in (9, 0, 5, 4)] == [png(train_NHWC[n]) for n in (9, 0, 5, 4)]
    assert list(source._read_last._groups) == [1]
