"""The training of a network on a task of one's own, by our loop or by the user's function."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.optimizers import WeightOptimizer
from gradnas.precision import autocast, cuda_products
from gradnas.randomness import (
    generators_kept,
    random_state,
    seed_all,
    seed_for,
    seeded,
    set_random_state,
)
from gradnas.runs import Record, State
from gradnas.search.checks import scalar
from gradnas.search.modes import Modes
from gradnas.spaces.blocks.accelerate import accelerate
from gradnas.tasks.calls import Parts
from gradnas.tasks.evaluation import Means
from gradnas.tasks.training import TrainTask, update
from gradnas.tasks.your_task.calls import TaskCalls, measured
from gradnas.tasks.your_task.own_optimizer import OwnSchedule
from gradnas.tasks.your_task.place import StreamPlace
from gradnas.tasks.your_task.settings import TaskTrainConfig, steps_of
from gradnas.tasks.your_task.sources import Source
from gradnas.tasks.your_task.task import Task

# Streams of random numbers.
INIT = 81
ORDER = 82
NOISE = 83
DRAWN = 84


class TaskTraining(TaskCalls, TrainTask[TaskTrainConfig, Any]):
    """A training on a task of one's own, with SGD and a cosine or the task's optimiser.

    Args:
        network: another than that of the configuration, with the same calls.
    """

    place: StreamPlace

    def __init__(
        self,
        config: TaskTrainConfig,
        task: Task,
        device: torch.device,
        network: nn.Module | None = None,
    ) -> None:
        self.task = task
        network = new_network(config) if network is None else network
        self.modes = Modes(network)  # before anything changes them: what the user has frozen
        network = network.to(device)
        distributed.copy_from_main([*network.parameters(), *network.buffers()])
        super().__init__(config, network, _optimizer(config, task, network), device)
        self.train = task.train_data.stream(
            config.batch_size,
            seed_for(config.seed, ORDER),
            device,
            shuffle=True,
            workers=config.data.workers,
        )
        self.place = StreamPlace(self.train.length)
        steps = steps_of(config.epochs, self.train.length, config.max_steps)
        self.schedule = OwnSchedule(task, self.optimizer, steps)
        self.steps = 0
        has_kernels = config.accelerated and device.type == "cpu"
        self._kernels = accelerate(network).at_work if has_kernels else nullcontext
        seed_all(seed_for(config.seed, NOISE, distributed.rank()))  # dropout, for example

    # -- position --

    def position(self) -> State:
        return {
            "epoch": self.epoch,
            "batch": self.place.batch,
            "steps": self.steps,
            "schedule": self.schedule.state_dict(),
        }

    def go_to(self, position: State) -> None:
        self.epoch = position["epoch"]
        self.place.batch = position["batch"]
        self.steps = position["steps"]
        self.schedule.load_state_dict(position["schedule"])

    @property
    def num_steps(self) -> int:
        return self.steps

    # -- steps --

    def start_epoch(self) -> None:
        self.modes.train()
        weights = self.config.weights
        if weights is not None:
            # It falls with every epoch, not with every step.
            for group in self.optimizer.param_groups:
                group["lr"] = weights.lr_at(self.epoch, self.config.epochs)

    def batches(self) -> Iterator[Any]:
        return self.train.epoch(self.epoch, start=self.place.batch)

    def step(self, batch: Any) -> Parts:
        precision = self.config.precision
        with cuda_products(precision):
            with autocast(precision, self.device), self._kernels():
                loss, parts = self.losses(self.outputs(self.network, batch), batch)
            scalar(loss, "train").backward()
        weights = self.config.weights
        clip_norm = None if weights is None else weights.clip_norm
        update(self, loss, clip_norm, self.size(batch))
        self.schedule.step()
        self.means.add(parts, self.size(batch))
        self.place.batch += 1
        self.steps += 1
        return parts

    # -- epochs --

    def finish_epoch(self) -> Record:
        record: Record = {
            "epoch": self.epoch,
            "lr": self.optimizer.param_groups[0]["lr"],
            **self.means.values("train_"),
        }
        if self.task.valid_data is not None:
            found = self.evaluated(self.task.valid_data)
            record |= {f"valid_{name}": value for name, value in found.items()}
        record["peak_memory_mib"] = self.memory_mib
        self.epoch += 1
        self.place.batch = 0
        self.means = Means()
        return record

    def shown(self, record: Record) -> dict[str, float]:
        return {key: value for key, value in record.items() if key.startswith(("train_", "valid_"))}

    def evaluated(self, source: Source) -> dict[str, float]:
        """Mean loss and measures of the network, in eval mode.

        What it draws then (a sample of a latent variable) is the same in every evaluation, so that
        `gradnas evaluate` tells what the training has told.
        """
        self.network.eval()
        stream = source.stream(
            self.config.batch_size,
            seed_for(self.config.seed, ORDER),
            self.device,
            shuffle=False,
            workers=self.config.data.workers,
        )
        batches = _counted(self.waiting.on(stream.epoch(0)), self)
        before = random_state(self.device)
        with generators_kept():
            seed_all(seed_for(self.config.seed, DRAWN))
            found = measured(self.task, self.network, batches, self.config.precision, self.device)
        set_random_state(before, self.device)
        return found

    num_examples = 0  # of the last evaluation

    def results(self) -> Record:
        test = self.task.test_data
        assert test is not None  # refused before the run
        found = self.evaluated(test)
        return {
            **{f"test_{name}": value for name, value in found.items()},
            "num_test_examples": self.num_examples,
            "num_params": sum(p.numel() for p in self.network.parameters()),
            "genotype": self.config.genotype.to_text(),
            "epochs": self.config.epochs,
        }


class OwnTraining(TaskTraining):
    """A training that the user's function does, as a single epoch of a single step."""

    has_short_steps = False
    reads_batches = False  # the trainer does

    def __init__(
        self,
        config: TaskTrainConfig,
        task: Task,
        device: torch.device,
        network: nn.Module | None = None,
    ) -> None:
        super().__init__(config, task, device, network)
        self.place = StreamPlace(1)

    def batches(self) -> Iterator[Any]:
        return iter([None][self.place.batch :])

    def step(self, batch: Any) -> Parts:
        del batch
        assert self.task.trainer is not None
        self.task.trainer(self.network, self.config.epochs)
        for name, tensor in self.network.state_dict().items():
            if isinstance(tensor, Tensor) and not torch.isfinite(tensor).all():
                raise ValueError(f"the trainer of the task left NaN or infinite values in {name!r}")
        self.place.batch += 1
        self.steps += 1
        return {}

    def finish_epoch(self) -> Record:
        record = super().finish_epoch()
        del record["lr"]  # nobody knows it
        record["epoch"] = self.config.epochs - 1
        self.epoch = self.config.epochs
        return record


def new_network(config: TaskTrainConfig) -> nn.Module:
    """The freshly initialised network of a training; a function of the configuration alone."""
    with seeded(config.seed, INIT):
        return config.space.network(config.genotype)


def _optimizer(config: TaskTrainConfig, task: Task, network: nn.Module) -> torch.optim.Optimizer:
    params = [p for p in network.parameters() if p.requires_grad]
    settings = config.weights
    if settings is None and task.optimizer is not None:
        optimizer = task.optimizer(params)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise ValueError(
                "optimizer(params) of the task must give a torch.optim.Optimizer, not "
                f"{type(optimizer).__name__}"
            )
        return optimizer
    # With a training of the user's own this one is never used.
    return (settings or WeightOptimizer()).build(params)


def _counted(batches: Iterator[Any], training: TaskTraining) -> Iterator[Any]:
    training.num_examples = 0
    for batch in batches:
        training.num_examples += training.size(batch)
        yield batch
