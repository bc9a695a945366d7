"""`EquationRegressor` and `EquationClassifier`: laws from tables, as scikit-learn estimators.

Legend: N rows, D features, K outputs or classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import sympy
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.utils import check_random_state
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from gradnas import law_text
from gradnas.data.tabular import check_names, check_numeric
from gradnas.law_progress import LawBar
from gradnas.laws import Law, Laws, LawSettings, Loss, discover_laws
from gradnas.spaces.equation_primitives import Primitive, resolve

Output = Literal["real", "probability", "counts"]
LOSSES: dict[str, Loss] = {"real": "squared", "probability": "logistic", "counts": "poisson"}
FEWEST_ROWS = 5  # a slope, a constant, and three rows more to tell a law from chance
KEPT_ROWS = 1000  # of the training data, for `plot`
MOST_SORTED = 20_000  # rows; beyond, equal rows are not merged


class _Equations(BaseEstimator):
    """What both estimators share. `laws_` holds a Pareto front for each output."""

    laws_: list[Laws]
    n_features_in_: int

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

    # -- the laws -------------------------------------------------------------------------------------------

    @property
    def equation_(self) -> sympy.Expr:
        """The chosen law: what is predicted, as a sympy expression in the feature names.

        Raises:
            AttributeError: there are several outputs; see `equations_`.
        """
        self._check_fitted("equation_")
        if len(self.equations_) != 1:
            raise AttributeError(f"there are {len(self.equations_)} laws, not one; they are in equations_")
        return self.equations_[0]

    @property
    def equations_(self) -> tuple[sympy.Expr, ...]:
        """The chosen laws, one for each output."""
        self._check_fitted("equations_")
        return self._expressions(None)

    @property
    def pareto_(self) -> Any:
        """The Pareto fronts as a pandas frame, by rising complexity.

        Columns: `target` (with several outputs), `complexity` (constants + operations), `train_error` (mean squared
        error, or cross entropy, or half the Poisson deviance), `valid_error` (the same by 5-fold cross-validation
        with the structure fixed), `description_length` (what the choice goes by; lower is better), `agreement` (how
        many proposals ended in this law), `chosen`, `equation` (before the link of a probability or a rate; its
        constants are exact).
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
                    "chosen": i == self._best(k),
                    "equation": law_text.text(self._linear(k, i)),
                }
                records.append(record)
        return pandas.DataFrame.from_records(records)

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
        return tuple(dict.fromkeys([*self._notes, *(note for laws in self.laws_ for note in laws.notes)]))

    def text(self, digits: int | None = 4, law: int | None = None) -> str:
        """The law in one line, with constants of `digits` significant digits (None: exact).

        Args:
            law: row of the Pareto front; by default the chosen one.
        """
        return "\n".join(law_text.text(expression, digits) for expression in self._expressions(law))

    def latex(self, digits: int | None = None, law: int | None = None) -> str:
        """What is predicted, as LaTeX for mathematics mode; several laws stand on lines of their own.

        Args:
            digits: significant digits of the constants; None writes them exactly.
            law: row of the Pareto front; by default the chosen one.
        """
        return "\n".join(law_text.latex(expression, digits) for expression in self._expressions(law))

    def to_python(self, law: int | None = None) -> str:
        """Source of a module with `law(feature, ...)`, a NumPy function of the features in the order of the table.

        It returns what is predicted: the target, or the probability of the second class; several outputs or classes
        are returned as a tuple.

        Args:
            law: row of the Pareto front; by default the chosen one.
        """
        names, targets = self._names(), self._targets()
        lines = [f"{own}: {name}" for own, name in zip(law_text.python_names(names), names, strict=True) if own != name]
        title = f"{', '.join(targets)} as a function of {', '.join(names)}."
        return law_text.python_source(self._expressions(law), names, title, arguments=lines)

    # -- pictures -------------------------------------------------------------------------------------------

    def plot(
        self, X: Any = None, y: Any = None, *, law: int | None = None, output: int = 0, path: str | Path | None = None
    ) -> Any:
        """Data against law, and the Pareto front, as a matplotlib figure.

        Args:
            X, y: data to show; by default (up to 1,000 rows of) those of `fit`.
            law: row of the Pareto front; by default the chosen one.
            output: which output, of several.
            path: an SVG, PNG or PDF file to write as well.
        """
        from gradnas.law_draw import law_figure, save_figure

        self._check_fitted("plot")
        if (X is None) != (y is None):
            raise ValueError("plot takes both X and y, or neither")
        if X is None:
            x_ND, y_NK = self._kept
        else:
            x_ND, y_NK = self._features(X), self._encoded(y)
        figure = law_figure(self, x_ND, y_NK[:, output], output=output, law=law)
        return figure if path is None else save_figure(figure, path)

    def draw(self, *, law: int | None = None, output: int = 0, path: str | Path | None = None) -> Any:
        """The computation graph of the law, as a matplotlib figure. Arguments as of `plot`."""
        from gradnas.law_draw import graph_figure, save_figure

        self._check_fitted("draw")
        figure = graph_figure(self._law(output, law), self._names(), self._targets()[output])
        return figure if path is None else save_figure(figure, path)

    # -- fitting --------------------------------------------------------------------------------------------

    def _law_settings(self) -> LawSettings:
        settings = self.settings if self.settings is not None else LawSettings()
        if not isinstance(settings, LawSettings):
            raise ValueError(f"settings must be a LawSettings, not {type(settings).__name__}")
        if isinstance(self.primitives, str):
            raise ValueError(f"primitives must be a list of words, such as ['linear', 'exp'], not {self.primitives!r}")
        given = {
            "primitives": tuple(self.primitives) if self.primitives is not None else None,
            "nodes": self.nodes,
            "effort": settings.effort * self.effort,
        }
        return replace(settings, **{name: value for name, value in given.items() if value is not None})

    def _features(self, X: Any, *, reset: bool = False, **checks: Any) -> Any:
        """X (and y, where given) as float64, checked; sentences name the column."""
        if hasattr(X, "columns") and hasattr(X, "iloc"):
            if reset:
                check_names(list(X.columns), "X")
            if not X.columns.has_duplicates:
                check_numeric(X, "X")
        found = validate_data(self, X, reset=reset, dtype=np.float64, ensure_all_finite=False, **checks)
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

    def _prepare(self, x_ND: np.ndarray, y_NK: np.ndarray, sample_weight: Any) -> tuple[np.ndarray, ...]:
        """Rows in an order of their own, equal ones merged, with their weights.

        Neither the order of the rows nor whether a row stands twice or has the weight 2 changes the law. Weights that
        are whole numbers count repetitions; others are scaled to a mean of 1.
        """
        w_N = np.ones(len(x_ND))
        if sample_weight is not None:
            w_N = _check_sample_weight(
                sample_weight, x_ND, dtype=np.float64, ensure_non_negative=True, allow_all_zero_weights=False
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
        constant = [self._names(x_ND.shape[1])[d] for d in np.flatnonzero(np.ptp(x_ND, axis=0) == 0.0)]
        if constant:
            they = "they are" if len(constant) > 1 else "it is"
            self._warn(f"{', '.join(constant)}: the same value in every row; {they} not used")
        if len(constant) == x_ND.shape[1]:
            raise ValueError("every feature has the same value in all rows: there is nothing to explain the target with")
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

    def _discover(self, x_ND: np.ndarray, y_N: np.ndarray, w_N: np.ndarray, loss: Loss, target: str, k: int) -> Laws:
        settings = self._law_settings()
        _, table = resolve(settings.primitives)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1)) + k
        weights_N = None if (w_N == 1.0).all() else w_N
        with LawBar(target, self._names(x_ND.shape[1]), table, enabled=bool(self.progress)) as bar:
            return discover_laws(x_ND, y_N, settings, weights_N, loss, seed, bar.show if self.progress else None)

    def _keep(self, x_ND: np.ndarray, y_NK: np.ndarray) -> None:
        rows = np.unique(np.linspace(0, len(x_ND) - 1, KEPT_ROWS).astype(int))
        self._kept = (x_ND[rows], y_NK[rows])

    # -- what was fitted ------------------------------------------------------------------------------------

    def _check_fitted(self, name: str) -> None:
        # hasattr must be False before fit, and scikit-learn's NotFittedError is an AttributeError
        check_is_fitted(self, "laws_", msg=f"{name}: this %(name)s is not fitted yet; call 'fit' first")

    def _names(self, features: int | None = None) -> list[str]:
        """Names of the features; x1, x2, ... where there are none."""
        names = getattr(self, "feature_names_in_", None)
        if names is not None:
            return [str(name) for name in names]
        return [f"x{d + 1}" for d in range(features or self.n_features_in_)]

    def _best(self, k: int) -> int:
        """The place of the chosen law in the front of output k."""
        laws = self.laws_[k]
        if self.max_complexity is None:
            return laws.best
        small = [i for i, law in enumerate(laws.front) if law.complexity <= self.max_complexity]
        if not small:
            simplest = min(law.complexity for law in laws.front)
            raise ValueError(f"max_complexity={self.max_complexity}: the simplest law has a complexity of {simplest}")
        return min(small, key=lambda i: laws.front[i].description_length)

    def _law(self, k: int, law: int | None = None) -> Law:
        laws = self.laws_[k]
        if law is None:
            return laws.front[self._best(k)]
        if len(self.laws_) > 1:
            raise ValueError("law= chooses from one front, but there are several outputs")
        if not -len(laws.front) <= law < len(laws.front):
            raise ValueError(f"there is no law {law}: the front has {len(laws.front)}, counted from 0")
        return laws.front[law]

    def _linear(self, k: int, law: int | None) -> sympy.Expr:
        """The formula of a law, without the link; worked out once."""
        place = self._best(k) if law is None else law % len(self.laws_[k].front)
        if (k, place) not in self._formulas:
            self._formulas[k, place] = self._law(k, law).expression(self._names())
        return self._formulas[k, place]

    def _values(self, x_ND: np.ndarray, law: int | None, *, linear: bool = False) -> np.ndarray:
        """(N, K) values of the laws, NaN where a law is undefined, with a warning then."""
        with np.errstate(all="ignore"):
            x_ND = np.require(x_ND, requirements="CW")  # torch wants memory that it may write to
            laws = [self._law(k, law) for k in range(len(self.laws_))]
            y_NK = np.column_stack([one.linear(x_ND) if linear else one.predict(x_ND) for one in laws])
        undefined = int((~np.isfinite(y_NK)).any(axis=1).sum())
        if undefined:
            warnings.warn(
                f"the law is undefined in {undefined} of {len(x_ND)} rows (such as the logarithm of a negative number)",
                UserWarning,
                stacklevel=3,
            )
        return y_NK

    # given by the two estimators
    def _expressions(self, law: int | None) -> tuple[sympy.Expr, ...]:
        raise NotImplementedError

    def _targets(self) -> list[str]:
        raise NotImplementedError

    def _encoded(self, y: Any) -> np.ndarray:
        raise NotImplementedError


class EquationRegressor(RegressorMixin, _Equations):
    """Explains numbers by a short law.

    Every law of the Pareto front is found by a differentiable search over graphs of scalar operations, beside graphs
    that are enumerated and drawn at random; all are refitted by Levenberg-Marquardt in float64 and pruned by their
    description length. See `gradnas.laws.discover_laws`, which does it, and `LawSettings`.

    Args:
        output: "real" (squared error), "probability" (targets in [0, 1]: a law for the log-odds, with cross-entropy)
            or "counts" (targets of at least 0: a law for the logarithm of the rate, Poisson).
        primitives: words such as "linear_exp" (`gradnas.spaces.equation_primitives.WORDS`) or `Primitive`s of one's
            own; None takes those of `settings`.
        nodes: largest number of intermediate nodes; None takes that of `settings`.
        effort: multiplies the budget of `settings`.
        max_complexity: choose among the laws of at most this complexity (constants + operations).
        settings: a `LawSettings`; None takes the default one. `LawSettings.plain_darts()` is DARTS as published.
        random_state: a number, a NumPy `RandomState`, or None for another law each time. The same number gives the
            same law.
        progress: show a bar with the best law so far on stderr.

    Attributes:
        equation_: the chosen law, a sympy expression in the feature names (`equations_` of several outputs).
        pareto_: the Pareto front, a pandas frame.
        stability_: how many proposals agree on the chosen law.
        notes_: what was done to the data or left out, in sentences.
        laws_: a `gradnas.laws.Laws` for each output.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    """

    def __init__(
        self,
        *,
        output: Output = "real",
        primitives: Sequence[str | Primitive] | None = None,
        nodes: int | None = None,
        effort: float = 1.0,
        max_complexity: int | None = None,
        settings: LawSettings | None = None,
        random_state: Any = 0,
        progress: bool = False,
    ) -> None:
        super().__init__(
            primitives=primitives,
            nodes=nodes,
            effort=effort,
            max_complexity=max_complexity,
            settings=settings,
            random_state=random_state,
            progress=progress,
        )
        self.output = output

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Find the laws.

        Args:
            X: (N, D) array or pandas frame of numbers.
            y: (N,) or, for several outputs, (N, K) numbers.
            sample_weight: (N,); whole numbers count repetitions, others are scaled to a mean of 1.

        Raises:
            ValueError: something that is not a finite number, columns of the same name, a target that is constant or
                outside of what `output` allows, fewer than 5 rows.
        """
        if self.output not in LOSSES:
            raise ValueError(f"output must be one of {', '.join(LOSSES)}, not {self.output!r}")
        self._notes: list[str] = []
        x_ND, y_NK = self._features(X, reset=True, y=y, multi_output=True, y_numeric=True)
        self._flat = y_NK.ndim == 1
        self._target_names = _names_of_target(y, 1 if self._flat else y_NK.shape[1])
        y_NK = y_NK.reshape(len(y_NK), -1).astype(np.float64)
        x_ND, y_NK, w_N = self._prepare(x_ND, y_NK, sample_weight)
        for k, name in enumerate(self._target_names):
            self._check_target(y_NK[:, k], name)
        loss = LOSSES[self.output]
        self._formulas: dict[tuple[int, int], sympy.Expr] = {}
        self.laws_ = [
            self._discover(x_ND, y_NK[:, k], w_N, loss, name, k) for k, name in enumerate(self._target_names)
        ]
        self._keep(x_ND, y_NK)
        return self

    def predict(self, X: Any, law: int | None = None) -> np.ndarray:
        """The expected target, of the shape that `fit` had it in. NaN, with a warning, where the law is undefined.

        Args:
            law: row of the Pareto front; by default the chosen law.
        """
        self._check_fitted("predict")
        y_NK = self._values(self._features(X), law)
        return y_NK[:, 0] if self._flat else y_NK

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _check_target(self, y_N: np.ndarray, name: str) -> None:
        if np.ptp(y_N) == 0.0:
            raise ValueError(f"the target {name} has the same value, {y_N[0]:g}, in every row: there is no law to find")
        low, high = float(y_N.min()), float(y_N.max())
        if self.output == "probability" and (low < 0.0 or high > 1.0):
            raise ValueError(f"output='probability' needs targets from 0 to 1; {name} runs from {low:g} to {high:g}")
        if self.output == "counts" and low < 0.0:
            raise ValueError(f"output='counts' needs targets of at least 0; the smallest of {name} is {low:g}")

    def _expressions(self, law: int | None) -> tuple[sympy.Expr, ...]:
        self._check_fitted("equations_")
        link = {"real": lambda v: v, "probability": _logistic, "counts": sympy.exp}[self.output]
        return tuple(link(self._linear(k, law)) for k in range(len(self.laws_)))

    def _targets(self) -> list[str]:
        return self._target_names

    def _encoded(self, y: Any) -> np.ndarray:
        return np.asarray(y, dtype=np.float64).reshape(len(y), -1)


class EquationClassifier(ClassifierMixin, _Equations):
    """Explains classes by short laws for their log-odds.

    Two classes: one law for the log-odds of the second, fitted with cross-entropy; `equation_` is the probability of
    the second class. More classes: one law for the log-odds of every other class against the first, fitted on the
    rows of the two (Begg and Gray, Biometrika 71, 1984); the softmax of the laws is what is predicted, and
    `equations_` holds the probability of each class. `log_odds_` holds the laws themselves.

    Arguments and attributes are those of `EquationRegressor`, without `output`, and `classes_`.
    """

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Find the laws.

        Args:
            X: (N, D) array or pandas frame of numbers.
            y: (N,) class labels, numbers or text.
            sample_weight: (N,); whole numbers count repetitions, others are scaled to a mean of 1.

        Raises:
            ValueError: as of `EquationRegressor`; one class alone.
        """
        self._notes: list[str] = []
        x_ND, y_N = self._features(X, reset=True, y=y)
        check_classification_targets(y_N)
        self._target_name = _names_of_target(y, 1)[0]
        self.classes_, index_N = np.unique(y_N, return_inverse=True)
        x_ND, index_NK, w_N = self._prepare(x_ND, index_N.reshape(-1, 1).astype(np.float64), sample_weight)
        index_N = index_NK[:, 0].astype(np.int64)
        counts_K = np.bincount(index_N, w_N, minlength=len(self.classes_))
        if (counts_K > 0).sum() < 2:
            raise ValueError("a classifier needs at least 2 classes, but all rows (of positive weight) are of one class")
        present = np.flatnonzero(counts_K)
        self.classes_, counts_K = self.classes_[present], counts_K[present]
        index_N = np.searchsorted(present, index_N)
        self._prior_K = counts_K / counts_K.sum()
        self._formulas: dict[tuple[int, int], sympy.Expr] = {}
        self.laws_ = []
        for k in range(1, len(self.classes_)):
            of_two_N = np.isin(index_N, (0, k))
            y_two_N = (index_N[of_two_N] == k).astype(np.float64)
            name = self._targets()[k - 1]
            laws = self._discover(x_ND[of_two_N], y_two_N, w_N[of_two_N], "logistic", name, k - 1)
            self.laws_.append(laws)
        self._keep(x_ND, np.column_stack([index_N == k for k in range(1, len(self.classes_))]).astype(np.float64))
        return self

    def predict_proba(self, X: Any, law: int | None = None) -> np.ndarray:
        """(N, K) probabilities of `classes_`. Where a law is undefined: the shares of the classes in the training
        data, with a warning.

        Args:
            law: row of the Pareto front; by default the chosen law.
        """
        self._check_fitted("predict_proba")
        eta_NK = self._values(self._features(X), law, linear=True)
        eta_NK = np.column_stack([np.zeros(len(eta_NK)), eta_NK])
        with np.errstate(invalid="ignore"):
            p_NK = np.exp(eta_NK - eta_NK.max(axis=1, keepdims=True))
            p_NK /= p_NK.sum(axis=1, keepdims=True)
        return np.where(np.isfinite(p_NK).all(axis=1, keepdims=True), p_NK, self._prior_K)

    def predict(self, X: Any, law: int | None = None) -> np.ndarray:
        """The most probable class of each row. Arguments as of `predict_proba`."""
        p_NK = self.predict_proba(X, law)
        return self.classes_[np.argmax(p_NK, axis=1)]

    @property
    def log_odds_(self) -> tuple[sympy.Expr, ...]:
        """The log-odds of every class but the first against the first, as sympy expressions."""
        self._check_fitted("log_odds_")
        return tuple(self._linear(k, None) for k in range(len(self.laws_)))

    def _expressions(self, law: int | None) -> tuple[sympy.Expr, ...]:
        self._check_fitted("equations_")
        odds = [self._linear(k, law) for k in range(len(self.laws_))]
        if len(odds) == 1:
            return (_logistic(odds[0]),)
        powers = [sympy.Integer(1), *(sympy.exp(one) for one in odds)]
        return tuple(power / sympy.Add(*powers) for power in powers)

    def _targets(self) -> list[str]:
        return [f"{self._target_name}={label}" for label in self.classes_[1:]]

    def _encoded(self, y: Any) -> np.ndarray:
        labels_N = np.asarray(y).reshape(-1)
        unknown = [label for label in np.unique(labels_N) if label not in self.classes_]
        if unknown:
            raise ValueError(f"y holds the class {unknown[0]!r}, which fit has not seen")
        return np.column_stack([labels_N == label for label in self.classes_[1:]]).astype(np.float64)


def _logistic(expression: sympy.Expr) -> sympy.Expr:
    return 1 / (1 + sympy.exp(-expression))


def _names_of_target(y: Any, outputs: int) -> list[str]:
    """The name of a pandas series, or those of a frame's columns; else y, or y1, y2, ..."""
    names = list(y.columns) if hasattr(y, "columns") else [getattr(y, "name", None)]
    if len(names) == outputs and all(isinstance(name, str) and name for name in names):
        return names
    return ["y"] if outputs == 1 else [f"y{k + 1}" for k in range(outputs)]
