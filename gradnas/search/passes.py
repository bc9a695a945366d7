"""Passes of the supernet: how the losses of a step are evaluated, and with which samples.

Two kinds. The pass of the weight step runs the network as it is, so that BatchNorm's running
statistics follow it. *Probing* passes (of the architecture gradient) run it with tensors that they
are given, on copies of the buffers: they may not change the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.gradients.base import Loss, Tensors, capturing, copies
from gradnas.modules.draws import Draw
from gradnas.modules.slots import Placed, placed, slots_of
from gradnas.precision import autocast
from gradnas.relaxations import Relaxation
from gradnas.search.bound_net import BoundNet, NetLoss
from gradnas.search.feed import Sizes
from gradnas.search.own_state import WATCHED, OwnState
from gradnas.search.sampling import Sampling
from gradnas.search.schedule import Schedule
from gradnas.search.steadying import Steadying
from gradnas.settings.formats import Precision
from gradnas.spaces.base import Supernet
from gradnas.spaces.edge_weights import edges_name

EMPTY: Mapping[str, Tensor] = MappingProxyType({})


class Factors(NamedTuple):
    """What this rank's losses are multiplied by."""

    train: float = 1.0
    valid: float = 1.0


def times(factor: float, loss: Tensor) -> Tensor:
    """`factor * loss`; without a node in the graph where nothing changes."""
    return loss if factor == 1.0 else factor * loss


class Passes(Sampling):
    """The supernet with its relaxation, and everything a pass of it depends on.

    Attributes:
        params: the weights that are trained, by name; without the alphas.
        alphas: the tables, with those of whole edges where there are some: all that learns as
            alphas.
        frozen: names of weights that have stopped learning.
        factors: what the losses of the weights and of the alphas count in the mean over ranks; 1
            unless ranks have uneven shares of a batch (`distributed.factors`).

    Raises:
        ValueError: there are no weights to train.
    """

    def __init__(
        self,
        supernet: Supernet,
        relaxation: Relaxation,
        schedule: Schedule,
        precision: Precision,
        seed: int,
        steadying: Steadying | None = None,
    ) -> None:
        super().__init__(supernet, relaxation, schedule, seed, steadying)
        self.precision = precision
        self.factors = Factors()
        self.frozen: frozenset[str] = frozenset()
        self.alphas: dict[str, nn.Parameter] = dict(self.tables)
        for name, alpha_E in supernet.edge_alphas.items():
            self.alphas[edges_name(name)] = alpha_E

        # Alphas are told apart by identity: whatever else refers to them, they stay out of the
        # weight optimiser.
        identities = {id(alpha) for alpha in self.alphas.values()}
        self.params: dict[str, nn.Parameter] = {}
        for name, p in supernet.named_parameters():
            if p.requires_grad and id(p) not in identities:
                self.params[name] = p
        learning = identities | {id(p) for p in self.params.values()}
        self.own_state = OwnState(supernet, learning)
        self._watched_from: int | None = None
        if not self.params:
            raise ValueError("the network has no trainable weights besides its alphas")
        self._met = set(learning)  # what learns, and what lies beside it, as in a plain list
        for slot in slots_of(supernet):
            tensor = slot.tensor
            if not slot.is_buffer and tensor is not None and tensor.requires_grad:
                self._met.add(id(tensor))

    def weigh(self, sizes: Sizes) -> None:
        """Set `factors` for losses that are means over so many examples on this rank."""
        self.factors = Factors()
        if distributed.world() > 1:
            self.factors = Factors(*distributed.factors(sizes, self.device))

    @property
    def learning(self) -> dict[str, nn.Parameter]:
        """The weights that learn now."""
        if not self.frozen:
            return self.params
        return {name: p for name, p in self.params.items() if name not in self.frozen}

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.params.values())).device

    def autocast(self) -> AbstractContextManager[object]:
        """For every forward pass, with its loss."""
        return autocast(self.precision, self.device)

    # ---- passes ----------------------------------------------------------------------------------

    def as_it_is(self, loss: NetLoss, draw: Draw) -> Tensor:
        """The loss of the network itself: running statistics follow."""
        with self.autocast():
            return BoundNet(self.supernet, draw, None).in_loss(loss)

    def sampled(self, loss: NetLoss, draw: Draw) -> Tensor:
        """The loss of the network with its own weights, probing."""
        with self.autocast(), self.probing() as tensors:
            return BoundNet(self.supernet, draw, tensors).in_loss(loss)

    def closure(self, loss: NetLoss, noise: Tensors) -> Loss:
        """The loss as a function `(params, alphas) -> scalar`, probing.

        An architecture gradient calls it with weights that the network does not have: unrolled by a
        step, or moved to both sides. The noise is that of the step, the same in every call: the
        calls are compared with each other, and must see the same sample.
        """

        self.check_learning()

        def evaluate(params: Tensors, alphas: Tensors) -> Tensor:
            with self.autocast(), self.probing(params, alphas) as tensors:
                tables = self._of_tables(alphas)
                draw = self.relaxation.draw(tables, noise, self.progress)
                draw = self.settled(self.steadying.in_every_step(draw))
                return BoundNet(self.supernet, draw, tensors).in_loss(loss)

        return evaluate

    def _came_later(self, tensor: Tensor) -> ValueError:
        """What an optimiser that was made before knows nothing of."""
        return ValueError(
            f"the weight {self._place(tensor)} was put into the network, or freed to learn, after "
            "Search(...) was made, and would not learn: do it before, and make a Search anew"
        )

    def _written_late(self, tensor: Tensor) -> ValueError:
        """What a pass has changed that only probes, after those that were watched."""
        return ValueError(
            f"forward changes the weight {self._place(tensor)}, which does not learn, and has not "
            f"done so in the first {WATCHED} steps: a search runs more passes than batches, and "
            "puts buffers back after those that only probe: make it a buffer "
            "(register_buffer), or let it be changed from the first step on"
        )

    def _place(self, tensor: Tensor) -> str:
        found = [name for name, p in self.supernet.named_parameters() if p is tensor]
        return found[0].removeprefix("net.") if found else "of a list or an attribute"

    def check_learning(self) -> None:
        """ValueError where a weight that learns was frozen since."""
        for name, p in self.learning.items():
            if not p.requires_grad:
                where = name.removeprefix("net.")
                raise ValueError(
                    f"the weight {where} was frozen (requires_grad) after Search(...) was made, "
                    "which counts on its gradient: freeze it before, or give weights= an optimiser "
                    "with a learning rate of 0 for it from then on"
                )

    @property
    def is_watched(self) -> bool:
        """Whether it is still to be seen what a pass changes: in the first steps of this object."""
        if self._watched_from is None:
            self._watched_from = self.schedule.steps
        return self.schedule.steps < self._watched_from + WATCHED and not capturing()

    @contextmanager
    def probing(
        self, params: Mapping[str, Tensor] = EMPTY, alphas: Mapping[str, Tensor] = EMPTY
    ) -> Iterator[Placed]:
        """Within: a pass that changes nothing.

        Yields what the supernet is to hold in it: these tensors, and copies of whatever else a pass
        writes. A tensor that has several places (tied weights) is replaced in all of them.
        """
        instead: dict[int, Tensor] = {}
        for name, tensor in params.items():
            instead[id(self.params[name])] = tensor
        for name, tensor in alphas.items():
            instead[id(self.alphas[name])] = tensor

        # BatchNorm in training writes into the buffers that it is given: into copies.
        slots = slots_of(self.supernet)
        buffers: dict[int, Tensor] = {}
        still: list[tuple[Tensor, int]] = []  # weights that do not learn, and their versions
        for slot in slots:
            tensor = slot.holder[slot.key]
            if tensor is None:
                continue
            if slot.is_buffer:
                buffers[id(tensor)] = tensor
            elif not tensor.requires_grad and not tensor.is_inference():
                still.append((tensor, tensor._version))
            elif id(tensor) not in self._met:
                raise self._came_later(tensor)
        is_watched = self.is_watched
        frozen = self.own_state.frozen() if is_watched else self.own_state.written
        copied = self._copies(buffers | frozen)
        with self.own_state.kept(is_watched):
            yield placed(slots, instead | copied)
        if is_watched:
            self.own_state.look(copied)
        for tensor, version in still:
            if tensor._version != version:
                raise self._written_late(tensor)

    def _copies(self, tensors: Mapping[int, Tensor]) -> dict[int, Tensor]:
        if self.device.type != "cuda":
            return {key: tensor.clone() for key, tensor in tensors.items()}
        # A few launches instead of one for each buffer.
        return dict(zip(tensors, copies(list(tensors.values())), strict=True))
