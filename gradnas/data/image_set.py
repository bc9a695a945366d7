"""Image sets before anything is decoded: which files, which split, which classes.

What is found is compared by name: the classes of every split are those of the training split, in
its numbers, or the set is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gradnas import extras
from gradnas.data.folder import (
    find_classes,
    folders_in,
    has_class_folders,
    hint_of_folder,
    split_folders,
)
from gradnas.data.names import TEST, TRAIN, VALIDATION, listed, split_named, splits_within
from gradnas.data.stream import Source
from gradnas.data.summary import LeftOut

if TYPE_CHECKING:  # pyarrow is of use to sets of rows alone
    from gradnas.data.rows import RowSource

LAYOUTS = (
    "train-*.parquet with test-*.parquet or validation-*.parquet (there or in data/), "
    "or train/<class>/*.jpg (or .png, ...) with test/<class>/*.jpg or val/<class>/*.jpg"
)


@dataclass(frozen=True)
class ImageSet:
    """A set before anything is decoded.

    Attributes:
        class_names: empty where nothing names the classes.
        validation: a split beside the test split.
        looked_for: the test splits that were looked for, in words.
        sizes_must_agree: images of several sizes are an error unless image_size is given;
            otherwise they are a reason to stream.
        left_out: what lies beside the splits and is not read.
        warnings: what looks wrong in names and labels, each a sentence.
    """

    name: str
    class_names: tuple[str, ...]
    train: Source
    test: Source | None
    looked_for: str
    sizes_must_agree: bool
    validation: Source | None = None
    left_out: tuple[LeftOut, ...] = ()
    warnings: tuple[str, ...] = ()

    def sources(self) -> list[Source]:
        """The sources of all splits."""
        return list(self.splits().values())

    def splits(self) -> dict[str, Source]:
        """The sources by what their images are for, in a sentence: "training", "test".

        Of test images alone, which stand for training images too, only "test".
        """
        if self.test is self.train:
            return {"test": self.test}
        splits = {"training": self.train}
        if self.validation is not None:
            splits["validation"] = self.validation
        if self.test is not None:
            splits["test"] = self.test
        return splits


# ---- where a set is ----------------------------------------------------------------------------


def is_hub_name(data: str) -> bool:
    """Whether `data` has the form owner/name of the Hugging Face hub (and not of a path ./name)."""
    return re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", data) is not None


def find_folder(folder: Path) -> ImageSet:
    """The set in a folder of one of the `LAYOUTS`; ValueError for what is missing or corrupt."""
    # Imported here: pyarrow is of use to sets of parquet files alone.
    from gradnas.data.shards import parquet_files

    name = folder.resolve().name
    splits = split_folders(folder)
    files = parquet_files(folder)
    if not (TRAIN in splits and has_class_folders(splits[TRAIN])):
        if files:
            return find_parquet(name, folder, files)
        files = []
    for file in files:
        if file.parent in (folder, folder / "data") and TRAIN in splits_within(file.stem):
            raise ValueError(
                f"{folder} holds parquet files ({file.name}) and folders of classes "
                f"({splits[TRAIN].name}/): give a folder with one of them"
            )
    if TRAIN in splits:
        class_names, train, others, left_out = find_classes(folder)
        test, validation = assigned(others)
        left_out += _beside(folder, files)
        return ImageSet(
            name,
            class_names,
            train,
            test,
            looked_for=f"test/<class>, val/<class>, validation/<class> in {folder}",
            sizes_must_agree=False,
            validation=validation,
            left_out=tuple(left_out),
            warnings=tuple(train.warnings),
        )
    state = "holds no image set" if any(folder.iterdir()) else "is empty"
    raise ValueError(f"{folder} {state}: expected {LAYOUTS}{hint_of_folder(folder)}")


def _beside(folder: Path, files: Sequence[Path]) -> list[LeftOut]:
    """What lies beside the folders of the splits."""
    parts = []
    others = [name for name in folders_in(folder) if split_named(name) is None]
    loose = [file for file in files if file.parent == folder]  # those in splits are counted there
    if others:
        parts.append(LeftOut(len(others), "folder of no split", "folders of no split", others[0]))
    if loose:
        what = "parquet file beside folders of classes"
        many = "parquet files beside folders of classes"
        parts.append(LeftOut(len(loose), what, many, loose[0].name))
    return parts


def assigned(others: Mapping[str, Source]) -> tuple[Source | None, Source | None]:
    """The test split and, beside it, the validation split.

    A validation split stands in for a test split that is not there, or whose labels are not told.
    """
    told = {split: source for split, source in others.items() if not is_untold(source)}
    test = told.get(TEST)
    validation = told.get(VALIDATION)
    if test is None:
        return validation, None
    return test, validation


def is_untold(source: Source) -> bool:
    """Whether all labels are -1: so the hub marks labels that are kept secret."""
    return bool((source.labels == -1).all())


def find_parquet(name: str, place: Path, files: Sequence[Path]) -> ImageSet:
    """The set in parquet files; ValueError for what is missing or corrupt."""
    # Imported here: pyarrow is of use to sets of parquet files alone.
    extras.need("pyarrow", extra="images", what="a set of parquet files")
    from gradnas.data.parquet import ParquetSource
    from gradnas.data.shards import by_split

    splits, left_out = by_split(place, files)
    if TRAIN not in splits:
        there = listed([file.name for file in files])
        raise ValueError(f"{place} has no training split: looked for train-*.parquet among {there}")
    train = ParquetSource(splits[TRAIN])
    others = {}
    for split in (TEST, VALIDATION):
        if split in splits:
            others[split] = ParquetSource(splits[split])
    looked_for = f"test-*.parquet and validation-*.parquet in {place}"
    return of_rows(name, train, others, looked_for, left_out)


def find_hub(name: str) -> ImageSet:
    """The set `name` of the Hugging Face hub; ValueError, in one sentence, if it cannot be had."""
    # Imported here: `datasets` is of use to sets of the hub alone, and slow to import.
    extras.need("datasets", extra="images", what=f"the set {name!r} of the Hugging Face hub")
    from gradnas.data.hub import HubSource, load_splits

    splits = load_splits(name)
    there = ", ".join(splits)
    by_split: dict[str, str] = {}
    left_out = []
    for own in splits:
        split = split_named(own)
        if split is None:
            left_out.append(own)
        elif split in by_split:
            raise ValueError(
                f"'{name}' has the splits {by_split[split]} and {own}, which are both a {split} "
                "split"
            )
        else:
            by_split[split] = own
    if TRAIN not in by_split:
        raise ValueError(f"'{name}' has no training split: looked for train among {there}")

    def source(split: str) -> HubSource:
        own = by_split[split]
        return HubSource(splits[own], f"{name}, split {own}")

    train = source(TRAIN)
    others = {split: source(split) for split in (TEST, VALIDATION) if split in by_split}
    unread = []
    if left_out:
        one = "split of another name"
        unread.append(LeftOut(len(left_out), one, "splits of other names", left_out[0]))
    looked_for = f"test and validation among its splits {there}"
    return of_rows(name, train, others, looked_for, unread)


# ---- rows with names -----------------------------------------------------------------------------


def of_rows(
    name: str,
    train: RowSource,
    others: Mapping[str, RowSource],
    looked_for: str,
    left_out: Sequence[LeftOut],
) -> ImageSet:
    """A set of rows, with the classes of its training split in every split.

    Raises:
        ValueError: the classes of a split cannot be told by those of the training split.
    """
    names = train.class_names or train.names_in_paths() or ()
    warnings = []
    unread = list(left_out)
    for split, source in others.items():
        if is_untold(source):
            what = f"{split} image without a label"
            many = f"{split} images without labels"
            unread.append(LeftOut(len(source), what, many, f"{source.place(0)} has -1"))
        else:
            warnings += match(source, train, names, split)
    test, validation = assigned(others)
    return ImageSet(
        name,
        names,
        train,
        test,
        looked_for,
        sizes_must_agree=True,
        validation=validation,
        left_out=tuple(unread),
        warnings=tuple(warnings),
    )


def match(source: RowSource, train: RowSource, names: Sequence[str], split: str) -> list[str]:
    """Number the labels of a split as those of the training split, by name.

    Args:
        names: the classes of the training split; empty where it has numbers alone.

    Returns:
        What is to be said where numbers had to be taken for what they stand for elsewhere.

    Raises:
        ValueError: the split has other classes, or its labels cannot be compared.
    """
    if source.class_names is not None:
        if train.class_names is None:
            raise ValueError(
                f"{source.name} names its classes ({listed(source.class_names)}), but the "
                f"training split, {train.name}, has numbers alone: what they stand for is not "
                "known; write both in the same way"
            )
        source.number_by(names, "the training split")
        return []
    if train.class_names is not None:
        return _numbers_for_names(source, train, names, split)
    if names:  # from the paths of the images
        _match_folders(source, names)
    return []


def _numbers_for_names(
    source: RowSource, train: RowSource, names: Sequence[str], split: str
) -> list[str]:
    """A split with numbers alone beside a training split whose classes have names."""
    if not train.names_in_rows:
        return [
            f"the labels of the {split} split ({source.name}) are numbers without names: they "
            f"are taken for the numbers of the training classes ({listed(names)})"
        ]
    by_text = {text: number for number, text in enumerate(names)}
    if all(text.isdecimal() for text in by_text):
        # Digits as text in one file and as numbers in the other
        source.number_by_table({int(text): number for text, number in by_text.items()})
        return []
    raise ValueError(
        f"the labels of {source.name} are numbers, and those of the training split are names "
        f"({listed(names)}): which number stands for which is not known; write both in the same way"
    )


def _match_folders(source: RowSource, names: Sequence[str]) -> None:
    """Number a split by the folders in its paths, where they are those of the training split."""
    numbers = {name: number for number, name in enumerate(names)}
    folders = source.folders_by_label()
    known = {label: numbers[folder] for label, folder in folders.items() if folder in numbers}
    if not known:
        return  # its paths tell no classes
    if len(known) < len(folders):
        other = next(folder for folder in folders.values() if folder not in numbers)
        raise ValueError(
            f"images of {source.name} lie in the folder {other!r}, which is no class of the "
            f"training split ({listed(names)})"
        )
    source.number_by_table(known)
