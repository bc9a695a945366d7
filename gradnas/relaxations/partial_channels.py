"""Operations on a part of the channels, and weights of whole edges: PC-DARTS.

Legend: C channels, E edges, O operations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from gradnas.config import check_numbers
from gradnas.modules.draws import Additions, Draw
from gradnas.relaxations.base import Relaxation, Tables
from gradnas.relaxations.softmax import Softmax


@dataclass(frozen=True)
class PartialChannels(Relaxation):
    """Operations see one in k channels; the others pass by, and the channels are shuffled.

    With x1 the first C / k channels of the input of an edge and x2 the rest (halved by a max
    pooling of 2x2 where the stride is 2), the edge gives `shuffle(concat(sum_o p_o o(x1), x2))`,
    where the channels, seen as a table of (k, C / k), are transposed by the shuffle. With edge
    normalisation a node is `sum_e q_e edge_e`, `q = softmax(beta)` over the edges that enter it:
    the betas are alphas as the others are, named `"normal edges"`. What is derived is the strongest
    by `p_o * q_e`.

    The weights p_o are those of any other relaxation.

    Cost: memory and time of the operations about 1 / k (a supernet of DARTS with k = 4 has 299,578
    weights), so that the batch may be larger. On a CPU that takes parts of a multiple of 8 channels
    (float32): operations on fewer run without the fused kernels and keep more for backward.

    Args:
        k: one in so many channels; divides the channels of every cell.
        inner: where the mixing weights come from.
        edge_normalisation: whether edges have weights.

    Source: Xu, Xie, Zhang, Chen, Qi, Tian, Xiong, "PC-DARTS", ICLR 2020 (arXiv 1907.05737), eq. 2
    to 4, with `warmup_epochs=15` of 50. Where it differs: the channels that an operation sees are
    the first ones, as in the authors' code and not drawn as in the text. A derived network has all
    channels, so it keeps no weights of the supernet: during the search nothing is measured of
    it.

    Raises:
        ValueError: k below 1; an inner relaxation that is itself one of parts.
    """

    k: int = 4
    inner: Relaxation = field(default_factory=Softmax)
    edge_normalisation: bool = True

    def __post_init__(self) -> None:
        if not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"k must be a whole number of at least 1, not {self.k!r}")
        if not isinstance(self.inner, Relaxation):
            raise ValueError(f"inner must be a relaxation, such as Softmax(), not {self.inner!r}")
        if self.inner.additions != Additions():
            raise ValueError(
                f"inner={self.inner!r} asks for channels or edges of its own: give the relaxation "
                "of its operations alone"
            )
        check_numbers(self)

    @property
    def additions(self) -> Additions:
        return Additions(channel_share=self.k, edge_weights=self.edge_normalisation)

    # ---- everything else is that of the inner relaxation -----------------------------------------

    @property
    def innermost(self) -> Relaxation:
        return self.inner.innermost

    @property
    def competes(self) -> bool:
        return self.inner.competes

    @property
    def needs_progress(self) -> bool:
        return self.inner.needs_progress

    @property
    def once_differentiable(self) -> bool:
        return self.inner.once_differentiable

    @property
    def trains_mixtures(self) -> bool:
        return self.inner.trains_mixtures

    @property
    def alpha_defaults(self) -> dict[str, Any]:
        return self.inner.alpha_defaults

    @property
    def corrects_updates(self) -> bool:
        return self.inner.corrects_updates

    def check_alpha_optimizer(self, betas: tuple[float, float], weight_decay: float) -> None:
        self.inner.check_alpha_optimizer(betas, weight_decay)

    def noise(self, alphas: Tables, generator: torch.Generator) -> dict[str, Tensor]:
        return self.inner.noise(alphas, generator)

    def draw(self, alphas: Tables, noise: Tables, progress: float) -> Draw:
        return self.inner.draw(alphas, noise, progress)

    def path(self, alphas: Tables, noise: Tables, progress: float) -> Draw:
        return self.inner.path(alphas, noise, progress)

    def after_update(self, before: Tables, after: Tables, noise: Tables) -> Tables:
        return self.inner.after_update(before, after, noise)

    def probabilities(self, alpha: Tensor) -> Tensor:
        return self.inner.probabilities(alpha)
