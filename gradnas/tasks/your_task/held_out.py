"""What a search on a task of one's own reaches on the batches that are held out for the alphas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import islice
from typing import Any

from gradnas import distributed
from gradnas.latency.counts import in_eval_mode
from gradnas.randomness import other_random_state, random_state
from gradnas.search.bound_net import BoundNet
from gradnas.search.comparing import Judge
from gradnas.search.judging import BatchJudge
from gradnas.search.result import SearchResult
from gradnas.search.verdict import Yardstick
from gradnas.tasks.evaluation import recalibrate
from gradnas.tasks.held_out import RECALIBRATION_BATCHES
from gradnas.tasks.measure import Measure
from gradnas.tasks.search import SearchTask
from gradnas.tasks.your_task.calls import NO_LOSS, TaskCalls, grouped, measured
from gradnas.tasks.your_task.measures import LOSS
from gradnas.tasks.your_task.remembered import Remembered, equal_states
from gradnas.tasks.your_task.settings import TaskSearchConfig
from gradnas.tasks.your_task.sources import Stream


class HeldOut(TaskCalls, SearchTask[TaskSearchConfig, Any]):
    """The part of a `TaskSearch` that measures networks, and takes no step.

    Attributes:
        measure: the deciding one.
        train, held_out: batches for the weights, and those for the alphas.
    """

    measure: Measure
    train: Stream
    held_out: Stream
    _known: tuple[int, list[Any]] | None = None  # steps at that time, and outputs

    def evaluate(
        self, result: SearchResult, epoch: int, batches: int | None = None
    ) -> dict[str, float]:
        """Loss and measures on what is held out for the alphas.

        Of the derived network with the supernet's weights, and of the mixture if the weights learn
        on mixtures.
        """
        search = self.search
        record: dict[str, float] = {}
        mixture: dict[str, float] | None = None
        if search.relaxation.trains_mixtures:
            with in_eval_mode(search.supernet):  # and back, with what the user has frozen
                net = BoundNet(search.supernet, search.evaluation_draw(), None)
                mixture = self.remembering(net, batches)
            record |= {f"valid_{name}": value for name, value in mixture.items()}
        if not search.supernet.keeps_weights:
            return record
        network = search.supernet.derived(result.decision)
        some = islice(self.train.epoch(epoch), RECALIBRATION_BATCHES)
        recalibrate(network, self.waiting.on(some), self.outputs)
        derived = self.evaluated(network, batches)
        record |= {f"derived_valid_{name}": value for name, value in derived.items()}
        if mixture is not None:
            key = self.measure.key
            record["discretisation_gap"] = mixture[key] - derived[key]
        return record

    def remembering(self, net: BoundNet, batches: int | None) -> dict[str, float]:
        """As `evaluated`; after the last epoch its outputs are kept for the verdict."""
        self._known = None
        is_last = self.search.epoch >= self.config.epochs and batches is None
        # Other data may be others when the verdict reads them, and these outputs not of them.
        is_fit = self.held_out.is_tensors and not self.task.loss_takes_network
        if not is_last or not is_fit or self.is_told or distributed.world() > 1:
            return self.evaluated(net, batches)
        before = random_state(self.search.device), other_random_state()
        kept = Remembered(net)
        found = self.evaluated(kept, None)
        after = random_state(self.search.device), other_random_state()
        # One that draws random numbers, or keeps something of its own, may give others next time.
        is_steady = equal_states(before, after) and not self.search.passes.own_state.state_dict()
        if is_steady and kept.is_whole and len(kept.outputs) == self.held_out.length:
            self._known = (self.search.steps, kept.outputs)
        return found

    def known_outputs(self) -> Sequence[Any]:
        """Of the mixture on all held-out batches, where it has just been measured; else none."""
        search = self.search
        if self._known is None or self._known[0] != search.steps or search.health.stopped:
            return ()
        return self._known[1]

    @property
    def yardstick(self) -> Yardstick:
        return self.measure.yardstick

    def judge(self, result: SearchResult, measure: Measure) -> Judge | None:
        """By the deciding measure; one that adds up over batches says nothing of groups of them.

        There, and where the task has no measure, architectures are compared by the loss.
        """
        scores = [score for score in self.task.scores if not score.adds_up]
        decides = bool(scores) and scores[0].measure.key == measure.key
        return BatchJudge(
            self.search,
            result.decision,
            measure.yardstick if decides else Yardstick(),
            train=self.train.epoch(self.search.epoch),
            valid=self.held_out.epoch(0),
            size=self.size,
            run=self.outputs,
            score=partial(grouped, self.task, scores[0] if decides else None),
            known=self.known_outputs(),
            held_out=not self.task.validates_on_training,
        )

    def worth(self, net: BoundNet, by_loss: bool) -> float:
        found = self.evaluated(net, None)
        if by_loss and LOSS.key not in found:
            raise ValueError(
                f"{NO_LOSS}, so no operation can be decided by it: take criterion='measure'"
            )
        if by_loss:
            return -found[LOSS.key]
        value = found[self.measure.key]
        return value if self.measure.higher_is_better else -value

    def evaluated(self, network: Callable[..., Any], batches: int | None) -> dict[str, float]:
        """Mean loss and measures of a network on what is held out."""
        held_out = self.waiting.on(islice(self.held_out.epoch(0), batches))
        return measured(self.task, network, held_out, self.config.precision, self.search.device)
