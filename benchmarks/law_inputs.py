"""Awkward inputs of equation discovery: single primitives, column names, scales; what came of them.

    python benchmarks/law_inputs.py                     all of them
    python benchmarks/law_inputs.py words --every 4     every fourth case
    python benchmarks/law_inputs.py names scales

Every case is right or refused with a sentence (`ValueError`); anything else is wrong and is
printed: another exception, predictions that are not finite, a printed law or a `law.py` that
predicts otherwise than the estimator, and for names and scales a law that is not the one the rows
were made of. Exit code 1 where a case was wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas
import sympy
import torch

import gradnas
from gradnas.laws import text as law_text
from gradnas.laws.primitives import WORDS

AGREES = 1e-6  # of the target's deviation: a printed law beside the fitted one
FOUND = 1e-6  # of it: a law beside the truth, on new rows
ROWS = 40


@dataclass(frozen=True)
class Case:
    """One table and how it is searched.

    Attributes:
        known: whether the law of the rows must be found; `fresh` are rows that it is tried on.
    """

    name: str
    features: pandas.DataFrame
    target: np.ndarray
    settings: dict[str, Any]
    known: bool = False
    fresh: tuple[pandas.DataFrame, np.ndarray] | None = None


# ---- the cases -----------------------------------------------------------------------------------


def words() -> Iterator[Case]:
    """Lists of one primitive: for a sum, and for a curve that most of them cannot follow."""
    x_N2 = np.random.default_rng(0).uniform(0.5, 3.0, (ROWS, 2))
    frame = pandas.DataFrame(x_N2, columns=["x1", "x2"])
    targets = {"x1 + x2": x_N2.sum(1), "sin(3 x1) / x2": np.sin(3.0 * x_N2[:, 0]) / x_N2[:, 1]}
    for about, target_N in targets.items():
        for word in WORDS:
            settings = {"primitives": ["none", word], "effort": 0.3}
            yield Case(f"{word} alone, {about}", frame, target_N, settings)


NAMES = (
    *("x-y", "0", "1e5", "lambda", "N", "S", "E", "I", "Q", "O", "C", "pi", "oo", "zoo", "nan"),
    *("a b", "temp_%", "beta", "gamma", "zeta", "def", "class", "None", "True", "print", "exec"),
    *("sin", "exp", "log", "sqrt", "Abs", "Max", "np", "numpy", "law", "x1", "x", "y", "_", "__"),
    *("x.1", "x[0]", "{x}", "x'", 'x"', "x\\y", "$x$", "x&y", "x#y", "x^2", "x~", "x;y", "x,y"),
    *("a=b", "<b>", "%d", "π", "größe", "速度", "x₁"),
)


def names() -> Iterator[Case]:
    """Unusual names of columns."""
    x_N2 = np.random.default_rng(1).uniform(0.5, 3.0, (ROWS, 2))
    fresh_N2 = np.random.default_rng(2).uniform(0.5, 3.0, (ROWS, 2))
    for name in NAMES:
        columns = [name, "other"]
        frame = pandas.DataFrame(x_N2, columns=columns)
        fresh = pandas.DataFrame(fresh_N2, columns=columns)
        yield Case(
            f"column {name!r}",
            frame,
            2.0 * x_N2[:, 0] / x_N2[:, 1],
            {"effort": 0.1},
            known=True,
            fresh=(fresh, 2.0 * fresh_N2[:, 0] / fresh_N2[:, 1]),
        )


SCALES = (1e-70, 1e-30, 1e-12, 1e-6, 1e-3, 1e3, 1e6, 1e12, 1e30, 1e70)
OFFSETS = (0.0, 1e3, 1e6)  # of a feature of range 2.5, and of the target


def scales() -> Iterator[Case]:
    """Features and targets of extreme sizes, and far from zero."""
    x_N2 = np.random.default_rng(3).uniform(0.5, 3.0, (ROWS, 2))
    fresh_N2 = np.random.default_rng(4).uniform(0.5, 3.0, (ROWS, 2))

    def case(name: str, x: tuple[float, float], y: float, offset: tuple[float, float]) -> Case:
        """`y * (x1 / x2) + offset` of features in units `x`, the first with an offset."""
        made: list[tuple[pandas.DataFrame, np.ndarray]] = []
        for rows_N2 in (x_N2, fresh_N2):
            columns_N2 = rows_N2 * np.array(x) + np.array([offset[0] * x[0], 0.0])
            frame = pandas.DataFrame(columns_N2, columns=["x1", "x2"])
            ratio_N = columns_N2[:, 0] / x[0] / rows_N2[:, 1]
            made.append((frame, y * (ratio_N + offset[1])))
        return Case(name, *made[0], {"effort": 0.3}, known=True, fresh=made[1])

    for scale in SCALES:
        yield case(f"features times {scale:g}", (scale, scale), 1.0, (0.0, 0.0))
        yield case(f"one feature times {scale:g}", (scale, 1.0), 1.0, (0.0, 0.0))
        yield case(f"target times {scale:g}", (1.0, 1.0), scale, (0.0, 0.0))
    for first in OFFSETS:
        for second in OFFSETS:
            if first or second:
                yield case(
                    f"feature + {first:g}, target + {second:g}", (1.0, 1.0), 1.0, (first, second)
                )
    yield case("all units apart", (1e-30, 1e30), 1e-12, (0.0, 0.0))
    yield case("all units apart the other way", (1e30, 1e-30), 1e12, (0.0, 0.0))


PARTS = {"words": words, "names": names, "scales": scales}


# ---- what came -----------------------------------------------------------------------------------


def wrong_with(case: Case) -> str | None:
    """What is wrong with a case's outcome; None where it is right.

    Raises:
        ValueError: the case was refused.
    """
    estimator = gradnas.EquationRegressor(random_state=0, **case.settings)
    estimator.fit(case.features, case.target)
    predicted_N = np.asarray(estimator.predict(case.features))
    spread = float(np.std(case.target))
    if not np.isfinite(predicted_N).all():
        return "a prediction is not finite"
    if np.mean((predicted_N - case.target) ** 2) > 1.01 * spread**2:
        return "worse than the mean of the target"
    for about, printed_N in printed_values(estimator, case.features).items():
        gap = float(np.abs(printed_N - predicted_N).max())
        if not gap <= AGREES * spread:
            return f"{about} is off by {gap:.3g}"
    estimator.latex()
    if case.known and case.fresh is not None:
        frame, truth_N = case.fresh
        gap = float(np.abs(np.asarray(estimator.predict(frame)) - truth_N).max())
        if not gap <= FOUND * spread:
            return f"the law is off by {gap / spread:.3g} deviations: {estimator.text()}"
    return None


def printed_values(estimator: Any, frame: pandas.DataFrame) -> dict[str, np.ndarray]:
    """What the printed forms of a law predict: its text, read by sympy, and its source."""
    own = law_text.text_names(list(frame.columns))
    line = estimator.right_sides(None)[0]
    symbols = {name: sympy.Symbol(name) for name in own}
    expression = sympy.sympify(line)
    unknown = {str(symbol) for symbol in expression.free_symbols} - set(symbols)
    if unknown:
        return {f"the text with the unknown {unknown}": np.full(len(frame), np.nan)}
    columns = [frame.iloc[:, d].to_numpy() for d in range(frame.shape[1])]
    text_function = sympy.lambdify([symbols[name] for name in own], expression, "numpy")
    module: dict[str, Any] = {}
    exec(estimator.to_python(), module)
    shape = np.zeros(len(frame))
    return {
        "the text": np.asarray(text_function(*columns)) + shape,
        "law.py": np.asarray(module["law"](*columns)) + shape,
    }


def run(part: str, every: int = 1) -> dict[str, int]:
    """How many cases of a part were right, refused and wrong; the wrong ones are printed."""
    counts = {"right": 0, "refused": 0, "wrong": 0}
    for k, case in enumerate(PARTS[part]()):
        if k % every:
            continue
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                said = wrong_with(case)
        except ValueError as error:
            raised_here = traceback.extract_tb(error.__traceback__)[-1].filename
            if "gradnas" not in raised_here:
                said = f"a ValueError of {raised_here}: {error}"
            else:
                counts["refused"] += 1
                print(f"refused {part}: {case.name}: {error}", flush=True)
                continue
        except Exception as error:  # noqa: BLE001  (that there is none is the question)
            said = f"{type(error).__name__}: {error}"
        counts["right" if said is None else "wrong"] += 1
        if said is not None:
            print(f"wrong {part}: {case.name}: {said}", flush=True)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", default=list(PARTS), help="words, names, scales")
    parser.add_argument("--every", type=int, default=1, help="only every so many-th case")
    options = parser.parse_args()
    torch.set_num_threads(1)
    wrong = 0
    for part in options.parts:
        began = time.process_time()
        counts = run(part, options.every)
        wrong += counts["wrong"]
        seconds = time.process_time() - began
        shown = ", ".join(f"{name} {count}" for name, count in counts.items())
        print(f"{part}: {sum(counts.values())} cases, {shown}; {seconds:.0f} CPU s", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
