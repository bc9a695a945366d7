"""What every selection is: the settings of how a decision is had, when the alphas have learnt."""

from __future__ import annotations

from abc import ABC
from typing import Any


class Selection(ABC):  # noqa: B024 (each overrides what it changes)
    """A subclass is a frozen dataclass in a file of its own; the work is done by the search."""

    @property
    def measures(self) -> bool:
        """Whether operations are measured one by one, in rounds at the end of the search."""
        return False

    @property
    def learns_alphas(self) -> bool:
        """Whether the alphas take steps."""
        return True

    @property
    def candidates(self) -> tuple[int, int]:
        """How many candidates are measured when the search is over, of which the best is taken.

        Those that are the likeliest, and random ones; (0, 0): the alphas alone decide.
        """
        return 0, 0

    @property
    def by_loss(self) -> bool:
        """Whether they are compared by the loss, and not by what the data are measured by."""
        return True

    @property
    def drawings(self) -> int:
        """Of weights, for which they are scored without a training; 0: they have the search's."""
        return 0

    def epochs_of(self, rounds: int) -> int:
        """The epochs at the end of the search in which so many rounds are made."""
        del rounds
        return 0


def check_number_of_candidates(selection: Any) -> None:
    """ValueError unless `likeliest` and `random` are whole numbers, two or more in all."""
    for name in ("likeliest", "random"):
        value = getattr(selection, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} must be a whole number of at least 0, not {value!r}")
    if selection.likeliest + selection.random < 2:
        raise ValueError(
            f"{type(selection).__name__} compares at least two candidates: raise likeliest or "
            "random"
        )
