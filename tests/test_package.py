"""The package as a whole: what it imports, its small tools, its examples."""

from __future__ import annotations

import dataclasses
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from gradnas.memory import SavedTensors, module_bytes, optimizer_bytes
from gradnas.progress import Progress
from gradnas.randomness import generator_for, random_state, seed_for, set_random_state

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_searching_ones_own_module_needs_torch_and_numpy_alone():
    """The core runs where only torch and numpy are installed."""
    heavy = (
        "datasets",
        "matplotlib",
        "networkx",
        "PIL",
        "pyarrow",
        "rich",
        "safetensors",
        "sklearn",
        "tyro",
        "pandas",
    )
    program = (
        f"import sys\nfor name in {heavy}: sys.modules[name] = None\n"
        "import torch, torch.nn as nn, gradnas\n"
        "choice = gradnas.Choice({'a': nn.Linear(3, 3), 'b': nn.Identity()}, name='c')\n"
        "search = gradnas.Search(nn.Sequential(choice, nn.Linear(3, 1)), "
        "gradient=gradnas.Unrolled())\n"
        "data = [(torch.ones(4, 3), torch.ones(4, 1))]\n"
        "print(search.fit(data, data, loss=nn.functional.mse_loss, epochs=1, "
        "progress=False).choices)\n"
        "gradnas.ConvCell(channels=4, cells=2).supernet()(torch.ones(2, 3, 8, 8))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("{'c':")


def written_docstring(value: object, name: str) -> str | None:
    """The docstring that somebody wrote for a public class or function; None where nobody did.

    A class shows its base's docstring to `inspect.getdoc`, and a dataclass without one gets its
    signature from Python, `Name(field: int = 0)`: neither was written for it.
    """
    own = vars(value).get("__doc__") if isinstance(value, type) else value.__doc__
    if own is None or not own.strip():
        return None
    made_by_dataclass = dataclasses.is_dataclass(value) and own.startswith(f"{name}(")
    return None if made_by_dataclass else own


def test_a_docstring_that_python_made_does_not_count():
    @dataclasses.dataclass
    class Bare:
        field: int = 0

    @dataclasses.dataclass
    class Written:
        """Written by somebody."""

        field: int = 0

    class Inherits(Written):
        pass

    assert Bare.__doc__ is not None and written_docstring(Bare, "Bare") is None
    assert written_docstring(Inherits, "Inherits") is None
    assert written_docstring(Written, "Written") == "Written by somebody."


def test_every_public_name_is_documented():
    import gradnas

    text = (ROOT / "gradnas" / "__init__.py").read_text()
    names = re.findall(r"import (\w+) as \1", text)
    assert len(names) > 20
    for name in names:
        value = getattr(gradnas, name)
        if isinstance(value, dict):  # a table of operations is documented where it stands
            continue
        assert written_docstring(value, name) is not None, name


def test_no_source_file_trains_on_cuda_only():
    for path in (ROOT / "gradnas").rglob("*.py"):
        text = path.read_text()
        assert ".cuda()" not in text and "torchvision." not in text, path


def test_nothing_is_evaluated_or_unpickled():
    for path in (ROOT / "gradnas").rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"(?<![\w.])(eval|exec)\(", text), path
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, path


# ---- the user's own module -----------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_of_ones_own_module_runs(monkeypatch, capsys):
    example = str(ROOT / "examples" / "your_own_module.py")
    monkeypatch.setattr(sys, "argv", [example, "--epochs", "2"])
    runpy.run_path(example, run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r"\{'body': '\w+'\}", printed)
    assert "Choice" not in printed.split("derived network:")[1]


def test_the_example_changes_at_most_six_lines_of_the_plain_module():
    import difflib

    text = (ROOT / "examples" / "your_own_module.py").read_text()
    plain = (ROOT / "examples" / "plain_module.py").read_text()

    def code(source):
        lines = (
            source.split("# ---- the module\n")[1].split("# ---- end of the module")[0].splitlines()
        )
        return [line for line in lines if line.strip() and not line.strip().startswith("# fmt")]

    # and one line more: `import gradnas`
    changed = [line for line in difflib.ndiff(code(plain), code(text)) if line.startswith("+ ")]
    assert 1 <= len(changed) <= 5, changed


# ---- small tools ---------------------------------------------------------------------------------


def test_saved_tensors_count_what_autograd_keeps():
    x = torch.ones(1000, requires_grad=True)
    with SavedTensors() as kept:
        y = (x.exp() * 2).sum()  # keeps the output of exp: 4,000 bytes
        assert kept.live_bytes == 4000
        y.backward()
        del y
    assert kept.live_bytes == 0 and kept.peak_bytes == 4000
    with SavedTensors() as kept:
        y = x * x  # the same storage twice counts once
        assert kept.live_bytes == 4000
        del y
    assert kept.live_bytes == 0


def test_saved_tensors_allow_a_second_derivative():
    x = torch.full((3,), 2.0, requires_grad=True)
    with SavedTensors():
        (first,) = torch.autograd.grad((x**3).sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), x)
    assert torch.equal(second, 6 * x.detach())


def test_bytes_of_modules_and_optimisers():
    net = nn.Linear(10, 10, bias=False)
    assert module_bytes(net) == 400
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(1, 10)).sum().backward()
    optimizer.step()
    assert optimizer_bytes([optimizer]) == 400


def test_generators_depend_on_all_numbers_in_order():
    draws = [
        torch.rand(1, generator=generator_for(*n)).item()
        for n in ((1, 2), (2, 1), (1, 2, 0), (0, 1, 2))
    ]
    assert len(set(draws)) == 4
    assert torch.rand(1, generator=generator_for(1, 2)).item() == draws[0]
    assert seed_for(0, 1) != seed_for(1, 0)


def test_random_state_round_trip():
    state = random_state(torch.device("cpu"))
    first = torch.rand(3)
    set_random_state(state, torch.device("cpu"))
    assert torch.equal(torch.rand(3), first)


def test_without_a_terminal_there_is_one_line_for_each_epoch(capsys):
    with Progress("search", epochs=3, per_epoch=2, first_epoch=1) as bar:
        for epoch in (1, 2):
            bar.step(loss=1.0)
            bar.epoch(epoch, {"train_loss": 0.5, "accuracy": 0.25})
    lines = capsys.readouterr().err.splitlines()
    assert [line.split("  ")[:3] for line in lines] == [
        ["search: epoch 2/3", "train loss 0.5", "accuracy 0.25"],
        ["search: epoch 3/3", "train loss 0.5", "accuracy 0.25"],
    ]
    assert all(line.endswith("left") and len(line) <= 80 for line in lines)


def test_on_a_terminal_there_is_a_bar(monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("search", epochs=2, per_epoch=3, first_epoch=1) as bar:
        bar.step(loss=torch.tensor(1.5))
        bar.epoch(1, {"train_loss": 0.5})
    assert "search" in terminal.getvalue() and "4/6" in terminal.getvalue()


@pytest.mark.parametrize("enabled", [False])
def test_progress_can_be_silent(enabled, capsys):
    with Progress("search", epochs=1, per_epoch=1, enabled=enabled) as bar:
        bar.step(loss=1.0)
        bar.epoch(0, {})
        bar.say("x")
    assert capsys.readouterr() == ("", "")
