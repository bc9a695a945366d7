"""The limits that a cost can have; `objectives/cost.py` says what each does."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CostLimits:
    """The limits that a cost can have: `budget_` or `target_`, and the suffix of a quantity.

    The command line offers them as options and shows the sentence below each.
    """

    budget_ms: float | None = None
    """Find the best architecture whose latency is at most this."""
    budget_macs: float | None = None
    """The same for the multiply-adds of one image."""
    budget_params: float | None = None
    """The same for the number of parameters."""
    target_ms: float | None = None
    """Pull the expected latency towards this, without a promise."""
    target_macs: float | None = None
    """The same for the multiply-adds of one image."""
    target_params: float | None = None
    """The same for the number of parameters."""
