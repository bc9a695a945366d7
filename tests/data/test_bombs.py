"""Small files that hold gigabytes: refused by name before they are decoded."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gradnas.data import load_images
from gradnas.data.parquet import ParquetSource
from gradnas.data.stream import decode


def folder_with(big, root):
    for split in ("train", "test"):
        for number, name in enumerate(("a", "b")):
            (root / split / name).mkdir(parents=True)
            for k in range(2):
                pixels = np.full((8, 8, 3), 40 * number + k, np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{k}.png")
    Image.new("1", big).save(root / "train" / "b" / "1.png")
    return root


@pytest.mark.slow
def test_an_image_of_too_many_pixels(tmp_path):
    folder = folder_with((12_000, 12_000), tmp_path)
    assert (folder / "train" / "b" / "1.png").stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"train/b/1\.png has .*(--max-pixels|too many pixels)"):
        load_images(folder, image_size=8)


def test_the_limit_can_be_raised_and_lowered(tmp_path):
    folder = folder_with((300, 200), tmp_path)
    assert len(load_images(folder, image_size=8).train) == 4
    with pytest.raises(ValueError, match=r"has 300x200 pixels, more than 50,000: .*--max-pixels"):
        load_images(folder, image_size=8, max_pixels=50_000)
    assert len(load_images(folder, image_size=8, max_pixels=60_000).train) == 4


def parquet(path, values):
    images = [{"bytes": value, "path": None} for value in values]
    table = pa.table({"image": images, "label": [k % 2 for k in range(len(values))]})
    pq.write_table(table, path, compression="zstd")


def test_a_parquet_value_far_larger_than_an_image(tmp_path, monkeypatch):
    from gradnas.data import parquet as module

    monkeypatch.setattr(module, "LARGEST_VALUE", 2**20)
    parquet(tmp_path / "train.parquet", [bytes(3 * 2**20), b"x"])
    assert (tmp_path / "train.parquet").stat().st_size < 20_000
    source = ParquetSource([tmp_path / "train.parquet"])
    with pytest.raises(ValueError, match=r"train\.parquet, row 0, and the 1 rows after it would"):
        decode(source, 1)


def test_a_parquet_value_far_larger_than_an_image_among_others(tmp_path, monkeypatch):
    """What all rows of a group may have together is not for one of them."""
    from gradnas.data import parquet as module

    monkeypatch.setattr(module, "LARGEST_VALUE", 2**20)
    some = [b"x"] * 4
    parquet(tmp_path / "train.parquet", [*some, bytes(3 * 2**20), *some])
    with pytest.raises(ValueError, match=r"row 0, and the 8 rows after it would take 3 MiB"):
        decode(ParquetSource([tmp_path / "train.parquet"]), 1)
    # It does not compress: the row is known when it is read.
    noise = random.Random(0).randbytes(3 * 2**20)
    parquet(tmp_path / "train.parquet", [*some, noise, *some])
    with pytest.raises(ValueError, match=r"train\.parquet, row 4, holds 3 MiB, more than 1 MiB"):
        decode(ParquetSource([tmp_path / "train.parquet"]), 1)


@pytest.mark.slow
def test_parquet_values_that_repeat(tmp_path, monkeypatch):
    """As a dictionary they take no room in the file, and all of it in memory."""
    from gradnas.data import parquet as module

    monkeypatch.setattr(module, "LARGEST_GROUP", 2**25)
    parquet(tmp_path / "train.parquet", [bytes(2**18)] * 512)
    source = ParquetSource([tmp_path / "train.parquet"])
    with pytest.raises(ValueError, match=r"train\.parquet, row \d+, (lies in|and the)"):
        decode(source, 1)
