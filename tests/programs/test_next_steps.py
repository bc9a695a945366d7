"""What programs print as the next step is run as it stands, for every family and kind of data."""

from __future__ import annotations

import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import training_seconds

from gradnas import Genotype, runs
from gradnas.cli import main
from gradnas.config import read_object, to_json
from gradnas.data import DataConfig, TextConfig, load_corpus
from gradnas.families import recipes
from gradnas.programs import following
from gradnas.programs.following import after_search
from gradnas.programs.searching import start_search
from gradnas.tasks.sentences import about
from gradnas.tasks.text import TEXT

CPU = torch.device("cpu")
CELL = Genotype.named("DARTS_V2_recurrent")
DARTS = Genotype.named("DARTS_V2")
SHORT = ("--epochs", "1", "--max-steps", "2", "--device", "cpu")
CELLS = ("digits", "--channels", "2", "--cells", "2", "--nodes", "1", "--per-class", "10")
CHAIN = ("proxyless-digits", "--valid-per-class", "2", "--per-class", "10")
TEXT_SEARCH = ("text", "--hidden", "8", "--nodes", "1", "--batch-size", "4")


@pytest.fixture(autouse=True)
def steps_are_timed(monkeypatch):
    """One of a training: more would take as long as the tests."""
    monkeypatch.setattr(following, "training_seconds", training_seconds)
    monkeypatch.setattr(following, "MOST_STEPS", 1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Data as people have them, by name."""
    folder = tmp_path_factory.mktemp("my data")
    image = pytest.importorskip("PIL.Image")
    numbers = np.random.default_rng(0)
    for split in ("train", "test"):
        for kind in ("cat", "dog"):
            (folder / "images" / split / kind).mkdir(parents=True)
            for k in range(12):
                pixels = numbers.integers(0, 255, (12, 12, 3), dtype=np.uint8)
                image.fromarray(pixels).save(folder / "images" / split / kind / f"{k}.png")
    words = "the cat sat on the mat\nthe dog saw the cat\n"
    (folder / "words.txt").write_text(words * 30)
    (folder / "letters.txt").write_text("abc" * 400)  # no line ends
    (folder / "three").mkdir()
    for split, times in (("train", 20), ("valid", 3), ("test", 1)):  # short: 11 tokens to test on
        (folder / "three" / f"{split}.txt").write_text(words * times)
    return {name: folder / name for name in ("images", "words.txt", "letters.txt", "three")}


def commands(out):
    """The commands of printed next steps; the line after each says how long it takes."""
    lines = out.splitlines()
    found = []
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        if line.startswith("next: "):
            assert re.fullmatch(r" +\(.*about \d+ (s|min|h|days)\b.*\)", after), after
            program, *arguments = shlex.split(line.removeprefix("next: "))
            assert program == "gradnas"
            found.append(arguments)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "source", "recipe"),
    [
        (CELLS, None, "digits-eval"),
        (CELLS, "images", "digits-eval"),
        (CHAIN, None, "proxyless-digits-eval"),
        (CHAIN, "images", "proxyless-digits-eval"),
        (TEXT_SEARCH, "words.txt", "text-eval"),
        ((*TEXT_SEARCH, "--level", "char"), "letters.txt", "text-eval"),
        ((*TEXT_SEARCH[:-1], "2"), "three", "text-eval"),
    ],
)
def test_the_printed_step_runs_as_it_stands(data, tmp_path, capsys, search, source, recipe):
    out = tmp_path / "a run"  # a path with a space in it
    more = () if source is None else ("--data", str(data[source]))
    arguments = ["search", *search, *more, *SHORT, "--warmup-epochs", "0", "--out", str(out)]
    assert main(arguments) == 0
    said = capsys.readouterr().out
    assert f"({recipe}: " in said
    (train,) = commands(said)
    assert train == ["train", str(out)]
    assert main([*train, *SHORT]) == 0
    for command in commands(capsys.readouterr().out):
        assert main(command) == 0
        assert capsys.readouterr().out.strip()
    of_kind = "TextTrainConfig" if "text" in recipe else "TrainConfig"
    assert read_object(out / "train" / runs.CONFIG)["type"] == of_kind


@pytest.mark.slow
def test_the_printed_step_of_a_task_of_ones_own_runs_as_it_stands(tmp_path, capsys):
    task = Path(__file__).parents[1] / "own_tasks" / "tabular.py"
    out = tmp_path / "a run"
    search = ("--epochs", "1", "--warmup-epochs", "0", "--out", str(out))
    assert main(["search", str(task), *search]) == 0
    (train,) = commands(capsys.readouterr().out)
    assert train == ["train", str(out), "--task", str(task)]
    assert main(train) == 0
    for command in commands(capsys.readouterr().out):
        assert main(command) == 0


# ---- which training follows ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("search", "source", "training"),
    [
        ("text", "pydoc", "text-eval"),
        ("text", "my.txt", "text-eval"),
        ("darts-ptb", "ptb/", "darts-ptb-eval"),
        ("darts-ptb-first-order", "my.txt", "darts-ptb-eval"),
        ("digits", "digits", "digits-eval"),
        ("digits", "my images", "digits-eval"),
        ("digits", "cifar10", "cifar10-eval"),
        ("darts-cifar10", "cifar10", "cifar10-eval"),
        ("darts-cifar10", "my images", "cifar10-eval"),
        ("proxyless-digits", "my images", "proxyless-digits-eval"),
        ("proxyless-cifar10", "my images", "proxyless-cifar10-eval"),
        ("proxyless-imagenet", "ILSVRC/imagenet-1k", "proxyless-imagenet-eval"),
        ("nas-bench-macro-cifar10", "cifar10", "proxyless-cifar10-eval"),
    ],
)
def test_the_training_fits_the_search(search, source, training):
    """By well-known data, else by the recipe of the search."""
    config = recipes.search_recipe(search)
    config = replace(config, data=replace(config.data, source=source))
    found = config.space.random_decision(torch.Generator().manual_seed(0))
    assert recipes.training_after(found, "runs/x", to_json(config)) == training


def test_a_search_without_a_recipe_is_followed_by_its_size():
    searched = to_json(replace(recipes.search_recipe("text"), recipe=None))
    searched["data"]["source"] = "my.txt"
    assert recipes.training_after(CELL, "runs/x", searched) == "text-eval"
    searched["space"]["hidden"] = 300
    assert recipes.training_after(CELL, "runs/x", searched) == "darts-ptb-eval"
    assert recipes.training_after(CELL, "DARTS_V2_recurrent", {}) == "darts-ptb-eval"
    searched = to_json(replace(recipes.search_recipe("digits"), recipe=None))
    searched["data"]["source"] = "my images"
    assert recipes.training_after(DARTS, "runs/x", searched) == "cifar10-eval"


# ---- short texts ---------------------------------------------------------------------------------


def test_batches_of_a_training_fit_a_short_text(data):
    corpus = load_corpus(data["three"])
    config = recipes.training_recipe("text-eval", CELL)
    sizes = {name: len(corpus.split(name)) for name in ("train", "valid", "test")}
    assert sizes == {"train": 260, "valid": 39, "test": 13}
    settled, notes = TEXT.settled(config, corpus, ())
    assert (settled.batch_size, settled.eval_batch_size, settled.test_batch_size) == (20, 10, 1)
    assert notes == ["test_batch_size is 1, not 10: the test split has only 13 words"]
    TEXT.check_training(settled, corpus, CPU)
    kept, notes = TEXT.settled(config, corpus, ("test_batch_size",))
    assert kept == config and not notes
    with pytest.raises(ValueError, match="10 streams of a batch need at least 20"):
        TEXT.check_training(kept, corpus, CPU)


# ---- what cannot follow, and times ---------------------------------------------------------------


def searched_run(config, architecture, folder):
    run = start_search(config, folder, config.data.load(), CPU)
    architecture.save(run.path / runs.GENOTYPE)
    return run


def test_a_training_that_cannot_be_is_said_and_not_printed_as_a_command(data, tmp_path):
    config = recipes.search_recipe("digits")
    config = replace(config, data=DataConfig(source=str(data["images"])), batch_size=4)
    run = searched_run(config, DARTS, tmp_path / "run")
    tiny = replace(config.data.load(), image_size=1)
    step = after_search(run, config, tiny)
    assert isinstance(step, str) and step.startswith("the cell cannot be trained by digits-eval")


def test_the_time_is_that_of_the_steps(data, monkeypatch):
    """Of a clock that goes on by three seconds at every look."""
    config = recipes.training_recipe("text-eval", CELL)
    config = replace(config, data=TextConfig(str(data["words.txt"])), epochs=7, batch_size=4)
    config = replace(config, eval_batch_size=2, test_batch_size=2)
    corpus = config.load()
    looks = iter(range(0, 1000, 3))
    monkeypatch.setattr(following, "_now", lambda device: float(next(looks)))
    monkeypatch.setattr(following, "MOST_STEPS", 4)
    monkeypatch.setattr(following, "MOST_SECONDS", 4.0)
    steps = -(-(len(corpus.train) // 4 - 1) // config.chunks.base)
    assert training_seconds(config, corpus, CPU) == 7 * steps * 3.0
    assert next(looks) == 9  # two steps are more than four seconds
    broken = replace(config, lr=1e30, clip_norm=1e6)
    monkeypatch.setattr(following, "_now", lambda device: 0.0)
    assert training_seconds(broken, corpus, CPU) is None


def test_a_finished_search_ends_well_whatever_its_training_does(data, tmp_path, monkeypatch):
    """Ctrl-C in the estimate, no batch, and an error of a network."""
    config = recipes.search_recipe("text")
    config = replace(config, data=TextConfig(str(data["words.txt"])), batch_size=4)
    found = config.space.random_decision(torch.Generator().manual_seed(0))
    run = searched_run(config, found, tmp_path / "run")

    def step_after(step):
        monkeypatch.setattr("gradnas.tasks.text.training.TextTraining.step", step)
        return after_search(run, config, config.data.load())

    def stopped(task, batch):
        raise KeyboardInterrupt

    said = step_after(stopped)
    assert said.command.startswith("gradnas train") and "how long is not known" in said.about

    def broken(task, batch):
        raise TypeError("no such network")

    said = step_after(broken)
    assert said.startswith("the cell cannot be trained by text-eval as it is: no such network (")


def test_times_in_words():
    times = [about(seconds) for seconds in (0.01, 3.4, 89, 100, 5000, 7200, 61200, 1e6)]
    assert times == [
        "about 1 s",
        "about 3 s",
        "about 89 s",
        "about 2 min",
        "about 83 min",
        "about 2 h",
        "about 17 h",
        "about 12 days",
    ]


# ---- going on ------------------------------------------------------------------------------------

OWN = '''
from dataclasses import dataclass

from gradnas import Softmax


@dataclass(frozen=True)
class OfMyOwn(Softmax):
    """Softmax by another name."""
'''


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_with_what_is_printed(tmp_path, capsys, monkeypatch):
    """In a folder with a space in its name, with a class of one's own module."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "methods_of_mine.py").write_text(OWN)

    def stop(keeper):
        keeper.save()
        raise runs.Interrupted

    search = ("search", *CELLS, *SHORT, "--warmup-epochs", "0", "--out", "a run")
    with monkeypatch.context() as patched:
        patched.setattr(runs.Keeper, "after_step", stop)
        assert main([*search, "--relaxation", "methods_of_mine:OfMyOwn"]) == 130
    said = capsys.readouterr().err
    again = said[said.index("go on with: ") :].removeprefix("go on with: ").strip()
    assert again == "gradnas resume 'a run' --import methods_of_mine"
    assert main(shlex.split(again)[1:]) == 0
