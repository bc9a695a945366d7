"""`gradnas resume`: what it takes."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from gradnas.cli.options import Command, Device, Flag, Imports, OtherData, Run, Source, TaskFile


@dataclass(frozen=True)
class ResumeCommand(Command):
    """Go on with a run that was stopped, from its last checkpoint."""

    work = "gradnas.cli.resume:resume"

    folder: Positional[Run]
    """Run folder of a search, of a training, or of a discovery (which begins again)."""
    device: Device = None
    """Another device than before (the result is then no longer the same to the bit)."""
    data: Source = None
    """Where the data are now, if they were moved; they must be the same."""
    other_data: OtherData = None
    """Go on although the data are not those that the run began with."""
    task: TaskFile = None
    """Of a run on a task of your own: its file, which is run."""
    other_task: Flag = None
    """Go on although that file has changed since the run began."""
    local_batch_norm: Flag = None
    """Of several processes: let each normalise over its own share of a batch."""
    imports: Imports = None
    """Module with a class of your own that the run uses."""
