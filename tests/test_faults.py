"""Some seeded faults; `python tests/faults.py` makes as many as one likes."""

from __future__ import annotations

import faults
import in_forks  # noqa: F401, what forks need is imported before
import pytest


def command(out):
    words = ["search", faults.TASK, "--epochs", "3", "--batch-size", "16", *faults.SMALL]
    return [*words, "--out", str(out)]


def met(place):
    """What came of each fault, by its name."""
    cases = {}
    whole = place / "whole"
    assert faults.run(command(whole), 2)[0] == [0, 0]
    for name, fault in {
        "kill": faults.Fault("kill", 5, 1),
        "torn": faults.Fault("torn", 4, 0),
    }.items():
        out = place / name
        codes, said = faults.run(command(out), 2, fault)
        ended, why = faults.finished(out, command(out), 2)
        same = faults.digests(out) == faults.digests(whole)
        cases[name] = {"codes": codes, "said": said, "ended": ended, "why": why, "same": same}
    out = place / "fewer"
    codes, _ = faults.run(command(out), 2, faults.Fault("stop", 5, 1))
    again, said = faults.run(["resume", str(out), "--task", faults.TASK], 1)
    decided = (out / "genotype.json").read_text() == (whole / "genotype.json").read_text()
    cases["fewer"] = {"codes": codes, "again": again, "said": said, "same": decided}
    return cases


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    """Runs of two ranks of which one meets a fault, in forks."""
    return met(tmp_path_factory.mktemp("faults"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kill", "torn"])
def test_a_rank_that_is_lost_ends_the_others_and_all_go_on(cases, name):
    case = cases[name]
    assert sorted(case["codes"]) == [-9, 1]
    assert "another process of this run is gone" in case["said"]
    assert case["ended"], case["why"]
    assert case["same"]


@pytest.mark.slow
def test_a_rank_that_is_asked_to_stop_stops_all_and_fewer_go_on(cases):
    case = cases["fewer"]
    assert case["codes"] == [130, 130] and case["again"] == [0]
    assert "the checkpoint is of 2 processes, and 1 go on" in case["said"]
    assert case["same"]
