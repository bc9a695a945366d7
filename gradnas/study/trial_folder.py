"""The files of one trial of a study: what was planned, its run folder, its log, why it failed."""

from __future__ import annotations

from pathlib import Path

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.architectures.registry import load_architecture
from gradnas.config import JsonObject, read_object


class TrialFolder:
    """A trial by its name.

    Attributes:
        path: its run folder.
        planned: where its configuration is.
        log: where what it prints goes.
        failure: where it is written down that it failed.
    """

    def __init__(self, study: Path, name: str) -> None:
        self.name = name
        self.path = study / "trials" / name
        self.planned = study / "plan" / f"{name}.json"
        self.log = study / "logs" / f"{name}.txt"
        self.failure = study / "failed" / f"{name}.json"

    @property
    def run(self) -> runs.Run:
        """Its run folder, whatever is in it."""
        return runs.Run(self.path)

    def plan(self, config: JsonObject) -> None:
        """Write down its configuration, once."""
        self.planned.parent.mkdir(parents=True, exist_ok=True)
        if not self.planned.exists():
            runs.write_json(self.planned, config)

    def fail(self, sentence: str) -> None:
        """Write down that it failed."""
        self.failure.parent.mkdir(parents=True, exist_ok=True)
        runs.write_json(self.failure, {"sentence": sentence})

    @property
    def is_finished(self) -> bool:
        """Whether it has come to its end."""
        return self.run.status().get("status") == "finished"

    @property
    def has_failed(self) -> bool:
        """Whether it was given up; one that somebody has finished since has not failed."""
        return self.failure.exists() and not self.is_finished

    @property
    def is_over(self) -> bool:
        """Whether it has finished or failed."""
        return self.is_finished or self.failure.exists()

    @property
    def sentence(self) -> str:
        """Why it failed; empty where it did not."""
        if not self.has_failed:
            return ""
        return str(read_object(self.failure).get("sentence", ""))

    def architecture(self) -> Architecture:
        """What a finished search has found, or what a training is of."""
        return load_architecture(self.path / runs.GENOTYPE)

    def result(self, key: str) -> float | None:
        """A number of its results, once it has finished."""
        if not self.is_finished:
            return None
        value = self.run.result(key)
        return float(value) if isinstance(value, (int, float)) else None
