"""Classifiers of pixels in [0, 1]: mean and standard deviation inside the exported program."""

from __future__ import annotations

import importlib.util
import json
import random
import string

import numpy as np
import pytest
import torch

from gradnas import ConvCell, Genotype
from gradnas.cli import main
from gradnas.families.cells import CELLS
from gradnas.tasks.images.export import export_network, export_sentences

SPACE = ConvCell(channels=4, cells=2, nodes=1)
GENOTYPE = Genotype.conv(
    [("sep_conv_3x3", 0), ("max_pool_3x3", 1)], [("skip_connect", 0), ("avg_pool_3x3", 1)]
)
DATA = {
    "name": "drawn",
    "num_classes": 3,
    "in_channels": 3,
    "image_size": 12,
    "class_names": ["a", "b", "c"],
    "mean": [0.1, 0.5, 0.9],
    "std": [0.2, 0.3, 0.05],
}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = SPACE.network(GENOTYPE, 3, 3).train()
    with torch.no_grad():
        for _ in range(3):  # running statistics of their own
            network(torch.randn(8, 3, 12, 12))
    return network.eval()


def pixels(batch):
    return torch.rand(batch, 3, 12, 12, generator=torch.Generator().manual_seed(batch))


def expected(network, x_BCHW):
    """By plain torch."""
    mean = torch.tensor(DATA["mean"])[None, :, None, None]
    std = torch.tensor(DATA["std"])[None, :, None, None]
    with torch.no_grad():
        return network((x_BCHW - mean) / std)


def export(network, path, *, normalised):
    return export_network(
        network,
        path,
        data=DATA,
        genotype=GENOTYPE,
        space=SPACE,
        source=CELLS.source,
        normalised=normalised,
    )


@pytest.mark.parametrize("normalised", [True, False])
def test_source(network, tmp_path, normalised):
    path = tmp_path / "net.py"
    export(network, path, normalised=normalised)
    name = "exported_" + "".join(random.choices(string.ascii_lowercase, k=8))
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    loaded = module.load()
    assert not loaded.training and ("load()" in path.read_text())
    call = "logits_BK = network(x_BCHW)" if normalised else "network(normalise(x_BCHW))"
    assert call in module.__doc__
    x = pixels(5)
    with torch.no_grad():
        found = loaded(x if normalised else module.normalise(x))
    torch.testing.assert_close(found, expected(network, x), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("normalised", [True, False])
def test_torch_program(network, tmp_path, normalised):
    path = tmp_path / "net.pt2"
    export(network, path, normalised=normalised)
    extra = {"gradnas.json": ""}
    program = torch.export.load(path, extra_files=extra).module()
    assert json.loads(extra["gradnas.json"])["normalised"] is normalised
    for batch in (1, 4):
        x = pixels(batch)
        given = x if normalised else by_hand(x)
        torch.testing.assert_close(program(given), expected(network, x), rtol=1e-5, atol=1e-5)


def by_hand(x_BCHW):
    mean = torch.tensor(DATA["mean"])[None, :, None, None]
    std = torch.tensor(DATA["std"])[None, :, None, None]
    return (x_BCHW - mean) / std


@pytest.mark.slow
def test_onnx(network, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    export(network, path, normalised=True)
    session = onnxruntime.InferenceSession(str(path))
    about = json.loads(session.get_modelmeta().custom_metadata_map["gradnas"])
    assert about["normalised"] is True and about["data"]["mean"] == DATA["mean"]
    for batch in (1, 4):
        x = pixels(batch)
        (found,) = session.run(None, {"images": x.numpy()})
        assert np.abs(found - expected(network, x).numpy()).max() < 1e-4


def test_what_goes_in_is_said(tmp_path):
    inside = export_sentences(DATA, tmp_path / "net.onnx", normalised=True)
    assert inside == [
        "in: images (B, 3, 12, 12), float32, pixels in [0, 1]; mean and std are inside",
        "out: logits (B, 3), in the order of class_names",
    ]
    before, _ = export_sentences(DATA, tmp_path / "net.pt2", normalised=False)
    assert before == (
        "in: images (B, 3, 12, 12), float32, pixels in [0, 1] normalised as (x - mean) / std, with "
        "mean and std under data in its metadata (gradnas); --normalised puts that inside"
    )
    before, _ = export_sentences(DATA, tmp_path / "net.py", normalised=False)
    assert "with MEAN and STD in the file, as by its normalise()" in before


# ---- on the command line -------------------------------------------------------------------------


def printed(capsys, *arguments):
    assert main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.slow
def test_export_says_what_goes_in_and_puts_it_inside(tmp_path, capsys):
    run = tmp_path / "run"
    small = ("--epochs", "1", "--per-class", "6", "--channels", "2", "--cells", "2")
    printed(capsys, "train", GENOTYPE.to_text(), "--recipe", "digits-eval", "--out", run, *small)
    path = tmp_path / "net.pt2"
    file, goes_in, comes_out = printed(capsys, "export", run, "-o", path)
    assert file == str(path) and "normalised as (x - mean) / std" in goes_in
    assert goes_in.startswith("in: images (B, 1, 8, 8), float32, ") and "(B, 10)" in comes_out
    _, goes_in, _ = printed(capsys, "export", run, "-o", tmp_path / "all.pt2", "--normalised")
    assert goes_in.endswith("pixels in [0, 1]; mean and std are inside")
    about = {"gradnas.json": ""}
    before = torch.export.load(path, extra_files=about).module()
    inside = torch.export.load(tmp_path / "all.pt2").module()
    data = json.loads(about["gradnas.json"])["data"]
    x = torch.rand(3, 1, 8, 8)
    normalised = (x - data["mean"][0]) / data["std"][0]
    torch.testing.assert_close(inside(x), before(normalised), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_export_of_a_language_model_says_what_goes_in(tmp_path, capsys):
    (tmp_path / "t.txt").write_text("the cat sat\n" * 60)
    run = tmp_path / "run"
    cell = Genotype.recurrent_cell([("tanh", 0), ("relu", 1)]).to_text()
    data = ("--recipe", "text-eval", "--data", tmp_path / "t.txt", "--out", run)
    printed(capsys, "train", cell, *data, "--epochs", "1", "--hidden", "6")
    _, goes_in, comes_out = printed(capsys, "export", run, "-o", tmp_path / "m.pt2")
    assert goes_in.startswith("in: tokens (1, B), int64, and hidden (B, 6), float32")
    assert comes_out == "out: log_prob (1, B, 4) and the next hidden (B, 6)"
    assert main(["export", str(run), "-o", str(tmp_path / "m.pt2"), "--normalised"]) == 2
    assert "--normalised is for images" in capsys.readouterr().err
