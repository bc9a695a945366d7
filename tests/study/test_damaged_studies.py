"""Files of a study that hold something else: refused with a sentence that names the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gradnas.cli import main
from gradnas.config import to_json
from gradnas.families import recipes
from gradnas.study.folder import EQUAL, SETTINGS, StudyFolder
from gradnas.study.outcome import measure_of, numbers_of_random, study_random
from gradnas.study.plan import StudySettings
from gradnas.study.trials import cost_of, state_of
from gradnas.tasks.division import Division

TRIAL = "search-default-0"


@pytest.fixture
def study(tmp_path):
    search = recipes.search_recipe("digits")
    settings = StudySettings(
        what="digits",
        seeds=1,
        seed=0,
        finals=1,
        short_epochs=1,
        final_epochs=1,
        training="digits-eval",
        division=Division(),
        threads=1,
        methods={"default": to_json(search)},
    )
    (tmp_path / SETTINGS).write_text(json.dumps(to_json(settings)))
    run = tmp_path / "trials" / TRIAL
    run.mkdir(parents=True)
    (run / "status.json").write_text('{"status": "finished"}')
    (run / "timings.jsonl").write_text('{"epoch": 0, "seconds": 3.0, "cpu_seconds": 2.0}\n')
    (tmp_path / "plan").mkdir()
    (tmp_path / "plan" / f"{TRIAL}.json").write_text('{"epochs": 5}')
    return tmp_path


def test_what_is_whole_is_read(study):
    folder = StudyFolder.open(study)
    assert measure_of(folder).key == "accuracy"
    assert cost_of(folder, TRIAL) == 2.0
    state = state_of(folder, TRIAL, "test_accuracy")
    assert (state.state, state.epochs, state.seconds) == ("finished", 5, 3.0)


@pytest.mark.parametrize(
    "methods", [{}, {"a": {}}, {"a": {"type": []}}, {"a": {"type": "TrainConfig"}}, {"a": None}]
)
def test_methods_that_are_no_searches(methods, study):
    settings = json.loads((study / SETTINGS).read_text()) | {"methods": methods}
    (study / SETTINGS).write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"study\.json"):
        StudyFolder.open(study)


@pytest.mark.parametrize("value", ["x", None, [], {}, True, 1e308])
@pytest.mark.parametrize("key", ["seconds", "cpu_seconds"])
def test_times_that_are_no_numbers(key, value, study):
    """Passed over they would count as nothing, and random search would be given less."""
    timed = {"epoch": 0, "seconds": 3.0, "cpu_seconds": 2.0, key: value}
    (study / "trials" / TRIAL / "timings.jsonl").write_text(json.dumps(timed) + "\n")
    with pytest.raises(ValueError, match=rf"timings\.jsonl, line 1: {key} must be"):
        state_of(StudyFolder.open(study), TRIAL, "test_accuracy")


def test_times_that_are_damaged(study):
    (study / "trials" / TRIAL / "timings.jsonl").write_text('{"epoch": 0, "seco\n')
    with pytest.raises(ValueError, match=r"timings\.jsonl is damaged"):
        cost_of(StudyFolder.open(study), TRIAL)


@pytest.mark.parametrize("value", ["x", None, 1e308, 1.5, []])
def test_plans_with_other_epochs(value, study):
    (study / "plan" / f"{TRIAL}.json").write_text(json.dumps({"epochs": value}))
    with pytest.raises(ValueError, match=rf"{TRIAL}\.json: epochs must be a whole number"):
        state_of(StudyFolder.open(study), TRIAL, "test_accuracy")


@pytest.mark.parametrize("drawn", [None, 5, {}, "x", [5], [{}], [{"type": "ConvCell"}]])
def test_drawn_architectures_that_are_none(drawn, study):
    (study / EQUAL).write_text(json.dumps({"drawn": drawn, "numbers": {}}))
    with pytest.raises(ValueError, match=r"equal\.json"):
        study_random(StudyFolder.open(study))


@pytest.mark.parametrize(
    "numbers",
    [None, [], "x", {"default": "x"}, {"default": -1}, {"default": 1e308}, {"other": 1}],
)
def test_numbers_of_random_architectures_that_are_none(numbers, study):
    (study / EQUAL).write_text(json.dumps({"drawn": [], "numbers": numbers}))
    with pytest.raises(ValueError, match=r"equal\.json is damaged"):
        numbers_of_random(StudyFolder.open(study))


@pytest.mark.parametrize("name", ["results.json", "report.html", "plan", "logs", "thesis.tex"])
def test_a_folder_of_somebody_elses_is_refused(name, tmp_path):
    """Also where its files are called as a study's."""
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"holds other files .{name}. and no study"):
        StudyFolder(tmp_path).check_free()
    assert (tmp_path / name).read_text() == "mine"
    (tmp_path / name).rename(tmp_path / f".{SETTINGS}.abcd1234")  # what a killed process left
    StudyFolder(tmp_path).check_free()


def test_a_folder_that_cannot_be_made(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    task = str(Path(__file__).parent / "few_choices.py")
    small = ["--seeds", "1", "--finals", "1", "--device", "cpu", "--threads", "1"]
    assert main(["study", task, *small, "--out", str(tmp_path / "file" / "out")]) == 2
    said = capsys.readouterr().err
    assert "cannot make the folder" in said and "Not a directory" in said
    assert said.count("gradnas: ") == 1 and "Traceback" not in said


def test_what_killed_writes_have_left_is_removed_and_nothing_else(study):
    ours = (".costs.json.90wsd5qn", ".equal.json.0buqwwdo", f"plan/.{TRIAL}.json.pf0h_hzd")
    others = (".notes.json.90wsd5qn", "plan/.hidden", "results.json")
    for name in (*ours, *others):
        (study / name).write_text("{")
    StudyFolder.open(study).remove_killed_writes()
    assert not any((study / name).exists() for name in ours)
    assert all((study / name).exists() for name in others)
