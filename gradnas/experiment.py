"""A search run: from a configuration to a genotype in a run folder; one program, top to bottom.

Every random number is a function of (seed, step) or is saved, so a run that is killed and resumed ends with the same
files as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from gradnas import distributed, runs
from gradnas.config import to_json
from gradnas.data import Augment, DataConfig, ImageData, halves
from gradnas.data.base import sorted_by_class
from gradnas.draw import draw_cells
from gradnas.evaluation import Means, evaluate, recalibrate
from gradnas.genotype import Genotype
from gradnas.gradients import ArchitectureGradient, Unrolled
from gradnas.memory import SavedTensors, measured_peak_mib, step_mib
from gradnas.objectives import CrossEntropy
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.progress import Progress
from gradnas.randomness import mix
from gradnas.relaxations import Relaxation, Softmax
from gradnas.search import BoundNet, NetLoss, Search, StepReport
from gradnas.spaces import ConvCell

INIT, TRAIN_ORDER, VALID_ORDER = 21, 22, 23  # streams of random numbers
RECALIBRATION_BATCHES = 8


@dataclass(frozen=True)
class SearchConfig:
    """A search run.

    Args:
        space, relaxation, gradient: what is searched, and how.
        train_fraction: share of the training images for the weights; the rest is for the alphas.
        split_seed: None splits by file order, as the original does (images sorted by class are shuffled with `seed`);
            a number shuffles first.
        valid_augment: augment the alphas' images too, as the original does.
        warmup_epochs: epochs at the start in which the alphas wait.
        max_steps: stop after so many steps, without evaluation (to try a setting out).
        threads, checkpoint_seconds: as in `TrainConfig`.
    """

    space: ConvCell = field(default_factory=ConvCell)
    relaxation: Relaxation = field(default_factory=Softmax)
    gradient: ArchitectureGradient = field(default_factory=Unrolled)
    data: DataConfig = field(default_factory=DataConfig)
    train_fraction: float = 0.5
    split_seed: int | None = None
    valid_augment: bool = False
    epochs: int = 50
    warmup_epochs: int = 0
    max_steps: int | None = None
    batch_size: int = 64
    weights: WeightOptimizer = field(default_factory=WeightOptimizer)
    alphas: AlphaOptimizer = field(default_factory=AlphaOptimizer)
    precision: Literal["fp32", "bf16"] = "fp32"
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    checkpoint_seconds: float = 20.0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "threads", "max_steps"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0.0 < self.train_fraction < 1.0:
            raise ValueError(f"train_fraction must be between 0 and 1, not {self.train_fraction}")


class SearchRun:
    """The state of a search run: the search, the streams of batches, the position, the trajectory of the alphas."""

    def __init__(self, config: SearchConfig, data: ImageData, device: torch.device) -> None:
        self.config, self.device = config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(config.seed, INIT))
            supernet = config.space.supernet(in_channels=data.in_channels, num_classes=data.num_classes)
        self.search = Search(
            supernet.to(memory_format=torch.channels_last),  # type: ignore[call-overload]
            relaxation=config.relaxation,
            gradient=config.gradient,
            weights=config.weights,
            alphas=config.alphas,
            epochs=config.epochs,
            warmup_epochs=config.warmup_epochs,
            seed=config.seed,
            device=device,
            precision=config.precision,
        )
        split_seed = config.split_seed
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
        self.held_out = valid.batches(max(config.batch_size, 128), shuffle=False, device=device, workers=workers)
        self.objective = CrossEntropy()
        self.batch = 0  # the next batch of the epoch
        self.train_means, self.valid_means = Means(), Means()
        self.memory_mib = 0.0
        self.trajectory = {f"{name}/0000": table for name, table in supernet.tables().items()}
        torch.manual_seed(mix(config.seed, TRAIN_ORDER, distributed.rank()))  # whatever the operations draw

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
        self.train_means, self.valid_means = Means(state["train_means"]), Means(state["valid_means"])
        self.trajectory = dict(state["trajectory"])

    def valid_stream(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Validation batches without end, from the place that belongs to the current step."""
        per_epoch = len(self.valid)
        epoch, start = divmod(self.search.steps, per_epoch)
        while True:
            yield from self.valid.epoch(epoch, start)
            epoch, start = epoch + 1, 0

    def step(self, train_batch: tuple[Tensor, Tensor], valid_batch: tuple[Tensor, Tensor]) -> StepReport:
        """One step of alphas and weights; its losses and accuracies go into the epoch's means."""
        parts: dict[str, dict[str, Tensor]] = {}

        def loss(batch: tuple[Tensor, Tensor], name: str) -> NetLoss:
            def evaluate_loss(net: BoundNet) -> Tensor:
                total, parts[name] = self.objective(net(batch[0]), batch[1])
                return total

            return evaluate_loss

        report = self.search.step(loss(train_batch, "train"), loss(valid_batch, "valid"))
        self.train_means.add(parts["train"], len(train_batch[1]))  # of the last call: the weight step's
        if "valid" in parts:
            self.valid_means.add(parts["valid"], len(valid_batch[1]))
        self.batch += 1
        return report

    def finish_epoch(self, evaluated: bool) -> dict[str, Any]:
        """The metrics of the epoch that ends, and the position moved to the next."""
        search = self.search
        epoch, lr = search.epoch, search.weight_optimizer.param_groups[0]["lr"]
        search.finish_epoch()
        genotype = search.result().genotype
        record: dict[str, Any] = {"epoch": epoch, "steps": search.steps, "lr": lr, **self.train_means.values("train_")}
        if self.valid_means.count:
            record |= self.valid_means.values("search_valid_")
        if evaluated:
            record |= self._evaluate(genotype, epoch)
        for name, alpha in search.alphas.items():
            p = search.relaxation.probabilities(alpha.detach().double())
            record[f"entropy_{name}"] = torch.special.entr(p).sum(-1).mean().item()  # nats
        record["skip_connections"] = search.supernet.skip_count(genotype)
        record["genotype"] = genotype.to_text()
        record["peak_memory_mib"] = self.memory_mib
        self.trajectory |= {f"{name}/{epoch + 1:04}": table for name, table in search.supernet.tables().items()}
        self.batch, self.train_means, self.valid_means = 0, Means(), Means()
        return record

    def _evaluate(self, genotype: Genotype, epoch: int) -> dict[str, float]:
        """Held-out loss and accuracy of the mixture and of the derived network with the mixture's weights."""
        search, supernet = self.search, self.search.supernet
        supernet.eval()
        draw = search.evaluation_draw()
        mixture = evaluate(lambda x: supernet(x, draw=draw), self.held_out.epoch(0), self.config.precision)
        supernet.train()
        network = supernet.derived(genotype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        batches = zip(range(RECALIBRATION_BATCHES), self.train.epoch(epoch), strict=False)
        recalibrate(network, (x for _, (x, _) in batches))
        derived = evaluate(network, self.held_out.epoch(0), self.config.precision)
        return {
            "valid_loss": mixture["loss"],
            "valid_accuracy": mixture["accuracy"],
            "derived_valid_loss": derived["loss"],
            "derived_valid_accuracy": derived["accuracy"],
            "discretisation_gap": mixture["accuracy"] - derived["accuracy"],
        }


def run_search(
    config: SearchConfig, run: runs.Run, data: ImageData, device: torch.device, progress: bool = True
) -> dict[str, Any]:
    """Run a search to its end, from where its folder stands.

    Returns:
        The results: genotype, held-out accuracies of mixture and derived network.

    Raises:
        NonFiniteError: a loss became NaN; the last checkpoint is kept.
        runs.Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    main = distributed.is_main()
    state = SearchRun(config, data, device)
    saved, note = run.load_checkpoint()
    distributed.barrier()
    if saved is not None:
        state.load_state_dict(saved)
    search, per_epoch = state.search, len(state.train)
    bar = Progress("search", config.epochs, per_epoch, search.epoch, state.batch, progress and main)
    with bar, runs.Keeper(run if main else None, state.state_dict, config.checkpoint_seconds) as keeper:
        if note:
            bar.say(note)
        record: dict[str, Any] = {}
        valid = state.valid_stream()
        stopped = False
        while search.epoch < config.epochs and not stopped:
            epoch, began = search.epoch, time.monotonic()
            search.supernet.train()
            for train_batch in state.train.epoch(epoch, start=state.batch):
                report = _step(state, train_batch, next(valid))
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
                run.append(runs.TIMINGS, {**seconds, "measured_peak_memory_mib": measured_peak_mib(device)})
                run.save_tensors(runs.ALPHAS, state.trajectory)
            bar.epoch(epoch, {word: record[name] for name, word in _SHOWN.items() if name in record})
            _warn_of_collapse(bar, record, config.space.nodes)
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


def _step(state: SearchRun, train_batch: tuple[Tensor, Tensor], valid_batch: tuple[Tensor, Tensor]) -> StepReport:
    """One step; the first of each epoch also counts the memory it needs."""
    if state.batch > 0:
        return state.step(train_batch, valid_batch)
    with SavedTensors() as kept:
        report = state.step(train_batch, valid_batch)
    search = state.search
    state.memory_mib = step_mib(kept, search.supernet, [search.weight_optimizer, search.alpha_optimizer])
    return report


def _warn_of_collapse(bar: Progress, record: Mapping[str, Any], nodes: int) -> None:
    skips, operations = record["skip_connections"], 2 * nodes
    if 2 * skips >= operations:
        bar.say(
            f"warning: {skips} of the {operations} operations of the normal cell are skip connections; the search may "
            "be collapsing (known of long or first-order searches): prefer the genotype of an earlier epoch in "
            "metrics.jsonl, fewer epochs, or a second-order gradient"
        )


def _finish(state: SearchRun, run: runs.Run, last: Mapping[str, Any]) -> dict[str, Any]:
    genotype = state.search.result().genotype
    keys = ("valid_accuracy", "derived_valid_accuracy", "discretisation_gap", "skip_connections")
    results = {"genotype": genotype.to_text(), "steps": state.search.steps, **{k: last[k] for k in keys if k in last}}
    if distributed.is_main():
        genotype.save(run.path / runs.GENOTYPE)
        draw_cells(genotype, run.path / runs.PICTURE)
        runs.write_json(run.path / runs.RESULTS, results)
        run.set_status("finished")
    return results


def start_search(config: SearchConfig, path: str, device: torch.device) -> runs.Run:
    """Make the run folder of a search."""
    return runs.Run.create(path, to_json(config), config.seed, device)
