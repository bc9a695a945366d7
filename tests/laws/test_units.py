"""Laws of quantities with units, and the symmetries that a search tests on the data."""

import numpy as np
import pytest
import sympy
import torch

import gradnas
from gradnas.laws.dimensions import dimensions, unit_exponents
from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.reductions import reduced
from gradnas.laws.engine.residuals import is_noise
from gradnas.laws.primitives import PRIMITIVES


def uniform(features: int, points: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(1.0, 5.0, (points, features))


def test_units_are_read():
    assert unit_exponents("N", "x") == {"mass": 1, "length": 1, "time": -2}
    assert unit_exponents("kg*m/s^2", "x") == unit_exponents("N", "x")
    assert unit_exponents("km/hour", "x") == unit_exponents("m/s", "x")
    assert unit_exponents("m**-0.5", "x") == {"length": sympy.Rational(-1, 2)}
    assert unit_exponents("1", "x") == {} and unit_exponents("rad", "x") == {}


@pytest.mark.parametrize(
    ("unit", "says"),
    [
        ("degC", "zero of its own"),
        ("foo", "unknown word"),
        ("m+s", "no product"),
        ("m/(", "cannot be read"),
        ("m[0]", "cannot be read"),
        ("__import__('os')", "cannot be read"),
    ],
)
def test_what_is_no_unit_is_refused(unit, says):
    with pytest.raises(ValueError, match=says):
        unit_exponents(unit, "x1")


def test_products_without_a_unit():
    x_ND = uniform(2)
    found = dimensions(["m", "m/s**2"], "s", ["length", "gravity"], x_ND)
    assert found.groups == ()
    np.testing.assert_allclose(found.scale(x_ND), np.sqrt(x_ND[:, 0] / x_ND[:, 1]))
    found = dimensions(["kg", "kg", "m"], "kg", ["a", "b", "r"], uniform(3))
    assert len(found.groups) == 1  # a/b or b/a; the length is of no use to a mass
    with pytest.raises(ValueError, match="no product of powers"):
        dimensions(["m", "s"], "kg", ["a", "b"], x_ND)


@pytest.mark.slow
def test_a_law_keeps_its_units():
    x_ND = uniform(4)
    truth_N = x_ND[:, 0] * x_ND[:, 2] ** 2 + 3.0 * x_ND[:, 1] * x_ND[:, 2] * x_ND[:, 3]
    units = {"x1": "kg", "x2": "kg", "x3": "m/s", "x4": "m/s"}
    estimator = gradnas.EquationRegressor(units=units, target_unit="J").fit(x_ND, truth_N)
    np.testing.assert_allclose(estimator.predict(x_ND), truth_N, rtol=1e-6)
    assert "products without a unit" in estimator.notes_[0]
    k = 7.0  # a change of units changes the law as a whole
    names = sympy.symbols("x1:5")
    in_grams = estimator.equation_.subs({names[0]: k * names[0], names[1]: k * names[1]})
    assert sympy.simplify(in_grams - k * estimator.equation_).subs(
        dict(zip(names, (1.1, 2.2, 3.3, 1.7), strict=True))
    ) == pytest.approx(0.0, abs=1e-8)


def test_units_that_do_not_fit_are_refused():
    x_ND = uniform(2, 20)
    y_N = x_ND[:, 0]
    with pytest.raises(ValueError, match="belong together"):
        gradnas.EquationRegressor(units={"x1": "m", "x2": "m"}).fit(x_ND, y_N)
    with pytest.raises(ValueError, match="no unit of x2"):
        gradnas.EquationRegressor(units={"x1": "m"}, target_unit="m").fit(x_ND, y_N)
    with pytest.raises(ValueError, match="no product of powers"):
        gradnas.EquationRegressor(units={"x1": "m", "x2": "m"}, target_unit="s").fit(x_ND, y_N)


# ---- symmetries ----------------------------------------------------------------------------------


def of_size_1(x_ND: np.ndarray, y_N: np.ndarray) -> tuple[LawData, list[float]]:
    scales = np.abs(x_ND).max(0)
    x_DN = torch.tensor(x_ND / scales).T
    y = torch.tensor(y_N / np.abs(y_N).max())
    return LawData(x_DN, y, torch.ones_like(y)), list(scales)


@pytest.mark.parametrize(
    ("law", "left"),
    [
        (lambda a, b, c, d: a * np.sin(b - c) / d, 1),
        (lambda a, b, c, d: np.exp(-a * b / (c * d)), 1),
        (lambda a, b, c, d: a + b**2 * c - np.sin(c * d) * b, None),
    ],
)
def test_symmetries_leave_fewer_features(law, left):
    x_ND = uniform(4, 100)
    y_N = law(*x_ND.T)
    data, scales = of_size_1(x_ND, y_N)
    found = reduced(data, scales, float(np.abs(y_N).max()), range(4), [*PRIMITIVES, "power"])
    if left is None:
        assert found is None or len(found.sources) > 1
    else:
        assert found is not None and len(found.sources) == left


def test_noise_is_told_from_a_misfit():
    x_ND = uniform(2, 100)
    data, _ = of_size_1(x_ND, x_ND[:, 0] * x_ND[:, 1])
    noise_N = torch.tensor(np.random.default_rng(1).standard_normal(100))
    misfit_N = torch.sin(3.0 * data.x_DN[0]) * data.x_DN[1]
    assert is_noise(data, noise_N, seed=0)
    assert not is_noise(data, misfit_N - misfit_N.mean(), seed=0)
