"""Trials as processes of this machine, by `concurrent.futures`."""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for

from gradnas.engines.base import Ended, Engine, Job, Stop, carry_out


class LocalEngine(Engine):
    """So many processes at once; each holds one of the devices, where some are named.

    Args:
        workers: processes at once.
        devices: numbers of CUDA devices, dealt out to the processes in turn; empty: all see all.
    """

    def __init__(self, workers: int, devices: Sequence[str] = ()) -> None:
        self.slots = workers
        self._pool = ThreadPoolExecutor(workers)  # a thread only waits for its process
        self._stop = Stop()
        self._at_work: dict[Future[int], str] = {}
        # Which device a process gets: of those that no other one has.
        self._free: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for number in range(workers):
            self._free.put(devices[number % len(devices)] if devices else None)

    def submit(self, job: Job) -> None:
        self._at_work[self._pool.submit(self._run, job)] = job.name

    def _run(self, job: Job) -> int:
        device = self._free.get()
        try:
            inherited = dict(os.environ)
            if device is not None:
                inherited["CUDA_VISIBLE_DEVICES"] = device
            return carry_out(job, inherited, self._stop)
        finally:
            self._free.put(device)

    def wait(self, seconds: float) -> list[Ended]:
        done, _ = wait_for(self._at_work, timeout=seconds, return_when=FIRST_COMPLETED)
        ended = []
        for future in done:
            name = self._at_work.pop(future)
            error = future.exception()
            if error is None:
                ended.append(Ended(name, future.result()))
            else:
                ended.append(Ended(name, None, f"it could not be started ({error})"))
        return ended

    def cancel(self) -> None:
        self._stop.asked = True
        for future in self._at_work:
            future.cancel()
        wait_for(self._at_work)
        self._at_work.clear()
        self._stop = Stop()

    def close(self) -> None:
        self._pool.shutdown()
