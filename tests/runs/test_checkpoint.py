"""Checkpoints: damage is seen, other files are left alone, other settings are refused by name."""

from __future__ import annotations

import os
import random
import zipfile

import pytest
import torch

from gradnas import runs
from gradnas.config import from_json, to_json
from gradnas.data import DataConfig
from gradnas.runs import Run
from gradnas.tasks.images.settings import SearchConfig, TrainConfig
from gradnas.tasks.text.settings import TextTrainConfig

CPU = torch.device("cpu")
ALPHAS = torch.linspace(-1.0, 1.0, 64)


@pytest.fixture
def run(tmp_path):
    """A run with two checkpoints, of steps 1 and 2."""
    run = Run.create(tmp_path / "r", {"type": "SearchConfig"}, seed=3, device=CPU)
    run.append(runs.METRICS, {"epoch": 0})
    run.save_checkpoint({"step": 1, "alphas": ALPHAS})
    run.append(runs.METRICS, {"epoch": 1})
    run.save_checkpoint({"step": 2, "alphas": ALPHAS})
    return run


def saved_with(run, **changes):
    """Replace entries of the checkpoint file, as whoever has it in hand can."""
    path = run.path / runs.CHECKPOINT
    entries = torch.load(path, weights_only=True)
    torch.save({**entries, **changes}, path)


# ---- damage --------------------------------------------------------------------------------------


def test_a_flipped_bit_of_a_tensor_is_damage(run):
    """Torch's reader does not look at the sums that the file holds."""
    path = run.path / runs.CHECKPOINT
    data = bytearray(path.read_bytes())
    place = data.find(ALPHAS.numpy().tobytes())
    data[place + 3] ^= 0x40
    path.write_bytes(data)
    assert not torch.equal(torch.load(path, weights_only=True)["state"]["alphas"], ALPHAS)
    state, note = run.load_checkpoint()
    assert state["step"] == 1 and torch.equal(state["alphas"], ALPHAS)
    assert "checkpoint.pt is damaged" in note and "going on from checkpoint.previous.pt" in note


def test_no_single_flipped_bit_changes_a_state(run):
    path = run.path / runs.CHECKPOINT
    whole = path.read_bytes()
    metrics = (run.path / runs.METRICS).read_bytes()
    numbers = random.Random(0)
    fell_back = 0
    for _ in range(150):
        place, bit = numbers.randrange(len(whole)), numbers.randrange(8)
        data = bytearray(whole)
        data[place] ^= 1 << bit
        path.write_bytes(data)
        (run.path / runs.METRICS).write_bytes(metrics)  # the older state cuts them
        state, note = run.load_checkpoint()
        assert torch.equal(state["alphas"], ALPHAS)
        assert state["step"] == (2 if note is None else 1)
        fell_back += note is not None
    assert fell_back > 30


def test_a_compressed_checkpoint_is_refused(run):
    """What is compressed could unfold without end; torch.save never compresses."""
    path = run.path / runs.CHECKPOINT
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    with pytest.raises(ValueError, match="compressed"):
        runs.read_checkpoint(path)


@pytest.mark.parametrize("state", [None, [], "x", 3, torch.ones(2), {1: 2}])
def test_a_state_of_another_type_is_refused(run, state):
    saved_with(run, state=state)
    with pytest.raises(ValueError, match="not a checkpoint of gradnas"):
        runs.read_checkpoint(run.path / runs.CHECKPOINT)


# ---- other files ---------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["absolute", "relative", "genotype.json"])
def test_a_checkpoint_speaks_of_no_other_file(run, tmp_path, where):
    thesis = tmp_path / "thesis.tex"
    (run.path / "genotype.json").write_text("mine")
    thesis.write_text("years of work")
    name = {"absolute": str(thesis), "relative": "../thesis.tex"}.get(where, where)
    saved_with(run, lengths={name: 0})
    _, note = run.load_checkpoint()
    assert "must be those of metrics.jsonl and timings.jsonl" in note
    assert thesis.read_text() == "years of work"
    assert (run.path / "genotype.json").read_text() == "mine"


@pytest.mark.parametrize("lengths", [None, [], {"metrics.jsonl": "x"}, {"metrics.jsonl": True}])
@pytest.mark.parametrize("where", ["lengths", "crc32"])
def test_lengths_and_sums_are_whole_numbers(run, lengths, where):
    saved_with(run, **{where: lengths})
    with pytest.raises(ValueError, match=f"its {where} must be|the {where} of metrics"):
        runs.read_checkpoint(run.path / runs.CHECKPOINT)


def test_a_negative_length_is_refused(run):
    saved_with(run, lengths={"metrics.jsonl": -5})
    with pytest.raises(ValueError, match="at least 0, not -5"):
        runs.read_checkpoint(run.path / runs.CHECKPOINT)


def test_links_are_not_followed(run, tmp_path):
    target = tmp_path / "mine.txt"
    target.write_text("a long text of mine, longer than all metrics so far\n" * 3)
    before = target.read_text()
    (run.path / runs.METRICS).unlink()
    (run.path / runs.METRICS).symlink_to(target)
    with pytest.raises(ValueError, match=r"cannot cut .*metrics\.jsonl: it is a link"):
        run.load_checkpoint()
    with pytest.raises(ValueError, match=r"cannot write .*metrics\.jsonl: it is a link"):
        run.append(runs.METRICS, {"epoch": 2})
    assert target.read_text() == before


@pytest.mark.parametrize("kind", ["folder", "pipe"])
@pytest.mark.parametrize("name", [runs.CHECKPOINT, runs.METRICS])
def test_a_folder_or_a_pipe_in_place_of_a_file(run, kind, name):
    path = run.path / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    if name == runs.CHECKPOINT:
        _, note = run.load_checkpoint()
        assert f"it is a {'folder' if kind == 'folder' else 'named pipe'}" in note
    else:
        with pytest.raises(ValueError, match="metrics"):
            run.load_checkpoint()


# ---- metrics -------------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["", '{"epoch": 0}\n', '{"epoch": 0}\n{"ep'])
def test_metrics_that_lost_lines_are_said(run, left):
    (run.path / runs.METRICS).write_text(left)
    _, note = run.load_checkpoint()
    assert "metrics.jsonl is shorter than when the checkpoint was written" in note
    run.append(runs.METRICS, {"epoch": 2})
    assert run.records()[-1] == {"epoch": 2}  # on a line of its own


def test_changed_metrics_are_said(run):
    (run.path / runs.METRICS).write_text('{"epoch": 0}\n{"epoch": 7}\n')
    _, note = run.load_checkpoint()
    assert "metrics.jsonl was changed since" in note


# ---- settings ------------------------------------------------------------------------------------


def test_other_settings_are_refused_by_name(run):
    run.save_checkpoint({"step": 3}, {"seed": 0, "weights": {"lr": 0.025, "momentum": 0.9}})
    same = {"weights": {"momentum": 0.9, "lr": 0.025}, "seed": 0}
    assert run.load_checkpoint(same) == ({"step": 3}, None)
    with pytest.raises(ValueError, match=r"weights\.lr was 0\.025 and is 0\.05\. Put"):
        run.load_checkpoint({"seed": 0, "weights": {"lr": 0.05, "momentum": 0.9}})
    with pytest.raises(ValueError, match=r"seed was 0 and is 1; weights was .* no longer there"):
        run.load_checkpoint({"seed": 1})
    with pytest.raises(ValueError, match="epochs was not there and is 3"):
        run.load_checkpoint({**same, "epochs": 3})


def test_a_checkpoint_of_an_earlier_version_is_taken_with_a_word(run):
    state, note = run.load_checkpoint({"seed": 0})
    assert state["step"] == 2 and "an earlier version" in note


IMAGES = SearchConfig(data=DataConfig(source="digits", workers=0))


@pytest.mark.parametrize(
    "change",
    [
        {"device": "cuda"},
        {"threads": 3},
        {"checkpoint_seconds": 1.0},
        {"max_steps": 5},
        {"data": DataConfig(source="elsewhere", workers=2)},
    ],
)
def test_what_may_change_on_the_way(change):
    other = from_json(SearchConfig, {**to_json(IMAGES), **to_json(change)})
    assert other != IMAGES and other.state_settings() == IMAGES.state_settings()


@pytest.mark.parametrize("change", [{"seed": 1}, {"epochs": 7}, {"batch_size": 32}])
def test_what_may_not(change):
    other = from_json(SearchConfig, {**to_json(IMAGES), **change})
    assert other.state_settings() != IMAGES.state_settings()


@pytest.mark.parametrize(
    "settings, may",
    [
        ({"schedule": "exponential", "drop_path": 0.0}, True),
        ({"lr": 0.1, "lr_end": 0.1, "drop_path": 0.0}, True),
        ({"schedule": "exponential", "drop_path": 0.2}, False),
        ({"drop_path": 0.0}, False),
    ],
)
def test_epochs_may_change_where_no_step_depends_on_them(settings, may):
    from gradnas import ConvCell, Genotype

    config = TrainConfig(
        space=ConvCell(), genotype=Genotype.named("DARTS_V2"), auxiliary=False, **settings
    )
    assert config.epochs_may_change is may
    assert ("epochs" not in config.state_settings()) is may
    assert TextTrainConfig.epochs_may_change.fget(None) is True


# ---- digests of tensors --------------------------------------------------------------------------


@pytest.mark.parametrize("name", [runs.ALPHAS, runs.WEIGHTS])
def test_a_flipped_bit_of_weights_or_alphas_is_refused(run, name):
    run.save_tensors(name, {"a": ALPHAS})
    run.save_results({"steps": 3})
    assert torch.equal(Run(run.path).load_tensors(name)["a"], ALPHAS)
    path = run.path / name
    data = bytearray(path.read_bytes())
    data[-2] ^= 0x20
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"{name} is not the file that the run wrote"):
        Run(run.path).load_tensors(name)
