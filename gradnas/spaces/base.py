"""What every search space is: something that builds a supernet, derives a discrete choice, and builds that network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor, nn

from gradnas.choice import Draw
from gradnas.relaxations import Relaxation, Softmax

Weights = Literal["keep", "fresh"]


class Supernet(nn.Module, ABC):
    """A network in which every choice is open.

    `alphas` (choice name -> logits) are parameters, so `state_dict`, devices and checkpoints see them; `Search` keeps
    them out of the weight optimiser.
    """

    alphas: nn.ParameterDict

    @abstractmethod
    def forward(self, *inputs: Any, draw: Draw | None = None, **named: Any) -> Any:
        """The mixture that `draw` describes; without one, `softmax(alpha)`."""

    @abstractmethod
    def decide(self, relaxation: Relaxation = Softmax()) -> Any:
        """The discrete architecture that the alphas stand for now (a genotype, or a dictionary of choices)."""

    @abstractmethod
    def skip_count(self, decision: Any) -> int:
        """How many of the chosen operations are skip connections: many of them are the mark of a collapsed search."""

    @abstractmethod
    def derived(self, decision: Any, weights: Weights = "keep") -> nn.Module:
        """The plain network of a decision, with the supernet's weights or with fresh ones."""

    def tables(self) -> dict[str, Tensor]:
        """Detached copies of the alphas on the CPU, by name."""
        return {name: alpha.detach().to("cpu", copy=True) for name, alpha in self.alphas.items()}

    def dense_draw(self) -> Draw:
        """`softmax(alpha)` with every operation active."""
        return Softmax().draw(dict(self.alphas.items()), {}, 0.0)


class Space(ABC):
    """A search space: a frozen dataclass whose fields say how large it is."""

    @abstractmethod
    def supernet(self, **task: Any) -> Supernet:
        """The network with every choice open, for a task (channels in, classes out)."""

    @abstractmethod
    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()) -> Any:
        """Alphas -> discrete architecture."""

    @abstractmethod
    def network(self, decision: Any, **task: Any) -> nn.Module:
        """The plain network of a discrete architecture, freshly initialised."""
