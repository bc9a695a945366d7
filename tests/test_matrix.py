"""Methods, spaces, gradients and kinds of data: the page says what runs and what is refused."""

from __future__ import annotations

import os
import sys

import pytest
from cases import ROOT
from matrix import ALL_GRADIENTS, METHODS, RUNS, WHERE, outcome

from gradnas.randomness import seed_for

sys.path.insert(0, str(ROOT / "docs"))

import methods

PAGE = methods.PAGE.read_text(encoding="utf-8")
TRIED = 10  # combinations, of nearly a thousand; all of them with GRADNAS_ALL_TESTS=1
COMBINATIONS = [(m, w, g) for m in METHODS for w in WHERE for g in ALL_GRADIENTS]


def some():
    """An even part, another one for every number of combinations."""
    if os.environ.get("GRADNAS_ALL_TESTS"):
        return COMBINATIONS
    ranked = sorted(range(len(COMBINATIONS)), key=lambda k: seed_for(k, len(COMBINATIONS)))
    return [COMBINATIONS[k] for k in ranked[:TRIED]]


def test_the_page_has_all_methods_and_combinations(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["methods.py", "--check"])
    code = methods.main()
    assert code == 0, f"run `python docs/methods.py`: {capsys.readouterr()}"
    assert set(methods.read(PAGE)) == {(method, where) for method in METHODS for where in WHERE}


@pytest.mark.slow
@pytest.mark.parametrize(("method", "where", "gradient"), some())
def test_what_the_page_says_is_so(method, where, gradient):
    found = outcome(method, where, gradient)
    said = methods.says(PAGE, method, where, gradient)
    assert said == (None if found == RUNS else found)
    if found != RUNS:
        assert len(found) > 40 and "Traceback" not in found  # a sentence, and no torch of its own
