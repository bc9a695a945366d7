"""Language models of texts that have no lines, words that they do not know, and what is said."""

from __future__ import annotations

import pytest
import torch

from gradnas import Genotype, runs
from gradnas.cli import main
from gradnas.config import read_object
from gradnas.data import Vocabulary
from gradnas.tasks.text.generation import generate

CELL = Genotype.recurrent_cell([("tanh", 0), ("relu", 1)]).to_text()
TINY = ("--epochs", "1", "--hidden", "8", "--batch-size", "4", "--device", "cpu")


def ok(capsys, *arguments):
    capsys.readouterr()
    assert main([str(a) for a in arguments]) == 0
    return capsys.readouterr()


def train(folder, text, *options):
    path = folder / "text.txt"
    path.write_text(text, encoding="utf-8")
    recipe = ("--recipe", "text-eval", "--data", path, "--out", folder / "run")
    arguments = ("train", CELL, *recipe, *TINY, *options)
    assert main([str(a) for a in arguments]) == 0
    return folder / "run"


@pytest.fixture(scope="module")
def characters(tmp_path_factory):
    """A model of characters in which there is no line end."""
    return train(tmp_path_factory.mktemp("char"), "abcb" * 300, "--level", "char")


@pytest.fixture(scope="module")
def rare(tmp_path_factory):
    """A model of words of which the rare ones were replaced."""
    text = "".join(f"the cat saw name{k}\n" for k in range(150))
    return train(tmp_path_factory.mktemp("rare"), text, "--min-count", "2")


# ---- generating ----------------------------------------------------------------------------------


def test_characters_without_lines_begin_with_the_most_frequent(characters, capsys):
    written = ok(capsys, "generate", characters, "--tokens", "9").out
    assert len(written) == 10 and set(written) <= set("abc\n")
    vocabulary = read_object(characters / "vocabulary.json")
    assert vocabulary["tokens"] == ["a", "b", "c"] and max(vocabulary["counts"]) == 540
    cold = ("--tokens", "12", "--temperature", "0")
    after_b = ok(capsys, "generate", characters, "--prompt", "b", *cold).out
    assert after_b == "b" + ok(capsys, "generate", characters, *cold).out


def test_a_prompt_of_spaces_is_an_empty_one_where_tokens_are_words(rare, characters, capsys):
    assert ok(capsys, "generate", rare, "--prompt", " ").out == ok(capsys, "generate", rare).out
    capsys.readouterr()
    assert main(["generate", str(characters), "--prompt", " "]) == 2
    assert "unknown character ' '" in capsys.readouterr().err


@pytest.mark.parametrize("temperature", ["1e-310", "5e-324", "1e-30", "1e-3"])
def test_a_temperature_far_below_one_takes_the_most_probable(rare, capsys, temperature):
    coldest = ok(capsys, "generate", rare, "--temperature", "0").out
    assert ok(capsys, "generate", rare, "--temperature", temperature).out == coldest


class Fixed(torch.nn.Module):
    """A model whose probabilities never change."""

    def __init__(self, *log_prob):
        super().__init__()
        self.decoder_bias = torch.tensor(log_prob)

    def forward(self, tokens_TB, hidden_BH):
        T, B = tokens_TB.shape
        return self.decoder_bias.expand(T, B, -1), hidden_BH


def test_temperatures_are_those_of_the_definition():
    """Ties are drawn from, a large temperature evens all out, the sign for unknown words never
    comes."""
    vocabulary = Vocabulary(("a", "b", "c", "<unk>", "<eos>"))
    tied = Fixed(-1.0, -1.0, -1.001, 0.0, -90.0)
    words = generate(tied, vocabulary, tokens=200, temperature=1e-310).split()
    assert set(words) == {"a", "b"} and 70 < words.count("a") < 130
    even = generate(tied, vocabulary, "a", tokens=400, temperature=1e300)
    assert 60 < even.count("\n") < 140 and "<unk>" not in even
    for temperature in (float("inf"), float("nan"), -0.1):
        with pytest.raises(ValueError, match="temperature must be at least 0 and finite"):
            generate(tied, vocabulary, temperature=temperature)


# ---- unknown words -------------------------------------------------------------------------------


def test_the_share_of_unknown_words_stands_beside_perplexities(rare, capsys):
    results = read_object(rare / runs.RESULTS)
    assert results["data"] == {
        "name": str((rare.parent / "text.txt").resolve()),
        "level": "word",
        "vocabulary": 5,
        "min_count": 2,
    }
    assert 0.15 < results["test_unknown"] < 0.25 and 0.15 < results["valid_unknown"] < 0.25
    share = f"({100 * results['test_unknown']:.2g}% <unk>)"
    assert share in ok(capsys, "evaluate", rare).out
    ok(capsys, "report", rare)
    page = (rare / runs.REPORT).read_text(encoding="utf-8")
    assert page.count(share.replace("<", "&lt;").replace(">", "&gt;")) == 2
    assert runs.Run(rare).records()[-1]["valid_unknown"] == results["valid_unknown"]


def test_unknown_words_of_a_prompt_and_of_a_text_are_counted(rare, characters, tmp_path, capsys):
    said = ok(capsys, "generate", rare, "--prompt", "the dog saw you", "--tokens", "1")
    assert said.out.startswith("the <unk> saw <unk> ")
    note = "note: 2 of the 4 words of the prompt (50%) are unknown to the model and read as <unk>"
    assert said.err == f"{note}: 'dog', 'you'\n"
    other = tmp_path / "other.txt"
    other.write_text("the cat saw name1 dogs\n" * 100)  # the last 5% are read
    lines = ok(capsys, "evaluate", rare, "--data", other).out.splitlines()
    assert len(lines) == 4 and "% <unk>)" in lines[0] and lines[2].startswith("next: ")
    assert "10 of the 30 words of the text (33%) are unknown to the model" in lines[1]
    assert main(["evaluate", str(characters), "--data", str(other)]) == 2
    assert "none that stands for unknown ones" in capsys.readouterr().err


def test_a_search_says_the_share_too(rare, tmp_path, capsys):
    data = ("--data", rare.parent / "text.txt", "--out", tmp_path / "run", "--nodes", "2")
    more = ("--min-count", "2", "--warmup-epochs", "0")
    said = ok(capsys, "search", "text", *data, *TINY, *more).out
    results = read_object(tmp_path / "run" / runs.RESULTS)
    share = f"{100 * results['valid_unknown']:.2g}% <unk>"
    reached = results["valid_perplexity"]
    assert f"perplexity of the mixture on the validation text: {reached:.2f} ({share})" in said
