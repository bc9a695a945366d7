"""The rows and the table of `benchmarks/proving_ground.py`; it searches for nothing here."""

from __future__ import annotations

import importlib
import json
import sys

import numpy as np
import pytest

from gradnas import Truth
from gradnas.config import from_json, to_json
from gradnas.tasks.images.settings import SearchConfig
from tests.cases import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))
ground = importlib.import_module("proving_ground")
methods = importlib.import_module("proving_methods")


def row(method: str, seed: int, accuracy: float, setting: str = "small") -> dict:
    return {
        "setting": setting,
        "method": method,
        "seed": seed,
        "accuracy": accuracy,
        "percentile": 50.0,
        "collapsed": accuracy < 60.0,
        "curve": [accuracy, 93.0],
        "cpu_seconds": 60.0,
    }


def test_what_is_missing_comes_seed_after_seed():
    rows = [row("a", 0, 90.0), row("b", 1, 90.0, setting="tiny")]
    assert ground.missing(rows, ["a", "b"], 2, "small") == [(0, "b"), (1, "a"), (1, "b")]


def test_rows_are_added_and_the_last_of_a_kind_counts(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert ground.read_rows(path) == []
    ground.add_row(path, row("a", 0, 90.0))
    ground.add_row(path, row("a", 1, 91.0))
    ground.add_row(path, row("a", 0, 92.0))
    assert [own["accuracy"] for own in ground.read_rows(path)] == [92.0, 91.0]
    with path.open("a") as file:
        file.write(json.dumps({"method": "a"}) + "\n")
    with pytest.raises(ValueError, match="line 4 is no row"):
        ground.read_rows(path)


def test_the_table():
    truth = Truth(["x", "y"], {"accuracy": np.array([90.0, 94.0])}, "accuracy")
    rows = [row("a", 0, 90.0), row("a", 1, 92.0), row("b", 0, 54.3), row("c", 0, 99.0, "tiny")]
    lines = ground.table(rows, "small", truth).splitlines()
    assert lines[2].startswith("| a | 2 | 91.00 ± 1.41 | 90.00 | 50.0 | 0 of 2 | 93.00 | 1.00 |")
    assert lines[3].startswith("| b | 1 | 54.30 | 54.30 | 50.0 | 1 of 1 |")
    assert lines[4].startswith("| one random cell | exact | 92.00 ± 2.00 |")
    assert not any("| c |" in line for line in lines)
    rows += [row("softmax", 0, 89.0), row("softmax", 1, 90.0), row("softmax", 2, 20.0)]
    beside = ground.table(rows, "small", truth).splitlines()
    assert beside[2].endswith("| 1.00 | +1.50 ± 0.71 |")  # of the seeds that both have
    assert [line.endswith("| 1.00 |  |") for line in beside[3:5]] == [True, True]


@pytest.mark.parametrize("name", list(methods.METHODS))
def test_every_method_is_a_configuration(name):
    for setting in methods.SETTINGS.values():
        config = methods.METHODS[name].change(setting())
        assert from_json(SearchConfig, to_json(config), "config") == config


def test_where_the_guard_would_have_stopped():
    values = [1.0] * 9 + [1.0, 1.0, 2.0, 2.0, 2.0, 2.0]
    own = row("softmax", 0, 54.3) | {"epochs": 20, "curve": [90.0 + n / 10 for n in range(20)]}
    own["health"] = {"eigenvalues": [[epochs, value] for epochs, value in enumerate(values)]}
    # The mean of the five around 9 is 1.2, of those around 10 it is 1.4; around 5 it is 1, of which
    # 1 / 1.4 is below 0.75. That around 10 is known when the 13th epoch has ended.
    assert ground.stopped(own) == (13, 5)
    line = ground.guard_table([own], "small").splitlines()[2]
    assert line == "| softmax | 0 | 54.30 |  | 13 | 5 | 90.40 |"
    own["health"]["eigenvalues"] = [[epochs, 1.0] for epochs in range(15)]
    assert ground.stopped(own) is None
    # Hardly any weights from epoch 7 on, first nothing that comes through: known after epoch 12.
    skips = "|skip_connect~0|+|skip_connect~0|none~1|"
    cells = ["|nor_conv_3x3~0|+|none~0|skip_connect~1|"] * 6 + [
        "|nor_conv_3x3~0|+|none~0|none~1|"
    ] * 2
    own["health"] |= {"few": [False] * 6 + [True] * 14, "cells": cells + [skips] * 12}
    assert ground.stopped(own) == (12, 6)
    # The last decision alone: after the last epoch the one of before is taken.
    own["health"]["cells"] = cells[:1] * 19 + [skips]
    assert ground.stopped(own) == (20, 19)
