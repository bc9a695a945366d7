"""Image sets as people have them: what is read, in which numbering, and what is said of the rest.

Right values are those of Pillow, pyarrow and plain numpy.
"""

from __future__ import annotations

import os
import struct
import unicodedata

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_data_images import holds, pixels, png, write_folder, write_folder_set, write_parquet

from gradnas.data import DataConfig, MemorySplit, load_images
from gradnas.data.closer import closer_look
from gradnas.data.names import split_named, splits_within
from gradnas.data.seen import orientation
from gradnas.data.shards import by_split, parquet_files
from gradnas.data.testing import load_test
from gradnas.tasks.images import IMAGES

ONE = "00000-of-00001.parquet"


def refused(data, **arguments) -> str:
    with pytest.raises(ValueError) as caught:
        load_images(data, **arguments)
    sentence = str(caught.value)
    assert "\n" not in sentence and len(sentence) < 700
    return sentence


def encoded(number, seed=0):
    return [png(image) for image in pixels(number, seed=seed)]


def said(data) -> str:
    """What a summary of these images says of what was left out and what looks wrong."""
    return "; ".join([*(part.text for part in data.found.left_out), *data.found.warnings])


# ---- classes by name -----------------------------------------------------------------------------


def write_halves(folder, train_names, test_names):
    """Bright images are of the class "dog" in either split, whatever its number there."""
    for split, names in (("train", train_names), ("test", test_names)):
        images = []
        labels = []
        for number in range(8):
            is_dog = number % 2
            images.append(png(np.full((8, 8, 3), 200 * is_dog + number, np.uint8)))
            labels.append(names.index("dog" if is_dog else "cat"))
        write_parquet(folder / f"{split}-{ONE}", images, labels, names=names)


def test_a_test_split_in_another_order_of_classes_is_read_by_name(tmp_path):
    write_halves(tmp_path, ["cat", "dog"], ["dog", "cat"])
    data = load_images(tmp_path)
    assert data.class_names == ("cat", "dog")
    for split in (data.train, data.test):
        is_bright = split.images_NCHW.float().mean((1, 2, 3)) > 100
        assert split.labels.tolist() == is_bright.long().tolist()


def test_unused_names_of_a_test_split_do_no_harm_and_used_ones_are_refused(tmp_path):
    write_halves(tmp_path, ["cat", "dog"], ["emu", "dog", "cat"])
    assert load_images(tmp_path).test.labels.tolist() == [0, 1] * 4
    names = ["emu", "dog", "cat"]
    write_parquet(tmp_path / f"test-{ONE}", encoded(3), [2, 1, 0], names=names)
    sentence = refused(tmp_path)
    assert f"test-{ONE}, row 2, is of the class 'emu'" in sentence
    assert "the training split does not have (cat, dog)" in sentence


def test_shards_with_other_orders_and_more_classes_are_read_by_name(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", encoded(2), [0, 1], names="ab")
    write_parquet(tmp_path / "train-00001-of-00002.parquet", encoded(3), [0, 1, 2], names="bca")
    write_parquet(tmp_path / f"test-{ONE}", encoded(1), [0], names="c")
    data = load_images(tmp_path)
    assert data.class_names == ("a", "b", "c")
    assert data.train.labels.tolist() == [0, 1, 1, 2, 0] and data.test.labels.tolist() == [2]


def test_a_shard_without_names_beside_one_with_names_is_refused(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", encoded(2), [0, 1], names="ab")
    write_parquet(tmp_path / "train-00001-of-00002.parquet", encoded(2), [0, 1])
    write_parquet(tmp_path / f"test-{ONE}", encoded(1), [0], names="a")
    assert "has numbers alone" in refused(tmp_path)


def test_numbers_of_a_test_split_beside_names(tmp_path):
    write_parquet(tmp_path / f"train-{ONE}", encoded(4), [0, 1, 0, 1], names="ab")
    write_parquet(tmp_path / f"test-{ONE}", encoded(2), [0, 1])
    assert "are numbers without names" in said(load_images(tmp_path))
    write_parquet(tmp_path / f"train-{ONE}", encoded(4), [0, 1, 0, 1])
    write_parquet(tmp_path / f"test-{ONE}", encoded(2), [0, 1], names="ab")
    assert "has numbers alone: what they stand for is not known" in refused(tmp_path)


def test_folders_in_paths_number_a_test_split(tmp_path):
    paths = ["train/cat/0.png", "train/dog/1.png", "train/cat/2.png", "train/dog/3.png"]
    write_parquet(tmp_path / f"train-{ONE}", encoded(4), [0, 1, 0, 1], paths=paths)
    paths = ["test/dog/0.png", "test/cat/1.png"]
    write_parquet(tmp_path / f"test-{ONE}", encoded(2), [0, 1], paths=paths)
    data = load_images(tmp_path)
    assert data.class_names == ("cat", "dog") and data.test.labels.tolist() == [1, 0]
    write_parquet(tmp_path / f"test-{ONE}", encoded(2), [0, 1], paths=["x/dog/0", "x/emu/1"])
    assert "'emu', which is no class of the training split" in refused(tmp_path)


@pytest.mark.parametrize(
    "train, test, names, wanted",
    [
        (["dog", "cat", "dog", "cat"], ["cat", "dog"], ("cat", "dog"), [0, 1]),
        ([True, False, True, False], [True], ("False", "True"), [1]),
        (["10", "2", "10", "2"], [2, 10], ("10", "2"), [1, 0]),
        (["b", "a", "b", "a"], ["a", "c"], None, "class 'c'"),
        (["b", "", "b", "a"], ["a", "b"], None, "row 1, has no label"),
        (["b", "b ", "b", "a"], ["a", "b"], None, "one name but for spaces"),
        (["b", "a", "b", "a"], [0, 1], None, "which number stands for which is not known"),
        (["b", None, "b", "a"], ["a", "b"], None, "row 1, has no label"),
        ([0.0, 1.0, 0.0, 1.0], [0.0], None, "is of type double"),
        ([1, 2, 1, 2], [1, 2], None, "but no image has label 0"),
        ([0, 0, 0, 0], [0], None, "of one class"),
    ],
)
def test_labels_of_every_type(tmp_path, train, test, names, wanted):
    write_parquet(tmp_path / f"train-{ONE}", encoded(4), train)
    write_parquet(tmp_path / f"test-{ONE}", encoded(len(test)), test)
    if names is None:
        assert wanted in refused(tmp_path)
        return
    data = load_images(tmp_path)
    assert data.class_names == names and data.test.labels.tolist() == wanted
    assert [names[label] for label in data.train.labels.tolist()] == [str(item) for item in train]


def test_categories_count_and_not_their_codes(tmp_path):
    def write(file, values, categories):
        codes = pa.array([categories.index(value) for value in values], pa.int8())
        labels = pa.DictionaryArray.from_arrays(codes, pa.array(categories))
        image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = [{"bytes": data, "path": None} for data in encoded(len(values))]
        table = pa.table({"image": pa.array(rows, image_type), "label": labels})
        pq.write_table(table, tmp_path / file)

    write(f"train-{ONE}", ["z", "a", "z", "a"], ["z", "a", "unused"])
    write(f"test-{ONE}", ["a", "z"], ["a", "z"])
    data = load_images(tmp_path)
    assert data.class_names == ("z", "a", "unused")
    assert data.train.labels.tolist() == [0, 1, 0, 1] and data.test.labels.tolist() == [1, 0]
    assert "no training image is of the class unused" in said(data)
    # Categories that are numbers are these numbers.
    write(f"train-{ONE}", [1, 0, 1, 0], [1, 0])
    write(f"test-{ONE}", [1, 0], [1, 0])
    assert load_images(tmp_path).train.labels.tolist() == [1, 0, 1, 0]


def test_images_as_plain_bytes_and_several_columns(tmp_path):
    for split, number in (("train", 4), ("test", 2)):
        table = pa.table({"image": pa.array(encoded(number)), "label": [0, 1] * (number // 2)})
        pq.write_table(table, tmp_path / f"{split}-{ONE}")
    assert holds(load_images(tmp_path).train, pixels(4))
    pq.write_table(table.append_column("img", table["image"]), tmp_path / f"test-{ONE}")
    assert "has several image columns (img and image)" in refused(tmp_path)


# ---- names of parquet files ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00001-4f2ad19c.parquet", "test-00000-of-00001-0b1c.parquet"],
        ["data/train-00000-of-00001-4f2ad19c.parquet", "data/test-00000-of-00001.parquet"],
        ["default/train/0000.parquet", "default/test/0000.parquet"],
        ["plain_text/cifar10-train.parquet", "plain_text/cifar10-test.parquet"],
        ["train_0.parquet", "test_0.parquet"],
        ["Train.parquet", "TEST.PARQUET"],
        ["train/part-0.parquet", "valid/part-0.parquet"],
        ["training.parquet", "dev.parquet"],
    ],
)
def test_names_that_hubs_have_used(tmp_path, names):
    for name, number in zip(names, (4, 2), strict=True):
        write_parquet(tmp_path / name, encoded(number), [0, 1] * (number // 2), names="ab")
    data = load_images(tmp_path)
    assert holds(data.train, pixels(4)) and holds(data.test, pixels(2))


def test_shards_come_in_the_order_of_their_numbers(tmp_path):
    for number in (0, 1, 2, 10):
        write_parquet(tmp_path / f"train_{number}.parquet", encoded(1, number), [number % 2])
    write_parquet(tmp_path / "test.parquet", encoded(2), [0, 1])
    sentence = refused(tmp_path)
    assert "the one with number 3, 4, 5, 6, 7, ... (7 in all): a shard is missing" in sentence
    for number in range(3, 10):
        write_parquet(tmp_path / f"train_{number}.parquet", encoded(1, number), [number % 2])
    train = load_images(tmp_path).train
    assert holds(train, np.concatenate([pixels(1, seed=number) for number in range(11)]))


@pytest.mark.parametrize(
    "names, words",
    [
        (
            ["train-00000-of-00003-a1.parquet", "train-00002-of-00003-a2.parquet"],
            "shard 1 is missing",
        ),
        (["train-00000-of-00001-a1.parquet", "train-00000-of-00001-b2.parquet"], "both shard 0"),
        (["train-00000-of-00001.parquet", "train-00001-of-00002.parquet"], "of two versions"),
        (["train-00000-of-00001.parquet", "train.parquet"], "is none of them"),
        (["a/train/0000.parquet", "b/train/0000.parquet"], "lie in several folders"),
        (["train_test.parquet", "train.parquet"], "name one of them"),
        (["one.parquet", "two.parquet"], "has no training split: looked for train-*.parquet among"),
    ],
)
def test_files_that_do_not_make_a_split_are_named(tmp_path, names, words):
    for name in [*names, "test.parquet"]:
        write_parquet(tmp_path / name, encoded(2), [0, 1], names="ab")
    assert words in refused(tmp_path)


def test_files_of_no_split_are_left_out_and_said(tmp_path):
    for name in ("train.parquet", "test.parquet", "other.parquet"):
        write_parquet(tmp_path / name, encoded(2), [0, 1], names="ab")
    assert "1 parquet file whose name tells no split (other.parquet)" in said(load_images(tmp_path))
    splits, left_out = by_split(tmp_path, parquet_files(tmp_path))
    assert set(splits) == {"train", "test"} and len(left_out) == 1


def test_parquet_files_beside_folders_of_classes(tmp_path):
    train_NHWC, _ = write_folder_set(tmp_path)
    for place in ("labels.parquet", "train/metadata.parquet"):
        pq.write_table(pa.table({"file_name": ["cat/000.png"]}), tmp_path / place)
    data = load_images(tmp_path)
    assert holds(data.train, train_NHWC)
    assert "1 parquet file beside folders of classes (labels.parquet)" in said(data)
    assert "1 file that is no image: .parquet (metadata.parquet)" in said(data)
    write_parquet(tmp_path / "train.parquet", encoded(2), [0, 1])
    assert "holds parquet files (train.parquet) and folders of classes" in refused(tmp_path)


def test_words_of_splits():
    assert split_named("VALID") == split_named("dev") == "validation"
    assert split_named("Train") == "train" and split_named("trained") is None
    assert splits_within("cifar-10_Train.0") == ["train"]
    assert splits_within("val-00000-of-00001") == ["validation"]
    assert splits_within("latest") == splits_within("evaluate") == []


# ---- folders -------------------------------------------------------------------------------------


def test_classes_one_level_deeper_are_refused_with_their_place(tmp_path):
    write_folder_set(tmp_path / "d")
    for split in ("train", "test"):
        inner = tmp_path / "d" / split
        inner.rename(tmp_path / "moved")
        inner.mkdir()
        (tmp_path / "moved").rename(inner / "images")
    sentence = refused(tmp_path / "d")
    assert f"the classes are one level deeper, in {tmp_path / 'd/train/images'} (cat, dog)" in (
        sentence
    )


def test_a_single_class_is_refused(tmp_path):
    write_folder(tmp_path, "train", {"cat": pixels(3)})
    write_folder(tmp_path, "test", {"cat": pixels(2)})
    assert "are of one class ('cat')" in refused(tmp_path)


def test_folders_of_classes_in_folders_of_groups_are_said(tmp_path):
    for group, names in (("animals", ("cat", "dog")), ("cars", ("bus", "van"))):
        for name in names:
            write_folder(tmp_path, f"train/{group}", {name: pixels(2)})
            write_folder(tmp_path, f"test/{group}", {name: pixels(1)})
    data = load_images(tmp_path)
    assert data.class_names == ("animals", "cars")
    assert "has its images in folders below it (animals/ has cat, dog)" in said(data)


@pytest.mark.parametrize("where, words", [("set", "is that the set?"), ("set/train", "around it")])
def test_a_folder_beside_the_right_one_names_it(tmp_path, where, words):
    write_folder_set(tmp_path / "all" / "set")
    place = tmp_path / "all" if where == "set" else tmp_path / "all" / "set" / "train"
    sentence = refused(place)
    assert words in sentence and str(tmp_path / "all" / "set") in sentence


def test_classes_without_a_training_folder_name_the_option(tmp_path):
    write_folder(tmp_path, "", {"cat": pixels(2), "dog": pixels(2)})
    assert "move them into train/" in refused(tmp_path)


def test_links_are_followed_and_circles_are_not(tmp_path):
    train_NHWC, _ = write_folder_set(tmp_path / "d")
    more_NHWC = pixels(3, seed=5)
    write_folder(tmp_path, "store", {"more": more_NHWC})
    cat = tmp_path / "d" / "train" / "cat"
    (cat / "z more").symlink_to(tmp_path / "store" / "more")
    (cat / "around").symlink_to(tmp_path / "d" / "train")
    (cat / "itself").symlink_to(cat / "itself")
    (cat / "gone.png").symlink_to(tmp_path / "gone.png")
    data = load_images(tmp_path / "d")
    assert holds(data.train.subset(range(9)), np.concatenate([train_NHWC[:6], more_NHWC]))
    assert "1 link in a circle (cat/around)" in said(data) and "2 links to nowhere" in said(data)


def test_hidden_folders_are_skipped_at_every_level_and_said(tmp_path):
    train_NHWC, _ = write_folder_set(tmp_path)
    for place in ("train/.git", "train/cat/.ipynb_checkpoints", "train/cat/__MACOSX"):
        folder = tmp_path / place
        folder.mkdir()
        Image.fromarray(pixels(1)[0]).save(folder / "0.png")
    for name in (".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "train" / "cat" / name).write_bytes(b"\xd0\xcf\x11\xe0")
    (tmp_path / "train" / "notes.csv").write_text("a,b")
    data = load_images(tmp_path)
    assert holds(data.train, train_NHWC)
    assert "3 hidden folders" in said(data) and "3 hidden files" in said(data)
    assert "1 file that is no image: .csv (notes.csv)" in said(data)


def test_every_file_that_pillow_opens_is_read(tmp_path):
    write_folder(tmp_path, "train", {"cat": pixels(2), "dog": pixels(2, seed=1)})
    write_folder(tmp_path, "test", {"cat": pixels(1), "dog": pixels(1)})
    own = pixels(6, seed=2)
    cat = tmp_path / "train" / "cat"
    for number, (name, form) in enumerate(
        [
            ("a", "PNG"),
            ("b.data", "BMP"),
            ("c.JFIF", "PNG"),
            ("d.tga", "TGA"),
            ("e.PNG", "TIFF"),
            ("f.dib", "DIB"),
        ]
    ):
        Image.fromarray(own[number]).save(cat / name, form)
    (cat / "g").write_text("no image")
    (cat / "h.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(64))
    data = load_images(tmp_path)
    assert holds(data.train.subset(range(2, 8)), own)
    assert "2 files that are no images: no ending, .h5 (such as cat/g)" in said(data)


def test_a_file_without_bytes_is_named_before_anything_is_decoded(tmp_path):
    write_folder_set(tmp_path)
    (tmp_path / "train" / "dog" / "z.jpg").write_bytes(b"")
    assert "z.jpg is not an image that can be read: it has no bytes" in refused(tmp_path)


@pytest.mark.parametrize("name", ["valid", "Val", "VALIDATION", "dev"])
def test_validation_folders_stand_in_or_beside(tmp_path, name):
    train_NHWC, test_NHWC = write_folder_set(tmp_path, test=name)
    data = load_images(tmp_path)
    assert holds(data.test, test_NHWC) and data.validation is None
    more_NHWC = pixels(2, seed=8)
    write_folder(tmp_path, "TEST", {"cat": more_NHWC[:1], "dog": more_NHWC[1:]})
    data = load_images(tmp_path)
    assert holds(data.test, more_NHWC) and holds(data.validation, test_NHWC)
    assert holds(data.train, train_NHWC)
    aside = DataConfig(source=str(tmp_path), own_validation=False).load()
    assert aside.validation is None and "5 validation images" in said(aside)


def test_two_folders_of_one_split_are_refused(tmp_path):
    write_folder_set(tmp_path, test="val")
    write_folder(tmp_path, "valid", {"cat": pixels(1)})
    assert "holds val/ and valid/, which are both a validation split" in refused(tmp_path)


def test_accents_are_one_name_however_they_are_written(tmp_path):
    composed = unicodedata.normalize("NFC", "café")
    apart = unicodedata.normalize("NFD", "café")
    assert composed != apart
    write_folder(tmp_path, "train", {composed: pixels(2), "bar": pixels(2, seed=1)})
    write_folder(tmp_path, "test", {apart: pixels(1), "bar": pixels(2, seed=1)})
    assert load_images(tmp_path).test.labels.tolist() == [0, 0, 1]
    write_folder(tmp_path, "train", {apart: pixels(2)})
    assert "which are one name but for spaces" in refused(tmp_path)


def test_a_class_of_another_spelling_is_refused_with_the_nearest(tmp_path):
    write_folder_set(tmp_path)
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / "Cat")
    assert "does not have (did you mean 'cat'?)" in refused(tmp_path)


def test_a_class_without_test_images_and_one_with_a_single_image_are_said(tmp_path):
    write_folder(tmp_path, "train", {"a": pixels(2), "b": pixels(1, seed=1), "c": pixels(3)})
    write_folder(tmp_path, "test", {"a": pixels(1, seed=3), "b": pixels(1, seed=4)})
    words = said(load_images(tmp_path))
    assert "no test image is of the class c" in words
    assert "a single training image is of the class b" in words


# ---- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [False, True])
def test_one_odd_image_does_not_change_the_size_of_a_set(tmp_path, first):
    write_folder(tmp_path, "train", {"cat": pixels(6), "dog": pixels(4)})
    write_folder(tmp_path, "test", {"cat": pixels(2), "dog": pixels(2)})
    name = "000.png" if first else "002.png"
    Image.fromarray(pixels(1, 8, 9)[0]).save(tmp_path / "train" / "cat" / name)
    sentence = refused(tmp_path)
    assert f"{name} is 9x8 pixels, but 13 of 14 images" in sentence
    assert "--image-size 8" in sentence
    data = load_images(tmp_path, image_size=8)
    assert isinstance(data.train, MemorySplit) and data.image_size == 8
    assert data.found.sizes == {(8, 8): 13, (9, 8): 1}


def exif_of(value: int, order: str = "<") -> bytes:
    mark = {"<": b"II", ">": b"MM"}[order]
    entry = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, value, 0)
    head = mark + struct.pack(f"{order}HI", 42, 8) + struct.pack(f"{order}H", 1)
    return b"Exif\x00\x00" + head + entry + bytes(4)


def test_orientations_are_read_as_pillow_reads_them():
    for value in range(1, 9):
        for order in "<>":
            exif = Image.Exif()
            exif.load(exif_of(value, order))
            assert orientation(exif_of(value, order)) == exif.get(0x0112) == value
    assert orientation(b"") == orientation(b"Exif\x00\x00II*\x00\xff") == 1


def test_what_is_ignored_in_pictures_is_said_once(tmp_path):
    write_folder(tmp_path, "train", {"a": pixels(3), "b": pixels(3, seed=1)})
    write_folder(tmp_path, "test", {"a": pixels(2, seed=2), "b": pixels(2, seed=3)})
    place = tmp_path / "train" / "a"
    picture = Image.fromarray(pixels(1, seed=4)[0])
    picture.save(place / "turned.jpg", exif=exif_of(6))
    shape = np.zeros((8, 8, 4), np.uint8)
    shape[2:5, 2:5, 3] = 255  # a black picture on nothing
    Image.fromarray(shape).save(place / "alpha.png")
    half = np.concatenate([pixels(1, seed=5)[0], np.full((8, 8, 1), 99, np.uint8)], axis=2)
    Image.fromarray(half).save(place / "half.png")
    Image.new("RGB", (8, 8), (9, 9, 9)).save(place / "blank.png")
    frames = [Image.fromarray(image) for image in pixels(2, seed=6)]
    frames[0].save(place / "moving.gif", save_all=True, append_images=frames[1:])
    picture.convert("CMYK").save(place / "print.jpg")
    data = load_images(tmp_path)
    words = data.found.warnings
    assert len(words) == 5, words
    assert "1 image is turned by a mark in EXIF, which is ignored" in words[0]
    assert "turned.jpg" in words[0]
    assert "is in the transparency, which is dropped" in words[1] and "alpha.png" in words[1]
    assert "1 image is of one colour throughout (" in words[2] and "blank.png" in words[2]
    assert "transparent in parts" in words[3] and "half.png" in words[3]
    assert "of several frames" in words[4] and "moving.gif" in words[4]


def test_images_that_stand_in_two_places_are_said(tmp_path):
    train_NHWC, _ = write_folder_set(tmp_path)
    Image.fromarray(train_NHWC[0]).save(tmp_path / "test" / "cat" / "copy.bmp")
    Image.fromarray(train_NHWC[0]).save(tmp_path / "train" / "dog" / "copy.tif")
    words = said(load_images(tmp_path))
    assert "1 of the test images stand among the training images too" in words
    assert "1 of the training images stand under two classes" in words


def test_what_a_crop_cuts_off_is_said(tmp_path):
    write_folder_set(tmp_path, 8, 40)
    words = said(load_images(tmp_path, image_size=8))
    assert "15 images lose most of what they show to the crop" in words
    assert "--fit pad" in words
    assert "to the crop" not in said(load_images(tmp_path, image_size=8, fit="pad"))


def test_small_images_beyond_the_memory_keep_their_size(tmp_path):
    write_folder_set(tmp_path, 300, 300)
    assert load_images(tmp_path, memory_limit_mib=1).image_size == 224
    write_folder_set(tmp_path / "small", 200, 200)
    assert load_images(tmp_path / "small", memory_limit_mib=1).image_size == 200


# ---- knowing a set again -------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [0, 4096])
@pytest.mark.parametrize(
    "change, words",
    [
        ("copy", "cat was 6, and is 7"),
        ("rename", "the classes differ (cat is gone, zebra is new)"),
        ("pixels", "contents of "),
        ("touch", ""),
    ],
)
def test_a_fingerprint_tells_other_images(tmp_path, limit, change, words):
    write_folder_set(tmp_path)
    before = load_images(tmp_path, memory_limit_mib=limit, image_size=8).found.fingerprint
    cat = tmp_path / "train" / "cat"
    if change == "copy":
        (cat / "copy.png").write_bytes((cat / "000.png").read_bytes())
    elif change == "rename":
        cat.rename(tmp_path / "train" / "zebra")
        (tmp_path / "test" / "cat").rename(tmp_path / "test" / "zebra")
    elif change == "pixels":
        Image.fromarray(pixels(1, seed=9)[0]).save(cat / "003.png")
    else:
        os.utime(cat / "000.png", (0, 0))
    for other in (0, 4096):  # a stream knows again what was in memory, and the other way round
        now = load_images(tmp_path, memory_limit_mib=other, image_size=8).found.fingerprint
        found = "; ".join(before.differences(now))
        assert words in found and bool(words) == bool(found)


def test_a_fingerprint_is_of_all_images_before_a_test_is_taken_from_them(tmp_path):
    write_folder(tmp_path, "train", {"a": pixels(10), "b": pixels(10, seed=1)})
    one = load_images(tmp_path, test_fraction=0.2).found.fingerprint
    other = load_images(tmp_path, test_fraction=0.5).found.fingerprint
    assert one == other and one.entries["training images"] == 20


@pytest.mark.slow
def test_labels_are_those_that_datasets_reads(tmp_path):
    import datasets

    names = {"train": ["cat", "dog", "emu"], "test": ["emu", "cat", "dog"]}
    wanted = {}
    for split, own in names.items():
        features = datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=own)}
        )
        images = [Image.fromarray(image) for image in pixels(6)]
        rows = {"image": images, "label": [0, 1, 2, 2, 1, 0]}
        file = str(tmp_path / f"{split}-{ONE}")
        datasets.Dataset.from_dict(rows, features=features).to_parquet(file)
        again = datasets.Dataset.from_parquet(file, cache_dir=str(tmp_path / "cache"))
        label = again.features["label"]
        wanted[split] = [label.int2str(number) for number in again["label"]]
    data = load_images(tmp_path)
    for split, own in (("train", data.train), ("test", data.test)):
        assert [data.class_names[label] for label in own.labels.tolist()] == wanted[split]
        assert holds(own, pixels(6))


def test_a_closer_look_at_streamed_images_finds_what_a_sample_missed(tmp_path):
    write_folder(tmp_path, "train", {"a": pixels(150, 4, 4), "b": pixels(150, 4, 4, seed=1)})
    write_folder(tmp_path, "test", {"a": pixels(2, 4, 4, seed=2), "b": pixels(2, 4, 4, seed=3)})
    Image.new("RGB", (4, 4)).save(tmp_path / "train" / "a" / "001.png")
    (tmp_path / "train" / "b" / "001.png").write_bytes(b"no image")
    data = load_images(tmp_path, memory_limit_mib=0, image_size=4)
    assert not data.found.warnings
    broken, blank = closer_look(data)
    assert "b/001.png is not an image that can be read" in broken
    assert "1 image is of one colour throughout" in blank and "a/001.png" in blank
    assert closer_look(load_images("digits")) == []


def test_test_images_alone_are_looked_at_once(tmp_path):
    write_folder(tmp_path, "test", {"dog": pixels(3), "cat": pixels(2, seed=1)})
    known = {"class_names": ["dog", "cat"], "image_size": 8, "in_channels": 3}
    known |= {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    data = load_test(DataConfig(source=str(tmp_path)), known)
    assert data.test.labels.tolist() == [0, 0, 0, 1, 1] and not data.found.warnings
    line = IMAGES.read(data).line()
    assert "5 test images; 8x8" in line and "2 classes with 2 (cat) to 3 (dog) test images" in line
    assert "mean 0.500 0.400 0.300" in line and "training" not in line


def test_images_are_evaluated_in_the_classes_of_the_training_by_name(tmp_path):
    write_folder_set(tmp_path)
    known = {"class_names": ["dog", "cat"], "image_size": 8, "in_channels": 3}
    known |= {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
    for limit in (None, 8):
        data = load_test(DataConfig(source=str(tmp_path), image_size=limit), known)
        assert data.test.labels.tolist() == [1, 1, 0, 0, 0]
    known["class_names"] = ["dog", "emu"]
    with pytest.raises(ValueError, match="their labels do not mean the same"):
        load_test(DataConfig(source=str(tmp_path)), known)


def test_what_is_said_of_images_does_not_depend_on_where_they_lie(tmp_path):
    lines = []
    for name in ("here", "there"):
        place = tmp_path / name / "set"
        train_NHWC, _ = write_folder_set(place)
        Image.fromarray(train_NHWC[0]).save(place / "test" / "cat" / "copy.png")
        (place / "train" / "cat" / "notes.txt").write_text("x")
        lines.append(IMAGES.read(load_images(place)).to_json())
    assert lines[0] == lines[1] and "test/cat/copy.png is train/cat/000.png" in str(lines[0])
