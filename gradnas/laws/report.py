"""The report of a discovery: one HTML page that needs nothing else.

The page holds no scripts and asks the net for nothing; whatever comes from files is escaped.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradnas.data.tabular import Table
from gradnas.laws import text as law_text
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
.law { margin: 16px 0; padding: 14px 16px; border-left: 5px solid #3c8a3a; background: #eff7ee; overflow-x: auto; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
tr.chosen td { font-weight: 600; background: #eff7ee; }
"""
CHOICE = (
    "The law with the smallest description length is chosen: n ln(error) + (constants + operations) ln n, plus a "
    "charge for the digits of the constants (with cross-entropy or counts, 2 n times the error takes the place of "
    "the first term). Complexity is the number of constants and operations. The validated error is that of 5-fold "
    "cross-validation with the structure fixed and the constants fitted again. “Agree” counts the proposals that ended "
    "in the law. The front is computed from the same rows, so confirm the law on new data."
)


@dataclass(frozen=True)
class Found:
    """What a discovery found: a fitted estimator, its table, and the features as a frame."""

    estimator: EquationRegressor | EquationClassifier
    table: Table
    frame: Any

    def laws(self, digits: int | None, *, latex: bool = False) -> list[str]:
        """The chosen laws with their left sides; of several classes the log-odds, from which all
        else follows."""
        estimator, written = self.estimator, law_text.latex if latex else law_text.text
        if len(estimator.laws_) == 1:
            (left,) = estimator.left_sides(latex=latex)
            return [f"{left} = {written(estimator.equation_, digits)}"]
        lefts = estimator.left_sides(latex=latex)
        logit = r"\mathrm{logit}\," if latex else "logit "
        formulas = [estimator.formula(k) for k in range(len(lefts))]
        return [
            f"{logit}{left} = {written(one, digits)}"
            for left, one in zip(lefts, formulas, strict=True)
        ]

    @property
    def score_name(self) -> str:
        """What `score` is."""
        return "accuracy" if isinstance(self.estimator, EquationClassifier) else "R2"

    @property
    def score(self) -> float:
        """R2 or accuracy on all rows where the law is defined; NaN where it is nowhere."""
        if isinstance(self.estimator, EquationClassifier):
            return float(self.estimator.score(self.frame, self.table.y_N, self.table.weights_N))
        found_N = self.estimator.predict(self.frame)
        good_N = np.isfinite(found_N)
        y_N = self.table.y_N[good_N]
        spread = float(((y_N - y_N.mean()) ** 2).sum()) if len(y_N) else 0.0
        return (
            1.0 - float(((y_N - found_N[good_N]) ** 2).sum()) / spread
            if spread > 0
            else float("nan")
        )


def law_page(
    found: Found, name: str, config: Mapping[str, Any], environment: Mapping[str, Any]
) -> str:
    """The page as HTML. `config` and `environment` are shown as tables."""
    estimator, table = found.estimator, found.table
    about = f"Law of {table.target} from {', '.join(table.names)}; {table.source}"
    sections = [
        ("Data against law", _plots(found)),
        ("Pareto front", _fronts(found)),
        ("Computation graph", _graphs(found)),
    ]
    sections += [
        ("The law as LaTeX", _tex(found)),
        ("The law as Python", _pre(estimator.to_python())),
    ]
    sections.append(("Settings", _table(config)))
    sections.append(("Environment", _table(environment)))
    body = "\n".join(f"<section>\n<h2>{title}</h2>\n{text}\n</section>" for title, text in sections)
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


def _typeset(found: Found) -> str:
    figure = page_svg(typeset(found.laws(4, latex=True)), "law", found.estimator.text(), paths=True)
    if len(found.estimator.laws_) == 1:
        return figure
    return f"{figure}\n<p>Each class against the rest; the probabilities, divided by their sum, are predicted.</p>"


def _tiles(found: Found) -> str:
    estimator = found.estimator
    laws = [
        laws.front[place] for laws, place in zip(estimator.laws_, estimator.chosen_, strict=True)
    ]
    tiles = [
        (
            f"{found.score:.4g}",
            "R² on all rows" if found.score_name == "R2" else "accuracy on all rows",
        ),
        (", ".join(str(law.complexity) for law in laws), "complexity (constants + operations)"),
        (", ".join(str(law.agreement) for law in laws), "proposals that ended in this law"),
        (f"{len(found.table.x_ND):,}", "rows"),
    ]
    return (
        '<div class="tiles">'
        + "".join(f"<div><b>{_esc(a)}</b><span>{_esc(b)}</span></div>" for a, b in tiles)
        + "</div>"
    )


def _plots(found: Found) -> str:
    return "\n".join(
        _figure(
            page_svg(found.estimator.plot(output=k), f"plot-{k}", f"data against law: {target}")
        )
        for k, target in enumerate(found.estimator.targets_)
    )


def _fronts(found: Found) -> str:
    estimator = found.estimator
    parts = []
    for k, laws in enumerate(estimator.laws_):
        rows = []
        for i, law in enumerate(laws.front):
            numbers = (
                str(law.complexity),
                f"{law.train_error:.3g}",
                f"{law.valid_error:.3g}",
                str(law.agreement),
            )
            cells = "".join(f'<td class="number">{number}</td>' for number in numbers)
            kind = ' class="chosen"' if i == estimator.chosen_[k] else ""
            rows.append(
                f"<tr{kind}>{cells}<td><code>{_esc(law_text.text(estimator.formula(k, i), 4))}</code></td></tr>"
            )
        names = (
            "complexity",
            "error",
            "validated",
            "agree",
            f"{estimator.targets_[k]}{_link(law.loss)}",
        )
        head = (
            "".join(f'<th class="number">{_esc(name)}</th>' for name in names[:-1])
            + f"<th>{_esc(names[-1])}</th>"
        )
        parts.append(f'<table class="wide"><tr>{head}</tr>{"".join(rows)}</table>')
    return (
        "\n".join(parts) + f'\n<p class="caption">{_esc(estimator.stability_)}. {_esc(CHOICE)}</p>'
    )


def _link(loss: str) -> str:
    return {"squared": "", "logistic": " (log-odds)", "poisson": " (logarithm of the rate)"}[loss]


def _graphs(found: Found) -> str:
    figures = [
        _figure(
            page_svg(found.estimator.draw(output=k), f"graph-{k}", f"computation graph of {target}")
        )
        for k, target in enumerate(found.estimator.targets_)
    ]
    caption = (
        "From the features (left) to the target: functions of what arrives (z) in blue, sums (Σ), products (Π) and "
        "ratios (÷) in orange, dashed lines into a denominator. What is used twice stands there twice. The printed law "
        "is this graph, simplified."
    )
    return "\n".join(figures) + f'\n<p class="caption">{caption}</p>'


def _tex(found: Found) -> str:
    estimator = found.estimator
    pairs = zip(estimator.left_sides(latex=True), estimator.latex().splitlines(), strict=True)
    return _pre("\n".join(f"{left} = {right}" for left, right in pairs))


def _table(values: Mapping[str, Any]) -> str:
    shown = {key: value for key, value in values.items() if key != "type" and value is not None}
    texts = {
        key: ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        for key, value in shown.items()
    }
    return (
        "<table>"
        + "".join(f"<tr><th>{_esc(k)}</th><td>{_esc(v)}</td></tr>" for k, v in texts.items())
        + "</table>"
    )


def _figure(svg: str) -> str:
    return f"<figure>\n{svg}\n</figure>"


def _pre(text: str) -> str:
    return f"<pre>{_esc(text)}</pre>"


def _esc(text: object) -> str:
    return html.escape("".join(c if c.isprintable() or c == "\n" else " " for c in str(text)))
