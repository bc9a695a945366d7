"""The step of the alphas: Adam on the validation loss, with the architecture gradient of choice."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.gradients import ArchitectureGradient, SGDStep
from gradnas.gradients.base import NO_SECOND, Tensors, same_randomness
from gradnas.search.bound_net import BoundNet, NetLoss
from gradnas.search.checks import lacks_second, no_gradient, scalar
from gradnas.search.costs import Spending
from gradnas.search.passes import Passes, times
from gradnas.search.recomputation import recomputation_refused
from gradnas.search.rewards import Rewards
from gradnas.search.sampling import ALPHA_NOISE
from gradnas.search.terms import Terms, Weights
from gradnas.search.unlearnt import refuse_own_weights
from gradnas.search.weight_step import WeightStep


class AlphaStep:
    """The optimiser of the alphas with what gives their gradient; calling it takes the step.

    Args:
        passes: of the supernet.
        method: how d L_valid / d alpha is computed.
        optimizer: of the alphas.
        weight_step: the step that follows, for a gradient that looks through it.
        spending: a cost in the loss of the alphas.
        rewards: for a gradient that learns from sampled networks.
        terms: of the alphas alone, in their loss.
    """

    def __init__(
        self,
        passes: Passes,
        method: ArchitectureGradient,
        optimizer: torch.optim.Optimizer,
        weight_step: WeightStep,
        spending: Spending | None,
        rewards: Rewards | None,
        terms: Terms,
    ) -> None:
        self.passes = passes
        self.method = method
        self.optimizer = optimizer
        self.weight_step = weight_step
        self.spending = spending
        self.rewards = rewards
        self.terms = terms

    def __call__(self, train_loss: NetLoss, valid_loss: NetLoss) -> Tensor:
        """One step; returns the validation loss, detached.

        Raises:
            NonFiniteError: the loss or the gradient is NaN or infinite; nothing was changed.
        """
        noise: Tensors = {}
        baseline: float | None = None
        try:
            if self.rewards is not None:
                grads, loss, baseline = self.rewards.gradient(valid_loss)
                grads = self.terms.added_to(grads, self.passes.alphas)
            else:
                noise = self.passes.noise(ALPHA_NOISE)
                inner = None
                if self.method.needs_inner_step:
                    inner = self.weight_step.inner_step(self.method)
                grads, loss = self.gradient(train_loss, valid_loss, noise, inner)
        except FloatingPointError as error:
            raise self.passes.schedule.not_finite(str(error)) from error
        # All ranks must come to one answer, and each has seen a loss of its own.
        (mean_loss,) = distributed.mean([loss])
        if not torch.isfinite(nn.utils.get_total_norm([*grads.values(), mean_loss])):
            raise self.passes.schedule.not_finite(
                "the validation loss or the architecture gradient is NaN or infinite"
            )

        # From here on nothing can fail: the step is made whole.
        self._update(grads, noise)
        if self.rewards is not None:
            self.rewards.baseline = baseline
        if self.spending is not None:
            # At the new alphas: the multiplier of a budget answers to where the step has led.
            self.spending.advance(self.expected_cost(self.spending))
        return loss

    def gradient(
        self,
        train_loss: NetLoss,
        valid_loss: NetLoss,
        noise: Tensors,
        inner: SGDStep | None,
        weights_of_terms: Weights | None = None,
    ) -> tuple[Tensors, Tensor]:
        """The architecture gradient of the step, and the validation loss; changes nothing.

        The loss is that of the first call, without the cost and the terms: a gradient by finite
        differences, say, may call it again with other weights.

        Args:
            weights_of_terms: in the place of those of this epoch.
        """
        seen: list[Tensor] = []
        factors = self.passes.factors

        def looked_at(loss: Tensor) -> Tensor:
            # Once: the graph is large, and a network does in every step what it does in one.
            if self.method.needs_inner_step and not self.optimizer.state:
                refuse_own_weights(loss, self.passes.params, type(self.method).__name__)
            return loss

        def counted(net: BoundNet) -> Tensor:
            return times(factors.train, looked_at(scalar(train_loss(net), "train")))

        def with_cost(net: BoundNet) -> Tensor:
            loss = looked_at(scalar(valid_loss(net), "validation"))
            if torch.is_grad_enabled() and not loss.requires_grad:
                raise no_gradient("validation", "alphas")
            seen.append(loss.detach())
            if self.spending is not None:
                spent = self.spending.expected(net.draw.probabilities)
                loss = self.spending.combine(loss, spent)
            # The factors of all ranks have the mean 1, so that the cost counts in full.
            return times(factors.valid, loss)

        # The losses are closures over weights and alphas, since a gradient evaluates them where the
        # network is not: at the unrolled weights, or on both sides of its own.
        train = self.passes.closure(counted, noise)
        valid = self.passes.closure(with_cost, noise)
        valid = self.terms.added(valid, weights_of_terms)
        with recomputation_refused(self.passes.supernet):
            try:
                grads = self.method(
                    train, valid, self.passes.learning, self.passes.alphas, inner=inner
                )
            except (RuntimeError, NotImplementedError) as error:
                if not (self.method.differentiates_twice and lacks_second(error)):
                    raise
                raise ValueError(
                    f"{type(self.method).__name__} needs second derivatives, and torch has none of "
                    f"a part of the network or the loss ({str(error).splitlines()[0]}): {NO_SECOND}"
                ) from error
        return grads, seen[0]

    def expected_cost(self, spending: Spending) -> float:
        """The expected cost of the alphas as they stand, without noise."""
        # In float64, as the costs are: their sums have more digits than float32.
        alphas = {name: alpha.detach().double() for name, alpha in self.passes.alphas.items()}
        return spending.expected(self.passes.probabilities(alphas)).item()

    @torch.no_grad()
    def probe(self, loss: NetLoss) -> Tensor:
        """The value of a loss in the coming step, with the samples of that step; changes nothing.

        The random state is put back too, so that the step itself sees the same dropout.
        """
        params: Tensors = dict(self.passes.params)
        alphas: Tensors = dict(self.passes.alphas)
        with same_randomness([*params.values(), *alphas.values()]):
            return self.passes.closure(loss, self.passes.noise(ALPHA_NOISE))(params, alphas)

    def _update(self, grads: Tensors, noise: Tensors) -> None:
        alphas = self.passes.alphas
        relaxation = self.passes.relaxation
        # Rewards teach all operations at once: there is no pair whose share would have to stay.
        corrects = relaxation.corrects_updates and self.rewards is None
        before: Tensors = {}
        if corrects:
            before = {name: alpha.detach().clone() for name, alpha in alphas.items()}
        for name, alpha in alphas.items():
            alpha.grad = grads[name]
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if not corrects:
            return
        # The relaxation has the last word: gates that learnt about two operations keep the shares
        # of all others (ProxylessNAS), which a softmax would have moved too.
        tables = self.passes.tables
        corrected = relaxation.after_update({name: before[name] for name in tables}, tables, noise)
        with torch.no_grad():
            for name, alpha in tables.items():
                if corrected[name] is not alpha:
                    alpha.copy_(corrected[name])
