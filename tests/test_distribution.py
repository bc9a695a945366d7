"""What is built for the package index: the sdist can be tested, the wheel can compute, the page has
no dead links."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string

import pytest
from cases import ROOT

pytest.importorskip("hatchling", reason="hatchling builds the package: pip install '.[dev]'")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder with the sdist and the wheel that is made from this tree."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def files_below(name: str) -> set[str]:
    found = set()
    for path in (ROOT / name).rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            found.add(str(path.relative_to(ROOT)))
    return found


def test_the_sdist_holds_what_make_test_needs(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"\b(?:constraints[\w-]*\.txt|pyproject\.toml)", makefile))
    assert {"pyproject.toml", "constraints.txt"} <= named
    wanted = named | {"Makefile", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md"}
    for room in ("gradnas", "tests", "docs", "examples", "benchmarks"):
        wanted |= files_below(room)
    assert wanted <= names, wanted - names


def test_the_wheel_holds_the_kernels_and_the_types(built):
    (path,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(path).namelist())
    assert files_below("gradnas") <= names
    kernels = {name for name in names if name.endswith(".cpp")}
    assert len(kernels) == 5 and "gradnas/py.typed" in names
    assert not any(name.startswith(("tests", "docs", "benchmarks")) for name in names)


def test_the_page_of_the_index_has_no_links_into_the_repository(built):
    (path,) = built.glob("*.whl")
    wheel = zipfile.ZipFile(path)
    (name,) = [name for name in wheel.namelist() if name.endswith("/METADATA")]
    metadata = message_from_string(wheel.read(name).decode())
    assert metadata["Description-Content-Type"] == "text/markdown"
    page = metadata.get_payload()
    links = re.findall(r"\]\(([^)\s]*)\)", page)
    assert links and all(link.startswith("https://") for link in links)
    # Else it is README.md: a link is its text.
    readme = (ROOT / "README.md").read_text()
    assert "[docs/tasks.md](docs/tasks.md) says more" in readme
    assert "docs/tasks.md says more" in page and "![" in readme and "![" not in page
    assert page.startswith("# gradnas\n") and len(page) > 0.8 * len(readme)
