"""Two processes on one machine compute what one process computes on the joint batch."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cases import GRADIENTS, name_of

from gradnas import SGDStep, Unrolled, distributed
from gradnas.runs import Run

HERE = Path(__file__).resolve().parent

# Least squares with a weight per feature that depends on alpha: the loss of two ranks' batches is
# the mean of theirs.
PROGRAM = """
import sys, torch
from gradnas import distributed, SGDStep
from cases import GRADIENTS
from test_distributed import hypergradient
distributed.start(torch.device("cpu"))
torch.set_num_threads(1)
r = distributed.rank()
values = [hypergradient(g, slice(4 * r, 4 * r + 4)) for g in GRADIENTS]
(m,) = distributed.mean([torch.tensor(float(r))])
assert m == 0.5 and distributed.world() == 2 and distributed.is_main() == (r == 0)
assert distributed.mean_of_values({"a": float(r)}) == {"a": 0.5}
t = torch.tensor([float(r + 1)])
distributed.copy_from_main([t])
assert t.item() == 1.0
if r == 0:
    torch.save(values, sys.argv[1])
distributed.stop()
"""


def hypergradient(gradient, rows):
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


def in_two_processes(*arguments):
    """Run python with these arguments as two ranks, with the environment that torchrun gives."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": "2",
        "PYTHONPATH": str(HERE),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, *arguments],
            env={**os.environ, **common, "RANK": str(r), "LOCAL_RANK": str(r)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for r in range(2)
    ]
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], "\n".join(errors)


@pytest.fixture(scope="module")
def of_two_ranks(tmp_path_factory):
    """Hypergradients of every method, each rank with half of each batch."""
    path = tmp_path_factory.mktemp("ranks") / "values.pt"
    in_two_processes("-c", PROGRAM, str(path))
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


@pytest.mark.slow
def test_a_whole_search_and_training_in_two_processes(tmp_path):
    """One writer, and a search that learns."""
    size = ["--channels", "4", "--cells", "2", "--threads", "1", "--device", "cpu"]
    run = Run(tmp_path / "run")
    in_two_processes(
        "-m", "gradnas", "search", "digits", "--out", str(run.path), "--epochs", "2", *size
    )
    in_two_processes("-m", "gradnas", "train", str(run.path), "--epochs", "3", *size)
    assert run.status()["status"] == "finished"
    records = run.records()
    assert [r["epoch"] for r in records] == [0, 1] and records[1]["train_loss"] < records[0][
        "train_loss"
    ]
    results = json.loads((run.path / "train" / "results.json").read_text())
    assert results["test_accuracy"] > 0.7


def test_a_single_process_needs_no_group():
    assert distributed.world() == 1 and distributed.rank() == 0 and distributed.is_main()
    tensors = [torch.ones(2, requires_grad=True)]
    assert distributed.mean_with_autograd(tensors)[0] is tensors[0]
    distributed.start(torch.device("cpu"))
    assert distributed.world() == 1
    distributed.stop()
