"""Operations on a part of the channels: counts, the formula by channel, and whole searches."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from cases import TwoChoices, batch, loss_on
from torch import nn

from gradnas import (
    AuxiliarySkip,
    BinaryGates,
    ConvCell,
    Dirichlet,
    GumbelSoftmax,
    MBConvChain,
    NasBench201,
    PartialChannels,
    PerturbedAlphas,
    RecurrentCell,
    Reinforce,
    Search,
    Sigmoid,
    Softmax,
    Unrolled,
)
from gradnas.modules.draws import Additions
from gradnas.relaxations import Relaxation
from gradnas.spaces.cells.supernet import ConvSupernet
from gradnas.spaces.edge_weights import edge_softmax
from gradnas.spaces.nas_bench_201.supernet import NasBench201Supernet

TINY = ConvCell(channels=8, cells=3, nodes=2)
BENCH = NasBench201(channels=8, cells=1)


@pytest.mark.slow
def test_weights_and_alphas_of_the_published_supernet():
    search = Search(ConvCell().supernet(), PartialChannels(4))
    assert sum(p.numel() for p in search.params.values()) == 299_578
    shapes = {name: tuple(alpha.shape) for name, alpha in search.alphas.items()}
    assert shapes == {
        "normal": (14, 8),
        "reduce": (14, 8),
        "normal edges": (14,),
        "reduce edges": (14,),
    }
    assert len(search.alpha_optimizer.param_groups[0]["params"]) == 4


def test_the_shuffle_and_the_weights_of_edges():
    cell = TINY.supernet().cells[0]
    cell.add(Additions(channel_share=4))
    channels = torch.arange(8.0).view(1, 8, 1, 1)
    mix, _ = cell.columns(torch.zeros(5, 8), ((0,),) * 5, None, 0.0)
    shuffled = cell.with_rest(channels[:, :2], [(0, channels)], mix)
    assert shuffled.flatten().tolist() == [0, 2, 4, 6, 1, 3, 5, 7]
    weights = edge_softmax(torch.zeros(14), (2, 3, 4, 5))
    assert weights.tolist() == pytest.approx([1 / 2] * 2 + [1 / 3] * 3 + [1 / 4] * 4 + [1 / 5] * 5)


def by_the_formula(cell, x0, x1, p_EO, q_E, skip):
    """A normal or reduction cell, edge by edge, as the paper says it."""
    states = [cell.preprocess0(x0), cell.preprocess1(x1)]
    part = cell.channels
    row = 0
    for node in range(cell.shape.nodes):
        total = 0.0
        for x in states[: node + 2]:
            mixed = 0.0
            for column, operation in enumerate(cell.edges[row].values()):
                weight = skip if column == p_EO.shape[1] else p_EO[row, column]
                mixed = mixed + weight * operation(x[:, :part])
            rest = x[:, part:]
            if (cell.reduction and x is states[0]) or (cell.reduction and x is states[1]):
                rest = F.max_pool2d(rest, 2)
            joined = torch.cat([mixed, rest], dim=1)
            B, C, H, W = joined.shape
            y = joined.view(B, C // part, part, H, W).transpose(1, 2).reshape(B, C, H, W)
            total = total + q_E[row] * y
            row += 1
        states.append(total)
    return torch.cat(states[2:], dim=1)


@pytest.mark.parametrize("place", [0, 1], ids=["normal", "reduction"])
@pytest.mark.parametrize("skip", [0.0, 0.4])
def test_a_cell_is_the_formula_in_every_way_of_computing_it(place, skip):
    additions = Additions(channel_share=2, edge_weights=True, auxiliary_skip=skip > 0)
    outputs = []
    for fused, grouped in ((False, False), (True, False), (True, True)):
        torch.manual_seed(0)
        net = ConvSupernet(TINY.shape, 3, 5, fused=fused).double()
        net.add(additions, seed=1)
        cell = net.cells[place]
        cell.grouped = grouped
        p_EO = torch.softmax(torch.randn(5, 8, dtype=torch.float64), -1)
        q_E = edge_softmax(torch.randn(5, dtype=torch.float64), (2, 3))
        x0, x1 = torch.randn(2, 3, 24, 8, 8, dtype=torch.float64)
        if place == 1:
            x1 = torch.randn(3, 16, 8, 8, dtype=torch.float64)
        mix, active = cell.columns(p_EO, (tuple(range(8)),) * 5, q_E, skip)
        outputs.append(cell(x0, x1, mix, active))
        assert torch.allclose(outputs[0], outputs[-1], atol=1e-9)
        if not fused:
            outputs.append(by_the_formula(cell, x0, x1, p_EO, q_E, skip))
            assert torch.allclose(outputs[0], outputs[1], atol=1e-9)


@pytest.mark.parametrize("skip", [0.0, 0.4])
def test_a_cell_of_nas_bench_201_is_the_same_shared(skip):
    additions = Additions(channel_share=2, edge_weights=True, auxiliary_skip=skip > 0)
    outputs = []
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    for fused in (False, True):
        torch.manual_seed(0)
        net = NasBench201Supernet(BENCH.shape, 3, 5, fused=fused).double()
        net.add(additions, seed=1)
        draw = net.dense_draw()
        if skip:
            draw = AuxiliarySkip(start=skip).in_every_step(draw, 0.0)
        outputs.append(net(x, draw=draw))
    assert torch.allclose(*outputs, atol=1e-9)


def test_a_cut_edge_passes_nothing():
    net = TINY.supernet().eval()
    net.add(Additions(channel_share=2), seed=0)
    genotype = TINY.random_decision(torch.Generator().manual_seed(0))
    draw = net.one_hot_draw(genotype)
    cell = net.cells[0]
    mix, active = net.mixed(cell, "normal", draw)
    cut = [row for row in range(5) if not active[row]]
    assert cut and mix[cut].abs().max() == 0 and mix[active.index(active[0]), -1] in (0, 1)


def test_what_is_derived_is_the_strongest_product():
    net = TINY.supernet()
    search = Search(net, PartialChannels(2))
    with torch.no_grad():
        net.alphas["normal"].zero_()
        net.alphas["normal"][:, 4] = torch.tensor([1.0, 1.0, 1.2, 1.1, 1.0])
        net.edge_alphas["normal"].copy_(torch.tensor([0.0, 0.0, -3.0, 0.0, 0.5]))
    edges = search.result().genotype.normal
    # Into the second node the edge of the largest p has the smallest q, and loses.
    assert [predecessor for _, predecessor in edges[2:]] == [2, 1]
    assert TINY.derive(search.alphas, search.relaxation) == search.result().genotype
    likeliest = next(iter(net.ranking(net.no_costs(), net.strengths(Softmax())).within(1.0)))
    assert set(likeliest.normal) == set(edges)


@pytest.mark.slow
@pytest.mark.parametrize(
    "inner", [Dirichlet(), Sigmoid(), BinaryGates("two"), GumbelSoftmax(probe="full")], ids=repr
)
def test_any_inner_relaxation_learns_edges_too(inner):
    torch.manual_seed(0)
    search = Search(TINY.supernet(3, 5), PartialChannels(2, inner=inner), epochs=2)
    before = {name: alpha.detach().clone() for name, alpha in search.alphas.items()}
    for k in range(2):
        search.step(loss_on(batch(k, side=8)), loss_on(batch(9 + k, side=8)))
    for name, alpha in search.alphas.items():
        assert not torch.equal(alpha, before[name]), name


@pytest.mark.slow
def test_resumed_is_as_never_stopped():
    def new():
        torch.manual_seed(0)
        relaxation = PartialChannels(2, inner=Dirichlet())
        methods = [AuxiliarySkip(), PerturbedAlphas()]
        return Search(BENCH.supernet(3, 5), relaxation, epochs=2, stabilizers=methods)

    def step(search, k):
        search.step(loss_on(batch(k, side=8)), loss_on(batch(9 + k, side=8)))
        search.finish_epoch()

    whole = new()
    step(whole, 0)
    state = copy.deepcopy(whole.state_dict())
    step(whole, 1)
    other = new()
    other.load_state_dict(state)
    step(other, 1)
    for one, two in zip(whole.supernet.parameters(), other.supernet.parameters(), strict=True):
        assert torch.equal(one, two)
    with pytest.raises(ValueError, match=r"PartialChannels\(k=2, inner=Dirichlet\(\)"):
        Search(BENCH.supernet(3, 5), PartialChannels(2), epochs=2).load_state_dict(state)


def test_what_cannot_be_is_refused_with_a_sentence():
    chain = MBConvChain.named("nas-bench-macro").supernet(num_classes=5)
    for net, relaxation, sentence in (
        (TwoChoices(), PartialChannels(2), "those of a ModuleSupernet are made for all"),
        (chain, PartialChannels(2), "are made for all"),
        (RecurrentCell(hidden=4, embedding=4).supernet(9), PartialChannels(2), "are made for all"),
        (TwoChoices(), PartialChannels(1), "weighs the edges that enter a node"),
        (TINY.supernet(), PartialChannels(3), "has 8: choose another k"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Search(net, relaxation)
    with pytest.raises(ValueError, match="edge_normalisation=False"):
        Search(TINY.supernet(), PartialChannels(2, inner=BinaryGates()), Reinforce(2))
    with pytest.raises(ValueError, match="give the relaxation of its operations alone"):
        PartialChannels(2, inner=PartialChannels(2))
    once = Search(TINY.supernet(), PartialChannels(2))
    with pytest.raises(ValueError, match="build a new one for each search"):
        Search(once.supernet, Softmax())
    with pytest.raises(ValueError, match="see a part of the channels"):
        once.result().derive()
    assert isinstance(once.result().derive(weights="fresh"), nn.Module)
    with pytest.raises(ValueError, match="Dirichlet does not have"):
        Search(BENCH.supernet(), PartialChannels(2, inner=Dirichlet()), Unrolled(mode="exact"))
    assert isinstance(PartialChannels(), Relaxation)
