"""What C++ is given: checked in one place; and a build that watches every read and write."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx.experimental.proxy_tensor import make_fx

from gradnas import Genotype, RecurrentCell
from gradnas.spaces import native
from gradnas.spaces.cells.kernels import kernels
from gradnas.spaces.cells.places import channels_last
from gradnas.spaces.cells.stencils import pools, relu_pointwise
from gradnas.spaces.native import address, has_memory, library
from gradnas.spaces.recurrent.kernels import native_kernels
from gradnas.spaces.recurrent.token_loss import run_token_loss, token_loss

D = torch.float64
has_compiler = kernels(torch.zeros(1, 16, 2, 2)) is not None
needs_compiler = pytest.mark.skipif(not has_compiler, reason="no C++ compiler")
TEXT = "Genotype(recurrent=[('identity', 0), ('tanh', 1)], concat=range(1, 3))"


def language_model():
    torch.manual_seed(0)
    return RecurrentCell(16, 16).network(Genotype.parse(TEXT), vocabulary=50)


# ---- without a compiler --------------------------------------------------------------------------


def test_without_a_compiler_what_is_slower_is_said_once(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("GRADNAS_COMPILER", raising=False)
    monkeypatch.setattr(native, "_OUTCOMES", {})
    native._say_what_is_slower.cache_clear()
    load = native.library.__wrapped__
    with pytest.warns(UserWarning, match="several times slower") as told:
        assert load(Path("stencils.cpp"), torch.float32) is None
        assert load(Path("recurrence.cpp"), torch.float64) is None
    (sentence,) = [str(one.message) for one in told]
    assert sentence.startswith("there is no C++ compiler (g++) here")
    assert "apt-get install g++" in sentence and "GRADNAS_COMPILER=none" in sentence

    # Who does without on purpose is told nothing.
    monkeypatch.setenv("GRADNAS_COMPILER", "none")
    native._say_what_is_slower.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load(Path("stencils.cpp"), torch.float32) is None


# ---- the check -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tensor", "sentence"),
    [
        (torch.zeros(2, 3), r"torch.float64 of the shape \(2, 3\) on the CPU, not torch.float32"),
        (torch.zeros(2, 4, dtype=D), r"of the shape \(2, 3\) on the CPU, .* shape \(2, 4\) on cpu"),
        (torch.zeros(2, 3, dtype=D, device="meta"), r"on the CPU, .* on meta"),
        (torch.zeros(2, 3, dtype=D).to_sparse(), r"a kernel needs the weight as"),
        (torch.zeros(3, 2, dtype=D).t(), r"the numbers of the weight side by side"),
        (torch.zeros(2, 6, dtype=D)[:, ::2], r"the numbers of the weight side by side"),
        (torch.zeros(2, 3, dtype=D)._neg_view(), r"the numbers of the weight side by side"),
        (torch._efficientzerotensor((2, 3), dtype=D), r"the weight"),
    ],
    ids=["dtype", "shape", "device", "sparse", "transposed", "gaps", "negative", "zero"],
)
def test_what_is_not_as_it_must_be_is_refused(tensor, sentence):
    with pytest.raises(ValueError, match=sentence):
        address("the weight", tensor, D, (2, 3))
    if tensor.dtype == D and tensor.device.type != "cpu":
        assert not has_memory(tensor)


def test_the_address_of_a_tensor_that_fits():
    x = torch.zeros(2, 3, dtype=D)
    assert address("x", x, D, (2, 3)) == x.data_ptr()
    x = channels_last(torch.zeros(2, 8, 3, 3))
    assert address("x", x, torch.float32, x.shape, torch.channels_last) == x.data_ptr()
    with pytest.raises(ValueError, match="side by side"):
        address("x", x, torch.float32, x.shape)


@needs_compiler
@pytest.mark.parametrize("wrong", [torch.float32, "rows", "size"])
def test_maps_and_weights_of_the_stencils_are_checked(wrong):
    native = kernels(torch.zeros(1, 8, 1, 1, dtype=D))
    x = channels_last(torch.randn(2, 8, 4, 4, dtype=D))
    other = {
        torch.float32: x.float(),
        "rows": x.contiguous(),
        "size": channels_last(torch.randn(2, 8, 4, 3, dtype=D)),
    }[wrong]
    weight = torch.randn(8, 1, 3, 3, dtype=D)
    calls = [
        lambda: native.sums(x, other),
        lambda: native.cross(x, other),
        lambda: native.sum_products([x, other], torch.zeros(2, 8, 8, dtype=D)),
        lambda: native.pools_backward(x, 1, x, other),
    ]
    if wrong != "size":
        calls += [
            lambda: native.moments(other),
            lambda: native.covariance(other),
            lambda: native.pools(other, 1),
            lambda: native.depthwise(other, [weight], [1], 1),
        ]
    for call in calls:
        with pytest.raises(ValueError, match="a kernel needs"):
            call()
    with pytest.raises(ValueError, match="no kernel for weights"):
        native.depthwise(x, [weight.float()], [1], 1)
    with pytest.raises(ValueError, match=r"a depthwise weight .* shape \(8, 1, 3, 3\)"):
        native.depthwise(x, [weight[:4]], [1], 1)
    with pytest.raises(ValueError, match=r"shape \(8,\) on the CPU"):
        native.cross(x, x, mean_y=torch.zeros(4, dtype=D))


@needs_compiler
def test_kernels_allocate_on_the_cpu_whatever_the_default_device_is():
    x = channels_last(torch.randn(2, 8, 4, 4, dtype=D)).requires_grad_()
    weight = torch.randn(8, 8, 1, 1, dtype=D)
    with torch.device("meta"):
        found = relu_pointwise(x, weight)
        (grad,) = torch.autograd.grad(found.sum(), x)
    assert (found - nn.functional.conv2d(x.relu(), weight)).abs().max() < 1e-12
    assert grad.device.type == "cpu"


@needs_compiler
def test_what_follows_torch_sees_torch():
    """A tracer of programs would keep the numbers of C++ as constants."""
    x = channels_last(torch.randn(2, 8, 4, 4, dtype=D))
    other = channels_last(torch.randn(2, 8, 4, 4, dtype=D))
    traced = make_fx(lambda x: pools(x, 1)[0])(x)
    assert torch.equal(traced(other), nn.functional.max_pool2d(other, 3, 1, 1))


# ---- targets of the token loss -------------------------------------------------------------------


@pytest.mark.parametrize("compiler", [pytest.param(True, marks=needs_compiler), False])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_whole_numbers_of_any_dtype_are_targets(dtype, compiler, monkeypatch):
    if not compiler:
        monkeypatch.setattr("gradnas.spaces.recurrent.token_loss.kernels", lambda *_: None)
    network = language_model()
    tokens = torch.randint(0, 50, (12, 4))
    expected = network(tokens, None, tokens)
    found = network(tokens.int(), None, tokens.to(dtype))
    log_probs, _ = network(tokens)
    nll = nn.functional.nll_loss(log_probs.flatten(0, 1), tokens.flatten())
    assert (found.nll - nll).abs() < 1e-5 and found.nll == expected.nll
    weights = list(network.parameters())
    grads = [torch.autograd.grad(loss.nll, weights) for loss in (found, expected)]
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    strided = torch.stack([tokens, tokens], dim=-1).to(dtype)[..., 0]
    assert network(tokens, None, strided).nll == expected.nll


@pytest.mark.parametrize("compiler", [pytest.param(True, marks=needs_compiler), False])
@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (torch.zeros(12, 4), "targets are tokens, whole numbers, not torch.float32"),
        (torch.zeros(12, 4).bool(), "targets are tokens, whole numbers, not torch.bool"),
        (torch.zeros(12, 4).bfloat16(), "targets are tokens, whole numbers, not torch.bfloat16"),
        (torch.zeros(12, 4, dtype=torch.cfloat), "whole numbers, not torch.complex64"),
        (torch.zeros(12, 4, dtype=torch.int64, device="meta"), "targets are on meta, the network"),
        (torch.full((12, 4), 50), r"targets must be tokens in 0\.\.49"),
        (torch.full((12, 4), -100).int(), r"targets must be tokens in 0\.\.49"),
        (torch.zeros(4, 12).int(), r"targets of the shape \(12, 4\) are needed"),
    ],
)
def test_other_targets_are_refused(targets, sentence, compiler, monkeypatch):
    if not compiler:
        monkeypatch.setattr("gradnas.spaces.recurrent.token_loss.kernels", lambda *_: None)
    with pytest.raises(ValueError, match=sentence):
        language_model()(torch.zeros(12, 4).long(), None, targets)


def test_the_loss_itself_checks_its_targets():
    tensors = [torch.randn(s, dtype=D) for s in ((5, 3), (7, 3), (7,))]
    targets = torch.tensor([0, 6, 1, 2, 3], dtype=torch.int32)
    expected = token_loss(*tensors, targets.long())
    assert (run_token_loss(*tensors, targets) - expected).abs() < 1e-12
    with pytest.raises(ValueError, match=r"\(5,\) targets are needed, not \(3,\)"):
        run_token_loss(*tensors, targets[:3])


# ---- what is kept in the cache -------------------------------------------------------------------

SOURCE = 'extern "C" int answer() { return 42; }\n'


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A small source of C++, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "small.cpp"
    path.write_text(SOURCE)
    library.cache_clear()
    yield path
    library.cache_clear()


def kept(tmp_path):
    return sorted((tmp_path / "cache" / "gradnas").glob("*.so"))


@pytest.mark.slow
@needs_compiler
def test_a_cut_file_in_the_cache_is_made_again(source, tmp_path):
    """Loaded as it is, it would end every process with SIGBUS."""
    assert library(source, D).answer() == 42
    (path,) = kept(tmp_path)
    whole = path.read_bytes()
    path.unlink()  # another file: this one is loaded, and would end this process
    path.write_bytes(whole[:3000])
    library.cache_clear()
    assert native._whole(native._stem(source, native._options(D), native.compiler())) is None
    assert not path.exists()
    assert library(source, D).answer() == 42
    (again,) = kept(tmp_path)
    assert again.read_bytes() == whole


def test_what_a_source_includes_belongs_to_the_name_of_its_compiled_file(source, tmp_path):
    """Else a new version would run on the old one's kernels."""
    source.write_text('#include "one.hpp"\n#include <cmath>\n' + SOURCE)
    (tmp_path / "one.hpp").write_text('#include "two.hpp"\n')
    names = set()
    for text in ("// a\n", "// b\n", "// a\n"):
        (tmp_path / "two.hpp").write_text(text)
        names.add(native._stem(source, ["-O3"], "g++"))
    assert len(names) == 2
    spaces = Path(native.__file__).parent
    for name, number in (
        ("blocks/blocks.cpp", 2),
        ("cells/stencils.cpp", 3),
        ("cells/sources.cpp", 3),
        ("nas_bench_201/open_cell.cpp", 2),
    ):
        assert len(native._texts(spaces / name)) == number


@pytest.mark.parametrize("named", ["", "relative"])
def test_a_cache_that_is_no_absolute_path_counts_as_not_set(named, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert native._cache_folder() == tmp_path / ".cache"


def test_a_compiler_is_named_and_there_or_not_used(source, monkeypatch):
    monkeypatch.setenv("GRADNAS_COMPILER", "none")
    assert native.compiler() is None and library(source, D) is None
    monkeypatch.setenv("GRADNAS_COMPILER", "no-such-compiler")
    library.cache_clear()
    with pytest.raises(ValueError, match="GRADNAS_COMPILER names 'no-such-compiler'"):
        library(source, D)
    monkeypatch.setenv("GRADNAS_COMPILER", "")
    monkeypatch.setenv("PATH", "")
    assert native.compiler() is None and native.compiler_words() is None


# ---- pickles of recurrent networks ---------------------------------------------------------------


@pytest.mark.parametrize("way", ["pickle", "torch"])
def test_recurrent_spaces_supernets_and_networks_can_be_pickled(way, tmp_path):
    space = RecurrentCell(8, 8, nodes=2)
    made = (space, space.supernet(50), language_model())
    if way == "pickle":
        again, supernet, network = pickle.loads(pickle.dumps(made))
    else:
        torch.save(made, tmp_path / "x.pt")
        again, supernet, network = torch.load(tmp_path / "x.pt", weights_only=False)
    assert again == space
    tokens = torch.randint(0, 50, (12, 4))
    for copy, original in ((supernet, made[1]), (network, made[2])):
        assert torch.equal(copy(tokens)[0], original(tokens)[0])
        assert copy(tokens, None, tokens).nll == original(tokens, None, tokens).nll


# ---- sanitizers ----------------------------------------------------------------------------------

# Without optimisation nothing that is wrong is optimised away, and compiling takes a fifth.
OPTIONS = "-g1 -O0 -fsanitize=address,undefined -fno-sanitize-recover=all"


@pytest.mark.slow
def test_no_kernel_reads_or_writes_outside_of_its_tensors(tmp_path):
    """The C++ files under AddressSanitizer and UndefinedBehaviorSanitizer, over `kernel_grid`."""
    compiler = shutil.which(os.environ.get("GRADNAS_COMPILER", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    runtime = subprocess.run(
        [compiler, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True
    ).stdout.strip()
    if not Path(runtime).is_absolute():
        pytest.skip("the compiler has no AddressSanitizer")
    here = Path(__file__).parent
    environment = {
        **os.environ,
        "GRADNAS_COMPILER_OPTIONS": OPTIONS,
        "XDG_CACHE_HOME": str(tmp_path),
        "PYTHONPATH": str(here.parent.parent),
        # Python itself is not built for it: the library has to be there before everything else.
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    command = [sys.executable, str(here / "kernel_grid.py")]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-4000:]
    assert "results are right" in run.stdout
    # Four files in one or two dtypes, one in float32 alone
    built = 9 if os.environ.get("GRADNAS_ALL_TESTS") else 5
    assert len(list((tmp_path / "gradnas").iterdir())) == built
    assert native_kernels(D) is not None
