"""The step of the weights: SGD, or an optimiser of the user's, on the train loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.gradients import ArchitectureGradient, SGDStep
from gradnas.optimizers import WeightOptimizer
from gradnas.search.bound_net import NetLoss
from gradnas.search.checks import MakeOptimizer, made_optimizer, no_gradient, scalar
from gradnas.search.passes import Passes, times
from gradnas.search.sampling import WEIGHT_NOISE
from gradnas.search.unlearnt import say_what_was_met


class WeightStep:
    """The weight optimiser with its schedule: `prepare` the step, then `take` it.

    Attributes:
        settings: of SGD; None where the user makes the optimiser, whose schedule is then his own.
        clip_norm: largest norm of the gradient; None: no clipping.
    """

    def __init__(self, passes: Passes, weights: WeightOptimizer | MakeOptimizer) -> None:
        self.passes = passes
        self.schedule = passes.schedule
        self.settings: WeightOptimizer | None = None
        self.clip_norm: float | None = None
        self.optimizer: torch.optim.Optimizer
        if isinstance(weights, WeightOptimizer):
            self.settings = weights
            self.clip_norm = weights.clip_norm
            self.optimizer = weights.build(passes.params.values())
        else:
            self.optimizer = made_optimizer(weights, passes.params, passes.alphas)

    def prepare(self, train_loss: NetLoss) -> Tensor:
        """Leave the gradients of the step in the weights; returns the train loss, detached.

        Raises:
            NonFiniteError: the loss or the gradient is NaN or infinite.
        """
        loss, params, grads = self.gradient(train_loss)
        is_fused = any(group.get("fused") for group in self.optimizer.param_groups)
        for p, g in zip(params, grads, strict=True):
            # Such an optimiser goes through weights and gradients in the order in which they lie in
            # memory; `backward` would have laid them alike.
            p.grad = torch.empty_like(p).copy_(g) if is_fused and g.stride() != p.stride() else g
        # The norm is wanted in any case: it is NaN or infinite where any gradient is. An infinite
        # limit clips nothing.
        limit = self.clip_norm if self.clip_norm is not None else math.inf
        size = nn.utils.clip_grad_norm_(params, limit)
        # All ranks must come to one answer: where the gradient is finite, the loss of one of them
        # may still be infinite.
        (mean_loss,) = distributed.mean([loss])
        if not torch.isfinite(size + mean_loss):
            self.optimizer.zero_grad(set_to_none=True)
            raise self.schedule.not_finite(
                "the train loss or the weight gradient is NaN or infinite"
            )
        return loss

    def take(self) -> None:
        """Move the weights along the gradients that `prepare` has left."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def gradient(self, train_loss: NetLoss) -> tuple[Tensor, list[nn.Parameter], list[Tensor]]:
        """The train loss, the weights that have a gradient, and their gradients.

        Updates running statistics, and nothing else.
        """
        self.passes.check_learning()
        # Constants here: a graph up to the alphas would be built for nothing.
        tables = {name: alpha.detach() for name, alpha in self.passes.alphas.items()}
        draw = self.passes.weight_path(tables, self.passes.noise(WEIGHT_NOISE))
        loss = scalar(self.passes.as_it_is(train_loss, draw), "train")
        if not loss.requires_grad:
            # Of sampled operations, none may have weights.
            if draw.is_dense:
                raise no_gradient("train", "weights")
            return loss, [], []
        if not self.schedule.steps:
            say_what_was_met(loss, [*self.passes.params.values(), *self.passes.alphas.values()])
        params = list(self.passes.learning.values())
        if not params:  # all of them have been frozen
            return loss.detach(), [], []
        counted = times(self.passes.factors.train, loss)
        grads = torch.autograd.grad(counted, params, allow_unused=True)

        # Operations that were not drawn get no gradient, hence no decay and no momentum either.
        present = []
        averaged = []
        for p, g in zip(params, grads, strict=True):
            if g is not None:
                present.append(p)
                averaged.append(g)
        # All ranks sample the same operations, so all have gradients of the same weights.
        if distributed.world() > 1:
            averaged = distributed.mean(averaged)
        return loss.detach(), present, averaged

    # ---- its learning rate -----------------------------------------------------------------------

    def advance(self) -> None:
        """Count the step, and let a learning rate follow that falls with every step."""
        self.schedule.finish_step()
        if self.settings is not None and self.settings.per_iteration:
            self.set_learning_rate()

    def set_learning_rate(self) -> None:
        """To that of the moment; constant where the length of the search is not known."""
        schedule = self.schedule
        epochs = schedule.learning_epochs
        if self.settings is None or epochs is None:
            return
        moment = float(schedule.epoch)
        if self.settings.per_iteration:
            moment = schedule.epochs_with_steps
        # A loop of one's own may go on past the end: at the last rate, not up the cosine again.
        moment = min(moment, epochs)
        lr = self.settings.lr_at(moment, epochs, schedule.warmup_epochs)
        if schedule.selection_epoch is not None:
            lr = self.settings.lr * schedule.selection_lr_share
        for group in self.optimizer.param_groups:
            group["lr"] = lr

    # ---- the step as a function ------------------------------------------------------------------

    def inner_step(self, gradient: ArchitectureGradient) -> SGDStep:
        """The coming step, read off the optimiser, for a gradient that looks through it.

        Raises:
            ValueError: it is not plain SGD.
        """
        optimizer = self.optimizer
        method = type(gradient).__name__
        if not isinstance(optimizer, torch.optim.SGD) or len(optimizer.param_groups) != 1:
            raise ValueError(
                f"{method} looks through the weight step and needs torch.optim.SGD with one "
                f"parameter group, not {type(optimizer).__name__} with "
                f"{len(optimizer.param_groups)}; FirstOrder() works with any optimiser"
            )
        group = optimizer.param_groups[0]
        if group["dampening"] or group["maximize"]:
            raise ValueError(
                f"{method} looks through the weight step and supports neither dampening nor "
                "maximize"
            )
        # The buffers themselves, no copies. What had no gradient so far has no momentum yet.
        buffers: dict[str, Tensor] = {}
        for name, p in self.passes.params.items():
            state = optimizer.state.get(p, {})
            buffer = state.get("momentum_buffer")
            if buffer is not None:
                buffers[name] = buffer
        return SGDStep(
            lr=group["lr"],
            momentum=group["momentum"],
            weight_decay=group["weight_decay"],
            buffers=buffers,
            nesterov=group["nesterov"],
            clip_norm=self.clip_norm if gradient.clips_inner_step else None,
        )
