"""Random architectures beside a search with a budget."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from gradnas import ConvCell, ExpectedCost, FirstOrder
from gradnas.config import to_json
from gradnas.data import DataConfig
from gradnas.programs.searching import prepared_search
from gradnas.programs.study_random import _drawn
from gradnas.spaces.affordable import cost_of
from gradnas.study.folder import StudyFolder
from gradnas.tasks.images.settings import SearchConfig


@pytest.mark.slow
def test_random_architectures_keep_the_budget_of_the_searches(tmp_path):
    config = SearchConfig(
        space=ConvCell(channels=2, cells=2, nodes=2),
        gradient=FirstOrder(),
        data=DataConfig(source="digits", per_class=10),
        split_seed=0,
        epochs=1,
        device="cpu",
    )
    data = config.load()

    def drawn(budget, number):
        own = replace(config, cost=None if budget is None else ExpectedCost(budget_params=budget))
        folder = StudyFolder(tmp_path)
        written = {"default": to_json(own.kept())}
        folder.settings = SimpleNamespace(seed=0, methods=written)
        training = lambda _: SimpleNamespace(space=config.space)  # noqa: E731
        return _drawn(folder, number, training, lambda own: own, data)

    counted = replace(config, cost=ExpectedCost(budget_params=1e9))
    search = prepared_search(counted, data, torch.device("cpu")).search

    def costs(decisions):
        return [cost_of(search.supernet, own, search.spending.costs) for own in decisions]

    free = costs(drawn(None, 12))
    budget = sorted(free)[4]
    kept = drawn(budget, 12)
    assert max(costs(kept)) <= budget < max(free)
    assert len({own.to_text() for own in kept}) == 12
    # Of the cheapest alone there are few, and then there are no more.
    few = drawn(min(free), 12)
    assert max(costs(few), default=0.0) <= min(free)
