"""Many formulas at once: values, derivatives, fitted constants."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from gradnas.laws.engine.atoms import make_atoms
from gradnas.laws.engine.batch import FormulaBatch
from gradnas.laws.engine.data import EXACT, LawData, mean_loss
from gradnas.laws.engine.digits import rounded
from gradnas.laws.engine.graph import (
    EquationGraph,
    random_formulas,
)
from gradnas.laws.engine.levels import depth
from gradnas.laws.engine.prune import prune
from gradnas.laws.engine.refit import description_length, refit
from gradnas.laws.engine.units import unscaled
from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
    canonical,
)
from gradnas.laws.primitives import (
    DEFAULT_WORDS,
    PRIMITIVES,
)
from tests.laws.words import REFERENCE_WORDS

FORMULAS = [
    Formula(
        2,
        (
            Node("product", (Edge(0, "identity", 1.0, 0.3, fixed=True), Edge(1, "exp", -0.7))),
            Node("sum", (Edge(2, "sin", 1.3, 0.2),)),
        ),
        (0.5, 1.2),
        0.3,
    ),
    Formula(
        2,
        (
            Node(
                "ratio",
                (
                    Edge(0, "identity", 1.0, fixed=True),
                    Edge(1, "identity", 0.7, 0.3, below=True),
                    Edge(0, "power", 1.7, 0.1, below=True),
                ),
            ),
        ),
        (2.0,),
        0.1,
    ),
    Formula(
        2,
        (
            Node("sum", (Edge(0, "ln", 1.2, 0.5), Edge(1, "tanh", 0.7, 0.3))),
            Node(
                "product",
                (Edge(2, "logistic", 0.8, 0.1), Edge(0, "power", 0.6), Edge(2, "square", 0.9, 0.3)),
            ),
        ),
        (0.0, 2.0),
        0.0,
    ),
]


def features(count: int = 2, points: int = 60) -> torch.Tensor:
    return (
        torch.rand(count, points, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        + 0.2
    )


def data_of(formula: Formula, noise: float = 0.0, points: int = 60) -> LawData:
    x_DN = features(formula.features, points)
    y_N = formula(x_DN.T)
    y_N = y_N + noise * y_N.std() * torch.randn(
        points, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    return LawData(x_DN, y_N, torch.ones(points, dtype=torch.float64))


def test_a_batch_gives_the_values_of_each_formula_and_autograds_jacobian():
    space = EquationGraph(2, 3, tuple(w for w in REFERENCE_WORDS if "relu" not in w))
    drawn = random_formulas(space, 40, torch.Generator().manual_seed(3))
    x_DN = features()
    formulas = [*FORMULAS, *(f for f in drawn if bool(torch.isfinite(f(x_DN.T)).all()))]
    assert len(formulas) > 15
    batch = FormulaBatch(formulas, PRIMITIVES)
    theta = batch.theta()

    def output(t: torch.Tensor) -> torch.Tensor:
        return (batch.weight[:, :-1, None] * batch.forward(x_DN, t).node_CJN).sum(1)

    jacobian, _ = batch.backward(batch.forward(x_DN, theta), batch.weight[:, :-1])
    for c, formula in enumerate(formulas):
        scale = output(theta)[c].abs().max() + 1.0
        assert torch.allclose(
            output(theta)[c] + formula.bias, formula(x_DN.T), rtol=1e-12, atol=1e-12 * float(scale)
        )
    numeric = torch.autograd.functional.jacobian(lambda t: output(t).sum(0), theta).permute(1, 2, 0)
    numeric = numeric * batch.slot_used.unsqueeze(-1)
    size = numeric.abs().amax((1, 2), keepdim=True) + 1e-30
    assert bool(((jacobian - numeric).abs() / size < 1e-9).all())


@pytest.mark.parametrize("formula", FORMULAS)
def test_refitting_recovers_the_constants(formula):
    data = data_of(formula)
    nodes = tuple(
        Node(
            n.kind, tuple(replace(e, a=e.a if e.fixed else 1.3 * e.a, b=0.8 * e.b) for e in n.edges)
        )
        for n in formula.nodes
    )
    (found,) = refit([Formula(2, nodes, (1.0,) * len(nodes), formula.bias and 1.0)], data, steps=60)
    assert found.loss < EXACT * data.spread


def test_the_closed_form_agrees_with_a_fit_of_everything():
    formula = Formula(
        2,
        (Node("sum", (Edge(0, "exp", 0.9),)), Node("sum", (Edge(1, "identity", fixed=True),))),
        (1.0, 1.0),
        1.0,
    )
    data = data_of(formula, noise=0.1)
    (found,) = refit([formula], data, steps=30)
    leaf = torch.tensor([0.9, 1.0, 1.0, 1.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [leaf],
        max_iter=300,
        tolerance_grad=1e-14,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        a, c, d, bias = leaf
        value = ((c * torch.exp(a * data.x_DN[0]) + d * data.x_DN[1] + bias - data.y_N) ** 2).mean()
        value.backward()
        return value

    optimizer.step(loss)
    assert found.loss == pytest.approx(float(loss().detach()), rel=1e-6)


@pytest.mark.parametrize("loss", ["logistic", "poisson"])
def test_other_losses_reach_a_stationary_point(loss):
    truth = Formula(1, (Node("sum", (Edge(0, "sin", 4.0, 0.5),)),), (1.5,), -0.3)
    x_DN = features(1, 400)
    eta = truth(x_DN.T)
    generator = torch.Generator().manual_seed(2)
    mean = torch.sigmoid(eta) if loss == "logistic" else torch.exp(eta)
    y_N = (
        torch.bernoulli(mean, generator=generator)
        if loss == "logistic"
        else torch.poisson(mean, generator=generator)
    )
    data = LawData(x_DN, y_N, torch.ones(400, dtype=torch.float64), loss)
    (found,) = refit([truth], data, steps=40)
    (edge,) = found.formula.nodes[0].edges
    constants = torch.tensor(
        [edge.a, edge.b, found.formula.weights[0], found.formula.bias], dtype=torch.float64
    )
    constants.requires_grad_()
    eta = constants[2] * torch.sin(constants[0] * x_DN[0] + constants[1]) + constants[3]
    value = mean_loss(eta.unsqueeze(0), data)[0]
    assert float(value.detach()) == pytest.approx(found.loss, abs=1e-12)
    (gradient,) = torch.autograd.grad(value, constants)
    assert gradient.abs().max() < 1e-5


def test_a_formula_outside_its_domain_is_given_up_and_does_not_spoil_its_batch():
    data = data_of(FORMULAS[0])
    shifted = replace(data, x_DN=data.x_DN - 0.7)
    bad = Formula(2, (Node("sum", (Edge(0, "ln", 1.0),)),), (1.0,), 0.0)
    good = Formula(2, (Node("sum", (Edge(0, "sin", 1.0, 0.1),)),), (1.0,), 1.0)
    found = refit([bad, good], shifted, steps=10)
    assert found[0].loss == float("inf") and found[1].loss < shifted.spread


def test_pruning_replaces_a_logistic_that_runs_off_by_the_exponential():
    truth = Formula(1, (Node("sum", (Edge(0, "exp", -2.0),)),), (3.0,), 1.0)
    data = data_of(truth, noise=0.01)
    runaway = Formula(1, (Node("sum", (Edge(0, "logistic", -2.0, -12.0),)),), (4e5,), 1.0)
    fitted = refit([runaway], data, steps=20)
    (way,) = prune(fitted, data, ["identity", "exp", "logistic"], data.spread)
    (edge,) = way[-1].formula.nodes[0].edges
    assert edge.function == "exp" and edge.a == pytest.approx(-2.0, rel=0.1)
    assert description_length(way[-1], data, data.spread) < description_length(
        fitted[0], data, data.spread
    )


def test_constants_are_rounded_as_far_as_the_data_allow():
    truth = Formula(1, (Node("sum", (Edge(0, "exp", -2.0),)),), (3.0,), 1.5)
    for noise, exact in ((0.0, True), (0.01, False)):
        data = data_of(truth, noise=noise, points=200)
        (fitted,) = refit([replace(truth, weights=(1.0,), bias=1.0)], data, steps=40)
        short = rounded(fitted, data)
        edge = short.formula.nodes[0].edges[0]
        digits = max(
            len(f"{v:.10g}".replace(".", "").strip("-0"))
            for v in (edge.a, *short.formula.weights, short.formula.bias)
        )
        assert digits <= (2 if exact else 4)
        if exact:
            assert (edge.a, short.formula.weights[0], short.formula.bias) == (-2.0, 3.0, 1.5)
        else:
            assert 200 * torch.log(torch.tensor(short.loss / fitted.loss)) < 15


@pytest.mark.parametrize("formula", FORMULAS)
def test_a_formula_in_other_units_has_the_same_values(formula):
    scales, scale_y = [1e-9, 1e9], 1e3
    x_DN = features()
    shrunk = Formula(
        2, tuple(canonical(node) for node in formula.nodes), formula.weights, formula.bias
    )
    own = unscaled(shrunk, scales, scale_y)
    big = x_DN * torch.tensor(scales, dtype=torch.float64).unsqueeze(1)
    assert torch.allclose(own(big.T), scale_y * shrunk(x_DN.T), rtol=1e-10)


def signature(atom):
    """What an atom is apart from its constants."""
    stem = atom.stem and (atom.stem.kind, tuple((e.source, e.function) for e in atom.stem.edges))
    return stem, atom.edge.source, "sin" if atom.edge.function == "cos" else atom.edge.function


def test_atoms_are_finite_and_each_signature_is_a_function_of_a_source():
    x_DN = features() - torch.tensor([[0.0], [0.7]], dtype=torch.float64)
    data = LawData(x_DN, x_DN[0], torch.ones(60, dtype=torch.float64))
    atoms = make_atoms(DEFAULT_WORDS, data, [1.0, 1.0], [0, 1])
    assert bool(torch.isfinite(atoms.value_GN).all()) and float(atoms.value_GN.abs().max()) == 1.0
    count = len(atoms.starts) - 1
    signatures = [{signature(atoms.atoms[g]) for g in atoms.members(s)} for s in range(count)]
    assert all(len(s) == 1 for s in signatures) and len(set.union(*signatures)) == count
    assert atoms.starts[-1] == len(atoms.atoms) > len(atoms.coarse) == atoms.coarse_starts[-1]
    # Every atom is a coarse one of its signature, or nearly a straight line of one.
    for s in range(count):
        coarse = atoms.coarse[atoms.coarse_starts[s] : atoms.coarse_starts[s + 1]]
        assert set(coarse) <= set(atoms.members(s))
        for g in atoms.members(s):
            both = [torch.corrcoef(atoms.value_GN[[g, c]])[0, 1].abs() for c in coarse]
            assert g in coarse or max(both) >= 0.97 - 1e-9
    assert not any(atom.edge.function == "power" and atom.edge.source == 1 for atom in atoms.atoms)


def test_nodes_are_computed_level_by_level():
    """A chain has as many levels as nodes, and nodes side by side have one."""
    lone = Node("sum", (Edge(0, "exp", 0.5),))
    chain = Formula(1, (lone, Node("sum", (Edge(1, "sin", 2.0),))), (0.0, 1.0))
    beside = Formula(1, (lone, Node("sum", (Edge(0, "sin", 2.0),))), (1.0, 1.0))
    assert [depth(formula) for formula in (chain, beside)] == [2, 1]
    batch = FormulaBatch([beside, chain], PRIMITIVES)
    assert [level.last - level.first for level in batch.levels] == [3, 1]
    x_N = torch.linspace(0.0, 1.0, 5, dtype=torch.float64)
    values = batch.forward(x_N.unsqueeze(0), batch.theta()).node_CJN
    torch.testing.assert_close(values[0, 1], torch.sin(2.0 * x_N))
    torch.testing.assert_close(values[1, 1], torch.sin(2.0 * torch.exp(0.5 * x_N)))
