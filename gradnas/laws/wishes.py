"""What a user may ask of laws beyond their search: a loss, a form, a start, constraints.

Legend: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from sklearn.neighbors import KNeighborsRegressor
from sympy import Expr
from torch import Tensor

from gradnas.laws.constraints import Constraint, Limits, checked_constraints
from gradnas.laws.discover import discover_laws
from gradnas.laws.engine.data import Loss
from gradnas.laws.engine.poles import Box
from gradnas.laws.fitting import (
    FormModel,
    FormulaModel,
    Rows,
    fit_form,
    tensors,
    undetermined,
)
from gradnas.laws.formula import Formula
from gradnas.laws.given import Form, read_form
from gradnas.laws.judging import Candidate, Judge
from gradnas.laws.law import LawProgress, Laws, LawSettings
from gradnas.laws.losses import (
    HUBER,
    Absolute,
    Huber,
    Logistic,
    LossFunction,
    OwnLoss,
    Poisson,
    Squared,
    bisquare,
    checked_own,
    scale_of,
)
from gradnas.laws.primitives import resolve
from gradnas.laws.symbolic import sympy

Given = str | Expr
LossName = Literal["squared", "absolute", "huber"]
LOSS_NAMES = ("squared", "absolute", "huber")
LINKED: dict[str, LossFunction] = {"logistic": Logistic(), "poisson": Poisson()}
CANDIDATES = 24
MOST_ROWS = 3000  # that constants are fitted on
FIRST_EFFORT = 0.4  # of the search whose residuals say which rows are far off
MOST_SEARCHES = 2
SAME = 0.02  # mean change of the rows' weights below which another search would see the same
NEIGHBOURS = 7
PSEUDO = 0.1  # of all rows' weight: of a point that the law is to go through


@dataclass(frozen=True)
class Wishes:
    """See `EquationRegressor`."""

    loss: LossName | OwnLoss = "squared"
    form: Given | None = None
    start: Given | Sequence[Given] | None = None
    constraints: Sequence[Constraint] = ()

    @property
    def plain(self) -> bool:
        """Whether a search alone does it."""
        is_squared = isinstance(self.loss, str) and self.loss == "squared"
        return is_squared and self.form is None and not self.starts and not self.constraints

    @property
    def starts(self) -> list[Given]:
        """The start formulas as a list."""
        if self.start is None:
            return []
        if isinstance(self.start, str | sympy.Expr):
            return [self.start]
        return list(self.start)

    def check(self, names: Sequence[str], link: Loss) -> None:
        """Refuse what cannot be done.

        Raises:
            ValueError: an unknown loss, a form that cannot be read, constraints of other features,
                what does not go together.
        """
        is_word = isinstance(self.loss, str)
        if (is_word and self.loss not in LOSS_NAMES) or not (is_word or callable(self.loss)):
            raise ValueError(
                f"loss is one of {', '.join(LOSS_NAMES)}, or a function of prediction and target, "
                f"not {self.loss!r}"
            )
        if link != "squared" and self.loss != "squared":
            raise ValueError(
                "probabilities and counts have the loss of their likelihood: leave loss as it is, "
                "or take output='real'"
            )
        if isinstance(self.constraints, Constraint | str):
            raise ValueError("constraints are a list, also of one")
        checked_constraints(self.constraints, names)
        if link != "squared" and self.constraints:
            raise ValueError("constraints go with output='real' alone")
        if self.form is not None and self.starts:
            raise ValueError("a form is not searched, so it takes no start: leave out one of them")
        for given in [*self.starts, *([] if self.form is None else [self.form])]:
            read_form(given, names)


@dataclass(frozen=True)
class LawRequest:
    """One target: its rows, and how laws are looked for.

    Args:
        link: the loss of the engine, which says what the laws' values are.
    """

    x_ND: np.ndarray
    y_N: np.ndarray
    w_N: np.ndarray
    settings: LawSettings
    link: Loss
    seed: int
    on_progress: Callable[[LawProgress], None] | None
    names: Sequence[str]

    @property
    def rows(self) -> Rows:
        """What constants are fitted on: all rows, or so many of them, evenly."""
        places = np.arange(len(self.y_N))
        if len(places) > MOST_ROWS:
            places = np.unique(np.linspace(0, len(places) - 1, MOST_ROWS).astype(int))
        x_ND, y_N, w_N = tensors(self.x_ND[places], self.y_N[places], self.w_N[places])
        return Rows(x_ND, y_N, w_N / w_N.mean())

    def searched(
        self,
        factor_N: np.ndarray | None = None,
        effort: float = 1.0,
        start: Sequence[Formula] = (),
        candidates: int = 0,
        extra: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Laws:
        """A search by squares (or the likelihood), with the weights of the rows multiplied.

        Args:
            extra: points that laws are to go through, and their values.
        """
        w_N = self.w_N
        if factor_N is not None:
            w_N = w_N * factor_N
            w_N = w_N * (self.w_N[factor_N > 0].sum() / max(w_N.sum(), 1e-300))
        x_ND = self.x_ND
        y_N = self.y_N
        if extra is not None:
            x_ND = np.concatenate([x_ND, extra[0]])
            y_N = np.concatenate([y_N, extra[1]])
            weight = max(1.0, PSEUDO * w_N.sum())
            w_N = np.concatenate([w_N, np.full(len(extra[1]), weight)])
        weights_N = None if (w_N == 1.0).all() else w_N
        settings = replace(self.settings, effort=effort * self.settings.effort)
        return discover_laws(
            x_ND,
            y_N,
            settings,
            weights_N,
            self.link,
            self.seed,
            self.on_progress,
            self.names,
            start=start,
            candidates=candidates,
        )


def find_laws(request: LawRequest, wishes: Wishes) -> Laws:
    """The laws of one target, as they were asked for.

    Raises:
        ValueError: no law keeps the constraints; a form that is undefined in some row.
    """
    if wishes.plain:
        return request.searched()
    if wishes.form is not None:
        return _given_law(request, wishes)
    start = [_start(request, given) for given in wishes.starts]
    extra = _points(wishes.constraints, request.names)
    is_squared = wishes.loss == "squared"
    if is_squared and not wishes.constraints:
        return request.searched(start=start)
    if is_squared:
        laws = request.searched(start=start, candidates=CANDIDATES, extra=extra)
        return _refined(request, wishes, laws, None)
    laws, factor_N = _reweighted(request, wishes, start, extra)
    return _refined(request, wishes, laws, factor_N)


def _points(
    constraints: Sequence[Constraint], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray] | None:
    """The points of the constraints that name one, and the values there."""
    places: list[list[float]] = []
    values: list[float] = []
    for constraint in constraints:
        if constraint.low == constraint.high and set(constraint.where) == set(names):
            places.append([constraint.where[name] for name in names])
            values.append(constraint.low)
    if not places:
        return None
    return np.array(places), np.array(values)


# ---- a form --------------------------------------------------------------------------------------


def _start(request: LawRequest, given: Given) -> Formula:
    """A start formula, its open constants fitted."""
    form = read_form(given, request.names)
    model = FormModel(form)
    loss = LINKED.get(request.link, Squared())
    fit = fit_form(model, request.rows, loss, request.seed)
    formula, table = model.formula(fit.theta_P)
    known = resolve(request.settings.primitives)[1]
    for node in formula.nodes:
        for edge in node.edges:
            if edge.function != "power" and edge.function not in known:
                raise ValueError(
                    f"the start {given} holds {edge.function}, which no search uses; a form may"
                )
    del table
    if not formula.nodes:
        raise ValueError(f"the start {given} holds no feature")
    return formula


def _given_law(request: LawRequest, wishes: Wishes) -> Laws:
    """The one law of a given form."""
    assert wishes.form is not None
    form = read_form(wishes.form, request.names)
    model = FormModel(form)
    rows = request.rows
    loss, measure = _loss_for(request, wishes, rows)
    fit = fit_form(model, rows, loss, request.seed)
    notes: list[str] = []
    if isinstance(loss, Huber):
        loss, measure = _huber_at(model, rows, fit.theta_P)
        fit = fit_form(model, rows, loss, request.seed)
    if not np.isfinite(fit.loss):
        raise ValueError(
            f"the form {form.expression} is undefined in some row, whatever its constants are "
            "(such as the logarithm of a negative number): leave these rows out, or change it"
        )
    limits = _limits(request, wishes, rows)
    judge = _judge(request, rows, loss, measure, limits, torch.ones_like(rows.y_N))
    kept = judge.within_limits(Candidate(model, fit.theta_P))
    if kept is None:
        assert limits is not None
        broken = "; ".join(str(one) for one in limits.breaks(model, fit.theta_P))
        raise ValueError(
            f"the form {form.expression} cannot keep the constraints in the ranges of the "
            f"features, with any constants that were found: {broken or 'all of them together'}"
        )
    formula, _ = model.formula(kept.theta_P)
    numbers = len(form.expression.atoms(sympy.Float))
    complexity = len(form.constants) + numbers + formula.operations
    kept = replace(kept, complexity=max(1, complexity))
    law = judge.law(kept, judge.valid_error(kept, rows, loss), Box.around(rows.x_ND.T, rows.y_N))
    values = dict(zip(form.constants, kept.theta_P.tolist(), strict=True))
    written = _with_values(form, values)
    law = replace(law, written=written)
    loose = [form.constants[place] for place in undetermined(model, rows, kept.theta_P)]
    if form.constants:
        notes.append(f"open constants of the form: {', '.join(form.constants)}")
    if loose:
        notes.append(
            f"the rows do not determine {', '.join(loose)} beside the other constants: their "
            "values are one choice of many that fit alike"
        )
    if law.has_pole:
        notes.append("the law has a pole within the ranges of the features")
    notes += _row_notes(request, rows)
    notes += _limit_notes(limits)
    return Laws(front=(law,), best=0, notes=tuple(notes), constants=values)


def _with_values(form: Form, values: dict[str, float]) -> Expr:
    numbers: dict[object, object] = {}
    for name, value in values.items():
        numbers[sympy.Symbol(name)] = sympy.Float(value, 17)
    return form.expression.xreplace(numbers)


def _row_notes(request: LawRequest, rows: Rows) -> list[str]:
    if len(rows.y_N) == len(request.y_N):
        return []
    return [f"of {len(request.y_N)} rows, the constants were fitted on {len(rows.y_N)}"]


# ---- losses --------------------------------------------------------------------------------------


def _loss_for(request: LawRequest, wishes: Wishes, rows: Rows) -> tuple[LossFunction, str]:
    """The loss, and its name where that of the link does not say it."""
    if request.link != "squared":
        return LINKED[request.link], ""
    if wishes.loss == "squared":
        return Squared(), ""
    if wishes.loss == "absolute":
        return Absolute(), "mean absolute error"
    if wishes.loss == "huber":
        return Huber(HUBER * max(_rough_scale(request), 1e-300)), "mean Huber loss"
    assert callable(wishes.loss)
    name = getattr(wishes.loss, "__name__", type(wishes.loss).__name__)
    own = checked_own(wishes.loss, rows.y_N)
    return own, "mean loss" if name == "<lambda>" else f"mean {name}"


def _huber_at(model: FormModel | FormulaModel, rows: Rows, theta_P: Tensor) -> tuple[Huber, str]:
    """Huber's loss with the scale of a law's residuals."""
    eta_1N, _ = model(rows.x_ND, theta_P[None])
    scale = scale_of(rows.y_N - torch.nan_to_num(eta_1N[0]), rows.w_N)
    delta = HUBER * max(scale, 1e-9 * rows.spread**0.5)
    return Huber(delta), f"mean Huber loss (quadratic up to {delta:.3g})"


def _rough_residuals(request: LawRequest) -> np.ndarray:
    """Targets minus the median of those of the nearest rows."""
    x_ND = request.x_ND
    spread_D = x_ND.std(axis=0)
    scaled_ND = (x_ND - x_ND.mean(axis=0)) / np.where(spread_D > 0, spread_D, 1.0)
    count = min(NEIGHBOURS, len(x_ND) - 1)
    neighbours = KNeighborsRegressor(n_neighbors=count + 1).fit(scaled_ND, request.y_N)
    index = neighbours.kneighbors(scaled_ND, return_distance=False)
    others = np.array([[j for j in row if j != i][:count] for i, row in enumerate(index)])
    return request.y_N - np.median(request.y_N[others], axis=1)


def _rough_scale(request: LawRequest) -> float:
    residual_N, w_N = tensors(_rough_residuals(request), request.w_N)
    return scale_of(residual_N, w_N)


def _reweighted(
    request: LawRequest,
    wishes: Wishes,
    start: Sequence[Formula],
    extra: tuple[np.ndarray, np.ndarray] | None,
) -> tuple[Laws, np.ndarray]:
    """Searches by squares whose rows weigh as the loss pulls at them; the last, and the weights.

    With a robust loss a row that is far off every good law has no weight, so that the structure is
    that of the others.
    """
    own = checked_own(wishes.loss, tensors(request.y_N)[0]) if callable(wishes.loss) else None
    factor_N = np.ones(len(request.y_N))
    effort = FIRST_EFFORT
    if own is None:
        residual_N, w_N = tensors(_rough_residuals(request), request.w_N)
        factor_N = _trust(residual_N, w_N)
    for k in range(MOST_SEARCHES):
        laws = request.searched(factor_N, effort, start, CANDIDATES, extra)
        law = laws.front[laws.best]
        value_N = law.linear(request.x_ND)
        known_N = np.isfinite(value_N)
        residual_N, eta_N, w_N = tensors(request.y_N - value_N, value_N, request.w_N)
        if own is not None:
            weight_1N, _ = own.weights(torch.nan_to_num(eta_N)[None], tensors(request.y_N)[0])
            new_N = _bounded(weight_1N[0].numpy())
        else:
            new_N = _trust(residual_N.nan_to_num(0.0), w_N)
        new_N = np.where(known_N, new_N, 0.0)
        change = float(np.abs(new_N / new_N.max() - factor_N / factor_N.max()).mean())
        factor_N = new_N
        is_full = effort == 1.0
        effort = 1.0
        if laws.stopped or (is_full and (change < SAME or k == MOST_SEARCHES - 1)):
            break
        start = [law.formula]
    return laws, factor_N


def _bounded(weight_N: np.ndarray) -> np.ndarray:
    """Weights of at most a hundred times their median: a residual of zero would take all."""
    positive_N = weight_N[weight_N > 0]
    if not len(positive_N):
        return np.ones_like(weight_N)
    middle = float(np.median(positive_N))
    return np.clip(weight_N / middle, 1e-3, 100.0)


def _trust(residual_N: Tensor, w_N: Tensor) -> np.ndarray:
    """How far each row is one of many that agree."""
    scale = scale_of(residual_N, w_N)
    size = float(residual_N.abs().mean())
    scale = max(scale, 1e-9 * size, 1e-300)
    return bisquare(residual_N, scale).numpy()


# ---- the end -------------------------------------------------------------------------------------


def _limits(request: LawRequest, wishes: Wishes, rows: Rows) -> Limits | None:
    if not wishes.constraints:
        return None
    return Limits(wishes.constraints, request.names, rows, request.seed)


def _limit_notes(limits: Limits | None) -> list[str]:
    if limits is None:
        return []
    kept = "; ".join(str(constraint) for constraint in limits.constraints)
    return [
        f"the laws keep the constraints ({kept}) at {len(limits.points)} points of the ranges of "
        "the features, their corners and the rows among them; between these points and beyond the "
        "ranges nothing is proven"
    ]


def _judge(
    request: LawRequest,
    rows: Rows,
    loss: LossFunction,
    measure: str,
    limits: Limits | None,
    trust_N: Tensor,
) -> Judge:
    return Judge(
        rows=rows,
        loss=loss,
        link=request.link,
        measure=measure,
        limits=limits,
        seed=request.seed,
        points=float(request.w_N.sum()),
        trust_N=trust_N,
    )


def _refined(request: LawRequest, wishes: Wishes, laws: Laws, factor_N: np.ndarray | None) -> Laws:
    """A search's laws and candidates, fitted by the loss and under the constraints."""
    rows = request.rows
    loss, measure = _loss_for(request, wishes, rows)
    table = laws.front[0].primitives
    chosen = FormulaModel(laws.front[laws.best].formula, table)
    if isinstance(loss, Huber):
        loss, measure = _huber_at(chosen, rows, chosen.start_P)
    limits = _limits(request, wishes, rows)
    trust_N = torch.ones_like(rows.y_N)
    notes = list(laws.notes)
    if factor_N is not None:
        (all_N,) = tensors(factor_N)
        places = np.unique(np.linspace(0, len(all_N) - 1, len(rows.y_N)).astype(int))
        trust_N = all_N[places] / max(float(all_N.max()), 1e-300)
        far_off = int((all_N == 0).sum())
        if far_off:
            notes.append(
                f"{far_off} of {len(all_N)} rows are so far off that the structure was looked for "
                "without them; the constants are fitted to all rows by the loss"
            )
    candidates: dict[Formula, Candidate] = {}
    for law in laws.front:
        model = FormulaModel(law.formula, table)
        candidates[law.formula] = Candidate(model, model.start_P, agreement=law.agreement)
    for formula in laws.candidates:
        if formula not in candidates:
            model = FormulaModel(formula, table)
            candidates[formula] = Candidate(model, model.start_P)
    judge = _judge(request, rows, loss, measure, limits, trust_N)
    found = judge.front(list(candidates.values()))
    if found is None:
        kept = "; ".join(str(constraint) for constraint in wishes.constraints)
        raise ValueError(
            f"no law was found that keeps the constraints in the ranges of the features: {kept}; "
            "allow more (effort=2), or leave one out"
        )
    front, best = found
    if not best.formula.nodes and limits is not None:
        notes.append("of the laws that were found a constant alone keeps the constraints")
    notes += _row_notes(request, rows)
    notes += _limit_notes(limits)
    return replace(
        laws, front=tuple(front), best=front.index(best), notes=tuple(notes), candidates=()
    )
