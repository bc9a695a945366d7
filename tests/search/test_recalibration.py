"""BatchNorm statistics of derived networks, and the gap that `fit` prints."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from cases import loss_on
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradnas
from gradnas import Choice, Search


class Counting(nn.Module):
    """A buffer of its own, which every pass changes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x):
        self.calls += 1
        return x


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.body = Choice({"tanh": nn.Tanh(), "linear": nn.Linear(4, 4)}, name="body")
        self.norm = nn.BatchNorm1d(4, momentum=0.3)
        self.rest = nn.Sequential(Counting(), nn.Dropout(0.5), nn.BatchNorm1d(4), nn.Linear(4, 3))
        self.unused = nn.BatchNorm1d(4)

    def forward(self, x):
        return self.rest(self.norm(self.body(self.stem(x))))


def batches(number=3, size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(number):
        x = 3.0 + 2.0 * torch.randn(size, 4, generator=generator)
        made.append((x, torch.randint(3, (size,), generator=generator)))
    return made


def searched(net=None):
    torch.manual_seed(0)
    search = Search(Net() if net is None else net)
    for one in batches(seed=1):
        search.step(loss_on(one), loss_on(one))
    return search


def means_by_hand(network, given):
    """Mean over the batches of each BatchNorm's own mean and unbiased variance, dropout off."""
    means = {"stem.1": [], "norm": [], "rest.2": []}
    variances = {"stem.1": [], "norm": [], "rest.2": []}

    def normalised(name, x):
        means[name].append(x.mean(0))
        variances[name].append(x.var(0))
        norm = network.get_submodule(name)
        scaled = (x - x.mean(0)) / torch.sqrt(x.var(0, unbiased=False) + norm.eps)
        return scaled * norm.weight + norm.bias

    with torch.no_grad():
        for x, _ in given:
            x = normalised("stem.1", network.stem[0](x))
            x = normalised("norm", network.body(x))
            normalised("rest.2", x)
    result = {}
    for name in means:
        result[name] = (torch.stack(means[name]).mean(0), torch.stack(variances[name]).mean(0))
    return result


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_statistics_are_the_means_over_the_loader_and_nothing_else_changes(mode):
    search = searched()
    search.supernet.train(mode == "train")
    result = search.result()
    plain = result.derive()
    supernet_before = copy.deepcopy(search.supernet.state_dict())
    random_before = torch.get_rng_state()
    network = result.derive(recalibrate=batches())

    expected = means_by_hand(network, batches())
    for name, (mean, variance) in expected.items():
        norm = network.get_submodule(name)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)
    touched = {f"{name}.{key}" for name in expected for key, _ in nn.BatchNorm1d(1).named_buffers()}
    for name, tensor in network.state_dict().items():
        if name not in touched:
            assert torch.equal(tensor, plain.state_dict()[name]), name
    assert torch.equal(torch.get_rng_state(), random_before)
    for one, other in zip(network.modules(), plain.modules(), strict=True):
        assert one.training == other.training
        assert getattr(one, "momentum", None) == getattr(other, "momentum", None)
    for name, tensor in search.supernet.state_dict().items():
        assert torch.equal(tensor, supernet_before[name]), name


def test_what_the_user_froze_stays_frozen():
    net = Net()
    net.norm.running_mean.fill_(7.0)
    net.norm.eval()
    network = searched(net).result().derive(recalibrate=batches())
    assert network.norm.running_mean.tolist() == [7.0] * 4
    assert network.rest[2].num_batches_tracked == 3


def test_batches_may_be_inputs_alone_and_other_forms_are_refused():
    result = searched().result()
    network = result.derive(recalibrate=batches())
    alone = result.derive(recalibrate=(x for x, _ in batches()))
    assert torch.equal(network.norm.running_mean, alone.norm.running_mean)
    with pytest.raises(ValueError, match="not a dict"):
        result.derive(recalibrate=[{"x": batches()[0][0]}])
    with pytest.raises(ValueError, match="got none"):
        result.derive(recalibrate=[])


def test_a_network_of_a_space_is_recalibrated_too():
    torch.manual_seed(0)
    supernet = gradnas.ConvCell(channels=4, cells=3, nodes=2).supernet(3, 5)
    images = [(torch.randn(4, 3, 8, 8), torch.arange(4)) for _ in range(2)]
    network = Search(supernet).result().derive(recalibrate=images)
    stem = network.stem[1] if hasattr(network, "stem") else None
    assert stem is not None and stem.num_batches_tracked == 2
    expected = torch.stack([network.stem[0](x).mean((0, 2, 3)) for x, _ in images]).mean(0)
    torch.testing.assert_close(stem.running_mean, expected)


class Gap(nn.Module):
    """Statistics of the mixture are useless for either operation."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.body = Choice({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}, name="body")
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            self.body.operations["a"].bias.fill_(30.0)
            self.body.operations["b"].bias.fill_(-30.0)

    def forward(self, x):
        return self.head(self.norm(self.body(self.stem(x))))


def loaders():
    x = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] > 0).long()
    data = TensorDataset(x, y)
    shuffled = DataLoader(data, 8, shuffle=True, generator=torch.Generator().manual_seed(1))
    return shuffled, DataLoader(data, 12)


def test_fit_prints_the_gap_between_mixture_and_derived_network(capsys):
    torch.manual_seed(0)
    train, valid = loaders()
    search = Search(Gap())
    # Long enough for a verdict on all held-out examples.
    result = search.fit(train, valid, F.cross_entropy, epochs=17)
    lines = capsys.readouterr().err.splitlines()
    (line,) = [text for text in lines if "mixture" in text]
    assert any("result.derive(recalibrate=train_loader)" in text for text in lines)

    search.supernet.eval()
    network = result.derive(recalibrate=[batch for batch in loaders()[0]]).eval()
    with torch.no_grad():
        mixture = [F.cross_entropy(search.supernet(x), y).item() for x, y in valid]
        derived = [F.cross_entropy(network(x), y).item() for x, y in valid]
    assert f"mixture {sum(mixture) / 2:.4g}" in line
    words = line.split("derived network ")[1]
    assert float(words.split(",")[0].split(" (")[0]) == pytest.approx(sum(derived) / 2, rel=0.05)


def test_printing_the_gap_changes_nothing():
    states = []
    for progress in (True, False):
        torch.manual_seed(0)
        train, valid = loaders()
        search = Search(Gap())
        search.fit(train, valid, F.cross_entropy, epochs=2, progress=progress)
        state = search.state_dict()
        states.append((state["supernet"], state["random_state"]["cpu"], train.generator))
    with_line, without = states
    for name, tensor in with_line[0].items():
        assert torch.equal(tensor, without[0][name]), name
    assert torch.equal(with_line[1], without[1])
    assert torch.equal(with_line[2].get_state(), without[2].get_state())


def test_no_gap_where_it_cannot_be_measured(capsys):
    class WithoutLength:
        def __iter__(self):
            yield from batches()

    train = WithoutLength()
    Search(Net()).fit(train, batches(), F.cross_entropy, epochs=1)
    assert "mixture" not in capsys.readouterr().err
    Search(Net(), gradnas.BinaryGates()).fit(batches(), batches(), F.cross_entropy, epochs=1)
    assert "mixture" not in capsys.readouterr().err


def test_a_gap_that_fails_does_not_lose_the_result(capsys):
    train = batches()

    def loss(output, target):
        if not torch.is_grad_enabled():
            raise RuntimeError("no evaluation")
        return F.cross_entropy(output, target)

    result = Search(Net()).fit(train, train, loss, epochs=1)
    assert set(result.choices) == {"body"}
    assert "could not be compared with the mixture: no evaluation" in capsys.readouterr().err
