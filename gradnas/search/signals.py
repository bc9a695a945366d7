"""Signs of health that a decision and the way of the alphas give: nothing is run for them.

Legend: N finished epochs with alphas that moved, R rows (decisions), O operations.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from gradnas.architectures.base import Architecture
from gradnas.modules.draws import Active
from gradnas.randomness import generator_for
from gradnas.relaxations import Relaxation
from gradnas.search.result import UNMOVED, largest_change
from gradnas.search.verdict import t_95
from gradnas.spaces.base import Supernet

DRAWS = 7  # stream of random numbers: random architectures
NUM_RANDOM = 200  # that a decision is compared with
AT_ONCE = 20  # of them: of most decisions a few tell
# As chance: a share of the random ones. Of the cells of NAS-Bench-201 4.7% have no weights at all,
# and those that a collapse ends with must be among them whichever 200 are drawn.
UNLIKELY = 0.08
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
    return _counted(supernet.columns_of(decision), _rows(tables))


def _rows(tables: Mapping[str, Tensor]) -> dict[str, list[list[bool]]]:
    """Of every edge, which operations have no weights."""
    return {name: torch.atleast_2d(free).tolist() for name, free in tables.items()}


def _counted(
    chosen: Mapping[str, Active], free: Mapping[str, list[list[bool]]]
) -> Weightless | None:
    number = 0
    total = 0
    for name, rows in chosen.items():
        if name not in free:
            continue
        for edge, columns in enumerate(rows):
            for column in columns:
                total += 1
                number += free[name][edge][column]
    return Weightless(number, total) if total else None


class Chance:
    """What random architectures of a supernet have, drawn when it is first asked for.

    The same ones whatever the seed of the search: what is unlikely depends on the space alone.

    Args:
        tables: of `supernet.weightless()`.
    """

    def __init__(self, supernet: Supernet, tables: Mapping[str, Tensor]) -> None:
        self.supernet = supernet
        self._free = _rows(tables)
        self._shares: list[float] = []  # of operations without weights, of those drawn so far
        self._drawn = 0
        self._state: Tensor | None = None  # of the random numbers that the others come from

    def _draw(self) -> None:
        """Some more random architectures."""
        generator = generator_for(0, DRAWS)
        if self._state is not None:
            generator.set_state(self._state)
        for _ in range(AT_ONCE):
            decision = self.supernet.random_decision(generator)
            own = _counted(self.supernet.columns_of(decision), self._free)
            if own is not None:
                self._shares.append(own.share)
        self._drawn += AT_ONCE
        self._state = generator.get_state()

    def is_unlikely(self, share: float) -> bool:
        """Whether hardly any random architecture has so much without weights."""
        while True:
            as_many = sum(own >= share for own in self._shares)
            if as_many > UNLIKELY * NUM_RANDOM:
                return False  # whatever the others have
            if self._drawn >= NUM_RANDOM:
                return bool(self._shares) and as_many <= UNLIKELY * len(self._shares)
            self._draw()


# ---- whether the alphas decide -------------------------------------------------------------------


def relative_entropy(relaxation: Relaxation, tables: Mapping[str, Tensor]) -> float | None:
    """Mean over all rows, as a share of that of equal weights: 1 where nothing is decided.

    None where no row has more than one operation.
    """
    return Snapshot(relaxation, tables).entropy


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
    return Way(relaxation, history).decided


class Snapshot:
    """The alphas at one moment, and what follows from them alone.

    Args:
        tables: of operations.
    """

    def __init__(self, relaxation: Relaxation, tables: Mapping[str, Tensor]) -> None:
        self.relaxation = relaxation
        self.tables = tables

    @cached_property
    def strengths(self) -> dict[str, Tensor]:
        """Those of the operations in float64, `(R, O)`."""
        found = {}
        for name, alpha in self.tables.items():
            p = self.relaxation.probabilities(alpha.double())
            found[name] = torch.atleast_2d(p)
        return found

    @cached_property
    def logits(self) -> dict[str, Tensor]:
        """Their logarithms, less the mean of each row, `(R, O)`."""
        found = {}
        for name, p_RO in self.strengths.items():
            log_RO = p_RO.clamp_min(1e-12).log()
            found[name] = log_RO - log_RO.mean(-1, keepdim=True)
        return found

    @cached_property
    def entropy(self) -> float | None:
        """As `relative_entropy` says it."""
        shares = []
        for p_RO in self.strengths.values():
            if p_RO.shape[-1] > 1:
                p_RO = p_RO / p_RO.sum(-1, keepdim=True)  # of a sigmoid they are no distribution
                shares.append(torch.special.entr(p_RO).sum(-1) / math.log(p_RO.shape[-1]))
        return float(torch.cat(shares).mean()) if shares else None


class Way:
    """The alphas of a search at its beginning and after every epoch.

    What is computed of one moment is kept: else every epoch of a long search would cost more than
    the one before.
    """

    def __init__(
        self, relaxation: Relaxation, history: Iterable[Mapping[str, Tensor]] = ()
    ) -> None:
        self.relaxation = relaxation
        self._all: list[Snapshot] = []
        self._moved: list[int] = []  # epochs in which they did
        for tables in history:
            self.add(tables)

    def add(self, tables: Mapping[str, Tensor]) -> None:
        """Take note of the alphas of now."""
        if self._all and _differ(self.last.tables, tables):
            self._moved.append(len(self._all))
        self._all.append(Snapshot(self.relaxation, tables))
        self.__dict__.pop("decided", None)

    @property
    def last(self) -> Snapshot:
        """That of now."""
        return self._all[-1]

    @cached_property
    def decided(self) -> Decided | None:
        """As `decided_rows` says it."""
        if len(self._moved) < FEWEST_EPOCHS:
            return None
        some = [self._all[k] for k in (self._moved[0] - 1, *self._moved)]
        return _going_one_way(self.last.tables, some)

    @property
    def has_moved(self) -> bool:
        """Whether they have gone somewhere: by more than a little, and not here and there."""
        if largest_change(self._all[0].strengths, self.last.strengths) <= UNMOVED:
            return False
        entropy = self.last.entropy
        if entropy is None or entropy < NEAR_EQUAL:
            return True
        return self.decided is not None and self.decided.rows > self.decided.chance


def _going_one_way(tables: Mapping[str, Tensor], some: Sequence[Snapshot]) -> Decided | None:
    """The rows of the tables of now that go one way through some moments, the last of them now."""
    rows = 0
    total = 0
    wins = []  # of each row: how probable it is that noise makes one of its operations win
    for name, last in tables.items():
        if last.shape[-1] < 2:
            continue
        logits_NRO = torch.stack([snapshot.logits[name] for snapshot in some])
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
