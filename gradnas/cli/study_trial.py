"""`gradnas study trial`: one run of a study, begun or gone on with; what engines start."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from gradnas import runs
from gradnas.cli import search, train
from gradnas.cli.begin import device_of
from gradnas.cli.commands.resume import ResumeCommand
from gradnas.cli.lines import line
from gradnas.cli.methods import import_modules
from gradnas.cli.own_task import with_given
from gradnas.cli.resume import resume
from gradnas.engines.base import end_with_parent
from gradnas.programs.studying import read_trial
from gradnas.study.folder import StudyFolder
from gradnas.tasks.base import SearchSettings

SECONDS_BETWEEN_LOOKS = 1.0


def trial(folder: Path, task: str | None, imports: str | None) -> None:
    """Bring a trial to its end, whatever state it is in.

    Raises:
        ValueError: it cannot be, and why.
    """
    end_with_parent()
    import_modules(imports)
    study = StudyFolder.open(folder.parent.parent)
    name = folder.name
    if not study.trial(name).planned.exists():
        raise ValueError(f"{folder} is no trial of the study in {study.path}")
    has_waited = False
    while not study.trial(name).is_finished:
        if not runs.is_locked(folder):
            with contextlib.suppress(runs.Busy):  # somebody else was quicker
                _work(study, name, folder, task, imports)
            continue
        if not has_waited:
            line(f"note: another process works in {folder}: it is waited for", error=True)
        has_waited = True
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _work(
    study: StudyFolder, name: str, folder: Path, task: str | None, imports: str | None
) -> None:
    run = runs.Run(folder)
    if (folder / runs.CONFIG).exists() and run.has_checkpoint:
        resume(ResumeCommand(folder=folder, task=task, imports=imports), follows=False)
        return
    config = read_trial(study, name)
    config, _ = with_given(config, task)
    device = device_of(config.device)
    data = config.load()
    if isinstance(config, SearchSettings):
        search.carry_out(config, folder, data, device, new=True, follows=False)
    else:
        train.carry_out(config, folder, data, device, new=True)
