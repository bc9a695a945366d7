"""The data of one search: of size 1, some rows and some features of them, and the way back.

Legend: N rows, D features, F features that are searched.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.engine.atoms import (
    allowed_functions,
    make_atoms,
)
from gradnas.laws.engine.data import LawData, Loss, Work, constant_note
from gradnas.laws.engine.poles import Box
from gradnas.laws.engine.reductions import Reduced, reduced
from gradnas.laws.engine.residuals import is_noise, surrogate_loss
from gradnas.laws.engine.screening import most_telling
from gradnas.laws.engine.units import unscaled
from gradnas.laws.formula import Formula
from gradnas.laws.law import LawSettings
from gradnas.laws.primitives import (
    POWER,
    resolve,
)
from gradnas.randomness import generator_for

MOST_FEATURES = 8  # that structures are looked for in
POINTS = 100  # that `LawSettings.work_seconds` are meant for; more take longer in proportion
SEARCH = 0.86  # of what may be done; the rest is for the front of what was found
WIDER = 3  # times as many rows where there is noise
TELLS = 10.0  # times the loss of a law: surrogates of a larger one cannot judge it
WORSE = 1.2  # the same: a law that is worse than a surrogate leaves more than noise
SUBSET = 2  # stream of random numbers


class Problem:
    """What a law is looked for in.

    Attributes:
        words, functions: what laws may be made of; `table` holds the functions.
        all: rows that constants are fitted on in the end, in the units of the data.
        data: rows that structures are looked for on, features and target divided by their largest
            size, `scales` and `scale_y`.
        final_work: what fitting and judging the laws that were found may take, about.
        box: the ranges of the features in all rows.
        features: those that structures are looked for in.
        notes: sentences about what was left out.
    """

    def __init__(
        self,
        x_ND: np.ndarray,
        y_N: np.ndarray,
        w_N: np.ndarray,
        settings: LawSettings,
        loss: Loss,
        seed: int,
        names: Sequence[str],
    ) -> None:
        self.settings = settings
        self.loss: Loss = loss
        self.seed = seed
        self.names = names
        self.words, self.table = resolve(settings.primitives)
        self.functions = list(allowed_functions(self.words))
        self.notes: list[str] = []

        x_DN = _tensor(x_ND.T)
        y = _tensor(y_N)
        w = _tensor(w_N)
        self.work = Work()
        self.final_work = math.inf
        whole = LawData(
            x_DN, y, w / w.mean(), loss, self.table, points=float(w.sum()), work=self.work
        )
        self.num_rows = len(y)
        order = torch.randperm(len(y), generator=generator_for(seed, SUBSET), device="cpu")
        self.all = whole.rows(order[: 10 * settings.max_points].sort().values)

        self.box = Box.around(x_DN, y)
        self.scales = [float(row.abs().max()) or 1.0 for row in x_DN]
        # A probability and a rate are what they are.
        self.scale_y = (float(y.abs().max()) or 1.0) if loss == "squared" else 1.0
        scales_D1 = torch.tensor(self.scales, dtype=torch.float64).unsqueeze(1)
        of_size_1 = LawData(
            x_DN / scales_D1,
            y / self.scale_y,
            whole.w_N,
            loss,
            self.table,
            points=whole.points,
            work=self.work,
        )
        self.data = of_size_1.rows(order[: settings.max_points].sort().values)
        self._more = of_size_1.rows(order[: WIDER * settings.max_points].sort().values)
        if settings.work_seconds is not None:
            share_of_points = max(1.0, len(self.data.y_N) / POINTS)
            allowed = settings.work_seconds * settings.effort * share_of_points
            self.work.limit = SEARCH * allowed
            self.final_work = (1.0 - SEARCH) * allowed
        if settings.max_seconds is not None:
            self.work.deadline = time.monotonic() + settings.max_seconds
        self._smaller: Reduced | None = None
        self._symmetric_rows = 0  # with which it was looked for
        self._surrogate_loss: float | None = None
        self.features = self._choose_features()
        self._note_domains()

    def widen(self) -> bool:
        """Take more rows to look for structures in, if there are any; whether there were.

        What noise hides in few rows may show in more. The work that is allowed stays.
        """
        is_wider = len(self._more.y_N) > len(self.data.y_N)
        self.data = replace(self._more, work=self.work)
        return is_wider

    def find_symmetries(self) -> Reduced | None:
        """The problem with fewer features that symmetries of the target leave."""
        if self._symmetric_rows != len(self.data.y_N):
            self._symmetric_rows = len(self.data.y_N)
            self._smaller = reduced(
                self.data, self.scales, self.scale_y, self.features, self.functions
            )
            self._surrogate_loss = None
        return self._smaller

    def leaves_noise(self, formula: Formula) -> bool:
        """Whether what a formula leaves of the target cannot be predicted from the features.

        False where it cannot be told: for other losses than the squared error, and where surrogates
        predict the target far worse than the formula does; and where they predict it better.
        """
        if self.loss != "squared" or not self.features:
            return False
        searched, residual_N, loss, surrogate = self._beside_surrogate(formula)
        if not loss / WORSE < surrogate < TELLS * loss:
            return False
        return is_noise(searched, residual_N, self.seed)

    def is_behind(self, formula: Formula) -> bool:
        """Whether a surrogate predicts points that it has not seen better than the formula does."""
        if self.loss != "squared" or not self.features:
            return False
        _, _, loss, surrogate = self._beside_surrogate(formula)
        return loss > WORSE * surrogate

    def _beside_surrogate(self, formula: Formula) -> tuple[LawData, Tensor, float, float]:
        """The data that surrogates see, what the formula leaves there, its loss, and theirs."""
        data = self.data
        smaller = self.find_symmetries()
        residual_N = data.y_N - formula(data.x_DN.T, self.table)
        if smaller is None:
            searched = replace(data, x_DN=data.x_DN[self.features])
        else:
            searched = smaller.data
            residual_N = residual_N / (smaller.factor_N * smaller.size)
        if self._surrogate_loss is None:
            self._surrogate_loss = surrogate_loss(searched)
        loss = float((searched.w_N * residual_N**2).mean())
        return searched, residual_N, loss, self._surrogate_loss

    def row_notes(self) -> list[str]:
        """What was done with how many rows, where not all were used for everything."""
        if self.num_rows == len(self.data.y_N):
            return []
        return [
            f"of {self.num_rows} rows, structures were looked for on {len(self.data.y_N)} drawn at "
            f"random; the constants were fitted, and the law chosen, on {len(self.all.y_N)}"
        ]

    def in_units(self, formula: Formula) -> Formula:
        """A formula for `data` as the same law in the units of the data."""
        return unscaled(formula, self.scales, self.scale_y)

    def of_size_1(self, formula: Formula) -> Formula:
        """A law in the units of the data as a formula for `data`."""
        inverse = [1.0 / scale for scale in self.scales]
        return unscaled(formula, inverse, 1.0 / self.scale_y)

    def in_units_of_loss(self, loss: float) -> float:
        """A loss on `data` in the units of the data."""
        return loss * self.scale_y**2

    def _choose_features(self) -> list[int]:
        """The features that structures are looked for in."""
        varied: list[int] = []
        constant: list[str] = []
        for d, row in enumerate(self.data.x_DN):
            if float(row.max() - row.min()) > 0.0:
                varied.append(d)
            else:
                constant.append(self.names[d])
        if constant:
            self.notes.append(constant_note(constant))
        if len(varied) <= MOST_FEATURES:
            return varied
        atoms = make_atoms(self.words, self.data, self.scales, varied)
        chosen = most_telling(self.data, atoms, varied, MOST_FEATURES)
        chosen_names = ", ".join(self.names[d] for d in chosen)
        self.notes.append(
            f"of {len(varied)} features, the {len(chosen)} that explain most were searched: "
            f"{chosen_names}"
        )
        return chosen

    def _note_domains(self) -> None:
        """Note the features that a function of positive numbers is not applied to."""
        positive: set[str] = set()
        for name in self.functions:
            if name == POWER or self.table[name].positive:
                positive.add(name)
        crossing: list[str] = []
        for d in self.features:
            if float(self.data.x_DN[d].min()) <= 0:
                crossing.append(self.names[d])
        if positive and crossing:
            self.notes.append(
                f"{' and '.join(sorted(positive))} need positive numbers: not applied to "
                f"{', '.join(crossing)} as it is, but where something makes it positive"
            )


def _tensor(values: np.ndarray) -> Tensor:
    return torch.as_tensor(np.ascontiguousarray(values), device="cpu")
