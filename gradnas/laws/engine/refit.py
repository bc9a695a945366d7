"""The constants of many formulas, fitted at once, in float64.

Levenberg-Marquardt (Marquardt, 1963) with variable projection: the output weights of a squared
error are solved for in each step and the other constants move along the Jacobian with those
projected out (Golub and Pereyra, 1973, in the form of Kaufman, 1975). Cross entropy and Poisson
deviance use the Fisher information in place of `J^T J`.

Legend: C formulas, J nodes, N points, D features, P constants inside the nodes, L = J + 1 output
weights and the bias, Q = P + L constants in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.laws.engine.batch import (
    FormulaBatch,
    Values,
    largest_sizes,
)
from gradnas.laws.engine.data import (
    EXACT,
    LawData,
    mean_loss,
)
from gradnas.laws.formula import Formula

LARGE = 100.0  # of a constant, where features and target have size 1
CONVERGED = 1e-28  # share of the target's variance: a descent that has come there ends
CHUNK = 120_000  # formulas x nodes x edges x points in one set of tensors: larger leaves the cache


# ---- one step ------------------------------------------------------------------------------------


@dataclass
class State:
    """One point of the descent: constants, loss, and the normal equations there.

    Attributes:
        matrix: `J^T W J` of all constants, `(C, Q, Q)`.
        gradient: `J^T r`, `(C, Q)`.
    """

    theta_CP: Tensor
    weight_CL: Tensor
    loss_C: Tensor
    matrix: Tensor
    gradient: Tensor

    def taking(self, other: State, take_C: Tensor) -> State:
        """The other state where `take_C`, this one elsewhere."""
        take_C1 = take_C.view(-1, 1)
        take_C11 = take_C.view(-1, 1, 1)
        return State(
            theta_CP=torch.where(take_C1, other.theta_CP, self.theta_CP),
            weight_CL=torch.where(take_C1, other.weight_CL, self.weight_CL),
            loss_C=torch.where(take_C, other.loss_C, self.loss_C),
            matrix=torch.where(take_C11, other.matrix, self.matrix),
            gradient=torch.where(take_C1, other.gradient, self.gradient),
        )

    def select(self, kept: Tensor, width: int) -> State:
        """The state of some of the formulas, whose batch has `width` constants inside the nodes.

        The columns of a narrower batch are the first ones: a slot's place depends on its own
        formula alone.
        """
        inner = torch.arange(width)
        outer = torch.arange(self.theta_CP.shape[1], self.matrix.shape[1])
        columns = torch.cat([inner, outer])
        return State(
            theta_CP=self.theta_CP[kept][:, :width],
            weight_CL=self.weight_CL[kept],
            loss_C=self.loss_C[kept],
            matrix=self.matrix[kept][:, columns][:, :, columns],
            gradient=self.gradient[kept][:, columns],
        )


def curvature_and_residual(eta_CN: Tensor, data: LawData) -> tuple[Tensor, Tensor]:
    """Weights of the points in the normal equations, and the (weighted) residuals.

    Fisher scoring: the second derivative of the loss by eta is that of its expectation, which is
    the variance of the target under the model, and never negative.
    """
    if data.loss == "squared":
        return data.w_N.expand_as(eta_CN), data.w_N * (data.y_N - eta_CN)
    if data.loss == "logistic":
        mean_CN = torch.sigmoid(eta_CN)
        variance_CN = mean_CN * (1 - mean_CN)
    else:
        mean_CN = torch.exp(eta_CN.clamp(max=50.0))  # a trial step may go anywhere
        variance_CN = mean_CN
    # Points that the model is sure of keep some weight: without any, nothing would hold the step.
    return data.w_N * variance_CN.clamp(min=1e-6), data.w_N * (data.y_N - mean_CN)


def solve_scaled(matrix: Tensor, vector: Tensor) -> Tensor:
    """Solution of symmetric systems, scaled to a unit diagonal first; zeros where there is none."""
    scale = matrix.diagonal(dim1=-2, dim2=-1).clamp(min=1e-200).rsqrt()
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype)
    # Constants differ by many orders of magnitude; the scaled matrix is as well conditioned as a
    # diagonal scaling can make it.
    scaled = matrix * scale.unsqueeze(-1) * scale.unsqueeze(-2)
    scaled = scaled + 1e-13 * identity
    scaled = torch.nan_to_num(scaled, nan=0.0, posinf=0.0, neginf=0.0)
    # Without an exception for the formulas whose system has no solution: the others go on.
    factor, info = torch.linalg.cholesky_ex(scaled)
    good = (info == 0).view(-1, 1)
    factor = torch.where(good.unsqueeze(-1), factor, identity)
    right = (vector * scale).unsqueeze(-1)
    solution = torch.cholesky_solve(right, factor).squeeze(-1) * scale
    solution = torch.nan_to_num(solution, nan=0.0, posinf=0.0, neginf=0.0)
    return torch.where(good, solution, 0.0)


def output_basis(batch: FormulaBatch, values: Values) -> Tensor:
    """What the output is a linear combination of, `(C, L, N)`: the nodes in it, and ones."""
    node_CJN = values.node_CJN
    ones = node_CJN.new_ones(node_CJN.shape[0], 1, node_CJN.shape[2])
    return torch.cat([node_CJN, ones], dim=1) * batch.in_output.unsqueeze(-1)


def state_at(batch: FormulaBatch, theta_CP: Tensor, weight_CL: Tensor, data: LawData) -> State:
    """Loss and normal equations at some constants.

    For the squared error the output weights are solved for; `weight_CL` is where they come from.
    """
    data.work.descent(len(batch.levels), batch.num_columns, data.x_DN.shape[1])
    values = batch.forward(data.x_DN, theta_CP)
    basis_CLN = output_basis(batch, values)
    if data.loss == "squared":
        weighted_CLN = basis_CLN * data.w_N
        gram = weighted_CLN @ basis_CLN.transpose(1, 2)
        for _ in range(2):  # the second round removes the rounding error of the first
            residual_CN = data.y_N - (weight_CL.unsqueeze(1) @ basis_CLN).squeeze(1)
            right = (weighted_CLN @ residual_CN.unsqueeze(-1)).squeeze(-1)
            weight_CL = weight_CL + solve_scaled(gram, right)
    eta_CN = (weight_CL.unsqueeze(1) @ basis_CLN).squeeze(1)
    loss_C = mean_loss(eta_CN, data)
    jacobian_CPN, _ = batch.backward(values, weight_CL[:, :-1])
    curvature_CN, residual_CN = curvature_and_residual(eta_CN, data)
    full_CQN = torch.cat([jacobian_CPN, basis_CLN], dim=1)
    matrix = (full_CQN * curvature_CN.unsqueeze(1)) @ full_CQN.transpose(1, 2)
    gradient = (full_CQN @ residual_CN.unsqueeze(-1)).squeeze(-1)
    return State(theta_CP, weight_CL, loss_C, matrix, gradient)


def _descend(
    batch: FormulaBatch, data: LawData, steps: int, state: State | None, damping_C: Tensor
) -> State:
    """`steps` Levenberg-Marquardt steps of every formula; `damping_C` is changed in place."""
    if state is None:
        state = state_at(batch, batch.theta(), batch.weight, data)
    P = state.theta_CP.shape[1]
    exact = CONVERGED * data.spread
    for _ in range(steps):
        diagonal = state.matrix.diagonal(dim1=-2, dim2=-1).clone()
        extra = damping_C.unsqueeze(1) * diagonal
        if data.loss == "squared":
            # The output weights are at their optimum already. Undamped they are projected out of
            # the step of the others (Kaufman, 1975).
            extra[:, P:] = 0.0
        # Padding and constants that nothing depends on have zeros there, which would be singular.
        extra = extra + 1e-12 * diagonal + (diagonal == 0)
        step = solve_scaled(state.matrix + torch.diag_embed(extra), state.gradient)
        theta_CP = state.theta_CP + step[:, :P]
        weight_CL = state.weight_CL + step[:, P:]
        trial = state_at(batch, theta_CP, weight_CL, data)
        better_C = trial.loss_C < state.loss_C

        # Towards Gauss-Newton after a step that helped, towards a short step downhill after one
        # that did not.
        bolder_C = (damping_C / 6.0).clamp(min=1e-12)
        more_careful_C = (damping_C * 5.0).clamp(max=1e10)
        damping_C.copy_(torch.where(better_C, bolder_C, more_careful_C))
        gain = (state.loss_C - trial.loss_C)[better_C]
        # The end: those that improved gained next to nothing, and the others are damped to a
        # standstill.
        little_gained = bool((gain < 1e-9 * state.loss_C[better_C]).all())
        ended = little_gained and bool((damping_C[~better_C] > 1e6).all())
        state = state.taking(trial, better_C)
        # All of them: where one of a batch is exact, a simpler one may be so in a few steps more.
        if ended or bool((state.loss_C < exact).all()):
            break
    return state


# ---- many formulas -------------------------------------------------------------------------------


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

    Formulas are batched by their size; a batch is cut so that its tensors stay in the cache.

    Args:
        steps: Levenberg-Marquardt steps.
        groups: a group for each formula; the best `keep` of each group go on after `race_steps`
            steps. None: all go on.

    Returns:
        In the order of `formulas`; those that lost the race with the constants they had then.
    """
    fitted: dict[int, Fitted] = {}
    for members in _batches(formulas, data.x_DN.shape[1]):
        batch = FormulaBatch([formulas[i] for i in members], data.primitives)
        data.work.formulas(batch.num_edges)
        damping_C = torch.full((len(members),), 1e-2, dtype=torch.float64)
        if groups is not None and steps > race_steps:
            # Most changes show in a few steps that they lead nowhere; the time goes to the others.
            state = _descend(batch, data, race_steps, None, damping_C)
            _write(fitted, members, batch, state)
            own_groups = [groups[i] for i in members]
            kept = _winners(state.loss_C.tolist(), own_groups, keep)
            batch = batch.select(kept)
            damping_C = damping_C[kept]
            members = [members[i] for i in kept.tolist()]
            state = state.select(kept, batch.slots.shape[1])
            state = _descend(batch, data, steps - race_steps, state, damping_C)
        else:
            state = _descend(batch, data, steps, None, damping_C)
        _write(fitted, members, batch, state)
    return [fitted[i] for i in range(len(formulas))]


def _batches(formulas: Sequence[Formula], num_points: int) -> list[list[int]]:
    """The places of the formulas by rising size, in parts of at most `CHUNK` numbers.

    A formula that is larger by itself is a part of its own.
    """
    # Formulas of like size side by side: little padding.
    sizes = [largest_sizes([formula]) for formula in formulas]
    parts: list[list[int]] = []
    for i in sorted(range(len(formulas)), key=lambda i: sizes[i]):
        # All formulas of a part are padded to the same size, about that of the last.
        J, E = sizes[i]
        if parts and (len(parts[-1]) + 1) * J * E * num_points <= CHUNK:
            parts[-1].append(i)
        else:
            parts.append([i])
    return parts


def _winners(losses: Sequence[float], groups: Sequence[int], keep: int) -> Tensor:
    """The places of the `keep` smallest finite losses of each group."""
    taken: dict[int, int] = {}
    kept: list[int] = []
    for i in sorted(range(len(losses)), key=lambda i: losses[i]):
        group = groups[i]
        taken[group] = taken.get(group, 0) + 1
        is_needed = math.isfinite(losses[i]) or not kept  # a batch is never empty
        if taken[group] <= keep and is_needed:
            kept.append(i)
    return torch.tensor(sorted(kept))


def _write(
    fitted: dict[int, Fitted], members: Sequence[int], batch: FormulaBatch, state: State
) -> None:
    weight_CL = torch.where(batch.in_output, state.weight_CL, 0.0)
    written = batch.written(state.theta_CP, weight_CL)
    for i, formula, loss in zip(members, written, state.loss_C.tolist(), strict=True):
        fitted[i] = Fitted(formula, loss)


def description_length(fitted: Fitted, data: LawData, spread: float) -> float:
    """`n ln MSE + complexity * ln n + 2 * excess size of the constants`; lower is better.

    For other losses `n ln MSE` is twice the summed loss. A constant is charged for what lies
    outside [0.01, 100] (in units in which features and target have size 1), so that the degenerate
    limits of a function lose against the simpler function that they imitate.
    """
    n = data.n
    formula = fitted.formula
    if not math.isfinite(fitted.loss):
        return math.inf
    # Twice the negative logarithm of the likelihood, up to a constant: of normal noise of unknown
    # size, or of the loss itself.
    if data.loss == "squared":
        fit = n * math.log(max(fitted.loss / spread, EXACT))
    else:
        fit = 2.0 * n * fitted.loss
    return fit + formula.complexity * math.log(n) + 2.0 * _excess_size(formula)


def _excess_size(formula: Formula) -> float:
    """By how many powers of e the constants lie outside [0.01, 100], summed.

    What is added may be small without being a limit of anything: a bias of 1e-17 is what the
    descent leaves of none.
    """
    factors = list(formula.weights)
    offsets = [formula.bias]
    for node in formula.nodes:
        for edge in node.edges:
            if not edge.fixed:
                factors.append(edge.a)
            offsets.append(edge.b)
    excess = 0.0
    for number in factors:
        if number != 0.0:
            excess += max(0.0, abs(math.log(abs(number))) - math.log(LARGE))
    for number in offsets:
        if number != 0.0:
            excess += max(0.0, math.log(abs(number)) - math.log(LARGE))
    return excess
