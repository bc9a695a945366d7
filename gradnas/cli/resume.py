"""`gradnas resume`."""

from __future__ import annotations

from gradnas import distributed, runs
from gradnas.cli import search, train
from gradnas.cli.begin import DISCOVERY, device_of, say, typed
from gradnas.cli.commands.resume import ResumeCommand
from gradnas.cli.methods import import_modules
from gradnas.cli.own_task import with_given
from gradnas.config import from_json, read_object
from gradnas.data.located import expanded
from gradnas.engines.base import end_with_parent
from gradnas.modules.synchronised import keep_norms_local
from gradnas.pictures.canvas import check_installed
from gradnas.programs import event_files
from gradnas.programs.data_of_run import accept_data, check_data
from gradnas.programs.going_on import working_in
from gradnas.tasks import SEARCH_CONFIGS, TRAIN_CONFIGS, kind_of
from gradnas.tasks.base import SearchSettings


def resume(command: ResumeCommand, *, follows: bool = True) -> None:
    """Go on with a run; `follows` as of `search.carry_out`."""
    end_with_parent()  # one of several networks that are trained side by side
    import_modules(command.imports)
    keep_norms_local(bool(command.local_batch_norm))
    run = runs.Run.open(command.folder)
    if run.status().get("status") == "finished":
        raise ValueError(f"{command.folder} is finished: there is nothing to go on with")
    path = run.path / runs.CONFIG
    if read_object(path).get("type") == DISCOVERY:
        from gradnas.cli.discover import begin_again  # here, because sympy takes a second to import

        if command.data is not None or command.device is not None:
            raise ValueError("--data and --device are for searches and trainings, not discoveries")
        begin_again(run)
        return
    cls, description = typed(path, *SEARCH_CONFIGS.values(), *TRAIN_CONFIGS.values())
    config = from_json(cls, description, str(path)).located(run.path)
    check_installed()  # the picture at the end is drawn with it
    event_files.check_continued(run)
    if command.data is not None:
        config = config.with_source(command.data)
    config, notes = with_given(config, command.task, other_task=bool(command.other_task))
    say(notes)
    device = device_of(config.device if command.device is None else command.device)
    data = config.load()
    kind = kind_of(config)
    if not command.other_data:
        check_data(run, kind, data)
    with working_in(run.path, new=False):
        if command.other_data and distributed.is_main():
            say(accept_data(run, kind, data))
        distributed.barrier()
        if command.data is not None and distributed.is_main():
            # Here alone a configuration changes: what comes after the run looks there too.
            description["data"]["source"] = str(expanded(command.data).resolve())
            if not expanded(command.data).exists():
                description["data"]["source"] = command.data  # a name
            runs.write_json(path, description)
        if isinstance(config, SearchSettings):
            search.carry_out(config, run.path, data, device, new=False, follows=follows)
        else:
            train.carry_out(config, run.path, data, device, new=False)
