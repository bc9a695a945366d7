"""Tasks that cannot be: one sentence each, exit code 2, and no run folder."""

from __future__ import annotations

import json

import pytest

from gradnas import runs
from gradnas.cli import main

BEGIN = """
import torch, gradnas
import torch.nn.functional as F
from torch import nn

X, Y = torch.randn(20, 4), torch.arange(20) % 2

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = gradnas.Choice({"a": nn.Linear(4, 4), "b": nn.Identity()}, name="body")
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x))

def made(**changes):
    settings = {"model": Net, "train": (X, Y), "test": (X, Y), "loss": F.cross_entropy}
    return gradnas.Task(**{**settings, **changes})

"""
REFUSED = {
    "x = 1": "has no task: write def task",
    "def tusk(): pass": "did you mean 'tusk'",
    "def task(): return 3": "must give a gradnas.Task, not 3",
    "def task(): return made(model=lambda: nn.Linear(4, 2))": "Linear holds no gradnas.Choice",
    "def task(): return made(model=Net())": "model must be a function that makes a fresh one",
    "def task(): return made(model=lambda: 3)": "must be an nn.Module, and model() gives 3",
    "def task(): return made(loss=lambda outputs, target: outputs)": "tensor, got one of shape",
    "def task(): return made(loss=lambda outputs, target: None)": "does the function return it?",
    "def task(): return made(loss=lambda outputs, target: outputs.sum() * torch.nan)": "is nan on",
    "def task(): return made(train=lambda: [], valid=(X, Y))": "the train data are empty",
    "def task(): return made(train=lambda: iter([]), valid=(X, Y))": "loader yields no batch",
    "def task(): return made(train=iter([(X, Y)]))": "can be read once only",
    "def task(): return made(train=lambda: iter([(X, Y)]))": "cannot be halved",
    "def task(): return made(train=(X, Y[:3]))": "must have one length",
    "def task(): return made(train=(X.numpy(), Y.numpy()))": "torch.from_numpy",
    "def task(): return made(train={'x': X, 'y': Y})": "functions of (net, batch)",
    "def task(): return made(train=3)": "must be a data set, tensors (x, y)",
    "def task(): return made(example=torch.ones(1, 7))": "example of the task does not fit",
    "def task(): return made(measures={'m': lambda outputs, target: float('nan')})": "'m' is nan",
    "def task(): return made(measures={'m': lambda outputs, target: outputs})": "must be a number",
    "def task(): return made(measures={'m': 3})": "must be a function (outputs, target)",
    "def task(): return made(measures={'loss': gradnas.accuracy})": "cannot be called 'loss'",
    "def task(): return made(schedule=lambda optimizer, steps: None)": "give optimizer= as well",
    "def task(): return made(train=(X[:, :3], Y))": "fails on a batch of",
    "def task(): return made(loss=lambda outputs, target: F.l1_loss(outputs[:, :1], target))": (
        "the loss sets every output beside every target: l1_loss is given shapes (10, 1)"
    ),
    "def task(): return made(measures={'m': lambda o, t: (o.argmax(1, True) == t).sum()})": (
        "the measure 'm' sets every output beside every target: eq is given shapes (10, 1)"
    ),
    "raise SystemExit(3)": "ends Python when it is run (SystemExit: 3)",
    "def task(): raise SystemExit": "ends Python when it is run",
}


@pytest.mark.slow
@pytest.mark.parametrize("code", REFUSED)
def test_one_sentence_exit_code_2_and_no_folder(code, tmp_path, capsys):
    file = tmp_path / "my_task.py"
    file.write_text(BEGIN + code + "\n")
    out = tmp_path / "run"
    arguments = ["search", str(file), "--out", str(out), "--device", "cpu"]
    if "example" in code:
        arguments += ["--target-macs", "10"]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert REFUSED[code] in said
    sentence = said.strip().splitlines()[-1]
    assert sentence.startswith("gradnas: ")
    assert "gradnas/" not in said  # no line of ours
    assert not out.exists()


def test_an_error_in_the_file_shows_the_users_lines_alone(tmp_path, capsys):
    file = tmp_path / "my_task.py"
    code = "def helper():\n    return {}['x']\n\ndef task():\n    return helper()\n"
    file.write_text(BEGIN + code)
    assert main(["search", str(file), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert said.startswith("Traceback") and said.strip().endswith("KeyError: 'x'")
    assert said.count("File ") == 2 and "gradnas/cli" not in said
    file.write_text("def task(:\n")
    assert main(["search", str(file), "--out", str(tmp_path / "run")]) == 2
    assert "SyntaxError" in capsys.readouterr().err


@pytest.mark.slow
def test_an_error_after_some_steps_is_told_and_the_folder_says_failed(tmp_path, capsys):
    file = tmp_path / "my_task.py"
    code = "def loss(outputs, target):\n    CALLS.append(1)\n    if len(CALLS) > 12:\n"
    code += "        raise RuntimeError('no more')\n    return F.cross_entropy(outputs, target)\n"
    file.write_text(BEGIN + "CALLS = []\n" + code + "def task(): return made(loss=loss)\n")
    out = tmp_path / "run"
    assert main(["search", str(file), "--out", str(out), "--device", "cpu"]) == 2
    said = capsys.readouterr().err
    assert "RuntimeError: no more" in said and "gradnas/search" not in said
    assert runs.Run(out).status()["status"] == "failed"


def begun(tmp_path, code="def task(): return made()\n"):
    file = tmp_path / "my_task.py"
    file.write_text(BEGIN + code)
    out = tmp_path / "run"
    assert main(["search", str(file), "--out", str(out), "--epochs", "1", "--device", "cpu"]) == 0
    return file, out


@pytest.mark.slow
def test_no_file_that_a_run_folder_names_is_run(tmp_path, capsys):
    file, out = begun(tmp_path)
    marks = tmp_path / "it_was_run"
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(marks)!r}, 'w').close()\n")
    for path in (evil, file, out / "task.py"):
        path.write_text(evil.read_text())
    config = json.loads((out / runs.CONFIG).read_text())
    config["data"]["source"] = str(evil)
    config["space"]["model"] = "evil:Net"
    config["imports"] = ["evil"]
    for change in ({}, {"space": {**config["space"], "type": "evil.Space"}}):
        (out / runs.CONFIG).write_text(json.dumps({**config, **change}))
        runs.Run(out).set_status("interrupted")
        for command in ("resume", "train", "evaluate", "report", "search"):
            what = out / runs.CONFIG if command == "search" else out
            extra = ["--out", str(tmp_path / "new")] if command in ("search", "train") else []
            main([command, str(what), *extra])
        main(["export", str(out), "-o", str(tmp_path / "m.pt2")])
        main(["draw", str(out), "-o", str(tmp_path / "c.svg")])
        capsys.readouterr()
        assert not marks.exists()


@pytest.mark.slow
def test_a_changed_file_is_named_and_not_resumed(tmp_path, capsys):
    file, out = begun(tmp_path)
    runs.Run(out).set_status("interrupted")
    file.write_text(file.read_text() + "# another line\n")
    capsys.readouterr()
    assert main(["resume", str(out), "--task", str(file)]) == 2
    said = capsys.readouterr().err
    assert "no longer as it was" in said and "--other-task" in said
    assert (out / "task.py").read_text() + "# another line\n" == file.read_text()
    assert main(["resume", str(out)]) == 2
    assert f"give it with --task {file}" in capsys.readouterr().err


@pytest.mark.slow
def test_another_model_is_not_that_of_the_run(tmp_path, capsys):
    file, out = begun(tmp_path)
    file.write_text(file.read_text().replace('"b": nn.Identity()', '"c": nn.Identity()'))
    assert main(["train", str(out), "--task", str(file)]) == 2
    assert "at the choice 'body' it has ['a', 'c'], and the run had ['a', 'b']" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_data_that_are_others_at_each_reading_are_named(tmp_path, capsys):
    code = "import random\nOWN = random.Random(0)\n"
    code += "class Data(torch.utils.data.Dataset):\n    def __len__(self): return 20\n"
    code += "    def __getitem__(self, i): return X[i] * OWN.random(), Y[i]\n"
    begun(tmp_path, code + "def task(): return made(train=Data())\n")
    assert "will not be the same to the bit" in capsys.readouterr().err
