"""What no step has called is said."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradnas
from gradnas import Choice, ExpectedCost


class Unused(nn.Module):
    """One choice is called always, one in training alone, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.body = Choice({"a": nn.Linear(4, 4), "b": nn.Identity()}, name="body")
        self.auxiliary = Choice({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3)}, name="auxiliary")
        self.spare = Choice({"a": nn.Linear(4, 4), "b": nn.Identity()}, name="spare")
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x)
        if self.training:
            return self.head(x) + self.auxiliary(x)
        return self.head(x)


def loss(net: nn.Module) -> Tensor:
    return F.cross_entropy(net(torch.randn(8, 4)), torch.zeros(8, dtype=torch.long))


def test_a_choice_that_never_ran_is_said_with_the_result():
    search = gradnas.Search(Unused())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        search.result()  # nothing ran yet, and everybody knows
    search.step(loss, loss)
    with pytest.warns(UserWarning, match="choice that never ran in this search: 'spare'; no"):
        search.result()


def test_choices_that_do_not_run_in_eval_mode_cost_nothing_there_and_are_said():
    x = torch.randn(1, 4)
    with pytest.warns(UserWarning, match="choices 'auxiliary', 'spare' did not run in eval"):
        search = gradnas.Search(Unused(), cost=ExpectedCost(budget_macs=28), example=x)
    search.step(loss, loss)
    with pytest.warns(UserWarning, match="never ran"):
        result = search.result()
    assert result.cost == gradnas.macs(result.derive(), x) <= 28
