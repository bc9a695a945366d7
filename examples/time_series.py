"""A time series in which only one dilation sees the class, so that the truth is known.

    gradnas search examples/time_series.py --epochs 20 --out runs/series

What lies 16 steps apart is equal in one class and opposite in the other. A convolution of three
taps with dilation 8 sees both ends of that distance; every other one here sees noise.
"""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas

LENGTH, DISTANCE = 64, 16


class Dilated(nn.Module):
    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 8, 3, dilation=dilation)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x):
        return F.relu(self.norm(self.conv(x))).mean(-1)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        operations = {f"dilation {d}": Dilated(d) for d in (1, 2, 4, 8)}
        self.conv = gradnas.Choice(operations, name="conv")
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.conv(x))


def series(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Series (number, 1, LENGTH) and their classes (number,)."""
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(2, (number,), generator=generator)
    sign = (2.0 * classes - 1.0).unsqueeze(1)
    parts = [torch.randn(number, DISTANCE, generator=generator)]
    while len(parts) < LENGTH // DISTANCE:
        parts.append(sign * parts[-1])
    values = torch.cat(parts, dim=1)
    noise = 0.5 * torch.randn(values.shape, generator=generator)
    return (values + noise).unsqueeze(1), classes


def task() -> gradnas.Task:
    return gradnas.Task(
        model=Net,
        train=series(800, seed=0),
        test=series(400, seed=1),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
    )
