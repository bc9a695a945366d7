"""How the training data of a search are divided, for trainings that choose among its results.

A study trains every network that was found on the part of the training data that trains the weights
of a search, and measures it on the other part; the test data are not read.
"""

from __future__ import annotations

from dataclasses import dataclass

from gradnas.config import check_numbers

MEASURED_ON = "the part of the training data that a search holds out for its alphas"


@dataclass(frozen=True)
class Division:
    """The division of a search, the same whatever its seed is.

    What a kind of data has no choice about (a text and its validation text) is not looked at.

    Args:
        train_fraction: share of the training data for the weights.
        split_seed: shuffles before; None divides by the order of the files.
        valid_per_class: hold out so many images of every class instead.
    """

    train_fraction: float = 0.5
    split_seed: int | None = None
    valid_per_class: int | None = None

    def __post_init__(self) -> None:
        check_numbers(self)

    @property
    def seed(self) -> int:
        """Of what needs one where the division is by order."""
        return 0 if self.split_seed is None else self.split_seed
