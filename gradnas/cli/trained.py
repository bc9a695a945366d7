"""`gradnas evaluate`, `generate` and `export`: what may be done with a trained network."""

from __future__ import annotations

import shlex

from gradnas import runs
from gradnas.cli.begin import device_of, say, say_read
from gradnas.cli.commands.trained import EvaluateCommand, ExportCommand, GenerateCommand
from gradnas.cli.lines import line
from gradnas.cli.own_task import with_given
from gradnas.programs.trained import export_trained, trained_run
from gradnas.tasks import kind_of
from gradnas.tasks.base import TrainSettings
from gradnas.tasks.division import MEASURED_ON
from gradnas.tasks.sentences import NextStep


def evaluate(command: EvaluateCommand) -> None:
    run, config = trained_run(command.folder)
    config, notes = with_given(config, command.task)
    say(notes)
    if config.division is not None:
        raise ValueError(
            f"{run.path} is a short training of a study, measured on {MEASURED_ON}: evaluate one "
            "of the final trainings of that study"
        )
    device = device_of(config.device if command.device is None else command.device)
    line(kind_of(config).evaluate(run, config, command.data, device, say_read))
    line(NextStep(f"gradnas report {shlex.quote(str(command.folder))}", "(a page about the run)"))


def generate(command: GenerateCommand) -> None:
    run, config = trained_run(command.folder)
    kind = kind_of(config)
    notes: list[str] = []
    text = kind.generate(
        run,
        config,
        command.prompt,
        command.tokens,
        command.temperature,
        command.seed,
        notes.append,
    )
    say(notes)
    line(text)


def export(command: ExportCommand) -> None:
    def bind(config: TrainSettings) -> TrainSettings:
        config, notes = with_given(config, command.task)
        say(notes)
        return config

    sentences: list[str] = []
    run = runs.Run.open(command.folder)
    for path in export_trained(run, command.out, bind, sentences.append, command.normalised):
        line(path)
    for sentence in sentences:
        line(sentence)
