"""Parquet files in the Hugging Face layout, read with pyarrow directly: nothing is cached on disk.

Which files are of which split is told by `shards`. Images are a column `img` or `image` of structs
{bytes, path} or of bytes, labels a column `label`, `labels` or `fine_label` (see `labels`); class
names come from the schema's `huggingface` metadata, from labels that are text, else from the
folders in the images' paths.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gradnas.config import parse_json
from gradnas.data.labels import Labels, labels_of
from gradnas.data.rows import RowSource
from gradnas.data.stream import BadImage

IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("label", "labels", "fine_label")
LARGEST_VALUE = 256 * 2**20  # bytes of an encoded image
LARGEST_RATIO = 1000  # of decoded to encoded bytes: images are compressed already
LARGEST_GROUP = 2**31  # bytes of those of a row group, which Arrow's offsets can count
ROWS_AT_ONCE = 64
CACHE_MIB = 256  # of encoded images that a reader keeps, per process


def pick_column(columns: Sequence[str], known: Sequence[str], what: str, where: str) -> str:
    """The first of the `known` names that is among the columns; ValueError if none is."""
    for name in known:
        if name in columns:
            return name
    raise ValueError(
        f"{where} has no {what} column ({' or '.join(known)}): its columns are {', '.join(columns)}"
    )


def only_column(schema: pa.Schema, known: Sequence[str], what: str, file: str) -> str:
    """The one of the `known` names that is among the columns; ValueError for none, or several."""
    named = [name for name in known if name in schema.names]
    if len(named) > 1:
        raise ValueError(
            f"{file} has several {what} columns ({' and '.join(named)}): leave the one that is "
            "meant"
        )
    return pick_column(schema.names, known, what, file)


def check_image_type(kind: pa.DataType, column: str, file: str) -> None:
    """ValueError unless a column holds images."""
    if not holds_structs(kind) and not holds_bytes(kind):
        raise ValueError(
            f"{file}: column {column} is of type {kind}, but images are structs {{bytes, path}}"
        )


def holds_structs(kind: pa.DataType) -> bool:
    """Whether a column is one of images the way `datasets` writes them."""
    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def holds_bytes(kind: pa.DataType) -> bool:
    """Whether a column is one of encoded images alone."""
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


class ParquetSource(RowSource):
    """The rows of some parquet files, in order; ValueError for what cannot be used of them."""

    def __init__(self, files: Sequence[Path]) -> None:
        self._files = [str(file) for file in files]
        self._read_last = RowGroups()
        self._groups: list[tuple[int, int]] = []  # (file, group in the file), of all row groups
        self._columns: list[str] = []  # of images, in each file
        self._has_structs: list[bool] = []
        parts: dict[str, Labels] = {}
        # Row numbers at which a group or a file begins, and the number of all rows at the end
        self._starts = [0]
        self._file_starts = [0]
        for number, file in enumerate(self._files):
            reader = opened(file)
            schema = reader.schema_arrow
            image = only_column(schema, IMAGE_COLUMNS, "image", file)
            label = only_column(schema, LABEL_COLUMNS, "label", file)
            check_image_type(schema.field(image).type, image, file)
            self._columns.append(image)
            self._has_structs.append(holds_structs(schema.field(image).type))
            names = names_of(features_in(schema.metadata).get(label))
            values = read_column(reader, label, None, file)
            parts[file] = labels_of(values, names, f"{file}: column {label}")
            self._file_starts.append(self._file_starts[-1] + len(values))
            for group in range(reader.metadata.num_row_groups):
                self._groups.append((number, group))
                num_rows = reader.metadata.row_group(group).num_rows
                self._starts.append(self._starts[-1] + num_rows)
        self.take(parts)

    def read(self, index: int) -> bytes:
        group = bisect.bisect_right(self._starts, index) - 1
        data = self._read_last.column(self, group)[index - self._starts[group]].as_py()
        if data is None:
            raise BadImage(f"{self.where(index)} holds no image bytes")
        return data

    def where(self, index: int) -> str:
        file = bisect.bisect_right(self._file_starts, index) - 1
        return f"{self._files[file]}, row {index - self._file_starts[file]},"

    def place(self, index: int) -> str:
        return Path(self.where(index).rstrip(",")).name

    def folders_by_label(self) -> dict[int, str]:
        folders: dict[int, str] = {}
        for number, file in enumerate(self._files):
            reader = opened(file)
            kind = reader.schema_arrow.field(self._columns[number]).type
            if not self._has_structs[number] or kind.get_field_index("path") < 0:
                return {}
            paths = read_column(reader, self._columns[number], "path", file).to_pylist()
            labels = self.labels[self._file_starts[number] : self._file_starts[number + 1]]
            for label, path in zip(labels.tolist(), paths, strict=True):
                folder = PurePosixPath(path or "").parent.name
                if not folder or folders.setdefault(label, folder) != folder:
                    return {}
        return folders if len(set(folders.values())) == len(folders) else {}

    def load_group(self, group: int) -> pa.ChunkedArray:
        """The encoded images of one row group of one file."""
        number, inside = self._groups[group]
        file = self._files[number]
        column = self._columns[number]
        columns = [f"{column}.bytes" if self._has_structs[number] else column]
        reader = opened(file)
        check_decoded_size(reader, inside, self.where(self._starts[group]))
        batches = []
        num_bytes = num_rows = 0
        try:
            # Without threads, which a fork of this process would not have. In parts, because values
            # that repeat take no room in a file, however large they are.
            parts = reader.iter_batches(
                ROWS_AT_ONCE, row_groups=[inside], columns=columns, use_threads=False
            )
            for batch in parts:
                batches.append(batch)
                num_bytes += batch.nbytes
                if num_bytes > LARGEST_GROUP:
                    raise BadImage(
                        f"{self.where(self._starts[group] + num_rows)} lies in a row group whose "
                        f"images take more than {LARGEST_GROUP // 2**20:,} MiB: write the file "
                        "with smaller row groups"
                    )
                self._check_values(batch.column(0), self._starts[group] + num_rows)
                num_rows += batch.num_rows
            table = pa.Table.from_batches(batches)
        except (pa.ArrowException, OSError) as error:
            raise BadImage(f"{file} is corrupt in row group {inside}: {reason(error)}") from error
        values = table.column(0)
        return values.flatten()[0] if self._has_structs[number] else values

    def _check_values(self, column: pa.Array, first: int) -> None:
        """`BadImage` for a value that is larger than any image; `first` is the row of the first."""
        values = column.flatten()[0] if pa.types.is_struct(column.type) else column
        sizes = pc.call_function("binary_length", [values]).to_pylist()
        for place, size in enumerate(sizes):
            if size is not None and size > LARGEST_VALUE:
                raise BadImage(
                    f"{self.where(first + place)} holds {size // 2**20:,} MiB, more than "
                    f"{LARGEST_VALUE // 2**20:,} MiB: images are smaller"
                )


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


def check_decoded_size(reader: pq.ParquetFile, group: int, first: str) -> None:
    """`BadImage` for a row group that would be decoded to more than images take.

    Args:
        first: where its first row is, in words.
    """
    metadata = reader.metadata.row_group(group)
    for number in range(metadata.num_columns):
        column = metadata.column(number)
        size = column.total_uncompressed_size
        largest = min(LARGEST_GROUP, LARGEST_VALUE * metadata.num_rows)
        if size > LARGEST_RATIO * column.total_compressed_size:
            largest = min(largest, LARGEST_VALUE)
        if size > largest:
            raise BadImage(
                f"{first} and the {metadata.num_rows - 1} rows after it would take "
                f"{size // 2**20:,} MiB when decoded (column {column.path_in_schema}, "
                f"{column.total_compressed_size:,} bytes in the file), more than "
                f"{largest // 2**20:,} MiB: images are smaller"
            )


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


def features_in(metadata: Mapping[bytes, bytes] | None) -> dict[str, Any]:
    """The features that `datasets` writes into a parquet schema; empty without them."""
    try:
        features = parse_json((metadata or {})[b"huggingface"].decode(), "metadata")
        features = features["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return features if isinstance(features, dict) else {}


def names_of(feature: Any) -> tuple[str, ...] | None:
    """The class names of a feature; None if it is no class label."""
    names = feature.get("names") if isinstance(feature, dict) else None
    if isinstance(names, dict):  # {"0": "cat", "1": ...}
        names = [names.get(str(label)) for label in range(len(names))]
    if not isinstance(names, list):
        return None
    texts = [name for name in names if isinstance(name, str)]
    return tuple(texts) if texts and len(texts) == len(names) else None
