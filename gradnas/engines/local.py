"""Trials as processes of this machine, by `concurrent.futures`."""

from __future__ import annotations

import os
import queue
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for

import torch

from gradnas.engines import warm
from gradnas.engines.base import Ended, Engine, Job, Stop, carry_out

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_devices() -> list[str]:
    """The CUDA devices that this process sees, each as `CUDA_VISIBLE_DEVICES` calls it."""
    count = torch.cuda.device_count()
    # Within a job of a cluster, for example, 0 and 1 may be others than those of the machine.
    named = [name.strip() for name in os.environ.get(VISIBLE, "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


class LocalEngine(Engine):
    """So many processes at once; each holds one of the devices, where some are named.

    Args:
        workers: processes at once.
        devices: of CUDA, as `CUDA_VISIBLE_DEVICES` calls them, dealt out to the processes in turn;
            empty: all see all.
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
                inherited[VISIBLE] = device
            begin = warm.fork if warm.is_possible(job) else None
            return carry_out(job, inherited, self._stop, begin)
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
        try:
            wait_for(self._at_work)
        except KeyboardInterrupt:
            self._stop.at_once = True
            wait_for(self._at_work)
            raise
        finally:
            self._at_work.clear()
            self._stop = Stop()

    def close(self) -> None:
        self._pool.shutdown()
