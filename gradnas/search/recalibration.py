"""BatchNorm statistics of a derived network.

A network that inherits a supernet's weights inherits running statistics of another mixture: without
new ones its outputs in eval mode mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from gradnas.gradients.base import same_randomness
from gradnas.latency.counts import in_eval_mode
from gradnas.modules.slots import Placed, holding, slots_of, with_copied_buffers
from gradnas.search.feed import to_device


def norms_to_recalibrate(network: nn.Module) -> list[_NormBase]:
    """The normalisations that keep running statistics, without those that the user froze.

    Frozen is what stays in eval mode while the network is in train mode.
    """
    norms = []
    for module in network.modules():
        if not isinstance(module, _NormBase) or module.running_mean is None:
            continue
        is_frozen = network.training and not module.training
        if module.track_running_stats and not is_frozen:
            norms.append(module)
    return norms


@torch.no_grad()
def recalibrate(
    network: nn.Module, batches: Iterable[Any], run: Callable[[nn.Module, Any], Any]
) -> None:
    """Replace the running statistics of every normalisation by their means over these batches.

    Nothing else changes: no weight, no other buffer, no mode, no random state. Dropout is off, as
    it will be where the statistics are used. One that does not run keeps the statistics it had.

    Args:
        batches: not read where the network keeps no running statistics.
        run: calls the network on a batch.

    Raises:
        ValueError: there is no batch.
    """
    norms = norms_to_recalibrate(network)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    before = [_statistics(norm) for norm in norms]
    num_batches = 0
    with in_eval_mode(network), same_randomness(network.parameters()), holding(_others(network)):
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches
        try:
            for batch in batches:
                num_batches += 1
                run(network, batch)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
    if num_batches == 0:
        raise ValueError("recalibrate needs batches to estimate statistics from, and got none")
    for norm, statistics in zip(norms, before, strict=True):
        if norm.num_batches_tracked is not None and norm.num_batches_tracked == 0:
            for name, tensor in statistics.items():
                getattr(norm, name).copy_(tensor)


def run_on_inputs(network: nn.Module, batch: Any) -> Any:
    """Call the network on a batch as `Search.fit` does: `(inputs ..., target)`, or inputs alone.

    Raises:
        ValueError: a batch of another form.
    """
    first = next(network.parameters(), torch.zeros((), device="cpu"))
    batch = to_device(batch, first.device)
    if isinstance(batch, Tensor):
        return network(batch)
    if not isinstance(batch, (tuple, list)) or not batch:
        raise ValueError(
            "recalibrate takes batches of the form (inputs ..., target), or tensors that are the "
            f"input, not a {type(batch).__name__}; a generator can make them: "
            "recalibrate=((batch['x'], None) for batch in loader)"
        )
    inputs = batch if len(batch) == 1 else batch[:-1]
    return network(*inputs)


def _statistics(norm: _NormBase) -> Mapping[str, Tensor]:
    return {name: tensor.clone() for name, tensor in norm.named_buffers()}


def _others(network: nn.Module) -> Placed:
    """Copies for all other buffers, so that nothing is written into those of the network."""
    of_norms = set()
    for norm in norms_to_recalibrate(network):
        of_norms.add(id(norm._buffers))
    held: Placed = []
    for slot in slots_of(network):
        if slot.is_buffer and id(slot.holder) not in of_norms:
            held.append((slot, slot.tensor))
    return with_copied_buffers(held)
