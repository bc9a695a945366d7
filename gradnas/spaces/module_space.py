"""The choices of a module of one's own as a search space: its settings, and what it builds."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from gradnas.architectures.choices import Choices
from gradnas.config import JsonObject, build, did_you_mean, to_json
from gradnas.modules.skip import Skip
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.base import NetworkSpace
from gradnas.spaces.chosen import with_chosen
from gradnas.spaces.module_choices import choices_in, reached_choices
from gradnas.spaces.your_module import ModuleSupernet

CHOICES = "choices"  # entry of a configuration file: the operations that a report names


class ModuleSpace(NetworkSpace[Choices]):
    """A space of the modules that `module` makes; a subclass is a frozen dataclass.

    In a configuration file it also lists its choices with their operations: a run folder holds no
    code, and a report names them.
    """

    @abstractmethod
    def module(self, **task: Any) -> nn.Module:
        """The freshly initialised module, with `gradnas.Choice`s in it.

        Args:
            task: what the data decide (channels in, classes out), each with a default.
        """

    def run_once(self, module: nn.Module) -> None:
        """Call a module that was just made, so that each `Skip` in it knows what it stands for.

        A class that knows what its module is called with does it; else the network is refused.
        """
        del module

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """Choice -> its operations."""
        with torch.random.fork_rng(devices=[]):
            return choices_in(self.module())

    def supernet(self, seed: int = 0, **task: Any) -> ModuleSupernet:
        """The module with every choice open; `seed` is of the alphas' start."""
        return ModuleSupernet(self.module(**task), seed)

    def network(self, decision: Choices, /, **task: Any) -> nn.Module:
        """The plain module with each choice replaced by what was decided, freshly initialised."""
        module = self.module(**task)
        choices_in(module)  # gives a name to those without one
        if any(isinstance(one, Skip) and not one.has_learnt for one in module.modules()):
            self.run_once(module)
        return with_chosen(module, self.decision(decision))

    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()) -> Choices:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            supernet = self.supernet()
            for name, alpha in supernet.alphas.items():
                alpha.copy_(alphas[name])
        return supernet.decide(relaxation)

    def decision(self, what: Choices | str) -> Choices:
        """Choices from their text; those that are given are checked and returned.

        Raises:
            ValueError: a choice or an operation that the module does not have (with the nearest).
        """
        decision = Choices.parse(what) if isinstance(what, str) else what
        names = self.names
        for name, operation in decision.items():
            if name not in names:
                raise ValueError(
                    f"{type(self).__name__} has no choice {name!r}{did_you_mean(name, names)}"
                )
            if operation not in names[name]:
                hint = did_you_mean(operation, names[name])
                raise ValueError(f"the choice {name!r} has no operation {operation!r}{hint}")
        return decision

    def random_decision(self, generator: torch.Generator) -> Choices:
        """Operations drawn uniformly, without those of choices that are then not reached."""
        with torch.random.fork_rng(devices=[]):
            module = self.module()
        chosen = {}
        for name, operations in choices_in(module).items():
            column = int(torch.randint(len(operations), (), generator=generator, device="cpu"))
            chosen[name] = operations[column]
        names = reached_choices(module, chosen)
        return Choices({name: chosen[name] for name in chosen if name in names})

    # -- its entry in a configuration file --

    def to_json(self) -> JsonObject:
        """The fields, and the choices with their operations."""
        entries = {}
        for field in fields(self):
            entries[field.name] = to_json(getattr(self, field.name))
        listed = {name: list(operations) for name, operations in self.names.items()}
        return {**entries, CHOICES: listed}

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> Self:
        """From the fields; the choices are those of the module, whatever the file lists."""
        return build(cls, {key: item for key, item in data.items() if key != CHOICES}, where)
