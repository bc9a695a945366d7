"""The recorded search step: the same program without a recording equals `Search.step`; what cannot
be recorded."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from cases import TwoChoices, batch, loss_on

from gradnas import (
    AlphaOptimizer,
    ConvCell,
    FirstOrder,
    GumbelSoftmax,
    Implicit,
    PerturbationSelection,
    Search,
    Unrolled,
    WeightOptimizer,
)
from gradnas.runs import NonFiniteError
from gradnas.search.capture import CapturedStep
from gradnas.spaces.cells.fused_cell import FusedCell

D = torch.float64
SPACE = ConvCell(channels=4, cells=2, nodes=2)


def loss(net, x, y):
    value = F.cross_entropy(net(x), y)
    return value, {"loss": value.detach()}


def search_of(gradient, **settings):
    torch.manual_seed(0)
    options = {"epochs": 3, "warmup_epochs": 1, "alphas": AlphaOptimizer(lr=0.01), **settings}
    return Search(SPACE.supernet(3, 5).double(), gradient=gradient, **options)


def batches(count):
    return [
        tuple(batch(2 * k + i, size=4, dtype=D, side=8) for i in range(2)) for k in range(count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("gradient", [FirstOrder(), Unrolled()], ids=["first", "second"])
@pytest.mark.parametrize("nesterov", [False, True])
def test_the_program_without_a_recording_is_the_ordinary_step(gradient, nesterov, monkeypatch):
    """Five steps over a warm-up epoch and two more, grouped as on a GPU: weights, alphas,
    optimisers, statistics."""
    monkeypatch.setattr(FusedCell, "grouped", True)
    searches = [search_of(gradient, weights=WeightOptimizer(nesterov=nesterov)) for _ in range(2)]
    captured = CapturedStep(searches[1], loss, capture=False)
    for k, (train, valid) in enumerate(batches(5)):
        report = searches[0].step(loss_on(train), loss_on(valid))
        found, train_parts, valid_parts = captured(train, valid)
        assert (found.train_loss - report.train_loss).abs() < 1e-12
        assert (
            (found.valid_loss is None)
            == (report.valid_loss is None)
            == (not valid_parts)
            == (k < 2)
        )
        assert train_parts["loss"] == found.train_loss
        if k in (1, 3):
            for search in searches:
                search.finish_epoch()
    one, two = (search.state_dict() for search in searches)
    for key in ("supernet", "weight_optimizer", "alpha_optimizer"):
        pairs = zip(flat(one[key]), flat(two[key]), strict=True)
        assert max((a.double() - b.double()).abs().max() for a, b in pairs) < 1e-12, key
    assert one["steps"] == two["steps"] == 5


def flat(state):
    if isinstance(state, torch.Tensor):
        return [state]
    items = state.values() if isinstance(state, dict) else state if isinstance(state, list) else []
    return [t for item in items for t in flat(item)]


def test_a_step_that_is_not_finite_is_undone():
    search = search_of(FirstOrder(), warmup_epochs=0)
    captured = CapturedStep(search, loss, capture=False)
    (train, valid), _ = batches(2)
    captured(train, valid)
    before = [
        t.clone()
        for t in flat(search.state_dict()["supernet"]) + flat(search.weight_optimizer.state_dict())
    ]
    with pytest.raises(NonFiniteError, match="step 1 "):
        captured(train, (valid[0] * torch.nan, valid[1]))
    after = flat(search.state_dict()["supernet"]) + flat(search.weight_optimizer.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    captured(train, valid)
    with pytest.raises(ValueError, match="batches of one shape"):
        captured(train, tuple(t[:2] for t in valid))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: Search(TwoChoices(), relaxation=GumbelSoftmax(), epochs=2),
            "draws other operations in every step",
        ),
        (lambda: Search(TwoChoices(), gradient=Implicit()), "is not FirstOrder"),
        (lambda: Search(TwoChoices(), gradient=Unrolled(mode="exact")), "is not FirstOrder"),
        (
            lambda: Search(TwoChoices(), weights=lambda p: torch.optim.SGD(p, lr=0.1)),
            "the SGD of WeightOptimizer",
        ),
        (lambda: Search(TwoChoices(dropout=0.5)), "dropout draws its masks"),
        (
            lambda: Search(TwoChoices(), selection=PerturbationSelection()),
            "the rounds of PerturbationSelection change what is mixed",
        ),
        (lambda: Search(SPACE.supernet(3, 5, checkpoint_cells=True)), "checkpoint_cells saves"),
    ],
)
def test_what_cannot_be_recorded_is_refused(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        CapturedStep(make(), loss, capture=False)


def test_a_recording_needs_cuda():
    with pytest.raises(
        ValueError, match=r"a CUDA graph needs a CUDA device, not cpu; use Search\.step"
    ):
        CapturedStep(search_of(FirstOrder()), loss)


def test_a_step_that_was_made_before_a_state_was_loaded_is_refused():
    """Loading gives the optimisers new tensors: a recording would go on with the old ones."""
    search = search_of(FirstOrder(), warmup_epochs=0)
    captured = CapturedStep(search, loss, capture=False)
    (train, valid), (later, other) = batches(2)
    captured(train, valid)
    state = copy.deepcopy(search.state_dict())
    captured(later, other)
    after = [t.clone() for t in flat(search.state_dict()["weight_optimizer"])]
    search.load_state_dict(state)
    before = [t.clone() for t in search.params.values()]
    with pytest.raises(ValueError, match="holds tensors that are no longer those of its search"):
        captured(train, valid)
    assert all(torch.equal(a, b) for a, b in zip(before, search.params.values(), strict=True))
    # Made anew, it goes on where the state was.
    CapturedStep(search, loss, capture=False)(later, other)
    found = flat(search.state_dict()["weight_optimizer"])
    assert max((a - b).abs().max() for a, b in zip(found, after, strict=True)) < 1e-12
