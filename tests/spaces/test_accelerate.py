"""`gradnas.accelerate`: the numbers of the plain network, and the plain one wherever it must be.

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import copy
import os
import pickle
import random
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import gradnas
from gradnas import Genotype
from gradnas.spaces import ConvCell, MBConvChain
from gradnas.spaces.blocks import accelerate as accelerating
from gradnas.spaces.blocks import kernels as block_kernels
from gradnas.spaces.blocks import run as runs
from gradnas.spaces.blocks.cell import run_cell
from gradnas.spaces.cells.conv_network import ConvCellNetwork
from gradnas.spaces.chains.mbconv_network import MBConv
from gradnas.spaces.native import compiler
from gradnas.spaces.operations import OPERATIONS as BUILT_IN
from gradnas.spaces.operations import FactorizedReduce, dil_conv, relu_conv_bn, sep_conv

needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


@pytest.fixture
def calls(monkeypatch) -> list[str]:
    """The names of the kernels that were called."""
    names: list[str] = []
    call = block_kernels.Kernels._call

    def counted(self, name, *arguments):
        names.append(name)
        call(self, name, *arguments)

    monkeypatch.setattr(block_kernels.Kernels, "_call", counted)
    return names


def separable(channels: int, outputs: int, act: type[nn.Module]) -> nn.Sequential:
    """Depthwise, BatchNorm, activation, pointwise, BatchNorm, activation (MobileNet)."""
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, 1, 1, groups=channels, bias=False),
        nn.BatchNorm2d(channels, affine=False),
        act(inplace=True),
        nn.Conv2d(channels, outputs, 1, bias=False),
        nn.BatchNorm2d(outputs, eps=1e-3),
        act(),
    )


def blocks(channels: int, stride: int) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {}
    for kernel in (3, 5, 7):
        found[f"separable {kernel}"] = sep_conv(channels, kernel, stride, True)
    for kernel in (3, 5):
        found[f"dilated {kernel}"] = dil_conv(channels, kernel, stride, False)
    found["pointwise"] = relu_conv_bn(channels, 2 * channels + 1, True)
    found["reduction"] = FactorizedReduce(channels, 2 * channels, True)
    for expansion, kernel, act in ((1, 3, "relu6"), (3, 5, "relu"), (2, 7, "relu6")):
        found[f"mb{expansion}_k{kernel}"] = MBConv(
            channels, channels + 1, expansion, kernel, stride, act
        )
    found["own"] = separable(channels, channels + 2, nn.ReLU6)
    return found


def results(call, net: nn.Module, x: Tensor, head_seed: int = 0) -> dict[str, Tensor]:
    """Output, gradients and buffers after a step."""
    x = x.clone().requires_grad_()
    y = call(x)
    head = torch.randn(y.shape, generator=torch.Generator().manual_seed(head_seed))
    y.backward(head.to(y.dtype))
    found = {"y": y.detach(), "x": x.grad}
    for name, parameter in net.named_parameters():
        found[name] = parameter.grad
    for name, buffer in net.named_buffers():
        found[f"{name} (kept)"] = buffer.clone()
    return found


def moved(net: nn.Module) -> nn.Module:
    """With scales and shifts that are not those of the beginning."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias)
    return net


def both(net: nn.Module, x: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Plain and accelerated, from the same state."""
    own = copy.deepcopy(net)
    return results(net, net, x), results(gradnas.accelerate(own), own, x)


def check_same(net: nn.Module, x: Tensor, tolerance: float = 1e-10) -> None:
    plain, fast = both(net, x)
    for name, expected in plain.items():
        if expected is None:  # nothing depends on it
            assert fast[name] is None, name
            continue
        error = (fast[name].double() - expected.double()).norm()
        assert error <= tolerance * (1 + expected.double().norm()), (name, error)


KINDS = list(blocks(2, 1))


@pytest.mark.slow
@needs_compiler
@given(
    kind=st.sampled_from(KINDS),
    channels=st.sampled_from((1, 2, 3, 7, 8, 9, 17, 36)),
    B=st.integers(1, 5),
    H=st.integers(1, 9),
    W=st.integers(1, 9),
    stride=st.sampled_from((1, 2)),
    layout=st.sampled_from((torch.contiguous_format, torch.channels_last)),
    seed=st.integers(0, 1000),
)
@settings(deadline=None, max_examples=60, derandomize=True)
def test_float64_has_the_numbers_of_the_plain_block(kind, channels, B, H, W, stride, layout, seed):
    torch.manual_seed(seed)
    net = moved(blocks(channels, stride)[kind]).double()
    x = torch.randn(B, channels, H, W, dtype=torch.float64).contiguous(memory_format=layout)
    if kind == "reduction":
        x = F.pad(x, (0, W % 2, 0, H % 2))
    try:
        net(x)
    except ValueError as error:  # a single pixel has no variance
        with pytest.raises(ValueError, match="more than 1 value per channel"):
            gradnas.accelerate(net)(x)
        assert "more than 1 value per channel" in str(error)
        return
    check_same(net, x)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("kind", ["separable 3", "separable 7", "dilated 5", "mb2_k7"])
@pytest.mark.parametrize("stride", [1, 2])
def test_maps_of_several_pieces(kind, stride):
    """Maps of so many pixels that the kernels take some rows at a time; the last ones are fewer."""
    torch.manual_seed(0)
    for size in ((2, 5, 35, 17), (1, 5, 3, 300), (1, 5, 75, 6)):
        net = moved(blocks(5, stride)[kind]).double()
        check_same(net, torch.randn(size, dtype=torch.float64))


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize(
    ("kind", "side"),
    [
        ("separable 3", 12),
        ("separable 3", 40),
        ("dilated 5", 12),
        ("reduction", 12),
        ("mb3_k5", 12),
        ("own", 12),
    ],
)
def test_float32_rounds_no_more_than_the_plain_block(kind, side):
    """Errors against float64, over several draws: at most 1.5 times those of torch."""
    errors = {"plain": 0.0, "fast": 0.0}
    for seed in range(4):
        torch.manual_seed(seed)
        net = moved(blocks(24, 1)[kind])
        x = torch.randn(8, 24, side, side)
        wide = copy.deepcopy(net).double()
        exact = results(wide, wide, x.double())
        plain, fast = both(net, x)
        for name, value in exact.items():
            scale = value.double().norm() + 1e-30
            if "num_batches" in name:
                continue
            errors["plain"] += float((plain[name].double() - value).norm() / scale)
            errors["fast"] += float((fast[name].double() - value).norm() / scale)
    assert errors["fast"] <= 1.5 * errors["plain"]


@pytest.mark.slow
@needs_compiler
def test_whole_networks(calls):
    """Cells (with the auxiliary head) and chains: outputs, gradients, statistics, drop path."""
    torch.manual_seed(0)
    cells = ConvCell(channels=4, cells=3)
    genotype = Genotype.named("DARTS_V2")
    network = cells.network(genotype, num_classes=3, auxiliary=True).double()
    network.drop_path_probability = 0.3
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)

    class Joined(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, x: Tensor) -> Tensor:
            torch.manual_seed(7)  # the same paths are dropped
            return torch.cat(self.inner(x), dim=1)

    check_same(Joined(network), x, 1e-9)
    assert calls.count("stage_backward") == calls.count("stage_forward") > 15
    assert calls.count("pool_backward") == calls.count("pool") > 0
    text = repr(gradnas.accelerate(network))
    assert "cells.0.preprocess0.0 to 2: ReLU, Conv2d, BatchNorm2d" in text
    assert "cells.2.preprocess0: FactorizedReduce" in text

    stages = ((8, 2, 2), (12, 1, 2))
    space = MBConvChain(stages=stages, stem_width=8, first_width=4, last_width=16)
    choice = space.random_decision(torch.Generator().manual_seed(0))
    chain = space.network(choice, num_classes=3).double()
    check_same(chain, x, 1e-9)


# ---- cells as a whole ----------------------------------------------------------------------------

OPERATIONS = ("max_pool_3x3", "skip_connect", "sep_conv_3x3", "sep_conv_5x5", "dil_conv_3x3")


@pytest.fixture
def whole(monkeypatch) -> list[Any]:
    """The plans of the cells that were computed as a whole."""
    plans: list[Any] = []

    def counted(plan, *arguments):
        plans.append(plan)
        return run_cell(plan, *arguments)

    monkeypatch.setattr(accelerating, "run_cell", counted)
    return plans


class Cells(nn.Module):
    """Cells after each other that read two maps, with dropped paths."""

    def __init__(self, *cells: ConvCellNetwork, drop: float) -> None:
        super().__init__()
        self.cells = nn.ModuleList(cells)
        self.drop = drop

    def forward(self, x: Tensor) -> Tensor:
        torch.manual_seed(7)  # the same paths are dropped
        before = last = x
        for cell in self.cells:
            before, last = last, cell(before, last, self.drop)
        return last


def random_cells(seed: int, channels: int, num_nodes: int, concat: list[int]) -> list[Any]:
    """A normal cell, a reduction cell, and a normal cell after it, of random operations."""
    draw = random.Random(seed)

    def edges() -> list[tuple[str, int]]:
        return [
            (draw.choice(OPERATIONS), draw.randrange(2 + node))
            for node in range(num_nodes)
            for _ in range(2)
        ]

    found = []
    inputs = (3, 3)
    for reduction, after in ((False, False), (True, False), (False, True)):
        found.append(ConvCellNetwork(edges(), concat, inputs, channels, reduction, after, BUILT_IN))
        inputs = (inputs[1], channels * len(concat))
    return found


@pytest.mark.slow
@needs_compiler
@given(
    seed=st.integers(0, 10_000),
    channels=st.sampled_from((2, 6, 18)),
    B=st.integers(1, 3),
    side=st.sampled_from((4, 6)),
    concat=st.sampled_from(([2, 3, 4], [4, 3], [3])),
    drop=st.sampled_from((0.0, 0.4)),
)
@settings(
    deadline=None,
    max_examples=40 if os.environ.get("GRADNAS_ALL_TESTS") else 4,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_cells_as_a_whole(whole, seed, channels, B, side, concat, drop):
    torch.manual_seed(seed)
    net = moved(Cells(*random_cells(seed, channels, 3, concat), drop=drop)).double()
    whole.clear()
    check_same(net, torch.randn(B, 3, side, side, dtype=torch.float64), 1e-9)
    assert len(whole) == 3


@pytest.mark.slow
@needs_compiler
def test_second_derivatives_of_a_cell(whole):
    torch.manual_seed(0)
    edges = [("sep_conv_3x3", 0), ("max_pool_3x3", 1), ("skip_connect", 2), ("skip_connect", 0)]
    cell = ConvCellNetwork(edges, [2, 3], (2, 2), 2, False, False, BUILT_IN).double()
    net = moved(Cells(cell, copy.deepcopy(cell), drop=0.0))
    net.cells[1].preprocess1 = relu_conv_bn(4, 2, True).double()
    own = copy.deepcopy(net)
    norms = []
    for call, module in ((net, net), (gradnas.accelerate(own), own)):
        x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        x.requires_grad_()
        weights = list(module.parameters())
        grads = torch.autograd.grad(call(x).pow(3).sum(), [x, *weights], create_graph=True)
        norms.append(torch.autograd.grad(sum(g.square().sum() for g in grads), [x, *weights]))
    assert len(whole) == 2
    for a, b in zip(*norms, strict=True):
        assert (a - b).norm() <= 1e-8 * (1 + a.norm())


def hooked_operation(cell: ConvCellNetwork) -> None:
    cell.operations[0].register_forward_hook(lambda module, args, output: 2 * output)


def hooked_layer(cell: ConvCellNetwork) -> None:
    cell.preprocess1[1].register_forward_hook(lambda module, args, output: 2 * output)


def operation_with_own_forward(cell: ConvCellNetwork) -> None:
    forward = cell.operations[0].forward
    cell.operations[0].forward = lambda x: 2 * forward(x)


def input_with_own_forward(cell: ConvCellNetwork) -> None:
    forward = cell.preprocess0.forward
    cell.preprocess0.forward = lambda x: 2 * forward(x)


def frozen_norm(cell: ConvCellNetwork) -> None:
    cell.operations[2][3].eval()


def other_operation(cell: ConvCellNetwork) -> None:
    cell.operations[3] = nn.AvgPool2d(3, 1, 1)


CHANGES_OF_A_CELL = (
    hooked_operation,
    hooked_layer,
    operation_with_own_forward,
    input_with_own_forward,
    frozen_norm,
    other_operation,
)


@needs_compiler
@pytest.mark.parametrize("change", CHANGES_OF_A_CELL)
def test_a_changed_cell_is_computed_piece_by_piece(change, whole):
    torch.manual_seed(0)
    edges = [("sep_conv_3x3", 0), ("max_pool_3x3", 1), ("dil_conv_3x3", 2), ("skip_connect", 0)]
    net = Cells(ConvCellNetwork(edges, [2, 3], (3, 3), 4, False, False, BUILT_IN), drop=0.3)
    fast = gradnas.accelerate(net)
    x = torch.randn(2, 3, 6, 6)
    fast(x)
    assert len(whole) == 1
    change(net.cells[0])
    torch.testing.assert_close(fast(x), net(x), rtol=1e-5, atol=1e-5)
    assert len(whole) == 1


@needs_compiler
def test_a_cell_whose_output_is_changed_in_place_is_that_of_the_plain_one(whole):
    """The output is nothing that backward reads, and the second input may have further readers."""
    torch.manual_seed(0)
    edges = [("sep_conv_3x3", 0), ("skip_connect", 1), ("sep_conv_3x3", 2), ("skip_connect", 2)]
    cell = ConvCellNetwork(edges, [2, 3], (3, 3), 3, False, False, BUILT_IN)

    class Changing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = cell

        def forward(self, x: Tensor) -> Tensor:
            x = 2 * x
            return self.cell(x, x).mul_(3).add_(1) + x.mean()

    check_same(Changing().double(), torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert len(whole) == 1


class Calling(nn.Module):
    """Two cells that read one map, the first of them called in some way."""

    def __init__(self, call: Any) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 3, 1)
        edges = [("sep_conv_3x3", 0), ("max_pool_3x3", 1)]
        self.first = ConvCellNetwork(edges, [2], (3, 3), 3, False, False, BUILT_IN)
        self.second = copy.deepcopy(self.first)
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.second(x, self.call(self.first, x))


def without_gradients(cell: ConvCellNetwork, x: Tensor) -> Tensor:
    with torch.no_grad():
        return cell(x, x)


def computed_again(cell: ConvCellNetwork, x: Tensor) -> Tensor:
    return checkpoint(cell, x, x, use_reentrant=True)


def after_inference(cell: ConvCellNetwork, x: Tensor) -> Tensor:
    with torch.inference_mode():
        cell(x, x)
    return cell(x, x)


@needs_compiler
@pytest.mark.parametrize("call", [without_gradients, computed_again, after_inference])
def test_a_map_that_a_cell_read_keeps_its_history(call, whole):
    """The next cell reads it as it left the cell before, unless that lost what made it."""
    torch.manual_seed(0)
    check_same(Calling(call).double(), torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert len(whole) >= 2


@needs_compiler
def test_cells_that_read_one_leaf_have_graphs_of_their_own(whole):
    torch.manual_seed(0)
    net = Calling(None).double()
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    grads = []
    for context in (nullcontext(), gradnas.accelerate(net).at_work()):
        with context:
            first = net.first(x, x).square().sum()
            second = net.second(x, x).square().sum()
            grads.append(torch.autograd.grad(second, x) + torch.autograd.grad(first, x))
    assert len(whole) == 2
    for expected, found in zip(*grads, strict=True):
        assert (expected - found).norm() <= 1e-10 * expected.norm()


@needs_compiler
def test_what_no_loss_reaches_has_no_gradients(calls):
    """None and not zeros, which weight decay would move: of a cell piece by piece too."""
    torch.manual_seed(0)
    net = Calling(lambda cell, x: cell(x, x)).double()
    net.second = ConvCellNetwork([("skip_connect", 0)] * 2, [2], (3, 3), 3, False, False, BUILT_IN)
    hooked_layer(net.first)
    check_same(net.double(), torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert "pool" in calls


def test_a_pool_of_other_channels_is_refused_as_in_the_plain_cell():
    cell = Calling(None).first
    cell.preprocess1 = nn.Identity()
    x = torch.randn(2, 1, 4, 4)
    wide = x.expand(2, 3, 4, 4)
    for call in (cell, gradnas.accelerate(cell)):
        with pytest.raises(ValueError, match="'max_pool_3x3' of node 2 on state 1 gives the shape"):
            call(wide, x)


# ---- what is known and what is not ---------------------------------------------------------------


@needs_compiler
def test_stems_of_few_channels(calls):
    """Taken where their input needs no gradient."""
    torch.manual_seed(0)
    for channels, outputs, stride in ((3, 17, 1), (1, 8, 2), (4, 3, 1), (5, 3, 1)):
        conv = nn.Conv2d(channels, outputs, 3, stride, 1, bias=False)
        net = nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU()).double()
        fast = gradnas.accelerate(net)
        x = torch.randn(2, channels, 7, 6, dtype=torch.float64)
        calls.clear()
        (found,) = torch.autograd.grad(fast(x).square().sum(), [conv.weight])
        assert len(calls) == (0 if channels == 5 else 4)
        (expected,) = torch.autograd.grad(net(x).square().sum(), [conv.weight])
        assert (found - expected).norm() <= 1e-10 * (1 + expected.norm())
        calls.clear()
        assert torch.equal(fast(x.requires_grad_()), net(x)) and not calls


@needs_compiler
def test_nothing_is_left_in_the_module():
    net = sep_conv(4, 3, 1, True)
    before = {name: sorted(vars(module)) for name, module in net.named_modules()}
    fast = gradnas.accelerate(net)
    fast(torch.randn(2, 4, 5, 5)).sum().backward()
    assert {name: sorted(vars(module)) for name, module in net.named_modules()} == before
    for copied in (pickle.loads(pickle.dumps(net)), copy.deepcopy(fast).network):
        assert copied.state_dict().keys() == net.state_dict().keys()
    with pytest.raises(RuntimeError):
        fast(torch.randn(2, 5, 5, 5))  # other channels: torch's own words
    assert {name: sorted(vars(module)) for name, module in net.named_modules()} == before


class Flat(nn.Module):
    """As many write it: what lies in channels-last memory has no such view."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(input=x)
        return y.view(len(y), -1)


@needs_compiler
def test_maps_lie_in_memory_as_the_layers_give_them(calls):
    for body in (
        sep_conv(4, 3, 1, True),
        nn.Sequential(nn.Conv2d(1, 4, 1, bias=False), nn.BatchNorm2d(4)),
    ):
        channels = body[1].in_channels if len(body) > 2 else 1
        x = torch.randn(2, channels, 6, 6)
        for form in (torch.contiguous_format, torch.channels_last):
            for of_weights in (torch.contiguous_format, torch.channels_last):
                net = copy.deepcopy(body).to(memory_format=of_weights)
                fast = gradnas.accelerate(copy.deepcopy(net))
                given = x.contiguous(memory_format=form)
                calls.clear()
                y = fast(given)
                expected = net(given)
                assert calls and y.is_contiguous() == expected.is_contiguous()
                torch.testing.assert_close(y, expected)
    net = Flat(sep_conv(4, 3, 1, True))
    x = torch.randn(2, 4, 6, 6, requires_grad=True)
    calls.clear()
    y = gradnas.accelerate(copy.deepcopy(net))(x)
    assert calls
    torch.testing.assert_close(y, net(x))


def test_a_copy_that_is_made_during_a_call_is_a_plain_one():
    net = nn.Sequential(sep_conv(4, 3, 1, True), FactorizedReduce(4, 4, True))
    edges = [("sep_conv_3x3", 0), ("skip_connect", 1)]
    cell = ConvCellNetwork(edges, [2], (2, 2), 2, False, False, BUILT_IN)
    for module, shape in ((net, (2, 4, 6, 6)), (cell, None)):
        with gradnas.accelerate(module).at_work():
            copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module))]
        for copied in copies:
            for part in copied.modules():
                for name in ("forward", "_added"):
                    own = vars(part).get(name)
                    assert own is None or own.__func__ is getattr(type(part), name)
            if shape is not None:
                x = torch.randn(shape)
                torch.testing.assert_close(copied(x), copy.deepcopy(module)(x))


class Backwards(nn.Sequential):
    def __iter__(self):
        return reversed(list(self._modules.values()))


def test_a_sequence_in_another_order_is_called():
    net = Backwards(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, bias=False), nn.ReLU())
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(gradnas.accelerate(copy.deepcopy(net))(x), net(x))


class Changed(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2.0 * super().forward(input)


def hooked(net: nn.Sequential) -> None:
    net[1].register_forward_hook(lambda module, args, output: 2 * output)


def frozen(net: nn.Sequential) -> None:
    net[3].eval()


def with_own_class(net: nn.Sequential) -> None:
    net[2] = Changed(3, 3, 1, bias=False)


def with_bias(net: nn.Sequential) -> None:
    net[2] = nn.Conv2d(3, 3, 1)


def with_own_forward(net: nn.Sequential) -> None:
    forward = net[3].forward
    net[3].forward = lambda x: 3 * forward(x)


def cumulative(net: nn.Sequential) -> None:
    net[3].momentum = None


def parametrised(net: nn.Sequential) -> None:
    nn.utils.parametrizations.weight_norm(net[2])


def reflecting(net: nn.Sequential) -> None:
    net[1].padding_mode = "reflect"
    net[1]._reversed_padding_repeated_twice = [1, 1, 1, 1]


def in_place(net: nn.Sequential) -> None:
    net[0].inplace = True


CHANGES = (
    hooked,
    frozen,
    with_own_class,
    with_bias,
    with_own_forward,
    cumulative,
    parametrised,
    reflecting,
    in_place,
)


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_exactly_known_is_called(change):
    """Bit for bit where all of it is called; in place, the input is changed as it would be."""
    torch.manual_seed(0)
    net = dil_conv(3, 3, 1, True)
    net[1] = nn.Conv2d(3, 3, 3, 1, 1, groups=3, bias=False)
    change(net)
    x = torch.randn(2, 3, 6, 6)
    own = copy.deepcopy(net) if change is not with_own_forward else net
    a = x.clone()
    b = x.clone()
    torch.testing.assert_close(net(a), gradnas.accelerate(own)(b), rtol=1e-5, atol=1e-5)
    assert torch.equal(a, b)


@needs_compiler
def test_where_torch_is_followed_nothing_is_computed_here(calls):
    torch.manual_seed(0)
    net = sep_conv(3, 3, 1, True)
    fast = gradnas.accelerate(net)
    x = torch.randn(2, 3, 6, 6)
    net.eval()
    assert torch.equal(fast(x), net(x))
    net.train()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(fast(x), net(x))
    handle = nn.modules.module.register_module_forward_hook(lambda *args: None)
    fast(x)
    handle.remove()
    checkpoint(fast, x.requires_grad_(), use_reentrant=False).sum().backward()
    state = dict(net.named_parameters())

    def loss(parameters):
        buffers = {name: buffer.clone() for name, buffer in net.named_buffers()}
        return torch.func.functional_call(net, (parameters, buffers), (x,)).square().sum()

    with fast.at_work():
        found = torch.func.grad(loss)(state)
    expected = torch.func.grad(loss)(state)
    for name, value in expected.items():
        assert torch.equal(found[name], value)
    assert not calls
    fast(x)
    assert calls


@needs_compiler
def test_second_derivatives_and_one_run_in_another():
    torch.manual_seed(0)
    net = moved(separable(2, 3, nn.ReLU)).double()
    x = torch.randn(2, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    weights = tuple(net.parameters())

    def function(x, *weights):
        names = [name for name, _ in net.named_parameters()]
        with gradnas.accelerate(net).at_work():
            return torch.func.functional_call(net, dict(zip(names, weights, strict=True)), (x,))

    assert torch.autograd.gradcheck(function, (x, *weights))
    assert torch.autograd.gradgradcheck(function, (x, *weights), atol=1e-4)


@needs_compiler
def test_only_what_is_asked_for_has_gradients():
    torch.manual_seed(0)
    net = sep_conv(3, 3, 1, True).double()
    net[2].weight.requires_grad_(False)
    net[3].bias.requires_grad_(False)
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    own = copy.deepcopy(net)
    net(x).square().sum().backward()
    gradnas.accelerate(own)(x).square().sum().backward()
    for p, q in zip(net.parameters(), own.parameters(), strict=True):
        assert (p.grad is None) == (q.grad is None)
        if p.grad is not None:
            torch.testing.assert_close(p.grad, q.grad)


@needs_compiler
def test_nan_stays():
    net = sep_conv(3, 3, 1, True)
    x = torch.randn(2, 3, 6, 6)
    x[0, 1, 2, 3] = float("nan")
    assert gradnas.accelerate(net)(x).isnan().any()


def test_without_a_compiler_the_network_is_plain(monkeypatch):
    monkeypatch.setattr(runs, "kernels", lambda dtype: None)
    net = sep_conv(3, 3, 1, True)
    own = copy.deepcopy(net)
    x = torch.randn(2, 3, 6, 6)
    assert torch.equal(gradnas.accelerate(net)(x), own(x))
