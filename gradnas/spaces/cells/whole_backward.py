"""The backward pass of a whole cell (`whole_cell`).

Legend: C channels, E edges, O operations (in `mix_EO`), I channels in, O channels out (of
products); in what enters a node K maps by a product, T pools, N = K + T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradnas.spaces.cells.fold_algebra import FoldGradients, Sums, fold_gradients
from gradnas.spaces.cells.kernels import compiled, num_pixels
from gradnas.spaces.cells.places import channels_last
from gradnas.spaces.cells.shape import INPUTS
from gradnas.spaces.cells.source_kernels import Entered, source_kernels
from gradnas.spaces.cells.whole_forward import Kind, Node, Part, Tape
from gradnas.spaces.cells.whole_plan import Plan


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
