"""What both estimators do with found laws and data: errors of constants, refits, comparisons.

Legend: N rows, D features, K outputs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sympy import Expr

from gradnas.laws.engine.data import Loss
from gradnas.laws.fitting import FormulaModel, Rows, tensors
from gradnas.laws.given import read_form
from gradnas.laws.judging import Candidate
from gradnas.laws.law import Law, Laws, LawSettings
from gradnas.laws.losses import LossFunction, Squared
from gradnas.laws.request import LawRequest
from gradnas.laws.robust import LINKED, huber_at, loss_for
from gradnas.laws.rows import checked_features, feature_names, prepared
from gradnas.laws.shown import ShownLaws
from gradnas.laws.uncertainty import (
    SAMPLES,
    Method,
    OpenLaw,
    Uncertainty,
    uncertainty_of,
    with_errors,
)
from gradnas.laws.wishes import Wishes, given_law, judge_of

if TYPE_CHECKING:
    from gradnas.laws.comparison import Comparison

MOST_TRAINING_ROWS = 3000  # that are kept for errors of constants


class StudiedLaws(ShownLaws):
    """The part of an estimator that goes back to the data."""

    laws_: list[Laws]
    _formulas: dict[tuple[int, int], Expr]
    _notes: list[str]
    _labels: tuple[object, ...] | None = None  # of groups with constants of their own
    _training: tuple[np.ndarray, np.ndarray, np.ndarray, float]  # x_ND, y_NK, w_N, points

    def _wishes(self) -> Wishes:
        """What is asked for beyond a search."""
        return Wishes()

    def _keep_training(self, x_ND: np.ndarray, y_NK: np.ndarray, w_N: np.ndarray) -> None:
        rows = np.unique(np.linspace(0, len(x_ND) - 1, MOST_TRAINING_ROWS).astype(int))
        self._training = (x_ND[rows], y_NK[rows], w_N[rows], float(w_N.sum()))

    def uncertainty(
        self,
        method: Method | None = None,
        *,
        law: int | None = None,
        output: int = 0,
        samples: int = SAMPLES,
    ) -> Uncertainty:
        """How sure the constants of a law are, given its structure.

        The structure was found in the same rows, which the errors do not count: they are those of
        a law that was known before. They are of the law before the link of a probability or a rate.

        Args:
            method: "covariance" (of nonlinear least squares, or the inverse Fisher information) or
                "bootstrap" (rows drawn with replacement); None: covariance, and bootstrap where
                `loss` is not squared.
            law: row of the Pareto front; by default the chosen one.
            output: which output, of several.
            samples: of the bootstrap.

        Raises:
            ValueError: the covariance with another loss than squares.
        """
        fitted = self._fitted("uncertainty")
        if method not in (None, "covariance", "bootstrap"):
            raise ValueError(f"method is 'covariance' or 'bootstrap', not {method!r}")
        found = fitted.law(output, law)
        loss = self._loss_of(found, output)
        is_likelihood = isinstance(loss, Squared) or found.loss != "squared"
        if method == "covariance" and not is_likelihood:
            raise ValueError(
                "with another loss than squares the covariance of the constants is not known: take "
                "method='bootstrap'"
            )
        if method is None:
            method = "covariance" if is_likelihood else "bootstrap"
        expression: Any = fitted.formula(output, fitted.row(output, law))
        constants = fitted.fronts[output].constants
        form = self._wishes().form
        if constants and form is not None:
            expression = OpenLaw(read_form(form, fitted.names), tuple(constants.values()))
        left = fitted.outputs.targets[output]
        left = {"squared": "", "logistic": "log-odds of ", "poisson": "ln rate of "}[
            found.loss
        ] + left
        rows, points = self._training_rows(output)
        return uncertainty_of(
            expression, fitted.names, left, rows, points, loss, method, seed=0, samples=samples
        )

    def text_with_errors(self, method: Method | None = None, *, law: int | None = None) -> str:
        """The laws, a line each, with `(value ± standard error)` for each constant."""
        fitted = self._fitted("text_with_errors")
        lines: list[str] = []
        for k in range(len(fitted.fronts)):
            errors = self.uncertainty(method, law=law, output=k)
            lines.append(with_errors(errors, fitted.names))
        return "\n".join(lines)

    def _model_of(self, law: Law) -> FormulaModel:
        """A law with the constants open that a refit moves."""
        return FormulaModel(law.formula, law.primitives)

    def _training_rows(self, output: int) -> tuple[Rows, float]:
        x_ND, y_NK, w_N, points = self._training
        x, y, w = tensors(x_ND, y_NK[:, output], w_N)
        return Rows(x, y, w / w.mean()), points

    def _loss_of(self, law: Law, output: int) -> LossFunction:
        """The loss that a law was fitted by."""
        if law.loss != "squared":
            return LINKED[law.loss]
        if self._wishes().loss == "squared":
            return Squared()
        rows, _ = self._training_rows(output)
        request = self._request(rows, law.loss)
        model = FormulaModel(law.formula, law.primitives)
        if self._wishes().loss == "huber":
            return huber_at(model, rows, model.start_P)[0]
        return loss_for(request, self._wishes().loss, rows)[0]

    def _request(self, rows: Rows, link: Loss) -> LawRequest:
        return LawRequest(
            x_ND=rows.x_ND.numpy(),
            y_N=rows.y_N.numpy(),
            w_N=rows.w_N.numpy(),
            settings=LawSettings(),
            link=link,
            seed=0,
            on_progress=None,
            names=feature_names(self),
        )

    def refit(
        self,
        X: ArrayLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        law: int | None = None,
    ) -> Self:
        """The same structure with constants fitted to other rows: a new estimator.

        Args:
            X, y, sample_weight: as of `fit`, with the same features.
            law: row of the Pareto front; by default the chosen one.
        """
        fitted = self._fitted("refit")
        x_ND = checked_features(self, X)
        y_NK = fitted.outputs.encoded(y)
        if len(y_NK) != len(x_ND):
            raise ValueError(f"X has {len(x_ND)} rows and y {len(y_NK)}")
        if y_NK.shape[1] != len(fitted.fronts) or not np.isfinite(y_NK).all():
            raise ValueError(f"y has finite values for {len(fitted.fronts)} laws in every row")
        notes: list[str] = []
        x_ND, y_NK, w_N = prepared(x_ND, y_NK, sample_weight, fitted.names, notes.append)
        fronts: list[Laws] = []
        for k in range(len(fitted.fronts)):
            found = fitted.law(k, law)
            x, y_N, w = tensors(x_ND, y_NK[:, k], w_N)
            rows = Rows(x, y_N, w / w.mean())
            fronts.append(self._refitted(found, rows, float(w_N.sum())))
        other = copy.copy(self)
        other.laws_ = fronts
        other._formulas = {}
        other._notes = [*notes, "the constants were fitted again to other rows"]
        other._kept = (x_ND[:1000], y_NK[:1000])
        other._keep_training(x_ND, y_NK, w_N)
        return other

    def _refitted(self, found: Law, rows: Rows, points: float) -> Laws:
        wishes = self._wishes()
        request = self._request(rows, found.loss)
        if wishes.form is not None:
            return given_law(request, wishes)
        loss, measure = loss_for(request, wishes.loss, rows)
        model = self._model_of(found)
        judge = judge_of(request, wishes, rows, loss, measure, torch.ones_like(rows.y_N))
        judge = replace(judge, points=points)
        result = judge.front([Candidate(model, model.start_P, agreement=found.agreement)])
        if result is None:
            raise ValueError(
                "the structure cannot be fitted to these rows: it is undefined in some of them, or "
                "breaks a constraint"
            )
        front, best = result
        return Laws(front=tuple(front), best=front.index(best))

    def compare(
        self,
        X: Any,
        y: Any,
        folds: int = 5,
        random_state: int = 0,
        groups: Sequence[object] | str | None = None,
    ) -> Comparison:
        """The law beside linear regression and gradient boosting on held-out folds.

        The law is searched again in every fold, which takes `folds` times as long as `fit`. It says
        what the simplicity of a law costs, and whether it costs anything.

        Args:
            X, y: as of `fit`; the estimator need not be fitted.
            random_state: of the folds.
            groups: as of `EquationRegressor.fit`.
        """
        from gradnas.laws.comparison import compare

        return compare(self, X, y, folds, random_state, groups)
