"""`gradnas resume`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from tyro.conf import Positional

from gradnas import distributed, runs
from gradnas.cli import search, train
from gradnas.cli.begin import device_of, typed
from gradnas.cli.methods import import_modules
from gradnas.cli.options import Device, Imports, Run, Source
from gradnas.config import from_json
from gradnas.tasks import SEARCH_CONFIGS, TRAIN_CONFIGS, kind_of
from gradnas.tasks.base import SearchSettings


@dataclass(frozen=True)
class ResumeCommand:
    """Go on with a run that was stopped, from its last checkpoint."""

    folder: Positional[Run]
    """Run folder of a search or of a training."""
    device: Device = None
    """Another device than before (the result is then no longer the same to the bit)."""
    data: Source = None
    """Where the data are now, if they were moved; they must be the same."""
    imports: Imports = None
    """Module with a class of your own that the run uses."""

    def run(self) -> None:
        import_modules(self.imports)
        run = runs.Run.open(self.folder)
        if run.status().get("status") == "finished":
            raise ValueError(f"{self.folder} is finished: there is nothing to go on with")
        path = run.path / runs.CONFIG
        cls, description = typed(path, *SEARCH_CONFIGS.values(), *TRAIN_CONFIGS.values())
        config = from_json(cls, description, str(path)).located(run.path)
        if self.data is not None:
            config = replace(config, data=replace(config.data, source=self.data))
        device = device_of(self.device or config.device)
        data = config.load()
        kind_of(config).check_same(run, data)
        if self.data is not None and distributed.is_main():
            # Here alone a configuration changes: what comes after the run looks there too.
            description["data"]["source"] = str(Path(self.data).expanduser().resolve())
            if not Path(self.data).expanduser().exists():
                description["data"]["source"] = self.data  # a name
            runs.write_json(path, description)
        if isinstance(config, SearchSettings):
            search.carry_out(config, run.path, data, device, new=False)
        else:
            train.carry_out(config, run.path, data, device, new=False)
