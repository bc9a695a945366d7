"""The section of a report on what a search is worth, without a search."""

from pathlib import Path
from types import SimpleNamespace

from gradnas.reports.verdict import verdict_section


def test_that_there_is_no_verdict_is_said_with_its_reason():
    results = {"no_verdict": "nothing could be <compared>"}
    section = verdict_section(SimpleNamespace(results=results, path=Path("r")))
    assert section == "<p>There is none: nothing could be &lt;compared&gt;</p>"
    assert verdict_section(SimpleNamespace(results={}, path=Path("r"))) == ""
