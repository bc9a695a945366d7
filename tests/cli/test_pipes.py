"""A named pipe, a folder and a link in a circle in the place of each file that is read."""

from __future__ import annotations

import os
import signal

import pytest

from gradnas import Genotype, LatencyTable
from gradnas.architectures.registry import load_architecture
from gradnas.cli.own_task import read_task
from gradnas.config import read_object
from gradnas.data.tabular import load_table
from gradnas.runs import read_checkpoint, read_tensors

WAY = {
    "an architecture": ("a.json", load_architecture),
    "a genotype": ("a.json", Genotype.load),
    "a genotype in Python": ("a.py", lambda path: Genotype.load_named(path, "DARTS")),
    "a task": ("a.py", lambda path: read_task(str(path))),
    "a table of latencies": ("a.json", LatencyTable.load),
    "a table of a phone": ("a.yaml", LatencyTable.load),
    "a table of numbers": ("a.csv", lambda path: load_table(path, "y")),
    "a configuration": ("a.json", read_object),
    "a checkpoint": ("a.pt", read_checkpoint),
    "weights": ("a.safetensors", read_tensors),
}


@pytest.fixture(autouse=True)
def ends():
    """A pipe that is read waits for ever: then this process is ended."""
    signal.alarm(300)
    yield
    signal.alarm(0)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("what", WAY)
def test_nothing_waits_for_a_pipe(what, tmp_path):
    name, read = WAY[what]
    path = tmp_path / name
    os.mkfifo(path)
    with pytest.raises(ValueError, match=f"cannot read .*{name}: it is (a named pipe|no regular)"):
        read(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=f"cannot read .*{name}: it is a folder"):
        read(path)
