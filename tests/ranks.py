"""Searches that are made by one process and by several, on the same batches; for `test_ranks`.

In float64, and without dropout: what is left of a difference is the order of sums.
"""

from __future__ import annotations

import os
import socket
import traceback
from dataclasses import fields, replace

import torch
import torch._dynamo  # what the first step needs: here, once, before there are forks
import torch.nn.functional as F
from torch import nn

import gradnas
from gradnas import (
    AlphaOptimizer,
    BinaryGates,
    Choice,
    ConvCell,
    FirstOrder,
    GumbelSoftmax,
    Implicit,
    Reinforce,
    Search,
    Softmax,
    Unrolled,
    WeightOptimizer,
    distributed,
)
from gradnas.data import ChunkLengths
from gradnas.data.text import Corpus, Vocabulary
from gradnas.modules.synchronised import keep_norms_local
from gradnas.objectives import TokenLikelihood
from gradnas.spaces import RecurrentCell
from gradnas.spaces.recurrent.recurrent_network import RecurrentDropout
from gradnas.tasks.text import TEXT
from gradnas.tasks.text.settings import TextSearchConfig
from gradnas.tasks.your_task import YourTask
from gradnas.tasks.your_task.given import GivenTask
from gradnas.tasks.your_task.settings import TaskSearchConfig

STEPS = int(os.environ.get("GRADNAS_STEPS_OF_RANKS", "6"))  # 20 for the record
METHODS = {
    "first order": (Softmax(), FirstOrder()),
    "finite difference": (Softmax(), Unrolled(mode="finite_difference")),
    "exact": (Softmax(), Unrolled(mode="exact")),
    "neumann": (Softmax(), Implicit(solver="neumann", steps=2)),
    "gates": (BinaryGates(mode="two"), FirstOrder()),
    "gumbel": (GumbelSoftmax(hard=True), FirstOrder()),
    "reinforce": (BinaryGates(), Reinforce(samples=2)),
}


class Normed(nn.Module):
    """A module whose function of an example depends on the whole batch."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.BatchNorm2d(3))
        plain = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, affine=False), nn.Tanh())
        wide = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3, momentum=None))
        self.body = Choice({"plain": plain, "wide": wide, "skip": nn.Identity()}, name="body")
        self.norm = nn.BatchNorm1d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.head(self.norm(x.mean((2, 3))))


def share(batch):
    """This rank's part of a batch, as `Plan` divides: of seven, four and three."""
    return batch.tensor_split(distributed.world())[distributed.rank()]


def batches(sizes, channels, side):
    generator = torch.Generator().manual_seed(1)
    made = []
    for size in sizes:
        x = torch.randn(size, channels, side, side, generator=generator, dtype=torch.float64)
        y = (x.mean((1, 2, 3)) > 0).long()
        made.append((share(x), share(y)))
    return made


def walked(search, sizes, channels, side):
    """The search after steps on batches of these sizes, train and validation in turn."""

    def loss_on(batch):
        return lambda net: F.cross_entropy(net(batch[0]), batch[1])

    trains = batches(sizes, channels, side)
    valids = batches(sizes[::-1], channels, side)
    search.schedule.epochs = 1
    for train, valid in zip(trains, valids, strict=True):
        own = (len(train[1]), len(valid[1]))
        search.step(loss_on(train), loss_on(valid), sizes=own)
    return search


def of_module(name, num_steps=STEPS):
    """A search inside a module with BatchNorm; the last batches are smaller, and uneven."""
    relaxation, gradient = METHODS[name]
    torch.manual_seed(0)
    search = Search(
        Normed().double(),
        relaxation,
        gradient,
        weights=WeightOptimizer(lr=0.05, clip_norm=1.0),
        alphas=AlphaOptimizer(**{**relaxation.alpha_defaults, "lr": 0.05}),
    )
    sizes = [8] * (num_steps - 3) + [7, 5, 9]
    return state_of(walked(search, sizes, 2, 4))


def of_cells(gradient, num_steps=STEPS if STEPS >= 20 else 3, **options):
    """A search of convolutional cells, which one process computes by its fused kernels."""
    torch.manual_seed(0)
    space = ConvCell(channels=2, cells=2, nodes=2)
    supernet = space.supernet(in_channels=2, num_classes=2, **options).double()
    search = Search(supernet, Softmax(), gradient, weights=WeightOptimizer(lr=0.05))
    sizes = [6] * (num_steps - 1) + [5]
    return state_of(walked(search, sizes, 2, 8))


def of_text(gradient, num_steps=STEPS):
    """A search on text: each rank reads its columns, and keeps their hidden states."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    tokens = torch.randint(0, 5, (220 + 30 * num_steps,), generator=generator)
    vocabulary = Vocabulary(tuple("abcde"), "char")
    corpus = Corpus("made", vocabulary, tokens, tokens.flip(0), tokens[:100])
    config = TextSearchConfig(
        space=RecurrentCell(hidden=4, embedding=4, nodes=2, dropout=no_dropout()),
        gradient=gradient,
        objective=TokenLikelihood(slowness=1e-3),
        chunks=ChunkLengths(base=5, deviation=1.0, least=3),
        epochs=1,
        batch_size=5,
        weights=WeightOptimizer(lr=0.5, lr_end=0.5, momentum=0.0, clip_norm=0.25),
    )
    task = TEXT.search_task(config, corpus, torch.device("cpu"))
    task.search.supernet.train()
    for number, batch in enumerate(task.batches()):
        if number == num_steps:
            break
        task.step(batch)
    return state_of(task.search)


def no_dropout():
    return RecurrentDropout(**{part.name: 0.0 for part in fields(RecurrentDropout)})


def of_task(gradient, num_epochs=2 if STEPS < 20 else 7):
    """A search on a task of one's own, whose data set leaves an uneven last batch."""
    torch.manual_seed(0)
    x = torch.randn(45, 2, 4, 4, generator=torch.Generator().manual_seed(3))
    y = (x.mean((1, 2, 3)) > 0).long()
    own = gradnas.Task(
        model=Normed,
        train=(x, y),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
    )
    config = replace(
        TaskSearchConfig.of(GivenTask(own)), gradient=gradient, epochs=num_epochs, batch_size=6
    )
    task = YourTask(config.measures).search_task(config, own, torch.device("cpu"))
    for _ in range(num_epochs):
        task.start_epoch()
        for batch in task.batches():
            task.step(batch)
        record = task.finish_epoch(evaluated=True)
    found = state_of(task.search)
    for key in ("train_loss", "search_valid_loss", "derived_valid_loss", "valid_loss"):
        found[f"metric {key}"] = torch.tensor(record[key])
    return found


def state_of(search):
    """Weights, alphas and running statistics; what was decided comes last."""
    found = {name: t.detach().clone() for name, t in search.supernet.state_dict().items()}
    found["decision"] = torch.tensor(list(search.result().decision.to_text().encode()))
    return found


CASES = {f"module, {name}": (lambda name=name: of_module(name)) for name in METHODS}
CASES |= {
    "cells, first order": lambda: of_cells(FirstOrder()),
    "cells, exact": lambda: of_cells(Unrolled(mode="exact")),
    "cells, computed again": lambda: of_cells(FirstOrder(), checkpoint_cells=True),
    "text, first order": lambda: of_text(FirstOrder()),
    "text, finite difference": lambda: of_text(Unrolled()),
    "text, exact": lambda: of_text(Unrolled(mode="exact")),
    "own task, first order": lambda: of_task(FirstOrder()),
    "own task, exact": lambda: of_task(Unrolled(mode="exact")),
}


# The others by `GRADNAS_ALL_TESTS=1`.
FEW = (
    "module, first order",
    "module, exact",
    "module, gumbel",
    "cells, first order",
    "cells, computed again",
    "text, exact",
    "own task, exact",
)
LOCAL = "module, first order, norms of each rank"


def wanted():
    """The names of the cases that are compared."""
    return list(CASES) if os.environ.get("GRADNAS_ALL_TESTS") else list(FEW)


def all_cases():
    """What each case comes to, with numbers in double precision."""
    torch.set_num_threads(1)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = {name: CASES[name]() for name in wanted()}
        keep_norms_local()
        found[LOCAL] = CASES["module, first order"]()
        return found
    finally:
        keep_norms_local(False)
        torch.set_default_dtype(before)


def in_forks(world, path):
    """What each of several ranks comes to, each in a fork of this process."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(world):
        child = os.fork()
        if child == 0:
            _in_child(rank, world, port, path)
        children.append(child)
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    assert codes == [0] * world, codes
    return [torch.load(f"{path}.{rank}", weights_only=True) for rank in range(world)]


def _in_child(rank, world, port, path):
    code = 1
    try:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        os.environ.update(WORLD_SIZE=str(world), RANK=str(rank), LOCAL_RANK=str(rank))
        distributed.start(torch.device("cpu"))
        torch.save(all_cases(), f"{path}.{rank}")
        distributed.barrier()
        code = 0
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        os._exit(code)  # gloo's threads may still run when the interpreter takes itself apart
