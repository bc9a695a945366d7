"""Examples as streams of batches: every example once, in an order of seed and epoch alone."""

from __future__ import annotations

import json

import pytest
import torch

from gradnas.data.base import batch_notes
from gradnas.runs import RESULTS, Run
from gradnas.tasks.example_kind import inputs_of, task_of
from gradnas.tasks.examples import Examples

TENSORS = {"x": torch.arange(10.0).unsqueeze(1), "y": torch.arange(10)}


class Squares:
    """A map-style data set that remembers what was asked for."""

    def __init__(self):
        self.asked = []

    def __len__(self):
        return 10

    def __getitem__(self, index):
        self.asked.append(index)
        return {"x": torch.tensor([float(index)]), "y": index}


@pytest.mark.parametrize("source", [TENSORS, tuple(TENSORS.values()), Squares()], ids=type)
def test_every_example_is_in_an_epoch_once_and_orders_differ(source):
    batches = Examples(source).batches(3, shuffle=True, seed=1)
    epochs = []
    for epoch in (0, 1, 0):
        found = []
        for batch in batches.epoch(epoch):
            x, y = batch.values() if isinstance(batch, dict) else batch
            assert torch.equal(x.squeeze(1).long(), y)
            found += y.tolist()
        epochs.append(found)
    assert len(batches) == 3  # the one that is left over has joined the batch before
    assert sorted(epochs[0]) == list(range(10))
    assert epochs[0] == epochs[2] != epochs[1]


def test_an_epoch_is_taken_up_at_any_batch_and_reads_nothing_before_it():
    data = Squares()
    batches = Examples(data).batches(2, shuffle=True, seed=1)
    whole = [batch["y"].tolist() for batch in batches.epoch(5)]
    data.asked.clear()
    rest = [batch["y"].tolist() for batch in batches.epoch(5, start=3)]
    assert rest == whole[3:]
    assert data.asked == rest[0] + rest[1]


def test_halves_share_nothing_and_ranks_share_a_batch():
    first, second = Examples(TENSORS).halves(0.4, seed=3)
    assert (len(first), len(second)) == (4, 6)
    assert sorted([*first.rows.tolist(), *second.rows.tolist()]) == list(range(10))
    whole = next(second.batches(6, shuffle=True, seed=0).epoch(0))["y"].tolist()
    shares = []
    for rank in (0, 1):
        batches = second.batches(6, shuffle=True, seed=0, rank=rank, world=2)
        shares += next(batches.epoch(0))["y"].tolist()
    assert shares == whole


def test_refusals():
    with pytest.raises(ValueError, match=r"must have one length, not \[2, 3\]"):
        Examples((torch.zeros(2), torch.zeros(3)))
    with pytest.raises(ValueError, match="leaves one part empty"):
        Examples(TENSORS).halves(0.01, seed=0)
    with pytest.raises(ValueError, match="index 10 is outside"):
        Examples(TENSORS, rows=[10])


def test_results_say_what_a_network_takes_or_are_refused(tmp_path):
    run = Run(tmp_path)
    right = {"shape": [3, 8], "dtype": "float32"}

    def write(**results):
        (tmp_path / RESULTS).write_text(json.dumps(results))

    write(inputs=[right, {"shape": [], "dtype": "int64"}], data={"classes": 2})
    assert inputs_of(run) == [([3, 8], torch.float32), ([], torch.int64)]
    assert task_of(run) == {"classes": 2}
    for wrong in (None, [], 5, {}):
        write(inputs=wrong, data=1)
        with pytest.raises(ValueError, match=r"results\.json does not say what the network takes"):
            inputs_of(run)
        with pytest.raises(ValueError, match="does not say what the data decided"):
            task_of(run)
    for change in (
        {"shape": None},
        {"shape": [0]},
        {"shape": [True]},
        {"shape": [10**30]},
        {"shape": ["3"]},
        {"dtype": "load"},
        {"dtype": "float33"},
        {"dtype": ["float32"]},
    ):
        write(inputs=[right, right | change], data={})
        (name,) = change
        with pytest.raises(ValueError, match=rf"inputs\[1\]\.{name} is no"):
            inputs_of(run)
    (tmp_path / RESULTS).write_text(json.dumps({"inputs": [5]}))
    with pytest.raises(ValueError, match=r"inputs\[0\]\.shape"):
        inputs_of(run)


def test_a_batch_of_more_than_there_is_is_said():
    examples = Examples(TENSORS)
    assert batch_notes(
        weights=examples.batches(11, shuffle=True), alphas=examples.batches(10, shuffle=False)
    ) == ["a batch of 11 is more than the 10 examples for the weights: each batch is all of them"]
