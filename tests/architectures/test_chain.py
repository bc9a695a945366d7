"""Chains as values: text, JSON, published names, hostile input."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradnas import Chain
from gradnas.architectures.chain import bottleneck

OPERATIONS = st.sampled_from(["mb3_k3", "mb6_k7", "mb1_k5", "mb12_k11", "zero", "identity"])
CHAINS = (
    st.lists(st.lists(OPERATIONS, min_size=1, max_size=4).map(tuple), min_size=1, max_size=5)
    .map(tuple)
    .map(Chain)
)


@settings(max_examples=50, deadline=None)
@given(CHAINS)
def test_text_and_json_read_back(chain):
    assert Chain.parse(chain.to_text()) == chain
    assert Chain.from_json(json.loads(json.dumps(chain.to_json()))) == chain
    assert Chain.of(chain.blocks, [len(stage) for stage in chain.stages]) == chain


@pytest.mark.parametrize("name", Chain.names())
def test_published_chains_are_saved_readable(name, tmp_path):
    chain = Chain.named(name)
    chain.save(tmp_path / "chain.json")
    text = (tmp_path / "chain.json").read_text()
    assert '["mb' in text and len(text.splitlines()) < 16  # a stage to a line
    assert Chain.load(tmp_path / "chain.json") == chain
    (tmp_path / "chain.txt").write_text(chain.to_text())
    assert Chain.load(tmp_path / "chain.txt") == chain


def test_the_published_mobile_chain_reads_as_published():
    stages = Chain.named("proxyless_mobile").stages
    assert stages[0] == ("mb3_k5", "mb3_k3", "zero", "zero")
    assert stages[4] == ("mb6_k7", "mb6_k7", "mb3_k7", "mb3_k7")
    assert Chain.named("proxyless_cpu").stages[0][0] == "mb6_k3"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("mb3_k3 zeroo", "stage 1, block 2: unknown operation 'zeroo' .did you mean 'zero'"),
        ("mb3_k3 | mb3k5", "stage 2, block 1: .*did you mean 'mb3_k5'"),
        ("mb3_k4", "kernel odd"),
        ("mb99_k3", "expansion is 1..64"),
        ("mb3_k3 ||", "every stage at least one block"),
        ("", "every stage at least one block"),
        ("mb3_k3 " * 2000, "at most 1000 blocks"),
        ("m" * 200_000, "200000 characters"),
        ("__import__('os').system('ls')", "unknown operation"),
    ],
)
def test_text_that_is_no_chain(text, sentence):
    with pytest.raises(ValueError, match=sentence):
        Chain.parse(text)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": "gradnas-genotype"}, "field 'format' must be 'gradnas-chain'"),
        ({"version": True}, "field 'version' must be 1, not True"),
        ({"version": 2}, "field 'version' must be 1, not 2"),
        ({"space": "ConvCell"}, "field 'space' must be 'MBConvChain'"),
        ({"stages": "mb3_k3"}, "list of lists"),
        ({"stages": [["mb3_k3", 7]]}, "stage 1, block 2: unknown operation 7"),
        ({"stages": [["mb3_k3", ["mb3_k3"]]]}, "stage 1, block 2: unknown operation"),
        ({"stages": [["mb3_k3", None]]}, "unknown operation None"),
        ({"stages": []}, "at least one stage"),
        ({"stage": []}, "unknown field 'stage' .did you mean 'stages'"),
    ],
)
def test_json_that_is_no_chain(changes, sentence, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps(Chain.named("proxyless_gpu").to_json() | changes))
    with pytest.raises(ValueError, match=rf"c.json does not hold a chain: .*{sentence}"):
        Chain.load(path)


@pytest.mark.parametrize("text", ["[" * 100_000, "{", "null", "\x00", "[]"])
def test_files_that_are_no_json(text, tmp_path):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(ValueError, match="does not hold a chain"):
        Chain.load(tmp_path / "c.json")


def test_other_refusals():
    with pytest.raises(ValueError, match="did you mean 'proxyless_mobile'"):
        Chain.named("proxyless-mobile")
    with pytest.raises(ValueError, match="tuple of tuples"):
        Chain([["mb3_k3"]])
    with pytest.raises(ValueError, match="hold 3 operations, not 1"):
        Chain.of(["zero"], [1, 2])
    assert bottleneck("mb6_k5") == (6, 5) and bottleneck("zero") is None
