"""The graph of equations: supernets, derivation, formulas, every primitive's printed form."""

from __future__ import annotations

import numpy as np
import pytest
import sympy
import torch

from gradnas import FirstOrder, GumbelSoftmax, Implicit, Softmax, Unrolled
from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.graph import (
    EquationGraph,
    random_formulas,
)
from gradnas.laws.engine.refit import refit
from gradnas.laws.engine.supernets import (
    SupernetSearch,
    search,
)
from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
)
from gradnas.laws.primitives import (
    DEFAULT_WORDS,
    PRIMITIVES,
    WORDS,
    Primitive,
    resolve,
)
from gradnas.laws.symbolic import (
    shortest,
    to_sympy,
    within,
)
from gradnas.relaxations.sigmoid import Sigmoid, zero_one_loss
from tests.laws.words import REFERENCE_WORDS

X_DN = torch.rand(2, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.3


def cube(z):
    return z**3


WITHIN_ONE = ("asin", "acos")  # functions that are defined between -1 and 1


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize("word", sorted(WORDS))
def test_the_printed_form_of_every_primitive_gives_the_same_numbers(word):
    function, fits_a, fits_b = WORDS[word]
    slope = 0.4 if function in WITHIN_ONE else 1.7
    edge = Edge(0, function, slope if fits_a else 1.0, 0.4 if fits_b else 0.0)
    formula = Formula(2, (Node("product", (edge, Edge(1, "identity", fixed=True))),), (1.3,), -0.2)
    printed = sympy.lambdify(["x1", "x2"], to_sympy(formula), "numpy")
    values = formula(X_DN.T).numpy()
    defined = np.isfinite(values)
    assert defined.all() or function in WITHIN_ONE
    assert defined.any()
    np.testing.assert_allclose(printed(*X_DN.numpy()), values, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", sorted(PRIMITIVES))
def test_derivatives_and_safe_forms(name):
    primitive = PRIMITIVES[name]
    highest = 0.9 if name in WITHIN_ONE else 3.0
    z = torch.linspace(0.4, highest, 50, dtype=torch.float64, requires_grad=True)
    value = primitive.function(z)
    (exact,) = torch.autograd.grad(value.sum(), z)
    assert torch.allclose(primitive.slope(z.detach(), value.detach()), exact, rtol=1e-10)
    wide = torch.tensor([-1e6, -3.0, 0.0, 3.0, 1e6], requires_grad=True)
    safe = (primitive.safe or primitive.function)(wide).clamp(-1e3, 1e3)
    (slope,) = torch.autograd.grad(safe.sum(), wide)
    assert bool(torch.isfinite(safe).all()) and bool(torch.isfinite(slope).all())
    assert torch.allclose((primitive.safe or primitive.function)(z), value, rtol=2e-2)


def test_words_are_checked():
    assert set(REFERENCE_WORDS) - {"none"} <= set(WORDS)
    with pytest.raises(ValueError, match="no primitive 'expp'"):
        resolve(["expp"])
    with pytest.raises(ValueError, match="more than 'none'"):
        resolve(["none"])
    with pytest.raises(ValueError, match="already"):
        resolve([Primitive("sin", torch.sin)])
    with pytest.raises(ValueError, match="'sums'"):
        EquationGraph(2, kinds=("sums",))


def test_a_primitive_of_ones_own_is_searched_fitted_and_printed():
    own = Primitive("cube", cube, symbol=lambda z: z**3)
    space = EquationGraph(1, 1, ("none", own))
    formula = next(f for f in random_formulas(space, 20, torch.Generator().manual_seed(0)))
    x_ND = X_DN[:1].T
    data = LawData(
        X_DN[:1],
        (2.0 * x_ND[:, 0] - 1.0) ** 3,
        torch.ones(40, dtype=torch.float64),
        "squared",
        space.table,
    )
    assert refit([formula], data, 40)[0].loss < 1e-20
    printed = sympy.lambdify("x1", to_sympy(formula, primitives=space.table), "numpy")(
        x_ND[:, 0].numpy()
    )
    assert np.allclose(printed, formula(x_ND, space.table).numpy(), rtol=1e-12)
    with pytest.raises(ValueError, match="sympy form"):
        to_sympy(formula, primitives={**PRIMITIVES, "cube": Primitive("cube", cube)})


def test_restarts_do_not_know_each_other():
    space = EquationGraph(2, 2)
    net = space.supernet(restarts=3, generator=torch.Generator().manual_seed(1))
    x_DN = X_DN.float()
    both = net(x_DN)
    assert both.shape == (3, 2, 40) and bool(torch.isfinite(both).all())
    gradients = torch.autograd.grad(both[1].square().sum(), [*net.parameters()])
    assert all(bool((g[[0, 2]] == 0).all()) and float(g[1].abs().sum()) > 0 for g in gradients)
    alone = space.supernet(restarts=1)
    alone.load_state_dict({k: v[1:2] for k, v in net.state_dict().items()})
    assert torch.allclose(alone(x_DN)[0], both[1], rtol=1e-5, atol=1e-6)


def test_a_one_hot_mixture_is_the_derived_formula():
    space = EquationGraph(
        2, 2, ("none", "linear", "linear_exp", "linear_sin", "mult"), kinds=("sum", "product")
    )
    net = space.supernet(restarts=12, generator=torch.Generator().manual_seed(4)).double()
    with torch.no_grad():
        for alpha in net.alphas.values():
            alpha.mul_(1e4)
    values = net(X_DN)
    compared = 0
    for k, choice in enumerate(space.strongest(dict(net.alphas.items()))):
        if "none" in [space.words[o] for o in choice["edges"]]:
            continue  # nodes without edges leave the formula, and places move
        formula = space.formula(choice, net.a[k].detach(), net.b[k].detach())
        for j in range(2):
            one = Formula(2, formula.nodes[: j + 1], (*(0.0,) * j, 1.0), 0.0)(X_DN.T)
            ratio = values[k, j] / one  # the canonical form of a node is the node up to a scale
            if bool((values[k, j].abs() < 900).all()) and all(
                e.source < 2 for n in formula.nodes[: j + 1] for e in n.edges
            ):
                assert torch.allclose(ratio, ratio[:1].expand_as(ratio), rtol=1e-6)
                compared += 1
    assert compared >= 1


@pytest.mark.parametrize(
    "settings",
    [
        SupernetSearch(restarts=4, steps=6, bilevel=False),
        SupernetSearch(restarts=4, steps=6, bilevel=True, gradient=FirstOrder()),
        SupernetSearch(restarts=4, steps=4, gradient=Unrolled()),
        SupernetSearch(restarts=4, steps=4, gradient=Unrolled(mode="exact")),
        SupernetSearch(restarts=4, steps=3, gradient=Implicit(solver="neumann", steps=2)),
        SupernetSearch(restarts=4, steps=6, relaxation=Sigmoid()),
        SupernetSearch(restarts=4, steps=6, relaxation=GumbelSoftmax(hard=True)),
        SupernetSearch(restarts=4, steps=6, relaxation=Softmax(), output_in_closed_form=False),
    ],
    ids=repr,
)
def test_every_relaxation_and_gradient_searches_and_repeats_itself(settings):
    space = EquationGraph(2, 2, DEFAULT_WORDS)
    data = LawData(X_DN, X_DN[0] * X_DN[1], torch.ones(40, dtype=torch.float64))
    one, again = search(space, data, settings, seed=3), search(space, data, settings, seed=3)
    assert one == again and one.dropped == 0 and one.formulas


def test_training_lowers_the_loss_and_drops_what_is_not_finite():
    space = EquationGraph(1, 1, ("none", "linear", "linear_exp", "linear_sin"), kinds=("sum",))
    x_DN = torch.linspace(-1, 1, 60, dtype=torch.float64).unsqueeze(0)
    data = LawData(x_DN, torch.sin(2.0 * x_DN[0] + 0.3), torch.ones(60, dtype=torch.float64))
    found = search(space, data, SupernetSearch(restarts=32, steps=80, bilevel=False), seed=0)
    functions = [f.nodes[0].edges[0].function for f in found.formulas[:8]]
    assert functions.count("sin") > 4
    broken = LawData(x_DN, data.y_N * torch.inf, data.w_N)
    lost = search(space, broken, SupernetSearch(restarts=3, steps=3), seed=0)
    assert lost.dropped == 3 and not lost.formulas


def test_sigmoid_weights_do_not_compete_and_the_zero_one_loss_pushes_them_apart():
    alpha = torch.tensor([[0.0, 2.0, -2.0]], requires_grad=True)
    draw = Sigmoid().draw({"x": alpha}, {}, 0.0)
    assert torch.equal(draw.mix["x"], torch.sigmoid(alpha)) and draw.active["x"] == ((0, 1, 2),)
    (slope,) = torch.autograd.grad(zero_one_loss({"x": alpha}), alpha)
    assert slope[0, 1] < 0 < slope[0, 2]


def test_simplification_stops_at_its_time_limit():
    def endless():
        while True:
            pass

    assert within(0.05, endless) is None
    x = sympy.Symbol("x1", real=True)
    expression = 2.5 * x * sympy.exp(x) + 2.5 * sympy.exp(x)
    found = shortest(expression, 5.0)
    assert sympy.count_ops(found) < sympy.count_ops(expression) and float(
        found.subs(x, 0.7)
    ) == pytest.approx(float(expression.subs(x, 0.7)))
    assert shortest(expression, 0.0) is expression


def test_logarithms_of_ratios_are_written_with_positive_factors():
    x, y = sympy.symbols("x y", real=True)
    for written, wanted in (
        (2 - 1.5 * y * sympy.log(x / y), 2 + 1.5 * y * sympy.log(y / x)),
        (1.5 * sympy.log(x / y), 1.5 * sympy.log(x / y)),
        (-sympy.log(x), -sympy.log(x)),
        (-0.5 * sympy.log((x + 1) / y), -0.5 * sympy.log((x + 1) / y)),
    ):
        assert shortest(written, 5.0) == wanted
