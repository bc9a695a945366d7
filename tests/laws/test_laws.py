"""From arrays to a Pareto front of laws."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
import torch

from gradnas.config import from_json, to_json
from gradnas.laws.discover import (
    LawSettings,
    discover_laws,
)
from gradnas.laws.engine.atoms import make_atoms
from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.growth import (
    best_pairs,
    best_sums,
)
from gradnas.laws.engine.problem import Problem
from gradnas.laws.engine.stages import Discovery
from gradnas.laws.formula import Formula
from gradnas.laws.primitives import (
    DEFAULT_WORDS,
    Primitive,
)

SMALL = LawSettings(restarts=8, steps=20)


def table(features: int = 2, points: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.3, 3.0, size=(points, features))


def best(laws):
    return laws.front[laws.best]


def agrees(law, truth, x_ND) -> bool:
    return bool(np.allclose(law.predict(x_ND), truth, rtol=1e-6, atol=1e-9))


LAWS = {
    "power": (1, lambda x: 2.0 * x[:, 0] ** 0.7),
    "quotient": (2, lambda x: x[:, 0] / (x[:, 0] + 2.0 * x[:, 1])),
    "product": (2, lambda x: 3.0 * x[:, 0] * np.exp(-0.5 * x[:, 1])),
    "sum": (2, lambda x: np.sin(2.0 * x[:, 0]) + 0.5 * x[:, 1] ** 2),
}


@pytest.mark.parametrize("name", LAWS)
def test_clean_laws_are_found_exactly_and_printed_with_the_same_numbers(name):
    features, f = LAWS[name]
    x_ND = table(features)
    laws = discover_laws(x_ND, f(x_ND), SMALL)
    law = best(laws)
    fresh = table(features, seed=1)
    assert agrees(law, f(fresh), fresh)
    names = ["speed", "mass"][:features]
    printed = sympy.lambdify(names, law.expression(names), "numpy")
    assert np.allclose(printed(*fresh.T), law.predict(fresh), rtol=1e-9, atol=1e-12)
    complexities = [item.complexity for item in laws.front]
    errors = [item.train_error for item in laws.front]
    assert complexities == sorted(complexities) and errors == sorted(errors, reverse=True)
    assert law.agreement >= 1 and law.valid_error < 1e-12


def test_noise_is_not_explained():
    x_ND = table(1, 80)
    y_N = 1.0 + 2.0 * np.exp(-x_ND[:, 0]) + 0.02 * np.random.default_rng(5).standard_normal(80)
    law = best(discover_laws(x_ND, y_N, SMALL))
    assert law.complexity <= 6 and 0.5 < law.valid_error / 0.02**2 < 2.0


def test_the_same_seed_gives_the_same_law():
    x_ND = table(2, 50)
    y_N = np.random.default_rng(3).standard_normal(50) * 0.1 + x_ND[:, 0]
    settings = LawSettings(restarts=8, steps=10, enumerate=False, improve=False)
    one, again = (discover_laws(x_ND, y_N, settings, seed=4) for _ in range(2))
    assert [law.formula for law in one.front] == [
        law.formula for law in again.front
    ] and one.counts == again.counts


def test_units_do_not_matter():
    x_ND = table(2)
    y_N = 3.0 * x_ND[:, 0] / (0.5 + x_ND[:, 1])
    scales = np.array([1e-9, 1e9])
    one = best(discover_laws(x_ND, y_N, SMALL))
    other = best(discover_laws(x_ND * scales, y_N * 1e6, SMALL))
    assert one.complexity == other.complexity
    assert np.allclose(other.predict(x_ND * scales), 1e6 * one.predict(x_ND), rtol=1e-9)
    assert [[e.function for e in n.edges] for n in one.formula.nodes] == [
        [e.function for e in n.edges] for n in other.formula.nodes
    ]


def test_scores_of_pairs_are_those_of_least_squares():
    x_DN = torch.from_numpy(table(2, 40).T.copy())
    y_N = torch.from_numpy(np.random.default_rng(0).standard_normal(40))
    data = LawData(x_DN, y_N, torch.ones(40, dtype=torch.float64))
    atoms = make_atoms(("linear", "linear_exp", "power"), data, [1.0, 1.0], [0, 1])
    one_N = torch.ones(40, dtype=torch.float64)
    residual_N = y_N - y_N.mean()
    total = float((residual_N**2).sum())
    value = {atom: atoms.value_GN[g] for g, atom in enumerate(atoms.atoms)}

    def drop(*columns: torch.Tensor) -> float:
        basis = torch.stack([one_N, *columns], dim=1)
        return total - float(
            ((basis @ torch.linalg.lstsq(basis, y_N.unsqueeze(1)).solution).squeeze() - y_N)
            .square()
            .sum()
        )

    products = best_pairs(residual_N, one_N.unsqueeze(0), one_N, atoms, atoms, 6)
    assert products[0][0] == pytest.approx(
        max(drop(a * b) for a in atoms.value_GN for b in atoms.value_GN), rel=1e-3
    )
    for gain, a, b in products:
        assert gain == pytest.approx(drop(value[a] * value[b]), rel=1e-3)
    for gain, a, b in best_sums(residual_N, one_N.unsqueeze(0) / 40**0.5, one_N, atoms, 6):
        assert gain == pytest.approx(drop(value[a], value[b]), rel=1e-2)


def test_sample_weights_take_rows_out():
    x_ND = table(1, 80)
    y_N = 2.0 * x_ND[:, 0] + 1.0
    y_N[:20] = 100.0
    w_N = np.ones(80)
    w_N[:20] = 0.0
    assert agrees(
        best(discover_laws(x_ND, y_N, SMALL, weights_N=w_N)), 2.0 * x_ND[:, 0] + 1.0, x_ND
    )


def test_classes_and_counts():
    x_ND = table(2, 300)
    generator = np.random.default_rng(0)
    eta_N = 2.0 * x_ND[:, 0] - 3.0
    small = LawSettings(effort=0.2, restarts=0)
    law = best(
        discover_laws(
            x_ND,
            (generator.random(300) < 1 / (1 + np.exp(-eta_N))).astype(float),
            small,
            loss="logistic",
        )
    )
    p_N = law.predict(x_ND)
    assert ((p_N > 0) & (p_N < 1)).all() and np.corrcoef(p_N, 1 / (1 + np.exp(-eta_N)))[0, 1] > 0.97
    law = best(
        discover_laws(
            x_ND, generator.poisson(np.exp(0.5 * eta_N)).astype(float), small, loss="poisson"
        )
    )
    assert np.corrcoef(law.predict(x_ND), np.exp(0.5 * eta_N))[0, 1] > 0.97


def test_random_proposals_and_plain_darts_and_a_primitive_of_ones_own():
    x_ND = table(1, 50)
    y_N = x_ND[:, 0] ** 3
    random = discover_laws(
        x_ND, y_N, LawSettings(proposals="random", enumerate=False, improve=False, restarts=16)
    )
    assert random.counts["random graphs"] == 24 and "supernets" not in random.counts
    plain = discover_laws(x_ND, y_N, LawSettings.plain_darts())
    assert plain.counts["supernets"] == 1 and plain.counts["random graphs"] == 0
    assert all(node.kind == "sum" for node in best(plain).formula.nodes)
    own = Primitive("cube", lambda z: z**3, symbol=lambda z: z**3)
    law = best(
        discover_laws(
            x_ND, y_N, LawSettings(primitives=("none", "linear", own), restarts=4, steps=5)
        )
    )
    assert "x1**3" in str(law.expression()) and agrees(law, y_N, x_ND)


def test_bad_input_is_refused_and_what_was_left_out_is_said():
    x_ND, y_N = table(2), table(1)[:, 0]
    nothing = x_ND.copy()
    nothing[3, 1] = np.nan
    for arguments, message in [
        ((nothing, y_N), "finite"),
        ((x_ND[:4], y_N[:4]), "at least 5 points"),
        ((x_ND, y_N[:-1]), "not \\(60, 2\\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            discover_laws(*arguments, SMALL)
    with pytest.raises(ValueError, match="probability"):
        discover_laws(x_ND, y_N, SMALL, loss="logistic")
    with pytest.raises(ValueError, match="proposals"):
        LawSettings(proposals="best")
    crossing = np.column_stack([x_ND[:, 0] - 1.5, x_ND[:, 1], np.full(60, 7.0)])
    laws = discover_laws(crossing, crossing[:, 0] ** 2, SMALL, names=["height", "width", "zone"])
    said = " ".join(laws.notes)
    assert "zone: the same value in every row; it is not used" in said
    assert "height" in said and "positive" in said
    many = np.random.default_rng(0).uniform(0.5, 2.0, size=(1000, 9))
    laws = discover_laws(
        many, many[:, 3] * many[:, 7], LawSettings(restarts=0, effort=0.4, max_points=60)
    )
    assert agrees(best(laws), many[:, 3] * many[:, 7], many)
    said = " ".join(laws.notes)
    assert "of 1000 rows" in said and "of 9 features" in said


def test_formulas_survive_json_and_progress_is_reported():
    seen = []
    x_ND = table(1, 40)
    law = best(discover_laws(x_ND, np.log(x_ND[:, 0]), SMALL, on_progress=seen.append))
    assert from_json(Formula, to_json(law.formula)) == law.formula
    assert (
        seen[-1].share == 1.0
        and seen[-1].best is not None
        and [p.share for p in seen] == sorted(p.share for p in seen)
    )
    assert DEFAULT_WORDS[0] == "none"


def test_a_row_of_weight_three_counts_as_three_points():
    """The description length knows how many points there are, not how many rows."""
    generator = np.random.default_rng(0)
    x_N = np.round(generator.uniform(0, 1, 60), 1)  # eleven different rows
    y_N = (generator.uniform(0, 1, 60) < 1 / (1 + np.exp(1 - 3 * x_N))).astype(float)
    settings = LawSettings(restarts=0, steps=10, nodes=1, effort=0.1)
    rows, counts = np.unique(np.stack([x_N, y_N], axis=1), axis=0, return_counts=True)
    whole = discover_laws(x_N[:, None], y_N, settings, loss="logistic")
    merged = discover_laws(
        rows[:, :1], rows[:, 1], settings, weights_N=counts.astype(float), loss="logistic"
    )
    assert best(merged).complexity == best(whole).complexity
    np.testing.assert_allclose(
        best(merged).predict(x_N[:, None]), best(whole).predict(x_N[:, None]), rtol=1e-6
    )
    assert best(merged).description_length == pytest.approx(
        best(whole).description_length, rel=1e-6
    )


@pytest.mark.slow
def test_the_work_allowed_is_about_what_is_done():
    """Fitting and judging the laws that were found are part of it."""
    x_ND = table(4, 60)
    y_N = np.random.default_rng(0).permutation(np.sin(9.0 * x_ND[:, 0]) / x_ND[:, 1])
    settings = LawSettings(work_seconds=0.5)
    problem = Problem(x_ND, y_N, np.ones(60), settings, "squared", 0, ["a", "b", "c", "d"])
    Discovery(problem, None).run()
    assert 0.3 < problem.work.spent < 1.2


@pytest.mark.slow
def test_a_search_that_may_do_less_says_so():
    x_ND = table(2, 60)
    generator = np.random.default_rng(0)
    y_N = np.sin(9.0 * x_ND[:, 0]) * np.tanh(x_ND[:, 1] ** 3) + 0.3 * generator.normal(size=60)
    assert discover_laws(x_ND, y_N, LawSettings(work_seconds=0.3)).counts.get("supernets", 0) == 0
    laws = discover_laws(x_ND, y_N, LawSettings(work_seconds=0.3, enumerate=False))
    assert laws.counts["supernets"] == 8 and "8 of 64 supernets were trained" in " ".join(
        laws.notes
    )
    free = discover_laws(x_ND, y_N, LawSettings(work_seconds=None, enumerate=False, steps=10))
    assert free.counts["supernets"] == 64 and "were trained" not in " ".join(free.notes)
    with pytest.raises(ValueError, match="work_seconds must be above 0"):
        LawSettings(work_seconds=0.0)
