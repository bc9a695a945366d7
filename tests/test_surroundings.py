"""What is set around a call: a default device, gradients off, no home folder."""

from __future__ import annotations

import os
import pwd
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gradnas
from gradnas import runs
from gradnas.cli import main
from gradnas.data import Augment, ChunkLengths, TextConfig, TextStream, halves, load_images
from gradnas.data.base import balanced, stratified
from gradnas.data.located import expanded
from gradnas.families import recipes
from gradnas.laws.discover import discover_laws
from gradnas.laws.law import LawSettings
from gradnas.programs.searching import run_search, start_search
from gradnas.programs.training import start_training
from gradnas.randomness import generator_for
from gradnas.spaces import native

CPU = torch.device("cpu")
X = torch.randn(8, 3, 6, 6, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 2


def small_net():
    torch.manual_seed(0)
    operations = {
        "k5": nn.Conv2d(3, 4, 5, padding=2),
        "k3": nn.Conv2d(3, 4, 3, padding=1),
        "none": nn.Conv2d(3, 4, 1),
    }
    choice = gradnas.Choice(operations, name="c")
    return nn.Sequential(choice, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))


def loss(net):
    return F.cross_entropy(net(X), Y)


@contextmanager
def default_device(name):
    """As `torch.set_default_device`; what is made without a device is then elsewhere."""
    with torch.device(name):
        yield


# ---- a default device ----------------------------------------------------------------------------


def drawn_data(tmp_path):
    """Everything random of data, as plain values."""
    digits = load_images("digits")
    found = []
    for part in (*halves(digits.train, 0.5, 0), *balanced(digits.train, 3, 0)):
        found.append(part.labels.tolist())
    found += [part.labels.tolist() for part in stratified(digits.train, 0.3, 0)]
    for augment in (Augment(), Augment(crop_padding=1, flip=True, cutout=3)):
        batches = digits.test.batches(64, augment=augment, shuffle=True, seed=1, device=CPU)
        x_BCHW, y_B = next(iter(batches.epoch(0)))
        found += [x_BCHW.tolist(), y_B.tolist()]
    (tmp_path / "t.txt").write_text("the cat sat\n" * 60)
    corpus = TextConfig(str(tmp_path / "t.txt")).load()
    found.append(TextStream(corpus.train, 4, CPU).next(5).inputs_TB.tolist())
    found.append([ChunkLengths(deviation=3.0).length(generator_for(k)) for k in range(5)])
    return found


def drawn_architectures(tmp_path):
    found = []
    for name in recipes.SEARCHES:
        space = recipes.search_recipe(name).space
        found.append(space.random_decision(generator_for(1)).to_text())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("drawn", [drawn_data, drawn_architectures])
def test_what_is_drawn_is_the_same_under_any_default_device(drawn, tmp_path):
    expected = drawn(tmp_path)
    with default_device("meta"):
        assert drawn(tmp_path) == expected


SEARCHES = [
    (gradnas.Softmax(), gradnas.Unrolled(mode="finite_difference")),
    (gradnas.GumbelSoftmax(temperature=1.0, temperature_end=1.0), gradnas.FirstOrder()),
    (gradnas.GumbelSoftmax(temperature=1.0, temperature_end=1.0), gradnas.Reinforce(samples=2)),
    (gradnas.BinaryGates(), gradnas.FirstOrder()),
    (gradnas.BinaryGates(mode="two"), gradnas.FirstOrder()),
    (gradnas.Sigmoid(), gradnas.FirstOrder()),
]


@pytest.mark.parametrize(("relaxation", "gradient"), SEARCHES)
def test_a_search_is_the_same_under_any_default_device(relaxation, gradient):
    def searched(net):
        search = gradnas.Search(net, relaxation=relaxation, gradient=gradient, seed=3)
        for _ in range(3):
            search.step(loss, loss)
        return [alpha.tolist() for alpha in search.alphas.values()]

    expected = searched(small_net())
    net = small_net()
    with default_device("meta"):
        assert searched(net) == expected


@pytest.mark.slow
def test_a_law_is_the_same_under_any_default_device_and_without_gradients():
    x = torch.linspace(0.1, 2, 40).double().unsqueeze(1).numpy()
    settings = LawSettings(nodes=1, effort=0.05)
    expected = [str(law) for law in discover_laws(x, 2 * x[:, 0] + 1, settings).front]
    with default_device("meta"), torch.no_grad():
        found = [str(law) for law in discover_laws(x, 2 * x[:, 0] + 1, settings).front]
    assert found == expected


@pytest.mark.slow
def test_a_program_is_the_same_under_any_default_device(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("the cat sat\nthe dog ran\n" * 60)
    data = ("--data", str(tmp_path / "t.txt"), "--hidden", "8", "--device", "cpu")
    small = ("--epochs", "1", "--warmup-epochs", "0", "--batch-size", "4", *data)
    assert main(["search", "text", *small, "--out", str(tmp_path / "a")]) == 0
    with default_device("meta"):
        assert main(["search", "text", *small, "--out", str(tmp_path / "b")]) == 0
        train = ("--epochs", "1", "--hidden", "8", "--device", "cpu")
        assert main(["train", str(tmp_path / "b"), *train]) == 0  # and text is generated
    for name in (runs.METRICS, runs.GENOTYPE, runs.ALPHAS):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


# ---- gradients switched off ----------------------------------------------------------------------

SWITCHES = [torch.no_grad, torch.inference_mode]


@pytest.mark.parametrize("switch", SWITCHES)
def test_gradients_that_are_off_are_said_before_the_first_step(switch):
    search = gradnas.Search(small_net())
    before = [p.clone() for p in search.params.values()]
    loader = DataLoader(TensorDataset(X, Y), 4)
    with switch():
        with pytest.raises(ValueError, match="gradients are switched off here"):
            search.step(loss, loss)
        with pytest.raises(ValueError, match="gradients are switched off here"):
            search.fit(loader, loader, F.cross_entropy, epochs=1, progress=False)
    assert search.steps == 0
    assert all(torch.equal(a, b) for a, b in zip(before, search.params.values(), strict=True))
    search.step(loss, loss)


def test_gradients_switched_off_for_good_are_said_too():
    search = gradnas.Search(small_net())
    torch.set_grad_enabled(False)
    try:
        with pytest.raises(ValueError, match=r"set_grad_enabled\(False\)\), and a search needs"):
            search.step(loss, loss)
    finally:
        torch.set_grad_enabled(True)


def test_a_network_made_in_inference_mode_is_named():
    with torch.inference_mode():
        net = small_net()
    with pytest.raises(ValueError, match=r"was made within torch\.inference_mode\(\)"):
        gradnas.Search(net)


@pytest.mark.parametrize("switch", SWITCHES)
def test_programs_say_it_before_there_is_a_folder(switch, tmp_path):
    search = recipes.search_recipe("digits")
    data = search.load()
    training = recipes.training_recipe("digits-eval", gradnas.Genotype.named("DARTS_V2"))
    with switch():
        with pytest.raises(ValueError, match="and a search needs them"):
            start_search(search, tmp_path / "run", data, CPU)
        with pytest.raises(ValueError, match="and a training needs them"):
            start_training(training, tmp_path / "run", data, CPU)
        with pytest.raises(ValueError, match="and a search needs them"):
            run_search(search, runs.Run(tmp_path / "run"), data, CPU)
    assert not (tmp_path / "run").exists()


# ---- no home folder ------------------------------------------------------------------------------


@pytest.fixture
def homeless(monkeypatch):
    """A process without HOME, of a user that no list knows."""

    def unknown(number):
        raise KeyError(f"getpwuid(): uid not found: {number}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(RuntimeError):
        Path.home()
    native.library.cache_clear()
    yield
    native.library.cache_clear()


def test_kernels_without_a_home_are_those_of_torch_with_a_warning(homeless, monkeypatch):
    source = Path(native.__file__).parent / "cells" / "stencils.cpp"
    monkeypatch.setenv("GRADNAS_COMPILER", "true")
    with pytest.warns(UserWarning, match="no home folder to keep them in: set HOME or XDG_CACHE"):
        assert native.library(source, torch.float32) is None


def test_a_cache_folder_is_used_where_it_is_named(homeless, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native._cache_folder() == tmp_path
    for not_set in ("", "cache"):  # by the specification: empty, or not absolute
        monkeypatch.setenv("XDG_CACHE_HOME", not_set)
        with pytest.raises(native.NoHome):
            native._cache_folder()
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        assert native._cache_folder() == tmp_path / "home" / ".cache"
        monkeypatch.delenv("HOME")


def test_a_path_with_an_unknown_home_is_a_name(homeless, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert expanded("~/data") == Path("~/data")
    (tmp_path / "~draft.txt").write_text("a b\n" * 30)
    assert len(TextConfig("~draft.txt").load().vocabulary) == 3
    assert (
        main(["search", "digits", "--data", "~nosuchuser/images", "--out", str(tmp_path / "r")])
        == 2
    )
    assert "there is no folder ~nosuchuser/images" in capsys.readouterr().err
    assert "HOME" not in os.environ
