"""What the searching program needs of a kind of data: a live search with its streams of batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from torch import Tensor

from gradnas import distributed
from gradnas.data.base import batch_notes
from gradnas.memory import SavedTensors, step_mib
from gradnas.precision import precision_notes
from gradnas.runs import Record, State
from gradnas.search.bound_net import BoundNet, StepReport
from gradnas.search.result import SearchResult, result_of
from gradnas.search.search import Search
from gradnas.search.verdict import Yardstick
from gradnas.spaces.base import tables_of
from gradnas.tasks.costs import cost_record
from gradnas.tasks.decidedness import Decidedness
from gradnas.tasks.evaluation import Means
from gradnas.tasks.foreseen import Foreseen
from gradnas.tasks.outcome import Outcome, S
from gradnas.tasks.place import Place
from gradnas.tasks.resumed import Resumed
from gradnas.tasks.waiting import Waiting

B = TypeVar("B")  # a batch


class SearchTask(Resumed, Foreseen[B], Outcome[S], Generic[S, B]):
    """A search that runs: the search itself, and its streams of batches.

    It also holds what the epoch has shown so far, and the trajectory of the alphas. Its state is
    saved and resumed bit for bit.

    Attributes:
        notes: sentences to say before the first step.
        shown: which metrics the line of an epoch shows, in words short enough for 80 columns.
        place: where it stands in its epoch.
        waiting: how long it has waited for batches.
        is_told: whether code of the user's is told of every epoch: it may then change anything.
    """

    is_told = False
    shown: Mapping[str, str]
    sums = ("train_means", "valid_means")
    if TYPE_CHECKING:  # an attribute, of whatever kind of place a subclass has

        @property
        def place(self) -> Place: ...

    def __init__(self, config: S, search: Search) -> None:
        self.config = config
        self.search = search
        self.notes: list[str] = []
        self.train_means = Means()
        self.valid_means = Means()
        self.waiting = Waiting()
        self.memory_mib = 0.0
        self.decidedness = Decidedness(search)
        search.health.watch(getattr(config, "guard", "warn"))
        tables = tables_of(search.supernet)
        self.trajectory = {f"{name}/0000": table for name, table in tables.items()}

    def first_notes(self) -> list[str]:
        """What is to be said before the first step."""
        train = getattr(self, "train", None)
        precision = getattr(self.config, "precision", "fp32")
        notes = self.notes + precision_notes(precision, self.search.device)
        return notes + batch_notes(weights=train, alphas=getattr(self, "valid", None))

    # -- position and state --

    def state_dict(self) -> State:
        """Tensors and plain values."""
        return {
            "search": self.search.state_dict(),
            **self.position(),
            "train_means": self.train_means.state_dict(),
            "valid_means": self.valid_means.state_dict(),
            "memory_mib": self.memory_mib,
            "trajectory": self.trajectory,
        }

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self.go_to(state)
        self.train_means = Means(state["train_means"])
        self.valid_means = Means(state["valid_means"])
        self.memory_mib = state["memory_mib"]
        self.trajectory = dict(state["trajectory"])
        self.search.load_state_dict(state["search"])  # the random state too: nothing draws after it

    # -- steps --

    def start_epoch(self) -> None:
        """Set what holds for the coming epoch."""
        self.search.supernet.train()

    def select(self) -> list[str]:
        """Make the rounds of the selection that are due; returns what was decided."""
        selecting = self.search.selecting
        if selecting is None:
            return []
        by_loss = selecting.setting.criterion == "loss"
        return selecting.select(lambda net: self.worth(net, by_loss))

    @abstractmethod
    def worth(self, net: BoundNet, by_loss: bool) -> float:
        """What a network reaches on what is held out for the alphas; the larger the better.

        Args:
            by_loss: by the loss, and not by what the data are measured by.
        """

    @abstractmethod
    def batches(self) -> Iterator[B]:
        """The train batches of this epoch that are still to come, on the device."""

    @abstractmethod
    def step(self, batch: B) -> StepReport:
        """One step of alphas and weights; its losses go into the means of the epoch."""

    def counted_step(self, batch: B) -> StepReport:
        """A step that also counts the memory it needs.

        That is of weights, gradients, optimisers, and what autograd keeps.
        """
        with SavedTensors() as kept:
            report = self.step(batch)
        search = self.search
        optimizers = [search.weight_optimizer, search.alpha_optimizer]
        self.memory_mib = step_mib(kept, search.supernet, optimizers)
        return report

    def bar(self, report: StepReport) -> dict[str, Tensor]:
        """What stands beside the progress bar after a step."""
        return {"loss": report.train_loss}

    # -- epochs --

    def finish_epoch(self, evaluated: bool) -> Record:
        """The metrics of the epoch that ends, and the position moved to the next."""
        search = self.search
        epoch = search.epoch
        lr = search.weight_optimizer.param_groups[0]["lr"]
        search.finish_epoch()
        result = result_of(search)
        record: Record = {"epoch": epoch, "steps": search.steps, "lr": lr}
        for name, means in (("train", self.train_means), ("search_valid", self.valid_means)):
            if means.count:  # the alphas wait in the warm-up
                record |= _prefixed(name, self.measured(means))
        if evaluated:
            record |= self.evaluate(result, epoch)
        for name, entropy in self.decidedness.entropies().items():
            record[f"entropy_{name}"] = entropy
        record |= cost_record(search, result)
        record |= self.more_metrics(result)
        measure_gap(self, record)
        record |= search.health.finish_epoch(result.decision)
        record["genotype"] = result.decision.to_text()
        record["peak_memory_mib"] = self.memory_mib
        for name, table in tables_of(search.supernet).items():
            self.trajectory[f"{name}/{epoch + 1:04}"] = table
        self.train_means = Means()
        self.valid_means = Means()
        return record

    @property
    def yardstick(self) -> Yardstick:
        """By which mixture and derived network are compared after an epoch."""
        return Yardstick()

    def measured(self, means: Means) -> dict[str, float]:
        """What is said of the mean losses of an epoch."""
        return means.values()

    @abstractmethod
    def evaluate(
        self, result: SearchResult, epoch: int, batches: int | None = None
    ) -> dict[str, float]:
        """Held-out metrics after an epoch; `batches` limits them, to see how long one takes."""


def metrics_of(task: SearchTask[Any, Any], result: SearchResult) -> Record:
    """The metrics of the last epoch as far as they depend on what was decided after it.

    Of several processes the first alone calls this, and an evaluation would wait for the others:
    there it says nothing of what the derived network reaches.
    """
    record: Record = {**task.more_metrics(result)}
    if distributed.world() == 1:
        record |= task.evaluate(result, task.search.epoch - 1)
    measure_gap(task, record)
    return record


def measure_gap(task: SearchTask[Any, Any], record: Record) -> None:
    """Tell the health what the mixture and the derived network reach, where that was measured."""
    name = task.yardstick.name
    reached = [record.get(f"{which}_{name}") for which in ("valid", "derived_valid")]
    task.search.health.gap.measure(task.yardstick, *reached)


def _prefixed(name: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{name}_{key}": value for key, value in values.items()}
