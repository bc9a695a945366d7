"""The choices of a module of one's own as a space: what it builds, and its entry in a file."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from gradnas import Choice
from gradnas.architectures.choices import Choices
from gradnas.config import from_json, to_json
from gradnas.spaces.module_space import ModuleSpace


@dataclass(frozen=True)
class Rows(ModuleSpace):
    """A linear map of rows, perhaps with a second one inside."""

    width: int = 4

    def module(self, classes: int = 2) -> nn.Module:
        inner = Choice({"wide": nn.Linear(4, 4), "skip": nn.Identity()}, name="inner")
        deep = nn.Sequential(inner, nn.Linear(4, self.width))
        body = Choice({"deep": deep, "flat": nn.Linear(4, self.width)}, name="body")
        return nn.Sequential(body, nn.Linear(self.width, classes))


def test_a_network_has_what_was_decided():
    space = Rows(width=3)
    network = space.network(Choices({"body": "deep", "inner": "skip"}), classes=5)
    assert network(torch.ones(2, 4)).shape == (2, 5)
    assert not any(isinstance(module, Choice) for module in network.modules())
    with torch.device("meta"):
        assert space.network(Choices({"body": "flat"}))[0].weight.shape == (3, 4)


def test_alphas_decide_and_what_is_not_reached_is_left_out():
    alphas = {"body": torch.tensor([0.0, 1.0]), "inner": torch.tensor([1.0, 0.0])}
    assert Rows().derive(alphas) == {"body": "flat"}
    drawn = set()
    for seed in range(20):
        drawn.add(Rows().random_decision(torch.Generator().manual_seed(seed)))
    assert drawn == {
        Choices({"body": "flat"}),
        Choices({"body": "deep", "inner": "wide"}),
        Choices({"body": "deep", "inner": "skip"}),
    }


def test_looking_at_a_space_draws_no_random_numbers():
    before = torch.get_rng_state()
    Rows().decision('{"body": "flat"}')
    to_json(Rows())
    assert torch.equal(torch.get_rng_state(), before)


def test_the_entry_of_a_file_lists_the_choices():
    entry = to_json(Rows(width=3))
    assert entry["choices"] == {"body": ["deep", "flat"], "inner": ["wide", "skip"]}
    assert from_json(Rows, entry) == Rows(width=3)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('{"bodi": "flat"}', "Rows has no choice 'bodi' .did you mean 'body'?"),
        ('{"body": "flatt"}', "the choice 'body' has no operation 'flatt' .did you mean 'flat'?"),
    ],
)
def test_unknown_names_are_refused(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        Rows().decision(text)
