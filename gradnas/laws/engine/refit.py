"""The constants of many formulas, fitted at once: Levenberg-Marquardt with variable projection, in
float64.

Legend: C formulas, J nodes, N points, D features, P constants inside the nodes, L = J + 1 output
weights and the bias.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.laws.engine.batch import (
    FormulaBatch,
    Values,
)
from gradnas.laws.formula import Formula
from gradnas.laws.primitives import (
    PRIMITIVES,
    Primitive,
)

Loss = Literal["squared", "logistic", "poisson"]
EXACT = 1e-20  # share of the target's variance below which an error is rounding
CHUNK = 120_000  # formulas x nodes x edges x points in one set of tensors: larger leaves the cache


@dataclass
class Work:
    """What a search has done, and what it may do, in seconds that one core takes for it, about.

    Computed from the sizes of what is done, never read from a clock: a search ends at the same
    place on every machine. The coefficients were measured on one; a processor twice as fast needs
    half the time.
    """

    limit: float = math.inf
    spent: float = 0.0

    def descent(self, batch: FormulaBatch, points: int) -> None:
        """One step of a descent."""
        self.spent += 2.4e-3 + 9e-8 * batch.source.numel() * points

    def scores(self, products: int, sums: int, places: int) -> None:
        """Scores of so many products and sums of two atoms, and of so many numbers of atoms in
        places."""
        self.spent += 5e-3 + 1e-8 * products + 4e-9 * sums + 2e-9 * places

    @staticmethod
    def supernets(restarts: int, constants: int, points: int) -> float:
        """What one training step of so many supernets with so many inner constants takes."""
        return 3e-3 + 3e-8 * restarts * constants * points

    def over(self, share: float = 1.0) -> bool:
        """Whether this share of what may be done is done."""
        return self.spent >= share * self.limit


@dataclass(frozen=True)
class LawData:
    """What laws are fitted to.

    Attributes:
        x_DN: features, float64.
        y_N: target.
        w_N: weights with mean 1.
        loss: squared error, cross entropy of the log-odds, or Poisson deviance of the log-rate.
        points: how many points the rows stand for, where that is not their number: equal rows may
            be one row of larger weight.
        work: what was done with these data; parts and transformations of them count there, too.
    """

    x_DN: Tensor
    y_N: Tensor
    w_N: Tensor
    loss: Loss = "squared"
    primitives: Mapping[str, Primitive] = field(default_factory=lambda: PRIMITIVES, repr=False)
    points: float | None = None
    work: Work = field(default_factory=Work, repr=False, compare=False)

    @property
    def n(self) -> float:
        """The number of points, n of a description length."""
        return len(self.y_N) if self.points is None else self.points

    @property
    def spread(self) -> float:
        """Mean loss of the best constant; no less than the rounding error of the numbers."""
        mean = (self.w_N * self.y_N).mean()
        if self.loss == "squared":
            floor = 1e-30 * float((self.y_N**2).mean())
            return max(float((self.w_N * (self.y_N - mean) ** 2).mean()), floor, 1e-300)
        eta = torch.log(mean / (1 - mean)) if self.loss == "logistic" else torch.log(mean)
        return float(mean_loss(eta.expand(1, len(self.y_N)), self)[0])

    def rows(self, index_M: Tensor) -> LawData:
        """Some of the points."""
        w = self.w_N[index_M]
        points = self.n * float(w.sum() / self.w_N.sum())
        return LawData(
            self.x_DN[:, index_M],
            self.y_N[index_M],
            w / w.mean(),
            self.loss,
            self.primitives,
            points,
            self.work,
        )


def mean_loss(eta_CN: Tensor, data: LawData) -> Tensor:
    """Weighted mean loss of each row; inf where a value is not finite."""
    if data.loss == "squared":
        loss = (eta_CN - data.y_N) ** 2
    elif data.loss == "logistic":
        loss = F.softplus(eta_CN) - data.y_N * eta_CN
    else:
        loss = (
            torch.exp(eta_CN)
            - data.y_N * eta_CN
            + torch.special.xlogy(data.y_N, data.y_N)
            - data.y_N
        )
    mean = (data.w_N * loss).mean(-1)
    return torch.where(torch.isfinite(mean), mean, torch.inf)


@dataclass
class _State:
    """One point of the descent: constants, loss, and the normal equations there."""

    theta_CP: Tensor
    weight_CL: Tensor
    loss_C: Tensor
    matrix: Tensor
    gradient: Tensor


def _curvature(eta_CN: Tensor, data: LawData) -> tuple[Tensor, Tensor]:
    """Weights of the points in the normal equations, and the (weighted) residuals: Fisher
    scoring."""
    if data.loss == "squared":
        return data.w_N.expand_as(eta_CN), data.w_N * (data.y_N - eta_CN)
    mean = torch.sigmoid(eta_CN) if data.loss == "logistic" else torch.exp(eta_CN.clamp(max=50.0))
    weight = mean * (1 - mean) if data.loss == "logistic" else mean
    return data.w_N * weight.clamp(min=1e-6), data.w_N * (data.y_N - mean)


def _solve(matrix: Tensor, vector: Tensor) -> Tensor:
    """Solution of symmetric systems, scaled to a unit diagonal first; zeros where there is none."""
    scale = matrix.diagonal(dim1=-2, dim2=-1).clamp(min=1e-200).rsqrt()
    scaled = matrix * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    scaled = scaled + 1e-13 * torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    scaled = torch.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0)
    factor, info = torch.linalg.cholesky_ex(scaled)
    good = (info == 0).view(-1, 1)
    factor = torch.where(
        good.unsqueeze(-1), factor, torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    )
    found = torch.cholesky_solve((vector * scale).unsqueeze(-1), factor).squeeze(-1) * scale
    return torch.where(good, torch.nan_to_num(found, nan=0.0, posinf=0.0, neginf=0.0), 0.0)


def _basis(batch: FormulaBatch, values: Values) -> Tensor:
    node_CJN = values.node_CJN
    ones = node_CJN.new_ones(node_CJN.shape[0], 1, node_CJN.shape[2])
    return torch.cat([node_CJN, ones], dim=1) * batch.in_output.unsqueeze(-1)


def _point(batch: FormulaBatch, theta_CP: Tensor, weight_CL: Tensor, data: LawData) -> _State:
    """Values, output weights (in closed form for the squared error), loss and normal equations at
    some constants."""
    values = batch.forward(data.x_DN, theta_CP)
    basis = _basis(batch, values)
    if data.loss == "squared":
        weighted = basis * data.w_N
        gram = weighted @ basis.transpose(1, 2)
        for _ in range(2):  # the second round removes the rounding error of the first
            residual = data.y_N - (weight_CL.unsqueeze(1) @ basis).squeeze(1)
            weight_CL = weight_CL + _solve(gram, (weighted @ residual.unsqueeze(-1)).squeeze(-1))
    eta = (weight_CL.unsqueeze(1) @ basis).squeeze(1)
    loss = mean_loss(eta, data)
    jacobian, _ = batch.backward(values, weight_CL[:, :-1])
    curvature, residual = _curvature(eta, data)
    full = torch.cat([jacobian, basis], dim=1)
    matrix = (full * curvature.unsqueeze(1)) @ full.transpose(1, 2)
    gradient = (full @ residual.unsqueeze(-1)).squeeze(-1)
    return _State(theta_CP, weight_CL, loss, matrix, gradient)


def _descend(
    batch: FormulaBatch, data: LawData, steps: int, state: _State | None, damping: Tensor
) -> _State:
    """`steps` Levenberg-Marquardt steps of every formula; `damping` is changed in place."""
    if state is None:
        state = _point(batch, batch.theta(), batch.weight, data)
    P = state.theta_CP.shape[1]
    exact = EXACT * 1e-8 * data.spread
    for _ in range(steps):
        data.work.descent(batch, data.x_DN.shape[1])
        diagonal = state.matrix.diagonal(dim1=-2, dim2=-1).clone()
        extra = damping.unsqueeze(1) * diagonal
        if data.loss == "squared":
            extra[:, P:] = 0.0  # the output weights are at their optimum already
        extra = extra + 1e-12 * diagonal + (diagonal == 0)
        step = _solve(state.matrix + torch.diag_embed(extra), state.gradient)
        trial = _point(batch, state.theta_CP + step[:, :P], state.weight_CL + step[:, P:], data)
        better = trial.loss_C < state.loss_C
        damping.copy_(
            torch.where(better, (damping / 6.0).clamp(min=1e-12), (damping * 5.0).clamp(max=1e10))
        )
        gain = (state.loss_C - trial.loss_C)[better]
        small = bool((gain < 1e-9 * state.loss_C[better]).all()) and bool(
            (damping[~better] > 1e6).all()
        )
        state = _State(
            *(
                torch.where(better.view(-1, *[1] * (new.dim() - 1)), new, old)
                for new, old in zip(vars(trial).values(), vars(state).values(), strict=True)
            )
        )
        if small or bool((state.loss_C < exact).any()):
            break
    return state


@dataclass(frozen=True)
class Fitted:
    """A formula with fitted constants and its mean loss (inf: undefined on the data)."""

    formula: Formula
    loss: float


def refit(
    formulas: Sequence[Formula],
    data: LawData,
    steps: int = 15,
    groups: Sequence[int] | None = None,
    keep: int = 8,
    race_steps: int = 4,
) -> list[Fitted]:
    """The formulas with constants that minimise the loss, from the constants that they have.

    One formula that fits exactly ends its batch. Formulas are batched by their size; a batch is cut
    so that its tensors stay in the cache.

    Args:
        steps: Levenberg-Marquardt steps (Marquardt, 1963). The output weights of a squared error
            are solved for in each step and the others move along the Jacobian with those projected
            out (Golub and Pereyra, 1973, in the form of Kaufman, 1975); cross entropy and Poisson
            deviance use the Fisher information in place of `J^T J`.
        groups: a group for each formula; the best `keep` of each group go on after `race_steps`
            steps. None: all go on.

    Returns:
        In the order of `formulas`; those that lost the race with the constants they had then.
    """
    found: list[Fitted | None] = [None] * len(formulas)
    order = sorted(range(len(formulas)), key=lambda i: _size(formulas[i]))
    start = 0
    while start < len(order):
        end, cost = start, 0
        while end < len(order):
            J, E = _size(formulas[order[end]])
            cost = (end - start + 1) * J * E * data.x_DN.shape[1]
            if end > start and cost > CHUNK:
                break
            end += 1
        members = order[start:end]
        start = end
        batch = FormulaBatch([formulas[i] for i in members], data.primitives)
        damping = torch.full((len(members),), 1e-2, dtype=torch.float64)
        if groups is not None and steps > race_steps:
            state = _descend(batch, data, race_steps, None, damping)
            _write(found, members, batch, state)
            kept = _winners(state.loss_C.tolist(), [groups[i] for i in members], keep)
            batch, damping = batch.select(kept), damping[kept]
            members = [members[i] for i in kept.tolist()]
            width = batch.slots.shape[1]
            # The columns of a narrower batch are the first ones: a slot's place depends on its own
            # formula alone.
            columns = torch.cat(
                [torch.arange(width), torch.arange(state.theta_CP.shape[1], state.matrix.shape[1])]
            )
            state = _State(
                state.theta_CP[kept][:, :width],
                state.weight_CL[kept],
                state.loss_C[kept],
                state.matrix[kept][:, columns][:, :, columns],
                state.gradient[kept][:, columns],
            )
            state = _descend(batch, data, steps - race_steps, state, damping)
        else:
            state = _descend(batch, data, steps, None, damping)
        _write(found, members, batch, state)
    return [f for f in found if f is not None]


def _winners(losses: Sequence[float], groups: Sequence[int], keep: int) -> Tensor:
    """The places of the `keep` smallest finite losses of each group."""
    taken: dict[int, int] = {}
    kept = []
    for i in sorted(range(len(losses)), key=lambda i: losses[i]):
        taken[groups[i]] = taken.get(groups[i], 0) + 1
        if taken[groups[i]] <= keep and (math.isfinite(losses[i]) or not kept):
            kept.append(i)
    return torch.tensor(sorted(kept))


def _size(formula: Formula) -> tuple[int, int]:
    return max(1, len(formula.nodes)), max([1, *(len(node.edges) for node in formula.nodes)])


def _write(
    found: list[Fitted | None], members: Sequence[int], batch: FormulaBatch, state: _State
) -> None:
    weights = torch.where(batch.in_output, state.weight_CL, 0.0)
    written = batch.written(state.theta_CP, weights)
    for i, formula, loss in zip(members, written, state.loss_C.tolist(), strict=True):
        found[i] = Fitted(formula, loss)


def description_length(fitted: Fitted, data: LawData, spread: float) -> float:
    """`n ln MSE + (constants + operations) ln n + 2 sum of the constants' excess size`; lower is
    better.

    For other losses `n ln MSE` is twice the summed loss. A constant is charged for what lies
    outside [0.01, 100] (in units in which features and target have size 1), so that the degenerate
    limits of a function lose against the simpler function that they imitate.
    """
    n = data.n
    formula = fitted.formula
    if not math.isfinite(fitted.loss):
        return math.inf
    squared = data.loss == "squared"
    fit = n * math.log(max(fitted.loss / spread, EXACT)) if squared else 2.0 * n * fitted.loss
    numbers = [formula.bias, *formula.weights]
    for node in formula.nodes:
        for edge in node.edges:
            numbers += [edge.b] if edge.fixed else [edge.a, edge.b]
    size = sum(max(0.0, abs(math.log(abs(v))) - math.log(100.0)) for v in numbers if v != 0.0)
    return fit + (formula.constants + formula.operations) * math.log(n) + 2.0 * size
