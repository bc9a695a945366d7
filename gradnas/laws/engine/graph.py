"""`EquationGraph`: the space of equations, as a supernet of many restarts at once.

Legend: K restarts, N points, D features, J nodes, E edges of the whole graph, I edges into one
node, O primitives.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from gradnas.config import did_you_mean
from gradnas.derivation import best_operation
from gradnas.laws.engine.mixture import LARGEST, SMALLEST, passed_on
from gradnas.laws.engine.network import FormulaNetwork
from gradnas.laws.formula import (
    Edge,
    Formula,
    Kind,
    Node,
    canonical,
)
from gradnas.laws.formulas import Formulas
from gradnas.laws.primitives import (
    DEFAULT_WORDS,
    POWER,
    Primitive,
    meaning,
    resolve,
)
from gradnas.modules.draws import Draw
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.base import Space, Supernet, Weights


@dataclass(frozen=True)
class EquationGraph(Space[Formulas]):
    """Graphs of scalar operations: every node reads all features and all nodes before it.

    An edge is a mixture over primitives of `a x + b`; a node is a mixture of the sum of its edges,
    their product, and the ratio of two sums of them; the output is a linear combination of all
    nodes. Features should be of size 1.

    What its alphas say is an equation only with the weights beside them: `EquationSupernet.decide`
    has both, `derive` the alphas alone. One architecture holds a formula for each restart.

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
    kinds: tuple[Kind, ...] = ("sum", "product", "ratio")

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

    def strongest(
        self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()
    ) -> list[dict[str, list[int]]]:
        """The choices of each restart.

        Returns:
            Per restart the place of the strongest primitive of each edge ("edges"), of the
            strongest kind of each node ("nodes"), and of each edge's side in a ratio ("sides").
        """
        strengths: dict[str, Tensor] = {}
        for name, alpha in alphas.items():
            strengths[name] = relaxation.probabilities(alpha.detach())
        restarts = next(iter(strengths.values())).shape[0]
        choices: list[dict[str, list[int]]] = []
        for k in range(restarts):
            choice: dict[str, list[int]] = {}
            for name, table in strengths.items():
                choice[name] = [best_operation(row) for row in table[k]]
            choices.append(choice)
        return choices

    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()) -> Formulas:
        """The formulas that alphas stand for, with every constant 1: alphas say nothing of them."""
        ones_EO = torch.ones(len(self.edges), len(self.words))
        formulas: list[Formula | None] = []
        for choice in self.strongest(alphas, relaxation):
            formulas.append(self.formula(choice, ones_EO, ones_EO))
        return Formulas(tuple(formulas))

    def decision(self, what: Formulas | str) -> Formulas:
        """Formulas of this space from their text; those that are given are checked and returned.

        Raises:
            ValueError: a formula of other features, of too many nodes, of a kind of node or a
                function that the space does not have.
        """
        decision = Formulas.parse(what) if isinstance(what, str) else what
        for k, formula in enumerate(decision.formulas):
            if formula is not None:
                self._check(formula, f"formula {k}")
        return decision

    def _check(self, formula: Formula, where: str) -> None:
        if formula.features != self.features:
            raise ValueError(
                f"{where} is of {formula.features} features, but the space of {self.features}"
            )
        if len(formula.nodes) > self.nodes:
            raise ValueError(
                f"{where} has {len(formula.nodes)} nodes, but the space at most {self.nodes}"
            )
        functions = {meaning(word).function for word in self.words if word != "none"}
        kinds: set[str] = set(self.kinds)
        if "ratio" in kinds:
            kinds.add("sum")  # a ratio whose edges are all on one side
        for j, node in enumerate(formula.nodes):
            # A lone edge is a sum, whatever the kind of its node was.
            if len(node.edges) > 1 and node.kind not in kinds:
                raise ValueError(
                    f"{where}: node {j} is a {node.kind}, but the space has {sorted(kinds)}"
                )
            if len({edge.source for edge in node.edges}) < len(node.edges):
                raise ValueError(f"{where}: node {j} reads one source twice")
            for edge in node.edges:
                if edge.function not in functions:
                    hint = did_you_mean(edge.function, functions)
                    raise ValueError(
                        f"{where}: the space has no function {edge.function!r}{hint}; it has "
                        f"{sorted(functions)}"
                    )

    def random_decision(self, generator: torch.Generator) -> Formulas:
        """One formula at random, as `random_formulas` makes them."""
        formulas: list[Formula] = []
        while not formulas:  # nothing but `none` is no formula
            formulas = random_formulas(self, 1, generator)
        return Formulas(tuple(formulas))

    def formula(
        self, choice: Mapping[str, Sequence[int]], a_EO: Tensor, b_EO: Tensor
    ) -> Formula | None:
        """The discrete equation of one restart; None where every edge is `none`.

        Its output layer is to be fitted next: scales that it can take are left to it.
        """
        nodes = tuple(canonical(node) for node in self.nodes_of(choice, a_EO, b_EO))
        if not nodes:
            return None
        # These numbers only say that everything is in the output.
        return Formula(self.features, nodes, (1.0,) * len(nodes), 1e-3)

    def nodes_of(
        self, choice: Mapping[str, Sequence[int]], a_EO: Tensor, b_EO: Tensor
    ) -> list[Node]:
        """The nodes of one restart as they are in the mixture, without those that have no edge."""
        D = self.features
        nodes: list[Node] = []
        # Where features and nodes are in the formula: a node without edges is not in it, and no
        # edge reads it.
        place = {d: d for d in range(D)}
        for j in range(self.nodes):
            kind = self.kinds[choice["nodes"][j]]
            edges: list[Edge] = []
            for e, (node, source) in enumerate(self.edges):
                o = choice["edges"][e]
                word = self.words[o]
                if node != j or word == "none" or source not in place:
                    continue
                below = kind == "ratio" and choice["sides"][e] == 1
                a = float(a_EO[e, o])
                b = float(b_EO[e, o])
                edges.append(_edge(word, place[source], a, b, below))
            if not edges:
                continue
            one_sided = len({edge.below for edge in edges}) == 1
            if kind == "ratio" and one_sided:
                kind = "sum"
                edges = [replace(edge, below=False) for edge in edges]
            if len(edges) == 1:
                kind = "sum"
            nodes.append(Node(kind, tuple(edges)))
            place[D + j] = D + len(nodes) - 1
        return nodes


def _edge(word: str, source: int, a: float, b: float, below: bool) -> Edge:
    """The edge that a primitive's word stands for; constants that it does not fit are not taken."""
    function, fits_a, fits_b = meaning(word)
    if function == POWER:
        return Edge(source, POWER, a, 0.0, below)
    if not fits_a:
        a = -1.0 if word == "subtract" else 1.0
    if not fits_b:
        b = 0.0
    return Edge(source, function, a, b, below, fixed=not fits_a)


class EquationSupernet(Supernet[Formulas]):
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
        self.space = space
        self.restarts = restarts
        E = len(space.edges)
        shape_KEO = (restarts, E, len(space.words))
        shapes = {"edges": shape_KEO, "nodes": (restarts, space.nodes, len(space.kinds))}
        if "ratio" in space.kinds:
            shapes["sides"] = (restarts, E, 2)
        device = None if generator is None else generator.device
        self.alphas = nn.ParameterDict()
        for name, shape in shapes.items():
            # Not all alike, so that restarts differ from the first step on.
            self.alphas[name] = nn.Parameter(
                0.3 * torch.randn(shape, generator=generator, device=device)
            )
        self.a = nn.Parameter(1.5 * torch.randn(shape_KEO, generator=generator, device=device))
        self.b = nn.Parameter(0.5 * torch.randn(shape_KEO, generator=generator, device=device))

    def forward(self, x_DN: Tensor, *, draw: Draw | None = None) -> Tensor:
        """Values of all nodes, `(K, J, N)`; finite for finite features."""
        if draw is None:
            draw = self.dense_draw()
        space = self.space
        D = space.features
        values = list(x_DN.unsqueeze(1).expand(D, self.restarts, -1))
        first = 0
        for j in range(space.nodes):
            # The edges of a node stand side by side: one for each feature and node before it.
            rows = slice(first, first + D + j)
            first += D + j
            input_KIN = torch.stack(values, dim=1)
            values.append(self._node(j, rows, input_KIN, draw.mix))
        return torch.stack(values[D:], dim=1)

    def _node(self, j: int, rows: slice, input_KIN: Tensor, mix: Mapping[str, Tensor]) -> Tensor:
        """The value of node j, `(K, N)`: the mixture of its kinds, each of mixtures of primitives.

        Args:
            rows: the edges into it.
        """
        edge_KIN, absent_KI1 = self._edges(rows, input_KIN, mix["edges"])
        kind_mix = mix["nodes"][:, j]
        value_KN = torch.zeros_like(edge_KIN[:, 0])
        for k, kind in enumerate(self.space.kinds):
            if kind == "sum":
                part_KN = edge_KIN.sum(1)
            elif kind == "product":
                # An absent edge is 0 in a sum and 1 in a product.
                part_KN = (edge_KIN + absent_KI1).prod(1)
            else:
                sides = mix["sides"][:, rows]
                above_KN = (edge_KIN * sides[..., 0:1]).sum(1)
                below_KN = (edge_KIN * sides[..., 1:2]).sum(1)
                # u / v, finite where v is 0
                part_KN = above_KN * below_KN / (below_KN * below_KN + SMALLEST)
            value_KN = value_KN + kind_mix[:, k, None] * part_KN.clamp(-LARGEST, LARGEST)
        return value_KN

    def _edges(self, rows: slice, input_KIN: Tensor, mix_KEO: Tensor) -> tuple[Tensor, Tensor]:
        """What the edges into a node pass on, `(K, I, N)`, and how absent they are, `(K, I, 1)`."""
        mix_OKI1 = mix_KEO[:, rows].permute(2, 0, 1).unsqueeze(-1)
        a_OKI1 = self.a[:, rows].permute(2, 0, 1).unsqueeze(-1)
        b_OKI1 = self.b[:, rows].permute(2, 0, 1).unsqueeze(-1)
        table = self.space.table
        sum_KIN = torch.zeros_like(input_KIN)
        absent_KI1 = torch.zeros_like(mix_OKI1[0])
        # One primitive at a time for all edges and restarts: each function is called once.
        for o, word in enumerate(self.space.words):
            if word == "none":
                absent_KI1 = mix_OKI1[o]
            else:
                value_KIN = passed_on(word, input_KIN, a_OKI1[o], b_OKI1[o], table)
                sum_KIN = sum_KIN + mix_OKI1[o] * value_KIN
        return sum_KIN, absent_KI1

    def decide(self, relaxation: Relaxation = Softmax()) -> Formulas:
        """One formula for each restart, with its weights; None where every edge is `none`."""
        choices = self.space.strongest(dict(self.alphas.items()), relaxation)
        a_KEO = self.a.detach()
        b_KEO = self.b.detach()
        formulas: list[Formula | None] = []
        for k, choice in enumerate(choices):
            formulas.append(self.space.formula(choice, a_KEO[k], b_KEO[k]))
        return Formulas(tuple(formulas))

    def skip_count(self, decision: Formulas) -> int:
        """Plain edges of all formulas."""
        count = 0
        for formula in decision.formulas:
            if formula is None:
                continue
            for node in formula.nodes:
                count += sum(edge.function == "identity" for edge in node.edges)
        return count

    def derived(self, decision: Formulas, weights: Weights = "keep") -> nn.Module:
        """The formulas as a network of features `(D, N)`, with their values `(K, N)`.

        Their constants are those of the decision: what `decide` took from the supernet. They are
        values of the true functions, each formula the sum of its nodes, which are those of the
        mixture up to a scale: `gradnas.laws.engine.refit.refit` finds the scales. A restart that
        decided against every edge is NaN.

        Raises:
            ValueError: for fresh weights: formulas have no others.
        """
        if weights == "fresh":
            raise ValueError(
                "formulas have the constants that they were decided with and no fresh ones: fit "
                "them to data with gradnas.laws.engine.refit.refit"
            )
        return FormulaNetwork(decision, self.space.table)


def random_formulas(space: EquationGraph, count: int, generator: torch.Generator) -> list[Formula]:
    """Formulas at random from the space; those of nothing but `none` are left out.

    Kinds and primitives are uniform, half of the edges are `none`, and the constants are normal.
    """
    words = space.words
    present = [o for o, word in enumerate(words) if word != "none"]
    E = len(space.edges)

    def uniform(high: int, size: int) -> list[int]:
        return torch.randint(high, (size,), generator=generator, device="cpu").tolist()

    formulas: list[Formula] = []
    for _ in range(count):
        # A half of the edges absent: uniform words alone would hardly ever leave one out, and a sum
        # or product of everything is no short law.
        edges = [present[o] for o in uniform(len(present), E)]
        if "none" in words:
            absent = words.index("none")
            for e, is_absent in enumerate(uniform(2, E)):
                if is_absent:
                    edges[e] = absent
        choice = {
            "edges": edges,
            "nodes": uniform(len(space.kinds), space.nodes),
            "sides": uniform(2, E),
        }
        a_EO = 1.5 * torch.randn(E, len(words), generator=generator, device="cpu")
        b_EO = 0.5 * torch.randn(E, len(words), generator=generator, device="cpu")
        formula = space.formula(choice, a_EO, b_EO)
        if formula is not None:
            formulas.append(formula)
    return formulas
