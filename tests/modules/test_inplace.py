"""Operations that change what they are given: refused by name, in choices and in cells."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas import DARTS_OPERATIONS, BinaryGates, Choice, ConvCell, Search
from gradnas.modules.draws import Draw, using

WIDTH = 4


def preact() -> nn.Sequential:
    return nn.Sequential(nn.ReLU(inplace=True), nn.Linear(WIDTH, WIDTH))


class OnAView(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x.detach()[:, 0].zero_()
        return x


class OfADictionary(nn.Module):
    def forward(self, state: dict[str, Tensor]) -> Tensor:
        state["x"] = torch.relu(state["x"])
        return state["x"]


class Read(nn.Module):
    def forward(self, state: dict[str, Tensor]) -> Tensor:
        return state["x"] * 1.0


@pytest.mark.parametrize(
    ("operation", "words"),
    [
        (nn.ReLU(inplace=True), "'changes'.*in place.*inplace=False"),
        (preact(), "'changes'.*in place.*ReLU at '0'"),
        (OnAView(), "'changes'.*in place.*a copy"),
    ],
    ids=["relu", "preact", "view"],
)
@pytest.mark.parametrize("mode", ["train", "no_grad", "inference"])
def test_an_operation_that_changes_its_input_is_named(operation, words, mode):
    choice = Choice({"changes": operation, "skip": nn.Identity()}, name="body")
    x = torch.randn(3, WIDTH)
    guards = {
        "train": torch.enable_grad(),
        "no_grad": torch.no_grad(),
        "inference": torch.inference_mode(),
    }
    with guards[mode], pytest.raises(ValueError, match=words):
        choice(x.clone() if mode == "inference" else x)


def test_what_an_operation_puts_into_its_input_counts_too():
    choice = Choice({"changes": OfADictionary(), "reads": Read()}, name="body")
    with pytest.raises(ValueError, match=r"'changes'.*in place"):
        choice({"x": torch.randn(3)})


def test_in_place_behind_a_layer_is_nobodys_business():
    layer = nn.Linear(WIDTH, WIDTH)
    choice = Choice(
        {"conv": nn.Sequential(layer, nn.ReLU(inplace=True)), "skip": nn.Identity()}, name="body"
    )
    x = torch.randn(3, WIDTH)
    mix = {"body": torch.tensor([0.25, 0.75])}
    with using(Draw.dense(mix)):
        assert torch.allclose(choice(x), 0.25 * torch.relu(layer(x)) + 0.75 * x)


@pytest.mark.parametrize("mode", ["full", "recompute", "two"])
def test_a_probed_operation_is_named_as_well(mode):
    """It runs beside the active one: it must leave the input alone there too."""
    torch.manual_seed(0)
    choice = Choice({"preact": preact(), "skip": nn.Identity()}, name="body")
    net = nn.Sequential(nn.Linear(WIDTH, WIDTH), choice, nn.Linear(WIDTH, 3))
    search = Search(net, BinaryGates(mode))
    with torch.no_grad():
        search.alphas["body"].copy_(torch.tensor([-9.0, 9.0]))  # the skip is what runs
    x, y = torch.randn(5, WIDTH), torch.zeros(5, dtype=torch.long)

    def loss(net):
        return F.cross_entropy(net(x), y)

    with pytest.raises(ValueError, match=r"'preact'.*in place"):
        search.step(loss, loss)


def in_place(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Sequential(
        nn.ReLU(inplace=True), nn.Conv2d(channels, channels, 1, stride, bias=False)
    )


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_an_operation_of_ones_own_in_a_cell_is_named(fused, training):
    operations = {**DARTS_OPERATIONS, "mine": in_place}
    space = ConvCell(channels=8, cells=3, nodes=2, operations=operations)
    supernet = space.supernet(3, 4, fused=fused).train(training)
    with pytest.raises(ValueError, match=r"cell: operation 'mine'.*in place"):
        supernet(torch.randn(2, 3, 8, 8))
