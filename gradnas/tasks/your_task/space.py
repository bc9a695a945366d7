"""The choices of a task's model as a search space."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradnas.architectures.base import Architecture
from gradnas.architectures.choices import Choices
from gradnas.config import JsonObject, build, to_json
from gradnas.gradients.base import same_randomness
from gradnas.latency.counts import in_eval_mode
from gradnas.modules.call import Call
from gradnas.spaces.module_choices import choices_in, places_in
from gradnas.spaces.module_space import CHOICES, ModuleSpace
from gradnas.tasks.your_task.calls import example_call
from gradnas.tasks.your_task.given import GivenTask, not_here


@dataclass(frozen=True)
class TaskSpace(ModuleSpace):
    """The choices of a task's model.

    Args:
        choices: name -> operations.
        places: name -> where in the model it is: paths of modules with dots.
        model: makes the module, in no file.
        example: what it is called with, in no file.
    """

    choices: Mapping[str, tuple[str, ...]]
    places: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    model: Callable[[], nn.Module] | None = field(default=None, compare=False, repr=False)
    example: Callable[[], Call] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def of(
        cls, model: Callable[[], nn.Module], example: Callable[[], Call] | None = None
    ) -> TaskSpace:
        """That of a model, which is made once for it."""
        with torch.random.fork_rng(devices=[]):
            module = model()
        return cls(choices_in(module), places_in(module), model, example)

    def bound(self, given: GivenTask) -> TaskSpace:
        """The same with what makes the module.

        Raises:
            ValueError: a module with other choices.
        """
        own = TaskSpace.of(given.task.new_model, partial(example_call, given.task, 2))
        if not self.choices:
            return own
        for name in [*self.choices, *own.choices]:
            before = self.choices.get(name)
            now = own.choices.get(name)
            if before != now:
                had = "no such choice" if before is None else list(before)
                has = "no such choice" if now is None else list(now)
                raise ValueError(
                    f"the model of {given.source} is not that of the run: at the choice {name!r} "
                    "it has "
                    f"{has}, and the run had {had}"
                )
        return replace(own, choices=self.choices)

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        return dict(self.choices)

    def module(self, **task: Any) -> nn.Module:
        if self.model is None:
            raise not_here("MY_TASK.py")
        return self.model(**task)

    def run_once(self, module: nn.Module) -> None:
        if self.example is None:
            return
        call = self.example()
        with in_eval_mode(module), same_randomness(module.parameters()), torch.no_grad():
            call.on(module)

    # -- its entry in a configuration file --

    def to_json(self) -> JsonObject:
        return {CHOICES: to_json(self.choices), "places": to_json(self.places)}

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> TaskSpace:
        if "model" in data:
            raise ValueError(f"{where}: unknown field 'model'")
        return build(cls, data, where)


def choices_of(decided: Architecture, file: Path) -> Choices:
    """The architecture that a file holds, if it is that of a module with choices."""
    if not isinstance(decided, Choices):
        raise ValueError(f"{file} holds a {decided.noun}, and not the choices of a module")
    return decided
