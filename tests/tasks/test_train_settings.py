"""Configurations of trainings hold an architecture, and those of earlier versions its text."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from gradnas import Chain, ConvCell, Genotype, MBConvChain, RecurrentCell
from gradnas.cli.commands.train import TrainCommand
from gradnas.cli.train import _accelerated
from gradnas.config import from_json, to_json
from gradnas.data import Augment, DataConfig
from gradnas.precision import precision_notes
from gradnas.tasks.images.checks import check_image_search, check_image_training
from gradnas.tasks.images.settings import SearchConfig, TrainConfig
from gradnas.tasks.text.settings import TextTrainConfig

CELLS = TrainConfig(ConvCell(channels=4, cells=3), Genotype.named("DARTS_V2"))
CHAIN = TrainConfig(MBConvChain(), Chain.named("proxyless_gpu"), auxiliary=False, drop_path=0.0)
RECURRENT = TextTrainConfig(
    RecurrentCell(hidden=8, embedding=8), Genotype.named("DARTS_V2_recurrent")
)


@pytest.mark.parametrize("config", [CELLS, CHAIN, RECURRENT])
def test_the_architecture_is_read_back_from_its_object_and_from_its_text(config):
    described = json.loads(json.dumps(to_json(config)))
    assert described["genotype"]["type"] == type(config.genotype).__name__
    assert described["genotype"]["format"] == config.genotype.format
    assert from_json(type(config), described) == config
    described["genotype"] = config.genotype.to_text()
    assert from_json(type(config), described) == config


@pytest.mark.parametrize(
    ("config", "changes", "sentence"),
    [
        (CELLS, {"genotype": "Genotype("}, "config.genotype: genotype text: SyntaxError"),
        (CELLS, {"genotype": 5}, "config.genotype must be an object"),
        (CELLS, {"genotype": {"type": "Genotyp"}}, "config.genotype: .*did you mean 'Genotype'"),
        (CHAIN, {"genotype": "mb3_k3 | mb3k5"}, "config.genotype: stage 2, block 1: unknown"),
        (CHAIN, {"genotype": "mb3_k3", "space": {"type": "Chain"}}, "config.space: unknown type"),
        (RECURRENT, {"genotype": "", "space": None}, "config.space must be an object"),
        (
            RECURRENT,
            {"genotype": Genotype.named("DARTS").to_text()},
            "config.genotype: a recurrent",
        ),
    ],
)
def test_what_is_no_architecture(config, changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_json(type(config), to_json(config) | changes)


@pytest.mark.parametrize("config", [CELLS, CHAIN])
def test_a_run_of_before_goes_on_on_torch_operations(config):
    """It has no entry `accelerated`, nor have its checkpoints; a new run has, and is."""
    described = json.loads(json.dumps(to_json(config)))
    assert described.pop("accelerated")
    before = from_json(type(config), described)
    assert not before.accelerated
    assert "accelerated" not in before.state_settings()
    assert config.state_settings()["accelerated"]


def test_plain_is_no_setting_of_text():
    command = TrainCommand(what="DARTS_V2_recurrent", plain=True)
    with pytest.raises(ValueError, match="--plain is no setting of TextTrainConfig"):
        _accelerated(command, RECURRENT)
    assert _accelerated(command, CELLS) == {"accelerated": False}
    assert _accelerated(TrainCommand(what="DARTS_V2"), CELLS) == {}


@pytest.mark.parametrize(
    ("capabilities", "is_said"),
    [
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False}, True),
        ({"avx512_bf16": True, "amx_bf16": False}, False),
        ({"bf16": True}, False),
        ({}, False),  # torch does not say
    ],
)
def test_that_bf16_is_slow_here_is_said(capabilities, is_said, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    notes = precision_notes("bf16", torch.device("cpu"))
    assert [("no products in bf16" in note) for note in notes] == ([True] if is_said else [])
    assert not precision_notes("fp32", torch.device("cpu"))
    assert not precision_notes("bf16", torch.device("cuda"))


def test_a_cutout_that_leaves_nothing_to_see_is_refused():
    augment = Augment(cutout=16)
    config = replace(CELLS, auxiliary=False, data=DataConfig(source="digits", augment=augment))
    data = config.load()
    with pytest.raises(ValueError, match="16 pixels hides 100% of the training images, which have"):
        check_image_training(config, data)
    with pytest.raises(ValueError, match="or a cutout below 8"):
        search = SearchConfig(ConvCell(channels=4, cells=3), data=config.data)
        check_image_search(search, data, torch.device("cpu"))
    # Some images have always been hidden by a square of about their size.
    smaller = replace(config, data=replace(config.data, augment=Augment(cutout=10)))
    check_image_training(smaller, data)
