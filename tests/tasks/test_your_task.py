"""Tasks of one's own: any form of data, loss and measure; folders that are resumed to the bit."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import gradnas
from gradnas import Choice, Task, runs
from gradnas.config import from_json
from gradnas.programs.reporting import write_report
from gradnas.programs.your_task import run_search, run_training
from gradnas.search.forms import takes_network
from gradnas.tasks.your_task.calls import call_on, example_call, measured
from gradnas.tasks.your_task.collating import collated
from gradnas.tasks.your_task.measures import Score, direction_notes
from gradnas.tasks.your_task.settings import TaskSearchConfig
from gradnas.tasks.your_task.sources import source_of

CPU = torch.device("cpu")
X = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        wide = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4))
        self.body = Choice({"wide": wide, "flat": nn.Linear(4, 4), "skip": nn.Identity()})
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.2)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.drop(self.norm(self.body(x))))


class Keeping(Net):
    """Keeps a state in plain attributes, and draws from what the search does not."""

    calls = 0
    before = None

    def forward(self, x):
        self.calls += 1
        scale = 1 + random.random() / (self.calls + np.random.rand())
        z = self.norm(self.body(x)) * scale
        z = z if self.before is None else z + 0.1 * self.before
        self.before = z.detach().mean(0)
        return self.head(self.drop(z))


class Noisy(Dataset):
    """Augments with the numbers of torch, numpy and Python, as users do."""

    def __len__(self):
        return 60

    def __getitem__(self, index):
        noise = torch.rand(()) + np.random.rand() + random.random()
        return X[index] + 0.01 * float(noise), Y[index]


class Stream(IterableDataset):
    def __iter__(self):
        yield from zip(X, Y, strict=True)


def batches_without_length():
    for start in torch.randperm(6).tolist():
        yield X[10 * start : 10 * start + 10], Y[10 * start : 10 * start + 10]


def shuffling():
    own = torch.Generator()
    return DataLoader(TensorDataset(X, Y), batch_size=16, shuffle=True, generator=own)


HELD_OUT = (X[:20], Y[:20])
FORMS = {
    "tensors": {"train": (X, Y), "model": Keeping},
    "tensors and held-out ones": {"train": (X, Y), "valid": HELD_OUT},
    "data set": {"train": Noisy()},
    "loader": {"train": shuffling, "valid": HELD_OUT},
    "loader of numbers that are global": {
        "train": DataLoader(Noisy(), batch_size=16, shuffle=True),
        "valid": DataLoader(TensorDataset(*HELD_OUT), batch_size=16, shuffle=True),
    },
    "generator": {"train": batches_without_length, "valid": batches_without_length},
    "stream": {"train": Stream(), "valid": Stream()},
}


def task_on(**changes):
    settings = {
        "model": Net,
        "train": (X, Y),
        "test": HELD_OUT,
        "loss": F.cross_entropy,
        "measures": {"accuracy": gradnas.accuracy},
    }
    return Task(**{**settings, **changes})


def search(task, out, **settings):
    settings = {"epochs": 2, "batch_size": 16, "device": "cpu", "progress": False, **settings}
    return run_search(task, out=out, **settings)


def stop_every(monkeypatch, steps):
    counted = []

    def after_step(keeper):
        keeper.save()
        counted.append(1)
        if len(counted) % steps == 0:
            raise runs.Interrupted

    monkeypatch.setattr(runs.Keeper, "after_step", after_step)


def go_on(work):
    """How often the work was interrupted until it was done."""
    for stops in range(100):
        # A new process would have other numbers.
        torch.manual_seed(stops)
        np.random.seed(stops)
        random.seed(stops)
        try:
            work(resume=stops > 0)
            return stops
        except runs.Interrupted:
            continue
    raise AssertionError("it never ends")


def contents(folder, names):
    return {name: (folder / name).read_bytes() for name in names}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_a_search_that_is_stopped_and_resumed_gives_the_same_files(form, tmp_path, monkeypatch):
    task = task_on(**FORMS[form])
    search(task, tmp_path / "whole")
    stop_every(monkeypatch, 2)
    assert go_on(lambda resume: search(task, tmp_path / "stopped", resume=resume)) > 1
    files = (runs.CONFIG, runs.METRICS, runs.ALPHAS, runs.GENOTYPE, runs.RESULTS)
    assert contents(tmp_path / "whole", files) == contents(tmp_path / "stopped", files)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["tensors", "data set", "generator"])
def test_a_training_that_is_stopped_and_resumed_gives_the_same_files(form, tmp_path, monkeypatch):
    task = task_on(**FORMS[form])

    def training(name, resume=False):
        settings = {"epochs": 2, "batch_size": 16, "device": "cpu", "progress": False}
        out = tmp_path / name
        return run_training(task, {"body": "wide"}, out=out, resume=resume, **settings)

    training("whole")
    stop_every(monkeypatch, 2)
    assert go_on(lambda resume: training("stopped", resume)) > 1
    files = (runs.CONFIG, runs.METRICS, runs.WEIGHTS, runs.RESULTS)
    assert contents(tmp_path / "whole", files) == contents(tmp_path / "stopped", files)


@pytest.mark.slow
def test_an_optimiser_and_a_schedule_of_ones_own_are_resumed_too(tmp_path, monkeypatch):
    task = task_on(
        optimizer=lambda params: torch.optim.AdamW(params, lr=0.1),
        schedule=lambda optimizer, steps: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.1, total_steps=steps + 1
        ),
    )
    search(task, tmp_path / "whole")
    stop_every(monkeypatch, 3)
    assert go_on(lambda resume: search(task, tmp_path / "stopped", resume=resume)) > 0
    files = (runs.CONFIG, runs.METRICS, runs.ALPHAS)
    assert contents(tmp_path / "whole", files) == contents(tmp_path / "stopped", files)
    config = json.loads((tmp_path / "whole" / runs.CONFIG).read_text())
    assert config["weights"] is None
    rows = runs.Run(tmp_path / "whole").records()
    assert rows[0]["lr"] != rows[1]["lr"]


# ---- a search of one's own with a run folder -----------------------------------------------------


def fitted(out, resume=False, epochs=2):
    torch.manual_seed(0)
    net = Net()
    train = DataLoader(TensorDataset(X, Y), 12, shuffle=True, generator=torch.Generator())
    valid = DataLoader(TensorDataset(*HELD_OUT), 8)
    own = gradnas.Search(net, seed=3)
    return own.fit(train, valid, F.cross_entropy, epochs, progress=False, out=out, resume=resume)


@pytest.mark.slow
def test_fit_has_a_run_folder_that_is_resumed_reported_and_trained(tmp_path, monkeypatch):
    result = fitted(tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_every(patch, 3)
        assert go_on(lambda resume: fitted(tmp_path / "stopped", resume=resume)) > 2
    files = (runs.CONFIG, runs.METRICS, runs.ALPHAS, runs.GENOTYPE, runs.RESULTS)
    assert contents(tmp_path / "whole", files) == contents(tmp_path / "stopped", files)
    assert list(runs.Run(tmp_path / "whole").result("sha256")) == [runs.ALPHAS]

    config = json.loads((tmp_path / "whole" / runs.CONFIG).read_text())
    assert from_json(TaskSearchConfig, config).space.names == {"body": ("wide", "flat", "skip")}
    page = write_report(runs.Run(tmp_path / "whole")).read_text()
    assert "<h2>Choices</h2>" in page
    trained = run_training(task_on(), tmp_path / "whole", device="cpu", progress=False)
    assert trained.choices == result.choices


def test_fit_refuses_a_folder_that_holds_a_run_and_a_search_that_has_begun(tmp_path):
    fitted(tmp_path / "run", epochs=1)
    with pytest.raises(ValueError, match="already holds a finished run"):
        fitted(tmp_path / "run", epochs=1)
    with pytest.raises(ValueError, match="nothing to go on with"):
        fitted(tmp_path / "run", resume=True, epochs=1)
    own = gradnas.Search(Net())
    batch = (X[:8], Y[:8])
    own.fit([batch], [batch], F.cross_entropy, 1, progress=False)
    with pytest.raises(ValueError, match="has made 1 steps"):
        own.fit([batch], [batch], F.cross_entropy, 1, progress=False, out=tmp_path / "other")


# ---- measures ------------------------------------------------------------------------------------


def test_means_count_by_examples_also_in_a_last_uneven_batch():
    task = task_on(
        measures={
            "accuracy": gradnas.accuracy,
            "error": gradnas.lower(
                lambda outputs, target: F.l1_loss(outputs[:, 0], target.float())
            ),
        }
    )
    network = nn.Linear(4, 2)
    stream = task.train_data.stream(22, 0, CPU, shuffle=False)
    sizes = [len(y) for _, y in stream.epoch(0)]
    assert sizes == [22, 22, 16]
    found = measured(task, network, stream.epoch(0), "fp32", CPU)
    with torch.no_grad():
        outputs = network(X)
    assert found["accuracy"] == (outputs.argmax(1) == Y).double().mean().item()
    assert found["error"] == pytest.approx(F.l1_loss(outputs[:, 0], Y.float()).item(), rel=1e-6)
    assert found["loss"] == pytest.approx(F.cross_entropy(outputs, Y).item(), rel=1e-6)
    assert [(m.key, m.higher_is_better) for m in task.all_measures] == [
        ("accuracy", True),
        ("error", False),
    ]


def test_accuracy_leaves_out_what_the_loss_leaves_out():
    outputs = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    target = torch.tensor([1, 0, -100, -100])
    assert gradnas.accuracy(outputs, target).item() == 0.5
    task = task_on(train=(outputs, target))
    stream = task.train_data.stream(2, 0, CPU, shuffle=False)
    assert measured(task, nn.Identity(), stream.epoch(0), "fp32", CPU)["accuracy"] == 0.5
    for wrong in (torch.zeros(4, 2), torch.zeros(3).long(), torch.zeros(4)):
        with pytest.raises(ValueError, match="accuracy takes"):
            gradnas.accuracy(outputs, wrong)


def test_an_object_that_adds_up_sees_every_batch_of_every_evaluation():
    class Largest:
        def reset(self):
            self.value = -1.0

        def update(self, outputs, target):
            self.value = max(self.value, outputs.max().item())

        def compute(self):
            return torch.tensor(self.value)

    task = task_on(measures={"largest": Largest()})
    for scale in (2.0, 1.0):
        stream = task.train_data.stream(7, 0, CPU, shuffle=False)
        found = measured(task, lambda x, by=scale: by * x[:, :2], stream.epoch(0), "fp32", CPU)
        assert found["largest"] == pytest.approx(scale * X[:, :2].max().item())


@pytest.mark.parametrize(
    ("function", "takes_it"),
    [
        (lambda net, batch: 0, True),
        (lambda model, data: 0, True),
        (lambda a, batch: 0, True),
        (lambda outputs, target: 0, False),
        (lambda *args: 0, False),
        (F.cross_entropy, False),
        (nn.CrossEntropyLoss(), False),
    ],
)
def test_names_of_parameters_say_what_a_function_is_called_with(function, takes_it):
    assert takes_network(function) == takes_it


def test_the_example_is_what_the_loss_calls_the_network_with():
    def loss(net, batch):
        return net(batch["x"], scale=2).mean()

    task = task_on(train={"x": X, "y": Y}, loss=loss, measures={})
    call = example_call(task, 3)
    assert torch.equal(call.inputs[0], X[:3]) and call.named == {"scale": 2}
    assert example_call(task_on()).inputs[0].shape == (1, 4)
    with pytest.raises(ValueError, match=r"give Task.example="):
        example_call(task_on(train=shuffling))
    with pytest.raises(ValueError, match="does not call the network"):
        example_call(task_on(loss=lambda net, batch: batch[0].sum()))


@pytest.mark.slow
def test_a_data_set_is_read_by_workers_as_without():
    data = source_of(Noisy(), "train")
    plain, by_workers = (
        list(data.stream(16, 5, CPU, shuffle=True, workers=number).epoch(1, start=1))
        for number in (0, 2)
    )
    assert len(plain) == 3
    for (x, y), (other_x, other_y) in zip(plain, by_workers, strict=True):
        assert torch.equal(x, other_x) and torch.equal(y, other_y)


def test_what_no_example_has_stays_none_and_what_makes_no_batch_is_said():
    rows = [{"x": torch.ones(2), "mask": None, "y": k} for k in range(4)]
    batch = collated(rows)
    assert (
        batch["mask"] is None and batch["x"].shape == (4, 2) and batch["y"].tolist() == [0, 1, 2, 3]
    )
    rows[2]["mask"] = torch.ones(2)
    with pytest.raises(ValueError, match=r"make a batch: .*None.* Task\(collate=\.\.\.\)"):
        collated(rows)
    with pytest.raises(
        ValueError, match="make a batch: stack expects each tensor to be equal size"
    ):
        collated([torch.ones(2), torch.ones(3)])


def test_workers_that_no_data_would_use_are_refused(tmp_path):
    task = task_on(train=shuffling, valid=batches_without_length)
    with pytest.raises(ValueError, match=r"2 workers would read data sets .* leave workers out"):
        search(task, tmp_path / "r", workers=2)
    assert not (tmp_path / "r").exists()


def test_a_measure_of_which_less_is_better_by_its_name_is_asked_about():
    named = {
        "rmse": F.mse_loss,
        "valid_loss": F.mse_loss,
        "accuracy": gradnas.accuracy,
        "lossless": F.mse_loss,
        "error": gradnas.lower(F.l1_loss),
    }
    notes = direction_notes([Score(name, given).measure for name, given in named.items()])
    assert [note.split("'")[1] for note in notes] == ["rmse", "valid_loss"]
    assert all("gradnas.lower" in note for note in notes)


def test_of_a_loss_by_another_method_nobody_knows_what_the_network_takes():
    def loss(net, batch):
        return net.method("encode", batch).square().mean()

    def by_forward(net, batch):
        return net.method("forward", batch).square().mean()

    x = torch.zeros(4, 2)
    task = gradnas.Task(model=lambda: nn.Linear(2, 2), train=x, loss=loss)
    with pytest.raises(ValueError, match=r"calls net\.method\('encode', \.\.\.\).*Task\(example="):
        call_on(task, x)
    task = gradnas.Task(model=lambda: nn.Linear(2, 2), train=x, loss=by_forward)
    assert call_on(task, x).inputs[0] is x
