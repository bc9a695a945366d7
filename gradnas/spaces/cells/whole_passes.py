"""The forward and the backward pass of a whole cell (`whole_cell`).

Legend: C channels, E edges, O operations (in `mix_EO`), I channels in, O channels out (of
products); in what enters a node K maps by a product, T pools, N = K + T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gradnas.spaces.cells.fold_algebra import FoldGradients, Sums, fold_gradients, folded
from gradnas.spaces.cells.kernels import (
    channels_last,
    compiled,
    num_pixels,
    size_after,
    unbiased,
)
from gradnas.spaces.cells.running import Update, Updates
from gradnas.spaces.cells.shape import INPUTS
from gradnas.spaces.cells.source_kernels import Entered, source_kernels
from gradnas.spaces.cells.stages import Item
from gradnas.spaces.cells.stencils import NORM
from gradnas.spaces.cells.whole_plan import Plan, Source, halves_of, side_by_side

Kind = Literal["convolution", "even", "odd", "maximum", "average", "identity"]


class Part(NamedTuple):
    """A map that enters a node.

    Attributes:
        source: the state that it comes from.
        k: its place among what leaves that state of its kind.
        x: place of the map among the tensors that are kept; of an identity, -1.
    """

    item: Item
    source: int
    kind: Kind
    k: int
    x: int


class Node(NamedTuple):
    """What enters a node: products, then pools, then identities; and what is kept of it.

    Attributes:
        weight_KOI, mean_NC, V_KII, r_NC: places among the tensors that are kept.
    """

    parts: list[Part]
    num_products: int
    num_pools: int
    weight_KOI: int
    mean_NC: int
    V_KII: int
    r_NC: int

    def columns(self) -> tuple[list[int], list[int]]:
        """Where the mixing weights of its parts stand."""
        return [p.item.row for p in self.parts], [p.item.column for p in self.parts]


class Leaving(NamedTuple):
    """What is kept of the convolutions that leave a state, as places."""

    maps: list[int]
    products: list[int]
    normal_K2C: int


class Tape(NamedTuple):
    """What the backward pass needs to know beside tensors."""

    nodes: list[Node | None]  # None: nothing enters it
    leaving: dict[int, Leaving]


class _Seen(NamedTuple):
    """A part, and what is known of its map."""

    part: Part
    x_BCHW: Tensor
    weight_OI: Tensor | None = None
    mean_C: Tensor | None = None
    spread: Tensor | None = None  # covariance of what enters a product, variance of a pool


class Forward:
    """One forward pass: called with the two inputs, it gives the nodes."""

    def __init__(
        self, plan: Plan, mix_EO: Tensor, weights: Sequence[Tensor], updates: Updates
    ) -> None:
        self._plan = plan
        self._a_EO = mix_EO.double()
        self._weights = weights
        self._updates = updates
        self._entering: list[list[_Seen]] = [[] for _ in plan[INPUTS:]]
        self.kept: list[Tensor] = []
        self.tape = Tape([], {})

    def __call__(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        states = list(inputs)
        for number, source in enumerate(self._plan):
            if number >= INPUTS:
                states.append(self._enter(self._entering[number - INPUTS], states[0]))
            x_BCHW = states[number]
            if source.convolutions:
                self._convolve(number, source, x_BCHW)
            if source.maxima or source.averages:
                self._pool(number, source, x_BCHW)
            if source.reductions:
                self._reduce(number, source, x_BCHW)
            for k, item in enumerate(source.identities):
                self._hand(_Seen(Part(item, number, "identity", k, -1), x_BCHW))
        return tuple(states[INPUTS:])

    def _keep(self, t: Tensor) -> int:
        self.kept.append(t)
        return len(self.kept) - 1

    def _hand(self, seen: _Seen) -> None:
        self._entering[seen.part.item.target].append(seen)

    def _convolve(self, number: int, source: Source, x_BCHW: Tensor) -> None:
        native = source_kernels(x_BCHW.dtype)
        assert native is not None
        left = native.leave(x_BCHW, source.spec(self._weights), source.stride)
        maps = [self._keep(t) for t in left.maps]
        products = [self._keep(t) for t in left.products]
        self.tape.leaving[number] = Leaving(maps, products, self._keep(left.normal_K2C))
        factor = unbiased(num_pixels(left.maps[0]))
        for k, item in enumerate(source.convolutions):
            if k < source.num_separable:
                mean_C, var_C = left.inner_K2C[k]
                self._updates.append(Update(item.norm(NORM), mean_C, var_C * factor))
            weight_OI = self._weights[source.last_weight(k)].flatten(1)
            part = Part(item, number, "convolution", k, maps[k])
            seen = _Seen(part, left.maps[k], weight_OI, left.mean_KC[k], left.covariance_KCC[k])
            self._hand(seen)

    def _pool(self, number: int, source: Source, x_BCHW: Tensor) -> None:
        native = compiled(x_BCHW)
        largest, average = native.pools(x_BCHW, source.stride)
        kinds: tuple[tuple[Kind, tuple[Item, ...], Tensor], ...] = (
            ("maximum", source.maxima, largest),
            ("average", source.averages, average),
        )
        for kind, items, q_BCHW in kinds:
            if items:
                x = self._keep(q_BCHW)
                mean_C, var_C = native.moments(q_BCHW)
                for k, item in enumerate(items):
                    self._hand(_Seen(Part(item, number, kind, k, x), q_BCHW, None, mean_C, var_C))

    def _reduce(self, number: int, source: Source, x_BCHW: Tensor) -> None:
        native = compiled(x_BCHW)
        halves = [torch.relu(half) for half in halves_of(x_BCHW)]
        places = [self._keep(half) for half in halves]
        statistics = [native.covariance(half) for half in halves]
        kinds: tuple[Kind, Kind] = ("even", "odd")
        for k, item in enumerate(source.reductions):
            at = source.place_of_reduction(k)
            wide = side_by_side(self._weights[at], self._weights[at + 1])
            for h, kind in enumerate(kinds):
                part = Part(item, number, kind, k, places[h])
                self._hand(_Seen(part, halves[h], wide[h], *statistics[h]))

    def _enter(self, entering: list[_Seen], first_BCHW: Tensor) -> Tensor:
        """Add up what enters a node."""
        native = compiled(first_BCHW)
        size = size_after(first_BCHW, self._plan[0].stride)
        if not entering:
            self.tape.nodes.append(None)
            return channels_last(first_BCHW.new_zeros(size))
        products = [seen for seen in entering if seen.weight_OI is not None]
        pooled = [seen for seen in entering if seen.part.kind in ("maximum", "average")]
        scaled = [seen for seen in entering if seen.part.kind == "identity"]
        ordered = [*products, *pooled, *scaled]
        C = first_BCHW.shape[1]
        weight_KOI = _stacked([seen.weight_OI for seen in products], first_BCHW, (C, C))
        V_KII = _stacked([seen.spread for seen in products], self._a_EO, (C, C))
        mean_NC = _stacked([seen.mean_C for seen in [*products, *pooled]], self._a_EO, (C,))
        var_TC = _stacked([seen.spread for seen in pooled], self._a_EO, (C,))
        node = Node([seen.part for seen in ordered], len(products), len(pooled), -1, -1, -1, -1)
        a_N = self._a_EO[node.columns()]
        num_norms = len(mean_NC)
        found = folded(weight_KOI.double(), a_N[:num_norms], mean_NC, V_KII, var_TC, first_BCHW)
        pairs = [(s.x_BCHW, f) for s, f in zip(pooled, found.factors_TC, strict=True)]
        # What is only scaled has one factor for all channels, and no mean to subtract.
        for seen, a in zip(scaled, a_N[num_norms:], strict=True):
            pairs.append((seen.x_BCHW, a.expand(C)))
        maps = [seen.x_BCHW for seen in products]
        y_BCHW = native.sum_products(maps, found.M_KIO, pairs, found.bias_C)
        tensors = (weight_KOI, mean_NC, V_KII, found.r_NC)
        self.tape.nodes.append(Node(*node[:3], *(self._keep(t) for t in tensors)))
        self._see(node, found.mean_NC, found.var_NC * unbiased(num_pixels(y_BCHW)))
        return y_BCHW

    def _see(self, node: Node, mean_NC: Tensor, var_NC: Tensor) -> None:
        """What the BatchNorms of a node keep.

        Each half of a factorized reduction fills its own channels and leaves zeros in the other's,
        so the sums of the two are the statistics of both together.
        """
        even: tuple[Tensor, Tensor] | None = None
        for part, mean_C, var_C in zip(node.parts, mean_NC, var_NC, strict=False):
            if part.kind == "even":
                even = mean_C, var_C
                continue
            if part.kind == "odd":
                assert even is not None
                mean_C, var_C = mean_C + even[0], var_C + even[1]
            self._updates.append(Update(part.item.last_norm(), mean_C, var_C))


def _stacked(tensors: Sequence[Tensor | None], like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """As rows; also where there are none."""
    found = [t for t in tensors if t is not None]
    assert len(found) == len(tensors)
    return torch.stack(found) if found else like.new_zeros(0, *shape)


class _Way(NamedTuple):
    """How the gradient of a map follows from that of a node: what it is multiplied by, and so on.

    Of a product matrices, `Entered`; of a pool vectors; of an identity one number.
    """

    grad_BCHW: Tensor
    factor: Tensor
    slope: Tensor
    bias_C: Tensor


class Backward:
    """One backward pass: called with the gradients of the nodes."""

    def __init__(
        self,
        plan: Plan,
        tape: Tape,
        mix_EO: Tensor,
        tensors: Sequence[Tensor],
        nodes: Sequence[Tensor],
        kept: Sequence[Tensor],
        needs: Sequence[bool],
    ) -> None:
        self._plan = plan
        self._tape = tape
        self._mix_EO = mix_EO
        self._weights = tensors[INPUTS:]
        self._states = [*tensors[:INPUTS], *nodes]
        self._kept = kept
        self._needs_states = needs[1 : 1 + INPUTS]
        self._needs = needs[1 + INPUTS :]
        self._ways: dict[tuple[int, Kind], list[_Way]] = {}
        self._found: list[Tensor | None] = [None] * len(self._weights)
        self._grad_mix_EO = torch.zeros_like(mix_EO, dtype=torch.float64)

    def __call__(self, grads: Sequence[Tensor]) -> list[Tensor | None]:
        inputs: list[Tensor | None] = [None] * INPUTS
        for number in reversed(range(len(self._plan))):
            if number < INPUTS:
                inputs[number] = self._state(number, None, self._needs_states[number])
                continue
            grad_BCHW = self._state(number, grads[number - INPUTS], True)
            node = self._tape.nodes[number - INPUTS]
            if node is not None and grad_BCHW is not None:
                self._node(node, grad_BCHW)
        return [self._grad_mix_EO.to(self._mix_EO.dtype), *inputs, *self._found]

    # ---- what enters a node ----------------------------------------------------------------------

    def _node(self, node: Node, grad_BCHW: Tensor) -> None:
        """Gives what enters a node its gradient, or the way to it."""
        native = source_kernels(grad_BCHW.dtype)
        assert native is not None
        K = node.num_products
        N = K + node.num_pools
        maps = [self._map(part) for part in node.parts]
        sums = Sums(num_pixels(grad_BCHW), *native.enter_backward(grad_BCHW, maps[:K], maps[K:]))
        columns = node.columns()
        a_N = self._mix_EO.double()[columns]
        weight_KOI, mean_NC, V_KII, r_NC = (self._kept[place] for place in node[3:])
        places = [self._place(part) for part in node.parts[:K]]
        needs_weight = any(self._needs[place] for place in places)
        of_norms = sums._replace(along_TC=sums.along_TC[: N - K])
        found = fold_gradients(
            weight_KOI.double(), a_N[:N], mean_NC, V_KII, r_NC, of_norms, needs_weight, grad_BCHW
        )
        grad_mix_N = torch.cat([found.mix_N, sums.along_TC[N - K :].sum(1)])
        rows, cols = (torch.tensor(places) for places in columns)
        self._grad_mix_EO.index_put_((rows, cols), grad_mix_N, accumulate=True)
        if found.weight_KOI is not None:
            self._give_weights(node.parts[:K], places, found.weight_KOI)
        for n, part in enumerate(node.parts):
            way = _way(found, n, K, N, grad_BCHW, a_N)
            self._ways.setdefault((part.source, part.kind), []).append(way)

    def _map(self, part: Part) -> Tensor:
        return self._states[part.source] if part.x < 0 else self._kept[part.x]

    def _place(self, part: Part) -> int:
        """Of the weight of a product."""
        source = self._plan[part.source]
        if part.kind == "convolution":
            return source.last_weight(part.k)
        return source.place_of_reduction(part.k) + (part.kind == "odd")

    def _give_weights(
        self, parts: Sequence[Part], places: Sequence[int], weight_KOI: Tensor
    ) -> None:
        half = weight_KOI.shape[1] // 2
        for part, place, grad_OI in zip(parts, places, weight_KOI, strict=True):
            if part.kind == "even":
                grad_OI = grad_OI[:half]
            elif part.kind == "odd":
                grad_OI = grad_OI[half:]
            weight = self._weights[place]
            if self._needs[place]:
                self._found[place] = grad_OI.to(weight.dtype).reshape(weight.shape)

    # ---- what leaves a state ---------------------------------------------------------------------

    def _state(self, number: int, grad: Tensor | None, needs_x: bool) -> Tensor | None:
        """The whole gradient of a state, if it is needed; and those of the weights after it."""
        source = self._plan[number]
        x_BCHW = self._states[number]
        total = self._without_products(number, grad) if needs_x else None
        if needs_x and (source.maxima or source.averages):
            total = self._pooled(number, total)
        if needs_x and source.reductions:
            total = self._reduced(number, total)
        if not source.convolutions:
            return total
        last = source.place(len(source.convolutions))
        with_weights = any(self._needs[source.first : last])
        if not (needs_x or with_weights):
            return None
        # In the order of the convolutions, which is by target; nodes came in the other.
        ways = self._ways.pop((number, "convolution"), [])
        order = self._order(number)
        entered: list[Entered | None] = [None] * len(source.convolutions)
        for k, way in zip(order, ways, strict=True):
            entered[k] = Entered(*way)
        native = source_kernels(x_BCHW.dtype)
        assert native is not None
        leaving = self._tape.leaving[number]
        total, gradients = native.leave_backward(
            x_BCHW,
            source.spec(self._weights),
            source.stride,
            [self._kept[place] for place in leaving.maps],
            [self._kept[place] for place in leaving.products],
            self._kept[leaving.normal_K2C],
            [e for e in entered if e is not None],
            needs_x,
            with_weights,
            total,
        )
        for k, own in enumerate(gradients):
            at = source.place(k)
            for place, grad_weight in zip(range(at, at + 3), own, strict=True):
                if grad_weight is not None and self._needs[place]:
                    self._found[place] = grad_weight
        return total

    def _order(self, number: int) -> list[int]:
        """The places of a state's convolutions in the order in which their nodes were met."""
        found = []
        for node in reversed(self._tape.nodes):
            if node is not None:
                parts = node.parts[: node.num_products]
                found += [p.k for p in parts if p.source == number and p.kind == "convolution"]
        return found

    def _without_products(self, number: int, grad: Tensor | None) -> Tensor | None:
        """What others give to the gradient of a state, and its identities."""
        ways = self._ways.pop((number, "identity"), [])
        if grad is None and not ways:
            return None
        dense = None if grad is None else channels_last(grad)
        if not ways:
            assert dense is not None and grad is not None
            # Others are added to it in place, and it may be a view of what is not ours.
            return dense.clone() if dense.data_ptr() == grad.data_ptr() else dense
        C = self._states[number].shape[1]
        pairs = [(way.grad_BCHW, way.factor.expand(C)) for way in ways]
        if dense is not None:
            pairs.append((dense, torch.ones_like(pairs[0][1])))
        native = compiled(pairs[0][0])
        return native.sum_products([], torch.empty(0), pairs)

    def _pooled(self, number: int, total: Tensor | None) -> Tensor | None:
        x_BCHW = self._states[number]
        native = compiled(x_BCHW)
        grads: list[Tensor | None] = []
        kinds: tuple[Kind, Kind] = ("maximum", "average")
        for kind in kinds:
            ways = self._ways.pop((number, kind), [])
            if not ways:
                grads.append(None)
                continue
            pairs = [(way.grad_BCHW, way.factor) for way in ways]
            pairs.append((self._q(number, kind), _sum([way.slope for way in ways])))
            bias_C = _sum([way.bias_C for way in ways])
            grads.append(native.sum_products([], torch.empty(0), pairs, bias_C))
        if grads == [None, None]:
            return total
        stride = self._plan[number].stride
        return native.pools_backward(x_BCHW, stride, grads[0], grads[1], total)

    def _q(self, number: int, kind: Kind) -> Tensor:
        """A map that enters nodes, by where it comes from."""
        for node in self._tape.nodes:
            for part in [] if node is None else node.parts:
                if part.source == number and part.kind == kind:
                    return self._kept[part.x]
        raise AssertionError("no node has it")

    def _reduced(self, number: int, total: Tensor | None) -> Tensor | None:
        x_BCHW = self._states[number]
        native = compiled(x_BCHW)
        if total is None:
            total = torch.zeros_like(x_BCHW)
        kinds: tuple[tuple[Kind, int], ...] = (("even", 0), ("odd", 1))
        for kind, first in kinds:
            ways = self._ways.pop((number, kind), [])
            if not ways:
                continue
            half_BCHW = self._q(number, kind)
            matrices = [way.factor for way in ways]
            matrices.append(_sum([way.slope for way in ways]))
            grad_BCHW = native.sum_products(
                [*(way.grad_BCHW for way in ways), half_BCHW],
                torch.stack(matrices),
                bias_O=_sum([way.bias_C for way in ways]),
                gate=half_BCHW,
            )
            total[:, :, first::2, first::2] += grad_BCHW
        return total


def _way(found: FoldGradients, n: int, K: int, N: int, grad_BCHW: Tensor, a_N: Tensor) -> _Way:
    """Of the n-th map that enters a node."""
    if n < K:
        return _Way(grad_BCHW, found.M_KOI[n], found.S_KII[n], found.bias_KI[n])
    if n < N:
        t = n - K
        return _Way(grad_BCHW, found.scale_TC[t], found.slope_TC[t], found.bias_TC[t])
    return _Way(grad_BCHW, a_N[n], a_N[n], a_N[n])


def _sum(tensors: Sequence[Tensor]) -> Tensor:
    return sum(tensors[1:], tensors[0])
