"""`Search.fit`: modes, second calls, loaders without a length, searches that end in the warm-up."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import TwoChoices, batch, loss_on
from torch import nn
from torch.utils.data import DataLoader, IterableDataset

from gradnas import Search, WeightOptimizer

BATCHES = [batch(k) for k in range(3)]
VALID = [batch(10 + k) for k in range(2)]


def fit(search, epochs=1):
    return search.fit(BATCHES, VALID, F.cross_entropy, epochs=epochs, progress=False)


def norms(net):
    return [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]


# ---- modes ---------------------------------------------------------------------------------------


def test_a_network_in_eval_mode_is_trained():
    net = TwoChoices(dropout=0.5).eval()
    fit(Search(net))
    assert all(module.training for module in net.modules())
    assert [norm.num_batches_tracked.item() for norm in norms(net)] == [3, 3]  # weight steps alone


def test_what_was_frozen_stays_frozen():
    net = TwoChoices()
    frozen, learning = norms(net)
    frozen.eval()
    search = Search(net)
    fit(search)
    assert not frozen.training and frozen.num_batches_tracked == 0
    assert learning.num_batches_tracked == 3
    net.eval()  # as one does to evaluate
    fit(search)
    assert net.training and not frozen.training and learning.num_batches_tracked == 6
    net.train()  # all of it: nothing is frozen any more
    fit(search)
    assert frozen.num_batches_tracked == 3


def test_a_pretrained_part_without_gradients_stays_in_eval_mode():
    net = TwoChoices(dropout=0.5).eval()
    frozen, learning = norms(net)
    frozen.requires_grad_(False)
    fit(Search(net))
    assert net.training and net.dropout.training and learning.training and not frozen.training


def test_a_class_that_keeps_parts_in_eval_mode_is_asked():
    class Own(TwoChoices):
        def train(self, mode=True):
            super().train(mode)
            norms(self)[0].eval()
            return self

    net = Own().eval()
    fit(Search(net))
    assert [norm.training for norm in norms(net)] == [False, True]


# ---- second calls --------------------------------------------------------------------------------


def test_a_second_fit_goes_on_for_as_many_epochs():
    search = Search(TwoChoices(), weights=WeightOptimizer(lr=0.1))
    fit(search, 2)
    assert (search.epoch, search.steps) == (2, 6)
    fit(search, 2)
    assert (search.epoch, search.steps) == (4, 12)
    fit(search, 1)
    assert (search.epoch, search.steps) == (5, 15)


def test_fit_goes_on_to_the_end_of_a_search_that_was_stopped():
    search = Search(TwoChoices(), epochs=3)
    for train, valid in search.pairs(BATCHES, VALID):
        search.step(loss_on(train), loss_on(valid))
    with pytest.raises(ValueError, match=r"epoch 1 of 3.*fit\(..., epochs=3\) goes on to its end"):
        fit(search, 2)
    fit(search, 3)
    assert (search.epoch, search.steps) == (3, 9)


# ---- loaders without a length --------------------------------------------------------------------


class Stream(IterableDataset):
    def __init__(self, seeds):
        self.seeds = seeds

    def __iter__(self):
        for seed in self.seeds:
            x, y = batch(seed, size=1)
            yield x[0], y[0]


def test_a_stream_without_a_length():
    """... gives what its batches as a list give."""
    streams = [DataLoader(Stream(range(9)), 4), DataLoader(Stream(range(20, 25)), 2)]
    found = []
    for loaders in (streams, [list(stream) for stream in streams]):
        torch.manual_seed(0)
        search = Search(TwoChoices())
        search.fit(*loaders, F.cross_entropy, epochs=2, progress=False)
        assert search.steps == 6
        found.append(search.supernet.state_dict())
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name


def test_a_stream_keeps_the_length_that_is_given():
    settings = WeightOptimizer(per_iteration=True)
    search = Search(TwoChoices(), weights=settings, epochs=1, steps_per_epoch=3)
    search.fit(DataLoader(Stream(range(6)), 2), VALID, F.cross_entropy, 1, progress=False)
    assert search.weight_optimizer.param_groups[0]["lr"] == pytest.approx(0.001)


# ---- alphas that do not move ---------------------------------------------------------------------


@pytest.mark.parametrize(("epochs", "warmup"), [(2, 2), (2, 5)])
def test_a_search_that_ends_in_its_warm_up(epochs, warmup):
    search = Search(TwoChoices(), warmup_epochs=warmup, weights=WeightOptimizer(warmup_lr=0.1))
    with pytest.raises(ValueError, match=rf"never move.*warmup_epochs={warmup}"):
        fit(search, epochs)
    assert search.steps == 0 and search.schedule.epochs is None
    search.schedule.epochs = epochs
    with pytest.raises(ValueError, match="never move"):
        next(iter(search.pairs(BATCHES, VALID)))
    fit(Search(TwoChoices(), warmup_epochs=1), 2)


def test_alphas_that_are_never_due():
    search = Search(TwoChoices(), alpha_every=10)
    with pytest.warns(UserWarning, match="the alphas have not moved.*every 10 steps"):
        fit(search)


@pytest.mark.parametrize("name", ["epochs", "alpha_every", "steps_per_epoch"])
def test_lengths_are_positive(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        Search(TwoChoices(), **{name: 0}, weights=WeightOptimizer(warmup_lr=0.1))
