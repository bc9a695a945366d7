"""Whole runs on chains: reproducible, resumable in the middle of warm-up and of the search,
exported, reported."""

from __future__ import annotations

import importlib.util
import random
import sys
from dataclasses import replace

import pytest
import torch

from gradnas import (
    AlphaOptimizer,
    BinaryGates,
    Chain,
    ConvCell,
    Genotype,
    MBConvChain,
    Reinforce,
    WeightOptimizer,
    distributed,
    runs,
)
from gradnas.config import from_json, read_object, to_json
from gradnas.data import Augment, DataConfig, balanced
from gradnas.families import recipes
from gradnas.objectives.cost import ExpectedCost
from gradnas.pictures import chains
from gradnas.programs.reporting import write_report
from gradnas.programs.searching import run_search, start_search
from gradnas.programs.trained import export_trained
from gradnas.programs.training import start_training, train
from gradnas.runs import Run
from gradnas.tasks.images import IMAGES
from gradnas.tasks.images.search import ImageSearch
from gradnas.tasks.images.settings import SearchConfig, TrainConfig
from gradnas.tasks.images.training import ImageTraining
from gradnas.tasks.training import update

CPU = torch.device("cpu")
SPACE = MBConvChain(
    stem_width=4,
    stem_stride=1,
    first_width=None,
    stages=((4, 2, 1), (6, 2, 2)),
    candidates=("mb1_k3", "mb2_k3", "zero", "identity"),
    last_width=8,
    image_size=8,
    dropout=0.2,
)
SMALL = SearchConfig(
    space=SPACE,
    relaxation=BinaryGates("two"),
    data=DataConfig(source="digits", augment=Augment(crop_padding=1)),
    valid_per_class=20,
    label_smoothing=0.1,
    epochs=3,
    warmup_epochs=1,
    alpha_every=2,
    batch_size=256,
    weights=WeightOptimizer(lr=0.05, lr_end=0.0, nesterov=True, per_iteration=True, warmup_lr=0.1),
    alphas=AlphaOptimizer(lr=0.05, betas=(0.0, 0.999), weight_decay=0.0),
    cost=ExpectedCost(target_macs=30_000, form="add#linear"),
    threads=1,
    checkpoint_seconds=0.0,
)
SMALL_TRAIN = TrainConfig(
    space=SPACE,
    genotype=Chain.parse("mb1_k3 zero | mb2_k3 identity"),
    data=DataConfig(source="digits", augment=Augment(crop_padding=1)),
    epochs=2,
    batch_size=256,
    auxiliary=False,
    drop_path=0.0,
    label_smoothing=0.1,
    per_iteration=True,
    nesterov=True,
    no_decay="norms",
    threads=1,
    checkpoint_seconds=0.0,
)
DIGITS = SMALL.data.load()
FILES = (runs.METRICS, runs.ALPHAS, runs.GENOTYPE, runs.RESULTS)


def search(config, path):
    return run_search(config, start_search(config, path, DIGITS, CPU), DIGITS, CPU, progress=False)


def contents(path, names=FILES):
    return {name: (path / name).read_bytes() for name in names}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"relaxation": BinaryGates("recompute"), "alpha_every": 1},
        {"gradient": Reinforce(samples=2, reward="accuracy"), "relaxation": BinaryGates("full")},
    ],
    ids=["two", "recompute", "reinforce"],
)
def test_stopping_at_every_step_and_resuming_gives_the_same_files(changes, tmp_path, monkeypatch):
    """In the middle of the warm-up, of the search and between: the state is rebuilt from disk after
    every step."""
    config = replace(SMALL, **changes)
    search(config, tmp_path / "whole")
    run = start_search(config, tmp_path / "pieces", DIGITS, CPU)
    stops = []

    def stop(keeper):
        keeper.save()
        stops.append(1)
        raise runs.Interrupted

    monkeypatch.setattr(runs.Keeper, "after_step", stop)
    for _ in range(100):
        torch.manual_seed(random.randrange(1000))
        try:
            run_search(config, run, DIGITS, CPU, progress=False)
            break
        except runs.Interrupted:
            continue
    assert len(stops) == 3 * 5  # five batches in each of three epochs
    assert contents(tmp_path / "whole") == contents(tmp_path / "pieces")


@pytest.mark.slow
def test_the_same_seed_gives_the_same_files_and_the_folder_repeats_the_run(tmp_path):
    results = search(SMALL, tmp_path / "one")
    config = from_json(SearchConfig, read_object(tmp_path / "one" / runs.CONFIG))
    assert config == SMALL
    search(config, tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    search(replace(SMALL, seed=1), tmp_path / "other")
    assert contents(tmp_path / "one")[runs.METRICS] != contents(tmp_path / "other")[runs.METRICS]
    chain = Chain.load(tmp_path / "one" / runs.GENOTYPE)
    assert results["code"] == SPACE.code(chain) and SPACE.decision(results["code"]) == chain
    records = Run(tmp_path / "one").records()
    # The alphas wait in the warm-up.
    assert [("search_valid_loss" in r) for r in records] == [False, True, True]
    tables = Run(tmp_path / "one").load_tensors(runs.ALPHAS)
    assert torch.equal(tables["block01/0000"], tables["block01/0001"])
    assert not torch.equal(tables["block01/0001"], tables["block01/0003"])
    assert records[-1]["derived_macs"] == pytest.approx(macs_of(chain))
    assert "valid_accuracy" not in records[-1] and 0 <= records[-1]["derived_valid_accuracy"] <= 1


def macs_of(chain):
    from gradnas.latency import macs

    return macs(SPACE.network(chain, in_channels=1), torch.zeros(1, 1, 8, 8))


def test_the_schedule_of_the_search():
    """Warm-up and search have a cosine each, that falls with every step; alphas take every second
    step."""
    state = ImageSearch(SMALL, DIGITS, CPU)
    rates, due = [], []
    for _ in range(3):
        for batch in state.train.epoch(state.search.epoch):
            rates.append(state.search.weight_optimizer.param_groups[0]["lr"])
            due.append(state.search.schedule.alpha_due)
            state.step(batch)
        state.finish_epoch(evaluated=False)
    assert rates[0] == 0.1 and rates[5] == 0.05 and rates[4] < 0.01 and rates[14] < 0.003
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert due == [False] * 5 + [step % 2 == 0 for step in range(5, 15)]


def test_the_validation_images_are_balanced_and_plain():
    train_split, valid = balanced(DIGITS.train, 20, seed=0)
    assert valid.labels.bincount().tolist() == [20] * 10 and len(train_split) + 200 == len(
        DIGITS.train
    )
    with pytest.raises(
        ValueError, match=r"class 0 has .* images: 500 of each class cannot be held out"
    ):
        balanced(DIGITS.train, 500, seed=0)
    few = replace(SMALL.data, per_class=7).load()
    assert few.train.labels.bincount().tolist() == [7] * 10 and len(few.test) == len(DIGITS.test)


def test_training_stopped_at_every_step_gives_the_same_files(tmp_path, monkeypatch):
    train(
        SMALL_TRAIN,
        start_training(SMALL_TRAIN, tmp_path / "whole", DIGITS, CPU),
        DIGITS,
        CPU,
        progress=False,
    )
    run = start_training(SMALL_TRAIN, tmp_path / "pieces", DIGITS, CPU)

    def stop(keeper):
        keeper.save()
        raise runs.Interrupted

    monkeypatch.setattr(runs.Keeper, "after_step", stop)
    for _ in range(100):
        torch.manual_seed(random.randrange(1000))
        try:
            train(SMALL_TRAIN, run, DIGITS, CPU, progress=False)
            break
        except runs.Interrupted:
            continue
    names = (runs.METRICS, runs.WEIGHTS, runs.RESULTS)
    assert contents(tmp_path / "whole", names) == contents(tmp_path / "pieces", names)


def test_batch_norm_is_not_decayed_and_the_rate_falls_with_every_step():
    training = ImageTraining(SMALL_TRAIN, DIGITS, CPU)
    decays = [group["weight_decay"] for group in training.optimizer.param_groups]
    assert decays == [SMALL_TRAIN.weight_decay, 0.0]
    norms = {
        id(p)
        for m in training.network.modules()
        if "BatchNorm" in type(m).__name__
        for p in m.parameters()
    }
    assert {id(p) for p in training.optimizer.param_groups[1]["params"]} == norms
    both = ImageTraining(replace(SMALL_TRAIN, no_decay="norms and biases"), DIGITS, CPU)
    assert any(p.numel() == 10 for p in both.optimizer.param_groups[1]["params"])
    assert SMALL_TRAIN.lr_at(0.5) < SMALL_TRAIN.lr_at(0.0) == SMALL_TRAIN.lr


@pytest.mark.slow
def test_the_step_of_several_ranks_is_that_of_one(monkeypatch):
    """Gradients that were averaged lie as their weights do: SGD in one call depends on it."""
    images = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0))

    def weights(world: int) -> list[torch.Tensor]:
        torch.manual_seed(0)
        layers = (torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3))
        training = ImageTraining(SMALL_TRAIN, DIGITS, CPU, torch.nn.Sequential(*layers))
        with monkeypatch.context() as patch:
            patch.setattr(distributed, "world", lambda: world)
            patch.setattr(distributed, "factors", lambda sizes, device: [1.0])
            patch.setattr(distributed, "_summed", lambda x: world * x)  # all see the same batch
            for _ in range(2):
                loss = training.network(images).square().sum()
                loss.backward()
                update(training, loss, 1.0)
        return list(training.network.parameters())

    for several, one in zip(weights(2), weights(1), strict=True):
        torch.testing.assert_close(several, one, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_trained_chain_is_exported_and_reported(tmp_path):
    """Search, training and export in one folder; the source file needs torch alone."""
    config = replace(SMALL, epochs=1, warmup_epochs=0, alpha_every=1)
    search(config, tmp_path / "s")
    chain = Chain.load(tmp_path / "s" / runs.GENOTYPE)
    own = replace(SMALL_TRAIN, genotype=chain, random_cells=1, epochs=1)
    run = start_training(own, tmp_path / "s" / "train", DIGITS, CPU)
    train(own, run, DIGITS, CPU, progress=False)
    network = IMAGES.load_trained(run, own)
    export_trained(Run(tmp_path / "s"), tmp_path / "model.py")
    spec = importlib.util.spec_from_file_location("exported_chain", tmp_path / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(module.load()(x), network(x))
    assert "gradnas" not in {
        name.partition(".")[0] for name in module.__dict__ if name in sys.modules
    }
    page = write_report(Run(tmp_path / "s")).read_text()
    for part in (
        "Chain",
        "Cost against accuracy",
        "Blocks removed",
        "random chain",
        "stage 2",
        chain.to_text(),
    ):
        assert part in page, part
    assert "random cell" not in page and "<script" not in page
    assert write_report(Run(tmp_path / "s")).read_text() == page


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["svg", "png", "pdf"])
def test_pictures_repeat_and_fit(suffix, tmp_path):
    for name in ("proxyless_gpu", "proxyless_mobile"):
        chain, space = Chain.named(name), MBConvChain.named(name)
        one = chains.picture(chain, tmp_path / f"a.{suffix}", space=space, title=name).read_bytes()
        assert (
            one
            == chains.picture(chain, tmp_path / f"b.{suffix}", space=space, title=name).read_bytes()
        )
        plain = chains.picture(chain, tmp_path / f"c.{suffix}").read_bytes()
        assert plain != one


@pytest.mark.parametrize("name", [n for n in recipes.SEARCHES if "proxyless" in n or "macro" in n])
def test_recipes_are_configurations(name):
    config = recipes.search_recipe(name)
    assert from_json(SearchConfig, to_json(config)) == config
    space = config.space
    chain = space.random_decision(torch.Generator().manual_seed(0))
    training = recipes.training_recipe(
        recipes.training_after(chain, "genotype.json", to_json(config)), chain
    )
    assert (
        training.lr_at(training.epochs) == 0.0
        and training.nesterov
        and training.no_decay == "norms"
    )
    trained = recipes.training_space(training, chain, "runs/x", to_json(space))
    assert trained == replace(space, dropout=training.space.dropout)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: replace(SMALL_TRAIN, auxiliary=True),
            "networks of MBConvChain have no auxiliary head",
        ),
        (lambda: replace(SMALL_TRAIN, drop_path=0.1), "networks of MBConvChain do not drop paths"),
        (lambda: SPACE.network("mb1_k3 zero | zero zero"), "'zero' would leave nothing"),
        (lambda: SPACE.supernet(checkpoint_cells=True), "no cells to compute again"),
        (lambda: replace(SMALL, alpha_every=0), "alpha_every must be at least 1"),
        (
            lambda: ImageSearch(replace(SMALL, alphas=AlphaOptimizer()), DIGITS, CPU),
            r"needs AlphaOptimizer\(betas=\(0.0",
        ),
        (
            lambda: recipes.training_space(
                recipes.training_recipe("cifar10-eval", Genotype.named("DARTS")),
                Chain.named("proxyless_cpu"),
                "x",
                None,
            ),
            "x is a chain, and the recipe trains another kind",
        ),
        (
            lambda: from_json(SearchConfig, {"space": {"type": "MBConvChan"}}),
            "did you mean 'MBConvChain'",
        ),
        (
            lambda: from_json(
                SearchConfig,
                {"space": {"type": "MBConvChain", "candidates": ["mb3_k3", "mb3_k9x"]}},
            ),
            "unknown operation 'mb3_k9x'",
        ),
        (lambda: replace(SMALL, space=ConvCell(), relaxation=BinaryGates("tow")), "mode must be"),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
