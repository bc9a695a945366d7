"""Sources that are rows of tables: their labels may be numbers, or have names of their own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from gradnas.data.labels import Labels, joined_names, renumbered
from gradnas.data.stream import Source


class RowSource(Source):
    """Rows of one split, in one or several files.

    Attributes:
        class_names: by label; None where the rows have numbers alone.
        parts: name of a file -> labels of its rows, in order.
    """

    class_names: tuple[str, ...] | None
    parts: dict[str, Labels]

    def take(self, parts: Mapping[str, Labels]) -> None:
        """Take the labels of the files, in one numbering.

        Raises:
            ValueError: no rows, or files whose labels cannot be compared.
        """
        self.parts = dict(parts)
        if not sum(len(labels.numbers_N) for labels in self.parts.values()):
            raise ValueError(f"{', '.join(self.parts)} has no rows")
        self.class_names = joined_names(self.parts)
        self.number_by(self.class_names or (), "the split")

    @property
    def name(self) -> str:
        """What the rows are called in a sentence: their first file."""
        return next(iter(self.parts))

    @property
    def names_in_rows(self) -> bool:
        """Whether the names of the classes were in the rows, so that their numbers are our own."""
        return any(labels.names_in_rows for labels in self.parts.values())

    def number_by(self, names: Sequence[str], known_from: str) -> None:
        """Give the labels the numbers of these classes, by name, where the files name theirs.

        Raises:
            ValueError: a row is of a class that is not among them.
        """
        numbers = []
        for file, labels in self.parts.items():
            numbers.append(renumbered(labels, names, file, known_from))
        self.labels = torch.from_numpy(np.concatenate(numbers))

    def number_by_table(self, numbers: Mapping[int, int]) -> None:
        """Give the labels other numbers: old -> new. Labels below 0 stay.

        Raises:
            ValueError: a label is not in the table.
        """
        for row, label in enumerate(self.labels.tolist()):
            if label < 0:
                continue
            if label not in numbers:
                raise ValueError(
                    f"{self.where(row)} has label {label}, but the training split has no such class"
                )
            self.labels[row] = numbers[label]

    def names_in_paths(self) -> tuple[str, ...] | None:
        """The class names that the images' paths (`train/cat/12.jpg`) give, or None.

        They give them if every label goes with one folder of its own.
        """
        folders = self.folders_by_label()
        num_classes = len(folders)
        if not folders or sorted(folders) != list(range(num_classes)):
            return None
        return tuple(folders[label] for label in range(num_classes))

    @abstractmethod
    def folders_by_label(self) -> dict[int, str]:
        """Label -> folder in the images' paths; empty unless each label has one of its own."""
