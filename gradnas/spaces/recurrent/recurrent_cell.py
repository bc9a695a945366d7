"""The recurrent cell space of DARTS for language models: the space and its supernet.

Legend: T time steps, B batch (streams of text), V vocabulary, H hidden units, G = 2 H, E edges, O
activations with `none`, F activations without it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gradnas.architectures.genotype import Genotype
from gradnas.config import JsonObject, build, check_numbers, did_you_mean
from gradnas.derivation import Option, Picks, log_strength, top_edges
from gradnas.latency import Costs
from gradnas.modules.draws import Additions, Draw
from gradnas.precision import HALF
from gradnas.relaxations import Relaxation, Softmax
from gradnas.spaces.base import Supernet, TextSpace, Weights
from gradnas.spaces.budget import Knapsack, Ranking
from gradnas.spaces.recurrent.native_search import run_search_cell
from gradnas.spaces.recurrent.recurrence import ACTIVATIONS, Activation
from gradnas.spaces.recurrent.recurrent_network import (
    LanguageLoss,
    LanguageModel,
    RecurrentDropout,
    RecurrentNetwork,
    check_known,
)

# The candidates of DARTS; their order is that of alpha's columns and breaks ties.
DARTS_ACTIVATIONS = ("none", "tanh", "relu", "sigmoid", "identity")


@dataclass(frozen=True)
class RecurrentCell(TextSpace[Genotype]):
    """One recurrent cell in a language model (DARTS, arXiv 1806.09055, appendix A.1.2).

    Args:
        hidden, embedding: sizes, equal: the decoder shares the embedding's weights.
        nodes: searched nodes; node i has an edge from the first state and from every earlier node.
        activations: candidates in alpha's column order: names of known ones, or a dictionary from
            names to elementwise functions, e.g. `{"none": None, "tanh": torch.tanh, "sine":
            torch.sin}`.
        dropout: of the supernet and of the network, in training mode.

    Raises:
        ValueError: a setting outside its range, an unknown activation (the nearest name is given).
    """

    hidden: int = 300
    embedding: int = 300
    nodes: int = 8
    activations: Mapping[str, Activation | None] | Sequence[str] = field(default=DARTS_ACTIVATIONS)
    dropout: RecurrentDropout = field(default_factory=RecurrentDropout)

    def __post_init__(self) -> None:
        for name in ("hidden", "embedding", "nodes"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        check_numbers(self)
        if self.hidden != self.embedding:
            raise ValueError(
                f"hidden and embedding must be equal, not {self.hidden} and {self.embedding}: "
                "the decoder shares the embedding's weights"
            )
        functions = self.activations
        if not isinstance(functions, Mapping):
            functions = _known_functions(functions)
        for name, function in functions.items():
            has_name = isinstance(name, str) and name != ""
            has_function = name == "none" or callable(function)
            if not has_name or not has_function:
                raise ValueError(
                    f"activation {name!r} needs a name and a function from tensor to tensor"
                )
        if all(name == "none" for name in functions):
            raise ValueError("a cell needs at least one activation besides 'none'")
        object.__setattr__(self, "activations", dict(functions))

    def __hash__(self) -> int:
        # The dictionary of activations has no hash; equal spaces have equal names.
        return hash((self.hidden, self.nodes, self.names, self.dropout))

    # ---- description -----------------------------------------------------------------------------

    @property
    def names(self) -> tuple[str, ...]:
        """The activations in alpha's column order, `none` included."""
        return tuple(self.activations)

    @property
    def functions(self) -> dict[str, Activation]:
        """Name -> function, without `none`."""
        assert isinstance(self.activations, Mapping)  # __post_init__ made a dictionary of it
        functions = {}
        for name, function in self.activations.items():
            if name != "none":
                assert function is not None
                functions[name] = function
        return functions

    @property
    def predecessors(self) -> tuple[int, ...]:
        """Incoming edges of each node: 1, 2, 3, ..."""
        return tuple(range(1, self.nodes + 1))

    @property
    def num_edges(self) -> int:
        """Rows of the table of alphas."""
        return sum(self.predecessors)

    def edge(self, node: int, predecessor: int) -> int:
        """Row of alpha for the edge into node `node` (from 1) from state `predecessor` (from 0)."""
        # The nodes before have 1 + 2 + ... + (node - 1) edges.
        return node * (node - 1) // 2 + predecessor

    def to_json(self) -> JsonObject:
        """Fields for a configuration file; activations by name."""
        for name, function in self.functions.items():
            if ACTIVATIONS.get(name) is not function:
                raise ValueError(
                    f"your own activation {name!r} cannot be written into a configuration file"
                )
        return {
            "hidden": self.hidden,
            "embedding": self.embedding,
            "nodes": self.nodes,
            "activations": list(self.names),
            "dropout": dataclasses.asdict(self.dropout),
        }

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> RecurrentCell:
        """The inverse of `to_json`; activations must be known ones."""
        data = dict(data)
        names = data.pop("activations", list(DARTS_ACTIVATIONS))
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{where}.activations must be a list of names, not {names!r}")
        space = build(cls, data, where)
        try:
            return dataclasses.replace(space, activations=tuple(names))
        except ValueError as error:
            raise ValueError(f"{where}.activations: {error}") from error

    # ---- what it builds --------------------------------------------------------------------------

    def supernet(self, vocabulary: int = 10000) -> RecurrentSupernet:
        """The model with every choice open; alphas start as in DARTS, 1e-3 times normal numbers."""
        return RecurrentSupernet(self, vocabulary)

    def derive(self, alphas: Mapping[str, Tensor], relaxation: Relaxation = Softmax()) -> Genotype:
        """For every node its strongest predecessor with its best activation (DARTS, 2.4)."""
        excluded = [self.names.index("none")] if "none" in self.names else []
        # float64: strengths that differ in alpha must not tie by rounding
        strength_EO = relaxation.probabilities(alphas["recurrent"].detach().double())
        pairs = top_edges(strength_EO, self.predecessors, excluded, keep=1)
        edges = [(self.names[operation], predecessor) for operation, predecessor in pairs]
        return Genotype.recurrent_cell(edges)

    def decision(self, what: Genotype | str) -> Genotype:
        """A recurrent genotype from its original text form, or as it is; checked.

        Raises:
            ValueError: a genotype of another space, or with an activation that is not known here.
        """
        genotype = Genotype.parse(what) if isinstance(what, str) else what
        kind = genotype.kind if isinstance(genotype, Genotype) else type(genotype).__name__
        if not isinstance(genotype, Genotype) or kind != "recurrent":
            raise ValueError(
                f"a recurrent network needs a recurrent genotype, not one of kind {kind!r}"
            )
        check_known(genotype.recurrent, {**ACTIVATIONS, **self.functions})
        return genotype

    def random_decision(self, generator: torch.Generator) -> Genotype:
        """A cell drawn uniformly: for each node one predecessor and one activation, not `none`."""
        names = list(self.functions)

        def pick(count: int) -> int:
            return int(torch.randint(count, (1,), generator=generator, device="cpu"))

        edges = []
        for num_predecessors in self.predecessors:
            name = names[pick(len(names))]
            predecessor = pick(num_predecessors)
            edges.append((name, predecessor))
        return Genotype.recurrent_cell(edges)

    def network(self, genotype: Genotype, vocabulary: int = 10000) -> RecurrentNetwork:
        """The plain network of a genotype at this size, freshly initialised.

        It has the genotype's number of nodes, whatever the space's is.

        Raises:
            ValueError: a genotype of another space, or with an activation that is not known here.
        """
        genotype = self.decision(genotype)
        return RecurrentNetwork(
            genotype.recurrent,
            genotype.concat,
            vocabulary=vocabulary,
            hidden=self.hidden,
            dropout=self.dropout,
            activations=self.functions,
        )


def _known_functions(names: Sequence[str]) -> dict[str, Activation | None]:
    """The functions of these names, None for `none`. ValueError for an unknown name."""
    functions: dict[str, Activation | None] = {}
    for name in names:
        if name != "none" and name not in ACTIVATIONS:
            known = ("none", *ACTIVATIONS)
            hint = did_you_mean(name, known)
            raise ValueError(f"unknown activation {name!r}{hint}; known are {', '.join(known)}")
        functions[name] = ACTIVATIONS.get(name)
    return functions


class RecurrentSupernet(LanguageModel, Supernet[Genotype]):
    """The model with every choice open; `alphas["recurrent"]` is `(E, O)`.

    All predecessors of a node share its matrix. One BatchNorm without affine part follows the first
    state and every node; it always uses the statistics of the batch, also in evaluation (the
    original's running statistics mix those of all nodes and time steps and distort its evaluation),
    so there have to be at least two texts.

    Dropout masks are drawn once for each pass over a chunk and shared by its time steps: the
    variational dropout of Gal and Ghahramani. Passes that must see the same masks, as those of one
    architecture step, are run from the same random state by the search.
    """

    def __init__(self, space: RecurrentCell, vocabulary: int) -> None:
        super().__init__(vocabulary, space.hidden, space.nodes, space.dropout)
        self.space = space
        alpha_EO = 1e-3 * torch.randn(space.num_edges, len(space.names))
        self.alphas = nn.ParameterDict({"recurrent": nn.Parameter(alpha_EO)})

    def forward(
        self,
        tokens_TB: Tensor,
        hidden_BH: Tensor | None = None,
        targets_TB: Tensor | None = None,
        draw: Draw | None = None,
    ) -> tuple[Tensor, Tensor] | LanguageLoss:
        """As `RecurrentNetwork.forward`, for the mixture of `draw` (of `softmax(alpha)` without).

        Raises:
            ValueError: a shape that does not fit, or less than two texts.
        """
        if tokens_TB.dim() == 2 and tokens_TB.shape[1] < 2:
            raise ValueError(
                "the search cell normalises over the batch: it needs at least two texts (columns)"
            )
        if draw is None:
            draw = self.dense_draw()
        return self.run(tokens_TB, hidden_BH, targets_TB, draw)

    def recur(
        self, mask_BH: Tensor | None, input_TBG: Tensor, hidden_BH: Tensor, draw: Draw
    ) -> Tensor:
        # `none` is computed by leaving it out: its share of the softmax is lost to the others.
        columns = [k for k, name in enumerate(self.space.names) if name != "none"]
        mix_EF = draw.mix["recurrent"][:, columns]
        if draw.skip:
            beside_F = torch.zeros(len(columns), dtype=mix_EF.dtype, device=mix_EF.device)
            beside_F[list(self.space.functions).index("identity")] = draw.skip
            mix_EF = mix_EF + beside_F
        # Alphas are never narrower than float32; the kernels take one type for all.
        if hidden_BH.dtype in HALF and self.node_weights.dtype in HALF:
            mix_EF = mix_EF.to(hidden_BH.dtype)
        return run_search_cell(
            self.space.functions,
            mask_BH,
            input_TBG,
            hidden_BH,
            recurrent_HG=self.first_weight[self.hidden :],
            nodes_NHG=self.node_weights,
            mix_EF=mix_EF,
        )

    def add(self, additions: Additions, seed: int) -> None:
        """An auxiliary skip is the activation `identity`, with a weight beside its alpha's."""
        if additions.auxiliary_skip and self.space.functions.get("identity") is None:
            raise ValueError(
                "an auxiliary skip of a recurrent cell is its activation 'identity', which this "
                "space does not have: add it to the activations, or leave AuxiliarySkip out"
            )
        super().add(dataclasses.replace(additions, auxiliary_skip=False), seed)

    def decide(self, relaxation: Relaxation = Softmax()) -> Genotype:
        return self.space.derive(dict(self.alphas.items()), relaxation)

    def selectable(self, name: str, row: int) -> list[int]:
        del name, row
        return [column for column, own in enumerate(self.space.names) if own != "none"]

    def nodes_of_edges(self) -> list[tuple[str, tuple[int, ...], int]]:
        nodes = []
        for node, count in enumerate(self.space.predecessors, start=1):
            rows = tuple(self.space.edge(node, source) for source in range(count))
            nodes.append(("recurrent", rows, 1))
        return nodes

    # Its kernels have no second derivative: there it is computed by plain operations, 35 time steps
    # one after the other.
    steps_of_product = 6

    # The derived cell has no BatchNorm, and so is another function of the same weights.
    keeps_its_meaning = False

    def random_decision(self, generator: torch.Generator) -> Genotype:
        return self.space.random_decision(generator)

    def ranking(self, costs: Costs, strengths: Mapping[str, Tensor]) -> Ranking[Genotype]:
        """Every node takes one of its edges with one activation: these pairs are its options."""
        del costs  # a search of cells for text has none
        p_EO = strengths["recurrent"].detach().double()
        columns = [k for k, name in enumerate(self.space.names) if name != "none"]
        options: dict[str, list[Option]] = {}
        places: dict[str, list[tuple[str, int]]] = {}
        for node, count in enumerate(self.space.predecessors, start=1):
            name = f"node {node}"
            places[name] = []
            scores = []
            for predecessor, column in itertools.product(range(count), columns):
                strength = float(p_EO[self.space.edge(node, predecessor), column])
                scores.append(log_strength(strength))
                places[name].append((self.space.names[column], predecessor))
            options[name] = [Option(score - max(scores), 0.0) for score in scores]

        def decision(picks: Picks) -> Genotype:
            return Genotype.recurrent_cell([places[name][picks[name]] for name in places])

        return Ranking(Knapsack(options, joint={}), 0.0, decision)

    def operation_names(self) -> dict[str, tuple[str, ...]]:
        return {"recurrent": self.space.names}

    def skip_count(self, decision: Genotype) -> int:
        """None: also `identity` passes through its node's matrix and gate."""
        return 0

    def one_hot_draw(self, genotype: Genotype) -> Draw:
        """Mixing weights 1 on the genotype's edges and activations, all other edges cut."""
        self._check_fits(genotype)
        columns: list[int | None] = [None] * self.space.num_edges
        for node, (name, predecessor) in enumerate(genotype.recurrent, start=1):
            edge = self.space.edge(node, predecessor)
            columns[edge] = self.space.names.index(name)
        like = {"recurrent": self.alphas["recurrent"].detach()}
        return Draw.one_hot({"recurrent": columns}, like)

    def derived(self, decision: Genotype, weights: Weights = "keep") -> RecurrentNetwork:
        """The plain network of a genotype at the supernet's size; `"keep"` copies its weights.

        The derived cell has no BatchNorm, so kept weights are a start for training and no model
        yet.

        Raises:
            ValueError: the genotype is not one of this space.
        """
        self._check_fits(decision)
        network = self.space.network(decision, self.vocabulary)
        network.to(self.decoder_bias.device, self.decoder_bias.dtype)
        if weights == "keep":
            ours = self.state_dict()
            network.load_state_dict({name: ours[name] for name in network.state_dict()})
        return network

    def _check_fits(self, genotype: Genotype) -> None:
        nodes = self.space.nodes
        names = self.space.names
        has_all_nodes = len(genotype.recurrent) == nodes
        gives_mean_of_all = genotype.concat == tuple(range(1, nodes + 1))
        if not has_all_nodes or not gives_mean_of_all:
            raise ValueError(
                f"the cell has {len(genotype.recurrent)} nodes and the output "
                f"{list(genotype.concat)}; a cell of this supernet has {nodes} nodes, and its "
                "output is the mean of all"
            )
        for name, _ in genotype.recurrent:
            if name not in names:
                hint = did_you_mean(name, names)
                raise ValueError(f"the supernet has no activation {name!r}{hint}")
