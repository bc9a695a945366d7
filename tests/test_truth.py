"""The truth of a space: its file, what is looked up, the best of random architectures."""

from __future__ import annotations

import itertools
import json
import os
import re
import statistics
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import gradnas
from gradnas import DenseCell, MBConvChain, NasBench201, Truth, runs
from gradnas.cli.main import main
from gradnas.config import to_json
from gradnas.programs import study_truth, truths
from gradnas.study.outcome import Arm, Candidate
from gradnas.study.statistics import Sample
from tests.cases import SHARED_DATA

SPACE = NasBench201(
    channels=2, cells=1, nodes=2, operations=("none", "skip_connect", "nor_conv_1x1")
)
TEXTS = ["|none~0|", "|skip_connect~0|", "|nor_conv_1x1~0|"]


def truth(**columns) -> Truth:
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    return Truth(TEXTS, arrays, next(iter(arrays)))


def write(path, **columns):
    np.savez(path, **columns)
    return path


def test_a_file_of_numpy(tmp_path):
    path = write(
        tmp_path / "t.npz",
        arch=np.array(TEXTS),
        test_200=np.array([10.0, 54.3, 93.0], dtype=np.float32),
        valid_12=np.array([10.0, 34.0, 80.0]),
        weights=np.array([1, 2, 3]),
    )
    read = Truth.load(path)
    assert (read.final, read.short, len(read), read.best) == ("test_200", "valid_12", 3, 93.0)
    cell = DenseCell.parse(TEXTS[1])
    assert read.accuracy(cell) == read.accuracy(TEXTS[1]) == pytest.approx(54.3)
    assert read.regret(54.3) == pytest.approx(38.7)
    assert read.percentile(54.4) == pytest.approx(200 / 3)
    assert read.percentile(read.best) == 100.0
    assert Truth.load(path, final="weights").best == 3.0


def test_a_table_of_text(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "number,cell,test_accuracy,short\n0,|none~0|,0.1,0.1\n1,|skip_connect~0|,0.5,0.4\n"
    )
    read = Truth.load(path)
    # Shares are read as percent; `number` is a column like others.
    assert (read.final, read.short, read.best) == ("test_accuracy", "short", 50.0)
    assert read.accuracy("|none~0|") == pytest.approx(10.0)


def test_codes_of_digits_are_texts(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("chain,accuracy\n00000000,80\n00000012,91\n")
    space = MBConvChain.named("nas-bench-macro")
    read = Truth.load(path)
    assert list(read.texts) == ["00000000", "00000012"]
    chain = space.decision("00000012")
    assert read.accuracy(chain, space) == 91.0
    with pytest.raises(ValueError, match="no row for"):
        read.accuracy(space.decision("11111111"), space)
    with pytest.raises(ValueError, match="no row for"):
        read.accuracy(chain)  # its text is another, and no space says what a code means


def csv(path, names, *columns):
    rows = [",".join(str(entry) for entry in row) for row in zip(*columns, strict=True)]
    path.write_text("\n".join([names, *rows]) + "\n")
    return path


@pytest.mark.parametrize(
    ("names", "final"),
    [
        ("id,params,cell,cifar100,note", "cifar100"),
        ("latency_ms,flops,arch,mine,note", "mine"),
        ("number,valid_12,architecture,test_200,note", "test_200"),
        ("seed,gpu,cell,top1,note", "top1"),
        ("cifar10-valid,cifar10-valid-std,cell,cifar10,note", "cifar10"),
    ],
)
def test_costs_and_numbers_of_rows_are_no_accuracies(names, final, tmp_path):
    path = csv(tmp_path / "t.csv", names, [0, 1, 2], [7, 5, 6], TEXTS, [10, 54, 93], ["a", "", "c"])
    read = Truth.load(path)
    assert (read.final, list(read.texts), read.best) == (final, TEXTS, 93.0)
    npz = write(
        tmp_path / "t.npz",
        **dict(zip(names.split(",")[:4], ([0, 1, 2], [7, 5, 6], TEXTS, [10, 54, 93]), strict=True)),
    )
    assert Truth.load(npz).final == final


def test_a_column_without_any_number_is_passed_over(tmp_path, recwarn):
    path = csv(tmp_path / "t.csv", "latency,cell,mine", ["nan"] * 3, TEXTS, [10, 54, 93])
    empty = csv(tmp_path / "e.csv", "other,cell,mine", ["nan"] * 3, TEXTS, [10, 54, 93])
    assert Truth.load(path).final == Truth.load(empty).final == "mine"
    assert not recwarn.list


@pytest.mark.parametrize(
    ("names", "columns", "words"),
    [
        ("cell,pixel3,edgegpu", ([3, 4, 5], [6, 7, 8]), "which of pixel3, edgegpu is the accuracy"),
        ("cell,params", ([3, 4, 5],), "there is none among cell, params"),
        ("cell,mine", ([300, 4, 5],), "there is none among cell, mine"),
        ("cell,accuracy", ([90, 9000, 91],), "'accuracy' is 9000 in row 2"),
        ("cell,accuracy", ([-1, 90, 91],), "'accuracy' is -1 in row 1"),
        (
            "cell,accuracy,other",
            ([90, "", 91], [1, 2, 3]),
            r"'accuracy' of \|skip.* is no number: ''",
        ),
        ("cell,accuracy", (["90%", "91%", "92%"],), "is no number: '90%'"),
        ("cell,accuracy,short", ([90, 91, 92], [1, "", 3]), "'short' of .* is no number: ''"),
    ],
)
def test_what_is_no_accuracy_is_refused(names, columns, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        Truth.load(csv(tmp_path / "t.csv", names, TEXTS, *columns))


def test_codes_beside_other_texts_are_the_architectures(tmp_path):
    path = csv(
        tmp_path / "t.csv", "dataset,chain,acc", ["a", "a"], ["00000000", "00000012"], [80, 91]
    )
    assert list(Truth.load(path).texts) == ["00000000", "00000012"]


def test_one_cell_written_in_two_ways_stands_twice():
    space = NasBench201(nodes=3)
    texts = ["|none~0|+|none~0|skip_connect~1|", "|none~0|+|skip_connect~1|none~0|"]
    known = Truth(texts, {"accuracy": np.array([50.0, 60.0])}, "accuracy")
    with pytest.raises(ValueError, match=r"none~0\|skip.* are one architecture"):
        known.of(space)


def test_of_a_space_with_fewer_operations_only_its_cells_count():
    known = truth(accuracy=[10.0, 54.0, 93.0])
    fewer = NasBench201(nodes=2, operations=("none", "skip_connect"))
    part = truths.truth_within(known, fewer)
    assert (len(part), part.best, part.percentile(54.0)) == (2, 54.0, 100.0)
    assert truths.truth_within(known, SPACE) is known
    more = NasBench201(nodes=2, operations=(*SPACE.names, "avg_pool_3x3"))
    with pytest.raises(ValueError, match=r"has 3 architectures .* not all: '\|avg_pool_3x3~0\|'"):
        truths.truth_within(known, more)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"accuracy": [1.0, 2.0, 3.0]}, "one column of texts, the architectures, not 0"),
        ({"a": TEXTS, "b": TEXTS, "c": [1.0, 2.0, 3.0]}, "not 2"),
        ({"a": TEXTS}, "a column of numbers"),
        ({"a": TEXTS, "accuracy": [1.0, 2.0]}, r"has the shape \(2,\)"),
        ({"a": TEXTS, "accuracy": [1.0, np.nan, 3.0]}, "is no finite number"),
        ({"a": TEXTS[0], "accuracy": [1.0]}, r"'a' has the shape \(\)"),
        ({"a": [TEXTS], "accuracy": [1.0]}, r"'a' has the shape \(1, 3\)"),
        ({"a": [TEXTS[0]] * 3, "accuracy": [1.0, 2.0, 3.0]}, "stands twice"),
        ({"a": [], "accuracy": []}, "one column of texts"),
    ],
)
def test_wrong_files_are_refused(columns, words, tmp_path):
    arrays = {name: np.array(values) for name, values in columns.items()}
    path = write(tmp_path / "t.npz", **arrays)
    with pytest.raises(ValueError, match=words) as error:
        Truth.load(path)
    assert str(path) in str(error.value)


def test_files_that_are_none(tmp_path):
    (tmp_path / "t.npz").write_text("no archive")
    (tmp_path / "t.csv").write_text("cell,accuracy\n|none~0|\n")
    with pytest.raises(ValueError, match=r"t\.npz is no \.npz file"):
        Truth.load(tmp_path / "t.npz")
    with pytest.raises(ValueError, match="line 2 has 1 entries"):
        Truth.load(tmp_path / "t.csv")
    with pytest.raises(ValueError, match=r"a truth is a \.npz or a \.csv file"):
        Truth.load(tmp_path / "t.txt")
    with pytest.raises(ValueError, match="cannot read"):
        Truth.load(tmp_path / "there_is_none.csv")
    with pytest.raises(ValueError, match="cannot be read"):
        np.savez(tmp_path / "object.npz", a=np.array([{}, None], dtype=object))
        Truth.load(tmp_path / "object.npz")


def test_damaged_files_are_refused_and_nothing_waits_for_a_pipe(tmp_path):
    path = tmp_path / "t.npz"
    np.savez_compressed(path, cell=np.array(TEXTS), accuracy=np.array([1.0, 2.0, 3.0]))
    whole = path.read_bytes()
    expected = Truth.load(path)
    refused = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        try:
            read = Truth.load(path)
        except ValueError as error:
            assert str(path) in str(error)
            refused += 1
        else:  # in a part of the archive that nothing depends on
            assert list(read.texts) == list(expected.texts) and read.best == 3.0
    assert refused > len(whole) / 6
    for name in ("p.npz", "p.csv"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match="named pipe"):
            Truth.load(tmp_path / name)
    (tmp_path / "q.csv").write_text('cell,accuracy\n"|none~0|,1\n')
    with pytest.raises(ValueError, match=r"q\.csv cannot be read as text"):
        Truth.load(tmp_path / "q.csv")


def test_the_best_of_random_ones_is_that_of_an_enumeration():
    final = [70.0, 92.0, 90.0]
    short = [30.0, 60.0, 80.0]  # prefers the second best
    known = Truth(TEXTS, {"f": np.array(final), "s": np.array(short)}, "f", "s")
    for n in (1, 2, 3):
        draws = list(itertools.product(range(3), repeat=n))
        by_short = [final[max(draw, key=lambda i: short[i])] for draw in draws]
        found = known.best_of_random(n)
        assert found.by == "s"
        assert found.mean == pytest.approx(statistics.mean(by_short))
        assert found.sd == pytest.approx(statistics.pstdev(by_short))
        by_truth = [max(final[i] for i in draw) for draw in draws]
        assert known.best_of_random(n, by="f").mean == pytest.approx(statistics.mean(by_truth))
    for wrong in (0, 2.5):
        with pytest.raises(ValueError, match="n of at least 1"):
            known.best_of_random(wrong)


def test_of_those_that_a_short_training_tells_equal_each_may_be_taken():
    final = np.array([70.0, 92.0, 10.0])
    for places in itertools.permutations(range(3)):
        rows = list(places)
        short = np.array([50.0, 50.0, 40.0])[rows]
        found = Truth(TEXTS, {"f": final[rows], "s": short}, "f", "s").best_of_random(2)
        # 8 of 9 pairs hold one of the first two, which are as good as each other.
        assert found.mean == pytest.approx(8 / 9 * 81.0 + 1 / 9 * 10.0)
        assert found.sd**2 == pytest.approx(
            4 / 9 * (70.0**2 + 92.0**2) + 1 / 9 * 10.0**2 - found.mean**2
        )


def test_a_number_that_is_missing_compares_with_nothing():
    known = truth(accuracy=[70.0, 92.0, 90.0], macs=[1.0, np.nan, 2.0])
    for look in (lambda: known.within("macs", 2.0), lambda: known.best_of_random(3, by="macs")):
        with pytest.raises(ValueError, match=r"'macs' of '\|skip_connect~0\|' is no number"):
            look()


@pytest.mark.parametrize("name", ["valid_loss", "validation_error", "valid_seconds"])
def test_a_loss_or_a_cost_is_no_short_training(name, tmp_path):
    """By the largest loss the worst would be the best of random ones."""
    path = csv(tmp_path / "t.csv", f"cell,{name},accuracy", TEXTS, [9, 0.3, 700], [10, 54, 93])
    assert Truth.load(path).short is None
    path = csv(
        tmp_path / "u.csv", f"cell,{name},valid_12,accuracy", TEXTS, [9, 1, 7], [8, 9, 9], [1, 2, 3]
    )
    assert Truth.load(path).short == "valid_12"


def test_a_part_within_a_limit():
    known = truth(accuracy=[70.0, 92.0, 90.0], macs=[1.0, 3.0, 2.0])
    part = known.within("macs", 2.0)
    assert (len(part), part.best) == (2, 90.0)
    assert part.percentile(90.0) == 100.0
    assert not part.has(TEXTS[1])
    with pytest.raises(ValueError, match=r"no column 'mac'.*'macs'"):
        known.within("mac", 2.0)
    with pytest.raises(ValueError, match=r"nothing with macs up to 0\.5"):
        known.within("macs", 0.5)


def test_the_figures_of_nas_bench_201():
    path = SHARED_DATA / "nas-bench-201" / "cifar10.npz"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    read = Truth.load(path)
    assert read.accuracy(DenseCell.of(["skip_connect"] * 6)) == pytest.approx(54.297, abs=1e-3)
    assert read.best == pytest.approx(94.373, abs=1e-3)
    for n, mean in ((1, 87.06), (10, 92.58), (50, 93.47), (100, 93.73), (200, 93.88)):
        assert read.best_of_random(n).mean == pytest.approx(mean, abs=0.006)


# ---- commands ------------------------------------------------------------------------------------


def call(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["gradnas", *arguments])
    return main()


SEARCH = (
    *("search", "nas-bench-201-small", "--data", "digits", "--channels", "2", "--epochs", "2"),
    *("--per-class", "5", "--image-size", "8", "--candidates", "0", "--batch-size", "25"),
    *("--terms", "none"),
)


def whole_truth(path):
    """Of all cells of the space, better with more convolutions."""
    space = NasBench201()
    names = space.names
    texts = []
    accuracy = []
    for operations in itertools.product(names, repeat=6):
        texts.append(DenseCell.of(operations).to_text())
        accuracy.append(10.0 + sum("conv" in name for name in operations))
    return write(path, arch=np.array(texts), accuracy=np.array(accuracy))


@pytest.mark.slow
def test_a_search_and_its_report_are_looked_up(tmp_path, monkeypatch, capsys):
    # So short that the search has cost some, however fast the machine.
    monkeypatch.setattr(truths, "training_seconds", lambda *_: 0.1)
    path = whole_truth(tmp_path / "truth.npz")
    out = tmp_path / "run"
    assert call(monkeypatch, *SEARCH, "--out", str(out), "--truth", str(path)) == 0
    said = capsys.readouterr().out
    cell = DenseCell.parse(json.loads((out / runs.RESULTS).read_text())["genotype"])
    expected = 10.0 + sum("conv" in name for name in cell.operations)
    assert re.search(rf"truth: {expected:.2f}%, {16.0 - expected:.2f} points below the best", said)
    assert "best of 10 random" in said and "(equal cost)" in said
    record = json.loads((out / runs.TRUTH).read_text())
    assert record["accuracy"] == expected and len(record["epochs"]) == 2
    lines = (out / runs.METRICS).read_text().splitlines()
    for line, accuracy in zip(lines, record["epochs"], strict=True):
        own = DenseCell.parse(json.loads(line)["genotype"])
        assert accuracy == 10.0 + sum("conv" in name for name in own.operations)

    # From the folder alone, with what was timed at the time.
    assert call(monkeypatch, "report", str(out), "--truth", str(path)) == 0
    assert json.loads((out / runs.TRUTH).read_text()) == record
    assert "By the truth" in (out / runs.REPORT).read_text()
    (out / runs.TRUTH).write_text("{}")
    assert call(monkeypatch, "report", str(out)) == 2
    assert "truth.json is damaged" in capsys.readouterr().err


def test_a_truth_of_another_space_is_refused_before_anything_is_done(tmp_path, monkeypatch, capsys):
    path = tmp_path / "t.csv"
    path.write_text("chain,accuracy\n00000000,80\n00000012,91\n")
    out = tmp_path / "run"
    assert call(monkeypatch, *SEARCH, "--out", str(out), "--truth", str(path)) == 2
    assert "is not the truth of this NasBench201" in capsys.readouterr().err
    names = "cell,cifar10,cifar100"
    csv(tmp_path / "two.csv", names, [DenseCell.of(["none"] * 6).to_text()], [90], [70])
    assert truths.truth_of(f"{tmp_path / 'two.csv'}:cifar100").best == 70.0
    assert call(monkeypatch, *SEARCH, "--truth", f"{tmp_path / 'two.csv'}:cifar") == 2
    assert "no column 'cifar'" in capsys.readouterr().err
    assert call(monkeypatch, *SEARCH, "--truth", f"{tmp_path / 'two.csv'}:cifar10") == 2
    assert "has 1 architectures of this space, but not all" in capsys.readouterr().err
    assert call(monkeypatch, *SEARCH, "--truth", str(tmp_path / "none.npz")) == 2
    assert "--truth: cannot read" in capsys.readouterr().err
    assert not out.exists()


def test_a_budget_leaves_the_architectures_within_it(tmp_path):
    space = MBConvChain.named("nas-bench-macro")
    texts = ["00000000", "00000012", "00000022"]
    columns = {"accuracy": [80.0, 91.0, 93.0], "multiply_adds": [1e6, 2e6, 3e6]}
    known = Truth(texts, {name: np.array(own) for name, own in columns.items()}, "accuracy")
    run = runs.Run(tmp_path)
    for budget, best, number in ((2e6, 91.0, 2), (1e3, 93.0, 3), (1.5e6, 93.0, 3), (None, 93.0, 3)):
        cost = None if budget is None else {"budget_macs": budget}
        runs.write_json(tmp_path / runs.CONFIG, {"cost": cost})
        space.decision("00000012").save(tmp_path / runs.GENOTYPE)
        record = truths.look_up(run, known, space)
        # With a found one outside the budget, or a budget for other images, all of them count.
        assert (record["best"], record["architectures"]) == (best, number)
        assert record["accuracy"] == 91.0


def test_it_is_public():
    assert gradnas.Truth is Truth


def test_a_study_is_looked_up(tmp_path, monkeypatch):
    cells = [DenseCell.parse(text) for text in TEXTS]
    found = tuple(Candidate(cell, f"search {i}", 0.1 * i) for i, cell in enumerate(cells[1:]))
    drawn = (Candidate(cells[0], "random 1", 0.1),)
    nothing = Sample(())
    outcome = SimpleNamespace(
        arms=(
            Arm("default", found, found[1], nothing, 1.0, 1.0),
            Arm("random", drawn, drawn[0], nothing, 1.0, 1.0),
            Arm("failed", (), None, nothing, 1.0, 1.0),
        )
    )
    monkeypatch.setattr(study_truth, "outcome_of", lambda study: outcome)
    settings = SimpleNamespace(methods={"default": {"space": to_json(SPACE)}})
    study = SimpleNamespace(path=tmp_path, settings=settings)
    known = truth(accuracy=[10.0, 54.0, 92.0])
    record = study_truth.look_up_study(study, known)
    assert [arm["accuracies"] for arm in record["arms"]] == [[54.0, 92.0], [10.0]]
    assert record["arms"][0]["chosen"] == 92.0
    assert record["arms"][0]["percentile"] == pytest.approx((200 / 3 + 100) / 2)
    assert [entry["n"] for entry in record["random"]] == [1]
    lines = study_truth.truth_lines(record)
    assert "default: 2 found 73.00 ± 26.87%" in lines[1] and "chosen 92.00%" in lines[1]
    assert "best of 1 random, exact: chosen 52.00 ± 33.51%" in lines[-1]
    page = study_truth.truth_table(study, outcome)
    assert page.count("<tr>") == 4 and "26.87%" in page
    (tmp_path / runs.TRUTH).write_text("{}")
    with pytest.raises(ValueError, match=r"truth\.json is damaged"):
        study_truth.truth_table(study, outcome)
    (tmp_path / runs.TRUTH).unlink()
    assert study_truth.truth_table(study, outcome) == ""
