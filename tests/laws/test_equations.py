"""The scikit-learn estimators: its own checks, printed laws that compute alike, bad input."""

from __future__ import annotations

import ast
import pickle
import re
import runpy
import sys
import warnings

import matplotlib.figure
import numpy as np
import pandas
import pytest
import sympy
from cases import ROOT
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import check_estimator
from sympy.parsing.latex import parse_latex

from gradnas import (
    EquationClassifier,
    EquationRegressor,
    LawSettings,
    Primitive,
)
from gradnas.laws import estimator as equation_estimator
from gradnas.laws import text as law_text
from gradnas.laws.discover import (
    Law,
    Laws,
)
from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
)
from gradnas.laws.graph_picture import graph_figure
from gradnas.laws.pictures import (
    typeset,
)
from gradnas.laws.primitives import PRIMITIVES

# For data of a few rows: the checks of scikit-learn fit dozens of times
QUICK = {
    "settings": LawSettings(restarts=4, steps=10, nodes=1),
    "effort": 0.02,
    "primitives": ["linear", "linear_exp"],
}
NAMES = ["x1", "dose", "T"]
X = np.random.default_rng(0).uniform(0.2, 3.0, (40, 3))


def front(*formulas, loss="squared"):
    """A front of hand-made laws, the last of them chosen."""
    laws = [
        Law(f, 3 + i, 0.1 / (i + 1), 0.2, -float(i), i + 1, loss, PRIMITIVES)
        for i, f in enumerate(formulas)
    ]
    return Laws(tuple(laws), len(laws) - 1)


def one(kind, *edges, weight=1.2345678901234567, bias=-0.1):
    return Formula(3, (Node(kind, edges),), (weight,), bias)


# Of functions that are defined between -1 and 1.
CONSTANTS = {"asin": (0.16543210987654321, 0.1), "acos": (0.16543210987654321, 0.1)}
FORMULAS = {
    **{
        name: one(
            "sum", Edge(0, name, *CONSTANTS.get(name, (0.7654321098765432, 0.30000000000000004)))
        )
        for name in PRIMITIVES
        if name not in ("identity",)
    },
    "power": one("sum", Edge(1, "power", 0.6180339887498949, 0.1)),
    "product": one(
        "product", Edge(0, "identity", 2.0), Edge(1, "exp", -1 / 3), Edge(2, "ln", 1.0, 1.0)
    ),
    "ratio": one(
        "ratio",
        Edge(0, "identity"),
        Edge(0, "identity", below=True),
        Edge(2, "power", 2.5, below=True),
    ),
    "scales": one(
        "sum", Edge(0, "identity", 3.3e-9), Edge(1, "exp", 2.2e-7), weight=4.4e8, bias=1.7e7
    ),
    "nested": Formula(
        3,
        (
            Node("sum", (Edge(0, "square"), Edge(1, "identity", -0.5))),
            Node("sum", (Edge(3, "tanh", 0.3, 0.2),)),
        ),
        (0.0, 7.0),
        0.25,
    ),
    "powers of functions": Formula(
        3, (Node("sum", (Edge(0, "ln"),)), Node("sum", (Edge(3, "square"),))), (0.0, 2.0)
    ),
    "constant": Formula(3, (), (), 2.5),
}


@pytest.fixture
def fixed(monkeypatch):
    """Let `fit` find the given fronts, one after the other."""

    def use(*fronts):
        found = iter(fronts)
        monkeypatch.setattr(equation_estimator, "discover_laws", lambda *arguments: next(found))

    return use


def from_sympy(expressions, names, x):
    symbols = [sympy.Symbol(name) for name in names]
    return [
        np.broadcast_to(sympy.lambdify(symbols, expression)(*x.T), len(x))
        for expression in expressions
    ]


def from_python(source, x):
    space = {}
    exec(compile(source, "law.py", "exec"), space)
    found = space["law"](*x.T)
    return list(found) if isinstance(found, tuple) else [found]


def from_latex(line, names, x):
    """Reads LaTeX with sympy's own parser.

    Names of several letters, which it does not know, become w_1, w_2, ...
    """
    for i, name in enumerate(names):
        if (written := law_text.latex_name(name)).startswith(r"\mathrm"):
            line = line.replace(written, f"w_{{{i + 1}}}")
    found = parse_latex(line, backend="antlr").xreplace({sympy.Symbol("e"): sympy.E})
    found = found.replace(sympy.Function("max"), sympy.Max)
    found = found.replace(sympy.Function("min"), sympy.Min)
    symbols = {
        sympy.Symbol(s): sympy.Symbol(f"v{i}")
        for i, name in enumerate(names)
        for s in (law_text.latex_name(name), f"w_{{{i + 1}}}")
    }
    values = sympy.lambdify([f"v{i}" for i in range(len(names))], found.xreplace(symbols).doit())(
        *x.T
    )
    return np.broadcast_to(values, len(x))


def assert_all_forms_agree(estimator, expected_NK, names, x, read_latex=True):
    """sympy, Python and LaTeX compute what the estimator predicts, to 1e-9."""
    lines = estimator.latex().splitlines()
    with np.errstate(all="ignore"):
        forms = {
            "sympy": from_sympy(estimator.equations_, names, x),
            "python": from_python(estimator.to_python(), x),
        }
        if read_latex:
            forms["latex"] = [from_latex(line, names, x) for line in lines]
    for form, values in forms.items():
        assert len(values) == expected_NK.shape[1]
        for value, expected in zip(values, expected_NK.T, strict=True):
            np.testing.assert_allclose(value, expected, rtol=1e-9, atol=1e-12, err_msg=form)


# ---- scikit-learn --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator", [EquationRegressor(**QUICK), EquationClassifier(**QUICK)], ids=["real", "class"]
)
def test_all_checks_of_scikit_learn(estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = check_estimator(estimator, on_fail=None)
    failed = [(r["check_name"], r["exception"]) for r in results if r["status"] == "failed"]
    assert not failed
    assert sum(r["status"] == "passed" for r in results) >= 55


def test_pipeline_grid_search_cross_validation_clone_and_pickle():
    x = np.random.default_rng(1).uniform(0.5, 3.0, (60, 1))
    y = 2.0 * x[:, 0] + 1.0
    pipeline = make_pipeline(FunctionTransformer(), EquationRegressor(**QUICK))
    grid = GridSearchCV(pipeline, {"equationregressor__max_complexity": [1, None]}, cv=2).fit(x, y)
    assert grid.best_params_ == {"equationregressor__max_complexity": None}
    assert grid.best_score_ > 0.999
    assert cross_val_score(EquationRegressor(**QUICK), x, y, cv=2).min() > 0.999
    fitted = grid.best_estimator_[-1]
    again = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(again.predict(x), fitted.predict(x))
    assert again.equation_ == fitted.equation_ and again.pareto_.equals(fitted.pareto_)
    fresh = clone(fitted)
    assert not hasattr(fresh, "equation_") and not hasattr(fresh, "laws_")
    assert fresh.fit(x, y).equation_ == fitted.equation_


# ---- printed laws --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMULAS)
def test_every_form_of_a_law_computes_what_predict_does(fixed, name):
    fixed(front(FORMULAS["constant"], FORMULAS[name]))
    frame = pandas.DataFrame(X, columns=NAMES)
    estimator = EquationRegressor().fit(frame, X[:, 0])
    expected = FORMULAS[name](__import__("torch").tensor(X)).numpy()
    np.testing.assert_array_equal(estimator.predict(frame), expected)
    # What the reader of LaTeX does not know: bars of an absolute value, the sign of a cube root.
    assert_all_forms_agree(
        estimator, expected[:, None], NAMES, X, read_latex=name not in ("abs", "cbrt")
    )
    typeset([estimator.latex(4)], [estimator.text()])
    assert isinstance(
        graph_figure(estimator.laws_[0].front[1], NAMES, "y"), matplotlib.figure.Figure
    )
    ast.parse(estimator.to_python())
    # exact constants in the front's table too, in a notation that sympy reads
    text = estimator.pareto_.equation.iloc[-1]
    values = sympy.lambdify(NAMES, sympy.sympify(text, {n: sympy.Symbol(n) for n in NAMES}))(*X.T)
    np.testing.assert_allclose(np.broadcast_to(values, 40), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("output, loss", [("probability", "logistic"), ("counts", "poisson")])
def test_links_are_part_of_the_printed_law(fixed, output, loss):
    fixed(front(FORMULAS["tanh"], FORMULAS["ratio"], loss=loss))
    estimator = EquationRegressor(output=output).fit(X, X[:, 0] / 4)
    eta = estimator.laws_[0].front[1].linear(X)
    expected = 1 / (1 + np.exp(-eta)) if output == "probability" else np.exp(eta)
    np.testing.assert_allclose(estimator.predict(X), expected, rtol=1e-12)
    assert_all_forms_agree(estimator, expected[:, None], ["x1", "x2", "x3"], X)
    assert_all_forms_agree_for_law = estimator.predict(X, law=0)
    assert not np.allclose(assert_all_forms_agree_for_law, expected)


@pytest.mark.slow
def test_classes_are_the_softmax_of_their_laws(fixed):
    fixed(*(front(FORMULAS[name], loss="logistic") for name in ("tanh", "ratio", "sin")))
    labels = np.array(["a", "b", "c"])[np.arange(40) % 3]
    estimator = EquationClassifier().fit(X, labels)
    expected = 1 / (
        1 + np.exp(-np.column_stack([laws.front[0].linear(X) for laws in estimator.laws_]))
    )
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_allclose(estimator.predict_proba(X), expected, rtol=1e-12)
    assert (estimator.predict(X) == estimator.classes_[expected.argmax(1)]).all()
    assert_all_forms_agree(estimator, expected, ["x1", "x2", "x3"], X)
    assert (
        estimator.left_sides() == ["P(y=a)", "P(y=b)", "P(y=c)"] and len(estimator.log_odds_) == 3
    )
    with pytest.raises(AttributeError, match="equations_"):
        _ = estimator.equation_
    estimator.plot(output=1)


def test_two_classes_have_one_law(fixed):
    fixed(front(FORMULAS["tanh"], loss="logistic"))
    estimator = EquationClassifier().fit(
        pandas.DataFrame(X, columns=NAMES), pandas.Series(X[:, 0] > 1, name="seen")
    )
    proba = estimator.predict_proba(pandas.DataFrame(X, columns=NAMES))
    assert_all_forms_agree(estimator, proba[:, 1:], NAMES, X)
    assert estimator.text().startswith("P(seen=True) = 1/(")


def test_several_outputs(fixed):
    fixed(front(FORMULAS["tanh"]), front(FORMULAS["constant"], FORMULAS["ratio"]))
    y = pandas.DataFrame({"force": X[:, 0], "work": X[:, 1]})
    estimator = EquationRegressor().fit(pandas.DataFrame(X, columns=NAMES), y)
    found = estimator.predict(pandas.DataFrame(X, columns=NAMES))
    assert found.shape == (40, 2)
    assert_all_forms_agree(estimator, found, NAMES, X)
    assert list(estimator.pareto_.target) == ["force", "work", "work"]
    with pytest.raises(ValueError, match="several outputs"):
        estimator.predict(pandas.DataFrame(X, columns=NAMES), law=0)


def test_awkward_names_of_columns(fixed):
    names = ["reaction time (ms)", "lambda", "50%_dose $x$ \\ü"]
    fixed(
        front(Formula(3, (Node("product", tuple(Edge(d, "identity") for d in range(3))),), (2.0,)))
    )
    frame = pandas.DataFrame(X, columns=names)
    estimator = EquationRegressor().fit(frame, pandas.Series(X[:, 0], name='say "it" """'))
    (found,) = from_python(estimator.to_python(), X)
    np.testing.assert_allclose(found, 2.0 * X.prod(1), rtol=1e-12)
    assert estimator.latex().count(r"\mathrm") == 2 and r"\lambda" in estimator.latex()
    line = f"{estimator.left_sides(latex=True)[0]} = {estimator.latex()}"
    typeset([line], [estimator.text()])
    estimator.plot(), estimator.draw()


def test_the_front_the_choice_and_the_pictures(fixed, tmp_path):
    fixed(front(FORMULAS["constant"], FORMULAS["tanh"], FORMULAS["ratio"]))
    estimator = EquationRegressor().fit(X, X[:, 0])
    table = estimator.pareto_
    assert list(table.columns) == [
        "complexity",
        "train_error",
        "valid_error",
        "description_length",
        "agreement",
        "chosen",
        "equation",
    ]
    assert list(table.chosen) == [False, False, True]
    assert estimator.set_params(max_complexity=4).equation_ == estimator.formula(0, 1)
    with pytest.raises(ValueError, match="complexity of 3"):
        _ = estimator.set_params(max_complexity=2).equation_
    estimator.set_params(max_complexity=None)
    assert "3 proposals ended in the chosen law, 3 in other" in estimator.stability_
    for suffix, start in (("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")):
        for draw in (estimator.plot, estimator.draw):
            path = draw(path=tmp_path / f"law.{suffix}")
            first = path.read_bytes()
            assert first.startswith(start)
            assert draw(path=path).read_bytes() == first
    with pytest.raises(ValueError, match=r"\.svg"):
        estimator.plot(path=tmp_path / "law.svgg")
    with pytest.raises(ValueError, match="both X and y"):
        estimator.plot(X)
    with pytest.raises(ValueError, match="the front has 3"):
        estimator.predict(X, law=3)


def test_a_law_that_is_undefined_says_so(fixed):
    fixed(front(FORMULAS["ln"]))
    estimator = EquationRegressor().fit(X, X[:, 0])
    wide = np.array([[-9.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    with pytest.warns(UserWarning, match="undefined in 1 of 2 rows"):
        found = estimator.predict(wide)
    assert np.isnan(found[0]) and np.isfinite(found[1])
    fixed(front(FORMULAS["ln"], loss="logistic"))
    classifier = EquationClassifier().fit(X, np.arange(40) % 4 == 0)
    with pytest.warns(UserWarning, match="undefined"):
        np.testing.assert_allclose(classifier.predict_proba(wide)[0], [0.75, 0.25])


def test_a_primitive_without_a_numpy_form_is_refused_with_a_sentence(fixed):
    import torch

    own = Primitive("bump", lambda z: torch.exp(-z * z), symbol=lambda z: sympy.Function("bump")(z))
    law = Law(
        one("sum", Edge(0, "bump")), 3, 0.1, 0.1, 0.0, 1, "squared", {**PRIMITIVES, "bump": own}
    )
    fixed(Laws((law,), 0))
    estimator = EquationRegressor(primitives=[own]).fit(X, X[:, 0])
    with pytest.raises(ValueError, match="cannot be written with NumPy"):
        estimator.to_python()


# ---- input ---------------------------------------------------------------------------------------

FRAME = pandas.DataFrame(X, columns=NAMES)


@pytest.mark.parametrize(
    "x, y, options, words",
    [
        (
            FRAME.assign(dose=np.where(X[:, 1] > 2.5, np.nan, X[:, 1])),
            X[:, 0],
            {},
            ["'dose'", "NaN"],
        ),
        (FRAME.assign(T=np.where(X[:, 2] > 2.9, np.inf, X[:, 2])), X[:, 0], {}, ["'T'", "inf"]),
        (np.where(X > 2.95, np.nan, X), X[:, 0], {}, ["x", "NaN"]),
        (FRAME.assign(who="ann", when="mon"), X[:, 0], {}, ["'who'", "'when'", "text", "'ann'"]),
        (pandas.concat([FRAME, FRAME[["dose"]]], axis=1), X[:, 0], {}, ["same name", "'dose'"]),
        (FRAME, np.full(40, 3.25), {}, ["the same value, 3.25", "every row"]),
        (FRAME, np.where(X[:, 0] > 2, np.nan, 1.0), {}, ["NaN"]),
        (FRAME * 0, X[:, 0], {}, ["every feature has the same value"]),
        (FRAME[:1], X[:1, 0], {}, ["1 sample"]),
        (FRAME[:4], X[:4, 0], {}, ["4 rows", "2 parameters", "at least 5 rows"]),
        (FRAME, X[:, 0], {"output": "count"}, ["output must be one of", "counts"]),
        (FRAME, X[:, 0], {"output": "probability"}, ["from 0 to 1"]),
        (FRAME, X[:, 0] - 1, {"output": "counts"}, ["at least 0"]),
        (FRAME, X[:, 0], {"primitives": "exp"}, ["list of words"]),
        (FRAME, X[:, 0], {"primitives": ["linear_expp"]}, ["linear_expp", "linear_exp"]),
        (FRAME, X[:, 0], {"settings": 3}, ["LawSettings", "int"]),
    ],
)
@pytest.mark.filterwarnings("ignore:.*same value in every row")
def test_bad_input_is_refused_with_a_sentence(x, y, options, words):
    with pytest.raises(ValueError) as error:
        EquationRegressor(**{**QUICK, **options}).fit(x, y)
    for word in words:
        assert word in str(error.value)


def test_one_class_and_zero_weights_are_refused():
    with pytest.raises(ValueError, match="one class"):
        EquationClassifier(**QUICK).fit(X, np.ones(40))
    with pytest.raises(ValueError, match="one class"):
        EquationClassifier(**QUICK).fit(X, np.arange(40) % 2, sample_weight=np.arange(40) % 2)
    with pytest.raises(ValueError, match="zero"):
        EquationRegressor(**QUICK).fit(X, X[:, 0], sample_weight=np.zeros(40))


def test_a_constant_feature_is_left_out_with_a_word(fixed):
    x = FRAME.assign(dose=1.0)
    with pytest.warns(UserWarning, match="dose: the same value in every row"):
        estimator = EquationRegressor(**QUICK).fit(x, X[:, 0])
    assert "dose" not in {s.name for s in estimator.equation_.free_symbols}
    assert any("dose" in note for note in estimator.notes_)


def test_rows_are_merged_and_sorted_so_order_and_repetition_do_not_count(monkeypatch):
    seen = []

    def record(x, y, settings, weights, loss, seed, show, names):
        seen.append((x, y, weights))
        return front(FORMULAS["constant"])

    monkeypatch.setattr(equation_estimator, "discover_laws", record)
    w = np.random.default_rng(3).integers(0, 4, 40)
    order = np.random.default_rng(4).permutation(40)
    EquationRegressor().fit(X[order], X[order, 0], sample_weight=w[order])
    EquationRegressor().fit(np.repeat(X, w, axis=0), np.repeat(X[:, 0], w))
    for a, b in zip(*seen, strict=True):
        np.testing.assert_array_equal(a, b)
    EquationRegressor().fit(X, X[:, 0], sample_weight=np.full(40, 0.3))
    assert seen[-1][2] is None


def test_progress_shows_the_best_law(fixed, capsys, monkeypatch):
    from gradnas.laws.discover import LawProgress

    def report(x, y, settings, weights, loss, seed, show, names):
        show(LawProgress(0.0, "search", None, float("nan")))
        show(LawProgress(0.5, "search", FORMULAS["tanh"], 0.25))
        show(LawProgress(1.0, "done", FORMULAS["tanh"], 0.125))
        return front(FORMULAS["tanh"])

    monkeypatch.setattr(equation_estimator, "discover_laws", report)
    EquationRegressor(progress=True).fit(FRAME, pandas.Series(X[:, 0], name="force"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and lines[0].startswith("force:   0%  search")
    assert re.search(r"100%  done  1.235\*tanh\(.*x1.*\(error 0.125\)", lines[1])


def test_features_and_targets_of_any_scale_give_the_same_law():
    random = np.random.default_rng(5)
    x = random.uniform(0.5, 3.0, (60, 2))
    y = 2.0 * x[:, 0] / (0.5 + x[:, 0] + 0.4 * x[:, 1])
    plain = EquationRegressor().fit(x, y)
    for scale, unit in (((1e-9, 1e9), 1.0), ((1e9, 1e-9), 1.0), ((1.0, 1.0), 1e-9)):
        scaled = EquationRegressor().fit(x * scale, y * unit)
        rescaled = scaled.equation_.subs(
            {symbol("x", d): factor * symbol("x", d) for d, factor in enumerate(scale)}
        )
        same = sympy.lambdify([symbol("x", 0), symbol("x", 1)], rescaled / unit)(*x.T)
        np.testing.assert_allclose(same, plain.predict(x), rtol=1e-9)
        front = scaled.laws_[0].front[scaled.chosen_[0]], plain.laws_[0].front[plain.chosen_[0]]
        assert front[0].complexity == front[1].complexity


def symbol(letter, d):
    return sympy.Symbol(f"{letter}{d + 1}")


def test_laws_that_were_found_compute_what_predict_does():
    """Every law of a whole front, by its sympy, Python and LaTeX forms."""
    random = np.random.default_rng(6)
    x = random.uniform(0.3, 3.0, (60, 2))
    y = x[:, 0] * np.exp(-0.7 * x[:, 1]) + 0.05 * random.standard_normal(60)
    estimator = EquationRegressor(effort=0.3).fit(x, y)
    for law in range(len(estimator.pareto_)):
        expected = estimator.predict(x, law=law)
        forms = {
            "sympy": from_sympy([estimator.formula(0, law)], ["x1", "x2"], x),
            "python": from_python(estimator.to_python(law), x),
            "latex": [from_latex(estimator.latex(law=law), ["x1", "x2"], x)],
        }
        for form, (found,) in forms.items():
            np.testing.assert_allclose(
                found, expected, rtol=1e-9, atol=1e-12, err_msg=f"{form} of law {law}"
            )


def test_a_million_rows_are_subsampled_with_a_word():
    x = np.random.default_rng(7).uniform(0.5, 3.0, (1_000_000, 1))
    estimator = EquationRegressor(**QUICK).fit(x, 3.0 * x[:, 0] - 1.0)
    assert any("1000000 rows" in note for note in estimator.notes_)
    np.testing.assert_allclose(estimator.predict(x[:5]), 3.0 * x[:5, 0] - 1.0, rtol=1e-9)


@pytest.mark.slow
def test_the_example_runs(tmp_path, monkeypatch, capsys):
    example = str(ROOT / "examples" / "equation.py")
    plot = tmp_path / "law.svg"
    monkeypatch.setattr(sys, "argv", [example, "--effort", "0.05", "--plot", str(plot)])
    runpy.run_path(example, run_name="__main__")
    printed = capsys.readouterr().out
    assert "rate = " in printed and "def law(substrate, inhibitor):" in printed
    assert plot.stat().st_size > 5000


def test_three_classes_with_the_real_search():
    from sklearn.datasets import load_iris

    x, y = load_iris(return_X_y=True, as_frame=True)
    estimator = EquationClassifier(**QUICK).fit(x, y)
    assert estimator.score(x, y) > 0.9
    np.testing.assert_allclose(estimator.predict_proba(x).sum(1), 1.0, rtol=1e-12)
