"""What both estimators show of their laws: words, tables, LaTeX, Python, pictures."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from gradnas.laws import text as law_text
from gradnas.laws.fitted import FittedLaws
from gradnas.laws.rows import checked_features
from gradnas.laws.sources import LawSources

if TYPE_CHECKING:  # loaded where they are used: they take long
    import pandas


class ShownLaws(LawSources):
    """The part of an estimator that a reader of laws uses."""

    _kept: tuple[np.ndarray, np.ndarray]  # features and targets, for `plot`

    @abstractmethod
    def _fitted(self, name: str) -> FittedLaws:
        """The laws that were found; an AttributeError says that `name` needs them."""

    def _html_repr(self) -> str:
        """What scikit-learn gives a notebook: of a fitted estimator its laws, else its settings."""
        from sklearn.utils import estimator_html_repr

        from gradnas.laws.notebook import html_of

        try:
            self._fitted("_html_repr")
        except AttributeError:
            return str(estimator_html_repr(self))
        return html_of(self.text(), self.pareto_, lambda file: self.plot(path=file))

    @property
    def pareto_(self) -> pandas.DataFrame:
        """The Pareto fronts as a pandas frame, by rising complexity.

        Columns: `target` (with several outputs), `complexity` (constants + operations),
        `train_error` (mean squared error, or cross entropy, or half the Poisson deviance),
        `valid_error` (the same by 5-fold cross-validation with the structure fixed),
        `description_length` (what the choice goes by; lower is better), `agreement` (how many
        proposals ended in this law), `chosen`, `equation` (before the link of a probability or a
        rate; its constants are exact, and its names those of `text`).
        """
        import pandas

        fitted = self._fitted("pareto_")
        records: list[dict[str, object]] = []
        for k, laws in enumerate(fitted.fronts):
            for place, law in enumerate(laws.front):
                record: dict[str, object] = {}
                if len(fitted.fronts) > 1:
                    record["target"] = fitted.outputs.targets[k]
                record["complexity"] = law.complexity
                record["train_error"] = law.train_error
                record["valid_error"] = law.valid_error
                record["description_length"] = law.description_length
                record["agreement"] = law.agreement
                record["chosen"] = place == fitted.chosen(k)
                record["equation"] = fitted.line(k, place, None)
                records.append(record)
        return pandas.DataFrame.from_records(records)

    @property
    def stability_(self) -> str:
        """How many of the proposals agree on the chosen law, in words."""
        fitted = self._fitted("stability_")
        parts: list[str] = []
        for k, laws in enumerate(fitted.fronts):
            agreement = fitted.law(k).agreement
            total = sum(law.agreement for law in laws.front)
            one = "1 proposal" if agreement == 1 else f"{agreement} proposals"
            parts.append(
                f"{fitted.outputs.targets[k]}: {one} ended in the chosen law, "
                f"{total - agreement} in other laws of the front"
            )
        return "; ".join(parts)

    def left_sides(self, *, latex: bool = False) -> list[str]:
        """What the equations are equal to.

        The names of the targets, or the probabilities of the classes.
        """
        return self._fitted("left_sides").outputs.left_sides(latex)

    def text(self, digits: int | None = 4, law: int | None = None) -> str:
        """The law in one line; several stand below each other.

        The right sides are what `sympy.sympify` reads. A column whose name it would not read, or
        read as something else (`x-y`, `N`), stands under another one, which a line below names.

        Args:
            digits: significant digits of the constants, and more where the values of the law need
                them; None writes them exactly.
            law: row of the Pareto front; by default the chosen one.
        """
        fitted = self._fitted("text")
        lefts = fitted.outputs.left_sides(latex=False)
        rights = self.right_sides(digits, law)
        lines = [f"{left} = {right}" for left, right in zip(lefts, rights, strict=True)]
        used: set[str] = set()
        for expression in fitted.expressions(law):
            used |= {str(symbol) for symbol in expression.free_symbols}
        for k in range(len(fitted.fronts)):
            lines += fitted.law(k, law).legend(digits)
        return "\n".join([*lines, *law_text.legend(fitted.names, used)])

    def right_sides(self, digits: int | None = 4, law: int | None = None) -> list[str]:
        """What is predicted, for each output in one line; arguments as of `text`."""
        fitted = self._fitted("right_sides")
        return [fitted.written_out(expression, digits) for expression in fitted.expressions(law)]

    def line(self, output: int = 0, law: int | None = None, digits: int | None = 4) -> str:
        """One law of one front in one line, without its left side and the link; as in `text`.

        Args:
            law: row of the Pareto front of that output; by default the chosen one.
        """
        fitted = self._fitted("line")
        return fitted.line(output, fitted.chosen(output) if law is None else law, digits)

    def latex_line(self, output: int, digits: int | None = None) -> str:
        """The chosen law of one front as LaTeX, without its left side and the link."""
        fitted = self._fitted("latex_line")
        return fitted.in_latex(fitted.formula(output, fitted.chosen(output)), digits)

    def legend(self) -> list[str]:
        """A line for each feature that `text` writes under another name, used or not."""
        names = self._fitted("legend").names
        return law_text.legend(names, names)

    def latex(self, digits: int | None = None, law: int | None = None) -> str:
        """What is predicted, as LaTeX for mathematics mode; several laws stand below each other.

        Args:
            digits: as of `text`.
            law: row of the Pareto front; by default the chosen one.
        """
        fitted = self._fitted("latex")
        lines = [fitted.in_latex(expression, digits) for expression in fitted.expressions(law)]
        return "\n".join(lines)

    def to_python(self, law: int | None = None) -> str:
        """Source of a module with `law(feature, ...)`, a NumPy function of the features.

        They are in the order of the table. It returns what is predicted: the target, or the
        probability of the second class; several outputs or classes are returned as a tuple.

        Args:
            law: row of the Pareto front; by default the chosen one.
        """
        fitted = self._fitted("to_python")
        names = fitted.names
        title = f"{', '.join(fitted.outputs.targets)} as a function of {', '.join(names)}."
        renamed: list[str] = []
        for own, name in zip(law_text.python_names(names), names, strict=True):
            if own != name:
                renamed.append(f"{own}: {name}")
        return law_text.python_source(fitted.expressions(law), names, title, arguments=renamed)

    def plot(
        self,
        X: ArrayLike | None = None,
        y: ArrayLike | None = None,
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

        fitted = self._fitted("plot")
        if (X is None) != (y is None):
            raise ValueError("plot takes both X and y, or neither")
        if X is None or y is None:
            x_ND, y_NK = self._kept
        else:
            x_ND = checked_features(self, X)
            y_NK = fitted.outputs.encoded(y)
        y_N = y_NK[:, output]
        column = fitted.outputs.column(output)
        only_0_and_1 = bool(np.isin(y_N, (0.0, 1.0)).all())

        def predict(x_ND: np.ndarray) -> np.ndarray:
            return fitted.predicted(x_ND, law)[:, column]

        shown = Shown(
            x_ND=x_ND,
            y_N=y_N,
            predict=predict,
            names=fitted.names,
            target=fitted.outputs.targets[output],
            laws=fitted.fronts[output],
            place=fitted.row(output, law),
            title=self.text(law=law).splitlines()[output],
            shares=fitted.law(output, law).loss == "logistic" and only_0_and_1,
        )
        figure = law_figure(shown)
        return figure if path is None else save_figure(figure, path)

    def draw(
        self, *, law: int | None = None, output: int = 0, path: str | Path | None = None
    ) -> Any:
        """The computation graph of the law, as a matplotlib figure. Arguments as of `plot`."""
        from gradnas.laws.graph_picture import graph_figure
        from gradnas.laws.pictures import save_figure

        fitted = self._fitted("draw")
        target = fitted.outputs.targets[output]
        figure = graph_figure(fitted.law(output, law), fitted.names, target)
        return figure if path is None else save_figure(figure, path)
