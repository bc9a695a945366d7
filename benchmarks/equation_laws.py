"""The laws that equation discovery is measured on: textbook laws, harder ones, development laws.

Settings and defaults were chosen on `DEVELOPMENT` alone; `CORE` and `HARD` are for reporting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import sympy

POINTS = 100
BEYOND = 0.25  # extrapolation: up to this share of a feature's range above its upper end


@dataclass(frozen=True)
class EquationLaw:
    """A law: its name, its formula in x1, x2, ..., and the range of each feature."""

    name: str
    formula: str
    ranges: tuple[tuple[float, float], ...]

    @property
    def names(self) -> list[str]:
        """The features."""
        return [f"x{i + 1}" for i in range(len(self.ranges))]

    @property
    def expression(self) -> sympy.Expr:
        """The truth, with exact numbers."""
        symbols = {name: sympy.Symbol(name, real=True) for name in self.names}
        return sympy.sympify(self.formula, locals=symbols, rational=True)

    def values(self, x_ND: np.ndarray) -> np.ndarray:
        """The truth without noise."""
        f = sympy.lambdify(self.names, self.expression, "numpy")
        return np.broadcast_to(np.asarray(f(*x_ND.T), dtype=float), (len(x_ND),))

    def sample(
        self, draw: int, noise: float, points: int = POINTS
    ) -> tuple[np.ndarray, np.ndarray]:
        """Uniform features, and the target.

        Args:
            draw: which of many draws of the data.
            noise: normal, as a share of the target's standard deviation.
        """
        generator = np.random.default_rng([draw, *self.name.encode()])
        low, high = np.array(self.ranges).T
        x_ND = generator.uniform(low, high, size=(points, len(low)))
        y_N = self.values(x_ND)
        return x_ND, y_N + noise * y_N.std() * generator.standard_normal(points)

    def beyond(self, points: int = 200) -> np.ndarray:
        """Features of which at least one lies up to 25% of its range above the upper end."""
        generator = np.random.default_rng([7, *self.name.encode()])
        low, high = np.array(self.ranges).T
        x_ND = generator.uniform(low, high, size=(points, len(low)))
        column = generator.integers(len(low), size=points)
        outside = high + BEYOND * (high - low) * generator.uniform(size=(points, len(low)))
        rows = np.arange(points)
        x_ND[rows, column] = outside[rows, column]
        return x_ND

    def within(self, points: int = 200) -> np.ndarray:
        """Fresh features inside the ranges."""
        generator = np.random.default_rng([8, *self.name.encode()])
        low, high = np.array(self.ranges).T
        return generator.uniform(low, high, size=(points, len(low)))


CORE = (
    EquationLaw("weber-fechner", "1.5*log(x1/x2)", ((0.5, 5.0), (0.5, 5.0))),
    EquationLaw("stevens", "2*x1**0.6", ((0.1, 10.0),)),
    EquationLaw("learning", "1 - 0.8*exp(-0.3*x1)", ((0.0, 10.0),)),
    EquationLaw("learning-from", "1 - (1 - x1)*exp(-0.3*x2)", ((0.0, 1.0), (0.0, 10.0))),
    EquationLaw("expected-value", "x1*x2", ((0.0, 5.0), (0.0, 1.0))),
    EquationLaw("forgetting", "2 + 6*exp(-0.5*x1)", ((0.0, 8.0),)),
    EquationLaw("linear", "2*x1 - 3*x2 + 1", ((-2.0, 2.0), (-2.0, 2.0))),
    EquationLaw("logistic", "1/(1 + exp(-(2*x1 - 1)))", ((-3.0, 3.0),)),
    EquationLaw("sine", "1.5*sin(2*x1 + 0.5)", ((-3.0, 3.0),)),
    EquationLaw("michaelis-menten", "2*x1/(0.5 + x1)", ((0.05, 5.0),)),
    EquationLaw("luce", "x1/(x1 + x2)", ((0.1, 5.0), (0.1, 5.0))),
    EquationLaw("tutorial", "2*x1 + exp(5*x2)", ((0.0, 1.0), (0.0, 1.0))),
)

HARD = (
    # Ten that were written to tell search strategies apart.
    EquationLaw("hill-ratio", "1/(1 + (x2/x1)**4)", ((0.5, 3.0), (0.5, 3.0))),
    EquationLaw("determinant", "x1*x2 - x3*x4", ((0.2, 3.0),) * 4),
    EquationLaw("discounting", "x1/(1 + 0.5*x2)", ((0.5, 5.0), (0.0, 10.0))),
    EquationLaw("prospect", "x1*x2**0.6", ((0.1, 5.0), (0.05, 1.0))),
    EquationLaw("damped", "exp(-0.3*x1)*sin(3*x1)", ((0.0, 5.0),)),
    EquationLaw("luce-three", "x1/(x1 + x2 + x3)", ((0.1, 5.0),) * 3),
    EquationLaw("gauss", "exp(-2*(x1 - 1)**2)", ((-1.0, 3.0),)),
    EquationLaw("gravity", "x1*x2/x3**2", ((0.5, 3.0), (0.5, 3.0), (0.8, 3.0))),
    EquationLaw("acquisition", "x1*(1 - exp(-0.5*x2))", ((0.2, 5.0), (0.0, 6.0))),
    EquationLaw("hill", "x1**2.5/(1 + x1**2.5)", ((0.05, 4.0),)),
    # From physics, psychology and biology.
    EquationLaw("fitts", "0.2 + 0.15*log(x1/x2 + 0.5)", ((1.0, 20.0), (0.5, 3.0))),
    EquationLaw("competitive-inhibition", "2*x1/(x1 + 0.5 + 0.4*x2)", ((0.1, 5.0), (0.0, 5.0))),
    EquationLaw("lorentz-factor", "(1 - x1**2)**(-0.5)", ((0.05, 0.75),)),
    EquationLaw("throw", "x1*x2 - 4.9*x2**2", ((5.0, 30.0), (0.1, 3.0))),
    EquationLaw("nernst", "0.5*x1*log(x2/x3)", ((1.0, 4.0), (0.5, 5.0), (0.5, 5.0))),
    EquationLaw("gompertz", "3*exp(-2*exp(-0.8*x1))", ((0.0, 6.0),)),
    EquationLaw("lens", "x1*x2/(x1 + x2)", ((0.5, 5.0), (0.5, 5.0))),
    EquationLaw("predation", "2*x1**1.5/(1 + x1**1.5) - 0.4*x2", ((0.1, 4.0), (0.1, 4.0))),
    EquationLaw("oscillator", "x1*cos(2*x2)*exp(-0.4*x2)", ((0.5, 3.0), (0.0, 5.0))),
    EquationLaw(
        "rescorla-wagner", "0.3*x1*(x2 - x3 - x4)", ((0.1, 1.0), (0.2, 2.0), (0.1, 1.0), (0.1, 1.0))
    ),
)

DEVELOPMENT = (
    EquationLaw("cooling", "x1 + (5 - x1)*exp(-0.4*x2)", ((0.5, 3.0), (0.0, 6.0))),
    EquationLaw("ideal-gas", "8.3*x1*x2/x3", ((0.5, 3.0), (1.0, 4.0), (0.5, 3.0))),
    EquationLaw("kinetic", "0.5*x1*x2**2", ((0.5, 5.0), (0.0, 4.0))),
    EquationLaw("hick", "0.3 + 0.2*log(x1 + 1)", ((0.5, 10.0),)),
    EquationLaw("practice", "0.5 + 2*x1**(-0.7)", ((1.0, 20.0),)),
    EquationLaw("kepler", "x1**1.5*x2**(-0.5)", ((0.5, 5.0), (0.5, 3.0))),
    EquationLaw("growth", "5/(1 + 9*exp(-1.2*x1))", ((0.0, 5.0),)),
    EquationLaw("holling", "x1*x2/(1 + 0.3*x1)", ((0.1, 8.0), (0.5, 3.0))),
    EquationLaw("lotka", "x1*(0.8 - 0.5*x2)", ((0.2, 4.0), (0.2, 4.0))),
    EquationLaw(
        "lorentz-force", "x1*(x2 + x3*sin(x4))", ((0.5, 2.0), (0.5, 3.0), (0.5, 3.0), (0.0, 3.0))
    ),
    EquationLaw("escape", "(2*x1/x2)**0.5", ((0.5, 5.0), (0.5, 5.0))),
    EquationLaw("planck", "x1**3/(exp(x1) - 1)", ((0.3, 6.0),)),
    EquationLaw(
        "discount-difference", "x1/(1 + 0.2*x2) - x3", ((0.5, 5.0), (0.0, 10.0), (0.2, 3.0))
    ),
    EquationLaw("two-compartments", "3*exp(-0.5*x1) - 2*exp(-2*x1)", ((0.0, 5.0),)),
    EquationLaw("parallel", "1/(1/x1 + 1/x2 + 1/x3)", ((0.5, 5.0),) * 3),
    EquationLaw("hardy-weinberg", "x1**2 + 2*x1*x2", ((0.0, 1.0), (0.0, 1.0))),
    EquationLaw("diffraction", "sin(3*x1)/x1", ((0.2, 4.0),)),
    EquationLaw("arrhenius", "x1*exp(-2/x2)", ((0.5, 3.0), (0.5, 4.0))),
    EquationLaw("morse", "(1 - exp(-1.2*(x1 - 1)))**2", ((0.4, 4.0),)),
    EquationLaw("distance", "(x1**2 + x2**2)**0.5", ((0.2, 3.0), (0.2, 3.0))),
    EquationLaw("cosines", "x1**2 + x2**2 - 2*x1*x2*cos(x3)", ((0.5, 3.0), (0.5, 3.0), (0.2, 3.0))),
    EquationLaw("dot", "x1*x2 + x3*x4", ((-2.0, 2.0),) * 4),
    EquationLaw("choice", "1/(1 + exp(2*x2 - 3*x1))", ((-1.0, 1.0), (-1.0, 1.0))),
    EquationLaw("plummer", "(1 + x1**2)**(-1.5)", ((0.0, 3.0),)),
    EquationLaw("fall", "2*tanh(0.7*x1)", ((0.0, 4.0),)),
    EquationLaw("doppler", "x1*(3 + x2)/(3 - x3)", ((0.5, 3.0), (0.0, 1.5), (0.0, 1.5))),
    EquationLaw("neutral", "x1*x2/(x1 + x2 + 0.5)", ((0.2, 4.0), (0.2, 4.0))),
    EquationLaw("discriminability", "(x1 - x2)/x3**0.5", ((0.0, 3.0), (0.0, 3.0), (0.3, 3.0))),
    EquationLaw("wave", "2*sin(x1 - 3*x2)", ((0.0, 4.0), (0.0, 2.0))),
    EquationLaw("tide", "1.2*x1*sin(2*x2) + 0.5*x3", ((0.3, 2.0), (0.0, 4.0), (0.0, 2.0))),
)
