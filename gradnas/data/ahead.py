"""The next batch is made while the step works on the one before, where a core is free for it.

What is made must be a function of its place alone: no global random state is read, so that it is
the same whether it is made beside the step or when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event
from typing import TypeVar

import torch

from gradnas import distributed

T = TypeVar("T")
_END = object()


def has_free_core(device: torch.device) -> bool:
    """Whether there are more cores than the run keeps busy.

    On the CPU these are the threads of torch, elsewhere the one that asks the device to compute;
    and those of all processes of the run.
    """
    busy = torch.get_num_threads() if device.type == "cpu" else 1
    return num_cores() > busy * distributed.world()


def num_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def one_ahead(items: Generator[T, None, None]) -> Iterator[T]:
    """The same items, each made by a thread of its own while the one before is worked on.

    An error comes where its item would have come. The thread ends with the iterator, also where
    that is left in the middle.
    """
    has_begun = Event()

    def begin() -> None:
        torch.set_num_threads(1)
        has_begun.set()

    def made() -> object:
        return next(items, _END)

    # The thread ends before the items are closed: a generator may be entered by one at a time.
    with closing(items), ThreadPoolExecutor(1, "gradnas-batches", initializer=begin) as thread:
        coming = thread.submit(made)
        # Every thread has a number of torch's threads of its own, but what one sets is also that
        # of threads which begin later: set back here.
        has_begun.wait()
        torch.set_num_threads(torch.get_num_threads())
        while (item := coming.result()) is not _END:
            coming = thread.submit(made)
            yield item  # type: ignore[misc]
