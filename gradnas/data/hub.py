"""Sets of the Hugging Face hub by name, downloaded and cached by its own library `datasets`."""

from __future__ import annotations

import os
import socket
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from gradnas.data.labels import labels_of
from gradnas.data.parquet import IMAGE_COLUMNS, LABEL_COLUMNS, pick_column
from gradnas.data.rows import RowSource
from gradnas.data.stream import BadImage

FOLDER_INSTEAD = (
    "use a local folder with train-*.parquet and test-*.parquet (as in the set's repository on the "
    "hub) or with train/<class>/*.jpg and val/<class>/*.jpg"
)


class HubSource(RowSource):
    """One split of an image set, as `datasets` gives it; ValueError for columns of no use."""

    def __init__(self, rows: Any, name: str) -> None:
        import datasets

        image = pick_column(rows.column_names, IMAGE_COLUMNS, "image", name)
        label = pick_column(rows.column_names, LABEL_COLUMNS, "label", name)
        if not isinstance(rows.features[image], datasets.Image):
            raise ValueError(f"{name}: column {image} holds {rows.features[image]}, not images")
        values = list(rows[label])
        if not values:
            raise ValueError(f"{name} has no rows")
        # decode=False gives the bytes as they are stored: images are decoded later, by workers.
        undecoded = datasets.Image(decode=False)
        self._rows = rows.select_columns([image]).cast_column(image, undecoded)
        self._image = image
        self._name = name
        names = getattr(rows.features[label], "names", None)  # a ClassLabel has them
        try:
            column = pa.chunked_array([pa.array(values)])
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise ValueError(f"{name}: labels of several types ({one_line(error)})") from error
        self.take({name: labels_of(column, names, f"{name}: column {label}")})

    def folders_by_label(self) -> dict[int, str]:
        return {}

    def read(self, index: int) -> bytes:
        value = self._rows[index][self._image]
        if value is not None and value["bytes"] is not None:
            return value["bytes"]
        if value is not None and value["path"]:
            return Path(value["path"]).read_bytes()
        raise BadImage(f"{self.where(index)} holds no image bytes")

    def where(self, index: int) -> str:
        return f"{self._name}, row {index},"


def load_splits(
    name: str, configuration: str | None = None, instead: str = FOLDER_INSTEAD
) -> dict[str, Any]:
    """All splits of the set `name` by their names.

    `instead` is what an error advises where the hub cannot be reached. ValueError, in one sentence,
    if the set cannot be had.
    """
    import datasets
    from datasets.exceptions import DatasetsError

    if not reachable() and not cached(name):
        raise ValueError(
            f"'{name}' is no local folder, and without a network the Hugging Face hub cannot be "
            f"asked for it: {instead}"
        )
    try:
        if configuration is None:
            splits = datasets.load_dataset(name)
        else:
            splits = datasets.load_dataset(name, configuration)
    except ConnectionError as error:
        raise ValueError(
            f"'{name}' is no local folder, and the Hugging Face hub could not be reached for it "
            f"({one_line(error)}): {instead}"
        ) from error
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        raise ValueError(
            f"the Hugging Face hub did not give '{name}': {one_line(error)}"
        ) from error
    return {str(split): rows for split, rows in splits.items()}


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".")


def reachable(timeout_s: float = 5.0) -> bool:
    """Whether to let `datasets` try the network, which takes it half a minute to find absent.

    True also where this cannot be told cheaply: behind a proxy, or in the library's own offline
    mode (which answers at once, from its cache).
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or urllib.request.getproxies():
        return True
    address = urlsplit(constants.ENDPOINT)
    usual_port = 443 if address.scheme == "https" else 80
    target = (address.hostname or "", address.port or usual_port)
    try:
        socket.create_connection(target, timeout_s).close()
    except OSError:
        return False
    return True


def cached(name: str) -> bool:
    """Whether `datasets` has the set in its cache from an earlier download."""
    from datasets import config

    folder = name.replace("/", "___")  # as `datasets` names it
    return os.path.isdir(os.path.join(config.HF_DATASETS_CACHE, folder))
