"""What a search will take, said before it runs."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from test_experiment import CPU, DIGITS, SMALL, search

from gradnas.cli import main
from gradnas.programs import estimating as room
from gradnas.programs.estimating import Estimate, estimate_search, time_needed
from gradnas.tasks.images.search import ImageSearch


@pytest.mark.slow
def test_the_counted_memory_is_what_the_run_then_shows(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "PROBE_STEPS", (1, 1))
    found = estimate_search(SMALL, DIGITS, CPU)
    search(replace(SMALL, epochs=1), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert found.counted_mib == record["peak_memory_mib"]
    assert found.steps == record["steps"] and found.epochs == SMALL.epochs
    assert min(found.step_seconds, found.evaluation_seconds, found.process_mib) > 0


def test_warm_up_epochs_are_probed_without_a_step_of_the_alphas(monkeypatch):
    monkeypatch.setattr(room, "PROBE_STEPS", (1, 1))
    calls = []
    original = ImageSearch.step

    def step(self, *batches, **options):
        before = {name: alpha.detach().clone() for name, alpha in self.search.alphas.items()}
        report = original(self, *batches, **options)
        calls.append(
            any(not torch.equal(before[name], alpha) for name, alpha in self.search.alphas.items())
        )
        return report

    monkeypatch.setattr(ImageSearch, "step", step)
    found = estimate_search(replace(SMALL, warmup_epochs=1), DIGITS, CPU)
    assert calls == [True, True, False]  # counted, timed, timed in the warm-up
    assert found.warmup_epochs == 1


def test_epochs_add_up_and_are_said_in_words_of_80_columns():
    found = Estimate(948.0, 1945.6, 20.0, 8.0, 160.0, 391, 50, 2, "cpu (2 threads)")
    assert found.epoch_seconds == 391 * 20.0 + 160.0
    assert found.warmup_epoch_seconds == 391 * 8.0 + 160.0
    assert found.search_seconds == 48 * 7980.0 + 2 * 3288.0
    text = str(found)
    assert "peak memory   1.9 GiB (948 MiB of it for weights and one step)" in text
    assert "one epoch     2 h 13 min: 391 steps of 20 s, evaluation 3 min" in text
    assert "warm-up epoch 55 min: steps of 8 s" in text
    assert "whole search  4 d 12 h for 50 epochs" in text
    assert max(len(line) for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.1234, "0.123 s"),
        (89.0, "89 s"),
        (300.0, "5 min"),
        (3700.0, "1 h 2 min"),
        (9e4, "1 d 1 h"),
    ],
)
def test_durations(seconds, words):
    assert time_needed(seconds) == words


def test_the_command_makes_no_run_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(room, "PROBE_STEPS", (1, 1))
    monkeypatch.chdir(tmp_path)
    arguments = [
        "search",
        "digits",
        "--estimate",
        "--channels",
        "2",
        "--cells",
        "2",
        "--batch-size",
        "256",
    ]
    assert main([*arguments, "--device", "cpu"]) == 0
    assert "whole search" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
