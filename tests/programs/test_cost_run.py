"""Costs in runs and on the command line: tables in run folders, budgets that hold, resume, bad
input."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch

import gradnas
from gradnas import ExpectedCost, runs
from gradnas.architectures.chain import Chain
from gradnas.cli import main
from gradnas.data import DataConfig
from gradnas.latency import LatencyTable, Timing, macs, measure
from gradnas.programs.searching import run_search, start_search
from gradnas.runs import Interrupted, Keeper, Run
from gradnas.spaces.affordable import cost_of, least_cost
from gradnas.tasks.images.search import ImageSearch
from gradnas.tasks.images.settings import SearchConfig

CPU = torch.device("cpu")
SPACE = gradnas.MBConvChain(
    stem_width=8,
    stem_stride=2,
    first_width=None,
    stages=((8, 2), (12, 2, 2)),
    candidates=("mb2_k3", "mb3_k5", "zero"),
    last_width=16,
    image_size=8,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A measured table of the space above."""
    path = tmp_path_factory.mktemp("tables") / "table.json"
    torch.manual_seed(0)
    found = measure(
        SPACE.supernet(1, 10).cost_view(),
        (torch.randn(2, 1, 8, 8),),
        Timing(1, 3),
        {"batch_size": 2},
    )
    found.save(path)
    return path


def _config(cost: ExpectedCost, **more) -> SearchConfig:
    base = SearchConfig(
        space=SPACE,
        relaxation=gradnas.BinaryGates(),
        gradient=gradnas.FirstOrder(),
        data=DataConfig("digits"),
        epochs=2,
        batch_size=256,
        alphas=gradnas.AlphaOptimizer(lr=0.3, betas=(0.0, 0.999), weight_decay=0.0),
        device="cpu",
        threads=1,
        cost=cost,
    )
    return replace(base, **more)


def _limits(path) -> tuple[float, float]:
    """The cheapest cost of the space in the table, and one that allows about half of the rest."""
    supernet = SPACE.supernet(1, 10)
    costs = supernet.costs("latency", (torch.zeros(2, 1, 8, 8),), LatencyTable.load(path))
    least = least_cost(supernet, costs)
    most = costs.fixed + sum(float(own.max()) for own in costs.tables.values())
    return least, (least + most) / 2


def _files(path):
    names = (runs.CONFIG, runs.METRICS, runs.GENOTYPE, runs.RESULTS, "latency.json")
    return {name: (path / name).read_bytes() for name in names}


def test_a_run_with_a_budget_keeps_it_carries_its_table_and_can_be_moved(table, tmp_path):
    _, budget = _limits(table)
    config = _config(ExpectedCost(table, budget_ms=budget))
    data = config.data.load()
    run = start_search(config, str(tmp_path / "run"), data, CPU)
    results = run_search(config, run, data, CPU, progress=False)
    assert results["cost"] <= budget
    records = run.records()
    assert all(r["derived_latency_ms"] <= budget for r in records)
    assert {"expected_latency_ms", "budget_multiplier"} <= records[0].keys()
    assert json.loads((run.path / runs.CONFIG).read_text())["cost"]["table"] == "latency.json"
    assert LatencyTable.load(run.path / "latency.json") == LatencyTable.load(table)
    # From the moved folder alone: the same run again, to the byte, also when it stops on the way
    # and is resumed.
    moved = tmp_path / "moved"
    run.path.rename(moved)
    assert main(["search", str(moved / runs.CONFIG), "--out", str(tmp_path / "again")]) == 0
    assert _files(tmp_path / "again") == _files(moved)


def test_a_search_with_a_budget_resumes_to_the_bit(table, tmp_path, monkeypatch):
    _, budget = _limits(table)
    config = _config(ExpectedCost(table, budget_ms=budget))
    data = config.data.load()
    run_search(
        config, start_search(config, str(tmp_path / "whole"), data, CPU), data, CPU, progress=False
    )
    run = start_search(config, str(tmp_path / "pieces"), data, CPU)
    counts = {"steps": 0}
    after_step = Keeper.after_step

    def stop_in_the_middle(keeper):
        counts["steps"] += 1
        keeper._asked = counts["steps"] in (2, 4)
        after_step(keeper)

    monkeypatch.setattr(Keeper, "after_step", stop_in_the_middle)
    stops = 0
    while True:
        try:
            run_search(config, run, data, CPU, progress=False)
            break
        except Interrupted:
            stops += 1
            saved, _ = Run.open(run.path).load_checkpoint()
            assert saved["search"]["cost"]["multiplier"] >= 0.0
    assert stops == 2
    assert _files(tmp_path / "pieces") == _files(tmp_path / "whole")


def test_multiply_adds_need_no_table_and_are_those_of_one_image(tmp_path):
    config = _config(ExpectedCost(target_macs=30e3), epochs=1, max_steps=2)
    data = config.data.load()
    state = ImageSearch(config, data, CPU)
    chain = SPACE.decision("mb3_k5 zero | mb2_k3 zero")
    network = SPACE.network(chain, num_classes=10, in_channels=1)
    assert cost_of(state.search.supernet, chain, state.search.costs) == macs(
        network, torch.zeros(1, 1, 8, 8)
    )


# ---- the command line ----------------------------------------------------------------------------


def _fails(capsys, *arguments) -> str:
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("gradnas: ")
    return error


def test_measure_fit_show_and_search_on_the_command_line(tmp_path, capsys):
    table, run = tmp_path / "t.json", tmp_path / "run"
    quick = ("--repeats", "2", "--warmup", "0")
    assert (
        main(
            [
                "latency",
                "measure",
                "proxyless-digits",
                "--out",
                str(table),
                *quick,
                "--batch-size",
                "2",
            ]
        )
        == 0
    )
    printed = capsys.readouterr().out
    assert "cheapest architecture" in printed
    for which in ("cheap", "middling", "dear"):
        assert re.search(rf"a {which} random one: from end to end .* sum of .* times", printed)
    assert main(["latency", "fit", str(table)]) == 0
    assert "R2" in capsys.readouterr().out and LatencyTable.load(table).predictor is not None
    assert main(["latency", "show", str(table), "--rows", "3"]) == 0
    shown = capsys.readouterr().out
    assert "batch size 2" in shown and "more (--rows" in shown
    short = ("--max-steps", "2", "--device", "cpu", "--threads", "1", "--out", str(run))
    assert (
        main(["search", "proxyless-digits", "--latency", str(table), "--budget-ms", "1000", *short])
        == 0
    )
    assert "(budget 1,000.000)" in capsys.readouterr().out
    assert main(["latency", "measure", str(run), "--out", str(table), *quick]) == 0
    measured = capsys.readouterr().out
    assert "from end to end" in measured and "sum of the table" in measured
    assert Chain.load(run / runs.GENOTYPE)


@pytest.mark.slow
def test_cells_are_measured_edge_by_edge(tmp_path, capsys):
    table = tmp_path / "t.json"
    assert (
        main(
            ["latency", "measure", "digits", "--out", str(table), "--repeats", "2", "--warmup", "0"]
        )
        == 0
    )
    kinds = {key.partition("-")[0] for key in LatencyTable.load(table).entries}
    assert {"Identity", "MaxPool2d", "AvgPool2d", "FactorizedReduce", "Sequential", "rest"} <= kinds
    capsys.readouterr()


def test_bad_input_about_costs_is_one_sentence(table, tmp_path, capsys):
    least, _ = _limits(table)
    start = ("search", "proxyless-digits", "--out", tmp_path / "no")
    assert "needs a latency table" in _fails(capsys, *start, "--budget-ms", "8")
    assert "need a limit" in _fails(capsys, *start, "--latency", table)
    assert "only one of --budget-ms and --target-macs" in _fails(
        capsys, *start, "--latency", table, "--budget-ms", "8", "--target-macs", "5"
    )
    assert "--budget-ms must be above 0, not -8" in _fails(
        capsys, *start, "--latency", table, "--budget-ms", "-8"
    )
    assert "cannot read" in _fails(
        capsys, *start, "--latency", tmp_path / "none.json", "--budget-ms", "8"
    )
    assert "no entry for" in _fails(capsys, *start, "--latency", table, "--budget-ms", "8")
    assert "cannot be kept: the cheapest architecture of this space costs" in _fails(
        capsys, *start[:-1], tmp_path / "no2", "--budget-macs", "10"
    )
    assert "clock='cpu'" in _fails(
        capsys,
        "latency",
        "measure",
        "proxyless-digits",
        "--clock",
        "cpu",
        "--threads",
        "2",
        "--out",
        tmp_path / "t.json",
    )
    assert "at least 10" in _fails(capsys, "latency", "fit", _small(tmp_path))
    torch.set_num_threads(1)
    assert least > 0


def _small(tmp_path):
    path = tmp_path / "small.json"
    LatencyTable({"a": gradnas.latency.Entry(1.0, 0.0, 1)}).save(path)
    return path
