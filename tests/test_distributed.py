"""Two processes on one machine compute what one process computes on the joint batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from cases import GRADIENTS, name_of
from in_forks import as_ranks, gradnas_as_ranks, rank_environments
from torch import nn

import gradnas
from gradnas import (
    AlphaOptimizer,
    BinaryGates,
    Choice,
    ExpectedCost,
    FirstOrder,
    GumbelSoftmax,
    Reinforce,
    Search,
    SGDStep,
    Softmax,
    Unrolled,
    WeightOptimizer,
    distributed,
)
from gradnas.cli import main
from gradnas.runs import Run
from gradnas.tasks.evaluation import Means
from gradnas.tasks.training import update

HERE = Path(__file__).resolve().parent


def hypergradients_of_a_rank(path):
    """What a rank does with half of each batch; the first saves it."""
    distributed.start(torch.device("cpu"))
    r = distributed.rank()
    values = [hypergradient(g, slice(4 * r, 4 * r + 4)) for g in GRADIENTS]
    (m,) = distributed.mean([torch.tensor(float(r))])
    assert m == 0.5 and distributed.world() == 2 and distributed.is_main() == (r == 0)
    assert distributed.mean_of_values({"a": float(r)}) == {"a": 0.5}
    t = torch.tensor([float(r + 1)])
    distributed.copy_from_main([t])
    assert t.item() == 1.0
    if r == 0:
        torch.save(values, path)
    distributed.stop()


def hypergradient(gradient, rows):
    """Of least squares with a weight per feature that depends on alpha.

    The loss of two ranks' batches is the mean of theirs.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, generator=generator).double()
    y = torch.randn(8, generator=generator).double()
    xv = torch.randn(8, 3, generator=generator).double()
    yv = torch.randn(8, generator=generator).double()
    params = {"w": torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64)}
    alphas = {"a": torch.tensor([0.1, 0.4, -0.3], dtype=torch.float64)}

    def loss(x, y):
        # cubic in w, so that the gradient of a mean step is not the mean of the gradients of the
        # steps
        return lambda p, a: (
            (x[rows] @ (torch.sigmoid(a["a"]) * p["w"] ** 3 + p["w"]) - y[rows]) ** 2
        ).mean()

    return gradient(
        loss(x, y),
        loss(xv, yv),
        params,
        alphas,
        inner=SGDStep(lr=0.1, momentum=0.9, weight_decay=0.01),
    )


class Odd(nn.Module):
    """A module with a choice, whose function of an example depends on no other."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(3, 4)
        self.body = Choice(
            {"tanh": nn.Sequential(nn.Linear(4, 4), nn.Tanh()), "skip": nn.Identity()}, name="body"
        )
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        return self.head(self.body(self.stem(x)))


# Relaxation, gradient, further settings of the search.
ODD_SEARCHES = [(Softmax(), gradient, {}) for gradient in GRADIENTS]
ODD_SEARCHES += [
    (BinaryGates(mode="two"), FirstOrder(), {}),
    (GumbelSoftmax(hard=True), Unrolled(), {}),
    (BinaryGates(), Reinforce(samples=3), {}),
    (
        Softmax(),
        FirstOrder(),
        {"cost": ExpectedCost(target_params=20, form="add#linear"), "example": torch.zeros(1, 3)},
    ),
]
ODD_SIZES = [(8, 6), (7, 3), (3, 5), (2, 7)]  # of train and validation batches, over all ranks


def odd_search(index, share, own_loop):
    """Weights and alphas after some steps on `share(batch)` of each batch, in float64."""
    relaxation, gradient, settings = ODD_SEARCHES[index]
    torch.manual_seed(0)
    settings = {**settings}
    if "example" in settings:
        settings["example"] = settings["example"].double()
    search = Search(
        Odd().double(),
        relaxation,
        gradient,
        weights=WeightOptimizer(lr=0.2, clip_norm=0.3),
        alphas=AlphaOptimizer(**{**relaxation.alpha_defaults, "lr": 0.1}),
        **settings,
    )
    generator = torch.Generator().manual_seed(1)
    loaders = [], []
    for sizes in ODD_SIZES:
        for loader, size in zip(loaders, sizes, strict=True):
            x = torch.randn(size, 3, generator=generator, dtype=torch.float64)
            loader.append({"x": share(x), "y": share((x.sum(1) > 0).long())})

    def loss_on(batch):
        return lambda net: F.cross_entropy(net(batch["x"]), batch["y"])

    search.schedule.epochs = 1
    if own_loop:
        for train, valid in zip(*loaders, strict=True):
            sizes = (len(train["x"]), len(valid["x"]))
            search.step(loss_on(train), loss_on(valid), sizes=sizes)
    else:
        for train, valid in search.pairs(*loaders):
            search.step(loss_on(train), loss_on(valid))
    return {name: p.detach() for name, p in search.supernet.named_parameters()}


def odd_training(share):
    """The weights after steps of a training on `share(batch)` of each batch."""
    torch.manual_seed(0)
    network = nn.Linear(3, 2).double()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    task = SimpleNamespace(network=network, optimizer=optimizer)
    for size in (7, 3):
        x = share(torch.randn(size, 3, dtype=torch.float64))
        loss = network(x).square().mean()
        loss.backward()
        update(task, loss, 0.5, len(x))
    return {name: p.detach() for name, p in network.named_parameters()}


def odd_values_of_a_rank(path):
    """All of them, and what several ranks must do with uneven shares; each saves its own."""
    distributed.start(torch.device("cpu"))
    r = distributed.rank()

    def share(batch):
        return batch.tensor_split(2)[r]  # as `Plan` divides: 7 are 4 and 3

    values = {}
    for own_loop in (False, True):
        values[own_loop] = [odd_search(k, share, own_loop) for k in range(len(ODD_SEARCHES))]
    values["training"] = odd_training(share)
    with pytest.raises(ValueError, match="known on 1 of 2 processes"):
        distributed.factors([3 if r else None], torch.device("cpu"))
    means = Means()
    means.add({"loss": torch.tensor(float(r + 1))}, 1 + 2 * r)  # 1 once, 2 three times
    assert means.values("train_") == {"train_loss": 1.75}
    torch.save(values, f"{path}.{r}")
    distributed.barrier()
    distributed.stop()


@pytest.fixture(scope="module")
def of_uneven_ranks(tmp_path_factory):
    """What both ranks have after searches whose batches do not divide by two."""
    path = tmp_path_factory.mktemp("uneven") / "values.pt"
    as_ranks(odd_values_of_a_rank, path)
    return [torch.load(f"{path}.{r}", weights_only=True) for r in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("own_loop", [False, True], ids=["pairs", "sizes"])
@pytest.mark.parametrize("index", range(len(ODD_SEARCHES)), ids=[name_of(s) for s in ODD_SEARCHES])
def test_uneven_shares_agree_with_one_process(of_uneven_ranks, index, own_loop):
    whole = odd_search(index, lambda batch: batch, own_loop)
    for rank in range(2):
        found = of_uneven_ranks[rank][own_loop][index]
        for name, tensor in whole.items():
            assert torch.allclose(found[name], tensor, rtol=1e-9, atol=1e-12), name


@pytest.mark.slow
def test_a_training_with_uneven_shares_agrees_with_one_process(of_uneven_ranks):
    whole = odd_training(lambda batch: batch)
    for found in of_uneven_ranks:
        for name, tensor in whole.items():
            assert torch.allclose(found["training"][name], tensor, rtol=1e-12), name


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory):
    """Hypergradients of every method, each rank with half of each batch."""
    path = tmp_path_factory.mktemp("ranks") / "values.pt"
    as_ranks(hypergradients_of_a_rank, path)
    return torch.load(path, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("index", range(len(GRADIENTS)), ids=[name_of(g) for g in GRADIENTS])
def test_two_ranks_agree_with_one_process(of_two_ranks, index):
    whole = hypergradient(GRADIENTS[index], slice(0, 8))["a"]
    assert torch.allclose(of_two_ranks[index]["a"], whole, rtol=1e-9)


def test_averaging_finished_hypergradients_would_be_wrong():
    """The reason for a mean that autograd crosses."""
    exact = Unrolled(mode="exact")
    halves = [hypergradient(exact, slice(4 * r, 4 * r + 4))["a"] for r in range(2)]
    whole = hypergradient(exact, slice(0, 8))["a"]
    assert ((sum(halves) / 2 - whole).norm() / whole.norm()).item() > 0.05


SIZE = ["--channels", "4", "--cells", "2", "--threads", "1", "--device", "cpu"]


@pytest.mark.slow
def test_a_whole_search_and_training_in_two_processes(tmp_path):
    """One writer, and a search that learns."""
    run = Run(tmp_path / "run")
    brief = ("--nodes", "2", "--epochs", "2", "--batch-size", "128", "--candidates", "0")
    gradnas_as_ranks("search", "digits", "--out", run.path, *brief, *SIZE)
    gradnas_as_ranks("train", run.path, "--epochs", "3", *SIZE)
    assert run.status()["status"] == "finished"
    records = run.records()
    assert [r["epoch"] for r in records] == [0, 1] and records[1]["train_loss"] < records[0][
        "train_loss"
    ]
    results = json.loads((run.path / "train" / "results.json").read_text())
    assert results["test_accuracy"] > 0.7


@pytest.mark.slow
def test_processes_as_torchrun_starts_them_come_to_their_end(tmp_path):
    """They know nothing yet, and the interpreter takes itself apart; other tests fork."""
    run = Run(tmp_path / "run")
    words = ["search", "digits", "--out", str(run.path), "--per-class", "10", "--max-steps", "1"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "gradnas", *words, *SIZE],
            env={**os.environ, **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in rank_environments()
    ]
    errors = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)
    assert run.status()["status"] == "finished"


@pytest.mark.slow
def test_a_task_of_ones_own_in_two_processes_agrees_with_one(tmp_path, capfd):
    """A batch size is that of all ranks together."""
    task = str(HERE / "own_tasks" / "tabular.py")
    both, one = tmp_path / "both", tmp_path / "one"
    settings = ("--epochs", "2", "--batch-size", "8", "--device", "cpu", "--threads", "1")
    gradnas_as_ranks("search", task, *settings, "--out", both)
    said = capfd.readouterr().out
    assert said.count("next: gradnas train ") == 1 and "cannot be trained" not in said
    assert main(["search", task, *settings, "--out", str(one)]) == 0
    for mine, theirs in zip(Run(both).records(), Run(one).records(), strict=True):
        assert mine["train_loss"] == pytest.approx(theirs["train_loss"], rel=1e-5)
        assert mine["valid_absolute_error"] == pytest.approx(theirs["valid_absolute_error"])
    trained = []
    for run in (both, one):
        words = ["train", str(both), "--task", task, *settings, "--out", str(run / "training")]
        if run == both:
            gradnas_as_ranks(*words)
        else:
            assert main(words) == 0
        trained.append(json.loads((run / "training" / "results.json").read_text()))
    assert trained[0]["test_loss"] == pytest.approx(trained[1]["test_loss"], rel=1e-5)


def test_a_single_process_needs_no_group():
    assert distributed.world() == 1 and distributed.rank() == 0 and distributed.is_main()
    tensors = [torch.ones(2, requires_grad=True)]
    assert distributed.mean_with_autograd(tensors)[0] is tensors[0]
    distributed.start(torch.device("cpu"))
    assert distributed.world() == 1
    distributed.stop()


def test_one_of_several_processes_may_ask_for_the_result(tmp_path, monkeypatch):
    """As in `if rank == 0: print(run.result)`: nobody else takes part."""
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(0))

    def model() -> nn.Module:
        ops = {"a": nn.Linear(3, 2), "b": nn.Linear(3, 2, bias=False)}
        return nn.Sequential(gradnas.Choice(ops, name="c"))

    task = gradnas.Task(model=model, train=(x, torch.arange(16) % 2), loss=F.cross_entropy)
    out = tmp_path / "run"
    run = gradnas.run_search(task, out=out, epochs=1, batch_size=4, device="cpu", progress=False)
    monkeypatch.setattr(distributed, "_joined", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    assert (distributed.world(), distributed.rank()) == (2, 1)
    with distributed.alone():
        assert (distributed.world(), distributed.rank(), distributed.is_main()) == (1, 0, True)
    assert run.result.choices == run.choices
    assert distributed.world() == 2
