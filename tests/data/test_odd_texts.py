"""Texts as people have them: what is read is what an independent reader finds, or it is refused."""

from __future__ import annotations

import codecs
import io
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from cases import CORPUS_EXAMPLES
from hypothesis import given, settings
from hypothesis import strategies as st

from gradnas import Genotype
from gradnas.cli.options import RunOptions
from gradnas.data import TextConfig, Vocabulary, load_corpus
from gradnas.data import text as text_room
from gradnas.data.characters import lines
from gradnas.data.text import EOS, UNKNOWN, split_text
from gradnas.families import recipes

SPLITS = ("train", "valid", "test")


def in_tokens(corpus, split):
    return [corpus.vocabulary.tokens[k] for k in corpus.split(split).tolist()]


def refused(path, level="word"):
    with pytest.raises(ValueError) as caught:
        load_corpus(path, level)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def one_file(folder, data, name="one.txt"):
    path = folder / name
    path.write_bytes(data)
    return path


# ---- any text ------------------------------------------------------------------------------------

# Letters, all that Python takes for a line end somewhere, spaces of several kinds, marks.
CHARACTERS = (
    "ab\u00e9\U0001f600\n\n\r\r\t \x0b\x0c\x1c\x1d\x1e\x1f\x85\u2028\u2029\u00a0\u3000\ufeff"
)
# How a text is written: the codec, what stands before it, and how Python's own files read it.
ENCODINGS = {
    "plain": ("utf-8", b"", "utf-8"),
    "marked": ("utf-8", codecs.BOM_UTF8, "utf-8-sig"),
    "utf-16-le": ("utf-16-le", codecs.BOM_UTF16_LE, "utf-16"),
    "utf-16-be": ("utf-16-be", codecs.BOM_UTF16_BE, "utf-16"),
    "utf-32-le": ("utf-32-le", codecs.BOM_UTF32_LE, "utf-32"),
    "utf-32-be": ("utf-32-be", codecs.BOM_UTF32_BE, "utf-32"),
}
TEXTS = st.lists(
    st.one_of(
        st.text(CHARACTERS, max_size=30),
        st.sampled_from(("the ", "cat", "\r\n", "\n\n", "\x0c", "<unk> ", "word\u2028word")),
        st.integers(1, 3000).map(lambda count: "long " * count),
    ),
    max_size=8,
).map("".join)


def plain_reader(data: bytes, encoding: str, level: str) -> list[str]:
    """Python's own text files: universal newlines, and the rule of the published corpora."""
    file = io.TextIOWrapper(io.BytesIO(data), encoding=encoding, newline=None)
    if level == "char":
        return list(file.read())
    tokens = []
    for line in file:
        tokens += [*line.split(), "<eos>"]
    return tokens


@settings(max_examples=CORPUS_EXAMPLES, deadline=None)
@given(
    texts=st.tuples(TEXTS, TEXTS, TEXTS),
    encoding=st.sampled_from(tuple(ENCODINGS)),
    level=st.sampled_from(("word", "char")),
    min_count=st.sampled_from((None, 1, 2)),
    is_one=st.booleans(),
)
def test_what_is_read_is_what_a_plain_reader_finds(
    tmp_path_factory, texts, encoding, level, min_count, is_one
):
    folder = tmp_path_factory.mktemp("corpus")
    codec, mark, read_as = ENCODINGS[encoding]
    if encoding == "plain":
        texts = tuple(text.lstrip("\ufeff") for text in texts)  # else it is a mark
    if is_one:
        texts = texts[:1]
    expected = []
    for name, text in zip(SPLITS, texts, strict=False):
        data = mark + text.encode(codec)
        (folder / f"{name}.txt").write_bytes(data)
        expected.append(plain_reader(data, read_as, level))
    source = folder / "train.txt" if is_one else folder
    if not all(text.strip() for text in texts):
        assert "is empty: a corpus needs text" in refused(source, level)
        return
    corpus = load_corpus(source, level, min_count)
    if is_one:
        (whole,) = expected
        first, second = int(len(whole) * 0.9), int(len(whole) * 0.95)
        expected = [whole[:first], whole[first:second], whole[second:]]
    if min_count == 2:
        counts = Counter(token for tokens in expected for token in tokens)
        sign = {"word": "<unk>", "char": "\ufffd"}[level]
        for k, tokens in enumerate(expected):
            kept = [t if counts[t] > 1 or t == "<eos>" else sign for t in tokens]
            expected[k] = kept
    assert [in_tokens(corpus, split) for split in SPLITS] == expected
    assert set(corpus.vocabulary.tokens) == {t for tokens in expected for t in tokens}


# ---- line ends -----------------------------------------------------------------------------------


def test_lines_end_at_newlines_and_nowhere_else():
    text = "a b\u0085c d\u2028e f\x0cg h\n"
    assert split_text(text, "word") == ["a", "b", "c", "d", "e", "f", "g", "h", EOS]
    assert split_text("a\rb\r\nc\n\rd", "word") == ["a", EOS, "b", EOS, "c", EOS, EOS, "d", EOS]
    assert "".join(split_text("a\rb\r\nc\n\rd", "char")) == "a\nb\nc\n\nd"
    assert lines("") == [] and lines("\n") == [""] and lines("a\r") == ["a"]
    vocabulary = Vocabulary(("a", EOS))
    assert vocabulary.encode("a\r").tolist() == vocabulary.encode("a\n").tolist() == [0, 1]


def test_no_reader_of_texts_breaks_lines_as_str_does():
    for file in ("text.py", "characters.py", "chunks.py"):
        source = (Path(text_room.__file__).parent / file).read_text()
        assert ".splitlines(" not in source


def test_rows_of_the_hub_end_one_line_each():
    rows = ["a\n", "", "b\r\n", "c\n\n", "d"]
    assert text_room._joined(rows, "x") == "a\n\nb\nc\n\nd\n"
    with pytest.raises(ValueError, match="the train split holds no text in row 2, but None"):
        text_room._joined(["a", None], "the train split")


# ---- encodings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["word", "char"])
def test_a_byte_order_mark_tells_the_encoding(tmp_path, level):
    text = "na\u00efve caf\u00e9\r\nzwei \U0001f600 W\u00f6rter\n" * 20
    expected = load_corpus(one_file(tmp_path, text.encode()), level)
    for encoding in ("utf-16", "utf-32", "utf-8-sig"):
        corpus = load_corpus(one_file(tmp_path, text.encode(encoding)), level)
        assert corpus.vocabulary == expected.vocabulary
        assert corpus.train.tolist() == expected.train.tolist()


def test_what_is_no_text_is_refused_with_its_byte(tmp_path):
    without_mark = "plain words\nand more\n".encode("utf-16-le")
    error = refused(one_file(tmp_path, without_mark))
    assert "holds zero bytes, the first at position 1 (line 1)" in error
    assert "iconv -f utf-16le -t utf-8" in error
    error = refused(one_file(tmp_path, "plain words\n".encode("utf-16-be")))
    assert "position 0" in error and "iconv -f utf-16be" in error
    error = refused(one_file(tmp_path, b"one\rtwo\r\nthr\0ee\n"))
    assert "the first at position 12 (line 3); the file is damaged, or no text" in error
    odd = codecs.BOM_UTF16_LE + "a\nb".encode("utf-16-le") + b"\n"
    error = refused(one_file(tmp_path, odd))
    assert "is not UTF-16-LE text: byte 0x0a at position 8 (line 2)" in error
    alone = codecs.BOM_UTF16_BE + b"\0a\xd8\x00\0b"
    assert "byte 0xd8 at position 4 (line 1)" in refused(one_file(tmp_path, alone))
    assert "byte 0xe9 at position 3 (line 1)" in refused(one_file(tmp_path, b"caf\xe9\n"))


# ---- rare and unknown words ----------------------------------------------------------------------


def rare_text():
    return "".join(f"the cat saw name{k} and name{k}b\n" for k in range(60))


@pytest.mark.parametrize("recipe", ["text", "text-eval", "darts-ptb", "darts-ptb-eval"])
def test_no_recipe_replaces_words_of_ones_own_text(tmp_path, recipe):
    path = one_file(tmp_path, rare_text().encode())
    options = RunOptions(data=str(path))
    if recipe in recipes.SEARCHES:
        config = recipes.search_recipe(recipe)
    else:
        config = recipes.training_recipe(recipe, Genotype.named("DARTS_V2_recurrent"))
    config = replace(config, **options.replacements(config))
    corpus = config.load()
    assert UNKNOWN not in corpus.vocabulary.tokens
    assert len(corpus.vocabulary) == 5 + 120  # the cat saw and <eos>, and the names
    config = replace(config, **replace(options, min_count=2).replacements(config))
    assert len(config.load().vocabulary) == 6  # one <unk> for all names


def test_rare_words_of_pydoc_and_nothing_else():
    rare = TextConfig().load()
    assert rare.min_count == 3 and UNKNOWN in rare.vocabulary.tokens
    whole = TextConfig(min_count=1).load()
    assert len(whole.vocabulary) > len(rare.vocabulary) and UNKNOWN not in whole.vocabulary.tokens
    assert TextConfig(level="char").load().min_count == 1


def test_unknown_words_become_the_sign_for_them_where_there_is_one():
    vocabulary = Vocabulary(("the", UNKNOWN, "cat", EOS))
    assert vocabulary.encode("the dog and the cat").tolist() == [0, 1, 1, 0, 2]
    assert vocabulary.lacking(["the", "dog", "and", "the", "dog"]) == ["dog", "and", "dog"]
    characters = Vocabulary(("a", "\ufffd"), "char")
    assert characters.encode("abc").tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match=r"unknown word 'dog'.* none that stands for unknown ones"):
        Vocabulary(("the", EOS)).encode("the dog")


def test_words_of_a_validation_text_that_training_lacks_are_part_of_the_vocabulary(tmp_path):
    for name, text in (("train", "a b\n"), ("valid", "a new\n"), ("test", "b\n")):
        (tmp_path / f"{name}.txt").write_text(text)
    corpus = load_corpus(tmp_path)
    assert in_tokens(corpus, "valid") == ["a", "new", EOS]
    (tmp_path / "valid.txt").write_bytes(b"")
    assert refused(tmp_path) == f"{tmp_path / 'valid.txt'} is empty: a corpus needs text"
