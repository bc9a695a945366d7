"""The stabilizers of a search: which may be used with what, and what they make of its draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from gradnas.modules.draws import Additions, Draw
from gradnas.randomness import generator_for
from gradnas.relaxations import Relaxation
from gradnas.search.schedule import Schedule
from gradnas.stabilizers import Stabilizer

NOISE = 3  # stream of random numbers, beside those of `passes`


class Steadying:
    """The stabilizers of a search with its schedule.

    Raises:
        ValueError: one that does not go with the relaxation, or one kind twice.
    """

    def __init__(
        self, stabilizers: Sequence[Stabilizer], relaxation: Relaxation, schedule: Schedule
    ) -> None:
        check_stabilizers(stabilizers, relaxation)
        self.stabilizers = tuple(stabilizers)
        self.schedule = schedule

    def __bool__(self) -> bool:
        return bool(self.stabilizers)

    @property
    def additions(self) -> Additions:
        """What the supernet must have for all of them."""
        total = Additions()
        for stabilizer in self.stabilizers:
            total |= stabilizer.additions
        return total

    def in_every_step(self, draw: Draw) -> Draw:
        """A draw of weights or alphas, as they change it."""
        for stabilizer in self.stabilizers:
            draw = stabilizer.in_every_step(draw, self._done(stabilizer))
        return draw

    def in_weight_step(self, draw: Draw, alphas: Mapping[str, Tensor], seed: int) -> Draw:
        """A draw of the weights, as they change it; a function of seed and step."""
        for number, stabilizer in enumerate(self.stabilizers):
            generator = generator_for(seed, NOISE, self.schedule.steps, number)
            noise = stabilizer.noise(alphas, generator)
            draw = stabilizer.in_weight_step(draw, noise, self._done(stabilizer))
        return draw

    def _done(self, stabilizer: Stabilizer) -> float:
        done = self.schedule.done
        if done is None and stabilizer.needs_length:
            raise ValueError(
                f"{stabilizer} changes over the search: "
                "say how long it is with Search(..., epochs=N)"
            )
        return done or 0.0


def check_stabilizers(stabilizers: Sequence[Stabilizer], relaxation: Relaxation) -> None:
    """ValueError for one that does not go with this relaxation, and for one kind twice."""
    kinds = [type(stabilizer) for stabilizer in stabilizers]
    for stabilizer in stabilizers:
        if not isinstance(stabilizer, Stabilizer):
            raise ValueError(
                f"stabilizers must be Stabilizers, such as PerturbedAlphas(), not {stabilizer!r}"
            )
        name = type(stabilizer).__name__
        if kinds.count(type(stabilizer)) > 1:
            raise ValueError(f"{name} is given twice")
        if stabilizer.needs_mixtures and not relaxation.trains_mixtures:
            raise ValueError(
                f"{name} changes the mixture of all operations that the weights learn on, and with "
                f"{type(relaxation.innermost).__name__} they learn on one operation of each edge: "
                "use Softmax(), Sigmoid(), Dirichlet() or GumbelSoftmax(hard=False)"
            )
