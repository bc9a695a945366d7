"""What the operations of a supernet cost, and its architectures by strength and cost.

Legend: O operations.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from gradnas.architectures.base import Architecture
from gradnas.derivation import Picks
from gradnas.latency import Costs, CostView, LatencyTable, costs_of
from gradnas.latency.quantities import PARAMS
from gradnas.spaces.budget import Ranking, knapsack

D = TypeVar("D", bound=Architecture)  # what is decided: a Genotype, a Chain, Choices


class NetworkWithCosts(nn.Module, ABC, Generic[D]):
    """The part of a `Supernet` that is about costs.

    Attributes:
        alphas: as in `Supernet`.
    """

    alphas: nn.ParameterDict

    def cost_view(self) -> CostView:
        """How to run this network so that operations cost what they will cost in a derived one."""
        raise ValueError(
            f"{type(self).__name__} does not say what its operations cost: it has no cost_view()"
        )

    def costs(
        self,
        quantity: str,
        inputs: Sequence[Any],
        table: LatencyTable | None = None,
        named: Mapping[str, Any] | None = None,
    ) -> Costs:
        """What every operation costs with these inputs; latencies are read from `table`.

        Args:
            named: inputs by name.

        Raises:
            ValueError: a latency that the table neither has nor predicts.
        """
        units = self.cost_view().called_with(named).survey(inputs)
        return costs_of(units, quantity, dict(self.alphas.items()), table)

    def ranking(self, costs: Costs, strengths: Mapping[str, Tensor]) -> Ranking[D]:
        """The architectures by the product of their operations' strengths, with what they cost.

        Args:
            strengths: choice name -> strength of each operation, `(O,)`.
        """
        return Ranking(knapsack(costs, strengths), costs.fixed, self.decision)

    def no_costs(self) -> Costs:
        """Costs of nothing, so that architectures are ranked by their strengths alone."""
        tables = {}
        for name, alpha in self.alphas.items():
            tables[name] = torch.zeros(alpha.shape, dtype=torch.float64, device="cpu")
        return Costs(PARAMS.name, 0.0, tables)

    def decision(self, picks: Picks) -> D:
        """The discrete architecture with these operations, given by their columns."""
        raise ValueError(
            f"{type(self).__name__} cannot derive an architecture within a budget: "
            "it has no decision()"
        )
