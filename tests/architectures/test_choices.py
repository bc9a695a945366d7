"""Choices as values, and which kind of architecture a file or a name stands for."""

from __future__ import annotations

import copy
import json

import pytest

from gradnas import Chain, Genotype
from gradnas.architectures.choices import Choices
from gradnas.architectures.registry import load_architecture, published

CHOICES = Choices({"body": "conv3", "head/1": "skip"})


def test_choices_are_a_frozen_mapping_that_equals_a_dict():
    assert CHOICES == {"head/1": "skip", "body": "conv3"}
    assert list(CHOICES) == ["body", "head/1"] and CHOICES["body"] == "conv3"
    assert hash(CHOICES) == hash(Choices({"head/1": "skip", "body": "conv3"}))
    assert type(CHOICES.public) is dict and CHOICES.public == CHOICES
    CHOICES.public["body"] = "another"
    assert CHOICES["body"] == "conv3" and copy.deepcopy(CHOICES) == CHOICES


def test_choices_read_back(tmp_path):
    assert Choices.parse(CHOICES.to_text()) == CHOICES
    CHOICES.save(tmp_path / "choices.json")
    # as `SearchResult.save` has always written it
    described = {"format": "gradnas-choices", "version": 1, "choices": dict(CHOICES)}
    assert (tmp_path / "choices.json").read_text() == json.dumps(described, indent=2) + "\n"
    assert Choices.load(tmp_path / "choices.json") == CHOICES


@pytest.mark.parametrize(
    ("obj", "sentence"),
    [
        ([], "must be an object, not list"),
        ({"format": "gradnas-chain"}, "field 'format' must be 'gradnas-choices'"),
        ({"format": "gradnas-choices", "version": True}, "field 'version' must be 1, not True"),
        ({"format": "gradnas-choices", "version": 1}, "missing field 'choices'"),
        (
            {"format": "gradnas-choices", "version": 1, "choices": {}, "choice": 1},
            "unknown field 'choice' .did you mean 'choices'",
        ),
        ({"format": "gradnas-choices", "version": 1, "choices": []}, "a list does not"),
        ({"format": "gradnas-choices", "version": 1, "choices": {"a": 1}}, "texts, not 1"),
    ],
)
def test_json_that_is_no_choices(obj, sentence):
    with pytest.raises(ValueError, match=f"^here.*{sentence}"):
        Choices.from_json(obj, "here")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": 1}', "[" * 90_000, "x" * 200_000, None])
def test_text_that_is_no_choices(text):
    with pytest.raises(ValueError):
        Choices.parse(text)


@pytest.mark.parametrize(
    "architecture", [CHOICES, Genotype.named("ENAS"), Chain.named("proxyless_cpu")]
)
def test_a_file_says_what_kind_it_holds(architecture, tmp_path):
    architecture.save(tmp_path / "a.json")
    found = load_architecture(tmp_path / "a.json")
    assert type(found) is type(architecture) and found == architecture


def test_a_text_shows_what_kind_it_is(tmp_path):
    for architecture in (Genotype.named("ENAS"), Chain.named("proxyless_cpu")):
        (tmp_path / "a.txt").write_text(architecture.to_text())
        assert load_architecture(tmp_path / "a.txt") == architecture
    (tmp_path / "a.txt").write_text("nothing of that kind")
    with pytest.raises(ValueError, match="does not hold a genotype"):
        load_architecture(tmp_path / "a.txt")
    with pytest.raises(ValueError, match="cannot read"):
        load_architecture(tmp_path / "nowhere.txt")


def test_published_names_of_every_kind():
    assert published("proxyless_gpu") == Chain.named("proxyless_gpu")
    assert published("DARTS") == Genotype.named("DARTS")
    with pytest.raises(ValueError, match=r"no published chain \(did you mean 'proxyless_mobile'\?"):
        published("proxyless-mobile")
