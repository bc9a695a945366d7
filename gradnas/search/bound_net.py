"""What a loss is called with during a search: the network under one setting of everything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gradnas.modules.draws import Draw
from gradnas.modules.slots import Placed, holding
from gradnas.search.evaluating import Evaluating
from gradnas.search.recomputation import checkpoints_of_pass, in_forward
from gradnas.spaces.base import Supernet
from gradnas.spaces.your_module import method_of


class BoundNet:
    """The network with one particular setting of weights, alphas and sampled choices.

    Args:
        supernet: the network.
        draw: the setting of its choices.
        placed: what its slots hold in this pass (weights, alphas, buffers), where that is not its
            own; None: its own.
    """

    def __init__(self, supernet: Supernet, draw: Draw, placed: Placed | None) -> None:
        self._supernet = supernet
        self._draw = draw
        self._placed = placed

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if "draw" in named:
            raise ValueError(
                "net(..., draw=...) inside a loss: the search itself says what the choices mix; an "
                "argument of the network's own of that name is given by its position"
            )
        if self._placed is None:
            return self._supernet(*inputs, draw=self._draw, **named)
        with holding(self._placed), in_forward():
            return self._supernet(*inputs, draw=self._draw, **named)

    def method(self, name: str, *inputs: Any, **named: Any) -> Any:
        """Call another method of the network than `forward`, in the same setting.

        Args:
            name: of the method; of a part of the network with dots, `"encoder.embed"`.

        Raises:
            ValueError: the network is that of a published space, which has none; there is no such
                method (the nearest is named).
        """
        if self._placed is None:
            return self._supernet.run_method(name, self._draw, inputs, named)
        with holding(self._placed), in_forward():
            return self._supernet.run_method(name, self._draw, inputs, named)

    def in_loss(self, loss: NetLoss) -> Tensor:
        """`loss` of this network, which is called in no other way within."""
        # A loss that calls the user's own variable instead of `net` would get other weights; so
        # would what is checkpointed, in the network or in the loss, when it runs again.
        with _told_what_to_mix(self._supernet), checkpoints_of_pass(self._placed):
            return Evaluating()(lambda: loss(self))

    @property
    def training(self) -> bool:
        """Whether it runs in train mode, as `nn.Module.training`."""
        return self._supernet.training

    @property
    def draw(self) -> Draw:
        """The setting of all choices in this pass, for losses with a cost of the architecture."""
        return self._draw

    def __getattr__(self, name: str) -> Any:
        # Reading through to the module would give the real weights where a probing pass needs
        # others.
        raise AttributeError(
            "inside a loss the network can only be called, net(...), or one of its methods, "
            f"net.method({name!r}, ...); it has no attribute {name!r} here"
        )


class PlainNet:
    """A plain network where a loss expects the one of a search: `net(x)`, `net.method(name, x)`."""

    def __init__(self, network: nn.Module) -> None:
        self._network = network

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self._network(*inputs, **named)

    def method(self, name: str, *inputs: Any, **named: Any) -> Any:
        """As of a network that is searched."""
        return method_of(self._network, name)(*inputs, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


NetLoss = Callable[[BoundNet], Tensor]


@contextmanager
def _told_what_to_mix(supernet: Supernet) -> Iterator[None]:
    """Within: the network must be told what to mix, in every call and every thread."""
    before = supernet.in_loss
    supernet.in_loss = True
    try:
        yield
    finally:
        supernet.in_loss = before


@dataclass(frozen=True)
class StepReport:
    """Losses of one step, detached scalars; `valid_loss` is None where the alphas took no step."""

    train_loss: Tensor
    valid_loss: Tensor | None
