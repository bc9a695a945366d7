"""Kinds of data, one folder (or file) each; a new kind is one line here."""

from __future__ import annotations

from gradnas.tasks.base import SearchSettings, TrainSettings
from gradnas.tasks.images import IMAGES
from gradnas.tasks.kind import Kind
from gradnas.tasks.text import TEXT
from gradnas.tasks.your_task import YOUR_TASK

KINDS: tuple[Kind, ...] = (IMAGES, TEXT, YOUR_TASK)

SEARCH_CONFIGS: dict[str, type[SearchSettings]] = {
    kind.search_config.__name__: kind.search_config for kind in KINDS
}
TRAIN_CONFIGS: dict[str, type[TrainSettings]] = {
    kind.train_config.__name__: kind.train_config for kind in KINDS
}


def kind_of(config: str | SearchSettings | TrainSettings) -> Kind:
    """The kind that a configuration, or a configuration class of this name, belongs to.

    Raises:
        ValueError: no kind has a configuration of that name (gives all).
    """
    name = config if isinstance(config, str) else type(config).__name__
    for kind in KINDS:
        if name in (kind.search_config.__name__, kind.train_config.__name__):
            return kind if isinstance(config, str) else kind.of(config)
    known = ", ".join([*SEARCH_CONFIGS, *TRAIN_CONFIGS])
    raise ValueError(f"no configuration is called {name!r}, only {known}")
