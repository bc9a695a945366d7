"""The state of a search: everything that it is, as tensors and plain values.

Names, not places, say what belongs to what: a network may declare its layers, and a choice its
operations, in another order than when the state was saved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from gradnas.gradients import ArchitectureGradient
from gradnas.objectives.cost import CostState, ExpectedCost
from gradnas.randomness import (
    other_random_state,
    random_state,
    set_other_random_state,
    set_random_state,
)
from gradnas.relaxations import Relaxation
from gradnas.runs import State
from gradnas.search.costs import Spending
from gradnas.search.feed import Feed
from gradnas.search.freezing import Freezing
from gradnas.search.health import Health
from gradnas.search.passes import Passes
from gradnas.search.rewards import Rewards
from gradnas.search.schedule import Schedule
from gradnas.search.selecting import Selecting
from gradnas.search.terms import Terms
from gradnas.selections import Selection
from gradnas.spaces.base import Supernet

# What a state must have to be one of a search.
ENTRIES = {
    "supernet",
    "weight_optimizer",
    "alpha_optimizer",
    "kinds",
    "operations",
    "weight_names",
    "alpha_names",
    "epoch",
    "epochs",
    "steps",
    "steps_before_epoch",
    "baseline",
    "seed",
    "feed",
    "random_state",
}


class Stateful(Protocol):
    """The parts of a search that a state is of."""

    supernet: Supernet
    relaxation: Relaxation
    gradient: ArchitectureGradient
    cost: ExpectedCost | None
    alphas: dict[str, nn.Parameter]
    weight_optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Adam
    schedule: Schedule
    passes: Passes
    rewards: Rewards | None
    spending: Spending | None
    terms: Terms
    selection: Selection
    selecting: Selecting | None
    freezing: Freezing | None
    feed: Feed
    health: Health

    @property
    def device(self) -> torch.device:
        """Where the weights are."""


def state_of(search: Stateful) -> dict[str, Any]:
    """`Search.state_dict`."""
    supernet = search.supernet
    schedule = search.schedule
    operations = {name: list(names) for name, names in supernet.operation_names().items()}
    state: dict[str, Any] = {
        "supernet": supernet.state_dict(),
        "weight_optimizer": search.weight_optimizer.state_dict(),
        "alpha_optimizer": search.alpha_optimizer.state_dict(),
        "kinds": _kinds(search),
        "operations": operations,
        "weight_names": _names_in(search.weight_optimizer, supernet),
        "alpha_names": list(search.alphas),
        "epoch": schedule.epoch,
        "epochs": schedule.epochs,
        "steps": schedule.steps,
        "steps_before_epoch": schedule.steps_before_epoch,
        "baseline": None if search.rewards is None else search.rewards.baseline,
        "seed": search.passes.seed,
        "feed": search.feed.state_dict(),
        "health": search.health.state_dict(),
        "random_state": random_state(search.device),
        "other_random_state": other_random_state(),
        "own_values": search.passes.own_state.state_dict(),
    }
    if supernet.initial is not None:
        state["initial"] = dict(supernet.initial)
    if search.freezing is not None:
        state["freezing"] = search.freezing.state_dict()
    if search.selecting is not None:
        state["selecting"] = search.selecting.state_dict()
    if search.spending is not None:
        state["cost"] = search.spending.state.state_dict()
    return state


def take_over(search: Stateful, state: State) -> None:
    """`Search.load_state_dict`."""
    missing = ENTRIES - state.keys()
    if missing:
        lacks = f"it lacks {', '.join(sorted(missing))}"
        if {"supernet", "weight_optimizer", "alpha_optimizer"} <= state.keys():
            raise ValueError(
                f"the state was written by an earlier version of gradnas ({lacks}), which did not "
                "say what search it is of: finish that search with the version that wrote it, or "
                "begin again; its weights and alphas alone are in state['supernet'], for "
                "search.supernet.load_state_dict"
            )
        raise ValueError(f"this is not the state of a Search: {lacks}")
    own_kinds = _kinds(search)
    for what, saved in state["kinds"].items():
        if saved != own_kinds[what]:
            raise ValueError(
                f"the state is of a search with the {what} {saved}, this one has "
                f"{own_kinds[what]}: make the Search with the same settings"
            )
    supernet = search.supernet
    columns = _columns(search, state["operations"])
    tensors = dict(state["supernet"])
    by_identity = {id(alpha): name for name, alpha in search.alphas.items()}
    for key, p in supernet.named_parameters():
        name = by_identity.get(id(p))
        if name in columns and key in tensors:
            tensors[key] = tensors[key][..., columns[name]]
    try:
        supernet.load_state_dict(tensors)
        search.weight_optimizer.load_state_dict(
            _by_name(
                state["weight_optimizer"],
                state["weight_names"],
                search.weight_optimizer,
                supernet,
            )
        )
        search.alpha_optimizer.load_state_dict(_alpha_state(search, state, columns))
    except (RuntimeError, KeyError, ValueError, IndexError) as error:
        raise ValueError(f"the state is of another network or optimiser: {error}") from error
    search.schedule.epoch = state["epoch"]
    search.schedule.epochs = state["epochs"]
    search.schedule.steps = state["steps"]
    search.schedule.steps_before_epoch = state["steps_before_epoch"]
    search.passes.seed = state["seed"]
    search.feed = Feed(state["feed"])
    if search.rewards is not None:
        search.rewards.baseline = state["baseline"]
    if search.freezing is not None:
        search.freezing.load_state_dict(state["freezing"])
    if search.selecting is not None:
        search.selecting.load_state_dict(state["selecting"], columns)
    if search.spending is not None:
        search.spending.state = CostState(**state["cost"])
    if supernet.initial is not None and "initial" in state:
        supernet.initial = dict(state["initial"])
    search.health.load_state_dict(state.get("health"), columns)  # states of before have none
    search.passes.own_state.load_state_dict(state.get("own_values", {}))
    # Last: nothing above may use up numbers of the state that goes on.
    set_random_state(state["random_state"], search.device)
    if "other_random_state" in state:  # a state of an earlier version has none
        set_other_random_state(state["other_random_state"])


# ---- what a state is of --------------------------------------------------------------------------


def _kinds(search: Stateful) -> dict[str, str]:
    """The settings that a state goes with, as text."""
    cost = "none" if search.cost is None else search.cost.quantity.name
    return {
        "relaxation": _described(search.relaxation),
        "gradient": _described(search.gradient),
        "optimiser of the weights": type(search.weight_optimizer).__name__,
        "cost": cost,
        "terms": _listed(search.terms.terms),
        "selection": _described(search.selection),
        "stabilizers": _listed(search.passes.steadying.stabilizers),
    }


def _described(method: Any) -> str:
    """A class with those of its settings that are plain values."""
    settings = []
    if dataclasses.is_dataclass(method):
        for field in dataclasses.fields(method):
            value = getattr(method, field.name)
            # The text of anything else may be another in each process.
            if value is None or isinstance(value, (bool, int, float, str)):
                settings.append(f"{field.name}={value!r}")
            elif dataclasses.is_dataclass(value):
                settings.append(f"{field.name}={_described(value)}")
    return f"{type(method).__name__}({', '.join(settings)})"


def _listed(methods: Sequence[Any]) -> str:
    return ", ".join(_described(method) for method in methods) or "none"


def _columns(search: Stateful, saved: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    """Choice -> where the state has the columns of its alpha, where they are not the same.

    Raises:
        ValueError: other operations; another order, where weights have no names of operations.
    """
    columns: dict[str, list[int]] = {}
    for choice, names in search.supernet.operation_names().items():
        before = list(saved.get(choice, names))
        if before == list(names):
            continue
        if set(before) != set(names):
            raise ValueError(
                f"the state is of another network: its choice {choice!r} has the operations "
                f"{before}, here it has {list(names)}"
            )
        if not search.supernet.weights_by_operation:
            raise ValueError(
                f"the state has the operations of {choice!r} in the order {before}, here it is "
                f"{list(names)}: build the space with that order"
            )
        columns[choice] = [before.index(name) for name in names]
    return columns


# ---- optimisers ----------------------------------------------------------------------------------


def _names_in(optimizer: torch.optim.Optimizer, net: nn.Module) -> list[list[str]]:
    """The names of the parameters of each group."""
    names = {id(p): name for name, p in net.named_parameters()}
    return [[names.get(id(p), "") for p in group["params"]] for group in optimizer.param_groups]


def _by_name(
    state: State, saved: Sequence[Sequence[str]], optimizer: torch.optim.Optimizer, net: nn.Module
) -> dict[str, Any]:
    """The state of an optimiser, with its parameters in the order of `optimizer`."""
    # A parameter that several modules share goes by any of its names.
    own = {name: id(p) for name, p in net.named_parameters(remove_duplicate=False)}
    places: dict[int, int] = {}
    number = 0
    groups = []
    for group, saved_group in zip(optimizer.param_groups, state["param_groups"], strict=True):
        indices = []
        for p in group["params"]:
            places[id(p)] = number
            indices.append(number)
            number += 1
        groups.append({**saved_group, "params": indices})

    entries: dict[int, Any] = {}
    for names, group, saved_group in zip(saved, groups, state["param_groups"], strict=True):
        for name, index in zip(names, saved_group["params"], strict=True):
            if name not in own:
                raise ValueError(f"there is no parameter {name!r}")
            place = places[own[name]]
            if place not in group["params"]:
                raise ValueError(f"{name!r} is in another parameter group")
            if index in state["state"]:
                entries[place] = state["state"][index]
    return {"state": entries, "param_groups": groups}


def _alpha_state(
    search: Stateful, state: State, columns: Mapping[str, list[int]]
) -> dict[str, Any]:
    """The state of the alphas' optimiser, its moments in the columns of this search."""
    saved = state["alpha_optimizer"]
    entries = {}
    own = list(search.alphas)
    for index, name in enumerate(state["alpha_names"]):
        if index not in saved["state"]:
            continue
        entry = dict(saved["state"][index])
        if name in columns:
            for key, value in entry.items():
                is_moment = isinstance(value, Tensor) and value.dim() > 0
                if is_moment:
                    entry[key] = value[..., columns[name]]
        entries[own.index(name)] = entry
    return {"state": entries, "param_groups": saved["param_groups"]}
