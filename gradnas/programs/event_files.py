"""Event files for TensorBoard, in `tensorboard/` of a run folder.

What a killed run wrote of epochs that it makes again is taken out when it goes on: nothing is there
twice.
"""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gradnas import distributed, extras
from gradnas.architectures.base import Architecture
from gradnas.config import visible
from gradnas.families import family_of
from gradnas.programs.reporting import complete_folder, family_of_folder
from gradnas.reports.folder import Folder
from gradnas.runs import METRICS, Epoch, Run

FOLDER = "tensorboard"


def _unsaid(sentences: Sequence[str]) -> None:
    """Say nothing."""


def check_installed() -> None:
    """MissingPackageError, a ValueError, without the package."""
    extras.need("tensorboard", extra="tensorboard", what="--tensorboard")


def check_continued(run: Run) -> None:
    """The same for a run that goes on, if it has event files."""
    if (run.path / FOLDER).is_dir():
        check_installed()


@contextmanager
def written(
    run: Run, space: object, *, wanted: bool, say: Callable[[Sequence[str]], None] = _unsaid
) -> Iterator[EventFiles | None]:
    """The event files of a run, by one process; None where they are not wanted.

    A run that has some already goes on with them.

    Args:
        space: of its configuration.
        say: is called with sentences about files that are damaged.

    Raises:
        MissingPackageError: TensorBoard is not installed.
    """
    wanted = wanted or (run.path / FOLDER).is_dir()
    if not wanted or not distributed.is_main():
        yield None
        return
    files = EventFiles(run, space, say)
    try:
        yield files
    finally:
        files.close()


class EventFiles:
    """An `on_epoch` that writes scalars, probabilities and the picture of the decision.

    Args:
        run: whose folder is read for what the epoch has left there.
        space: of the configuration, for the picture.
        say: is called with sentences about files that are damaged.

    Raises:
        MissingPackageError: TensorBoard is not installed.
    """

    def __init__(
        self, run: Run, space: object, say: Callable[[Sequence[str]], None] = _unsaid
    ) -> None:
        check_installed()
        self.say = say
        self.run = run
        self.space = space
        self.folder = run.path / FOLDER
        self._writer: Any = None

    def __call__(self, epoch: Epoch) -> None:
        """Write what an epoch has shown. It is on the disk when this returns."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        if self._writer is None:
            self._writer = self._begun(epoch.number)
        folder = complete_folder(self.run.path)
        values = [Summary.Value(tag=tag, simple_value=v) for tag, v in _scalars(epoch, folder)]
        if folder.is_search and folder.architecture is not None:
            png = self._picture(folder.architecture)
            width, height = struct.unpack(">II", png[16:24])  # as every PNG file begins
            image = Summary.Image(
                height=height, width=width, colorspace=4, encoded_image_string=png
            )
            values.append(Summary.Value(tag="decision", image=image))
        event = Event(wall_time=time.time(), step=epoch.number, summary=Summary(value=values))
        self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _begun(self, number: int) -> Any:
        """A new file that begins with the epochs before this one."""
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        there = sorted(self.folder.glob("*tfevents*")) if self.folder.is_dir() else []
        # A named pipe would make this wait for ever.
        before = [path for path in there if path.is_file() and not path.is_symlink()]
        kept = [event for step, event in sorted(_events(before).items()) if step < number]
        writer = EventFileWriter(str(self.folder))
        for event in kept:
            writer.add_event(event)
        writer.flush()
        is_damaged = bool(before) and len(kept) < number - 1
        for path in before:
            if is_damaged:
                path.rename(path.with_name(path.name.replace("tfevents", "damaged")))
            else:
                path.unlink()
        if is_damaged:
            self.say(
                [
                    f"the event files in {self.folder} are damaged: {len(kept)} of "
                    f"{number - 1} epochs are left, and {METRICS} has all; what was there is "
                    "kept under the name damaged"
                ]
            )
        return writer

    def _picture(self, architecture: Architecture) -> bytes:
        """A PNG file."""
        with tempfile.TemporaryDirectory() as place:
            path = Path(place) / "decision.png"
            family = family_of(architecture)
            family.picture(architecture, path, space=self.space, run=self.run.path)
            return path.read_bytes()


def _scalars(epoch: Epoch, folder: Folder) -> Iterable[tuple[str, float]]:
    """Measures, seconds, and the probability of every operation in every place."""
    for key, value in epoch.scalars.items():
        if not key.startswith("probability/"):
            yield key, value
    yield "seconds", epoch.seconds
    if folder.alphas:
        for mixture in family_of_folder(folder).mixtures(folder):
            for name, p in zip(mixture.operations, mixture.probabilities, strict=True):
                yield visible(f"probability/{mixture.place}/{name}"), p


def _events(paths: Iterable[Path]) -> dict[int, Any]:
    """Epoch -> its event, of files of this program; what is cut off at an end is passed over."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found = {}
    for path in paths:
        for event in LegacyEventFileLoader(str(path)).Load():
            if event.HasField("summary"):
                found[event.step] = event
    return found
