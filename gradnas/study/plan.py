"""What a study is to do: its settings, and its trials, each named by what it is.

A trial's name says everything that it depends on within the study (method and seed, or the
architecture and the seed), so that a study that is started again finds what is done by its names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject, check_numbers
from gradnas.tasks.division import Division

RANDOM = "random"  # the name of the method that every study has beside the others
Phase = Literal["search", "short", "final"]
PHASES: tuple[Phase, ...] = ("search", "short", "final")


@dataclass(frozen=True)
class StudySettings:
    """Everything that the results of a study depend on.

    Args:
        what: the recipe, the configuration file or the task, as it was named.
        seeds: searches of each method.
        seed: of the first of them, and of everything else.
        finals: final trainings of each chosen architecture.
        short_epochs, final_epochs: of the trainings that choose, and of the final ones.
        random: random architectures beside every method; None: as many as its cost pays for.
        candidates: of each search's verdict so many are trained briefly, too.
        training: recipe of the trainings.
        division: of the training data, for searches and for the trainings that choose.
        threads: cores that each trial computes with.
        methods: name -> the configuration of its searches, with the seed of the study.
        data: SHA-256 of the data's fingerprint.
    """

    what: str
    seeds: int
    seed: int
    finals: int
    short_epochs: int
    final_epochs: int
    training: str
    division: Division
    threads: int
    random: int | None = None
    candidates: int = 0
    methods: Mapping[str, JsonObject] = field(default_factory=dict)
    data: str = ""

    def __post_init__(self) -> None:
        check_numbers(self)


@dataclass(frozen=True)
class Trial:
    """One run of a study.

    Attributes:
        name: of its folder.
        config: of the run.
    """

    name: str
    phase: Phase
    config: JsonObject


def search_name(method: str, seed: int) -> str:
    """`search-darts-0`."""
    return f"search-{method}-{seed}"


def short_name(architecture: Architecture) -> str:
    """`short-` and the code of the architecture."""
    return f"short-{code_of(architecture)}"


def final_name(architecture: Architecture, number: int) -> str:
    """`final-`, the code of the architecture, and which of its trainings it is."""
    return f"final-{code_of(architecture)}-{number}"


def code_of(architecture: Architecture) -> str:
    """Ten characters that stand for an architecture in names."""
    return hashlib.sha256(architecture.to_text().encode()).hexdigest()[:10]


def phase_of(name: str) -> Phase:
    """What a trial of this name is."""
    for phase in PHASES:
        if name.startswith(f"{phase}-"):
            return phase
    raise ValueError(f"{name!r} is no trial of a study")
