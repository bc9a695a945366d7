"""Parquet files in the Hugging Face layout, read with pyarrow directly: nothing is cached on disk.

A set is `train-*.parquet` with `test-*.parquet` or `validation-*.parquet` (also without the dash:
`train.parquet`). Its images are a column `img` or `image` of structs {bytes, path}, its labels a
whole-number column `label`, `labels` or `fine_label`; class names come from the schema's
`huggingface` metadata, else from the folders in the images' paths.
"""

from __future__ import annotations

import bisect
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from gradnas.config import parse_json
from gradnas.data.stream import BadImage, Source

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label")
CACHE_MIB = 256  # of encoded images that a reader keeps, per process


def split_files(folder: Path, split: str) -> list[Path]:
    """The parquet files of a split in `folder`, by name.

    ValueError if there are fewer than their names say (`-of-00004`).
    """
    files = sorted(folder.glob(f"{split}-*.parquet")) or sorted(folder.glob(f"{split}.parquet"))
    for file in files:
        shards = re.search(r"-\d+-of-(\d+)\.parquet$", file.name)
        if shards is None:
            continue
        num_shards = int(shards[1])
        if num_shards != len(files):
            raise ValueError(
                f"{file} is one of {num_shards} files by its name, but {folder} holds "
                f"{len(files)} of them"
            )
    return files


def pick_column(columns: Sequence[str], known: Sequence[str], what: str, where: str) -> str:
    """The first of the `known` names that is among the columns; ValueError if none is."""
    for name in known:
        if name in columns:
            return name
    raise ValueError(
        f"{where} has no {what} column ({' or '.join(known)}): its columns are {', '.join(columns)}"
    )


class ParquetSource(Source):
    """The rows of some parquet files, in order; ValueError for what cannot be used of them."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = [str(file) for file in files]
        self._read_last = RowGroups()
        self._groups: list[tuple[int, int]] = []  # (file, group in the file), of all row groups
        self._image = ""
        self.class_names: tuple[str, ...] | None = None
        labels: list[np.ndarray] = []
        # Row numbers at which a group or a file begins, and the number of all rows at the end
        self._starts = [0]
        self._file_starts = [0]
        for number, file in enumerate(self._files):
            reader = opened(file)
            schema = reader.schema_arrow
            image = pick_column(schema.names, IMAGE_COLUMNS, "image", file)
            label = pick_column(schema.names, LABEL_COLUMNS, "label", file)
            check_image_type(schema.field(image).type, image, file)
            if number == 0:
                self._image = image
                self.class_names = names_in_metadata(schema.metadata, label)
            labels.append(read_labels(reader, label, file))
            self._file_starts.append(self._file_starts[-1] + len(labels[-1]))
            for group in range(reader.metadata.num_row_groups):
                self._groups.append((number, group))
                num_rows = reader.metadata.row_group(group).num_rows
                self._starts.append(self._starts[-1] + num_rows)
        self.labels = torch.from_numpy(np.concatenate(labels))
        if not len(self.labels):
            raise ValueError(f"{', '.join(self._files)} has no rows")

    def read(self, index: int) -> bytes:
        group = bisect.bisect_right(self._starts, index) - 1
        data = self._read_last.column(self, group)[index - self._starts[group]].as_py()
        if data is None:
            raise BadImage(f"{self.where(index)} holds no image bytes")
        return data

    def where(self, index: int) -> str:
        file = bisect.bisect_right(self._file_starts, index) - 1
        return f"{self._files[file]}, row {index - self._file_starts[file]},"

    def names_in_paths(self) -> tuple[str, ...] | None:
        """The class names that the images' paths (`train/cat/12.jpg`) give, or None.

        They give them if every label goes with one folder of its own.
        """
        folders: dict[int, str] = {}  # label -> folder
        for number, file in enumerate(self._files):
            reader = opened(file)
            if reader.schema_arrow.field(self._image).type.get_field_index("path") < 0:
                return None
            paths = read_column(reader, self._image, "path", file).to_pylist()
            labels = self.labels[self._file_starts[number] : self._file_starts[number + 1]]
            for label, path in zip(labels.tolist(), paths, strict=True):
                folder = PurePosixPath(path or "").parent.name
                if not folder or folders.setdefault(label, folder) != folder:
                    return None
        num_classes = len(folders)
        every_label_occurs = sorted(folders) == list(range(num_classes))
        all_differ = len(set(folders.values())) == num_classes
        if not every_label_occurs or not all_differ:
            return None
        return tuple(folders[label] for label in range(num_classes))

    def load_group(self, group: int) -> pa.ChunkedArray:
        """The encoded images of one row group of one file."""
        number, inside = self._groups[group]
        file = self._files[number]
        columns = [f"{self._image}.bytes"]
        try:
            # Without threads, which a fork of this process would not have.
            table = opened(file).read_row_group(inside, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise BadImage(f"{file} is corrupt in row group {inside}: {reason(error)}") from error
        return table.column(0).flatten()[0]


class RowGroups:
    """The row groups a process has read last, `CACHE_MIB` of them at most (the newest one always).

    Not sent to worker processes: each has its own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: OrderedDict[int, pa.ChunkedArray] = OrderedDict()

    def __reduce__(self) -> tuple[object, ...]:
        return RowGroups, ()

    def column(self, source: ParquetSource, group: int) -> pa.ChunkedArray:
        with self._lock:
            if group not in self._groups:
                self._groups[group] = source.load_group(group)
                while len(self._groups) > 1 and self._num_bytes() > CACHE_MIB * 2**20:
                    self._groups.popitem(last=False)  # the one that was read longest ago
            self._groups.move_to_end(group)
            return self._groups[group]

    def _num_bytes(self) -> int:
        return sum(column.nbytes for column in self._groups.values())


def opened(file: str) -> pq.ParquetFile:
    try:
        # Pre-buffering would start threads, which a fork of this process would not have.
        return pq.ParquetFile(file, pre_buffer=False)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{file} is not a parquet file that can be read (corrupt or cut short?): "
            f"{reason(error)}"
        ) from error


def reason(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


def check_image_type(kind: pa.DataType, column: str, file: str) -> None:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        raise ValueError(
            f"{file}: column {column} is of type {kind}, but images are structs {{bytes, path}}"
        )


def read_column(
    reader: pq.ParquetFile, column: str, field: str | None, file: str
) -> pa.ChunkedArray:
    """One column, or one field of a struct column, of a whole file."""
    try:
        name = f"{column}.{field}" if field else column
        values = reader.read(columns=[name], use_threads=False).column(0)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file} is corrupt in column {column}: {reason(error)}") from error
    return values.flatten()[0] if field else values


def read_labels(reader: pq.ParquetFile, column: str, file: str) -> np.ndarray:
    """The labels as int64; ValueError unless all rows have a whole number."""
    values = read_column(reader, column, None, file)
    if not pa.types.is_integer(values.type):
        raise ValueError(
            f"{file}: labels are whole numbers, but column {column} is of type {values.type}"
        )
    if values.null_count:
        row = values.is_null().to_pylist().index(True)
        raise ValueError(f"{file}, row {row}, has no label (column {column} is null)")
    return values.to_numpy().astype(np.int64)


def names_in_metadata(metadata: dict[bytes, bytes] | None, label: str) -> tuple[str, ...] | None:
    """The class names that Hugging Face `datasets` writes into a parquet schema, or None."""
    try:
        text = (metadata or {})[b"huggingface"].decode()
        features = parse_json(text, "metadata")["info"]["features"]
        names = features[label]["names"]
    except (KeyError, TypeError, ValueError):  # no such metadata, or a label that is no ClassLabel
        return None
    if isinstance(names, list):
        return tuple(names)
    return tuple(names[str(label)] for label in range(len(names)))  # {"0": "cat", "1": ...}
