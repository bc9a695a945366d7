"""Options of what everybody changes, searches that decided nothing, runs that go on elsewhere."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from in_forks import code_of, forked
from test_search_to_training import SMALL, ok, write_images
from test_search_to_training import fails as fails

import gradnas
from gradnas import BinaryGates, GumbelSoftmax, Relaxation, Sigmoid, Unrolled, runs
from gradnas.cli import main
from gradnas.cli.methods import method_of
from gradnas.gradients import ArchitectureGradient
from gradnas.optimizers import WeightOptimizer

pytestmark = pytest.mark.slow  # many combinations, or whole runs

ROOT = str(Path(gradnas.__file__).resolve().parents[1])
BRIEF = ("--epochs", "1", "--max-steps", "2")
OWN = '''
from dataclasses import dataclass

from gradnas import Softmax


@dataclass(frozen=True)
class Warm(Softmax):
    """Softmax by another name."""

    heat: float = 1.0
'''


def configuration(folder):
    return json.loads((folder / runs.CONFIG).read_text())


def test_methods_by_name_with_their_fields():
    for text, right in (
        ("gumbel", GumbelSoftmax()),
        ("gumbel:hard=false,temperature=5", GumbelSoftmax(hard=False, temperature=5.0)),
        ("GumbelSoftmax:hard=true", GumbelSoftmax(hard=True)),
        ("binary-gates:mode=full", BinaryGates(mode="full")),
        ("Sigmoid", Sigmoid()),
    ):
        assert method_of(Relaxation, text, "--relaxation") == right
    unrolled = method_of(ArchitectureGradient, "unrolled:mode=exact", "--gradient")
    assert unrolled == Unrolled(mode="exact")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("gumble", "did you mean 'gumbel-softmax'"),
        ("softmx", "did you mean 'softmax'.*binary-gates"),
        ("s", "no Relaxation is called 's'"),
        ("gumbel:hrad=true", "did you mean 'hard'"),
        ("gumbel:hard=7", "must be true or false"),
        ("gumbel:hard", "no field=value"),
        ("nowhere_at_all:Thing", "cannot be imported"),
        ("json:JSONDecoder", "frozen dataclass below gradnas.Relaxation"),
    ],
)
def test_methods_that_are_none(text, sentence):
    if text == "gumbel:hard":
        # A word without a value reads as the class of a module.
        sentence = "cannot be imported"
    with pytest.raises(ValueError, match=sentence):
        method_of(Relaxation, text, "--relaxation")


def test_options_reach_the_configuration(tmp_path):
    run = tmp_path / "r"
    options = ("--lr", "0.01", "--alpha-lr", "0.2", "--relaxation", "gumbel:hard=false")
    ok("search", "digits", "--out", run, *options, "--gradient", "unrolled", *BRIEF, *SMALL)
    config = configuration(run)
    assert config["weights"]["lr"] == 0.01 and config["alphas"]["lr"] == 0.2
    assert config["relaxation"]["type"] == "GumbelSoftmax" and not config["relaxation"]["hard"]
    assert config["gradient"]["type"] == "Unrolled"
    ok("train", run, "--lr", "0.3", *BRIEF, *SMALL)
    assert configuration(run / "train")["lr"] == 0.3


def test_a_rate_never_rises_towards_its_end_and_a_constant_one_stays_constant(tmp_path):
    low = tmp_path / "low"
    ok("search", "digits", "--out", low, "--lr", "0.0001", *BRIEF, *SMALL)
    weights = configuration(low)["weights"]
    assert (weights["lr"], weights["lr_end"]) == (0.0001, 0.0001)


def test_gradients_that_exclude_each_other(fails, tmp_path):
    both = ("--reinforce", "2", "--gradient", "first-order")
    assert "only one of" in fails("search", "proxyless-digits", *both)
    run = tmp_path / "r"
    dense = ("--relaxation", "binary-gates", "--gradient", "unrolled:mode=exact", "--out", run)
    assert "second derivatives" in fails("search", "digits", *dense, *SMALL)
    assert not run.exists()


def in_a_process_of_its_own(folder, *commands):
    """Exit codes and stderr of commands: a class that was imported is known from then on."""
    codes, errors = folder / "codes.txt", folder / "errors.txt"

    def work():
        os.chdir(folder)
        sys.path.insert(0, "")  # as `python -m` has it
        with errors.open("w") as said, contextlib.redirect_stderr(said):
            found = [main([str(word) for word in command]) for command in commands]
        codes.write_text(json.dumps(found))

    assert code_of(forked(work)) == 0
    return json.loads(codes.read_text()), errors.read_text()


def test_a_class_of_the_users_own(tmp_path):
    (tmp_path / "warm_relaxation.py").write_text(OWN)
    own = ("--relaxation", "warm_relaxation:Warm:heat=2")
    search = ("search", "digits", "--out", "r", *own, *BRIEF, *SMALL)
    assert in_a_process_of_its_own(tmp_path, search)[0] == [0]
    relaxation = configuration(tmp_path / "r")["relaxation"]
    assert relaxation["type"] == "Warm" and relaxation["heat"] == 2.0
    # Nothing that a file names is imported by itself.
    report = ("report", "r")
    named = ("report", "r", "--import", "warm_relaxation")
    measure = ("latency", "measure", "r", "--repeats", "1", "--warmup", "0", "--out", "t.json")
    known = (*measure, "--import", "warm_relaxation")
    codes, errors = in_a_process_of_its_own(tmp_path, report, measure, named, known)
    assert codes == [2, 2, 0, 0] and errors.count("--import MODULE") == 2


# ---- nothing was decided -------------------------------------------------------------------------


def test_a_search_whose_alphas_did_not_move_says_so(tmp_path, capsys):
    run = tmp_path / "r"
    ok("search", "digits", "--epochs", 2, "--out", run, *SMALL)  # both of warm-up
    said = capsys.readouterr()
    assert "all 2 epochs are warm-up" in said.err
    assert "nothing was decided" in said.out and "--warmup-epochs" in said.out
    ok("report", run)
    assert "Nothing was decided" in (run / runs.REPORT).read_text()


def test_a_small_rate_of_the_alphas_is_named(tmp_path, capsys):
    options = ("--warmup-epochs", 0, "--epochs", 1, "--batch-size", 256)
    ok("search", "digits", "--out", tmp_path / "a", "--alpha-lr", "1e-5", *options, *SMALL)
    assert "--alpha-lr, which is 1e-05" in " ".join(capsys.readouterr().out.split())
    ok("search", "digits", "--out", tmp_path / "b", "--alpha-lr", "1", *options, *SMALL)
    assert "nothing was decided" not in capsys.readouterr().out


def test_a_search_of_nothing_but_warm_up_ends(tmp_path, capsys):
    """Its learning rate was divided by an epoch that does not come."""
    weights = WeightOptimizer(lr=0.1, lr_end=0.01, warmup_lr=0.2)
    assert weights.lr_at(5, epochs=5, warmup_epochs=5) == 0.01
    assert weights.lr_at(0, epochs=5, warmup_epochs=5) == 0.2
    run = tmp_path / "r"
    brief = ("--warmup-epochs", 1, "--epochs", 1, "--batch-size", 256)
    ok("search", "proxyless-digits", "--out", run, *brief, "--threads", 1, "--device", "cpu")
    assert "nothing was decided" in capsys.readouterr().out


# ---- going on elsewhere --------------------------------------------------------------------------


def stopped_search(place, monkeypatch):
    """A search on the relative path `images`, stopped after its checkpoint, as a kill leaves it."""
    monkeypatch.chdir(place)
    write_images(place / "images", (8, 8))
    ok("search", "digits", "--data", "images", "--out", "runs/r", *BRIEF, *SMALL)
    run = runs.Run(place / "runs" / "r")
    run.set_status("interrupted")
    return run


def test_a_run_goes_on_from_another_directory(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    run = stopped_search(here, monkeypatch)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    # Another set of that name, which is not meant.
    write_images(elsewhere / "images", (8, 8), classes=("x", "y", "z"))
    monkeypatch.chdir(elsewhere)
    ok("resume", run.path)
    ok("train", run.path, "--recipe", "digits-eval", *BRIEF, *SMALL)
    assert json.loads((run.path / "train" / runs.RESULTS).read_text())["data"]["num_classes"] == 2
    ok("evaluate", run.path)


def test_run_and_data_that_moved_together_are_found(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    stopped_search(here, monkeypatch)
    monkeypatch.chdir(tmp_path)
    shutil.move(here, tmp_path / "there")
    ok("resume", tmp_path / "there" / "runs" / "r")


def test_data_that_moved_alone_are_named(fails, tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    run = stopped_search(here, monkeypatch)
    shutil.move(here / "images", tmp_path / "moved")
    other = write_images(tmp_path / "other", (8, 8), number=5)
    assert "no folder images" in fails("resume", run.path)
    assert "the number of training images was 24, and is 10" in fails(
        "resume", run.path, "--data", other
    )
    ok("resume", run.path, "--data", tmp_path / "moved")
    ok("train", run.path, "--recipe", "digits-eval", *BRIEF, *SMALL)


def test_a_test_split_is_taken_where_there_is_none(fails, tmp_path):
    folder = write_images(tmp_path / "images", (8, 8), splits=("train",))
    run = tmp_path / "r"
    command = ("search", "digits", "--data", folder, "--out", run, *BRIEF, *SMALL)
    assert "--test-fraction" in fails(*command)
    ok(*command, "--test-fraction", "0.25")
    ok("train", run, "--recipe", "digits-eval", *BRIEF, *SMALL)
    assert json.loads((run / "train" / runs.RESULTS).read_text())["num_test_images"] == 6


def test_a_reader_that_went_away_leaves_no_traceback():
    program = f"{sys.executable} -m gradnas recipes | head -n 1; exit ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": ROOT}
    done = subprocess.run(
        ["bash", "-c", program], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stderr == "" and done.stdout == "searches:\n"
