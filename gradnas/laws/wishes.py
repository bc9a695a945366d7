"""What a user may ask of laws beyond their search: a loss, a form, a start, constraints.

Legend: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sympy import Expr
from torch import Tensor

from gradnas.laws.constraints import Constraint, Limits, checked_constraints
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
from gradnas.laws.law import Laws
from gradnas.laws.losses import Huber, LossFunction, Squared
from gradnas.laws.primitives import resolve
from gradnas.laws.request import LawRequest
from gradnas.laws.robust import (
    CANDIDATES,
    LINKED,
    AskedLoss,
    huber_at,
    loss_for,
    reweighted,
)
from gradnas.laws.symbolic import sympy

Given = str | Expr
LOSS_NAMES = ("squared", "absolute", "huber")


@dataclass(frozen=True)
class Wishes:
    """See `EquationRegressor`."""

    loss: AskedLoss = "squared"
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
        if isinstance(self.start, str | Expr):
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
        checked_constraints(self.constraints, names)
        if link != "squared" and self.constraints:
            raise ValueError("constraints go with output='real' alone")
        if self.form is not None and self.starts:
            raise ValueError("a form is not searched, so it takes no start: leave out one of them")
        for given in [*self.starts, *([] if self.form is None else [self.form])]:
            read_form(given, names)

    def check_groups(self) -> None:
        """Refuse what groups do not go with.

        Raises:
            ValueError: another loss, constraints or a start.
        """
        if self.loss != "squared" or self.constraints or self.starts:
            raise ValueError(
                "groups go with the squared error (or a likelihood), and without constraints and "
                "start: fit the groups one by one for these"
            )


def find_laws(request: LawRequest, wishes: Wishes) -> Laws:
    """The laws of one target, as they were asked for.

    Raises:
        ValueError: no law keeps the constraints; a form that is undefined in some row.
    """
    if wishes.plain:
        return request.searched()
    if wishes.form is not None:
        return given_law(request, wishes)
    start = [_start(request, given) for given in wishes.starts]
    extra = _points(wishes.constraints, request.names)
    is_squared = wishes.loss == "squared"
    if is_squared and not wishes.constraints:
        return request.searched(start=start)
    if is_squared:
        laws = request.searched(start=start, candidates=CANDIDATES, extra=extra)
        return _refined(request, wishes, laws, None)
    laws, factor_N = reweighted(request, wishes.loss, start, extra)
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


def given_law(request: LawRequest, wishes: Wishes) -> Laws:
    """The one law of a given form."""
    assert wishes.form is not None
    form = read_form(wishes.form, request.names)
    model = FormModel(form)
    rows = request.rows
    loss, measure = loss_for(request, wishes.loss, rows)
    fit = fit_form(model, rows, loss, request.seed)
    notes: list[str] = []
    if isinstance(loss, Huber):
        loss, measure = huber_at(model, rows, fit.theta_P)
        fit = fit_form(model, rows, loss, request.seed)
    if not np.isfinite(fit.loss):
        raise ValueError(
            f"the form {form.expression} is undefined in some row, whatever its constants are "
            "(such as the logarithm of a negative number): leave these rows out, or change it"
        )
    judge = judge_of(request, wishes, rows, loss, measure, torch.ones_like(rows.y_N))
    limits = judge.limits
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


def judge_of(
    request: LawRequest,
    wishes: Wishes,
    rows: Rows,
    loss: LossFunction,
    measure: str,
    trust_N: Tensor,
) -> Judge:
    """How laws of a target are fitted and judged."""
    return Judge(
        rows=rows,
        loss=loss,
        link=request.link,
        measure=measure,
        limits=_limits(request, wishes, rows),
        seed=request.seed,
        points=float(request.w_N.sum()),
        trust_N=trust_N,
    )


def _refined(request: LawRequest, wishes: Wishes, laws: Laws, factor_N: np.ndarray | None) -> Laws:
    """A search's laws and candidates, fitted by the loss and under the constraints."""
    rows = request.rows
    loss, measure = loss_for(request, wishes.loss, rows)
    table = laws.front[0].primitives
    chosen = FormulaModel(laws.front[laws.best].formula, table)
    if isinstance(loss, Huber):
        loss, measure = huber_at(chosen, rows, chosen.start_P)
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
    judge = judge_of(request, wishes, rows, loss, measure, trust_N)
    limits = judge.limits
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
