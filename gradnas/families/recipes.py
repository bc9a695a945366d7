"""Every family's recipes by name, and what follows a search.

A recipe is a function that returns a whole configuration; it stands with its family.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import fields, replace

from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject, did_you_mean
from gradnas.families import FAMILIES, family_of, family_of_space
from gradnas.families.base import Searches
from gradnas.spaces import Space
from gradnas.tasks import KINDS, SEARCH_CONFIGS, kind_of
from gradnas.tasks.base import DataSettings, SearchSettings, Trainings, TrainSettings


def searches() -> Searches:
    """The recipes of searches by name, family by family, then those of kinds of data."""
    named = {}
    for owner in (*FAMILIES, *KINDS):
        named.update(owner.searches)
    return named


def trainings() -> Trainings[TrainSettings]:
    """The recipes of trainings by name, family by family, then those of kinds of data."""
    named = {}
    for owner in (*FAMILIES, *KINDS):
        named.update(owner.trainings)
    return named


SEARCHES = searches()
TRAININGS = trainings()


def about(recipe: Callable[..., object]) -> str:
    """What a recipe is: the first paragraph of its docstring, on one line."""
    first, _, _ = (inspect.getdoc(recipe) or "").partition("\n\n")
    return " ".join(first.split())


def search_recipe(name: str) -> SearchSettings:
    """A search recipe by name. Raises ValueError that gives the nearest name and all of them."""
    if name not in SEARCHES:
        hint = did_you_mean(name, SEARCHES)
        raise ValueError(f"unknown recipe {name!r}{hint}; searches: {', '.join(SEARCHES)}")
    config = SEARCHES[name]()
    keeps_name = any(field.name == "recipe" for field in fields(config))
    return replace(config, recipe=name) if keeps_name else config


def training_recipe(name: str, genotype: Architecture) -> TrainSettings:
    """A training recipe by name. Raises ValueError that gives the nearest name and all of them."""
    if name not in TRAININGS:
        hint = did_you_mean(name, TRAININGS)
        raise ValueError(f"unknown recipe {name!r}{hint}; trainings: {', '.join(TRAININGS)}")
    return TRAININGS[name](genotype)


def training_after(architecture: Architecture, what: str, searched: JsonObject) -> str:
    """The recipe an architecture is trained with when none is named.

    Args:
        what: its published name, or where it was read.
        searched: the configuration of the search that found it; empty where there was none.
    """
    name = str(searched.get("type"))
    if name in SEARCH_CONFIGS:
        of_kind = kind_of(name).trainings
        if of_kind:
            return next(iter(of_kind))
    return family_of(architecture).training_after(what, searched)


def training_of(
    architecture: Architecture, what: str, searched: JsonObject, name: str | None = None
) -> tuple[str, TrainSettings]:
    """How an architecture is trained, with its size and the data that it was found on.

    Args:
        what: its published name, or where it was read.
        searched: the configuration of the search that found it; empty where there was none.
        name: of a recipe; None takes the one that belongs to the search.

    Returns:
        The name of the recipe, and the configuration.

    Raises:
        ValueError: no recipe trains it, or this one trains another kind of network.
    """
    if name is None:
        name = training_after(architecture, what, searched)
    config = training_recipe(name, architecture)
    space = training_space(config, architecture, what, searched.get("space"))
    data = training_data(name, config, searched.get("data", {}))
    config = replace(config, space=space, data=data)
    return name, kind_of(config).following(config, searched)


def space_of(architecture: Architecture, what: str, searched: JsonObject | None) -> Space | None:
    """The space of a published architecture, or of the run with this entry in its configuration.

    None where it is unknown.
    """
    return family_of(architecture).space_of(what, searched)


def follows(name: str, searched: JsonObject) -> bool:
    """Whether a recipe trains on the data of the search before it; arguments as `training_data`."""
    # Recipes for ImageNet are for transfer: what was found on small images is trained there.
    is_transfer = name.endswith("imagenet-eval")
    return not is_transfer and bool(searched.get("source"))


def training_data(name: str, config: TrainSettings, searched: JsonObject) -> DataSettings:
    """The data to train on: those of the search before it, where there was one.

    Args:
        name: of the recipe.
        config: of the training.
        searched: the entry for the data in the configuration of the search.
    """
    if not follows(name, searched):
        return config.data
    known = {field.name for field in fields(config.data)}
    wanted = [name for name in kind_of(config).data_of_search if name in known]
    kept = {name: searched[name] for name in wanted if name in searched}
    return replace(config.data, **kept)


def training_space(
    config: TrainSettings, architecture: Architecture, what: str, searched: JsonObject | None
) -> Space:
    """The size of network to train: a chain at its own, cells at that of the recipe.

    Raises:
        ValueError: a chain with a recipe for cells, a recurrent cell with one for images, or the
            other way round.
    """
    family = family_of(architecture)
    if not family.of_space(config.space):
        same_data = family_of_space(config.space).kind is family.kind
        kind = family.called if same_data else family.called_elsewhere
        raise ValueError(
            f"{what} is {kind}, and the recipe trains another kind of network: "
            "choose another --recipe"
        )
    return family.training_space(config.space, architecture, what, searched)
