"""The forms in which genotypes are found: logs, other class names, nested, weighted, FairDARTS."""

from __future__ import annotations

import json
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gradnas.architectures.genotype import Genotype
from gradnas.pictures.cell_plan import conv_graph
from gradnas.spaces import ConvCell

V2 = Genotype.named("DARTS_V2")
TEXT = V2.to_text()
PAIRS = [("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 2), ("dil_conv_5x5", 0)]
CONV = Genotype.conv(PAIRS, PAIRS)
NESTED = [PAIRS[:2], PAIRS[2:]]
REST = f"normal_concat=range(2, 4), reduce={PAIRS!r}, reduce_concat=[2, 3]"


@pytest.mark.parametrize(
    "text",
    [
        TEXT + ",",
        f"best = {TEXT},",
        f"07/08 12:00:01 PM genotype = {TEXT}",
        f"2019-04-01 12:00:00,123 genotype = {TEXT}\n2019-04-01 12:00:01,1 train 000 2.3e+00\n",
        f"INFO: {TEXT}",
        f"best: Genotype = {TEXT}",
        f"epoch 3, genotype: {TEXT} (88.5%)",
        f"valid_acc 88.5 it's {TEXT}",
        f"{CONV}\n{TEXT}",
        f"epoch 1 {CONV}\nepoch 2 {TEXT}\nepoch 3 Genotype(normal=[('sep",
        f"epoch 1 {CONV}\n" + 3000 * "train 000 loss 2.302585 top1 10.000000\n" + TEXT + "\n",
        TEXT.replace("Genotype(", "DARTSGenotype("),
        TEXT.replace("Genotype(", "genotype ("),
        TEXT.replace("range(2, 6)", "list(range(2, 6))"),
        f"from collections import namedtuple\nPRIMITIVES = ['none']\nDARTS_V2 = {TEXT}\n",
    ],
    ids=lambda text: text[:40],
)
def test_a_genotype_anywhere_in_a_text(text):
    assert Genotype.parse(text) == V2


@pytest.mark.parametrize(
    "edges",
    [
        repr(NESTED),
        repr([tuple(node) for node in NESTED]),
        repr([(*edge, 0.15) for edge in PAIRS]),
        repr([[(*edge, -0.5) for edge in node] for node in NESTED]),
        "[('sep_conv_3x3', 2, 0), ('skip_connect', 2, 1), ('max_pool_3x3', 3, 2), "
        "('dil_conv_5x5', 3, 0)]",
    ],
)
def test_other_forms_of_edges(edges):
    assert Genotype.parse(f"Genotype(normal={edges}, {REST})") == CONV
    assert (
        Genotype.parse(f"Genotype(normal={edges}, {REST})").cell("normal").inputs_per_node is None
    )


# ---- a number of edges that varies ---------------------------------------------------------------

# The first published cell of FairDARTS (arXiv 1911.12126): node 3 has no edge.
FAIR = (
    "FairDARTS_a = Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), "
    "('max_pool_3x3', 4, 0), ('sep_conv_3x3', 5, 0)], normal_concat=range(2, 6), "
    "reduce=[('max_pool_3x3', 2, 0), ('avg_pool_3x3', 2, 1), ('avg_pool_3x3', 3, 0), "
    "('dil_conv_5x5', 3, 1), ('avg_pool_3x3', 4, 0), ('sep_conv_5x5', 4, 1), "
    "('skip_connect', 5, 0), ('skip_connect', 5, 1)], reduce_concat=range(2, 6))"
)


def test_fair_darts_is_read_as_its_authors_build_it():
    genotype = Genotype.parse(FAIR)
    assert genotype.inputs("normal") == (
        (("sep_conv_3x3", 0), ("sep_conv_5x5", 1)),
        (("max_pool_3x3", 0),),
        (("sep_conv_3x3", 0),),
    )
    assert genotype.normal_concat == (2, 3, 4)  # as many channels as nodes with edges
    assert genotype.cell("reduce").inputs_per_node is None
    assert genotype.num_nodes == 4
    assert Genotype.parse(genotype.to_text()) == genotype
    assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype


def test_its_network_adds_as_many_operations_as_a_node_has_edges():
    edges = [[("skip_connect", 0)], [("skip_connect", 0), ("skip_connect", 1), ("skip_connect", 2)]]
    text = f"Genotype(normal={edges!r}, {REST})"
    network = ConvCell(channels=4, cells=3, nodes=2).network(Genotype.parse(text)).eval()
    cell = network.cells[0]
    before = torch.randn(2, 12, 8, 8)
    last = torch.randn(2, 12, 8, 8)
    with torch.no_grad():
        s0 = cell.preprocess0(before)
        s1 = cell.preprocess1(last)
        expected = torch.cat([s0, s0 + s1 + s0], dim=1)
        assert torch.equal(cell(before, last), expected)
    graph = conv_graph(Genotype.parse(text).cell("normal"))
    assert [(edge.source, edge.target) for edge in graph.edges] == [(0, 2), (0, 3), (1, 3), (2, 3)]


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=4), min_size=1, max_size=4))
def test_any_numbers_of_edges_come_back(sources):
    nodes = [[("skip_connect", source) for source in node] for node in sources]
    concat = list(range(2, 2 + len(nodes)))
    text = (
        f"Genotype(normal={nodes!r}, normal_concat={concat}, reduce={nodes!r}, reduce_concat=[2])"
    )
    genotype = Genotype.parse(text)
    assert [len(node) for node in genotype.inputs("normal")] == [len(node) for node in nodes]
    assert Genotype.parse(genotype.to_text()) == genotype
    assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (f"Genotype(normal={PAIRS!r}, normal_concat=[2, 3])", "there is no reduction cell"),
        (f"Genotype(normal={PAIRS[:3]!r}, {REST})", "a list for each node"),
        (f"Genotype(normal=[[], {PAIRS!r}], {REST})", "every node needs an edge"),
        ("Genotype(normal=[('a', 0, 1), ('b', 1, 1)], " + REST + ")", "must be a float"),
        ("Genotype(normal=[('a', 4, 3), ('b', 2, 1)], " + REST + ")", "3 has no edges"),
        (f"A = {TEXT}\nB = {CONV}\n", "it names 2 genotypes (A, B)"),
        (
            "Genotype(recurrent=[[('tanh', 0)], [('relu', 0), ('relu', 1)]], concat=[1, 2])",
            "one edge",
        ),
        (f"print({TEXT})", "a genotype text reads"),
        (f"genotype = search() or {TEXT}", "a genotype text reads"),
    ],
)
def test_what_is_unclear_is_refused(text, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Genotype.parse(text)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ([1, 2], "speaks of 3 edges, but there are 4"),
        ([0, 4], "every node needs an edge at least, not 0"),
        ([True, 3], "every node needs an edge at least, not True"),
        (4, "field 'normal.inputs_per_node' must be a list, not int"),
    ],
)
def test_json_with_wrong_numbers(change, sentence):
    obj = CONV.to_json()
    obj["normal"]["inputs_per_node"] = change
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Genotype.from_json(obj)
