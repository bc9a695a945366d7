"""One target whose laws are looked for: its rows, and a search by squares with other weights.

Legend: N rows, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gradnas.laws.discover import discover_laws
from gradnas.laws.engine.data import Loss
from gradnas.laws.fitting import Rows, tensors
from gradnas.laws.formula import Formula
from gradnas.laws.law import LawProgress, Laws, LawSettings

MOST_ROWS = 3000  # that constants are fitted on
PSEUDO = 0.1  # of all rows' weight: of a point that the law is to go through


@dataclass(frozen=True)
class LawRequest:
    """One target: its rows, and how laws are looked for.

    Args:
        link: the loss of the engine, which says what the laws' values are.
    """

    x_ND: np.ndarray
    y_N: np.ndarray
    w_N: np.ndarray
    settings: LawSettings
    link: Loss
    seed: int
    on_progress: Callable[[LawProgress], None] | None
    names: Sequence[str]

    @property
    def rows(self) -> Rows:
        """What constants are fitted on: all rows, or so many of them, evenly."""
        places = np.arange(len(self.y_N))
        if len(places) > MOST_ROWS:
            places = np.unique(np.linspace(0, len(places) - 1, MOST_ROWS).astype(int))
        x_ND, y_N, w_N = tensors(self.x_ND[places], self.y_N[places], self.w_N[places])
        return Rows(x_ND, y_N, w_N / w_N.mean())

    def searched(
        self,
        factor_N: np.ndarray | None = None,
        effort: float = 1.0,
        start: Sequence[Formula] = (),
        candidates: int = 0,
        extra: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> Laws:
        """A search by squares (or the likelihood), with the weights of the rows multiplied.

        Args:
            extra: points that laws are to go through, and their values.
        """
        w_N = self.w_N
        if factor_N is not None:
            w_N = w_N * factor_N
            w_N = w_N * (self.w_N[factor_N > 0].sum() / max(w_N.sum(), 1e-300))
        x_ND = self.x_ND
        y_N = self.y_N
        if extra is not None:
            x_ND = np.concatenate([x_ND, extra[0]])
            y_N = np.concatenate([y_N, extra[1]])
            weight = max(1.0, PSEUDO * w_N.sum())
            w_N = np.concatenate([w_N, np.full(len(extra[1]), weight)])
        weights_N = None if (w_N == 1.0).all() else w_N
        settings = replace(self.settings, effort=effort * self.settings.effort)
        return discover_laws(
            x_ND,
            y_N,
            settings,
            weights_N,
            self.link,
            self.seed,
            self.on_progress,
            self.names,
            start=start,
            candidates=candidates,
        )
