"""A module of Lightning: its own steps and optimiser; the final training is its Trainer's."""

import lightning
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradnas

X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
Y = (X[:, 0] * X[:, 1] > 0).long()


class Lit(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        deep = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 6))
        self.body = gradnas.Choice({"deep": deep, "flat": nn.Linear(6, 6)}, name="body")
        self.head = nn.Linear(6, 2)

    def forward(self, x):
        return self.head(F.relu(self.body(x)))

    def training_step(self, batch, batch_index):
        x, y = batch
        return F.cross_entropy(self(x), y)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.01)


def loss(net, batch):
    return net.method("training_step", batch, 0)


def accuracy(net, batch):
    return gradnas.accuracy(net(batch[0]), batch[1])


def trainer(network, epochs):
    fit = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    ).fit
    fit(network, DataLoader(TensorDataset(X[:32], Y[:32]), 8, shuffle=True))


def task():
    return gradnas.Task(
        model=Lit,
        train=(X[:32], Y[:32]),
        test=(X[32:], Y[32:]),
        loss=loss,
        measures={"accuracy": accuracy},
        optimizer=lambda params: torch.optim.Adam(params, lr=0.01),
        trainer=trainer,
        example=X[:1],
    )
