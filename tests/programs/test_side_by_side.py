"""Random networks side by side in processes: the same results as after one another."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

import gradnas
from gradnas import runs
from gradnas.cli import main
from gradnas.engines import Ended, free
from gradnas.programs import handed_on, side_by_side
from gradnas.programs.side_by_side import processes, threads_of_each

OWN_TASKS = Path(__file__).parents[1] / "own_tasks"
CPU = torch.device("cpu")
NAMES = (runs.METRICS, runs.WEIGHTS, runs.RESULTS, runs.GENOTYPE, runs.CONFIG)
SETTINGS = {"epochs": 1, "batch_size": 8, "random": 3, "device": "cpu", "progress": False}


class InProcess:
    """An engine whose jobs are done in this process as they are submitted; some are lost.

    Attributes:
        lost: number of a job, of all that are submitted -> exit code in its place.
    """

    def __init__(self, workers):
        self.ended = []
        self.at_once = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, job):
        number = len(self.submitted)
        self.submitted.append(job)
        code = self.lost.get(number)
        if code is None:
            code = self.carry_out(job.command[1:])
        self.ended.append(Ended(job.name, code))
        type(self).most = max(self.most, len(self.ended))

    def carry_out(self, command):
        if command[:2] == ("-m", "gradnas"):
            return main(list(command[2:]))
        assert command[:2] == ("-m", "gradnas.programs.handed_on")
        return handed_on.main(*command[2:])

    def wait(self, seconds):
        ended, self.ended = self.ended, []
        return ended


@pytest.fixture
def engine(monkeypatch):
    """Two at once, whatever else the machine does and however short the trainings are."""

    class Own(InProcess):
        most = 0

    Own.submitted, Own.lost = [], {}
    monkeypatch.setattr(side_by_side, "LocalEngine", Own)
    monkeypatch.setattr(side_by_side, "WORTH_IT", 0.0)
    monkeypatch.setattr(side_by_side, "free_cores", lambda: 2)
    monkeypatch.setattr(side_by_side, "room_for_processes", lambda: None)
    return Own


@pytest.fixture
def tabular(monkeypatch):
    monkeypatch.syspath_prepend(str(OWN_TASKS))
    import tabular

    return tabular


def trained(task, out, **changes):
    return gradnas.run_training(task, {"width": "2"}, out=out, **(SETTINGS | changes))


def contents(out):
    """The bytes of the files of the run and of all its random networks."""
    found = {}
    for folder in (out, *sorted((out / "random").iterdir())):
        for name in NAMES:
            found[str(folder.relative_to(out)), name] = (folder / name).read_bytes()
    assert len(found) >= 3 * len(NAMES)
    return found


_EXPECTED = {}


@pytest.fixture
def expected(tabular, tmp_path):
    """After one another, once for all tests."""
    if not _EXPECTED:
        trained(tabular.task(), tmp_path / "expected")
        _EXPECTED.update(contents(tmp_path / "expected"))
    return _EXPECTED


def test_the_same_as_after_one_another(expected, engine, tabular, tmp_path):
    trained(tabular.task(), tmp_path / "a")
    assert engine.most == 2 and len(engine.submitted) == 3
    assert {job.threads for job in engine.submitted} == {1}
    assert contents(tmp_path / "a") == expected


def test_from_the_command_line(engine, tmp_path):
    task = str(OWN_TASKS / "tabular.py")
    own = [task, "--epochs", "1", "--out", str(tmp_path / "s"), "--device", "cpu"]
    assert main(["search", *own]) == 0
    for name in ("a", "b"):
        options = ["--epochs", "1", "--random", "2", "--out", str(tmp_path / name)]
        engine.submitted.clear()
        assert main(["train", str(tmp_path / "s"), "--task", task, *options]) == 0
        side_by_side.WORTH_IT = 1e9  # the fixture sets it back
        assert len(engine.submitted) == (2 if name == "a" else 0)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_one_that_was_killed_goes_on(expected, engine, tabular, tmp_path, capsys):
    engine.lost[1] = -9
    trained(tabular.task(), tmp_path / "a", progress=True)
    said = capsys.readouterr().err
    assert "random network 2/3: its process was killed by SIGKILL" in said
    assert contents(tmp_path / "a") == expected


def test_a_run_that_was_stopped_goes_on(expected, engine, tabular, tmp_path, monkeypatch):
    def stop(keeper):
        raise runs.Interrupted

    with monkeypatch.context() as patch:
        # Within the keeper that is around the processes, and in no other one.
        after_step = runs.Keeper.after_step
        patch.setattr(runs.Keeper, "after_step", lambda own: (after_step if own.run else stop)(own))
        with pytest.raises(runs.Interrupted):
            trained(tabular.task(), tmp_path / "a")
    assert runs.Run(tmp_path / "a").status()["status"] == "interrupted"
    assert len(engine.submitted) == 2 and not (tmp_path / "a" / "random" / "2").exists()
    trained(tabular.task(), tmp_path / "a", resume=True)
    assert len(engine.submitted) == 2  # one alone is left, and needs no process
    assert contents(tmp_path / "a") == expected


@pytest.mark.parametrize("code", [1, -9])
def test_one_that_fails_is_named(engine, tabular, tmp_path, code):
    engine.lost.update(dict.fromkeys(range(1, 9), code))
    sentence = "exit code 1" if code == 1 else "killed by SIGKILL .out of memory, perhaps., 3 times"
    with pytest.raises(ValueError, match=rf"random network 2/3 \(.*random/1\): .*{sentence}"):
        trained(tabular.task(), tmp_path / "a")
    assert runs.Run(tmp_path / "a").status()["status"] == "failed"


def test_why_one_failed_is_said_as_its_run_says_it(engine, tabular, tmp_path, monkeypatch):
    def fail(self, command):
        runs.Run(Path(command[3])).set_status("failed", message="the loss became NaN")
        return 1

    monkeypatch.setattr(engine, "carry_out", fail)
    with pytest.raises(ValueError, match=r"random network 1/3 .*: the loss became NaN"):
        trained(tabular.task(), tmp_path / "a")


def test_a_task_that_cannot_be_handed_on(engine, tabular, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    made = tabular.task()
    task = gradnas.Task(
        model=lambda: tabular.Net(), train=made.train, test=made.test, loss=F.mse_loss
    )
    trained(task, tmp_path / "a", progress=True)
    assert not engine.submitted and len(contents(tmp_path / "a")) == 4 * len(NAMES)
    said = capsys.readouterr().err
    assert "one after another: the task cannot be handed to other processes" in said


@pytest.mark.slow
def test_in_a_process_of_its_own(tabular, tmp_path, monkeypatch):
    trained(tabular.task(), tmp_path / "a", random=1)
    monkeypatch.setattr(side_by_side, "processes", lambda *_: 2)
    trained(tabular.task(), tmp_path / "b", random=1)
    a, b = (tmp_path / name / "random" / "0" for name in ("a", "b"))
    assert (b / side_by_side.LOG).exists() and not (a / side_by_side.LOG).exists()
    for name in NAMES:
        assert (a / name).read_bytes() == (b / name).read_bytes(), name


def test_how_many_at_once(monkeypatch):
    monkeypatch.setattr(side_by_side, "free_cores", lambda: 6)
    monkeypatch.setattr(side_by_side, "room_for_processes", lambda: 4)
    assert processes(9, 1, 100.0, CPU) == 4  # of memory
    assert processes(9, 2, 100.0, CPU) == 3  # of cores
    assert processes(2, 1, 100.0, CPU) == 2  # are waiting
    assert processes(9, 8, 100.0, CPU) == 1
    assert processes(9, 1, 3.0, CPU) == 1  # too short
    assert processes(9, 1, 100.0, torch.device("cuda")) == 1
    monkeypatch.setattr(side_by_side, "room_for_processes", lambda: None)
    assert processes(9, 1, 100.0, CPU) == 6
    monkeypatch.setattr(torch, "get_num_threads", lambda: 16)
    assert [threads_of_each(None, n) for n in (1, 3, 40)] == [16, 5, 1]
    assert threads_of_each(2, 40) == 2


def test_cores_that_others_leave_idle(monkeypatch, tmp_path):
    monkeypatch.setattr(free, "num_cores", lambda: 4)
    monkeypatch.setattr(free.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)
    statistics, quota = tmp_path / "stat", tmp_path / "cpu.max"
    monkeypatch.setattr(free, "STATISTICS", statistics)
    monkeypatch.setattr(free, "QUOTA", quota)

    def write(busy, idle):
        lines = ["cpu 1 2 3 4 5 6 7 8 9 10"]
        lines += [
            f"cpu{k} {b} 0 0 {i} 0 0 0 0 0 0"
            for k, (b, i) in enumerate(zip(busy, idle, strict=True))
        ]
        statistics.write_text("\n".join([*lines, "intr 12345", ""]))

    write([10, 20, 30, 40, 50], [0, 0, 0, 0, 0])
    # Of the fifth core, which is busy all the time, this process may use nothing.
    later = ([60, 20, 70, 40, 100], [0, 50, 10, 50, 0])
    monkeypatch.setattr(free.time, "sleep", lambda _: write(*later))
    assert free.free_cores() == 2
    write([10, 20, 30, 40, 50], [0, 0, 0, 0, 0])
    quota.write_text("150000 100000\n")
    assert free.free_cores() == 1
    assert free.room_for_processes() is None or free.room_for_processes() >= 0
