"""Costs of an architecture in the objective: as a factor, a term or a budget.

What a cost can be counted in stands in `latency/quantities.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gradnas.config import JsonObject, build, check_numbers
from gradnas.latency import QUANTITIES, LatencyTable, Quantity
from gradnas.settings.limits import CostLimits


@dataclass(frozen=True)
class CostState:
    """What a search with a budget remembers between the steps of the alphas.

    Attributes:
        multiplier: the Lagrange multiplier, in units of the task's loss.
    """

    multiplier: float = 0.0

    def state_dict(self) -> dict[str, float]:
        """Plain values."""
        return {"multiplier": self.multiplier}


def _quantities_by_limit() -> dict[str, Quantity]:
    by_suffix = {quantity.suffix: quantity for quantity in QUANTITIES}
    by_limit = {}
    for field in fields(CostLimits):
        kind, _, suffix = field.name.partition("_")
        assert kind in ("budget", "target"), field.name
        by_limit[field.name] = by_suffix[suffix]
    return by_limit


LIMITS = _quantities_by_limit()


@dataclass(frozen=True)
class CostTable:
    """Where a cost in milliseconds is read from."""

    table: LatencyTable | Path | str | None = None


# The fields come in the order of the bases from the last to the first: the table, then the limits.
@dataclass(frozen=True)
class ExpectedCost(CostLimits, CostTable):
    """The expected cost E of an architecture, added to the loss of the alphas.

    `E = fixed + sum over operations of p(operation) * cost(operation)` with p the probabilities of
    the draw, so that E is differentiable in the alphas (ProxylessNAS, arXiv 1812.00332, eq. 6). One
    limit says what is counted and how it enters:

    - a *target* T with `form="mul#log"`: `scale * task * (ln E / ln T) ^ power`, E and T in ms or
      in single multiply-adds or parameters, as in the original script. Where T is less than e, a
      smaller unit is taken in which it is e; a quotient below 1e-6 counts as 1e-6.
    - a target T with `form="add#linear"`: `task + weight * (E - T) / T`.
    - a *budget* B, which the search must keep: with `g = E / B - 1` and the Lagrange multiplier m,
      `task + max(0, m + penalty * g)^2 / (2 * penalty) - m^2 / (2 * penalty)`, the augmented
      Lagrangian of the constraint g <= 0. After each step of the alphas `m <- max(0, m +
      multiplier_lr * g)`. The result of the search is the best architecture within the budget,
      exactly.

    The first two pull towards T and promise nothing; their defaults are those of the original
    script.

    Args:
        table: a latency table, or the path of one; needed for milliseconds alone.
        budget_ms, budget_macs, ..., target_ms, target_macs, ...: exactly one of the limits of
            `CostLimits`. Multiply-adds are of one example, whatever the batch of the inputs that
            they are counted with; milliseconds are for as many as the table was measured with.
        form: of a target.
        scale, power: of `mul#log`.
        weight: of `add#linear`.
        multiplier_lr, penalty: of a budget. A multiplier that moves much faster than the alphas can
            follow overshoots: they settle on what is cheap before they know what the operations are
            worth, and leave a part of the budget unused. So `multiplier_lr` is by default 0.03
            times the learning rate of the alphas. The penalty damps it. The result keeps the budget
            in any case.

    Raises:
        ValueError: no limit or several, one that is not above 0, milliseconds without a table.
    """

    form: Literal["mul#log", "add#linear"] = "mul#log"
    scale: float = 0.2
    power: float = 0.3
    weight: float = 0.1
    multiplier_lr: float | None = None
    penalty: float = 0.3

    def __post_init__(self) -> None:
        given = [name for name in LIMITS if getattr(self, name) is not None]
        if len(given) != 1:
            got = f"got {', '.join(given)}" if given else "got none"
            raise ValueError(f"ExpectedCost takes exactly one of {', '.join(LIMITS)}; {got}")
        _check_positive(self.limit_name, self.limit)
        if self.form not in ("mul#log", "add#linear"):
            raise ValueError(f"form must be 'mul#log' or 'add#linear', not {self.form!r}")
        for name in ("scale", "power", "weight", "multiplier_lr", "penalty"):
            waits_for_the_alphas = name == "multiplier_lr" and self.multiplier_lr is None
            if not waits_for_the_alphas:
                _check_positive(name, getattr(self, name))
        check_numbers(self)
        if self.quantity.needs_table and self.table is None:
            limit = f"{self.limit_name}={self.limit:g}"
            raise ValueError(
                f"{self.limit_name} needs a latency table: ExpectedCost(table, {limit})"
            )

    @property
    def limit_name(self) -> str:
        """The limit that was given, e.g. `budget_ms`."""
        return next(name for name in LIMITS if getattr(self, name) is not None)

    @property
    def limit(self) -> float:
        """Its value."""
        return getattr(self, self.limit_name)

    @property
    def quantity(self) -> Quantity:
        """What is counted."""
        return LIMITS[self.limit_name]

    @property
    def is_budget(self) -> bool:
        """Whether the limit must be kept."""
        return self.limit_name.startswith("budget")

    def latency_table(self) -> LatencyTable | None:
        """The table, read if it is a path; None where the quantity needs none."""
        if not self.quantity.needs_table:
            return None
        assert self.table is not None
        return self.table if isinstance(self.table, LatencyTable) else LatencyTable.load(self.table)

    def combine(
        self, task_loss: Tensor, expected: Tensor, state: CostState = CostState()
    ) -> Tensor:
        """The loss of the alphas from the task's loss and E, both scalars, in the task's dtype.

        E itself is float64: a cost in single multiply-adds has more digits than float32.
        """
        if self.is_budget:
            # The augmented Lagrangian of one inequality. With a multiplier alone, m * g, the alphas
            # would swing around the limit; the square damps that. The clamp ends its pull where the
            # constraint holds with room to spare, and the last term only moves the zero.
            excess = expected / self.limit - 1.0
            pushed = torch.clamp(state.multiplier + self.penalty * excess, min=0.0)
            term = (pushed * pushed - state.multiplier**2) / (2.0 * self.penalty)
        elif self.form == "add#linear":
            term = self.weight * (expected - self.limit) / self.limit
        else:
            factor = self.scale * self._log_ratio(expected) ** self.power
            return task_loss * factor.to(task_loss.dtype)
        return task_loss + term.to(task_loss.dtype)

    def _log_ratio(self, expected: Tensor) -> Tensor:
        """ln E / ln T, kept above 0.

        With T below 1, ln T would be negative and the factor would reward what is dear; with T near
        1 it would be huge. So ln T is at least 1.
        """
        unit = min(1.0, self.limit / math.e)
        ratio = torch.log(expected.clamp_min(1e-30) / unit) / math.log(self.limit / unit)
        # Below 0 a fractional power is NaN, and at 0 its slope is infinite.
        return ratio.clamp_min(1e-6)

    def paced(self, alpha_lr: float) -> ExpectedCost:
        """The same; without a `multiplier_lr`, with one that fits this learning rate."""
        if self.multiplier_lr is not None:
            return self
        return replace(self, multiplier_lr=0.03 * alpha_lr)

    def advanced(self, state: CostState, expected: float) -> CostState:
        """The state after a step of the alphas that led to the expected cost `expected`."""
        if not self.is_budget:
            return state
        assert self.multiplier_lr is not None, "paced() first"
        # Gradient ascent on the multiplier, which is never negative: a budget with room to spare
        # must not push towards what is dear.
        excess = expected / self.limit - 1.0
        return CostState(max(0.0, state.multiplier + self.multiplier_lr * excess))

    # ---- configuration files ---------------------------------------------------------------------

    def to_json(self) -> JsonObject:
        """Fields for a configuration file; the table by its path."""
        if isinstance(self.table, LatencyTable):
            raise ValueError(
                "a configuration names a latency table by its path: save it and give the path"
            )
        entries: JsonObject = {"table": None if self.table is None else str(self.table)}
        entries[self.limit_name] = self.limit
        for name in ("form", "scale", "power", "weight", "multiplier_lr", "penalty"):
            entries[name] = getattr(self, name)
        return entries

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> ExpectedCost:
        """The inverse of `to_json`."""
        table = data.get("table")
        if table is not None and not isinstance(table, str):
            raise ValueError(f"{where}.table must be the path of a latency table, not {table!r}")
        return build(cls, data, where)


def _check_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be above 0, not {value}")


def accuracy_latency_reward(
    accuracy: float, latency_ms: float, target_ms: float, exponent: float = 0.1
) -> float:
    """`accuracy * (target / latency) ^ exponent`, the reward of ProxylessNAS-R and MnasNet.

    The accuracy is in [0, 1].

    Raises:
        ValueError: a latency or target that is not above 0.
    """
    for name, value in (("latency_ms", latency_ms), ("target_ms", target_ms)):
        if not value > 0:
            raise ValueError(f"{name} must be above 0, not {value}")
    return accuracy * (target_ms / latency_ms) ** exponent
