"""What `EquationRegressor` and `EquationClassifier` share: checked input, fronts of laws, their
forms and pictures.

Legend: N rows, D features, K outputs or classes.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import sympy
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils import validation as _validation

from gradnas.data.tabular import check_names, check_numeric
from gradnas.laws import text as law_text
from gradnas.laws.discover import (
    Law,
    Laws,
    LawSettings,
    Loss,
    discover_laws,
)
from gradnas.laws.primitives import (
    Primitive,
    resolve,
)
from gradnas.laws.progress import LawBar

validation: Any = _validation  # type checkers know an old version of it
FEWEST_ROWS = 5  # a slope, a constant, and three rows more to tell a law from chance
KEPT_ROWS = 1000  # of the training data, for `plot`
MOST_SORTED = 20_000  # rows; beyond, equal rows are not merged


class EquationEstimator(BaseEstimator, ABC):
    """What both estimators share. `laws_` holds a Pareto front for each output."""

    laws_: list[Laws]
    n_features_in_: int
    _notes: list[str]
    _formulas: dict[tuple[int, int], Any]  # worked out once
    _kept: tuple[np.ndarray, np.ndarray]  # features and targets, for `plot`

    def __init__(
        self,
        *,
        primitives: Sequence[str | Primitive] | None = None,
        nodes: int | None = None,
        effort: float = 1.0,
        max_complexity: int | None = None,
        settings: LawSettings | None = None,
        random_state: Any = 0,
        progress: bool = False,
    ) -> None:
        self.primitives = primitives
        self.nodes = nodes
        self.effort = effort
        self.max_complexity = max_complexity
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
        self._check_fitted("equation_")
        if len(self.equations_) != 1:
            raise AttributeError(
                f"there are {len(self.equations_)} laws, not one; they are in equations_"
            )
        return self.equations_[0]

    @property
    def equations_(self) -> tuple[sympy.Expr, ...]:
        """The chosen laws, one for each output."""
        self._check_fitted("equations_")
        return self._expressions(None)

    @property
    def pareto_(self) -> Any:
        """The Pareto fronts as a pandas frame, by rising complexity.

        Columns: `target` (with several outputs), `complexity` (constants + operations),
        `train_error` (mean squared error, or cross entropy, or half the Poisson deviance),
        `valid_error` (the same by 5-fold cross-validation with the structure fixed),
        `description_length` (what the choice goes by; lower is better), `agreement` (how many
        proposals ended in this law), `chosen`, `equation` (before the link of a probability or a
        rate; its constants are exact).
        """
        import pandas

        self._check_fitted("pareto_")
        records = []
        for k, laws in enumerate(self.laws_):
            for i, law in enumerate(laws.front):
                record = {"target": self._targets()[k]} if len(self.laws_) > 1 else {}
                record |= {
                    "complexity": law.complexity,
                    "train_error": law.train_error,
                    "valid_error": law.valid_error,
                    "description_length": law.description_length,
                    "agreement": law.agreement,
                    "chosen": i == self._chosen(k),
                    "equation": law_text.text(self.formula(k, i)),
                }
                records.append(record)
        return pandas.DataFrame.from_records(records)

    @property
    def chosen_(self) -> tuple[int, ...]:
        """For each output, the place of the chosen law in its front (the smallest description
        length)."""
        self._check_fitted("chosen_")
        return tuple(self._chosen(k) for k in range(len(self.laws_)))

    @property
    def targets_(self) -> list[str]:
        """What the fronts are about: the names of the targets, or `name=class`."""
        self._check_fitted("targets_")
        return self._targets()

    def formula(self, output: int = 0, law: int | None = None) -> sympy.Expr:
        """One law of one front as a sympy expression, without the link of a probability or a rate.

        Args:
            law: row of the Pareto front of that output; by default the chosen one.
        """
        self._check_fitted("formula")
        place = self._chosen(output) if law is None else law
        if (output, place) not in self._formulas:
            self._formulas[output, place] = (
                self.laws_[output].front[place].expression(self._names())
            )
        return self._formulas[output, place]

    @property
    def stability_(self) -> str:
        """How many of the proposals agree on the chosen law, in words."""
        self._check_fitted("stability_")
        parts = []
        for k, laws in enumerate(self.laws_):
            agreement, total = self._law(k).agreement, sum(law.agreement for law in laws.front)
            others = f"{total - agreement} in other laws of the front"
            one = "1 proposal" if agreement == 1 else f"{agreement} proposals"
            parts.append(f"{self._targets()[k]}: {one} ended in the chosen law, {others}")
        return "; ".join(parts)

    @property
    def notes_(self) -> tuple[str, ...]:
        """What was done to the data or left out, in sentences."""
        self._check_fitted("notes_")
        return tuple(
            dict.fromkeys([*self._notes, *(note for laws in self.laws_ for note in laws.notes)])
        )

    def text(self, digits: int | None = 4, law: int | None = None) -> str:
        """The law in one line, with constants of `digits` significant digits (None: exact); several
        stand below each other.

        Args:
            law: row of the Pareto front; by default the chosen one.
        """
        pairs = zip(self.left_sides(), self._expressions(law), strict=True)
        return "\n".join(
            f"{left} = {law_text.text(expression, digits)}" for left, expression in pairs
        )

    @abstractmethod
    def left_sides(self, *, latex: bool = False) -> list[str]:
        """What the equations are equal to: the names of the targets, or the probabilities of the
        classes."""

    def latex(self, digits: int | None = None, law: int | None = None) -> str:
        """What is predicted, as LaTeX for mathematics mode; several laws stand on lines of their
        own.

        Args:
            digits: significant digits of the constants; None writes them exactly.
            law: row of the Pareto front; by default the chosen one.
        """
        return "\n".join(
            law_text.latex(expression, digits) for expression in self._expressions(law)
        )

    def to_python(self, law: int | None = None) -> str:
        """Source of a module with `law(feature, ...)`, a NumPy function of the features in the
        order of the table.

        It returns what is predicted: the target, or the probability of the second class; several
        outputs or classes are returned as a tuple.

        Args:
            law: row of the Pareto front; by default the chosen one.
        """
        names, targets = self._names(), self._targets()
        lines = [
            f"{own}: {name}"
            for own, name in zip(law_text.python_names(names), names, strict=True)
            if own != name
        ]
        title = f"{', '.join(targets)} as a function of {', '.join(names)}."
        return law_text.python_source(self._expressions(law), names, title, arguments=lines)

    # -- pictures ----------------------------------------------------------------------------------

    def plot(
        self,
        X: Any = None,
        y: Any = None,
        *,
        law: int | None = None,
        output: int = 0,
        path: str | Path | None = None,
    ) -> Any:
        """Data against law, and the Pareto front, as a matplotlib figure.

        Args:
            X, y: data to show; by default (up to 1,000 rows of) those of `fit`.
            law: row of the Pareto front; by default the chosen one.
            output: which output, of several.
            path: an SVG, PNG or PDF file to write as well.
        """
        from gradnas.laws.pictures import (
            Shown,
            law_figure,
            save_figure,
        )

        self._check_fitted("plot")
        if (X is None) != (y is None):
            raise ValueError("plot takes both X and y, or neither")
        if X is None:
            x_ND, y_NK = self._kept
        else:
            x_ND, y_NK = self._features(X), self._encoded(y)
        laws, y_N = self.laws_[output], y_NK[:, output]
        shown = Shown(
            x_ND,
            y_N,
            lambda x_ND: self._shown(x_ND, law, output),
            self._names(),
            self._targets()[output],
            laws,
            self._row(output, law),
            self.text(law=law).splitlines()[output],
            shares=self._law(output, law).loss == "logistic"
            and bool(np.isin(y_N, (0.0, 1.0)).all()),
        )
        figure = law_figure(shown)
        return figure if path is None else save_figure(figure, path)

    def draw(
        self, *, law: int | None = None, output: int = 0, path: str | Path | None = None
    ) -> Any:
        """The computation graph of the law, as a matplotlib figure. Arguments as of `plot`."""
        from gradnas.laws.pictures import (
            graph_figure,
            save_figure,
        )

        self._check_fitted("draw")
        figure = graph_figure(self._law(output, law), self._names(), self._targets()[output])
        return figure if path is None else save_figure(figure, path)

    # -- fitting -----------------------------------------------------------------------------------

    def _law_settings(self) -> LawSettings:
        settings = self.settings if self.settings is not None else LawSettings()
        if not isinstance(settings, LawSettings):
            raise ValueError(f"settings must be a LawSettings, not {type(settings).__name__}")
        if isinstance(self.primitives, str):
            raise ValueError(
                f"primitives must be a list of words, such as ['linear', 'exp'], not {self.primitives!r}"
            )
        given = {
            "primitives": tuple(self.primitives) if self.primitives is not None else None,
            "nodes": self.nodes,
            "effort": settings.effort * self.effort,
        }
        changes: dict[str, Any] = {
            name: value for name, value in given.items() if value is not None
        }
        return replace(settings, **changes)

    def _features(self, X: Any, *, reset: bool = False, **checks: Any) -> Any:
        """X (and y, where given) as float64, checked; sentences name the column."""
        if hasattr(X, "columns") and hasattr(X, "iloc"):
            if reset:
                check_names(list(X.columns), "X")
            if not X.columns.has_duplicates:
                check_numeric(X, "X")
        found = validation.validate_data(
            self, X, reset=reset, dtype=np.float64, ensure_all_finite=False, **checks
        )
        x_ND = found[0] if isinstance(found, tuple) else found
        wrong_N = ~np.isfinite(x_ND).all(axis=1)
        if wrong_N.any():
            row = int(np.argmax(wrong_N))
            column = int(np.argmax(~np.isfinite(x_ND[row])))
            raise ValueError(
                f"X contains NaN or inf in {wrong_N.sum()} of {len(x_ND)} rows, first in row {row} of "
                f"{self._names(x_ND.shape[1])[column]}; drop or fill these rows"
            )
        return found

    def _prepare(
        self, x_ND: np.ndarray, y_NK: np.ndarray, sample_weight: Any
    ) -> tuple[np.ndarray, ...]:
        """Rows in an order of their own, equal ones merged, with their weights.

        Neither the order of the rows nor whether a row stands twice or has the weight 2 changes the
        law. Weights that are whole numbers count repetitions; others are scaled to a mean of 1.
        """
        w_N = np.ones(len(x_ND))
        if sample_weight is not None:
            w_N = validation._check_sample_weight(
                sample_weight,
                x_ND,
                dtype=np.float64,
                ensure_non_negative=True,
                allow_all_zero_weights=False,
            )
            x_ND, y_NK, w_N = x_ND[w_N > 0], y_NK[w_N > 0], w_N[w_N > 0]
            if (w_N != np.round(w_N)).any():
                w_N = w_N / w_N.mean()
        if len(x_ND) < FEWEST_ROWS:
            rows = "n_samples=1: 1 sample" if len(x_ND) == 1 else f"{len(x_ND)} rows"
            raise ValueError(
                f"{rows} with a positive weight cannot tell a law from chance: the smallest law has 2 parameters, and "
                f"at least {FEWEST_ROWS} rows are needed"
            )
        constant = [
            self._names(x_ND.shape[1])[d] for d in np.flatnonzero(np.ptp(x_ND, axis=0) == 0.0)
        ]
        if constant:
            they = "they are" if len(constant) > 1 else "it is"
            self._warn(f"{', '.join(constant)}: the same value in every row; {they} not used")
        if len(constant) == x_ND.shape[1]:
            raise ValueError(
                "every feature has the same value in all rows: there is nothing to explain the target with"
            )
        if len(x_ND) > MOST_SORTED:
            return x_ND, y_NK, w_N
        rows_NC = np.column_stack([x_ND, y_NK])
        order = np.lexsort(rows_NC.T[::-1])
        rows_NC = rows_NC[order]
        starts = np.flatnonzero(np.r_[True, (np.diff(rows_NC, axis=0) != 0.0).any(axis=1)])
        return x_ND[order][starts], y_NK[order][starts], np.add.reduceat(w_N[order], starts)

    def _warn(self, note: str) -> None:
        self._notes.append(note)
        warnings.warn(note, UserWarning, stacklevel=4)

    def _discover(
        self, x_ND: np.ndarray, y_N: np.ndarray, w_N: np.ndarray, loss: Loss, target: str, k: int
    ) -> Laws:
        settings = self._law_settings()
        _, table = resolve(settings.primitives)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1)) + k
        weights_N = None if (w_N == 1.0).all() else w_N
        names = self._names(x_ND.shape[1])
        with LawBar(target, names, table, enabled=bool(self.progress)) as bar:
            show = bar.show if self.progress else None
            return discover_laws(x_ND, y_N, settings, weights_N, loss, seed, show, names)

    def _keep(self, x_ND: np.ndarray, y_NK: np.ndarray) -> None:
        rows = np.unique(np.linspace(0, len(x_ND) - 1, KEPT_ROWS).astype(int))
        self._kept = (x_ND[rows], y_NK[rows])

    # -- what was fitted ---------------------------------------------------------------------------

    def _check_fitted(self, name: str) -> None:
        # hasattr must be False before fit, and scikit-learn's NotFittedError is an AttributeError
        validation.check_is_fitted(
            self, "laws_", msg=f"{name}: this %(name)s is not fitted yet; call 'fit' first"
        )

    def _names(self, features: int | None = None) -> list[str]:
        """Names of the features; x1, x2, ... where there are none."""
        names = getattr(self, "feature_names_in_", None)
        if names is not None:
            return [str(name) for name in names]
        return [f"x{d + 1}" for d in range(features or self.n_features_in_)]

    def _chosen(self, k: int) -> int:
        """The place of the chosen law in the front of output k."""
        laws = self.laws_[k]
        if self.max_complexity is None:
            return laws.best
        small = [i for i, law in enumerate(laws.front) if law.complexity <= self.max_complexity]
        if not small:
            simplest = min(law.complexity for law in laws.front)
            raise ValueError(
                f"max_complexity={self.max_complexity}: the simplest law has a complexity of {simplest}"
            )
        return min(small, key=lambda i: laws.front[i].description_length)

    def _law(self, k: int, law: int | None = None) -> Law:
        return self.laws_[k].front[self._row(k, law)]

    def _row(self, k: int, law: int | None) -> int:
        """A checked row of the front of output k, from 0."""
        laws = self.laws_[k]
        if law is None:
            return self._chosen(k)
        if len(self.laws_) > 1:
            raise ValueError("law= chooses from one front, but there are several outputs")
        if not -len(laws.front) <= law < len(laws.front):
            raise ValueError(
                f"there is no law {law}: the front has {len(laws.front)}, counted from 0"
            )
        return law % len(laws.front)

    def _values(self, x_ND: np.ndarray, law: int | None, *, linear: bool = False) -> np.ndarray:
        """(N, K) values of the laws, NaN where a law is undefined, with a warning then."""
        with np.errstate(all="ignore"):
            x_ND = np.require(
                x_ND, requirements=["C", "W"]
            )  # torch wants memory that it may write to
            laws = [self._law(k, law) for k in range(len(self.laws_))]
            y_NK = np.column_stack(
                [one.linear(x_ND) if linear else one.predict(x_ND) for one in laws]
            )
        undefined = int((~np.isfinite(y_NK)).any(axis=1).sum())
        if undefined:
            warnings.warn(
                f"the law is undefined in {undefined} of {len(x_ND)} rows (such as the logarithm of a negative number)",
                UserWarning,
                stacklevel=3,
            )
        return y_NK

    # -- given by the two estimators ---------------------------------------------------------------

    @abstractmethod
    def _shown(self, x_ND: np.ndarray, law: int | None, output: int) -> np.ndarray:
        """What `plot` shows beside the target of an output."""

    @abstractmethod
    def _expressions(self, law: int | None) -> tuple[Any, ...]:
        """What is predicted, as sympy expressions."""

    @abstractmethod
    def _targets(self) -> list[str]:
        """What the fronts are about."""

    @abstractmethod
    def _encoded(self, y: Any) -> np.ndarray:
        """(N, K) targets as the laws see them."""
