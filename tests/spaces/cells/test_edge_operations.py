"""Cells whose edges have operations of their own: the spaces S1 to S4."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

import gradnas
from tests.cases import batch

SKIP = "skip_connect"
SEP3 = "sep_conv_3x3"
S1 = gradnas.ConvCell.named("S1", channels=8, cells=3)


def test_presets():
    shapes = {"S1": (14, 2), "S2": (14, 2), "S3": (14, 3), "S4": (14, 2)}
    for name, shape in shapes.items():
        space = gradnas.ConvCell.named(name, channels=4, cells=3)
        supernet = space.supernet()
        assert {tuple(table.shape) for table in supernet.alphas.values()} == {shape}
        assert gradnas.ConvCell.from_json(space.to_json(), "space") == space
        assert hash(space) == hash(gradnas.ConvCell.from_json(space.to_json(), "space"))
    assert gradnas.ConvCell.named("S2").names == (SKIP, SEP3)
    assert gradnas.ConvCell.named("S3").names == ("none", SKIP, SEP3)
    assert gradnas.ConvCell.named("S4").names == ("noise", SEP3)
    with pytest.raises(ValueError, match="unknown space of cells 'S5'"):
        gradnas.ConvCell.named("S5")


def test_first_and_last_rows_of_s1():
    """The authors' table: (operations of edge 0), (of edge 13) of both cells."""
    sets = S1.shape.sets
    assert sets["normal"][0] == (SKIP, "dil_conv_3x3")
    assert sets["normal"][5] == ("max_pool_3x3", SKIP)
    assert sets["normal"][13] == ("dil_conv_3x3", "dil_conv_5x5")
    assert sets["reduce"][0] == ("max_pool_3x3", "avg_pool_3x3")
    assert sets["reduce"][6] == ("max_pool_3x3", SEP3)
    assert sets["reduce"][13] == (SKIP, "dil_conv_5x5")


def test_darts_files_are_as_before():
    assert "edge_operations" not in gradnas.ConvCell().to_json()


@pytest.mark.parametrize("training", [True, False])
def test_fused_is_edge_by_edge(training):
    torch.manual_seed(0)
    fused = S1.supernet(num_classes=5).double()
    plain = S1.supernet(num_classes=5, fused=False).double()
    plain.load_state_dict(fused.state_dict())
    x, y = batch(1, dtype=torch.float64, side=8)
    for net in (fused, plain):
        net(x)
        net.train(training)
        F.cross_entropy(net(x), y).backward()
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-9)
    for cell in fused.cells:
        cell.grouped = True
    torch.testing.assert_close(fused(x), plain(x), rtol=1e-9, atol=1e-9)


# Without pools: in a supernet they have a BatchNorm that derived networks have not.
OWN = {
    "normal": [(SKIP, SEP3), (SEP3, "dil_conv_3x3")] * 7,
    "reduce": [("none", SKIP), ("dil_conv_5x5", SKIP)] * 7,
}


@pytest.mark.parametrize("sets", [OWN, None])
def test_one_hot_supernet_is_the_plain_network(sets):
    space = gradnas.ConvCell.named("S3", channels=8, cells=3, edge_operations=sets)
    torch.manual_seed(0)
    supernet = space.supernet(num_classes=5).double()
    x, _ = batch(1, dtype=torch.float64, side=8)
    generator = torch.Generator().manual_seed(2)
    for _ in range(4):
        genotype = space.random_decision(generator)
        for kind, edges in (("normal", genotype.normal), ("reduce", genotype.reduce)):
            for k, (operation, predecessor) in enumerate(edges):
                row = space.shape.edge(k // 2, predecessor)
                assert operation in space.shape.names_of(kind, row)
                assert operation != "none"
        expected = supernet.derived(genotype)(x)
        drawn = supernet(x, draw=supernet.one_hot_draw(genotype))
        torch.testing.assert_close(drawn, expected, rtol=0.0, atol=1e-9)


def test_derivation_by_the_operations_of_each_edge():
    space = gradnas.ConvCell(
        nodes=1,
        edge_operations={
            "normal": [("none", SEP3), (SKIP, "none")],
            "reduce": [(SKIP, SEP3), (SEP3, SKIP)],
        },
    )
    tables = {"normal": torch.tensor([[5.0, 0.0], [0.0, 5.0]]), "reduce": torch.zeros(2, 2)}
    genotype = space.derive(tables)
    # `none` is never chosen, although it is the strongest on both edges.
    assert dict(map(reversed, genotype.normal)) == {0: SEP3, 1: SKIP}
    # Ties go to the first column of each row.
    assert dict(map(reversed, genotype.reduce)) == {0: SKIP, 1: SEP3}


def test_the_best_cell_within_a_budget_has_operations_of_its_edges():
    space = gradnas.ConvCell(
        channels=4,
        cells=2,
        nodes=1,
        edge_operations={
            "normal": [(SKIP, SEP3), (SEP3, "max_pool_3x3")],
            "reduce": [(SKIP, SEP3), (SEP3, SKIP)],
        },
    )
    torch.manual_seed(1)
    supernet = space.supernet()
    x = torch.zeros(1, 3, 8, 8)
    costs = supernet.costs("macs", (x,))
    strengths = {kind: torch.softmax(torch.randn(2, 2), -1) for kind in ("normal", "reduce")}
    ranked = list(itertools.islice(supernet.ranking(costs, strengths).within(1e9), 16))
    assert len(set(ranked)) == 16
    for genotype in ranked:
        supernet.derived(genotype)  # refuses an operation that its edge has not


def test_a_genotype_of_other_edges_is_refused():
    supernet = S1.supernet()
    genotype = S1.random_decision(torch.Generator().manual_seed(0))
    edges = list(genotype.normal)
    edges[0] = ("avg_pool_3x3", edges[0][1])
    other = gradnas.Genotype.conv(edges, genotype.reduce)
    with pytest.raises(ValueError, match="no operation 'avg_pool_3x3' on the edge from state"):
        supernet.derived(other)


@pytest.mark.parametrize(
    ("sets", "words"),
    [
        ({"normal": [(SKIP,)] * 2}, "'normal' and 'reduce'"),
        ({"normal": [(SKIP,)], "reduce": [(SKIP,)] * 2}, "has 2 edges, and 1 of them"),
        (
            {"normal": [(SKIP, "sepp")] * 2, "reduce": [(SKIP, SEP3)] * 2},
            "unknown operation 'sepp'",
        ),
        ({"normal": [(SKIP, SKIP)] * 2, "reduce": [(SKIP, SEP3)] * 2}, "offers an operation twice"),
        ({"normal": [("none",)] * 2, "reduce": [(SKIP,)] * 2}, "besides 'none'"),
        ({"normal": [(SKIP,), (SKIP, SEP3)], "reduce": [(SKIP, SEP3)] * 2}, "1 to 2 operations"),
        ({"normal": [{SKIP, SEP3}] * 2, "reduce": [(SKIP, SEP3)] * 2}, "a list of names, in the"),
        ({"normal": [SKIP] * 2, "reduce": [(SKIP, SEP3)] * 2}, "not 'skip_connect'"),
        ({"normal": [None] * 2, "reduce": [(SKIP, SEP3)] * 2}, "edge 0 of the normal .* not None"),
        ({"normal": [[[SKIP]]] * 2, "reduce": [(SKIP, SEP3)] * 2}, "a list of names, in the"),
        ({"normal": None, "reduce": [(SKIP, SEP3)] * 2}, "the normal cell needs a list of"),
    ],
)
def test_wrong_sets_are_refused(sets, words):
    with pytest.raises(ValueError, match=words):
        gradnas.ConvCell(nodes=1, edge_operations=sets)


@pytest.mark.parametrize("names", [{SKIP, SEP3}, frozenset({SKIP}), SEP3, 3, [3], [[SKIP]]])
@pytest.mark.parametrize("space", [gradnas.ConvCell, gradnas.NasBench201])
def test_operations_have_an_order(space, names):
    with pytest.raises(ValueError, match=r"in the order of alpha's columns|unknown operation"):
        space(operations=names)
    assert space(operations={SKIP: 0, SEP3: 0}.keys()).names == (SKIP, SEP3)


def test_noise_is_of_the_output_size_and_gives_no_gradient():
    noise = gradnas.OPERATIONS["noise"](4, 2, True)
    x = torch.zeros(2, 4, 5, 5, requires_grad=True)
    y = noise(x)
    assert y.shape == (2, 4, 3, 3)
    assert not y.requires_grad
