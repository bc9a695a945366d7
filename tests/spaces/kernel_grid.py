"""Every C++ function over a grid of shapes; the sanitizers of the compiler look on.

Run by `test_native.py` in a process of its own, with kernels that were built with
`-fsanitize=address,undefined`: a read or write outside of a buffer ends it. Sizes are around the
widths of vectors and blocks: where what is left over is computed in another way.

Of the grid every `EVERY`-th case is taken, in float32; with GRADNAS_ALL_TESTS=1 all, and float64.

Legend: B batch, C channels (I in, O out), H height, W width; T time steps, V vocabulary.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gradnas import NasBench201
from gradnas.spaces.blocks.kernels import kernels as block_kernels
from gradnas.spaces.blocks.run import plain_run, pooled, run_stages
from gradnas.spaces.blocks.stage import RELU6, Last, Others, Stage, Term, Weights
from gradnas.spaces.cells.kernels import Kernels, kernels
from gradnas.spaces.cells.places import channels_last
from gradnas.spaces.cells.source_kernels import Convolution, Entered, source_kernels
from gradnas.spaces.cells.stencils import depthwise as plain_depthwise
from gradnas.spaces.nas_bench_201.cell import BenchCell
from gradnas.spaces.nas_bench_201.shared_cell import SharedCell
from gradnas.spaces.recurrent.native_derived import run_derived_cell
from gradnas.spaces.recurrent.native_search import run_search_cell
from gradnas.spaces.recurrent.recurrence import ACTIVATIONS, derived_cell, search_cell
from gradnas.spaces.recurrent.token_loss import run_token_loss, token_loss

CHANNELS = (8, 16, 24, 32, 40, 64)
SIZES = ((1, 1, 1), (1, 2, 3), (2, 5, 9))
TOLERANCE = {torch.float32: 2e-4, torch.float64: 1e-11}
# A number that shares no factor with the lengths of the axes, so that each value of each is met
ALL = bool(os.environ.get("GRADNAS_ALL_TESTS"))
EVERY = 1 if ALL else 7
checked = 0


def cases(*axes: Any) -> Iterator[tuple[Any, ...]]:
    return itertools.islice(itertools.product(*axes), 0, None, EVERY)


def same(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    global checked
    checked += 1
    error = (found.double() - expected.double()).norm()
    assert error <= TOLERANCE[dtype] * (1.0 + expected.double().norm()), (error, found.shape)


def new_map(size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    return channels_last(torch.randn(size, dtype=dtype))


def rows_of(x_BCHW: Tensor) -> Tensor:
    return x_BCHW.permute(0, 2, 3, 1).flatten(0, 2).double()


# ---- stencils ------------------------------------------------------------------------------------


def native_for(dtype: torch.dtype) -> Kernels:
    native = kernels(torch.zeros(1, 16, 1, 1, dtype=dtype))
    assert native is not None
    return native


def products(dtype: torch.dtype) -> None:
    """Sums over pixels and matrix products: every pair of widths, with and without each option."""
    native = native_for(dtype)
    for (B, H, W), I, O in cases(SIZES, CHANNELS, CHANNELS):  # noqa: E741
        x = new_map((B, I, H, W), dtype)
        y = new_map((B, O, H, W), dtype)
        mean_x = torch.randn(I, dtype=dtype)
        mean_y = torch.randn(O, dtype=dtype)
        for relu, with_x, with_y in itertools.product((False, True), repeat=3):
            left = rows_of(x.relu() if relu else x) - (mean_x.double() if with_x else 0.0)
            right = rows_of(y) - (mean_y.double() if with_y else 0.0)
            found = native.cross(
                x, y, mean_x if with_x else None, mean_y if with_y else None, relu=relu
            )
            same(found, left.t() @ right, dtype)
        matrix = torch.randn(1, I, O, dtype=dtype)
        expected = rows_of(x.relu()) @ matrix[0].double()
        same(rows_of(native.sum_products([x], matrix, relu=True)), expected, dtype)
        expected = expected * (rows_of(y) > 0)
        same(rows_of(native.sum_products([x], matrix, relu=True, gate=y)), expected, dtype)
        two = torch.randn(2, I, O, dtype=dtype)
        bias = torch.randn(O, dtype=dtype)
        factor = torch.randn(O, dtype=dtype)
        expected = rows_of(x) @ (two[0] + two[1]).double() + rows_of(y * factor.view(-1, 1, 1))
        found = native.sum_products([x, x], two, [(y, factor)], bias)
        same(rows_of(found), expected + bias.double(), dtype)


def sums(dtype: torch.dtype) -> None:
    native = native_for(dtype)
    sizes = (*SIZES, (5, 16, 15))  # the last: more than one chunk of pixels
    for (B, H, W), C in cases(sizes, CHANNELS):
        x = new_map((B, C, H, W), dtype)
        y = new_map((B, C, H, W), dtype)
        rows = rows_of(x)
        same(native.sums(x), rows.sum(0), dtype)
        same(native.sums(x, y), (rows * rows_of(y)).sum(0), dtype)
        mean, var = native.moments(x)
        same(mean, rows.mean(0), dtype)
        same(var, rows.var(0, correction=0), dtype)
        mean, covariance = native.covariance(x)
        same(mean, rows.mean(0), dtype)
        centred = rows - rows.mean(0)
        same(covariance, centred.t() @ centred / len(rows), dtype)
        factors = [(x, torch.ones(C, dtype=dtype)), (y, torch.ones(C, dtype=dtype))]
        nothing = torch.empty(0, dtype=dtype)
        same(rows_of(native.sum_products([], nothing, factors)), rows + rows_of(y), dtype)


def neighbours(dtype: torch.dtype) -> None:
    """Depthwise convolutions and pools."""
    native = native_for(dtype)
    sizes = (*SIZES, (2, 2, 1), (1, 13, 4))
    for (B, H, W), C, stride in cases(sizes, CHANNELS[:4], (1, 2)):
        x = new_map((B, C, H, W), dtype).requires_grad_()
        dilations = (1, 1, 2, 2)
        weights = [torch.randn(C, 1, k, k, dtype=dtype).requires_grad_() for k in (3, 5, 3, 5)]
        expected = []
        for weight, dilation in zip(weights, dilations, strict=True):
            padding = dilation * (weight.shape[2] // 2)
            expected.append(F.conv2d(x.relu(), weight, None, stride, padding, dilation, C))
        found = native.depthwise(x.detach(), [w.detach() for w in weights], dilations, stride)
        for a, b in zip(found, expected, strict=True):
            same(a, b, dtype)
        heads = [new_map(tuple(b.shape), dtype) for b in expected]
        grads = torch.autograd.grad(expected, [x, *weights], heads)
        plain = [w.detach() for w in weights]
        grad_x, grad_weights = native.depthwise_backward(
            x.detach(), plain, dilations, stride, heads
        )
        for a, b in zip([grad_x, *grad_weights], grads, strict=True):
            same(a, b, dtype)
        grad_x, _ = native.depthwise_backward(
            x.detach(), plain, dilations, stride, heads, with_weights=False
        )
        same(grad_x, grads[0], dtype)
        normal = (torch.rand(C, dtype=dtype) + 0.5, torch.randn(C, dtype=dtype))
        native.depthwise(x.detach(), plain, dilations, stride, normal)
        native.depthwise_backward(x.detach(), plain, dilations, stride, heads, normal)

        largest = F.max_pool2d(x, 3, stride, 1)
        average = F.avg_pool2d(x, 3, stride, 1, count_include_pad=False)
        for a, b in zip(native.pools(x.detach(), stride), (largest, average), strict=True):
            same(a, b, dtype)
        (expected_x,) = torch.autograd.grad([largest, average], x, heads[:2])
        same(native.pools_backward(x.detach(), stride, *heads[:2]), expected_x, dtype)


# ---- whole cells ---------------------------------------------------------------------------------


def sources(dtype: torch.dtype) -> None:
    """All that leaves a source and all that enters a node, both ways."""
    native = source_kernels(dtype)
    assert native is not None
    sizes = ((1, 2, 3), (2, 5, 9), (1, 13, 4), (7, 4, 4), (3, 17, 16))
    for (B, H, W), C, S in cases(sizes, CHANNELS, (1, 2)):
        x = new_map((B, C, H, W), dtype).requires_grad_()
        convolutions = []
        for K, K2 in ((3, 3), (5, 3), (3, 5), (3, 0), (5, 0)):
            depthwise = torch.randn(C, 1, K, K, dtype=dtype).requires_grad_()
            pointwise = second = None
            if K2:
                pointwise = (torch.randn(C, C, 1, 1, dtype=dtype) / C**0.5).requires_grad_()
                second = torch.randn(C, 1, K2, K2, dtype=dtype).requires_grad_()
            convolutions.append(Convolution(depthwise, 1 if K2 else 2, pointwise, second))
        expected = []
        for c in convolutions:
            D = plain_depthwise(x.relu(), c.depthwise, c.dilation, S)
            if c.pointwise is not None and c.second is not None:
                z = F.conv2d(D, c.pointwise)
                if z.numel() == C:
                    break
                D = plain_depthwise(F.batch_norm(z, None, None, training=True).relu(), c.second, 1)
            expected.append(D)
        if len(expected) < len(convolutions):  # a single pixel has no variance
            continue
        with torch.no_grad():
            left = native.leave(x, convolutions, S)
        for k, (found, D) in enumerate(zip(left.maps, expected, strict=True)):
            same(found, D.detach(), dtype)
            rows = rows_of(D.detach())
            same(left.mean_KC[k], rows.mean(0), dtype)
            centred = rows - rows.mean(0)
            same(left.covariance_KCC[k], centred.t() @ centred / len(rows), dtype)
        size = expected[0].shape
        entered, heads = [], []
        for D in expected:
            g = new_map(tuple(size), dtype)
            M, S_CC = (torch.randn(C, C, dtype=torch.float64) / C**0.5 for _ in range(2))
            bias = torch.randn(C, dtype=torch.float64)
            entered.append(Entered(g, M, S_CC, bias))
            e = rows_of(g) @ M + rows_of(D.detach()) @ S_CC + bias
            heads.append(e.to(dtype).reshape(B, *size[2:], C).permute(0, 3, 1, 2))
        weights = [w for c in convolutions for w in (c.depthwise, c.pointwise, c.second)]
        wanted = [x, *(w for w in weights if w is not None)]
        grads = torch.autograd.grad(expected, wanted, heads)
        arguments = (left.maps, left.products, left.normal_K2C, entered)
        with torch.no_grad():
            grad_x, found = native.leave_backward(x, convolutions, S, *arguments, True, True)
            assert grad_x is not None
            flat = [g for own in found for g in own if g is not None]
            for a, b in zip([grad_x, *flat], grads, strict=True):
                same_roughly(a, b)
            into = new_map((B, C, H, W), dtype)
            together = into + grad_x
            native.leave_backward(x, convolutions, S, *arguments, True, False, into)
            same(into, together, dtype)
            nothing, again = native.leave_backward(x, convolutions, S, *arguments, False, True)
            assert nothing is None
            for a, b in zip(again, found, strict=True):
                assert all(c is None or torch.equal(c, d) for c, d in zip(a, b, strict=True))
        g = entered[0].grad_BCHW
        for maps, others in ((left.maps, []), (left.maps[:1], left.maps), ([], left.maps[:2])):
            total, near, crosses, along = native.enter_backward(g, maps, others)
            same(total, rows_of(g).sum(0), dtype)
            for one, cross in zip(maps, crosses, strict=True):
                same(cross, rows_of(one).t() @ (rows_of(g) - near.double()), dtype)
            for one, sums in zip(others, along, strict=True):
                same(sums, (rows_of(one) * rows_of(g)).sum(0), dtype)


# ---- accelerated blocks --------------------------------------------------------------------------


SMALL = (*SIZES[1:], (3, 4, 4), (9, 2, 2))
# More pixels than are taken at once: pieces of rows that need rows of others
LARGE = ((2, 35, 17), (1, 6, 131), (1, 22, 70))


def stages(
    dtype: torch.dtype,
    channels: tuple[int, ...] = (1, 3, 16, 17, 36),
    sizes: tuple[tuple[int, int, int], ...] = SMALL,
) -> None:
    """Two stages after each other, with every kind of convolution, width, stride and activation."""
    kinds = [(0, 1, 1), (0, 2, 1), (3, 1, 1), (3, 2, 2), (5, 1, 2), (5, 2, 1), (7, 1, 1), (7, 2, 2)]
    for (B, H, W), C, (K, S, D) in cases(sizes, channels, kinds):
        halves = K == 0 and S == 2
        if halves and (H % 2 or W % 2):
            continue
        if K == 0 and S == 1:
            for stride in (1, 2):
                x = new_map((B, C, H, W), dtype).requires_grad_()
                expected = F.max_pool2d(x, 3, stride, 1)
                found = pooled(x, stride)
                assert found is not None
                same(found.detach(), expected.detach(), dtype)
                head = new_map(tuple(expected.shape), dtype)
                grads = [torch.autograd.grad(y, x, head)[0] for y in (found, expected)]
                same(*grads, dtype)
        for act, last_act, pointwise in ((1, 0, True), (2, 1, K == 0), (0, 2, True)):
            factor = torch.rand(B, dtype=dtype) if last_act < 2 else None
            last = Last(last_act, factor)
            O = C + 3 if pointwise else C  # noqa: E741
            first = Stage(act, K, S, D, pointwise, True, 1e-5)
            second = Stage(2, 3, 1, 1, True, False, 1e-3)
            shapes = [(C, 1, K, K)] if K else []
            shapes += [(O, 2 * C if halves else C, 1, 1)] if pointwise else []
            shapes += [(O,), (O,), (O, 1, 3, 3), (C, O, 1, 1)]
            weights = [torch.randn(s, dtype=dtype).requires_grad_() for s in shapes]
            # A slice of a wider map, as the gradient of a concatenation is.
            x = new_map((B, C, H, W), dtype).requires_grad_()
            ran = run_stages((first, second), last, x, weights)
            if ran is None:  # a single pixel
                assert B * ((H - 1) // S + 1) * ((W - 1) // S + 1) == 1
                continue
            expected = plain_run((first, second), last, x, *weights)[0]
            same(ran[0].detach(), expected.detach(), dtype)
            B_, C_, H_, W_ = expected.shape
            head = new_map((B_, C_ + 5, H_, W_), dtype)[:, 2 : C_ + 2]
            found = torch.autograd.grad(ran[0], [x, *weights], head)
            for a, b in zip(found, torch.autograd.grad(expected, [x, *weights], head), strict=True):
                # Where a value is at the kink of an activation up to rounding, gradients differ.
                same_roughly(a, b)


def stems(dtype: torch.dtype) -> None:
    """Full convolutions of few channels, of an input that needs no gradient."""
    for (B, H, W), C, K, S in cases((*SIZES[1:], (3, 8, 7)), (1, 3, 4), (3, 5, 7), (1, 2)):
        first = Stage(0, K, S, 1, True, True, 1e-5, full=True)
        second = Stage(1, 0, 1, 1, True, True, 1e-5)
        shapes = [(17, C, K, K), (17,), (17,), (5, 17, 1, 1), (5,), (5,)]
        weights = [torch.randn(s, dtype=dtype).requires_grad_() for s in shapes]
        x = new_map((B, C, H, W), dtype)
        ran = run_stages((first, second), Last(), x, weights)
        if ran is None:  # a single pixel
            continue
        expected = plain_run((first, second), Last(), x, *weights)[0]
        same(ran[0].detach(), expected.detach(), dtype)
        head = new_map(tuple(expected.shape), dtype)
        found = torch.autograd.grad(ran[0], weights, head)
        for a, b in zip(found, torch.autograd.grad(expected, weights, head), strict=True):
            same_roughly(a, b)


def joined(dtype: torch.dtype) -> None:
    """Sums of several maps, and gradients that are added to what others gave."""
    native = block_kernels(dtype)
    assert native is not None
    for (B, H, W), C, num in cases((*SIZES, (3, 9, 8)), (1, 16, 17, 40), (1, 2, 3, 4, 6)):
        terms = []
        expected = torch.zeros(B, C, H, W, dtype=torch.float64)
        for k in range(num):
            x = new_map((B, C + 3, H, W), dtype)[:, 1 : C + 1]
            norm = torch.randn(4, C, dtype=dtype) if k % 2 == 0 else None
            factor = torch.rand(B, dtype=dtype) if k % 3 == 0 else None
            terms.append(Term(x, norm, Last(RELU6 if k == 1 else 0, factor)))
            value = x.double()
            if norm is not None:
                value = value * norm[0].double().view(-1, 1, 1) + norm[1].double().view(-1, 1, 1)
            value = value.clamp(0, 6) if k == 1 else value
            expected += value if factor is None else value * factor.double().view(-1, 1, 1, 1)
        same(native.combine(terms), expected, dtype)
        wide = new_map((B, C + 7, H, W), dtype)
        kept = wide.clone()
        native.combine(terms, wide[:, 2 : C + 2])
        same(wide[:, 2 : C + 2], expected, dtype)
        assert torch.equal(wide[:, :2], kept[:, :2]) and torch.equal(
            wide[:, C + 2 :], kept[:, C + 2 :]
        )

        grad = new_map((B, C + 2, H, W), dtype)[:, 2:]
        z = [new_map((B, C, H, W), dtype) for _ in range(2)]
        norm = torch.rand(4, C, dtype=dtype)
        two = [Term(z[0], norm, Last(0, torch.rand(B, dtype=dtype))), Term(z[1], norm)]
        for term, found in zip(two, native.gradient_sums(two, grad), strict=True):
            same(found, native.gradient_sums([term], grad)[0], dtype)
        for K in (0, 3):
            stage = Stage(1, K, 1, 1, True, True, 1e-5)
            shapes = (C, 1, K, K), (C, C, 1, 1)
            depthwise = torch.randn(shapes[0], dtype=dtype) if K else None
            weights = Weights(depthwise, torch.randn(shapes[1], dtype=dtype), norm[0], norm[1])
            base = new_map((B, C + 1, H, W), dtype)[:, 1:]
            into = new_map((B, C, H, W), dtype)
            before = None if K else norm
            arguments = (stage, z[0], before, weights, z[1], norm, torch.rand(2, C).double())
            alone, _, sums = native.stage_backward(*arguments, Last(), grad, (True, bool(K), True))
            together = alone.double() + base.double() + into.double()
            found, _, more = native.stage_backward(
                *arguments, Last(), grad, (True, bool(K), True), Others(base, into)
            )
            assert found is into
            same(found, together, dtype)
            if not K:
                same(more[0], sums[0] + base.double().sum((0, 2, 3)), torch.float32)
        for stride in (1, 2):
            into = new_map((B, C, H, W), dtype)
            head = new_map((B, C, (H - 1) // stride + 1, (W - 1) // stride + 1), dtype)
            together = into.double() + native.pool_backward(z[0], stride, head).double()
            same(native.pool_backward(z[0], stride, head, into), together, dtype)


def same_roughly(found: Tensor, expected: Tensor) -> None:
    global checked
    checked += 1
    error = (found - expected).norm()
    assert error <= 0.05 * (1.0 + expected.norm()), (error, found.shape)


# ---- recurrence ----------------------------------------------------------------------------------


def recurrence(dtype: torch.dtype) -> None:
    names = ("tanh", "relu", "sigmoid", "identity")
    functions = [ACTIVATIONS[name] for name in names]
    for B, H, nodes, with_mask in cases((5, 6), (1, 5, 64, 65), (1, 3), (False, True)):
        mask = torch.rand(B, H, dtype=dtype) if with_mask else None
        E = nodes * (nodes + 1) // 2
        shapes = ((3, B, 2 * H), (B, H), (H, 2 * H), (nodes, H, 2 * H), (E, 4))
        tensors = [(0.5 * torch.randn(s, dtype=dtype)).requires_grad_() for s in shapes]
        cell = tensors[:4]
        wiring = (
            [names[i % 4] for i in range(nodes)],
            list(range(nodes)),
            list(range(1, nodes + 1)),
        )
        own = [ACTIVATIONS[name] for name in wiring[0]]
        pairs = (
            (
                run_search_cell(dict(zip(names, functions, strict=True)), mask, *tensors),
                search_cell(functions, mask, *tensors),
                tensors,
            ),
            (
                run_derived_cell(wiring[0], own, *wiring[1:], mask, *cell),
                derived_cell(own, *wiring[1:], mask, *cell),
                cell,
            ),
        )
        for found, expected, inputs in pairs:
            head = torch.randn_like(expected)
            grads = [torch.autograd.grad(o, inputs, head) for o in (found, expected)]
            # A BatchNorm over few texts magnifies the rounding of float32.
            if dtype == torch.float64:
                same(found, expected, torch.float32)
                for a, b in zip(*grads, strict=True):
                    same(a, b, torch.float32)
        with torch.no_grad():
            # The derived cell takes the kernels without gradients too, if there are many steps.
            tensors[0] = tensors[0].repeat(3, 1, 1)
            run_search_cell(dict(zip(names, functions, strict=True)), mask, *tensors)
            run_derived_cell(wiring[0], own, *wiring[1:], mask, *tensors[:4])


def tokens(dtype: torch.dtype) -> None:
    for N, H, V in cases((1, 7, 256, 300), (1, 6), (2, 511, 512, 1025)):
        shapes = ((N, H), (V, H), (V,))
        tensors = [torch.randn(s, dtype=dtype).requires_grad_() for s in shapes]
        targets = torch.randint(V, (N,))
        targets[0] = V - 1
        both = [loss(*tensors, targets) for loss in (run_token_loss, token_loss)]
        same(*both, dtype)
        for a, b in zip(*(torch.autograd.grad(o, tensors) for o in both), strict=True):
            same(a, b, dtype)


# ---- the open cell of NAS-Bench-201 --------------------------------------------------------------


def open_cells(dtype: torch.dtype) -> None:
    """Every operation of every edge, and those of one edge alone; batches around a vector."""
    modes = (True, False)
    layouts = (torch.contiguous_format, torch.channels_last)
    sizes = ((1, 1), (1, 2), (3, 1), (4, 4), (5, 9))
    for B, C, (H, W), training, layout in cases((8, 16, 19), (1, 4, 6), sizes, modes, layouts):
        shape = NasBench201(channels=C, cells=1).shape
        shared = SharedCell(shape, C, 0).to(dtype).train(training)
        plain = BenchCell(shape, C, 0).to(dtype).train(training)
        plain.load_state_dict(shared.state_dict())
        x = torch.randn(B, C, H, W, dtype=dtype).contiguous(memory_format=layout)
        mix = torch.randn(6, 5, dtype=dtype)
        head = torch.randn_like(x)
        for active in (((0, 1, 2, 3, 4),) * 6, ((3,), (), (4,), (), (1, 2), (2, 3))):
            found = []
            for cell in (shared, plain):
                inputs = [x.clone().requires_grad_(), mix.clone().requires_grad_()]
                y = cell(*inputs, active)
                assert cell is plain or type(y.grad_fn).__name__ == "_CellBackward"
                inputs += cell.parameters()
                grads = torch.autograd.grad(y, inputs, head, allow_unused=True)
                found.append([y, *(g for g in grads if g is not None)])
            for one, other in zip(*found, strict=True):
                # A BatchNorm over few pixels magnifies the rounding of float32.
                if dtype == torch.float64:
                    same(one, other, torch.float32)


if __name__ == "__main__":
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64)[: 2 if ALL else 1]:
        torch.set_num_threads(1)
        for part in (products, sums, neighbours, sources, recurrence, tokens, open_cells):
            part(dtype)
        torch.set_num_threads(2)
        for part in (sums, sources, recurrence, open_cells):
            part(dtype)
        print(dtype, flush=True)
    # Of one dtype: the numbers of both are compared by test_accelerate.py.
    torch.set_num_threads(1)
    for part in (stages, stems, joined):
        part(torch.float32)
    stages(torch.float32, (5, 17), LARGE)
    torch.set_num_threads(2)
    stages(torch.float32, channels=(17,))
    joined(torch.float32)
    print(checked, "results are right")
