"""Without the packages of the extras: what needs none of them works, and the rest says which."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from cases import ROOT
from torch import nn

import gradnas
from gradnas import extras, runs
from gradnas.architectures.registry import published
from gradnas.config import to_json
from gradnas.families import recipes
from gradnas.latency import Timing

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
MODULES = {"pillow": "PIL", "scikit-learn": "sklearn"}  # imported by another name
LEFT_OUT = ("ray", "slurm")  # of `all`: they are large, and for who has such machines
OF_NOTEBOOKS = "IPython"  # there where a notebook runs
OF_EXTRAS = (
    "datasets",
    "huggingface_hub",
    "matplotlib",
    "onnx",
    "onnxruntime",
    "onnxscript",
    "pandas",
    "PIL",
    "pyarrow",
    "scipy",
    "sklearn",
    "tensorboard",
)

# Finds none of these packages, as if they were not installed. (torch itself brings sympy and
# networkx, and cannot be without.)
PROGRAM = f"""
import json, sys
from importlib.machinery import PathFinder

class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {OF_EXTRAS}:
            return None
        return PathFinder.find_spec(name, path, target)

sys.meta_path = [Finder if finder is PathFinder else finder for finder in sys.meta_path]
"""

COMMANDS = """
import contextlib, io
from gradnas.cli import main
for arguments in json.loads(sys.argv[1]):
    errors = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(errors):
        code = main(arguments)
    print(json.dumps([code, errors.getvalue()]))
"""


def without_extras(program: str, *arguments: str, cwd: Path) -> list[str]:
    """The lines that a program prints where none of the packages can be imported."""
    command = [sys.executable, "-c", PROGRAM + program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A text, a table of latencies, and the run folder of a search that was stopped."""
    folder = tmp_path_factory.mktemp("minimal")
    (folder / "text.txt").write_text("a b c d e f g h\n" * 2000)
    (folder / "table.csv").write_text("x,y\n1,1\n2,2\n")
    config = recipes.search_recipe("digits")
    run = runs.Run.create(folder / "run", to_json(config), 0, torch.device("cpu"))
    published("DARTS_V2").save(run.path / runs.GENOTYPE)
    table = gradnas.measure(nn.Linear(3, 3), (torch.ones(1, 3),), Timing(warmup=1, repeats=2))
    table.save(folder / "table.json")
    return folder


@pytest.mark.slow
def test_every_command_works_or_names_the_extra(folder):
    table = "table.json"
    cases = {
        ("recipes",): "",
        ("latency", "show", table): "",
        ("latency", "fit", table): "fitting a predictor needs scikit-learn|images",
        ("search", "digits"): "the set 'digits' needs scikit-learn|images",
        ("search", "darts-cifar10"): "needs datasets|images",
        (
            "search",
            "text",
            "--data",
            "text.txt",
            "--out",
            "new",
        ): "a picture needs matplotlib|reports",
        (
            "train",
            "DARTS_V2_recurrent",
            "--data",
            "text.txt",
            "--out",
            "net",
        ): "a picture needs matplotlib|reports",
        ("resume", "run"): "a picture needs matplotlib|reports",
        ("report", "run"): "a picture needs matplotlib|reports",
        (
            "draw",
            "DARTS_V2",
            "--out",
            "cell.svg",
        ): "a picture needs matplotlib|reports",
        ("discover", "table.csv", "--target", "y"): "equation discovery needs|equations",
    }
    before = {path.name for path in folder.iterdir()}
    lines = without_extras(COMMANDS, json.dumps(list(cases)), cwd=folder)
    assert len(lines) == len(cases)
    for (arguments, expected), line in zip(cases.items(), lines, strict=True):
        code, errors = json.loads(line)
        if not expected:
            assert (code, errors) == (0, ""), arguments
            continue
        words, extra = expected.split("|")
        assert code == 2, (arguments, errors)
        assert errors.count("\n") == 1 and words in errors, (arguments, errors)
        assert errors.endswith(f"not installed: pip install 'gradnas[{extra}]'\n"), errors
    assert {path.name for path in folder.iterdir()} == before  # no run folder either


@pytest.mark.slow
def test_ones_own_module_from_search_to_file(tmp_path):
    program = """
import torch, gradnas
from torch import nn
choice = gradnas.Choice({"a": nn.Linear(3, 3), "b": nn.Identity()}, name="c")
module = nn.Sequential(choice, nn.Linear(3, 1))
data = [(torch.randn(8, 3), torch.randn(8, 1))]
result = gradnas.Search(module).fit(data, data, loss=nn.functional.mse_loss, epochs=2)
result.save("result.json")
network = gradnas.derive(module, "result.json")
assert result.choices["c"] in "ab"
assert not any(isinstance(part, gradnas.Choice) for part in network.modules())
from gradnas import *
assert Search is gradnas.Search
try:
    gradnas.EquationRegressor
except ImportError as error:
    print(error)
"""
    (sentence,) = without_extras(program, cwd=tmp_path)
    assert sentence.startswith("equation discovery needs ")
    assert sentence.endswith("not installed: pip install 'gradnas[equations]'")


# ---- what pyproject.toml says --------------------------------------------------------------------


def brought(extra: str) -> set[str]:
    """The packages of an extra, as they are imported, with those of the extras it is made of."""
    found = set()
    for requirement in PROJECT["optional-dependencies"][extra]:
        name, others = re.fullmatch(r"([\w-]+)(?:\[([\w,]+)\])?.*", requirement).groups()
        if name == "gradnas":
            for other in others.split(","):
                found |= brought(other)
        else:
            found.add(MODULES.get(name, name))
    return found


def base() -> set[str]:
    """What `pip install gradnas` brings, as it is imported."""
    return {re.match(r"[\w-]+", requirement)[0] for requirement in PROJECT["dependencies"]}


def sources() -> dict[str, str]:
    paths = sorted((ROOT / "gradnas").rglob("*.py"))
    return {str(path.relative_to(ROOT)): path.read_text() for path in paths}


def test_what_is_asked_for_is_brought_by_the_extra():
    count = 0
    for path, text in sources().items():
        if "extras.need(" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) != "extras.need":
                continue
            settings = {keyword.arg: keyword.value for keyword in node.keywords}
            extra = ast.literal_eval(settings["extra"])
            modules = {ast.literal_eval(argument) for argument in node.args}
            assert modules <= brought(extra), path
            count += 1
    assert count >= 10


def test_every_package_that_is_imported_is_declared():
    known = base() | brought("all") | {"gradnas", *sys.stdlib_module_names}
    for extra in LEFT_OUT:
        known |= brought(extra)
    known |= {"huggingface_hub", OF_NOTEBOOKS}  # the first is of `datasets`
    written = re.compile(r"^ *(?:from (\w+)[\w.]* import |import (\w+)[\w.]*(?: as \w+)?$)", re.M)
    found = {}
    for path, text in sources().items():
        for match in written.finditer(text):
            found[match[1] or match[2]] = path
    assert {"torch", "matplotlib", "sklearn", "datasets"} <= set(found)
    assert set(found) <= known, found


def test_packages_of_extras_are_imported_where_they_are_used():
    """At the top of a module they would be needed by whoever imports it."""
    of_extras = brought("all")
    written = re.compile(r"^(?:from|import) (\w+)", re.M)
    found = set()
    for path, text in sources().items():
        if of_extras & set(written.findall(text)):
            found.add(path)
    # These are imported after `extras.need`, and so is the room of laws.
    rows = {f"gradnas/data/{name}.py" for name in ("hub", "labels", "parquet")}
    assert {path for path in found if not path.startswith("gradnas/laws/")} == rows


def test_searching_ones_own_module_takes_five_packages():
    assert base() == {"torch", "numpy", "safetensors", "tyro", "rich"}
    others = {"all", "dev", "docs", "test", *LEFT_OUT}
    extra = {name for name in PROJECT["optional-dependencies"] if name not in others}
    assert brought("all") == set().union(*(brought(name) for name in extra))


def test_the_sentence_lists_what_is_missing(monkeypatch):
    extras.need("json", "torch", extra="all", what="nothing")
    for name in ("PIL", "sklearn", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(extras.MissingPackageError) as caught:
        extras.need("PIL", "json", "sklearn", "pandas", extra="images", what="a walk")
    assert str(caught.value) == (
        "a walk needs pillow, scikit-learn and pandas, which are not installed: "
        "pip install 'gradnas[images]'"
    )
    assert isinstance(caught.value, ValueError) and isinstance(caught.value, ImportError)


def test_the_lowest_versions_are_those_that_are_allowed():
    """`make test-lowest` would otherwise test others than `pip install` may take."""
    pinned = {}
    for line in (ROOT / "constraints-lowest.txt").read_text().splitlines():
        if not line.startswith("#"):
            name, _, version = line.partition("==")
            pinned[name] = numbers(version)
    allowed = {}
    for requirements in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for requirement in requirements:
            name, _, version = requirement.partition(">=")
            if version:
                allowed[name] = numbers(version)
    tools = {"hatchling", "import-linter", "pyrefly", "ruff", "transformers"}  # of `dev`
    tools |= {"ray", "submitit"}  # of `ray` and `slurm`, which no test needs
    # of the site, of notebooks and of the browser, whose tests skip without them
    tools |= {"ipykernel", "mkdocs-material", "mkdocstrings[python]", "nbclient", "playwright"}
    assert set(pinned) - {"antlr4-python3-runtime"} == set(allowed) - tools
    assert pinned.pop("torch") > allowed["torch"]  # the file says why
    del pinned["antlr4-python3-runtime"]
    assert pinned == {name: allowed[name] for name in pinned}


def numbers(version: str) -> tuple[int, ...]:
    """`1.26` as (1, 26, 0)."""
    parts = [int(part) for part in version.split(".")]
    return (*parts, 0, 0)[:3]
