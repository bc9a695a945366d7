"""Signs of health that a decision and the way of the alphas give: nothing is run for them.

Legend: N finished epochs with alphas that moved, R rows (decisions), O operations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradnas.architectures.base import Architecture
from gradnas.randomness import generator_for
from gradnas.relaxations import Relaxation
from gradnas.search.result import UNMOVED, largest_change, strengths
from gradnas.search.verdict import t_95
from gradnas.spaces.base import Supernet

DRAWS = 7  # stream of random numbers: random architectures
NUM_RANDOM = 200  # that a decision is compared with
UNLIKELY = 0.05  # as chance: a share of the random ones
NEAR_EQUAL = 0.98  # of the entropy of equal weights, above which alphas have decided little
FEWEST_EPOCHS = 4  # in which alphas moved; of fewer nothing can be said about noise


class Weightless(NamedTuple):
    """How many of the operations that were decided have no weights, of how many that could."""

    number: int
    of: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.number / self.of


def weightless(
    supernet: Supernet, decision: Architecture, tables: Mapping[str, Tensor]
) -> Weightless | None:
    """Of a decision; None where it makes no choice that differs in that.

    Args:
        tables: of `supernet.weightless()`.
    """
    if not tables:
        return None
    number = 0
    total = 0
    for name, rows in supernet.one_hot_draw(decision).active.items():
        if name not in tables:
            continue
        free_EO = torch.atleast_2d(tables[name])
        for edge, columns in enumerate(rows):
            for column in columns:
                total += 1
                number += int(free_EO[edge, column])
    return Weightless(number, total) if total else None


class Chance:
    """What random architectures of a supernet have, drawn when it is first asked for.

    Args:
        tables: of `supernet.weightless()`.
    """

    def __init__(self, supernet: Supernet, tables: Mapping[str, Tensor], seed: int) -> None:
        self.supernet = supernet
        self.tables = tables
        self.seed = seed
        self._shares: list[float] | None = None

    @property
    def shares(self) -> list[float]:
        """Of operations without weights, of every random architecture."""
        if self._shares is None:
            generator = generator_for(self.seed, DRAWS)
            self._shares = []
            for _ in range(NUM_RANDOM):
                decision = self.supernet.random_decision(generator)
                own = weightless(self.supernet, decision, self.tables)
                if own is not None:
                    self._shares.append(own.share)
        return self._shares

    def is_unlikely(self, share: float) -> bool:
        """Whether hardly any random architecture has so much without weights."""
        as_many = sum(own >= share for own in self.shares)
        return bool(self.shares) and as_many <= UNLIKELY * len(self.shares)


# ---- whether the alphas decide -------------------------------------------------------------------


def relative_entropy(relaxation: Relaxation, tables: Mapping[str, Tensor]) -> float | None:
    """Mean over all rows, as a share of that of equal weights: 1 where nothing is decided.

    None where no row has more than one operation.
    """
    shares = []
    for alpha in tables.values():
        if alpha.shape[-1] > 1:
            p_RO = _rows(relaxation, alpha)
            p_RO = p_RO / p_RO.sum(-1, keepdim=True)  # of a sigmoid they are no distribution
            shares.append(torch.special.entr(p_RO).sum(-1) / math.log(p_RO.shape[-1]))
    return float(torch.cat(shares).mean()) if shares else None


class Decided(NamedTuple):
    """How many rows go one way by more than the noise of their steps, and how many there are.

    Attributes:
        chance: the number of rows that noise alone exceeds in one search of twenty; of few rows
            none, of any no more than a quarter.
    """

    rows: int
    of: int
    chance: int


def decided_rows(relaxation: Relaxation, history: Sequence[Mapping[str, Tensor]]) -> Decided | None:
    """Whether the alphas have gone one way, epoch after epoch, or here and there.

    For every row: the logarithm of the strength of what is strongest now, less the mean of the
    others', and its steps from epoch to epoch. The row goes one way where their mean is positive by
    more than Student's t allows noise, 95% of the time.

    Args:
        history: the alphas at the beginning and after every epoch.

    Returns:
        None where they moved in too few epochs to tell.
    """
    moved = [k for k in range(1, len(history)) if _differ(history[k - 1], history[k])]
    if len(moved) < FEWEST_EPOCHS:
        return None
    rows = 0
    total = 0
    wins = []  # of each row: how probable it is that noise makes one of its operations win
    for name, last in history[-1].items():
        if last.shape[-1] < 2:
            continue
        logits = [_logits(relaxation, history[k][name]) for k in (moved[0] - 1, *moved)]
        logits_NRO = torch.stack(logits)
        top_R1 = logits_NRO[-1].argmax(-1, keepdim=True)
        index_NR1 = top_R1.expand(len(logits_NRO), -1, -1)
        lead_NR = logits_NRO.gather(-1, index_NR1).squeeze(-1)  # the mean over a row is 0
        steps_NR = lead_NR.diff(dim=0)
        error_R = steps_NR.std(0) / math.sqrt(len(steps_NR))
        is_clear_R = steps_NR.mean(0) > t_95(len(steps_NR) - 1) * error_R
        rows += int(is_clear_R.sum())
        total += len(is_clear_R)
        wins += [min(1.0, 0.025 * last.shape[-1])] * len(is_clear_R)
    if total == 0:
        return None
    return Decided(rows, total, min(_most_by_chance(wins), total // 4))


def has_moved(relaxation: Relaxation, history: Sequence[Mapping[str, Tensor]]) -> bool:
    """Whether the alphas have gone somewhere: by more than a little, and not here and there.

    Args:
        history: as of `decided_rows`.
    """
    start = strengths(relaxation, history[0])
    if largest_change(start, strengths(relaxation, history[-1])) <= UNMOVED:
        return False
    entropy = relative_entropy(relaxation, history[-1])
    if entropy is None or entropy < NEAR_EQUAL:
        return True
    decided = decided_rows(relaxation, history)
    return decided is not None and decided.rows > decided.chance


def _most_by_chance(probabilities: Sequence[float]) -> int:
    """The number of successes that is exceeded with a probability of at most 5%."""
    at = [1.0]  # the probability of each number of successes so far
    for p in probabilities:
        following = [0.0] * (len(at) + 1)
        for number, own in enumerate(at):
            following[number] += own * (1.0 - p)
            following[number + 1] += own * p
        at = following
    total = 0.0
    for number, own in enumerate(at):
        total += own
        if total >= 0.95:
            return number
    return len(probabilities)


def _differ(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return any(not torch.equal(table, other[name]) for name, table in one.items())


def _rows(relaxation: Relaxation, alpha: Tensor) -> Tensor:
    """The strengths in float64, `(R, O)`."""
    return torch.atleast_2d(relaxation.probabilities(alpha.double()))


def _logits(relaxation: Relaxation, alpha: Tensor) -> Tensor:
    """Their logarithms, less the mean of each row."""
    log_RO = _rows(relaxation, alpha).clamp_min(1e-12).log()
    return log_RO - log_RO.mean(-1, keepdim=True)
