"""Evaluating networks: means over batches, accuracy, and BatchNorm statistics that belong to the
weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.data import TextStream
from gradnas.objectives import CrossEntropy
from gradnas.precision import autocast, cuda_products


class Means:
    """Running means of named scalars over an epoch, in float64 on the device; its state can be
    saved."""

    def __init__(self, state: Mapping[str, Any] | None = None) -> None:
        self.totals: dict[str, Tensor] = dict(state["totals"]) if state else {}
        self.count = float(state["count"]) if state else 0.0

    def add(self, parts: Mapping[str, Tensor], weight: int) -> None:
        """Add values that are means over `weight` items."""
        for name, value in parts.items():
            part = value.detach().double() * weight
            before = self.totals.get(name)
            self.totals[name] = part if before is None else before.to(part.device) + part
        self.count += weight

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {"totals": dict(self.totals), "count": self.count}

    def values(self, prefix: str = "") -> dict[str, float]:
        """The means, over all ranks."""
        plain = {
            f"{prefix}{name}": total.item() / self.count for name, total in self.totals.items()
        }
        return distributed.mean_of_values(plain)


@torch.no_grad()
def evaluate(
    network: Callable[[Tensor], Any],
    batches: Iterable[tuple[Tensor, Tensor]],
    precision: str = "fp32",
) -> dict[str, float]:
    """Mean cross entropy `loss` and `accuracy` over batches of (x_BCHW, y_B). The caller sets the
    module's mode."""
    means = Means()
    for x_BCHW, y_B in batches:
        with cuda_products(precision), autocast(precision, x_BCHW.device):
            _, parts = CrossEntropy()(network(x_BCHW), y_B)
        means.add(parts, len(y_B))
    return means.values()


@torch.no_grad()
def evaluate_text(
    model: Callable[[Tensor, Tensor | None, Tensor], Any], stream: TextStream, length: int = 70
) -> dict[str, float]:
    """Mean negative log-likelihood `loss` (nats for each token) and `perplexity` of a text read
    once from the top.

    Every target counts once. The caller sets the module's mode.

    Args:
        model: `(tokens_TB, hidden_BH, targets_TB)` to a `LanguageLoss`.
        length: rows of a chunk; without dropout it changes nothing but the speed.
    """
    means, hidden_BH = Means(), None
    stream.rewind()
    while not stream.finished:
        chunk = stream.next(length)
        found = model(chunk.inputs_TB, hidden_BH, chunk.targets_TB)
        hidden_BH = found.hidden_BH
        means.add({"loss": found.nll}, chunk.targets_TB.numel())
    loss = means.values()["loss"]
    return {"loss": loss, "perplexity": perplexity(loss)}


def perplexity(loss: float) -> float:
    """`exp` of a loss in nats for each token; a loss beyond 300 counts as one of 300, so that files
    can hold it."""
    return math.exp(min(loss, 300.0))


@torch.no_grad()
def recalibrate(network: nn.Module, inputs: Iterable[Tensor]) -> None:
    """Replace the running statistics of every BatchNorm by the mean over these batches; ends in
    eval mode.

    A network that inherits a supernet's weights inherits statistics of another mixture: without
    this its accuracy is meaningless.
    """
    norms = [
        m
        for m in network.modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    network.train()
    for x in inputs:
        network(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    network.eval()
