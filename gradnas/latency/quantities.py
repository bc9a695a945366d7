"""The quantities that a cost can be of: all that is said and counted of one stands in one value.

A further quantity is a value here, in `QUANTITIES`, and its limits in `settings/limits.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gradnas.config import did_you_mean
from gradnas.latency.registered import When
from gradnas.latency.survey import Survey

# A number, and the conditions under which it is spent: one or more of them must hold.
Amount = tuple[frozenset[When], float]


@dataclass(frozen=True)
class Quantity:
    """A quantity that an architecture spends.

    Attributes:
        name: what `Supernet.costs` is asked for.
        noun: what people call it.
        unit: of its values, in words.
        suffix: of the limits in an `ExpectedCost`, `budget_` and `target_`.
        key: in metrics.jsonl, after `expected_` and `derived_`.
        decimals: of its values in a sentence.
        large_unit: the unit of plots.
        large: how many units it is.
        count: what is spent, and where; None: a latency table knows.
    """

    name: str
    noun: str
    unit: str
    suffix: str
    key: str
    decimals: int
    large_unit: str
    large: float
    count: Callable[[Survey], Iterator[Amount]] | None

    @property
    def needs_table(self) -> bool:
        """Whether its values are read from a latency table."""
        return self.count is None

    @property
    def words(self) -> str:
        """The noun, with where the values come from if they were not counted."""
        return f"{self.noun} by the table" if self.needs_table else self.noun

    def number(self, value: float) -> str:
        """A value as text: `1,234`."""
        return f"{value:,.{self.decimals}f}"

    def amount(self, value: float) -> str:
        """A value with its unit, to be read after the noun, which may be the unit."""
        if self.unit == self.noun:
            return self.number(value)
        return f"{self.number(value)} {self.unit}"


def _macs(survey: Survey) -> Iterator[Amount]:
    """Every call counts, also a second one of the same module."""
    for unit in survey:
        if unit.macs is None:
            raise ValueError(unit.uncounted)
        for when in unit.uses:
            yield frozenset({when}), unit.macs


def _params(survey: Survey) -> Iterator[Amount]:
    """A parameter counts once, wherever it lies, also in a module that did not run."""
    yield from survey.registered.parameters.items()


LATENCY = Quantity(
    name="latency",
    noun="latency",
    unit="ms",
    suffix="ms",
    key="latency_ms",
    decimals=3,
    large_unit="ms",
    large=1.0,
    count=None,
)
MACS = Quantity(
    name="macs",
    noun="multiply-adds",
    unit="multiply-adds",
    suffix="macs",
    key="macs",
    decimals=0,
    large_unit="millions",
    large=1e6,
    count=_macs,
)
PARAMS = Quantity(
    name="params",
    noun="parameters",
    unit="parameters",
    suffix="params",
    key="params",
    decimals=0,
    large_unit="millions",
    large=1e6,
    count=_params,
)
QUANTITIES: tuple[Quantity, ...] = (LATENCY, MACS, PARAMS)


def quantity_named(name: str) -> Quantity:
    """The quantity of this name. ValueError, with the nearest name, for another."""
    for quantity in QUANTITIES:
        if quantity.name == name:
            return quantity
    names = [quantity.name for quantity in QUANTITIES]
    raise ValueError(
        f"no cost is counted in {name!r}{did_you_mean(name, names)}; "
        f"the quantities are {', '.join(names)}"
    )
