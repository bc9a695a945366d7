"""An encoder of token sequences with a mask by name: width, activation, and layers to skip."""

import torch
import torch.nn.functional as F
from torch import nn

import gradnas


class Skip(nn.Module):
    def forward(self, x, src_key_padding_mask=None):
        return x + 0


def layer(width, activation):
    return nn.TransformerEncoderLayer(8, 2, width, 0.1, activation, batch_first=True)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.layers = nn.ModuleList()
        for _ in range(2):
            operations = {"narrow": layer(8, "relu"), "gelu": layer(8, "gelu"), "skip": Skip()}
            self.layers.append(gradnas.Choice(operations))
        self.head = nn.Linear(8, 2)

    def forward(self, ids, *, mask):
        x = self.embedding(ids)
        for one in self.layers:
            x = one(x, src_key_padding_mask=mask)
        return self.head(x.masked_fill(mask.unsqueeze(-1), 0.0).sum(1))


def loss(net, batch):
    return F.cross_entropy(net(batch["ids"], mask=batch["mask"]), batch["label"])


def accuracy(net, batch):
    return gradnas.accuracy(net(batch["ids"], mask=batch["mask"]), batch["label"])


def task():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, 20, (32, 6), generator=generator)
    mask = torch.arange(6) >= torch.randint(3, 7, (32, 1), generator=generator)
    data = {"ids": ids, "mask": mask, "label": ids[:, 0] % 2}
    train = {name: value[:24] for name, value in data.items()}
    test = {name: value[24:] for name, value in data.items()}
    return gradnas.Task(
        model=Net, train=train, test=test, loss=loss, measures={"accuracy": accuracy}
    )
