"""How many examples a batch holds, where its first tensor does not tell it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pack_sequence, pad_packed_sequence
from torch.utils.data import DataLoader

import gradnas
from gradnas.architectures.choices import Choices
from gradnas.programs.training import prepared_training
from gradnas.search.feed import size_of
from gradnas.tasks.your_task.calls import examples_in
from gradnas.tasks.your_task.given import GivenTask
from gradnas.tasks.your_task.settings import TaskTrainConfig

SEQUENCES = [
    (torch.randn(2 + n % 3, 3, generator=torch.Generator().manual_seed(n)), {"y": torch.tensor(n)})
    for n in range(7)
]


class Net(nn.Module):
    """Of sequences in a list."""

    def __init__(self):
        super().__init__()
        self.body = gradnas.Choice({"one": nn.Linear(3, 3), "none": nn.Identity()}, name="body")

    def forward(self, sequences):
        return torch.stack([self.body(x).mean() for x in sequences])


def as_lists(examples):
    sequences, targets = zip(*examples, strict=True)
    return list(sequences), list(targets)


def packed(examples):
    sequences, targets = zip(*examples, strict=True)
    return pack_sequence(list(sequences), enforce_sorted=False), torch.stack(
        [target["y"] for target in targets]
    )


def in_one_tensor(examples):
    sequences, targets = zip(*examples, strict=True)
    lengths = torch.tensor([len(x) for x in sequences])
    return {"x": torch.cat(sequences), "of": {"lengths": lengths}, "y": list(targets)}


def mean_target(net, batch):
    del net
    return torch.stack([target["y"].float() for target in batch[1]]).mean()


def loss(net, batch):
    return F.mse_loss(net(batch[0]), torch.stack([target["y"].float() for target in batch[1]]))


@pytest.mark.parametrize("collate", [as_lists, packed, in_one_tensor])
@pytest.mark.parametrize("of_loader", [False, True])
def test_lists_packed_sequences_and_joined_tensors(collate, of_loader):
    if of_loader:
        train = DataLoader(SEQUENCES, 3, shuffle=True, collate_fn=collate)
        task = gradnas.Task(model=Net, train=train, valid=train, loss=loss)
    else:
        task = gradnas.Task(model=Net, train=SEQUENCES, loss=loss, collate=collate)
    for number in (1, 2, 3, 5):
        assert examples_in(task, collate(SEQUENCES[:number])) == number


def test_what_is_packed_is_counted_without_knowing_the_data():
    batch = packed(SEQUENCES)
    assert size_of(batch) == 7
    padded, _ = pad_packed_sequence(batch[0])
    assert size_of(batch[0]) == padded.shape[1]


def test_where_nothing_tells_the_examples_the_first_tensor_does():
    def nodes(examples):
        return torch.cat([x for x, _ in examples]), torch.cat([x.sum(1) for x, _ in examples])

    task = gradnas.Task(model=Net, train=SEQUENCES, loss=F.mse_loss, collate=nodes)
    assert examples_in(task, nodes(SEQUENCES[:2])) == 5


def test_a_measure_is_the_mean_over_examples_of_lists():
    task = gradnas.Task(
        model=Net,
        train=SEQUENCES,
        test=SEQUENCES,
        loss=loss,
        collate=as_lists,
        measures={"mean_target": mean_target},
    )
    config = TaskTrainConfig.of(Choices({"body": "one"})).with_task(GivenTask(task))
    config = replace(config, batch_size=4)
    training = prepared_training(config, task, torch.device("cpu"))
    found = training.evaluated(task.test_data)
    assert found["mean_target"] == pytest.approx(3.0)  # batches of four and three
    assert training.num_examples == 7
