"""Odd image sets from a generator: what is read is what a plain reader finds, or is named.

A set is drawn with all that people leave in theirs: other endings, hidden files, links, broken
names, shards in other orders. The plain readers here know neither gradnas nor its rules by import:
they walk, open with Pillow or pyarrow, and compare by name. `GRADNAS_ODD_SETS=100` draws so many
folders and so many sets of parquet files.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from gradnas.data import load_images

pytestmark = pytest.mark.slow

NUM_SETS = int(os.environ.get("GRADNAS_ODD_SETS", "12"))
ODD = settings(
    max_examples=NUM_SETS,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)

CLASS_NAMES = ["cat", "dog", "Dog", "10", "2", "été", "a b", "x.y", "№", "train", "images"]
SPLIT_NAMES = {
    "train": ["train", "Train", "TRAINING"],
    "test": ["test", "Testing", "TEST"],
    "valid": ["val", "Valid", "validation", "DEV"],
}
GOOD_FILES = [
    ("0.png", "PNG"),
    ("1.PNG", "PNG"),
    ("b.bmp", "BMP"),
    ("no ending", "PNG"),
    ("odd.ending", "BMP"),
    ("t.tiff", "TIFF"),
    ("ppm.ppm", "PPM"),
    ("ü.png", "PNG"),
    ("x.png.bak", "PNG"),
]
BAD_FILES = ["notes.txt", "a.csv", "README", "model.pt"]
HIDDEN = [".DS_Store", "._0.png", "Thumbs.db", "desktop.ini"]
HIDDEN_FOLDERS = [".git", "__MACOSX", ".ipynb_checkpoints", "@eaDir"]


# ---- folders -------------------------------------------------------------------------------------


@dataclass
class OddClass:
    """What is put into the folder of a class."""

    name: str
    files: list[tuple[str, str]]
    below: list[tuple[str, str]]  # in a folder within it
    linked: int  # images in a folder behind a link
    bad: list[str]
    hidden: list[str]
    hidden_folders: list[str]
    dangling: bool
    circle: bool


@dataclass
class OddFolder:
    """A set of folders."""

    splits: dict[str, tuple[str, list[OddClass]]]
    fault: str
    extra_folder: bool


@st.composite
def classes(draw, name):
    return OddClass(
        name=name,
        files=draw(st.lists(st.sampled_from(GOOD_FILES), min_size=1, max_size=4, unique=True)),
        below=draw(st.lists(st.sampled_from(GOOD_FILES), max_size=2, unique=True)),
        linked=draw(st.integers(0, 2)),
        bad=draw(st.lists(st.sampled_from(BAD_FILES), max_size=2, unique=True)),
        hidden=draw(st.lists(st.sampled_from(HIDDEN), max_size=2, unique=True)),
        hidden_folders=draw(st.lists(st.sampled_from(HIDDEN_FOLDERS), max_size=2, unique=True)),
        dangling=draw(st.booleans()),
        circle=draw(st.booleans()),
    )


FAULTS = ["", "", "", "", "", "one class", "unknown class", "empty class", "deeper", "no bytes"]


@st.composite
def folders(draw):
    names = draw(st.lists(st.sampled_from(CLASS_NAMES), min_size=2, max_size=4, unique=True))
    splits = {"train": (draw(st.sampled_from(SPLIT_NAMES["train"])), names)}
    for split in draw(st.sampled_from([["test"], ["valid"], ["test", "valid"]])):
        own = draw(st.lists(st.sampled_from(names), min_size=1, max_size=len(names), unique=True))
        splits[split] = (draw(st.sampled_from(SPLIT_NAMES[split])), own)
    drawn = {}
    for split, (called, own) in splits.items():
        drawn[split] = (called, [draw(classes(name)) for name in own])
    return OddFolder(drawn, draw(st.sampled_from(FAULTS)), draw(st.booleans()))


class Painter:
    """Pictures of noise, each another one."""

    def __init__(self):
        self.generator = np.random.default_rng(0)

    def picture(self):
        return self.generator.integers(0, 256, (4, 4, 3), dtype=np.uint8)


def make_class(place: Path, store: Path, odd: OddClass, painter: Painter):
    place.mkdir(parents=True)
    for name, form in odd.files:
        Image.fromarray(painter.picture()).save(place / name, form)
    if odd.below:
        (place / "below").mkdir()
    for name, form in odd.below:
        Image.fromarray(painter.picture()).save(place / "below" / name, form)
    if odd.linked:
        behind = Path(tempfile.mkdtemp(dir=store))
        for number in range(odd.linked):
            Image.fromarray(painter.picture()).save(behind / f"{number}.png")
        (place / "link").symlink_to(behind)
    for name in odd.bad:
        (place / name).write_text("nothing to see, 1, 2, 3")
    for name in odd.hidden:
        (place / name).write_bytes(b"\x00\x01")
    for name in odd.hidden_folders:
        (place / name).mkdir()
        Image.fromarray(painter.picture()).save(place / name / "hidden.png")
    if odd.dangling:
        (place / "gone.png").symlink_to(place / "nowhere.png")
    if odd.circle:
        (place / "circle").symlink_to(place)


def make_folder(root: Path, odd: OddFolder) -> None:
    painter = Painter()
    store = root / "store"
    store.mkdir(parents=True)
    place = root / "set"
    for called, own in odd.splits.values():
        for one in own:
            make_class(place / called / one.name, store, one, painter)
    if odd.extra_folder:
        (place / "old").mkdir()
    train = place / odd.splits["train"][0]
    if odd.fault == "one class":
        for one in odd.splits["train"][1][1:]:
            for called, _ in odd.splits.values():
                shutil.rmtree(place / called / one.name, ignore_errors=True)
    elif odd.fault == "unknown class":
        called = next(called for split, (called, _) in odd.splits.items() if split != "train")
        (place / called / "unheard of").mkdir()
        Image.fromarray(painter.picture()).save(place / called / "unheard of" / "0.png")
    elif odd.fault == "empty class":
        (train / "empty").mkdir()
        (train / "empty" / "notes.txt").write_text("nothing")
    elif odd.fault == "deeper":
        train.rename(root / "moved")
        train.mkdir()
        (root / "moved").rename(train / "all")
    elif odd.fault == "no bytes":
        (train / odd.splits["train"][1][0].name / "zz.jpg").write_bytes(b"")


def plainly_hidden(name: str) -> bool:
    return name[0] == "." or name in ("Thumbs.db", "desktop.ini", "__MACOSX", "@eaDir")


def plainly_walked(folder: Path, above: tuple[str, ...] = ()) -> list[Path]:
    """All files below a folder, links followed, without hidden ones; by real path, no circles."""
    real = os.path.realpath(folder)
    if real in above:
        return []
    files = []
    for name in os.listdir(folder):
        path = folder / name
        if plainly_hidden(name) or not path.exists():
            continue
        if path.is_dir():
            files += plainly_walked(path, (*above, real))
        else:
            files.append(path)
    return files


def plainly_opened(path: Path) -> bytes | None:
    """Pixels as Pillow decodes them; None for what it does not know."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).tobytes()
    except Image.UnidentifiedImageError:
        return None


def plainly_read(place: Path, odd: OddFolder) -> tuple[dict[str, list[tuple[str, bytes]]], int]:
    """Split -> (class, pixels) of every image, sorted, and how many files are no images."""
    found = {}
    num_others = 0
    for split, (called, _) in odd.splits.items():
        pairs = []
        for name in sorted(os.listdir(place / called)):
            for path in plainly_walked(place / called / name):
                pixels = plainly_opened(path)
                if pixels is None:
                    num_others += 1
                else:
                    pairs.append((name, pixels))
        found[split] = sorted(pairs)
    return found, num_others


def as_pairs(data, split) -> list[tuple[str, bytes]]:
    pixels_NHWC = split.images_NCHW.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
    names = [data.class_names[label] for label in split.labels.tolist()]
    return sorted((name, image.tobytes()) for name, image in zip(names, pixels_NHWC, strict=True))


def splits_of(data, wanted) -> dict:
    """The splits of a set by the names that the plain reader has for them."""
    splits = {"train": data.train}
    if "test" in wanted:
        splits["test"] = data.test
        if "valid" in wanted:
            splits["valid"] = data.validation
    else:
        splits["valid"] = data.test
    return splits


def count_left_out(data, words: str) -> int:
    return sum(part.count for part in data.found.left_out if words in part.many)


@ODD
@given(folders())
def test_odd_folders_are_read_as_a_plain_reader_reads_them(odd):
    with tempfile.TemporaryDirectory() as base:
        make_folder(Path(base), odd)
        place = Path(base) / "set"
        if odd.fault:
            with pytest.raises(ValueError) as caught:
                load_images(place)
            words = {
                "one class": "of one class",
                "unknown class": "unheard of is the folder of a class that",
                "empty class": "empty has no image files",
                "deeper": "the classes are one level deeper",
                "no bytes": "it has no bytes",
            }
            assert words[odd.fault] in str(caught.value)
            return
        wanted, num_others = plainly_read(place, odd)
        data = load_images(place)
        for split, own in splits_of(data, wanted).items():
            assert as_pairs(data, own) == wanted[split]
        assert data.class_names == tuple(sorted(one.name for one in odd.splits["train"][1]))
        everything = [one for _, own in odd.splits.values() for one in own]
        assert count_left_out(data, "are no images") == num_others
        assert count_left_out(data, "hidden files") == sum(len(one.hidden) for one in everything)
        hidden_folders = sum(len(one.hidden_folders) for one in everything)
        assert count_left_out(data, "hidden folders") == hidden_folders
        assert count_left_out(data, "to nowhere") == sum(one.dangling for one in everything)
        assert count_left_out(data, "in a circle") == sum(one.circle for one in everything)
        assert count_left_out(data, "of no split") == odd.extra_folder


# ---- parquet -------------------------------------------------------------------------------------


@dataclass
class OddShard:
    """Rows of a file: how its labels are written, in which order its names are, its classes."""

    rows: list[str]
    names: list[str]


@dataclass
class OddTable:
    """A set of parquet files."""

    form: str  # how labels are written
    layout: str
    image_form: str
    classes: list[str]
    shards: dict[str, list[OddShard]]
    fault: str
    extra: list[str] = field(default_factory=list)


FORMS = ["names", "text", "large text", "categories", "bool"]
LAYOUTS = ["{split}-{n:05}-of-{m:05}{hash}.parquet", "data/{split}-{n:05}-of-{m:05}.parquet"]
LAYOUTS += ["{split}_{n}.parquet", "default/{split}/{n:04}.parquet", "my-{split}-{n}.parquet"]
TABLE_FAULTS = ["", "", "", "", "missing shard", "unknown class", "no label", "twice"]


@st.composite
def tables(draw):
    form = draw(st.sampled_from(FORMS))
    known = ["False", "True"]
    if form != "bool":
        known = draw(st.lists(st.sampled_from(CLASS_NAMES), min_size=2, max_size=4, unique=True))
    shards = {}
    for split in draw(st.sampled_from([["train", "test"], ["train", "test", "validation"]])):
        own = []
        for number in range(draw(st.integers(1, 3))):
            rows = draw(st.lists(st.sampled_from(known), min_size=1, max_size=4))
            if split == "train" and number == 0:
                rows = known + rows  # every class is seen in training
            own.append(OddShard(rows, draw(st.permutations(known))))
        shards[split] = own
    return OddTable(
        form=form,
        layout=draw(st.sampled_from(LAYOUTS)),
        image_form=draw(st.sampled_from(["structs", "bytes"])),
        classes=known,
        shards=shards,
        fault=draw(st.sampled_from(TABLE_FAULTS)),
        extra=draw(st.lists(st.sampled_from(["notes.txt", "README.md"]), max_size=1)),
    )


def label_array(form: str, shard: OddShard) -> pa.Array:
    if form == "bool":
        return pa.array([row == "True" for row in shard.rows])
    if form == "text":
        return pa.array(shard.rows)
    if form == "large text":
        return pa.array(shard.rows, pa.large_string())
    codes = pa.array([shard.names.index(row) for row in shard.rows], pa.int32())
    if form == "categories":
        return pa.DictionaryArray.from_arrays(codes, pa.array(shard.names))
    return codes


def write_shard(file: Path, table: OddTable, shard: OddShard, painter: Painter) -> list[bytes]:
    """Write a shard; the pixels of its rows."""
    pictures = [painter.picture() for _ in shard.rows]
    encoded = []
    for picture in pictures:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    images = pa.array(encoded)
    if table.image_form == "structs":
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        images = pa.array([{"bytes": data, "path": "x.png"} for data in encoded], kind)
    labels = label_array(table.form, shard)
    if table.fault == "no label" and file.name.find("train") >= 0:
        labels = pa.concat_arrays([labels.slice(0, len(labels) - 1), pa.nulls(1, labels.type)])
    arrow = pa.table({"image": images, "label": labels, "id": list(range(len(encoded)))})
    if table.form == "names":
        features = {"label": {"_type": "ClassLabel", "names": list(shard.names)}}
        about = json.dumps({"info": {"features": features}})
        arrow = arrow.replace_schema_metadata({"huggingface": about})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(arrow, file, row_group_size=2)
    return [picture.tobytes() for picture in pictures]


def make_table(place: Path, table: OddTable) -> dict[str, list[tuple[str, bytes]]]:
    """Write the files; split -> (class, pixels) of every row, in order."""
    painter = Painter()
    wanted: dict[str, list[tuple[str, bytes]]] = {}
    for split, shards in table.shards.items():
        wanted[split] = []
        for number, shard in enumerate(shards):
            name = table.layout.format(split=split, n=number, m=len(shards), hash="-9f3c1e")
            pixels = write_shard(place / name, table, shard, painter)
            wanted[split] += list(zip(shard.rows, pixels, strict=True))
    for name in table.extra:
        (place / name).write_text("words")
    return wanted


@ODD
@given(tables())
def test_odd_parquet_files_are_read_as_a_plain_reader_reads_them(table):
    with tempfile.TemporaryDirectory() as base:
        place = Path(base) / "set"
        place.mkdir()
        if table.fault == "unknown class" and table.form != "bool":
            shard = table.shards["test"][-1]
            shard.rows = [*shard.rows, "unheard of"]
            shard.names = ["unheard of", *shard.names]
        wanted = make_table(place, table)
        words = ""
        shards = table.shards["train"]
        has_total = "{m" in table.layout
        first = table.layout.format(split="train", n=0, m=len(shards), hash="-9f3c1e")
        if table.fault == "missing shard" and len(shards) == 3 and has_total:
            name = table.layout.format(split="train", n=1, m=3, hash="-9f3c1e")
            (place / name).unlink()
            words = "shard 1 is missing"
        elif table.fault == "missing shard" and len(shards) == 3:
            name = table.layout.format(split="train", n=1, m=3, hash="")
            (place / name).unlink()
            words = "but not the one with number 1"
        elif table.fault == "twice" and has_total and "hash" in table.layout:
            shutil.copy(place / first, place / first.replace("9f3c1e", "aa"))
            words = "are both shard 0"
        elif table.fault == "unknown class" and table.form != "bool":
            words = "is of the class 'unheard of', which the training split does not have"
        elif table.fault == "no label" and "train" in Path(first).name:
            words = "has no label"
        if words:
            with pytest.raises(ValueError) as caught:
                load_images(place)
            assert words in str(caught.value)
            return
        data = load_images(place)
        assert sorted(data.class_names) == sorted(table.classes)
        splits = {"train": data.train, "test": data.test, "validation": data.validation}
        for split, own in wanted.items():
            read = splits[split]
            pixels_NHWC = read.images_NCHW.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
            names = [data.class_names[label] for label in read.labels.tolist()]
            assert names == [name for name, _ in own]
            assert [image.tobytes() for image in pixels_NHWC] == [image for _, image in own]
