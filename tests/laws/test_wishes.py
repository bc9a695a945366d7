"""What is asked of laws beyond a search: forms, losses, constraints, groups, errors, languages."""

import ctypes
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest
import sympy
import torch
from scipy.optimize import curve_fit
from sklearn.base import clone

import gradnas
from gradnas.laws.comparison import compare
from gradnas.laws.convert import formula_of
from gradnas.laws.fitting import FormModel, Rows, fit_form, tensors, undetermined
from gradnas.laws.given import read_form
from gradnas.laws.losses import Absolute, Huber, Squared
from gradnas.laws.program import program_of
from gradnas.laws.sources import c_source, julia_source
from gradnas.laws.symbolic import to_sympy

Regressor = gradnas.EquationRegressor
Constraint = gradnas.Constraint
NAMES = ["x1", "x2", "x3"]
x = np.random.default_rng(0).uniform(0.5, 3.0, (80, 3))
FORMS = [
    "2*x1/(3 + x2) + 1",
    "max(x1, x2)*3 - min(x1, 2)",
    "max(x1, x2, x3)",
    "x1^x2 + 2**x1",
    "(2*x1 + 1)**0.3",
    "sqrt(x1**2 + x2**2)",
    "logistic(2*x1 - 3)*exp(x1)*exp(-x2)",
    "tan(x1/3) - sinh(x2)",
    "abs(x1 - x2)**1.5 + cbrt(x1 - 2)",
    "log10(x1*x2) + pi*x1**2",
    "1/(1/x1 + 1/x2)",
    "3",
    "x1 + max(2, x1*0)",
]


def saturating(noise: float = 0.02) -> np.ndarray:
    """2 x1 / (0.7 + x1) + 0.3 with noise."""
    y_N = 2 * x[:, 0] / (0.7 + x[:, 0]) + 0.3
    return y_N + noise * y_N.std() * np.random.default_rng(1).standard_normal(len(y_N))


# ---- forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_form_has_the_same_values_in_every_shape(form):
    expression = read_form(form, NAMES).expression
    compiled = sympy.lambdify(sympy.symbols(NAMES), expression, ["scipy", "numpy"])
    expected_N = compiled(*x.T) * np.ones(len(x))
    formula, table = formula_of(expression, NAMES)
    x_ND = torch.tensor(x)
    assert formula(x_ND, table).numpy() == pytest.approx(expected_N, rel=1e-12)
    program = program_of([expression], NAMES)
    values_NK = program(x_ND, torch.zeros(0, dtype=torch.float64))
    assert values_NK[:, 0].numpy() == pytest.approx(expected_N, rel=1e-12)
    again = sympy.lambdify(
        sympy.symbols(NAMES, real=True), to_sympy(formula, NAMES, table), ["scipy", "numpy"]
    )
    assert again(*x.T) * np.ones(len(x)) == pytest.approx(expected_N, rel=1e-12)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("a*x4", "only the features"),
        ("a*X1", "is no feature, but x1 is one"),
        ("a*foo(x1)", "no function foo"),
        ("__import__('os').system('true')", "cannot be read"),
        ("a*x1 if x1 else 2", "cannot be read"),
        ("[a*x1]", "cannot be read"),
        ("a*x1 = y = 2", "more than one side"),
        ("9**9**9", "too large"),
        ("a*x1/0", "divides by 0"),
        ("a*x1*1j", "no real number"),
        ("E*x1", "may mean"),
        ("sin", "needs an argument"),
        ("((((", "cannot be read"),
        ("-" * 5000 + "x1", "nested too deeply"),
        (7, "form is a text"),
    ],
)
def test_what_is_no_form_is_refused(form, words):
    with pytest.raises(ValueError, match=words):
        Regressor(form=form).fit(x, saturating())


def test_a_form_in_names_that_are_no_identifiers():
    frame = pd.DataFrame({"x-y": x[:, 0], "lambda": x[:, 1]})
    law = Regressor(form="a*x_y + b*lambda_").fit(frame, 2 * x[:, 0] - 3 * x[:, 1])
    assert law.constants_ == pytest.approx({"a": 2.0, "b": -3.0})
    assert law.to_python().splitlines()[3] == "def law(x_y, lambda_):"
    written = law.text().splitlines()[0].partition(" = ")[2]
    assert Regressor(form=written).fit(frame, 2 * x[:, 0] - 3 * x[:, 1]).score(
        frame, 2 * x[:, 0] - 3 * x[:, 1]
    ) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("form", "truth"),
    [
        ("a*exp(-b*x1) + c", lambda x: 2 * np.exp(-1.3 * x[:, 0]) + 5),
        ("a*x1**b*x2**c", lambda x: 1e5 * x[:, 0] ** 0.6 * x[:, 1] ** -2),
        ("a/(1 + exp(-(x1 - m)/s))", lambda x: 5 / (1 + np.exp(-(x[:, 0] - 2) / 0.1))),
    ],
)
def test_the_constants_of_a_form_are_found(form, truth):
    model = FormModel(read_form(form, NAMES))
    rows = Rows(*tensors(x, truth(x), np.ones(len(x))))
    fit = fit_form(model, rows, Squared(), seed=0)
    assert fit.loss < 1e-20 * rows.spread


def test_outliers_do_not_move_an_absolute_fit():
    y_N = saturating(0.0)
    y_N[::16] += 40.0
    model = FormModel(read_form("a*x1/(b + x1) + c", NAMES))
    rows = Rows(*tensors(x, y_N, np.ones(len(x))))
    absolute = fit_form(model, rows, Absolute(), seed=0)
    assert absolute.theta_P.tolist() == pytest.approx([2.0, 0.7, 0.3], rel=1e-6)
    huber = fit_form(model, rows, Huber(0.01), seed=0)
    assert huber.theta_P.tolist() == pytest.approx([2.0, 0.7, 0.3], rel=0.2)


def test_constants_that_the_rows_do_not_determine_are_named():
    law = Regressor(form="a*b*x1").fit(x, 3 * x[:, 0])
    assert any("do not determine b" in note for note in law.notes_)
    assert law.uncertainty().table.std_error.isna().tolist() == [False, True]


def test_a_form_that_is_undefined_is_refused():
    with pytest.raises(ValueError, match="undefined in some row"):
        Regressor(form="a*log(x1 - 1)").fit(x, saturating())


def test_a_form_for_counts_has_their_likelihood():
    counts = np.random.default_rng(0).poisson(np.exp(0.3 + 0.5 * x[:, 0]))
    law = Regressor(form="a + b*x1", output="counts").fit(x, counts)
    eta_N = law.laws_[0].front[0].linear(x)
    residual_N = counts - np.exp(eta_N)
    # Where the likelihood is largest its slopes are zero.
    assert residual_N.sum() == pytest.approx(0.0, abs=1e-6)
    assert (residual_N * x[:, 0]).sum() == pytest.approx(0.0, abs=1e-6)


def test_what_does_not_go_together_is_refused():
    y_N = saturating()
    for settings in (
        {"loss": "cubic"},
        {"loss": "huber", "output": "counts"},
        {"form": "a*x1", "start": "x1"},
        {"constraints": [Constraint.increasing("x9")]},
        {"constraints": ["increasing"]},
        {"constraints": [Constraint.positive()], "output": "counts"},
        {"loss": lambda prediction, target: 0.0, "form": "a*x1"},
        {"loss": lambda prediction, target: (prediction - target).mean(), "form": "a*x1"},
        {"loss": lambda prediction, target: torch.ones(1, 80), "form": "a*x1"},
        {"start": "erf(x1)"},
    ):
        with pytest.raises(ValueError, match=r"\w"):
            Regressor(**settings).fit(x, y_N)


def test_the_settings_are_cloned():
    law = Regressor(form="a*x1", loss="huber", constraints=[Constraint.positive()])
    assert clone(law).get_params() == law.get_params()


# ---- constraints ---------------------------------------------------------------------------------


def test_constraints_are_kept():
    parabola = 1.0 - (x[:, 0] - 2.0) ** 2
    form = "a*x1**2 + b*x1 + c"
    rising = Regressor(form=form, constraints=[Constraint.increasing("x1")]).fit(x, parabola)
    grid = np.tile(np.linspace(x[:, 0].min(), x[:, 0].max(), 300)[:, None], 3)
    assert (np.diff(rising.predict(grid)) >= -1e-5).all()
    positive = Regressor(form=form, constraints=[Constraint.positive()]).fit(x, parabola)
    assert positive.predict(grid).min() >= -1e-5
    convex = Regressor(form=form, constraints=[Constraint.convex("x1")]).fit(x, parabola)
    assert (np.diff(convex.predict(grid), 2) >= -1e-5).all()
    through = Regressor(form=form, constraints=[Constraint.at({"x1": 0.0}, 0.0)]).fit(x, parabola)
    assert through.predict([[0.0, 1.0, 2.0]])[0] == pytest.approx(0.0, abs=1e-5)
    assert any("nothing is proven" in note for note in rising.notes_)


@pytest.mark.parametrize("constraints", [None, Constraint.positive(), "positive", [None]])
def test_what_is_no_list_of_constraints_is_refused(constraints):
    with pytest.raises(ValueError, match="constraints are a list such as"):
        Regressor(constraints=constraints).fit(x, x[:, 0])


def test_constraints_that_cannot_be_kept_are_said():
    # A cosine of the whole range rises and falls, whatever its factor is.
    with pytest.raises(ValueError, match="cannot keep the constraints"):
        Regressor(form="2 - cos(3*x1)", constraints=[Constraint.increasing("x1")]).fit(
            x, saturating()
        )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_search_keeps_constraints():
    y_N = (x[:, 0] - 1.5) ** 2 + 0.02 * np.random.default_rng(0).standard_normal(80)
    law = Regressor(constraints=[Constraint.increasing("x1")], effort=0.05).fit(x[:, :1], y_N)
    grid = np.linspace(x[:, 0].min(), x[:, 0].max(), 300)[:, None]
    for place in range(len(law.laws_[0].front)):
        assert (np.diff(law.predict(grid, law=place)) >= -1e-5).all()


# ---- groups --------------------------------------------------------------------------------------


def test_constants_by_group():
    labels = np.repeat(["a", "b"], 40)
    factor = np.where(labels == "a", 1.0, 3.0)
    y_N = factor * x[:, 0] / (0.7 + x[:, 0])
    law = Regressor(form="v*x1/(k + x1)").fit(x, y_N, groups=labels)
    assert law.group_constants_.columns.tolist() == ["v"]
    assert law.group_constants_.v.tolist() == pytest.approx([1.0, 3.0], rel=1e-6)
    order = np.random.default_rng(0).permutation(80)
    assert law.predict(x[order], groups=labels[order]) == pytest.approx(y_N[order], rel=1e-6)
    one = law.of_group("b")
    assert one.predict(x[40:]) == pytest.approx(y_N[40:], rel=1e-6)
    assert "3*x1" in one.to_python() or "*x1" in one.to_python()
    with pytest.raises(ValueError, match="of_group"):
        law.to_c()
    with pytest.raises(ValueError, match="every row needs its group"):
        law.predict(x)
    with pytest.raises(ValueError, match="not there in fit"):
        law.predict(x[:1], groups=["c"])
    with pytest.raises(ValueError, match="has 1 rows"):
        Regressor(form="v*x1").fit(x, y_N, groups=["c", *labels[1:]])


# ---- errors of constants -------------------------------------------------------------------------


def test_errors_are_those_of_nonlinear_least_squares():
    y_N = saturating()
    law = Regressor(form="a*x1/(b + x1) + c").fit(x, y_N)
    values, covariance = curve_fit(
        lambda x, a, b, c: a * x / (b + x) + c, x[:, 0], y_N, p0=[1.0, 1.0, 0.0]
    )
    errors = law.uncertainty()
    assert errors.table.value.tolist() == pytest.approx(values.tolist(), rel=1e-5)
    assert errors.covariance == pytest.approx(covariance, rel=1e-3)
    drawn = law.uncertainty("bootstrap", samples=60).table
    assert drawn.std_error.tolist() == pytest.approx(errors.table.std_error.tolist(), rel=0.6)
    robust = Regressor(form="a*x1", loss="absolute").fit(x, y_N)
    with pytest.raises(ValueError, match="bootstrap"):
        robust.uncertainty("covariance")


def test_undetermined_constants_are_found():
    form = read_form("a*x1 + b*x1 + c", NAMES)
    rows = Rows(*tensors(x, x[:, 0], np.ones(len(x))))
    assert undetermined(FormModel(form), rows, torch.ones(3, dtype=torch.float64)) == [1]


# ---- other languages -----------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no C compiler")
def test_the_c_source_computes_the_law(tmp_path):
    expressions = [read_form(form, NAMES).expression for form in FORMS]
    names = ["double", "x-y", "*/ x"]
    symbols = dict(zip(sympy.symbols(NAMES), sympy.symbols(["double", "x-y"]), strict=False))
    symbols[sympy.Symbol("x3")] = sympy.Symbol("*/ x")
    renamed = [expression.xreplace(symbols) for expression in expressions]
    source = tmp_path / "law.c"
    source.write_text(c_source(renamed, names, ["y"]))
    library = tmp_path / "law.so"
    subprocess.run(
        ["gcc", "-std=c99", "-shared", "-fPIC", "-o", library, source, "-lm"], check=True
    )
    function = ctypes.CDLL(str(library)).law
    out = (ctypes.c_double * len(FORMS))()
    function.argtypes = [ctypes.c_double] * 3 + [type(out)]
    function(1.7, 0.9, 2.2, out)
    at = {"x1": 1.7, "x2": 0.9, "x3": 2.2}
    expected = [float(expression.subs(at)) for expression in expressions]
    assert list(out) == pytest.approx(expected, rel=1e-12)


def test_the_julia_source_computes_the_law():
    expressions = [read_form(form, NAMES).expression for form in FORMS]
    for expression in expressions:
        source = julia_source([expression], NAMES, ["y"])
        value = source.splitlines()[-2].removeprefix("    return ")
        # Numbers, operators and functions of Julia that Python writes alike, but for the power.
        known = {name: getattr(np, name) for name in ("exp", "log", "sqrt", "tan", "sinh", "sign")}
        known |= {"abs": abs, "max": max, "min": min, "pi": np.pi}
        got = eval(value.replace("^", "**"), known, {"x1": 1.7, "x2": 0.9, "x3": 2.2})
        expected = float(expression.subs({"x1": 1.7, "x2": 0.9, "x3": 2.2}))
        assert got == pytest.approx(expected, rel=1e-12)


def test_a_law_as_a_module_can_be_trained_and_exported(tmp_path):
    law = Regressor(form="a*x1/(b + x1) + c").fit(x, saturating())
    module = law.to_torch(dtype=torch.float64)
    x_ND = torch.tensor(x)
    assert module(x_ND).detach().numpy() == pytest.approx(law.predict(x), rel=1e-12)
    module(x_ND).sum().backward()
    assert torch.isfinite(module.constants.grad).all()
    assert module.constants.grad.shape == (3,)
    with pytest.raises(ValueError, match="features"):
        module(x_ND[:, :2])


def test_a_table_of_the_front_in_latex():
    law = Regressor(form="a*x1/(b + x1) + c").fit(x, saturating())
    table = law.latex_table()
    assert table.count(r"\\") == 2
    assert table.count("&") == 4 * 2
    assert table.count(r"$\star$") == 1


# ---- other models --------------------------------------------------------------------------------


def test_a_comparison_with_other_models():
    frame = pd.DataFrame(x, columns=NAMES)
    y_N = saturating()
    comparison = compare(Regressor(form="a*x1/(b + x1) + c"), frame, y_N, folds=3)
    assert comparison.table.index.tolist() == ["law", "linear", "gradient boosting"]
    assert comparison.table["least"]["law"] > 0.99
    assert comparison.table["size"]["linear"] == 4
    assert len(comparison.laws) == 3
