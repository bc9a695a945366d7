"""`Search` over the supernet of equations, and `Formulas`, what it decides for."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from gradnas import FirstOrder, GumbelSoftmax, Reinforce, Search, Softmax, Unrolled
from gradnas.laws.engine.graph import EquationGraph
from gradnas.laws.formula import Edge, Formula, Node
from gradnas.laws.formulas import Formulas
from gradnas.relaxations.sigmoid import Sigmoid
from gradnas.spaces import Space
from gradnas.spaces.base import Supernet

SPACE = EquationGraph(2, 3, ("none", "linear", "linear_exp"))
X_DN = torch.rand(2, 40, generator=torch.Generator().manual_seed(0)) + 0.3
TARGET_N = X_DN[0] * X_DN[1]

PLAIN = Formula(2, (Node("sum", (Edge(1, "identity", 2.0, 0.5),)),), (1.0,), 1e-3)
RATIO = Formula(
    2,
    (
        Node("ratio", (Edge(0, "exp", 0.1), Edge(1, "identity", below=True, fixed=True))),
        Node("product", (Edge(0, "identity"), Edge(2, "identity"))),
    ),
    (0.0, 1.0),
)


def squared_error(net):
    value_KJN = net(X_DN)
    return (value_KJN.sum(1) - TARGET_N).square().mean()


def searched(relaxation, gradient, restarts=2):
    generator = torch.Generator().manual_seed(0)
    supernet = SPACE.supernet(restarts=restarts, generator=generator)
    search = Search(supernet, relaxation=relaxation, gradient=gradient, seed=0)
    for _ in range(2):
        search.step(squared_error, squared_error)
    return search


@pytest.mark.parametrize(
    ("relaxation", "gradient"),
    [
        (Softmax(), FirstOrder()),
        (Softmax(), Unrolled(mode="exact")),
        (Sigmoid(), Unrolled()),
        (GumbelSoftmax(hard=True, temperature_end=10.0), Reinforce()),
    ],
    ids=repr,
)
def test_a_search_steps_and_decides_for_the_formulas_of_the_restarts(relaxation, gradient):
    assert isinstance(SPACE, Space)
    untouched = SPACE.supernet(restarts=2, generator=torch.Generator().manual_seed(0))
    search = searched(relaxation, gradient)
    supernet = search.supernet
    assert isinstance(supernet, Supernet)
    for name, alpha in supernet.alphas.items():
        assert not torch.equal(alpha, untouched.alphas[name])
    assert not torch.equal(supernet.a, untouched.a)

    # Formulas by the rule of derivation, with the weights of now
    formulas = search.result().choices
    choices = SPACE.strongest(dict(supernet.alphas.items()), relaxation)
    a_KEO = supernet.a.detach()
    b_KEO = supernet.b.detach()
    assert isinstance(formulas, list) and len(formulas) == 2
    for k, choice in enumerate(choices):
        assert formulas[k] == SPACE.formula(choice, a_KEO[k], b_KEO[k])
    again = searched(relaxation, gradient)
    assert again.result().choices == formulas


def test_a_result_is_saved_and_loaded(tmp_path):
    result = searched(Softmax(), FirstOrder(), restarts=3).result()
    path = tmp_path / "formulas.json"
    result.save(path)
    decision = Formulas.load(path)
    assert decision == result.decision and decision.public == result.choices
    assert Formulas.parse(str(decision)) == decision
    assert SPACE.decision(str(decision)) == decision
    with_none = Formulas((None, RATIO))
    with_none.save(path)
    assert Formulas.load(path) == with_none


def test_formulas_are_a_network_with_their_own_constants():
    result = searched(Softmax(), FirstOrder()).result()
    values_KN = result.derive()(X_DN)
    assert torch.equal(values_KN[0], result.choices[0](X_DN.T))
    with pytest.raises(ValueError, match="no fresh ones"):
        result.derive("fresh")


def test_skip_connections_are_plain_edges():
    supernet = SPACE.supernet()
    assert supernet.skip_count(Formulas((None, PLAIN, RATIO))) == 4


def test_alphas_alone_give_the_structure_of_the_decision():
    supernet = SPACE.supernet(restarts=8, generator=torch.Generator().manual_seed(1))
    derived = SPACE.derive(dict(supernet.alphas.items()))
    assert isinstance(derived, Formulas) and derived != supernet.decide()
    with torch.no_grad():
        supernet.a.fill_(1.0)
        supernet.b.fill_(1.0)
    assert derived == supernet.decide()


def test_random_decisions_are_of_the_space():
    # Of one edge, which is absent every other time: such a draw is no formula and is drawn again.
    lone = EquationGraph(1, 1, ("none", "linear"), kinds=("product",))
    for space in (SPACE, lone):
        generator = torch.Generator().manual_seed(0)
        for _ in range(10):
            decision = space.random_decision(generator)
            assert space.decision(decision) is decision and decision.formulas[0] is not None


@pytest.mark.parametrize(
    ("formula", "space", "sentence"),
    [
        (PLAIN, EquationGraph(3, 3), "formula 0 is of 2 features, but the space of 3"),
        (RATIO, EquationGraph(2, 1), "2 nodes, but the space at most 1"),
        (RATIO, EquationGraph(2, 2, kinds=("product",)), "node 0 is a ratio"),
        (RATIO, EquationGraph(2, 2, ("linear", "linear_sin")), "no function 'exp'"),
        (
            replace(PLAIN, nodes=(Node("sum", (Edge(1, "identity"), Edge(1, "identity"))),)),
            SPACE,
            "reads one source twice",
        ),
    ],
)
def test_formulas_of_another_space_are_refused(formula, space, sentence):
    with pytest.raises(ValueError, match=sentence):
        space.decision(Formulas((formula,)))


@pytest.mark.parametrize(
    ("nodes", "sentence"),
    [
        ((Node("sum", ()),), "node 0 has no edge"),
        ((Node("sum", (Edge(2, "identity"),)),), "0 to 1, not 2"),
        ((Node("ratio", (Edge(0, "exp"), Edge(1, "exp"))),), "one side alone"),
        ((), "0 nodes need as many weights, not 1"),
    ],
)
def test_formulas_that_cannot_be_computed_are_refused(nodes, sentence):
    with pytest.raises(ValueError, match=sentence):
        Formulas((replace(PLAIN, nodes=nodes),))


def test_files_of_something_else_are_refused(tmp_path):
    path = tmp_path / "formulas.json"
    saved = Formulas((PLAIN,)).to_json()
    for wrong, sentence in (
        ({**saved, "format": "gradnas-chain"}, "'format' must be 'gradnas-formulas'"),
        ({**saved, "version": True}, "'version' must be 1"),
        ({**saved, "formula": []}, "unknown field 'formula'"),
        ({"format": "gradnas-formulas", "version": 1}, "missing field 'formulas'"),
        ({**saved, "formulas": [{"features": 2}]}, r"formulas\[0\]: the field 'nodes' is missing"),
    ):
        path.write_text(json.dumps(wrong), encoding="utf-8")
        with pytest.raises(ValueError, match=sentence):
            Formulas.load(path)
    broken = replace(PLAIN, bias=float("nan"))
    with pytest.raises(ValueError, match="nan cannot be written"):
        Formulas((broken,)).save(tmp_path / "broken.json")
    assert not (tmp_path / "broken.json").exists()
