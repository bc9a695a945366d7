"""What a search has to beat: random architectures, each trained for a short time, at equal cost.

They see the data that a search sees: its train batches, its held-out batches, its optimiser of the
weights and its schedule, shortened.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gradnas.architectures.base import Architecture
from gradnas.config import check_numbers
from gradnas.gradients import ArchitectureGradient, FirstOrder, Unrolled
from gradnas.latency import macs
from gradnas.precision import autocast, cuda_products
from gradnas.randomness import generator_for, seed_for, seeded
from gradnas.search.proxies import NoPatternsError, Swap
from gradnas.tasks.batched import BatchedSearch

DRAWN = 81  # streams of random numbers
INITIAL = 82
SCORED = 83
FORWARD_AND_BACKWARD = 3  # in forward passes
SAMPLE = 16  # random architectures whose multiply-adds are counted


@dataclass(frozen=True)
class Trial:
    """One architecture of a baseline.

    Attributes:
        architecture: that was drawn.
        worth: by which it was chosen: the accuracy on what is held out, or minus the loss; None
            where it was only scored.
        score: of the proxy; None without one.
    """

    architecture: Architecture
    worth: float | None
    score: float | None


@dataclass(frozen=True)
class RandomSearch:
    """The best of some random architectures by a short training of each.

    Args:
        trials: architectures that are trained.
        epochs: of each training, from fresh weights; the learning rate falls along its schedule.
        pool: of so many random architectures those with the highest scores are trained; None: no
            filter.
        proxy: what scores them.

    The line to beat of NAS-Bench-201: the best of 100 cells by 12 epochs reaches 93.73% on CIFAR-10
    (Li and Talwalkar, "Random search and reproducibility for NAS", UAI 2019, arXiv 1902.07638, for
    the baseline; Dong and Yang, ICLR 2020, for its form).

    Raises:
        ValueError: fewer than 1 trial or epoch, a pool smaller than the trials.
    """

    trials: int
    epochs: int = 1
    pool: int | None = None
    proxy: Swap = Swap()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        if self.trials < 1 or self.epochs < 1:
            raise ValueError(
                f"trials and epochs must be at least 1, not {self.trials} and {self.epochs}"
            )
        if self.pool is not None and self.pool < self.trials:
            raise ValueError(f"the pool must hold the {self.trials} trials, not {self.pool}")
        check_numbers(self)

    def run(self, task: BatchedSearch[Any, Any]) -> list[Trial]:
        """All architectures that were looked at, the best first; a function of the task's seed.

        Args:
            task: a search that has not begun; nothing of it changes.

        Raises:
            ValueError: the search brings its own optimiser.
        """
        settings = task.search.weight_step.settings
        if settings is None:
            raise ValueError(
                "a short training needs the settings of SGD, and this search brings an optimiser "
                "of its own: give it a WeightOptimizer"
            )
        seed = task.search.passes.seed
        generator = generator_for(seed, DRAWN)
        supernet = task.search.supernet
        drawn = [supernet.random_decision(generator) for _ in range(self.pool or self.trials)]
        found: list[Trial] = []
        scores: list[float | None] = [None] * len(drawn)
        if self.pool is not None:
            scores = self._scores(task, drawn)
        order = sorted(range(len(drawn)), key=lambda k: -(scores[k] or 0.0))
        for place, k in enumerate(order):
            worth = None
            if place < self.trials:
                with seeded(seed, INITIAL, k):
                    network = task.laid_out(supernet.derived(drawn[k], "fresh"))
                    worth = self._trained(task, network)
            found.append(Trial(drawn[k], worth, scores[k]))
        # Stable: of equal ones the one that was drawn, or scored, first.
        trained = sorted(found[: self.trials], key=_rank)
        return trained + found[self.trials :]

    def _scores(
        self, task: BatchedSearch[Any, Any], drawn: Sequence[Architecture]
    ) -> list[float | None]:
        """Of all that were drawn; 0 of those in which no ReLU runs, where it does in others."""
        few = [part[:16] for part in next(iter(task.train.epoch(0)))]
        scores: list[float | None] = []
        without: NoPatternsError | None = None
        for one in drawn:
            # Layers whose weights the score does not draw have the same in every network.
            with seeded(task.search.passes.seed, SCORED):
                network = task.laid_out(task.search.supernet.derived(one, "fresh"))
                try:
                    scores.append(self.proxy.score(network, lambda net: task.outputs(net, few)))
                except NoPatternsError as error:
                    without = error
                    scores.append(0.0)
        if without is not None and not any(scores):
            raise without
        return scores

    def _trained(self, task: BatchedSearch[Any, Any], network: nn.Module) -> float:
        """What a network reaches on what is held out, after its training."""
        search = task.search
        settings = search.weight_step.settings
        assert settings is not None
        optimizer = settings.build(network.parameters())
        device = search.device
        network.train()
        with cuda_products(search.precision):
            for epoch in range(self.epochs):
                for group in optimizer.param_groups:
                    group["lr"] = settings.lr_at(float(epoch), self.epochs, 0)
                for batch in task.train.epoch(epoch):
                    with autocast(search.precision, device):
                        loss, _ = task.train_losses(task.outputs(network, batch), batch)
                    optimizer.zero_grad(set_to_none=True)
                    loss.backward()
                    if settings.clip_norm is not None:
                        nn.utils.clip_grad_norm_(network.parameters(), settings.clip_norm)
                    optimizer.step()
        network.eval()
        return task.worth(network, by_loss=False)  # type: ignore[bad-argument-type]


def _passes_of_alphas(gradient: ArchitectureGradient) -> int | None:
    """Passes with their gradient in a step of the alphas; None of a method that makes others."""
    if isinstance(gradient, FirstOrder):
        return 1
    if isinstance(gradient, Unrolled) and gradient.mode == "finite_difference":
        return 4  # the inner step, the validation loss, the train loss on both sides
    return None


def _rank(trial: Trial) -> float:
    """Where a trial belongs: the smaller the better; one that diverged comes last."""
    if trial.worth is None or math.isnan(trial.worth):
        return math.inf
    return -trial.worth


def trials_at_equal_cost(task: BatchedSearch[Any, Any], epochs: int = 1) -> int:
    """How many random architectures may be trained for the multiply-adds of a search; at least 1.

    A pass with its gradient counts as three forward passes; a search makes one of the supernet for
    each batch of the weights, one for each step of the alphas (four where the gradient is a finite
    difference of the second order), and a forward pass of what is held out for each operation that
    a `PerturbationSelection` leaves out; a trial one of a network for each train batch and a
    forward pass of what is held out.

    Raises:
        ValueError: multiply-adds that cannot be counted; a search that makes other passes: of
            another gradient, or of single operations.
    """
    search = task.search
    passes = _passes_of_alphas(search.gradient)
    if passes is None or not search.relaxation.trains_mixtures:
        raise ValueError(
            "the cost of a search is counted for passes of the whole mixture, with FirstOrder() or "
            "Unrolled(mode='finite_difference'), not for "
            f"{type(search.relaxation.innermost).__name__} with {search.gradient!r}: say how many "
            "trials"
        )
    batch = next(iter(task.train.epoch(0)))
    one = [part[:1] for part in batch]
    inputs = task.inputs(one)
    with torch.no_grad():
        of_supernet = macs(search.supernet, *inputs)
    generator = generator_for(search.passes.seed, seed_for(DRAWN, 1))
    total = 0
    with seeded(search.passes.seed, SCORED):
        for _ in range(SAMPLE):
            network = search.supernet.derived(search.supernet.random_decision(generator), "fresh")
            total += macs(network, *inputs)
    of_network = total / SAMPLE
    schedule = search.schedule
    train = len(task.train)
    length = schedule.epochs or 1
    alpha_steps = max(0, length - schedule.warmup_epochs) * train / schedule.alpha_every
    if schedule.alphas_wait:
        alpha_steps = 0
    selecting = search.selecting
    measured = 0 if selecting is None else selecting.number_of_measurements
    spent = FORWARD_AND_BACKWARD * of_supernet * (length * train + passes * alpha_steps)
    spent += of_supernet * measured * len(task.held_out)
    each = of_network * (FORWARD_AND_BACKWARD * epochs * train + len(task.held_out))
    return max(1, int(spent / max(each, 1.0)))
