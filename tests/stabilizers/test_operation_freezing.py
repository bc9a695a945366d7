"""Freezing operations whose two gradients disagree: by hand, step by step."""

from __future__ import annotations

import copy
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
    FirstOrder,
    Implicit,
    NonFiniteError,
    OperationFreezing,
    PerturbationSelection,
    RecurrentCell,
    Reinforce,
    Search,
    Unrolled,
)


def test_similarity_by_hand():
    one = torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    other = torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    formula = OperationFreezing("formula")
    assert formula.similarity([one], [other]).item() == 0.0
    assert formula.similarity([one, one], [one, -one]).item() == 0.0
    both = OperationFreezing("formula").similarity([one, other], [one, 0 * other])
    assert both.item() == pytest.approx(5 / math.sqrt(15 * 5))
    # Along dimension 0 the columns of g_train + g_valid, (1, 1) and (3, 2), beside (1, 0), (0, 2).
    released = OperationFreezing().similarity([one], [other]).item()
    assert released == pytest.approx((1 / math.sqrt(2) + 2 / math.sqrt(13)) / 2)
    # At right angles and of equal size it is 0.7071, and 0.4 stands for a cosine of -0.68.
    x, y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    assert OperationFreezing().similarity([x], [y]).item() == pytest.approx(0.7071, abs=1e-4)
    c = -0.68
    z = torch.tensor([c, math.sqrt(1 - c * c)])
    assert OperationFreezing().similarity([x], [z]).item() == pytest.approx(0.4, abs=1e-3)


def gradients(search, loss, names):
    params = [search.params[name] for name in names]
    return torch.autograd.grad(loss(search.supernet), params, allow_unused=True)


@pytest.mark.parametrize("form", ["released", "formula"])
def test_windows_thresholds_and_what_freezes(form):
    torch.manual_seed(0)
    setting = OperationFreezing(form, window=2, threshold=0.75 if form == "released" else None)
    search = Search(TwoChoices(), stabilizers=[setting])
    groups = search.freezing.weights
    assert set(groups) == {
        "first: operation 'conv3'",
        "first: operation 'conv5'",
        "second: operation 'depthwise'",
        "second: operation 'pointwise'",
    }
    sums = dict.fromkeys(groups, 0.0)
    count = 0
    frozen: set[str] = set()
    last: dict[str, torch.Tensor] = {}
    for k in range(7 if form == "released" else 4):
        train, valid = loss_on(batch(k)), loss_on(batch(50 + k))
        # The plain way: gradients of the mixture by autograd, compared before the step.
        valid_now = {}
        for label, names in groups.items():
            valid_now[label] = gradients(search, valid, names)
        if last:
            count += 1
            for label in groups:
                if label not in frozen:
                    own = [last[name] for name in groups[label]]
                    sums[label] += setting.similarity(own, valid_now[label]).item()
            if count == setting.steps:
                frozen |= {label for label in groups if sums[label] / 2 < setting.least} - frozen
                sums = dict.fromkeys(groups, 0.0)
                count = 0
        before = {name: p.detach().clone() for name, p in search.params.items()}
        search.step(train, valid)
        last = {}
        for names in groups.values():
            for name in names:
                found = search.freezing.state_dict()["last"].get(name)
                if found is not None:
                    last[name] = found
        assert set(search.freezing.frozen) == frozen
        for label, names in groups.items():
            for name in names:
                stayed = torch.equal(before[name], search.params[name])
                assert stayed == (label in frozen), name
        every = [name for names in groups.values() for name in names]
        last = {**dict.fromkeys(every, torch.zeros(())), **last}
    assert frozen and frozen != set(groups)


def test_strided_skips_are_no_operations_that_freeze():
    net = ConvCell(channels=4, cells=3, nodes=2).supernet(3, 5)
    labels = list(net.weights_of_operations())
    assert len(labels) == 3 * 5 * 4 and not any("skip_connect" in label for label in labels)


@pytest.mark.parametrize("relaxation", [None, BinaryGates("two")], ids=repr)
def test_resumed_is_as_never_stopped(relaxation):
    def new():
        torch.manual_seed(0)
        given = {} if relaxation is None else {"relaxation": relaxation}
        setting = OperationFreezing(window=1, threshold=1.9)
        return Search(TwoChoices(), epochs=6, stabilizers=[setting], **given)

    def step(search, k):
        search.step(loss_on(batch(k)), loss_on(batch(50 + k)))

    whole = new()
    for k in range(4):
        step(whole, k)
    other = new()
    other.load_state_dict(copy.deepcopy(whole.state_dict()))
    for k in range(4, 7):
        step(whole, k)
        step(other, k)
    assert whole.freezing.frozen == other.freezing.frozen
    if relaxation is None:
        assert whole.freezing.frozen
    for one, two in zip(whole.supernet.parameters(), other.supernet.parameters(), strict=True):
        assert torch.equal(one, two)


def test_a_step_that_fails_freezes_nothing():
    torch.manual_seed(0)
    search = Search(TwoChoices(), stabilizers=[OperationFreezing(window=1, threshold=2.0)])
    for k in range(2):
        search.step(loss_on(batch(k)), loss_on(batch(50 + k)))
    assert not search.freezing.frozen
    before = copy.deepcopy(search.freezing.state_dict())
    with pytest.raises(NonFiniteError):
        search.step(lambda net: loss_on(batch(2))(net) * math.nan, loss_on(batch(52)))
    assert not search.freezing.frozen and search.passes.frozen == frozenset()
    assert search.freezing.state_dict()["counts"] == before["counts"]
    search.step(loss_on(batch(2)), loss_on(batch(52)))
    assert len(search.freezing.frozen) == 4  # nothing reaches a similarity of 2


def test_second_order_and_frozen_weights():
    torch.manual_seed(0)
    setting = OperationFreezing(window=1, threshold=2.0)
    search = Search(TwoChoices(), gradient=Unrolled(), stabilizers=[setting])
    for k in range(4):
        search.step(loss_on(batch(k)), loss_on(batch(50 + k)))
    assert len(search.freezing.frozen) == 4
    assert F.cross_entropy(search.supernet(batch(0)[0]), batch(0)[1]).isfinite()


class OnlyChoice(nn.Module):
    """All its weights are those of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.choice = Choice({"one": nn.Linear(3, 2), "two": nn.Linear(3, 2)}, name="choice")

    def forward(self, x_BF: torch.Tensor) -> torch.Tensor:
        return self.choice(x_BF)


@pytest.mark.parametrize(
    "gradient",
    [FirstOrder(), Unrolled(), Unrolled(mode="exact"), Implicit("neumann", 2), Implicit("cg", 2)],
)
def test_alphas_go_on_when_all_weights_are_frozen(gradient):
    torch.manual_seed(0)
    setting = OperationFreezing("formula", window=1, threshold=2.0)
    search = Search(OnlyChoice(), gradient=gradient, stabilizers=[setting])
    x, y = torch.randn(6, 3), torch.tensor([0, 1, 0, 1, 0, 1])
    seen = []
    for _ in range(4):
        search.step(loss_on((x, y)), loss_on((x + 1.0, y)))
        weights = torch.cat([p.detach().reshape(-1) for p in search.params.values()])
        seen.append((weights, search.alphas["choice"].detach().clone()))
    assert len(search.freezing.frozen) == 2
    assert torch.equal(seen[-2][0], seen[-1][0]) and not torch.equal(seen[-2][1], seen[-1][1])


def test_what_cannot_be_is_refused():
    freezing = [OperationFreezing()]
    for net, given, sentence in (
        (RecurrentCell(hidden=4, embedding=4).supernet(9), {}, "have none of their own"),
        (
            TwoChoices(),
            {"relaxation": BinaryGates(), "gradient": Reinforce(2)},
            "differentiates no validation loss",
        ),
        (
            TwoChoices(),
            {"selection": PerturbationSelection(learn_alphas=False)},
            "with learn_alphas=False",
        ),
    ):
        with pytest.raises(ValueError, match=sentence):
            Search(net, stabilizers=freezing, **given)
    with pytest.raises(ValueError, match="form must be"):
        OperationFreezing("mine")
