"""From a search to its training and evaluation: images of any size, and what is said of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from in_forks import gradnas_as_ranks
from PIL import Image

from gradnas import Genotype, runs
from gradnas.cli import main
from gradnas.data import load_images

pytestmark = pytest.mark.slow  # many combinations, or whole runs

SMALL = ("--channels", "2", "--cells", "2", "--threads", "1", "--device", "cpu")
BRIEF = ("--epochs", "3", "--max-steps", "3")


def ok(*arguments):
    assert main([str(a) for a in arguments]) == 0


@pytest.fixture
def fails(capsys):
    """Run a command that must fail with one sentence, and return the sentence."""

    def run(*arguments, code=2):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == code
        errors = capsys.readouterr().err.strip().splitlines()
        sentence = errors[-1]
        assert sentence.startswith("gradnas: ") and "Traceback" not in " ".join(errors)
        return sentence

    return run


def write_images(
    folder, size, *, classes=("cat", "dog"), splits=("train", "test"), number=12, **of
):
    """Images of noise: `size` is (width, height)."""
    level = of.get("level", 60)
    generator = np.random.default_rng(of.get("seed", 0))
    for split in splits:
        for place, name in enumerate(classes):
            own = folder / split / name
            own.mkdir(parents=True, exist_ok=True)
            for k in range(number):
                shape = (size[1], size[0], 3)
                pixels = generator.integers(0, 40, shape) + level + 60 * place
                Image.fromarray(pixels.astype(np.uint8)).save(own / f"{k}.png")
    return folder


def results_of(folder):
    return json.loads((folder / runs.RESULTS).read_text())


# ---- the training takes over what the search saw -------------------------------------------------


def test_the_training_sees_the_images_of_the_search(tmp_path, capsys):
    wide = write_images(tmp_path / "wide", (64, 40))
    run = tmp_path / "r"
    ok("search", "digits", "--data", wide, "--image-size", 16, "--out", run, *BRIEF, *SMALL)
    saw = json.loads((run / "images.json").read_text())
    assert (saw["image_size"], saw["in_channels"], saw["class_names"]) == (16, 3, ["cat", "dog"])
    ok("train", run, "--recipe", "digits-eval", *BRIEF, *SMALL)
    trained_on = results_of(run / "train")["data"]
    for key in ("image_size", "in_channels", "class_names", "mean", "std"):
        assert trained_on[key] == saw[key]
    # Neither streamed nor scaled with ImageNet's numbers.
    assert abs(trained_on["mean"][0] - 0.485) > 0.01


def test_other_classes_than_in_the_search_are_refused(fails, tmp_path):
    folder = write_images(tmp_path / "images", (16, 16))
    run = tmp_path / "r"
    ok("search", "digits", "--data", folder, "--out", run, *BRIEF, *SMALL)
    for split in ("train", "test"):
        (folder / split / "dog").rename(folder / split / "horse")
    sentence = fails("train", run, "--recipe", "digits-eval", *BRIEF, *SMALL)
    assert "cat, dog" in sentence and "cat, horse" in sentence
    assert not (run / "train").exists()


@pytest.mark.parametrize("side", [28, 48])
def test_an_auxiliary_head_that_does_not_fit_is_left_out_with_a_word(side, tmp_path, capsys):
    folder = write_images(tmp_path / "images", (side, side))
    run = tmp_path / "r"
    command = ("train", "DARTS_V2", "--recipe", "cifar10-eval", "--data", folder, "--out", run)
    ok(*command, "--batch-size", 8, *BRIEF, *SMALL)
    assert "without the auxiliary head" in capsys.readouterr().err
    config = json.loads((run / runs.CONFIG).read_text())
    assert config["auxiliary"] is False and results_of(run)["num_auxiliary_params"] == 0


def test_one_that_was_asked_for_is_refused_before_there_is_a_folder(fails, tmp_path):
    folder = write_images(tmp_path / "images", (28, 28))
    run = tmp_path / "r"
    command = ("train", "DARTS_V2", "--recipe", "cifar10-eval", "--data", folder, "--out", run)
    sentence = fails(*command, "--auxiliary", "--batch-size", 8, *BRIEF, *SMALL)
    assert "8x8" in sentence and "--no-auxiliary" in sentence and not run.exists()


def test_what_cannot_be_searched_leaves_no_folder(fails, tmp_path):
    odd = write_images(tmp_path / "odd", (15, 15))
    run = tmp_path / "r"
    command = ("search", "digits", "--data", odd, "--out", run, *BRIEF, *SMALL)
    assert "even height and width" in fails(*command)
    assert "held out" in fails(*command, "--image-size", 16, "--valid-per-class", 99)
    assert not run.exists()


def test_a_latency_table_that_does_not_fit_leaves_no_folder(fails, tmp_path):
    table = tmp_path / "t.json"
    fast = ("--warmup", 1, "--repeats", 2, "--clock", "cpu")
    ok("latency", "measure", "digits", "--image-size", 16, "-o", table, *fast)
    run = tmp_path / "r"
    command = ("search", "digits", "--out", run, "--latency", table, "--budget-ms", 5)
    sentence = fails(*command, *BRIEF, *SMALL)
    assert "gradnas resume" not in sentence and not (run / runs.CONFIG).exists()


def test_the_corrected_command_may_have_the_folder_of_the_failed_one(fails, tmp_path):
    run = tmp_path / "r"
    nan = ("--lr", "1e30", "--epochs", "3", *SMALL)
    sentence = fails("search", "digits", "--out", run, *nan)
    assert "nothing was saved yet" in sentence
    ok("search", "digits", "--out", run, *BRIEF, *SMALL)
    assert runs.Run(run).status()["status"] == "finished"


# ---- evaluation ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training that tells dark from bright images, in any light: by the numbers it was given."""
    place = tmp_path_factory.mktemp("trained")
    folder = write_images(place / "images", (8, 8), number=24)
    run = place / "r"
    more = ("--epochs", "6", "--batch-size", "8", "--lr", "0.1", *SMALL)
    ok("train", "DARTS_V2", "--recipe", "digits-eval", "--data", folder, "--out", run, *more)
    assert results_of(run)["test_accuracy"] == 1.0
    return run


def test_evaluation_normalises_as_the_training_did(trained, tmp_path, capsys):
    """Images that are all brighter are all the brighter class: their own mean would hide it."""
    bright = write_images(tmp_path / "bright", (8, 8), level=120)
    ok("evaluate", trained, "--data", bright)
    assert "test accuracy 50.00%" in capsys.readouterr().out


def test_a_folder_of_test_images_alone_is_enough(trained, tmp_path, capsys):
    alone = write_images(tmp_path / "alone", (8, 8), splits=("test",), seed=5)
    ok("evaluate", trained, "--data", alone)
    assert "test accuracy 100.00%" in capsys.readouterr().out
    only = write_images(tmp_path / "only", (8, 8), splits=("val",), classes=("dog",), level=120)
    ok("evaluate", trained, "--data", only)
    assert "test accuracy 100.00%" in capsys.readouterr().out  # of class 1, not 0


def test_other_classes_and_sizes_are_refused(trained, fails, tmp_path):
    other = write_images(tmp_path / "other", (8, 8), classes=("apple", "zebra"))
    sentence = fails("evaluate", trained, "--data", other)
    assert "cat, dog" in sentence and "apple, zebra" in sentence
    alone = write_images(tmp_path / "alone", (8, 8), classes=("cow",), splits=("test",))
    assert "cow" in fails("evaluate", trained, "--data", alone)
    large = write_images(tmp_path / "large", (16, 16))
    sentence = fails("evaluate", trained, "--data", large)
    assert "8x8" in sentence and "16x16" in sentence
    grey = tmp_path / "grey" / "test" / "cat"
    grey.mkdir(parents=True)
    Image.fromarray(np.full((8, 8), 70, np.uint8)).save(grey / "0.png")
    ok("evaluate", trained, "--data", tmp_path / "grey")  # three equal channels, as in training


# ---- how images are brought to size --------------------------------------------------------------


def halves_image(folder):
    """Left half black, right half white, twice as wide as high."""
    pixels = np.zeros((8, 16, 3), np.uint8)
    pixels[:, 8:] = 255
    pixels[:, :2] = 255  # a white border, on the left
    for split in ("train", "test"):
        for name in ("a", "b"):
            (folder / split / name).mkdir(parents=True)
            Image.fromarray(pixels).save(folder / split / name / "0.png")
    return folder


def test_images_are_cropped_squeezed_or_padded(tmp_path):
    folder = halves_image(tmp_path / "wide")
    images = {}
    for how in ("crop", "squeeze", "pad"):
        data = load_images(folder, image_size=8, fit=how)
        images[how] = data.train.images_NCHW[0, 0]
        streamed = load_images(folder, image_size=8, fit=how, memory_limit_mib=0)
        x_BCHW, _ = next(streamed.train.batches(1, shuffle=False).epoch(0))
        mean, std = streamed.mean[0], streamed.std[0]
        pixels = (x_BCHW[0, 0] * std + mean) * 255
        assert torch.allclose(pixels, images[how].float(), atol=0.01)
    assert images["crop"][4, 0] == 0  # the border is lost
    assert images["squeeze"][4, 0] > 200 and images["squeeze"][4, 7] == 255
    assert images["pad"][4, 7] == 255 and images["pad"][:2].max() == 0
    assert images["pad"][-2:].max() == 0


@pytest.mark.parametrize("how", ["crop", "squeeze", "pad"])
def test_a_run_says_once_how_images_were_brought_to_size(how, tmp_path, capsys):
    wide = write_images(tmp_path / "wide", (32, 16))
    run = tmp_path / "r"
    size = ("--image-size", "8", "--fit", how)
    ok("search", "digits", "--data", wide, "--out", run, *size, *BRIEF, *SMALL)
    said = capsys.readouterr().err
    words = {"crop": "cutting out the centre", "squeeze": "squeezed", "pad": "black borders"}
    assert said.count(words[how]) == 1 and "32x16 pixels, used as 8x8" in said
    ok("train", run, "--recipe", "digits-eval", *BRIEF, *SMALL)
    assert capsys.readouterr().err.count(words[how]) == 1
    assert json.loads((run / "train" / runs.CONFIG).read_text())["data"]["fit"] == how


def test_images_that_have_the_size_are_not_spoken_of(tmp_path, capsys):
    square = write_images(tmp_path / "square", (8, 8))
    run = tmp_path / "r"
    ok("search", "digits", "--data", square, "--out", run, "--image-size", 8, *BRIEF, *SMALL)
    said = capsys.readouterr().err
    assert "8x8 pixels; RGB" in said and "note:" not in said


# ---- one image left over -------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["DARTS_V2", "chain"])
def test_one_image_left_over_joins_the_batch_before(what, tmp_path):
    """On maps of one pixel BatchNorm cannot train on a single image."""
    folder = write_images(tmp_path / "images", (8, 8), number=9)
    (folder / "train" / "cat" / "8.png").unlink()  # 17 are left
    more = ("--batch-size", 8, "--epochs", 1, "--threads", 1, "--device", "cpu")
    run = tmp_path / "r"
    if what == "chain":
        recipe = ("--recipe", "proxyless-imagenet-eval", "--image-size", 8, "--workers", 0)
        ok("train", "proxyless_gpu", *recipe, "--data", folder, "--out", run, *more)
    else:
        small = ("--recipe", "digits-eval", "--channels", 2, "--cells", 3, "--image-size", 4)
        ok("train", what, *small, "--data", folder, "--out", run, *more)
    assert runs.Run(run).status()["status"] == "finished"


def test_one_image_left_over_on_each_of_two_ranks(tmp_path):
    folder = write_images(tmp_path / "images", (4, 4), number=10)
    (folder / "train" / "cat" / "9.png").unlink()  # 19 are left
    run = tmp_path / "r"
    small = ("--recipe", "digits-eval", "--channels", "2", "--cells", "3", "--batch-size", "8")
    more = ("--epochs", "1", "--threads", "1", "--device", "cpu", "--out", str(run))
    gradnas_as_ranks("train", "DARTS_V2", "--data", folder, *small, *more)
    assert runs.Run(run).status()["status"] == "finished"


def test_batches_of_one_image_are_refused_where_they_cannot_be(fails, tmp_path):
    folder = write_images(tmp_path / "images", (8, 8), number=4)
    run = tmp_path / "r"
    recipe = ("--recipe", "proxyless-imagenet-eval", "--image-size", 8, "--workers", 0)
    command = ("train", "proxyless_gpu", *recipe, "--data", folder, "--out", run)
    assert "raise --batch-size" in fails(*command, "--batch-size", 1, "--epochs", 1)
    assert not run.exists()


# ---- genotypes as they are found -----------------------------------------------------------------


def test_a_genotype_pasted_from_a_log_is_drawn_and_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = Genotype.named("DARTS_V2").to_text()
    ok("draw", text, "-o", "a.svg")
    ok("draw", "DARTS_V2", "-o", "b.svg")
    (tmp_path / "log.txt").write_text(f"07/08 12:00 PM epoch 3\n07/08 12:00 PM genotype = {text}\n")
    ok("draw", "log.txt", "-o", "c.svg")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "c.svg").read_bytes()
    ok("train", f"INFO genotype = {text},", "--recipe", "digits-eval", *BRIEF, *SMALL)
    folder = tmp_path / "runs" / "genotype-digits-eval-1"
    assert Genotype.load(folder / runs.GENOTYPE) == Genotype.named("DARTS_V2")


def test_a_genotype_is_picked_from_a_file_that_never_runs(fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = Genotype.named("DARTS_V2").to_text()
    (tmp_path / "genotypes.py").write_text(
        "from collections import namedtuple\n"
        "open('PWNED', 'w')\n"
        "Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')\n"
        f"A = {Genotype.named('DARTS_V1').to_text()}\nB = {text}\nC = B\n"
    )
    for name in ("B", "C"):
        ok("train", f"genotypes.py:{name}", "--recipe", "digits-eval", *BRIEF, *SMALL)
        found = Genotype.load(f"runs/{name}-digits-eval-1/{runs.GENOTYPE}")
        assert found == Genotype.named("DARTS_V2")
    assert "A, B, C" in fails("draw", "genotypes.py:D", "-o", "x.svg")
    assert "FILE:NAME" in fails("draw", "genotypes.py", "-o", "x.svg")
    assert not (tmp_path / "PWNED").exists()
