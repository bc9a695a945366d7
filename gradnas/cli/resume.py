"""`gradnas resume`."""

from __future__ import annotations

from dataclasses import dataclass

from tyro.conf import Positional

from gradnas import runs
from gradnas.cli import search, train
from gradnas.cli.begin import device_of, typed
from gradnas.cli.options import Device, Run
from gradnas.config import from_json
from gradnas.tasks import SEARCH_CONFIGS, TRAIN_CONFIGS
from gradnas.tasks.base import SearchSettings


@dataclass(frozen=True)
class ResumeCommand:
    """Go on with a run that was stopped, from its last checkpoint."""

    folder: Positional[Run]
    """Run folder of a search or of a training."""
    device: Device = None
    """Another device than before (the result is then no longer the same to the bit)."""

    def run(self) -> None:
        run = runs.Run.open(self.folder)
        if run.status().get("status") == "finished":
            raise ValueError(f"{self.folder} is finished: there is nothing to go on with")
        path = run.path / runs.CONFIG
        cls, description = typed(path, *SEARCH_CONFIGS.values(), *TRAIN_CONFIGS.values())
        config = from_json(cls, description, str(path))
        device = device_of(self.device or config.device)
        data = config.load()
        if isinstance(config, SearchSettings):
            search.carry_out(config, run.path, data, device, new=False)
        else:
            train.carry_out(config, run.path, data, device, new=False)
