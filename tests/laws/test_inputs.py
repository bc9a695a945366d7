"""A few of the awkward inputs of `benchmarks/law_inputs.py`, which takes all of them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from law_inputs import run


@pytest.mark.slow
@pytest.mark.parametrize("part, every", [("names", 30), ("scales", 20)])
def test_awkward_inputs_are_right_or_refused(part, every, capsys):
    counts = run(part, every)
    assert counts["wrong"] == 0, capsys.readouterr().out
    assert counts["right"] > 0
