"""What every search space is: what builds a supernet, derives an architecture, builds its network.

The classes are generic over the kind of architecture that a search of the space decides for, so
that what one method gives is what the next one takes.

Legend: O operations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import Field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, Self

import torch
from torch import Tensor, nn

from gradnas.config import JsonObject
from gradnas.modules.draws import Active, Draw, OutsideSearch
from gradnas.precision import HALF
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.costs import D
from gradnas.spaces.edge_weights import edges_name
from gradnas.spaces.open_choices import OpenChoices

Weights = Literal["keep", "fresh"]


class Supernet(OpenChoices[D], ABC):
    """A network in which every choice is open.

    `alphas` (choice name -> logits) are parameters, so `state_dict`, devices and checkpoints see
    them; `Search` keeps them out of the weight optimiser.
    """

    # From alphas to mixing weights where no draw says more; a search sets its own.
    relaxation: Relaxation = Softmax()
    # Set while a loss of a search runs: each call, in any thread, must then say what is mixed.
    in_loss: bool = False
    # What "fresh" weights are, where a space does not initialise them anew: those of the beginning.
    initial: dict[str, Tensor] | None = None

    @abstractmethod
    def forward(self, *inputs: Any, draw: Draw | None = None, **named: Any) -> Any:
        """The mixture that `draw` describes; without one, that of the alphas."""

    # How much more than of most networks a product with the Hessian in the alphas takes.
    steps_of_product: int = 1

    # Whether a derived network can be given weights of the supernet.
    keeps_weights: bool = True

    @abstractmethod
    def decide(self, relaxation: Relaxation = Softmax()) -> D:
        """The discrete architecture that the alphas stand for now."""

    @property
    def searched(self) -> nn.Module:
        """The network as the user knows it, whose mode (train, eval) is that of the search."""
        return self

    # Whether a derived network with the kept weights computes what they were trained for.
    keeps_its_meaning: bool = True

    # Whether weights are named by operation, so that their order may be another in a state.
    weights_by_operation: bool = False

    @abstractmethod
    def skip_count(self, decision: D) -> int:
        """How many of the chosen operations are skip connections: many mark a collapsed search."""

    @abstractmethod
    def derived(self, decision: D, weights: Weights = "keep") -> nn.Module:
        """The plain network of a decision, with the supernet's weights or with fresh ones."""

    def run_method(
        self, name: str, draw: Draw, inputs: Sequence[Any], named: Mapping[str, Any]
    ) -> Any:
        """A method of the user's module, for the mixture that `draw` describes.

        Raises:
            ValueError: there is no such method, or no module of a user's.
        """
        del draw, inputs, named
        raise ValueError(
            f"net.method({name!r}, ...) is for one's own module with choices in it; a "
            f"{type(self).__name__} is called, net(...)"
        )

    def space_record(self) -> JsonObject | None:
        """The space as a run folder of `Search.fit` describes it.

        None where it has none: the command line searches such spaces, and makes their folders.
        """
        return None

    def notes(self) -> list[str]:
        """What whoever starts a search of it should be told."""
        return []

    def random_decision(self, generator: torch.Generator) -> D:
        """An architecture drawn uniformly.

        Raises:
            ValueError: the supernet does not say which there are.
        """
        raise ValueError(f"{type(self).__name__} draws no random architectures")

    def one_hot_draw(self, decision: D, /) -> Draw:
        """Mixing weight 1 on the operations of one architecture."""
        raise ValueError(
            f"{type(self).__name__} does not say which operations an architecture has: "
            "no one_hot_draw()"
        )

    def columns_of(self, decision: D, /) -> Mapping[str, Active]:
        """The operations of one architecture, as `one_hot_draw(decision).active`."""
        return self.one_hot_draw(decision).active

    def dense_draw(self) -> Draw:
        """The mixture of the alphas, without noise and with every operation active.

        Raises:
            OutsideSearch: within a loss of a search, whose passes say themselves what is mixed.
        """
        if self.in_loss:
            raise OutsideSearch(
                "the network was called inside a loss, past the argument of the loss: its weights "
                "and mixing weights are not those of this pass. Write "
                "search.step(lambda net: loss(net(x), y), ...) and call that net, in the thread "
                "that called the loss"
            )
        mix = {}
        for name, alpha in self.alphas.items():
            mix[name] = self.relaxation.probabilities(alpha)
        draw = Draw.dense(mix)
        return draw.settled(self.fixed) if self.fixed else draw

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """As of any module, but alphas stay in float32 or wider: Adam's steps are small."""
        # While it is built there may be none.
        alphas: Mapping[str, nn.Parameter] = {}
        if "alphas" in self._modules:
            alphas = {**dict(self.alphas.items()), **_renamed(self.edge_alphas)}
        before = {name: alpha.detach() for name, alpha in alphas.items()}
        super()._apply(fn, recurse)
        for name, alpha in alphas.items():
            if alpha.dtype in HALF:
                alpha.data = before[name].to(alpha.device)
        return self


def _renamed(alphas: Mapping[str, nn.Parameter]) -> dict[str, nn.Parameter]:
    return {edges_name(name): alpha for name, alpha in alphas.items()}


def tables_of(supernet: Supernet[Any]) -> dict[str, Tensor]:
    """Detached copies of a supernet's alphas on the CPU, by name."""
    return {name: alpha.detach().to("cpu", copy=True) for name, alpha in supernet.alphas.items()}


class Space(ABC, Generic[D]):
    """A search space: a frozen dataclass whose fields say how large it is.

    What a network is built for differs from one kind of data to another (channels and classes, a
    vocabulary), so `supernet` and `network` belong to the spaces of one kind: `ImageSpace`,
    `TextSpace`.
    """

    if TYPE_CHECKING:  # as in any dataclass
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @abstractmethod
    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()) -> D:
        """Alphas -> discrete architecture."""

    @abstractmethod
    def decision(self, what: D | str) -> D:
        """An architecture of this space from its text; one that is given is checked, returned."""

    @abstractmethod
    def random_decision(self, generator: torch.Generator) -> D:
        """An architecture drawn uniformly."""


class NetworkSpace(Space[D]):
    """A space whose architectures are networks to be trained."""

    @abstractmethod
    def network(self, decision: D, /) -> nn.Module:
        """The plain network of an architecture, freshly initialised.

        What it is built for (channels and classes, a vocabulary) has its defaults here.
        """


class ImageSpace(NetworkSpace[D]):
    """A space of image classifiers: what programs that search and train on images need of it."""

    # Whether networks can have a second classifier for training.
    has_auxiliary_head: ClassVar[bool] = False
    # Whether networks can drop paths in training, by their `drop_path_probability`.
    has_drop_path: ClassVar[bool] = False

    @abstractmethod
    def supernet(
        self, in_channels: int = 3, num_classes: int = 10, *, checkpoint_cells: bool = False
    ) -> Supernet[D]:
        """The network with every choice open, for images of so many channels and classes.

        Args:
            checkpoint_cells: compute the inside of each cell again in backward, to save memory.

        Raises:
            ValueError: there are no cells to compute again.
        """

    @abstractmethod
    def network(
        self,
        decision: D,
        /,
        num_classes: int = 10,
        in_channels: int = 3,
        *,
        auxiliary: bool = False,
    ) -> nn.Module:
        """The plain network of an architecture, freshly initialised.

        Args:
            auxiliary: with a second classifier for training.

        Raises:
            ValueError: an architecture of another space, or an auxiliary head where there is none.
        """

    def short_code(self, decision: D) -> str | None:
        """A code of one sign for each choice, where the space has one."""
        return None

    def collapse_note(self, skips: int) -> str | None:
        """What to say of so many skip connections, if they are the mark of a collapsed search."""
        return None


class TextSpace(NetworkSpace[D]):
    """A space of language models: what the programs that search and train on text need of it."""

    @abstractmethod
    def supernet(self, vocabulary: int = 10000) -> Supernet[D]:
        """The model with every choice open, for a vocabulary of so many tokens."""

    @abstractmethod
    def network(self, decision: D, /, vocabulary: int = 10000) -> nn.Module:
        """The plain model of a discrete architecture, freshly initialised."""
