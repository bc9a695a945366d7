"""Tasks of known truth: does a search find what was planted, and does its verdict say how surely?

    python benchmarks/planted.py [--seeds 10] [--task series|graph|blind] [--rows 400] [--epochs 20]
    python benchmarks/planted.py --beta-decay 25          with the term of beta-DARTS
    python benchmarks/planted.py --perturbation           decided by the rounds of DARTS-PT

Three tasks, each with one operation (in the last, two) that sees what decides the class, beside
operations that see nothing of it. Everything is at its default but the number of epochs. For each
task: in how many seeds the planted operation was found, in how many of the others the verdict said
"undecided", and in how many it said so where the right one was found; CPU seconds of a search and
the share of its verdict. With few rows and epochs (40 and 3) the searches often go wrong, which is
where the second number counts.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import gradnas
from gradnas import BetaDecay, Choice, PerturbationSelection, Selection, Strongest
from gradnas.objectives import AlphaTerm

ROWS = 400  # for the weights, and as many for the alphas
EPOCHS = 20
BATCH = 32


@dataclass(frozen=True)
class Planted:
    """One task.

    Attributes:
        model: with choices in it.
        data: (rows, generator) to inputs and classes.
        truth: choice -> the operation that sees.
    """

    model: Callable[[], nn.Module]
    data: Callable[[int, torch.Generator], tuple[Tensor, Tensor]]
    truth: dict[str, str]


# ---- a time series in which what is 16 steps apart is equal or opposite --------------------------

LENGTH = 64
DISTANCE = 16


class Dilated(nn.Module):
    """Two values apart by twice the dilation, and the one between them."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 3, dilation=dilation)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x_BCT: Tensor) -> Tensor:
        return F.relu(self.norm(self.conv(x_BCT))).mean(-1)


def series_model() -> nn.Module:
    operations = {f"dilation {d}": Dilated(d) for d in (1, 2, 4, 8)}
    return nn.Sequential(Choice(operations, name="conv"), nn.Linear(8, 2))


def series(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    y_B = torch.randint(2, (rows,), generator=generator)
    sign_B1 = (2.0 * y_B - 1.0).unsqueeze(1)
    parts = [torch.randn(rows, DISTANCE, generator=generator)]
    while sum(part.shape[1] for part in parts) < LENGTH:
        parts.append(sign_B1 * parts[-1])
    x_BT = torch.cat(parts, 1)
    x_BT = x_BT + 0.5 * torch.randn(x_BT.shape, generator=generator)
    return x_BT.unsqueeze(1), y_B


# ---- graphs in which the number of neighbours decides --------------------------------------------

NODES = 12


class Aggregate(nn.Module):
    """What a node is told by its neighbours; the features of all are alike but for noise."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.linear = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, features_BNC: Tensor, edges_BNN: Tensor) -> Tensor:
        messages = features_BNC.unsqueeze(1) * edges_BNN.unsqueeze(-1)  # (B, N, N, C)
        if self.how == "sum":
            told = messages.sum(2)
        elif self.how == "mean":
            told = messages.sum(2) / edges_BNN.sum(2, keepdim=True).clamp_min(1.0)
        else:
            sign = 1.0 if self.how == "max" else -1.0
            hidden = (1.0 - edges_BNN).unsqueeze(-1) * 1e6
            told = sign * (sign * features_BNC.unsqueeze(1) - hidden).amax(2)
        return F.relu(self.norm(self.linear(told).transpose(1, 2)).transpose(1, 2))


class GraphNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        operations = {how: Aggregate(how) for how in ("mean", "max", "sum", "min")}
        self.aggregate = Choice(operations, name="aggregate")
        self.head = nn.Linear(8, 2)

    def forward(self, features_BNC: Tensor, edges_BNN: Tensor) -> Tensor:
        return self.head(self.aggregate(features_BNC, edges_BNN).mean(1))


def graphs(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    y_B = torch.randint(2, (rows,), generator=generator)
    share_B = torch.where(y_B == 1, 0.6, 0.35)
    edges_BNN = torch.rand(rows, NODES, NODES, generator=generator)
    edges_BNN = (edges_BNN < share_B.view(-1, 1, 1)).float()
    # Values of their own, so that the largest and the smallest of more neighbours are no others.
    values_BNC = torch.randint(2, (rows, NODES, 4), generator=generator).float() * 2.0 - 0.5
    return values_BNC, edges_BNN, y_B


# ---- two towers whose blocks see their half of the input, or what decides nothing ---------------

HALF = 8


class Sees(nn.Module):
    """A block that reads some columns alone."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first
        self.block = nn.Sequential(nn.Linear(HALF, 16), nn.BatchNorm1d(16), nn.ReLU())

    def forward(self, x_BC: Tensor) -> Tensor:
        return self.block(x_BC[:, self.first : self.first + HALF])


class Towers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = Choice(
            {"blind": Sees(3 * HALF), "sees": Sees(0), "noise": Sees(2 * HALF)}, name="one"
        )
        self.two = Choice(
            {"noise": Sees(2 * HALF), "blind": Sees(3 * HALF), "sees": Sees(HALF)}, name="two"
        )
        self.head = nn.Linear(32, 4)

    def forward(self, x_BC: Tensor) -> Tensor:
        return self.head(torch.cat([self.one(x_BC), self.two(x_BC)], 1))


def towers(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    x_BC = torch.randn(rows, 4 * HALF, generator=generator)
    one_B = x_BC[:, :HALF].sum(1) > 0
    two_B = x_BC[:, HALF : 2 * HALF].sum(1) > 0
    return x_BC, 2 * one_B.long() + two_B.long()


TASKS = {
    "series": Planted(series_model, series, {"conv": "dilation 8"}),
    "graph": Planted(GraphNet, graphs, {"aggregate": "sum"}),
    "blind": Planted(Towers, towers, {"one": "sees", "two": "sees"}),
}


def search_once(
    task: Planted,
    seed: int,
    rows: int,
    epochs: int,
    terms: Sequence[AlphaTerm] = (),
    selection: Selection = Strongest(),  # noqa: B008 (frozen)
) -> tuple[gradnas.SearchResult, float, float]:
    """The result of one seed; CPU seconds without a verdict, and of the verdict."""
    generator = torch.Generator().manual_seed(seed)
    loaders = []
    for _ in range(2):
        data = TensorDataset(*task.data(rows, generator))
        loaders.append(DataLoader(data, BATCH, shuffle=True, generator=generator))
    torch.manual_seed(seed)
    search = gradnas.Search(task.model(), seed=seed, terms=terms, selection=selection)
    began = time.process_time()
    settings = {"loss": F.cross_entropy, "epochs": epochs, "progress": False}
    search.fit(*loaders, **settings, candidates=0)
    middle = time.process_time()
    # What `fit` does at its end.
    from gradnas.search.judging import verdict_after

    result = search.result()
    _, verdict = verdict_after(search, result, *loaders, F.cross_entropy, (8, 4))
    assert verdict is not None
    search.take_verdict(verdict)
    return search.result(), middle - began, time.process_time() - middle


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--task", choices=TASKS, default=None)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--beta-decay", type=float, help="the end of its weight; else no term")
    parser.add_argument("--perturbation", action="store_true")
    parser.add_argument("--show", action="store_true", help="print every result")
    settings = parser.parse_args()
    terms = [] if settings.beta_decay is None else [BetaDecay(end=settings.beta_decay)]
    selection = PerturbationSelection(interval=1) if settings.perturbation else Strongest()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    print("task    found   undecided where not   undecided where found   CPU s    verdict")
    for name, task in TASKS.items():
        if settings.task not in (None, name):
            continue
        found = 0
        said = [0, 0]
        searching = 0.0
        judging = 0.0
        for seed in range(settings.seeds):
            result, seconds, own_seconds = search_once(
                task, seed, settings.rows, settings.epochs, terms, selection
            )
            is_right = dict(result.choices) == task.truth
            found += is_right
            said[is_right] += bool(result.undecided)
            searching += seconds
            judging += own_seconds
            if settings.show:
                print(result)
        wrong = settings.seeds - found
        print(
            f"{name:7} {found:>2} of {settings.seeds:<3}{said[0]:>8} of {wrong:<13}{said[1]:>8} of "
            f"{found:<13}{searching / settings.seeds:>6.2f}   {judging / searching:>7.1%}"
        )


if __name__ == "__main__":
    main()
