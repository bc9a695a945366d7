"""Exported files give the network's logits, without gradnas, for any batch size, and say what
images they want."""

import importlib.util
import json
import logging
import re
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

import gradnas
from gradnas import ConvCell, Genotype, runs
from gradnas.config import to_json
from gradnas.data import DataConfig
from gradnas.families import CELLS
from gradnas.programs.trained import export_trained, trained_run
from gradnas.tasks.images.export import export_network
from gradnas.tasks.images.settings import SearchConfig, TrainConfig

CONV_NAMES = ("NASNet", "AmoebaNet", "DARTS_V1", "DARTS_V2", "PC_DARTS_cifar", "PC_DARTS_image")
DATA = {
    "name": "spots",
    "in_channels": 2,
    "image_size": 8,
    "num_classes": 3,
    "class_names": ["a", 'the "b"', "c's"],
    "mean": [0.25, 0.5],
    "std": [0.125, 1 / 3],
}
SPACE = ConvCell(channels=4, cells=3, nodes=2)
GENOTYPE = Genotype.conv(
    [("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 2), ("dil_conv_5x5", 0)],
    [("skip_connect", 0), ("avg_pool_3x3", 1), ("conv_7x1_1x7", 1), ("none", 2)],
)


def trained(space=SPACE, genotype=GENOTYPE, auxiliary=False, data=DATA):
    """A network with random weights and statistics, in training mode as a training leaves it."""
    network = space.network(genotype, data["num_classes"], data["in_channels"], auxiliary=auxiliary)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                noise = torch.rand(tensor.shape, generator=rng)
                tensor.copy_(
                    0.5 + noise
                    if tensor.dim() == 1
                    else 4 * (noise - 0.5) / tensor[0].numel() ** 0.5
                )
            assert tensor.dim() <= 4, name
    return network.to(memory_format=torch.channels_last).train()


def images(batch, data=DATA, dtype=torch.float32):
    shape = (batch, data["in_channels"], data["image_size"], data["image_size"])
    return torch.rand(shape, generator=torch.Generator().manual_seed(batch), dtype=dtype)


def logits(network, x):
    """Of the network itself, without changing it for good."""
    was = network.training
    with torch.no_grad():
        result = network.eval()(x.contiguous())
    network.train(was)
    return result


def export(network, path, genotype=GENOTYPE, space=SPACE, data=DATA):
    return export_network(
        network, path, data=data, genotype=genotype, space=space, source=CELLS.source
    )


def load_file(path):
    """The module in a source file, under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"exported_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def network():
    return trained()


@pytest.fixture(scope="module")
def program_file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("program") / "net.pt2"
    assert export(network, path) == [path]
    return path


# ---- torch program -------------------------------------------------------------------------------


@pytest.mark.slow
def test_program_gives_the_logits_for_any_batch(network, program_file):
    extra = {"gradnas.json": ""}
    program = torch.export.load(program_file, extra_files=extra).module()
    for batch in (1, 2, 5):
        x = images(batch)
        torch.testing.assert_close(program(x), logits(network, x), rtol=1e-5, atol=1e-5)
    about = json.loads(extra["gradnas.json"])
    assert about["data"] == DATA and Genotype.parse(about["genotype"]) == GENOTYPE
    assert about["gradnas"] == gradnas.__version__


def test_program_holds_no_folder_of_this_machine(program_file):
    with zipfile.ZipFile(program_file) as archive:
        for name in archive.namelist():
            assert_no_folders(archive.read(name))


def assert_no_folders(content):
    for folder in (Path(gradnas.__file__).parent, Path(torch.__file__).parent, Path.cwd()):
        assert str(folder).encode() not in content


def test_the_network_is_left_as_it_was(tmp_path):
    space = ConvCell(channels=4, cells=2, nodes=1)
    genotype = Genotype.conv(
        [("sep_conv_3x3", 0), ("max_pool_3x3", 1)], [("skip_connect", 0), ("avg_pool_3x3", 1)]
    )
    data = {**DATA, "image_size": 32}
    network = trained(space, genotype, auxiliary=True, data=data)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    export(network, tmp_path / "net.py", genotype, space, data)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert network.training and network.auxiliary_head is not None
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    assert network.stem[0].weight.is_contiguous(memory_format=torch.channels_last)
    module = load_file(tmp_path / "net.py")
    x = images(2, data)
    assert torch.equal(
        module.load()(x), logits(network.to(memory_format=torch.contiguous_format), x)
    )
    assert not any(
        name.startswith("auxiliary_head")
        for name in torch.load(tmp_path / "net.pt", weights_only=True)
    )


# ---- ONNX ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_onnx(network, tmp_path, capfd):
    onnxruntime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    path = tmp_path / "net.onnx"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert export(network, path) == [path]
    assert [str(w.message) for w in said] == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("torch.onnx._internal.exporter._registration").filters == []
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        x = images(batch)
        (ours,) = session.run(["logits"], {"images": x.numpy()})
        torch.testing.assert_close(torch.from_numpy(ours), logits(network, x), rtol=1e-4, atol=1e-5)
    about = json.loads(session.get_modelmeta().custom_metadata_map["gradnas"])
    assert about["data"] == DATA and Genotype.parse(about["genotype"]) == GENOTYPE
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [
        d.dim_param or d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim
    ] == ["batch", 2, 8, 8]
    assert_no_folders(path.read_bytes())
    assert [entry.name for entry in tmp_path.iterdir()] == ["net.onnx"]


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_onnx_without_the_extra(network, tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    sentence = (
        rf"an .onnx file needs {missing}, which is not installed: pip install 'gradnas\[onnx\]'"
    )
    with pytest.raises(ValueError, match=sentence):
        export(network, tmp_path / "net.onnx")
    assert list(tmp_path.iterdir()) == []


# ---- source --------------------------------------------------------------------------------------

PROGRAM = """
import sys, torch
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "gradnas":
            raise ImportError(name + " is not to be had here")
sys.meta_path.insert(0, Blocker())
torch.set_num_threads(int(sys.argv[2]))
sys.path.insert(0, sys.argv[1])
import net
x = torch.load(sys.argv[1] + "/x.pt")
with torch.no_grad():
    source = net.load()(net.normalise(x))
    program = torch.export.load(sys.argv[3]).module()(net.normalise(x))
assert not any(name.startswith("gradnas") for name in sys.modules)
torch.save({"source": source, "program": program}, sys.argv[1] + "/logits.pt")
"""


@pytest.mark.slow
def test_files_need_no_gradnas(network, program_file, tmp_path):
    written = export(network, tmp_path / "net.py")
    assert written == [tmp_path / "net.py", tmp_path / "net.pt"]
    x = images(3)
    torch.save(x, tmp_path / "x.pt")
    command = [
        sys.executable,
        "-I",
        "-W",
        "error",
        "-c",
        PROGRAM,
        str(tmp_path),
        str(torch.get_num_threads()),
    ]
    done = subprocess.run(
        [*command, str(program_file)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    found = torch.load(tmp_path / "logits.pt", weights_only=True)
    mean, std = (torch.tensor(DATA[name]).view(-1, 1, 1) for name in ("mean", "std"))
    expected = logits(trained().to(memory_format=torch.contiguous_format), (x - mean) / std)
    assert torch.equal(found["source"], expected)
    torch.testing.assert_close(found["program"], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", CONV_NAMES)
def test_source_of_published_cells(name, stem, tmp_path):
    genotype = Genotype.named(name)
    space = ConvCell(channels=4, cells=3, stem=stem)
    data = {**DATA, "image_size": 8 if stem == "cifar" else 32}
    network = trained(space, genotype, data=data).to(memory_format=torch.contiguous_format)
    export(network, tmp_path / "net.py", genotype, space, data)
    module = load_file(tmp_path / "net.py")
    x = images(2, data)
    assert torch.equal(logits(module.load(), x), logits(network, x))
    assert not module.load(str(tmp_path / "net.pt")).training and module.build().training
    used = {operation for operation, _ in (*genotype.normal, *genotype.reduce)}
    assert set(module.OPERATIONS) == used  # what is not used is not written
    text = (tmp_path / "net.py").read_text()
    assert not re.search(r"^\s*(from|import) gradnas", text, re.MULTILINE)
    assert ("def sep_conv" in text) == any(operation.startswith("sep_conv") for operation in used)
    if stem == "cifar":
        rules = (
            ["check", "--select", "E,F,I,UP,B,W,RUF,SIM,PIE", "--ignore", "E501"],
            ["format", "--check"],
        )
        for rule in rules:
            command = [
                sys.executable,
                "-m",
                "ruff",
                *rule,
                "--isolated",
                "--no-cache",
                "--line-length",
                "100",
            ]
            done = subprocess.run(
                [*command, str(tmp_path / "net.py")], capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, done.stdout + done.stderr


def test_source_says_what_the_images_are(network, tmp_path):
    export(network, tmp_path / "net.py")
    module = load_file(tmp_path / "net.py")
    assert (list(module.MEAN), list(module.STD), module.IMAGE_SIZE) == (
        DATA["mean"],
        DATA["std"],
        8,
    )
    assert (module.DATA, list(module.CLASS_NAMES)) == ("spots", DATA["class_names"])
    assert (
        Genotype.conv(module.NORMAL, module.REDUCE, module.NORMAL_CONCAT, module.REDUCE_CONCAT)
        == GENOTYPE
    )
    assert "2x8x8" in module.__doc__


def test_names_in_the_data_cannot_become_code(network, tmp_path):
    hostile = ['"""\nraise SystemExit', "'''\\", "{size}", "\udcff\x00\r\n", '\'"""+boom+"""']
    data = {**DATA, "name": hostile[0] + hostile[4], "class_names": hostile + ["plain" * 5] * 200}
    export(network, tmp_path / "net.py", data=data)
    module = load_file(tmp_path / "net.py")
    assert data["name"] == module.DATA and list(module.CLASS_NAMES) == data["class_names"]


def test_folders_of_the_training_machine_are_left_out(network, tmp_path):
    export(network, tmp_path / "net.py", data={**DATA, "name": str(tmp_path / "my images")})
    assert load_file(tmp_path / "net.py").DATA == "my images"
    assert str(tmp_path) not in (tmp_path / "net.py").read_text()


def test_source_refuses_operations_of_the_users_own(tmp_path):
    def mine(channels, stride, affine):
        return nn.Conv2d(channels, channels, 3, stride, 1)

    genotype = Genotype.conv([("mine", 0), ("skip_connect", 1)], [("mine", 0), ("mine", 1)])
    for name in ("mine", "sep_conv_3x3"):  # also under the name of a known one
        own = Genotype.parse(genotype.to_text().replace("mine", name))
        space = ConvCell(
            channels=4, cells=2, nodes=1, operations={name: mine, "skip_connect": nn.Identity}
        )
        network = trained(space, own)
        with pytest.raises(
            ValueError,
            match=f"your own operation '{name}' cannot be written as source; export to .pt2",
        ):
            export(network, tmp_path / "net.py", own, space)
    assert list(tmp_path.iterdir()) == []


def test_source_does_not_overwrite_a_foreign_weights_file(network, tmp_path):
    (tmp_path / "net.pt").write_bytes(b"precious")
    with pytest.raises(ValueError, match=r"net\.pt exists and is not of an earlier export"):
        export(network, tmp_path / "net.py")
    assert (tmp_path / "net.pt").read_bytes() == b"precious"
    (tmp_path / "net.pt").unlink()
    export(network, tmp_path / "net.py")
    export(network, tmp_path / "net.py")  # its own files it replaces
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["net.pt", "net.py"]


# ---- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["net.pth", "net", "net.ONNX", ".onnx"])
def test_other_endings(network, tmp_path, name):
    with pytest.raises(
        ValueError, match=rf"'{name}' must end in .pt2 \(torch program\), .onnx or .py"
    ):
        export(network, tmp_path / name)


@pytest.mark.parametrize("suffix", [".pt2", ".onnx", ".py"])
def test_folders(network, tmp_path, suffix, monkeypatch):
    with pytest.raises(ValueError, match=r"there is no folder .*nowhere"):
        export(network, tmp_path / "nowhere" / f"net{suffix}")
    (tmp_path / f"net{suffix}").mkdir()
    with pytest.raises(ValueError, match="it is a folder"):
        export(network, tmp_path / f"net{suffix}")
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(ValueError, match=f"no permission to write into {re.escape(str(tmp_path))}"):
        export(network, tmp_path / f"other{suffix}")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".py"])
def test_a_failed_write_leaves_what_was_there(network, tmp_path, monkeypatch, suffix):
    path = tmp_path / f"net{suffix}"
    path.write_text("before")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        ValueError,
        match=r"cannot write .*No space left on device; what was there before is unchanged",
    ):
        export(network, path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_networks_that_are_not_the_genotypes(network, tmp_path):
    path = tmp_path / "net.py"
    with pytest.raises(
        ValueError,
        match=r"not the one of this genotype, space and data: tensor 'stem.0.weight' differs",
    ):
        export(network, path, space=ConvCell(channels=6, cells=3, nodes=2))
    with pytest.raises(ValueError, match=r"tensor 'classifier.weight' differs"):
        export(network, path, data={**DATA, "num_classes": 4})
    # Has the same tensors.
    pooled = Genotype.parse(GENOTYPE.to_text().replace("max_pool", "avg_pool"))
    with pytest.raises(
        ValueError, match="not the one of this genotype and space: its logits differ"
    ):
        export(network, path, pooled)
    with pytest.raises(
        ValueError, match="only a ConvNetwork, a ChainNetwork or a NasBench201Network"
    ):
        export(nn.Linear(2, 3), path)
    with pytest.raises(ValueError, match="needs a conv genotype"):
        export(network, path, Genotype.named("DARTS_V2_recurrent"))
    with pytest.raises(ValueError, match="maps of even height and width"):
        export(network, path, data={**DATA, "image_size": 9})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": None}, "data.mean must be a list"),
        ({"mean": [0.5]}, "one number for each of the 2 channels"),
        ({"std": [0.5, 0]}, "std above 0"),
        ({"mean": [0.5, float("nan")]}, r"data.mean\[1\] must be a finite number"),
        ({"image_size": 0}, "at least 1"),
        ({"name": 3}, "data.name must be a text"),
    ],
)
def test_data_that_makes_no_sense(network, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        export(network, tmp_path / "net.py", data={**DATA, **change})


def test_data_may_hold_more_but_not_less(network, tmp_path):
    export(network, tmp_path / "net.py", data={**DATA, "licence": "CC0"})
    with pytest.raises(ValueError, match="the field 'std' is missing"):
        export(
            network,
            tmp_path / "net.py",
            data={name: value for name, value in DATA.items() if name != "std"},
        )


# ---- run folders ---------------------------------------------------------------------------------

CONFIG = TrainConfig(
    space=SPACE, genotype=GENOTYPE, data=DataConfig(source="digits"), auxiliary=False
)


def training_run(folder, network=None):
    run = runs.Run.create(folder, to_json(CONFIG), 0, torch.device("cpu"))
    if network is not None:
        run.save_tensors(runs.WEIGHTS, dict(network.state_dict()))
        runs.write_json(run.path / runs.RESULTS, {"data": DATA})
    return run


def test_export_of_a_training(network, tmp_path):
    run = training_run(tmp_path / "run", network)
    assert trained_run(str(run.path))[1] == CONFIG
    assert export_trained(run, tmp_path / "net.py") == [tmp_path / "net.py", tmp_path / "net.pt"]
    x = images(2)
    expected = logits(trained().to(memory_format=torch.contiguous_format), x)
    assert torch.equal(logits(load_file(tmp_path / "net.py").load(), x), expected)


def test_export_of_a_search_that_was_trained(network, tmp_path):
    search = runs.Run.create(
        tmp_path / "found", to_json(SearchConfig(space=SPACE)), 0, torch.device("cpu")
    )
    folder = re.escape(str(search.path))
    message = f"{folder} was searched but not trained; run: gradnas train {folder}$"
    with pytest.raises(ValueError, match=message):
        export_trained(search, tmp_path / "net.py")
    with pytest.raises(ValueError, match="was searched but not trained"):
        trained_run(search.path)
    training_run(search.path / "train", network)
    run, config = trained_run(search.path)
    assert run.path == search.path / "train" and config == CONFIG
    assert export_trained(search, str(tmp_path / "net.py"))[0].exists()


def test_runs_that_cannot_be_exported(tmp_path):
    with pytest.raises(ValueError, match="there is no run folder"):
        trained_run(tmp_path / "nothing")
    run = training_run(tmp_path / "unfinished")
    with pytest.raises(
        ValueError, match="holds no trained weights yet; finish it with: gradnas resume"
    ):
        export_trained(run, tmp_path / "net.py")
    with pytest.raises(ValueError, match="must end in"):  # before anything is read
        export_trained(runs.Run(tmp_path / "nothing"), tmp_path / "net.txt")
