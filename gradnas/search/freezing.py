"""Operations of a search that stop learning, by the gradients of the two losses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from gradnas import distributed
from gradnas.gradients import ArchitectureGradient
from gradnas.gradients.base import Tensors, leaves, same_randomness
from gradnas.runs import State
from gradnas.search.bound_net import NetLoss
from gradnas.search.checks import scalar
from gradnas.search.passes import Passes, times
from gradnas.search.sampling import ALPHA_NOISE
from gradnas.spaces.base import Supernet
from gradnas.stabilizers import OperationFreezing, Stabilizer


@dataclass(frozen=True)
class _Standing:
    """What is remembered between steps; replaced as a whole, so that a step can be undone.

    Attributes:
        frozen: operations.
        sums, counts: of the similarities of a window, by operation.
        last: the gradient of the last step of the weights, by the name of the weight.
    """

    frozen: frozenset[str] = frozenset()
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    last: Tensors = field(default_factory=dict)


class Freezing:
    """Watches the gradients of operations, and freezes some.

    Args:
        setting: how they are compared.
        supernet: which says what weights an operation has.

    Raises:
        ValueError: its operations have none; the gradient samples networks.
    """

    def __init__(
        self,
        setting: OperationFreezing,
        supernet: Supernet[Any],
        passes: Passes,
        gradient: ArchitectureGradient,
    ) -> None:
        self.setting = setting
        self.passes = passes
        names = {id(p): name for name, p in passes.params.items()}
        self.weights: dict[str, list[str]] = {}
        for label, parameters in supernet.weights_of_operations().items():
            own = [names[id(p)] for p in parameters if id(p) in names]
            if own:
                self.weights[label] = own
        if not self.weights:
            raise ValueError(
                f"OperationFreezing freezes the weights of operations, and those of a "
                f"{type(supernet).__name__} have none of their own: leave it out"
            )
        if gradient.num_samples:
            raise ValueError(
                "OperationFreezing compares the gradients of both losses, and "
                f"{type(gradient).__name__} differentiates no validation loss: use FirstOrder()"
            )
        if passes.schedule.alphas_wait:
            raise ValueError(
                "OperationFreezing looks at both losses in the steps of the alphas, and there are "
                "none with learn_alphas=False: leave one of the two out"
            )
        self._standing = _Standing()
        self._before = self._standing

    @property
    def frozen(self) -> list[str]:
        """The operations that have stopped learning, in words."""
        return [label for label in self.weights if label in self._standing.frozen]

    def before_alphas(self, valid_loss: NetLoss) -> bool:
        """Compare the gradients, before a step of the alphas; freeze for the coming steps.

        Returns:
            Whether the network was run.
        """
        now = self._standing
        watched: list[str] = []
        for label, names in self.weights.items():
            if label not in now.frozen and all(name in now.last for name in names):
                watched += names
        if not watched:
            return False
        valid = self._gradient(valid_loss, list(dict.fromkeys(watched)))
        sums = dict(now.sums)
        counts = dict(now.counts)
        frozen = set(now.frozen)
        for label, names in self.weights.items():
            has_both = all(name in now.last and name in valid for name in names)
            if label in frozen or not has_both:
                continue
            train_grads = [now.last[name] for name in names]
            valid_grads = [valid[name] for name in names]
            value = self.setting.similarity(train_grads, valid_grads).item()
            sums[label] = sums.get(label, 0.0) + value
            counts[label] = counts.get(label, 0) + 1
            if counts[label] < self.setting.steps:
                continue
            if sums[label] / self.setting.window < self.setting.least:
                frozen.add(label)
            sums[label] = 0.0
            counts[label] = 0
        self._standing = replace(now, frozen=frozenset(frozen), sums=sums, counts=counts)
        self._apply()
        return True

    def before_weights(self) -> None:
        """Take note of the gradients that the weights are to move by."""
        last: Tensors = {}
        for names in self.weights.values():
            for name in names:
                gradient = self.passes.params[name].grad
                if gradient is not None:
                    last[name] = gradient.detach()
        self._standing = replace(self._standing, last=last)

    def undo(self) -> None:
        """Back to before the step of the alphas."""
        self._standing = self._before
        self._apply()

    def begin(self) -> None:
        """A step begins."""
        self._before = self._standing

    def _apply(self) -> None:
        """A weight is frozen where all operations that have it are."""
        learning: set[str] = set()
        for label, names in self.weights.items():
            if label not in self._standing.frozen:
                learning.update(names)
        every = {name for names in self.weights.values() for name in names}
        self.passes.frozen = frozenset(every - learning)

    def _gradient(self, valid_loss: NetLoss, names: list[str]) -> Tensors:
        """Of the validation loss in some weights, as the coming step of the alphas sees it."""
        passes = self.passes
        params = dict(passes.params)
        params |= leaves({name: passes.params[name] for name in names})
        alphas = leaves(passes.alphas, requires_grad=False)
        with same_randomness([*params.values(), *alphas.values()]):
            evaluate = passes.closure(
                lambda net: times(passes.factors.valid, scalar(valid_loss(net), "validation")),
                passes.noise(ALPHA_NOISE),
            )
            loss = evaluate(params, alphas)
            if not loss.requires_grad:
                return {}
            found = torch.autograd.grad(loss, [params[name] for name in names], allow_unused=True)
        present = [(name, g) for name, g in zip(names, found, strict=True) if g is not None]
        grads: list[Tensor] = [g for _, g in present]
        if distributed.world() > 1:
            grads = distributed.mean(grads)
        return {name: g for (name, _), g in zip(present, grads, strict=True)}

    # ---- state -----------------------------------------------------------------------------------

    def state_dict(self) -> State:
        """Tensors and plain values."""
        now = self._standing
        return {
            "frozen": sorted(now.frozen),
            "sums": dict(now.sums),
            "counts": dict(now.counts),
            "last": dict(now.last),
        }

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        device = self.passes.device
        last = {name: tensor.to(device) for name, tensor in state["last"].items()}
        self._standing = _Standing(
            frozenset(state["frozen"]), dict(state["sums"]), dict(state["counts"]), last
        )
        self._before = self._standing
        self._apply()


def freezing_of(
    stabilizers: Sequence[Stabilizer], passes: Passes, gradient: ArchitectureGradient
) -> Freezing | None:
    """What freezes operations in a search with these; None where none of them does."""
    found = None
    for stabilizer in stabilizers:
        if isinstance(stabilizer, OperationFreezing):
            found = Freezing(stabilizer, passes.supernet, passes, gradient)
    return found
