"""A user's data as streams of batches: of a data set, in our order, or of a loader, in its own.

Whatever is read is a function of (seed, epoch, batch number), as far as the user's code draws from
torch's, numpy's and Python's global generators, or from generators of a loader: those are seeded
for every batch. So a run is taken up at any batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from gradnas import distributed
from gradnas.data.base import Plan
from gradnas.randomness import seed_for, seeded
from gradnas.search.feed import length_of, to_device
from gradnas.search.reading import digest, own_generators
from gradnas.tasks.examples import Examples
from gradnas.tasks.your_task.collating import collated
from gradnas.tasks.your_task.counting import Known

Collate = Callable[[list[Any]], Any]


class Stream(Protocol):
    """Batches, epoch after epoch.

    Attributes:
        length: batches of an epoch; None where it is not known.
        is_tensors: rows of tensors, so that an epoch is the same whenever it is read.
    """

    @property
    def length(self) -> int | None: ...

    @property
    def is_tensors(self) -> bool: ...

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        """What is left of an epoch after `start` batches."""
        ...


class Source(ABC):
    """The training, validation or test data of a task.

    Attributes:
        what: in errors: "train", "valid", "test".
        is_tensors: rows of tensors, the same whenever they are read.
    """

    is_tensors = False

    def __init__(self, what: str) -> None:
        self.what = what

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Examples; None where it is not known."""

    @abstractmethod
    def stream(
        self, batch_size: int, seed: int, device: torch.device, *, shuffle: bool, workers: int = 0
    ) -> Stream:
        """Batches on the device; of a loader its own, whatever the other arguments say.

        With `shuffle` each of several processes has its part of every batch.
        """

    @abstractmethod
    def some(self, number: int) -> Any | None:
        """A batch of the first `number` examples; None where a loader makes the batches."""

    @abstractmethod
    def known(self) -> Known:
        """Small batches whose numbers of examples are known, as far as there are any."""

    @abstractmethod
    def halves(self, fraction: float, seed: int) -> tuple[Source, Source]:
        """A random part and the rest. ValueError for a loader."""

    def check_steady(self, seed: int) -> str | None:
        """A sentence where its batches are others each time it is read."""
        # Two for each of several processes, which share a batch.
        size = 2 * distributed.world()
        stream = self.stream(size, seed, torch.device("cpu"), shuffle=True)
        first = [digest(list(islice(stream.epoch(0), 1))) for _ in range(2)]
        if first[0] == first[1]:
            return None
        return (
            f"the {self.what} data are others each time they are read, with the same random "
            "numbers "
            "of torch, numpy and Python: a run that is stopped and resumed will not be the same to "
            "the bit"
        )


# ---- data sets -----------------------------------------------------------------------------------


class DatasetSource(Source):
    """A map-style data set or tensors: the order is ours."""

    def __init__(self, examples: Examples, what: str) -> None:
        super().__init__(what)
        self.examples = examples
        self.is_tensors = examples.is_tensors

    @property
    def size(self) -> int:
        return len(self.examples)

    def stream(
        self, batch_size: int, seed: int, device: torch.device, *, shuffle: bool, workers: int = 0
    ) -> DatasetStream:
        share = {"rank": distributed.rank(), "world": distributed.world()} if shuffle else {}
        plan = Plan(len(self.examples), batch_size, shuffle, seed, **share)
        return DatasetStream(self.examples, plan, device, workers)

    def some(self, number: int) -> Any:
        number = min(number, len(self.examples))
        with seeded(0):
            return self.examples.batch(self.examples.rows[:number])

    def known(self) -> Known:
        if self.is_tensors:  # each has a row for every example
            return ()
        numbers = [min(number, self.size) for number in (2, 3)]
        return [(self.some(number), number) for number in numbers]

    def halves(self, fraction: float, seed: int) -> tuple[Source, Source]:
        first, rest = self.examples.halves(fraction, seed)
        return DatasetSource(first, self.what), DatasetSource(rest, self.what)


class DatasetStream:
    """Batches of a data set, each read with random numbers of its own."""

    def __init__(
        self, examples: Examples, plan: Plan, device: torch.device, workers: int = 0
    ) -> None:
        self.examples = examples
        self.plan = plan
        self.device = device
        self.is_tensors = examples.is_tensors
        # Rows of tensors are taken at once; a process of its own would only copy them.
        self.workers = 0 if self.is_tensors else workers

    @property
    def length(self) -> int:
        return len(self.plan)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        batches = _Batches(self.examples, self.plan, epoch)
        read: Iterable[Any] = (batches[index] for index in range(start, self.length))
        if self.workers:
            read = DataLoader(
                batches,
                batch_size=None,
                sampler=range(start, self.length),
                num_workers=self.workers,
                generator=torch.Generator().manual_seed(0),  # its own: the global one stays
            )
        for batch in read:
            yield to_device(batch, self.device)


class _Batches(Dataset[Any]):
    """The batches of an epoch by their number: what a worker process is given."""

    def __init__(self, examples: Examples, plan: Plan, epoch: int) -> None:
        self.examples = examples
        self.plan = plan
        self.epoch = epoch
        self.order_N = plan.order(epoch)

    def __len__(self) -> int:
        return len(self.plan)

    def __getitem__(self, index: int) -> Any:
        first, last = self.plan.span(index)
        mine = self.plan.share(last - first)
        rows = self.examples.rows[self.order_N[first:last][mine]]
        if self.examples.is_tensors:
            return self.examples.batch(rows)
        with seeded(self.plan.seed, self.epoch, index, self.plan.rank):
            return self.examples.batch(rows)


# ---- loaders -------------------------------------------------------------------------------------


class LoaderSource(Source):
    """What makes its own batches, in an order of its own.

    Args:
        make: gives what is read in an epoch; called with the batch size of the run, which a stream
            of single examples needs.
    """

    def __init__(self, make: Callable[[int], Iterable[Any]], what: str) -> None:
        super().__init__(what)
        self.make = make

    @property
    def size(self) -> None:
        return None

    def stream(
        self, batch_size: int, seed: int, device: torch.device, *, shuffle: bool, workers: int = 0
    ) -> LoaderStream:
        del shuffle, workers
        if distributed.world() > 1:
            raise ValueError(
                f"the {self.what} data come from a loader, which would give every process the same "
                "batches: give a data set with a length and an index"
            )
        return LoaderStream(lambda: self.make(batch_size), self.what, seed, device)

    def some(self, number: int) -> None:
        del number

    def known(self) -> Known:
        """Of torch's loader the data set is asked, as it asks it for its batches."""
        loader = self.make(2)
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            return ()
        if loader.batch_size is None:  # batches by a rule of its own
            return ()
        with seeded(0):
            rows = [loader.dataset[row] for row in islice(loader.sampler, 3)]
            return [(loader.collate_fn(rows[:n]), n) for n in range(2, len(rows) + 1)]

    def halves(self, fraction: float, seed: int) -> tuple[Source, Source]:
        raise ValueError(
            "the train data come from a loader, which cannot be halved: give the task validation "
            "data for the alphas, Task(valid=...), or a data set with a length and an index"
        )


class LoaderStream:
    """The batches of a loader, epoch after epoch."""

    is_tensors = False

    def __init__(
        self, make: Callable[[], Iterable[Any]], what: str, seed: int, device: torch.device
    ) -> None:
        self.make = make
        self.what = what
        self.seed = seed
        self.device = device
        self.length = length_of(make())

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Any]:
        loader = self.make()
        generators = own_generators(loader)
        for generator in generators:
            generator.manual_seed(seed_for(self.seed, epoch))
        with seeded(self.seed, epoch):
            iterator = iter(loader)
        number = 0
        while True:
            # For every batch, so that the next ones do not depend on where the numbers stand now.
            for generator in generators:
                generator.manual_seed(seed_for(self.seed, epoch, number))
            with seeded(self.seed, epoch, number):
                try:
                    batch = next(iterator)
                except StopIteration:
                    break
            number += 1
            if number > start:
                yield to_device(batch, self.device)
        if number == 0:
            raise ValueError(f"the {self.what} loader yields no batch")


# ---- from what a user gives ----------------------------------------------------------------------


def source_of(given: Any, what: str, collate: Collate | None = None) -> Source:
    """The data that a task was given.

    Args:
        given: tensors of one length in a tuple or a dictionary, a data set with a length and an
            index, a loader, or a function that makes one of these.
        collate: from a list of examples to a batch, for data sets.

    Raises:
        ValueError: none of these, or empty.
    """
    if isinstance(given, type):
        raise ValueError(
            f"the {what} data are a class: give an object of it, {given.__name__}(...)"
        )
    if isinstance(given, Source):
        return given
    if not _is_data(given) and callable(given):
        return _made(given, what, collate)
    if isinstance(given, IterableDataset):
        return LoaderSource(
            lambda size: DataLoader(given, size, collate_fn=collate or collated), what
        )
    if isinstance(given, Iterator):
        raise ValueError(
            f"the {what} data are a {type(given).__name__}, which can be read once only: give a "
            "function that makes it anew"
        )
    if _has_rows(given):
        return _dataset(given, what, collate)
    if hasattr(given, "__iter__"):
        if collate is not None:
            raise ValueError(f"collate is for data sets, and the {what} data come from a loader")
        if length_of(given) == 0:
            raise ValueError(f"the {what} loader yields no batch")
        return LoaderSource(lambda size: given, what)
    raise ValueError(
        f"the {what} data must be a data set, tensors (x, y), or a function that makes a loader, "
        "not "
        f"{given!r}"
    )


def _is_data(given: Any) -> bool:
    return hasattr(given, "__iter__") or hasattr(given, "__getitem__")


def _has_rows(given: Any) -> bool:
    return hasattr(given, "__len__") and hasattr(given, "__getitem__")


def _made(make: Callable[[], Any], what: str, collate: Collate | None) -> Source:
    """What a function makes: once, or for every epoch anew where it can be read once only."""
    first = make()
    if isinstance(first, Iterator):
        return LoaderSource(lambda size: make(), what)
    if callable(first) and not _is_data(first):
        raise ValueError(f"the function of the {what} data gives another function, {first!r}")
    return source_of(first, what, collate)


def _dataset(given: Any, what: str, collate: Collate | None) -> DatasetSource:
    is_tuple = isinstance(given, tuple)
    if is_tuple or isinstance(given, Mapping):
        values = list(given.values()) if isinstance(given, Mapping) else list(given)
        for value in values:
            if not isinstance(value, Tensor) or value.dim() == 0:
                raise ValueError(
                    f"the {what} data are a {type(given).__name__} that holds a "
                    f"{type(value).__name__}: every entry must be a tensor with a row for each "
                    "example (torch.from_numpy makes one of an array)"
                )
        if collate is not None:
            raise ValueError(f"collate is for data sets, and the {what} data are tensors")
    examples = Examples(given, collate=collate or collated)
    if not len(examples):
        raise ValueError(f"the {what} data are empty")
    return DatasetSource(examples, what)


def first_batch(source: Source, batch_size: int, seed: int, device: torch.device) -> Any:
    """A batch of training.

    Raises:
        ValueError: there is none.
    """
    stream = source.stream(batch_size, seed, device, shuffle=True)
    return next(stream.epoch(0))


def axes_of_batch(source: Source) -> Sequence[Any] | None:
    """Batches of two and of three examples, to see where they differ; None of a loader."""
    two = source.some(2)
    return None if two is None else (two, source.some(3))
