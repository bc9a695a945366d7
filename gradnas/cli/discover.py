"""`gradnas discover`."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from gradnas import runs
from gradnas.cli.begin import free_folder, guarded, out_folder, say, typed
from gradnas.cli.commands.discover import DiscoverCommand
from gradnas.cli.lines import line
from gradnas.cli.options import given
from gradnas.config import from_json, load
from gradnas.data.located import located_source
from gradnas.programs import discovering
from gradnas.programs.going_on import begin, working_in
from gradnas.runs import Record
from gradnas.tasks.sentences import NextStep


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
        "max_seconds",
        "plain_darts",
        "loss",
        "form",
        "start",
        "compare",
        "seed",
    )
    if command.target is not None and len(command.target) == 1:
        settings["target"] = command.target[0]
    if command.what is not None and command.what.endswith(".json"):
        _, description = typed(Path(command.what), discovering.DiscoverConfig)
        config = from_json(discovering.DiscoverConfig, description, command.what)
        config = replace(config, **settings)
    else:
        config = discovering.DiscoverConfig(data=command.what, **settings)
    out = out_folder(command.out)
    if out is None:
        stem = config.example or Path(str(config.data)).stem
        out = free_folder(f"discover-{stem}")
    carry_out(config, out, new=True)


def begin_again(run: runs.Run) -> None:
    """Repeat a discovery that was stopped, in its folder."""
    path = run.path / runs.CONFIG
    config = load(discovering.DiscoverConfig, path)
    if config.data is not None:
        config = replace(config, data=located_source(config.data, run.path, ()))
    say([f"nothing is kept of a discovery on the way: the one of {run.path} begins again"])
    carry_out(config, run.path, new=False)


def carry_out(config: discovering.DiscoverConfig, out: Path, *, new: bool) -> None:
    """Find a law and leave it in a folder; of what is refused no new folder is left."""
    config, table = config.table()
    with working_in(out, new=new):
        run = begin(out, new, lambda: discovering.start_discovery(config, out))

        def work() -> Record:
            nonlocal seconds
            try:
                found, seconds = discovering.discover(config, table)
            except ValueError:
                if new:
                    runs.discard(run.path)
                raise
            line("\n".join(discovering.front_lines(found)))
            discovering.save_discovery(run, config, found, seconds)
            return {}

        seconds = 0.0
        guarded(run, work)
    files = ", ".join([runs.REPORT, runs.LAW_TEX, runs.LAW_PY, runs.RESULTS])
    line(f"{seconds:.1f} s; {files} in {out}")
    line(NextStep(f"gradnas report {shlex.quote(str(out))}", "(says where the page is)"))
