"""A search step that is recorded once and replayed: on small GPU kernels, launching takes longer
than computing.

The whole bilevel step (architecture gradient of first or second order, Adam on the alphas, weight
gradient, clipping, SGD) works on tensors that stay where they are and asks the device for no value,
so that one CUDA graph holds it. What changes between steps goes in by copying: the two batches, the
learning rate, the bias corrections of Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.gradients import FirstOrder, Unrolled
from gradnas.gradients.base import CLIP_EPS, norm
from gradnas.precision import cuda_products
from gradnas.relaxations import Relaxation
from gradnas.search.bound_net import BoundNet, NetLoss, StepReport
from gradnas.search.search import Search

Batch = tuple[Tensor, ...]
Parts = dict[str, Tensor]
WARM_UP_STEPS = 3  # on a stream of their own, before the recording, as torch asks for


class CapturedStep:
    """`Search.step` for batches of one shape, replayed from a CUDA graph.

    Args:
        search: a search with dense mixing weights (`Softmax`), SGD from `WeightOptimizer`, and
            `FirstOrder` or `Unrolled(mode="finite_difference")`.
        loss: `(net, *batch) -> (scalar loss, named parts)`; called twice in recording and never
            again.
        capture: False runs the same program without a graph, on any device (slower than
            `Search.step`).

    The optimisers' states are updated in place, so `search.state_dict()` stays the whole state.
    Before each step the state is copied, and put back where a loss or gradient is not finite.

    Raises:
        ValueError: what cannot be captured, with the reason.
    """

    def __init__(
        self, search: Search, loss: Callable[..., tuple[Tensor, Parts]], capture: bool = True
    ) -> None:
        check_capture(search, capture)
        self.search, self.loss, self.capture = search, loss, capture
        self._inputs: list[Tensor] = []  # of the train batch, then of the validation batch
        self._num_train = 0
        self._programs: dict[
            bool, Callable[[], dict[str, Any]]
        ] = {}  # whether the alphas take a step -> replay
        like = next(iter(search.params.values()))
        self._lr, self._alpha_rate, self._alpha_scale = (
            torch.zeros((), device=like.device, dtype=like.dtype) for _ in "123"
        )
        self._make_states()
        self._state = self._all_state()
        self._backup = [t.detach().clone() for t in self._state]

    def fits(self, train_batch: Batch, valid_batch: Batch) -> bool:
        """Whether these batches have the shapes of the first ones."""
        shapes = [t.shape for t in (*train_batch, *valid_batch)]
        return not self._inputs or shapes == [t.shape for t in self._inputs]

    def __call__(self, train_batch: Batch, valid_batch: Batch) -> tuple[StepReport, Parts, Parts]:
        """One step; the report, the parts of the train loss and (empty without a step of the
        alphas) of the other.

        The tensors are overwritten by the next step.

        Raises:
            ValueError: batches of another shape than the first.
            NonFiniteError: a loss or gradient is NaN or infinite; the step was undone.
        """
        search = self.search
        if not self.fits(train_batch, valid_batch):
            raise ValueError(
                "a captured step takes batches of one shape; give others to Search.step"
            )
        if not self._inputs:
            self._inputs = [t.clone() for t in (*train_batch, *valid_batch)]
            self._num_train = len(train_batch)
        torch._foreach_copy_(self._inputs, [*train_batch, *valid_batch])
        with_alphas = search.schedule.alpha_due
        self._set_rates(with_alphas)
        with cuda_products(search.precision):
            if with_alphas not in self._programs:
                self._programs[with_alphas] = self._recorded(with_alphas)
            found = self._programs[with_alphas]()
        if not found["finite"]:
            with torch.no_grad():
                torch._foreach_copy_(self._state, self._backup)
            raise search.schedule.not_finite("a loss or a gradient is NaN or infinite")
        if with_alphas:
            for alpha in search.alphas.values():
                search.alpha_optimizer.state[alpha]["step"] += 1
        search.weight_step.advance()
        return (
            StepReport(found["train_loss"], found.get("valid_loss")),
            found["train_parts"],
            found["valid_parts"],
        )

    # ---- the program -----------------------------------------------------------------------------

    def _program(self, with_alphas: bool) -> dict[str, Any]:
        """The step on the static tensors; nothing in here reads a value of the device."""
        search, parts = self.search, {"train": {}, "valid": {}}
        batches = {
            "train": self._inputs[: self._num_train],
            "valid": self._inputs[self._num_train :],
        }

        def loss_on(name: str) -> NetLoss:
            def evaluate(net: BoundNet) -> Tensor:
                total, parts[name] = self.loss(net, *batches[name])
                return total

            return evaluate

        torch._foreach_copy_(self._backup, [t.detach() for t in self._state])
        found: dict[str, Any] = {}
        checked: list[Tensor] = []
        if with_alphas:
            inner = None
            if search.gradient.needs_inner_step:
                inner = replace(search.weight_step.inner_step(search.gradient), lr=self._lr)  # type: ignore[bad-argument-type]  # a tensor of one number
            grads, found["valid_loss"] = search.alpha_step.gradient(
                loss_on("train"), loss_on("valid"), {}, inner
            )
            checked += [norm(list(grads.values())), found["valid_loss"]]
            self._step_alphas([grads[name] for name in search.alphas])
        found["train_loss"], params, grads = search.weight_step.gradient(loss_on("train"))
        checked += [norm(grads), found["train_loss"]]
        self._step_weights(params, grads, checked[-2])
        found["finite"] = torch.isfinite(torch.stack([t.double() for t in checked])).all()
        return {**found, "train_parts": parts["train"], "valid_parts": parts["valid"]}

    @torch.no_grad()
    def _step_weights(self, params: list[Any], grads: list[Tensor], size: Tensor) -> None:
        """SGD as in torch, with clipping as in `nn.utils.clip_grad_norm_`; the learning rate is a
        tensor."""
        group = self.search.weight_optimizer.param_groups[0]
        if self.search.weight_step.clip_norm is not None:
            grads = list(
                torch._foreach_mul(
                    grads,
                    torch.clamp(self.search.weight_step.clip_norm / (size + CLIP_EPS), max=1.0),
                )
            )
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        if group["momentum"]:
            buffers = [self.search.weight_optimizer.state[p]["momentum_buffer"] for p in params]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads)
            grads = (
                list(torch._foreach_add(grads, buffers, alpha=group["momentum"]))
                if group["nesterov"]
                else buffers
            )
        torch._foreach_sub_(params, torch._foreach_mul(grads, self._lr))

    @torch.no_grad()
    def _step_alphas(self, grads: list[Tensor]) -> None:
        """Adam as in torch; its bias corrections are in two tensors."""
        optimizer = self.search.alpha_optimizer
        group, alphas = optimizer.param_groups[0], list(self.search.alphas.values())
        (beta1, beta2), decay = group["betas"], group["weight_decay"]
        for alpha, g in zip(alphas, grads, strict=True):
            state = optimizer.state[alpha]
            g = g + decay * alpha
            state["exp_avg"].lerp_(g, 1.0 - beta1)
            state["exp_avg_sq"].mul_(beta2).addcmul_(g, g, value=1.0 - beta2)
            alpha.sub_(
                self._alpha_rate
                * state["exp_avg"]
                / (state["exp_avg_sq"].sqrt() * self._alpha_scale + group["eps"])
            )

    def _set_rates(self, with_alphas: bool) -> None:
        search = self.search
        self._lr.fill_(search.weight_optimizer.param_groups[0]["lr"])
        if with_alphas:
            group = search.alpha_optimizer.param_groups[0]
            step = (
                search.alpha_optimizer.state[next(iter(search.alphas.values()))]["step"].item()
                + 1.0
            )  # on the CPU
            self._alpha_rate.fill_(group["lr"] / (1.0 - group["betas"][0] ** step))
            self._alpha_scale.fill_(1.0 / math.sqrt(1.0 - group["betas"][1] ** step))

    # ---- the state and its recording -------------------------------------------------------------

    def _make_states(self) -> None:
        """What the optimisers would make in their first step."""
        search = self.search
        if search.weight_optimizer.param_groups[0]["momentum"]:
            for p in search.params.values():
                state = search.weight_optimizer.state[p]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(p)
        for alpha in search.alphas.values():
            state = search.alpha_optimizer.state[alpha]
            if not state:
                state["step"] = torch.tensor(0.0)
                state["exp_avg"], state["exp_avg_sq"] = (
                    torch.zeros_like(alpha),
                    torch.zeros_like(alpha),
                )

    def _all_state(self) -> list[Tensor]:
        search = self.search
        found: list[Tensor] = [*search.supernet.parameters(), *search.supernet.buffers()]
        for optimizer in (search.weight_optimizer, search.alpha_optimizer):
            for state in optimizer.state.values():
                found += [
                    t for name, t in state.items() if isinstance(t, Tensor) and name != "step"
                ]
        return [t.detach() for t in found]

    def _recorded(self, with_alphas: bool) -> Callable[[], dict[str, Any]]:
        """The program as a function that runs it or, on CUDA, replays its recording."""
        if not self.capture:
            return lambda: self._program(with_alphas)
        before = [t.clone() for t in self._state]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._program(with_alphas)
        torch.cuda.current_stream().wait_stream(stream)
        torch._foreach_copy_(self._state, before)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            found = self._program(with_alphas)

        def replay() -> dict[str, Any]:
            graph.replay()
            return found

        return replay


def check_capture(search: Search, capture: bool = True) -> None:
    """ValueError for what a recording cannot hold; also where there is no CUDA device, if it is to
    be captured."""
    gradient, relaxation = search.gradient, search.relaxation
    reasons = {
        f"a CUDA graph needs a CUDA device, not {search.device}": capture
        and search.device.type != "cuda",
        f"{relaxation} draws other operations in every step, and a recording has fixed shapes": bool(
            relaxation.noise(search.alphas, torch.Generator())
        ),
        f"{relaxation} changes over the search": relaxation.needs_progress
        or type(relaxation).after_update is not Relaxation.after_update,
        f"{gradient} is not FirstOrder() or Unrolled(mode='finite_difference')": not (
            type(gradient) is FirstOrder
            or (isinstance(gradient, Unrolled) and gradient.mode == "finite_difference")
        ),
        "the weights need the SGD of WeightOptimizer": search.weight_step.settings is None,
        "a cost of the architecture is kept outside of the device": search.cost is not None,
        "several processes average their gradients": distributed.world() > 1,
        "checkpoint_cells saves and restores random states": getattr(
            search.supernet, "checkpoint_cells", False
        ),
        "dropout draws its masks anew in every pass": any(
            isinstance(m, nn.modules.dropout._DropoutNd) and m.p > 0
            for m in search.supernet.modules()
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise ValueError(f"this search step cannot be captured: {reason}; use Search.step")
