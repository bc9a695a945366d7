"""Every way in which image files can be wrong, and the one sentence that says so: what, where, and
what is right."""

import re
import struct
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from test_data_images import pixels, png, write_folder_set, write_parquet, write_parquet_set

from gradnas.data import folder, hub, load_images

TRAIN, TEST = "train-00000-of-00001.parquet", "test-00000-of-00001.parquet"


def refused(data, **arguments) -> str:
    """The sentence with which a set is refused: one line."""
    with pytest.raises(ValueError) as caught:
        load_images(data, **arguments)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 600
    return sentence


# --------------------------------------------------------------------------------------------------
# names and folders


@pytest.mark.parametrize("data", ["no/such/folder", "nonsense", "/no/where", "./here"])
def test_a_folder_that_is_not_there(data):
    sentence = refused(data)
    assert f"there is no folder {Path(data)}" in sentence
    for layout in (
        "'digits'",
        "'cifar10'",
        "owner/name",
        "train-*.parquet",
        "validation-*",
        "train/<class>/",
        "val/",
    ):
        assert layout in sentence


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "x.parquet").write_text("")
    assert refused(tmp_path / "x.parquet").startswith(
        f"{tmp_path / 'x.parquet'} is a file: expected a folder with"
    )


def test_folders_without_a_set(tmp_path):
    assert refused(tmp_path).startswith(f"{tmp_path} is empty: expected train-*.parquet")
    (tmp_path / "a.txt").write_text("")
    assert refused(tmp_path).startswith(f"{tmp_path} holds no image set: expected train-*.parquet")
    (tmp_path / "train").mkdir()
    assert (
        f"{tmp_path / 'train'} has no folders of classes: expected train/<class>/*.jpg"
        in refused(tmp_path)
    )


def test_without_a_network_one_sentence_says_what_to_do(monkeypatch):
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(hub, "cached", lambda name: False)
    sentence = refused("cifar10")
    assert "'uoft-cs/cifar10' is no local folder, and without a network" in sentence
    assert "train-*.parquet and test-*.parquet" in sentence and "train/<class>/*.jpg" in sentence


@pytest.mark.parametrize("kind", ["offline", "missing", "configuration"])
def test_what_the_hub_answers_is_passed_on_in_one_sentence(monkeypatch, kind):
    import datasets

    errors = {
        "offline": (
            ConnectionError("Couldn't reach\nit"),
            r"could not be reached for it \(Couldn't reach it\): use a",
        ),
        "missing": (
            datasets.exceptions.DatasetNotFoundError("No such set."),
            "did not give 'a/b': No such set$",
        ),
        "configuration": (
            ValueError("Config name is missing."),
            "did not give 'a/b': Config name is missing$",
        ),
    }
    error, pattern = errors[kind]

    def load_dataset(name):
        raise error

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert re.search(pattern, refused("a/b"))


def test_whether_the_hub_can_be_reached_is_found_out_quickly(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr("urllib.request.getproxies", dict)
    # Nobody listens there.
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    assert not hub.reachable()
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy"})
    assert hub.reachable()  # cannot be told: let the library try
    monkeypatch.setattr("urllib.request.getproxies", dict)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert hub.reachable()  # the library answers at once, from its cache


def test_numbers_that_make_no_sense(tmp_path):
    assert "image_size is a number of pixels of at least 1, not 0" in refused(
        "digits", image_size=0
    )
    assert "test_fraction is between 0 and 1, not 1.5" in refused("digits", test_fraction=1.5)
    write_folder_set(tmp_path)
    assert "has a test split of its own: leave test_fraction out" in refused(
        tmp_path, test_fraction=0.5
    )


# ---- missing and empty ---------------------------------------------------------------------------


def test_missing_splits(tmp_path):
    write_parquet_set(tmp_path)
    (tmp_path / TEST).rename(tmp_path / "other-00000-of-00001.parquet")
    sentence = refused(tmp_path)
    assert (
        "no test split with labels: looked for test-*.parquet and validation-*.parquet in "
        f"{tmp_path}" in sentence
    )
    assert "give test_fraction" in sentence
    (tmp_path / TRAIN).unlink()
    assert f"{tmp_path} has no training split: looked for train-*.parquet" in refused(tmp_path)


def test_folders_without_a_test_split(tmp_path):
    write_folder_set(tmp_path, test="holdout")
    assert f"looked for test/<class>, val/<class>, validation/<class> in {tmp_path}" in refused(
        tmp_path
    )


def test_empty_and_unknown_classes(tmp_path):
    write_folder_set(tmp_path)
    (tmp_path / "test" / "emu").mkdir()
    assert refused(tmp_path) == (
        f"{tmp_path / 'test' / 'emu'} is the folder of a class that {tmp_path / 'train'} "
        "does not have"
    )
    (tmp_path / "train" / "emu").mkdir()
    assert f"{tmp_path / 'train' / 'emu'} has no image files (.jpg" in refused(tmp_path)


def test_missing_shards(tmp_path):
    write_parquet_set(tmp_path)
    (tmp_path / TRAIN).rename(tmp_path / "train-00001-of-00004.parquet")
    assert "train-00001-of-00004.parquet is one of 4 files by its name, but" in refused(tmp_path)


def test_parquet_files_without_rows(tmp_path):
    write_parquet_set(tmp_path)
    write_parquet(tmp_path / TEST, [], [], kind=pa.int64())
    assert refused(tmp_path) == f"{tmp_path / TEST} has no rows"


@pytest.mark.parametrize(
    "columns, what", [(("photo", "label"), "image"), (("img", "kind"), "label")]
)
def test_missing_columns_name_those_that_are_there(tmp_path, columns, what):
    write_parquet_set(tmp_path, columns=columns)
    known = {"image": "img or image", "label": "label or labels or fine_label"}[what]
    assert refused(tmp_path) == (
        f"{tmp_path / TRAIN} has no {what} column ({known}): "
        f"its columns are {columns[0]}, {columns[1]}"
    )


def test_an_image_column_of_another_type(tmp_path):
    import pyarrow.parquet as pq

    write_parquet_set(tmp_path)
    pq.write_table(pa.table({"img": ["a.png"], "label": [0]}), tmp_path / TRAIN)
    assert refused(tmp_path) == (
        f"{tmp_path / TRAIN}: column img is of type string, but images are structs {{bytes, path}}"
    )


# ---- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "labels, kind, message",
    [
        (
            [0.0, 1.0, 2.0],
            pa.float64(),
            ": labels are whole numbers, but column label is of type double",
        ),
        (
            ["a", "b", "d"],
            pa.string(),
            ", row 2, has label 'd', but the classes are a, b, c",
        ),
        ([0, None, 2], pa.int64(), ", row 1, has no label (column label is null)"),
        ([0, 1, 3], pa.int64(), ", row 2, has label 3, but labels are 0..2 (3 classes)"),
        ([0, -1, 2], pa.int64(), ", row 1, has label -1, but labels are 0..2 (3 classes)"),
    ],
)
@pytest.mark.parametrize("file", [TRAIN, TEST])
def test_bad_labels_are_named_with_their_row(tmp_path, labels, kind, message, file):
    write_parquet_set(tmp_path, names="abc")
    write_parquet(
        tmp_path / file, [png(image) for image in pixels(3)], labels, names="abc", kind=kind
    )
    assert refused(tmp_path) == f"{tmp_path / file}{message}"


@pytest.mark.parametrize(
    "labels, row, label, free", [([0, 1, 99, 2], 2, 99, 3), ([1, 2, 1, 2] * 20, 0, 1, 0)]
)
def test_stray_labels_show_by_what_they_skip_where_nothing_names_the_classes(
    tmp_path, labels, row, label, free
):
    encoded = [png(image) for image in pixels(len(labels))]
    write_parquet(tmp_path / TRAIN, encoded, labels)
    write_parquet(tmp_path / TEST, encoded[:2], [1, 2])
    assert refused(tmp_path).startswith(
        f"{tmp_path / TRAIN}, row {row}, has label {label}, but no image has label {free}: "
        "labels are 0..num_classes-1"
    )


def test_negative_labels_without_names(tmp_path):
    write_parquet_set(tmp_path)
    write_parquet(tmp_path / TEST, [png(image) for image in pixels(2)], [0, -5])
    assert (
        refused(tmp_path)
        == f"{tmp_path / TEST}, row 1, has label -5, but labels are 0..2 (3 classes)"
    )


# ---- corrupt files -------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["text", "short", "empty"])
def test_corrupt_parquet_files(tmp_path, damage):
    write_parquet_set(tmp_path)
    whole = (tmp_path / TEST).read_bytes()
    (tmp_path / TEST).write_bytes(
        {"text": b"not parquet" * 9, "short": whole[:-20], "empty": b""}[damage]
    )
    start = f"{tmp_path / TEST} is not a parquet file that can be read (corrupt or cut short?): "
    assert refused(tmp_path).startswith(start)


def test_parquet_files_with_damaged_pages(tmp_path):
    import pyarrow.parquet as pq

    write_parquet_set(tmp_path)
    column = pq.ParquetFile(tmp_path / TRAIN).metadata.row_group(1).column(0)
    assert column.path_in_schema == "img.bytes"
    whole = bytearray((tmp_path / TRAIN).read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    whole[start : start + column.total_compressed_size] = (
        bytes([255]) * column.total_compressed_size
    )
    (tmp_path / TRAIN).write_bytes(whole)
    assert refused(tmp_path).startswith(f"{tmp_path / TRAIN} is corrupt in row group 1: ")


def broken(kind: str) -> bytes:
    whole = png(pixels(1, 32, 32)[0])
    if kind == "cut short":
        return whole[: len(whole) // 2]
    if kind == "text":
        return b"this is no image"
    if kind == "header":
        return whole[:20]
    bits = bytearray(whole)
    bits[60:90] = bytes(30)
    return bytes(bits)


@pytest.mark.parametrize("kind", ["cut short", "text", "header", "bits", "empty"])
def test_corrupt_images_are_named(tmp_path, kind):
    write_parquet_set(tmp_path / "rows", names="abc")
    write_folder_set(tmp_path / "files")
    data = b"" if kind == "empty" else broken(kind)
    encoded = [png(image) for image in pixels(5, 32, 32)]
    write_parquet(tmp_path / "rows" / TRAIN, [*encoded[:4], data], [0, 1, 2, 0, 1], names="abc")
    for name, image in zip("01234", encoded, strict=True):
        (tmp_path / "files" / "train" / "cat" / f"00{name}.png").write_bytes(image)
    (tmp_path / "files" / "train" / "dog" / "001.png").write_bytes(data)
    rows = refused(tmp_path / "rows", image_size=32)
    files = refused(tmp_path / "files", image_size=32)
    verdict = "(is not an image that can be read|is corrupt or cut short): "
    assert re.match(re.escape(f"{tmp_path / 'rows' / TRAIN}, row 4, ") + verdict, rows)
    assert re.match(
        re.escape(f"{tmp_path / 'files' / 'train' / 'dog' / '001.png'} ") + verdict, files
    )
    assert "BytesIO" not in rows


def test_rows_are_counted_in_their_own_file(tmp_path):
    write_parquet_set(tmp_path, names="abc")
    (tmp_path / TRAIN).rename(tmp_path / "train-00000-of-00002.parquet")
    second = tmp_path / "train-00001-of-00002.parquet"
    write_parquet(second, [png(pixels(1)[0]), b"no image"], [0, 1], names="abc")
    assert refused(tmp_path).startswith(f"{second}, row 1, is not an image")
    write_parquet(second, [png(pixels(1)[0])] * 2, [7, 1], names="abc")
    assert refused(tmp_path).startswith(f"{second}, row 0, has label 7")


def test_images_without_bytes(tmp_path):
    write_parquet_set(tmp_path, names="abc")
    write_parquet(
        tmp_path / TRAIN, [png(pixels(1)[0]), None], [0, 1], names="abc", paths=["a.png", "b.png"]
    )
    assert refused(tmp_path) == f"{tmp_path / TRAIN}, row 1, holds no image bytes"


def test_images_of_more_than_eight_bits(tmp_path):
    write_folder_set(tmp_path)
    file = tmp_path / "train" / "cat" / "000.png"
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(file)
    assert refused(tmp_path).startswith(f"{file} has more than 8 bits per channel (Pillow mode I")


def test_files_that_cannot_be_read(tmp_path):
    write_folder_set(tmp_path)
    source = folder.FolderSource(folder.FolderSplit(tmp_path / "train"), ("cat", "dog"))
    (tmp_path / "train" / "cat" / "003.png").unlink()
    with pytest.raises(ValueError) as caught:
        source.read(3)
    file = tmp_path / "train" / "cat" / "003.png"
    assert str(caught.value) == f"{file} cannot be read: No such file or directory"


def test_a_picture_bomb_is_refused(tmp_path):
    write_folder_set(tmp_path)
    bomb = bytearray(png(pixels(1)[0]))
    bomb[16:24] = struct.pack(">II", 60_000, 60_000)
    (tmp_path / "train" / "cat" / "000.png").write_bytes(bomb)
    assert f"{tmp_path / 'train' / 'cat' / '000.png'} is not an image that can be read" in refused(
        tmp_path
    )
