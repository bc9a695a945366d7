"""The conv cell space: counts of the papers, the supernet against the derived network."""

from __future__ import annotations

import pytest
import torch
from cases import PUBLISHED_CONV, RELAXATIONS, batch, name_of
from torch import nn

from gradnas import DARTS_OPERATIONS, ConvCell, Draw, Genotype, Search
from gradnas.randomness import generator_for
from gradnas.spaces.cells.conv_network import ConvCellNetwork

D = torch.float64

# Weights without the auxiliary head, at CIFAR (C36, L20) and ImageNet (C48, L14) size
COUNTS = {
    "NASNet": (3_830_950, 5_564_320),
    "AmoebaNet": (3_145_078, 4_627_360),
    "DARTS_V1": (3_169_414, 4_510_432),
    "DARTS_V2": (3_349_342, 4_718_752),
    "PC_DARTS_cifar": (3_634_678, 5_270_560),
    "PC_DARTS_image": (3_721_510, 5_342_464),
}
CIFAR, IMAGENET = ConvCell(channels=36, cells=20), ConvCell(channels=48, cells=14, stem="imagenet")


def weights(module, skip=()):
    return sum(p.numel() for name, p in module.named_parameters() if not name.startswith(skip))


@pytest.mark.parametrize(
    ("space", "count"),
    [(ConvCell(), 1_930_618), (ConvCell(channels=6, cells=20), 897_640)],
    ids=["C16 L8", "C6 L20"],
)
def test_weights_of_the_supernet(space, count):
    """As in the paper and its code."""
    supernet = space.supernet(in_channels=3, num_classes=10)
    assert weights(supernet, ("alphas",)) == count
    assert supernet.alphas["normal"].shape == supernet.alphas["reduce"].shape == (14, 8)


@pytest.mark.parametrize("name", PUBLISHED_CONV)
def test_weights_of_the_published_cells(name):
    genotype = Genotype.named(name)
    for space, classes, count in ((CIFAR, 10, COUNTS[name][0]), (IMAGENET, 1000, COUNTS[name][1])):
        with torch.device("meta"):
            plain = space.network(genotype, num_classes=classes)
            with_head = space.network(genotype, num_classes=classes, auxiliary=True)
        assert weights(plain) == count
        assert weights(with_head, ("auxiliary_head",)) == count
        if name.startswith(("DARTS", "PC")):
            assert weights(with_head.auxiliary_head) == (476_426 if space is CIFAR else 1_260_776)


@pytest.mark.parametrize("name", ["DARTS_V2", "NASNet"])
def test_shapes_of_derived_networks(name):
    genotype = Genotype.named(name)
    net = ConvCell(channels=8, cells=5).network(genotype, num_classes=7, auxiliary=True)
    x = torch.randn(2, 3, 32, 32)
    logits, auxiliary = net(x)
    assert logits.shape == auxiliary.shape == (2, 7)
    assert net.eval()(x).shape == (2, 7)
    imagenet = ConvCell(channels=8, cells=5, stem="imagenet").network(
        genotype, num_classes=7, auxiliary=True
    )
    logits, auxiliary = imagenet(torch.randn(2, 3, 224, 224))
    assert logits.shape == auxiliary.shape == (2, 7)


def without_pools(space, seed):
    """A random genotype of operations that are the same in supernet and derived network."""
    names = tuple(n for n in space.names if "pool" not in n)
    return ConvCell(nodes=space.nodes, operations=names).random_decision(generator_for(seed))


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("seed", range(3))
def test_derived_network_with_kept_weights_equals_the_one_hot_supernet(stem, seed):
    """Train mode, float64, 1e-9."""
    torch.manual_seed(seed)
    space = ConvCell(channels=4, cells=6, stem=stem)
    supernet = space.supernet(3, 5).double()
    genotype = without_pools(space, seed)
    x, _ = batch(seed, size=4, dtype=D, side=64 if stem == "imagenet" else 16)
    difference = supernet(x, draw=supernet.one_hot_draw(genotype)) - supernet.derived(genotype)(x)
    assert difference.abs().max() < 1e-9
    fresh = supernet.derived(genotype, weights="fresh")
    assert (fresh(x) - supernet.derived(genotype)(x)).abs().max() > 1e-3


@pytest.mark.parametrize("fused", [True, False])
def test_the_mixture_is_the_sum_over_operations_written_out(fused):
    """The cell against a direct transcription of A1, A2 with `none` present and a random alpha."""
    torch.manual_seed(0)
    space = ConvCell(channels=4, cells=2, nodes=2)
    supernet = space.supernet(3, 5, fused=fused).double()
    with torch.no_grad():
        supernet.alphas["reduce"].normal_()
    cell = supernet.cells[0]
    x, _ = batch(0, size=4, dtype=D, side=8)
    stem = supernet.stem(x)
    p = torch.softmax(supernet.alphas["reduce"], -1)
    states = [cell.preprocess0(stem), cell.preprocess1(stem)]
    for node in range(2):
        rows = [space.shape.edge(node, j) for j in range(node + 2)]
        total = 0.0
        for j, row in enumerate(rows):
            for k, name in enumerate(space.names):
                # `none` multiplies zeros.
                total = total + p[row, k] * cell.edges[row][name](states[j])
        states.append(total)
    draw = supernet.dense_draw()
    assert torch.allclose(
        cell(stem, stem, draw.mix["reduce"], draw.active["reduce"]),
        torch.cat(states[2:], 1),
        atol=1e-12,
    )


def test_pools_are_normalised_in_the_supernet_only():
    edge = ConvCell(channels=4, cells=2).supernet().cells[0].edges[0]
    assert [type(m).__name__ for m in edge["avg_pool_3x3"]] == ["AvgPool2d", "BatchNorm2d"]
    net = ConvCell(channels=4, cells=2).network(Genotype.named("DARTS_V2"))
    pools = [op for cell in net.cells for op in cell.operations if isinstance(op, nn.MaxPool2d)]
    assert pools and all(m.affine for m in net.modules() if isinstance(m, nn.BatchNorm2d))


def test_operations_that_were_not_drawn_do_not_run():
    space = ConvCell(channels=4, cells=3)
    # Of the fused cell's modules no hook runs: see test_fused_cell.py.
    supernet = space.supernet(3, 5, fused=False)
    genotype = space.random_decision(generator_for(0))
    ran = set()
    for c, cell in enumerate(supernet.cells):
        for e, edge in enumerate(cell.edges):
            for name, operation in edge.items():
                operation.register_forward_hook(lambda *_, key=(c, e, name): ran.add(key))
    supernet(batch(0, side=8)[0], draw=supernet.one_hot_draw(genotype))
    assert len(ran) == 3 * 8


def test_a_draw_of_none_everywhere_gives_zeros_not_an_error():
    supernet = ConvCell(channels=4, cells=3).supernet(3, 5)
    mix = {k: torch.zeros(14, 8) for k in ("normal", "reduce")}
    for table in mix.values():
        table[:, 0] = 1.0
    draw = Draw(mix, dict.fromkeys(mix, ((0,),) * 14))
    logits = supernet(batch(0, side=8)[0], draw=draw)
    assert torch.equal(logits, supernet.classifier.bias.expand(8, 5))


@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=name_of)
def test_a_step_of_search_with_every_relaxation(relaxation):
    torch.manual_seed(0)
    search = Search(
        ConvCell(channels=4, cells=2, nodes=2).supernet(3, 5), relaxation=relaxation, epochs=2
    )
    x, y = batch(0, side=8)
    loss = nn.functional.cross_entropy
    before = {k: a.detach().clone() for k, a in search.alphas.items()}
    search.step(lambda net: loss(net(x), y), lambda net: loss(net(x), y))
    assert any(not torch.equal(before[k], a) for k, a in search.alphas.items())


def test_ones_own_operation_is_searched_derived_and_trained():
    def squeeze(channels, stride, affine):
        return nn.Sequential(
            nn.Conv2d(channels, channels, 1, stride, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )

    space = ConvCell(channels=4, cells=3, operations={**DARTS_OPERATIONS, "squeeze": squeeze})
    supernet = space.supernet(3, 5)
    assert supernet.alphas["normal"].shape == (14, 9)
    with torch.no_grad():
        supernet.alphas["normal"][:, 8] = 1.0
    genotype = supernet.decide()
    assert {name for name, _ in genotype.normal} == {"squeeze"}
    x, _ = batch(0, side=8)
    assert supernet.derived(genotype)(x).shape == (8, 5)
    assert space.network(genotype, num_classes=5)(x).shape == (8, 5)


def test_random_decisions_have_distinct_predecessors_and_every_operation():
    space, seen = ConvCell(), set()
    for seed in range(40):
        genotype = space.random_decision(generator_for(seed))
        for first, second in zip(genotype.normal[::2], genotype.normal[1::2], strict=True):
            assert first[1] != second[1]
        seen |= {name for name, _ in genotype.normal}
    assert seen == set(space.names) - {"none"}


def test_drop_path_drops_whole_samples_and_spares_identities():
    """Per sample, scaled by 1 / keep, not on the stride-1 identity."""
    from gradnas.spaces.cells.conv_network import (
        ConvCellNetwork,
        drop_path,
    )
    from gradnas.spaces.operations import OPERATIONS

    torch.manual_seed(0)
    x = torch.ones(4000, 2, 1, 1)
    dropped = drop_path(x, 0.25)
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert torch.equal(dropped[:, 0], dropped[:, 1])
    assert (dropped[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)

    edges = [("skip_connect", 0), ("skip_connect", 1)]
    cell = ConvCellNetwork(edges, [2], (4, 4), 4, False, False, OPERATIONS)
    x = torch.randn(8, 4, 4, 4)
    assert torch.equal(cell(x, x, 0.9), cell(x, x, 0.0))
    edges = [("avg_pool_3x3", 0), ("skip_connect", 1)]
    cell = ConvCellNetwork(edges, [2], (4, 4), 4, False, False, OPERATIONS)
    assert not torch.equal(cell(x, x, 0.9), cell(x, x, 0.0))
    assert torch.equal(cell.eval()(x, x, 0.9), cell(x, x, 0.0))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: ConvCell(cells=1), "cells must be a whole number of at least 2, not 1"),
        (lambda: ConvCell(channels=2.5), "channels must be a whole number"),
        (lambda: ConvCell(stem="cifra"), "stem must be"),
        (lambda: ConvCell(operations=("none", "sep_conv_3x4")), "did you mean 'sep_conv_3x3'"),
        (lambda: ConvCell(operations=("none",)), "besides 'none'"),
        (lambda: ConvCell(operations={"x": 3}), "factory"),
        (
            lambda: ConvCell().network(Genotype.named("ENAS")),
            "conv genotype, not one of kind 'recurrent'",
        ),
        (
            lambda: ConvCell().network(
                Genotype.conv(normal=[("sep_conv_3x4", 0), ("none", 1)], reduce=[("none", 0)] * 2)
            ),
            "unknown operation 'sep_conv_3x4' in the normal cell .did you mean 'sep_conv_3x3'",
        ),
        (
            lambda: ConvCell(channels=4, cells=3).supernet()(torch.randn(2, 3, 9, 9)),
            "even height and width, got 9x9",
        ),
        (
            lambda: ConvCell(channels=4, cells=3).network(Genotype.named("DARTS"), auxiliary=True)(
                torch.randn(2, 3, 8, 8)
            ),
            "auxiliary head needs maps of 8x8",
        ),
        (
            lambda: (
                ConvCell(channels=4, cells=2, nodes=2).supernet().derived(Genotype.named("DARTS"))
            ),
            "has 4 nodes .*; a cell of this supernet has 2 nodes",
        ),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


def test_networks_of_two_edges_into_each_node_drop_operations_and_others_nodes():
    network = ConvCell(channels=4, cells=3).network(Genotype.named("DARTS_V2"))
    assert not any(cell.drops_nodes for cell in network.cells)
    nodes = [[("skip_connect", 0), ("sep_conv_3x3", 1)], [("dil_conv_3x3", 2)]]
    concats = "normal_concat=[2, 3], reduce_concat=[2, 3]"
    by_node = Genotype.parse(f"Genotype(normal={nodes!r}, reduce={nodes!r}, {concats})")
    network = ConvCell(channels=4, cells=3).network(by_node)
    assert all(cell.drops_nodes for cell in network.cells)


@pytest.mark.parametrize("by_node", [False, True])
def test_drop_path_is_that_of_the_authors(by_node):
    """DARTS drops operations and spares identities; FairDARTS drops the sum of a node."""
    pairs = [("skip_connect", 0), ("skip_connect", 1)]
    edges = [pairs] if by_node else pairs
    cell = ConvCellNetwork(edges, [2], (4, 4), 4, False, False, DARTS_OPERATIONS)
    x_BCHW = torch.randn(64, 4, 3, 3)
    torch.manual_seed(0)
    y_BCHW = cell(x_BCHW, x_BCHW, 0.5)
    is_dropped_B = (y_BCHW == 0).flatten(1).all(1)
    assert is_dropped_B.float().mean() == pytest.approx(0.5 if by_node else 0.0, abs=0.2)
    cell.eval()
    assert not (cell(x_BCHW, x_BCHW, 0.5) == 0).flatten(1).all(1).any()
