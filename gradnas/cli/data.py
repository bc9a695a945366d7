"""`gradnas data show`: what would be read of data, before any run."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from gradnas.cli.commands.data import DataCommand
from gradnas.cli.lines import line
from gradnas.cli.options import flag, given
from gradnas.config import did_you_mean
from gradnas.tasks import KINDS
from gradnas.tasks.base import DataSettings
from gradnas.tasks.kind import Kind

OPTIONS = ("image_size", "fit", "test_fraction", "per_class", "max_pixels", "level", "min_count")


def show(command: DataCommand) -> None:
    kind = _kind(command)
    data = _settings(command, kind).load()
    for sentence in kind.read(data).sentences():
        line(sentence)
    for sentence in kind.notes(data):
        line(f"note: {sentence}")
    for sentence in kind.suspicions(data):
        line(f"warning: {sentence}")
    sheet = kind.sheet(data, command.out or Path(kind.sheet_name))
    if sheet.suffix == ".txt":  # what a terminal can show
        line(sheet.read_text(encoding="utf-8").rstrip("\n"))
    line(sheet)


def _kind(command: DataCommand) -> Kind[Any, Any, Any]:
    """The kind that was named, or that takes the source for its own."""
    with_data = {kind.name: kind for kind in KINDS if kind.data_config is not None}
    name = command.kind
    if name is not None and name not in with_data:
        hint = did_you_mean(name, with_data)
        raise ValueError(f"no kind of data is called {name!r}{hint}: {', '.join(with_data)}")
    if name is not None:
        return with_data[name]
    for kind in with_data.values():
        if kind.claims(command.data):
            return kind
    options = " or ".join(f"--kind {name}" for name in with_data)
    raise ValueError(
        f"{command.data!r} does not tell what kind of data it is, or is not there: give {options}"
    )


def _settings(command: DataCommand, kind: Kind[Any, Any, Any]) -> DataSettings:
    """The data with the options that were given; ValueError for one that they do not have."""
    assert kind.data_config is not None
    options = given(command, *OPTIONS)
    settings: Any = kind.data_config()
    known = {field.name for field in fields(settings)}
    for name in options:
        if name not in known:
            raise ValueError(f"{flag(name)} is no setting of {kind.name}")
    return replace(settings, source=command.data, **options)
