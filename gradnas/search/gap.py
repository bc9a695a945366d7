"""The discretisation gap: how far the derived network is behind the mixture it was taken from."""

from __future__ import annotations

from gradnas.runs import State
from gradnas.search.verdict import Yardstick

FAR = 2.0  # times worse than the mixture, of numbers above 0
LOST = 0.5  # share of what the search has gained since its first epoch


class Gap:
    """The gap of a search, epoch after epoch.

    Attributes:
        sentence: where the derived network is far behind now; None where it is not.
        first: the mixture's measure after the first epoch that was measured.
    """

    def __init__(self) -> None:
        self.sentence: str | None = None
        self.first: float | None = None

    def measure(self, yardstick: Yardstick, mixture: float | None, derived: float | None) -> None:
        """Take note of what both reach now; None where that was not measured."""
        self.sentence = None
        if mixture is None:
            return
        if derived is not None:
            self.sentence = far_behind(yardstick, self.first, mixture, derived)
        if self.first is None:
            self.first = mixture

    def state_dict(self) -> State:
        """Plain values."""
        return {"sentence": self.sentence, "first": self.first}

    def load_state_dict(self, state: State | None) -> None:
        """The inverse of `state_dict`; None of a state from before there was one."""
        if state is not None:
            self.sentence = state["sentence"]
            self.first = state["first"]


def far_behind(
    yardstick: Yardstick, first: float | None, mixture: float, derived: float
) -> str | None:
    """A sentence where the derived network is far behind the mixture; None where it is not.

    Far: so many times worse, and by more than half of what the mixture has gained since its first
    epoch. Numbers that may be negative have no ratio; there all of that must be lost.

    Args:
        yardstick: what all three are measured by.
        first: of the mixture after the first epoch; None where it is not known.
        mixture, derived: now.
    """
    sign = 1.0 if yardstick.higher_is_better else -1.0
    gap = sign * (mixture - derived)
    if gap <= 0:
        return None
    gained = 0.0 if first is None else sign * (mixture - first)
    if min(mixture, derived) >= 0:
        larger, smaller = max(mixture, derived), min(mixture, derived)
        is_far = larger > FAR * smaller and (gained <= 0 or gap > LOST * gained)
    else:
        is_far = 0 < gained < gap
    if not is_far:
        return None
    return (
        f"the derived network ({yardstick.name} {yardstick.text(derived)}) is far behind the "
        f"mixture of the search ({yardstick.text(mixture)}): with the weights of the search it "
        "tells little of what was decided (the discretisation gap); train it from scratch beside "
        "random ones, or search until one operation of each choice is strong (more epochs, larger "
        "steps of the alphas), or with a relaxation that draws single operations, such as gumbel"
    )
