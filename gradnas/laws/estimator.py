"""What `EquationRegressor` and `EquationClassifier` share: their settings, and the search for laws.

Legend: N rows, D features, K outputs or classes.
"""

from __future__ import annotations

import numbers
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import sympy
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sympy import Expr

from gradnas.laws.discover import (
    Laws,
    LawSettings,
    Loss,
    discover_laws,
)
from gradnas.laws.doubts import with_doubts
from gradnas.laws.fitted import FittedLaws
from gradnas.laws.groups import find_grouped
from gradnas.laws.outputs import Outputs
from gradnas.laws.primitives import (
    Primitive,
    resolve,
)
from gradnas.laws.progress import LawBar
from gradnas.laws.request import LawRequest
from gradnas.laws.rows import feature_names, validation
from gradnas.laws.studied import StudiedLaws
from gradnas.laws.wishes import find_laws
from gradnas.laws.with_units import laws_with_units

AFTER_A_STOP = 0.05  # of the effort, for the outputs that have no law when the user stops
KEPT_ROWS = 1000  # of the training data, for `plot`


class EquationEstimator(StudiedLaws, BaseEstimator):
    """What both estimators share.

    `laws_` holds a Pareto front for each output, `outputs_` what they are about.
    """

    laws_: list[Laws]
    n_features_in_: int
    _notes: list[str]
    _labels: tuple[object, ...] | None = None  # of groups with constants of their own
    outputs_: Outputs
    _formulas: dict[tuple[int, int], Expr]  # worked out once

    def __init__(
        self,
        *,
        primitives: Sequence[str | Primitive] | None = None,
        nodes: int | None = None,
        effort: float = 1.0,
        max_complexity: int | None = None,
        max_seconds: float | None = None,
        settings: LawSettings | None = None,
        random_state: int | np.random.RandomState | None = 0,
        progress: bool = False,
    ) -> None:
        self.primitives = primitives
        self.nodes = nodes
        self.effort = effort
        self.max_complexity = max_complexity
        self.max_seconds = max_seconds
        self.settings = settings
        self.random_state = random_state
        self.progress = progress

    # -- the laws ----------------------------------------------------------------------------------

    @property
    def equation_(self) -> sympy.Expr:
        """The chosen law: what is predicted, as a sympy expression in the feature names.

        Raises:
            AttributeError: there are several outputs; see `equations_`.
        """
        equations = self._fitted("equation_").expressions(None)
        if len(equations) != 1:
            raise AttributeError(
                f"there are {len(equations)} laws, not one; they are in equations_"
            )
        return equations[0]

    @property
    def equations_(self) -> tuple[sympy.Expr, ...]:
        """The chosen laws, one for each output."""
        return self._fitted("equations_").expressions(None)

    @property
    def chosen_(self) -> tuple[int, ...]:
        """For each output, the place of the chosen law in its front.

        It is the one of the smallest description length.
        """
        fitted = self._fitted("chosen_")
        return tuple(fitted.chosen(k) for k in range(len(fitted.fronts)))

    @property
    def targets_(self) -> list[str]:
        """What the fronts are about: the names of the targets, or `name=class`."""
        return self._fitted("targets_").outputs.targets

    def formula(self, output: int = 0, law: int | None = None) -> sympy.Expr:
        """One law of one front as a sympy expression, without the link of a probability or a rate.

        Args:
            law: row of the Pareto front of that output; by default the chosen one.
        """
        fitted = self._fitted("formula")
        return fitted.formula(output, fitted.chosen(output) if law is None else law)

    @property
    def notes_(self) -> tuple[str, ...]:
        """What was done to the data or left out, in sentences."""
        fitted = self._fitted("notes_")
        notes = list(self._notes)
        for laws in fitted.fronts:
            notes += laws.notes
        return tuple(dict.fromkeys(notes))

    # -- fitting -----------------------------------------------------------------------------------

    def _fitted(self, name: str) -> FittedLaws:
        # hasattr must be False before fit, and scikit-learn's NotFittedError is an AttributeError
        validation.check_is_fitted(
            self, "laws_", msg=f"{name}: this %(name)s is not fitted yet; call 'fit' first"
        )
        names = feature_names(self)
        return FittedLaws(
            fronts=self.laws_,
            names=names,
            outputs=self.outputs_,
            max_complexity=self.max_complexity,
            written=self._formulas,
            rows_ND=self._kept[0],
        )

    def _note(self, note: str) -> None:
        self._notes.append(note)
        warnings.warn(note, UserWarning, stacklevel=4)

    def _find(
        self,
        x_ND: np.ndarray,
        y_NK: np.ndarray,
        w_N: np.ndarray,
        loss: Loss,
        outputs: Outputs,
    ) -> None:
        """Search for the laws of each output, and keep what is shown of them."""
        settings = self._law_settings()
        _, table = resolve(settings.primitives)
        names = feature_names(self)
        wishes = self._wishes()
        wishes.check(names, loss)
        weights_N = None if (w_N == 1.0).all() else w_N
        labels = self._labels
        if labels is not None:
            wishes.check_groups()
            names = [*names, "the group"]
        units = self._asked_units(len(outputs.targets))
        fronts: list[Laws] = []
        began = time.monotonic()
        for k, target in enumerate(outputs.targets):
            own = self._for_one_of(settings, began, len(outputs.targets) - k, fronts)
            y_N = y_NK[:, k]
            seed = int(check_random_state(self.random_state).randint(2**31 - 1)) + k
            with LawBar(target, names, table, enabled=bool(self.progress)) as bar:
                show = bar.show if self.progress else None
                if units is not None:
                    found = laws_with_units(
                        x_ND, y_N, own, weights_N, seed, show, names, units[0], units[1][k]
                    )
                elif wishes.plain and labels is None:
                    found = discover_laws(x_ND, y_N, own, weights_N, loss, seed, show, names)
                    if self.max_complexity is None:  # else the law may be another than the best
                        found = with_doubts(found, x_ND, y_N, w_N, loss, names)
                else:
                    request = LawRequest(x_ND, y_N, w_N, own, loss, seed, show, names)
                    if labels is None:
                        found = find_laws(request, wishes)
                    else:
                        found = find_grouped(request, wishes, labels)
                fronts.append(found)
        self.outputs_ = outputs
        self._formulas = {}
        self.laws_ = fronts
        rows = np.unique(np.linspace(0, len(x_ND) - 1, KEPT_ROWS).astype(int))
        self._kept = (x_ND[rows], y_NK[rows])
        self._keep_training(x_ND, y_NK, w_N)

    def _asked_units(self, outputs: int) -> tuple[Mapping[str, str], list[str]] | None:
        """The units of the features by name, and of each target; None where none were given."""
        del outputs
        return None

    def _for_one_of(
        self, settings: LawSettings, began: float, left: int, fronts: Sequence[Laws]
    ) -> LawSettings:
        """The settings of the next output: its share of the time, and next to none after a Ctrl-C.

        Args:
            left: outputs that have no laws yet.
        """
        if any(laws.stopped for laws in fronts):
            return replace(settings, effort=AFTER_A_STOP * settings.effort)
        if settings.max_seconds is None:
            return settings
        rest = settings.max_seconds - (time.monotonic() - began)
        return replace(settings, max_seconds=max(rest, 1e-3) / left)

    def _law_settings(self) -> LawSettings:
        """The settings, with what was given beside them."""
        settings = self.settings if self.settings is not None else LawSettings()
        if not isinstance(settings, LawSettings):
            raise ValueError(f"settings must be a LawSettings, not {type(settings).__name__}")
        if isinstance(self.primitives, str):
            raise ValueError(
                "primitives must be a list of words, such as ['linear', 'exp'], not "
                f"{self.primitives!r}"
            )
        if isinstance(self.effort, bool) or not isinstance(self.effort, numbers.Real):
            raise ValueError(f"effort must be a number above 0, not {self.effort!r}")
        changes: dict[str, Any] = {"effort": settings.effort * float(self.effort)}
        if self.max_seconds is not None:
            is_number = isinstance(self.max_seconds, numbers.Real)
            if isinstance(self.max_seconds, bool) or not is_number:
                raise ValueError(
                    "max_seconds must be a number above 0, or None for no limit, not "
                    f"{self.max_seconds!r}"
                )
            changes["max_seconds"] = self.max_seconds
        if self.primitives is not None:
            changes["primitives"] = tuple(self.primitives)
        if self.nodes is not None:
            changes["nodes"] = self.nodes
        return replace(settings, **changes)
