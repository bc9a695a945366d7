"""How far the trials of a study have come, and what they cost; read from their run folders."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gradnas import runs
from gradnas.config import read_object
from gradnas.environment import is_at_work
from gradnas.reports.folder import number
from gradnas.study.folder import StudyFolder
from gradnas.study.plan import Phase, phase_of


@dataclass(frozen=True)
class TrialState:
    """How far a trial has come.

    Attributes:
        state: waiting, running, stopped, finished or failed.
        epoch, epochs: finished, and how many there will be.
        seconds: that its epochs have taken.
        cost: CPU seconds of its epochs, or device seconds on CUDA.
        value: what is measured: on held-out data, or on the test data; None before its end.
        sentence: why it failed.
    """

    name: str
    phase: Phase
    state: str
    epoch: int = 0
    epochs: int = 0
    seconds: float = 0.0
    cost: float = 0.0
    value: float | None = None
    sentence: str = ""

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes of it."""
        return self.state in ("finished", "failed")

    @property
    def left(self) -> float | None:
        """Seconds to the end of its epochs; None where nobody knows."""
        if self.state != "running" or not self.epoch:
            return None
        return (self.epochs - self.epoch) * self.seconds / self.epoch


def cost_of(study: StudyFolder, name: str) -> float:
    """CPU seconds of the epochs of a trial; seconds of the device on CUDA.

    What a killed trial lost, and did again, counts once; the start of a process does not.
    """
    run = study.trial(name).run
    key = "cpu_seconds" if _is_on_cpu(run) else "seconds"
    return _total(run, key)


def _is_on_cpu(run: runs.Run) -> bool:
    path = run.path / runs.ENVIRONMENT
    if not path.exists():
        return True
    return str(read_object(path).get("device", "cpu")).startswith("cpu")


def state_of(study: StudyFolder, name: str, key: str) -> TrialState:
    """How far a trial has come; `key` is the result that is its value."""
    trial = study.trial(name)
    run = trial.run
    status = run.status()
    seconds = _total(run, "seconds")
    state = "waiting"
    sentence = ""
    if status.get("status") == "finished":
        state = "finished"
    elif trial.has_failed:
        state = "failed"
        sentence = trial.sentence
    elif is_at_work(status):
        state = "running"
    elif status:
        state = "stopped"
    return TrialState(
        name,
        phase_of(name),
        state,
        epoch=len(run.records(runs.METRICS)),
        epochs=_planned_epochs(trial.planned),
        seconds=seconds,
        cost=cost_of(study, name) if status else 0.0,
        value=trial.result(key),
        sentence=sentence,
    )


def all_states(study: StudyFolder, key: str) -> Iterator[TrialState]:
    """All trials as they are now."""
    for name in study.names():
        yield state_of(study, name, key)


def _total(run: runs.Run, key: str) -> float:
    """The sum of an entry over all epochs; ValueError where one is no number."""
    total = 0.0
    for line, record in enumerate(run.records(runs.TIMINGS), 1):
        total += number(record.get(key, 0.0), f"{run.path / runs.TIMINGS}, line {line}: {key}")
    return total


def _planned_epochs(path: Path) -> int:
    epochs = read_object(path).get("epochs", 0)
    if type(epochs) is not int:
        raise ValueError(f"{path}: epochs must be a whole number, not {epochs!r}")
    return epochs
