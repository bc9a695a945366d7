"""What is told of a run as it goes on: `on_epoch` in Python, event files for TensorBoard."""

from __future__ import annotations

import json
import os
import traceback

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas import ConvCell, NasBench201, RecurrentCell, extras, runs
from gradnas.cli import main
from gradnas.runs import Epoch

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = gradnas.Choice({"flat": nn.Linear(4, 4), "skip": nn.Identity()})
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x))


def task():
    return gradnas.Task(model=Net, train=(X, Y), test=(X, Y), loss=F.cross_entropy)


SETTINGS = {"batch_size": 8, "device": "cpu", "progress": False}


class Tracker:
    """Keeps what it is told, and fails once, after so many epochs."""

    def __init__(self, fails_after=None):
        self.told = []
        self.fails_after = fails_after

    def __call__(self, epoch):
        self.told.append(epoch)
        if epoch.number == self.fails_after:
            self.fails_after = None
            raise RuntimeError("the tracker's server is away")


def fit(tracker, out=None, resume=False):
    torch.manual_seed(0)
    batches = [(X[:16], Y[:16]), (X[16:], Y[16:])]
    search = gradnas.Search(Net(), seed=1)
    return search.fit(
        batches,
        batches,
        F.cross_entropy,
        3,
        progress=False,
        out=out,
        resume=resume,
        candidates=0,
        on_epoch=tracker,
    )


def search(tracker, out, resume=False):
    return gradnas.run_search(
        task(), out=out, epochs=3, resume=resume, on_epoch=tracker, **SETTINGS
    )


def training(tracker, out, resume=False):
    return gradnas.run_training(
        task(), {"body": "flat"}, out=out, epochs=3, resume=resume, on_epoch=tracker, **SETTINGS
    )


PROGRAMS = [fit, search, training]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_tracker_is_told_the_metrics_of_every_epoch(program, tmp_path):
    tracker = Tracker()
    program(tracker, tmp_path / "run")
    assert [(epoch.number, epoch.epochs) for epoch in tracker.told] == [(1, 3), (2, 3), (3, 3)]
    written = runs.Run(tmp_path / "run").records()
    assert [dict(epoch.metrics) for epoch in tracker.told] == written
    assert tracker.told[-1].folder == tmp_path / "run"
    scalars = tracker.told[-1].scalars
    assert scalars["train_loss"] == written[-1]["train_loss"]
    assert "epoch" not in scalars and "genotype" not in scalars
    if program is not training:
        shares = [scalars[f"probability/body/{name}"] for name in ("flat", "skip")]
        assert sum(shares) == pytest.approx(1)


def test_a_tracker_of_a_fit_needs_no_folder_and_changes_nothing():
    tracker = Tracker()
    told = fit(tracker)
    plain = fit(None)
    assert [epoch.number for epoch in tracker.told] == [1, 2, 3]
    assert tracker.told[0].folder is None and tracker.told[0].metrics["steps"] == 2
    alphas = [result.supernet.alphas["body"] for result in (told, plain)]
    assert torch.equal(*alphas)


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_a_tracker_raises_goes_through_and_the_run_goes_on_after_it(program, tmp_path):
    program(None, tmp_path / "whole")
    tracker = Tracker(fails_after=2)
    with pytest.raises(RuntimeError, match="server is away") as caught:
        program(tracker, tmp_path / "run")
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert last.filename == __file__ and last.name == "__call__"
    assert runs.Run(tmp_path / "run").status()["status"] == "failed"

    program(tracker, tmp_path / "run", resume=True)
    assert [epoch.number for epoch in tracker.told] == [1, 2, 3]
    files = [tmp_path / name / runs.METRICS for name in ("whole", "run")]
    assert files[0].read_bytes() == files[1].read_bytes()


# ---- TensorBoard ---------------------------------------------------------------------------------


def test_without_the_package_it_is_a_sentence_before_there_is_a_folder(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(extras, "_is_installed", lambda name: name != "tensorboard")
    for command in (["search", "digits"], ["train", "DARTS_V2"]):
        out = tmp_path / "run"
        assert main([*command, "--tensorboard", "--out", str(out)]) == 2
        assert capsys.readouterr().err == (
            "gradnas: --tensorboard needs tensorboard, which is not installed: "
            "pip install 'gradnas[tensorboard]'\n"
        )
        assert not out.exists()


def tiny_search(tmp_path, out):
    """A search of three epochs on a task in a file."""
    path = tmp_path / "my_task.py"
    path.write_text(FILE)
    options = ["--epochs", "3", "--batch-size", "8", "--device", "cpu", "--tensorboard"]
    return ["search", str(path), *options, "--out", str(out)]


FILE = """
import gradnas, torch, torch.nn.functional as F
from torch import nn

X = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] > 0).long()

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = gradnas.Choice({"flat": nn.Linear(4, 4), "skip": nn.Identity()})
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(x))

def task():
    return gradnas.Task(model=Net, train=(X, Y), test=(X, Y), loss=F.cross_entropy)
"""


def events(run):
    """(step, tags) of all event files, in the order in which they were written."""
    from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader

    found = []
    for path in sorted((run / "tensorboard").glob("*tfevents*")):  # what TensorBoard reads
        for event in LegacyEventFileLoader(str(path)).Load():
            if event.HasField("summary"):
                found.append((event.step, {value.tag: value for value in event.summary.value}))
    return found


@pytest.mark.parametrize("space", [ConvCell(), NasBench201(), RecurrentCell()])
def test_tables_of_cells_are_no_scalars(space):
    """Of edges and operations, of which neither are as many as the other."""
    arguments = (20,) if isinstance(space, RecurrentCell) else (3, 10)
    with torch.device("meta"):
        supernet = space.supernet(*arguments)
    names = {name: tuple(own) for name, own in supernet.operation_names().items()}
    tables = {name: torch.zeros(alpha.shape) for name, alpha in supernet.alphas.items()}
    assert names and names.keys() <= tables.keys()
    epoch = Epoch(1, 2, {"epoch": 0, "train_loss": 0.5}, 1.0, tables, names)
    assert epoch.scalars == {"train_loss": 0.5}


def test_damaged_event_files_are_told_and_kept(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

    from gradnas.programs.event_files import EventFiles

    folder = tmp_path / "tensorboard"
    writer = EventFileWriter(str(folder))
    for step in (1, 2, 3):
        value = Summary.Value(tag="loss", simple_value=step)
        writer.add_event(Event(step=step, summary=Summary(value=[value])))
    writer.close()
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    os.mkfifo(folder / "pipe.tfevents")
    said = []
    files = EventFiles(runs.Run(tmp_path), None, said.extend)
    files._begun(4).close()
    assert not said and not path.exists()

    for old in folder.glob("events*"):
        old.unlink()
    place = whole.rindex(b"loss")
    path.write_bytes(whole[:place] + b"L" + whole[place + 1 :])  # of the last epoch
    files._begun(4).close()
    (folder / "pipe.tfevents").unlink()
    assert len(said) == 1 and "2 of 3 epochs are left" in said[0]
    kept = [own for own in folder.iterdir() if "damaged" in own.name]
    assert len(kept) == 1 and len(kept[0].read_bytes()) == len(whole)
    assert [step for step, _ in events(tmp_path)] == [1, 2]


@pytest.mark.slow
def test_event_files_hold_every_epoch_once_also_after_a_kill(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    from gradnas.programs.event_files import EventFiles

    run = tmp_path / "run"
    write = EventFiles.__call__

    def killed(files, epoch):
        write(files, epoch)
        if epoch.number == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(EventFiles, "__call__", killed)
        # As if it were killed after the events of an epoch, before the state of it is saved
        patch.setattr(runs.Keeper, "save", lambda keeper: None)
        assert main(tiny_search(tmp_path, run)) == 130
    assert [step for step, _ in events(run)] == [1, 2]
    assert main(["resume", str(run), "--task", str(tmp_path / "my_task.py")]) == 0

    steps = events(run)
    assert [step for step, _ in steps] == [1, 2, 3]
    records = runs.Run(run).records()
    for (_, values), record in zip(steps, records, strict=True):
        assert values["train_loss"].simple_value == pytest.approx(record["train_loss"])
        shares = [values[f"probability/body/{name}"].simple_value for name in ("flat", "skip")]
        assert sum(shares) == pytest.approx(1)
        image = values["decision"].image
        assert image.encoded_image_string.startswith(b"\x89PNG") and image.width > 50
    assert json.loads((run / runs.STATUS).read_text())["status"] == "finished"
