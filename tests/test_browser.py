"""Reports in a real browser, Chromium without a window.

Of every kind of report: no error in the console, no request to anywhere, a size and a text
alternative for every picture, no sideways scrolling at 400 pixels, readable in light and dark, and
everything that can be pressed reached by the Tab key.
"""

from pathlib import Path

import in_process
import pytest
from in_browser import CONTRAST, PICTURES, PRESSED, looked_at, needs_chromium, started

from gradnas.cli.main import main

ROOT = Path(__file__).resolve().parents[1]
pytestmark = [pytest.mark.slow, needs_chromium]

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
TASK = ROOT / "tests" / "study" / "few_choices.py"
STUDY = [str(TASK), "--seeds", "1", "--finals", "1", "--random", "1", "--epochs", "1"]
STUDY += ["--final-epochs", "1", "--batch-size", "32", "--device", "cpu", "--threads", "1"]
LAW = ["discover", "--example", "weber-fechner", "--effort", "0.1"]
KINDS = [*RUNS, "law", "study"]


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
    run = folder / "study"
    with pytest.MonkeyPatch.context() as patch:
        code, _ = in_process.carried_out(patch, [*STUDY, "--out", str(run)])
    assert code == 0
    written["study"] = run / "report.html"
    return written


@pytest.fixture(scope="module")
def browser():
    with started() as one:
        yield one


@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("kind", KINDS)
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
