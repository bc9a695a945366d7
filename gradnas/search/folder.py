"""The run folder of a search in a program of the user's own: `Search.fit(..., out=...)`.

It has the form of a search on a task of one's own, so that `gradnas report` and the training that
follows read it. What goes on with such a run is the program that made it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import torch

from gradnas import distributed, runs
from gradnas.config import JsonObject, to_json
from gradnas.gradients import ArchitectureGradient
from gradnas.memory import measured_peak_mib
from gradnas.objectives.cost import ExpectedCost
from gradnas.optimizers import AlphaOptimizer
from gradnas.relaxations import Relaxation
from gradnas.runs import Record, State
from gradnas.runs.ranks import take_over
from gradnas.search.bound_net import StepReport
from gradnas.search.chosen import Chosen
from gradnas.search.health import Health
from gradnas.search.passes import Passes
from gradnas.search.result import SearchResult
from gradnas.search.schedule import Schedule
from gradnas.search.terms import Terms
from gradnas.search.verdict import Verdict
from gradnas.search.weight_step import WeightStep
from gradnas.selections import Selection
from gradnas.spaces.base import Supernet, tables_of

IN_PYTHON = "a program"  # where the data of such a search are from
CONFIG_TYPE = "TaskSearchConfig"  # as whose configuration the folder is read
LOSS = {"key": "loss", "plural": "losses", "higher_is_better": False, "scale": 1.0, "unit": ""}


MOST_WAITING = 64  # losses of steps that are not read off the device yet
OF_LAST_EPOCH = ("valid_loss", "derived_valid_loss", "discretisation_gap")


class Recorded(Protocol):
    """What a folder is told of a search."""

    supernet: Supernet
    relaxation: Relaxation
    gradient: ArchitectureGradient
    schedule: Schedule
    passes: Passes
    weight_step: WeightStep
    weight_optimizer: torch.optim.Optimizer
    alpha_optimizer: torch.optim.Adam
    cost: ExpectedCost | None
    precision: Any
    terms: Terms
    selection: Selection
    chosen: Chosen | None
    health: Health

    @property
    def epoch(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def device(self) -> torch.device: ...
    def state_dict(self) -> State: ...
    def load_state_dict(self, state: State) -> None: ...
    def result(self) -> SearchResult: ...


@dataclass
class Losses:
    """Sums of the losses of an epoch, over its steps so far."""

    count: int = 0
    train_total: float = 0.0
    valid_total: float = 0.0
    every_step_had_alphas: bool = True
    # Not read off the device in every step, which would wait for it.
    waiting: list[StepReport] = field(default_factory=list, repr=False)

    def add(self, report: StepReport) -> None:
        """Count a step."""
        self.count += 1
        self.every_step_had_alphas &= report.valid_loss is not None
        self.waiting.append(report)
        if len(self.waiting) >= MOST_WAITING:
            self.take()

    def take(self) -> None:
        """Read what waits."""
        for report in self.waiting:
            self.train_total += report.train_loss.item()
            if report.valid_loss is not None:
                self.valid_total += report.valid_loss.item()
        self.waiting.clear()

    def state_dict(self) -> State:
        """Plain values, fields of another one."""
        self.take()
        return {name: value for name, value in vars(self).items() if name != "waiting"}

    def means(self) -> dict[str, float]:
        """What is said of the epoch."""
        self.take()
        means = {}
        if self.count:  # none where an epoch was stopped after its last batch
            means["train_loss"] = self.train_total / self.count
        # A mean over some of the steps would not compare with that of the other epochs.
        if self.count and self.every_step_had_alphas:
            means["valid_loss"] = self.valid_total / self.count
        return means


class FitFolder:
    """The run folder of one call of `fit`: a context manager around its loop.

    Args:
        search: at its beginning.
        out: the folder: made, or with `resume` one that was stopped.
        epochs: at which the search ends.

    Raises:
        ValueError: a search that is no longer at its beginning, or not over a module with choices;
            a folder that holds anything already, or no such run to go on with.
    """

    def __init__(self, search: Recorded, out: str | Path, resume: bool, epochs: int) -> None:
        if search.steps:
            raise ValueError(
                f"out= is for a search from its beginning, and this one has made {search.steps} "
                "steps: give a new Search, with resume=True to go on with what was stopped"
            )
        space = search.supernet.space_record()
        if space is None:
            raise ValueError(
                "out= is for searches over modules with choices: those of published spaces have a "
                "run folder on the command line (gradnas search)"
            )
        self.search = search
        self.run = runs.Run(out)
        self.seen = Losses()
        self.trajectory = {f"{name}/0000": table for name, table in self._tables().items()}
        self._began = time.monotonic()
        self._stack = ExitStack()
        config = _configuration(search, space, epochs)
        # What may be another when it goes on
        self.settings = {key: value for key, value in config.items() if key != "device"}
        self.is_main = distributed.is_main()
        if resume:
            self._open()
        elif self.is_main:
            runs.Run.create(out, config, search.passes.seed, search.device)
        self.keeper = runs.Keeper(
            self.run if self.is_main else None, self._state, settings=self.settings
        )

    def _tables(self) -> dict[str, torch.Tensor]:
        return tables_of(self.search.supernet)

    def _open(self) -> None:
        runs.Run.open(self.run.path)
        if self.run.status().get("status") == "finished":
            raise ValueError(f"{self.run.path} is finished: there is nothing to go on with")

    # -- the loop --

    def __enter__(self) -> FitFolder:
        if self.is_main:
            self._stack.enter_context(runs.locked(self.run.path))
            self.run.set_status("running")
        self._stack.enter_context(self.keeper)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None and self.is_main:
            stopped = isinstance(error, (runs.Interrupted, KeyboardInterrupt))
            with suppress(ValueError):  # a full disk, of which the first error tells
                if stopped:
                    self.run.set_status("interrupted")
                else:
                    self.run.set_status("failed", message=str(error))
        self._stack.__exit__(kind, error, trace)

    def take_up(self) -> str | None:
        """Go on from the last checkpoint, if there is one; a sentence where it is not the newest.

        Raises:
            ValueError: it is of another search.
        """
        state, note = self.run.load_checkpoint(self.settings)
        if state is None:
            return note
        regrouped = take_over(state, self._load, lambda states: states[0])
        return "; ".join(text for text in (note, regrouped) if text) or None

    def _load(self, state: State) -> None:
        self.search.load_state_dict(state["search"])
        self.seen = Losses(**state["seen"])
        self.trajectory = dict(state["trajectory"])

    def _state(self) -> State:
        return {
            "search": self.search.state_dict(),
            "seen": self.seen.state_dict(),
            "trajectory": self.trajectory,
        }

    def finish_epoch(self, epoch: int, verdict: Verdict | None, health: Record) -> Record:
        """Write the metrics of an epoch, and the alphas after it; returns the metrics."""
        search = self.search
        record = epoch_record(search, epoch, self.seen.means(), search.result(), verdict, health)
        for name, table in self._tables().items():
            self.trajectory[f"{name}/{epoch + 1:04}"] = table
        if self.is_main:
            seconds = time.monotonic() - self._began
            memory = measured_peak_mib(search.device)
            timing = {"epoch": epoch, "seconds": seconds, "measured_peak_memory_mib": memory}
            self.run.append(runs.METRICS, record)
            self.run.append(runs.TIMINGS, timing)
            self.run.save_tensors(runs.ALPHAS, self.trajectory)
        self._began = time.monotonic()
        self.seen = Losses()
        return record

    def finish(self, result: SearchResult) -> None:
        """Write what was found."""
        self.keeper.save()
        if not self.is_main:
            return
        result.decision.save(self.run.path / runs.GENOTYPE)
        results: Record = {"genotype": result.decision.to_text(), "steps": self.search.steps}
        # Of a search that was stopped after its last epoch, the file alone has them.
        last = self.run.records()[-1]
        results |= {key: last[key] for key in OF_LAST_EPOCH if key in last}
        if result.cost is not None:
            results["cost"] = result.cost
        if result.verdict is not None:
            results["verdict"] = result.verdict.to_json()
        if self.search.chosen is not None:
            results["selection"] = self.search.chosen.to_json()
        results |= self.search.health.results()
        self.run.save_tensors(runs.ALPHAS, self.trajectory)  # the results hold its digest
        self.run.save_results(results)
        self.run.set_status("finished")


def epoch_record(
    search: Recorded,
    epoch: int,
    means: Mapping[str, float],
    result: SearchResult,
    verdict: Verdict | None,
    health: Record,
) -> Record:
    """The metrics of an epoch, counted from 0."""
    record: Record = {
        "epoch": epoch,
        "steps": search.steps,
        "lr": search.weight_optimizer.param_groups[0]["lr"],
    }
    for name, own in (("train_loss", "train_loss"), ("search_valid_loss", "valid_loss")):
        if own in means:
            record[name] = means[own]
    record |= _gap_record(verdict)
    for name, alpha in search.supernet.alphas.items():
        p = search.relaxation.probabilities(alpha.detach().double())
        record[f"entropy_{name}"] = torch.special.entr(p).sum(-1).mean().item()
    record |= health
    record["genotype"] = result.decision.to_text()
    return record


def _gap_record(verdict: Verdict | None) -> Record:
    if verdict is None:
        return {}
    record: Record = {"derived_valid_loss": verdict.derived}
    if verdict.mixture is not None:
        record["valid_loss"] = verdict.mixture
        record["discretisation_gap"] = verdict.mixture - verdict.derived
    return record


def _configuration(search: Recorded, space: JsonObject, epochs: int) -> JsonObject:
    """What is known of the search, in the form of a configuration file."""
    adam = search.alpha_optimizer.param_groups[0]
    alphas = AlphaOptimizer(adam["lr"], tuple(adam["betas"]), adam["weight_decay"])
    cost = search.cost
    if cost is not None and cost.table is not None:
        cost = replace(cost, table=None)  # a table has a file of its own, or none
    settings = search.weight_step.settings
    return {
        "type": CONFIG_TYPE,
        "space": space,
        "measures": [{"type": "Measure", **LOSS}],
        "relaxation": to_json(search.relaxation),
        "gradient": to_json(search.gradient),
        "terms": to_json(search.terms.terms),
        "selection": to_json(search.selection),
        "stabilizers": to_json(search.passes.steadying.stabilizers),
        "data": {"type": "TaskData", "source": IN_PYTHON, "sha256": None, "workers": 0},
        "epochs": epochs,
        "warmup_epochs": search.schedule.warmup_epochs,
        "alpha_every": search.schedule.alpha_every,
        "weights": None if settings is None else to_json(settings),
        "alphas": to_json(alphas),
        "cost": None if cost is None else to_json(cost),
        "precision": search.precision,
        "seed": search.passes.seed,
        "device": str(search.device),
    }
