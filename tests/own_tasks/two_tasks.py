"""Two tasks at once: one tower, two heads, two losses, batches as dictionaries."""

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import Dataset

import gradnas


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        small, large = nn.Linear(4, 6), nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Linear(12, 6))
        self.tower = gradnas.Choice({"small": small, "large": large}, name="tower")
        self.kind = nn.Linear(6, 2)
        self.size = nn.Linear(6, 1)

    def forward(self, x):
        x = F.relu(self.tower(x))
        return {"kind": self.kind(x), "size": self.size(x).squeeze(1)}


class Rows(Dataset):
    def __init__(self, seed, number):
        self.x = torch.randn(number, 4, generator=torch.Generator().manual_seed(seed))

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        x = self.x[index] + 0.01 * torch.randn(4)  # augmented with the global numbers
        return {"x": x, "kind": int(x[0] > 0), "size": x[1]}


def loss(net, batch):
    outputs = net(batch["x"])
    return F.cross_entropy(outputs["kind"], batch["kind"]) + F.mse_loss(
        outputs["size"], batch["size"]
    )


def size_error(net, batch):
    return F.l1_loss(net(batch["x"])["size"], batch["size"]).item()


def task():
    return gradnas.Task(
        model=Net,
        train=Rows(0, 40),
        test=Rows(1, 15),
        loss=loss,
        measures={"size_error": gradnas.lower(size_error)},
    )
