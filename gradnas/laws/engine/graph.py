"""`EquationGraph`: the space of equations, as a supernet of many restarts at once.

Legend: K restarts, N points, D features, J nodes, E edges of the whole graph, I edges into one
node, O primitives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gradnas.choice import Draw
from gradnas.derivation import best_operation
from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
    canonical,
)
from gradnas.laws.primitives import (
    DEFAULT_WORDS,
    POWER,
    WORDS,
    Primitive,
    resolve,
)
from gradnas.relaxations import Relaxation, Softmax

SMALLEST, LARGEST = 1e-3, 1e3  # bounds of what a node passes on in the mixture


@dataclass(frozen=True)
class EquationGraph:
    """Graphs of scalar operations: every node reads all features and all nodes before it.

    An edge is a mixture over primitives of `a x + b`; a node is a mixture of the sum of its edges,
    their product, and the ratio of two sums of them; the output is a linear combination of all
    nodes. Features should be of size 1.

    It is no `gradnas.Space`: what its alphas say is an equation only with the weights beside them,
    and its supernets are searched many at a time.

    Args:
        features: their number D.
        nodes: number of intermediate nodes J.
        primitives: words (`gradnas.laws.primitives.WORDS`) or `Primitive`s.
        kinds: what a node may be; of "sum", "product", "ratio".

    Raises:
        ValueError: an unknown word or kind, no feature, no node.
    """

    features: int
    nodes: int = 2
    primitives: tuple[str | Primitive, ...] = DEFAULT_WORDS
    kinds: tuple[str, ...] = ("sum", "product", "ratio")

    def __post_init__(self) -> None:
        if self.features < 1 or self.nodes < 1:
            raise ValueError(
                f"a graph has features and nodes, not features={self.features}, nodes={self.nodes}"
            )
        unknown = [kind for kind in self.kinds if kind not in ("sum", "product", "ratio")]
        if unknown or not self.kinds:
            raise ValueError(f"kinds are of 'sum', 'product', 'ratio', not {list(self.kinds)}")
        resolve(self.primitives)

    @property
    def words(self) -> tuple[str, ...]:
        """Names of the primitives, in alpha's column order."""
        return resolve(self.primitives)[0]

    @property
    def table(self) -> dict[str, Primitive]:
        """Functions by name."""
        return resolve(self.primitives)[1]

    @property
    def edges(self) -> list[tuple[int, int]]:
        """(node, source) of every edge; sources count features first."""
        return [(j, source) for j in range(self.nodes) for source in range(self.features + j)]

    def supernet(
        self, restarts: int = 1, generator: torch.Generator | None = None
    ) -> EquationSupernet:
        """`restarts` supernets side by side, with `generator` for their weights."""
        return EquationSupernet(self, restarts, generator)

    def derive(
        self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()
    ) -> list[dict[str, list[int]]]:
        """Per restart the strongest primitive of each edge, the strongest kind of each node, the
        side in a ratio."""
        strengths = {
            name: relaxation.probabilities(alpha.detach()) for name, alpha in alphas.items()
        }
        restarts = next(iter(strengths.values())).shape[0]
        return [
            {name: [best_operation(row) for row in table[k]] for name, table in strengths.items()}
            for k in range(restarts)
        ]

    def formula(
        self, choice: Mapping[str, Sequence[int]], a_EO: Tensor, b_EO: Tensor
    ) -> Formula | None:
        """The discrete equation of one restart; None where every edge is `none`."""
        nodes: list[Node] = []
        place: dict[int, int] = {}
        words = self.words
        for j in range(self.nodes):
            kind = self.kinds[choice["nodes"][j]]
            edges = []
            for e, (node, source) in enumerate(self.edges):
                word = words[choice["edges"][e]]
                lost = source >= self.features and source not in place
                if node != j or word == "none" or lost:
                    continue
                o = choice["edges"][e]
                below = kind == "ratio" and choice["sides"][e] == 1
                edges.append(
                    self._edge(
                        word, place.get(source, source), float(a_EO[e, o]), float(b_EO[e, o]), below
                    )
                )
            if not edges:
                continue
            if len({edge.below for edge in edges}) < 2 and kind == "ratio":
                kind, edges = (
                    "sum",
                    [Edge(e.source, e.function, e.a, e.b, False, e.fixed) for e in edges],
                )
            nodes.append(canonical(Node("sum" if len(edges) == 1 else kind, tuple(edges))))  # type: ignore[arg-type]
            place[self.features + j] = self.features + len(nodes) - 1
        if not nodes:
            return None
        return Formula(self.features, tuple(nodes), (1.0,) * len(nodes), 1e-3)

    def _edge(self, word: str, source: int, a: float, b: float, below: bool) -> Edge:
        function, fits_a, fits_b = WORDS.get(word, (word, True, True))
        if function == POWER:
            return Edge(source, POWER, a, 0.0, below)
        a = a if fits_a else (-1.0 if word == "subtract" else 1.0)
        return Edge(source, function, a, b if fits_b else 0.0, below, not fits_a)


class EquationSupernet(nn.Module):
    """K supernets of one space, as one set of tensors.

    `alphas`: "edges" `(K, E, O)`, "nodes" `(K, J, kinds)`, and, where ratios are allowed, "sides"
    `(K, E, 2)` (above, below). Weights: `a`, `b`, `(K, E, O)`, of every primitive on every edge.
    """

    def __init__(
        self, space: EquationGraph, restarts: int = 1, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        if restarts < 1:
            raise ValueError(f"there is at least one restart, not {restarts}")
        self.space, self.restarts = space, restarts
        E, J = len(space.edges), space.nodes
        shape = (restarts, E, len(space.words))
        tables = {"edges": shape, "nodes": (restarts, J, len(space.kinds))}
        if "ratio" in space.kinds:
            tables["sides"] = (restarts, E, 2)
        self.alphas = nn.ParameterDict(
            {
                name: nn.Parameter(0.3 * torch.randn(s, generator=generator))
                for name, s in tables.items()
            }
        )
        self.a = nn.Parameter(1.5 * torch.randn(shape, generator=generator))
        self.b = nn.Parameter(0.5 * torch.randn(shape, generator=generator))

    def forward(self, x_DN: Tensor, *, draw: Draw | None = None) -> Tensor:
        """Values of all nodes, `(K, J, N)`; finite for finite features."""
        if draw is None:
            draw = Softmax().draw(dict(self.alphas.items()), {}, 0.0)
        mixture, space = draw.mix, self.space
        words, table, D = space.words, space.table, space.features
        values = list(x_DN.unsqueeze(1).expand(D, self.restarts, -1))
        first = 0
        nodes = []
        for j in range(space.nodes):
            rows = slice(first, first + D + j)
            first += D + j
            input_KIN = torch.stack(values, dim=1)
            mix_OKI = mixture["edges"][:, rows].permute(2, 0, 1).unsqueeze(-1)
            a_OKI, b_OKI = (t[:, rows].permute(2, 0, 1).unsqueeze(-1) for t in (self.a, self.b))
            sum_KIN = torch.zeros_like(input_KIN)
            absent = torch.zeros_like(mix_OKI[0])
            for o, word in enumerate(words):
                if word == "none":
                    absent = mix_OKI[o]
                else:
                    sum_KIN = sum_KIN + mix_OKI[o] * _safe(
                        word, input_KIN, a_OKI[o], b_OKI[o], table
                    )
            parts = []
            for kind in space.kinds:
                if kind == "sum":
                    parts.append(sum_KIN.sum(1))
                elif kind == "product":
                    parts.append((sum_KIN + absent).prod(1))
                else:
                    sides = mixture["sides"][:, rows]
                    above = (sum_KIN * sides[..., 0:1]).sum(1)
                    below = (sum_KIN * sides[..., 1:2]).sum(1)
                    parts.append(above * below / (below * below + SMALLEST))
            kinds = mixture["nodes"][:, j]
            value = sum(
                kinds[:, k, None] * part.clamp(-LARGEST, LARGEST) for k, part in enumerate(parts)
            )
            assert isinstance(value, Tensor)
            values.append(value)
            nodes.append(value)
        return torch.stack(nodes, dim=1)

    def decide(self, relaxation: Relaxation = Softmax()) -> list[Formula | None]:
        """One formula for each restart, with the supernet's weights; None where every edge is
        `none`."""
        choices = self.space.derive(dict(self.alphas.items()), relaxation)
        a, b = self.a.detach(), self.b.detach()
        return [self.space.formula(choice, a[k], b[k]) for k, choice in enumerate(choices)]


def _safe(word: str, x: Tensor, a: Tensor, b: Tensor, table: Mapping[str, Primitive]) -> Tensor:
    """What a primitive passes on in the mixture: finite, and without a gradient that could
    overflow."""
    function, fits_a, fits_b = WORDS.get(word, (word, True, True))
    if function == POWER:
        return torch.exp((a * torch.log(x.abs().clamp(min=SMALLEST, max=LARGEST))).clamp(-7.0, 7.0))
    z = a * x if fits_a else (-x if word == "subtract" else x)
    z = z + b if fits_b else z
    primitive = table[function]
    return (primitive.safe or primitive.function)(z).clamp(-LARGEST, LARGEST)


def random_formulas(space: EquationGraph, count: int, generator: torch.Generator) -> list[Formula]:
    """Formulas drawn from the space: kinds and primitives uniformly, half of the edges `none`,
    normal constants."""
    words, found = space.words, []
    absent = words.index("none") if "none" in words else -1
    present = [o for o, word in enumerate(words) if word != "none"]
    E, J = len(space.edges), space.nodes

    def uniform(high: int, size: int) -> list[int]:
        return torch.randint(high, (size,), generator=generator).tolist()

    for _ in range(count):
        chosen = [present[o] for o in uniform(len(present), E)]
        if absent >= 0:
            chosen = [absent if coin else o for coin, o in zip(uniform(2, E), chosen, strict=True)]
        choice = {"edges": chosen, "nodes": uniform(len(space.kinds), J), "sides": uniform(2, E)}
        a = 1.5 * torch.randn(E, len(words), generator=generator)
        b = 0.5 * torch.randn(E, len(words), generator=generator)
        formula = space.formula(choice, a, b)
        if formula is not None:
            found.append(formula)
    return found
