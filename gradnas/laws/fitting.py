"""Constants of one law, fitted by any loss: Levenberg-Marquardt with reweighting, from many starts.

Legend: S starts, N rows, D features, P constants.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from gradnas.laws.convert import formula_of
from gradnas.laws.engine.batch import FormulaBatch
from gradnas.laws.engine.front import SHOWN
from gradnas.laws.engine.poles import Box, has_pole
from gradnas.laws.engine.refit import output_basis, solve_scaled
from gradnas.laws.formula import Formula
from gradnas.laws.given import Form
from gradnas.laws.losses import LossFunction
from gradnas.laws.primitives import Primitive
from gradnas.laws.program import program_of
from gradnas.laws.symbolic import Term, sympy
from gradnas.randomness import generator_for

STARTS = 96
RACE = 12  # steps of all starts; the best go on
KEPT = 12
KEPT_ROBUST = 40  # where poles beside outliers are the best of many starts
NARROW = 5e-3  # of the usual target: a thousand times that beside a zero is a pole
KEPT_SOUND = 3  # that go on to the end
STEPS = 80
START_ROWS = 400  # rows that starts are tried on
CONVERGED = 1e-28  # share of the first loss


@dataclass(frozen=True)
class Rows:
    """What is fitted to: `x_ND`, `y_N`, and weights `w_N` of a mean of 1, in float64."""

    x_ND: Tensor
    y_N: Tensor
    w_N: Tensor

    @property
    def spread(self) -> float:
        """The variance of the target."""
        mean = (self.w_N * self.y_N).mean()
        return max(float((self.w_N * (self.y_N - mean) ** 2).mean()), 1e-300)

    def part(self, index: Tensor) -> Rows:
        """Some of the rows."""
        w_M = self.w_N[index]
        return Rows(self.x_ND[index], self.y_N[index], w_M / w_M.mean().clamp(min=1e-300))

    def weighted(self, factor_N: Tensor) -> Rows:
        """With the weights multiplied."""
        w_N = self.w_N * factor_N
        return Rows(self.x_ND, self.y_N, w_N / w_N.mean().clamp(min=1e-300))


class Model(ABC):
    """A law with open constants.

    Attributes:
        num_constants: P.
        linear: places of constants that the value is linear in, all together.
    """

    num_constants: int
    linear: list[int]

    @abstractmethod
    def __call__(self, x_ND: Tensor, theta_SP: Tensor) -> tuple[Tensor, Tensor]:
        """Values `(S, N)` and their derivatives by the constants `(S, P, N)`."""

    @abstractmethod
    def formula(self, theta_P: Tensor) -> tuple[Formula, dict[str, Primitive]]:
        """The law with these constants, and the functions that it needs."""


class Penalty(Protocol):
    """What is added to a loss where constants break a limit."""

    def __call__(self, model: Model, theta_SP: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The penalty `(S,)`, its curvature `(S, P, P)` and minus half its slope `(S, P)`."""
        ...


class FormulaModel(Model):
    """A formula whose fitted constants are open: those inside, the weights and the bias.

    Args:
        free_weights, free_bias: whether the weights of the output and its bias are open.

    Attributes:
        start_P: the constants that it has.
    """

    def __init__(
        self,
        formula: Formula,
        primitives: dict[str, Primitive],
        free_weights: bool = True,
        free_bias: bool = True,
    ) -> None:
        self.primitives = primitives
        self.batch = FormulaBatch([formula], primitives)
        self.inner = self.batch.slots.shape[1]
        in_output_L = self.batch.in_output[0].clone()
        in_output_L[:-1] &= free_weights
        in_output_L[-1] &= free_bias
        self.outputs = in_output_L.nonzero().flatten()
        self.num_constants = self.inner + len(self.outputs)
        self.linear = list(range(self.inner, self.num_constants))
        inner_P = self.batch.theta()[0]
        self.start_P = torch.cat([inner_P, self.batch.weight[0, self.outputs]])

    def _weights(self, theta_SP: Tensor) -> Tensor:
        weight_SL = self.batch.weight.expand(len(theta_SP), -1).clone()
        weight_SL[:, self.outputs] = theta_SP[:, self.inner :]
        return weight_SL

    def __call__(self, x_ND: Tensor, theta_SP: Tensor) -> tuple[Tensor, Tensor]:
        count = len(theta_SP)
        batch = self.batch
        if count > 1:
            batch = batch.select(torch.zeros(count, dtype=torch.long))
        weight_SL = self._weights(theta_SP)
        values = batch.forward(x_ND.T.contiguous(), theta_SP[:, : self.inner])
        basis_SLN = output_basis(batch, values)
        eta_SN = (weight_SL.unsqueeze(1) @ torch.nan_to_num(basis_SLN)).squeeze(1)
        # What is in the output has to be defined; what is not counts for nothing.
        undefined_SN = ~torch.isfinite(basis_SLN).all(1)
        eta_SN = torch.where(undefined_SN, torch.nan, eta_SN)
        inner_SPN, _ = batch.backward(values, weight_SL[:, :-1])
        return eta_SN, torch.cat([inner_SPN, basis_SLN[:, self.outputs]], dim=1)

    def formula(self, theta_P: Tensor) -> tuple[Formula, dict[str, Primitive]]:
        theta_1P = theta_P.unsqueeze(0)
        written = self.batch.written(theta_1P[:, : self.inner], self._weights(theta_1P))
        return written[0], self.primitives


class FormModel(Model):
    """A given form."""

    def __init__(self, form: Form) -> None:
        self.form = form
        self.num_constants = len(form.constants)
        self.program = program_of([form.expression], form.features, form.constants)
        self.linear = _linear(form)

    def __call__(self, x_ND: Tensor, theta_SP: Tensor) -> tuple[Tensor, Tensor]:
        return self.program.with_slopes(x_ND, theta_SP)

    def formula(self, theta_P: Tensor) -> tuple[Formula, dict[str, Primitive]]:
        numbers: dict[Term, Term] = {}
        for name, value in zip(self.form.constants, theta_P.tolist(), strict=True):
            numbers[sympy.Symbol(name)] = sympy.Float(value, 17)
        return formula_of(self.form.expression.xreplace(numbers), self.form.features)


def _linear(form: Form) -> list[int]:
    """Places of constants in which the form is linear, all together; as many as go in order."""
    symbols = [sympy.Symbol(name) for name in form.constants]
    taken: list[int] = []
    for place, symbol in enumerate(symbols):
        slope = sympy.diff(form.expression, symbol)
        together = {symbol, *[symbols[other] for other in taken]}
        if slope.free_symbols.isdisjoint(together) and not slope.has(sympy.Derivative):
            taken.append(place)
    return taken


@dataclass(frozen=True)
class Fit:
    """Fitted constants `(P,)` and the mean loss; inf where the law is undefined in some row."""

    theta_P: Tensor
    loss: float


def fit_from(
    model: Model,
    rows: Rows,
    loss: LossFunction,
    theta_SP: Tensor,
    steps: int = STEPS,
    limits: Penalty | None = None,
) -> Fit:
    """The best of some starts after so many steps of each.

    Args:
        limits: what the constants are to keep.
    """
    if not model.num_constants:
        eta_1N, _ = model(rows.x_ND, theta_SP[:1])
        return Fit(theta_SP[0], float(loss.mean(eta_1N, rows.y_N, rows.w_N)[0]))
    theta_SP, loss_S = _descend(model, rows, loss, theta_SP, steps, limits)
    # Of those that fit alike, the one of the smallest constants: a phase has many values.
    alike_S = loss_S <= float(loss_S.min()) * (1.0 + 1e-6) + CONVERGED * rows.spread
    size_S = torch.where(alike_S, theta_SP.abs().sum(1), torch.inf)
    best = int(torch.argmin(size_S)) if bool(alike_S.any()) else 0
    theta_1P = theta_SP[best : best + 1]
    eta_1N, _ = model(rows.x_ND, theta_1P)
    return Fit(theta_1P[0], float(loss.mean(eta_1N, rows.y_N, rows.w_N)[0]))


def fit_form(model: FormModel, rows: Rows, loss: LossFunction, seed: int) -> Fit:
    """The constants of a form, from many starts.

    Starts are tried on some of the rows; the best go on with all.
    """
    generator = generator_for(seed, 5)
    theta_SP = _starts(model, rows, generator)
    some = rows
    if len(rows.y_N) > START_ROWS:
        order = torch.randperm(len(rows.y_N), generator=generator)
        some = rows.part(order[:START_ROWS].sort().values)
    if model.num_constants:
        theta_SP = _with_linear(model, some, theta_SP)
        theta_SP, loss_S = _descend(model, some, loss, theta_SP, RACE)
        kept = KEPT if loss.degree == 2 else KEPT_ROBUST
        theta_SP = theta_SP[torch.argsort(loss_S)[:kept]]
        theta_SP, loss_S = _descend(model, some, loss, theta_SP, STEPS)
        theta_SP = theta_SP[_without_poles(model, some, theta_SP, loss_S)]
    return fit_from(model, rows, loss, theta_SP, 2 * STEPS)


def _without_poles(model: FormModel, rows: Rows, theta_SP: Tensor, loss_S: Tensor) -> Tensor:
    """Which starts to go on with: the best without a pole between the data, if any is.

    A pole beside an outlier takes it out of the loss, and explains nothing. Where the data show one
    (a twentieth of the loss) it stays.
    """
    # A pole beside a row may be ever so narrow: what is a few times the usual target next to a
    # division by zero is one. (The largest target may be an outlier.)
    usual = float(rows.y_N.abs().median())
    box = replace(Box.around(rows.x_ND.T, rows.y_N), largest=NARROW * usual)
    order = torch.argsort(loss_S)
    sound: list[int] = []
    for place in order.tolist():
        if not math.isfinite(float(loss_S[place])):
            break
        formula, table = model.formula(theta_SP[place])
        if not has_pole(formula, box, table):
            sound.append(place)
        if len(sound) == KEPT_SOUND:
            break
    best = int(order[0])
    if not sound or float(loss_S[best]) < SHOWN * float(loss_S[sound[0]]):
        return order[:KEPT_SOUND]
    return torch.tensor(sound)


def _starts(model: FormModel, rows: Rows, generator: torch.Generator) -> Tensor:
    """`(S, P)` constants of the sizes that features, targets, and their inverses have."""
    sizes = [1.0, 1.0, float(rows.y_N.abs().mean()) or 1.0]
    for column_N in rows.x_ND.T:
        size = float(column_N.abs().median()) or 1.0
        spread = float(column_N.max() - column_N.min()) or 1.0
        sizes += [size, 1.0 / size, 1.0 / spread]
    shape = (STARTS, model.num_constants)
    which_SP = torch.randint(len(sizes), shape, generator=generator)
    size_SP = torch.tensor(sizes, dtype=torch.float64)[which_SP]
    spread_SP = torch.exp(1.2 * torch.randn(shape, generator=generator, dtype=torch.float64))
    # More positive than negative: most constants of laws are.
    sign_SP = torch.where(torch.rand(shape, generator=generator) < 0.7, 1.0, -1.0)
    theta_SP = size_SP * spread_SP * sign_SP
    theta_SP[0] = 1.0
    return theta_SP


def _with_linear(model: Model, rows: Rows, theta_SP: Tensor) -> Tensor:
    """Starts whose linear constants are solved for by least squares."""
    places = model.linear
    if not places:
        return theta_SP
    zeroed_SP = theta_SP.clone()
    zeroed_SP[:, places] = 0.0
    offset_SN, slopes_SPN = model(rows.x_ND, zeroed_SP)
    basis_SLN = slopes_SPN[:, places]
    finite_S = torch.isfinite(basis_SLN).all(-1).all(-1) & torch.isfinite(offset_SN).all(-1)
    weighted_SLN = basis_SLN * rows.w_N
    matrix = weighted_SLN @ basis_SLN.transpose(1, 2)
    right_SL = (weighted_SLN @ (rows.y_N - offset_SN).unsqueeze(-1)).squeeze(-1)
    solved_SP = theta_SP.clone()
    solved_SP[:, places] = solve_scaled(matrix, right_SL)
    return torch.where(finite_S.unsqueeze(1), solved_SP, theta_SP)


@dataclass
class _Point:
    """One place of the descent of every start."""

    theta_SP: Tensor
    loss_S: Tensor
    matrix: Tensor
    gradient_SP: Tensor

    def taking(self, other: _Point, take_S: Tensor) -> _Point:
        take_S1 = take_S.unsqueeze(1)
        return _Point(
            theta_SP=torch.where(take_S1, other.theta_SP, self.theta_SP),
            loss_S=torch.where(take_S, other.loss_S, self.loss_S),
            matrix=torch.where(take_S1.unsqueeze(2), other.matrix, self.matrix),
            gradient_SP=torch.where(take_S1, other.gradient_SP, self.gradient_SP),
        )


def _at(
    model: Model, rows: Rows, loss: LossFunction, theta_SP: Tensor, limits: Penalty | None
) -> _Point:
    eta_SN, slopes_SPN = model(rows.x_ND, theta_SP)
    loss_S = loss.mean(eta_SN, rows.y_N, rows.w_N)
    slopes_SPN = torch.nan_to_num(slopes_SPN, nan=0.0, posinf=0.0, neginf=0.0)
    curvature_SN, pull_SN = loss.weights(torch.nan_to_num(eta_SN), rows.y_N)
    matrix = (slopes_SPN * (rows.w_N * curvature_SN).unsqueeze(1)) @ slopes_SPN.transpose(1, 2)
    gradient_SP = (slopes_SPN @ (rows.w_N * pull_SN).unsqueeze(-1)).squeeze(-1)
    if limits is not None:
        # The matrix is of the sum over rows, the loss their mean.
        n = len(rows.y_N)
        penalty_S, curvature_SPP, towards_SP = limits(model, theta_SP)
        loss_S = loss_S + penalty_S
        matrix = matrix + n * curvature_SPP
        gradient_SP = gradient_SP + n * towards_SP
    return _Point(theta_SP, loss_S, matrix, gradient_SP)


def _descend(
    model: Model,
    rows: Rows,
    loss: LossFunction,
    theta_SP: Tensor,
    steps: int,
    limits: Penalty | None = None,
) -> tuple[Tensor, Tensor]:
    """Levenberg-Marquardt steps of every start; the normal equations are reweighted in each."""
    point = _at(model, rows, loss, theta_SP, limits)
    damping_S = torch.full((len(theta_SP),), 1e-2, dtype=torch.float64)
    exact = CONVERGED * rows.spread
    for _ in range(steps):
        diagonal = point.matrix.diagonal(dim1=-2, dim2=-1)
        extra = damping_S.unsqueeze(1) * diagonal
        # The linear constants follow the others (Kaufman, 1975).
        extra[:, model.linear] = 0.0
        extra = extra + 1e-12 * diagonal + (diagonal == 0)
        step_SP = solve_scaled(point.matrix + torch.diag_embed(extra), point.gradient_SP)
        trial = _at(model, rows, loss, point.theta_SP + step_SP, limits)
        better_S = trial.loss_S < point.loss_S
        bolder_S = (damping_S / 6.0).clamp(min=1e-12)
        careful_S = (damping_S * 5.0).clamp(max=1e10)
        damping_S = torch.where(better_S, bolder_S, careful_S)
        gain_S = torch.where(better_S, point.loss_S - trial.loss_S, 0.0)
        little = bool((gain_S <= 1e-10 * point.loss_S.abs()).all())
        point = point.taking(trial, better_S)
        stuck = bool((damping_S[~better_S] > 1e6).all())
        if (little and stuck) or (loss.degree == 2 and bool((point.loss_S < exact).all())):
            break
    return point.theta_SP, point.loss_S


def undetermined(model: Model, rows: Rows, theta_P: Tensor) -> list[int]:
    """Places of constants that the data do not determine beside the others."""
    _, slopes_1PN = model(rows.x_ND, theta_P.unsqueeze(0))
    slopes_PN = slopes_1PN[0] * rows.w_N.sqrt()
    places: list[int] = []
    basis: list[Tensor] = []
    for place, row_N in enumerate(slopes_PN):
        size = float(row_N.norm())
        rest_N = row_N.clone()
        for _ in range(2):
            for vector_N in basis:
                rest_N = rest_N - (vector_N @ rest_N) * vector_N
        left = float(rest_N.norm())
        if not math.isfinite(size) or left <= 1e-7 * size or size == 0.0:
            places.append(place)
        else:
            basis.append(rest_N / left)
    return places


def tensors(*arrays: object) -> Sequence[Tensor]:
    """NumPy arrays as float64 tensors on the CPU."""
    return [torch.as_tensor(array, dtype=torch.float64, device="cpu") for array in arrays]
