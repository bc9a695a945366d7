"""The open cell of NAS-Bench-201 by its kernels: the cell edge by edge, and when they step aside.

Legend: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import nn

import gradnas
from gradnas.modules.draws import Additions
from gradnas.spaces.nas_bench_201.cell import BenchCell
from gradnas.spaces.nas_bench_201.kernels import Convolution, Plan, Weighed, kernels
from gradnas.spaces.nas_bench_201.shared_cell import SharedCell

D = torch.float64
has_compiler = kernels(D) is not None
pytestmark = pytest.mark.skipif(not has_compiler, reason="no C++ compiler")
NOTHING = Additions()
ALL = ((0, 1, 2, 3, 4),) * 6


def cells(channels, nodes=4, dtype=D, training=True, added=NOTHING):
    """The same cell by kernels and edge by edge, with running statistics of their own."""
    torch.manual_seed(channels)
    shape = gradnas.NasBench201(channels=channels, cells=1, nodes=nodes).shape
    shared = SharedCell(shape, channels, 0)
    shared.add(added)
    for module in shared.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    plain = BenchCell(shape, channels, 0)
    plain.add(added)
    plain.load_state_dict(shared.state_dict())
    return [cell.to(dtype).train(training) for cell in (shared, plain)]


def outcome(cell, x, mix, active, head):
    """Output, gradients of x, of the mixing weights and of the weights, and the state after it."""
    x, mix = (t.detach().clone(memory_format=torch.preserve_format) for t in (x, mix))
    inputs = [x.requires_grad_(), mix.requires_grad_(), *cell.parameters()]
    y = cell(x, mix, active)
    grads = [None] * len(inputs)
    if y.requires_grad:
        grads = torch.autograd.grad((y * head).sum(), inputs, allow_unused=True)
    return y, [y, *grads, *cell.state_dict().values()]


def agree(found, expected, tolerance=1e-11):
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


def by_kernels(y):
    return type(y.grad_fn).__name__ == "_CellBackward"


def subset(generator, nodes=4):
    """Some active operations, often none of an edge, in any number."""
    rows = []
    for _ in range(nodes * (nodes - 1) // 2):
        size = generator.choice((0, 0, 1, 2, 5))
        rows.append(tuple(sorted(generator.sample(range(5), size))))
    return tuple(rows)


SIZES = ((8, 1, 2), (8, 2, 1), (11, 3, 3), (4, 5, 4), (17, 4, 5), (9, 1, 5), (16, 2, 2), (5, 3, 1))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("number", range(4))
def test_a_cell_by_kernels_is_that_edge_by_edge(number, training):
    generator = random.Random(number)
    taken = 0
    for round_, size in enumerate(SIZES):
        B, H, W = size
        channels = (1, 3, 4, 5, 8)[(number + round_) % 5]
        nodes = (4, 2, 3, 4)[(number + round_) % 4]
        shared, plain = cells(channels, nodes, training=training)
        x = torch.randn(B, channels, H, W, dtype=D)
        if number % 2:
            x = x.contiguous(memory_format=torch.channels_last)
        mix = torch.randn(nodes * (nodes - 1) // 2, 5, dtype=D)
        active = ALL[: len(mix)] if round_ % 3 == 0 else subset(generator, nodes)
        head = torch.randn_like(x)
        y, found = outcome(shared, x, mix, active, head)
        agree(found, outcome(plain, x, mix, active, head)[1], 1e-10)
        taken += by_kernels(y)
        assert y.stride() == x.stride()
    assert taken >= 4


def test_in_float32_and_in_any_memory():
    shared, plain = cells(6, dtype=torch.float32)
    mix = torch.softmax(torch.randn(6, 5), -1)
    base = torch.randn(20, 8, 9, 8)
    for x in (
        base[:, :6, :, :7],
        base[::2, 1:7].transpose(2, 3),
        base[:, :1].expand(-1, 6, -1, -1),
    ):
        head = torch.randn(x.shape)
        y, found = outcome(shared, x, mix, ALL, head)
        assert by_kernels(y)
        agree(found, outcome(plain, x, mix, ALL, head)[1], 2e-4)


def test_of_weights_in_channels_last():
    shared, plain = cells(4)
    shared.to(memory_format=torch.channels_last)
    x = torch.randn(8, 4, 6, 6, dtype=D)
    mix = torch.randn(6, 5, dtype=D)
    y, found = outcome(shared, x, mix, ALL, x)
    assert by_kernels(y)
    agree(found, outcome(plain, x, mix, ALL, x)[1])


def test_an_auxiliary_skip_and_the_states_skip_add_up():
    shared, plain = cells(4, added=Additions(auxiliary_skip=True))
    wide, active = shared.columns(torch.randn(6, 5, dtype=D), ALL, None, 0.7)
    x = torch.randn(8, 4, 4, 4, dtype=D)
    y, found = outcome(shared, x, wide, active, x)
    assert by_kernels(y)
    agree(found, outcome(plain, x, wide, active, x)[1])


def test_what_the_last_node_does_not_depend_on_has_no_gradient():
    """A zero in its place would let weight decay move it."""
    shared, plain = cells(4)
    # 1<-0, 2<-0, 2<-1, 3<-0, 3<-1, 3<-2: nothing leaves node 1, nothing enters node 2.
    active = ((3,), (0,), (), (), (), (2, 3))
    x = torch.randn(8, 4, 4, 4, dtype=D)
    mix = torch.randn(6, 5, dtype=D)
    y, found = outcome(shared, x, mix, active, x)
    assert by_kernels(y) and found[1] is None
    agree(found, outcome(plain, x, mix, active, x)[1])
    norm = shared.operation(0, "nor_conv_3x3")[2]
    assert int(norm.num_batches_tracked) == 1


def test_only_what_is_needed_is_computed():
    shared, plain = cells(4)
    for cell in (shared, plain):
        for row in (1, 3):
            cell.operation(row, "nor_conv_3x3").requires_grad_(False)
    x = torch.randn(8, 4, 4, 4, dtype=D)
    mix = torch.randn(6, 5, dtype=D, requires_grad=True)
    found = []
    for cell in (shared, plain):
        named = [p for p in cell.parameters() if p.requires_grad]
        found.append(torch.autograd.grad(cell(x, mix, ALL).sum(), [mix, *named]))
    agree(*found)


@pytest.mark.parametrize("training", [True, False])
def test_derivatives_of_second_order(training):
    shared, plain = cells(4, training=training)
    x = torch.randn(8, 4, 4, 4, dtype=D, requires_grad=True)
    mix = torch.randn(6, 5, dtype=D, requires_grad=True)
    found = []
    for cell in (shared, plain):
        inputs = [x, mix, *cell.parameters()]
        y = cell(x, mix, ALL)
        before = copy.deepcopy(cell.state_dict())
        slope = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        # Neither are running statistics updated again, nor those of now taken for those of then.
        agree(cell.state_dict().values(), before.values())
        second = torch.autograd.grad(sum(g.square().sum() for g in slope), inputs)
        found.append([*slope, *second])
    agree(*found, 1e-9)


def test_the_kernels_step_aside():
    shared, plain = cells(4)
    x = torch.randn(8, 4, 4, 4, dtype=D)
    mix = torch.randn(6, 5, dtype=D, requires_grad=True)
    assert by_kernels(shared(x, mix, ALL))
    # A batch of few images, one pixel, another type, autocast, a transform, a mode.
    few = x[:1]
    assert not by_kernels(shared(few, mix, ALL))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        shared(x[:1, :, :1, :1], mix, ALL)
    single, _ = cells(4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert not by_kernels(single(x.float(), mix.float(), ALL))
    half, _ = cells(4, dtype=torch.bfloat16)
    assert not by_kernels(half(x.bfloat16(), mix.bfloat16(), ALL))
    plain.load_state_dict(shared.state_dict())
    shared.eval()
    plain.eval()
    both = torch.stack([mix, mix])
    found = [torch.func.vmap(lambda m, c=c: c(x, m, ALL))(both) for c in (shared, plain)]
    torch.testing.assert_close(*found, rtol=1e-11, atol=1e-11)
    grads = []
    for cell in (shared, plain):
        y = cell(x, mix, ALL)
        heads = torch.stack([torch.ones_like(y), y.detach()])
        grads += torch.autograd.grad(y, mix, heads, is_grads_batched=True)
    torch.testing.assert_close(*grads, rtol=1e-11, atol=1e-11)
    # An operation with a hook
    shared.operation(2, "nor_conv_3x3").register_forward_hook(lambda *_: None)
    assert not by_kernels(shared(x, mix, ALL))


def test_any_number_of_threads_gives_the_same_bits():
    shared, _ = cells(4)
    x = torch.randn(41, 4, 5, 5, dtype=D)
    mix = torch.randn(6, 5, dtype=D)
    threads = torch.get_num_threads()
    found = []
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            found.append(outcome(copy.deepcopy(shared), x, mix, ALL, x)[1])
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_nan_stays_nan_and_the_other_channels_as_they_are():
    shared, plain = cells(3)
    active = ((1,), (4,), (), (1, 4), (1,), (1,))
    x = torch.randn(8, 3, 4, 4, dtype=D)
    x[2, 1, 0, 0] = torch.nan
    mix = torch.rand(6, 5, dtype=D)
    found = [cell(x, mix, active) for cell in (shared, plain)]
    torch.testing.assert_close(*found, equal_nan=True)
    assert 0 < int(found[0].isnan().sum()) < found[0].numel()


def test_tensors_are_checked_before_they_are_handed_over():
    native = kernels(D)
    plan = Plan(2, (Convolution(0, 1, 3, 3),), (Weighed(0, 1, True, 4),))
    assert plan.live() == [True, True]
    x = torch.randn(8, 4, 3, 3, dtype=D)
    mix = torch.rand(1, 5, dtype=D)
    weight = torch.randn(4, 4, 3, 3, dtype=D)
    made = native.forward(plan, x, mix, [weight], None)
    for wrong in ([weight[:3]], [weight[..., :1, :1]], [weight, weight], []):
        with pytest.raises(ValueError, match="weight"):
            native.forward(plan, x, mix, wrong, None)
    with pytest.raises(ValueError, match="a kernel needs a map"):
        native.forward(plan, x.float(), mix, [weight], None)
    with pytest.raises(ValueError, match="a kernel needs a table"):
        native.forward(plan, x, mix.float(), [weight], None)
    with pytest.raises(ValueError, match="a kernel needs a table"):
        native.forward(plan, x, mix, [weight], torch.zeros(2, 1, 3, dtype=D))
    saved = (made.seen_2KC, made.kept)
    with pytest.raises(ValueError, match="a kernel needs a map"):
        native.backward(
            plan, x, x, mix, [weight], made.seen_2KC, made.kept[:-1], True, True, [True]
        )
    with pytest.raises(ValueError, match="a kernel needs a map"):
        native.backward(plan, x[:7], x, mix, [weight], *saved, True, True, [True])
    grads = native.backward(plan, x, x, mix, [weight], *saved, True, False, [False])
    assert grads[0] is None and grads[2] == [None]
