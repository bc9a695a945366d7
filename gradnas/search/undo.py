"""Everything that a step changes before its weights move, put back where the step cannot be made.

A loss that is NaN shows only after the network has run: its running statistics, the random state
and (the alphas go first) the alphas with their optimiser have moved by then.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gradnas.objectives.cost import CostState
from gradnas.randomness import random_state, set_random_state
from gradnas.search.alpha_step import AlphaStep
from gradnas.search.own_state import PutBack, is_own

Attributes = dict[str, Any]


class Undo:
    """The state before a step: `remember()` before it, a call to go back.

    Copied are the buffers, the alphas and what their optimiser keeps, which are small beside the
    weights. The weights are not: they move last, when nothing can fail any more. What a user's own
    module keeps in plain attributes (a counter, a hidden state) is set back to the same objects.

    Args:
        alpha_step: with its passes, its optimiser, its rewards and its spending.
    """

    def __init__(self, alpha_step: AlphaStep) -> None:
        self.alpha_step = alpha_step
        self.passes = alpha_step.passes
        self._buffer_holders: list[dict[str, Tensor | None]] = []
        self._own_modules: list[nn.Module] = []
        for module in self.passes.supernet.modules():
            if module._buffers:
                self._buffer_holders.append(module._buffers)
            if is_own(type(module)):
                self._own_modules.append(module)

        self._buffers: list[tuple[dict[str, Tensor | None], dict[str, Tensor | None]]] = []
        self._attributes: list[tuple[Attributes, Attributes]] = []
        self._optimizer_state: dict[Tensor, dict[str, Any]] = {}
        self._tensors: list[Tensor] = []
        self._copies: list[Tensor] = []
        self._forms: list[tuple[Any, ...]] = []
        self._groups: list[list[int]] = []  # places of tensors that are copied in one launch
        self._random_state: dict[str, Tensor] = {}
        self._numbers: list[PutBack] = []
        self._baseline: float | None = None
        self._cost_state: CostState | None = None

    def remember(self) -> None:
        """Take note of everything as it is now."""
        self._buffers = [(holder, dict(holder)) for holder in self._buffer_holders]
        self._attributes = [(vars(own), dict(vars(own))) for own in self._own_modules]
        tensors: list[Tensor] = []
        for _, held in self._buffers:
            tensors += [buffer for buffer in held.values() if buffer is not None]
        tensors += self.passes.alphas.values()
        self._optimizer_state = {}
        for alpha, state in self.alpha_step.optimizer.state.items():
            self._optimizer_state[alpha] = dict(state)
            tensors += [value for value in state.values() if isinstance(value, Tensor)]
        self._copy(tensors)

        self._random_state = random_state(self.passes.device)
        self._numbers = self.passes.own_state.numbers(self.passes.is_watched)
        if self.alpha_step.rewards is not None:
            self._baseline = self.alpha_step.rewards.baseline
        if self.alpha_step.spending is not None:
            self._cost_state = self.alpha_step.spending.state

    @torch.no_grad()
    def _copy(self, tensors: list[Tensor]) -> None:
        # Into the copies of the last step, where they still fit: no memory is asked for. (The same
        # object may have another type or device by now: `net.double()`.)
        forms = [(id(tensor), tensor.dtype, tensor.device) for tensor in tensors]
        self._tensors = tensors
        if forms != self._forms:
            self._forms = forms
            self._copies = [torch.empty_like(tensor) for tensor in tensors]
            groups: dict[Any, list[int]] = {}
            for place, tensor in enumerate(tensors):
                groups.setdefault((tensor.dtype, tensor.device), []).append(place)
            self._groups = list(groups.values())
        for group in self._groups:
            copies = [self._copies[place] for place in group]
            torch._foreach_copy_(copies, [tensors[place] for place in group])

    @torch.no_grad()
    def __call__(self) -> None:
        """Put everything back."""
        # The same objects first (a forward pass may set a buffer anew), then their values.
        for now, before in [*self._buffers, *self._attributes]:
            now.clear()
            now.update(before)
        optimizer = self.alpha_step.optimizer
        for alpha in list(optimizer.state):
            if alpha in self._optimizer_state:
                optimizer.state[alpha] = self._optimizer_state[alpha]
            else:
                del optimizer.state[alpha]
        for tensor, copy in zip(self._tensors, self._copies, strict=True):
            # A view whose entries share memory (`expand`) cannot be written, nor has it been.
            if not torch.equal(tensor, copy):
                tensor.copy_(copy)

        set_random_state(self._random_state, self.passes.device)
        for back in self._numbers:
            back()
        if self.alpha_step.rewards is not None:
            self.alpha_step.rewards.baseline = self._baseline
        if self._cost_state is not None:
            assert self.alpha_step.spending is not None
            self.alpha_step.spending.state = self._cost_state
