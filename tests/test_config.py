"""Dataclasses to JSON and back."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from gradnas import ConvCell, Genotype, GumbelSoftmax, Unrolled
from gradnas.config import did_you_mean, from_json, load, to_json
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
    config = TRAININGS[name](Genotype.named("DARTS"))
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
