"""Segmentation with a U-Net whose outputs are a dictionary.

    gradnas search examples/u_net.py --epochs 12 --alpha-lr 0.02 --out runs/u-net

Circles among bars, drawn here: which pixels belong to a circle? A block gives two tensors, one for
the level below and one for the way back up, and each level chooses how it looks at its map.
"""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas

SIZE, CHANNELS = 24, 8


class Down(nn.Module):
    def __init__(self, kernel: int, dilation: int = 1) -> None:
        super().__init__()
        margin = dilation * (kernel // 2)
        self.conv = nn.Conv2d(CHANNELS, CHANNELS, kernel, padding=margin, dilation=dilation)
        self.norm = nn.BatchNorm2d(CHANNELS)

    def forward(self, x):
        x = F.relu(self.norm(self.conv(x)))
        return F.max_pool2d(x, 2), x


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.levels = nn.ModuleList(
            gradnas.Choice(
                {"1x1": Down(1), "3x3": Down(3), "5x5": Down(5), "3x3 dilated": Down(3, 2)},
                name=f"level{number}",
            )
            for number in (1, 2)
        )
        self.up = nn.ModuleList(nn.Conv2d(2 * CHANNELS, CHANNELS, 3, padding=1) for _ in range(2))
        self.head = nn.Conv2d(CHANNELS, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        skipped = []
        for level in self.levels:
            x, before = level(x)
            skipped.append(before)
        for up in self.up:
            x = F.interpolate(x, scale_factor=2.0)
            x = F.relu(up(torch.cat([x, skipped.pop()], dim=1)))
        return {"mask": self.head(x), "features": x}


def loss(outputs, mask):
    return F.cross_entropy(outputs["mask"], mask)


def overlap(outputs, mask):
    """Intersection over union of the circles' pixels, over the batch."""
    found = outputs["mask"].argmax(1)
    both = (found * mask).sum()
    return (both / (found + mask).clamp(max=1).sum().clamp(min=1)).item()


def drawings(number: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (number, 1, SIZE, SIZE) and their masks (number, SIZE, SIZE), 1 in a circle."""
    generator = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    center = torch.randint(6, SIZE - 6, (2, number, 1, 1), generator=generator)
    radius = torch.randint(3, 6, (number, 1, 1), generator=generator)
    circle = (y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2
    start = torch.randint(SIZE - 3, (number, 1, 1), generator=generator)
    bar = (x >= start) & (x < start + 3)
    images = (circle | bar).float() + 0.3 * torch.randn(number, SIZE, SIZE, generator=generator)
    return images.unsqueeze(1), circle.long()


def task() -> gradnas.Task:
    return gradnas.Task(
        model=UNet,
        train=drawings(256, seed=0),
        test=drawings(128, seed=1),
        loss=loss,
        measures={"overlap": overlap},
        optimizer=lambda weights: torch.optim.AdamW(weights, lr=1e-2),
    )
