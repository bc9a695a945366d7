"""What a run folder says of its data, and other data under a run that goes on."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from gradnas import ConvCell, FirstOrder, runs
from gradnas.cli import main
from gradnas.data import DataConfig
from gradnas.data.fingerprint import Fingerprint, digest
from gradnas.data.summary import DataSummary, Fact, LeftOut
from gradnas.programs.searching import start_search
from gradnas.tasks.images.settings import SearchConfig

SMALL = ("--channels", "2", "--cells", "2", "--threads", "1", "--device", "cpu")
BRIEF = ("--epochs", "3", "--max-steps", "3")


def ok(*arguments):
    assert main([str(a) for a in arguments]) == 0


def write_images(folder, *, classes=("cat", "dog"), number=12):
    for split in ("train", "test"):
        for place, name in enumerate(classes):
            own = folder / split / name
            own.mkdir(parents=True, exist_ok=True)
            generator = np.random.default_rng(place)
            for k in range(number):
                pixels = generator.integers(0, 40, (8, 8, 3)) + 60 * place
                Image.fromarray(pixels.astype(np.uint8)).save(own / f"{k}.png")
    return folder


def test_a_summary_is_one_line():
    summary = DataSummary(
        "mine",
        [Fact("splits", "Splits", "9 training images", {"training": 9}), Fact("s", "S", "grey", 1)],
        [LeftOut(1, "empty file", "empty files", "a.png"), LeftOut(2, "link", "links", "b")],
        ["all is grey"],
    )
    assert summary.sentences() == [
        "data: mine: 9 training images; grey; left out: 1 empty file (a.png), 2 links (such as b)",
        "warning: all is grey",
    ]
    assert summary.to_json()["facts"]["splits"]["value"] == {"training": 9}
    assert json.loads(json.dumps(summary.to_json())) == summary.to_json()


def test_a_fingerprint_says_what_differs():
    before = Fingerprint(
        {
            "images": 3,
            "classes": ["cat", "dog"],
            "images of each class": {"cat": 2, "dog": 1},
            "contents": digest([b"a"]),
            "what only this load knows": 1,
        }
    )
    now = Fingerprint(
        {
            "images": 4,
            "classes": ["cat", "emu"],
            "images of each class": {"cat": 3, "emu": 1},
            "contents": digest([b"b"]),
        }
    )
    assert before.differences(before) == []
    assert before.differences(now) == [
        "the number of images was 3, and is 4",
        "the classes differ (dog is gone, emu is new)",
        "the images of each class differ (cat was 2, and is 3, dog is gone, emu is new)",
    ]
    same_counts = Fingerprint({**before.entries, "contents": digest([b"b"])})
    assert before.differences(same_counts) == ["the contents differ"]
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"])


@pytest.mark.slow
def test_a_training_refuses_other_images_than_its_search_saw(tmp_path, capsys):
    data = write_images(tmp_path / "d")
    run = tmp_path / "r"
    ok("search", "digits", "--data", data, "--out", run, *BRIEF, *SMALL)
    assert "data: d: 24 training and 24 test images; 8x8 pixels" in capsys.readouterr().err
    kept = json.loads((run / runs.DATA).read_text())
    results = json.loads((run / runs.RESULTS).read_text())
    assert kept["read"] == results["read"]
    assert kept["read"]["facts"]["classes"]["value"] == {"cat": 12, "dog": 12}

    shutil.copy(data / "train/cat/0.png", data / "train/dog/0.png")
    train = ("train", run, "--recipe", "digits-eval", *BRIEF, *SMALL)
    assert main([str(a) for a in train]) == 2
    error = capsys.readouterr().err
    assert "the contents of some training images differ" in error and "--other-data" in error
    ok(*train, "--other-data")
    assert "note: the search in" in capsys.readouterr().err
    ok("report", run)
    page = (run / runs.REPORT).read_text()
    assert "<h2>Data</h2>" in page and "2 classes with 12 training images each" in page


@pytest.fixture
def begun(tmp_path):
    """Images, and a search on them that was stopped before its first step."""
    data = write_images(tmp_path / "d")
    config = SearchConfig(
        space=ConvCell(channels=2, cells=2, nodes=2),
        gradient=FirstOrder(),
        data=DataConfig(source=str(data)),
        epochs=2,
        max_steps=2,
        batch_size=12,
        threads=1,
    )
    run = start_search(config, tmp_path / "r", config.load(), torch.device("cpu"))
    return data, run.path


def error_of(capsys, *arguments) -> str:
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def rename(data):
    for split in ("train", "test"):
        (data / split / "cat").rename(data / split / "zebra")


def copy_into_the_other_class(data):
    for k in range(4):
        shutil.copy(data / f"train/cat/{k}.png", data / f"train/dog/copy {k}.png")


def repaint(data):
    for name in ("cat", "dog"):
        Image.new("RGB", (8, 8), (1, 2, 3)).save(data / f"train/{name}/0.png")


def swap(data):
    for split in ("train", "test"):
        (data / split / "cat").rename(data / split / "x")
        (data / split / "dog").rename(data / split / "cat")
        (data / split / "x").rename(data / split / "dog")


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, words",
    [
        (rename, "the classes differ (cat is gone, zebra is new)"),
        (copy_into_the_other_class, "the number of training images was 24, and is 28"),
        (repaint, "the contents of some training images differ"),
        (swap, "differ"),
    ],
)
def test_resume_refuses_other_images_by_what_differs(begun, change, words, capsys):
    data, run = begun
    before = (run / runs.DATA).read_text()
    change(data)
    error = error_of(capsys, "resume", run)
    assert words in error and "--other-data" in error
    assert "is not the data that" in error and (run / runs.DATA).read_text() == before


@pytest.mark.slow
def test_a_run_may_go_on_with_other_images_and_says_so(begun, capsys):
    data, run = begun
    copy_into_the_other_class(data)
    ok("resume", run, "--other-data")
    said = capsys.readouterr().err
    assert "note: after 0 epochs the run went on with other data: the number of training" in said
    kept = json.loads((run / runs.DATA).read_text())
    assert len(kept["changes"]) == 1
    assert json.loads((run / runs.RESULTS).read_text())["read"] == kept["read"]
    ok("report", run)
    assert "went on with other data" in (run / runs.REPORT).read_text()


@pytest.mark.slow
def test_a_network_that_does_not_fit_is_refused_whatever_was_said(begun, capsys):
    data, run = begun
    for split in ("train", "test"):
        shutil.copytree(data / split / "cat", data / split / "emu")
    assert "emu is new" in error_of(capsys, "resume", run)
    error = error_of(capsys, "resume", run, "--other-data")
    assert "its network does not fit them: the number of classes was 2, and is 3" in error


@pytest.mark.slow
def test_moved_images_are_the_same(begun):
    data, run = begun
    moved = data.rename(data.parent / "moved")
    ok("resume", run, "--data", moved)
    assert json.loads((run / runs.DATA).read_text())["changes"] == []
