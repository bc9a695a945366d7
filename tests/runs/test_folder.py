"""A run folder: what it may be made in, one process in it, nothing left of killed writes."""

from __future__ import annotations

import os
import platform
import signal
import subprocess

import pytest
import torch
from in_forks import code_of, forked

from gradnas import runs
from gradnas.config import read_object
from gradnas.environment import differences, environment, is_at_work
from gradnas.files import building_folder
from gradnas.runs import Run

CPU = torch.device("cpu")


def make(path, **more):
    return Run.create(path, {"type": "SearchConfig"}, 0, CPU, **more)


# ---- what a folder may hold ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["metrics.jsonl", "results.json", "genotype.json", "status.json", "thesis.tex", "config.json"],
)
def test_a_folder_with_files_of_others_is_refused(tmp_path, name):
    (tmp_path / name).write_text('{"mine": true}')
    with pytest.raises(ValueError, match=rf"holds other files \({name}\) and no run"):
        make(tmp_path)
    assert (tmp_path / name).read_text() == '{"mine": true}'
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_checkpoint_without_its_configuration_is_never_taken_over(tmp_path):
    run = make(tmp_path / "r")
    run.save_checkpoint({"step": 9})
    run.set_status("finished")
    (run.path / runs.CONFIG).unlink()
    with pytest.raises(ValueError, match="and no run"):
        make(run.path)


@pytest.mark.parametrize("name", [runs.RESULTS, runs.WEIGHTS])
def test_a_run_with_results_is_not_replaced(tmp_path, name):
    run = make(tmp_path / "r")
    (run.path / name).write_bytes(b"")
    run.set_status("failed")
    with pytest.raises(ValueError, match=r"already holds a run \(failed\)"):
        make(run.path)


def test_the_configuration_is_written_last(tmp_path):
    """A kill before it leaves no run, and the same command may have the folder."""

    class Killed(BaseException):
        pass

    def killed(run):
        (run.path / "vocabulary.json").write_text("{")
        raise Killed

    with pytest.raises(Killed):
        make(tmp_path / "r", add=killed)
    assert not (tmp_path / "r" / runs.CONFIG).exists()
    with pytest.raises(ValueError, match=r"it has no config\.json"):
        Run.open(tmp_path / "r")
    added = []
    make(tmp_path / "r", add=lambda run: added.append((run.path / runs.CONFIG).exists()))
    assert added == [False] and Run.open(tmp_path / "r").status()["status"] == "running"


@pytest.mark.parametrize("content", [b"", b"[]", b'{"status": "run', b'{"status": 3}', b"\xff"])
def test_a_damaged_status_stops_nobody(tmp_path, content):
    run = make(tmp_path / "r")
    (run.path / runs.STATUS).write_bytes(content)
    assert run.status() == {}
    make(run.path)


# ---- one process ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_second_process_is_refused_and_a_killed_one_locks_nothing(tmp_path):
    holds, says = os.pipe()

    def hold():
        with runs.locked(tmp_path):
            os.write(says, b".")
            signal.pause()

    child = forked(hold)
    assert os.read(holds, 1) == b"."
    with pytest.raises(ValueError, match="another process works in"), runs.locked(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    assert code_of(child) == -signal.SIGKILL
    for end in (holds, says):
        os.close(end)
    assert (tmp_path / ".lock").exists()
    with runs.locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_the_lock_is_the_process_own(tmp_path):
    """A forked child (a loader of images) does not keep it, and may not use it."""
    with runs.locked(tmp_path), runs.locked(tmp_path):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                with runs.locked(tmp_path):
                    pass
            except ValueError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with runs.locked(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_finished_run_has_no_file_of_a_lock_whenever_it_is_killed(tmp_path):
    run = make(tmp_path / "r")
    with runs.locked(run.path):
        assert (run.path / ".lock").exists()
        run.set_status("finished")
        assert not (run.path / ".lock").exists()
        with runs.locked(run.path):  # it still has it
            pass
    assert not (run.path / ".lock").exists()


@pytest.mark.parametrize("process", [2**70, -(2**70), True, 1.5, "1", None])
def test_what_is_no_number_of_a_process_is_none_at_work(process):
    state = {"status": "running", "host": platform.node(), "process": process}
    assert not is_at_work(state)


def test_a_configuration_that_could_not_be_read_again_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"config\.json.*half of a character.*must be renamed"):
        Run.create(tmp_path / "r", {"data": {"source": "caf\udce9"}}, 0, CPU)
    assert not (tmp_path / "r").exists()
    # What only people read is made visible.
    runs.write_json(tmp_path / "x.json", {"left out": ["caf\udce9", "\U0001f600", "\\ud83d"]})
    assert read_object(tmp_path / "x.json") == {"left out": ["caf\\udce9", "\U0001f600", "\\ud83d"]}


def test_of_what_is_refused_no_folder_is_left(tmp_path):
    def refuse(run):
        raise ValueError("no")

    (tmp_path / "mine").mkdir()
    for out in ("mine", "mine/a", "runs/a/b"):
        with pytest.raises(ValueError, match="no"):
            Run.create(tmp_path / out, {}, 0, CPU, add=refuse)
        with pytest.raises(ValueError, match="no"), runs.made_folder(tmp_path / out):
            refuse(None)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot make the folder"):
        Run.create(tmp_path / "file" / "a", {}, 0, CPU)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")) == [
        "file",
        "mine",
    ]


# ---- killed writes -------------------------------------------------------------------------------


def test_what_killed_writes_left_is_removed_and_nothing_else(tmp_path):
    run = make(tmp_path / "r")
    left = [
        ".checkpoint.pt.a1b2c3d4",
        "..checkpoint.pt.new.x_y2z3w4",
        ".checkpoint.pt.new",
        ".alphas.safetensors.k9k9k9k9",
        ".genotype.json.12ab34cd.tmp",
        ".vocabulary.json.abcdefgh",
    ]
    mine = [".bashrc", ".notes.txt.a1b2c3d4", "checkpoint.pt.a1b2c3d4", ".checkpoint.pt.backup"]
    for name in left + mine:
        (run.path / name).write_text("x")
    with runs.locked(run.path):
        there = {path.name for path in run.path.iterdir()}
    assert there.isdisjoint(left) and there.issuperset(mine)


def test_what_is_being_written_is_left_alone(tmp_path):
    from gradnas.files import _temporary_beside

    with _temporary_beside(tmp_path / runs.REPORT) as (_, temporary), runs.locked(tmp_path):
        assert os.path.exists(temporary)


def test_folders_of_killed_builds_are_removed_and_others_are_not(tmp_path):
    child = os.fork()
    if child == 0:
        with building_folder(tmp_path / "kernels") as folder:
            (folder / "half").write_text("x")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    (left,) = tmp_path.glob(".kernels.*.build")
    assert (left / "half").exists() and left.with_suffix("").exists()
    (tmp_path / ".kernels.x1y2z3w4").write_text("")  # killed before there was a folder
    (tmp_path / ".others.x1y2z3w4.build").mkdir()
    with building_folder(tmp_path / "kernels") as first, building_folder(tmp_path / "kernels"):
        assert first.is_dir() and not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == [".others.x1y2z3w4.build"]


# ---- the environment -----------------------------------------------------------------------------


def test_what_differs_is_said_in_one_sentence():
    now = environment(CPU, 0) | {"compiler": "g++ 12", "kernels": "C++"}
    assert differences(now, now) is None
    before = {**now, "threads": 99, "torch": "1.0", "kernels": "torch", "seed": 5}
    sentence = differences(before, now)
    assert f"torch was 1.0 and is {torch.__version__}" in sentence
    assert "the number of threads was 99" in sentence
    assert "what the kernels run on was torch and is C++" in sentence
    assert "seed" not in sentence
    assert differences({"torch": now["torch"]}, now) is None  # of an earlier version


def test_the_commit_is_that_of_gradnas_or_none(tmp_path, monkeypatch):
    """Copied into a repository of the user's, gradnas has none; git takes no lock of it."""
    from gradnas import environment as module

    def git(*arguments):
        subprocess.run(["git", "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    git("init")
    git("-c", "user.name=a", "-c", "user.email=b", "commit", "--allow-empty", "-m", "mine")
    package = tmp_path / "gradnas"
    package.mkdir()
    monkeypatch.setattr(module, "__file__", str(package / "environment.py"))
    assert module._git_commit() is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "thesis"\n')
    assert module._git_commit() is None
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "gradnas"\n')
    assert module._git_commit() is not None
    nested = tmp_path / "vendor" / "gradnas"
    nested.mkdir(parents=True)
    monkeypatch.setattr(module, "__file__", str(nested / "environment.py"))
    (tmp_path / "vendor" / "pyproject.toml").write_text('[project]\nname = "gradnas"\n')
    assert module._git_commit() is None


def test_an_entry_that_is_missing_of_the_images_is_told(tmp_path):
    from gradnas.data import DataConfig
    from gradnas.tasks.images.checks import check_same_images, known_images

    data = DataConfig(source="digits").load()
    known = known_images(data)
    check_same_images(known, data, "run")
    del known["num_classes"]
    with pytest.raises(ValueError, match=r"images\.json is damaged: it does not say num_classes"):
        check_same_images(known, data, "run")
