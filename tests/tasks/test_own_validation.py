"""A validation split that a set brings with it: for the alphas, and for what a training reports."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from gradnas import ConvCell, Genotype
from gradnas.data import DataConfig
from gradnas.tasks.images import IMAGES
from gradnas.tasks.images.divided import divided
from gradnas.tasks.images.settings import SearchConfig, TrainConfig
from gradnas.tasks.images.training import ImageTraining


@pytest.fixture
def folder(tmp_path):
    generator = np.random.default_rng(0)
    for split, number in (("train", 6), ("dev", 4), ("test", 3)):
        for name in ("cat", "dog"):
            place = tmp_path / split / name
            place.mkdir(parents=True)
            for k in range(number):
                pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{k}.png")
    return tmp_path


def test_a_search_learns_the_alphas_on_it(folder):
    config = SearchConfig(data=DataConfig(source=str(folder)))
    data = config.load()
    for_weights, for_alphas = divided(config, data)
    assert for_weights is data.train and for_alphas is data.validation
    assert (len(for_weights), len(for_alphas)) == (12, 8)
    summary = IMAGES.read(data)
    assert "12 training, 8 validation and 6 test images" in summary.line()
    assert any("the 8 validation images are used" in note for note in IMAGES.notes(data))
    halved = replace(config, data=replace(config.data, own_validation=False))
    data = halved.load()
    parts = divided(halved, data)
    assert [len(part) for part in parts] == [6, 6]
    assert "left out: 8 validation images" in IMAGES.read(data).line()
    assert not any("validation" in note for note in IMAGES.notes(data))


@pytest.mark.parametrize("share, trained, held_out", [(0.0, 12, None), (0.25, 12, 8)])
def test_a_training_reports_on_it_where_it_holds_images_out(folder, share, trained, held_out):
    config = TrainConfig(
        space=ConvCell(channels=2, cells=2),
        genotype=Genotype.named("DARTS_V2"),
        data=DataConfig(source=str(folder)),
        auxiliary=False,
        valid_fraction=share,
    )
    task = ImageTraining(config, config.load(), torch.device("cpu"))
    assert task.train.plan.size == trained
    number = None if task.valid is None else task.valid().plan.size
    assert number == held_out
