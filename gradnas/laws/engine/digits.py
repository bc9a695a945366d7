"""Constants rounded as far as the data allow.

Legend: K constants of a formula.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gradnas.laws.engine.batch import FormulaBatch
from gradnas.laws.engine.data import LawData, mean_loss
from gradnas.laws.engine.refit import Fitted, state_at
from gradnas.laws.formula import (
    ANGLES,
    Edge,
    Formula,
    Node,
)

Place = tuple[str, int, int]  # ("a" | "b", node, edge), ("weight", node, 0) or ("bias", 0, 0)
ROUNDING = 1e-20  # share of the target's variance below which an error is that of doubles
DIGIT = 2.0 * math.log(10.0)  # what a digit adds to (twice) a description length
MOST_DIGITS = 15.0  # of a double
LOST = 0.002  # of the target's variance: rounding that loses more is done again, each standard
STRICTER = 5  # deviation counting twice, so many times at most


def rounded(fitted: Fitted, data: LawData, digits: int = 10) -> Fitted:
    """With each constant rounded to the significant digits that a description length asks for.

    A digit costs ln 10 and the fit `n/2 ln MSE` (both times two). Constants are rounded one after
    the other, the best determined last, and those not rounded yet make up for the change, by the
    quadratic model of the loss at its optimum; the loss of the result is computed, not modelled.
    No rounding loses more than 0.2% of the target's variance.
    """
    formula = with_principal_angles(fitted.formula)
    places = _places(formula)
    loss, matrix_KK = _quadratic_model(formula, data)
    if not places or not bool(torch.isfinite(matrix_KK).all()):
        return fitted
    squared = data.loss == "squared"
    least = ROUNDING * data.spread
    loss = max(loss, least)

    # From the change of the summed loss to that of n ln MSE.
    unit = 1.0 / loss if squared else 1.0
    # Without noise the fit would ask for ever more digits; a double's are enough.
    full = DIGIT * min(MOST_DIGITS, max(digits, 1)) if loss <= 2 * least else math.inf
    result = formula
    new = math.inf
    for _ in range(STRICTER):
        how = _Rounding(unit, digits, full)
        result = _replaced(formula, _rounded_values(formula, places, matrix_KK, how))
        eta = result(data.x_DN.T, data.primitives).unsqueeze(0)
        new = float(mean_loss(eta, data)[0])
        # Where a law explains little, what a description length allows may be much of that.
        if new - loss <= LOST * data.spread:
            break
        unit *= 4.0
    if not math.isfinite(new):
        return fitted
    if squared:
        rise = data.n * (math.log(max(new, least)) - math.log(loss))
    else:
        rise = 2 * data.n * (new - loss)
    is_lost = new - loss > LOST * data.spread
    if is_lost or rise > 5.0 * len(places):  # the quadratic model did not hold
        return fitted
    return Fitted(result, new)


def with_principal_angles(formula: Formula) -> Formula:
    """The formula with the phases of its sines and cosines between -pi and pi."""
    nodes: list[Node] = []
    for node in formula.nodes:
        edges: list[Edge] = []
        for edge in node.edges:
            if edge.function in ANGLES and abs(edge.b) > math.pi:
                b = math.remainder(edge.b, 2.0 * math.pi)
                # A phase of exactly 0 would count as none and be another structure.
                edge = replace(edge, b=b or edge.b)
            edges.append(edge)
        nodes.append(Node(node.kind, tuple(edges)))
    return replace(formula, nodes=tuple(nodes))


def _quadratic_model(formula: Formula, data: LawData) -> tuple[float, Tensor]:
    """The loss at the formula's constants, and the normal equations' matrix of those, `(K, K)`."""
    batch = FormulaBatch([formula], data.primitives)
    state = state_at(batch, batch.theta(), batch.weight, data)
    num_inner = int(batch.slot_used[0].sum())
    padded = state.theta_CP.shape[1]
    kept = list(range(num_inner))
    for column, used in enumerate(batch.in_output[0].tolist()):
        if used:
            kept.append(padded + column)
    return float(state.loss_C[0]), state.matrix[0][kept][:, kept]


@dataclass(frozen=True)
class _Rounding:
    """The prices of a rounding, as parts of twice a description length.

    Attributes:
        unit: of a change by one standard deviation (of the model with unit noise).
        digits: largest number of digits that is tried.
        full: above this a constant stays as it is.
    """

    unit: float
    digits: int
    full: float

    def chosen(self, value: float, deviation: float, is_offset: bool, is_angle: bool) -> float:
        """The cheapest decimal near the value, or a common angle, or the value itself."""
        options: list[tuple[float, float]] = []
        if is_angle:
            # A quarter turn names another function and costs a digit; other angles cost two.
            for parts, num_digits in ((2, 1), (4, 2), (6, 2)):
                angle = round(value / (math.pi / parts)) * math.pi / parts
                worse = self.unit * ((angle - value) / deviation) ** 2
                options.append((worse + 2.0 * num_digits * math.log(10.0), angle))
        if is_offset:  # none at all: an offset that the data do not show
            options.append((self.unit * (value / deviation) ** 2, 0.0))
        for num_digits in range(1, self.digits + 1):
            candidate = float(f"{value:.{num_digits - 1}e}")
            worse = self.unit * ((candidate - value) / deviation) ** 2
            options.append((worse + 2.0 * num_digits * math.log(10.0), candidate))
        cost, best = min(options)
        return value if cost > self.full else best


def _rounded_values(
    formula: Formula, places: list[tuple[Place, float]], matrix_KK: Tensor, how: _Rounding
) -> dict[Place, float]:
    """The constants, rounded one after the other."""
    current_K = torch.tensor([value for _, value in places], dtype=torch.float64)
    # Scaled to a unit diagonal, so that the inverse is as exact for constants of any size.
    scale_K = matrix_KK.diagonal().clamp(min=1e-200).rsqrt()
    matrix_KK = matrix_KK * scale_K.unsqueeze(0) * scale_K.unsqueeze(1)
    matrix_KK = matrix_KK + 1e-12 * torch.eye(len(places), dtype=matrix_KK.dtype)
    done: dict[Place, float] = {}
    waiting = list(range(len(places)))
    while waiting:
        index = torch.tensor(waiting)
        inverse = torch.linalg.pinv(matrix_KK[index][:, index], hermitian=True)
        deviation = inverse.diagonal().clamp(min=1e-300).sqrt() * scale_K[index]
        relative = deviation / current_K[index].abs().clamp(min=1e-300)
        # The least certain first: the others can still make up for it.
        pick = int(relative.argmax())
        k = waiting[pick]
        place = places[k][0]
        value = float(current_K[k])
        chosen = how.chosen(
            value,
            float(deviation[pick]),
            is_offset=place[0] in ("b", "bias"),
            is_angle=_is_angle(formula, place),
        )

        # The best values of the others, given this one: a column of the covariance says how.
        rest = [i for i in range(len(waiting)) if i != pick]
        if rest:
            change = (chosen - value) / float(scale_K[k])
            follow = inverse[rest, pick] / inverse[pick, pick] * change
            current_K[index[rest]] += follow * scale_K[index[rest]]
        current_K[k] = chosen
        done[place] = chosen
        waiting.remove(k)
    return done


def _is_angle(formula: Formula, place: Place) -> bool:
    """Whether a constant is the phase of a sine or a cosine."""
    kind, j, e = place
    return kind == "b" and formula.nodes[j].edges[e].function in ANGLES


def _places(formula: Formula) -> list[tuple[Place, float]]:
    """The fitted constants, in the order of the columns of the normal equations."""
    slopes: list[tuple[Place, float]] = []
    shifts: list[tuple[Place, float]] = []
    for j, node in enumerate(formula.nodes):
        for e, edge in enumerate(node.edges):
            if not edge.fixed:
                slopes.append((("a", j, e), edge.a))
            if edge.b != 0.0:
                shifts.append((("b", j, e), edge.b))
    outer: list[tuple[Place, float]] = []
    for j, weight in enumerate(formula.weights):
        if weight != 0.0:
            outer.append((("weight", j, 0), weight))
    if formula.bias != 0.0:
        outer.append((("bias", 0, 0), formula.bias))
    return slopes + shifts + outer


def _replaced(formula: Formula, values: dict[Place, float]) -> Formula:
    nodes: list[Node] = []
    weights: list[float] = []
    for j, node in enumerate(formula.nodes):
        edges: list[Edge] = []
        for e, edge in enumerate(node.edges):
            a = values.get(("a", j, e), edge.a)
            b = values.get(("b", j, e), edge.b)
            edges.append(replace(edge, a=a, b=b))
        nodes.append(Node(node.kind, tuple(edges)))
        weights.append(values.get(("weight", j, 0), formula.weights[j]))
    bias = values.get(("bias", 0, 0), formula.bias)
    return Formula(formula.features, tuple(nodes), tuple(weights), bias)
