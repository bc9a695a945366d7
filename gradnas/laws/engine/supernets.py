"""The differentiable search for formulas: K supernets trained at once.

Legend: K restarts, N points, J nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from gradnas.gradients import ArchitectureGradient, FirstOrder, SGDStep
from gradnas.gradients.base import Tensors
from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.graph import EquationGraph
from gradnas.laws.formula import Formula
from gradnas.randomness import generator_for
from gradnas.relaxations import Relaxation, Softmax
from gradnas.relaxations.sigmoid import Sigmoid, zero_one_loss

RIDGE = 1e-4  # of the output weights, for nodes of size 1: two equal nodes must have a solution
COLD = 0.15  # temperature of the alphas at the end


@dataclass(frozen=True)
class SupernetSearch:
    """How the supernets are trained.

    Args:
        restarts: K; they share nothing but the tensors that they are computed in.
        steps: training steps.
        relaxation, gradient: any of the library's. A gradient that looks through the weight step
            makes that step SGD.
        bilevel: alphas on one half of the points and weights on the other; False: both on all
            points.
        weight_lr, alpha_lr: of Adam on the weights (or of SGD) and of Adam on the alphas.
        clip_norm: largest gradient norm of the weights of one restart.
        output_in_closed_form: the output layer is solved for in every step; False: its weights are
            1 and there is no bias, as in the published DARTS for equations.
    """

    restarts: int = 64
    steps: int = 120
    relaxation: Relaxation = Softmax()
    gradient: ArchitectureGradient = FirstOrder()
    bilevel: bool = True
    weight_lr: float = 0.05
    alpha_lr: float = 0.06
    clip_norm: float = 5.0
    output_in_closed_form: bool = True


@dataclass(frozen=True)
class SearchOutcome:
    """What the supernets gave.

    Attributes:
        formulas: one for each restart that stayed finite and is not all `none`, best last loss
            first.
        dropped: restarts whose loss, weights or gradients stopped being finite.
    """

    formulas: list[Formula]
    dropped: int


def search(
    space: EquationGraph, data: LawData, settings: SupernetSearch, seed: int
) -> SearchOutcome:
    """Train the supernets and derive a formula from each.

    The temperature of the alphas falls from 1 to 0.15, so that the mixture ends near one primitive
    for each edge. The output weights are the ridge solution on the training points (variable
    projection): the alpha gradient passes through that solution, so this layer needs no unrolled
    step.
    """
    training = _Training(space, data, settings, seed)
    for step in range(settings.steps):
        training.step(step)
    return training.outcome()


class _Training:
    """K supernets, their optimisers, and which of them are alive."""

    def __init__(
        self, space: EquationGraph, data: LawData, settings: SupernetSearch, seed: int
    ) -> None:
        self.data = data
        self.settings = settings
        self.generator = generator_for(seed, 1)
        self.net = space.supernet(restarts=settings.restarts, generator=self.generator)
        self.x_DN = data.x_DN.float()
        self.target_N = _working(data)
        self.w_N = data.w_N.float()

        # Two levels: the weights learn on one half, the alphas are judged on the other. With fewer
        # points than this a half says nothing, and both see all.
        order = torch.randperm(len(self.target_N), generator=self.generator, device="cpu")
        half = len(order) // 2
        self.train_rows = order
        self.valid_rows = order
        if settings.bilevel and half >= 4:
            self.train_rows = order[:half]
            self.valid_rows = order[half:]

        self.alphas: dict[str, Tensor] = dict(self.net.alphas.items())
        self.params: dict[str, Tensor] = {"a": self.net.a, "b": self.net.b}
        # A gradient that looks through the weight step knows that step as plain SGD.
        self.plain_sgd = settings.gradient.needs_inner_step
        self.optimizer: torch.optim.Optimizer
        if self.plain_sgd:
            self.optimizer = torch.optim.SGD(self.params.values(), lr=settings.weight_lr)
        else:
            self.optimizer = torch.optim.Adam(self.params.values(), lr=settings.weight_lr)
        # The betas of DARTS.
        self.alpha_optimizer = torch.optim.Adam(
            self.alphas.values(), lr=settings.alpha_lr, betas=(0.5, 0.999)
        )
        self.alive_K = torch.ones(settings.restarts, dtype=torch.bool)
        self.last_K = torch.full((settings.restarts,), math.inf)

    def step(self, step: int) -> None:
        """One step of the alphas and one of the weights, of all restarts that are alive."""
        settings = self.settings
        work = self.data.work
        num_constants = self.net.a[0].numel()
        work.spent += work.supernets(settings.restarts, num_constants, len(self.target_N))
        progress = step / max(1, settings.steps - 1)  # 0 at the first step, 1 at the last
        losses = _Losses(
            training=self,
            temperature=COLD**progress,  # from 1 to COLD by equal factors
            progress=progress,
            noise=settings.relaxation.noise(self.alphas, self.generator),
        )
        if settings.bilevel or self.plain_sgd:
            loss_K, grads = self._alternating(losses)
        else:
            loss_K, grads = self._at_once(losses)
        # Restarts share tensors, so one that stopped being finite cannot leave; it is passed over
        # from here on, and the others do not notice.
        finite_by_tensor = [torch.isfinite(grad.flatten(1)).all(1) for grad in grads.values()]
        finite_K = torch.stack(finite_by_tensor).all(0)
        self.alive_K = self.alive_K & torch.isfinite(loss_K.detach())
        self.alive_K = self.alive_K & finite_K  # for good: none comes back
        assign(self.params, grads, self.alive_K, settings.clip_norm)
        self.optimizer.step()
        self.last_K = loss_K.detach()

    def _alternating(self, losses: _Losses) -> tuple[Tensor, Tensors]:
        """The step of the alphas; then the losses and the gradients of the weights."""
        settings = self.settings
        inner = SGDStep(settings.weight_lr) if self.plain_sgd else None
        alpha_grads = settings.gradient(losses.train, losses.valid, self.params, self.alphas, inner)
        assign(self.alphas, alpha_grads, self.alive_K, None)
        self.alpha_optimizer.step()
        # The weights move at the alphas that are there now, which need no gradient for that.
        still = {name: alpha.detach() for name, alpha in self.alphas.items()}
        loss_K = losses.of_restarts(self.params, still, self.train_rows)
        total = torch.where(self.alive_K, loss_K, 0.0).sum()
        return loss_K, gradients_of(total, self.params)

    def _at_once(self, losses: _Losses) -> tuple[Tensor, Tensors]:
        """As `_alternating`, both from one backward pass: one level, and both on all points."""
        loss_K = losses.of_restarts(self.params, self.alphas, self.train_rows)
        total = torch.where(self.alive_K, loss_K, 0.0).sum()
        by_name = gradients_of(total, {**self.params, **self.alphas})
        assign(self.alphas, {name: by_name[name] for name in self.alphas}, self.alive_K, None)
        self.alpha_optimizer.step()
        return loss_K, {name: by_name[name] for name in self.params}

    def outcome(self) -> SearchOutcome:
        """The formulas of the restarts that are alive."""
        # The dead rank last, with an infinite loss; they are left out below.
        ranked = torch.argsort(torch.where(self.alive_K, self.last_K, torch.inf)).tolist()
        decided = self.net.decide(self.settings.relaxation).formulas
        formulas: list[Formula] = []
        for k in ranked:
            formula = decided[k]
            if formula is not None and bool(self.alive_K[k]):
                formulas.append(formula)
        return SearchOutcome(formulas, dropped=int((~self.alive_K).sum()))


@dataclass(frozen=True)
class _Losses:
    """The losses of one step: every pass of it sees the same noise and temperature."""

    training: _Training
    temperature: float
    progress: float
    noise: Tensors

    def of_restarts(self, params: Tensors, alphas: Tensors, rows: Tensor) -> Tensor:
        """(K,) losses at some rows."""
        training = self.training
        settings = training.settings
        cooled = {name: alpha / self.temperature for name, alpha in alphas.items()}
        draw = settings.relaxation.draw(cooled, self.noise, self.progress)
        node_KJN = functional_call(training.net, params, (training.x_DN,), {"draw": draw})
        return _output_loss(
            node_KJN,
            training.target_N,
            training.w_N,
            training.train_rows,
            rows,
            settings.output_in_closed_form,
        )

    def train(self, params: Tensors, alphas: Tensors) -> Tensor:
        """The sum over the restarts that are alive: none of them depends on another."""
        loss_K = self.of_restarts(params, alphas, self.training.train_rows)
        return torch.where(self.training.alive_K, loss_K, 0.0).sum()

    def valid(self, params: Tensors, alphas: Tensors) -> Tensor:
        """The loss of the alphas."""
        loss_K = self.of_restarts(params, alphas, self.training.valid_rows)
        loss = torch.where(self.training.alive_K, loss_K, 0.0).sum()
        settings = self.training.settings
        if isinstance(settings.relaxation, Sigmoid):
            # A mean over all restarts, beside a sum over them.
            loss = loss + settings.restarts * zero_one_loss(alphas)
        return loss


def gradients_of(total: Tensor, tensors: Tensors) -> Tensors:
    """The gradients of a scalar; zeros by what it does not depend on.

    Words without constants, such as `exp` or `add`, leave the constants of the edges without use.
    """
    if not total.requires_grad:
        return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
    grads = torch.autograd.grad(total, list(tensors.values()), allow_unused=True)
    by_name: dict[str, Tensor] = {}
    for (name, tensor), grad in zip(tensors.items(), grads, strict=True):
        by_name[name] = torch.zeros_like(tensor) if grad is None else grad
    return by_name


def _working(data: LawData) -> Tensor:
    """What the supernets fit by least squares.

    The target, or for other losses the working response of a step of Fisher scoring from the best
    constant.
    """
    if data.loss == "squared":
        return data.y_N.float()
    # (y - mean) / (d mean / d eta), by the log-odds or the log-rate eta.
    mean = (data.w_N * data.y_N).mean()
    if data.loss == "logistic":
        return ((data.y_N - mean) / (mean * (1 - mean))).float()
    return ((data.y_N - mean) / mean).float()


def _output_loss(
    node_KJN: Tensor, y_N: Tensor, w_N: Tensor, train: Tensor, rows: Tensor, closed_form: bool
) -> Tensor:
    """Squared error per restart as a share of the variance, at `rows`.

    The output layer is solved for on the rows `train`.
    """
    ones = torch.ones_like(node_KJN[:, :1])
    # Divided by the variance, so that learning rates and clipping suit targets of any size.
    variance = (w_N * (y_N - (w_N * y_N).mean()) ** 2).mean().clamp(min=1e-30)
    if not closed_form:
        value_KN = node_KJN.sum(1)
        return (w_N[rows] * (value_KN[:, rows] - y_N[rows]) ** 2).mean(-1) / variance
    # Each node is scaled to size 1 first, so that one ridge suits all. The size is no part of the
    # gradient: a scale nearly cancels in what the output layer makes of it.
    mean_square = node_KJN.detach()[:, :, train].square().mean(-1, keepdim=True)
    size = mean_square.sqrt().clamp(min=1e-6)
    basis = torch.cat([node_KJN / size, ones], dim=1)
    # Normal equations of the ridge, divided by the number of points so that RIDGE means the same
    # for any.
    known = basis[:, :, train] * w_N[train]
    gram = known @ basis[:, :, train].transpose(1, 2) / len(train)
    gram = gram + RIDGE * torch.eye(gram.shape[-1])
    right = (known @ y_N[train]) / len(train)
    # Without an exception where one restart of many has no solution: it comes out as not finite.
    weight = torch.linalg.solve_ex(gram, right.unsqueeze(-1)).result
    value_KN = (weight.transpose(1, 2) @ basis[:, :, rows]).squeeze(1)
    return (w_N[rows] * (value_KN - y_N[rows]) ** 2).mean(-1) / variance


def assign(tensors: Tensors, grads: Tensors, alive_K: Tensor, clip_norm: float | None) -> None:
    """Gradients of the restarts that are alive, each clipped to its own norm."""
    clean: dict[str, Tensor] = {}
    for name, grad in grads.items():
        # Of the alphas, a gradient need not be finite even where the restart is still alive.
        finite = torch.nan_to_num(grad, 0.0, 0.0, 0.0)
        clean[name] = torch.where(per_restart(alive_K, grad), finite, 0.0)
    if clip_norm is not None:
        squares = [grad.flatten(1).square().sum(1) for grad in clean.values()]
        norm_K = torch.stack(squares).sum(0).sqrt()
        # Over all tensors of a restart: clipping all restarts by one norm would couple them.
        factor_K = (clip_norm / norm_K.clamp(min=1e-12)).clamp(max=1.0)
        for name, grad in clean.items():
            clean[name] = grad * per_restart(factor_K, grad)
    for name, tensor in tensors.items():
        tensor.grad = clean[name]


def per_restart(value_K: Tensor, like: Tensor) -> Tensor:
    """One number for each restart, in the shape that multiplies `like`, `(K, ...)`."""
    ones = [1] * (like.dim() - 1)
    return value_K.view(-1, *ones)
