"""Two processes compute what one process computes on the joint batch, BatchNorm included."""

from __future__ import annotations

import pytest
import ranks
import torch
from torch.utils.checkpoint import checkpoint

from gradnas import distributed
from gradnas.modules.synchronised import synchronised_batch_norm, synchronised_norms
from gradnas.runs.ranks import of_each_rank, with_all_ranks


@pytest.fixture(scope="module")
def of_two(tmp_path_factory):
    """What both ranks have after every search."""
    return ranks.in_forks(2, tmp_path_factory.mktemp("ranks") / "found")


@pytest.fixture(scope="module")
def of_one():
    return ranks.all_cases()


@pytest.mark.slow
@pytest.mark.parametrize("name", ranks.wanted())
def test_two_ranks_are_one_search(of_two, of_one, name):
    first, second = (found[name] for found in of_two)
    for key, whole in of_one[name].items():
        assert torch.equal(first[key], second[key]), f"{key}: ranks have drifted apart"
        assert torch.allclose(first[key].double(), whole.double(), rtol=1e-9, atol=1e-9), key


@pytest.mark.slow
def test_norms_of_each_rank_are_another_search(of_two, of_one):
    """By the option, and the reason for the default: the difference is no rounding."""
    found = of_two[0][ranks.LOCAL]["alphas.body"]
    assert (found - of_one[ranks.LOCAL]["alphas.body"]).abs().max() > 1e-3


def test_the_norm_is_that_of_torch():
    """In a single process the sums over ranks are sums over one."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 3, 2, 2, generator=generator).double().requires_grad_()
    weight, bias = torch.rand(2, 3, generator=generator).double().requires_grad_().unbind()
    running = [torch.zeros(3).double(), torch.ones(3).double()]
    known = [t.clone() for t in running]
    ours = synchronised_batch_norm(x, *running, weight, bias, True, 0.3, 1e-5)
    torchs = torch.nn.functional.batch_norm(x, *known, weight, bias, True, 0.3, 1e-5)
    assert torch.allclose(ours, torchs, rtol=1e-12)
    for one, other in zip(running, known, strict=True):
        assert torch.allclose(one, other, rtol=1e-12)
    grads = [torch.autograd.grad(y.pow(3).sum(), x, create_graph=True)[0] for y in (ours, torchs)]
    assert torch.allclose(*grads, rtol=1e-9)
    seconds = [torch.autograd.grad(g.pow(2).sum(), x)[0] for g in grads]
    assert torch.allclose(*seconds, rtol=1e-8)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        synchronised_batch_norm(x[:1, :, :1, :1], None, None)
    with synchronised_norms():  # which changes nothing here
        again = torch.nn.functional.batch_norm(x, None, None, training=True)
    assert torch.equal(again, torch.nn.functional.batch_norm(x, None, None, training=True))


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_is_computed_again_is_synchronised_again(reentrant, monkeypatch):
    torch.manual_seed(0)
    part = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Tanh())
    x = torch.randn(5, 3, requires_grad=True)

    def gradient(checkpointed):
        y = checkpoint(part, x, use_reentrant=reentrant) if checkpointed else part(x)
        part.zero_grad()
        y.pow(2).sum().backward()
        return [own.grad.clone() for own in part.parameters()]

    plain = gradient(False)
    calls = []
    monkeypatch.setattr(distributed, "world", lambda: 2)
    # The other rank has the same share: sums over both are twice those of this one.
    monkeypatch.setattr(distributed, "sum_with_autograd", lambda own: calls.append(1) or 2 * own)
    with synchronised_norms():
        found = gradient(True)
    assert len(calls) == 4  # sum and squares, in forward and once more in backward
    for one, other in zip(found, plain, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_checkpoint_keeps_what_ranks_have_apart(monkeypatch):
    def state(rank):
        own = {"totals": {"loss": torch.tensor(1.0 + rank)}, "count": 3.0 + rank}
        if rank:
            own["totals"]["more"] = torch.tensor(2.0)
        return {
            "weights": torch.ones(2),
            "means": own,
            "hidden": None if rank == 0 else torch.full((1, 2), 7.0),
            "list": [1, [2, rank]] if rank < 2 else [],
        }

    states = [state(rank) for rank in range(3)]

    # What each rank hands over, one after the other.
    digests = []
    handed = []
    monkeypatch.setattr(distributed, "world", lambda: 3)
    monkeypatch.setattr(distributed, "from_main", lambda own: digests.append(own) or digests[0])
    monkeypatch.setattr(distributed, "gathered", lambda own: handed.append(own) or handed)
    for own in states:
        with_all_ranks(own)
    assert handed[0] == []  # the first has what is saved
    saved = {**states[0], "ranks": [list(own) for own in handed]}
    back = of_each_rank(saved)
    assert repr(back) == repr(states)
    assert of_each_rank(states[0]) == [states[0]]
