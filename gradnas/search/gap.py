"""How far the derived network is from the mixture that was trained."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gradnas.choice import Draw
from gradnas.gradients.base import same_randomness
from gradnas.latency.counts import in_eval_mode
from gradnas.search.feed import supervised, to_device
from gradnas.search.passes import Passes
from gradnas.search.recalibration import norms_to_recalibrate
from gradnas.search.result import SearchResult

BATCHES = 50  # of each loader at most

FAILURES = (  # of a user's loss and module
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)


class Gap(NamedTuple):
    """Validation losses of the mixture and of the derived network, both in eval mode."""

    mixture: float
    derived: float
    recalibrated: bool  # whether the derived network has statistics that were estimated anew

    def __str__(self) -> str:
        how = ""
        if self.recalibrated:
            how = ", with BatchNorm statistics of its own: result.derive(recalibrate=train_loader)"
        return (
            f"valid loss of the mixture {self.mixture:.4g}, of the derived network "
            f"{self.derived:.4g}{how}"
        )


def gap_line(
    passes: Passes,
    draw: Draw,
    result: SearchResult,
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any],
    loss: Callable[[Any, Any], Tensor],
) -> str | None:
    """`measured_gap` in words; None where it says nothing."""
    try:
        gap = measured_gap(passes, draw, result, train_loader, valid_loader, loss)
    except FAILURES as error:  # the result of a search must not be lost for a line of text
        return f"the derived network could not be compared with the mixture: {error}"
    return None if gap is None else str(gap)


@torch.no_grad()
def measured_gap(
    passes: Passes,
    draw: Draw,
    result: SearchResult,
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any],
    loss: Callable[[Any, Any], Tensor],
) -> Gap | None:
    """The gap, on at most so many batches of each loader; nothing changes by it.

    None where weights learn on single operations, so that the mixture is no network that was
    trained, and where reading the loaders would use them up.

    Args:
        draw: the mixture without noise.
    """
    if not passes.relaxation.trains_mixtures:
        return None
    if not (_can_be_read_again(train_loader) and _can_be_read_again(valid_loader)):
        return None
    generators = _generators(train_loader) + _generators(valid_loader)
    states = [generator.get_state() for generator in generators]
    try:
        with same_randomness(passes.params.values()):
            network = result.derive(recalibrate=_some(train_loader))
            recalibrated = bool(norms_to_recalibrate(network))
            network.eval()
            mixture = 0.0
            derived = 0.0
            count = 0
            with in_eval_mode(passes.supernet):
                for batch in _some(valid_loader):
                    batch = to_device(batch, passes.device)
                    on_batch: Callable[[Any], Tensor] = supervised(loss, batch)
                    mixture += passes.sampled(on_batch, draw).item()
                    with passes.autocast():
                        derived += on_batch(network).item()
                    count += 1
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
    return Gap(mixture / count, derived / count, recalibrated)


def _some(loader: Iterable[Any]) -> Iterator[Any]:
    return islice(iter(loader), BATCHES)


def _can_be_read_again(loader: Iterable[Any]) -> bool:
    """Whether it has a length, and begins anew each time it is read."""
    try:
        length = len(loader)  # type: ignore[arg-type]
    except TypeError:  # of an IterableDataset too
        return False
    return length > 0 and not isinstance(loader, Iterator)


def _generators(loader: Any) -> list[torch.Generator]:
    """Random numbers of a loader's own, which are then left as they were."""
    generators = []
    for holder in (loader, getattr(loader, "sampler", None)):
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator) and generator not in generators:
            generators.append(generator)
    return generators
