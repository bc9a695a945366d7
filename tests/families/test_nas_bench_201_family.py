"""Whole runs in the space of NAS-Bench-201: searched, reported, trained, exported, drawn."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import replace

import pytest
import torch
from matplotlib.text import Text

from gradnas import AlphaOptimizer, DenseCell, FirstOrder, GumbelSoftmax, NasBench201, runs
from gradnas.config import from_json, to_json
from gradnas.data import Augment, DataConfig
from gradnas.families import family_of, family_of_space, recipes
from gradnas.pictures import dense_cells
from gradnas.programs.reporting import write_report
from gradnas.programs.searching import run_search, start_search
from gradnas.programs.trained import export_trained
from gradnas.programs.training import start_training, train
from gradnas.runs import Run
from gradnas.tasks.images.settings import SearchConfig, TrainConfig

CPU = torch.device("cpu")
SPACE = NasBench201(channels=4, cells=1)
SMALL = SearchConfig(
    space=SPACE,
    gradient=FirstOrder(),
    data=DataConfig(source="digits", augment=Augment(crop_padding=1), per_class=20),
    epochs=2,
    batch_size=50,
    alphas=AlphaOptimizer(lr=0.05),
    candidates=0,
    threads=1,
)
CELL = DenseCell.parse(
    "|nor_conv_3x3~0|+|skip_connect~0|none~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
)


@pytest.mark.slow
def test_a_run_from_the_search_to_the_export(tmp_path):
    data = SMALL.data.load()
    run = start_search(SMALL, tmp_path / "run", data, CPU)
    results = run_search(SMALL, run, data, CPU, progress=False)
    cell = DenseCell.parse(results["genotype"])
    assert (run.path / runs.PICTURE).exists()
    page = write_report(run).read_text()
    assert "0 → 3" in page and "into node 2" in page and cell.to_text().split("+")[0] in page

    config = TrainConfig(
        space=SPACE,
        genotype=CELL,
        data=SMALL.data,
        epochs=1,
        batch_size=50,
        auxiliary=False,
        drop_path=0.0,
        threads=1,
    )
    train_run = start_training(config, tmp_path / "train", data, CPU)
    train(config, train_run, data, CPU, progress=False)
    files = export_trained(Run.open(tmp_path / "train"), tmp_path / "cell.py")
    spec = importlib.util.spec_from_file_location("exported_cell", files[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert [list(names) for names in CELL.nodes] == module.CELL
    network = module.build()
    network.load_state_dict(torch.load(tmp_path / "cell.pt", weights_only=True))
    own = SPACE.network(CELL, num_classes=10, in_channels=1)
    assert [p.shape for p in network.parameters()] == [p.shape for p in own.parameters()]
    assert network.eval()(torch.zeros(2, 1, 8, 8)).shape == (2, 10)


@pytest.mark.parametrize("name", [n for n in recipes.SEARCHES if "nas-bench-201" in n])
def test_recipes(name):
    config = recipes.search_recipe(name)
    assert from_json(SearchConfig, to_json(config), "config") == config
    assert recipes.training_after(CELL, "runs/x", to_json(config)) == "nas-bench-201-eval"
    _, training = recipes.training_of(CELL, "runs/x", to_json(config))
    assert training.space == replace(NasBench201(), operations=config.space.operations)
    assert from_json(TrainConfig, to_json(training), "config") == training


def test_settings_of_the_paper():
    darts = recipes.search_recipe("nas-bench-201-cifar10")
    assert (darts.space.channels, darts.space.cells, darts.epochs, darts.batch_size) == (
        16,
        5,
        50,
        64,
    )
    assert darts.weights.nesterov and darts.weights.weight_decay == 5e-4
    gdas = recipes.search_recipe("nas-bench-201-cifar10-gdas")
    assert gdas.epochs == 250
    assert (gdas.relaxation.temperature, gdas.relaxation.temperature_end) == (10.0, 0.1)
    assert isinstance(gdas.relaxation, GumbelSoftmax) and gdas.relaxation.hard


def test_every_operation_is_drawn_once():
    drawn = [text.get_text() for text in dense_cells.figure(CELL).findobj(Text)]
    counts = {"nor conv 3×3": 2, "skip": 1, "none": 1, "nor conv 1×1": 1, "avg pool 3×3": 1}
    assert {name: drawn.count(name) for name in counts} == counts
    assert {"0", "1", "2", "3"} <= set(drawn)
    one = dense_cells.svg(CELL)
    assert one == dense_cells.svg(CELL)
    assert re.match("<svg", one)


@pytest.mark.parametrize("operations", [["none"] * 6, ["skip_connect"] * 6, ["none"] * 10])
def test_any_cell_is_drawn(operations, tmp_path):
    path = tmp_path / "cell.svg"
    family_of(DenseCell.of(operations)).picture(DenseCell.of(operations), path, title="a & <b>")
    assert path.read_text().count("<svg") == 1


def test_the_family_of_the_space():
    assert family_of_space(SPACE) is family_of(CELL)
