"""Search inside your own module, with a loop of your own.

    python examples/your_own_module.py

The alternatives are declared where the layer is; everything else stays as it was.
"""

import argparse

import torch
import torch.nn as nn
import torch.nn.functional as F

import gradnas
from gradnas.data import halves, load_images


# ---- the module
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        # fmt: off
        self.body = gradnas.Choice({"conv3": nn.Conv2d(16, 16, 3, padding=1),
                                    "conv5": nn.Conv2d(16, 16, 5, padding=2),
                                    "skip": nn.Identity()}, name="body")
        # fmt: on
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        x = self.stem(x).relu()
        x = self.body(x).relu()
        return self.head(x.mean(dim=(2, 3)))


# ---- end of the module


def loss_on(batch):
    """The loss of a network on one batch."""
    x, y = batch
    return lambda net: F.cross_entropy(net(x), y)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=15)
    epochs = parser.parse_args().epochs
    torch.manual_seed(0)

    # Any loader of batches will do; this is the digits of scikit-learn.
    train, valid = halves(load_images("digits").train, 0.5, seed=0)
    train_batches = train.batches(64, shuffle=True, seed=1)
    valid_batches = valid.batches(64, shuffle=True, seed=1)

    search = gradnas.Search(
        Net(),
        relaxation=gradnas.Softmax(),
        gradient=gradnas.Unrolled(),
        weights=gradnas.WeightOptimizer(lr=0.2),
        alphas=gradnas.AlphaOptimizer(lr=0.03),
        epochs=epochs,
        seed=0,
    )
    for epoch in range(epochs):
        pairs = search.pairs(list(train_batches.epoch(epoch)), list(valid_batches.epoch(epoch)))
        for train_batch, valid_batch in pairs:
            report = search.step(loss_on(train_batch), loss_on(valid_batch))
        weights = torch.softmax(search.supernet.alphas["body"].detach(), dim=0).tolist()
        rounded = [round(weight, 2) for weight in weights]
        print(f"epoch {epoch + 1}: train loss {report.train_loss:.3f}  mixing weights {rounded}")

    result = search.result()
    print(result.choices)
    print("derived network:", result.derive())


if __name__ == "__main__":
    main()
