"""What a mixture gave at its last evaluation is not computed again for the verdict."""

from __future__ import annotations

import random
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import gradnas
from gradnas.tasks.your_task.held_out import HeldOut

DRAW = torch.Generator().manual_seed(0)
DATA = torch.randn(48, 4, generator=DRAW), torch.randint(3, (48,), generator=DRAW)


class Net(nn.Module):
    def __init__(self, is_random: bool) -> None:
        super().__init__()
        self.choice = gradnas.Choice({"a": nn.Linear(4, 3), "b": nn.Linear(4, 3, bias=False)})
        self.is_random = is_random

    def forward(self, x: Tensor) -> Tensor:
        return self.choice(x + 0.1 * torch.randn(4) if self.is_random else x)


def spoiling(outputs: Tensor, target: Tensor) -> Tensor:
    """A loss that changes in place what it is given."""
    loss = F.cross_entropy(outputs, target)
    if not outputs.requires_grad:
        outputs.zero_()
    return loss


@pytest.mark.parametrize("is_random", [False, True])
def test_the_verdict_is_the_same_whether_outputs_were_kept_or_not(is_random, tmp_path, monkeypatch):
    known = []
    asked = HeldOut.known_outputs

    def noted(self):
        known.append(len(asked(self)))
        return asked(self)

    task = gradnas.Task(model=lambda: Net(is_random), train=DATA, loss=spoiling)
    written = []
    for outputs in (noted, lambda self: ()):
        monkeypatch.setattr(HeldOut, "known_outputs", outputs)
        run = gradnas.run_search(
            task,
            out=tmp_path / str(len(written)),
            epochs=6,
            batch_size=8,
            device="cpu",
            progress=False,
        )
        written.append((run.path / "results.json").read_bytes())
    assert written[0] == written[1]
    # One that draws random numbers may give something else next time.
    assert known == [0 if is_random else 3]


class Drawn:
    """Held-out batches whose order is drawn from numbers that nobody else knows."""

    def __init__(self) -> None:
        self.numbers = random.Random(0)

    def __len__(self) -> int:
        return 3

    def __iter__(self):
        rows = list(range(48))
        self.numbers.shuffle(rows)
        for own in (rows[:16], rows[16:32], rows[32:]):
            yield DATA[0][own], DATA[1][own]


def test_of_data_that_are_others_each_time_no_outputs_are_kept(tmp_path, monkeypatch):
    """Else outputs of one order would be judged by the targets of another."""
    known = []
    asked = HeldOut.known_outputs

    def noted(self):
        known.append(len(asked(self)))
        return asked(self)

    monkeypatch.setattr(HeldOut, "known_outputs", noted)
    task = gradnas.Task(model=lambda: Net(False), train=DATA, valid=Drawn(), loss=F.cross_entropy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gradnas.run_search(
            task, out=tmp_path / "run", epochs=6, batch_size=8, device="cpu", progress=False
        )
    assert known == [0]


def test_what_a_tracker_changes_is_measured_anew(tmp_path, monkeypatch):
    """Averaged weights for the evaluation, for example; in place, as `.data`, which nobody sees."""
    net = Net(False)
    data = tuple(tensor.clone() for tensor in DATA)

    def change(epoch: gradnas.runs.Epoch) -> None:
        for p in net.parameters():
            p.data.mul_(0.5)
        data[0].numpy()[:] += 1.0

    task = gradnas.Task(model=lambda: net, train=DATA, valid=data, loss=F.cross_entropy)
    written = []
    for outputs in (HeldOut.known_outputs, lambda self: ()):
        monkeypatch.setattr(HeldOut, "known_outputs", outputs)
        out = tmp_path / str(len(written))
        torch.manual_seed(0)
        net.__init__(False)
        data[0].copy_(DATA[0])
        run = gradnas.run_search(
            task, out=out, epochs=6, batch_size=8, device="cpu", progress=False, on_epoch=change
        )
        written.append(run.results["verdict"])
    assert written[0] == written[1]
