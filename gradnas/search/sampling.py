"""What a pass of the supernet mixes: the draws of a step, from the alphas and random numbers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from gradnas.gradients.base import Tensors
from gradnas.modules.draws import Draw
from gradnas.randomness import generator_for
from gradnas.relaxations import Relaxation
from gradnas.search.schedule import Schedule
from gradnas.search.steadying import Steadying
from gradnas.spaces.base import Supernet

# Streams of the relaxation's random numbers: a step of the alphas and the one of the weights that
# follows it sample each for itself.
ALPHA_NOISE = 1
WEIGHT_NOISE = 2


class Sampling:
    """The supernet with its relaxation, and what changes a draw beside the alphas.

    Attributes:
        tables: the logits of operations, by the name of their choice.
        seed: of what the relaxation samples.
    """

    def __init__(
        self,
        supernet: Supernet,
        relaxation: Relaxation,
        schedule: Schedule,
        seed: int,
        steadying: Steadying | None = None,
    ) -> None:
        self.supernet = supernet
        self.relaxation = relaxation
        self.schedule = schedule
        self.seed = seed
        self.steadying = steadying or Steadying((), relaxation, schedule)
        self.tables: dict[str, nn.Parameter] = dict(supernet.alphas.items())

    @property
    def progress(self) -> float:
        """Share of the search that is done, in [0, 1].

        Raises:
            ValueError: it is not known, and the relaxation needs it.
        """
        progress = self.schedule.progress
        if progress is not None:
            return progress
        if self.relaxation.needs_progress:
            raise ValueError(
                f"{self.relaxation} changes over the search: "
                "say how long it is with Search(..., epochs=N)"
            )
        return 0.0

    def noise(self, stream: int, *sample: int) -> Tensors:
        """The random numbers of the coming step of the alphas or of the weights.

        A pure function of seed, stream, step and number of the sample: there is nothing to save,
        and every rank samples the same architecture.
        """
        generator = generator_for(self.seed, stream, self.schedule.steps, *sample)
        return self.relaxation.noise(self.tables, generator)

    def path(self, alphas: Mapping[str, Tensor], noise: Tensors) -> Draw:
        """The draw that rewards are of."""
        draw = self.relaxation.path(self._of_tables(alphas), noise, self.progress)
        return self.settled(self.steadying.in_every_step(draw))

    def weight_path(self, alphas: Mapping[str, Tensor], noise: Tensors) -> Draw:
        """The draw that weights learn with."""
        draw = self.path(alphas, noise)
        draw = self.steadying.in_weight_step(draw, self._of_tables(alphas), self.seed)
        return self.settled(draw)

    def mixture(self) -> Draw:
        """That of the alphas, without noise, with what stands beside it now."""
        dense = Draw.dense(self.probabilities({k: a.detach() for k, a in self.tables.items()}))
        return self.settled(self.steadying.in_every_step(dense))

    def settled(self, draw: Draw) -> Draw:
        """A draw, with what a selection has decided in the place of what the alphas say."""
        return draw.settled(self.supernet.fixed) if self.supernet.fixed else draw

    def _of_tables(self, alphas: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: alphas[name] for name in self.tables}

    def probabilities(self, alphas: Mapping[str, Tensor]) -> Tensors:
        """The strength of every operation, without noise."""
        found = {}
        for name in self.tables:
            found[name] = self.relaxation.probabilities(alphas[name])
        return found
