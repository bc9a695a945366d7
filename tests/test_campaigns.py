"""Small campaigns of kills and mutations; `benchmarks/campaigns` takes any size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CAMPAIGNS = Path(__file__).parents[1] / "benchmarks" / "campaigns"


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="campaigns fork")
@pytest.mark.parametrize(
    "arguments, counted",
    [
        (("kills", "--number", "1", "--only", "text-search"), "0 runs ended wrong"),
        (("mutations", "--number", "2", "--only", "text-train"), "wrong 0"),
    ],
)
def test_a_small_campaign(arguments, counted):
    # In a process of its own: what forks must not have computed before.
    done = subprocess.run(
        [sys.executable, str(CAMPAIGNS), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert counted in done.stdout and "WRONG" not in done.stdout
