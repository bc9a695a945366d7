"""Operations by what the supernet loses without them: DARTS-PT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradnas.config import check_numbers
from gradnas.selections.base import Selection


@dataclass(frozen=True)
class PerturbationSelection(Selection):
    """Edge by edge, the operation without which the supernet is worst on the alphas' data.

    A round takes an undecided edge at random (of a space with several tables of edges one of each).
    Each of its operations in turn is left out, with the mixing weights of the others as they are;
    the one whose loss hurts most has the edge from then on, alone. Where nodes keep some of their
    edges, further rounds cut those whose loss hurts least. Between rounds the supernet learns on,
    weights and alphas. Networks run with the statistics of each batch, and no running statistic
    changes.

    The rounds are the last epochs of the search: `(rounds - 1) * interval` of the `epochs` that it
    has. The rounds are the edges (NAS-Bench-201: 6; DARTS: 14 and 3 for the cutting), or the
    choices of one's own module.

    Cost: a pass over the alphas' data for each operation of every edge (NAS-Bench-201: 30; DARTS:
    196, `none` not among them, and 24 for the cutting) and the epochs between rounds.

    Args:
        interval: epochs between rounds, 5 as published.
        learn_alphas: False: the alphas stay where they start ("blank"), which the authors found to
            be no worse, and better in most spaces of RobustDARTS; then no step of the alphas is
            taken in the whole search, which costs half as much.
        criterion: `"measure"`: what the data are measured by (accuracy, for images); of
            `Search.fit`, which is told no other, the loss; `"loss"`.
        lr_share: learning rate of the weights between rounds, constant, as a share of that of the
            first epoch: 0.1 as published.

    Source: Wang, Cheng, Chen, Tang, Hsieh, "Rethinking architecture selection in differentiable
    NAS", ICLR 2021 (arXiv 2108.04392), algorithm 1. Where it differs: `none` is no candidate where
    a derived cell cannot have it; the edges of a node are cut by one ranking (the authors' rounds
    repeat the same one); the alphas' data are not augmented unless the search does so; the
    optimiser keeps its momentum, and its rate does not fall in the cells of DARTS either.

    Raises:
        ValueError: an interval below 1, another criterion, a share that is not above 0; in a
            search, a relaxation that computes one operation, a budget, epochs that the rounds fill.
    """

    interval: int = 5
    learn_alphas: bool = True
    criterion: Literal["measure", "loss"] = "measure"
    lr_share: float = 0.1

    def __post_init__(self) -> None:
        if not isinstance(self.interval, int) or self.interval < 1:
            raise ValueError(f"interval must be a whole number of at least 1, not {self.interval}")
        if self.criterion not in ("measure", "loss"):
            raise ValueError(f"criterion must be 'measure' or 'loss', not {self.criterion!r}")
        if not self.lr_share > 0:
            raise ValueError(f"lr_share must be above 0, not {self.lr_share}")
        check_numbers(self)

    @property
    def measures(self) -> bool:
        return True

    @property
    def learns_alphas(self) -> bool:
        return self.learn_alphas

    def epochs_of(self, rounds: int) -> int:
        return max(1, (rounds - 1) * self.interval)

    def round_at(self, epoch: int, rounds: int) -> int:
        """How many rounds have been made when an epoch of the selection (from 0) has begun.

        The last one is made before the last epoch, in which the supernet learns once more.
        """
        last = self.epochs_of(rounds) - 1
        if epoch >= last:
            return rounds
        return min(rounds, epoch // self.interval + 1)
