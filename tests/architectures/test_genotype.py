"""Genotypes: published cells, the three written forms, validation, and texts that want to be
executed."""

import dataclasses
import json
import os
import re
import stat
import string
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradnas.architectures.genotype import (
    CellGenotype,
    Genotype,
)

CONV = [("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 2), ("dil_conv_5x5", 0)]
RECURRENT = [("tanh", 0), ("relu", 1), ("relu", 0)]

names = st.one_of(
    st.sampled_from(["sep_conv_3x3", "skip_connect", "tanh"]),
    st.text(
        min_size=1, max_size=8
    ),  # also quotes, brackets, backslashes, line breaks, other scripts
)


@st.composite
def conv_cells(draw):
    num_nodes = draw(st.integers(1, 7))
    edges = [(draw(names), draw(st.integers(0, i + 1))) for i in range(num_nodes) for _ in range(2)]
    return edges, draw(st.lists(st.integers(2, num_nodes + 1), min_size=1, unique=True))


@st.composite
def genotypes(draw):
    if draw(st.booleans()):
        normal, normal_concat = draw(conv_cells())
        reduce, reduce_concat = draw(conv_cells())
        return Genotype.conv(normal, reduce, normal_concat, reduce_concat)
    edges = [(draw(names), draw(st.integers(0, i))) for i in range(draw(st.integers(1, 12)))]
    concat = draw(st.lists(st.integers(1, len(edges)), min_size=1, unique=True))
    return Genotype.recurrent_cell(edges, concat)


# -- values


def test_fields_read_as_in_the_original_named_tuples():
    genotype = Genotype.conv(CONV, CONV, reduce_concat=[3])
    assert genotype.kind == "conv"
    assert (genotype.normal, genotype.normal_concat) == (tuple(CONV), (2, 3))
    assert (genotype.reduce, genotype.reduce_concat) == (tuple(CONV), (3,))
    assert genotype.inputs("normal") == (tuple(CONV[:2]), tuple(CONV[2:]))
    cell = Genotype.recurrent_cell(RECURRENT)
    assert (cell.kind, cell.recurrent, cell.concat) == ("recurrent", tuple(RECURRENT), (1, 2, 3))
    assert cell.inputs("recurrent") == ((("tanh", 0),), (("relu", 1),), (("relu", 0),))
    with pytest.raises(
        AttributeError, match="a recurrent genotype has no normal cell, only 'recurrent'"
    ):
        _ = cell.normal_concat


def test_is_a_frozen_hashable_value():
    genotype = Genotype.conv(CONV, CONV)
    assert len({genotype, Genotype.conv(tuple(CONV), [list(edge) for edge in CONV])}) == 1
    # The order of the channels counts.
    assert genotype != Genotype.conv(CONV, CONV, normal_concat=[3, 2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        genotype.cells = ()


# `gradnas/__init__.py` re-exports everything, so an empty package over the same folder takes its
# place
IMPORTED = """
import importlib.util, sys, types
package = types.ModuleType("gradnas")
package.__path__ = importlib.util.find_spec("gradnas").submodule_search_locations
sys.modules["gradnas"] = package
before = set(sys.modules)
import gradnas.architectures.genotype
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
"""


def test_needs_the_standard_library_only():
    done = subprocess.run([sys.executable, "-c", IMPORTED], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()) == (0, ["gradnas"]), done.stderr


# -- published genotypes


def test_published_names():
    assert set(Genotype.names()) == {
        "NASNet",
        "AmoebaNet",
        "DARTS_V1",
        "DARTS_V2",
        "DARTS",
        "PC_DARTS_cifar",
        "PC_DARTS_image",
        "DARTS_V1_recurrent",
        "DARTS_V2_recurrent",
        "DARTS_recurrent",
        "ENAS",
    }
    assert Genotype.named("DARTS") == Genotype.named("DARTS_V2")
    with pytest.raises(
        ValueError, match=re.escape("named 'darts_v3' (did you mean 'DARTS_V2'?); the names are")
    ):
        Genotype.named("darts_v3")


@pytest.mark.parametrize("name", Genotype.names())
def test_published_round_trip(name, tmp_path):
    genotype = Genotype.named(name)
    assert Genotype.parse(genotype.to_text()) == genotype
    assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype
    genotype.save(tmp_path / "genotype.json")
    assert Genotype.load(tmp_path / "genotype.json") == genotype
    (tmp_path / "genotype.txt").write_text(f"{name} = {genotype}\n")
    assert Genotype.load(str(tmp_path / "genotype.txt")) == genotype


def test_published_second_order_cells():
    """The cells of the paper's figures, as the authors' code prints them."""
    assert Genotype.named("DARTS_V2").to_text() == (
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
        "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
        "('dil_conv_3x3', 2)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 0), "
        "('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), "
        "('max_pool_3x3', 1)], reduce_concat=range(2, 6))"
    )
    assert Genotype.named("DARTS_V2_recurrent").to_text() == (
        "Genotype(recurrent=[('sigmoid', 0), ('relu', 1), ('relu', 1), ('identity', 1), "
        "('tanh', 2), ('sigmoid', 5), ('tanh', 3), ('relu', 5)], concat=range(1, 9))"
    )
    assert Genotype.named("AmoebaNet").to_text().endswith("reduce_concat=[3, 4, 6])")


@pytest.mark.parametrize(
    ("name", "num_nodes"), [("NASNet", 5), ("AmoebaNet", 5), ("PC_DARTS_image", 4)]
)
def test_published_concat_is_what_no_node_consumes_or_all(name, num_nodes):
    """NASNet and AmoebaNet concatenate exactly the nodes that feed no other node; DARTS all of
    them."""
    genotype = Genotype.named(name)
    for cell in ("normal", "reduce"):
        nodes = set(range(2, num_nodes + 2))
        loose = nodes - {predecessor for _, predecessor in genotype.cell(cell).edges}
        assert set(genotype.cell(cell).concat) == (nodes if name.startswith("PC") else loose)


# -- text


@pytest.mark.parametrize("concat", ["range(2, 4)", "[2, 3]", "(2, 3)", "[2,3]", "[\n  2,\n  3,\n]"])
@pytest.mark.parametrize("frame", ["{}", "\n   {}  \n\n", "DARTS = {}", "{}  # from a paper"])
def test_parse_spellings(concat, frame):
    text = f"""Genotype(
    normal=[
        ('sep_conv_3x3', 0), ("skip_connect", 1),

        ['max_pool_3x3', 2], ('dil_conv_5x5', 0),   # node 1
    ], normal_concat={concat},
reduce = {CONV!r}, reduce_concat=range(3,4))"""
    assert Genotype.parse(frame.format(text)) == Genotype.conv(CONV, CONV, reduce_concat=[3])


def test_parse_recurrent():
    expected = Genotype.recurrent_cell(RECURRENT)
    for concat in ("range(1, 4)", "[1, 2, 3]"):
        assert Genotype.parse(f"Genotype(recurrent={RECURRENT!r}, concat={concat})") == expected


@pytest.mark.slow
@given(genotypes())
def test_round_trip(genotype):
    assert Genotype.parse(genotype.to_text()) == genotype
    assert Genotype.from_json(json.loads(json.dumps(genotype.to_json()))) == genotype


@given(genotypes())
def test_file_round_trip(tmp_path_factory, genotype):
    path = tmp_path_factory.getbasetemp() / "genotype.json"
    genotype.save(path)
    assert Genotype.load(path) == genotype


@given(st.text())
def test_any_text_is_a_genotype_or_a_value_error(text):
    for candidate in (text, f"Genotype({text})", f"Genotype(normal=[{text}], normal_concat=[2])"):
        with pytest.raises(ValueError):
            Genotype.parse(candidate)


TOUCH = "__import__('os').system('touch PWNED')"
REST = f"normal_concat=range(2, 4), reduce={CONV!r}, reduce_concat=[2, 3]"
CELLS = f"normal={CONV!r}, normal_concat=range(2, 4), reduce={CONV!r}"
HOSTILE = [
    TOUCH,
    f"Genotype({TOUCH})",
    f"Genotype(normal={TOUCH}, {REST})",
    f"Genotype(normal=[({TOUCH}, 0)], {REST})",
    f"Genotype(normal=(lambda: {TOUCH})(), {REST})",
    f"Genotype(normal=lambda: 0, {REST})",
    f"Genotype(normal=[f'{{{TOUCH}}}'], {REST})",
    f"Genotype(normal=[(f'sep_conv_3x3', 0)], {REST})",
    f"Genotype(normal=[{TOUCH} for _ in range(3)], {REST})",
    f"Genotype(normal=[*{TOUCH}], {REST})",
    f"Genotype(**{TOUCH})",
    f"Genotype(*{TOUCH})",
    f"Genotype(normal={CONV!r}, {REST}); {TOUCH}",
    f"{TOUCH}; Genotype(normal={CONV!r}, {REST})",
    f"import os\nGenotype(normal={CONV!r}, {REST})",
    f"Genotype(normal={CONV!r}, {REST})()",
    f"Genotype(normal={CONV!r}, {REST}).__class__",
    f"Genotype.__init__(normal={CONV!r}, {REST})",
    f"a.b = Genotype(normal={CONV!r}, {REST})",
    f"a = b = Genotype(normal={CONV!r}, {REST})",
    f"eval(normal={CONV!r}, {REST})",
    f"(lambda **k: k)(normal={CONV!r}, {REST})",
    f"Genotype({CELLS}, reduce_concat=list((2, 3)))",
    f"Genotype({CELLS}, reduce_concat=range(2, 10**9))",
    f"Genotype({CELLS}, reduce_concat=range(2, {10**18}))",
    f"Genotype({CELLS}, reduce_concat=range(2, 4, step={TOUCH}))",
    f"Genotype({CELLS}, reduce_concat=().__class__)",
    f"Genotype({CELLS}, reduce_concat=[2, 3][0:2])",
    f"Genotype(normal=(x := {CONV!r}), {REST})",
    f"Genotype(normal=[('a' 'b', 1 if 1 else 0)], {REST})",
    f"Genotype(normal=[(b'sep_conv_3x3', 0), ('a', 1)], {REST})",
    f"Genotype(normal=[('a', 0.0), ('a', 1)], {REST})",
    f"Genotype(normal=[('\\d', 0), ('a', 1)], {REST})",
    f"Genotype(normal=[('a', {'9' * 5000}), ('a', 1)], {REST})",
    f"Genotype(normal={'[' * 150}{']' * 150}, {REST})",
    f"Genotype(normal={'[' * 40_000}{']' * 40_000}, {REST})",
    f"Genotype(normal={'-' * 90_000}1, {REST})",
    f"Genotype(normal={'1+' * 40_000}1, {REST})",
    f"Genotype(normal=a{'.a' * 40_000}, {REST})",
    f"Genotype(normal={'0,' * 60_000}, {REST})",
    "Genotype(\0)",
    "Genotype(",
    "",
]


@pytest.mark.parametrize(
    "text", HOSTILE, ids=lambda text: text[:60].encode("unicode_escape").decode()
)
def test_hostile_text_executes_nothing(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError):
        Genotype.parse(text)
    (tmp_path / "genotype.txt").write_text(text)
    with pytest.raises(ValueError, match=r"genotype\.txt does not hold a genotype: "):
        Genotype.load("genotype.txt")
    assert os.listdir() == ["genotype.txt"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("x", "a genotype text reads Genotype(normal=[('sep_conv_3x3', 0), ...], ...)"),
        (None, "a genotype text is a str, not null"),
        ("Genotype([])", "genotype text: every part must have a field name, as in normal=[...]"),
        ("Genotype(normal=[], normal=[])", "genotype text: a field is given twice"),
        ("Genotype(recurrent=[])", "genotype text: missing field 'concat'"),
        (
            "Genotype(recurrent=[], concat=[], cnt=1)",
            "genotype text: unknown field 'cnt' (did you mean 'concat'?)",
        ),
        (
            "Genotype(normal=[], reduce=[])",
            "genotype text: missing field 'normal_concat', 'reduce_concat'",
        ),
        (
            "Genotype(recurrent=[('a', x)], concat=[1])",
            "genotype text: Name in line 1, column 27; only lists",
        ),
        (
            "Genotype(recurrent=[('a', -1)], concat=[1])",
            "recurrent cell, node 1, edge 0: predecessor -1",
        ),
        (
            "Genotype(recurrent=[('a', 0)], concat=range(1, 5000))",
            "genotype text: range(1, 5000) is too long",
        ),
    ],
)
def test_text_errors(text, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Genotype.parse(text)


# -- validation


@pytest.mark.parametrize(
    ("normal", "concat", "sentence"),
    [
        (5, None, ": edges must be a tuple of (operation, predecessor) pairs, not int"),
        ([], None, ": it has no edges; it needs two per node"),
        (CONV[:3], None, ": 3 edges are an odd number; every node needs two"),
        (["ab", "cd"], None, ", node 0, edge 0: 'ab' is not an (operation, predecessor) pair"),
        (
            [("a", 0, 0), ("a", 1)],
            None,
            ", node 0, edge 0: ('a', 0, 0) is not an (operation, predecessor)",
        ),
        (
            [("a", 0), ("", 1)],
            None,
            ", node 0, edge 1: the operation must be a non-empty string, not ''",
        ),
        (
            [(1, 0), ("a", 1)],
            None,
            ", node 0, edge 0: the operation must be a non-empty string, not 1",
        ),
        ([("a", "0"), ("a", 1)], None, ", node 0, edge 0: the predecessor must be an int, not '0'"),
        (
            [("a", True), ("a", 1)],
            None,
            ", node 0, edge 0: the predecessor must be an int, not True",
        ),
        (
            [("a", -1), ("a", 1)],
            None,
            ", node 0, edge 0: predecessor -1 does not precede it; it must be in 0..1",
        ),
        (
            [("a", 2), ("a", 1)],
            None,
            ", node 0, edge 0: predecessor 2 does not precede it; it must be in 0..1",
        ),
        (
            [*CONV[:3], ("a", 3)],
            None,
            ", node 1, edge 3: predecessor 3 does not precede it; it must be in 0..2",
        ),
        (CONV, 2, ": concat must be a tuple of node indices, not int"),
        (CONV, [], ": concat is empty; it needs at least one of the nodes 2..3"),
        (CONV, [1, 2], ": concat index 1 is not one of the nodes 2..3"),
        (CONV, [2, 4], ": concat index 4 is not one of the nodes 2..3"),
        (CONV, ["2"], ": concat index '2' is not one of the nodes 2..3"),
        (CONV, [[2]], ": concat index (2,) is not one of the nodes 2..3"),
        (CONV, [2, 2], ": concat [2, 2] names a node twice"),
    ],
)
def test_conv_validation(normal, concat, sentence):
    with pytest.raises(ValueError, match=re.escape(f"normal cell{sentence}")):
        Genotype.conv(normal, CONV, normal_concat=concat)
    with pytest.raises(ValueError, match=re.escape(f"reduce cell{sentence}")):
        Genotype.conv(CONV, normal, reduce_concat=concat)


@pytest.mark.parametrize(
    ("edges", "concat", "sentence"),
    [
        ([], None, "recurrent cell: it has no edges; it needs one per node"),
        (
            [("a", 1)],
            None,
            "recurrent cell, node 1, edge 0: predecessor 1 does not precede it; it must be in 0..0",
        ),
        (
            [("a", 0), ("a", 2)],
            None,
            "recurrent cell, node 2, edge 1: predecessor 2 does not precede it",
        ),
        (RECURRENT, [0], "recurrent cell: concat index 0 is not one of the nodes 1..3"),
        (RECURRENT, [4], "recurrent cell: concat index 4 is not one of the nodes 1..3"),
    ],
)
def test_recurrent_validation(edges, concat, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Genotype.recurrent_cell(edges, concat)


CELL = CellGenotype(tuple(CONV), (2, 3))


@pytest.mark.parametrize(
    ("cells", "sentence"),
    [
        ([("normal", CELL)], "cells must be a tuple of (name, CellGenotype) pairs, not list"),
        ((CELL,), "cells must hold (name, CellGenotype) pairs, not CellGenotype("),
        (
            (("normal", CELL),),
            "a genotype has the cells normal and reduce, or recurrent, not ('normal',)",
        ),
        (
            (("reduce", CELL), ("normal", CELL)),
            "normal and reduce, or recurrent, not ('reduce', 'normal')",
        ),
        (
            (("normal", CellGenotype(CONV, (2, 3))), ("reduce", CELL)),
            "normal cell: edges must be a tuple of",
        ),
    ],
)
def test_cells_validation(cells, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Genotype(cells)


# -- JSON and files


def changed(**changes):
    obj = Genotype.conv(CONV, CONV).to_json() | changes
    return {key: value for key, value in obj.items() if value is not ...}


@pytest.mark.parametrize(
    ("obj", "sentence"),
    [
        ([], "genotype must be an object, not list"),
        (None, "genotype must be an object, not null"),
        ({}, "genotype: field 'format' must be 'gradnas-genotype', not None"),
        (changed(format="onnx"), "genotype: field 'format' must be 'gradnas-genotype', not 'onnx'"),
        (changed(version=2), "genotype: field 'version' must be 1, the one read here, not 2"),
        (changed(version=True), "genotype: field 'version' must be 1, the one read here, not True"),
        (changed(version=...), "genotype: field 'version' must be 1, the one read here, not None"),
        (
            changed(space="ConvCel"),
            "'ConvCell' or 'RecurrentCell', not 'ConvCel' (did you mean 'ConvCell'?)",
        ),
        (
            changed(space=[]),
            "genotype: field 'space' must be 'ConvCell' or 'RecurrentCell', not []",
        ),
        (changed(reduction={}), "genotype: unknown field 'reduction' (did you mean 'reduce'?)"),
        (changed(reduce=...), "genotype: missing field 'reduce'"),
        (changed(reduce=[]), "genotype: field 'reduce' must be an object, not list"),
        (changed(reduce={"edges": []}), "genotype: field 'reduce': missing field 'concat'"),
        (
            changed(reduce={"edges": [], "concat": [], "x": 1}),
            "genotype: field 'reduce': unknown field 'x'",
        ),
        (
            changed(reduce={"edges": {}, "concat": []}),
            "field 'reduce.edges' must be a list, not dict",
        ),
        (
            changed(reduce={"edges": [], "concat": None}),
            "field 'reduce.concat' must be a list, not null",
        ),
        (
            changed(reduce={"edges": [1, 2], "concat": [2]}),
            "reduce cell, node 0, edge 0: 1 is not an (oper",
        ),
        (
            changed(reduce={"edges": CONV, "concat": [9]}),
            "reduce cell: concat index 9 is not one of the",
        ),
    ],
)
def test_json_errors(obj, sentence, tmp_path):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Genotype.from_json(obj)
    with pytest.raises(ValueError, match="^here.*" + re.escape(sentence.removeprefix("genotype"))):
        Genotype.from_json(obj, where="here")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1, 2]",
        b"{}",
        b'"DARTS"',
        b"\xff\xfe\x00",
        b"\x89PNG\r\n\x1a\n",
        b"[" * 100_000,
        b"name,1\n",
    ],
)
def test_load_of_something_else_names_the_file(content, tmp_path):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"{path} does not hold a genotype: ")):
        Genotype.load(path)
    with pytest.raises(FileNotFoundError):
        Genotype.load(tmp_path / "none.json")


def test_file_is_readable_and_shared(tmp_path):
    path = tmp_path / "genotype.json"
    umask = os.umask(0o022)
    try:
        Genotype.recurrent_cell([("tanh", 0), ("re[lu,\n]", 1)]).save(path)
    finally:
        os.umask(umask)
    assert path.read_text() == (
        '{\n  "format": "gradnas-genotype",\n  "version": 1,\n  "space": "RecurrentCell",\n'
        '  "recurrent": {\n    "edges": [\n      ["tanh", 0],\n'
        '      [\n        "re[lu,\\n]",\n        1\n      ]\n    ],\n'
        '    "concat": [1, 2]\n  }\n}\n'
    )
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "genotype.json"
    Genotype.named("DARTS").save(path)

    def interrupted(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Genotype.named("ENAS").save(path)
    assert os.listdir(tmp_path) == ["genotype.json"]
    assert Genotype.load(path) == Genotype.named("DARTS")


def test_text_without_operation_names_of_any_space():
    """Which operations exist is the space's business: any non-empty name is kept as it is."""
    edges = [(string.punctuation, 0), ("注意力", 1)]
    assert Genotype.parse(Genotype.conv(edges, edges).to_text()).normal == tuple(edges)
