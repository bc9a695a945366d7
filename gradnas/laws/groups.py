"""One law for several groups of rows, with constants of each group's own.

The structure is one; which of its constants are shared by all groups, the description length says.

Legend: N rows, D features, G groups, P constants of one group, S sets of constants.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from sympy import Expr
from torch import Tensor

from gradnas.laws.engine.data import EXACT
from gradnas.laws.engine.edits import structure
from gradnas.laws.engine.poles import Box, has_pole
from gradnas.laws.fitting import (
    FormModel,
    FormulaModel,
    Model,
    Rows,
    fit_form,
    fit_from,
)
from gradnas.laws.formula import Formula
from gradnas.laws.given import read_form
from gradnas.laws.group_law import GroupLaw
from gradnas.laws.judging import Candidate, Judge
from gradnas.laws.law import Law, Laws
from gradnas.laws.losses import Squared
from gradnas.laws.primitives import Primitive
from gradnas.laws.request import LawRequest
from gradnas.laws.robust import LINKED
from gradnas.laws.symbolic import Named, Term, neat, shortest, sympy, to_sympy, with_plain_symbols
from gradnas.laws.wishes import Wishes

SEARCHED = 3  # groups, the largest ones, that structures are looked for in
CANDIDATES = 8  # of each search
JUDGED = 4  # structures whose constants are shared step by step
EFFORT = 0.5  # of a search in one group
STEPS = 20
SENTINEL = 1e7 + 0.123  # a number that no constant is


class GroupModel(Model):
    """A model whose constants are shared or of each group's own.

    Constants: the shared ones in their order, then group after group the own ones.
    """

    def __init__(self, base: Model, groups: int, shared: Sequence[int]) -> None:
        self.base = base
        self.groups = groups
        self.shared = list(shared)
        self.own = [p for p in range(base.num_constants) if p not in self.shared]
        self.num_constants = len(self.shared) + groups * len(self.own)
        self.linear = []
        for place in range(self.num_constants):
            if self._origin(place) in base.linear:
                self.linear.append(place)

    def _origin(self, place: int) -> int:
        """Which of the base's constants one of ours is."""
        if place < len(self.shared):
            return self.shared[place]
        return self.own[(place - len(self.shared)) % max(1, len(self.own))]

    def places(self, g: int) -> list[int]:
        """Of a group's constants, in the order of the base."""
        places: list[int] = []
        for p in range(self.base.num_constants):
            if p in self.shared:
                places.append(self.shared.index(p))
            else:
                places.append(len(self.shared) + g * len(self.own) + self.own.index(p))
        return places

    def __call__(self, x_ND: Tensor, theta_SP: Tensor) -> tuple[Tensor, Tensor]:
        eta_SN = theta_SP.new_full((len(theta_SP), len(x_ND)), math.nan)
        slope_SPN = theta_SP.new_zeros(len(theta_SP), self.num_constants, len(x_ND))
        for g in range(self.groups):
            mine = (x_ND[:, -1] == g).nonzero().flatten()
            if not len(mine):
                continue
            places = self.places(g)
            eta_SM, own_SPM = self.base(x_ND[mine][:, :-1], theta_SP[:, places])
            eta_SN[:, mine] = eta_SM
            rows = torch.tensor(places).unsqueeze(1)
            slope_SPN[:, rows, mine] = own_SPM
        return eta_SN, slope_SPN

    def formula(self, theta_P: Tensor) -> tuple[Formula, dict[str, Primitive]]:
        return self.base.formula(theta_P[self.places(0)])

    def starting(self, theta_GP: Tensor) -> Tensor:
        """Constants to start from, those of each group alone given."""
        shared_P = theta_GP[:, self.shared].median(dim=0).values
        return torch.cat([shared_P, theta_GP[:, self.own].flatten()])


@dataclass(frozen=True)
class _Shared:
    """A structure with some constants shared, fitted to all groups."""

    model: GroupModel
    theta_P: Tensor
    loss: float
    length: float


def find_grouped(request: LawRequest, wishes: Wishes, labels: Sequence[object]) -> Laws:
    """One law for all groups; the last column of the request's features is the group's number.

    Raises:
        ValueError: no structure fits all groups.
    """
    rows = request.rows
    finder = _Finder(request, wishes, rows, len(labels))
    bases = finder.bases()
    alone: list[tuple[Model, Tensor, _Shared]] = []
    for base, theta_P in bases:
        theta_GP = finder.each(base, theta_P)
        if theta_GP is not None:
            alone.append((base, theta_GP, finder.with_shared(base, theta_GP, [])))
    alone.sort(key=lambda item: item[2].length)
    if not alone:
        raise ValueError("no structure that was found is defined in all rows of every group")
    kept: list[_Shared] = []
    for base, theta_GP, first in alone[:JUDGED]:
        kept.append(finder.shared_as_far_as_it_pays(base, theta_GP, first))
    # Simpler ones stay beside the best, for the front.
    best = min(kept, key=lambda shared: shared.length)
    laws: dict[int, GroupLaw] = {}
    for shared in kept:
        law = finder.law(shared, labels)
        simpler = law.complexity not in laws or law.train_error < laws[law.complexity].train_error
        if shared is best or simpler:
            laws[law.complexity] = law
    chosen = finder.law(best, labels)
    laws[chosen.complexity] = chosen
    front: list[Law] = []
    lowest = math.inf
    for complexity in sorted(laws):
        law = laws[complexity]
        if law is chosen or law.train_error < lowest:
            front.append(law)
            lowest = min(lowest, law.train_error)
    own = list(chosen.own)
    says = f"of each group's own: {', '.join(own)}" if own else "all constants are shared by all"
    return Laws(
        front=tuple(front), best=front.index(chosen), notes=(f"{len(labels)} groups; {says}",)
    )


class _Finder:
    """Structures and constants for some rows with groups."""

    def __init__(self, request: LawRequest, wishes: Wishes, rows: Rows, groups: int) -> None:
        self.request = request
        self.wishes = wishes
        self.rows = rows
        self.groups = groups
        self.loss = LINKED.get(request.link, Squared())
        self.points = float(request.w_N.sum())

    def _group(self, g: int) -> Rows:
        mine = (self.rows.x_ND[:, -1] == g).nonzero().flatten()
        part = self.rows.part(mine)
        return Rows(part.x_ND[:, :-1], part.y_N, part.w_N)

    def bases(self) -> list[tuple[Model, Tensor | None]]:
        """Structures, and constants to start from."""
        request = self.request
        names = request.names[:-1]
        if self.wishes.form is not None:
            return [(FormModel(read_form(self.wishes.form, names)), None)]
        code_N = request.x_ND[:, -1]
        sizes = [float(request.w_N[code_N == g].sum()) for g in range(self.groups)]
        largest = sorted(range(self.groups), key=lambda g: -sizes[g])[:SEARCHED]
        found: dict[object, tuple[Model, Tensor | None]] = {}
        for g in [*largest, None]:
            mine = code_N == g if g is not None else np.ones(len(code_N), dtype=bool)
            part = replace(
                request,
                x_ND=request.x_ND[mine][:, :-1],
                y_N=request.y_N[mine],
                w_N=request.w_N[mine],
                names=names,
            )
            if np.ptp(part.y_N) == 0.0:
                continue
            laws = part.searched(effort=EFFORT, candidates=CANDIDATES)
            table = laws.front[0].primitives
            formulas = [law.formula for law in laws.front] + list(laws.candidates)
            for formula in formulas:
                model = FormulaModel(formula, table)
                found.setdefault(structure(formula), (model, model.start_P))
            if laws.stopped:
                break
        return list(found.values())

    def each(self, base: Model, theta_P: Tensor | None) -> Tensor | None:
        """`(G, P)` constants fitted to each group alone; None where one cannot be."""
        fitted: list[Tensor] = []
        for g in range(self.groups):
            rows = self._group(g)
            if isinstance(base, FormModel):
                fit = fit_form(base, rows, self.loss, self.request.seed)
            else:
                assert theta_P is not None
                starts = torch.stack([theta_P, *fitted[-1:]])
                fit = fit_from(base, rows, self.loss, starts, STEPS)
            if not math.isfinite(fit.loss):
                return None
            fitted.append(fit.theta_P)
        return torch.stack(fitted)

    def with_shared(self, base: Model, theta_GP: Tensor, shared: Sequence[int]) -> _Shared:
        """Fitted to all groups, some constants shared."""
        model = GroupModel(base, self.groups, shared)
        start_P = model.starting(theta_GP)
        steps = STEPS if shared else 0
        fit = fit_from(model, self.rows, self.loss, start_P[None], steps)
        return _Shared(model, fit.theta_P, fit.loss, self._length(model, fit.theta_P, fit.loss))

    def _length(self, model: GroupModel, theta_P: Tensor, loss: float) -> float:
        if not math.isfinite(loss):
            return math.inf
        formula, _ = model.formula(theta_P)
        complexity = model.num_constants + formula.operations
        if self.request.link == "squared":
            fit = self.points * math.log(max(loss / self.rows.spread, EXACT))
        else:
            fit = 2.0 * self.points * loss
        return fit + complexity * math.log(self.points)

    def shared_as_far_as_it_pays(self, base: Model, theta_GP: Tensor, first: _Shared) -> _Shared:
        """One constant after the other is shared while the description becomes shorter."""
        best = first
        while len(best.model.shared) < base.num_constants:
            tried: list[_Shared] = []
            for p in best.model.own:
                shared = sorted([*best.model.shared, p])
                tried.append(self.with_shared(base, theta_GP, shared))
            shortest_one = min(tried, key=lambda item: item.length)
            if shortest_one.length >= best.length:
                break
            best = shortest_one
        return best

    def law(self, found: _Shared, labels: Sequence[object]) -> GroupLaw:
        """A fitted structure as a law."""
        model = found.model
        theta_P = found.theta_P
        by_group: list[Formula] = []
        table: dict[str, Primitive] = {}
        for g in range(self.groups):
            formula, table = model.base.formula(theta_P[model.places(g)])
            by_group.append(formula)
        names, symbols = self._named(model, theta_P)
        own: dict[str, tuple[float, ...]] = {}
        for name, p in zip(names, model.own, strict=True):
            values = [float(theta_P[model.places(g)[p]]) for g in range(self.groups)]
            own[name] = tuple(values)
        judge = Judge(
            self.rows,
            self.loss,
            self.request.link,
            "",
            None,
            self.request.seed,
            self.points,
            torch.ones_like(self.rows.y_N),
        )
        candidate = Candidate(model, theta_P, model.num_constants + by_group[0].operations)
        valid = judge.valid_error(candidate, self.rows, self.loss)
        plain = Rows(self.rows.x_ND[:, :-1], self.rows.y_N, self.rows.w_N)
        box = Box.around(plain.x_ND.T, plain.y_N)
        return GroupLaw(
            formula=by_group[0],
            complexity=model.num_constants + by_group[0].operations,
            train_error=found.loss,
            valid_error=valid,
            description_length=found.length,
            agreement=1,
            loss=self.request.link,
            primitives=dict(table),
            has_pole=any(has_pole(formula, box, table) for formula in by_group),
            rounding=EXACT * self.rows.spread,
            written=symbols if isinstance(model.base, FormModel) else None,
            labels=tuple(labels),
            by_group=tuple(by_group),
            own=own,
            symbols=symbols,
        )

    def _named(self, model: GroupModel, theta_P: Tensor) -> tuple[list[str], Expr]:
        """Names of the own constants, and the law in them and the features."""
        features = list(self.request.names[:-1])
        base = model.base
        mine_P = theta_P[model.places(0)]
        if isinstance(base, FormModel):
            names = [base.form.constants[p] for p in model.own]
            values: dict[Term, Term] = {}
            for p in model.shared:
                values[sympy.Symbol(base.form.constants[p])] = sympy.Float(float(mine_P[p]), 17)
            return names, neat(base.form.expression.xreplace(values))
        names = []
        marked_P = mine_P.clone()
        by_mark: dict[float, str] = {}
        for k, p in enumerate(model.own):
            name = f"k{k + 1}"
            while name in features:
                name += "_"
            names.append(name)
            marked_P[p] = SENTINEL + k
            by_mark[SENTINEL + k] = name
        formula, table = base.formula(marked_P)
        named = _with_names(formula, by_mark)
        written = shortest(to_sympy(named, features, table), 1.0)
        return names, neat(with_plain_symbols(written))


def _with_names(formula: Formula, by_mark: Mapping[float, str]) -> Formula:
    """The formula with names in place of the numbers that stand for them."""

    def named(value: float) -> float:
        return Named(value, by_mark[value]) if value in by_mark else value

    nodes = []
    for node in formula.nodes:
        edges = [replace(edge, a=named(edge.a), b=named(edge.b)) for edge in node.edges]
        nodes.append(replace(node, edges=tuple(edges)))
    weights = tuple(named(weight) for weight in formula.weights)
    return replace(formula, nodes=tuple(nodes), weights=weights, bias=named(formula.bias))
