"""The gallery: every example runs as its first lines say, and what it finds is the known truth."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradnas.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "docs" / "gallery.py"
# Of the examples whose truth is known
TRUTH = {"time_series": "dilation 8", "graph_network": "sum"}
# Other tests run these, with fewer epochs; `make demo` the last.
ELSEWHERE = {"your_own_module", "equation", "scattered_digits"}


@pytest.fixture(scope="module")
def gallery():
    spec = importlib.util.spec_from_file_location("gallery", GALLERY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def examples():
    return sorted(file.stem for file in (ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("name", examples())
def test_an_example_is_short_and_says_how_it_is_run(gallery, name):
    text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 100
    if name in gallery.NOT_SHOWN:
        return
    assert gallery.commands(name)
    doc = ast.get_docstring(ast.parse(text))
    assert f"examples/{name}.py" in doc


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(examples()) - ELSEWHERE - {"plain_module"}))
def test_an_example_runs(gallery, name, tmp_path, monkeypatch, capsys):
    """As its docstring says; where the truth is known to the end, else for two epochs."""
    if name == "language_model":
        pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    ((program, *words),) = gallery.commands(name)
    assert program == "gradnas"
    if name not in TRUTH:
        words[words.index("--epochs") + 1] = "2"
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert "verdict: " in printed
    assert len(list(tmp_path.glob("runs/*/cells.svg"))) == 1
    if name in TRUTH:
        assert re.search(rf"^  \w+ +{TRUTH[name]} ", printed, re.MULTILINE), printed


@pytest.mark.slow
def test_what_an_example_prints_and_draws_is_kept(gallery, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONWARNINGS", "default")
    short = ["gradnas", "search", "examples/time_series.py", "--epochs", "1"]
    monkeypatch.setattr(gallery, "commands", lambda name: [short])
    printed = gallery.run("time_series", tmp_path)
    assert printed.startswith(f"$ {' '.join(short)}\n") and "verdict: " in printed
    assert "epoch 1/1" not in printed  # progress is left out
    kept = tmp_path / "time_series"
    assert (kept / "output.txt").read_text(encoding="utf-8") == printed
    assert (kept / "choices.svg").stat().st_size > 1000


def test_a_command_that_fails_is_said(gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(gallery, "commands", lambda name: [["python", "-c", "1/0"]])
    with pytest.raises(RuntimeError, match=r"python -c 1/0 failed:(.|\n)*ZeroDivisionError"):
        gallery.run("any", tmp_path)


@pytest.mark.slow
def test_the_notebook_runs_and_shows_its_results(tmp_path):
    nbformat = pytest.importorskip("nbformat", reason="notebooks need nbclient and ipykernel")
    pytest.importorskip("nbclient", reason="notebooks need nbclient and ipykernel")
    pytest.importorskip("ipykernel", reason="notebooks need nbclient and ipykernel")
    file = ROOT / "examples" / "first_search.ipynb"
    assert not any(cell.get("outputs") for cell in nbformat.read(file, as_version=4).cells)
    program = f"""
import sys, nbformat, nbclient
from jupyter_client.manager import AsyncKernelManager
manager = AsyncKernelManager()
manager.kernel_spec.argv[0] = sys.executable  # whatever is installed under the name of a kernel
notebook = nbformat.read({str(file)!r}, as_version=4)
place = {{"metadata": {{"path": {str(file.parent)!r}}}}}
nbclient.NotebookClient(notebook, km=manager, timeout=300, resources=place).execute()
nbformat.write(notebook, {str(tmp_path / "ran.ipynb")!r})
"""
    # A process of its own: the loop of the kernel's client leaves sockets behind.
    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
    notebook = nbformat.read(tmp_path / "ran.ipynb", as_version=4)
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pages = [output.data["text/html"] for output in shown if "text/html" in output.get("data", {})]
    pictures = [page for page in pages if 'src="data:image/svg+xml;base64,' in page]
    assert len(pictures) == 3  # the run, the result of `fit`, the law
    assert "dilation 8" in pictures[0] and "verdict: " in pictures[0]
    assert "dilation 8" in pictures[1]
    assert "energy = 0.5*mass*speed**2" in pictures[2]
    bars = [page for page in pages if "<progress" in page]
    assert len(bars) == 2 and 'value="70" max="70"' in bars[1]
