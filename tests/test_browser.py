"""Reports and the documentation site in a real browser, Chromium without a window.

Of every kind of report: no error in the console, no request to anywhere, a size and a text
alternative for every picture, no sideways scrolling at 400 pixels, readable in light and dark, and
everything that can be pressed reached by the Tab key.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gradnas.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next((path for name in BROWSERS if (path := shutil.which(name))), None)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium: apt install chromium (any of " + str(BROWSERS) + ")"
    ),
]

CELL = ["search", "digits", "--epochs", "1", "--per-class", "20", "--channels", "4", "--cells", "2"]
CHAIN = ["search", "proxyless-digits", "--epochs", "1", "--warmup-epochs", "0"]
TEXT = ["search", "text", "--epochs", "1", "--max-steps", "3"]
OWN = ["search", str(ROOT / "examples" / "time_series.py"), "--epochs", "1"]
RUNS = {
    "cell": [*CELL, "--candidates", "0", "--batch-size", "16"],
    "chain": [*CHAIN, "--max-steps", "2"],
    "text": TEXT,
    "own task": OWN,
}
LAW = ["discover", "--example", "weber-fechner", "--effort", "0.1"]

# In the page: what is wrong with it, in sentences.
PICTURES = """() => {
  const wrong = [];
  for (const image of document.querySelectorAll('img')) {
    if (!image.naturalWidth) wrong.push('a picture that is not there: ' + image.src.slice(0, 60));
    if (!image.alt) wrong.push('a picture without a text: ' + image.src.slice(0, 60));
  }
  for (const drawing of document.querySelectorAll('svg[role=img]')) {
    const box = drawing.getBoundingClientRect();
    const shown = drawing.checkVisibility();
    if (shown && (!box.width || !box.height)) wrong.push('a drawing without a size');
    const named = drawing.getAttribute('aria-label') || drawing.querySelector('title');
    if (!named) wrong.push('a drawing without a text');
  }
  return wrong;
}"""
CONTRAST = """() => {
  const numbers = (text) => text.match(/[0-9.]+/g).map(Number);
  const light = (text) => {
    const parts = numbers(text).slice(0, 3).map((value) => value / 255)
      .map((value) => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      const parts = numbers(colour);
      if (parts.length < 4 || parts[3] > 0.5) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  let least = 21, where = '';
  for (const element of document.querySelectorAll('p, h1, h2, h3, td, th, li, figcaption, a')) {
    if (!element.checkVisibility() || !element.textContent.trim()) continue;
    const one = light(getComputedStyle(element).color), other = light(behind(element));
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < least) { least = ratio; where = element.textContent.trim().slice(0, 60); }
  }
  return [least, where];
}"""
PRESSED = "a[href], button:not([disabled]), summary, input, select, [tabindex='0']"


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Kind -> its report."""
    folder = tmp_path_factory.mktemp("browser")
    written = {}
    for kind, words in RUNS.items():
        run = folder / kind.replace(" ", "-")
        assert main([*words, "--out", str(run)]) == 0
        assert main(["report", str(run)]) == 0
        written[kind] = run / "report.html"
    run = folder / "law"
    assert main([*LAW, "--out", str(run)]) == 0
    written["law"] = run / "report.html"
    return written


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        yield started
        started.close()


def looked_at(browser, address, *, width, scheme):
    """The page, what its console complains of, and what it asked for elsewhere."""
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
    )
    page = context.new_page()
    complaints, asked = [], []
    page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address.as_uri())
    outside = [url for url in asked if not url.startswith(("file:", "data:", "blob:"))]
    return page, complaints, outside


@pytest.mark.parametrize("kind", [*RUNS, "law"])
def test_a_report_is_whole_readable_and_alone(browser, pages, kind):
    for width in (1200, 400):
        for scheme in ("light", "dark"):
            page, complaints, outside = looked_at(browser, pages[kind], width=width, scheme=scheme)
            assert not complaints and not outside
            assert page.evaluate(PICTURES) == []
            across = page.evaluate("document.documentElement.scrollWidth")
            assert across <= width, f"{across} pixels wide in a window of {width}"
            least, where = page.evaluate(CONTRAST)
            assert least >= 4.5, f"{scheme}: contrast {least:.2f} of {where!r}"
            page.context.close()


@pytest.mark.parametrize("kind", [*RUNS, "law"])
def test_everything_that_can_be_pressed_is_reached_by_the_keyboard(browser, pages, kind):
    page, _, _ = looked_at(browser, pages[kind], width=1200, scheme="light")
    script = (
        f"() => [...document.querySelectorAll({PRESSED!r})].filter(e => e.checkVisibility()).length"
    )
    number = page.evaluate(script)
    reached = set()
    for _ in range(number + 2):
        page.keyboard.press("Tab")
        place = "() => [...document.querySelectorAll('*')].indexOf(document.activeElement)"
        is_body = page.evaluate("() => document.activeElement === document.body")
        if not is_body:
            reached.add(page.evaluate(place))
    assert len(reached) >= number
    page.context.close()


def test_the_site_asks_for_nothing_elsewhere(browser, tmp_path):
    pytest.importorskip("mkdocs", reason="the site needs mkdocs: pip install 'gradnas[docs]'")
    place = tmp_path / "tree"
    place.mkdir()
    for name in ("docs", "examples", "benchmarks", "gradnas", "mkdocs.yml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, place)
    ran = place / "build" / "gallery" / "time_series"
    ran.mkdir(parents=True)
    (ran / "output.txt").write_text("$ gradnas search\nconv  dilation 8\n")
    build = [sys.executable, "-m", "mkdocs", "build", "--quiet"]
    subprocess.run(build, cwd=place, check=True, capture_output=True)
    site = place / "build" / "site"
    addresses = ["index.html", "tasks.html", "gallery/time_series.html", "reference/Search.html"]
    for address in addresses:
        for width, scheme in ((1300, "light"), (400, "dark")):
            page, complaints, outside = looked_at(
                browser, site / address, width=width, scheme=scheme
            )
            assert not complaints and not outside, address
            assert page.evaluate(PICTURES) == [], address
            assert page.evaluate("document.documentElement.scrollWidth") <= width, address
            page.context.close()
