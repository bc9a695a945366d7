"""The report of a discovery: one HTML page that needs nothing else.

The page holds no scripts and asks the net for nothing; whatever comes from files is escaped.
"""

from __future__ import annotations

import html
from dataclasses import dataclass

import pandas

from gradnas.config import JsonObject
from gradnas.data.tabular import Table
from gradnas.laws.comparison import Comparison
from gradnas.laws.equations import (
    EquationClassifier,
    EquationRegressor,
)
from gradnas.laws.pictures import (
    page_svg,
    typeset,
)
from gradnas.reports.parts import CSS

MORE_CSS = """
.law { margin: 16px 0; padding: 14px 16px; border-left: 5px solid #3c8a3a; background: #eff7ee; \
overflow-x: auto; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.chosen td { font-weight: 600; background: #eff7ee; }
@media screen and (prefers-color-scheme: dark) {
  .law, tr.chosen td { background: #17261a; }
}
"""
CHOICE = (
    "The law with the smallest description length is chosen: n ln(error) + (constants + "
    "operations) ln n, plus a charge for the digits of the constants (with cross-entropy or "
    "counts, 2 n times the error takes the place of the first term). Complexity is the number of "
    "constants and operations. The validated error is that of 5-fold cross-validation with the "
    "structure fixed and the constants fitted again. “Agree” counts the proposals that ended in "
    "the law. The front is computed from the same rows, so confirm the law on new data."
)
GRAPH = (
    "From the features (left) to the target: functions of what arrives (z) in blue, sums (Σ), "
    "products (Π) and ratios (÷) in orange, dashed lines into a denominator. What is used twice "
    "stands there twice. The printed law is this graph, simplified."
)
ERRORS_SAY = {
    "covariance": "Of nonlinear least squares (of a likelihood: the inverse Fisher information), "
    "given the structure. That the structure was found in the same rows is not counted. Without a "
    "number: the rows do not determine the constant beside the others.",
    "bootstrap": "By 200 samples of the rows, given the structure. That the structure was found in "
    "the same rows is not counted.",
}
COMPARED = (
    "The law was searched again without each fold, so that no held-out row was seen (below). "
    "Linear regression and gradient boosting (scikit-learn's default settings) saw the same rows. "
    "Size: constants and operations; coefficients; leaves of all trees."
)
CLASSES = "Each class against the rest; the probabilities, divided by their sum, are predicted."


@dataclass(frozen=True)
class FoundLaws:
    """What a discovery found: a fitted estimator, its table, and the features as a frame.

    `comparison` is that with other models on held-out folds, where it was asked for.
    """

    estimator: EquationRegressor | EquationClassifier
    table: Table
    frame: pandas.DataFrame
    comparison: Comparison | None = None

    def laws(self, digits: int | None, *, latex: bool = False) -> list[str]:
        """The chosen laws with their left sides.

        Of several classes they are the log-odds, from which all else follows.
        """
        estimator = self.estimator
        lefts = estimator.left_sides(latex=latex)
        if not estimator.outputs_.in_log_odds:
            rights = estimator.right_sides(digits)
            if latex:
                rights = estimator.latex(digits).splitlines()
            return [f"{left} = {right}" for left, right in zip(lefts, rights, strict=True)]
        logit = r"\mathrm{logit}\," if latex else "logit "
        lines: list[str] = []
        for k, left in enumerate(lefts):
            right = estimator.latex_line(k, digits) if latex else estimator.line(k, digits=digits)
            lines.append(f"{logit}{left} = {right}")
        return lines

    def latex_lines(self) -> list[str]:
        """What is predicted, with its left sides, as LaTeX with exact constants."""
        lefts = self.estimator.left_sides(latex=True)
        rights = self.estimator.latex().splitlines()
        return [f"{left} = {right}" for left, right in zip(lefts, rights, strict=True)]

    @property
    def score_name(self) -> str:
        """What `score` is."""
        return self.estimator.outputs_.score_name

    @property
    def score(self) -> float:
        """R2 or accuracy on all rows where the law is defined; NaN where it is nowhere."""
        predicted_N = self.estimator.predict(self.frame)
        table = self.table
        return self.estimator.outputs_.score(table.y_N, predicted_N, table.weights_N)


def law_page(found: FoundLaws, name: str, config: JsonObject, environment: JsonObject) -> str:
    """The page as HTML. `config` and `environment` are shown as tables."""
    estimator = found.estimator
    table = found.table
    about = f"Law of {table.target} from {', '.join(table.names)}; {table.source}"
    sections = [
        _section("Data against law", _plots(found)),
        *_compared(found),
        _section("Pareto front", _fronts(found)),
        _section("How sure the constants are", _errors(found)),
        _section("Computation graph", _graphs(found)),
        _section("The law as LaTeX", _pre("\n".join(found.latex_lines()))),
        _section("The law as Python", _pre(estimator.to_python())),
        _section("Settings", _table(config)),
        _section("Environment", _table(environment)),
    ]
    body = "\n".join(sections)
    notes = "\n".join(f'<p class="notice">{_esc(note)}</p>' for note in estimator.notes_)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_esc(name)}: report of a discovery</title>
<style>{CSS}{MORE_CSS}</style>
</head>
<body>
<header>
<p class="about">{_esc(about)}</p>
<h1>{_esc(name)}</h1>
</header>
<div class="law">{_typeset(found)}</div>
{_tiles(found)}
{notes}
{body}
</body>
</html>
"""


def _section(title: str, content: str) -> str:
    return f"<section>\n<h2>{title}</h2>\n{content}\n</section>"


def _typeset(found: FoundLaws) -> str:
    lines = typeset(found.laws(4, latex=True), found.laws(4))
    figure = page_svg(lines, "law", found.estimator.text(), paths=True)
    if not found.estimator.outputs_.in_log_odds:
        return figure
    return f"{figure}\n<p>{CLASSES}</p>"


def _tiles(found: FoundLaws) -> str:
    estimator = found.estimator
    complexities: list[str] = []
    agreements: list[str] = []
    for laws, place in zip(estimator.laws_, estimator.chosen_, strict=True):
        complexities.append(str(laws.front[place].complexity))
        agreements.append(str(laws.front[place].agreement))
    score_name = "R²" if found.score_name == "R2" else "accuracy"
    tiles = [
        _tile(f"{found.score:.4g}", f"{score_name} on all rows"),
        _tile(", ".join(complexities), "complexity (constants + operations)"),
        _tile(", ".join(agreements), "proposals that ended in this law"),
        _tile(f"{len(found.table.x_ND):,}", "rows"),
    ]
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _tile(value: str, meaning: str) -> str:
    return f"<div><b>{_esc(value)}</b><span>{_esc(meaning)}</span></div>"


def _plots(found: FoundLaws) -> str:
    figures: list[str] = []
    for k, target in enumerate(found.estimator.targets_):
        figure = found.estimator.plot(output=k)
        figures.append(_figure(page_svg(figure, f"plot-{k}", f"data against law: {target}")))
    return "\n".join(figures)


def _fronts(found: FoundLaws) -> str:
    """A table for each output, and how the law was chosen."""
    tables = [_front(found, k) for k in range(len(found.estimator.laws_))]
    caption = f"{_esc(found.estimator.stability_)}. {_esc(CHOICE)}"
    return "\n".join(tables) + f'\n<p class="caption">{caption}</p>'


def _front(found: FoundLaws, k: int) -> str:
    estimator = found.estimator
    laws = estimator.laws_[k]
    rows: list[str] = []
    for place, law in enumerate(laws.front):
        numbers = [
            str(law.complexity),
            f"{law.train_error:.3g}",
            f"{law.valid_error:.3g}",
            str(law.agreement),
        ]
        cells = [f'<td class="number">{number}</td>' for number in numbers]
        formula = _esc(estimator.line(k, place))
        cells.append(f"<td><code>{formula}</code></td>")
        kind = ' class="chosen"' if place == estimator.chosen_[k] else ""
        rows.append(f"<tr{kind}>{''.join(cells)}</tr>")
    names = ["complexity", "error", "validated", "agree"]
    heads = [f'<th class="number">{name}</th>' for name in names]
    what = f"{estimator.targets_[k]}{_link(laws.front[-1].loss)}"
    heads.append(f"<th>{_esc(what)}</th>")
    return f'<table class="wide"><tr>{"".join(heads)}</tr>{"".join(rows)}</table>'


def _errors(found: FoundLaws) -> str:
    """The constants of the chosen laws with their errors."""
    parts: list[str] = []
    method = ""
    for k in range(len(found.estimator.laws_)):
        try:
            errors = found.estimator.uncertainty(output=k)
        except ValueError as error:  # such as a function of one's own, which only torch knows
            parts.append(f'<p class="notice">{_esc(error)}</p>')
            continue
        method = errors.method
        heads = ["standard error", "95% from", "to"]
        cells = "".join(f'<th class="number">{head}</th>' for head in ["value", *heads])
        rows = [f"<tr><th>constant</th>{cells}</tr>"]
        for name, *numbers in errors.table.itertuples(index=False):
            cells = "".join(f'<td class="number">{number:.4g}</td>' for number in numbers)
            rows.append(f"<tr><td>{_esc(name)}</td>{cells}</tr>")
        parts.append(f"<p><code>{_esc(errors.law)}</code></p><table>{''.join(rows)}</table>")
    if method:
        parts.append(f'<p class="caption">{_esc(ERRORS_SAY[method])}</p>')
    return "\n".join(parts)


def _compared(found: FoundLaws) -> list[str]:
    """The section of the comparison, where there is one."""
    comparison = found.comparison
    if comparison is None:
        return []
    heads = "".join(f'<th class="number">{head}</th>' for head in ("mean", "least", "size"))
    rows = [f"<tr><th>model</th>{heads}</tr>"]
    for name, mean, least, size in comparison.table.itertuples():
        numbers = (f"{mean:.3f}", f"{least:.3f}", f"{size:.0f}")
        cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
        rows.append(f"<tr><td>{_esc(name)}</td>{cells}</tr>")
    laws = _pre("\n".join(comparison.laws))
    says = f"{comparison.score} of {len(comparison.folds)} held-out folds. {COMPARED}"
    content = f'<table>{"".join(rows)}</table>\n<p class="caption">{_esc(says)}</p>\n{laws}'
    return [_section("What simplicity costs", content)]


def _link(loss: str) -> str:
    return {"squared": "", "logistic": " (log-odds)", "poisson": " (logarithm of the rate)"}[loss]


def _graphs(found: FoundLaws) -> str:
    figures: list[str] = []
    for k, target in enumerate(found.estimator.targets_):
        figure = found.estimator.draw(output=k)
        figures.append(_figure(page_svg(figure, f"graph-{k}", f"computation graph of {target}")))
    return "\n".join(figures) + f'\n<p class="caption">{GRAPH}</p>'


def _table(values: JsonObject) -> str:
    rows: list[str] = []
    for key, value in values.items():
        if key == "type" or value is None:
            continue
        shown = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        rows.append(f"<tr><th>{_esc(key)}</th><td>{_esc(shown)}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _figure(svg: str) -> str:
    return f"<figure>\n{svg}\n</figure>"


def _pre(text: str) -> str:
    return f"<pre>{_esc(text)}</pre>"


def _esc(text: object) -> str:
    """Text as it may stand in HTML; characters that cannot be printed become spaces."""
    printable = [c if c.isprintable() or c == "\n" else " " for c in str(text)]
    return html.escape("".join(printable))
