"""A search run: from a configuration to a genotype in a run folder; one program, top to bottom.

Every random number is a function of (seed, step) or is saved, so a run that is killed and resumed
ends with the same files as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradnas import distributed, runs
from gradnas.config import to_json
from gradnas.data import Augment, ImageData, balanced, halves
from gradnas.data.base import sorted_by_class
from gradnas.memory import SavedTensors, measured_peak_mib, step_mib
from gradnas.objectives import CrossEntropy
from gradnas.pictures.chains import draw_architecture
from gradnas.precision import check_precision
from gradnas.programs.evaluation import (
    Means,
    evaluate,
    recalibrate,
)
from gradnas.programs.run_costs import (
    cost_record,
    example_input,
    kept_table,
    located,
    noted_warnings,
)
from gradnas.progress import Progress
from gradnas.randomness import mix
from gradnas.search.bound_net import BoundNet, NetLoss, StepReport
from gradnas.search.capture import (
    CapturedStep,
    check_capture,
)
from gradnas.search.search import Search
from gradnas.tasks.images.settings import SearchConfig

INIT, TRAIN_ORDER, VALID_ORDER = 21, 22, 23  # streams of random numbers
RECALIBRATION_BATCHES = 8


class SearchRun:
    """The state of a search run: the search, the streams of batches, the position, the trajectory
    of the alphas."""

    def __init__(self, config: SearchConfig, data: ImageData, device: torch.device) -> None:
        self.config, self.device = config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(config.seed, INIT))
            supernet = config.space.supernet(
                data.in_channels, data.num_classes, checkpoint_cells=config.checkpoint_cells
            )
        split_seed = config.split_seed
        if config.valid_per_class is not None:
            seed = split_seed if split_seed is not None else config.seed
            train, valid = balanced(data.train, config.valid_per_class, seed)
        else:
            if split_seed is None and sorted_by_class(data.train):
                split_seed = config.seed
            train, valid = halves(data.train, config.train_fraction, seed=split_seed)
        rank, world, workers = distributed.rank(), distributed.world(), config.data.workers
        self.train = train.batches(
            config.batch_size,
            augment=config.data.augment,
            shuffle=True,
            seed=mix(config.seed, TRAIN_ORDER),
            device=device,
            rank=rank,
            world=world,
            workers=workers,
        )
        self.valid = valid.batches(
            config.batch_size,
            augment=config.data.augment if config.valid_augment else Augment(),
            shuffle=True,
            seed=mix(config.seed, VALID_ORDER),
            device=device,
            rank=rank,
            world=world,
            workers=workers,
        )
        self.search = Search(
            supernet.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            relaxation=config.relaxation,
            gradient=config.gradient,
            weights=config.weights,
            alphas=config.alphas,
            epochs=config.epochs,
            warmup_epochs=config.warmup_epochs,
            alpha_every=config.alpha_every,
            steps_per_epoch=len(self.train),
            seed=config.seed,
            device=device,
            precision=config.precision,
            cost=config.cost,
            example=example_input(config.cost, data),
        )
        self.held_out = valid.batches(
            max(config.batch_size, 128), shuffle=False, device=device, workers=workers
        )
        self.train_objective, self.valid_objective = (
            CrossEntropy(config.label_smoothing),
            CrossEntropy(),
        )
        self._valid: Iterator[tuple[Tensor, Tensor]] | None = None
        self._next_valid = -1
        self.captured: CapturedStep | None = (
            None  # made at the first step: a recording holds the tensors as they lie
        )
        if config.capture:
            check_capture(self.search)
        self.batch = 0  # the next batch of the epoch
        self.train_means, self.valid_means = Means(), Means()
        self.memory_mib = 0.0
        self.trajectory = {f"{name}/0000": table for name, table in supernet.tables().items()}
        torch.manual_seed(
            mix(config.seed, TRAIN_ORDER, distributed.rank())
        )  # whatever the operations draw

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "search": self.search.state_dict(),
            "batch": self.batch,
            "train_means": self.train_means.state_dict(),
            "valid_means": self.valid_means.state_dict(),
            "memory_mib": self.memory_mib,
            "trajectory": self.trajectory,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.search.load_state_dict(state["search"])
        self.batch, self.memory_mib = state["batch"], state["memory_mib"]
        self.train_means, self.valid_means = (
            Means(state["train_means"]),
            Means(state["valid_means"]),
        )
        self.trajectory = dict(state["trajectory"])

    def valid_batch(self) -> tuple[Tensor, Tensor] | None:
        """The alphas' batch of the coming step, a function of the step alone; None where the alphas
        wait."""
        search, per_epoch = self.search, len(self.valid)
        if not search.schedule.alpha_due:
            return None
        number = search.steps // self.config.alpha_every
        if self._valid is None or number != self._next_valid or number % per_epoch == 0:
            self._valid = iter(self.valid.epoch(*divmod(number, per_epoch)))
        self._next_valid = number + 1
        return next(self._valid)

    def step(self, train_batch: tuple[Tensor, Tensor], recorded: bool = True) -> StepReport:
        """One step of alphas and weights; its losses and accuracies go into the epoch's means.

        With `capture` in the configuration it is replayed, except for smaller batches or without
        `recorded`.
        """
        parts: dict[str, Mapping[str, Tensor]] = {}
        valid_batch = self.valid_batch()
        other = (
            valid_batch if valid_batch is not None else train_batch
        )  # a recording reads two, also while alphas wait
        whole = len(train_batch[1]) == len(other[1]) == self.config.batch_size
        if self.config.capture and recorded and whole:
            if self.captured is None:
                self.captured = CapturedStep(
                    self.search, lambda net, x, y: self.valid_objective(net(x), y)
                )
            report, parts["train"], valid_parts = self.captured(train_batch, other)
            if report.valid_loss is not None:
                parts["valid"] = valid_parts
            return self._note(report, parts, train_batch, other)

        def loss(batch: tuple[Tensor, Tensor], name: str, objective: CrossEntropy) -> NetLoss:
            def evaluate_loss(net: BoundNet) -> Tensor:
                total, parts[name] = objective(net(batch[0]), batch[1])
                by_accuracy = (
                    name == "valid"
                    and getattr(self.config.gradient, "reward", "loss") == "accuracy"
                )
                return -parts[name]["accuracy"] if by_accuracy else total

            return evaluate_loss

        valid_loss = (
            None if valid_batch is None else loss(valid_batch, "valid", self.valid_objective)
        )
        report = self.search.step(loss(train_batch, "train", self.train_objective), valid_loss)
        return self._note(report, parts, train_batch, other)

    def _note(
        self,
        report: StepReport,
        parts: Mapping[str, Mapping[str, Tensor]],
        train_batch: tuple[Tensor, Tensor],
        valid_batch: tuple[Tensor, Tensor],
    ) -> StepReport:
        self.train_means.add(
            parts["train"], len(train_batch[1])
        )  # of the last call: the weight step's
        if "valid" in parts:
            self.valid_means.add(parts["valid"], len(valid_batch[1]))
        self.batch += 1
        return report

    def counted_step(self, train_batch: tuple[Tensor, Tensor]) -> StepReport:
        """A step that also counts the memory it needs: weights, gradients, optimisers, what
        autograd keeps."""
        with SavedTensors() as kept:
            report = self.step(train_batch, recorded=False)
        search = self.search
        self.memory_mib = step_mib(
            kept, search.supernet, [search.weight_optimizer, search.alpha_optimizer]
        )
        return report

    def finish_epoch(self, evaluated: bool) -> dict[str, Any]:
        """The metrics of the epoch that ends, and the position moved to the next."""
        search = self.search
        epoch, lr = search.epoch, search.weight_optimizer.param_groups[0]["lr"]
        search.finish_epoch()
        result = search.result()
        genotype = result.genotype
        record: dict[str, Any] = {
            "epoch": epoch,
            "steps": search.steps,
            "lr": lr,
            **self.train_means.values("train_"),
        }
        if self.valid_means.count:
            record |= self.valid_means.values("search_valid_")
        if evaluated:
            record |= self.evaluate(genotype, epoch)
        for name, alpha in search.alphas.items():
            p = search.relaxation.probabilities(alpha.detach().double())
            record[f"entropy_{name}"] = torch.special.entr(p).sum(-1).mean().item()  # nats
        record |= cost_record(search, result)
        record["skip_connections"] = search.supernet.skip_count(genotype)
        record["genotype"] = genotype.to_text()
        record["peak_memory_mib"] = self.memory_mib
        self.trajectory |= {
            f"{name}/{epoch + 1:04}": table for name, table in search.supernet.tables().items()
        }
        self.batch, self.train_means, self.valid_means = 0, Means(), Means()
        return record

    def evaluate(self, genotype: Any, epoch: int, batches: int | None = None) -> dict[str, float]:
        """Held-out loss and accuracy of the derived network with the supernet's weights, and of the
        mixture, if the weights learn on mixtures.

        `batches` limits the held-out batches, to see how long one takes.
        """
        search, supernet = self.search, self.search.supernet
        held_out = [islice(self.held_out.epoch(0), batches) for _ in range(2)]
        found: dict[str, float] = {}
        if search.relaxation.trains_mixtures:
            supernet.eval()
            draw = search.evaluation_draw()
            mixture = evaluate(lambda x: supernet(x, draw=draw), held_out[0], self.config.precision)
            supernet.train()
            found |= {"valid_loss": mixture["loss"], "valid_accuracy": mixture["accuracy"]}
        network = supernet.derived(genotype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        recalibrate(network, (x for x, _ in islice(self.train.epoch(epoch), RECALIBRATION_BATCHES)))
        derived = evaluate(network, held_out[1], self.config.precision)
        found |= {
            "derived_valid_loss": derived["loss"],
            "derived_valid_accuracy": derived["accuracy"],
        }
        if "valid_accuracy" in found:
            found["discretisation_gap"] = found["valid_accuracy"] - derived["accuracy"]
        return found


def run_search(
    config: SearchConfig,
    run: runs.Run,
    data: ImageData,
    device: torch.device,
    progress: bool = True,
) -> dict[str, Any]:
    """Run a search to its end, from where its folder stands.

    Returns:
        The results: genotype, held-out accuracies of mixture and derived network.

    Raises:
        NonFiniteError: a loss became NaN; the last checkpoint is kept.
        runs.Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    main = distributed.is_main()
    with noted_warnings() as notes:
        state = SearchRun(replace(config, cost=located(config.cost, run.path)), data, device)
    saved, note = run.load_checkpoint()
    distributed.barrier()
    if saved is not None:
        state.load_state_dict(saved)
    search, per_epoch = state.search, len(state.train)
    bar = Progress("search", config.epochs, per_epoch, search.epoch, state.batch, progress and main)
    with (
        bar,
        runs.Keeper(run if main else None, state.state_dict, config.checkpoint_seconds) as keeper,
    ):
        for sentence in [*notes, *([note] if note else [])]:
            bar.say(sentence)
        record: dict[str, Any] = {}
        stopped = False
        while search.epoch < config.epochs and not stopped:
            epoch, began = search.epoch, time.monotonic()
            search.supernet.train()
            for train_batch in state.train.epoch(epoch, start=state.batch):
                report = _step(state, train_batch)
                bar.step(loss=report.train_loss)
                stopped = config.max_steps is not None and search.steps >= config.max_steps
                if stopped:
                    break
                if state.batch < per_epoch:
                    keeper.after_step()
            record = state.finish_epoch(evaluated=not stopped)
            if main:
                run.append(runs.METRICS, record)
                seconds = {"epoch": epoch, "seconds": time.monotonic() - began}
                run.append(
                    runs.TIMINGS, {**seconds, "measured_peak_memory_mib": measured_peak_mib(device)}
                )
                run.save_tensors(runs.ALPHAS, state.trajectory)
            bar.epoch(
                epoch, {word: record[name] for name, word in _SHOWN.items() if name in record}
            )
            if (warning := config.space.collapse_note(record["skip_connections"])) is not None:
                bar.say(f"warning: {warning}")
            keeper.after_step()
        keeper.save()
    return _finish(state, run, run.records()[-1] if main else record)


# What the line of an epoch shows, in words short enough for 80 columns.
_SHOWN = {
    "train_loss": "loss",
    "train_accuracy": "accuracy",
    "valid_accuracy": "valid",
    "derived_valid_accuracy": "derived",
    "skip_connections": "skips",
}


def _step(state: SearchRun, train_batch: tuple[Tensor, Tensor]) -> StepReport:
    """One step; the first of each epoch also counts the memory it needs."""
    return state.counted_step(train_batch) if state.batch == 0 else state.step(train_batch)


def _finish(state: SearchRun, run: runs.Run, last: Mapping[str, Any]) -> dict[str, Any]:
    found = state.search.result()
    genotype = found.genotype
    keys = ("valid_accuracy", "derived_valid_accuracy", "discretisation_gap", "skip_connections")
    results: dict[str, Any] = {
        "genotype": genotype.to_text(),
        "steps": state.search.steps,
        **{k: last[k] for k in keys if k in last},
    }
    if found.cost is not None:
        results["cost"] = found.cost
    if (code := state.config.space.short_code(genotype)) is not None:
        results["code"] = code
    if distributed.is_main():
        genotype.save(run.path / runs.GENOTYPE)
        draw_architecture(genotype, run.path / runs.PICTURE, space=state.config.space)
        runs.write_json(run.path / runs.RESULTS, results)
        run.set_status("finished")
    return results


def start_search(config: SearchConfig, path: str, device: torch.device) -> runs.Run:
    """Make the run folder of a search. ValueError, before there is one, for a setting that the
    device cannot follow."""
    check_precision(config.precision, device)
    if config.capture and device.type != "cuda":
        raise ValueError(f"capture records CUDA graphs, but the device is {device}: leave it out")
    config = replace(config, cost=kept_table(config.cost, Path(path)))
    return runs.Run.create(path, to_json(config), config.seed, device)
