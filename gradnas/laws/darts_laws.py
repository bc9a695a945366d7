"""From trained alphas to discrete equations with fitted constants.

Legend: K restarts, C outputs or classes, J nodes, P constants, N rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import minimize
from torch import Tensor

from gradnas.laws.darts_training import DARTSTraining
from gradnas.laws.engine.batch import FormulaBatch
from gradnas.laws.engine.refit import output_basis
from gradnas.laws.fitting import FormulaModel, Rows, fit_from
from gradnas.laws.formula import Formula
from gradnas.laws.losses import Logistic, LossFunction, Squared
from gradnas.laws.primitives import Primitive
from gradnas.randomness import generator_for

Refine = Literal["least_squares", "sgd", "none"]
Sampling = Literal["max", "sample"]
DRAWS = 14  # stream of random numbers
STEPS = 80  # of Levenberg-Marquardt
FEWER_STEPS = 8  # where constants run off in so many
LARGEST = 1e3  # times the largest constant at the start: what runs off further is not taken
ROUNDS = 300  # of L-BFGS, where classes share their nodes


@dataclass(frozen=True)
class DerivedLaws:
    """What one restart became: a formula for each output, and the mean loss of all rows."""

    restart: int
    formulas: tuple[Formula, ...]
    loss: float


def choices_of(
    training: DARTSTraining, sampling: Sampling, draws: int
) -> list[dict[str, list[int]]]:
    """The choice of every restart, the strongest or one drawn by the strengths."""
    settings = training.settings
    if sampling == "max":
        return settings.space.strongest(training.alphas, settings.relaxation)
    generator = generator_for(settings.seed, DRAWS, draws)
    choices: list[dict[str, list[int]]] = []
    for k in range(settings.restarts):
        choice: dict[str, list[int]] = {}
        for name, alpha in training.alphas.items():
            strength_EO = settings.relaxation.probabilities(alpha.detach()[k])
            drawn_E1 = torch.multinomial(strength_EO, 1, generator=generator)
            choice[name] = drawn_E1[:, 0].tolist()
        choices.append(choice)
    return choices


def derived_laws(
    training: DARTSTraining, rows: Rows, sampling: Sampling, refine: Refine, updates: int
) -> list[DerivedLaws]:
    """The laws of every restart that stayed finite and is not all `none`, the best first."""
    settings = training.settings
    a_KEO = training.mixture.net.a.detach()
    b_KEO = training.mixture.net.b.detach()
    found: list[DerivedLaws] = []
    for k, choice in enumerate(choices_of(training, sampling, 0)):
        nodes = tuple(settings.space.nodes_of(choice, a_KEO[k], b_KEO[k]))
        if not nodes or not bool(training.alive_K[k]):
            continue
        formulas: list[Formula] = []
        # A node without edges has left the formula: the weights of those that are there stay.
        kept = _kept_nodes(settings.space.edges, choice, settings.space.words)
        for c in range(settings.num_outputs):
            weight_J = training.mixture.weight.detach()[k, c].tolist()
            weights = tuple(weight_J[j] for j in kept)
            bias = float(training.mixture.bias.detach()[k, c])
            if settings.output_bias and bias == 0.0:
                bias = 1e-3  # zero would be a formula without one
            formulas.append(Formula(settings.space.features, nodes, weights, bias))
        found.append(_refined(training, k, formulas, rows, refine, updates))
    finite = [laws for laws in found if math.isfinite(laws.loss)]
    return sorted(finite, key=lambda laws: laws.loss)


def _kept_nodes(
    edges: list[tuple[int, int]], choice: dict[str, list[int]], words: tuple[str, ...]
) -> list[int]:
    """The nodes that have an edge from a feature or from a node that has one."""
    first = min(len([1 for node, _ in edges if node == 0]), len(edges))  # features
    kept: list[int] = []
    for e, (node, source) in enumerate(edges):
        is_there = source < first or (source - first) in kept
        if words[choice["edges"][e]] != "none" and is_there and node not in kept:
            kept.append(node)
    return sorted(kept)


def _refined(
    training: DARTSTraining,
    k: int,
    formulas: list[Formula],
    rows: Rows,
    refine: Refine,
    updates: int,
) -> DerivedLaws:
    settings = training.settings
    table = settings.space.table
    if settings.output == "classes":
        rounds = ROUNDS if refine != "none" else 0
        return _jointly(k, formulas, table, rows, rounds, settings.output_decay)
    loss: LossFunction = Logistic() if settings.output == "probability" else Squared()
    model = FormulaModel(formulas[0], table, settings.output_weights, settings.output_bias)
    theta_P = model.start_P
    if not len(theta_P):  # a graph of plain operations, whose output is their sum
        refine = "none"
    if refine == "sgd":
        theta_P = _by_sgd(model, theta_P, rows, loss, training, updates)
    fit = fit_from(model, rows, loss, theta_P[None], 0)
    if refine == "least_squares":
        for steps in (STEPS, FEWER_STEPS):
            tried = fit_from(model, rows, loss, theta_P[None], steps)
            # Constants that run off, such as exp(1e33 x), fit by the rounding of their values.
            in_reach = bool((tried.theta_P.abs() < LARGEST * (1.0 + theta_P.abs().max())).all())
            if in_reach and tried.loss < fit.loss:
                fit = tried
                break
    formula, _ = model.formula(fit.theta_P)
    return DerivedLaws(k, (formula,), fit.loss)


def _by_sgd(
    model: FormulaModel,
    theta_P: Tensor,
    rows: Rows,
    loss: LossFunction,
    training: DARTSTraining,
    updates: int,
) -> Tensor:
    """The reference's way: further steps of SGD; the constants of the smallest loss."""
    weights = training.settings.weights
    buffer_P = torch.zeros_like(theta_P)
    best_P = theta_P
    lowest = math.inf
    for step in range(updates + 1):
        eta_1N, slope_1PN = model(rows.x_ND, theta_P[None])
        value = float(loss.mean(eta_1N, rows.y_N, rows.w_N)[0])
        if value < lowest:
            best_P = theta_P
            lowest = value
        _, pull_1N = loss.weights(eta_1N, rows.y_N)
        # The slope of a squared error is twice the residual.
        factor = 2.0 if isinstance(loss, Squared) else 1.0
        gradient_P = -factor * (slope_1PN[0] @ (rows.w_N * pull_1N[0])) / len(rows.y_N)
        if not torch.isfinite(gradient_P).all():
            break
        if weights.clip_norm is not None:
            gradient_P = gradient_P * min(
                1.0, weights.clip_norm / (float(gradient_P.norm()) + 1e-6)
            )
        buffer_P = weights.momentum * buffer_P + gradient_P + weights.weight_decay * theta_P
        theta_P = theta_P - weights.lr_at(step, updates) * buffer_P
    return best_P


def _jointly(
    k: int,
    formulas: list[Formula],
    table: dict[str, Primitive],
    rows: Rows,
    rounds: int,
    decay: float,
) -> DerivedLaws:
    """Classes whose laws share their nodes, fitted by the cross-entropy of their softmax.

    Constants decay a little: where classes can be separated, nothing else would bound them.
    """
    C = len(formulas)
    batch = FormulaBatch(formulas, table)
    inner = batch.slots.shape[1]
    L = batch.weight.shape[1]
    label_N = rows.y_N.long()
    free_CL = batch.in_output.double()

    def unpacked(vector: np.ndarray) -> tuple[Tensor, Tensor]:
        theta_P = torch.tensor(vector[:inner], dtype=torch.float64)
        weight_CL = torch.tensor(vector[inner:], dtype=torch.float64).view(C, L)
        return theta_P.expand(C, inner), weight_CL * free_CL

    def loss_and_gradient(vector: np.ndarray) -> tuple[float, np.ndarray]:
        theta_CP, weight_CL = unpacked(vector)
        values = batch.forward(rows.x_ND.T.contiguous(), theta_CP)
        basis_CLN = output_basis(batch, values)
        eta_CN = (weight_CL.unsqueeze(1) @ basis_CLN).squeeze(1)
        loss_N = F.cross_entropy(eta_CN.T, label_N, reduction="none")
        loss = float((rows.w_N * loss_N).mean())
        if not math.isfinite(loss):
            return 1e300, np.zeros_like(vector)
        pull_CN = torch.softmax(eta_CN, 0)
        pull_CN[label_N, torch.arange(len(label_N))] -= 1.0
        pull_CN = pull_CN * rows.w_N / len(label_N)
        slope_CPN, _ = batch.backward(values, weight_CL[:, :-1])
        inner_P = (slope_CPN * pull_CN.unsqueeze(1)).sum((0, 2))
        outer_CL = (basis_CLN @ pull_CN.unsqueeze(-1)).squeeze(-1) * free_CL
        gradient = torch.cat([inner_P, outer_CL.flatten()])
        share = decay / len(label_N)
        loss += 0.5 * share * float((vector**2).sum())
        return loss, torch.nan_to_num(gradient).numpy() + share * vector

    start = torch.cat([batch.theta()[0], batch.weight.flatten()]).numpy()
    vector = start
    if rounds:
        result = minimize(
            loss_and_gradient, start, jac=True, method="L-BFGS-B", options={"maxiter": rounds}
        )
        vector = result.x
    loss, _ = loss_and_gradient(vector)
    theta_CP, weight_CL = unpacked(vector)
    written = batch.written(theta_CP, weight_CL)
    return DerivedLaws(k, tuple(written), loss if loss < 1e299 else math.inf)
