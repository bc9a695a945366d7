"""The folder of a study: its settings, its trials, and what each has come to.

study.json            the settings
plan/NAME.json        the configuration of a trial
trials/NAME/          its run folder
logs/NAME.txt         what it printed
failed/NAME.json      why it failed
equal.json            how many random architectures the cost of each method pays for
results.json          what came out; costs.json what it cost; report.html
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from gradnas import runs
from gradnas.config import JsonObject, from_json, read_object, to_json
from gradnas.files import remove_strays, strays
from gradnas.runs.checkpoint import changed_settings
from gradnas.runs.names import LOCK
from gradnas.study.plan import StudySettings, phase_of
from gradnas.study.trial_folder import TrialFolder
from gradnas.tasks import SEARCH_CONFIGS

SETTINGS = "study.json"
EQUAL = "equal.json"
COSTS = "costs.json"
NAMED_CHANGES = 4

# A folder without any of these holds no study, whatever else is in it.
OWN = (SETTINGS, "plan", "trials", "logs", "failed", EQUAL, COSTS, runs.RESULTS, runs.REPORT)


class StudyFolder:
    """The files of a study."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    # ---- the study -------------------------------------------------------------------------------

    @staticmethod
    def open(path: str | Path) -> StudyFolder:
        """The folder of a study that was begun. ValueError where it is none."""
        study = StudyFolder(path)
        if not study.path.is_dir():
            raise ValueError(f"there is no folder {study.path}")
        if not (study.path / SETTINGS).exists():
            is_run = (study.path / runs.CONFIG).exists()
            what = "it is a run folder" if is_run else f"it has no {SETTINGS}"
            raise ValueError(f"{study.path} holds no study: {what}")
        _ = study.settings
        return study

    @cached_property
    def settings(self) -> StudySettings:
        """What it is to do. ValueError where the file is damaged."""
        path = self.path / SETTINGS
        settings = from_json(StudySettings, read_object(path), str(path))
        if not settings.methods:
            raise ValueError(f"{path} names no methods")
        for name, config in settings.methods.items():
            kind = config.get("type") if isinstance(config, dict) else None
            if not isinstance(kind, str) or kind not in SEARCH_CONFIGS:
                raise ValueError(f"{path}: the method {name!r} is no search")
        return settings

    @property
    def is_begun(self) -> bool:
        """Whether there are settings."""
        return (self.path / SETTINGS).exists()

    def check_free(self) -> None:
        """ValueError where a new study may not be made here."""
        if not self.path.exists():
            return
        if not self.path.is_dir():
            raise ValueError(f"{self.path} is no folder; choose another one with --out")
        # The settings are written first: without them nothing here is of a study.
        passed_over = {path.name for path in strays(self.path, (SETTINGS,))} | {LOCK}
        others = sorted({path.name for path in self.path.iterdir()} - passed_over)
        if others and not self.is_begun:
            raise ValueError(
                f"{self.path} holds other files ({', '.join(others[:3])}) and no study: choose "
                "another folder with --out"
            )

    def begin(self, settings: StudySettings) -> None:
        """Write down what is to be done, or see that it is what was to be done.

        Raises:
            ValueError: the folder holds a study of other settings; names them.
        """
        now = to_json(settings)
        assert isinstance(now, dict)
        if self.is_begun:
            # How it was named (a path from elsewhere, perhaps) says nothing that the rest does not.
            before = to_json(replace(self._as_written_now(), what=settings.what))
            changes = changed_settings(before, now)
            if changes:
                named = "; ".join(changes[:NAMED_CHANGES])
                more = len(changes) - NAMED_CHANGES
                if more > 0:
                    named += f"; and {more} more"
                raise ValueError(
                    f"{self.path} holds a study of other settings: {named}. Give the same to go "
                    "on, or choose another folder with --out"
                )
            return
        runs.write_json(self.path / SETTINGS, now)

    def remove_killed_writes(self) -> None:
        """Remove what killed writes have left; the lock of the folder is held."""
        remove_strays(self.path, (SETTINGS, EQUAL, COSTS))
        for folder in (self.path / "plan", self.path / "failed"):
            if folder.is_dir():
                # Of any trial, also of one whose file has not come.
                names = {path.name[1:].rpartition(".")[0] for path in folder.glob(".*.json.*")}
                remove_strays(folder, names)

    def _as_written_now(self) -> StudySettings:
        """The settings with what this version of gradnas adds to the configurations of searches."""
        methods: dict[str, JsonObject] = {}
        for name, written in self.settings.methods.items():
            cls: Any = SEARCH_CONFIGS.get(str(written.get("type")))
            if cls is None:
                raise ValueError(f"{self.path / SETTINGS}: the method {name} is no search")
            again = to_json(from_json(cls, written, f"{self.path / SETTINGS}: {name}"))
            assert isinstance(again, dict)
            methods[name] = again
        return replace(self.settings, methods=methods)

    # ---- its trials ------------------------------------------------------------------------------

    def trial(self, name: str) -> TrialFolder:
        """A trial by its name, planned or not."""
        return TrialFolder(self.path, name)

    def names(self) -> list[str]:
        """The trials that were planned, searches first."""
        found = [path.stem for path in (self.path / "plan").glob("*-*.json")]
        order = {"search": 0, "short": 1, "final": 2}
        return sorted(found, key=lambda name: (order[phase_of(name)], name))

    def forget_failures(self) -> list[str]:
        """Let the trials that failed be tried again; returns their names."""
        names = []
        for path in sorted((self.path / "failed").glob("*.json")):
            path.unlink()
            names.append(path.stem)
        return names
