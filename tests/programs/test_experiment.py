"""Whole runs: reproducible, resumable after a kill at any moment, honest in their metrics."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from cases import RELAXATIONS, name_of
from in_forks import code_of, forked

from gradnas import (
    AlphaOptimizer,
    ConvCell,
    FirstOrder,
    Genotype,
    GumbelSoftmax,
    NonFiniteError,
    Unrolled,
    runs,
)
from gradnas.cli import main
from gradnas.config import from_json, read_object, to_json
from gradnas.data import Augment, DataConfig
from gradnas.programs.searching import run_search, start_search
from gradnas.programs.training import start_training, train
from gradnas.runs import Run
from gradnas.tasks.evaluation import recalibrate
from gradnas.tasks.images.evaluation import evaluate
from gradnas.tasks.images.settings import SearchConfig, TrainConfig
from gradnas.tasks.images.training import ImageTraining

CPU = torch.device("cpu")
SMALL = SearchConfig(
    space=ConvCell(channels=2, cells=2, nodes=2),
    gradient=FirstOrder(),
    data=DataConfig(source="digits", augment=Augment(crop_padding=1, flip=True)),
    split_seed=0,
    epochs=2,
    batch_size=256,
    alphas=AlphaOptimizer(lr=0.05),
    threads=1,
    checkpoint_seconds=0.0,
)
SMALL_TRAIN = TrainConfig(
    space=ConvCell(channels=2, cells=2),
    genotype=Genotype.named("DARTS_V2"),
    data=DataConfig(source="digits", augment=Augment(crop_padding=1, flip=True, cutout=2)),
    epochs=2,
    batch_size=256,
    auxiliary=False,
    drop_path=0.3,
    valid_fraction=0.1,
    threads=1,
    checkpoint_seconds=0.0,
)
DIGITS = SMALL.data.load()
REPRODUCED = (runs.METRICS, runs.ALPHAS, runs.GENOTYPE, runs.RESULTS)


def search(config, path, data=DIGITS):
    return run_search(config, start_search(config, path, data, CPU), data, CPU, progress=False)


def contents(path, names=REPRODUCED):
    return {name: (path / name).read_bytes() for name in names}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished small search."""
    path = tmp_path_factory.mktemp("runs") / "search"
    search(SMALL, path)
    return path


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files(finished, tmp_path):
    """Metrics, alphas, genotype and results, byte for byte."""
    search(SMALL, tmp_path / "again")
    assert contents(finished) == contents(tmp_path / "again")
    search(replace(SMALL, seed=1), tmp_path / "other")
    assert contents(finished)[runs.METRICS] != contents(tmp_path / "other")[runs.METRICS]


def test_the_folder_repeats_the_run(finished, tmp_path):
    """`config.json` is exact: read back, it is the configuration, and repeats the run."""
    config = from_json(SearchConfig, read_object(finished / runs.CONFIG))
    assert config == SMALL
    assert json.loads((finished / runs.STATUS).read_text()) == {"status": "finished"}


def test_metrics_say_everything(finished):
    records = Run.open(finished).records()
    assert [r["epoch"] for r in records] == [0, 1]
    wanted = {
        "train_loss",
        "train_accuracy",
        "search_valid_loss",
        "search_valid_accuracy",
        "valid_loss",
        "valid_accuracy",
        "derived_valid_accuracy",
        "discretisation_gap",
        "entropy_normal",
        "entropy_reduce",
        "skip_connections",
        "genotype",
        "peak_memory_mib",
        "lr",
    }
    for record in records:
        assert wanted <= record.keys()
        gap = record["valid_accuracy"] - record["derived_valid_accuracy"]
        assert record["discretisation_gap"] == pytest.approx(gap)
        assert 0 < record["entropy_normal"] <= torch.tensor(8.0).log().item() + 1e-9
        genotype = Genotype.parse(record["genotype"])
        assert record["skip_connections"] == sum(
            name == "skip_connect" for name, _ in genotype.normal
        )
        assert 0 < record["peak_memory_mib"] < 1000
    assert Genotype.load(finished / runs.GENOTYPE).to_text() == records[-1]["genotype"]
    timings = Run.open(finished).records(runs.TIMINGS)
    assert all(t["seconds"] > 0 and t["measured_peak_memory_mib"] > 10 for t in timings)
    assert all(0 < t["waiting_seconds"] < t["seconds"] for t in timings)
    assert not any("waiting_seconds" in record for record in records)


def test_the_trajectory_holds_a_table_for_each_choice_and_epoch(finished):
    tables = Run.open(finished).load_tensors(runs.ALPHAS)
    assert set(tables) == {
        f"{kind}/{epoch:04}" for kind in ("normal", "reduce") for epoch in range(3)
    }
    last = {kind: tables[f"{kind}/0002"] for kind in ("normal", "reduce")}
    assert SMALL.space.derive(last) == Genotype.load(finished / runs.GENOTYPE)
    assert not torch.equal(tables["normal/0000"], tables["normal/0002"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"gradient": Unrolled()},
        {"relaxation": GumbelSoftmax(), "warmup_epochs": 1},
        {"valid_augment": True, "batch_size": 300},
    ],
    ids=str,
)
def test_stopping_at_every_step_and_resuming_gives_the_same_files(changes, tmp_path, monkeypatch):
    """The state is saved and rebuilt from disk after every single step."""
    config = replace(SMALL, **changes)
    search(config, tmp_path / "whole")
    run = start_search(config, tmp_path / "pieces", DIGITS, CPU)

    def stop(keeper):
        keeper.save()
        raise runs.Interrupted

    monkeypatch.setattr(runs.Keeper, "after_step", stop)
    for _ in range(100):
        # A new process would not have the old random state either.
        torch.manual_seed(random.randrange(1000))
        try:
            run_search(config, run, DIGITS, CPU, progress=False)
            break
        except runs.Interrupted:
            continue
    assert contents(tmp_path / "whole") == contents(tmp_path / "pieces")


def test_training_stopped_at_every_step_gives_the_same_files(tmp_path, monkeypatch):
    def run_training(path, resume=False):
        run = Run.open(path) if resume else start_training(SMALL_TRAIN, path, DIGITS, CPU)
        return train(SMALL_TRAIN, run, DIGITS, CPU, progress=False)

    run_training(tmp_path / "whole")
    start_training(SMALL_TRAIN, tmp_path / "pieces", DIGITS, CPU)

    def stop(keeper):
        keeper.save()
        raise runs.Interrupted

    monkeypatch.setattr(runs.Keeper, "after_step", stop)
    for _ in range(100):
        torch.manual_seed(random.randrange(1000))
        try:
            run_training(tmp_path / "pieces", resume=True)
            break
        except runs.Interrupted:
            continue
    names = (runs.METRICS, runs.WEIGHTS, runs.RESULTS)
    assert contents(tmp_path / "whole", names) == contents(tmp_path / "pieces", names)


@pytest.mark.slow
def test_kill_at_random_moments_and_resume(tmp_path, monkeypatch):
    """`kill -9` on the way; then the same genotype and metrics as an undisturbed run.

    `benchmarks/campaigns kills` does it a hundred times, for all programs.
    """
    config = replace(SMALL, batch_size=64, checkpoint_seconds=0.1)
    killed = tmp_path / "killed"
    search(config, tmp_path / "whole")
    start_search(config, killed, DIGITS, CPU)
    draw = random.Random(20)
    after_step = runs.Keeper.after_step
    for _ in range(2):
        # Killed from outside in what follows a step: computing, evaluating or writing.
        steps, says = os.pipe()
        number = draw.randint(2, 9)
        left = [number + 3]

        def said(keeper, says=says, left=left):
            after_step(keeper)
            os.write(says, b".")
            left[0] -= 1
            if left[0] == 0:
                signal.pause()  # however late it comes

        with monkeypatch.context() as patch:
            patch.setattr(runs.Keeper, "after_step", said)
            child = forked(lambda: main(["resume", str(killed)]))
        os.close(says)
        for _ in range(number):
            assert os.read(steps, 1) == b"."
        os.kill(child, signal.SIGKILL)
        assert code_of(child) == -signal.SIGKILL
        os.close(steps)
    # In the end by a process that knows nothing of those before.
    command = [sys.executable, "-m", "gradnas", "resume", str(killed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "whole") == contents(killed)


@pytest.mark.slow
def test_a_truncated_checkpoint_is_survived_and_said(tmp_path, capsys, monkeypatch):
    search(SMALL, tmp_path / "whole")
    run = start_search(SMALL, tmp_path / "damaged", DIGITS, CPU)
    steps = []

    def stop_after_five(keeper):
        keeper.save()
        steps.append(1)
        if len(steps) == 5:
            raise runs.Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(runs.Keeper, "after_step", stop_after_five)
        with pytest.raises(runs.Interrupted):
            run_search(SMALL, run, DIGITS, CPU, progress=False)
    os.truncate(run.path / runs.CHECKPOINT, 2000)
    run_search(SMALL, run, DIGITS, CPU, progress=True)
    assert "checkpoint.pt is damaged" in capsys.readouterr().err
    assert contents(tmp_path / "whole") == contents(tmp_path / "damaged")


def test_nan_stops_and_keeps_the_last_good_state(tmp_path):
    config = replace(SMALL, weights=replace(SMALL.weights, lr=1e30, lr_end=1e30, clip_norm=None))
    run = start_search(config, tmp_path / "nan", DIGITS, CPU)
    with pytest.raises(NonFiniteError, match=r"step \d+ \(epoch \d+\)"):
        run_search(config, run, DIGITS, CPU, progress=False)
    state, _ = run.load_checkpoint()
    assert all(
        torch.isfinite(t).all()
        for k, t in state["search"]["supernet"].items()
        if "running" not in k
    )


def test_max_steps_stops_without_evaluation(tmp_path):
    results = search(replace(SMALL, max_steps=1), tmp_path / "short")
    assert results["steps"] == 1 and "valid_accuracy" not in results
    assert Genotype.load(tmp_path / "short" / runs.GENOTYPE)


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=name_of)
def test_every_relaxation_runs(relaxation, tmp_path):
    alphas = AlphaOptimizer(**{"lr": 0.05, **relaxation.alpha_defaults})
    results = search(
        replace(SMALL, relaxation=relaxation, alphas=alphas, epochs=1), tmp_path / "run"
    )
    assert 0 <= results["derived_valid_accuracy"] <= 1


@pytest.mark.slow
def test_training_learns_and_saves_what_it_evaluated(tmp_path):
    config = replace(
        SMALL_TRAIN,
        space=ConvCell(channels=4, cells=2),
        epochs=6,
        batch_size=64,
        lr=0.05,
        drop_path=0.0,
        valid_fraction=0.0,
        data=DataConfig(source="digits"),
        random_cells=1,
    )
    run = start_training(config, tmp_path / "t", DIGITS, CPU)
    results = train(config, run, DIGITS, CPU, progress=False)
    assert results["test_accuracy"] > 0.9
    assert results["num_test_images"] == len(DIGITS.test)
    from gradnas.tasks.images import IMAGES

    network = IMAGES.load_trained(run, config)
    again = evaluate(network, DIGITS.test.batches(100, shuffle=False).epoch(0))
    assert again["accuracy"] == pytest.approx(results["test_accuracy"], abs=1e-9)
    random_cells = results["random_cells"]
    assert (
        len(random_cells["test_accuracies"]) == 1
        and random_cells["genotypes"][0] != config.genotype.to_text()
    )
    child = read_object(run.path / "random" / "0" / runs.CONFIG)
    assert {k: v for k, v in child.items() if k not in ("genotype", "random_cells")} == {
        k: v for k, v in to_json(config).items() if k not in ("genotype", "random_cells")
    }


def test_the_schedules():
    """DARTS appendix A.2: cosine to 0 over 600 epochs; ImageNet 0.97 per epoch; warm-up."""
    cosine = replace(SMALL_TRAIN, epochs=600, lr=0.025)
    assert cosine.lr_at(0) == 0.025 and cosine.lr_at(300) == pytest.approx(0.0125)
    assert cosine.lr_at(599) == pytest.approx(1.7e-7, rel=0.02)
    steps = replace(SMALL_TRAIN, schedule="exponential", lr=0.1)
    assert steps.lr_at(10) == pytest.approx(0.1 * 0.97**10)
    linear = replace(SMALL_TRAIN, schedule="linear", lr=0.5, epochs=250, warmup_epochs=5)
    assert [linear.lr_at(e) for e in (0, 4)] == pytest.approx([0.1, 0.5])
    assert linear.lr_at(125) == pytest.approx(0.25)


def test_drop_path_is_scheduled(tmp_path):
    run = start_training(SMALL_TRAIN, tmp_path / "t", DIGITS, CPU)
    train(SMALL_TRAIN, run, DIGITS, CPU, progress=False)
    assert [r["drop_path"] for r in run.records()] == [0.0, 0.15]
    assert all("valid_accuracy" in r for r in run.records())


def test_the_test_images_are_read_once_after_the_last_epoch(tmp_path, monkeypatch):
    """Model selection never looks at the test set."""
    reads = []
    original = type(DIGITS.test).batches

    def watched(self, *arguments, **named):
        if len(self) == len(DIGITS.test):
            reads.append(len(run.records()))
        return original(self, *arguments, **named)

    monkeypatch.setattr(type(DIGITS.test), "batches", watched)
    run = start_training(SMALL_TRAIN, tmp_path / "t", DIGITS, CPU)
    train(SMALL_TRAIN, run, DIGITS, CPU, progress=False)
    assert reads == [SMALL_TRAIN.epochs]


def test_recalibration_gives_the_statistics_of_the_batches():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(2), torch.nn.ReLU())
    batches = [3 + 2 * torch.randn(64, 2, 8, 8) for _ in range(4)]
    recalibrate(network, batches)
    norm = network[0]
    assert torch.allclose(
        norm.running_mean, torch.stack([b.mean((0, 2, 3)) for b in batches]).mean(0), atol=1e-5
    )
    assert torch.allclose(
        norm.running_var, torch.stack([b.var((0, 2, 3)) for b in batches]).mean(0), atol=1e-4
    )
    assert norm.momentum == 0.1 and not network.training


@pytest.mark.slow
def test_a_compiled_training_is_the_same_training(tmp_path, monkeypatch):
    """One graph for all epochs, whatever their drop path; the small last batch runs as it is."""
    from torch._dynamo.testing import CompileCounterWithBackend

    real, counts = torch.compile, CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(
        torch,
        "compile",
        lambda network, dynamic, mode: real(network, dynamic=dynamic, backend=counts),
    )
    config = replace(SMALL_TRAIN, epochs=3, valid_fraction=0.0)
    plain, compiled = tmp_path / "plain", tmp_path / "compiled"
    train(config, start_training(config, plain, DIGITS, CPU), DIGITS, CPU, progress=False)
    config = replace(config, compile="default")
    train(config, start_training(config, compiled, DIGITS, CPU), DIGITS, CPU, progress=False)
    assert counts.frame_count == 1
    for eager, other in zip(Run(plain).records(), Run(compiled).records(), strict=True):
        assert eager.keys() == other.keys() and eager["drop_path"] == other["drop_path"]
        # Epoch 0 drops nothing: the same numbers. Later ones draw other masks only where the random
        # stream differs.
        if eager["epoch"] == 0:
            assert other["train_loss"] == pytest.approx(eager["train_loss"], rel=1e-3)


def test_what_cannot_be_compiled_is_refused():
    with pytest.raises(
        ValueError, match="compile must be 'no', 'default' or 'reduce-overhead', not 'yes'"
    ):
        replace(SMALL_TRAIN, compile="yes")
    with pytest.raises(
        ValueError, match="captures CUDA graphs, but the device is cpu: use 'default'"
    ):
        ImageTraining(replace(SMALL_TRAIN, compile="reduce-overhead"), DIGITS, CPU)
