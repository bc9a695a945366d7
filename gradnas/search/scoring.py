"""Architectures scored without a training, as `ScoreSelection` asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from gradnas.architectures.base import Architecture
from gradnas.gradients.base import same_randomness
from gradnas.randomness import generator_for, seed_for, seeded
from gradnas.search.comparing import Compared, Judge
from gradnas.search.proxies import NoPatternsError, Swap
from gradnas.search.slices import some_rows
from gradnas.search.verdict import Scores, Yardstick

EXAMPLES = 16  # of the authors' code
FEW = 8  # random architectures, to see whether there is anything to score
DRAWN = 5  # stream of random numbers, beside those of `comparing` and `selecting`


class ScoreJudge(Judge):
    """A judge by SWAP: the groups of a score are the drawings of the weights.

    Args:
        batch: of held-out examples, of which the first 16 are read.
        run: calls a network on a batch.
        laid_out: the network in the memory format in which it runs.
    """

    yardstick = Yardstick("SWAP score", higher_is_better=True, noun="drawings of the weights")

    def __init__(
        self,
        search: Compared,
        drawings: int,
        batch: Any,
        run: Callable[[Any, Any], Any],
        laid_out: Callable[[nn.Module], nn.Module],
    ) -> None:
        self.search = search
        self.proxy = Swap(repeats=drawings, seed=search.passes.seed)
        self.batch = some_rows(batch, 0, EXAMPLES)
        self.run = run
        self.laid_out = laid_out
        self.sizes = [drawings]

    @property
    def where(self) -> str:
        return f"{self.yardstick.noun}, none of them trained"

    def mixture(self, batches: int) -> Scores | None:
        """None: there is no score of a mixture."""
        del batches

    def check(self, decision: Architecture) -> None:
        """ValueError where no ReLU runs in an architecture, nor in a few random ones."""
        generator = generator_for(self.search.passes.seed, DRAWN)
        random = (self.search.supernet.random_decision(generator) for _ in range(FEW))
        for one in [decision, *random]:
            try:
                self._scores(one, Swap(repeats=1, seed=self.search.passes.seed))
            except NoPatternsError as error:
                none = error
            else:
                return
        raise none

    def architecture(self, decision: Architecture, batches: int) -> Scores:
        del batches
        try:
            found = self._scores(decision, self.proxy)
        except NoPatternsError:  # others have some
            found = [0.0] * self.proxy.repeats
        return self.scores(found, [1.0] * len(found))

    def _scores(self, decision: Architecture, proxy: Swap) -> list[float]:
        search = self.search
        # Layers whose weights the score does not draw have the same in every candidate.
        with (
            same_randomness(search.passes.params.values()),
            seeded(seed_for(search.passes.seed, DRAWN)),
        ):
            network = self.laid_out(search.supernet.derived(decision, "fresh"))
            return proxy.scores(network, lambda net: self.run(net, self.batch))
