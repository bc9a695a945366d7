"""Watching a run: what a terminal of 80 columns shows, from the files of its folder alone."""

from __future__ import annotations

import json
import platform
import shutil
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas import runs
from gradnas.cli import main
from gradnas.programs import watching
from gradnas.reports.folder import Mixture
from gradnas.reports.terminal import BLOCKS, Pace, blocks, narrow

X = torch.randn(24, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = gradnas.Choice({"flat": nn.Linear(4, 4), "skip": nn.Identity()})
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("watched") / "run"
    torch.manual_seed(0)
    gradnas.Search(Net()).fit(
        [(X, Y)], [(X, Y)], F.cross_entropy, 3, progress=False, out=folder, candidates=0
    )
    return folder


@pytest.fixture
def run(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


def at_epoch(run: Path, epochs: int) -> None:
    """The folder as it was after so many epochs, at work in this process."""
    records = runs.Run(run).records()[:epochs]
    lines = "".join(json.dumps(record) + "\n" for record in records)
    (run / runs.METRICS).write_text(lines)
    for name in (runs.RESULTS, runs.GENOTYPE):
        (run / name).unlink(missing_ok=True)
    runs.Run(run).set_status("running")


def screen(run, width=80, height=24):
    return watching.look(run).lines(width, height, time.time())


# ---- the picture ---------------------------------------------------------------------------------


def test_a_finished_run_shows_its_measures_and_its_choices_and_is_over_at_once(run, capsys):
    lines = screen(run)
    assert lines[0].startswith("run: search on a program") and lines[0].endswith("finished")
    assert "epoch 3 of 3" in lines[1]
    assert any(line.startswith("train loss") and set(line) & set(BLOCKS) for line in lines)
    chosen = json.loads((run / runs.GENOTYPE).read_text())["choices"]["body"]
    row = next(line for line in lines if line.startswith("body "))
    assert f"*{chosen} 0." in row
    assert max(map(len, lines)) <= 80

    assert main(["watch", str(run)]) == 0
    told = capsys.readouterr().out.splitlines()
    assert max(map(len, told[:-1])) <= 80
    first = [line for line in told if not line.startswith("    ")]  # the others go on with them
    assert [line.split("  ")[0] for line in first[1:4]] == [
        "search: epoch 1/3",
        "search: epoch 2/3",
        "search: epoch 3/3",
    ]
    assert first[4].startswith(f"{run}: ") and len(first) == 5
    # Nothing is lost, and a measure stays with its value.
    whole = watching.look(run).epoch_lines(2)[0]
    broken = narrow(whole)
    assert "  ".join(part.strip() for part in broken.splitlines()) == whole
    assert narrow("a path /" + 90 * "x") == "a path\n    /" + 90 * "x"


def test_what_is_shown_goes_with_the_run_and_ends_with_it(run, monkeypatch, capsys):
    whole = runs.Run(run).records()
    results = (run / runs.RESULTS).read_bytes()
    at_epoch(run, 0)
    looks = []

    def another_look(seconds):
        looks.append(screen(run)[1])
        done = len(runs.Run(run).records())
        if done < 3:
            runs.Run(run).append(runs.METRICS, whole[done])
        else:
            (run / runs.RESULTS).write_bytes(results)
            runs.Run(run).set_status("finished")

    monkeypatch.setattr(watching.time, "sleep", another_look)
    assert main(["watch", str(run)]) == 0
    assert [f"epoch {n} of 3" in look for n, look in enumerate(looks)] == [True] * 4
    told = capsys.readouterr().out.splitlines()
    assert len([line for line in told if line.startswith("search: epoch")]) == 3


def test_a_lock_of_another_is_not_asked_for_and_nothing_is_written(run):
    at_epoch(run, 2)
    with runs.locked(run):
        before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}
        assert watching.look(run).ending is None
        assert before == {path.name: path.stat().st_mtime_ns for path in run.iterdir()}


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        ({"status": "interrupted"}, "gradnas resume"),
        ({"status": "failed", "message": "the loss is NaN"}, "the loss is NaN"),
        (
            {"status": "running", "host": platform.node(), "process": 2**22 + 1},
            "its process is gone",
        ),
        ({}, "its process is gone"),
    ],
)
def test_a_run_that_has_stopped_is_over_too(run, status, sentence, capsys):
    at_epoch(run, 2)
    (run / runs.STATUS).write_text(json.dumps(status))
    assert main(["watch", str(run)]) == 0
    assert sentence in capsys.readouterr().out.splitlines()[-1]


def test_ctrl_c_ends_quietly(run, monkeypatch, capsys):
    at_epoch(run, 1)

    def stop(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", stop)
    assert main(["watch", str(run)]) == 0
    assert capsys.readouterr().err == ""


def test_a_bad_folder_is_a_sentence(tmp_path, run, capsys):
    assert main(["watch", str(tmp_path / "none")]) == 2
    assert main(["watch", str(tmp_path)]) == 2
    (run / runs.METRICS).write_text("{}\n")
    assert main(["watch", str(run)]) == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert "there is no run folder" in first
    assert "no config.json" in second
    assert "metrics.jsonl is damaged" in third


def test_a_file_that_is_damaged_for_a_moment_is_read_again(run, monkeypatch):
    at_epoch(run, 2)
    whole = (run / runs.METRICS).read_text()
    steps = iter([lambda: (run / runs.METRICS).write_text("?\n"), lambda: None])

    def another_look(seconds):
        nonlocal whole
        step = next(steps, None)
        if step is None:
            (run / runs.METRICS).write_text(whole)
            runs.Run(run).set_status("interrupted")
        else:
            step()

    monkeypatch.setattr(watching.time, "sleep", another_look)
    assert [seen.ending is None for seen in watching.follow(run)] == [True, True, True, False]


# ---- its parts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60)])
def test_no_line_is_too_wide_and_what_does_not_fit_is_counted(run, width, height):
    seen = watching.look(run)
    names = tuple(f"an operation with a long name {n}" for n in range(12))
    many = [
        Mixture(f"blocks.{n}.attention\x1b[2J.projection", names, (1 / 12,) * 12, names[n % 12])
        for n in range(100)
    ]
    lines = watching.Seen(seen.folder, many, None).lines(width, height, time.time())
    assert max(map(len, lines)) <= width and len(lines) <= height
    assert not any("\x1b" in line for line in lines)
    shown = sum(line.count("blocks.") for line in lines)
    assert shown == 100 or f"and {100 - shown} more" in lines[-1]
    assert shown < 100 or height == 60


def test_blocks_are_low_and_high_and_means_of_many():
    assert blocks([0, 1], 8) == "▁█"
    assert blocks([2, 2, 2], 8) == "▄▄▄"
    assert blocks(list(range(800)), 8) == BLOCKS
    assert blocks([0] * 99 + [1], 10) == "▁▁▁▁▁▁▁▁▁█"


def test_the_time_left_is_that_of_the_epochs_left():
    pace = Pace(epochs=10, per_epoch=60.0, since=15.0)
    assert pace.left(4) == 6 * 60 - 15
    assert pace.share(4) == pytest.approx(4.25 / 10)
    assert Pace(10, 60.0, 500.0).left(9) == 0  # slower than before: not negative
    assert Pace(10, None, 5.0).left(0) is None
    assert pace.share(10) == 1


def test_an_epoch_that_a_limit_of_steps_will_not_reach_is_not_waited_for(run):
    at_epoch(run, 2)
    config = json.loads((run / runs.CONFIG).read_text())
    (run / runs.CONFIG).write_text(json.dumps(config | {"epochs": 50, "max_steps": 3}))
    assert "epoch 2 of 3" in screen(run)[1]
