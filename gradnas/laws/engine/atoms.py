"""The atoms that formulas grow by: every primitive of every feature, from a grid of constants.

Legend: N points, D features, G atoms.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from gradnas.laws.engine.data import LawData
from gradnas.laws.formula import (
    HOMOGENEOUS,
    Edge,
    Formula,
    Node,
    as_product,
    canonical,
    edge_value,
)
from gradnas.laws.primitives import (
    EXPONENTS,
    POWER,
    Primitive,
    meaning,
)

ALIKE = 0.97  # correlation of two atoms of a signature from which one stands for both
HERE = -1  # source of an atom's edge that reads the atom's own stem
LARGEST = 1e100  # of a value; what is larger would overflow when squared and summed


@dataclass(frozen=True)
class Atom:
    """A function of a feature, or of a small node over features (its stem).

    Its constants are those to start from.
    """

    edge: Edge
    stem: Node | None = None


@dataclass(frozen=True)
class Atoms:
    """Atoms and their values; those of one signature (stem, feature, function) lie side by side.

    Attributes:
        value_GN: scaled to a largest size of 1.
        sizes: what they were scaled by.
        starts: the first atom of each signature, and last the number of atoms.
        coarse: those atoms of each signature that are not nearly a straight line of another coarse
            one.
        coarse_starts: as `starts`, in `coarse`.
    """

    atoms: tuple[Atom, ...]
    value_GN: Tensor
    sizes: tuple[float, ...]
    starts: np.ndarray
    coarse: np.ndarray
    coarse_starts: np.ndarray

    def members(self, s: int) -> np.ndarray:
        """The atoms of signature s."""
        return np.arange(self.starts[s], self.starts[s + 1])

    def layout(self, coarse: bool) -> tuple[np.ndarray, np.ndarray]:
        """All atoms or the coarse ones, and where each signature starts among them."""
        if coarse:
            return self.coarse, self.coarse_starts
        return np.arange(len(self.atoms)), self.starts


def allowed_functions(words: Sequence[str]) -> dict[str, bool]:
    """Function -> whether its `a` and `b` are fitted.

    Of a word and its `linear_` form the latter counts.
    """
    functions: dict[str, bool] = {}
    for word in words:
        if word != "none":
            function, fits_a, _ = meaning(word)
            fitted = fits_a or function == "identity"
            functions[function] = functions.get(function, False) or fitted
    return functions


def make_atoms(
    words: Sequence[str],
    data: LawData,
    scales_D: Sequence[float],
    stems: Sequence[Node | int],
    rich: bool = False,
) -> Atoms:
    """Atoms of features (an index) and stems (a node over features).

    Args:
        words: the primitives of the settings.
        scales_D: unit of each feature: a function without constants is applied to the unscaled
            feature.
        rich: with atoms that are rare, or that a product of others can stand for.
    """
    functions = allowed_functions(words)
    atoms: list[Atom] = []
    values: list[Tensor] = []
    sizes: list[float] = []
    starts = [0]
    for stem in stems:
        if isinstance(stem, Node):
            node = stem
            value_N = Formula(len(data.x_DN), (stem,), (1.0,))(data.x_DN.T, data.primitives)
            scale = 1.0
            source = HERE
        else:
            node = None
            value_N = data.x_DN[stem]
            scale = scales_D[stem]
            source = stem
        if not bool(torch.isfinite(value_N).all()):
            continue
        shifts = node is None and "linear" in words
        grid = _Grid(source, value_N, scale, rich, shifts)
        for function, fitted in functions.items():
            if fitted and _is_another(function, functions, rich):
                continue
            first = len(atoms)
            for edge in grid.edges(function, fitted, data.primitives):
                out_N = edge_value(edge, value_N, data.primitives)
                largest = float(out_N.abs().max())
                if largest > 0 and largest < LARGEST:  # false for NaN, too
                    atoms.append(Atom(edge, node))
                    values.append(out_N / largest)
                    sizes.append(largest)
            if len(atoms) > first:
                starts.append(len(atoms))
    data.work.atoms(len(values))
    stacked = torch.stack(values) if values else data.x_DN.new_zeros(0, data.x_DN.shape[1])
    coarse, coarse_starts = _coarse(stacked, starts)
    return Atoms(tuple(atoms), stacked, tuple(sizes), np.array(starts), coarse, coarse_starts)


def _is_another(function: str, functions: dict[str, bool], rich: bool) -> bool:
    """Whether another function has the same graphs.

    The cosine is a shifted sine, and tanh a logistic function up to a scale and a constant.
    """
    if function == "cos":
        return "sin" in functions
    return function == "tanh" and "logistic" in functions and not rich


def _coarse(value_GN: Tensor, starts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Of each signature the first atom, and each whose correlation with those before is small."""
    centred_GN = value_GN - value_GN.mean(1, keepdim=True)
    unit_GN = centred_GN / centred_GN.norm(dim=1, keepdim=True).clamp(min=1e-30)
    taken: list[int] = []
    taken_starts = [0]
    for first, last in pairwise(starts):
        own_GN = unit_GN[first:last]
        alike = ((own_GN @ own_GN.T).abs() >= ALIKE).numpy()
        left = np.ones(last - first, dtype=bool)
        for k in range(last - first):
            if left[k]:
                taken.append(first + k)
                left &= ~alike[k]
                left[k] = False
        taken_starts.append(len(taken))
    return np.array(taken, dtype=np.int64), np.array(taken_starts)


class _Grid:
    """The constants that the functions of one feature or stem start from.

    Args:
        source: of the edges.
        value_N: what they read.
        scale: its unit.
        rich: as of `make_atoms`.
        shifts: whether plain inputs are shifted, too.
    """

    def __init__(
        self, source: int, value_N: Tensor, scale: float, rich: bool, shifts: bool
    ) -> None:
        self.source = source
        self.scale = scale
        self.rich = rich
        self.shifts = shifts
        self.low = float(value_N.min())
        self.high = float(value_N.max())
        self.middle = 0.5 * (self.low + self.high)
        self.half = 0.5 * (self.high - self.low)

    def edges(self, function: str, fitted: bool, primitives: Mapping[str, Primitive]) -> list[Edge]:
        """The edges of one function."""
        if function == "identity":
            return self._plain()
        if function == POWER:
            return self._powers()
        primitive = primitives[function]
        if not fitted:
            if primitive.positive and self.low <= 0:
                return []
            return [Edge(self.source, function, self.scale, 0.0, fixed=True)]
        if self.half <= 1e-9 * max(abs(self.low), abs(self.high)):
            return []  # the same value everywhere
        if function == "square":
            return self._squares()
        return self._shaped(primitive)

    def _plain(self) -> list[Edge]:
        offsets = [0.0]
        if self.shifts:
            # Inside a product the point where a feature counts as zero matters: x - 1 times
            # something. Here in the middle, and a little beside either end.
            low = self.low
            high = self.high
            offsets += [-0.5 * (low + high), 0.1 * (high - low) - low, 0.1 * (low - high) - high]
        return [Edge(self.source, "identity", 1.0, b, fixed=True) for b in offsets]

    def _powers(self) -> list[Edge]:
        low = self.low
        high = self.high
        edges: list[Edge] = []
        if low > 0:
            edges += [Edge(self.source, POWER, exponent) for exponent in EXPONENTS]
        if self.rich and high > low:
            # A fifth and a whole range above zero at the lowest point.
            bases = (0.2 * (high - low) - low, high - 2.0 * low)
            for exponent in (-1.5, -0.5, 0.5, 1.5):
                edges += [Edge(self.source, POWER, exponent, b) for b in bases]
        return edges

    def _squares(self) -> list[Edge]:
        edges = [Edge(self.source, "square", fixed=True)]
        if self.rich:
            # The square about a point is a square and a straight line; the point itself matters
            # inside other functions.
            edges.append(Edge(self.source, "square", 1.0, -self.middle, fixed=True))
        return edges

    def _shaped(self, primitive: Primitive) -> list[Edge]:
        """Every slope with every center of the primitive, in units of half the range."""
        function = primitive.name
        source = self.source
        lets_scale_out = function in HOMOGENEOUS
        edges: list[Edge] = []
        if function in ("ln", "reciprocal") and self.low > 0:
            edges.append(Edge(source, function, 1.0, 0.0, fixed=lets_scale_out))
        elif function == "reciprocal" and self.high < 0:
            edges.append(Edge(source, function, 1.0, 0.0, fixed=True))
        for slope in primitive.slopes:
            a = slope / self.half
            for center in primitive.centers:
                # a (x + shift) is zero at the center
                shift = -(self.middle + center * self.half)
                if function in ("ln", "reciprocal"):
                    edges.append(Edge(source, function, 1.0, shift, fixed=lets_scale_out))
                elif function == "exp":
                    edges.append(Edge(source, function, a, 0.0))
                elif function == "sin":
                    # Here the centers are phases.
                    edges.append(Edge(source, function, a, -a * self.middle + center))
                else:
                    edges.append(Edge(source, function, a, a * shift))
        return edges


# ---- stems ---------------------------------------------------------------------------------------


def pair_stems(data: LawData, features: Sequence[int]) -> list[Node]:
    """Squares, sums, differences, products and ratios of two features.

    Of three features or more, their sum and their product as well. Ratios by a feature that is zero
    somewhere are left out.
    """
    away = {d: bool((data.x_DN[d].abs() > 1e-9).all()) for d in features}
    stems = [canonical(Node("sum", (Edge(d, "square"),))) for d in features]
    for k, i in enumerate(features):
        for j in features[k + 1 :]:
            stems.append(_sum_stem([Edge(i, "identity"), Edge(j, "identity")]))
            stems.append(_sum_stem([Edge(i, "identity"), Edge(j, "identity", -1.0)]))
            stems.append(as_product([Edge(i, "identity"), Edge(j, "identity")]))
            if away[j]:
                stems.append(as_product([Edge(i, "identity"), Edge(j, "reciprocal")]))
            if away[i]:
                stems.append(as_product([Edge(j, "identity"), Edge(i, "reciprocal")]))
    if len(features) >= 3:
        everything = [Edge(d, "identity") for d in features]
        stems.append(_sum_stem(everything))
        stems.append(as_product(everything))
    return stems


def _sum_stem(edges: Sequence[Edge]) -> Node:
    return canonical(Node("sum", tuple(edges)))
