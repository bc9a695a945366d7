"""A search on images: two parts of the training images, one for the weights and one for the alphas.

Every random number is a function of (seed, step) or is saved, so a run that is killed and resumed
ends with the same files as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.data import Augment, ImageData
from gradnas.gradients import Reinforce
from gradnas.objectives import CrossEntropy
from gradnas.randomness import seed_for
from gradnas.runs import Record
from gradnas.search.bound_net import StepReport
from gradnas.search.capture import CapturedStep, check_capture
from gradnas.search.result import SearchResult
from gradnas.search.search import Search
from gradnas.spaces import Supernet
from gradnas.tasks.batched import BatchedSearch
from gradnas.tasks.calls import Parts
from gradnas.tasks.costs import measured_batch
from gradnas.tasks.images.divided import divided
from gradnas.tasks.images.evaluation import ImageBatch, ImageCalls
from gradnas.tasks.images.settings import SearchConfig

# Streams of random numbers.
INIT = 21
TRAIN_ORDER = 22
VALID_ORDER = 23
SMALLEST_HELD_OUT_BATCH = 128  # evaluation keeps no graph: larger batches are quicker


class ImageSearch(ImageCalls, BatchedSearch[SearchConfig, ImageBatch]):
    """A search of an image classifier."""

    result_keys: tuple[str, ...] = (
        "valid_accuracy",
        "derived_valid_accuracy",
        "discretisation_gap",
        "skip_connections",
    )
    shown: Mapping[str, str] = {
        "train_loss": "loss",
        "train_accuracy": "accuracy",
        "valid_accuracy": "valid",
        "derived_valid_accuracy": "derived",
        "skip_connections": "skips",
    }

    def __init__(self, config: SearchConfig, data: ImageData, device: torch.device) -> None:
        supernet = fresh_supernet(config, data)
        train_split, valid_split = divided(config, data)
        share = {"rank": distributed.rank(), "world": distributed.world()}
        workers = config.data.workers
        train = train_split.batches(
            config.batch_size,
            augment=config.data.augment,
            shuffle=True,
            seed=seed_for(config.seed, TRAIN_ORDER),
            device=device,
            workers=workers,
            **share,
        )
        valid = valid_split.batches(
            config.batch_size,
            augment=config.data.augment if config.valid_augment else Augment(),
            shuffle=True,
            seed=seed_for(config.seed, VALID_ORDER),
            device=device,
            workers=workers,
            **share,
        )
        search = Search(
            supernet,
            relaxation=config.relaxation,
            gradient=config.gradient,
            terms=config.terms,
            stabilizers=config.stabilizers,
            selection=config.selection,
            weights=config.weights,
            alphas=config.alphas,
            epochs=config.epochs,
            warmup_epochs=config.warmup_epochs,
            alpha_every=config.alpha_every,
            steps_per_epoch=len(train),
            seed=config.seed,
            device=device,
            precision=config.precision,
            cost=config.cost,
            example=example_input(config, data),
        )
        held_out = valid_split.batches(
            max(config.batch_size, SMALLEST_HELD_OUT_BATCH),
            shuffle=False,
            device=device,
            workers=workers,
        )
        super().__init__(config, search, train, valid, held_out, measure="accuracy")
        self.train_objective = CrossEntropy(config.label_smoothing)
        self.objective = CrossEntropy()
        gradient = config.gradient
        self.learns_accuracy = isinstance(gradient, Reinforce) and gradient.reward == "accuracy"
        # Made at the first step that is replayed: a recording holds the tensors as they lie.
        self.captured: CapturedStep | None = None
        if config.capture:
            check_capture(search)
        # Whatever the operations draw.
        torch.manual_seed(seed_for(config.seed, TRAIN_ORDER, distributed.rank()))

    # -- losses --

    def alpha_loss(self, loss: Tensor, parts: Parts) -> Tensor:
        return -parts["accuracy"] if self.learns_accuracy else loss

    def laid_out(self, network: nn.Module) -> nn.Module:
        return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    # -- steps --

    def bilevel_step(
        self, batch: ImageBatch, valid_batch: ImageBatch | None
    ) -> tuple[StepReport, Parts, Parts]:
        """As of any batches, or replayed with `capture` in the configuration.

        Smaller batches are not replayed, nor is the first of an epoch, whose memory is counted.
        """
        # A recording reads two batches, also while the alphas wait.
        other = batch if valid_batch is None else valid_batch
        size = self.config.batch_size
        whole = len(batch[1]) == size and len(other[1]) == size
        if not (self.config.capture and whole) or self.place.at_start:
            return super().bilevel_step(batch, valid_batch)
        if self.captured is None:
            self.captured = CapturedStep(self.search, self._loss_to_capture)
        report, train_parts, valid_parts = self.captured(batch, other)
        return report, train_parts, {} if report.valid_loss is None else valid_parts

    def _loss_to_capture(
        self, net: Callable[..., Any], x_BCHW: Tensor, y_B: Tensor
    ) -> tuple[Tensor, Parts]:
        return self.objective(net(x_BCHW), y_B)

    # -- epochs --

    def more_metrics(self, result: SearchResult) -> Record:
        return {"skip_connections": self.search.supernet.skip_count(result.decision)}

    def warnings(self, record: Record) -> list[str]:
        note = self.config.space.collapse_note(record["skip_connections"])
        return [] if note is None else [note]

    def results(self, result: SearchResult, last: Record) -> Record:
        found = super().results(result, last)
        code = self.config.space.short_code(result.decision)
        if code is not None:
            found["code"] = code
        return found


def fresh_supernet(config: SearchConfig, data: ImageData) -> Supernet:
    """The network with every choice open; a function of the seed alone."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed_for(config.seed, INIT))
        supernet = config.space.supernet(
            data.in_channels, data.num_classes, checkpoint_cells=config.checkpoint_cells
        )
    return supernet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def example_input(config: SearchConfig, data: ImageData) -> Tensor | None:
    """As many images as the cost of a search is for, of the size that it is for."""
    if config.cost is None:
        return None
    side = config.cost_image_size or data.image_size
    return torch.zeros(measured_batch(config.cost), data.in_channels, side, side)
