"""Laws fitted by any loss and under constraints: their errors, their front, and the choice.

Legend: N rows, P constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradnas.laws.constraints import FORCES, Limits
from gradnas.laws.engine.data import EXACT, Loss
from gradnas.laws.engine.front import choice
from gradnas.laws.engine.poles import Box, has_pole
from gradnas.laws.fitting import Model, Rows, fit_from
from gradnas.laws.law import Law
from gradnas.laws.losses import LossFunction, Squared
from gradnas.randomness import generator_for

FOLDS = 5
FOLD = 6  # stream of random numbers
STEPS = 40  # of a candidate's constants
FOLD_STEPS = 12
LONGEST_FRONT = 8
FORCED_STEPS = 15  # of a law that breaks a constraint, with each force of the penalty
ROUNDS = 2  # of forcing; in the second, also where the law breaks the constraint most
MOST_FORCED = 12  # laws that are fitted again for the constraints, the shortest first


@dataclass(frozen=True)
class Candidate:
    """A law that is to be judged, with constants to start from.

    Args:
        complexity: None: that of its formula.
        agreement: how many proposals ended in it.
    """

    model: Model
    theta_P: Tensor
    complexity: int | None = None
    agreement: int = 1


@dataclass(frozen=True)
class Judge:
    """How laws are fitted and judged.

    Args:
        rows: all of them.
        loss: what is minimised, and what `train_error` and `valid_error` are.
        link: of the laws' values.
        measure: what the errors are, in words.
        limits: constraints, or None.
        points: how many rows they stand for.
        trust_N: weights of the rows for the choice; 0 for a row that is far off every good law.
    """

    rows: Rows
    loss: LossFunction
    link: Loss
    measure: str
    limits: Limits | None
    seed: int
    points: float
    trust_N: Tensor

    def fitted(self, candidate: Candidate, steps: int = STEPS) -> Candidate | None:
        """With its constants fitted, whatever the constraints; None where it is undefined."""
        fit = fit_from(candidate.model, self.rows, self.loss, candidate.theta_P[None], steps)
        return replace(candidate, theta_P=fit.theta_P) if math.isfinite(fit.loss) else None

    def within_limits(self, candidate: Candidate) -> Candidate | None:
        """With constants that keep the constraints; None where none were found."""
        limits = self.limits
        theta_P = candidate.theta_P
        loss = math.inf
        if limits is None or not limits.breaks(candidate.model, theta_P):
            return candidate
        for _ in range(ROUNDS):
            for force in FORCES:
                penalty = limits.penalty(force)
                fit = fit_from(
                    candidate.model, self.rows, self.loss, theta_P[None], FORCED_STEPS, penalty
                )
                theta_P = fit.theta_P
                loss = fit.loss
            if math.isfinite(loss) and not limits.breaks(candidate.model, theta_P):
                return replace(candidate, theta_P=theta_P)
            limits.tighten(candidate.model, theta_P)
        return None

    def law(self, candidate: Candidate, valid_error: float, box: Box) -> Law:
        """A fitted candidate as a law."""
        formula, table = candidate.model.formula(candidate.theta_P)
        eta_1N, _ = candidate.model(self.rows.x_ND, candidate.theta_P[None])
        loss = float(self.loss.mean(eta_1N, self.rows.y_N, self.rows.w_N)[0])
        complexity = formula.complexity if candidate.complexity is None else candidate.complexity
        return Law(
            formula=formula,
            complexity=complexity,
            train_error=loss,
            valid_error=valid_error,
            description_length=self._length(eta_1N, loss, complexity),
            agreement=candidate.agreement,
            loss=self.link,
            primitives=dict(table),
            has_pole=has_pole(formula, box, table),
            rounding=EXACT * self.rows.spread if self.loss.degree == 2 else 0.0,
            measure=self.measure,
        )

    def _length(self, eta_1N: Tensor, loss: float, complexity: int) -> float:
        if self.link != "squared":
            return 2.0 * self.points * loss + complexity * math.log(self.points)
        trusted = self.rows.weighted(self.trust_N)
        error = float(Squared().mean(eta_1N, trusted.y_N, trusted.w_N)[0])
        points = max(2.0, self.points * float(self.trust_N.mean()))
        fit = points * math.log(max(error / trusted.spread, EXACT))
        return fit + complexity * math.log(points)

    def valid_error(self, candidate: Candidate, rows: Rows, loss: LossFunction) -> float:
        """The mean loss by cross-validation, the structure fixed and the constants refitted."""
        n = len(rows.y_N)
        order = torch.randperm(n, generator=generator_for(self.seed, FOLD))
        penalty = None if self.limits is None else self.limits.penalty(FORCES[-1])
        total = 0.0
        weight = 0.0
        for fold in range(min(FOLDS, n)):
            held = order[fold :: min(FOLDS, n)]
            rest = order[torch.isin(order, held, invert=True)]
            start_1P = candidate.theta_P[None]
            part = rows.part(rest)
            fit = fit_from(candidate.model, part, self.loss, start_1P, FOLD_STEPS, penalty)
            eta_1M, _ = candidate.model(rows.x_ND[held], fit.theta_P[None])
            loss_M = loss(eta_1M, rows.y_N[held])[0]
            total += float((rows.w_N[held] * loss_M).sum())
            weight += float(rows.w_N[held].sum())
        mean = total / weight
        return mean if math.isfinite(mean) else math.inf

    def front(self, candidates: Sequence[Candidate]) -> tuple[list[Law], Law] | None:
        """The laws by rising complexity and the chosen one; None where no candidate is allowed."""
        box = Box.around(self.rows.x_ND.T, self.rows.y_N)
        fitted: list[tuple[Law, Candidate]] = []
        for candidate in candidates:
            free = self.fitted(candidate)
            if free is not None:
                fitted.append((self.law(free, math.inf, box), free))
        judged = self._allowed(fitted, box)
        if not judged:
            return None
        # What fits better than the shortest description is longer than it is worth.
        best, _ = min(judged, key=lambda pair: pair[0].description_length)
        front: list[tuple[Law, Candidate]] = []
        lowest = math.inf
        for law, kept in sorted(judged, key=lambda pair: (pair[0].complexity, pair[0].train_error)):
            is_worth_it = law is best or law.complexity <= best.complexity
            if is_worth_it and (law.train_error < lowest or law is best):
                front.append((law, kept))
                lowest = min(lowest, law.train_error)
        front = front[-LONGEST_FRONT:]
        chosen = choice([self._on_trusted(law, kept) for law, kept in front])
        laws: list[Law] = []
        for law, kept in front:
            laws.append(replace(law, valid_error=self.valid_error(kept, self.rows, self.loss)))
        place = [law.formula for law in laws].index(chosen.formula)
        return laws, laws[place]

    def _allowed(
        self, fitted: Sequence[tuple[Law, Candidate]], box: Box
    ) -> list[tuple[Law, Candidate]]:
        """The laws that keep the constraints, some of them fitted again for that."""
        if self.limits is None:
            return list(fitted)
        allowed: list[tuple[Law, Candidate]] = []
        forced = 0
        for law, free in sorted(fitted, key=lambda pair: pair[0].description_length):
            breaks = bool(self.limits.breaks(free.model, free.theta_P))
            if breaks and forced < MOST_FORCED:
                forced += 1
                kept = self.within_limits(free)
                if kept is not None:
                    allowed.append((self.law(kept, math.inf, box), kept))
            elif not breaks:
                allowed.append((law, free))
        return allowed

    def _on_trusted(self, law: Law, candidate: Candidate) -> Law:
        """The law with the error in cross-validation that the choice goes by."""
        if self.link != "squared":
            return replace(law, valid_error=self.valid_error(candidate, self.rows, self.loss))
        trusted = self.rows.weighted(self.trust_N)
        error = self.valid_error(candidate, trusted, Squared())
        return replace(law, valid_error=error, rounding=EXACT * trusted.spread)
