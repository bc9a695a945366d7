"""What methods ask of a supernet about its choices: their operations, strengths and weights.

Most supernets say little of this; a method that needs more is refused with a sentence.
"""

from __future__ import annotations

from torch import Tensor, nn

from gradnas.modules.draws import Additions
from gradnas.relaxations import Relaxation
from gradnas.spaces.costs import D, NetworkWithCosts


class OpenChoices(NetworkWithCosts[D]):
    """The part of a `Supernet` that relaxations, stabilizers, selections and the health ask."""

    # What a selection has decided: table -> edge -> operation, or None for an edge that is cut.
    fixed: dict[str, dict[int, int | None]] = {}  # noqa: RUF012 (replaced, never changed)

    def weights_of_operations(self) -> dict[str, list[nn.Parameter]]:
        """The weights that each operation of each place has for itself, by where it stands."""
        return {}

    def selectable(self, name: str, row: int) -> list[int]:
        """Columns of the operations of an edge that may be decided for."""
        del row
        return list(range(self.alphas[name].shape[-1]))

    def nodes_of_edges(self) -> list[tuple[str, tuple[int, ...], int]]:
        """Table, rows of the edges that enter a node, and how many of them are kept.

        None where all edges are kept, or there are none.
        """
        return []

    @property
    def edge_alphas(self) -> dict[str, nn.Parameter]:
        """Alphas of whole edges, by the name of their table of operations; most have none."""
        return {}

    def add(self, additions: Additions, seed: int) -> None:
        """Give the supernet what a method asks for beside its operations and alphas.

        Args:
            seed: of the weights that are new.

        Raises:
            ValueError: it cannot have it, or has something else already.
        """
        del seed
        if additions != Additions():
            raise ValueError(refusal_of(additions, type(self).__name__))

    def strengths(self, relaxation: Relaxation) -> dict[str, Tensor]:
        """The strength of every operation, to derive from: float64, without a graph.

        Where a selection has decided, 1 for what it took and 0 for the rest.
        """
        found = self.strengths_by_alphas(relaxation)
        for name, rows in self.fixed.items():
            # A single choice is a table of one edge; a view, so that the table itself is set.
            table = found[name].view(-1, found[name].shape[-1])
            for row, column in rows.items():
                table[row] = 0.0
                if column is not None:
                    table[row, column] = 1.0
        return found

    def strengths_by_alphas(self, relaxation: Relaxation) -> dict[str, Tensor]:
        """The strength of every operation by its alpha."""
        found = {}
        for name, alpha in self.alphas.items():
            # float64: strengths that differ in alpha must not tie by rounding.
            found[name] = relaxation.probabilities(alpha.detach().double())
        return found

    def operation_names(self) -> dict[str, tuple[str, ...]]:
        """Choice -> operations in the columns of its alpha; empty where they have no names."""
        return {}

    def weightless(self) -> dict[str, Tensor]:
        """Choice -> whether each operation has no weights, shaped as its alpha.

        Without choices whose operations do not differ in that.
        """
        return {}

    def is_blind(self, decision: D) -> bool:
        """Whether nothing of its input reaches the output of an architecture, as far as is known.

        Of spaces in which `none` can be derived.
        """
        del decision
        return False

    def idle_choices(self) -> list[str]:
        """The choices that no pass has called: nothing has decided them."""
        return []


def refusal_of(additions: Additions, who: str) -> str:
    """Why a supernet that has no cells of edges cannot have what a method asks for."""
    if additions.channel_share > 1:
        return (
            f"PartialChannels gives operations a part of the channels that they were made for, and "
            f"those of a {who} are made for all: use it with ConvCell, or its inner relaxation"
        )
    if additions.edge_weights:
        return (
            f"edge normalisation weighs the edges that enter a node, and a {who} has none: use "
            "PartialChannels(edge_normalisation=False), or its inner relaxation"
        )
    return (
        f"an auxiliary skip passes the input of an edge on, and a {who} does not say which of its "
        "places could: use it with cells, or leave it out"
    )
