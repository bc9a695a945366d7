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
from gradnas.laws.engine.graph import EquationGraph
from gradnas.laws.engine.refit import LawData
from gradnas.laws.formula import Formula
from gradnas.randomness import generator_for
from gradnas.relaxations import Relaxation, Softmax
from gradnas.relaxations.sigmoid import Sigmoid, zero_one_loss

RIDGE = 1e-4
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
            1 and its bias the mean of the target, as in the published DARTS for equations.
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
    """Attributes:
    formulas: one for each restart that stayed finite and is not all `none`, best last loss first.
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
    generator = generator_for(seed, 1)
    net = space.supernet(restarts=settings.restarts, generator=generator)
    target_N, x_DN = _working(data), data.x_DN.float()
    order = torch.randperm(len(target_N), generator=generator)
    half = len(order) // 2
    train, valid = (
        (order[:half], order[half:]) if settings.bilevel and half >= 4 else (order, order)
    )
    alphas: dict[str, Tensor] = dict(net.alphas.items())
    params: dict[str, Tensor] = {"a": net.a, "b": net.b}
    alive_K = torch.ones(settings.restarts, dtype=torch.bool)
    plain_sgd = settings.gradient.needs_inner_step
    optimizer = (
        torch.optim.SGD(params.values(), lr=settings.weight_lr)
        if plain_sgd
        else torch.optim.Adam(params.values(), lr=settings.weight_lr)
    )
    alpha_optimizer = torch.optim.Adam(alphas.values(), lr=settings.alpha_lr, betas=(0.5, 0.999))
    w_N = data.w_N.float()
    last_K = torch.full((settings.restarts,), math.inf)

    for step in range(settings.steps):
        data.work.spent += data.work.supernets(settings.restarts, net.a[0].numel(), len(target_N))
        progress = step / max(1, settings.steps - 1)
        temperature = COLD**progress
        noise = settings.relaxation.noise(alphas, generator)

        def losses(params: Tensors, alphas: Tensors, rows: Tensor) -> Tensor:
            cooled = {name: alpha / temperature for name, alpha in alphas.items()}
            draw = settings.relaxation.draw(cooled, noise, progress)
            node_KJN = functional_call(net, params, (x_DN,), {"draw": draw})
            return _output_loss(
                node_KJN, target_N, w_N, train, rows, settings.output_in_closed_form
            )

        def train_loss(params: Tensors, alphas: Tensors) -> Tensor:
            return torch.where(alive_K, losses(params, alphas, train), 0.0).sum()

        def valid_loss(params: Tensors, alphas: Tensors) -> Tensor:
            loss = torch.where(alive_K, losses(params, alphas, valid), 0.0).sum()
            if isinstance(settings.relaxation, Sigmoid):
                loss = loss + settings.restarts * zero_one_loss(alphas)
            return loss

        if settings.bilevel or plain_sgd:
            inner = SGDStep(settings.weight_lr) if plain_sgd else None
            alpha_grads = settings.gradient(train_loss, valid_loss, params, alphas, inner)
            _assign(alphas, alpha_grads, alive_K, None)
            alpha_optimizer.step()
            loss_K = losses(params, {k: v.detach() for k, v in alphas.items()}, train)
            grads = torch.autograd.grad(
                torch.where(alive_K, loss_K, 0.0).sum(), list(params.values())
            )
        else:
            loss_K = losses(params, alphas, train)
            both = torch.autograd.grad(
                torch.where(alive_K, loss_K, 0.0).sum(),
                [*params.values(), *alphas.values()],
                allow_unused=True,
            )
            grads = both[: len(params)]
            found = zip(alphas.items(), both[len(params) :], strict=True)
            _assign(
                alphas,
                {k: torch.zeros_like(a) if g is None else g for (k, a), g in found},
                alive_K,
                None,
            )
            alpha_optimizer.step()
        alive_K = alive_K & torch.isfinite(loss_K.detach())
        alive_K = alive_K & torch.stack([torch.isfinite(g.flatten(1)).all(1) for g in grads]).all(0)
        _assign(params, dict(zip(params, grads, strict=True)), alive_K, settings.clip_norm)
        optimizer.step()
        last_K = loss_K.detach()
    ranked = torch.argsort(torch.where(alive_K, last_K, torch.inf)).tolist()
    decided = net.decide(settings.relaxation)
    formulas = [decided[k] for k in ranked if bool(alive_K[k])]
    return SearchOutcome([f for f in formulas if f is not None], int((~alive_K).sum()))


def _working(data: LawData) -> Tensor:
    """What the supernets fit by least squares: the target, or for other losses a step of Fisher
    scoring."""
    if data.loss == "squared":
        return data.y_N.float()
    mean = (data.w_N * data.y_N).mean()
    if data.loss == "logistic":
        return ((data.y_N - mean) / (mean * (1 - mean))).float()
    return ((data.y_N - mean) / mean).float()


def _output_loss(
    node_KJN: Tensor, y_N: Tensor, w_N: Tensor, train: Tensor, rows: Tensor, closed_form: bool
) -> Tensor:
    """Squared error per restart as a share of the variance, at `rows`, the output layer solved on
    `train`."""
    ones = torch.ones_like(node_KJN[:, :1])
    variance = (w_N * (y_N - (w_N * y_N).mean()) ** 2).mean().clamp(min=1e-30)
    if not closed_form:
        value_KN = node_KJN.sum(1)
        return (w_N[rows] * (value_KN[:, rows] - y_N[rows]) ** 2).mean(-1) / variance
    # Each node is scaled to size 1 first, so that one ridge suits all.
    size = node_KJN.detach()[:, :, train].square().mean(-1, keepdim=True).sqrt().clamp(min=1e-6)
    basis = torch.cat([node_KJN / size, ones], dim=1)
    known = basis[:, :, train] * w_N[train]
    gram = known @ basis[:, :, train].transpose(1, 2) / len(train)
    gram = gram + RIDGE * torch.eye(gram.shape[-1])
    right = (known @ y_N[train]) / len(train)
    weight = torch.linalg.solve_ex(gram, right.unsqueeze(-1)).result
    value_KN = (weight.transpose(1, 2) @ basis[:, :, rows]).squeeze(1)
    return (w_N[rows] * (value_KN - y_N[rows]) ** 2).mean(-1) / variance


def _assign(tensors: Tensors, grads: Tensors, alive_K: Tensor, clip_norm: float | None) -> None:
    """Gradients of the restarts that are alive, each clipped to its own norm."""
    clean = {
        name: torch.where(
            alive_K.view(-1, *[1] * (g.dim() - 1)), torch.nan_to_num(g, 0.0, 0.0, 0.0), 0.0
        )
        for name, g in grads.items()
    }
    if clip_norm is not None:
        norm_K = torch.stack([g.flatten(1).square().sum(1) for g in clean.values()]).sum(0).sqrt()
        factor_K = (clip_norm / norm_K.clamp(min=1e-12)).clamp(max=1.0)
        clean = {name: g * factor_K.view(-1, *[1] * (g.dim() - 1)) for name, g in clean.items()}
    for name, tensor in tensors.items():
        tensor.grad = clean[name]
