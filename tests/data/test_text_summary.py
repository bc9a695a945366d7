"""What is said of a text that was read, what it is known again by, and its samples."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gradnas import Genotype, runs
from gradnas.cli import main
from gradnas.config import read_object
from gradnas.data import TextConfig, load_corpus
from gradnas.tasks.text import TEXT
from gradnas.tasks.text.sentences import percent
from gradnas.tasks.text.summary import visible

CELL = Genotype.recurrent_cell([("tanh", 0), ("relu", 1)]).to_text()
TINY = ("--epochs", "1", "--hidden", "8", "--batch-size", "4", "--device", "cpu")


def corpus_folder(folder, **texts):
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def lines(count, word="w"):
    return "".join(f"the cat saw {word}{k} today\n" for k in range(count))


def test_the_line_of_what_was_read(tmp_path):
    folder = corpus_folder(tmp_path / "c", train=lines(30), valid="the cat\n", test="the dog\n")
    summary = TEXT.read(load_corpus(folder))
    assert summary.line() == (
        f"{folder}: words: 180 train, 3 valid, 3 test; 36 different words; "
        "words not in train: 33% of test; no <unk>"
    )
    one = tmp_path / "one.txt"
    one.write_text(lines(100))
    summary = TEXT.read(load_corpus(one, "word", 2))
    assert summary.line() == (
        f"{one}: words: 540 train, 30 valid, 30 test; one text, cut into 90%, 5% and 5%; "
        "6 different words; <unk>: 17% of train, 17% of valid, 17% of test "
        "(words seen less than 2 times)"
    )
    value = summary.to_json()["facts"]["unknown"]["value"]
    assert value["min_count"] == 2 and abs(value["shares"]["train"] - 1 / 6) < 1e-12
    assert "no \ufffd" in TEXT.read(load_corpus(one, "char")).line()


@pytest.mark.slow
def test_it_is_said_before_runs_and_stands_in_results(tmp_path, capsys):
    path = tmp_path / "one.txt"
    path.write_text(lines(150))
    run = tmp_path / "run"
    data = ("--data", str(path), "--recipe", "text-eval", "--min-count", "2", "--out", str(run))
    assert main(["train", CELL, *data, *TINY]) == 0
    said = capsys.readouterr()
    line = TEXT.read(load_corpus(path, "word", 2)).line()
    assert f"data: {line}" in said.out + said.err
    assert read_object(run / runs.RESULTS)["read"]["line"] == line
    assert main(["evaluate", str(run)]) == 0
    said = capsys.readouterr()
    assert "<unk>: 17% of train" in said.out + said.err


def test_other_text_of_the_same_vocabulary_is_another_text(tmp_path):
    folder = corpus_folder(tmp_path / "c", train="a b\n" * 9, valid="a b\n", test="b a\n")
    before = TEXT.fingerprint(load_corpus(folder))
    assert before.differences(TEXT.fingerprint(load_corpus(folder))) == []
    corpus_folder(folder, train="b a\n" + "a b\n" * 8)
    assert before.differences(TEXT.fingerprint(load_corpus(folder))) != []
    corpus_folder(folder, train="a b\n" * 9, test="b a\n" * 2)
    (told,) = before.differences(TEXT.fingerprint(load_corpus(folder)))
    assert told == "the number of tokens of test was 3, and is 6"


def test_resume_refuses_other_text(tmp_path, capsys):
    path = tmp_path / "one.txt"
    path.write_text("the cat sat on a mat\n" * 80)
    run = tmp_path / "run"
    arguments = ("--data", str(path), "--recipe", "text-eval", "--out", str(run), *TINY)
    assert main(["train", CELL, *arguments, "--max-steps", "1"]) == 0
    runs.Run.open(run).set_status("interrupted")
    path.write_text("the cat sat on a mat\n" * 79 + "a mat sat on the cat\n")
    assert main(["resume", str(run)]) == 2
    assert "is not the data that" in capsys.readouterr().err
    path.write_text("the cat sat on a mat\r\n" * 80)  # the same text in another form
    assert main(["resume", str(run)]) == 0


# ---- data show -----------------------------------------------------------------------------------


def test_data_show_prints_tokens_as_they_reach_the_network(tmp_path, capsys):
    path = tmp_path / "one.txt"
    path.write_bytes("caf\u00e9 a\x1b[31m b\r\nc\u00a0d e\x0cf\n".encode() * 300)
    sheet = tmp_path / "s.txt"
    assert main(["data", "show", str(path), "-o", str(sheet)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and r"caf" + "\u00e9" + r" a\x1b[31m b <eos> c d e f <eos>" in out
    assert out.count("\nvalid") == 4 and "warning: 100% of test stands in train too" in out
    assert all(line in sheet.read_text(encoding="utf-8") for line in out.splitlines()[3:-1])
    assert main(["data", "show", str(path), "--level", "char", "-o", str(sheet)]) == 0
    assert r"caf" + "\u00e9" + r" a\x1b[31m b\nc\xa0d e\x0cf\n" in capsys.readouterr().out
    assert main(["data", "show", str(path), "-o", str(tmp_path / "s.png")]) == 2


def test_what_looks_wrong_in_a_text(tmp_path):
    letters = ""
    for k in range(9000):
        letters += chr(0x4E00 + k * k * 7919 % 19997) + ("\n" if k % 7 == 0 else "")
    path = tmp_path / "no_spaces.txt"
    path.write_text(letters, encoding="utf-8")
    suspicions = TEXT.suspicions(load_corpus(path))
    assert any("a text without spaces between words" in text for text in suspicions)
    numbers = iter(range(10**6))
    fine = "".join(f"{next(numbers) % 97} {next(numbers) ** 2 % 89}\n" for _ in range(4000))
    folder = corpus_folder(tmp_path / "c", train=fine, valid="x y z\n" * 20, test=fine[:900])
    (told,) = TEXT.suspicions(load_corpus(folder))
    assert told.startswith("100% of test stands in train too")


@pytest.mark.parametrize(
    ("token", "shown"),
    [("a", "a"), ("\n", r"\n"), ("\u00e9", "\u00e9"), ("\x1b[1m", r"\x1b[1m"), ("\\", r"\\")],
)
def test_tokens_are_shown_without_a_trace_in_the_terminal(token, shown):
    assert visible(token) == shown


def test_texts_are_recognised(tmp_path):
    (tmp_path / "a.txt").write_text("a\n")
    folder = corpus_folder(tmp_path / "c", train="a\n")
    assert TEXT.claims("pydoc") and TEXT.claims(str(tmp_path / "a.txt"))
    assert TEXT.claims(str(folder)) and not TEXT.claims(str(tmp_path))
    assert not TEXT.claims("digits") and not TEXT.claims("owner/name")
    assert replace(TextConfig(), source="x").min_count is None


def test_shares_in_words():
    shares = (0.00034, 0.0412, 0.0999, 0.1, 0.481, 0.9999, 1.0)
    words = ["0.034%", "4.1%", "10%", "10%", "48%", "100%", "100%"]
    assert [percent(share) for share in shares] == words
