"""Running statistics of BatchNorms that are computed outside their modules, updated together.

The fused cells normalise by their own means, so the modules never see a batch; what each one would
have kept is collected here and written for many of them at once.

Legend: C channels, P pixels (B * H * W), Q channels of maps that lie side by side.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from gradnas.spaces.cells.kernels import EPS, unbiased


class Update(NamedTuple):
    """What one BatchNorm saw in a batch."""

    norm: nn.BatchNorm2d
    mean_C: Tensor
    var_C: Tensor  # with P - 1 in the denominator, as BatchNorm keeps it


Updates = list[Update]


class Normalised(NamedTuple):
    """What one normalisation of maps side by side found, as `native_batch_norm` gives it."""

    norms: list[list[nn.BatchNorm2d]]  # of each map; several where edges share a pool
    mean_Q: Tensor
    inverse_Q: Tensor  # 1 / sqrt(variance + EPS)
    pixels: int


Statistics = list[Normalised]


@torch.no_grad()
def updates_of(statistics: Statistics) -> Updates:
    """Means and variances for the BatchNorms of many cells, in a few launches for all of them."""
    if not statistics:
        return []
    mean_Q = torch.cat([seen.mean_Q for seen in statistics])
    inverse_Q = torch.cat([seen.inverse_Q for seen in statistics])
    counts = tuple((seen.pixels, len(seen.mean_Q)) for seen in statistics)
    factor_Q = _unbiased(counts, mean_Q.device, mean_Q.dtype)
    var_Q = (inverse_Q.square().reciprocal() - EPS) * factor_Q

    norms_of_maps: list[list[nn.BatchNorm2d]] = []
    sizes: list[int] = []
    for seen in statistics:
        norms_of_maps += seen.norms
        channels = len(seen.mean_Q) // len(seen.norms)
        sizes += [channels] * len(seen.norms)
    updates = []
    parts = zip(norms_of_maps, mean_Q.split(sizes), var_Q.split(sizes), strict=True)
    for norms, mean_C, var_C in parts:
        for norm in norms:
            updates.append(Update(norm, mean_C, var_C))
    return updates


@functools.lru_cache(maxsize=64)
def _unbiased(
    counts: tuple[tuple[int, int], ...], device: torch.device, dtype: torch.dtype
) -> Tensor:
    """P / (P - 1) of each channel; `counts` are (P, number of channels)."""
    factors = []
    for pixels, channels in counts:
        factors += [unbiased(pixels)] * channels
    return torch.tensor(factors, device=device, dtype=dtype)


def update_running_statistics(updates: Updates) -> None:
    """What every BatchNorm does in training mode, for many at once."""
    # Together are those of one momentum; a BatchNorm that saw several batches (of a cell that
    # stands twice in a network) takes them one after the other.
    turns: dict[int, int] = {}
    groups: dict[tuple[int, float], Updates] = {}
    for update in updates:
        norm = update.norm
        turn = turns.get(id(norm), 0)
        turns[id(norm)] = turn + 1
        assert norm.momentum is not None  # such a one is not known: see `builtin`
        groups.setdefault((turn, norm.momentum), []).append(update)
    for (_, momentum), group in groups.items():
        norms = [update.norm for update in group]
        means, variances = running_of(norms)
        with torch.no_grad():
            _move(means, [update.mean_C for update in group], momentum)
            _move(variances, [update.var_C for update in group], momentum)
            torch._foreach_add_(_counters(norms), 1)


def running_of(norms: Sequence[nn.BatchNorm2d]) -> tuple[list[Tensor], list[Tensor]]:
    """Running means and variances of BatchNorms that keep them."""
    means = []
    variances = []
    for norm in norms:
        assert norm.running_mean is not None and norm.running_var is not None
        means.append(norm.running_mean)
        variances.append(norm.running_var)
    return means, variances


def _counters(norms: Sequence[nn.BatchNorm2d]) -> list[Tensor]:
    counters = []
    for norm in norms:
        assert norm.num_batches_tracked is not None
        counters.append(norm.num_batches_tracked)
    return counters


def _move(kept: list[Tensor], new: list[Tensor], momentum: float) -> None:
    """Each of `kept` becomes `(1 - momentum) kept + momentum new`, in its own dtype."""
    cast = [n.to(k.dtype) for n, k in zip(new, kept, strict=True)]
    torch._foreach_mul_(kept, 1.0 - momentum)
    torch._foreach_add_(kept, cast, alpha=momentum)
