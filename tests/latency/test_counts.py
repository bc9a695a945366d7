"""Multiply-adds against formulas by hand, and the refusal of what cannot be counted.

Legend: B batch, T time, IN width in, H hidden width, OUT width out, N heads.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import flex_attention

import gradnas
from gradnas import Choice, ExpectedCost
from gradnas.latency.counts import count_macs

pytestmark = [
    pytest.mark.filterwarnings("ignore:Sparse"),
    pytest.mark.filterwarnings("ignore:LSTM with projections"),
    pytest.mark.filterwarnings("ignore:.*nested tensors.*"),
]

B, T, IN, H, OUT, N = 2, 7, 12, 16, 5, 4


class Function(nn.Module):
    """A function as a module: of layers, and of the inputs."""

    def __init__(self, function: Callable[..., Any], *layers: nn.Module) -> None:
        super().__init__()
        self.function = function
        self.layers = nn.ModuleList(layers)

    def forward(self, *inputs: Any) -> Any:
        return self.function(*self.layers, *inputs)


def sequence(width: int = IN) -> Tensor:
    return torch.randn(B, T, width)


def sparse() -> Tensor:
    """4 x 6 with 5 values."""
    dense = torch.zeros(4, 6)
    dense[[0, 1, 1, 2, 3], [0, 2, 4, 5, 1]] = 1.0
    return dense.to_sparse()


def encoder_layer() -> nn.Module:
    return nn.TransformerEncoderLayer(H, N, 32, batch_first=True)


def scripted(module: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module.eval())


LSTM_STEP = 4 * H * (IN + H)
ATTENTION = 2 * B * T * T * H  # q k^T and its softmax times v
PROJECTIONS = 4 * B * T * H * H
COUNTED: list[tuple[str, nn.Module, tuple[Any, ...], int]] = [
    ("lstm", nn.LSTM(IN, H, batch_first=True), (sequence(),), B * T * LSTM_STEP),
    (
        "two layers both ways",
        nn.LSTM(IN, H, 2, bidirectional=True, batch_first=True),
        (sequence(),),
        B * T * (2 * LSTM_STEP + 2 * 4 * H * (2 * H + H)),
    ),
    (
        "lstm with a projection",
        nn.LSTM(IN, H, proj_size=3, batch_first=True),
        (sequence(),),
        B * T * (4 * H * (IN + 3) + 3 * H),
    ),
    ("gru", nn.GRU(IN, H, batch_first=True), (sequence(),), B * T * 3 * H * (IN + H)),
    ("rnn", nn.RNN(IN, H, batch_first=True), (sequence(),), B * T * H * (IN + H)),
    ("lstm cell", nn.LSTMCell(IN, H), (torch.randn(B, IN),), B * LSTM_STEP),
    (
        "packed lstm",
        Function(
            lambda rnn, x: rnn(nn.utils.rnn.pack_padded_sequence(x, [T, 3], batch_first=True)),
            nn.LSTM(IN, H),
        ),
        (sequence(),),
        (T + 3) * LSTM_STEP,
    ),
    (
        "attention layer",
        Function(lambda a, x: a(x, x, x), nn.MultiheadAttention(H, N, batch_first=True)),
        (sequence(H),),
        PROJECTIONS + ATTENTION,
    ),
    (
        "attention layer without weights",
        Function(
            lambda a, x: a(x, x, x, need_weights=False),
            nn.MultiheadAttention(H, N, batch_first=True),
        ),
        (sequence(H),),
        PROJECTIONS + ATTENTION,
    ),
    (
        "encoder layer",
        encoder_layer(),
        (sequence(H),),
        PROJECTIONS + ATTENTION + 2 * B * T * H * 32,
    ),
    (
        "scripted encoder layer",
        scripted(encoder_layer()),
        (sequence(H),),
        PROJECTIONS + ATTENTION + 2 * B * T * H * 32,
    ),
    (
        "fused attention to another sequence",
        Function(
            lambda a, x, y: torch._native_multi_head_attention(
                x, y, y, H, N, a.in_proj_weight, a.in_proj_bias, a.out_proj.weight, a.out_proj.bias
            ),
            nn.MultiheadAttention(H, N, batch_first=True),
        ),
        (torch.randn(B, T, H), torch.randn(B, T, H)),
        PROJECTIONS + ATTENTION,
    ),
    (
        "encoder with padding",
        Function(
            lambda e, x: e(x, src_key_padding_mask=torch.zeros(B, T, dtype=torch.bool)),
            nn.TransformerEncoder(encoder_layer(), 2),
        ),
        (sequence(H),),
        2 * (PROJECTIONS + ATTENTION + 2 * B * T * H * 32),
    ),
    (
        "sdpa",
        Function(F.scaled_dot_product_attention),
        (torch.randn(B, N, T, 8), torch.randn(B, N, 9, 8), torch.randn(B, N, 9, 6)),
        B * N * T * 9 * (8 + 6),
    ),
    (
        "causal sdpa",
        Function(lambda q: F.scaled_dot_product_attention(q, q, q, is_causal=True)),
        (torch.randn(B, N, T, 8),),
        2 * B * N * T * T * 8,
    ),
    (
        "bilinear",
        nn.Bilinear(IN, H, OUT),
        (torch.randn(B, IN), torch.randn(B, H)),
        B * IN * H * OUT,
    ),
    (
        "cdist",
        Function(torch.cdist),
        (torch.randn(B, 3, IN), torch.randn(B, OUT, IN)),
        B * 3 * OUT * IN,
    ),
    ("large cdist", Function(torch.cdist), (torch.randn(30, IN), torch.randn(40, IN)), 1200 * IN),
    ("pdist", Function(F.pdist), (torch.randn(6, IN),), 15 * IN),
    ("sparse by dense", Function(torch.sparse.mm), (sparse(), torch.randn(6, OUT)), 5 * OUT),
    (
        "csr by dense",
        Function(lambda a, b: a.to_sparse_csr() @ b),
        (sparse(), torch.randn(6, OUT)),
        5 * OUT,
    ),
    ("dense by sparse", Function(torch.matmul), (torch.randn(3, 4), sparse()), 3 * 5),
    ("sparse by vector", Function(torch.mv), (sparse(), torch.randn(6)), 5),
    ("sparse by sparse", Function(torch.sparse.mm), (sparse(), sparse().t()), 5),
    (
        "sampled",
        Function(lambda a, b, c: torch.sparse.sampled_addmm(a.to_sparse_csr(), b, c)),
        (sparse(), torch.randn(4, 3), torch.randn(3, 6)),
        5 * 3,
    ),
    ("matrix by vector", Function(torch.mv), (torch.randn(OUT, IN), torch.randn(IN)), OUT * IN),
    ("dot", Function(torch.dot), (torch.randn(IN), torch.randn(IN)), IN),
    (
        "einsum",
        Function(lambda a, b: torch.einsum("bti,bsi->bts", a, b)),
        (sequence(), sequence()),
        B * T * T * IN,
    ),
    (
        "bmm",
        Function(torch.bmm),
        (torch.randn(B, OUT, IN), torch.randn(B, IN, T)),
        B * OUT * IN * T,
    ),
    (
        "baddbmm",
        Function(torch.baddbmm),
        (torch.randn(B, OUT, T), torch.randn(B, OUT, IN), torch.randn(B, IN, T)),
        B * OUT * IN * T,
    ),
    (
        "addbmm",
        Function(torch.addbmm),
        (torch.randn(OUT, T), torch.randn(B, OUT, IN), torch.randn(B, IN, T)),
        B * OUT * IN * T,
    ),
    (
        "tensordot",
        Function(lambda a, b: torch.tensordot(a, b, dims=2)),
        (torch.randn(OUT, T, IN), torch.randn(T, IN, H)),
        OUT * T * IN * H,
    ),
    (
        "convolution in time",
        Function(torch.conv_tbc),
        (torch.randn(T, B, IN), torch.randn(3, IN, OUT), torch.zeros(OUT)),
        (T - 2) * B * 3 * IN * OUT,
    ),
    ("grouped", nn.Conv2d(IN, H, 3, groups=4), (torch.randn(B, IN, 5, 6),), B * 3 * 4 * H * 3 * 9),
    (
        "transposed",
        nn.ConvTranspose2d(IN, H, 3, stride=2, groups=2),
        (torch.randn(B, IN, 5, 6),),
        B * 30 * IN * 9 * H // 2,
    ),
    (
        "complex matrices",
        Function(torch.mm),
        (torch.randn(OUT, IN, dtype=torch.cfloat), torch.randn(IN, H, dtype=torch.cfloat)),
        4 * OUT * IN * H,
    ),
    (
        "weighted bags",
        Function(
            lambda table, i, w: table(i, per_sample_weights=w), nn.EmbeddingBag(9, OUT, mode="sum")
        ),
        (torch.zeros(B, 3, dtype=torch.long), torch.ones(B, 3)),
        B * 3 * OUT,
    ),
]


@pytest.mark.parametrize(
    ("module", "inputs", "number"), [c[1:] for c in COUNTED], ids=[c[0] for c in COUNTED]
)
def test_multiply_adds_are_those_of_the_formula(module, inputs, number):
    assert gradnas.macs(module, *inputs) == number
    with torch.inference_mode():
        assert gradnas.macs(module, *inputs) == number


FREE = {
    "norms": nn.Sequential(nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)),
    "pools": nn.Sequential(nn.MaxPool2d(2), nn.AvgPool2d(2), nn.AdaptiveAvgPool2d(2)),
    "activations": nn.Sequential(nn.PReLU(), nn.GELU(), nn.Softmax(1), nn.Softplus(), nn.SiLU()),
    "shapes": nn.Sequential(nn.PixelShuffle(2), nn.Upsample(scale_factor=2), nn.ZeroPad2d(1)),
    "bilinear upsampling": nn.Upsample(scale_factor=2, mode="bilinear"),
    "sorting": Function(lambda x: (x.sort().values, x.topk(2), x.cumsum(1), x.unique(), x.var(1))),
    "scatter": Function(lambda x: torch.zeros_like(x).scatter_add(1, (x * 0).long(), x)),
    "indexing": Function(lambda x: torch.where(x > 0, x, x[[1, 0]]).masked_fill(x < 0, 1.0)),
    "lists": Function(lambda x: torch.cat(torch._foreach_mul([x, x], 2.0)).norm()),
    "losses": Function(lambda x: F.cross_entropy(x, torch.zeros(2, 8, 8).long())),
    "grid": Function(lambda x: F.grid_sample(x, torch.zeros(2, 3, 3, 2), align_corners=False)),
    "windows": Function(lambda x: F.fold(F.unfold(x, 2), (8, 8), 2)),
    "random": Function(lambda x: F.dropout(x + torch.rand_like(x), training=True)),
    "cosine": nn.CosineSimilarity(),
}


@pytest.mark.parametrize("name", FREE)
def test_what_only_maps_moves_or_reduces_counts_nothing(name):
    x = torch.randn(2, 4, 8, 8)
    inputs = (x, x) if name == "cosine" else (x,)
    assert gradnas.macs(FREE[name], *inputs) == 0


@torch.library.custom_op("gradnas_tests::mystery", mutates_args=())
def mystery(x: Tensor) -> Tensor:
    return x @ x.T


UNKNOWN: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "fourier": (torch.fft.rfft2, "aten::_fft_r2c"),
    "inverse": (torch.linalg.inv, "aten::linalg_inv_ex"),
    "svd": (torch.linalg.svd, "aten::_linalg_svd"),
    "exponential": (torch.linalg.matrix_exp, "aten::linalg_matrix_exp"),
    "solve": (lambda x: torch.linalg.solve(x, x), "aten::_linalg_solve_ex"),
    "custom": (mystery, "gradnas_tests::mystery"),
    "nested": (
        lambda x: F.linear(torch.nested.nested_tensor([x, x]), x),
        "aten::linear of a nested tensor",
    ),
    "jagged": (
        lambda x: F.linear(torch.nested.nested_tensor([x, x], layout=torch.jagged), x),
        "of a NestedTensor",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_what_cannot_be_counted_is_refused_with_its_name_and_that_of_its_module(name):
    function, operator = UNKNOWN[name]
    net = nn.Sequential(nn.Linear(4, 4), nn.Sequential(Function(function)))
    x = torch.eye(4)
    with pytest.raises(ValueError, match=rf"of '1.0' \(Function\) cannot be counted.*{operator}"):
        gradnas.macs(net, x)
    with pytest.raises(ValueError, match=rf"this function cannot be counted.*{operator}"):
        count_macs(lambda: net(x))


def test_an_operation_that_cannot_be_counted_has_milliseconds_and_parameters_but_no_multiply_adds():
    fourier = nn.Sequential(nn.Linear(4, 4), Function(lambda x: torch.fft.fft2(x).real))
    net = nn.Sequential(Choice({"fourier": fourier, "skip": nn.Identity()}, name="mix"))
    x = torch.randn(4, 4)
    with pytest.raises(ValueError, match=r"of '0.operations.fourier.1' \(Function\) cannot be"):
        gradnas.Search(net, cost=ExpectedCost(budget_macs=100), example=x)
    table = gradnas.measure(net, (x,), gradnas.latency.Timing(warmup=0, repeats=1))
    assert gradnas.Search(net, cost=ExpectedCost(table, budget_ms=1e6), example=x).result().cost > 0
    search = gradnas.Search(net, cost=ExpectedCost(budget_params=19), example=x)
    assert search.result().choices == {"mix": "skip"}


def test_a_formula_of_the_user_is_taken():
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    register_flop_formula(torch.ops.gradnas_tests.mystery)(
        lambda x_shape, out_shape=None: 2 * x_shape[0] ** 2 * x_shape[1]
    )
    try:
        assert gradnas.macs(Function(mystery), torch.randn(3, 5)) == 45
    finally:
        del flop_registry[torch.ops.gradnas_tests.mystery]


def test_a_budget_knows_what_an_lstm_multiplies():
    class Last(nn.Module):
        def __init__(self, rnn: nn.Module) -> None:
            super().__init__()
            self.rnn = rnn

        def forward(self, x: Tensor) -> Tensor:
            return self.rnn(x)[0]

    x = torch.randn(1, 32, 16)
    lstm = Last(nn.LSTM(16, 16, batch_first=True))
    gru = Last(nn.GRU(16, 16, batch_first=True))
    net = nn.Sequential(Choice({"lstm": lstm, "gru": gru}), nn.Linear(16, 3))
    with pytest.raises(ValueError, match="the cheapest architecture of this space costs 50688"):
        gradnas.Search(net, cost=ExpectedCost(budget_macs=10_000), example=x)
    search = gradnas.Search(net, cost=ExpectedCost(budget_macs=67_072), example=x)
    with torch.no_grad():
        search.alphas["0"].copy_(torch.tensor([1.0, 0.0]))
    result = search.result()
    assert result.cost == 67_072 == gradnas.macs(result.derive(), x)


class Queries(nn.Module):
    """Is given and gives views of its parameter, as decoders with learned queries are."""

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.zeros(1, 4, 8))
        self.norm = nn.LayerNorm(8)
        self.linear = Choice({"a": nn.Linear(8, 8), "skip": nn.Identity()}, name="linear")
        self.pick = Function(lambda queries: queries[:, :3])

    def forward(self, x: Tensor) -> Tensor:
        queries = self.pick(self.queries.expand(len(x), -1, -1))
        return self.linear(self.norm(queries)) + x.mean()


@pytest.mark.parametrize("quantity", ["macs", "params"])
def test_views_of_parameters_can_be_counted_and_measured(quantity):
    x = torch.randn(2, 3)
    assert gradnas.macs(nn.Sequential(Queries()), x) == 2 * 3 * 8 * 8 * 1
    costs = gradnas.spaces.ModuleSupernet(Queries()).costs(quantity, (x,))
    fixed = {"macs": 0, "params": 32 + 16}[quantity]
    assert costs.fixed == fixed
    assert costs.tables["linear"].tolist() == [{"macs": 2 * 3 * 64, "params": 72}[quantity], 0]
    assert gradnas.measure(Queries(), (x,), gradnas.latency.Timing(0, 1)).entries


class Flexible(nn.Module):
    """Attention that compiles itself: 2 heads of 8."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x):
        q, k, v = self.qkv(x).view(len(x), -1, 3, 2, 8).permute(2, 0, 3, 1, 4)
        return flex_attention(q, k, v).transpose(1, 2).flatten(2)


@pytest.mark.slow  # torch imports its compiler
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("compiled", [False, True])
def test_compiled_parts_count_as_they_were_written(compiled):
    x = torch.randn(2, 32, 16)
    products = 2 * 32 * 16 * 48 + 2 * 2 * 2 * 32 * 32 * 8  # of the layer, and of two squares
    module: Any = Flexible()
    assert gradnas.macs(torch.compile(module) if compiled else module, x) == products
    net = Choice({"attention": module, "layer": nn.Linear(16, 16)}, name="c")
    costs = gradnas.Search(net, cost=gradnas.ExpectedCost(budget_macs=1e9), example=x).costs
    assert costs is not None
    assert costs.tables["c"].tolist() == [products // 2, 32 * 16 * 16]  # of one example


@pytest.mark.parametrize("limit", [gradnas.ExpectedCost(budget_macs=1e9), None])
@pytest.mark.parametrize("layer", [nn.Linear(4, 4), nn.ReLU()])
def test_scripted_parts_of_a_search_are_refused_by_name(limit, layer):
    layers = Choice({"a": scripted(layer), "b": nn.Identity()}, name="c")
    net = nn.Sequential(nn.Linear(4, 4), layers)
    if limit is None and isinstance(layer, nn.ReLU):  # has no weights, and is not counted
        gradnas.Search(net)
        return
    with pytest.raises(
        ValueError, match=r"'1.operations.a' \(RecursiveScriptModule\) is a module of Torch"
    ):
        gradnas.Search(net, cost=limit, example=torch.randn(2, 4))


def test_costs_inside_a_transform_are_refused_by_name():
    class Mapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 4)
            self.choice = Choice({"a": nn.Linear(4, 4), "b": nn.Tanh()}, name="c")

        def forward(self, x):
            return self.choice(torch.vmap(self.layer)(x))

    with pytest.raises(ValueError, match=r"'layer' \(Linear\) runs inside a transform"):
        gradnas.Search(Mapped(), cost=ExpectedCost(budget_macs=1e9), example=torch.randn(2, 4))
