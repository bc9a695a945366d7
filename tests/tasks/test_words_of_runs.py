"""What runs on a task of one's own say: trainings beside random ones, wrong names of arguments."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas.cli.own_task import read_task
from gradnas.programs import your_task
from gradnas.programs.reporting import _value
from gradnas.reports.health import health_section
from gradnas.tasks.measure import Measure
from gradnas.tasks.your_task import words
from gradnas.tasks.your_task.sentences import TaskSentences

PIXELS = Measure("pixels_off", "pixels_off_values", higher_is_better=False)


def test_a_training_beside_random_ones_says_what_that_comes_to():
    def said(reached: float, values: list[float], std: float) -> str:
        random = {
            "test_pixels_off_values": values,
            "mean_test_pixels_off": 5.0,
            "std_test_pixels_off": std,
        }
        results = {"test_pixels_off": reached, "num_params": 9, "num_test_examples": 4}
        return TaskSentences(PIXELS).of_training(results | {"random_cells": random}, "network")[-1]

    many = [4.0, 5.0, 6.0]
    assert said(4.9, many, 1.0) == "compared with them: no clear difference"
    assert said(2.0, many, 1.0) == "compared with them: better than random networks"
    assert said(8.0, many, 1.0) == "compared with them: worse than random networks"
    assert "better, by less than two standard deviations" in said(3.5, many, 1.0)
    assert "too few to tell" in said(2.0, [5.0], 0.0)


def test_a_measure_among_the_settings_of_a_report_is_one_readable_entry():
    measures = [{"type": "Measure", **vars(PIXELS)}, {"key": "right", "higher_is_better": True}]
    assert _value(measures) == "pixels_off, less is better; right, more is better"


def test_the_curves_of_every_measure_stand_under_their_own_run(monkeypatch):
    """Those of the search before the heading of the training."""
    rows = {}
    for what in ("search", "training"):
        names = ("train_loss", "valid_pixels_off", "valid_seen_right")
        series = {name: [(1, 1.0), (2, 2.0)] for name in names}
        metrics = SimpleNamespace(series=lambda key, own=series: own.get(key, []))
        rows[what] = SimpleNamespace(metrics=metrics, is_search=what == "search")
    search, training = rows["search"], rows["training"]
    search.training = search.child = training
    measures = [PIXELS, Measure("seen_right", "seen_rights", True)]
    monkeypatch.setattr(words, "measures_of", lambda folder: measures)
    page = words.TaskWords().curves(search)
    places = [page.index(text) for text in (">Search<", "plot-search-measures-0")]
    places += [page.index(text) for text in ("Training from scratch<", "plot-training-measures-0")]
    assert places == sorted(places)


def test_a_name_of_another_library_is_answered_with_what_is_right(tmp_path):
    task = gradnas.Task(model=nn.Identity, train=[(0, 0)], loss=F.mse_loss)
    right = r"no argument 'alpha_lr': give alphas=gradnas\.AlphaOptimizer\(lr=0\.05\)"
    with pytest.raises(TypeError, match=f"run_search has {right}"):
        gradnas.run_search(task, out=tmp_path / "r", alpha_lr=0.05)
    with pytest.raises(TypeError, match=f"Search has {right}"):
        gradnas.Search(nn.Identity(), alpha_lr=0.05)
    with pytest.raises(TypeError, match=r"give cost=gradnas\.ExpectedCost\(budget_macs=5\)"):
        gradnas.run_search(task, out=tmp_path / "r", budget_macs=5)
    with pytest.raises(TypeError, match=r"'epoch' .did you mean 'epochs'"):
        gradnas.run_training(task, tmp_path, epoch=5)


def test_that_there_is_no_verdict_is_a_warning_where_nothing_is_shown(monkeypatch, tmp_path):
    results = {"no_verdict": "the measure failed"}
    run = SimpleNamespace(path=tmp_path)
    monkeypatch.setattr(your_task.searching, "prepared_search", lambda *given: None)
    monkeypatch.setattr(your_task, "_carried_out", lambda *given: (run, results))
    pair = {"a": nn.Linear(2, 2), "b": nn.Identity()}
    data = (torch.ones(4, 2), torch.ones(4, 2))
    task = gradnas.Task(
        model=lambda: nn.Sequential(gradnas.Choice(pair)), train=data, loss=F.mse_loss
    )
    with pytest.warns(UserWarning, match="there is no verdict: the measure failed"):
        found = gradnas.run_search(task, out=tmp_path / "r", progress=False, device="cpu")
    assert found.results == results


def test_a_task_file_that_is_not_there_names_the_nearest(tmp_path):
    (tmp_path / "my_task.py").write_text("")
    with pytest.raises(ValueError, match=r"cannot read .*my_tsk\.py.* .did you mean 'my_task\.py'"):
        read_task(str(tmp_path / "my_tsk.py"))


def test_a_small_spread_is_not_shown_as_none():
    assert (PIXELS.number(0.0012), PIXELS.number(0.0), PIXELS.text(1.234)) == (
        "0.0012",
        "0.00",
        "1.23",
    )


@pytest.mark.parametrize(
    ("results", "said"),
    [
        ({"steps": 1, "verdict": {}}, "Nothing was found wrong.<"),
        ({"steps": 1, "undecided": "all chance"}, "nothing was decided either"),
        ({"steps": 1, "no_verdict": "why"}, "There is no verdict"),
        ({"steps": 1, "health": "a b", "gap": "far"}, "A b. Far."),
    ],
)
def test_health_without_trouble_claims_no_more_than_it_saw(results, said):
    entropy = [(1, 0.9), (2, 0.8)]
    series = {"relative_entropy": entropy}
    metrics = SimpleNamespace(series=lambda key: series.get(key, []), rows=[])
    folder = SimpleNamespace(is_search=True, results=results, metrics=metrics)
    assert said in health_section(folder)
