"""Image sets from folders, parquet files and the hub: layouts, class names, memory or stream.

Legend: N images of a split, C channels, H W pixels down and across.
"""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cases import SHARED_DATA
from PIL import Image

from gradnas.data import MemorySplit, StreamSplit, cifar10, image_set, load_images

SHARED = SHARED_DATA / "cifar10"
needs_cifar10 = pytest.mark.skipif(
    not SHARED.is_dir(),
    reason="real CIFAR-10 is not in ../shared/data/cifar10 beside this checkout",
)


def pixels(num: int, height: int = 8, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, height, width, 3), dtype=np.uint8)


def png(pixels_HWC: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(
    file, encoded, labels, *, names=None, paths=None, columns=("img", "label"), kind=None
):
    """A parquet file as the hub has them: images {bytes, path}, labels, class names in the schema's
    metadata."""
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"bytes": data, "path": path}
        for data, path in zip(encoded, paths or [None] * len(encoded), strict=True)
    ]
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({columns[0]: pa.array(rows, image_type), columns[1]: pa.array(labels, kind)})
    if names is not None:
        features = {
            columns[0]: {"_type": "Image"},
            columns[1]: {"names": list(names), "_type": "ClassLabel"},
        }
        table = table.replace_schema_metadata(
            {"huggingface": json.dumps({"info": {"features": features}})}
        )
    pq.write_table(table, file, row_group_size=3)


def write_parquet_set(folder, num_train=10, num_test=5, *, test="test", folders=None, **options):
    """Training and test files with labels 0, 1, 2, 0, ...; `folders` are those of the images'
    paths; returns pixels."""
    sets = {"train": pixels(num_train), test: pixels(num_test, seed=1)}
    for split, images_NHWC in sets.items():
        labels = [n % 3 for n in range(len(images_NHWC))]
        paths = (
            [f"{split}/{folders[label]}/{n}.png" for n, label in enumerate(labels)]
            if folders
            else None
        )
        file = folder / f"{split}-00000-of-00001.parquet"
        write_parquet(file, [png(image) for image in images_NHWC], labels, paths=paths, **options)
    return sets["train"], sets[test]


def write_folder(root, split, pictures):
    """`root/split/<class>/<number>.png` for every class of `pictures`, from arrays or Pillow
    images."""
    for name, some in pictures.items():
        (root / split / name).mkdir(parents=True)
        for number, picture in enumerate(some):
            image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
            image.save(root / split / name / f"{number:03}.png")


def write_folder_set(root, height=8, width=8, test="test"):
    """Two classes, cat and dog, of 6 and 4 training and 2 and 3 test images; returns training and
    test pixels."""
    train_NHWC, test_NHWC = pixels(10, height, width), pixels(5, height, width, seed=1)
    write_folder(root, "train", {"cat": train_NHWC[:6], "dog": train_NHWC[6:]})
    write_folder(root, test, {"cat": test_NHWC[:2], "dog": test_NHWC[2:]})
    return train_NHWC, test_NHWC


def holds(split, images_NHWC) -> bool:
    assert isinstance(split, MemorySplit)
    return np.array_equal(split.images_NCHW.permute(0, 2, 3, 1).numpy(), images_NHWC)


# ---- parquet -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "columns", [("img", "label"), ("image", "labels"), ("image", "fine_label")]
)
@pytest.mark.parametrize("place, test", [(".", "test"), ("data", "validation")])
def test_parquet_sets_of_the_hub_layout(tmp_path, place, test, columns):
    train_NHWC, test_NHWC = write_parquet_set(
        tmp_path / place, test=test, columns=columns, names=["c", "b", "a"]
    )
    data = load_images(str(tmp_path))
    assert (data.name, data.num_classes, data.in_channels, data.image_size) == (
        tmp_path.name,
        3,
        3,
        8,
    )
    assert data.class_names == ("c", "b", "a")
    assert holds(data.train, train_NHWC) and holds(data.test, test_NHWC)
    assert data.train.labels.tolist() == [0, 1, 2] * 3 + [0] and data.test.labels.tolist() == [
        0,
        1,
        2,
        0,
        1,
    ]
    wide = train_NHWC.reshape(-1, 3) / 255
    assert data.mean == pytest.approx(wide.mean(0)) and data.std == pytest.approx(wide.std(0))
    assert data.train.mean == data.mean and data.test.std == data.std


def test_class_names_come_from_the_paths_or_are_the_numbers(tmp_path):
    write_parquet_set(tmp_path / "paths", folders=["frog", "ant", "bee"])
    write_parquet_set(tmp_path / "numbers")
    write_parquet_set(tmp_path / "useless", folders=["all", "all", "all"])
    assert load_images(str(tmp_path / "paths")).class_names == ("frog", "ant", "bee")
    assert load_images(str(tmp_path / "numbers")).class_names == ("0", "1", "2")
    assert load_images(str(tmp_path / "useless")).class_names == ("0", "1", "2")


def test_names_in_metadata_allow_classes_without_images(tmp_path):
    write_parquet_set(tmp_path, names=[f"class {n}" for n in range(100)])
    assert load_images(str(tmp_path)).num_classes == 100


def test_parquet_files_of_a_split_follow_one_another(tmp_path):
    train_NHWC, _ = write_parquet_set(tmp_path, num_train=7)
    (tmp_path / "train-00000-of-00001.parquet").unlink()
    for number, rows in enumerate((slice(0, 4), slice(4, 5), slice(5, 7))):
        file = tmp_path / f"train-{number:05}-of-00003.parquet"
        write_parquet(
            file, [png(image) for image in train_NHWC[rows]], [n % 3 for n in range(7)][rows]
        )
    data = load_images(str(tmp_path))
    assert holds(data.train, train_NHWC) and data.train.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]


def test_validation_stands_in_for_a_test_split_whose_labels_are_hidden(tmp_path):
    write_parquet_set(tmp_path, names="abc")
    write_parquet(
        tmp_path / "test-00000-of-00001.parquet", [png(image) for image in pixels(2)], [-1, -1]
    )
    shown_NHWC = pixels(3, seed=7)
    write_parquet(tmp_path / "validation.parquet", [png(image) for image in shown_NHWC], [2, 1, 0])
    assert holds(load_images(str(tmp_path)).test, shown_NHWC)


def test_a_test_split_can_be_taken_from_the_training_images(tmp_path):
    train_NHWC, _ = write_parquet_set(tmp_path, num_train=30, names="abc")
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    data = load_images(str(tmp_path), test_fraction=0.2)
    assert data.train.labels.bincount().tolist() == [
        8,
        8,
        8,
    ] and data.test.labels.bincount().tolist() == [2, 2, 2]
    parts = np.concatenate(
        [split.images_NCHW.permute(0, 2, 3, 1).numpy() for split in (data.train, data.test)]
    )
    assert sorted(part.tobytes() for part in parts) == sorted(
        image.tobytes() for image in train_NHWC
    )
    streamed = load_images(str(tmp_path), test_fraction=0.2, memory_limit_mib=0, image_size=8)
    assert torch.equal(streamed.test.labels, data.test.labels)
    wide = data.train.images_NCHW.double().transpose(0, 1).reshape(3, -1) / 255
    # Of the remaining training images alone.
    assert data.mean == pytest.approx(wide.mean(1).tolist())


def test_parquet_images_of_several_sizes_need_an_image_size(tmp_path):
    write_parquet_set(tmp_path, names="abc")
    encoded = [png(pixels(1, *size)[0]) for size in ((8, 8), (8, 8), (20, 10))]
    write_parquet(tmp_path / "train-00000-of-00001.parquet", encoded, [0, 1, 2], names="abc")
    data = load_images(str(tmp_path), image_size=8)
    assert isinstance(data.train, MemorySplit) and data.train.images_NCHW.shape == (3, 3, 8, 8)
    # The right size already.
    assert holds(data.train.subset([0, 1]), np.concatenate([pixels(1), pixels(1)]))
    with pytest.raises(
        ValueError,
        match=r"train-.*, row 2, is 10x20 pixels.* 8x8: give image_size to resize them all",
    ):
        load_images(str(tmp_path))


# ---- folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("test", ["test", "val", "validation"])
def test_folders_of_classes(tmp_path, test):
    train_NHWC, test_NHWC = write_folder_set(tmp_path, test=test)
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "cat" / "._000.png").write_text("not an image either")
    data = load_images(tmp_path)
    assert data.class_names == ("cat", "dog") and (data.in_channels, data.image_size) == (3, 8)
    assert holds(data.train, train_NHWC) and holds(data.test, test_NHWC)
    assert data.train.labels.tolist() == [0] * 6 + [1] * 4 and data.test.labels.tolist() == [
        0,
        0,
        1,
        1,
        1,
    ]


def test_images_in_folders_below_a_class_belong_to_it(tmp_path):
    write_folder_set(tmp_path)
    extra_NHWC = pixels(1, seed=9)
    write_folder(tmp_path, "train/dog", {"puppies": extra_NHWC})
    data = load_images(tmp_path)
    assert data.class_names == ("cat", "dog") and holds(data.train.subset([10]), extra_NHWC)


def test_an_unsorted_test_folder_gives_way_to_val(tmp_path):
    _, test_NHWC = write_folder_set(tmp_path, test="val")
    write_folder(tmp_path, "", {"test": pixels(2, seed=5)})
    assert holds(load_images(tmp_path).test, test_NHWC)


@pytest.mark.parametrize("size", [8, 128])  # one thread, several
def test_folders_of_one_size_go_into_memory_and_others_stream(tmp_path, size):
    train_NHWC, _ = write_folder_set(tmp_path, size, size)
    assert holds(load_images(tmp_path).train, train_NHWC)
    odd = tmp_path / "train" / "cat" / "001.png"
    Image.fromarray(pixels(1, size, 2 * size)[0]).save(odd)
    with pytest.raises(ValueError, match=f"--image-size {size}"):  # not 224 for all of them
        load_images(tmp_path)
    for file in tmp_path.glob("*/cat/*.png"):  # 8 of 15
        Image.fromarray(pixels(1, size, 2 * size)[0]).save(file)
    data = load_images(tmp_path)
    assert (
        isinstance(data.train, StreamSplit)
        and data.image_size == 224
        and data.mean == (0.485, 0.456, 0.406)
    )
    assert isinstance(load_images(tmp_path, image_size=16).train, MemorySplit)
    # 15 images of 3 x 264 x 264 bytes are just below 3 MiB, of 265 x 265 just above.
    assert isinstance(load_images(tmp_path, image_size=264, memory_limit_mib=3).train, MemorySplit)
    assert isinstance(load_images(tmp_path, image_size=265, memory_limit_mib=3).train, StreamSplit)


def test_folders_of_oblong_images_stream(tmp_path):
    write_folder_set(tmp_path, 8, 10)
    assert isinstance(load_images(tmp_path).train, StreamSplit)


# ---- pixel formats -------------------------------------------------------------------------------


def test_one_channel_only_if_every_image_is_grey(tmp_path):
    grey_NHW = pixels(6)[..., 0]
    write_folder(tmp_path, "train", {"a": grey_NHW[:2], "b": grey_NHW[2:4]})
    write_folder(tmp_path, "test", {"a": grey_NHW[4:5], "b": grey_NHW[5:]})
    data = load_images(tmp_path)
    assert (
        data.in_channels == 1
        and len(data.mean) == 1
        and holds(data.train, grey_NHW[:4, :, :, None])
    )
    assert data.mean[0] == pytest.approx(grey_NHW[:4].mean() / 255)
    Image.fromarray(pixels(1)[0]).save(tmp_path / "test" / "b" / "colour.png")
    data = load_images(tmp_path)
    assert data.in_channels == 3 and holds(
        data.train, np.repeat(grey_NHW[:4, :, :, None], 3, axis=3)
    )


def test_palettes_and_transparency_become_rgb(tmp_path):
    write_folder_set(tmp_path)
    colour_HWC = np.full((8, 8, 3), (200, 100, 50), np.uint8)
    picture = Image.fromarray(colour_HWC)
    picture.convert("RGBA").save(tmp_path / "train" / "cat" / "000.png")
    palette = picture.convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "train" / "cat" / "001.png", transparency=bytes([0] * 4))
    picture.convert("L").convert("1").save(tmp_path / "train" / "cat" / "002.png")
    stored_NCHW = load_images(tmp_path).train.images_NCHW
    assert np.array_equal(stored_NCHW[0].permute(1, 2, 0), colour_HWC)
    assert np.array_equal(stored_NCHW[1].permute(1, 2, 0), colour_HWC)
    assert set(stored_NCHW[2].unique().tolist()) <= {0, 255}


# ---- names, CIFAR-10 -----------------------------------------------------------------------------


def test_a_local_folder_comes_before_a_known_name(tmp_path, monkeypatch):
    train_NHWC, _ = write_folder_set(tmp_path / "digits")
    write_folder_set(tmp_path / "uoft-cs" / "cifar10")
    monkeypatch.chdir(tmp_path)
    assert holds(load_images("digits").train, train_NHWC)
    assert load_images("uoft-cs/cifar10").class_names == ("cat", "dog")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    Path("digits").write_text("a file does not hide the name")
    assert load_images("digits").num_classes == 10


@needs_cifar10
def test_a_part_of_real_cifar10_is_recognised(tmp_path):
    table = pq.ParquetFile(SHARED / "test-00000-of-00001.parquet").read_row_group(0).slice(0, 300)
    pq.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    pq.write_table(table.slice(0, 50), tmp_path / "test-00000-of-00001.parquet")
    data = load_images(tmp_path)
    assert (data.num_classes, data.in_channels, data.image_size) == (10, 3, 32)
    assert data.class_names == cifar10.CLASS_NAMES and (data.mean, data.std) == (
        cifar10.MEAN,
        cifar10.STD,
    )
    for row in (0, 123, 299):
        picture = Image.open(io.BytesIO(table["img"][row]["bytes"].as_py()))
        assert np.array_equal(data.train.images_NCHW[row].permute(1, 2, 0), np.asarray(picture))
        assert (
            data.class_names[data.train.labels[row]]
            == table["img"][row]["path"].as_py().split("/")[1]
        )
    x_NCHW = torch.cat([x for x, _ in data.train.batches(100, shuffle=False).epoch(0)])
    assert float(x_NCHW.mean().abs()) < 0.1 and float(x_NCHW.std()) == pytest.approx(1, abs=0.05)


def test_only_what_looks_like_cifar10_gets_its_statistics():
    names = cifar10.CLASS_NAMES
    assert cifar10.is_cifar10(3, 32, names, 50_000)
    assert not cifar10.is_cifar10(3, 32, names, 90_000)  # CINIC-10
    assert not cifar10.is_cifar10(3, 64, names, 100)
    assert not cifar10.is_cifar10(3, 32, tuple(map(str, range(10))), 50_000)


# ---- the hub -------------------------------------------------------------------------------------


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """`datasets.load_dataset` answered from a local copy of the set, through the library's own
    reader."""
    import datasets

    from gradnas.data import hub

    asked = []

    def load_dataset(name):
        asked.append(name)
        files = {
            split: str(tmp_path / f"{split}-00000-of-00001.parquet") for split in ("train", "test")
        }
        return datasets.DatasetDict(
            {
                split: datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path / "c"))
                for split, file in files.items()
            }
        )

    datasets.disable_progress_bars()
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(hub, "reachable", lambda: True)
    return asked


def test_sets_of_the_hub_are_those_of_their_parquet_files(tmp_path, hub):
    train_NHWC, test_NHWC = write_parquet_set(tmp_path, names="xyz")
    data = load_images("owner/name")
    assert (
        hub == ["owner/name"] and data.name == "owner/name" and data.class_names == ("x", "y", "z")
    )
    assert holds(data.train, train_NHWC) and holds(data.test, test_NHWC)
    assert data.train.labels.tolist() == [0, 1, 2] * 3 + [0]
    streamed = load_images("owner/name", memory_limit_mib=0, image_size=8)
    x_BCHW, _ = next(streamed.test.batches(5, shuffle=False).epoch(0))
    mean, std = torch.tensor(streamed.mean).view(3, 1, 1), torch.tensor(streamed.std).view(3, 1, 1)
    wanted = (torch.from_numpy(test_NHWC).permute(0, 3, 1, 2) / 255 - mean) / std
    torch.testing.assert_close(x_BCHW, wanted, atol=1e-5, rtol=1e-5, check_stride=False)


def test_cifar10_is_a_name_of_the_hub(tmp_path, hub):
    write_parquet_set(tmp_path, names=cifar10.CLASS_NAMES)
    assert load_images("cifar10").name == "uoft-cs/cifar10" == hub[0]


def test_names_of_the_hub():
    assert image_set.is_hub_name("uoft-cs/cifar10") and image_set.is_hub_name("a/b.c_d-e")
    assert not any(
        map(
            image_set.is_hub_name,
            ("cifar10", "./cifar10", "../a", "/a/b", "a/b/c", "~/data", "a/", "a b/c"),
        )
    )
