"""What is saved of a search or a training that runs, and how it goes on from there."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from gradnas import distributed
from gradnas.runs import State
from gradnas.tasks.evaluation import Means


class Resumed(ABC):
    """A run that is saved and resumed bit for bit.

    Attributes:
        sums: entries of its state that are `Means` of the epoch so far.
    """

    sums: tuple[str, ...]

    @abstractmethod
    def position(self) -> State:
        """Where it stands, with whatever else this kind of data remembers.

        Tensors and plain values, entries of the checkpoint.
        """

    @abstractmethod
    def go_to(self, position: State) -> None:
        """The inverse of `position`, for the entries of a checkpoint."""

    @abstractmethod
    def state_dict(self) -> State:
        """Tensors and plain values."""

    @abstractmethod
    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""

    def redistributed(self, states: Sequence[State]) -> State:
        """The state of this rank, from those of all ranks of another number of processes.

        What has been counted of the epoch goes on with the first rank; an own stream of random
        numbers begins on every other one.
        """
        state = dict(states[0])
        for name in self.sums:
            joined = Means.joined([own[name] for own in states])
            state[name] = joined if distributed.is_main() else Means().state_dict()
        return state
