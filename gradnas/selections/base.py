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

    def epochs_of(self, rounds: int) -> int:
        """The epochs at the end of the search in which so many rounds are made."""
        del rounds
        return 0
