"""Two tasks at once: one trunk, two heads, two losses, batches as dictionaries.

    gradnas search examples/two_tasks.py --epochs 12 --alpha-lr 0.01 --out runs/two-tasks

Which digit is it, and how much ink does it have? The trunk is shared; each task has a tower of its
own, and each tower chooses what it does.
"""

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import nn

import gradnas


def tower() -> dict[str, nn.Module]:
    return {
        "linear": nn.Linear(64, 32),
        "deep": nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU()),
        "narrow": nn.Sequential(nn.Linear(64, 4), nn.ReLU(), nn.Linear(4, 32)),
    }


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(64, 64)
        self.digit_tower = gradnas.Choice(tower(), name="digit tower")
        self.ink_tower = gradnas.Choice(tower(), name="ink tower")
        self.digit = nn.Linear(32, 10)
        self.ink = nn.Linear(32, 1)

    def forward(self, pixels):
        shared = F.relu(self.trunk(pixels))
        return {
            "digit": self.digit(self.digit_tower(shared)),
            "ink": self.ink(self.ink_tower(shared)).squeeze(1),
        }


def loss(net, batch):
    outputs = net(batch["pixels"])
    classes = F.cross_entropy(outputs["digit"], batch["digit"])
    return classes + F.mse_loss(outputs["ink"], batch["ink"])


def digit_accuracy(net, batch):
    return gradnas.accuracy(net(batch["pixels"])["digit"], batch["digit"])


def ink_error(net, batch):
    return F.l1_loss(net(batch["pixels"])["ink"], batch["ink"])


def task() -> gradnas.Task:
    digits = load_digits()
    order = torch.randperm(len(digits.target), generator=torch.Generator().manual_seed(0))
    pixels = torch.tensor(digits.data, dtype=torch.float32)[order] / 16.0
    data = {
        "pixels": pixels,
        "digit": torch.tensor(digits.target)[order],
        "ink": pixels.mean(1) * 10.0 - 3.0,
    }
    return gradnas.Task(
        model=Net,
        train={name: values[:1400] for name, values in data.items()},
        test={name: values[1400:] for name, values in data.items()},
        loss=loss,
        measures={"digit_accuracy": digit_accuracy, "ink_error": gradnas.lower(ink_error)},
        optimizer=lambda weights: torch.optim.AdamW(weights, lr=3e-3),
    )
