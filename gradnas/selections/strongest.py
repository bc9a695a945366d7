"""The strongest operations by the alphas: DARTS, and every method that says nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from gradnas.selections.base import Selection


@dataclass(frozen=True)
class Strongest(Selection):
    """The decision is what the alphas say: the largest strength, by the rule of the space.

    Source: Liu, Simonyan, Yang, "DARTS", ICLR 2019 (arXiv 1806.09055), section 2.4.
    """
