"""The fused cell against the cell that is computed edge by edge, with compiled kernels and with
torch operations."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from cases import batch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from gradnas import DARTS_OPERATIONS, ConvCell, FirstOrder, GumbelSoftmax, Search, Softmax, Unrolled
from gradnas.gradients import Implicit
from gradnas.memory import SavedTensors
from gradnas.randomness import generator_for
from gradnas.spaces.cells import fold, stencils
from gradnas.spaces.cells.edge_cell import EdgeCell
from gradnas.spaces.cells.fold import fold_mix
from gradnas.spaces.cells.fused_cell import FusedCell
from gradnas.spaces.cells.kernels import kernels
from gradnas.spaces.cells.places import channels_last
from gradnas.spaces.cells.stencils import (
    norm_relu_depthwise,
    pools,
    relu_depthwise,
    relu_pointwise,
)
from gradnas.spaces.operations import OPERATIONS

D = torch.float64
needs_compiler = pytest.mark.skipif(
    kernels(torch.zeros(1, 16, 2, 2)) is None, reason="no C++ compiler"
)


@pytest.fixture(params=[pytest.param("compiled", marks=needs_compiler), "torch", "grouped"])
def backend(request, monkeypatch):
    """The ways to compute: every test that asks for it runs with each."""
    monkeypatch.setattr(FusedCell, "grouped", request.param == "grouped")
    if request.param == "torch":
        for module in (fold, stencils):
            monkeypatch.setattr(module, "kernels", lambda *_: None)
    return request.param


def pair(space, seed=0, dtype=D, classes=5):
    """A per-edge supernet with alphas far from uniform, and a fused one with copies of its
    tensors."""
    torch.manual_seed(seed)
    plain = space.supernet(3, classes, fused=False).to(dtype)
    with torch.no_grad():
        for alpha in plain.alphas.values():
            alpha.normal_()
    fused = space.supernet(3, classes).to(dtype)
    fused.load_state_dict(plain.state_dict())
    for net, kind in ((plain, EdgeCell), (fused, FusedCell)):
        assert all(type(cell) is kind for cell in net.cells)
    return plain, fused


def gradients(net, x, y, draw=None):
    loss = F.cross_entropy(net(x, draw=draw), y)
    return torch.autograd.grad(loss, [*net.parameters(), x], allow_unused=True)


def worst(found, expected):
    """Largest absolute difference; a missing gradient is zero."""
    pairs = [(a, b) for a, b in zip(found, expected, strict=True) if not (a is None and b is None)]
    zero = torch.zeros(())
    return max(
        ((zero if a is None else a) - (zero if b is None else b)).abs().max().item()
        for a, b in pairs
    )


def states_differ(one, other):
    mine, theirs = one.state_dict(), other.state_dict()
    assert list(mine) == list(theirs)
    return worst([t.double() for t in mine.values()], [t.double() for t in theirs.values()])


# 6 channels fill no vector, and with them the compiled backend falls back as well
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stem", "nodes", "channels"),
    [("cifar", 2, 8), ("cifar", 4, 4), ("imagenet", 3, 4), ("cifar", 3, 6)],
)
def test_outputs_gradients_and_statistics_are_those_of_the_edges(backend, stem, nodes, channels):
    """Normal and reduction cells, a normal cell after a reduction; float64, 1e-9."""
    plain, fused = pair(ConvCell(channels=channels, cells=4, nodes=nodes, stem=stem))
    x, y = batch(0, size=4, dtype=D, side=64 if stem == "imagenet" else 16)
    y = y % 5
    x.requires_grad_()
    expected, found = gradients(plain, x, y), gradients(fused, x, y)
    assert all(g is not None for g in found)
    assert worst(found, expected) < 1e-9
    assert states_differ(plain, fused) < 1e-9  # running statistics after one pass
    assert (plain(x) - fused(x)).abs().max() < 1e-9
    plain.eval(), fused.eval()
    assert (plain(x) - fused(x)).abs().max() < 1e-9
    assert worst(gradients(fused, x, y), gradients(plain, x, y)) < 1e-9
    assert states_differ(plain, fused) < 1e-9  # eval mode left them alone


@pytest.mark.slow
@pytest.mark.parametrize(
    "gradient",
    [FirstOrder(), Unrolled(), Unrolled(mode="exact"), Implicit(steps=1)],
    ids=["first", "unrolled", "exact", "implicit"],
)
def test_four_search_steps_end_with_the_same_weights_alphas_and_statistics(backend, gradient):
    nets = pair(ConvCell(channels=4, cells=3, nodes=2))
    train, valid = (batch(seed, size=4, dtype=D, side=8) for seed in (0, 1))
    for net in nets:
        search = Search(net, gradient=gradient)
        for _ in range(4):
            search.step(
                lambda n: F.cross_entropy(n(train[0]), train[1] % 5),
                lambda n: F.cross_entropy(n(valid[0]), valid[1] % 5),
            )
    assert states_differ(*nets) < 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(
    "gradient", [FirstOrder(), Unrolled(), Unrolled(mode="exact")], ids=["first", "fd", "exact"]
)
def test_checkpointed_cells_change_nothing_but_memory(fused, gradient):
    """Weights, alphas and running statistics after three steps, to the bit or nearly; less is kept
    for backward."""
    space = ConvCell(channels=4, cells=3, nodes=2)
    train, valid = (batch(seed, size=4, dtype=D, side=8) for seed in (0, 1))
    nets, kept = [], []
    for again in (False, True):
        torch.manual_seed(0)
        nets.append(space.supernet(3, 5, fused=fused, checkpoint_cells=again).double())
        search = Search(nets[-1], gradient=gradient)
        for _ in range(3):
            search.step(
                lambda n: F.cross_entropy(n(train[0]), train[1] % 5),
                lambda n: F.cross_entropy(n(valid[0]), valid[1] % 5),
            )
        with SavedTensors() as saved:
            F.cross_entropy(nets[-1](train[0]), train[1] % 5)
        kept.append(saved.peak_bytes)
        assert nets[-1].cells[0].preprocess0[2].num_batches_tracked == 4
    assert states_differ(*nets) < 1e-12
    assert kept[1] < kept[0] / 3


@pytest.mark.slow
def test_hard_sampled_steps_are_the_same(backend):
    """Only drawn operations run, and what was not drawn keeps its weights, without decay or
    momentum."""
    nets = pair(ConvCell(channels=4, cells=3, nodes=3))
    x, y = batch(0, size=4, dtype=D, side=8)
    for net in nets:
        search = Search(net, relaxation=GumbelSoftmax(), epochs=3, seed=7)
        for _ in range(6):
            search.step(
                lambda n: F.cross_entropy(n(x), y % 5), lambda n: F.cross_entropy(n(x), y % 5)
            )
    assert states_differ(*nets) < 1e-9


def test_operations_that_were_not_drawn_are_not_computed(backend):
    space = ConvCell(channels=4, cells=3)
    plain, fused = pair(space)
    draw = fused.one_hot_draw(space.random_decision(generator_for(3)))
    with torch.no_grad():
        for cell in fused.cells:
            active = draw.active["reduce" if cell.reduction else "normal"]
            for row, edge in enumerate(cell.edges):
                for k, name in enumerate(space.names):
                    if k not in active[row]:
                        for parameter in edge[name].parameters():
                            parameter.fill_(torch.nan)
    x, y = batch(0, size=4, dtype=D, side=8)
    assert (fused(x, draw=draw) - plain(x, draw=draw)).abs().max() < 1e-9
    grads = torch.autograd.grad(
        F.cross_entropy(fused(x, draw=draw), y % 5), list(fused.parameters()), allow_unused=True
    )
    assert sum(g is None for g in grads) > len(grads) / 2


def test_nothing_drawn_gives_zeros(backend):
    _, fused = pair(ConvCell(channels=4, cells=3, nodes=2))
    draw = fused.dense_draw()
    draw = type(draw)(draw.mix, {kind: ((),) * 5 for kind in draw.mix})
    logits = fused(batch(0, size=4, dtype=D, side=8)[0], draw=draw)
    assert torch.equal(logits, fused.classifier.bias.expand(4, 5))


def test_ones_own_operations_run_per_edge_beside_the_known_ones(backend):
    def squeeze(channels, stride, affine):
        return nn.Sequential(
            nn.Conv2d(channels, channels, 1, stride, bias=False),
            nn.BatchNorm2d(channels, affine=affine),
        )

    names = {
        **DARTS_OPERATIONS,
        "squeeze": squeeze,
        "dil_conv_3x3": squeeze,  # a known name for something else
        "pool": lambda channels, stride, affine: nn.AvgPool2d(5, stride, padding=2),
        "conv_7x1_1x7": ConvCell(operations=("conv_7x1_1x7",)).shape.factories["conv_7x1_1x7"],
        "sep_conv_7x7": ConvCell(operations=("sep_conv_7x7",)).shape.factories["sep_conv_7x7"],
    }
    plain, fused = pair(ConvCell(channels=4, cells=3, nodes=2, operations=names))
    x, y = batch(0, size=4, dtype=D, side=8)
    x.requires_grad_()
    assert worst(gradients(fused, x, y % 5), gradients(plain, x, y % 5)) < 1e-9
    assert states_differ(plain, fused) < 1e-9


@pytest.mark.parametrize("names", [("skip_connect",), ("max_pool_3x3", "none"), ("dil_conv_5x5",)])
def test_spaces_of_one_operation(backend, names):
    plain, fused = pair(ConvCell(channels=4, cells=3, nodes=2, operations=names))
    x, y = batch(0, size=4, dtype=D, side=8)
    x.requires_grad_()
    assert worst(gradients(fused, x, y % 5), gradients(plain, x, y % 5)) < 1e-9


@pytest.mark.slow
@needs_compiler
def test_float32_gradients_are_as_accurate_as_those_of_the_edges():
    """Error of all gradients together, relative to float64: at most 1.5 times that of the plain
    network.

    The median over three networks: where rounding moves a value across the kink of a ReLU, in
    either network, the gradient jumps by much more than the rounding.
    """
    ratios = []
    for seed in range(3):
        plain, fused = pair(ConvCell(channels=8, cells=3, nodes=3), seed)
        x, y = batch(seed, size=16, dtype=D, side=16)
        exact = torch.cat([g.flatten() for g in gradients(plain, x.requires_grad_(), y % 5)])
        errors = []
        for net in (fused, plain):
            grads = gradients(
                copy.deepcopy(net).float(), x.detach().float().requires_grad_(), y % 5
            )
            errors.append((torch.cat([g.flatten() for g in grads]).double() - exact).norm().item())
        ratios.append(errors[0] / errors[1])
    assert sorted(ratios)[1] < 1.5, ratios


@pytest.mark.slow
@needs_compiler
def test_a_cell_of_known_operations_is_one_operation_of_autograd():
    """In training; nodes that nothing enters and inputs that nothing leaves are no exceptions."""
    space = ConvCell(channels=8, cells=3, nodes=2)
    plain, fused = pair(space)
    x, y = batch(0, size=4, dtype=D, side=8)
    seen = []
    for cell in fused.cells:
        cell.register_forward_hook(lambda _, inputs, output: seen.append(output))
    # Everything, and what leaves the second input and the first node alone
    every = fused.dense_draw()
    mix = {kind: mix_EO.detach() for kind, mix_EO in every.mix.items()}
    few = {kind: ((), (3, 4), (), (), (1, 2, 6)) for kind in mix}
    for draw in (type(every)(mix, every.active), type(every)(mix, few)):
        seen.clear()
        expected, found = (
            gradients(net, x.requires_grad_(), y % 5, draw) for net in (plain, fused)
        )
        assert worst(found, expected) < 1e-10
        # torch itself gives zeros to what nothing reaches, where an operation had it as an input.
        for a, b in zip(found, expected, strict=True):
            assert a is None or b is not None
        assert len(seen) == 3
        for output in seen:
            assert "_Nodes" in output.grad_fn.next_functions[0][0].name()
    fused.eval()
    seen.clear()
    fused(x)
    assert not any("_Nodes" in out.grad_fn.next_functions[0][0].name() for out in seen)


def test_states_move_between_the_two_cells_and_into_the_derived_network():
    space = ConvCell(channels=4, cells=3)
    plain, fused = pair(space)
    other, _ = pair(space, seed=1)
    back = space.supernet(3, 5).double()
    back.load_state_dict(plain.state_dict())
    other.load_state_dict(fused.state_dict())
    assert states_differ(plain, back) == states_differ(plain, other) == 0
    for name in space.names:
        mine, theirs = (net.cells[1].operation_state(3, name) for net in (fused, plain))
        assert mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
    genotype = space.random_decision(generator_for(0))
    x, _ = batch(0, size=4, dtype=D, side=8)
    assert torch.equal(fused.derived(genotype)(x), plain.derived(genotype)(x))
    sep = ConvCell(channels=4, cells=3, operations=tuple(n for n in space.names if "pool" not in n))
    _, fused = pair(sep)
    genotype = sep.random_decision(generator_for(1))
    assert (
        fused(x, draw=fused.one_hot_draw(genotype)) - fused.derived(genotype)(x)
    ).abs().max() < 1e-9


def test_the_number_of_weights_is_unchanged():
    with torch.device("meta"):
        supernet = ConvCell().supernet()
    assert (
        sum(p.numel() for n, p in supernet.named_parameters() if not n.startswith("alphas"))
        == 1_930_618
    )


class Launches(TorchDispatchMode):
    """Operations that are no views; a convolution's backward counts once for each gradient that it
    gives."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        views = (
            "view expand permute transpose split unsqueeze squeeze select slice unbind detach "
            "alias empty t as_strided"
        )
        name = func.overloadpacket.__name__
        if not name.strip("_").startswith(tuple(views.split()[:-2])) and name not in views.split():
            self.count += sum(args[-1]) if name == "convolution_backward" else 1
        return func(*args, **(kwargs or {}))


def test_a_pass_on_a_gpu_takes_few_launches(monkeypatch):
    """Forward and backward at the depth of the paper: at most 1,650 (the network as published: more
    than 12,000)."""
    monkeypatch.setattr(FusedCell, "grouped", True)
    supernet = ConvCell(channels=4).supernet()
    x, y = batch(0, size=2, side=16)
    weights = [p for name, p in supernet.named_parameters() if not name.startswith("alphas")]
    fixed = Softmax().draw({name: a.detach() for name, a in supernet.alphas.items()}, {}, 0.0)
    for wanted, draw in ((weights, fixed), (list(supernet.alphas.values()), None)):
        for p in supernet.parameters():
            p.requires_grad_(any(p is w for w in wanted))
        with Launches() as launches:
            torch.autograd.grad(F.cross_entropy(supernet(x, draw=draw), y), wanted)
        assert 1000 < launches.count < 1650


def test_one_pixel_has_no_variance(backend):
    _, fused = pair(ConvCell(channels=4, cells=3, nodes=2))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fused(torch.randn(1, 3, 4, 4, dtype=D))
    with pytest.raises(ValueError, match="even height and width, got 9x9"):
        fused(torch.randn(2, 3, 9, 9, dtype=D))


def test_autocast_and_bf16():
    plain, fused = pair(ConvCell(channels=8, cells=3, nodes=2), dtype=torch.float32)
    x, y = batch(0, size=8, side=8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = fused(x)
    assert (half - plain(x)).abs().max() < 0.1 * plain(x).abs().max()
    search = Search(fused, gradient=Unrolled(), precision="bf16")
    report = search.step(
        lambda n: F.cross_entropy(n(x), y % 5), lambda n: F.cross_entropy(n(x), y % 5)
    )
    assert torch.isfinite(report.train_loss)


def test_dilated_convolutions_have_right_gradients_in_bf16():
    """In bf16 and channels-last, torch's own are wrong or NaN on some CPUs."""
    torch.manual_seed(0)
    x = torch.randn(4, 8, 16, 16).contiguous(memory_format=torch.channels_last).requires_grad_()
    operation = OPERATIONS["dil_conv_5x5"](8, 1, False)[:3]
    weights = list(operation.parameters())
    found = []
    for enabled in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            for y in (operation(x).float(), stencils.depthwise(x, weights[0], 2).float()):
                found.append(torch.autograd.grad(y.sin().sum(), [x, weights[0]]))
    for half, exact in zip(found[:2], found[2:], strict=True):
        for a, b in zip(half, exact, strict=True):
            assert (a - b).norm() < 0.03 * b.norm()


# ---- the pieces ----------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize("channels", [4, 8, 16])
@pytest.mark.parametrize(("size", "stride"), [((5, 9), 1), ((6, 10), 2), ((7, 3), 2), ((1, 2), 1)])
def test_kernels_against_torch(channels, size, stride):
    torch.manual_seed(0)
    x = channels_last(torch.randn(3, channels, *size, dtype=D)).requires_grad_()
    weights = [torch.randn(channels, 1, k, k, dtype=D, requires_grad=True) for k in (3, 5, 3, 5)]
    dilations = (1, 1, 2, 2)
    assert kernels(x) is not None
    for fused, expected in (
        (
            relu_depthwise(x, weights, dilations, stride),
            [
                F.conv2d(F.relu(x), w, None, stride, d * (w.shape[2] // 2), d, channels)
                for w, d in zip(weights, dilations, strict=True)
            ],
        ),
        (
            pools(x, stride),
            [F.max_pool2d(x, 3, stride, 1), F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)],
        ),
    ):
        assert worst(fused, expected) < 1e-12
        heads = [torch.randn_like(e) for e in expected]
        both = [
            torch.autograd.grad(o, [x, *weights], heads, allow_unused=True)
            for o in (fused, expected)
        ]
        assert worst(*both) < 1e-11


@needs_compiler
def test_ties_and_nan_in_pools_are_as_in_torch():
    x = channels_last(torch.randint(0, 2, (2, 8, 6, 6)).double()).requires_grad_()
    found, expected = pools(x, 1)[0], F.max_pool2d(x, 3, 1, 1)
    head = torch.randn_like(expected)
    assert torch.equal(*(torch.autograd.grad(o, x, head)[0] for o in (found, expected)))
    x = x.detach().clone()
    x[0, 0, 2, 2] = torch.nan
    assert torch.equal(pools(x, 1)[0].isnan(), F.max_pool2d(x, 3, 1, 1).isnan())
    weight = torch.ones(8, 1, 3, 3, dtype=D)
    assert relu_depthwise(x, [weight], [1], 1)[0].isnan().sum() == 9


def test_first_and_second_derivatives_by_finite_differences(backend):
    torch.manual_seed(0)
    shape = (2, 4, 3, 2)
    z, x, q = (channels_last(torch.randn(shape, dtype=D)).requires_grad_() for _ in range(3))
    weight = torch.randn(4, 1, 3, 3, dtype=D).requires_grad_()
    pointwise = torch.randn(4, 4, 1, 1, dtype=D).requires_grad_()
    mix = torch.randn(4, dtype=D).requires_grad_()

    def fold(mix, weight, *maps):
        return fold_mix(
            mix, [weight, 2 * weight], 1, [maps[0], maps[1], maps[2], maps[0] * maps[1]]
        )[0]

    cases = [
        (lambda z, w: norm_relu_depthwise(z, w)[0], (z, weight)),
        (lambda x, w: relu_depthwise(x, [w, w * w], [1, 2], 2), (x, weight)),
        (lambda x: pools(x, 2), (x,)),
        (relu_pointwise, (x, pointwise)),
        (fold, (mix, pointwise, z, x, q)),
    ]
    for function, inputs in cases:
        assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
        assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.slow
@needs_compiler
def test_the_number_of_threads_does_not_matter():
    _, fused = pair(ConvCell(channels=4, cells=3, nodes=2))
    x, y = batch(0, size=5, dtype=D, side=8)
    x.requires_grad_()
    one = gradients(fused, x, y[:5] % 5)
    torch.set_num_threads(2)
    try:
        two, again = (gradients(fused, x, y[:5] % 5) for _ in range(2))
    finally:
        torch.set_num_threads(1)
    assert worst(two, one) < 1e-12
    assert all(torch.equal(a, b) for a, b in zip(two, again, strict=True))
