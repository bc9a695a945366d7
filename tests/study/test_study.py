"""Whole studies, with trials that run in the process of the test."""

from __future__ import annotations

import hashlib
import json
import shutil
import threading
import time
from pathlib import Path

import in_process
import pytest
from in_process import InProcess

from gradnas import runs
from gradnas.cli import main, study, study_trial
from gradnas.programs.study_report import lines_of
from gradnas.study import plan
from gradnas.study.folder import StudyFolder
from gradnas.study.outcome import outcome_of, results_of

pytestmark = pytest.mark.slow

TASK = str(Path(__file__).parent / "few_choices.py")
SMALL = ["--seeds", "2", "--finals", "2", "--epochs", "2", "--final-epochs", "6", "--random", "3"]
SMALL += ["--batch-size", "32", "--threads", "1", "--device", "cpu", "--methods", "default,gdas"]


def carried_out(monkeypatch, out, *options, engine=None, what=TASK):
    """The exit code of a study, and the trials that were done for it."""
    arguments = [what, "--out", str(out), *SMALL, *options]
    return in_process.carried_out(monkeypatch, arguments, engine)


def digests(out):
    """Of everything that must not depend on how often a study was stopped."""
    found = {}
    names = (runs.CONFIG, runs.METRICS, runs.RESULTS, runs.GENOTYPE, runs.WEIGHTS, runs.ALPHAS)
    for path in sorted(out.rglob("*")):
        if path.name in names:
            found[str(path.relative_to(out))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A study from its beginning to its end, in one go."""
    out = tmp_path_factory.mktemp("study") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        code, done = carried_out(patch, out)
    assert code == 0
    return out, done


def test_every_phase_is_done_once(finished):
    out, done = finished
    assert len(done) == len(set(done))
    assert sorted(name for name in done if name.startswith("search-")) == [
        "search-default-0",
        "search-default-1",
        "search-gdas-0",
        "search-gdas-1",
    ]
    found = outcome_of(StudyFolder.open(out))
    assert [arm.name for arm in found.arms] == ["default", "gdas", "random"]
    assert len(found.arm("random").candidates) == 3
    texts = [own.architecture.to_text() for own in found.arm("random").candidates]
    assert len(set(texts)) == 3
    for arm in found.arms:
        values = [own.short for own in arm.candidates]
        assert None not in values and arm.chosen.short == max(values)
        assert arm.finals.n == 2 and arm.cost > 0 and not arm.failed
    assert len(found.sentences) == 2
    # Each architecture once, whoever found it.
    every = {own.architecture for arm in found.arms for own in arm.candidates}
    assert sum(name.startswith("short-") for name in done) == len(every)
    chosen = {arm.chosen.architecture for arm in found.arms}
    assert sum(name.startswith("final-") for name in done) == 2 * len(chosen)


def test_what_is_written_is_what_came_out(finished):
    out, _ = finished
    folder = StudyFolder.open(out)
    written = json.loads((out / runs.RESULTS).read_text())
    assert written == json.loads(json.dumps(results_of(outcome_of(folder))))
    costs = json.loads((out / "costs.json").read_text())
    assert set(costs["trials"]) == set(folder.names())
    assert costs["total"] == pytest.approx(sum(costs["trials"].values()), abs=0.02)
    page = (out / runs.REPORT).read_text()
    for name in folder.names():
        assert f'href="trials/{name}/"' in page
    assert "<svg" in page and "data:image/svg+xml" in page
    assert "up to 10% of such studies" in page  # 1 - 0.95^2, of two methods


def test_the_test_data_are_for_the_final_trainings(finished):
    out, _ = finished
    for trial in (out / "trials").iterdir():
        results = json.loads((trial / runs.RESULTS).read_text())
        config = json.loads((trial / runs.CONFIG).read_text())
        if trial.name.startswith("short-"):
            assert results["num_test_examples"] == 48 and config["division"]["split_seed"] == 0
        elif trial.name.startswith("final-"):
            assert results["num_test_examples"] == 64 and config["division"] is None
            assert config["epochs"] == 6
        else:
            assert config["division"] == {
                "type": "Division",
                "train_fraction": 0.5,
                "split_seed": 0,
                "valid_per_class": None,
            }
    short = next((out / "trials").glob("short-*"))
    assert main(["evaluate", str(short), "--task", TASK]) == 2


def test_a_second_start_runs_nothing(finished, monkeypatch):
    out, _ = finished
    before = digests(out)
    code, done = carried_out(monkeypatch, out)
    assert (code, done) == (0, []) and digests(out) == before
    # The same task, named from elsewhere.
    monkeypatch.chdir(Path(TASK).parent)
    assert carried_out(monkeypatch, out, what=Path(TASK).name) == (0, [])


def test_a_study_that_is_stopped_ends_the_same(finished, monkeypatch, tmp_path):
    whole, _ = finished
    out = copy_without(finished, tmp_path / "stopped", "search-gdas-1")
    lost = ["search-gdas-1"]
    for trial in (out / "trials").glob("final-*-1"):
        shutil.rmtree(trial)
        lost.append(trial.name)
    assert carried_out(monkeypatch, out, engine=InProcess(most=1)) == (130, lost[:1])
    code, done = carried_out(monkeypatch, out)
    assert code == 0 and sorted(done) == sorted(lost[1:])
    assert digests(out) == digests(whole)


def test_status_and_report_of_a_study(finished, capsys):
    out, _ = finished
    assert main(["study", "status", str(out)]) == 0
    said = capsys.readouterr().out
    assert "search 4/4" in said and "best of gdas so far" in said
    assert max(len(text) for text in said.splitlines()[4:]) <= 80
    assert main(["study", "status", str(out), "-f", "json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert {own["state"] for own in read["trials"]} == {"finished"} and not read["at_work"]
    assert main(["study", "report", str(out), "-f", "json"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert set(read["results"]["arms"]) == {"default", "gdas", "random"}
    assert main(["study", "report", str(out)]) == 0
    assert str(out / runs.REPORT) in capsys.readouterr().out
    page = (out / runs.REPORT).read_text()
    assert ": 2 searches a method, trainings of" in page
    assert "trainings of 1 epoch to choose by, 2 final trainings of 6 epochs" in page
    assert "3 random architectures by --random" in page and "at unequal cost" in page


def test_other_settings_need_another_folder(finished, monkeypatch, capsys):
    out, _ = finished
    assert carried_out(monkeypatch, out, "--lr", "0.1") == (2, [])
    said = capsys.readouterr().err
    assert "other settings" in said and "weights.lr was" in said
    assert carried_out(monkeypatch, out, "--methods", "default") == (2, [])
    assert "methods.gdas" in capsys.readouterr().err
    # Options of a search change every method.
    assert carried_out(monkeypatch, out, "--alpha-lr", "0.1") == (2, [])
    said = capsys.readouterr().err
    assert "default.alphas" in said and "gdas.alphas" in said


def copy_without(finished, out, *trials):
    shutil.copytree(finished[0], out)
    for name in trials:
        shutil.rmtree(out / "trials" / name)
    return out


def test_a_failed_trial_is_a_row(finished, monkeypatch, tmp_path, capsys):
    out = copy_without(finished, tmp_path / "lost", "search-gdas-1")
    engine = InProcess(lose=["search-gdas-1"])
    code, _ = carried_out(monkeypatch, out, engine=engine)
    assert code == 0 and engine.lose == {"search-gdas-1": 3}
    found = outcome_of(StudyFolder.open(out))
    ((name, sentence),) = found.arm("gdas").failed
    assert name == "search-gdas-1" and "killed by SIGKILL" in sentence
    assert len(found.arm("gdas").candidates) == 1 and found.arm("gdas").finals.n == 2
    assert "search-gdas-1 failed" in (out / runs.REPORT).read_text()
    capsys.readouterr()

    # It is not tried again by itself, and it is when that is asked for.
    assert carried_out(monkeypatch, out) == (0, [])
    code, done = carried_out(monkeypatch, out, "--resume-failed")
    assert code == 0 and done[0] == "search-gdas-1"
    assert results_of(outcome_of(StudyFolder.open(out))) == results_of(
        outcome_of(StudyFolder.open(finished[0]))
    )


@pytest.mark.parametrize("phase", ["short", "final"])
def test_a_training_that_fails_is_a_row(finished, monkeypatch, tmp_path, phase):
    chosen = outcome_of(StudyFolder.open(finished[0])).arm("random").chosen.architecture
    names = {"short": plan.short_name(chosen), "final": plan.final_name(chosen, 1)}
    out = copy_without(finished, tmp_path / "lost", names[phase])
    code, _ = carried_out(monkeypatch, out, engine=InProcess(lose=[names[phase]]))
    arm = outcome_of(StudyFolder.open(out)).arm("random")
    assert code == 0 and [name for name, _ in arm.failed] == [names[phase]]
    if phase == "short":  # another one is chosen of those that are left
        assert arm.chosen.architecture != chosen and arm.finals.n == 2
    else:
        assert arm.chosen.architecture == chosen and arm.finals.n == 1
        said = json.loads((out / runs.RESULTS).read_text())["sentences"]
        assert all("nobody can say" in text or "the same architecture" in text for text in said)


def test_one_study_at_a_time_in_a_folder(finished, monkeypatch, capsys):
    out, _ = finished
    held = threading.Event()
    over = threading.Event()

    def work():
        with runs.locked(out):
            held.set()
            over.wait(30)

    other = threading.Thread(target=work)
    other.start()
    held.wait(30)
    assert carried_out(monkeypatch, out) == (2, [])
    over.set()
    other.join()
    assert f"works in {out} already" in capsys.readouterr().err


def test_too_many_failures_end_the_study(finished, monkeypatch, tmp_path, capsys):
    out = copy_without(finished, tmp_path / "lost", "search-gdas-0", "search-gdas-1")
    engine = InProcess(lose=["search-gdas-0", "search-gdas-1"])
    assert carried_out(monkeypatch, out, "--max-failures", "1", engine=engine) == (2, [])
    assert "2 trials failed, and --max-failures is 1" in capsys.readouterr().err


def test_the_numbers_of_random_search_follow_from_the_costs(finished, monkeypatch, tmp_path):
    out = tmp_path / "equal"
    shutil.copytree(finished[0], out)
    folder = StudyFolder.open(out)
    (out / "equal.json").unlink()
    settings = json.loads((out / "study.json").read_text())
    (out / "study.json").write_text(json.dumps({**settings, "random": None}))
    for trial in (out / "trials").iterdir():
        costs = {"search-default-0": 3.0, "search-default-1": 1.0}
        seconds = costs.get(trial.name, 0.75 if trial.name.startswith("search-gdas") else 1.0)
        line = {"epoch": 0, "seconds": 99.0, "cpu_seconds": seconds}
        (trial / runs.TIMINGS).write_text(json.dumps(line) + "\n")
    options = [text for text in SMALL if text not in ("--random", "3")]
    monkeypatch.setattr(study, "engine_of", lambda *_: InProcess())
    assert main(["study", TASK, "--out", str(out), *options]) == 0

    shorts = {}
    for method in ("default", "gdas"):
        arm = outcome_of(folder).arm(method)
        shorts[method] = len({own.architecture for own in arm.candidates})
    equal = json.loads((out / "equal.json").read_text())
    assert equal["cost_of_a_short_training"] == 1.0
    assert equal["costs"] == {"default": 4.0 + shorts["default"], "gdas": 1.5 + shorts["gdas"]}
    # There are six architectures, and no more can be drawn.
    assert equal["numbers"]["default"] == min(4 + shorts["default"], 6)
    assert equal["numbers"]["gdas"] == round(1.5 + shorts["gdas"])
    assert "unequal cost" not in "".join(lines_of(outcome_of(StudyFolder.open(out))))
    names = [arm.name for arm in outcome_of(folder).arms]
    same = equal["numbers"]["default"] == equal["numbers"]["gdas"]
    assert names[2:] == (["random"] if same else ["random-as-default", "random-as-gdas"])


def test_a_folder_that_another_process_holds_is_waited_for(finished, monkeypatch, tmp_path, capsys):
    out = copy_without(finished, tmp_path / "held")
    name = "search-default-0"
    folder = out / "trials" / name
    (folder / runs.STATUS).write_text('{"status": "running"}')  # by somebody else
    before = (folder / runs.METRICS).read_bytes()
    held = threading.Event()
    seen = threading.Event()

    def work():
        with runs.locked(folder):
            held.set()
            seen.wait(30)
            (folder / runs.STATUS).write_text('{"status": "finished"}')

    other = threading.Thread(target=work)
    other.start()
    held.wait(30)
    assert runs.is_locked(folder)

    def waits(seconds):
        seen.set()  # the other one ends when it is waited for
        pause(0.01)

    pause = time.sleep
    monkeypatch.setattr(study_trial.time, "sleep", waits)
    assert main(["study", "trial", str(folder), "--task", TASK]) == 0
    other.join()
    assert "it is waited for" in capsys.readouterr().err
    assert (folder / runs.METRICS).read_bytes() == before and not runs.is_locked(folder)


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["study", "status", "OUT"], "there is no folder"),
        (["study", "status", "."], "holds no study"),
        (["study", "report", "RUN"], "it is a run folder"),
        (["study", "status"], "needs the folder of a study"),
        (["study", "trial", "OUT/trials/x"], "there is no folder"),
        (["study", "digits", "somewhere"], "after a recipe comes no folder"),
        (["study", "no-such-recipe", "--out", "OUT"], "unknown recipe 'no-such-recipe'"),
        (["study", "digits", "--out", "RUN"], "holds other files"),
        (["study", "digits", "--methods", "drats"], "did you mean 'darts'"),
        (["study", "digits", "--methods", "darts,darts"], "names darts twice"),
        (["study", "digits", "--methods", "darts,,gdas"], "a name is missing"),
        (["study", "digits", "--methods", "random"], "name one"),
        (["study", "digits", "--seeds", "0"], "--seeds must be at least 1"),
        (["study", "digits", "--max-failures", "-1"], "--max-failures must be"),
        (["study", "digits", "--devices", "gpu0"], "--devices are numbers"),
        (["study", "digits", "--partition", "long"], "no option of --engine local"),
        (["study", "digits", "--engine", "slurm", "--devices", "0"], "no option of --engine slurm"),
        (["study", "digits", "--training", "no-recipe"], "unknown recipe 'no-recipe'"),
        (["study", "digits", "--methods", "gumbel+unrolled:mode=x"], "mode must be"),
        (["study", "digits", "--hidden", "7"], "no setting of ConvCell"),
        (["study", "digits", "--methods", "gdas", "--relaxation", "sigmoid"], "in --methods"),
        (["study", "digits", "--methods", "snas,SNAS+first-order"], "no Relaxation is called"),
        (["study", "digits", "--methods", "softmax,Softmax"], "twice: in folders both are"),
        (["study", "digits", "--budget-macs", "1e4", "--budget-params", "9"], "can hold"),
        (["study", "text", "--budget-params", "9"], "is for searches on images"),
        (["study", "digits", "--devices", "0"], "this machine has no usable CUDA device"),
        (["study", "digits", "--devices", "0", "--device", "cpu"], "are on --device cpu"),
        (["study", "status", "RUN", "--seeds", "3"], "--seeds is no option of gradnas study stat"),
        (["study", "digits", "--tensorboard"], "leave out --tensorboard"),
        (["study", "digits", "--engine", "ray"], "pip install 'gradnas[ray]'"),
        (["study", "digits", "--engine", "slurm"], "pip install 'gradnas[slurm]'"),
    ],
)
def test_bad_input_is_one_sentence(
    arguments, sentence, tmp_path, capsys, monkeypatch, finished, recwarn
):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    monkeypatch.setitem(__import__("sys").modules, "submitit", None)
    run = finished[0] / "trials" / "search-default-0"
    monkeypatch.chdir(tmp_path)
    places = {"OUT": str(tmp_path / "out"), "RUN": str(run)}
    given = []
    for text in arguments:
        for word, place in places.items():
            text = text.replace(word, place)
        given.append(text)
    assert main(given) == 2
    said = capsys.readouterr().err.strip()
    assert sentence in said and said.startswith("gradnas: ") and "\n" not in said
    assert not (tmp_path / "out").exists()


def test_a_method_that_does_not_fit_is_refused_before_anything_is_run(tmp_path, capsys):
    out = tmp_path / "out"
    code = main(["study", TASK, "--methods", "sigmoid+reinforce", "--out", str(out)])
    said = capsys.readouterr().err
    assert code == 2 and "the method sigmoid-reinforce does not fit" in said
    assert not out.exists()


def test_a_trial_without_its_data_fails_with_its_sentence(finished, tmp_path, capsys):
    out = copy_without(finished, tmp_path / "away", "search-default-0")
    path = out / "plan" / "search-default-0.json"
    assert main(["study", "trial", str(out / "trials" / "search-default-0")]) == 2
    assert "give it with --task" in capsys.readouterr().err
    path.write_text("{")
    assert main(["study", "trial", str(out / "trials" / "search-default-0"), "--task", TASK]) == 2
    assert str(path) in capsys.readouterr().err
