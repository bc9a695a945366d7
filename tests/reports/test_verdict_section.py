"""The section of a report on what a search is worth, without a search."""

from pathlib import Path
from types import SimpleNamespace

from gradnas.reports.verdict import verdict_section
from gradnas.search.verdict import Candidate, Judged, Verdict, Yardstick
from gradnas.tasks.sentences import verdict_lines


def test_that_there_is_no_verdict_is_said_with_its_reason():
    results = {"no_verdict": "nothing could be <compared>"}
    section = verdict_section(SimpleNamespace(results=results, path=Path("r")))
    assert section == "<p>There is none: nothing could be &lt;compared&gt;</p>"
    assert verdict_section(SimpleNamespace(results={}, path=Path("r"))) == ""


def judged(name: str, state: str) -> Judged:
    alternative = None if state == "not compared" else "b"
    return Judged(name, "a", 0.4, alternative, 0.2, 0.1, state)


def test_a_verdict_on_some_choices_does_not_begin_with_decided():
    choices = (judged("x", "decided"), judged("y", "not compared"), judged("z", "not compared"))
    verdict = Verdict(Yardstick(), 64, 8, None, 0.5, choices=choices)
    assert verdict.sentence.startswith("Of 3 choices 1 was compared: decided, ")
    whole = Verdict(Yardstick(), 64, 8, None, 0.5, choices=choices[:1])
    assert whole.sentence.startswith("Decided: ")
    none = Verdict(Yardstick(), 64, 8, None, 0.5, choices=choices[1:])
    assert none.sentence.startswith("No other architecture was compared")


def test_a_better_candidate_is_taken_by_a_command_or_in_python():
    candidates = (Candidate('{"x": "a"}', 0.5), Candidate('{"x": "b"}', 0.2, 0.3, 0.1))
    verdict = Verdict(Yardstick(), 64, 8, None, 0.5, candidates, 2, (), (judged("x", "decided"),))
    assert "result.derive(candidates=2) takes it" in verdict.sentence
    typed = verdict_lines({"verdict": verdict.to_json()}, " --task my_task.py")
    assert typed[-1] == """best candidate: gradnas train '{"x": "b"}' --task my_task.py"""
    assert not any("result.derive" in line for line in typed)
    section = verdict_section(
        SimpleNamespace(results={"verdict": verdict.to_json()}, path=Path("r"))
    )
    assert "result.derive" not in section and "gradnas train" in section


def test_one_random_architecture_tells_nothing_of_chance():
    one = Verdict(Yardstick("accuracy", True), 64, 8, None, 0.99, random=(0.45,))
    assert "one random architecture (0.45), too few to tell" in one.sentence
    two = Verdict(Yardstick("accuracy", True), 64, 8, None, 0.99, random=(0.45, 0.47))
    assert "it is better than 2 random ones (0.46 ± " in two.sentence


def caption_of(**settings) -> str:
    results = {"verdict": Verdict(Yardstick(), 64, 8, None, 0.5, **settings).to_json()}
    section = verdict_section(SimpleNamespace(results=results, path=Path("r")))
    return section.partition('class="caption">')[2]


def test_the_caption_tells_of_batchnorm_and_of_leads_where_there_are_any():
    bare = caption_of(choices=(judged("x", "not compared"),))
    assert "BatchNorm" not in bare and "Lead" not in bare
    compared = caption_of(choices=(judged("x", "decided"),), recalibrated=True)
    assert "BatchNorm recalibrated" in compared and "Lead: how much better" in compared
