"""The command line: every command, every kind of bad input, exit codes, one sentence."""

from __future__ import annotations

import errno
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
import typing

import pytest
import torch
from cases import SHARED_DATA

from gradnas import Genotype, runs
from gradnas.cli import groups, main
from gradnas.cli.groups import OTHERS
from gradnas.cli.main import AnyCommand

TINY = (
    "--epochs",
    "1",
    "--channels",
    "2",
    "--cells",
    "2",
    "--batch-size",
    "256",
    "--threads",
    "1",
    "--device",
    "cpu",
)


@pytest.fixture
def fails(capsys):
    """Run a command that must fail with exit code 2 and one sentence, and return the sentence."""

    def run(*arguments, code=2):
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == code
        said = capsys.readouterr().err.strip().splitlines()
        # What was read is said before what a run comes to.
        errors = "\n".join(line for line in said if not line.startswith("data: "))
        assert (
            errors.startswith("gradnas: ")
            and "Traceback" not in errors
            and len(errors.splitlines()) == 1
        )
        return errors

    return run


def ok(*arguments):
    assert main([str(a) for a in arguments]) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A searched and trained run folder."""
    path = tmp_path_factory.mktemp("cli") / "run"
    ok("search", "digits", "--out", path, *TINY)
    ok("train", path, *TINY)
    return path


@pytest.mark.slow
def test_search_train_evaluate_report_draw_and_export(trained, tmp_path, capsys):
    assert {p.name for p in trained.iterdir()} >= {
        runs.CONFIG,
        runs.ENVIRONMENT,
        runs.METRICS,
        runs.ALPHAS,
        runs.GENOTYPE,
        runs.CHECKPOINT,
        runs.PICTURE,
        runs.RESULTS,
        "train",
    }
    results = json.loads((trained / "train" / runs.RESULTS).read_text())
    ok("evaluate", trained)
    assert f"test accuracy {100 * results['test_accuracy']:.2f}%" in capsys.readouterr().out
    ok("report", trained)
    assert (trained / runs.REPORT).stat().st_size > 10_000
    for what in (trained, trained / runs.GENOTYPE, "DARTS_V2"):
        ok("draw", what, "-o", tmp_path / "cells.png")
        assert (tmp_path / "cells.png").read_bytes().startswith(b"\x89PNG")
    ok("export", trained, "-o", tmp_path / "model.py")
    assert "gradnas" not in [
        line for line in (tmp_path / "model.py").read_text().splitlines() if "import" in line
    ]


@pytest.mark.slow
def test_a_config_file_repeats_the_run(trained, tmp_path):
    ok("search", trained / runs.CONFIG, "--out", tmp_path / "again")
    assert (tmp_path / "again" / runs.METRICS).read_bytes() == (trained / runs.METRICS).read_bytes()
    ok("train", trained / "train" / runs.CONFIG, "--out", tmp_path / "train")
    assert (tmp_path / "train" / runs.METRICS).read_bytes() == (
        trained / "train" / runs.METRICS
    ).read_bytes()


def test_train_from_a_name_and_from_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Genotype.named("PC_DARTS_cifar").save("g.json")
    ok("train", "DARTS_V2", "--recipe", "digits-eval", *TINY)
    ok("train", "DARTS_V2", "--recipe", "digits-eval", *TINY)
    ok("train", "g.json", "--recipe", "digits-eval", *TINY)
    assert sorted(p.name for p in (tmp_path / "runs").iterdir()) == [
        "DARTS_V2-digits-eval-1",
        "DARTS_V2-digits-eval-2",
        "g-digits-eval-1",
    ]


def folder_of_images(root, side, num, splits=("train", "val")):
    """An ImageFolder of two classes: dark and bright noise."""
    import numpy as np
    from PIL import Image

    numbers = np.random.default_rng(0)
    for split in splits:
        for k, name in enumerate(("dark", "bright")):
            (root / split / name).mkdir(parents=True)
            for i in range(num):
                pixels = numbers.integers(0, 128, (side, side, 3), dtype=np.uint8) + np.uint8(
                    120 * k
                )
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.mark.slow
def test_an_image_folder_is_searched_and_trained(tmp_path, capsys):
    """Images sorted by class are shuffled before they are halved."""
    data = folder_of_images(tmp_path / "images", side=16, num=24)
    ok(
        "search",
        "darts-cifar10",
        "--data",
        data,
        "--out",
        tmp_path / "run",
        *TINY[:-6],
        "--batch-size",
        8,
    )
    ok(
        "train",
        tmp_path / "run",
        "--recipe",
        "cifar10-eval",
        "--no-auxiliary",
        *TINY[:-6],
        "--batch-size",
        8,
    )
    assert json.loads((tmp_path / "run" / "train" / runs.RESULTS).read_text())["data"][
        "class_names"
    ] == [
        "bright",
        "dark",
    ]


def test_the_imagenet_recipe_streams_and_trains_with_its_auxiliary_head(tmp_path):
    data = folder_of_images(tmp_path / "images", side=230, num=4)
    size = ("--channels", 4, "--cells", 3, "--batch-size", 4, "--epochs", 1, "--workers", 2)
    ok(
        "train",
        "DARTS_V2",
        "--recipe",
        "imagenet-eval",
        "--data",
        data,
        "--out",
        tmp_path / "run",
        *size,
    )
    config = json.loads((tmp_path / "run" / runs.CONFIG).read_text())
    assert (
        config["auxiliary"]
        and config["label_smoothing"] == 0.1
        and config["schedule"] == "exponential"
    )
    results = json.loads((tmp_path / "run" / runs.RESULTS).read_text())
    assert results["data"]["image_size"] == 224 and results["num_auxiliary_params"] > 0


@pytest.mark.skipif(
    not (SHARED_DATA / "cifar10").is_dir(), reason="needs CIFAR-10 in ../shared/data/cifar10"
)
def test_the_cifar_recipes_on_real_images(tmp_path):
    import pyarrow.parquet as pq

    for split in ("train", "test"):
        table = pq.read_table(SHARED_DATA / "cifar10" / "test-00000-of-00001.parquet")
        pq.write_table(table.slice(0, 96), tmp_path / f"{split}-00000-of-00001.parquet")
    size = ("--channels", 4, "--cells", 3, "--batch-size", 48, "--epochs", 1)
    ok("search", "darts-cifar10", "--data", tmp_path, "--out", tmp_path / "run", *size)
    ok("train", tmp_path / "run", *size)
    config = json.loads((tmp_path / "run" / "train" / runs.CONFIG).read_text())
    assert config["data"]["source"] == str(tmp_path) and config["data"]["augment"]["cutout"] == 16
    assert config["auxiliary"] and config["drop_path"] == 0.2


def test_recipes_are_listed_within_80_columns(capsys):
    ok("recipes")
    out = capsys.readouterr().out
    for name in (
        "darts-cifar10",
        "darts-cifar10-first-order",
        "digits",
        "cifar10-eval",
        "imagenet-eval",
        "DARTS_V2",
    ):
        assert name in out
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    "command", ["search", "train", "resume", "evaluate", "draw", "report", "export", "recipes"]
)
def test_help(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0 and "usage: gradnas" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["search", "study", "train", "discover"])
def test_the_help_of_many_options_has_them_in_groups(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        main([command, "--help"])
    rows = capsys.readouterr().out.splitlines()
    boxes = [row for row in rows if row.startswith("╭")]
    assert len(boxes) > 5 and all(len(row) == 80 for row in rows if row[:1] in tuple("╭│╰"))
    assert not any(OTHERS in row or "─ options" in row for row in boxes)
    # Every option is there once, that of the run folder in the last box.
    options = [row.split()[1] for row in rows if row.startswith("│ --")]
    assert len(options) == len(set(options)) and "--seed" in options
    at = next(k for k, row in enumerate(rows) if row.startswith("│ --out "))
    assert "run folder and output" in [row for row in rows[:at] if row.startswith("╭")][-1]


ALL_COMMANDS = (
    *("search", "resume", "train", "evaluate", "generate", "draw", "report", "watch", "export"),
    *("latency measure", "latency fit", "latency show", "data", "discover", "study", "recipes"),
)


def test_every_option_of_every_command_has_a_group(capsys, monkeypatch):
    monkeypatch.setattr(groups, "FEWEST", 0)
    monkeypatch.setenv("COLUMNS", "80")
    seen = set()
    for command in ALL_COMMANDS:
        with pytest.raises(SystemExit):
            main([*command.split(), "--help"])
        said = capsys.readouterr().out
        assert f"usage: gradnas {command}" in said
        others = said.partition(f"─ {OTHERS} ")[2]
        assert not others, f"{command}: {others}"
        seen.update(re.findall(r"--(?:no-)?([a-z][a-z-]+)", said))
    names = {name for own in groups.GROUPS.values() for name in own}
    assert names <= seen  # no group names an option that is no more
    commands = {command.split()[0] for command in ALL_COMMANDS}
    assert commands == {
        typing.get_args(annotated)[1].name for annotated in typing.get_args(AnyCommand)
    }


def test_without_a_command_it_says_what_one_can_do(capsys):
    assert main([]) == 0
    title, blank, *lines = capsys.readouterr().out.splitlines()
    assert title.startswith("gradnas: ") and not blank
    assert len(lines) == 10 and max(map(len, lines)) <= 80
    assert all(line.startswith("  gradnas ") for line in lines)


@pytest.mark.parametrize(
    "arguments", [["serach"], ["search"], ["search", "digits", "--epocs", "3"]]
)
def test_wrong_usage(arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2


# ---- bad input -----------------------------------------------------------------------------------


def test_unknown_recipe(fails):
    assert "unknown recipe 'digtis' (did you mean 'digits'?)" in fails("search", "digtis")
    assert "did you mean 'cifar10-eval'" in fails("train", "DARTS_V2", "--recipe", "cifar-eval")


def test_reinforce_replaces_the_gradient_of_a_recipe(fails, tmp_path):
    tiny = (
        "--epochs",
        2,
        "--warmup-epochs",
        1,
        "--batch-size",
        256,
        "--max-steps",
        4,
        "--threads",
        1,
    )
    ok("search", "proxyless-digits", "--reinforce", 3, "--out", tmp_path / "run", *tiny)
    config = json.loads((tmp_path / "run" / runs.CONFIG).read_text())
    assert config["gradient"]["type"] == "Reinforce" and config["gradient"]["samples"] == 3
    assert (tmp_path / "run" / runs.GENOTYPE).exists()
    assert "--reinforce must be at least 1, not 0" in fails(
        "search", "proxyless-digits", "--reinforce", 0
    )
    dense = fails("search", "digits", "--reinforce", 2, "--out", tmp_path / "dense", *TINY)
    assert (
        "use BinaryGates() or GumbelSoftmax(hard=True)" in dense
        and not (tmp_path / "dense").exists()
    )


def test_unknown_config_field(fails, tmp_path):
    (tmp_path / "c.json").write_text('{"epoch": 3}')
    assert "unknown field 'epoch' (did you mean 'epochs'?)" in fails("search", tmp_path / "c.json")
    (tmp_path / "c.json").write_text('{"epochs": }')
    assert "is not a JSON file" in fails("search", tmp_path / "c.json")
    assert "cannot read" in fails("search", tmp_path / "nothing.json")


def test_a_config_of_the_other_kind(fails, trained):
    assert "use: gradnas train" in fails("search", trained / "train" / runs.CONFIG)


def test_missing_data_folder(fails, tmp_path):
    sentence = fails(
        "search", "darts-cifar10", "--data", tmp_path / "nothing", "--out", tmp_path / "r"
    )
    assert "nothing" in sentence and "train-*.parquet" in sentence and "train/<class>" in sentence
    assert not (tmp_path / "r").exists()


def test_corrupt_parquet_and_image(fails, tmp_path):
    for split in ("train", "test"):
        (tmp_path / f"{split}-00000-of-00001.parquet").write_bytes(b"PAR1 rubbish")
    assert "train-00000-of-00001.parquet" in fails("search", "darts-cifar10", "--data", tmp_path)
    images = tmp_path / "images"
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (images / split / name).mkdir(parents=True)
            (images / split / name / "1.png").write_bytes(b"rubbish")
    assert "1.png" in fails("search", "darts-cifar10", "--data", images)


def test_label_outside_the_classes(fails, tmp_path):
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    image = {"bytes": buffer.getvalue(), "path": None}
    features = {
        "label": {"names": ["cat", "dog"], "_type": "ClassLabel"},
        "img": {"_type": "Image"},
    }
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for split in ("train", "test"):
        table = pa.table({"img": [image] * 6, "label": pa.array([0, 1, 0, 7, 1, 0], pa.int64())})
        pq.write_table(
            table.replace_schema_metadata(metadata), tmp_path / f"{split}-00000-of-00001.parquet"
        )
    sentence = fails("search", "darts-cifar10", "--data", tmp_path)
    assert "7" in sentence and "train-00000-of-00001.parquet" in sentence


def test_bad_genotypes(fails, tmp_path):
    good = Genotype.named("DARTS_V2").to_json()
    path = tmp_path / "g.json"
    for old, new, wanted in (
        ('"sep_conv_3x3"', '"sep_conv_3x4"', "sep_conv_3x4"),
        ('["sep_conv_3x3", 0]', '["sep_conv_3x3", 9]', "predecessor"),
    ):
        path.write_text(json.dumps(good).replace(old, new, 1))
        assert wanted in fails("train", path, "--recipe", "digits-eval", "--out", tmp_path / "r")
    Genotype.named("ENAS").save(path)
    assert "is a recurrent cell, and the recipe trains another kind" in fails(
        "train", path, "--recipe", "digits-eval"
    )
    assert "did you mean 'DARTS_V2'" in fails("train", "DARTS_V22")


def test_hostile_genotypes_execute_nothing(fails, tmp_path, monkeypatch):
    """What is read is data: nothing in it runs."""
    monkeypatch.chdir(tmp_path)
    hostile = "__import__('os').system('touch PWNED')"
    for text in (
        hostile,
        f"Genotype(normal={hostile}, normal_concat=[2], reduce=[], reduce_concat=[2])",
    ):
        (tmp_path / "g.json").write_text(text)
        fails("train", tmp_path / "g.json")
        fails("train", text)
        config = {"type": "TrainConfig", "space": {"type": "ConvCell"}, "genotype": text}
        (tmp_path / "config.json").write_text(json.dumps(config))
        fails("train", tmp_path / "config.json")
    assert not (tmp_path / "PWNED").exists()


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch PWNED",))


def test_hostile_checkpoints_and_weights_execute_nothing(fails, trained, tmp_path, monkeypatch):
    """What is read is data: nothing in it runs."""
    monkeypatch.chdir(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / runs.CONFIG).write_bytes((trained / runs.CONFIG).read_bytes())
    (run / runs.ENVIRONMENT).write_bytes((trained / runs.ENVIRONMENT).read_bytes())
    torch.save({"lengths": {}, "state": Hostile()}, run / runs.CHECKPOINT)
    assert "more than tensors and plain values" in fails("resume", run)
    (run / runs.CHECKPOINT).write_bytes(pickle.dumps(Hostile()))
    assert "is damaged" in fails("resume", run)
    weights = tmp_path / "trained"
    weights.mkdir()
    for name in (runs.CONFIG, runs.RESULTS):
        (weights / name).write_bytes((trained / "train" / name).read_bytes())
    (weights / runs.WEIGHTS).write_bytes(pickle.dumps(Hostile()))
    assert "is not the file that the run wrote" in fails("evaluate", weights)
    assert not (tmp_path / "PWNED").exists()


def test_a_folder_that_holds_a_finished_run(fails, trained):
    before = {p.name: p.stat().st_mtime_ns for p in trained.iterdir()}
    assert "already holds a finished run" in fails("search", "digits", "--out", trained, *TINY)
    assert "is finished" in fails("resume", trained)
    assert before == {p.name: p.stat().st_mtime_ns for p in trained.iterdir()}


def test_no_write_permission(fails, tmp_path):
    place = tmp_path / "closed"
    place.mkdir(mode=0o500)
    if os.access(place, os.W_OK):  # root may write anywhere but here
        place = "/proc"
    assert "cannot make the folder" in fails("search", "digits", "--out", f"{place}/run", *TINY)


@pytest.mark.slow
def test_full_disk(capsys, tmp_path, monkeypatch):
    """The disk is full once there is a checkpoint: that is said, and what was written is whole."""
    write, writes = os.fsync, []

    def limited(handle):
        writes.append(handle)
        if len(writes) > 11:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(handle)

    monkeypatch.setattr(os, "fsync", limited)
    assert main(["search", "digits", "--out", str(tmp_path / "run"), *TINY]) == 2
    sentence = capsys.readouterr().err.strip().splitlines()[-1]
    assert "No space left on device" in sentence and "gradnas resume" in sentence
    monkeypatch.undo()
    assert json.loads((tmp_path / "run" / runs.CONFIG).read_text())
    ok("resume", tmp_path / "run")


def test_nan_loss(fails, trained, tmp_path):
    config = json.loads((trained / runs.CONFIG).read_text())
    config["weights"] |= {"lr": 1e30, "lr_end": 1e30, "clip_norm": None}
    (tmp_path / "c.json").write_text(json.dumps(config))
    sentence = fails("search", tmp_path / "c.json", "--out", tmp_path / "run")
    assert (
        "step 1" in sentence
        and "smaller learning rate" in sentence
        and "nothing was saved yet" in sentence
    )
    assert runs.Run(tmp_path / "run").status()["status"] == "failed"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_asked_for_but_absent(fails, tmp_path):
    assert "no usable CUDA device" in fails(
        "search", "digits", "--device", "cuda", "--out", tmp_path / "r"
    )
    assert "unknown device 'gpu'" in fails(
        "search", "digits", "--device", "gpu", "--out", tmp_path / "r"
    )
    assert not (tmp_path / "r").exists()


def test_numbers_out_of_range(fails, tmp_path):
    assert "epochs must be at least 1" in fails("search", "digits", "--epochs", "0")
    assert "cells must be" in fails("search", "digits", "--cells", "1")
    assert "even height and width" in fails(
        "search", "digits", "--image-size", "6", "--out", tmp_path / "r", *TINY
    )


def test_folders_that_are_no_runs(fails, tmp_path):
    for command in (("resume",), ("evaluate",), ("report",), ("export", "-o", tmp_path / "m.py")):
        assert "has no config.json" in fails(*command, tmp_path)
        assert "there is no run folder" in fails(*command, tmp_path / "x")
    assert "has no config.json" in fails("draw", tmp_path, "-o", tmp_path / "x.svg")
    assert "ends in" in fails("draw", "DARTS_V2", "-o", tmp_path / "x.gif")


def test_a_search_that_was_not_trained_says_how(fails, tmp_path):
    ok("search", "digits", "--out", tmp_path / "run", "--max-steps", "1", *TINY)
    assert "gradnas train" in fails("evaluate", tmp_path / "run")


@pytest.mark.slow
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path):
    command = [
        sys.executable,
        "-m",
        "gradnas",
        "search",
        "digits",
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "200",
    ]
    process = subprocess.Popen([*command, "--channels", "2"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    process.stderr.readline()  # the first epoch is done
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and f"go on with: gradnas resume {tmp_path / 'run'}" in errors
    assert runs.Run(tmp_path / "run").status()["status"] == "interrupted"
    assert runs.Run(tmp_path / "run").load_checkpoint()[0] is not None
