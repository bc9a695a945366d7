"""Derived networks of one's own module: what it keeps, and the way back from a file."""

from __future__ import annotations

import threading
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas import Choice, Search
from gradnas.tasks.images.export import _plain as exported_form

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 3


def loss(net):
    return F.cross_entropy(net(X), Y)


class Keeps(nn.Module):
    """Activations in attributes and containers; the old weight_norm; a buffer with a graph."""

    def __init__(self):
        super().__init__()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            normed = nn.utils.weight_norm(nn.Linear(4, 4))
            self.head = nn.utils.weight_norm(nn.Linear(4, 3))
        self.body = Choice({"plain": nn.Linear(4, 4), "normed": normed}, name="body")
        self.register_buffer("mean", torch.zeros(4))
        self.map = None
        self.seen = []

    def forward(self, x):
        h = torch.tanh(self.body(x))
        self.map = h
        self.seen = [h, {"twice": (h * 2,)}]
        self.mean = h.mean(0)
        return self.head(h)


@pytest.mark.parametrize("operation", ["plain", "normed"])
@pytest.mark.parametrize("gradient", [gradnas.FirstOrder(), gradnas.Unrolled(mode="exact")])
def test_a_module_that_keeps_activations_is_derived(operation, gradient):
    net = Keeps()
    start = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    search = Search(net, gradient=gradient)
    for _ in range(2):
        search.step(loss, loss)
    decision = {"body": operation}
    kept = search.supernet.derived(decision)
    one_hot = search.supernet.one_hot_draw(decision)
    torch.testing.assert_close(kept(X), search.supernet(X, draw=one_hot))
    kept(X).sum().backward()
    assert kept.head.weight_g.grad is not None

    fresh = search.supernet.derived(decision, "fresh")
    assert torch.equal(fresh.head.weight_v, start["head.weight_v"])
    assert not torch.equal(kept.head.weight_v, start["head.weight_v"])


def test_what_cannot_be_copied_is_named():
    net = Keeps()
    net.body.operations["plain"].lock = threading.Lock()
    search = Search(net)
    with pytest.raises(ValueError, match=r"'body\.operations\.plain\.lock'.*cannot be copied"):
        search.result().derive()


# ---- the way back from a file --------------------------------------------------------------------


def module():
    torch.manual_seed(0)
    inner = Choice({"x": nn.Linear(4, 4), "y": nn.Tanh()})
    outer = Choice({"deep": nn.Sequential(inner, nn.Linear(4, 4)), "flat": nn.Linear(4, 4)})
    return nn.Sequential(outer, nn.Linear(4, 3))


@pytest.mark.parametrize("alpha", [[1.0, -1.0], [-1.0, 1.0]])
def test_a_saved_result_gives_its_network_back(alpha, tmp_path):
    search = Search(module())
    with torch.no_grad():
        search.alphas["0"].copy_(torch.tensor(alpha))
    search.step(loss, loss)
    result = search.result()
    result.save(tmp_path / "choices.json")

    for weights in ("keep", "fresh"):
        network = gradnas.derive(module(), tmp_path / "choices.json", weights=weights)
        assert not any(isinstance(part, Choice) for part in network.modules())
        assert torch.equal(network(X), result.derive("fresh")(X))
    # Of the module that was searched, as the result's own.
    own = search.supernet.net
    for weights in ("keep", "fresh"):
        network = gradnas.derive(own, str(tmp_path / "choices.json"), weights=weights)
        assert torch.equal(network(X), result.derive(weights)(X))
    assert any(isinstance(part, Choice) for part in own.modules())
    assert torch.equal(gradnas.derive(search.supernet, result.choices)(X), result.derive()(X))


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"body": "deep"}, "has no choice 'body'"),
        ({"0": "deeep"}, "no operation 'deeep'.*'deep'"),
        ({"0": "deep"}, "says nothing about the choice"),
    ],
)
def test_choices_of_another_module_are_refused(choices, words):
    with pytest.raises(ValueError, match=words):
        gradnas.derive(module(), choices)


def test_files_that_are_no_choices_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none\.json"):
        gradnas.derive(module(), tmp_path / "none.json")
    gradnas.Genotype.named("DARTS_V2").save(tmp_path / "cell.json")
    with pytest.raises(ValueError, match=r"cell\.json does not hold a set of choices"):
        gradnas.derive(module(), tmp_path / "cell.json")
    with pytest.raises(ValueError, match="'keep' or 'fresh'"):
        gradnas.derive(module(), {"0": "flat"}, weights="new")
    with pytest.raises(ValueError, match=r"space\.network\(genotype\)"):
        gradnas.derive(gradnas.ConvCell(channels=4, cells=3).supernet(), {"0": "flat"})


def test_fresh_weights_that_nobody_knows_are_refused():
    net = module()
    Search(net)  # which is gone at once
    with pytest.raises(ValueError, match="freshly made"):
        gradnas.derive(net, {"0": "flat"}, weights="fresh")
    assert gradnas.derive(net, {"0": "flat"})(X).shape == (8, 3)


def results():
    chain = gradnas.MBConvChain.named("nas-bench-macro")
    return {
        "choices": Search(module()).result(),
        "genotype": Search(gradnas.ConvCell(channels=4, cells=3, nodes=2).supernet(3, 5)).result(),
        "recurrent": Search(gradnas.RecurrentCell(hidden=4, embedding=4).supernet(9)).result(),
        "chain": Search(chain.supernet(3, 5)).result(),
    }


@pytest.mark.parametrize("kind", ["choices", "genotype", "recurrent", "chain"])
def test_saving_into_a_missing_folder_is_one_kind_of_error_for_all_results(kind, tmp_path):
    result = results()[kind]
    folder = tmp_path / "none"
    with pytest.raises(ValueError, match=f"no folder {folder}"):
        result.save(folder / "a.json")
    with pytest.raises(ValueError, match="it is a folder"):
        result.save(tmp_path)
    result.save(tmp_path / "a.json")
    with pytest.raises(ValueError, match="cannot write"):
        result.save(tmp_path / "a.json" / "b.json")


def test_a_fresh_module_with_the_old_weight_norm_is_exported_from_a_copy():
    network = gradnas.derive(Keeps(), {"body": "normed"})
    copied_again = exported_form(network)
    assert torch.equal(copied_again(X), network.eval()(X))
