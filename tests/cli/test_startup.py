"""What starts at once: help, mistyped commands and options, and the package itself."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import pickle
import subprocess
import sys
import typing

import pytest
from cases import ROOT

import gradnas
from gradnas.cli.main import AnyCommand
from gradnas.cli.options import Command

HEAVY = ("torch", "numpy", "pandas", "sklearn", "sympy", "scipy", "matplotlib", "datasets", "rich")

# Prints the exit code of each command line that it is given, and what of `HEAVY` was imported.
PROGRAM = f"""
import contextlib, io, json, sys
from gradnas.cli import main
codes = []
for arguments in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            codes.append(main(arguments))
        except SystemExit as end:
            codes.append(end.code)
print(json.dumps([codes, [name for name in {HEAVY} if name in sys.modules]]))
"""


def commands(union: object = AnyCommand) -> dict[str, type[Command]]:
    """All commands by the words that are typed, those below `latency` too."""
    found = {}
    for member in typing.get_args(union):
        cls, settings = typing.get_args(member)
        found[settings.name] = cls
        if cls.run is not Command.run:  # it has commands below it
            action = typing.get_type_hints(cls, include_extras=True)["action"]
            for words, below in commands(action).items():
                found[f"{settings.name} {words}"] = below
    return found


COMMANDS = commands()


def started(command_lines: list[list[str]]) -> tuple[list[int], list[str]]:
    """Exit codes of command lines in a process of their own, and what heavy was imported there."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(command_lines)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    codes, imported = json.loads(done.stdout)
    return codes, imported


def test_the_commands_are_found():
    assert len(COMMANDS) >= 14
    assert {"search", "latency measure", "latency fit", "latency show"} <= set(COMMANDS)


def test_help_imports_neither_torch_nor_what_else_takes_long():
    lines = [["--help"], *([*words.split(), "--help"] for words in COMMANDS)]
    assert started(lines) == ([0] * len(lines), [])


@pytest.mark.slow
def test_nor_does_what_is_mistyped():
    lines = [["serch"], ["latency", "measur"]]
    lines += [[*words.split(), "--no-such-option"] for words in COMMANDS]
    assert started([[], *lines]) == ([0] + [2] * len(lines), [])  # alone it says what there is


@pytest.mark.slow
def test_nor_does_the_package_itself():
    program = (
        "import sys, gradnas\n"
        f"print([name for name in {HEAVY} if name in sys.modules])\n"
        "assert 'Search' in dir(gradnas) and gradnas.__version__\n"
        "assert gradnas.runs.METRICS == 'metrics.jsonl'\n"  # a room, without its own import
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stderr


@pytest.mark.parametrize("words", [words for words in COMMANDS if words != "latency"])
def test_every_command_has_its_work(words):
    """The function that is named takes this command."""
    command = COMMANDS[words]
    module, _, name = command.work.partition(":")
    function = getattr(importlib.import_module(module), name)
    taken, *others = inspect.signature(function, eval_str=True).parameters.values()
    assert taken.annotation is command
    assert all(other.default is not inspect.Parameter.empty for other in others)


# ---- the public names ----------------------------------------------------------------------------


def names_for_type_checkers() -> dict[str, str]:
    """Module by name, as `gradnas/__init__.py` says under `if TYPE_CHECKING`."""
    tree = ast.parse((ROOT / "gradnas" / "__init__.py").read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    names = {}
    for line in block.body:
        assert isinstance(line, ast.ImportFrom) and line.module is not None
        for alias in line.names:
            assert alias.asname == alias.name  # that is how it is exported again
            names[alias.name] = line.module
    return names


def test_python_finds_the_names_that_type_checkers_see():
    assert names_for_type_checkers() == gradnas._MODULES
    for name, module in gradnas._MODULES.items():
        assert getattr(gradnas, name) is getattr(importlib.import_module(module), name)
        assert name in dir(gradnas)


def test_everything_but_laws_comes_with_a_star():
    names: dict[str, object] = {}
    exec("from gradnas import *", names)
    equations = {"EquationClassifier", "EquationRegressor", "LawSettings", "Primitive"}
    equations |= {"Constraint", "DARTSClassifier", "DARTSRegressor", "EquationGraph"}
    assert set(gradnas._MODULES) - set(names) == equations


def test_public_classes_pickle():
    assert pickle.loads(pickle.dumps(gradnas.Softmax)) is gradnas.Softmax
    assert pickle.loads(pickle.dumps(gradnas.FirstOrder())) == gradnas.FirstOrder()


def test_another_name_is_said_to_be_none():
    with pytest.raises(AttributeError, match="no attribute 'Serch'"):
        gradnas.Serch  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Serch'"):
        exec("from gradnas import Serch")
    assert not hasattr(gradnas, "__wrapped__")
