"""What every selection is: the settings of how a decision is had, when the alphas have learnt."""

from __future__ import annotations

from abc import ABC


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

    def epochs_of(self, rounds: int) -> int:
        """The epochs at the end of the search in which so many rounds are made."""
        del rounds
        return 0
