"""`gradnas discover`: tables that are read and refused, the folder, the report, the examples."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas
import pytest

from gradnas import runs
from gradnas.cli import main
from gradnas.data.tabular import EXAMPLES, load_example, load_table
from gradnas.laws import estimator as equation_estimator
from gradnas.laws import text as law_text
from gradnas.laws.discover import (
    Law,
    Laws,
)
from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
)
from gradnas.laws.pictures import page_svg, typeset
from gradnas.laws.primitives import PRIMITIVES

FILES = {
    "config.json",
    "environment.json",
    "results.json",
    "law.tex",
    "law.py",
    "report.html",
    "status.json",
}


@pytest.fixture
def fails(capsys):
    """Run a command that must fail with exit code 2 and one sentence, and return the sentence."""

    def run(*arguments):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        errors = capsys.readouterr().err.strip()
        assert (
            errors.startswith("gradnas: ")
            and "Traceback" not in errors
            and len(errors.splitlines()) == 1
        )
        return errors

    return run


@pytest.fixture
def quick(monkeypatch):
    """Hand-made fronts in place of the search, as the tests here are about what surrounds it."""

    def laws(x_ND, y_N, settings, weights_N, loss, seed, show, names):
        d = x_ND.shape[1]
        long = Node("sum", tuple(Edge(i % d, "exp", -0.123456789 * (i + 1), 0.5) for i in range(9)))
        formulas = [
            Formula(d, (), (), float(np.mean(y_N))),
            Formula(d, (Node("sum", (Edge(0, "tanh"),)),), (1.5,), 0.1),
        ]
        formulas.append(Formula(d, (long,), (1.0,), 0.1))
        front = tuple(
            Law(f, k, 0.5 / k, 0.6 / k, -k % 4, k, loss, PRIMITIVES)
            for f, k in zip(formulas, (1, 4, 30), strict=True)
        )
        return Laws(front, 1, ("ln is undefined for x <= 0 <b>and left out</b>",), {"search": 9})

    monkeypatch.setattr(equation_estimator, "discover_laws", laws)


@pytest.fixture
def table(tmp_path):
    """A CSV file of 30 rows."""
    random = np.random.default_rng(0)
    frame = pandas.DataFrame(
        {"dose": random.uniform(0, 4, 30), "age <i>": random.uniform(1, 9, 30)}
    )
    frame["response"] = 2 * frame.dose / (0.5 + frame.dose)
    frame["who"] = ["ann", "bob", "eve"] * 10
    frame["weight"] = 1.0
    path = tmp_path / "trial.csv"
    frame.to_csv(path, index=False)
    return path


def discover(*arguments):
    assert main(["discover", *map(str, arguments)]) == 0


def test_an_example_from_front_to_report(tmp_path, capsys):
    """The whole way with the real search; its config.json repeats it."""
    out = tmp_path / "out"
    options = ("--effort", "0.05", "--nodes", "1", "--primitives", "linear", "linear_exp")
    discover("--example", "learning", "--noise", "0", *options, "--out", out)
    *lines, last, following, _ = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and any(line.startswith("performance = ") for line in lines)
    assert last.endswith(f" in {out}") and following == f"next: gradnas report {out}"
    assert {p.name for p in out.iterdir()} == FILES | {"timings.jsonl"}
    results = json.loads((out / "results.json").read_text())
    assert results["score"] > 0.999 and json.loads((out / "status.json").read_text()) == {
        "status": "finished"
    }
    space = {}
    exec(compile((out / "law.py").read_text(), "law.py", "exec"), space)
    trial = np.linspace(0, 15, 20)
    np.testing.assert_allclose(space["law"](trial), 1 - 0.8 * np.exp(-0.3 * trial), atol=1e-3)
    discover(out / "config.json", "--out", tmp_path / "again")
    for name in ("results.json", "law.py", "law.tex"):
        assert (tmp_path / "again" / name).read_bytes() == (out / name).read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(quick, name, tmp_path, capsys):
    one, example = load_example(name, rows=50)
    again, _ = load_example(name, rows=50)
    assert (one.x_ND == again.x_ND).all() and (one.y_N == again.y_N).all() and len(one.y_N) == 50
    exact = example.table(20, 0.0) if example.output == "real" else None
    assert exact is None or (exact.y_N == example.function(*exact.x_ND.T)).all()
    discover("--example", name, "--rows", "50", "--out", tmp_path / "out")
    *lines, _, _, _ = capsys.readouterr().out.splitlines()  # where it lies, and what is next
    assert max(map(len, lines)) <= 80 and any(example.target in line for line in lines)
    config = json.loads((tmp_path / "out" / runs.CONFIG).read_text())
    assert config["example"] == name and config["output"] == example.output


@pytest.mark.slow
def test_a_csv_file(quick, table, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    discover(table, "--target", "response", "--features", "dose", "age <i>", "--weights", "weight")
    printed = capsys.readouterr()
    assert "runs/discover-trial-1" in printed.out and "note: ln is undefined" in printed.out
    page = (tmp_path / "runs" / "discover-trial-1" / "report.html").read_text()
    # self-contained, without scripts, and what comes from files is escaped
    assert not re.search(r"<script|(src|href)=[\"'](?!#)|@import|url\((?!#)", page)
    assert "<b>and" not in page and "age <i>" not in page and "age &lt;i&gt;" in page
    for title in (
        "Data against law",
        "Pareto front",
        "Computation graph",
        "The law as LaTeX",
        "The law as Python",
    ):
        assert f"<h2>{title}</h2>" in page
    discover(
        table,
        "--target",
        "response",
        "--features",
        "dose",
        "--output",
        "real",
        "--max-complexity",
        "1",
    )
    assert "runs/discover-trial-2" in capsys.readouterr().out
    discover(
        table, "--target", "who", "--features", "dose", "--output", "class", "--out", "classes"
    )
    printed = capsys.readouterr().out
    assert "P(who=ann)" in printed and max(map(len, printed.splitlines())) <= 80
    assert len(json.loads((tmp_path / "classes" / "results.json").read_text())["fronts"]) == 3


@pytest.mark.parametrize("asked", [["one", "two"], ["one,two"]])
def test_several_targets_stand_side_by_side(asked, tmp_path, capsys, fails):
    x = np.linspace(1.0, 3.0, 20)
    frame = pandas.DataFrame({"x": x, "one": 2.0 * x, "two": 3.0 / x})
    frame.to_csv(tmp_path / "t.csv", index=False)
    out = tmp_path / "out"
    discover(tmp_path / "t.csv", "--target", *asked, "--effort", "0.1", "--out", out)
    printed = capsys.readouterr().out
    assert "one = 2*x\ntwo = 3/x\nR2 1;" in printed
    assert "log-odds" not in (out / "report.html").read_text() + printed
    fronts = json.loads((out / "results.json").read_text())["fronts"]
    assert [front["target"] for front in fronts] == ["one", "two"]
    module = {}
    exec((out / "law.py").read_text(), module)
    assert [float(value) for value in module["law"](2.0)] == [4.0, 1.5]


def test_classes_are_one_target(table, tmp_path, fails):
    said = fails("discover", table, "--target", "who", "age <i>", "--output", "class")
    assert "one target at a time" in said


def test_nothing_is_written_over(quick, table, tmp_path, fails):
    out = tmp_path / "notes"
    out.mkdir()
    (out / "law.py").write_text("mine")
    command = ("discover", table, "--target", "response", "--features", "dose")
    assert "not written over" in fails(*command, "--out", out)
    assert (out / "law.py").read_text() == "mine" and len(list(out.iterdir())) == 1
    discover(*command[1:], "--out", tmp_path / "new")
    assert "not written over" in fails(*command, "--out", tmp_path / "new")
    assert "gradnas discover" in fails("resume", tmp_path / "new") or "finished" in fails(
        "resume", tmp_path / "new"
    )


@pytest.mark.parametrize(
    "text, target, words",
    [
        ("a,b\n1,2\n3,x\n", "a", ["'b'", "row 2", "'x'", "text"]),
        ("a,b\n1,2\n3,\n", "a", ["'b'", "row 2", "NaN"]),
        ("a,b\n1,2\n3,inf\n", "a", ["'b'", "row 2", "inf"]),
        ("a,b\n1,2\n,3\n", "a", ["'a'", "row 2", "NaN"]),
        ("dose,response\n1,2\n", "respones", ["no column 'respones'", "did you mean 'response'"]),
        ("a,b,a\n1,2,3\n", "b", ["same name", "'a'"]),
        ("\u00e9,e\u0301,y\n1,2,3\n", "y", ["same name", "'\u00e9'"]),
        ("x\u200b,x,y\n1,2,3\n", "y", ["same name", "'x'"]),
        ("a,,b\n1,2,3\n", "b", ["column 2 has no name"]),
        ("1,2\n3,4\n", "a", ["first line", "must name the columns"]),
        ("a\n1\n", "a", ["no column besides 'a'"]),
        ("a,b\n", "a", ["no rows"]),
        ("", "a", ["is empty"]),
        ("a,b\n1,2\n", "a", ["1 sample"]),
        ("a,b\n" + "1,2\n3,2\n5,2\n" * 3, "b", ["the same value, 2"]),
        ("a;b\n1,5;2\n2,5;3\n", "b", ["'a'", "'1,5'", "text"]),
        ("a,b\n1,2\n3,4,5\n", "a", ["row 2 has 3 values", "names 2 columns"]),
        ("a,b\n1,1,7\n", "a", ["row 1 has 3 values", "names 2 columns", "in quotes"]),
        ("a,b\n0,5,0,25\n1,5,2,25\n", "a", ["row 1 has 4 values", "decimal commas"]),
        ("a,b\n1,2,\n3,4,\n", "a", ["row 1 has 3 values", "ends with a separator"]),
        ("a,b,c\n1,2,3\n\n1,2\n", "a", ["row 2 has 2 values", "names 3 columns"]),
        ('a,b\n1,"2\n3,4\n', "a", ["not a readable CSV"]),
        ('a,b\n"1,234",2\n', "b", ["'a'", "'1,234'", "text"]),
        ("a,b\n2024-01-01,2\n", "b", ["'a'", "'2024-01-01'", "text"]),
        ("a,b\n1,1e160\n2,2e160\n", "b", ["column 'b'", "around 2e+160"]),
        ("a,b\n1,1e-200\n2,2e-200\n", "b", ["column 'b'", "around 2e-200"]),
        ("a,b\n1e-310,1\n3e-310,2\n", "b", ["column 'a'", "around 3e-310"]),
        ("a,b\n0e-999,1\n3e-400,2\n", "b", ["column 'a'", "3e-400 in row 2", "is 0"]),
        (f"a,b\n1,2\n{'1' * 400},3\n", "b", ["column 'a'", "more than 300 digits"]),
        (f"{'x' * 200_000},b\n1,2\n", "b", ["not a readable CSV", "field limit"]),
    ],
)
def test_bad_tables_are_refused_with_a_sentence(text, target, words, tmp_path, fails):
    path = tmp_path / "t.csv"
    path.write_text(text)
    error = fails("discover", path, "--target", target, "--out", tmp_path / "out")
    for word in words:
        assert word in error
    assert not (tmp_path / "out").exists()


def test_bad_usage(tmp_path, table, fails):
    assert "cannot read" in fails("discover", tmp_path / "none.csv", "--target", "a")
    assert "CSV file or --example" in fails("discover")
    assert "CSV file or --example" in fails(
        "discover", table, "--example", "stevens", "--target", "a"
    )
    assert "--target COLUMN is missing" in fails("discover", table)
    assert "did you mean 'stevens'" in fails("discover", "--example", "steven")
    assert "linear_exq" in fails("discover", "--example", "stevens", "--primitives", "linear_exq")
    assert "effort must be above 0" in fails("discover", "--example", "stevens", "--effort", "0")
    assert "cannot be a feature" in fails(
        "discover", table, "--target", "dose", "--features", "dose"
    )
    (tmp_path / "bytes.csv").write_bytes(b"a,b\n\xff\xfe,1\n")
    assert "UTF-8" in fails("discover", tmp_path / "bytes.csv", "--target", "a")
    (tmp_path / "c.json").write_text('{"type": "DiscoverConfig", "exampel": "stevens"}')
    assert "did you mean 'example'" in fails("discover", tmp_path / "c.json")


def test_what_is_wrong_with_the_call_is_told_before_the_work(tmp_path, fails, monkeypatch):
    def never(*arguments):
        raise AssertionError("the discovery began")

    monkeypatch.setattr(equation_estimator, "discover_laws", never)
    example = ("discover", "--example", "stevens")
    assert "--max-complexity must be at least 1, not 0" in fails(*example, "--max-complexity", 0)
    assert "--noise must be a finite number, not inf" in fails(*example, "--noise", "inf")
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file" / "out", "/proc/nothing/out"):
        assert "cannot make the folder" in fails(*example, "--out", out)
    assert "File name too long" in fails(*example, "--out", tmp_path / ("x" * 300))
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    (tmp_path / "t.csv").write_text("x,y\n1,2\n3,4\n")
    table = ("discover", tmp_path / "t.csv", "--target", "y")
    assert "cannot hold the weights" in fails(*table, "--weights", "y")
    assert "has no column ''" in fails(*table, "--weights", "")
    both = ("--features", "x", "--weights", "x")
    assert "cannot be a feature" in fails(*table, *both)


# Of mathtext, LaTeX, HTML, Python, sympy and terminals, and what their fonts lack.
ODD_NAMES = (
    "a&b", 'say "hi"', "a'b", "`", "$x$", "a\\b", "\\frac{1}{2}", "{", "^", "~", "#", "%", "_",
    "<script>", "\u540d\u524d", "\x1b[31mred", "a\x07b", "E", "lambda", "zoo", "nan", "x+y", "=",
    "&amp;", "\u200b", "\u202e", "x" * 500, "a\nb", "law", "3",
)  # fmt: skip


@pytest.mark.slow
def test_formulas_are_set_whatever_their_names_are():
    for name in ODD_NAMES:
        written = law_text.latex_name(name)
        line = rf"{written} = 1.5 \tanh{{\left({written} \right)}}"
        figure = typeset([line], [f"{name} = 1.5*tanh({name})"])
        svg = page_svg(figure, "law", name, paths=True)
        assert svg.startswith("<svg") and "<script" not in svg, name
    # Those that LaTeX escapes are set as formulas all the same.
    for name in ("a&b", 'say "hi"', "`", "50%", "a_b_c"):
        line = law_text.latex_name(name)
        assert typeset([line], ["plain"]).texts[0].get_text() != "plain", name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a&b", 'say "hi"', "\x1b[31mred<script>"])
def test_the_report_survives_any_name_of_a_column(quick, name, tmp_path, capsys):
    numbers = np.random.default_rng(0).normal(size=(12, 2))
    pandas.DataFrame(numbers, columns=[name, "y"]).to_csv(tmp_path / "t.csv", index=False)
    discover(tmp_path / "t.csv", "--target", "y", "--out", tmp_path / "out")
    printed = capsys.readouterr()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", printed.out + printed.err)
    assert {p.name for p in (tmp_path / "out").iterdir()} >= FILES
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<script" not in page and page.count("<svg") == 3
    space = {}
    exec(compile((tmp_path / "out" / "law.py").read_text(), "law.py", "exec"), space)
    assert space["law"](np.zeros(3)).shape == (3,)


def test_the_whole_header_is_read_however_long_it_is(tmp_path):
    names = [f"gene_number_{i:06d}_expression" for i in range(3000)]
    path = tmp_path / "t.csv"
    row = ",".join("1" for _ in names)
    path.write_text(f"{','.join(names)},y\n{row},2\n")
    read = load_table(path, "y")
    assert read.names == tuple(names) and read.y_N.tolist() == [2.0]


def test_encodings_quoted_line_ends_and_empty_lines(tmp_path):
    path = tmp_path / "t.csv"
    text = '"dose\r\n (mg)",x;1,y\r\n\r\n1,2,3\r\n   \r\n4,5,6\r\n'
    for encoding in ("utf-8", "utf-8-sig", "utf-16"):
        path.write_bytes(text.encode(encoding))
        read = load_table(path, "y", features=["dose\r\n (mg)", "x;1"])
        assert read.names == ("dose (mg)", "x;1")
        assert read.x_ND.tolist() == [[1.0, 2.0], [4.0, 5.0]] and read.y_N.tolist() == [3.0, 6.0]


def test_accents_are_the_same_however_they_are_composed(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("e\u0301cart,y\n1,2\n3,4\n", encoding="utf-8")
    for name in ("\u00e9cart", "e\u0301cart"):
        read = load_table(path, "y", features=[name])
        assert read.names == ("\u00e9cart",)
        assert load_table(path, name).target == "\u00e9cart"


def test_names_in_python_are_different_ones_there():
    # Python takes a ligature for its letters, and no superscript in a name.
    names = ["\ufb01", "fi", "x\u00b2", "x2", "\u0301a", "a__b", "2nd", "\u00bd", "np"]
    own = law_text.python_names(names)
    space = {}
    exec(f"def law({', '.join(own)}):\n    return [{', '.join(own)}]", space)
    assert space["law"](*range(9)) == list(range(9))
    assert own[:2] == ["fi", "fi_"] and own[5] == "a__b"


def test_the_separator_is_the_one_that_parts_the_rows_too(tmp_path):
    # As a spreadsheet of Europe writes it: a comma in a name, and in the numbers.
    path = tmp_path / "t.csv"
    path.write_text("Time, s;Height\n1;2\n3;4\n")
    read = load_table(path, "Height")
    assert read.names == ("Time, s",) and read.x_ND.tolist() == [[1.0], [3.0]]
    path.write_text("Time, s;Height\n0,5;98,8\n1,0;95,1\n")
    with pytest.raises(ValueError, match="decimal commas"):
        load_table(path, "Height")


def test_a_line_of_units_is_asked_about(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("m,E\nkg,J\n1,2\n3,4\n")
    with pytest.raises(ValueError, match="is the line below the names one of units"):
        load_table(path, "E")
    path.write_text("m,E\n1,2\nn.d.,4\n")
    with pytest.raises(ValueError, match=r"leave it out$"):
        load_table(path, "E")


def test_what_stands_in_the_notes_is_no_warning_beside(tmp_path, quick, recwarn):
    path = tmp_path / "t.csv"
    path.write_text("a,c,y\n" + "".join(f"{i},7,{2 * i}\n" for i in range(12)))
    assert main(["discover", str(path), "--target", "y", "--out", str(tmp_path / "out")]) == 0
    assert not recwarn.list
    notes = json.loads((tmp_path / "out" / "results.json").read_text())["notes"]
    assert [note for note in notes if "every row" in note] == [
        "c: the same value in every row; it is not used"
    ]


def test_separators_marks_and_quotes(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes('\ufeff"a, b"\tc\n1\t2\n3\t4\n'.encode())
    read = load_table(path, "c")
    assert (
        read.names == ("a, b",)
        and read.x_ND.tolist() == [[1.0], [3.0]]
        and read.y_N.tolist() == [2.0, 4.0]
    )
