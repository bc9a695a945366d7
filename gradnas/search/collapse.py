"""Whether a search has collapsed: for some epochs on end its decision has hardly any weights.

DARTS+ ends a search where a cell has two skip connections or more, or where the order of the
alphas has been the same for ten epochs (Liang et al., 2019, arXiv 1909.06035, section 3.3). Either
alone is often wrong: early decisions pass through such cells and leave them again, and a decision
that stays may be a good one. Here it is both in one, in a form that fits any space: so much of the
decision has no weights as hardly any random architecture has, for more than `LAG` epochs on end.
Which of the operations without weights it is may change from epoch to epoch: with samples it often
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gradnas.search.sharpness import LAG


class Collapse(NamedTuple):
    """A search that has collapsed.

    Attributes:
        since: finished epochs at the first decision with hardly any weights, of those on end.
        epochs: finished epochs at the last decision before it.
    """

    since: int
    epochs: int


def collapse(
    few: Sequence[bool], first: int, warmup_epochs: int, longer_than: int = LAG
) -> Collapse | None:
    """Whether a search has collapsed by now.

    Args:
        few: whether the decision has hardly any weights, after every epoch that was taken note of.
        first: finished epochs before those of `few`.
        warmup_epochs: in which the alphas wait, so that nothing is decided after them.
        longer_than: epochs on end.

    Returns:
        None where it has not, and where there is no decision of before to go back to.
    """
    on_end = 0
    for own in reversed(few):
        if not own:
            break
        on_end += 1
    if on_end <= longer_than:
        return None
    before = first + len(few) - on_end
    has_decision = before > max(first, warmup_epochs)
    return Collapse(before + 1, before) if has_decision else None
