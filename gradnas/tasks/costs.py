"""Costs in a run: the latency table in its folder, what each epoch records, what is said of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from gradnas import runs
from gradnas.config import JsonObject, to_json
from gradnas.files import sha256
from gradnas.latency import LatencyTable
from gradnas.objectives.cost import ExpectedCost
from gradnas.search.result import SearchResult
from gradnas.search.search import Search


def kept_cost(cost: ExpectedCost | None) -> ExpectedCost | None:
    """The cost as a run folder names it: by the copy of its latency table there.

    So that the folder can be moved and run again.

    Raises:
        ValueError: a table that cannot be read.
    """
    if cost is None or cost.latency_table() is None:
        return cost
    return replace(cost, table=runs.LATENCY)


def keep_table(cost: ExpectedCost | None, folder: Path) -> None:
    """Copy the latency table of a cost, where it has one, into a run folder."""
    table = None if cost is None else cost.latency_table()
    if table is not None:
        table.save(folder / runs.LATENCY)


def with_digest_of_table(cost: ExpectedCost | None) -> JsonObject | None:
    """A cost in JSON form, with a digest of its latency table in the place of its path."""
    if cost is None:
        return None
    table = cost.latency_table()
    if table is None:
        return to_json(cost)
    described: JsonObject = to_json(replace(cost, table=runs.LATENCY))
    written = json.dumps(table.to_json(), sort_keys=True)
    described["table"] = f"SHA-256 {sha256(written.encode())}"
    return described


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
    return 1 if table is None else table.batch_size or 1


def cost_record(search: Search, result: SearchResult) -> dict[str, float]:
    """Metrics of an epoch: expected and derived cost, and the multiplier of a budget."""
    if search.spending is None or search.cost is None or result.cost is None:
        return {}
    key = search.cost.quantity.key
    record = {f"expected_{key}": search.expected_cost(), f"derived_{key}": result.cost}
    if search.cost.is_budget:
        record["budget_multiplier"] = search.spending.state.multiplier
    return record


def cost_sentence(cost: ExpectedCost, derived: float, noun: str = "example") -> str:
    """What the found architecture costs, and what was asked for.

    Args:
        noun: what one example is called: a latency is said to be for so many of them.
    """
    quantity = cost.quantity
    asked = "budget" if cost.is_budget else "target"
    limit = quantity.number(cost.limit)
    table = cost.latency_table()
    batch = None if table is None else table.batch_size
    for_what = "" if batch is None else f" for {batch} {noun}{'' if batch == 1 else 's'}"
    return f"{quantity.words}{for_what}: {quantity.amount(derived)} ({asked} {limit})"


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
