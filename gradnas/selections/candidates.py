"""The best of several candidates, measured with the weights of the search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gradnas.config import check_numbers
from gradnas.selections.base import Selection, check_number_of_candidates


@dataclass(frozen=True)
class CandidateSelection(Selection):
    """Of the likeliest architectures and of random ones, the best on the alphas' data.

    When the search is over, each candidate is laid out as a plain network with the weights of the
    supernet, the statistics of its BatchNorms are estimated anew on train batches, and it is
    measured on the batches that are held out for the alphas; the best one is the decision. With a
    budget all candidates keep it. It is as good as these weights are: of a search of some hundred
    steps they may order architectures worse than its alphas do, and favour those with few weights.

    Cost: a pass over the held-out batches (as many as are kept, 256 MiB) and 8 train batches for
    each candidate; no step.

    Args:
        likeliest: candidates by the alphas, the likeliest first.
        random: candidates drawn uniformly, within the budget if there is one.
        criterion: `"loss"`, which is finer on few examples; `"measure"`: what the data are measured
            by (accuracy, for images), which `Search.fit` is not told and `Search.choose` is.

    Source: candidates with inherited weights and statistics of BatchNorm estimated anew are those
    of Guo et al., "Single Path One-Shot Neural Architecture Search with Uniform Sampling", ECCV
    2020 (arXiv 1904.00420), section 3.4. Where it differs: they come from the alphas and from
    chance, and not from an evolutionary search, and the weights are those of whatever search it
    was.

    Raises:
        ValueError: fewer than two candidates in all, another criterion; in a search, a supernet
            whose weights do not fit derived networks (`PartialChannels`).
    """

    likeliest: int = 16
    random: int = 16
    criterion: Literal["loss", "measure"] = "loss"

    def __post_init__(self) -> None:
        check_number_of_candidates(self)
        if self.criterion not in ("loss", "measure"):
            raise ValueError(f"criterion must be 'loss' or 'measure', not {self.criterion!r}")
        check_numbers(self)

    @property
    def candidates(self) -> tuple[int, int]:
        return self.likeliest, self.random

    @property
    def by_loss(self) -> bool:
        return self.criterion == "loss"
