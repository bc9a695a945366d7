"""Public sets of laws, as `equations.py public` runs them, and the judge of accuracy.

A set is a file of the layout of Feynman's laws: for each law its formula (`prepared`, in v1, v2,
...) and, for each variable, the range and the kind of distribution its values are drawn from.

A law counts as recovered where it agrees with the truth to 1e-4 on 1,000 fresh points (relative, or
near a zero of the truth to its largest value) and where the tree of its expression has at most
twice the nodes of the truth's and four. From rows with noise the best possible constants are off by
more: there the form counts, which agrees to 1e-3 with its constants refitted to the truth and is,
as printed, off by less than 12% of the truth's largest value.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import sympy
from equation_judge import NOISY_LIMIT, refitted, size, values

FRESH = 1000
AGREES = 1e-4
POINTS = 100
NEAR_ZERO = 1e-2  # of the largest value of the truth: smaller values are compared with this


@dataclass(frozen=True)
class PublicLaw:
    """One law of a public set.

    Attributes:
        formula: in x1, x2, ...
        ranges: of each feature.
        kinds: how each feature is drawn: a distribution ("uni", "log", "int") and a sign ("pos",
            "neg", "pos_neg").
    """

    name: str
    formula: str
    ranges: tuple[tuple[float, float], ...]
    kinds: tuple[tuple[str, ...], ...]

    @property
    def names(self) -> list[str]:
        """The features."""
        return [f"x{i + 1}" for i in range(len(self.ranges))]

    @property
    def expression(self) -> sympy.Expr:
        """The truth."""
        symbols = {name: sympy.Symbol(name) for name in self.names}
        return sympy.sympify(self.formula, locals=symbols)

    def values(self, x_ND: np.ndarray) -> np.ndarray:
        """The truth without noise."""
        return values(self.expression, self.names, x_ND)

    def features(self, points: int, seed: int) -> np.ndarray:
        """`(N, D)` features, drawn as the set says."""
        generator = np.random.default_rng([seed, *self.name.encode()])
        columns: list[np.ndarray] = []
        for (low, high), kind in zip(self.ranges, self.kinds, strict=True):
            columns.append(_drawn(generator, low, high, kind, points))
        return np.column_stack(columns)

    def sample(
        self, draw: int, noise: float, points: int = POINTS
    ) -> tuple[np.ndarray, np.ndarray]:
        """Features and target; the noise is a share of the target's standard deviation."""
        x_ND = self.features(points, draw)
        y_N = values(self.expression, self.names, x_ND)
        generator = np.random.default_rng([draw, 99, *self.name.encode()])
        return x_ND, y_N + noise * y_N.std() * generator.standard_normal(points)


def _drawn(
    generator: np.random.Generator, low: float, high: float, kind: tuple[str, ...], points: int
) -> np.ndarray:
    if "log" in kind or "log_uni" in kind:
        drawn_N = 10.0 ** generator.uniform(np.log10(low), np.log10(high), points)
    elif "int" in kind:
        drawn_N = generator.integers(int(low), int(high) + 1, points).astype(float)
    else:
        drawn_N = generator.uniform(low, high, points)
    if "pos_neg" in kind:
        drawn_N = drawn_N * generator.choice([-1.0, 1.0], points)
    elif "neg" in kind:
        drawn_N = -drawn_N
    return drawn_N


def public_laws(path: Path) -> list[PublicLaw]:
    """The laws of a file.

    Raises:
        ValueError: the file is not there, or has another layout.
    """
    import yaml

    if not path.is_file():
        raise ValueError(f"there is no set of laws at {path}; name a file with --file")
    content: dict[str, Any] = yaml.safe_load(path.read_text())
    laws: list[PublicLaw] = []
    for name, entry in content["expressions"].items():
        laws.append(_read(str(name), entry))
    return laws


def _read(name: str, entry: dict[str, Any]) -> PublicLaw:
    variables = entry["vars"]
    count = int(entry["n_variables"])
    ranges: list[tuple[float, float]] = []
    kinds: list[tuple[str, ...]] = []
    for i in range(1, count + 1):
        low, high = variables[f"v{i}"]["sample_range"]
        ranges.append((float(low), float(high)))
        kinds.append(tuple(variables[f"v{i}"].get("sample_type", ("uni", "pos"))))
    # From the last to the first: v1 is a part of v10.
    formula = str(entry["prepared"])
    for i in range(count, 0, -1):
        formula = formula.replace(f"v{i}", f"x{i}")
    return PublicLaw(name, formula, tuple(ranges), tuple(kinds))


@dataclass(frozen=True)
class PublicVerdict:
    """How far a law is off, how large it is beside the truth, and whether its form is right."""

    error: float
    nodes: int
    truth_nodes: int
    form: bool = False

    @property
    def strict(self) -> bool:
        """By the constants as printed."""
        return self.error < AGREES and self.nodes <= 2 * self.truth_nodes + 4

    @property
    def recovered(self) -> bool:
        return self.strict or self.form


def judged(expression: sympy.Expr, law: PublicLaw, draw: int, noise: float = 0.0) -> PublicVerdict:
    """Whether an expression in x1, x2, ... is the law, on fresh points of its distribution."""
    x_ND = law.features(FRESH, 10_000 + draw)
    truth_N = law.values(x_ND)
    largest = np.abs(truth_N).max()

    def distance(other: sympy.Expr, beside: np.ndarray) -> float:
        gap_N = np.abs(values(other, law.names, x_ND) - truth_N)
        return float((gap_N / beside).max()) if np.isfinite(gap_N).all() else float("inf")

    unit_N = np.maximum(np.abs(truth_N), NEAR_ZERO * largest)
    verdict = PublicVerdict(distance(expression, unit_N), size(expression), size(law.expression))
    is_short = verdict.nodes <= 2 * verdict.truth_nodes + 4
    if noise > 0 and is_short and distance(expression, largest) < NOISY_LIMIT:
        right = refitted(expression, law, x_ND, lambda other: distance(other, unit_N))
        verdict = replace(verdict, form=right)
    return verdict
