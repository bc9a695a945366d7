"""The command line on text: from a corpus to text that was written, and every kind of bad input."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gradnas import Genotype, runs
from gradnas.cli import main
from gradnas.config import read_object

WORDS = "the cat sat on the mat\nthe dog sat on the log\n"
TINY = ("--epochs", "2", "--hidden", "8", "--batch-size", "4", "--device", "cpu")


def ok(*arguments):
    assert main([str(a) for a in arguments]) == 0


@pytest.fixture
def fails(capsys):
    """Run a command that must fail with exit code 2 and one sentence, and return the sentence."""

    def run(*arguments):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        said = capsys.readouterr().err.strip().splitlines()
        # What was read is said before what a run comes to.
        errors = "\n".join(line for line in said if not line.startswith("data: "))
        assert (
            errors.startswith("gradnas: ")
            and "Traceback" not in errors
            and len(errors.splitlines()) == 1
        )
        return errors

    return run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A searched and trained run folder on one text file."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "corpus.txt").write_text(WORDS * 60)
    ok(
        "search",
        "text",
        "--data",
        folder / "corpus.txt",
        "--out",
        folder / "run",
        "--nodes",
        "2",
        *TINY,
    )
    ok("train", folder / "run", "--recipe", "text-eval", *TINY)
    return folder / "run"


def test_from_a_text_file_to_generated_text(trained, capsys):
    assert {p.name for p in trained.iterdir()} >= {
        runs.GENOTYPE,
        runs.PICTURE,
        runs.ALPHAS,
        runs.METRICS,
    }
    config = read_object(trained / "train" / runs.CONFIG)
    assert config["data"]["source"].endswith("corpus.txt") and config["space"]["nodes"] == 2
    capsys.readouterr()
    ok("evaluate", trained)
    results = read_object(trained / "train" / runs.RESULTS)
    assert f"test perplexity {results['test_perplexity']:.2f}" in capsys.readouterr().out
    ok("generate", trained, "--prompt", "the cat", "--tokens", "20")
    written = capsys.readouterr().out
    assert written.startswith("the cat ") and set(written.split()) <= set(WORDS.split())
    ok("generate", trained, "--prompt", "the cat", "--tokens", "20")
    assert capsys.readouterr().out == written


@pytest.mark.slow
def test_draw_and_report(trained, tmp_path, capsys):
    ok("draw", trained, "-o", tmp_path / "cell.svg")
    assert (tmp_path / "cell.svg").read_text().startswith("<?xml")
    ok("report", trained)
    page = (trained / runs.REPORT).read_text()
    assert (
        "perplexity" in page
        and "<script" not in page
        and "Normal cell" not in page
        and "accuracy" not in page
    )
    ok("report", trained / "train")
    ok("draw", "ENAS", "-o", tmp_path / "enas.png")


@pytest.mark.slow
def test_exports_hand_on_the_hidden_state(trained, tmp_path):
    """Token by token, a torch program and ONNX give the probabilities of the network on the whole
    text."""
    from gradnas.programs.trained import trained_run
    from gradnas.tasks.text import TEXT
    from gradnas.tasks.text.reading import read_vocabulary

    onnxruntime = pytest.importorskip("onnxruntime")
    run, config = trained_run(trained)
    network, vocabulary = TEXT.load_trained(run, config), read_vocabulary(run)
    tokens = torch.randint(len(vocabulary), (6, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, last = network(tokens, None)
    for name in ("model.pt2", "model.onnx"):
        ok("export", trained, "-o", tmp_path / name)
    program = torch.export.load(tmp_path / "model.pt2").module()
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    about = json.loads(session.get_modelmeta().custom_metadata_map["gradnas"])
    assert about["vocabulary"]["tokens"] == list(vocabulary.tokens)
    assert Genotype.parse(about["genotype"]) == Genotype.load(trained / runs.GENOTYPE)
    hidden, state = torch.zeros(3, 8), np.zeros((3, 8), np.float32)
    for t in range(6):
        log_prob, hidden = program(tokens[t : t + 1], hidden)
        found, state = session.run(None, {"tokens": tokens[t : t + 1].numpy(), "hidden": state})
        assert (log_prob[0] - expected[t]).abs().max() < 1e-5
        assert np.abs(found[0] - expected[t].numpy()).max() < 1e-4
    assert (hidden - last).abs().max() < 1e-5 and np.abs(state - last.numpy()).max() < 1e-4


def test_bad_corpora(fails, tmp_path):
    """An empty file, one that is not UTF-8, one that is too short, a missing split, one that is not
    there."""
    out = ("--out", tmp_path / "r")
    (tmp_path / "empty.txt").write_text("  \n")
    assert "empty.txt is empty" in fails("search", "text", "--data", tmp_path / "empty.txt", *out)
    (tmp_path / "latin.txt").write_bytes(b"good line\nna\xefve\n")
    error = fails("search", "text", "--data", tmp_path / "latin.txt", *out)
    assert "not UTF-8" in error and "byte 0xef at position 12 (line 2)" in error
    (tmp_path / "short.txt").write_text("a few words\n" * 30)
    error = fails("search", "text", "--data", tmp_path / "short.txt", *out)
    assert "split has" in error and "need at least 64" in error  # 32 texts of an input and a target
    (tmp_path / "folder").mkdir()
    for name in ("train", "valid"):
        (tmp_path / "folder" / f"{name}.txt").write_text(WORDS * 40)
    assert "lacks test.txt" in fails("search", "text", "--data", tmp_path / "folder", *out)
    assert "there is no corpus 'nowhere'" in fails("search", "text", "--data", "nowhere", *out)
    assert "there is no corpus 'ptb'" in fails("search", "darts-ptb", *out)
    assert not (tmp_path / "r" / runs.CONFIG).exists()


def test_bad_options(fails, trained, tmp_path):
    path = tmp_path / "g.json"
    Genotype.recurrent_cell([("tahn", 0)]).save(path)
    error = fails("train", path, "--recipe", "text-eval", "--out", tmp_path / "r")
    assert "unknown activation 'tahn' in the cell (did you mean 'tanh'?)" in error
    config = read_object(trained / runs.CONFIG)
    config["space"]["activations"][1] = "rleu"
    (tmp_path / "c.json").write_text(json.dumps(config))
    assert "unknown activation 'rleu' (did you mean 'relu'?)" in fails(
        "search", tmp_path / "c.json"
    )
    error = fails("generate", trained, "--prompt", "the catt sat on zebras")
    assert "unknown words 'catt' (did you mean 'cat'?), 'zebras'" in error
    assert "tokens must be at least 1" in fails("generate", trained, "--tokens", "0")
    assert "--channels is no setting of RecurrentCell" in fails("search", "text", "--channels", "4")
    assert "--level is no setting of DataConfig" in fails("search", "digits", "--level", "char")
    assert "--precision is no setting of TextSearchConfig" in fails(
        "search", "text", "--precision", "bf16"
    )
    assert "an architecture for images" in fails("train", "DARTS_V2", "--recipe", "text-eval")
    assert "cannot be written as source" in fails("export", trained, "-o", tmp_path / "m.py")
    assert "unknown word" in fails("evaluate", trained, "--data", "pydoc")
    assert "--estimate is for searches on images" in fails("search", "text", "--estimate")
