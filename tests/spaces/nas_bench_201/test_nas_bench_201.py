"""NAS-Bench-201: its text form, weight counts, and the supernet against its plain networks."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas.architectures.dense_cell import DenseCell
from gradnas.architectures.registry import load_architecture, read_architecture
from gradnas.spaces.nas_bench_201.shared_cell import SharedCell
from tests.cases import SHARED_DATA, batch

C1 = "nor_conv_1x1"
C3 = "nor_conv_3x3"
SKIP = "skip_connect"
BEST = DenseCell.of((C3, C3, C3, SKIP, C3, C1))
SMALL = gradnas.NasBench201(channels=4, cells=1)


def weights(net: nn.Module) -> int:
    return sum(p.numel() for name, p in net.named_parameters() if "alphas" not in name)


# ---- text ----------------------------------------------------------------------------------------


def test_text_of_the_benchmark():
    text = "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"
    cell = DenseCell.parse(text)
    assert cell.operations == ("avg_pool_3x3", "none", "none", SKIP, "none", C3)
    assert cell.to_text() == text
    assert read_architecture(text) == cell
    assert DenseCell.from_json(cell.to_json()) == cell
    # In another order, with spaces: each operation says which node it reads.
    other = " |avg_pool_3x3~0| + |none~1|none~0|+|nor_conv_3x3~2|none~1|skip_connect~0|"
    assert DenseCell.parse(other) == cell


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("|a~0|+|b~0|", "node 2 does not say by which operation it reads node 1"),
        ("|a~0|+|b~0|c~0|", "node 2 reads node 0 twice"),
        ("|a~1|", "node 1 cannot read node 1"),
        ("|a~0|+b~0|c~1|", "node 2 must stand between bars"),
        ("|a|", "must be an operation and the node"),
        ("|a~0|+", "node 2 must stand between bars"),
        ("|~0|", "an operation is a name"),
        ("|a~-1|", "must be an operation and the node"),
        ("", "node 1 must stand between bars"),
    ],
)
def test_wrong_texts_are_refused(text, words):
    with pytest.raises(ValueError, match=words):
        DenseCell.parse(text)


def test_file(tmp_path):
    BEST.save(tmp_path / "cell.json")
    assert load_architecture(tmp_path / "cell.json") == BEST
    (tmp_path / "cell.txt").write_text(BEST.to_text() + "\n")
    assert load_architecture(tmp_path / "cell.txt") == BEST


def test_every_text_of_the_benchmark_is_read():
    path = SHARED_DATA / "nas-bench-201" / "cifar10.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    space = gradnas.NasBench201()
    texts = [str(text) for text in np.load(path)["arch"]]
    assert len(set(texts)) == 5**6
    some = texts[::25]
    assert [space.decision(text).to_text() for text in some] == some


def test_cells_of_other_spaces_are_refused():
    space = gradnas.NasBench201()
    with pytest.raises(ValueError, match=r"no operation 'nor_conv_5x5'.*nor_conv"):
        space.decision("|nor_conv_5x5~0|+|none~0|none~1|+|none~0|none~1|none~2|")
    with pytest.raises(ValueError, match="has 3 nodes"):
        space.decision("|none~0|+|none~0|none~1|")
    with pytest.raises(ValueError, match="needs a cell of this form"):
        space.decision(gradnas.Genotype.named("DARTS_V2"))


# ---- sizes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (DenseCell.of(["none"] * 6), 73_306),
        (DenseCell.of([SKIP] * 6), 73_306),
        (DenseCell.of(["avg_pool_3x3"] * 6), 73_306),
        (DenseCell.of([C1] * 6), 241_306),
        (DenseCell.of([C3] * 6), 1_531_546),
        (BEST, 1_073_466),
        (DenseCell.of((C3, C3, C3, SKIP, C3, C3)), 1_288_506),
    ],
)
def test_weights_of_networks(cell, expected):
    space = gradnas.NasBench201()
    assert weights(space.network(cell)) == expected
    if cell == BEST:
        assert weights(space.network(cell, num_classes=100)) == expected + 5_850
        assert weights(space.network(cell.to_text(), num_classes=120)) == expected + 7_150


def test_weights_and_alphas_of_the_supernet():
    supernet = gradnas.NasBench201().supernet()
    assert weights(supernet) == 1_686_106
    assert {name: tuple(table.shape) for name, table in supernet.alphas.items()} == {"cell": (6, 5)}


def test_multiply_adds():
    network = gradnas.NasBench201().network(DenseCell.of([C3] * 6))
    assert gradnas.macs(network, torch.zeros(1, 3, 32, 32)) == 220_119_680


# ---- the supernet against plain computations -----------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_one_hot_supernet_is_the_plain_network(training):
    torch.manual_seed(0)
    supernet = SMALL.supernet(num_classes=5).double()
    x, _ = batch(1, dtype=torch.float64, side=8)
    supernet(x)  # running statistics other than those of the beginning
    supernet.train(training)
    generator = torch.Generator().manual_seed(2)
    cells = [SMALL.random_decision(generator) for _ in range(3)]
    for cell in [*cells, DenseCell.of(["none"] * 6), DenseCell.of([C3] * 6)]:
        network = supernet.derived(cell).train(training)
        expected = network(x)
        drawn = copy.deepcopy(supernet)(x, draw=supernet.one_hot_draw(cell))
        torch.testing.assert_close(drawn, expected, rtol=0.0, atol=1e-9)


@pytest.mark.parametrize("training", [True, False])
def test_shared_is_edge_by_edge(training):
    torch.manual_seed(0)
    shared = SMALL.supernet(num_classes=5).double()
    plain = SMALL.supernet(num_classes=5, fused=False).double()
    plain.load_state_dict(shared.state_dict())
    x, y = batch(1, dtype=torch.float64, side=8)
    x.requires_grad_(True)
    found = []
    for net in (shared, plain):
        net(x.detach())
        net.train(training)
        loss = F.cross_entropy(net(x), y)
        named = dict(net.named_parameters())
        grads = torch.autograd.grad(loss, [x, *named.values()], create_graph=True)
        # A derivative of second order, as an exact unrolled step needs it.
        size = sum(grad.square().sum() for grad in grads)
        second = torch.autograd.grad(size, [net.alphas["cell"], net.stem[0].weight])
        found.append([loss, *grads, *second, *net.state_dict().values()])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_shared_is_edge_by_edge_for_sparse_draws():
    torch.manual_seed(0)
    shared = SMALL.supernet(num_classes=5).double()
    plain = SMALL.supernet(num_classes=5, fused=False).double()
    plain.load_state_dict(shared.state_dict())
    x, _ = batch(1, dtype=torch.float64, side=8)
    relaxation = gradnas.GumbelSoftmax(hard=True)
    for seed in range(4):
        outputs = []
        for net in (shared, plain):
            alphas = dict(net.alphas.items())
            noise = relaxation.noise(alphas, torch.Generator().manual_seed(seed))
            draw = relaxation.draw(alphas, noise, 0.5)
            outputs.append(net(x, draw=draw))
        torch.testing.assert_close(*outputs, rtol=0.0, atol=1e-9)


def test_changed_operations_are_called():
    """What is no built-in operation any more runs as the module that it is."""
    torch.manual_seed(0)
    shared = SMALL.supernet(num_classes=5).double()
    seen = []
    cell = shared.cells[0]
    assert isinstance(cell, SharedCell)
    hooked = cell.operation(1, C3)
    hooked.register_forward_hook(lambda module, args, output: seen.append(output))
    cell.operation(2, C1)[2].eps = 0.1
    plain = SMALL.supernet(num_classes=5, fused=False).double()
    plain.load_state_dict(shared.state_dict())
    plain.cells[0].operation(2, C1)[2].eps = 0.1
    x, _ = batch(1, dtype=torch.float64, side=8)
    torch.testing.assert_close(shared(x), plain(x), rtol=0.0, atol=1e-9)
    assert len(seen) == 1


def test_own_operations():
    def conv_5x5(channels, stride, affine):
        return nn.Conv2d(channels, channels, 5, stride, 2)

    space = gradnas.NasBench201(
        channels=4,
        cells=1,
        nodes=3,
        operations={"none": gradnas.OPERATIONS["none"], "c5": conv_5x5},
    )
    torch.manual_seed(0)
    supernet = space.supernet(num_classes=5).double()
    assert supernet.alphas["cell"].shape == (3, 2)
    cell = space.decision("|c5~0|+|none~0|c5~1|")
    x, _ = batch(1, dtype=torch.float64, side=8)
    expected = supernet.derived(cell)(x)
    drawn = supernet(x, draw=supernet.one_hot_draw(cell))
    torch.testing.assert_close(drawn, expected, rtol=0.0, atol=1e-9)
    with pytest.raises(ValueError, match="your own operation 'c5'"):
        space.to_json()


def test_derivation_takes_the_strongest_of_all_five():
    table = torch.zeros(6, 5)
    wanted = [0, 1, 2, 3, 4, 0]
    for row, column in enumerate(wanted):
        table[row, column] = 1.0
    cell = SMALL.derive({"cell": table})
    assert cell.operations == ("none", SKIP, C1, C3, "avg_pool_3x3", "none")
    # Ties go to the first column.
    assert set(SMALL.derive({"cell": torch.zeros(6, 5)}).operations) == {"none"}


def test_random_cells_are_uniform():
    generator = torch.Generator().manual_seed(0)
    names = [SMALL.random_decision(generator).operations for _ in range(400)]
    counts = [sum(name == wanted for cell in names for name in cell) for wanted in SMALL.names]
    assert all(380 < count < 580 for count in counts), counts  # of 2,400: 480 expected, sd 20


def test_costs_are_those_of_derived_networks():
    supernet = SMALL.supernet(num_classes=5)
    x = torch.zeros(1, 3, 8, 8)
    macs = supernet.costs("macs", (x,))
    params = supernet.costs("params", (x,))
    generator = torch.Generator().manual_seed(3)
    for _ in range(3):
        cell = SMALL.random_decision(generator)
        network = SMALL.network(cell, num_classes=5)
        columns = [SMALL.names.index(name) for name in cell.operations]
        picked = [float(macs.tables["cell"][row, column]) for row, column in enumerate(columns)]
        assert macs.fixed + sum(picked) == gradnas.macs(network, x)
        picked = [float(params.tables["cell"][row, column]) for row, column in enumerate(columns)]
        assert params.fixed + sum(picked) == weights(network)


def test_the_best_cell_within_a_budget_is_that_of_an_enumeration():
    space = gradnas.NasBench201(channels=4, cells=1, nodes=3)
    torch.manual_seed(5)
    supernet = space.supernet()
    costs = supernet.costs("macs", (torch.zeros(1, 3, 8, 8),))
    strengths = {"cell": torch.softmax(torch.randn(3, 5, dtype=torch.float64), -1)}
    table = costs.tables["cell"]
    budget = costs.fixed + float(table.max(1).values.sum()) * 0.4
    ranked = list(itertools.islice(supernet.ranking(costs, strengths).within(budget), 5))
    scored = []
    for columns in itertools.product(range(5), repeat=3):
        total = costs.fixed + sum(float(table[row, column]) for row, column in enumerate(columns))
        p = np.prod([float(strengths["cell"][row, column]) for row, column in enumerate(columns)])
        if total <= budget:
            scored.append((-p, columns))
    expected = [space.shape.cell(list(columns)) for _, columns in sorted(scored)[:5]]
    assert ranked == expected


def test_search_of_two_steps_on_every_path():
    x, y = batch(3, side=8)
    for relaxation in (gradnas.Softmax(), gradnas.BinaryGates(mode="recompute")):
        search = gradnas.Search(
            SMALL.supernet(num_classes=5), relaxation=relaxation, gradient=gradnas.FirstOrder()
        )
        before = search.supernet.alphas["cell"].detach().clone()
        for _ in range(2):
            search.step(
                lambda net: F.cross_entropy(net(x), y), lambda net: F.cross_entropy(net(x), y)
            )
        assert not torch.equal(search.supernet.alphas["cell"], before)
        assert isinstance(search.result().decision, DenseCell)


def test_a_recomputed_cell_is_the_same():
    torch.manual_seed(0)
    one = SMALL.supernet(num_classes=5).double()
    other = SMALL.supernet(num_classes=5, checkpoint_cells=True).double()
    other.load_state_dict(one.state_dict())
    x, y = batch(3, side=8, dtype=torch.float64)
    for net in (one, other):
        F.cross_entropy(net(x), y).backward()
    for p, q in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    for p, q in zip(one.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(p, q)


def test_odd_maps_are_refused():
    with pytest.raises(ValueError, match="even height and width, got 7x7"):
        SMALL.network(BEST)(torch.zeros(2, 3, 7, 7))


@pytest.mark.parametrize("setting", [{"channels": 0}, {"cells": True}, {"nodes": 1}])
def test_settings_outside_their_range(setting):
    with pytest.raises(ValueError, match="must be a whole number"):
        gradnas.NasBench201(**setting)
