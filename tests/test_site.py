"""The documentation site: complete, without a dead link, and what its hooks make of docstrings."""

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from in_browser import PICTURES, looked_at, needs_chromium, started

import gradnas

ROOT = Path(__file__).resolve().parents[1]


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_public_name_has_a_page_and_a_sentence():
    pytest.importorskip("mkdocs", reason="the site needs mkdocs: pip install 'gradnas[docs]'")
    site = loaded("pages")
    names = site.public_names()
    assert set(names) == set(gradnas._MODULES)
    pages = site.reference()
    for name, module in names.items():
        assert f"::: {module}.{name}\n" in pages[f"reference/{name}.md"]
        assert len(site.first_sentence(name, module)) > 10, name
        assert f"[{name}]({name}.md)" in pages["reference/index.md"]


def test_names_that_share_an_entry_have_one_each():
    pytest.importorskip("griffe", reason="the site needs mkdocs: pip install 'gradnas[docs]'")
    doc = "What.\n\nArgs:\n    a, b: of both,\n        and more.\n    c: one.\n\nA line: d, e.\n"
    assert loaded("griffe_names").one_name_each(doc) == (
        "What.\n\nArgs:\n    a: of both, and more.\n    b: of both, and more.\n    c: one.\n\n"
        "A line: d, e.\n"
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What `mkdocs build` said, and the folder of the site."""
    pytest.importorskip("mkdocs", reason="the site needs mkdocs: pip install 'gradnas[docs]'")
    # With what one example printed, in the place of all: `make docs` runs them.
    place = tmp_path_factory.mktemp("site") / "tree"
    place.mkdir()
    for name in ("docs", "examples", "benchmarks", "gradnas"):
        shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "mkdocs.yml", place)
    ran = place / "build" / "gallery" / "time_series"
    ran.mkdir(parents=True)
    (ran / "output.txt").write_text("$ gradnas search\nconv  dilation 8\n")
    shutil.copy(ROOT / "docs" / "rooms.svg", ran / "choices.svg")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet"],
        cwd=place,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", "NO_MKDOCS_2_WARNING": "1", "HOME": str(place)},
    )
    return done, place / "build" / "site"


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(built):
    done, site = built
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr + done.stdout
    page = (site / "gallery" / "time_series.html").read_text(encoding="utf-8")
    assert "time_series-choices.svg" in page and "dilation 8" in page
    assert {file.stem for file in (site / "reference").glob("*.html")} >= set(gradnas._MODULES)


@pytest.mark.slow
@needs_chromium
def test_the_site_asks_for_nothing_elsewhere(built):
    _, site = built
    addresses = ["index.html", "tasks.html", "gallery/time_series.html", "reference/Search.html"]
    with started() as browser:
        for address in addresses:
            for width, scheme in ((1300, "light"), (400, "dark")):
                page, complaints, outside = looked_at(
                    browser, site / address, width=width, scheme=scheme
                )
                assert not complaints and not outside, address
                assert page.evaluate(PICTURES) == [], address
                assert page.evaluate("document.documentElement.scrollWidth") <= width, address
                page.context.close()
