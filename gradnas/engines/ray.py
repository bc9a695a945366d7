"""Trials as tasks of Ray, on this machine or on a cluster with a folder that all nodes see."""

from __future__ import annotations

import socket
from typing import Any

from gradnas import extras
from gradnas.engines.base import SECONDS_TO_SAVE, Ended, Engine, Job, carry_out, handed_on

SECONDS_TO_ANSWER = 15.0  # that the machine of an address has
RETRIES = 5  # of a trial whose worker or node was lost


class RayEngine(Engine):
    """Tasks of Ray with so many cores and devices each; a lost worker's trial is tried again.

    Args:
        workers: tasks at once on this machine, where no cluster is named.
        address: of a running cluster: `auto`, or `host:port`; None starts Ray on this machine.
        threads: cores of a task.
        gpus: devices of a task; a part of one is shared.

    Raises:
        MissingPackageError: ray is not installed.
        ValueError: nobody answers at the address.
    """

    def __init__(
        self, workers: int, address: str | None = None, threads: int = 1, gpus: float = 0.0
    ) -> None:
        extras.need("ray", extra="ray", what="--engine ray")
        import ray

        self._ray: Any = ray
        self.slots = workers if address is None else None
        quietly: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
        settings: dict[str, Any] = {"address": address, **quietly}
        where = f"--address {address}"
        if address is None:
            where = "--engine ray"
            settings = {"num_cpus": workers * threads, "include_dashboard": False, **quietly}
            if gpus == 0:
                settings["num_gpus"] = 0
        else:
            check_answers(address)
        try:
            ray.init(**settings)
        except Exception as error:  # of many kinds
            raise ValueError(f"{where}: Ray did not start ({_first_line(error)})") from error
        # The trial resumes by itself, so that a second start is as good as a first one.
        self._task = ray.remote(
            num_cpus=threads,
            num_gpus=gpus,
            max_retries=RETRIES,
            retry_exceptions=False,
        )(_carried_out)
        self._environment = handed_on()
        self._at_work: dict[Any, str] = {}

    def submit(self, job: Job) -> None:
        reference = self._task.options(name=job.name).remote(job, self._environment)
        self._at_work[reference] = job.name

    def wait(self, seconds: float) -> list[Ended]:
        if not self._at_work:
            return []
        done, _ = self._ray.wait(list(self._at_work), num_returns=1, timeout=seconds)
        ended = []
        for reference in done:
            name = self._at_work.pop(reference)
            try:
                ended.append(Ended(name, self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                why = f"Ray lost it {RETRIES + 1} times ({_first_line(error)})"
                ended.append(Ended(name, None, why))
        return ended

    def cancel(self) -> None:
        references = list(self._at_work)
        self._at_work.clear()
        try:
            for reference in references:
                # Not by force: the task then ends its process, which saves.
                self._ray.cancel(reference, force=False)
            if references:
                self._ray.wait(references, num_returns=len(references), timeout=SECONDS_TO_SAVE)
        except KeyboardInterrupt:
            for reference in references:
                self._ray.cancel(reference, force=True)
            raise

    def close(self) -> None:
        self._ray.shutdown()


def _carried_out(job: Job, environment: dict[str, str]) -> int:
    """What a worker of Ray does."""
    import os

    return carry_out(job, {**os.environ, **environment})


def check_answers(address: str) -> None:
    """ValueError where no machine answers at `host:port` (Ray itself would try for minutes)."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"--address is auto or host:port, not {address!r}")
    try:
        with socket.create_connection((host, int(port)), timeout=SECONDS_TO_ANSWER):
            return
    except (OSError, OverflowError) as error:
        raise ValueError(
            f"--address {address}: nobody answers there ({error}); start a cluster with: "
            "ray start --head"
        ) from error


def _first_line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
