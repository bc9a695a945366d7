"""Random networks of a task, within the budget of its search."""

from __future__ import annotations

import warnings

import torch

from gradnas.architectures.choices import Choices
from gradnas.randomness import seeded
from gradnas.search.costs import counted_costs
from gradnas.spaces.affordable import cost_of
from gradnas.spaces.your_module import ModuleSupernet
from gradnas.tasks.your_task.search import example_of
from gradnas.tasks.your_task.settings import TaskTrainConfig

MOST_DRAWS = 2000
CPU = torch.device("cpu")


def random_choices(config: TaskTrainConfig, generator: torch.Generator) -> Choices:
    """Choices drawn uniformly among those within the budget; among all, where there is none.

    Raises:
        ValueError: of so many draws none is within it.
    """
    if config.cost is None or not config.cost.is_budget:
        return config.space.random_decision(generator)
    with seeded(0):
        supernet = ModuleSupernet(config.space.module())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the search has said them
        example = example_of(config.data.load(), config.cost, CPU)
        costs = counted_costs(supernet, config.cost, example, CPU)
    for _ in range(MOST_DRAWS):
        decision = config.space.random_decision(generator)
        if cost_of(supernet, decision, costs) <= config.cost.limit:
            return decision
    raise ValueError(
        f"of {MOST_DRAWS} random networks none is within {config.cost.limit_name}="
        f"{config.cost.limit:g}: train without --random"
    )
