"""Costs in a run: the latency table in its folder, what each epoch records, what is said of it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gradnas import runs
from gradnas.latency import LatencyTable
from gradnas.objectives.cost import ExpectedCost
from gradnas.search.result import SearchResult
from gradnas.search.search import Search

TABLE = "latency.json"  # in a run folder


def kept_table(cost: ExpectedCost | None, folder: Path) -> ExpectedCost | None:
    """The cost, with its latency table copied into a run folder that is about to be made.

    It is named by that copy, so that the folder can be moved and run again.

    Raises:
        ValueError: a table that cannot be read, a folder that cannot be made or holds a run.
    """
    table = None if cost is None else cost.latency_table()
    if cost is None or table is None:
        return cost
    # Nothing may change in the folder of a run that stays.
    runs.Run(folder).check_free()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    table.save(folder / TABLE)
    return replace(cost, table=TABLE)


def located(cost: ExpectedCost | None, folder: Path) -> ExpectedCost | None:
    """The cost of a configuration file in `folder`.

    A relative path of a table means the file beside it, if any.
    """
    if cost is None or cost.table is None or isinstance(cost.table, LatencyTable):
        return cost
    beside = folder / cost.table
    return replace(cost, table=beside) if beside.exists() else cost


def measured_batch(cost: ExpectedCost) -> int:
    """How many examples a cost is for: as many as its latency table was measured with, else one."""
    table = cost.latency_table()
    return 1 if table is None else int(table.settings.get("batch_size", 1))


def cost_record(search: Search, result: SearchResult) -> dict[str, float]:
    """Metrics of an epoch: expected and derived cost, and the multiplier of a budget."""
    if search.spending is None or search.cost is None or result.cost is None:
        return {}
    key = search.cost.quantity.key
    record = {f"expected_{key}": search.expected_cost(), f"derived_{key}": result.cost}
    if search.cost.is_budget:
        record["budget_multiplier"] = search.spending.state.multiplier
    return record


def cost_sentence(cost: ExpectedCost, derived: float) -> str:
    """What the found architecture costs, and what was asked for."""
    quantity = cost.quantity
    asked = "budget" if cost.is_budget else "target"
    limit = quantity.number(cost.limit)
    return f"{quantity.words}: {quantity.amount(derived)} ({asked} {limit})"


@contextmanager
def noted_warnings() -> Iterator[list[str]]:
    """Collects the sentences of warnings, so that a program can say them in its own way."""
    notes: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield notes
    for warning in caught:
        if issubclass(warning.category, UserWarning):
            notes.append(f"warning: {warning.message}")
        else:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
