"""A whole cell of a derived network as one operation of autograd.

Legend: B batch, C channels of a state, H height, W width, I channels of an input, O channels of
the output (those of the concatenated states together).

What this saves beside the runs one by one is memory traffic: nodes are written where the
concatenation wants them, the operations of a node are added up as they leave their BatchNorms, the
two input states are never written at all (their readers apply scale and shift), and the gradients
of a state are added up by the kernels that make them. Of a cell are kept its inputs, what enters
each BatchNorm, and the nodes that other nodes read.

The second input is also an output: the next cell reads it from there, so that both gradients of a
map meet in a kernel. Where the backward itself is to be differentiated (`create_graph`), it steps
aside for autograd on `plain_cell`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas.spaces.blocks.kernels import (
    NO_OTHERS,
    NONE,
    Kernels,
    Last,
    Others,
    Term,
    is_halving,
    kernels,
    pixel_step,
)
from gradnas.spaces.blocks.run import (
    Stages,
    backward_stages,
    channels_last,
    forward_stages,
    kernels_for,
    num_inputs,
    num_outputs,
    plain_run,
    size_after,
)
from gradnas.spaces.native import differentiable, has_memory


class Operation(NamedTuple):
    """One operation of a node.

    Attributes:
        source: the state that it reads.
        kind: a run of stages, the identity, or the largest of 3x3 pixels.
        stages: of a run.
        stride: of a pool.
        num_weights: of a run.
    """

    source: int
    kind: Literal["run", "identity", "maximum"]
    stages: Stages = ()
    stride: int = 1
    num_weights: int = 0


class Plan(NamedTuple):
    """What a cell computes.

    Attributes:
        inputs: the runs that make the first two states; their stages alone, with their number of
            weights.
        nodes: the operations of every further state.
        concat: the states that are the output; nodes, each at most once.
        channels: C.
    """

    inputs: tuple[tuple[Stages, int], tuple[Stages, int]]
    nodes: tuple[tuple[Operation, ...], ...]
    concat: tuple[int, ...]
    channels: int

    def runs(self) -> list[tuple[Stages, int]]:
        """Stages and number of weights of all runs, in the order of their weights."""
        found = list(self.inputs)
        for node in self.nodes:
            found += [(op.stages, op.num_weights) for op in node if op.kind == "run"]
        return found

    def read(self) -> set[int]:
        """States that an operation reads."""
        return {op.source for node in self.nodes for op in node}


Statistics = list[Tensor]  # `(2, C)` of each BatchNorm: mean and variance, as it keeps them
Factors = Sequence[Tensor | None]  # of all operations, in order; those of dropped paths


def fits(plan: Plan, before: Tensor, last: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether `run_cell` can compute it; what torch would refuse is for torch to refuse."""
    if before.ndim != 4 or last.ndim != 4 or before.shape[0] != last.shape[0]:
        return False
    if not has_memory(before, last, *weights) or kernels(last.dtype) is None:
        return False
    if any(t.dtype != last.dtype for t in (before, *weights)):
        return False
    sizes = []
    channels = [before.shape[1], last.shape[1]] + [plan.channels] * len(plan.runs())
    by_run = zip(plan.runs(), _parts(plan, weights), channels, strict=False)
    for (stages, _), own, inputs in by_run:
        if num_inputs(stages, own) != inputs or num_outputs(stages, own) != plan.channels:
            return False
    for x, (stages, _) in zip((before, last), plan.inputs, strict=True):
        if is_halving(stages[0]) and (x.shape[2] % 2 or x.shape[3] % 2):
            return False
        sizes.append(size_after(stages, *x.shape[2:]))
    if sizes[0] != sizes[1] or last.shape[0] * sizes[0][0] * sizes[0][1] == 1:
        return False
    return _have_one_size(plan, last.shape[0], sizes[0])


def _have_one_size(plan: Plan, B: int, first: tuple[int, int]) -> bool:
    """Whether the operations of each node agree, and all that is concatenated."""
    sizes = [first, first]
    for node in plan.nodes:
        found = set()
        for op in node:
            H, W = sizes[op.source]
            if op.kind == "run":
                if is_halving(op.stages[0]) and (H % 2 or W % 2):
                    return False
                H, W = size_after(op.stages, H, W)
                if B * H * W == 1:
                    return False
            elif op.kind == "maximum":
                H, W = (H - 1) // op.stride + 1, (W - 1) // op.stride + 1
            found.add((H, W))
        if len(found) != 1:
            return False
        sizes.append(found.pop())
    return len({sizes[j] for j in plan.concat}) == 1


def run_cell(
    plan: Plan, factors: Factors, before: Tensor, last: Tensor, weights: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Statistics]:
    """The output, the second input again, and what each BatchNorm keeps, in the order of runs.

    Args:
        weights: of all runs, in the order of `Plan.runs`, without what is missing.
    """
    statistics: Statistics = []
    # Before the operation, so that autograd sees copies that are made here.
    both = (channels_last(before), channels_last(last))
    out, again = _Cell.apply(plan, tuple(factors), statistics, *both, *weights)
    return out, again, statistics


def plain_cell(
    plan: Plan, factors: Factors, before: Tensor, last: Tensor, *weights: Tensor
) -> tuple[Tensor, Tensor]:
    """The same on torch's operations; no running statistics are changed."""
    remaining = iter(zip(plan.runs(), _parts(plan, weights), strict=True))
    states = []
    for x in (before, last):
        (stages, _), own = next(remaining)
        states.append(plain_run(stages, Last(), x, *own)[0])
    of_operation = iter(factors)
    for node in plan.nodes:
        total: Tensor | None = None
        for op in node:
            x = states[op.source]
            if op.kind == "run":
                (stages, _), own = next(remaining)
                x = plain_run(stages, Last(), x, *own)[0]
            elif op.kind == "maximum":
                x = F.max_pool2d(x, 3, op.stride, 1)
            factor_B = next(of_operation)
            if factor_B is not None:
                x = x * factor_B.view(-1, 1, 1, 1)
            total = x if total is None else total + x
        assert total is not None
        states.append(total)
    return torch.cat([states[j] for j in plan.concat], dim=1), last.view_as(last)


def _parts(plan: Plan, weights: Sequence[Any]) -> list[Sequence[Any]]:
    """The weights of each run, or what there is of each weight."""
    found = []
    at = 0
    for _, count in plan.runs():
        found.append(weights[at : at + count])
        at += count
    return found


class _State(NamedTuple):
    """A state as it lies in memory, and the BatchNorm that it has not crossed yet."""

    map_BCHW: Tensor
    norm_4C: Tensor | None


class _Ran(NamedTuple):
    """A run of the forward pass, by the places of its tensors among those that are kept."""

    maps: tuple[int, ...]
    norms: tuple[int, ...]


class _Kept:
    """Tensors that backward needs, each once."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._places: dict[int, int] = {}

    def place(self, t: Tensor) -> int:
        if id(t) not in self._places:
            self._places[id(t)] = len(self.tensors)
            self.tensors.append(t)
        return self._places[id(t)]


class _Cell(torch.autograd.Function):
    """Arguments: plan, factors, a list for statistics, the two inputs, weights.

    Gives the output and the second input.
    """

    @staticmethod
    def forward(
        ctx: Any,
        plan: Plan,
        factors: tuple[Tensor | None, ...],
        statistics: Statistics,
        before: Tensor,
        last: Tensor,
        *weights: Tensor,
    ) -> tuple[Tensor, Tensor]:
        made = _Forward(kernels_for(last), plan, factors, weights)
        out = made(before, last, statistics)
        ctx.plan = plan
        ctx.factors = factors
        ctx.ran = made.ran
        ctx.states = [made.place(state) for state in made.states]
        ctx.num_weights = len(weights)
        ctx.save_for_backward(*weights, *made.kept.tensors)
        ctx.set_materialize_grads(False)
        return out, last

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, grad_last: Tensor | None) -> tuple:
        saved = ctx.saved_tensors
        weights, kept = saved[: ctx.num_weights], saved[ctx.num_weights :]
        needs = ctx.needs_input_grad[3:]
        if grad is None:
            return None, None, None, None, grad_last, *(None for _ in weights)
        before, last = (kept[ran.maps[0]] for ran in ctx.ran[:2])
        given = [g for g in (grad, grad_last) if g is not None]
        is_plain = has_memory(*given, *saved) and all(g.dtype == last.dtype for g in given)
        if torch.is_grad_enabled() or not is_plain:
            plain = functools.partial(plain_cell, ctx.plan, ctx.factors)
            found = differentiable(plain, (before, last, *weights), needs, [grad, grad_last])
            return None, None, None, *found
        back = _Backward(kernels_for(grad), ctx, kept, weights, needs)
        return None, None, None, *back(_with_step(grad), grad_last)


def _with_step(grad: Tensor) -> Tensor:
    return channels_last(grad) if pixel_step(grad) is None else grad


class _Forward:
    """One forward pass."""

    def __init__(
        self, native: Kernels, plan: Plan, factors: Factors, weights: Sequence[Tensor]
    ) -> None:
        self._native = native
        self._plan = plan
        self._factors = iter(factors)
        self._weights = iter(_parts(plan, weights))
        self.kept = _Kept()
        self.ran: list[_Ran] = []
        self.states: list[_State] = []
        self._whole: dict[int, Tensor] = {}  # states that were written, of those with a BatchNorm
        self._pools: dict[tuple[int, int], Tensor] = {}

    def place(self, state: _State) -> tuple[int, int | None]:
        """Where a state is kept; -1 where it is not: nothing reads it in backward."""
        if not any(self.states[j] is state for j in self._plan.read()):
            return -1, None
        norm_4C = state.norm_4C
        return self.kept.place(state.map_BCHW), None if norm_4C is None else self.kept.place(
            norm_4C
        )

    def __call__(self, before: Tensor, last: Tensor, statistics: Statistics) -> Tensor:
        plan = self._plan
        for x, (stages, _) in zip((before, last), plan.inputs, strict=True):
            z, norm_4C = self._run(stages, _State(x, None), statistics)
            self.states.append(_State(z, norm_4C))
        C = plan.channels
        read = plan.read()
        out: Tensor | None = None
        for number, node in enumerate(plan.nodes, start=2):
            terms = [self._term(op, statistics) for op in node]
            slot: Tensor | None = None
            if number in plan.concat:
                if out is None:
                    B, _, H, W = terms[0].map_BCHW.shape
                    out = self._native.new_map((B, C * len(plan.concat), H, W))
                at = plan.concat.index(number) * C
                slot = out[:, at : at + C]
            if number in read or slot is None:
                y = self._native.combine(terms)
                if slot is not None:
                    self._native.combine([Term(y)], slot)
            else:
                y = self._native.combine(terms, slot)
            self.states.append(_State(y, None))
        assert out is not None
        return out

    def _run(self, stages: Stages, source: _State, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """What enters the last BatchNorm, and that."""
        weights = next(self._weights)
        found = forward_stages(self._native, stages, source.map_BCHW, weights, source.norm_4C)
        maps = tuple(self.kept.place(t) for t in found.maps)
        self.ran.append(_Ran(maps, tuple(self.kept.place(t) for t in found.norms)))
        statistics += found.statistics
        return found.maps[-1], found.norms[-1]

    def _term(self, op: Operation, statistics: Statistics) -> Term:
        source = self.states[op.source]
        last = Last(NONE, next(self._factors))
        if op.kind == "run":
            if is_halving(op.stages[0]):  # there is no kernel with a BatchNorm before it
                source = _State(self._written(op.source), None)
            return Term(*self._run(op.stages, source, statistics), last)
        if op.kind == "identity":
            return Term(source.map_BCHW, source.norm_4C, last)
        place = (op.source, op.stride)
        if place not in self._pools:
            self._pools[place] = self._native.pool(self._written(op.source), op.stride)
        return Term(self._pools[place], None, last)

    def _written(self, number: int) -> Tensor:
        state = self.states[number]
        if state.norm_4C is None:
            return state.map_BCHW
        if number not in self._whole:
            self._whole[number] = self._native.combine([Term(*state)])
        return self._whole[number]


class _Gradient:
    """The gradient of a state, as it comes together."""

    def __init__(self) -> None:
        self.addends: list[Tensor] = []  # of others; never written to
        self.total: Tensor | None = None  # of kernels
        self.sums_2C: Tensor | None = None  # of what `total` holds, if they are known
        self.pools: dict[int, list[Term]] = {}  # by stride

    def others(self) -> Others:
        """For the kernel that comes next."""
        return Others(self.addends.pop() if self.addends else None, self.total)

    def is_nothing(self) -> bool:
        return not self.addends and self.total is None and not self.pools


class _Backward:
    """One backward pass."""

    def __init__(
        self,
        native: Kernels,
        ctx: Any,
        kept: Sequence[Tensor],
        weights: Sequence[Tensor],
        needs: Sequence[bool],
    ) -> None:
        self._native = native
        self._plan: Plan = ctx.plan
        self._ran: list[_Ran] = ctx.ran
        self._kept = kept
        self._weights = _parts(self._plan, weights)
        self._needs_inputs = needs[:2]
        self._needs = _parts(self._plan, needs[2:])
        self._states = []
        for place, norm in ctx.states:
            state = None if place < 0 else _State(kept[place], None if norm is None else kept[norm])
            self._states.append(state)
        self._gradients = [_Gradient() for _ in self._states]
        self._factors = ctx.factors

    def __call__(self, grad: Tensor, grad_last: Tensor | None) -> list[Tensor | None]:
        plan = self._plan
        C = plan.channels
        for slot, number in enumerate(plan.concat):
            self._gradients[number].addends.append(grad[:, slot * C : (slot + 1) * C])
        found: list[list[Tensor | None]] = [[None] * count for _, count in plan.runs()]
        run = len(found)
        operation = len(self._factors)
        for number in reversed(range(2, 2 + len(plan.nodes))):
            node = plan.nodes[number - 2]
            first = run - sum(op.kind == "run" for op in node)
            operation -= len(node)
            reached = self._value(number)
            if reached is not None:
                own = self._node(node, first, operation, reached)
                found[first:run] = own
            run = first
        inputs: list[Tensor | None] = [None, grad_last]
        for number in (1, 0):
            gradient = self._gradients[number]
            reached = self._value(number)
            if reached is None:
                continue
            stages, _ = plan.inputs[number]
            base = inputs[number]
            is_added = base is not None and not is_halving(stages[0])
            if is_added and base is not None:
                base = _with_step(base)
            if gradient.sums_2C is None:
                (gradient.sums_2C,) = self._sums([(number, None)], reached)
            x, own_grads, _ = self._back(
                number,
                stages,
                Last(),
                reached,
                gradient.sums_2C,
                self._needs_inputs[number],
                None,
                Others(base) if is_added and self._needs_inputs[number] else NO_OTHERS,
            )
            if base is not None and not is_added and x is not None:
                x += base
            inputs[number] = x
            found[number] = own_grads
        return [*inputs, *(grad for own in found for grad in own)]

    def _node(
        self, node: Sequence[Operation], run: int, operation: int, grad: Tensor
    ) -> list[list[Tensor | None]]:
        """Gives the gradients of a node's operations to what they read, and those of weights."""
        lasts = [Last(NONE, factor) for factor in self._factors[operation:][: len(node)]]
        numbers = {}
        for k, op in enumerate(node):
            if op.kind == "run":
                numbers[k] = run + len(numbers)
        places = [(numbers[k], lasts[k].factor_B) for k in numbers]
        sums = iter(self._sums(places, grad))
        found = []
        for k, op in enumerate(node):
            gradient = self._gradients[op.source]
            if op.kind == "identity":
                gradient.addends.append(grad)
            elif op.kind == "maximum":
                term = Term(grad, None, lasts[k])
                gradient.pools.setdefault(op.stride, []).append(term)
        for k, number in numbers.items():
            op = node[k]
            source = self._states[op.source]
            assert source is not None
            gradient = self._gradients[op.source]
            can_add = not is_halving(op.stages[0])
            others = gradient.others() if can_add else NO_OTHERS
            before = gradient.total
            x, own, sums_2C = self._back(
                number,
                op.stages,
                lasts[k],
                grad,
                next(sums),
                True,
                source.norm_4C if can_add else None,
                others,
            )
            assert x is not None
            if not can_add:
                gradient.addends.append(x)
            else:
                if before is None:
                    gradient.sums_2C = sums_2C
                elif gradient.sums_2C is not None and sums_2C is not None:
                    gradient.sums_2C = gradient.sums_2C + sums_2C
                gradient.total = x
            found.append(own)
        return found

    def _back(
        self,
        number: int,
        stages: Stages,
        last: Last,
        grad: Tensor,
        sums_2C: Tensor,
        needs_input: bool,
        norm_4C: Tensor | None,
        others: Others,
    ) -> tuple[Tensor | None, list[Tensor | None], Tensor | None]:
        maps, norms = self._tensors(number)
        return backward_stages(
            self._native,
            stages,
            maps,
            norms,
            self._weights[number],
            last,
            grad,
            sums_2C,
            (needs_input, *self._needs[number]),
            norm_4C,
            others,
        )

    def _tensors(self, number: int) -> tuple[list[Tensor], list[Tensor]]:
        ran = self._ran[number]
        return [self._kept[k] for k in ran.maps], [self._kept[k] for k in ran.norms]

    def _sums(self, places: Sequence[tuple[int, Tensor | None]], grad: Tensor) -> list[Tensor]:
        """`gradient_sums` of the last BatchNorms of runs, by number and factor."""
        terms = []
        for number, factor_B in places:
            maps, norms = self._tensors(number)
            terms.append(Term(maps[-1], norms[-1], Last(NONE, factor_B)))
        found: list[Tensor] = []
        for first in range(0, len(terms), 2):
            found += self._native.gradient_sums(terms[first : first + 2], grad)
        return found

    def _value(self, number: int) -> Tensor | None:
        """The whole gradient of a state; None where nothing depends on it."""
        gradient = self._gradients[number]
        if gradient.is_nothing():
            return None
        state = self._states[number]
        for stride, terms in gradient.pools.items():
            assert state is not None
            x = state.map_BCHW if state.norm_4C is None else self._native.combine([Term(*state)])
            sum_BCHW = self._native.combine(terms)
            into = gradient.total
            gradient.total = self._native.pool_backward(x, stride, sum_BCHW, into)
            gradient.sums_2C = None
        if gradient.addends:
            if gradient.total is None and len(gradient.addends) == 1:
                gradient.total = gradient.addends[0]
            else:
                terms = [Term(t) for t in gradient.addends]
                if gradient.total is not None:
                    terms.append(Term(gradient.total))
                gradient.total = self._native.combine(terms)
            gradient.sums_2C = None
            gradient.addends = []
        return gradient.total
