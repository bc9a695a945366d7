"""What a kind of data knows of the data themselves: how they are read, known again, and shown."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Generic

from gradnas import runs
from gradnas.data.fingerprint import Fingerprint
from gradnas.data.summary import DataSummary
from gradnas.tasks.base import D, T


class DataPart(ABC, Generic[T, D]):
    """The part of a `Kind` that is about its data.

    Attributes:
        name: as in `Kind`.
    """

    name: str

    # -- what they are --

    def claims(self, source: str) -> bool:
        """Whether a name or a path is one of data of this kind, as far as it tells by itself."""
        del source
        return False

    @abstractmethod
    def read(self, data: D) -> DataSummary:
        """What was read."""

    @abstractmethod
    def fingerprint(self, data: D) -> Fingerprint:
        """What the data are known again by, when a run is resumed or followed by a training."""

    def suspicions(self, data: D) -> list[str]:
        """What looks wrong in the data at a closer look than `read` takes, each a sentence."""
        del data
        return []

    def sheet(self, data: D, path: Path) -> Path:
        """Write samples of the data as they reach the network, with their labels; the path.

        Raises:
            ValueError: there is no such picture, or the path has another ending than it can.
        """
        del data, path
        raise ValueError(f"of {self.name} there is no sheet of samples")

    def notes(self, data: D) -> list[str]:
        """What a user must know of the data of a run."""
        return list(getattr(data, "notes", ()))

    # -- the data of a run --

    def begin(self, run: runs.Run, data: D) -> None:
        """Write into a new run folder what must be known of the data later."""
        del run, data

    def check_same(self, run: runs.Run, data: D) -> None:
        """ValueError where the run cannot go on with these data: its network does not fit them.

        Whether they are the data that it began with is asked of the fingerprint.
        """
        del run, data

    def after_search(self, run: runs.Run, config: T, data: D) -> list[str]:
        """What differs between the data of a search and those of the training that follows it.

        Raises:
            ValueError: they differ in what the network was searched for.
        """
        del run, config, data
        return []
