"""Whether validation data are training data, as far as that shows without reading them."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    Sampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    random_split,
)

import gradnas
from gradnas.search.sharing import share_examples

X = torch.randn(12, 3, generator=torch.Generator().manual_seed(0))
Y = torch.arange(12) % 2
GRAPH = torch.ones(4, 4)


class Own(Dataset):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return X[index], Y[index]


class Odd(Sampler):
    """Says nothing of its rows."""

    def __iter__(self):
        return iter(range(1, 12, 2))


def of_rows(*rows, dataset=None):
    return DataLoader(OWN if dataset is None else dataset, 2, sampler=SubsetRandomSampler(rows))


def batches_of(sampler):
    return DataLoader(OWN, batch_sampler=BatchSampler(sampler, 2, drop_last=False))


OWN = Own()
SETS = TensorDataset(X, Y)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (OWN, OWN, True),
        (OWN, Own(), False),  # nobody looks at its rows
        ((X, Y), (X, Y), True),
        ((X, Y), (X.clone(), Y.clone()), True),
        ((X, Y), {"x": X, "y": Y}, True),
        ((X[:6], Y[:6]), (X[6:], Y[6:]), False),
        ((X[:6], Y[:6]), (X[5:], Y[5:]), True),
        ((X[::2], Y[::2]), (X[1::2], Y[1::2]), False),
        ((X[::2], Y[::2]), (X[2::2], Y[2::2]), True),
        ((X, Y), (X + 1, Y), False),  # equal targets
        ((X, GRAPH.expand(12, 4, 4)), (X + 1, GRAPH.expand(12, 4, 4)), False),
        ((X, GRAPH.expand(12, 4, 4)), (X, GRAPH.expand(12, 4, 4)), True),
        (DataLoader(OWN, 2), DataLoader(OWN, 3), True),
        (DataLoader(SETS, 2), DataLoader(TensorDataset(X, Y), 3), True),
        (Subset(OWN, [0, 1]), Subset(OWN, [2, 3]), False),
        (Subset(OWN, [0, 1]), Subset(OWN, [1, 3]), True),
        (DataLoader(Subset(OWN, [0, 1])), DataLoader(OWN), True),
        (OWN, Subset(OWN, [4]), True),
        (*random_split(OWN, [6, 6]), False),
        # One data set, parted by samplers: the halves of DARTS's own code.
        (of_rows(*range(6)), of_rows(*range(6, 12)), False),
        (of_rows(*range(7)), of_rows(*range(6, 12)), True),
        (of_rows(0, 1), DataLoader(OWN, shuffle=True), True),
        (of_rows(0, 1), OWN, True),
        (of_rows(0, 1, dataset=SETS), of_rows(1, 2, dataset=TensorDataset(X, Y)), True),
        (of_rows(0, 1, dataset=Subset(OWN, [4, 5])), Subset(OWN, [0, 1]), False),
        (of_rows(0, 1, dataset=Subset(OWN, [4, 5])), Subset(OWN, [5]), True),
        (Subset(Subset(OWN, [0, 1, 2, 3]), [0, 1]), Subset(Subset(OWN, [2, 3, 4]), [0, 1]), False),
        (batches_of(SubsetRandomSampler([0, 1])), batches_of(SubsetRandomSampler([2])), False),
        (batches_of(SubsetRandomSampler([0, 1])), batches_of(RandomSampler(OWN)), True),
        (DataLoader(OWN, sampler=WeightedRandomSampler([1.0] + 11 * [0.0], 4)), of_rows(1), False),
        (DataLoader(OWN, sampler=WeightedRandomSampler([1.0] + 11 * [0.0], 4)), of_rows(0), True),
        (DataLoader(OWN, sampler=Odd()), of_rows(0, 2), False),  # nobody asks it
        ([(X, Y)] * 3, [(X, Y)] * 2, True),
        ([(X[:4], Y[:4])], [(X[4:8], Y[4:8])], False),
        ([], [], False),
        ((X, Y), None, False),
        (iter([]), range(3), False),
        ((X.to("meta"), Y), (X.to("meta"), Y), False),
        ((X.to_sparse(), Y), (X.to_sparse() * 2, Y), False),
        ((X, Y), (X.double(), Y), False),
        ((torch.empty(0, 3),), (torch.empty(0, 3),), True),
    ],
)
def test_examples_in_common(one, other, expected):
    assert share_examples(one, other) == share_examples(other, one) == expected


class OneChoice(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        ops = {"a": torch.nn.Linear(3, 2), "b": torch.nn.Linear(3, 2, bias=False)}
        self.choice = gradnas.Choice(ops, name="c")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.choice(x)


@pytest.mark.parametrize("is_same", [True, False])
def test_a_task_says_that_nothing_is_held_out(is_same, tmp_path, capsys):
    train = (X.repeat(4, 1), Y.repeat(4))
    valid = train if is_same else (X + 0.1, Y)
    task = gradnas.Task(model=OneChoice, train=train, valid=valid, loss=F.cross_entropy)
    run = gradnas.run_search(task, out=tmp_path / "run", epochs=2, batch_size=6, device="cpu")
    captured = capsys.readouterr()
    said = " ".join((captured.out + captured.err).split())
    assert ("validation data of the task are training data" in said) == is_same
    verdict = run.results["verdict"]
    assert verdict["held_out"] == (not is_same) and verdict["taken"] is False
