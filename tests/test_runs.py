"""The run folder: atomic writes, checkpoints, metrics, interruption."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from gradnas import runs
from gradnas.runs import Interrupted, Keeper, Run

CPU = torch.device("cpu")


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "r", {"type": "SearchConfig"}, seed=3, device=CPU)


def test_a_new_folder_says_what_a_reader_needs(run):
    environment = json.loads((run.path / runs.ENVIRONMENT).read_text())
    assert {"torch", "python", "device", "seed", "git", "threads"} <= environment.keys()
    assert environment["seed"] == 3 and environment["directory"] == os.getcwd()
    assert run.status()["status"] == "running" and run.status()["process"] == os.getpid()


def test_a_folder_that_holds_a_run_is_refused(run):
    with pytest.raises(ValueError, match=r"already holds a run \(running\).*gradnas resume"):
        Run.create(run.path, {}, 0, CPU)
    run.set_status("finished")
    with pytest.raises(ValueError, match="already holds a finished run; choose another folder"):
        Run.create(run.path, {}, 0, CPU)


def test_a_run_that_saved_nothing_is_replaced(run):
    """Of a first step that failed nothing is left to go on with."""
    run.append(runs.METRICS, {"epoch": 0})
    (run.path / "notes.txt").write_text("mine")
    run.set_status("failed", message="the map is too small")
    Run.create(run.path, {"type": "TrainConfig"}, 0, CPU)
    assert json.loads((run.path / runs.CONFIG).read_text()) == {"type": "TrainConfig"}
    assert run.records() == [] and (run.path / "notes.txt").read_text() == "mine"
    run.save_checkpoint({"step": 1})
    run.set_status("failed")
    with pytest.raises(ValueError, match=r"already holds a run \(failed\).*gradnas resume"):
        Run.create(run.path, {}, 0, CPU)


def test_a_run_whose_process_is_gone_is_replaced_and_one_at_work_is_not(run):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    run.set_status("running", process=gone.pid)
    Run.create(run.path, {}, 0, CPU)
    run.set_status("running", host="another", process=gone.pid)
    with pytest.raises(ValueError, match=r"already holds a run \(running\)"):
        Run.create(run.path, {}, 0, CPU)


def test_opening_what_is_no_run(tmp_path):
    with pytest.raises(ValueError, match="no run folder"):
        Run.open(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"has no config\.json"):
        Run.open(tmp_path)


def test_checkpoints_rotate_and_cut_the_metrics(run):
    run.append(runs.METRICS, {"epoch": 0})
    run.save_checkpoint({"step": 1})
    run.append(runs.METRICS, {"epoch": 1})
    run.save_checkpoint({"step": 2, "tensor": torch.ones(2)})
    run.append(runs.METRICS, {"epoch": 2})
    state, note = run.load_checkpoint()
    assert state["step"] == 2 and note is None
    assert [r["epoch"] for r in run.records()] == [0, 1]


@pytest.mark.parametrize("keep", [0, 10, 300])
def test_a_truncated_checkpoint_falls_back_to_the_one_before_and_says_so(run, keep):
    run.append(runs.METRICS, {"epoch": 0})
    run.save_checkpoint({"step": 1})
    run.append(runs.METRICS, {"epoch": 1})
    run.save_checkpoint({"step": 2})
    os.truncate(run.path / runs.CHECKPOINT, keep)
    state, note = run.load_checkpoint()
    assert state["step"] == 1
    assert "checkpoint.pt is damaged" in note and "going on from checkpoint.previous.pt" in note
    assert [r["epoch"] for r in run.records()] == [0]


def test_a_kill_between_the_two_renames_leaves_the_previous_one(run):
    run.save_checkpoint({"step": 1})
    run.save_checkpoint({"step": 2})
    (run.path / runs.CHECKPOINT).unlink()
    assert run.load_checkpoint()[0]["step"] == 1


def test_no_readable_checkpoint_is_an_error_but_none_at_all_is_a_beginning(run):
    run.append(runs.METRICS, {"epoch": 0})
    assert run.load_checkpoint() == (None, None) and run.records() == []
    (run.path / runs.CHECKPOINT).write_bytes(b"rubbish")
    with pytest.raises(ValueError, match="no other checkpoint"):
        run.load_checkpoint()


class Hostile:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.system, (f"touch {self.path}",))


def test_a_hostile_pickle_as_checkpoint_executes_nothing(run, tmp_path):
    torch.save({"lengths": {}, "state": Hostile(tmp_path / "PWNED")}, run.path / runs.CHECKPOINT)
    with pytest.raises(ValueError, match="more than tensors and plain values"):
        run.load_checkpoint()
    assert not (tmp_path / "PWNED").exists()


def test_a_hostile_bare_pickle_as_checkpoint_executes_nothing(run, tmp_path):
    import pickle

    (run.path / runs.CHECKPOINT).write_bytes(pickle.dumps(Hostile(tmp_path / "PWNED")))
    with pytest.raises(ValueError, match="no checkpoint at all"):
        run.load_checkpoint()
    assert not (tmp_path / "PWNED").exists()


def test_a_full_disk_leaves_what_was_there(run, monkeypatch):
    run.save_checkpoint({"step": 1})
    before = (run.path / runs.CHECKPOINT).read_bytes()

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ValueError,
        match=r"cannot write .*No space left on device; what was there before is unchanged",
    ):
        run.save_checkpoint({"step": 2})
    with pytest.raises(ValueError, match="No space left"):
        run.append(runs.METRICS, {"epoch": 0})
    monkeypatch.undo()
    assert (run.path / runs.CHECKPOINT).read_bytes() == before
    assert not [p for p in run.path.iterdir() if p.name.startswith(".")]


def test_no_write_permission(tmp_path):
    place = tmp_path / "closed"
    place.mkdir(mode=0o500)
    if os.access(place, os.W_OK):  # root may write anywhere but here
        place = Path("/proc")
    with pytest.raises(
        ValueError, match=r"cannot make the folder .*(Permission denied|No such file)"
    ):
        Run.create(place / "r", {}, 0, CPU)


def test_a_file_in_the_way_of_the_folder(tmp_path):
    (tmp_path / "r").write_text("")
    with pytest.raises(ValueError, match=r"cannot make the folder|Not a directory"):
        Run.create(tmp_path / "r" / "s", {}, 0, CPU)


def test_an_unfinished_last_line_of_metrics_is_passed_over(run):
    run.append(runs.METRICS, {"epoch": 0})
    with open(run.path / runs.METRICS, "a") as file:
        file.write('{"epoch": 1, "lo')
    assert run.records() == [{"epoch": 0}]


def test_tensors_survive_and_damage_is_named(run):
    run.save_tensors(runs.ALPHAS, {"a": torch.arange(4.0).reshape(2, 2).T})
    assert torch.equal(run.load_tensors(runs.ALPHAS)["a"], torch.arange(4.0).reshape(2, 2).T)
    # The same bytes by both ways of the library, that of types which numpy lacks too.
    shared = torch.arange(3.0)
    tensors = {"b": shared, "a": shared.double(), "c": torch.ones((), dtype=torch.int64)}
    run.save_tensors(runs.ALPHAS, tensors, {"format": "x"})
    written = {name: tensor.clone() for name, tensor in tensors.items()}
    assert (run.path / runs.ALPHAS).read_bytes() == save(written, {"format": "x"})
    half = shared.bfloat16()
    run.save_tensors(runs.ALPHAS, {"half": half, "again": half})
    assert torch.equal(run.load_tensors(runs.ALPHAS)["again"], half)
    os.truncate(run.path / runs.ALPHAS, 9)
    with pytest.raises(ValueError, match=r"alphas\.safetensors is not a readable"):
        run.load_tensors(runs.ALPHAS)
    with pytest.raises(ValueError, match="cannot read"):
        run.load_tensors("nothing.safetensors")


def test_ctrl_c_waits_for_the_step_and_saves(run):
    state = {"step": 0}
    before = signal.getsignal(signal.SIGINT)  # ignored where the tests run in the background
    with pytest.raises(Interrupted), Keeper(run, lambda: state, seconds=1e9) as keeper:
        for step in range(5):
            if step == 2:
                os.kill(os.getpid(), signal.SIGINT)
            state["step"] = step + 1
            keeper.after_step()
    assert run.load_checkpoint()[0]["step"] == 3
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_stops_at_once(run):
    with pytest.raises(KeyboardInterrupt), Keeper(run, dict, seconds=1e9):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_the_keeper_saves_now_and_then(run):
    with Keeper(run, lambda: {"step": 1}, seconds=0.0) as keeper:
        keeper.after_step()
    assert Path(run.path / runs.CHECKPOINT).exists()
