"""Whether a search has collapsed: for some epochs on end its decision has hardly any weights.

DARTS+ ends a search where a cell has two skip connections or more, or where the order of the alphas
has been the same for ten epochs (Liang et al., 2019, arXiv 1909.06035, section 3.3). Here both must
hold, each in a form that fits any space: so much of the decision has no weights as hardly any
random architecture has, for more than `LAG` epochs on end, and most of the decision is as it was
`LAG` epochs ago. One of them alone is often wrong: early decisions pass through such cells and
leave them again, and a decision that stays may be a good one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from gradnas.search.sharpness import LAG

LASTING = 0.8  # share of a decision that must be as it was `LAG` epochs ago


class Collapse(NamedTuple):
    """A search that has collapsed.

    Attributes:
        since: finished epochs at the first decision with hardly any weights, of those on end.
        epochs: finished epochs at the last decision before it.
    """

    since: int
    epochs: int


def collapse(
    few: Sequence[bool], agreement: float | None, first: int, warmup_epochs: int
) -> Collapse | None:
    """Whether a search has collapsed by now.

    Args:
        few: whether the decision has hardly any weights, after every epoch that was taken note of.
        agreement: the share of the decision that is as it was `LAG` epochs ago.
        first: finished epochs before those of `few`.
        warmup_epochs: in which the alphas wait, so that nothing is decided after them.

    Returns:
        None where it has not, and where there is no decision of before to go back to.
    """
    on_end = 0
    for own in reversed(few):
        if not own:
            break
        on_end += 1
    if on_end <= LAG or agreement is None or agreement < LASTING:
        return None
    before = first + len(few) - on_end
    has_decision = before > max(first, warmup_epochs)
    return Collapse(before + 1, before) if has_decision else None
