"""The forward and the backward pass of a cell (`cell`).

Legend: B batch, C channels of a state, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from torch import Tensor

from gradnas.spaces.blocks.kernels import Kernels, pixel_step
from gradnas.spaces.blocks.run import Stages, backward_stages, channels_last, forward_stages
from gradnas.spaces.blocks.stage import NO_OTHERS, NONE, Last, Others, Term, is_halving


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


def parts_of(plan: Plan, weights: Sequence[Any]) -> list[Sequence[Any]]:
    """The weights of each run, or what there is of each weight."""
    found = []
    at = 0
    for _, count in plan.runs():
        found.append(weights[at : at + count])
        at += count
    return found


class State(NamedTuple):
    """A state as it lies in memory, and the BatchNorm that it has not crossed yet."""

    map_BCHW: Tensor
    norm_4C: Tensor | None


class Ran(NamedTuple):
    """A run of the forward pass, by the places of its tensors among those that are kept."""

    maps: tuple[int, ...]
    norms: tuple[int, ...]


class Kept:
    """Tensors that backward needs, each once."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self._places: dict[int, int] = {}

    def place(self, t: Tensor) -> int:
        if id(t) not in self._places:
            self._places[id(t)] = len(self.tensors)
            self.tensors.append(t)
        return self._places[id(t)]


def with_step(grad: Tensor) -> Tensor:
    return channels_last(grad) if pixel_step(grad) is None else grad


class Forward:
    """One forward pass: called with the two inputs, and a list for statistics."""

    def __init__(
        self, native: Kernels, plan: Plan, factors: Factors, weights: Sequence[Tensor]
    ) -> None:
        self._native = native
        self._plan = plan
        self._factors = iter(factors)
        self._weights = iter(parts_of(plan, weights))
        self.kept = Kept()
        self.ran: list[Ran] = []
        self.states: list[State] = []
        self._whole: dict[int, Tensor] = {}  # states that were written, of those with a BatchNorm
        self._pools: dict[tuple[int, int], Tensor] = {}

    def place(self, state: State) -> tuple[int, int | None]:
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
            z, norm_4C = self._run(stages, State(x, None), statistics)
            self.states.append(State(z, norm_4C))
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
            self.states.append(State(y, None))
        assert out is not None
        return out

    def _run(self, stages: Stages, source: State, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """What enters the last BatchNorm, and that."""
        weights = next(self._weights)
        found = forward_stages(self._native, stages, source.map_BCHW, weights, source.norm_4C)
        maps = tuple(self.kept.place(t) for t in found.maps)
        self.ran.append(Ran(maps, tuple(self.kept.place(t) for t in found.norms)))
        statistics += found.statistics
        return found.maps[-1], found.norms[-1]

    def _term(self, op: Operation, statistics: Statistics) -> Term:
        source = self.states[op.source]
        last = Last(NONE, next(self._factors))
        if op.kind == "run":
            if is_halving(op.stages[0]):  # there is no kernel with a BatchNorm before it
                source = State(self._written(op.source), None)
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


class Backward:
    """One backward pass: called with both gradients, it gives those of inputs and weights."""

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
        self._ran: list[Ran] = ctx.ran
        self._kept = kept
        self._weights = parts_of(self._plan, weights)
        self._needs_inputs = needs[:2]
        self._needs = parts_of(self._plan, needs[2:])
        self._states = []
        for place, norm in ctx.states:
            state = None if place < 0 else State(kept[place], None if norm is None else kept[norm])
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
                base = with_step(base)
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
