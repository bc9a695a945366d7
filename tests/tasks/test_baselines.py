"""Random architectures by a short training, and what filters them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gradnas import (
    DenseCell,
    FirstOrder,
    GumbelSoftmax,
    Implicit,
    NasBench201,
    PerturbationSelection,
)
from gradnas.data import DataConfig
from gradnas.search.proxies import Swap, distinct_columns
from gradnas.tasks.baselines import RandomSearch, Trial, _rank, trials_at_equal_cost
from gradnas.tasks.images import IMAGES
from gradnas.tasks.images.settings import SearchConfig

CPU = torch.device("cpu")


def live(**settings):
    data = DataConfig(source="digits", per_class=8)
    space = NasBench201(channels=4, cells=1)
    settings = {"epochs": 3, "batch_size": 20, "candidates": 0, "seed": 3, **settings}
    config = SearchConfig(space=space, data=data, **settings)
    return IMAGES.search_task(config, data.load(), CPU)


def test_patterns_are_counted_once():
    signs = torch.tensor([[1, 1, 0], [0, 0, 1]]).bool()
    assert distinct_columns(signs) == 2
    every = torch.tensor([[k >> s & 1 for k in range(8)] for s in range(3)]).bool()
    assert distinct_columns(every.repeat(1, 5)) == 8
    with pytest.raises(ValueError, match="at most 62 examples"):
        distinct_columns(torch.zeros(63, 2).bool())


def test_a_score_by_a_plain_loop_and_nothing_changes():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten()).eval()
    x = torch.randn(4, 1, 5, 5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    proxy = Swap(repeats=2, seed=5)
    score = proxy.score(net, lambda net: net(x))
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not net.training and score == proxy.score(net, lambda net: net(x))
    assert 2 <= score <= 16
    sized = Swap(repeats=2, seed=5, mean=0.0, spread=1.0).score(net, lambda net: net(x))
    thousands = sum(p.numel() for p in net.parameters()) / 1000
    assert sized == pytest.approx(score * torch.tensor(-(thousands**2)).exp().item())
    with pytest.raises(ValueError, match="runs none"):
        proxy.score(nn.Flatten(), lambda net: net(x))


@pytest.mark.slow
def test_the_best_by_its_training_comes_first():
    found = RandomSearch(trials=3, epochs=2, pool=5, proxy=Swap(repeats=2)).run(live())
    assert len(found) == 5 and len({t.architecture.to_text() for t in found}) == 5
    worths = [trial.worth for trial in found]
    assert worths[3:] == [None, None] and sorted(worths[:3], reverse=True) == worths[:3]
    assert min(t.score for t in found[:3]) >= max(t.score for t in found[3:])
    again = RandomSearch(trials=3, epochs=2, pool=5, proxy=Swap(repeats=2)).run(live())
    assert again == found
    plain = RandomSearch(trials=2).run(live())
    assert len(plain) == 2 and all(trial.score is None for trial in plain)


def test_what_diverged_comes_last():
    names = ["|skip_connect~0|", "|none~0|", "|nor_conv_1x1~0|"]
    cells = [DenseCell.parse(name) for name in names]
    worths = (0.1, math.nan, 0.3)
    trials = [Trial(cell, worth, None) for cell, worth in zip(cells, worths, strict=True)]
    assert [trial.worth for trial in sorted(trials, key=_rank)][:2] == [0.3, 0.1]


@pytest.mark.slow
def test_equal_cost_is_counted():
    task = live()
    one = trials_at_equal_cost(task, epochs=1)
    four = trials_at_equal_cost(task, epochs=4)
    # A supernet of five operations costs more than three epochs of one network each.
    assert one > 6 and one / 4.5 < four < one / 2.5
    # Alphas that never learn take no steps, and each of 30 operations is left out once.
    blank = PerturbationSelection(interval=1, learn_alphas=False)
    without = trials_at_equal_cost(live(epochs=6, selection=blank))
    assert without < trials_at_equal_cost(live(epochs=6))
    with pytest.raises(ValueError, match="not for GumbelSoftmax with"):
        trials_at_equal_cost(live(relaxation=GumbelSoftmax()))
    with pytest.raises(ValueError, match=r"not for Softmax with Implicit\("):
        trials_at_equal_cost(live(gradient=Implicit()))
    first = trials_at_equal_cost(live(gradient=FirstOrder()))
    # Two passes a step instead of five.
    assert first == pytest.approx(2 / 5 * one, abs=1)
    with pytest.raises(ValueError, match="the pool must hold"):
        RandomSearch(trials=3, pool=2)
