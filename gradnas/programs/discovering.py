"""A discovery from the command line: a table, the law, and a folder with what was found.

The folder holds `config.json` (repeats the discovery), `environment.json`, `results.json` (the
front, with exact constants), `law.tex`, `law.py`, `report.html`, `timings.jsonl` and `status.json`.
Nothing is kept of a discovery on the way: one that was stopped begins again.
"""

from __future__ import annotations

import math
import shlex
import textwrap
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from gradnas import runs
from gradnas.config import JsonObject, check_numbers, read_object, to_json
from gradnas.data.tabular import Table, load_example, load_table
from gradnas.laws.discover import LawSettings
from gradnas.laws.equations import (
    EquationClassifier,
    EquationRegressor,
)
from gradnas.laws.primitives import resolve
from gradnas.laws.report import (
    FoundLaws,
    law_page,
)
from gradnas.runs import Record

WIDTH = 80


@dataclass(frozen=True)
class DiscoverConfig:
    """Which table, which columns, and how to look.

    Args:
        data: path of a CSV file; None with `example`.
        example: name of a generated table (`gradnas.data.tabular.EXAMPLES`), of `rows` rows with
            normal `noise`, a share of the target's deviation.
        target: column to explain, or several, each of which gets a law.
        features: columns to explain it with; None takes all others.
        weights: column of sample weights.
        output: what the target is. "class" finds laws of probabilities of classes, which may be
            text.
        primitives: words; None takes the default ones.
        nodes: largest number of intermediate nodes; None takes the default.
        effort: multiplies the budget.
        max_complexity: choose among laws of at most this complexity.
        max_seconds: seconds by the clock after which nothing new is started.
        plain_darts: DARTS as published for equations, for comparison.
        loss: "squared", "absolute" or "huber".
        form: a law with open constants that are fitted instead of a search.
        start: formulas that the search begins with.
        compare: folds in which the law is compared with linear regression and gradient boosting; 0:
            it is not.
        seed: of everything random.
    """

    data: str | None = None
    example: str | None = None
    rows: int = 100
    noise: float = 0.02
    target: str | tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    weights: str | None = None
    output: Literal["real", "probability", "counts", "class"] = "real"
    primitives: tuple[str, ...] | None = None
    nodes: int | None = None
    effort: float = 1.0
    max_complexity: int | None = None
    max_seconds: float | None = None
    plain_darts: bool = False
    loss: Literal["squared", "absolute", "huber"] = "squared"
    form: str | None = None
    start: tuple[str, ...] | None = None
    compare: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if (self.data is None) == (self.example is None):
            raise ValueError("give either a CSV file or --example NAME")
        if self.data is not None and not self.target:
            raise ValueError(
                "--target COLUMN is missing: which column of the table is to be explained?"
            )
        check_numbers(self)
        if self.primitives is not None:
            resolve(self.primitives)  # refuses what is unknown
        if self.compare < 0 or self.compare == 1:
            raise ValueError(f"compare is a number of folds from 2 on, not {self.compare}")
        is_class = self.output == "class"
        if is_class and (self.loss != "squared" or self.form is not None or self.start):
            raise ValueError("loss, form and start are for numbers, not for --output class")
        if not 0 <= self.seed < 2**32:  # of scikit-learn
            raise ValueError(f"seed must be a whole number from 0 to {2**32 - 1}, not {self.seed}")

    def table(self) -> tuple[DiscoverConfig, Table]:
        """The data, and the configuration with what an example brings along."""
        if self.example is None:
            assert self.data is not None and self.target is not None
            table = load_table(
                self.data,
                self.target,
                self.features,
                self.weights,
                classes=self.output == "class",
            )
            return self, table
        table, example = load_example(self.example, self.rows, self.noise, self.seed)
        other_target = self.target not in (None, table.target, (table.target,))
        if other_target or self.features or self.weights:
            raise ValueError(
                f"the example {self.example} has its own columns: leave out --target and --features"
            )
        return replace(self, output=example.output), table

    def estimator(self, progress: bool) -> EquationRegressor | EquationClassifier:
        """The estimator that looks for the law."""
        settings = LawSettings.plain_darts() if self.plain_darts else LawSettings()
        shared: dict[str, Any] = {
            "primitives": self.primitives,
            "nodes": self.nodes,
            "effort": self.effort,
            "max_complexity": self.max_complexity,
            "max_seconds": self.max_seconds,
            "settings": settings,
            "random_state": self.seed,
            "progress": progress,
        }
        if self.output == "class":
            return EquationClassifier(**shared)
        wishes: dict[str, Any] = {"loss": self.loss, "form": self.form, "start": self.start}
        return EquationRegressor(output=self.output, **wishes, **shared)


def start_discovery(config: DiscoverConfig, out: Path) -> runs.Run:
    """Make the folder of a discovery.

    Raises:
        ValueError: it holds something already, or cannot be written.
    """
    return runs.Run.create(out, to_json(config), config.seed, torch.device("cpu"))


def discover(
    config: DiscoverConfig, table: Table, *, progress: bool = True
) -> tuple[FoundLaws, float]:
    """Find the laws of a table.

    Args:
        config, table: of `DiscoverConfig.table`.

    Returns:
        What was found, and the seconds.

    Raises:
        ValueError: everything that the estimators refuse.
    """
    import pandas

    estimator = config.estimator(progress)
    frame = pandas.DataFrame(table.x_ND, columns=list(table.names))
    began = time.monotonic()
    if table.targets:
        target: Any = pandas.DataFrame(table.y_N, columns=list(table.targets))
    else:
        target = pandas.Series(table.y_N, name=table.target)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        estimator.fit(frame, target, sample_weight=table.weights_N)
    for warning in caught:
        # What stands in the notes is printed with them.
        if str(warning.message) not in estimator.notes_:
            warnings.warn_explicit(
                warning.message, warning.category, warning.filename, warning.lineno
            )
    comparison = None
    if config.compare:
        comparison = config.estimator(False).compare(frame, target, config.compare)
    seconds = time.monotonic() - began
    return FoundLaws(estimator, table, frame, comparison), seconds


def save_discovery(run: runs.Run, config: DiscoverConfig, found: FoundLaws, seconds: float) -> None:
    """Write what was found into the folder of a discovery.

    Raises:
        ValueError: it cannot be written.
    """
    out = run.path
    estimator = found.estimator
    displayed = [f"\\[\n{line}\n\\]\n" for line in found.latex_lines()]
    runs.write_atomically(out / runs.LAW_TEX, "".join(displayed).encode())
    runs.write_atomically(out / runs.LAW_PY, estimator.to_python().encode())
    run.load_checkpoint()  # there is none: what an attempt that was killed appended is cut off
    run.append(runs.TIMINGS, {"seconds": seconds})
    here = read_object(out / runs.ENVIRONMENT)
    page = law_page(found, out.resolve().name, to_json(config), here)
    runs.write_atomically(out / runs.REPORT, page.encode())
    # Last of them: a folder with results holds everything.
    run.save_results(results(found))
    run.set_status("finished")


def found_report(run: runs.Run) -> Path:
    """The report of a finished discovery, which was written with its results.

    Raises:
        ValueError: it is not finished, or the report is gone.
    """
    if not (run.path / runs.RESULTS).exists():
        raise ValueError(
            f"the discovery in {run.path} is not finished; begin it again with: "
            f"gradnas resume {shlex.quote(str(run.path))}"
        )
    page = run.path / runs.REPORT
    if not page.exists():
        raise ValueError(
            f"{page} is gone; the same discovery in another folder makes it again: "
            f"gradnas discover {run.path / runs.CONFIG}"
        )
    return page


def results(found: FoundLaws) -> Record:
    """What was found, as JSON can hold it."""
    estimator = found.estimator
    fronts: list[JsonObject] = []
    for k, laws in enumerate(estimator.laws_):
        entries: list[JsonObject] = []
        for place, law in enumerate(laws.front):
            entry = {
                "complexity": law.complexity,
                "train_error": _finite(law.train_error),
                "valid_error": _finite(law.valid_error),
                "description_length": _finite(law.description_length),
                "agreement": law.agreement,
                "equation": estimator.line(k, place, digits=None),
                "formula": to_json(law.formula),
            }
            entries.append(entry)
        front = {
            "target": estimator.targets_[k],
            "chosen": estimator.chosen_[k],
            "laws": entries,
            "counts": dict(laws.counts),
        }
        fronts.append(front)
    return {
        "law": estimator.text(None),
        "latex": estimator.latex(),
        "score": _finite(found.score),
        "stability": estimator.stability_,
        "notes": list(estimator.notes_),
        "num_rows": len(found.table.x_ND),
        "features": list(found.table.names),
        "fronts": fronts,
    }


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def front_lines(found: FoundLaws) -> list[str]:
    """The Pareto fronts and the chosen laws, in lines of at most 80 characters."""
    estimator = found.estimator
    lines: list[str] = []
    for k, laws in enumerate(estimator.laws_):
        if len(estimator.laws_) > 1:
            lines += textwrap.wrap(f"{estimator.outputs_.about(k)}:", WIDTH)
        lines.append(f"   {'complexity':>10}  {'error':>9}  {'validated':>9}  {'agree':>5}  law")
        for place, law in enumerate(laws.front):
            mark = ">" if place == estimator.chosen_[k] else " "
            numbers = f"{law.train_error:9.3g}  {law.valid_error:9.3g}  {law.agreement:5d}"
            head = f" {mark} {law.complexity:10d}  {numbers}  "
            lines += _wrapped(head, estimator.line(k, place))
    lines.append("")
    for line in found.laws(4):
        lines += textwrap.wrap(line, WIDTH, subsequent_indent="    ", break_long_words=True)
    lines += estimator.legend()
    lines += textwrap.wrap(f"{found.score_name} {found.score:.4g}; {estimator.stability_}", WIDTH)
    if found.comparison is not None:
        comparison = found.comparison
        lines.append(f"{comparison.score} of {len(comparison.folds)} held-out folds:")
        lines += comparison.table.to_string(float_format="{:.3f}".format).splitlines()
    for note in estimator.notes_:
        lines += textwrap.wrap(f"note: {note}", WIDTH, subsequent_indent="      ")
    return lines


def _wrapped(head: str, text: str) -> list[str]:
    """The text beside a head, in as many lines as it takes."""
    margin = " " * len(head)
    lines = textwrap.wrap(
        text, WIDTH, initial_indent=head, subsequent_indent=margin, break_long_words=True
    )
    return lines or [head]
