"""What the search for laws is told and what it gives: settings, a law, a front of laws.

Legend: N points, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from sympy import Expr

from gradnas.config import check_numbers
from gradnas.gradients import ArchitectureGradient, FirstOrder
from gradnas.laws.engine.data import Loss
from gradnas.laws.formula import Formula, Kind
from gradnas.laws.primitives import (
    DEFAULT_WORDS,
    Primitive,
    resolve,
)
from gradnas.laws.symbolic import (
    neat,
    shortest,
    to_sympy,
    with_plain_symbols,
)
from gradnas.relaxations import Relaxation, Softmax


@dataclass(frozen=True)
class LawSettings:
    """How laws are looked for.

    Args:
        primitives: words (see `gradnas.laws.primitives.WORDS`) or `Primitive`s of one's own.
        kinds: what a node may be.
        nodes: number of intermediate nodes of the supernets and of the random graphs.
        proposals: "search": supernets are trained; "random": random graphs take their place (the
            baseline).
        restarts: supernets trained at once, or random graphs in their place.
        steps: training steps of a supernet.
        random_share: random graphs beside the supernets, as a share of `restarts`.
        enumerate: whether small graphs are enumerated: every product and every sum of two atoms is
            scored, for the target and for its simple transformations.
        improve: whether the best laws grow by the changes with the best scores.
        prune: whether laws are pruned by description length.
        relaxation, gradient, bilevel, output_in_closed_form: see
            `gradnas.laws.engine.supernets.SupernetSearch`.
        effort: multiplies restarts, the width of the growth and the work allowed; below 0.5 the
            other targets are left out. 1.0 is about 0.2 to 5 seconds for 100 points.
        work_seconds: what a search may do, in seconds that it takes about on one core for 100
            points; with more points (up to `max_points`) more in proportion. A stage that finds its
            share used up starts nothing new, and the supernets become fewer (at least 8), with a
            note. It is computed from the sizes of what is done and not read from a clock, so the
            same data and seed give the same laws on a fast machine and a slow one. None: no limit.
        max_seconds: seconds by the clock after which nothing new is started; the best law so far is
            the result. What is found then depends on the machine. None: no limit.
        max_points: with more rows than this, structures are looked for on a random subset of this
            size, and where there is noise, on three times as many; the constants of the laws that
            are returned, and the choice among them, come from up to ten times as many.
    """

    primitives: tuple[str | Primitive, ...] = DEFAULT_WORDS
    kinds: tuple[Kind, ...] = ("sum", "product", "ratio")
    nodes: int = 2
    proposals: Literal["search", "random"] = "search"
    restarts: int = 64
    steps: int = 100
    random_share: float = 0.5
    enumerate: bool = True
    improve: bool = True
    prune: bool = True
    relaxation: Relaxation = Softmax()
    gradient: ArchitectureGradient = FirstOrder()
    bilevel: bool = False
    output_in_closed_form: bool = True
    effort: float = 1.0
    max_points: int = 300
    work_seconds: float | None = 4.4
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        if self.proposals not in ("search", "random"):
            raise ValueError(f"proposals must be 'search' or 'random', not {self.proposals!r}")
        in_range = [
            self.restarts >= 0,
            self.nodes >= 1,
            self.steps >= 1,
            self.effort > 0,  # false for NaN, too
            self.max_points >= 10,
        ]
        if not all(in_range):
            raise ValueError(
                "restarts >= 0, nodes >= 1, steps >= 1, effort > 0 and max_points >= 10 are "
                f"needed, not restarts={self.restarts}, nodes={self.nodes}, steps={self.steps}, "
                f"effort={self.effort}, max_points={self.max_points}"
            )
        if self.work_seconds is not None and not self.work_seconds > 0:
            raise ValueError(
                f"work_seconds must be above 0, or None for no limit, not {self.work_seconds}"
            )
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(
                f"max_seconds must be above 0, or None for no limit, not {self.max_seconds}"
            )
        check_numbers(self)
        if not (self.enumerate or self.restarts):
            raise ValueError("without enumeration and restarts there is nothing to choose from")
        resolve(self.primitives)

    @staticmethod
    def plain_darts() -> LawSettings:
        """DARTS as published for equations: one supernet, and nothing beside it.

        Sums, softmax, argmax per edge, no enumeration, no pruning; the output is the plain sum of
        the nodes. What differs from autora-theorist-darts: its
        constants are fitted by SGD, ours by Levenberg-Marquardt, and it trains both levels on the
        same points.
        """
        return LawSettings(
            primitives=(
                "none",
                "add",
                "subtract",
                "linear",
                "linear_logistic",
                "mult",
                "linear_relu",
            ),
            kinds=("sum",),
            restarts=1,
            steps=300,
            random_share=0.0,
            enumerate=False,
            improve=False,
            prune=False,
            bilevel=True,
            output_in_closed_form=False,
            work_seconds=None,
        )


@dataclass(frozen=True)
class Law:
    """One law of the front.

    Attributes:
        formula: the discrete graph with its constants, in the units of the data.
        complexity: constants + operations.
        train_error: mean loss on all points (squared error, or cross entropy, or Poisson deviance /
            2).
        valid_error: the same by 5-fold cross-validation with the structure fixed and the constants
            refitted.
        description_length: `n ln MSE + (constants + operations) ln n`, plus a charge for the
            constants' size.
        agreement: how many of the refitted proposals ended in this law.
        has_pole: whether it runs off to infinity within the ranges of the features.
        rounding: errors below this are of rounding.
        measure: what the errors are, in words, where they are not those of `loss`.
        written: the law as it was given, where it was; in the names of the features.
    """

    formula: Formula
    complexity: int
    train_error: float
    valid_error: float
    description_length: float
    agreement: int
    loss: Loss = "squared"
    primitives: dict[str, Primitive] = field(default_factory=dict, repr=False)
    has_pole: bool = False
    rounding: float = 0.0
    measure: str = ""
    written: Expr | None = field(default=None, repr=False)

    def linear(self, x_ND: np.ndarray) -> np.ndarray:
        """The value of the formula.

        It is the mean, the log-odds (logistic), or the logarithm of the rate (poisson).
        """
        x = torch.as_tensor(np.asarray(x_ND, dtype=np.float64), device="cpu")
        return self.formula(x, self.primitives).numpy()

    def predict(self, x_ND: np.ndarray) -> np.ndarray:
        """The expected target: `linear` through the inverse link; NaN where it is undefined."""
        eta_N = self.linear(x_ND)
        if self.loss == "logistic":
            return 1.0 / (1.0 + np.exp(-eta_N))
        if self.loss == "poisson":
            return np.exp(eta_N)
        return eta_N

    def legend(self, digits: int | None = 4) -> list[str]:
        """Lines about the symbols of `expression` that are no features: none here."""
        del digits
        return []

    def expression(self, names: Sequence[str] | None = None, simplify_seconds: float = 1.0) -> Expr:
        """The formula (without the inverse link) as a sympy expression in the feature names.

        Its symbols are plain ones, as `sympy.Symbol(name)` makes them.

        Of a few ways to write it the shortest; those not found within `simplify_seconds` are left
        out.
        """
        if self.written is not None:
            return neat(self.written)
        written = shortest(to_sympy(self.formula, names, self.primitives), simplify_seconds)
        return neat(with_plain_symbols(written))


@dataclass(frozen=True)
class Laws:
    """A front of laws.

    Attributes:
        front: laws by rising complexity, each better than all simpler ones.
        best: the place in `front` of the simplest law whose description length is within 6 of the
            smallest.
        notes: sentences about what was done to the data or left out, for the user to read.
        counts: how many proposals came from where, how many restarts were dropped as non-finite.
        stopped: whether the search was ended by Ctrl-C.
        candidates: more formulas of short description, in the units of the data, where somebody
            asked for them.
        constants: the open constants of a given form, by name.
    """

    front: tuple[Law, ...]
    best: int
    notes: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)
    stopped: bool = False
    candidates: tuple[Formula, ...] = field(default=(), repr=False)
    constants: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class LawProgress:
    """What `on_progress` is called with.

    Attributes:
        share: of the search that is done, in [0, 1].
        stage: in words.
        best: the best formula so far, and its `error`.
    """

    share: float
    stage: str
    best: Formula | None
    error: float
