"""Jobs as processes of this machine."""

from __future__ import annotations

import os
import sys
import time
from types import SimpleNamespace

import pytest
import torch

from gradnas.cli.commands.study import StudyCommand
from gradnas.cli.study_engines import devices_of
from gradnas.engines import Job, LocalEngine, base, local, warm
from gradnas.engines import ray as ray_engine


def job(tmp_path, name, program, **more):
    return Job(name, (sys.executable, "-c", program), tmp_path / "logs" / f"{name}.txt", **more)


def all_ended(engine, number):
    ended = {}
    until = time.monotonic() + 60
    while len(ended) < number and time.monotonic() < until:
        for one in engine.wait(0.5):
            ended[one.name] = one.code
    return ended


def test_each_job_is_told_of_with_its_exit_code(tmp_path):
    with LocalEngine(2) as engine:
        engine.submit(job(tmp_path, "well", "print('said')"))
        engine.submit(job(tmp_path, "badly", "raise SystemExit(3)"))
        engine.submit(job(tmp_path, "killed", "import os; os.kill(os.getpid(), 9)"))
        assert all_ended(engine, 3) == {"well": 0, "badly": 3, "killed": -9}
        assert engine.wait(0.0) == []
    assert (tmp_path / "logs" / "well.txt").read_text() == "said\n"


def test_a_program_that_is_not_there_is_told_of(tmp_path):
    with LocalEngine(1) as engine:
        engine.submit(Job("none", ("/nowhere/python",), tmp_path / "log.txt"))
        (ended,) = engine.wait(30)
        assert ended.code is None and "could not be started" in ended.why


def test_devices_and_threads_are_dealt_out(tmp_path):
    program = (
        "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS']);"
        "time.sleep(0.5)"
    )
    with LocalEngine(2, ["4", "7"]) as engine:
        for k in range(2):
            engine.submit(job(tmp_path, str(k), program, threads=3))
        assert all_ended(engine, 2) == {"0": 0, "1": 0}
    said = {(tmp_path / "logs" / f"{k}.txt").read_text() for k in range(2)}
    assert said == {"4 3\n", "7 3\n"}


def test_what_is_at_work_is_asked_to_stop_at_the_end(tmp_path):
    program = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(130)))\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    began = time.monotonic()
    with LocalEngine(1) as engine:
        engine.submit(job(tmp_path, "long", program))
        engine.submit(job(tmp_path, "later", "print('never')"))
        log = tmp_path / "logs" / "long.txt"
        while not (log.exists() and "ready" in log.read_text()):
            time.sleep(0.02)
    assert time.monotonic() - began < 50
    assert log.read_text() == "ready\nsaved\n"
    assert not (tmp_path / "logs" / "later.txt").exists()


def test_ctrl_c_once_more_stops_at_once(tmp_path, monkeypatch):
    program = (
        "import signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\n"
        "time.sleep(60)\n"
    )
    engine = LocalEngine(1)
    engine.submit(job(tmp_path, "deaf", program))
    log = tmp_path / "logs" / "deaf.txt"
    while not (log.exists() and "ready" in log.read_text()):
        time.sleep(0.02)
    wait_for = local.wait_for
    calls = []

    def interrupted(*arguments, **named):
        calls.append(arguments)
        if len(calls) == 1:
            raise KeyboardInterrupt
        return wait_for(*arguments, **named)

    monkeypatch.setattr(local, "wait_for", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        engine.cancel()
    assert time.monotonic() - began < 30 and len(calls) == 2  # not the minute that it may save
    engine.close()


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks are for Linux alone")
def test_a_fork_is_as_a_process_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(warm, "IMPORTED", ())  # the server of a test need not be quick
    environment = {**os.environ, "OMP_NUM_THREADS": "3", "GRADNAS_ENDS_WITH": "1"}
    found = {}
    for name, arguments in {"all": (), "wrong": ("sreach", "digits")}.items():
        own = Job(name, (*warm.PROGRAM, *arguments), tmp_path / "logs" / f"{name}.txt", threads=3)
        process = warm.fork(own, environment)
        while (code := process.wait_for(60)) is None:
            continue
        found[name] = (code, own.log.read_text())
    assert found["all"][0] == 0 and "gradnas search digits" in found["all"][1]
    assert found["wrong"][0] == 2 and "did you mean" in found["wrong"][1]
    assert "OMP_NUM_THREADS" not in os.environ or os.environ["OMP_NUM_THREADS"] != "3"
    # Tests are no command of gradnas, and the main module of anybody's program is not run again.
    assert not warm.is_possible(own)


@pytest.mark.parametrize(
    ("options", "seen", "devices"),
    [
        ({}, None, ["0", "1", "2"]),
        ({}, "4,7,9", ["4", "7", "9"]),
        ({"devices": "2, 0"}, "4,7,9", ["9", "4"]),
        ({"devices": "0,0"}, None, ["0", "0"]),
        ({"engine": "ray"}, None, []),
        ({"devices": "0,3"}, None, "there is no device 3; the 3 that"),
        ({"devices": "x"}, None, "are numbers with commas"),
    ],
)
def test_each_trial_gets_one_of_the_devices(options, seen, devices, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    command = StudyCommand(what="digits", **options)
    if isinstance(devices, str):
        with pytest.raises(ValueError, match=devices):
            devices_of(command, "auto", torch.device("cuda"))
        return
    assert devices_of(command, "auto", torch.device("cuda")) == devices
    # One that is named belongs to all, and none can be dealt out.
    if command.devices is None:
        assert devices_of(command, "cuda:1", torch.device("cuda:1")) == []
    else:
        with pytest.raises(ValueError, match="are on --device cuda:1"):
            devices_of(command, "cuda:1", torch.device("cuda:1"))


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9"])
def test_an_address_where_nobody_answers_is_told_at_once(address):
    began = time.monotonic()
    with pytest.raises(ValueError, match="nobody answers there"):
        ray_engine.check_answers(address)
    assert time.monotonic() - began < 30


def test_an_address_is_a_host_and_a_port():
    with pytest.raises(ValueError, match="auto or host:port"):
        ray_engine.check_answers("somewhere")


def test_the_environment_of_a_job_says_whose_it_is(tmp_path):
    with LocalEngine(1) as engine:
        engine.submit(job(tmp_path, "own", "import os; print(os.environ['GRADNAS_ENDS_WITH'])"))
        assert all_ended(engine, 1) == {"own": 0}
    assert (tmp_path / "logs" / "own.txt").read_text() == f"{os.getpid()}\n"


def test_one_thread_alone_looks_whether_the_parent_is_there(monkeypatch):
    """A trial that goes on asks twice for it, and a second SIGTERM would stop it unsaved."""
    started = []
    thread = SimpleNamespace(start=lambda: started.append(True))
    monkeypatch.setattr(base, "threading", SimpleNamespace(Thread=lambda **_: thread))
    monkeypatch.setenv(base.ENDS_WITH, str(os.getppid()))
    base.end_with_parent()
    base.end_with_parent()
    assert len(started) == 1
