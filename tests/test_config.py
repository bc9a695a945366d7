"""Dataclasses to JSON and back."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass

import pytest

import gradnas
from gradnas import ConvCell, Genotype, GumbelSoftmax, PerturbedAlphas, Unrolled
from gradnas.architectures.choices import Choices
from gradnas.config import counted, did_you_mean, from_json, load, to_json
from gradnas.data import Augment, DataConfig
from gradnas.families.recipes import (
    SEARCHES,
    TRAININGS,
)
from gradnas.relaxations import Relaxation
from gradnas.tasks.images.settings import SearchConfig, TrainConfig


@pytest.mark.parametrize("name", SEARCHES)
def test_every_search_recipe_survives_a_file(name):
    config = SEARCHES[name]()
    assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config


@pytest.mark.parametrize("name", TRAININGS)
def test_every_training_recipe_survives_a_file(name):
    of_choices = name == "own-task-eval"
    architecture = Choices({"layer": "linear"}) if of_choices else Genotype.named("DARTS")
    config = TRAININGS[name](architecture)
    assert from_json(type(config), json.loads(json.dumps(to_json(config)))) == config


def test_methods_are_stored_by_name_with_their_settings():
    config = SearchConfig(
        relaxation=GumbelSoftmax(temperature=3.0), gradient=Unrolled(mode="exact", steps=2)
    )
    data = to_json(config)
    assert data["relaxation"] == {
        "type": "GumbelSoftmax",
        "hard": True,
        "temperature": 3.0,
        "temperature_end": 0.1,
        "probe": "none",
    }
    assert from_json(SearchConfig, data) == config


def test_ones_own_method_is_found_once_it_is_imported():
    @dataclass(frozen=True)
    class MyRelaxation(Relaxation):
        sharpness: float = 1.0

        def draw(self, alphas, noise, progress):
            raise AssertionError

    found = from_json(SearchConfig, {"relaxation": {"type": "MyRelaxation", "sharpness": 2}})
    assert found.relaxation == MyRelaxation(2.0)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (
            {"epoch": 3},
            "config: unknown field 'epoch' (did you mean 'epochs'?); the fields are: space",
        ),
        ({"data": {"sorce": "x"}}, "config.data: unknown field 'sorce' (did you mean 'source'?)"),
        ({"epochs": "ten"}, "config.epochs must be a whole number, not 'ten'"),
        ({"epochs": True}, "config.epochs must be a whole number, not True"),
        ({"epochs": 1.5}, "config.epochs must be a whole number, not 1.5"),
        ({"epochs": 0}, "config: epochs must be at least 1, not 0"),
        ({"precision": "bf61"}, "one of 'fp32', 'tf32', 'bf16', not 'bf61' (did you mean 'bf16'?)"),
        (
            {"relaxation": {"type": "Softmaxx"}},
            "config.relaxation: unknown type 'Softmaxx' (did you mean 'Softmax'?)",
        ),
        ({"relaxation": {}}, "config.relaxation: the entry 'type' is missing"),
        (
            {"gradient": {"type": "Unrolled", "mode": "exakt"}},
            "config.gradient.mode must be one of",
        ),
        (
            {"weights": []},
            "config.weights must be an object with the fields of WeightOptimizer, not a list",
        ),
        ({"alphas": {"betas": [0.5]}}, "config.alphas.betas must have 2 entries, not 1"),
        (
            {"space": {"type": "ConvCell", "operations": ["sep_conv_3x4"]}},
            "unknown operation 'sep_conv_3x4' (did you mean 'sep_conv_3x3'?)",
        ),
        (
            {"space": {"type": "ConvCel"}},
            "config.space: unknown type 'ConvCel' (did you mean 'ConvCell'?)",
        ),
        ([], "config must be an object with the fields of SearchConfig, not a list"),
    ],
)
def test_errors_name_the_field_and_what_is_right(data, sentence):
    with pytest.raises(ValueError) as error:
        from_json(SearchConfig, data)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"type": []}, "config.type must be a text, the name of a class, not []"),
        ({"relaxation": {"type": {}}}, "config.relaxation.type must be a text"),
        ({"precision": ["fp32"]}, "config.precision must be one of 'fp32', 'tf32', 'bf16', not ["),
        ({"threads": "x"}, "config.threads must be a whole number, not 'x'"),
        ({"threads": 100_000}, "config: threads must be at most 1024, not 100000"),
        ({"data": {"source": ["digits"]}}, "config.data.source must be a text, not ['digits']"),
        ({"weights": {"lr": float("nan")}}, "config.weights.lr must be a finite number, not nan"),
        ({"weights": {"lr": 10**400}}, "config.weights.lr must be a number of at most 64 bits"),
        ({"weights": {"clip_norm": -1}}, "config.weights: clip_norm must be above 0, not -1"),
        ({"alphas": {"betas": [0.5, 1]}}, "config.alphas: betas must be in [0, 1), not 1.0"),
        ({"warmup_epochs": -1}, "config: warmup_epochs must be at least 0, not -1"),
        ({"checkpoint_seconds": -1}, "config: checkpoint_seconds must be at least 0, not -1"),
        ({"data": {"workers": -1}}, "config.data: workers must be at least 0, not -1"),
        ({"data": {"image_size": 100_000}}, "config.data: image_size must be at most 16384"),
        ({"space": {"type": "ConvCell", "cells": 10**8}}, "cells must be at most 1000, not"),
        ({"space": {"type": "ConvCell", "nodes": 10**6}}, "nodes must be at most 64, not"),
        ({"seed": 10**30}, "config.seed must be a number of at most 64 bits, not 10000"),
        ({"split_seed": "x" * 10**6}, "config.split_seed must be a whole number, not 'xxx"),
    ],
)
def test_wrong_types_and_numbers_far_outside_name_the_field(data, sentence):
    with pytest.raises(ValueError) as error:
        from_json(SearchConfig, data)
    assert sentence in str(error.value) and len(str(error.value)) < 300


def test_json_that_pythons_reader_would_not_refuse_well(tmp_path):
    path = tmp_path / "c.json"
    for text, sentence in (
        ("[" * 200_000, "nested more than 100 deep"),
        ('{"data": ' * 50_000, "nested more than 100 deep"),
        ("[" * 101 + "]" * 101, "nested more than 100 deep"),
        ("1" * 5000, "is not a JSON file: Exceeds the limit"),
        ('{"seed": 1, "seed": 2}', "the key 'seed' stands twice in one object"),
        ('{"type": "\\ud800"}', "half of a character"),
        ("[]", "holds a list, but a JSON object is needed"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match=re.escape(sentence)) as error:
            load(SearchConfig, path)
        assert str(path) in str(error.value)
    path.write_bytes(b'{"seed": "\xff"}')
    with pytest.raises(ValueError, match="not a text file in UTF-8: invalid start byte at byte 10"):
        load(SearchConfig, path)
    path.write_text('\ufeff{"seed": 7}')
    assert load(SearchConfig, path).seed == 7
    with pytest.raises(ValueError, match="it is a folder, but a file is needed"):
        load(SearchConfig, tmp_path)
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(ValueError, match="no regular file"):  # and nothing waits for a writer
        load(SearchConfig, tmp_path / "pipe.json")


WRONG = (
    None, True, "", "x", [], [1], {}, 1.5, -1, 0, 10**30, 10**400, float("nan"), float("inf"),
    [[]], {"type": []}, {"type": {}}, {"type": "Nope"},
)  # fmt: skip


def places(tree, at=()):
    """The paths of all values in a JSON tree."""
    yield at
    if isinstance(tree, dict):
        items = list(tree.items())
    else:
        items = list(enumerate(tree)) if isinstance(tree, list) else []
    for key, value in items:
        yield from places(value, (*at, key))


def put(tree, path, value):
    """The tree with another value at this place."""
    if not path:
        return value
    changed = dict(tree) if isinstance(tree, dict) else list(tree)
    changed[path[0]] = put(tree[path[0]], path[1:], value)
    return changed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "proxyless-digits", "text", "digits-eval"])
def test_any_wrong_value_at_any_place_of_a_configuration_is_a_sentence(name):
    """Whatever stands where: a configuration, or one sentence of bounded length."""
    recipe = SEARCHES.get(name) or TRAININGS[name]
    config = recipe() if name in SEARCHES else recipe(Genotype.named("DARTS"))
    tree = json.loads(json.dumps(to_json(config)))
    refused = 0
    for number, path in enumerate(places(tree)):
        for wrong in WRONG[number % 3 :: 3]:
            try:
                from_json(type(config), put(tree, path, wrong))
            except ValueError as error:
                refused += 1
                assert "\n" not in str(error) and len(str(error)) < 1200, (path, wrong)
    assert refused > 100


def test_a_missing_field_is_named():
    with pytest.raises(ValueError, match="config: the field 'genotype' is missing"):
        from_json(TrainConfig, {"space": {"type": "ConvCell"}})


def test_files_that_are_not_json_are_named(tmp_path):
    (tmp_path / "c.json").write_text("{'epochs': 3}")
    with pytest.raises(ValueError, match=r"c\.json is not a JSON file: .*line 1"):
        load(SearchConfig, tmp_path / "c.json")
    with pytest.raises(ValueError, match="No such file"):
        load(SearchConfig, tmp_path / "nothing.json")


def test_what_has_no_json_form_is_refused():
    with pytest.raises(ValueError, match="cannot be written"):
        to_json(DataConfig(source=print))  # type: ignore[arg-type]
    space = ConvCell(operations={"mine": lambda c, s, a: None})  # type: ignore[arg-type,return-value]
    with pytest.raises(ValueError, match="your own operation 'mine'"):
        to_json(space)


def test_optional_tuples():
    config = DataConfig(augment=Augment(color_jitter=(0.4, 0.4, 0.4, 0.2)))
    assert from_json(DataConfig, to_json(config)) == config


def test_did_you_mean():
    assert did_you_mean("softmx", ["Softmax", "Gumbel"]) == " (did you mean 'Softmax'?)"
    assert did_you_mean("qqq", ["Softmax"]) == ""


def test_a_base_without_abstract_methods_is_no_value_itself():
    """Selections and stabilizers override what they change, and may change nothing."""
    config = SearchConfig(stabilizers=(PerturbedAlphas(),))
    assert from_json(SearchConfig, to_json(config), "config") == config
    damaged = to_json(config) | {"selection": {"type": "Selection"}}
    with pytest.raises(ValueError, match=r"config\.selection: unknown type 'Selection'"):
        from_json(SearchConfig, damaged, "config")


def test_numbers_with_their_nouns():
    assert [counted(n, "epoch") for n in (0, 1, 2, 1200)] == [
        "0 epochs",
        "1 epoch",
        "2 epochs",
        "1,200 epochs",
    ]


def test_a_text_in_place_of_an_object_is_said():
    from gradnas.config import build
    from gradnas.latency.table import Device

    with pytest.raises(ValueError, match=r"t\.json: device must be an object, not a text"):
        build(Device, "cpu", "t.json: device")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: gradnas.GumbelSoftmax(hard="no"), "hard must be True or False, not 'no'"),
        (lambda: gradnas.GumbelSoftmax(hard=None), "hard must be True or False"),
        (lambda: gradnas.PerturbationSelection(learn_alphas="false"), "learn_alphas must be True"),
        (lambda: gradnas.PartialChannels(2, edge_normalisation="yes"), "edge_normalisation must"),
        (lambda: gradnas.OperationFreezing(threshold=2.5), "a mean of cosines .* from -2 to 2"),
        (lambda: gradnas.OperationFreezing(threshold="x"), "a mean of cosines"),
        (lambda: gradnas.OperationFreezing(threshold=float("nan")), "a mean of cosines"),
    ],
)
def test_switches_and_cosines_are_what_they_are(make, words):
    with pytest.raises(ValueError, match=words):
        make()
