"""Run folders from the command line: refused before they are made, resumed as they are, or not."""

from __future__ import annotations

import json
import os
import shutil
import signal

import numpy as np
import pytest

from gradnas import Genotype, runs
from gradnas.cli import main
from gradnas.laws import estimator as equation_estimator
from gradnas.laws.discover import Law, Laws
from gradnas.laws.formula import Edge, Formula, Node
from gradnas.laws.primitives import PRIMITIVES
from gradnas.programs import searching

SMALL = ("--channels", "2", "--cells", "2", "--threads", "1", "--device", "cpu")
SEARCH = ("search", "digits", "--epochs", "2", "--warmup-epochs", "0", *SMALL)
TRAIN = ("train", "DARTS_V2", "--recipe", "digits-eval", "--epochs", "1", *SMALL)


def ok(*arguments):
    assert main([str(a) for a in arguments]) == 0


@pytest.fixture
def fails(capsys):
    """Run a command that must fail, and return the sentence that says why."""

    def run(*arguments, code=2):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == code
        errors = capsys.readouterr().err
        *_, sentence = errors.strip().splitlines()
        assert sentence.startswith("gradnas: ") and "Traceback" not in errors
        return sentence

    return run


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A search that was stopped after its first epoch."""
    path = tmp_path_factory.mktemp("runs") / "stopped"
    with pytest.MonkeyPatch.context() as patch:
        epochs = []

        def asked(keeper):
            if keeper.run.records():
                epochs.append(1)
                keeper._asked = True
            after_step(keeper)

        after_step = runs.Keeper.after_step
        patch.setattr(runs.Keeper, "after_step", asked)
        assert main([*SEARCH, "--batch-size", "256", "--out", str(path)]) == 130
    assert epochs and runs.Run(path).status()["status"] == "interrupted"
    return path


@pytest.fixture
def run(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    return runs.Run(tmp_path / "run")


def change(run, **entries):
    config = json.loads((run.path / runs.CONFIG).read_text())
    runs.write_json(run.path / runs.CONFIG, {**config, **entries})


# ---- before there is a folder --------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        (*SEARCH, "--image-size", "1"),
        (*SEARCH, "--valid-per-class", "1000"),
        (*SEARCH, "--budget-params", "10"),
        (*SEARCH, "--precision", "tf32"),
        ("search", "proxyless-digits", "--per-class", "20", *SMALL[4:]),
        ("search", "proxyless-digits", "--budget-macs", "10", *SMALL[4:]),
        (*TRAIN, "--auxiliary"),
        (*TRAIN, "--compile", "reduce-overhead"),
        (*TRAIN, "--precision", "tf32"),
        (*TRAIN, "--image-size", "1"),
    ],
)
def test_what_cannot_be_leaves_no_folder_and_advises_no_resume(command, fails, tmp_path):
    sentence = fails(*command, "--out", tmp_path / "run")
    assert "gradnas resume" not in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("command", [SEARCH, TRAIN, ("discover", "--example", "learning")])
def test_an_empty_name_is_no_folder(command, fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "--out is empty" in fails(*command, "--out", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", [SEARCH, TRAIN, ("discover", "--example", "learning")])
def test_a_folder_of_others_is_told_before_the_work(command, fails, tmp_path, monkeypatch):
    (tmp_path / "results.json").write_text("{}")
    monkeypatch.setattr(searching, "prepared_search", None)  # nothing comes so far
    assert "holds other files (results.json)" in fails(*command, "--out", tmp_path)
    assert os.listdir(tmp_path) == ["results.json"]


# ---- going on ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    "entries, named",
    [
        ({"seed": 5}, "seed was 0 and is 5"),
        ({"batch_size": 128}, "batch_size was 256 and is 128"),
    ],
)
def test_other_settings_are_refused_by_name(entries, named, run, fails):
    change(run, **entries)
    sentence = fails("resume", run.path)
    assert named in sentence and "gradnas resume" not in sentence


@pytest.mark.slow
@pytest.mark.parametrize("kind", [[], None])
@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "RUN"),
        ("train", "RUN"),
        ("train", "RUN/config.json"),
        ("latency", "measure", "RUN"),
    ],
)
def test_a_type_that_is_no_text_is_a_sentence_in_every_command(command, kind, run, fails):
    change(run, type=kind)
    Genotype.named("DARTS_V2").save(run.path / runs.GENOTYPE)
    fails(*[word.replace("RUN", str(run.path)) for word in command])


def test_what_may_change_goes_on_and_is_said(run, capsys):
    change(run, checkpoint_seconds=1.0)
    environment = json.loads((run.path / runs.ENVIRONMENT).read_text())
    before = {**environment, "torch": "1.0", "compiler": "g++ 1.0", "kernels": "magic"}
    runs.write_json(run.path / runs.ENVIRONMENT, before)
    for name in (".checkpoint.pt.abcdefgh", ".metrics.jsonl.12345678"):
        (run.path / name).write_text("left by a kill")
    ok("resume", run.path)
    said = capsys.readouterr().err
    assert "torch was 1.0 and is" in said and "the C++ compiler was g++ 1.0" in said
    assert "what the kernels run on was magic" in said
    assert runs.Run(run.path).status()["status"] == "finished"
    assert not [name for name in os.listdir(run.path) if name.startswith(".")]


@pytest.mark.slow
def test_a_run_goes_on_without_status_and_environment(run):
    (run.path / runs.ENVIRONMENT).unlink()
    (run.path / runs.STATUS).write_text('{"stat')
    ok("resume", run.path)
    assert runs.Run(run.path).status()["status"] == "finished"


@pytest.mark.slow
def test_one_process_in_a_folder_and_readers_beside_it(run, fails):
    # In a child, because this process may have its own lock again.
    ready, done = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        with runs.locked(run.path):
            os.write(ready[1], b"x")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    try:
        before = (run.path / runs.STATUS).read_bytes()
        assert "another process works in" in fails("resume", run.path)
        assert (run.path / runs.STATUS).read_bytes() == before
        ok("report", run.path)
    finally:
        os.write(done[1], b"x")
        os.waitpid(child, 0)
        for handle in (*ready, *done):
            os.close(handle)


@pytest.mark.slow
def test_a_second_ctrl_c_says_what_is_saved(run, capsys, monkeypatch):
    work = searching.SearchTask.counted_step

    def interrupted(task, batch):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return work(task, batch)

    monkeypatch.setattr(searching.SearchTask, "counted_step", interrupted)
    assert main(["resume", str(run.path)]) == 130
    said = capsys.readouterr().err
    assert "stopped at once; go on from the last checkpoint with: gradnas resume" in said
    assert runs.Run(run.path).status()["status"] == "interrupted"


@pytest.mark.slow
def test_a_compiler_that_is_named_must_be_there(fails, tmp_path, monkeypatch):
    monkeypatch.setenv("GRADNAS_COMPILER", "no-such-compiler")
    sentence = fails(*SEARCH, "--out", tmp_path / "run")
    assert "GRADNAS_COMPILER names 'no-such-compiler'" in sentence
    assert not (tmp_path / "run").exists()


# ---- discoveries ---------------------------------------------------------------------------------


@pytest.fixture
def laws(monkeypatch):
    """A hand-made front in place of the search for laws; it may be told to end by an error."""
    told = {"error": None}

    def found(x_ND, y_N, settings, weights_N, loss, seed, show, names):
        if told["error"] is not None:
            raise told["error"]
        d = x_ND.shape[1]
        formulas = [
            Formula(d, (), (), float(np.mean(y_N))),
            Formula(d, (Node("sum", (Edge(0, "tanh"),)),), (1.5,), 0.1),
        ]
        front = tuple(
            Law(formula, k, 0.5 / k, 0.6 / k, -k % 4, k, loss, PRIMITIVES)
            for formula, k in zip(formulas, (1, 4), strict=True)
        )
        return Laws(front, 1, (), {"search": 9})

    monkeypatch.setattr(equation_estimator, "discover_laws", found)
    return told


def test_a_discovery_that_was_stopped_begins_again(laws, tmp_path, fails, capsys):
    out = tmp_path / "law"
    laws["error"] = KeyboardInterrupt()
    assert main(["discover", "--example", "learning", "--out", str(out)]) == 130
    assert f"nothing was saved yet in {out}" in capsys.readouterr().err
    assert "is not finished" in fails("report", out)
    laws["error"] = None
    ok("resume", out)
    assert "begins again" in capsys.readouterr().err
    ok("report", out)
    assert capsys.readouterr().out.strip() == str(out / runs.REPORT)
    assert "finished" in fails("resume", out)
    ok("discover", "--example", "learning", "--out", tmp_path / "whole")
    for name in (runs.CONFIG, runs.RESULTS, runs.LAW_TEX, runs.LAW_PY, runs.STATUS):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert len((out / runs.TIMINGS).read_text().splitlines()) == 1


def test_the_same_discovery_may_have_the_folder_of_one_that_was_stopped(laws, tmp_path):
    command = ["discover", "--example", "learning", "--out", str(tmp_path / "law")]
    laws["error"] = KeyboardInterrupt()
    assert main(command) == 130
    laws["error"] = None
    ok(*command)


def test_a_discovery_that_is_refused_leaves_no_folder(laws, tmp_path, capsys):
    laws["error"] = ValueError("no law can be found")
    assert main(["discover", "--example", "learning", "--out", str(tmp_path / "law")]) == 2
    said = capsys.readouterr().err
    assert "no law can be found" in said and "resume" not in said
    assert not (tmp_path / "law").exists()


# ---- what a folder holds from its beginning ------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("command", [SEARCH, TRAIN])
def test_the_configuration_comes_last(command, tmp_path, monkeypatch):
    """A kill as it is written leaves a folder that the same command may have."""
    written = []
    write = runs.folder.write_json

    def killed(path, value):
        if path.name == runs.CONFIG and not written:
            written.extend(entry.name for entry in path.parent.iterdir())
            raise KeyboardInterrupt
        write(path, value)

    monkeypatch.setattr(runs.folder, "write_json", killed)
    out = tmp_path / "run"
    assert main([*command, "--max-steps", "1", "--out", str(out)]) == 130
    assert not (out / runs.CONFIG).exists()
    wanted = {runs.ENVIRONMENT, runs.STATUS, runs.IMAGES, runs.DATA}
    if command is TRAIN:
        wanted |= {runs.GENOTYPE, runs.PICTURE}
    assert wanted <= set(written)
    ok(*command, "--max-steps", "1", "--out", out)
