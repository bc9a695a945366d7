"""A network that is there already: choices put into it by name, before activations in place."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


def ready_made():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 6, 3, padding=1, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
    )


def model():
    net = ready_made()
    cheap = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
    net[3] = gradnas.Choice({"as it was": net[3], "depthwise": cheap}, name="conv2")
    return net


def task():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(40, 3, 5, 5, generator=generator), torch.arange(40) % 4
    return gradnas.Task(
        model=model,
        train=(x[:28], y[:28]),
        test=(x[28:], y[28:]),
        loss=F.cross_entropy,
        measures={"accuracy": gradnas.accuracy},
    )
