"""The best of several candidates by a score of networks that were never trained."""

from __future__ import annotations

from dataclasses import dataclass

from gradnas.config import check_numbers
from gradnas.selections.base import Selection, check_number_of_candidates


@dataclass(frozen=True)
class ScoreSelection(Selection):
    """Of the likeliest architectures and of random ones, the one with the best score by SWAP.

    When the search is over, each candidate is laid out as a plain network, and
    `gradnas.search.proxies.Swap` counts the different patterns of activation that its ReLUs have on
    16 held-out examples, for several drawings of its weights; the one with the most is the
    decision. With a budget all candidates keep it. No weight of the search is asked, so that it
    does not depend on how far they have learnt: of a search of some hundred steps neither they nor
    the alphas may order architectures as whole trainings do. The alphas decide no more than which
    candidates are the likeliest; with `likeliest=0` the search itself plays no part.

    What it cannot see: anything but patterns of ReLUs. It favours large maps, many channels
    and convolutions, whatever the data have to say; in spaces in which more is not better, without
    a budget, or with other activations, measure with `CandidateSelection`.

    Cost: `repeats` forward passes of 16 examples for each candidate; no step.

    Args:
        likeliest: candidates by the alphas, the likeliest first.
        random: candidates drawn uniformly, within the budget if there is one.
        repeats: drawings of the weights; of fewer than 4 nothing is said about noise.

    Source: Peng, Song, Fayek, Ciesielski, Chang, "SWAP-NAS", ICLR 2024 (arXiv 2403.04161), eq. 3
    and 4. Where it differs: candidates come from the alphas and from chance, and not from an
    evolutionary search, and their size does not weigh.

    Raises:
        ValueError: fewer than two candidates in all, fewer repeats than 1; in a search,
            `PartialChannels`, texts, and networks in which no ReLU runs.
    """

    likeliest: int = 32
    random: int = 96
    repeats: int = 4

    def __post_init__(self) -> None:
        check_number_of_candidates(self)
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, not {self.repeats}")
        check_numbers(self)

    @property
    def candidates(self) -> tuple[int, int]:
        return self.likeliest, self.random

    @property
    def drawings(self) -> int:
        return self.repeats
