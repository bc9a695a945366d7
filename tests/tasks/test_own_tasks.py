"""Programs that people bring, each a file in `own_tasks/`: from the command line, all the way."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from in_forks import forked

from gradnas import runs
from gradnas.cli import main
from gradnas.search.verdict import Verdict

FOLDER = Path(__file__).parents[1] / "own_tasks"
TASKS = sorted(path.stem for path in FOLDER.glob("*.py"))
OPTIONS = {"budget": ("--budget-macs", "150"), "adam_w": ("--precision", "bf16")}
NEEDS = {
    "hf_bert": "transformers",
    "hf_gpt2": "transformers",
    "hf_vit": "transformers",
    "lightning_module": "lightning",
    "accelerate_loop": "accelerate",
}
WITH_RANDOM = {"budget", "own_loop", "two_tasks"}
NO_FREE_BATCH = {"graph", "own_loop", "stream"}  # their loaders make the batches


def gradnas(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


def stop_after(monkeypatch, steps):
    """The next run stops after so many steps."""
    left = [steps]

    def after_step(keeper):
        left[0] -= 1
        if left[0] == 0:
            keeper.save()
            raise runs.Interrupted

    monkeypatch.setattr(runs.Keeper, "after_step", after_step)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of other packages; the search's own are in what it says
@pytest.mark.parametrize("name", TASKS)
def test_search_stop_resume_train_report_export(name, tmp_path, monkeypatch, capsys):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"{NEEDS[name]} is not installed")
    file = FOLDER / f"{name}.py"
    settings = (*OPTIONS.get(name, ()), "--epochs", 2, "--batch-size", 8, "--device", "cpu")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    gradnas("search", file, *settings, "--out", whole)

    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        arguments = ["search", file, *settings, "--out", stopped]
        assert main([str(argument) for argument in arguments]) == 130
    torch.manual_seed(1)  # as in another process
    gradnas("resume", stopped, "--task", file)
    for part in (runs.CONFIG, runs.METRICS, runs.ALPHAS, runs.GENOTYPE, runs.RESULTS):
        assert (whole / part).read_bytes() == (stopped / part).read_bytes(), part

    verdict = Verdict.from_json(json.loads((whole / runs.RESULTS).read_text())["verdict"])
    assert verdict.sentence and verdict.examples > 0
    chosen = json.loads((whole / runs.GENOTYPE).read_text())["choices"]
    assert {choice.name: choice.chosen for choice in verdict.choices} == chosen

    random = ("--random", 1) if name in WITH_RANDOM else ()
    gradnas("train", whole, "--task", file, *random)
    gradnas("evaluate", whole, "--task", file)
    gradnas("report", whole)
    page = (whole / runs.REPORT).read_text()
    assert "<h2>Choices</h2>" in page and "the cell" not in page
    capsys.readouterr()
    gradnas("export", whole, "--task", file, "-o", tmp_path / "model.pt2")
    said = capsys.readouterr().out
    where = "the example" if name == "lightning_module" else "held-out examples"
    assert f"largest difference to torch on {where}" in said
    assert ("batches of one size alone" in said) == (name in NO_FREE_BATCH), said


@pytest.mark.slow
def test_killed_in_the_middle_it_goes_on_to_the_same_files(tmp_path):
    file = FOLDER / "two_tasks.py"  # augmented with the global numbers
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    settings = ("--epochs", 12, "--batch-size", 4, "--device", "cpu")
    gradnas("search", file, *settings, "--out", whole)
    config = json.loads((whole / runs.CONFIG).read_text())
    written = tmp_path / "config.json"
    written.write_text(json.dumps({**config, "checkpoint_seconds": 0.0}))

    command = ["search", str(written), "--task", str(file), "--out", str(killed)]
    child = forked(lambda: main(command))
    metrics = killed / runs.METRICS
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if metrics.exists() and metrics.read_bytes().count(b"\n") >= 3:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            break
        time.sleep(0.005)
    if runs.Run(killed).status()["status"] != "finished":
        gradnas("resume", killed, "--task", file)
    for part in (runs.METRICS, runs.ALPHAS, runs.GENOTYPE, runs.RESULTS):
        assert (whole / part).read_bytes() == (killed / part).read_bytes(), part


@pytest.mark.slow
def test_latencies_of_a_task_and_a_budget_of_them(tmp_path, capsys):
    file = FOLDER / "transformer.py"  # called with a named input
    table = tmp_path / "table.json"
    gradnas("latency", "measure", file, "--repeats", 2, "--warmup", 1, "-o", table)
    said = capsys.readouterr().out
    assert "Call(tensor of shape (1, 6), mask=tensor of shape (1, 6))" in said
    budget = ("--latency", table, "--budget-ms", 1e6)
    gradnas("search", file, *budget, "--epochs", 1, "--device", "cpu", "--out", tmp_path / "run")
    assert "latency" in capsys.readouterr().out
