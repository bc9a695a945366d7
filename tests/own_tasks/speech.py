"""Sequences without alignment: the CTC loss, with targets of several lengths."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        narrow, wide = nn.Conv1d(3, 8, 3, padding=1), nn.Conv1d(3, 8, 7, padding=3)
        self.conv = gradnas.Choice({"k3": narrow, "k7": wide}, name="conv")
        self.head = nn.Linear(8, 5)

    def forward(self, x_BCT):
        return self.head(torch.relu(self.conv(x_BCT)).transpose(1, 2)).log_softmax(-1)


def loss(net, batch):
    log_prob_TBV = net(batch["x"]).transpose(0, 1)
    frames = torch.full((len(batch["x"]),), len(log_prob_TBV))
    return F.ctc_loss(log_prob_TBV, batch["words"], frames, batch["lengths"], zero_infinity=True)


def task():
    generator = torch.Generator().manual_seed(0)
    data = {
        "x": torch.randn(30, 3, 12, generator=generator),
        "words": torch.randint(1, 5, (30, 4), generator=generator),
        "lengths": torch.randint(1, 5, (30,), generator=generator),
    }
    train = {name: value[:20] for name, value in data.items()}
    test = {name: value[20:] for name, value in data.items()}
    return gradnas.Task(model=Net, train=train, test=test, loss=loss)
