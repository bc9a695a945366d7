"""A sample of the wrong calls: every option of every command with every kind of wrong value.

All of them are made by `python benchmarks/campaigns calls`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks" / "campaigns"))

from calls import Calls
from kept import Kept

# Those that need no run before them.
COMMANDS = ("search", "train", "draw", "latency", "data", "discover")


@pytest.mark.slow
def test_wrong_calls_are_refused_with_one_sentence_and_leave_nothing(tmp_path):
    calls = Calls(Kept(tmp_path), seed=7, only=COMMANDS)
    options = {(call.arguments[0], call.option) for call in calls.calls}
    assert len(calls.calls) > 900 and len(options) > 80
    calls.run(24)
    assert calls.wrong == []
    assert sum(counts["refused"] for counts in calls.counts.values()) == 24
