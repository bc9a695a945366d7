"""Attention layers of torch with a Choice inside, in eval mode."""

from __future__ import annotations

import copy
import types

import pytest
import torch
from torch import Tensor, nn

from gradnas import Choice
from gradnas.spaces.your_module import ModuleSupernet

WIDTH = 4


def doubled(layer: nn.TransformerEncoderLayer, x: Tensor) -> Tensor:
    return 2 * type(layer).forward(layer, x)


class Twice(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * torch.relu(x)


def plain_layer() -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout=0.0, batch_first=True)


def open_layer(place: str, layer: nn.TransformerEncoderLayer | None = None) -> nn.Module:
    """A layer with a choice where one of its children was."""
    layer = plain_layer() if layer is None else layer
    choices = {
        "linear1": {"a": nn.Linear(WIDTH, 8), "b": nn.Linear(WIDTH, 8)},
        "activation": {"a": nn.ReLU(), "b": Twice()},
        "dropout1": {"a": nn.Identity(), "b": nn.Linear(WIDTH, WIDTH)},
        "norm1": {"a": nn.LayerNorm(WIDTH), "b": nn.LayerNorm(WIDTH)},
    }
    heads = {}
    for name in ("a", "b"):
        heads[name] = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
    choices["self_attn"] = heads
    setattr(layer, place, Choice(choices[place], name="c"))
    return layer


PLACES = ["linear1", "activation", "dropout1", "norm1", "self_attn"]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("stacked", "nested"), [(False, False), (True, False), (True, True)])
def test_eval_mode_without_gradients_is_what_it_is_with_them(place, stacked, nested):
    """The fast path is taken where nothing needs a gradient: there it was another network."""
    torch.manual_seed(0)
    if stacked:
        net: nn.Module = nn.TransformerEncoder(plain_layer(), 2, enable_nested_tensor=nested)
        for layer in net.layers:
            open_layer(place, layer)
    else:
        net = open_layer(place)
    supernet = ModuleSupernet(net)
    x = torch.randn(3, 5, WIDTH)
    was_enabled = torch.backends.mha.get_fastpath_enabled()
    for decided in ("a", "b"):
        draw = supernet.one_hot_draw({"c": decided})
        expected = supernet.train()(x, draw=draw)
        with torch.no_grad():
            found = supernet.eval()(x, draw=draw)
            derived = supernet.derived({"c": decided})
            assert torch.allclose(derived.train()(x), expected, atol=1e-6)
        assert torch.allclose(found, expected, atol=1e-6)
    assert torch.backends.mha.get_fastpath_enabled() == was_enabled
    with torch.no_grad():  # the user's own variable, which has the mixture of the alphas
        assert torch.allclose(net.eval()(x), supernet(x), atol=1e-6)


def test_a_derived_layer_is_a_plain_one():
    supernet = ModuleSupernet(nn.Sequential(open_layer("linear1")))
    assert "forward" in vars(supernet.net[0])
    derived = supernet.derived({"c": "a"})
    assert "forward" not in vars(derived[0])
    x = torch.randn(3, 5, WIDTH)
    with torch.no_grad():
        assert torch.allclose(derived.eval()(x), derived.train()(x), atol=1e-6)
    again = copy.deepcopy(supernet.net)
    assert again[0].forward.args[0].__self__ is again[0]


def test_a_forward_of_ones_own_stays():
    layer = open_layer("linear1")
    layer.forward = types.MethodType(doubled, layer)
    supernet = ModuleSupernet(nn.Sequential(layer))
    x = torch.randn(3, 5, WIDTH)
    draw = supernet.one_hot_draw({"c": "a"})
    expected = supernet(x, draw=draw)
    assert torch.allclose(supernet.derived({"c": "a"}).train()(x), expected, atol=1e-6)
