"""`gradnas discover`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gradnas import runs
from gradnas.cli.begin import free_folder, typed
from gradnas.cli.commands.discover import DiscoverCommand
from gradnas.cli.options import given
from gradnas.config import from_json
from gradnas.programs import discovering


def discover(command: DiscoverCommand) -> None:
    settings = given(
        command,
        "target",
        "features",
        "weights",
        "example",
        "rows",
        "noise",
        "output",
        "primitives",
        "nodes",
        "effort",
        "max_complexity",
        "plain_darts",
        "seed",
    )
    if command.what is not None and command.what.endswith(".json"):
        _, description = typed(Path(command.what), discovering.DiscoverConfig)
        config = from_json(discovering.DiscoverConfig, description, command.what)
        config = replace(config, **settings)
    else:
        config = discovering.DiscoverConfig(data=command.what, **settings)
    out = command.out
    if out is None:
        stem = config.example or Path(str(config.data)).stem
        out = free_folder(f"discover-{stem}")
    discovering.check_free(out)
    config, found, seconds = discovering.discover(config)
    print("\n".join(discovering.front_lines(found)))
    discovering.save_discovery(config, found, seconds, out)
    files = ", ".join([runs.REPORT, discovering.LAW_TEX, discovering.LAW_PY, runs.RESULTS])
    print(f"{seconds:.1f} s; {files} in {out}")
