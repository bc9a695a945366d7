"""`gradnas resume`: what it takes."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from gradnas.cli.options import Command, Device, Imports, OtherData, Run, Source


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
    imports: Imports = None
    """Module with a class of your own that the run uses."""
