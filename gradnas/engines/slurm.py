"""Trials as jobs of Slurm, by submitit; a job that is requeued goes on."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from gradnas import extras
from gradnas.engines.base import (
    SECONDS_TO_SAVE,
    Ended,
    Engine,
    Job,
    carry_out,
    handed_on,
    sleep_until,
)


class SlurmEngine(Engine):
    """Jobs of Slurm, at most so many at once.

    Args:
        folder: for the files of submitit; all machines see it.
        workers: jobs at once.
        partition: of Slurm; None for its default.
        hours: limit of a job; when it is reached, the job is requeued and goes on.
        threads: cores of a job.
        gpus: devices of a job.
        cluster: `slurm`, or `local` for processes of this machine, to try a study out.

    Raises:
        MissingPackageError: submitit is not installed.
        ValueError: there is no Slurm on this machine.
    """

    def __init__(
        self,
        folder: Path,
        workers: int,
        partition: str | None = None,
        hours: float = 24.0,
        threads: int = 1,
        gpus: int = 0,
        cluster: str = "slurm",
    ) -> None:
        extras.need("submitit", extra="slurm", what="--engine slurm")
        import submitit

        self.slots = workers
        try:
            self._executor = submitit.AutoExecutor(folder, cluster=cluster)
        except RuntimeError as error:
            raise ValueError(
                f"--engine slurm: there is no Slurm on this machine ({error}); try the study out "
                "here with --cluster local"
            ) from error
        settings: dict[str, Any] = {
            "name": "gradnas",
            "timeout_min": max(1, round(60 * hours)),
            "cpus_per_task": threads,
            "gpus_per_node": gpus,
        }
        if partition is not None:
            settings["slurm_partition"] = partition
        self._executor.update_parameters(**settings)
        self._waiting: list[Job] = []
        self._at_work: dict[str, Any] = {}

    def submit(self, job: Job) -> None:
        self._waiting.append(job)
        self._fill()

    def _fill(self) -> None:
        assert self.slots is not None
        while self._waiting and len(self._at_work) < self.slots:
            job = self._waiting.pop(0)
            self._at_work[job.name] = self._executor.submit(Carried(job, handed_on()))

    def wait(self, seconds: float) -> list[Ended]:
        until = time.monotonic() + seconds
        while True:
            ended = []
            for name, work in list(self._at_work.items()):
                if work.done():
                    del self._at_work[name]
                    ended.append(_ending(name, work))
            self._fill()
            if ended or time.monotonic() >= until:
                return ended
            sleep_until(until)

    def cancel(self) -> None:
        self._waiting.clear()
        works = list(self._at_work.values())
        self._at_work.clear()
        for work in works:
            work.cancel()
        until = time.monotonic() + SECONDS_TO_SAVE
        while any(not work.done() for work in works) and time.monotonic() < until:
            sleep_until(until)


class Carried:
    """A job as submitit takes it; `checkpoint` says what a requeued one does: the same again."""

    def __init__(self, job: Job, environment: dict[str, str]) -> None:
        self.job = job
        self.environment = environment

    def __call__(self) -> int:
        return carry_out(self.job, {**os.environ, **self.environment})

    def checkpoint(self) -> Any:
        """What submitit puts into the queue again when the time of the job is over."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def _ending(name: str, work: Any) -> Ended:
    error = work.exception()
    if error is None:
        return Ended(name, work.result())
    text = str(error).strip()
    last = text.splitlines()[-1] if text else type(error).__name__
    return Ended(name, None, f"the job was lost ({last})")
