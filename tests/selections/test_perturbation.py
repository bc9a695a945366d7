"""Selection by what the supernet loses: against a plain loop, and in whole searches."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from cases import TwoChoices, batch, loss_on
from torch import nn

from gradnas import (
    BinaryGates,
    Choice,
    ConvCell,
    ExpectedCost,
    NasBench201,
    PartialChannels,
    PerturbationSelection,
    Search,
    Strongest,
)
from gradnas.search.selecting import Selecting, without

BENCH = NasBench201(channels=4, cells=1)
TINY = ConvCell(channels=4, cells=3, nodes=3)


def test_rounds_are_where_they_were_published():
    setting = PerturbationSelection(interval=5)
    assert setting.epochs_of(6) == 25
    made = [setting.round_at(epoch, 6) for epoch in range(25)]
    first_of = [made.index(number) for number in range(1, 7)]
    assert first_of == [0, 5, 10, 15, 20, 24]
    assert PerturbationSelection(interval=1).epochs_of(1) == 1
    assert PerturbationSelection(interval=1).round_at(0, 1) == 1


def test_an_operation_is_left_out_and_the_others_keep_their_weights():
    net = BENCH.supernet(3, 5)
    draw = net.dense_draw()
    less = without(draw, "cell", 2, 3)
    assert less.mix["cell"][2, 3] == 0 and 3 not in less.active["cell"][2]
    assert torch.equal(less.mix["cell"][2, :3], draw.mix["cell"][2, :3])
    cut = without(draw, "cell", 4, None)
    assert cut.active["cell"][4] == () and cut.mix["cell"][4].abs().max() == 0


def test_the_operation_that_is_missed_most_is_taken():
    torch.manual_seed(0)
    net = BENCH.supernet(3, 5).double()
    search = Search(net, epochs=9, selection=PerturbationSelection(interval=1))
    search.schedule.epoch = 4  # the first of the selection: 5 epochs for 6 rounds
    x, y = batch(0, size=16, dtype=torch.float64, side=8)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    ((name, row),) = search.selecting.groups[0].edges

    losses = []
    mixture = torch.softmax(net.alphas["cell"].detach(), -1)
    for column in range(5):
        plain = copy.deepcopy(net).train()
        mix = mixture.clone()
        mix[row, column] = 0.0
        losses.append(
            F.cross_entropy(plain(x, draw=type(net.dense_draw()).dense({"cell": mix})), y)
        )
    said = search.select(lambda net: -F.cross_entropy(net(x), y).item())
    right = int(torch.stack(losses).argmax())
    assert net.fixed == {name: {row: right}} and said == [
        f"selection: cell {row}: {BENCH.supernet(3, 5).operation_names()['cell'][right]}"
    ]
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key]), key
    assert search.select(lambda net: 0.0) == []  # nothing is due twice
    assert search.result().genotype.operations[row] == said[0].rpartition(" ")[2]
    draw = search.passes.weight_path(dict(search.alphas), {})
    assert draw.active["cell"][row] == (right,) and draw.mix["cell"][row, right] == 1


@pytest.mark.slow
def test_edges_that_are_missed_least_are_cut():
    torch.manual_seed(0)
    search = Search(TINY.supernet(3, 5), epochs=20, selection=PerturbationSelection(interval=1))
    rounds = search.selecting.groups
    # 9 edges of both cells side by side, then the nodes of 3 and 4 edges.
    assert [len(group.edges) for group in rounds] == [2] * 9 + [0] * 2
    assert sorted(group.nodes[0][1] for group in rounds[9:]) == [(2, 3, 4), (5, 6, 7, 8)]
    assert search.schedule.learning_epochs == 10
    search.schedule.epoch = 19
    worth = torch.rand(9, generator=torch.Generator().manual_seed(0)).tolist()

    def measure(net):
        # Edges are worth what they are, and each of its operations the more the later it comes.
        total = 0.0
        for rows in net.draw.active.values():
            for row, columns in enumerate(rows):
                total += worth[row] * bool(columns) + 1e-3 * sum(columns)
        return total

    search.select(measure)
    genotype = search.result().genotype
    names = {name for name, _ in genotype.normal}
    assert names == {"dil_conv_5x5"} and "none" not in names
    kept = [predecessor for _, predecessor in genotype.normal]
    for node, rows in enumerate(((0, 1), (2, 3, 4), (5, 6, 7, 8))):
        best = sorted(range(len(rows)), key=lambda k: -worth[rows[k]])[:2]
        assert set(kept[2 * node : 2 * node + 2]) == set(best)


def test_choices_of_ones_own_module_by_fit():
    torch.manual_seed(0)
    data = [batch(k) for k in range(2)]
    net = TwoChoices()
    selection = PerturbationSelection(interval=1, learn_alphas=False)
    search = Search(net, selection=selection)
    start = {name: alpha.detach().clone() for name, alpha in search.alphas.items()}
    result = search.fit(data, data, loss=F.cross_entropy, epochs=3, progress=False)
    assert set(net_choices := dict(result.choices)) == {"first", "second"} and net_choices
    assert set(search.supernet.fixed) == {"first", "second"}
    for name, alpha in search.alphas.items():
        assert torch.equal(alpha, start[name])  # "blank": they never learn
    chosen = {
        name: search.supernet.names[name][rows[0]] for name, rows in search.supernet.fixed.items()
    }
    assert net_choices == chosen
    lr = search.weight_optimizer.param_groups[0]["lr"]
    assert lr == pytest.approx(0.1 * search.weight_step.settings.lr)


def test_resumed_is_as_never_stopped():
    def new():
        torch.manual_seed(0)
        return Search(TwoChoices(), epochs=4, selection=PerturbationSelection(interval=2))

    def epoch(search, k):
        search.select(lambda net: -loss_on(batch(7))(net).item())
        search.step(loss_on(batch(k)), loss_on(batch(9 + k)))
        search.finish_epoch()

    whole = new()
    for k in range(3):
        epoch(whole, k)
    assert len(whole.supernet.fixed) == 1
    state = copy.deepcopy(whole.state_dict())
    other = new()
    other.load_state_dict(state)
    for search in (whole, other):
        epoch(search, 3)
    assert whole.supernet.fixed == other.supernet.fixed and len(whole.supernet.fixed) == 2
    for one, two in zip(whole.supernet.parameters(), other.supernet.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_warm_up_until_the_rounds_is_refused():
    """The alphas would be those of the beginning, and nobody has asked for that."""
    rounds = PerturbationSelection(interval=1)  # two choices: a round in the last epoch each
    data = [batch(0)]
    search = Search(TwoChoices(), warmup_epochs=4, selection=rounds)
    with pytest.raises(ValueError, match="would not move before the rounds"):
        search.fit(data, data, F.cross_entropy, epochs=5, progress=False)
    with pytest.raises(ValueError, match="would not move before the rounds"):
        Search(TwoChoices(), epochs=5, warmup_epochs=4, selection=rounds)
    Search(TwoChoices(), epochs=6, warmup_epochs=4, selection=rounds)
    blank = PerturbationSelection(interval=1, learn_alphas=False)
    Search(TwoChoices(), epochs=5, warmup_epochs=4, selection=blank)


class InOrder(nn.Module):
    """Three choices, all of whose names come in this order or backwards."""

    def __init__(self, backwards: bool) -> None:
        super().__init__()
        step = -1 if backwards else 1
        for name in ("one", "two", "three")[::step]:
            operations = {key: nn.Linear(2, 2) for key in ("a", "b", "c")[::step]}
            setattr(self, name, Choice(operations, name=name))

    def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
        return self.three(self.two(self.one(x_BF)))


def test_decisions_are_taken_over_by_their_names():
    """A module may declare its choices and their operations in another order than the state's."""

    def searched(backwards):
        selection = PerturbationSelection(interval=1)
        return Search(InOrder(backwards), epochs=9, selection=selection)

    first, other = searched(False), searched(True)
    x, y = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
    first.step(loss_on((x, y)), loss_on((x, y)))
    first.schedule.epoch = first.schedule.learning_epochs
    first.select(lambda net: 0.0)  # of equal ones the first, which is "a"
    (name,) = first.supernet.fixed
    other.load_state_dict(first.state_dict())
    assert other.supernet.fixed == {name: {0: 2}}
    for search in (first, other):
        search.schedule.epoch = 8
        search.select(lambda net: 0.0)
        assert len(search.supernet.fixed) == 3
    assert first.result().decision.parts()[name] == other.result().decision.parts()[name] == "a"


def test_what_cannot_be_computed_without_an_operation_is_missed_most():
    def selected(values):
        search = Search(TwoChoices(), epochs=9, selection=PerturbationSelection(interval=1))
        search.schedule.epoch = 8
        of_round = itertools.cycle(values)  # the choices have 3 and 2 operations
        search.select(lambda net: next(of_round))
        return {name: rows[0] for name, rows in search.supernet.fixed.items()}

    nan = math.nan
    # Whichever of the two choices is the first, every place of NaN comes before a number of it.
    assert set(selected([nan, -1.0]).values()) <= {0, 1}
    for values, first in (([2.0, nan, 1.0, 1.0, nan], 1), ([nan, 2.0, nan, 1.0, nan], 0)):
        search = Search(TwoChoices(), epochs=9, selection=PerturbationSelection(interval=1))
        (name, row) = search.selecting.groups[0].edges[0]
        given = iter(values)
        search.selecting._decide(name, row, lambda net, given=given: next(given))
        assert search.supernet.fixed[name][row] == first
    with pytest.raises(ValueError, match="NaN or infinite whatever is left out"):
        selected([nan])


def test_what_cannot_be_is_refused():
    for given, sentence in (
        ({"relaxation": BinaryGates()}, "the weights learn on no mixture"),
        ({"epochs": 1}, "take the last 1 epochs of a search, and this one has 1"),
        (
            {"cost": ExpectedCost(budget_params=1e9), "example": batch(0)[0]},
            "would keep no budget",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            Search(TwoChoices(), selection=PerturbationSelection(interval=1), **given)
    with pytest.raises(ValueError, match="selection must be a Selection"):
        Search(TwoChoices(), selection="strongest")
    with pytest.raises(ValueError, match="interval must be"):
        PerturbationSelection(interval=0)
    stream = iter([batch(0)])
    search = Search(TwoChoices(), selection=PerturbationSelection(interval=1))
    with pytest.raises(ValueError, match="once for each operation, and a list_iterator"):
        search.fit([batch(0)], stream, loss=F.cross_entropy, epochs=2, progress=False)
    assert Search(TwoChoices()).selection == Strongest()
    with_parts = Search(
        ConvCell(channels=4, cells=3, nodes=2).supernet(3, 5),
        PartialChannels(2),
        epochs=30,
        selection=PerturbationSelection(interval=1),
    )
    assert isinstance(with_parts.selecting, Selecting)
