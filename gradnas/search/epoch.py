"""What a tracker is told of an epoch of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from gradnas.relaxations import Relaxation
from gradnas.runs import Epoch, Record
from gradnas.spaces.base import Supernet


class Mixing(Protocol):
    """A search whose alphas are asked."""

    supernet: Supernet
    relaxation: Relaxation


def epoch_of(
    search: Mixing, record: Record, epochs: int, seconds: float, folder: Path | None
) -> Epoch:
    """The epoch that has ended with this line of metrics."""
    supernet = search.supernet
    probabilities = {}
    for name, alpha in supernet.alphas.items():
        p = search.relaxation.probabilities(alpha.detach().double())
        probabilities[name] = p.cpu()
    names = supernet.operation_names()
    operations = {name: tuple(own) for name, own in names.items() if name in probabilities}
    return Epoch(record["epoch"] + 1, epochs, record, seconds, probabilities, operations, folder)
