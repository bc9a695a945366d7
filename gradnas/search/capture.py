"""A search step that is recorded once and replayed.

On small GPU kernels, launching takes longer than computing. The whole bilevel step (architecture
gradient of first or second order, Adam on the alphas, weight gradient, clipping, SGD) works on
tensors that stay where they are and asks the device for no value, so that one CUDA graph holds it.
What changes between steps goes in by copying: the two batches, the learning rate, the bias
corrections of Adam.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.gradients import FirstOrder, Unrolled
from gradnas.gradients.base import CLIP_EPS, norm
from gradnas.precision import cuda_products
from gradnas.search.bound_net import BoundNet, NetLoss, StepReport
from gradnas.search.search import Search

Batch = tuple[Tensor, ...]
Parts = dict[str, Tensor]
WARM_UP_STEPS = 3  # on a stream of their own, before the recording, as torch asks for


@dataclass(frozen=True)
class _Outcome:
    """Tensors that the program writes; a replay writes the same ones again.

    Attributes:
        finite: a boolean scalar, whether every loss and gradient is a number.
        valid_loss: None in the program without a step of the alphas.
    """

    finite: Tensor
    train_loss: Tensor
    train_parts: Parts
    valid_loss: Tensor | None
    valid_parts: Parts


Program = Callable[[], _Outcome]


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

    A program holds tensors and not names. Where they are no longer those of the search (after
    `search.load_state_dict`, or where the network was moved), a step is refused: make another.

    Raises:
        ValueError: what cannot be captured, with the reason.
    """

    def __init__(
        self, search: Search, loss: Callable[..., tuple[Tensor, Parts]], capture: bool = True
    ) -> None:
        check_capture(search, capture)
        self.search = search
        self.loss = loss
        self.capture = capture
        self._inputs: list[Tensor] = []  # of the train batch, then of the validation batch
        self._num_train = 0
        # Two programs: of a step that the alphas take part in (True), and of one of the weights.
        self._programs: dict[bool, Program] = {}

        # Numbers that change from step to step. A recording keeps the value of a Python number, so
        # they are tensors that are filled before each replay.
        like = next(iter(search.params.values()))
        zero = torch.zeros((), device=like.device, dtype=like.dtype)
        self._lr = zero.clone()
        self._alpha_rate = zero.clone()
        self._alpha_scale = zero.clone()
        self._weights_of_terms = [zero.clone() for _ in search.terms.terms]

        # First the states that the optimisers would make in their first step, so that the list of
        # all tensors that a step changes is complete.
        self._make_states()
        self._state = self._all_state()
        self._backup = [t.detach().clone() for t in self._state]
        self._recorded_places = self._places()

    def fits(self, train_batch: Batch, valid_batch: Batch) -> bool:
        """Whether these batches have the shapes of the first ones."""
        if not self._inputs:
            return True
        given = [t.shape for t in (*train_batch, *valid_batch)]
        return given == [t.shape for t in self._inputs]

    def __call__(self, train_batch: Batch, valid_batch: Batch) -> tuple[StepReport, Parts, Parts]:
        """One step; the report, the parts of the train loss, and those of the validation loss.

        The last are empty without a step of the alphas. The tensors are overwritten by the next
        step.

        Raises:
            ValueError: batches of another shape than the first; tensors that are no longer those of
                the search.
            NonFiniteError: a loss or gradient is NaN or infinite; the step was undone.
        """
        search = self.search
        if self._places() != self._recorded_places:
            raise ValueError(
                "this captured step holds tensors that are no longer those of its search "
                "(load_state_dict makes new ones for the optimisers): make a new CapturedStep"
            )
        if not self.fits(train_batch, valid_batch):
            raise ValueError(
                "a captured step takes batches of one shape; give others to Search.step"
            )
        if not self._inputs:
            self._inputs = [t.clone() for t in (*train_batch, *valid_batch)]
            self._num_train = len(train_batch)
        torch._foreach_copy_(self._inputs, [*train_batch, *valid_batch])

        with_alphas = search.schedule.alpha_due
        # Before a recording too: its warm-up runs real steps with these numbers.
        self._set_rates(with_alphas)
        with cuda_products(search.precision):
            if with_alphas not in self._programs:
                self._programs[with_alphas] = self._recorded(with_alphas)
            outcome = self._programs[with_alphas]()

        # The one value that the device is asked for in a step. The program has changed the state by
        # now, good or bad: whether to change it is not a question that a graph can hold.
        if not outcome.finite:
            with torch.no_grad():
                torch._foreach_copy_(self._state, self._backup)
            raise search.schedule.not_finite("a loss or a gradient is NaN or infinite")
        if with_alphas:
            # Adam's counter lies on the CPU, where no recording reaches it.
            for alpha in search.alphas.values():
                search.alpha_optimizer.state[alpha]["step"] += 1
        search.weight_step.advance()
        report = StepReport(outcome.train_loss, outcome.valid_loss)
        return report, outcome.train_parts, outcome.valid_parts

    # ---- the program -----------------------------------------------------------------------------

    def _program(self, with_alphas: bool) -> _Outcome:
        """The step on the static tensors; nothing in here reads a value of the device."""
        search = self.search
        train_batch = self._inputs[: self._num_train]
        valid_batch = self._inputs[self._num_train :]
        train_parts: Parts = {}
        valid_parts: Parts = {}

        torch._foreach_copy_(self._backup, [t.detach() for t in self._state])
        checked: list[Tensor] = []
        valid_loss = None
        if with_alphas:
            inner = None
            if search.gradient.needs_inner_step:
                inner = search.weight_step.inner_step(search.gradient)
                # The rate of the schedule goes in through the tensor that each step fills.
                inner = replace(inner, lr=self._lr)  # type: ignore[bad-argument-type]  # a tensor of one number
            grads, valid_loss = search.alpha_step.gradient(
                self._loss_on(train_batch, train_parts),
                self._loss_on(valid_batch, valid_parts),
                {},  # no noise: what samples is refused
                inner,
                self._weights_of_terms,
            )
            checked += [norm(list(grads.values())), valid_loss]
            self._step_alphas([grads[name] for name in search.alphas])

        # The parts of the train loss that an unrolled step saw are replaced by those of this pass.
        train_loss, params, weight_grads = search.weight_step.gradient(
            self._loss_on(train_batch, train_parts)
        )
        size = norm(weight_grads)
        checked += [size, train_loss]
        self._step_weights(params, weight_grads, size)
        # One answer for all of them, and so one question to the device after the replay.
        finite = torch.isfinite(torch.stack([t.double() for t in checked])).all()
        return _Outcome(finite, train_loss, train_parts, valid_loss, valid_parts)

    def _loss_on(self, batch: list[Tensor], parts: Parts) -> NetLoss:
        """The loss on one of the static batches; puts the parts of the last call in `parts`."""

        def evaluate(net: BoundNet) -> Tensor:
            total, parts_of_loss = self.loss(net, *batch)
            parts.clear()
            parts.update(parts_of_loss)
            return total

        return evaluate

    @torch.no_grad()
    def _step_weights(self, params: list[Any], grads: list[Tensor], size: Tensor) -> None:
        """SGD as in torch, with clipping as in `nn.utils.clip_grad_norm_`.

        Not torch's own: there the learning rate is a Python number, and clipping needs `p.grad`.
        """
        optimizer = self.search.weight_optimizer
        group = optimizer.param_groups[0]
        clip_norm = self.search.weight_step.clip_norm
        if clip_norm is not None:
            factor = torch.clamp(clip_norm / (size + CLIP_EPS), max=1.0)
            grads = list(torch._foreach_mul(grads, factor))
        # After the clipping, as in torch: the decay is no part of the norm that is clipped.
        if group["weight_decay"]:
            grads = list(torch._foreach_add(grads, params, alpha=group["weight_decay"]))
        if group["momentum"]:
            buffers = [optimizer.state[p]["momentum_buffer"] for p in params]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, grads)
            if group["nesterov"]:
                grads = list(torch._foreach_add(grads, buffers, alpha=group["momentum"]))
            else:
                grads = buffers
        torch._foreach_sub_(params, torch._foreach_mul(grads, self._lr))

    @torch.no_grad()
    def _step_alphas(self, grads: list[Tensor]) -> None:
        """Adam as in torch; its bias corrections are in two tensors."""
        optimizer = self.search.alpha_optimizer
        group = optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        decay = group["weight_decay"]
        for alpha, grad in zip(self.search.alphas.values(), grads, strict=True):
            state = optimizer.state[alpha]
            grad = grad + decay * alpha
            state["exp_avg"].lerp_(grad, 1.0 - beta1)
            state["exp_avg_sq"].mul_(beta2).addcmul_(grad, grad, value=1.0 - beta2)
            # lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t), the parts that depend on the step t, are
            # the two tensors.
            root = state["exp_avg_sq"].sqrt() * self._alpha_scale + group["eps"]
            alpha.sub_(self._alpha_rate * state["exp_avg"] / root)

    def _set_rates(self, with_alphas: bool) -> None:
        """Fill in the numbers of the coming step."""
        search = self.search
        self._lr.fill_(search.weight_optimizer.param_groups[0]["lr"])
        if not with_alphas:
            return
        for place, weight in zip(self._weights_of_terms, search.terms.weights(), strict=True):
            place.fill_(weight)
        optimizer = search.alpha_optimizer
        group = optimizer.param_groups[0]
        beta1, beta2 = group["betas"]
        first = next(iter(search.alphas.values()))
        step = optimizer.state[first]["step"].item() + 1.0  # on the CPU
        # Adam divides m by 1 - beta1^t, and v by 1 - beta2^t under the root.
        self._alpha_rate.fill_(group["lr"] / (1.0 - beta1**step))
        self._alpha_scale.fill_(1.0 / math.sqrt(1.0 - beta2**step))

    # ---- the state and its recording -------------------------------------------------------------

    def _make_states(self) -> None:
        """What the optimisers would make in their first step.

        A momentum of 0 that decays is 0, so the first step is the one that torch makes without it.
        """
        search = self.search
        if search.weight_optimizer.param_groups[0]["momentum"]:
            for p in search.params.values():
                state = search.weight_optimizer.state[p]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(p)
        for alpha in search.alphas.values():
            state = search.alpha_optimizer.state[alpha]
            if not state:
                state["step"] = torch.tensor(0.0, device="cpu")
                state["exp_avg"] = torch.zeros_like(alpha)
                state["exp_avg_sq"] = torch.zeros_like(alpha)

    def _all_state(self) -> list[Tensor]:
        """Every tensor that a step changes on the device."""
        search = self.search
        changed: list[Tensor] = [*search.supernet.parameters(), *search.supernet.buffers()]
        for optimizer in (search.weight_optimizer, search.alpha_optimizer):
            for state in optimizer.state.values():
                for name, value in state.items():
                    if isinstance(value, Tensor) and name != "step":
                        changed.append(value)
        return [t.detach() for t in changed]

    def _places(self) -> list[int]:
        """Where the weights, the alphas and the state of their optimisers lie."""
        search = self.search
        places = []
        for optimizer, owned in (
            (search.weight_optimizer, search.params),
            (search.alpha_optimizer, search.alphas),
        ):
            for p in owned.values():
                places.append(p.data_ptr())
                for name, value in optimizer.state[p].items():
                    if isinstance(value, Tensor) and name != "step":
                        places.append(value.data_ptr())
        return places

    def _recorded(self, with_alphas: bool) -> Program:
        """The program as a function that runs it or, on CUDA, replays its recording."""
        if not self.capture:
            return lambda: self._program(with_alphas)

        # The steps of the warm-up are real ones on real tensors, and are undone.
        before = [t.clone() for t in self._state]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP_STEPS):
                self._program(with_alphas)
        torch.cuda.current_stream().wait_stream(stream)
        torch._foreach_copy_(self._state, before)

        # Recording carries nothing out: the first replay is the step itself.
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outcome = self._program(with_alphas)

        def replay() -> _Outcome:
            graph.replay()
            return outcome

        return replay


def check_capture(search: Search, capture: bool = True) -> None:
    """ValueError for what a recording cannot hold.

    Also where there is no CUDA device, if it is to be captured.
    """
    reason = _reason_against(search, capture)
    if reason is not None:
        raise ValueError(f"this search step cannot be captured: {reason}; use Search.step")


def _reason_against(search: Search, capture: bool) -> str | None:
    gradient = search.gradient
    relaxation = search.relaxation
    if capture and search.device.type != "cuda":
        return f"a CUDA graph needs a CUDA device, not {search.device}"
    if relaxation.noise(search.alphas, torch.Generator()):
        return (
            f"{relaxation} draws other operations in every step, and a recording has fixed shapes"
        )
    if relaxation.needs_progress or relaxation.corrects_updates:
        return f"{relaxation} changes over the search"
    if search.passes.steadying:
        return "stabilizers change what is mixed from step to step"
    if search.selecting is not None:
        return f"the rounds of {type(search.selection).__name__} change what is mixed"
    # Exactly FirstOrder: a class made from it may read values of the device.
    is_finite_difference = isinstance(gradient, Unrolled) and gradient.mode == "finite_difference"
    if type(gradient) is not FirstOrder and not is_finite_difference:
        return f"{gradient} is not FirstOrder() or Unrolled(mode='finite_difference')"
    if search.weight_step.settings is None:
        return "the weights need the SGD of WeightOptimizer"
    if search.cost is not None:
        return "a cost of the architecture is kept outside of the device"
    if distributed.world() > 1:
        return "several processes average their gradients"
    if getattr(search.supernet, "checkpoint_cells", False):
        return "checkpoint_cells saves and restores random states"
    for module in search.supernet.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return "dropout draws its masks anew in every pass"
    return None
