"""From tables to discrete choices."""

from __future__ import annotations

import pytest
import torch

from gradnas import ConvCell, Genotype, Softmax
from gradnas.derivation import best_operation, top_edges

EVEN = {"normal": torch.zeros(14, 8), "reduce": torch.zeros(14, 8)}


def test_equal_alphas_give_the_first_operation_on_the_first_two_edges():
    """Ties go to the lowest index."""
    genotype = ConvCell().derive(EVEN)
    expected = [("max_pool_3x3", 0), ("max_pool_3x3", 1)] * 4
    assert genotype.normal == tuple(expected) and genotype.reduce == tuple(expected)


def test_edges_come_in_descending_strength_from_distinct_predecessors():
    alphas = {k: t.clone() for k, t in EVEN.items()}
    alphas["normal"][2 + 2, 4] = 3.0  # into node 1 from node 0: the strongest
    alphas["normal"][2 + 1, 7] = 2.0
    alphas["normal"][2 + 1, 6] = 1.9  # a second operation of the same edge cannot be chosen
    assert ConvCell().derive(alphas).normal[2:4] == (("sep_conv_3x3", 2), ("dil_conv_5x5", 1))


def test_none_cannot_be_chosen_but_keeps_its_share():
    """Compared by alpha edge 0 would win (1.0 > 0.9); its `none` takes most of its probability."""
    alphas = {k: t.clone() for k, t in EVEN.items()}
    alphas["normal"][2 + 0, 0], alphas["normal"][2 + 0, 4] = 5.0, 1.0
    alphas["normal"][2 + 1, 5] = 0.9
    alphas["normal"][2 + 2, 6] = 0.8
    chosen = ConvCell().derive(alphas).normal[2:4]
    assert chosen == (("sep_conv_5x5", 1), ("dil_conv_3x3", 2))
    assert all(name != "none" for name, _ in ConvCell().derive(alphas).normal)


def test_tables_are_grouped_by_node_then_by_predecessor():
    strength = torch.zeros(5, 2)
    strength[4, 1] = 1.0
    assert top_edges(strength, (2, 3)) == [(0, 0), (0, 1), (1, 2), (0, 0)]
    assert top_edges(strength, (2, 3), keep=1) == [(0, 0), (1, 2)]


def test_best_operation_and_its_refusals():
    assert best_operation(torch.tensor([1.0, 2.0, 2.0])) == 1
    assert best_operation(torch.tensor([1.0, 2.0, 0.0]), excluded=[1]) == 0
    with pytest.raises(ValueError, match="all are excluded"):
        best_operation(torch.tensor([1.0]), excluded=[0])
    with pytest.raises(ValueError, match="NaN"):
        best_operation(torch.tensor([1.0, float("nan")]))
    with pytest.raises(ValueError, match="has 5 rows, not 4"):
        top_edges(torch.zeros(4, 2), (2, 3))


def test_differences_below_float32_still_decide():
    alphas = {k: t.double() for k, t in EVEN.items()}
    alphas["normal"][:, 5] = 1e-9
    assert all(name == "sep_conv_5x5" for name, _ in ConvCell().derive(alphas).normal)


def test_the_relaxation_may_be_named():
    assert isinstance(ConvCell().derive(EVEN, Softmax()), Genotype)
