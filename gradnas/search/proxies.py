"""Scores of networks that were never trained: what a baseline filters random ones with.

Legend: S examples, V units.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from gradnas.config import check_numbers
from gradnas.randomness import seed_for, seeded


class NoPatternsError(ValueError):
    """A network in which no ReLU runs."""


RELUS = {F.relu, F.relu6, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_}


@dataclass(frozen=True)
class Swap:
    """The number of different patterns of activation: SWAP.

    The signs of the outputs of all ReLUs with maps as inputs (of a network that has none, of all
    its ReLUs), for S examples, are a table of zeros and ones of S rows and V columns, one for each
    unit; the score is the number of distinct columns, at most the smaller of V and 2^S. It is the
    mean over `repeats` drawings of the weights from N(0, 1), with the statistics of the batch in
    every BatchNorm.

    Cost: `repeats` forward passes of a few examples.

    Args:
        repeats: drawings of weights.
        mean, spread: where both are given, the score times `exp(-(weights in thousands - mean)^2 /
            spread)`, which keeps networks near a size.
        seed: of the weights.

    Source: Peng, Song, Fayek, Ciesielski, Chang, "SWAP-NAS", ICLR 2024 (arXiv 2403.04161), eq. 3, 4
    and 6, with the settings of the authors' code (16 examples, 32 drawings). Where it differs: a
    ReLU6 counts as well, and what is called as a function.

    Raises:
        ValueError: fewer repeats than 1, one of mean and spread alone; at a call, more than 62
            examples, a network without such ReLUs.
    """

    repeats: int = 32
    mean: float | None = None
    spread: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ValueError(f"repeats must be at least 1, not {self.repeats}")
        if (self.mean is None) != (self.spread is None):
            raise ValueError("mean and spread belong together: give both, or none")
        check_numbers(self)

    def score(self, network: nn.Module, call: Callable[[nn.Module], object]) -> float:
        """Of a network, which is afterwards as it was; the larger the better.

        Args:
            call: runs it on S examples.
        """
        scores = self.scores(network, call)
        score = sum(scores) / len(scores)
        if self.mean is not None and self.spread is not None:
            thousands = sum(p.numel() for p in network.parameters()) / 1000.0
            score *= math.exp(-((thousands - self.mean) ** 2) / self.spread)
        return score

    @torch.no_grad()
    def scores(self, network: nn.Module, call: Callable[[nn.Module], object]) -> list[float]:
        """For each drawing of the weights the number of patterns, whatever the size."""
        state = {name: value.clone() for name, value in network.state_dict().items()}
        modes = [(module, module.training) for module in network.modules()]
        found = []
        try:
            network.train()
            for repeat in range(self.repeats):
                with seeded(seed_for(self.seed, repeat)):
                    _draw_weights(network)
                    found.append(float(distinct_columns(_signs(network, call))))
        finally:
            network.load_state_dict(state)
            for module, mode in modes:
                module.training = mode
        return found


def _draw_weights(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, (_ConvNd, nn.Linear)):
            module.weight.normal_()
            if module.bias is not None:
                module.bias.zero_()
        elif isinstance(module, _BatchNorm):
            module.reset_parameters()


class _Signs(TorchFunctionMode):
    """Sees every ReLU that runs, of a module or called as a function.

    Attributes:
        of_maps, of_others: whether each unit is active for each example, `(S, V)`, of each ReLU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_maps: list[Tensor] = []
        self.of_others: list[Tensor] = []

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        output = func(*args, **(kwargs or {}))
        if func in RELUS or (func is F.hardtanh and _least(*args, **(kwargs or {})) == 0):
            seen = self.of_maps if output.dim() == 4 else self.of_others
            seen.append((output > 0).flatten(1))
        return output


def _least(x: Tensor, min_val: float = -1.0, *others: Any, **named: Any) -> float:
    """Of what `hardtanh` gives, which a ReLU6 is a case of; its arguments, as they stand."""
    del x, others, named
    return min_val


def _signs(network: nn.Module, call: Callable[[nn.Module], object]) -> Tensor:
    """Whether each unit is active for each example, `(S, V)`."""
    with _Signs() as seen:
        call(network)
    if not seen.of_maps and not seen.of_others:
        raise NoPatternsError(
            f"Swap counts the patterns of ReLU and ReLU6, and {type(network).__name__} runs none"
        )
    return torch.cat(seen.of_maps or seen.of_others, dim=1)


def distinct_columns(signs_SV: Tensor) -> int:
    """The number of different columns of a table of zeros and ones.

    Raises:
        ValueError: more rows than a whole number of 64 bits holds.
    """
    S = len(signs_SV)
    if S > 62:
        raise ValueError(f"patterns are counted for at most 62 examples, not {S}")
    places_S = 2 ** torch.arange(S, device=signs_SV.device)
    codes_V = (signs_SV.long() * places_S.unsqueeze(1)).sum(0)
    return int(torch.unique(codes_V).numel())
