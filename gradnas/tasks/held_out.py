"""What a search on batches reaches on those that are held out for the alphas."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, Generic, TypeVar

from torch import nn

from gradnas.search.bound_net import BoundNet
from gradnas.search.comparing import Judge
from gradnas.search.judging import BatchJudge, Grouped
from gradnas.search.result import SearchResult
from gradnas.search.slices import measured_by_group
from gradnas.search.verdict import Yardstick
from gradnas.tasks.calls import B, Calls, Parts, Stream, mean_parts, size_of
from gradnas.tasks.evaluation import recalibrate
from gradnas.tasks.measure import Measure
from gradnas.tasks.search import SearchTask

RECALIBRATION_BATCHES = 8

S = TypeVar("S")  # the configuration of a search


class BatchedHeldOut(Calls[B], SearchTask[S, B], Generic[S, B]):
    """The part of a `BatchedSearch` that measures networks, and takes no step.

    Attributes:
        train, held_out: batches for the weights, and those that networks are evaluated on.
        measure: the name of the part by which the gap between mixture and derived network is told.
    """

    train: Stream[B]
    held_out: Stream[B]
    measure: str

    def laid_out(self, network: nn.Module) -> nn.Module:
        """The network in the memory format in which it runs."""
        return network

    @property
    def num_held_out(self) -> int:
        return len(self.held_out)

    def evaluate(
        self, result: SearchResult, epoch: int, batches: int | None = None
    ) -> dict[str, float]:
        """Held-out losses of the derived network with the supernet's weights, and of the mixture.

        The mixture is evaluated if the weights learn on mixtures.
        """
        search = self.search
        supernet = search.supernet
        record: dict[str, float] = {}
        mixture: dict[str, float] | None = None
        if search.relaxation.trains_mixtures:
            supernet.eval()
            draw = search.evaluation_draw()

            def mixed(*inputs: Any, **named: Any) -> Any:
                return supernet(*inputs, draw=draw, **named)

            mixture = self.evaluated(mixed, batches)
            supernet.train()
            record |= {f"valid_{name}": value for name, value in mixture.items()}
        if not supernet.keeps_weights:
            return record
        network = self.laid_out(supernet.derived(result.decision))
        some = islice(self.train.epoch(epoch), RECALIBRATION_BATCHES)
        recalibrate(network, self.waiting.on(some), self.outputs)
        derived = self.evaluated(network, batches)
        record |= {f"derived_valid_{name}": value for name, value in derived.items()}
        if mixture is not None:
            record["discretisation_gap"] = mixture[self.measure] - derived[self.measure]
        return record

    @property
    def yardstick(self) -> Yardstick:
        # Of another part of the loss it is not known here which way is better.
        is_share = self.measure == "accuracy"
        return Yardstick("accuracy", True, 100.0, "%") if is_share else Yardstick()

    def judge(self, result: SearchResult, measure: Measure) -> Judge | None:
        by_loss = measure.key != self.measure

        def score(net: Callable[..., Any], batch: B) -> Grouped:
            def value(outputs: Any, batch: B) -> float:
                loss, parts = self.losses(outputs, batch)
                return float(loss if by_loss else parts[self.measure])

            return measured_by_group(value, self.outputs(net, batch), batch, size_of(batch))

        return BatchJudge(
            self.search,
            result.decision,
            Yardstick() if by_loss else measure.yardstick,
            train=self.train.epoch(self.search.epoch),
            valid=self.held_out.epoch(0),
            size=size_of,
            run=self.outputs,
            score=score,
            laid_out=self.laid_out,
        )

    def worth(self, net: BoundNet, by_loss: bool) -> float:
        # Of another measure it is not known here which way is better.
        found = self.evaluated(net, None)
        by_accuracy = self.measure == "accuracy" and not by_loss
        return found["accuracy"] if by_accuracy else -found["loss"]

    def evaluated(self, network: Callable[..., Any], batches: int | None) -> dict[str, float]:
        """Mean losses of a network on what is held out."""

        def losses(batch: B) -> Parts:
            return self.losses(self.outputs(network, batch), batch)[1]

        held_out = islice(self.held_out.epoch(0), batches)
        precision = getattr(self.config, "precision", "fp32")
        return mean_parts(losses, self.waiting.on(held_out), precision)
