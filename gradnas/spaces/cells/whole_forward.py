"""The forward pass of a whole cell (`whole_cell`), and what it leaves for the backward pass.

Legend: C channels, E edges, O operations (in `mix_EO`), I channels in, O channels out (of
products); in what enters a node K maps by a product, T pools, N = K + T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from gradnas.spaces.cells.fold_algebra import folded
from gradnas.spaces.cells.kernels import compiled, num_pixels, unbiased
from gradnas.spaces.cells.places import channels_last, size_after
from gradnas.spaces.cells.running import Update, Updates
from gradnas.spaces.cells.shape import INPUTS
from gradnas.spaces.cells.source_kernels import source_kernels
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
        separable = source.convolutions[: source.num_separable]
        inner_K2C = left.inner_K2C[: source.num_separable]
        norms = [item.norm(NORM) for item in separable]
        self._see(norms, inner_K2C[:, 0], inner_K2C[:, 1], num_pixels(left.maps[0]))
        for k, item in enumerate(source.convolutions):
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
        self._see_node(node, found.mean_NC, found.var_NC, num_pixels(y_BCHW))
        return y_BCHW

    def _see_node(self, node: Node, mean_NC: Tensor, var_NC: Tensor, pixels: int) -> None:
        """What the BatchNorms of a node keep.

        Each half of a factorized reduction fills its own channels and leaves zeros in the other's,
        so the sums of the two are the statistics of both together.
        """
        kinds = [part.kind for part in node.parts[: len(mean_NC)]]
        if "even" in kinds:
            odd = [n for n, kind in enumerate(kinds) if kind == "odd"]
            mean_NC, var_NC = mean_NC.clone(), var_NC.clone()
            for t in (mean_NC, var_NC):
                t[odd] += t[[n - 1 for n in odd]]
        whole = [n for n, kind in enumerate(kinds) if kind != "even"]
        norms = [node.parts[n].item.last_norm() for n in whole]
        self._see(norms, mean_NC[whole], var_NC[whole], pixels)

    def _see(
        self, norms: Sequence[nn.BatchNorm2d], mean_NC: Tensor, var_NC: Tensor, pixels: int
    ) -> None:
        """Means and variances, the latter with P in the denominator; all cast at once."""
        if not norms:
            return
        kept = norms[0].running_mean
        assert kept is not None
        means = mean_NC.to(kept.dtype).unbind()
        variances = (var_NC * unbiased(pixels)).to(kept.dtype).unbind()
        self._updates += map(Update, norms, means, variances)


def _stacked(tensors: Sequence[Tensor | None], like: Tensor, shape: tuple[int, ...]) -> Tensor:
    """As rows; also where there are none."""
    found = [t for t in tensors if t is not None]
    assert len(found) == len(tensors)
    return torch.stack(found) if found else like.new_zeros(0, *shape)
