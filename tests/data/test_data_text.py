"""Corpora, vocabularies and the streams that truncated back-propagation reads."""

from pathlib import Path

import pytest
import torch
from cases import SHARED_DATA
from hypothesis import given, settings
from hypothesis import strategies as st

from gradnas.data import ChunkLengths, TextConfig, TextStream, Vocabulary, hub, load_corpus
from gradnas.data.text import EOS, UNKNOWN, embedded_text, split_text
from gradnas.randomness import generator_for

WIKITEXT = SHARED_DATA / "wikitext-2"


def write_corpus(folder: Path, train="a b\nc a\n", valid="a c\n", test="b d\n") -> Path:
    for name, text in (("train", train), ("valid", valid), ("test", test)):
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def refused(source, *arguments) -> str:
    with pytest.raises(ValueError) as caught:
        load_corpus(source, *arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# ---- corpora -------------------------------------------------------------------------------------


def test_a_folder_of_three_files_by_the_rule_of_the_published_corpora(tmp_path):
    corpus = load_corpus(write_corpus(tmp_path))
    assert corpus.vocabulary.tokens == ("a", "b", EOS, "c", "d")  # of all three splits
    assert corpus.train.tolist() == [0, 1, 2, 3, 0, 2]
    assert corpus.valid.tolist() == [0, 3, 2]
    assert corpus.split("test").tolist() == [1, 4, 2]


def test_characters(tmp_path):
    corpus = load_corpus(write_corpus(tmp_path), "char")
    assert corpus.vocabulary.decode(corpus.train.tolist()) == "a b\nc a\n"


@pytest.mark.slow
def test_one_file_is_cut_in_three_without_loss(tmp_path):
    words = [f"w{k}" for k in range(199)]
    (tmp_path / "one.txt").write_text(" ".join(words) + "\n")
    corpus = load_corpus(tmp_path / "one.txt")
    assert [len(corpus.train), len(corpus.valid), len(corpus.test)] == [180, 10, 10]
    whole = torch.cat([corpus.train, corpus.valid, corpus.test])
    assert [corpus.vocabulary.tokens[k] for k in whole] == [*words, EOS]


def test_the_embedded_corpus_is_there_in_words_and_characters():
    words = TextConfig().load()
    assert len(words.train) > 80_000 and 1_000 < len(words.vocabulary) < 10_000
    assert UNKNOWN in words.vocabulary.tokens  # rare words
    characters = TextConfig(level="char").load()
    assert len(characters.train) > 350_000 and len(characters.vocabulary) < 300
    assert len(split_text(embedded_text("char"), "char")) == sum(
        len(part) for part in (characters.train, characters.valid, characters.test)
    )


def test_rare_words_become_unknown(tmp_path):
    corpus = load_corpus(write_corpus(tmp_path), "word", 2)
    assert set(corpus.vocabulary.tokens) == {"a", "b", "c", EOS, UNKNOWN}  # d appears once


def test_the_published_wikitext_files():
    if not WIKITEXT.is_dir():
        pytest.skip("../shared/data/wikitext-2 is not here")
    text = (WIKITEXT / "valid.txt").read_text(encoding="utf-8")
    tokens = split_text(text, "word")
    assert len(tokens) == 217_646  # the published size of the split, line ends counted
    assert tokens.count(EOS) == 3_760


class Rows(list):
    """Rows of a hub split: a list of texts under one column."""

    column_names = ("text",)

    def __getitem__(self, key):
        return list(self) if key == "text" else super().__getitem__(key)


@pytest.mark.slow
def test_a_set_of_the_hub(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*names):
        asked.append(names)
        return {"train": Rows(["a b\n", "c"]), "validation": Rows(["a"]), "test": Rows(["b"])}

    monkeypatch.setattr(hub, "reachable", lambda: True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = load_corpus("owner/text:raw")
    assert asked == [("owner/text", "raw")]
    assert [corpus.vocabulary.tokens[k] for k in corpus.train] == ["a", "b", EOS, "c", EOS]
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: {"train": Rows(["a"])})
    assert "lacks a valid split; it has train" in refused("owner/text")


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_what_is_wrong_with_a_corpus_is_said(tmp_path, monkeypatch):
    assert "there is no corpus 'nonsense': expected 'pydoc'" in refused("nonsense")
    write_corpus(tmp_path)
    (tmp_path / "valid.txt").write_text("  \n")
    assert refused(tmp_path) == f"{tmp_path / 'valid.txt'} is empty: a corpus needs text"
    (tmp_path / "valid.txt").write_bytes(b"fine\nun po'\n" + "pi\xf9".encode("latin1"))
    assert "is not UTF-8 text: byte 0xf9 at position 14 (line 3)" in refused(tmp_path)
    (tmp_path / "valid.txt").unlink()
    assert f"{tmp_path} lacks valid.txt" in refused(tmp_path)
    monkeypatch.setattr(hub, "reachable", lambda: False)
    monkeypatch.setattr(hub, "cached", lambda name: False)
    assert "use a folder with train.txt, valid.txt and test.txt" in refused("owner/text")
    with pytest.raises(ValueError, match="level must be 'word' or 'char', not 'byte'"):
        TextConfig(level="byte")
    with pytest.raises(ValueError, match="min_count must be at least 1"):
        TextConfig(min_count=0)


def test_a_byte_order_mark_is_no_text(tmp_path):
    write_corpus(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa b\n")
    assert load_corpus(tmp_path).vocabulary.tokens[0] == "a"
    (tmp_path / "train.txt").write_bytes(b"\xef\xbb\xbfa \xff\n")
    assert "byte 0xff at position 5 (line 1)" in refused(tmp_path)


def test_unknown_words_of_a_prompt_are_named():
    vocabulary = Vocabulary(("the", "lobster", "is", EOS))
    assert vocabulary.encode("the lobster").tolist() == [0, 1]
    assert vocabulary.encode("the\nlobster\n").tolist() == [0, 3, 1, 3]
    with pytest.raises(
        ValueError, match=r"unknown words 'lobsters' \(did you mean 'lobster'\?\), 'blue'"
    ):
        vocabulary.encode("the lobsters is blue")
    with pytest.raises(ValueError, match="unknown character 'z'"):
        Vocabulary(("a", "b"), "char").encode("az")


def test_a_vocabulary_comes_back_from_json():
    vocabulary = Vocabulary(("a", " "), "char")
    assert Vocabulary.from_json(vocabulary.to_json(), "v.json") == vocabulary
    with pytest.raises(ValueError, match=r"v\.json holds no vocabulary"):
        Vocabulary.from_json({"tokens": "ab"}, "v.json")
    with pytest.raises(
        ValueError, match=r"v\.json: a vocabulary is a non-empty list of different tokens"
    ):
        Vocabulary.from_json({"tokens": ["a", "a"]}, "v.json")


# ---- streams -------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    tokens=st.integers(2, 200),
    columns=st.integers(1, 8),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=60),
)
def test_every_column_is_read_in_order_again_and_again(tokens, columns, lengths):
    if tokens // columns < 2:
        with pytest.raises(
            ValueError,
            match=f"has {tokens} tokens, but {columns} streams .* at least {2 * columns} ",
        ):
            TextStream(torch.arange(tokens), columns)
        return
    stream = TextStream(torch.arange(tokens), columns)
    run = tokens // columns
    expected = 0  # the next row
    for length in lengths:
        inputs_TB, targets_TB, starts = stream.next(length)
        if expected == run - 1:
            expected = 0
        assert starts == (expected == 0)
        rows = torch.arange(expected, expected + len(inputs_TB))
        # Contiguous text in every column.
        assert torch.equal(inputs_TB, rows[:, None] + run * torch.arange(columns))
        assert torch.equal(targets_TB, inputs_TB + 1)
        expected += len(inputs_TB)
        assert len(inputs_TB) == length or stream.finished


def test_a_position_is_saved_and_belongs_to_its_text():
    stream = TextStream(torch.arange(40), 2)
    stream.next(7)
    other = TextStream(torch.arange(40), 2)
    other.load_state_dict(stream.state_dict())
    assert torch.equal(stream.next(5).inputs_TB, other.next(5).inputs_TB)
    stream.rewind()
    assert stream.next(1).starts
    with pytest.raises(ValueError, match="row 12 lies outside a text of 4 rows"):
        TextStream(torch.arange(10), 2).load_state_dict({"row": 12})
    with pytest.raises(ValueError, match="at least one row"):
        stream.next(0)


def test_chunk_lengths_follow_the_published_rule():
    search = ChunkLengths(base=35, short_probability=0.05)
    drawn = [search.length(generator_for(0, k)) for k in range(2000)]
    assert set(drawn) == {35, 17} and 0.03 < drawn.count(17) / 2000 < 0.07
    training = ChunkLengths(base=35, short_probability=0.05, deviation=5.0)
    drawn = [training.length(generator_for(1, k)) for k in range(2000)]
    assert min(drawn) >= 5 and max(drawn) <= 55 and len(set(drawn)) > 20
    assert 32 < sum(drawn) / 2000 < 36
    with pytest.raises(ValueError, match="chunk lengths need"):
        ChunkLengths(base=0)
