"""Architecture gradients against closed forms, exact autograd and numerical differentiation."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from cases import GRADIENTS, TwoChoices, batch, loss_on, name_of
from torch.func import functional_call

from gradnas import FirstOrder, Implicit, Search, SGDStep, Unrolled
from gradnas.spaces import ModuleSupernet

D = torch.float64


def toy_train(p, a):
    return p["w"] ** 2 - 2 * a["a"] * p["w"] + a["a"] ** 2


def toy_valid(p, a):
    return a["a"] * p["w"] - 2 * a["a"] + 1


TOY = {"w": torch.tensor(-2.0, dtype=D)}, {"a": torch.tensor(2.0, dtype=D)}


@pytest.mark.parametrize("mode", ["finite_difference", "exact"])
@pytest.mark.parametrize(("xi", "expected"), [(0.0, -4.0), (0.1, -2.8), (0.5, 2.0)])
def test_toy_problem_of_the_paper(mode, xi, expected):
    """DARTS, figure 2."""
    grads = Unrolled(mode=mode)(toy_train, toy_valid, *TOY, inner=SGDStep(lr=xi))
    assert grads["a"].item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.slow
def test_toy_problem_converges_to_the_optimum_with_second_order_only():
    """From (2, -2) the unrolled gradient leads to (1, 1); the paper's figure 2."""
    ends = {}
    for gradient in (FirstOrder(), Unrolled(mode="exact")):
        w, a = torch.tensor(-2.0, dtype=D), torch.tensor(2.0, dtype=D)
        for _ in range(4000):
            g = gradient(toy_train, toy_valid, {"w": w}, {"a": a}, inner=SGDStep(lr=0.5))
            a = a - 0.01 * g["a"]
            w = w - 0.1 * (2 * w - 2 * a)
        ends[type(gradient).__name__] = (a.item(), w.item())
    assert ends["Unrolled"] == pytest.approx((1.0, 1.0), abs=1e-3)
    assert ends["FirstOrder"] != pytest.approx((1.0, 1.0), abs=0.2)


def closures(dropout: float = 0.0, smooth: bool = True):
    """Losses of the two-choice module over dictionaries, as a user of the bare gradients would
    write them."""
    torch.manual_seed(0)
    net = ModuleSupernet(TwoChoices(dropout, smooth)).double()
    with torch.no_grad():
        for alpha in net.alphas.values():
            alpha.copy_(torch.randn(alpha.shape))
    params = {k: p.detach() for k, p in net.named_parameters() if not k.startswith("alphas.")}
    alphas = {k: a.detach() for k, a in net.alphas.items()}
    buffers = dict(net.named_buffers())

    def loss_on(x, y):
        def loss(p, a):
            tensors = {
                **p,
                **{f"alphas.{k}": v for k, v in a.items()},
                **{k: b.clone() for k, b in buffers.items()},
            }
            return F.cross_entropy(functional_call(net, tensors, (x,)), y)

        return loss

    return loss_on(*batch(1, dtype=D)), loss_on(*batch(2, dtype=D)), params, alphas


def momentum_step(params, lr=0.1, nesterov=False):
    generator = torch.Generator().manual_seed(3)
    buffers = {
        k: 0.1 * torch.randn(p.shape, generator=generator, dtype=D) for k, p in params.items()
    }
    return SGDStep(lr=lr, momentum=0.9, weight_decay=3e-4, buffers=buffers, nesterov=nesterov)


def relative_error(one, other):
    one, other = (torch.cat([t[k].reshape(-1) for k in sorted(t)]) for t in (one, other))
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("nesterov", [False, True])
def test_finite_difference_agrees_with_exact(nesterov):
    train, valid, params, alphas = closures()
    inner = momentum_step(params, nesterov=nesterov)
    exact = Unrolled(mode="exact")(train, valid, params, alphas, inner=inner)
    difference = Unrolled()(train, valid, params, alphas, inner=inner)
    first = FirstOrder()(train, valid, params, alphas)
    assert relative_error(difference, exact) < 1e-5
    assert relative_error(first, exact) > 1e-3  # the implicit term is not negligible here


@pytest.mark.parametrize("steps", [1, 3])
def test_exact_agrees_with_numerical_differentiation(steps):
    train, valid, params, alphas = closures()
    inner = momentum_step(params)
    exact = Unrolled(mode="exact", steps=steps)(train, valid, params, alphas, inner=inner)

    def unrolled_loss(a):
        w, buffers = {k: p.clone() for k, p in params.items()}, inner.buffers
        for _ in range(steps):
            leaves = {k: p.requires_grad_() for k, p in w.items()}
            grads = torch.autograd.grad(train(leaves, a), list(leaves.values()))
            w, buffers = inner({k: p.detach() for k, p in leaves.items()}, grads, buffers)
        return valid(w, a).item()

    numerical, h = {}, 1e-5
    for name, alpha in alphas.items():
        column = torch.zeros_like(alpha)
        for k in range(alpha.numel()):
            shift = torch.zeros_like(alpha)
            shift[k] = h
            plus, minus = {**alphas, name: alpha + shift}, {**alphas, name: alpha - shift}
            column[k] = (unrolled_loss(plus) - unrolled_loss(minus)) / (2 * h)
        numerical[name] = column
    assert relative_error(exact, numerical) < 1e-6


def test_the_inner_step_is_that_of_torch():
    """Three SGD steps with momentum, decay and Nesterov, side by side with torch.optim.SGD."""
    for nesterov in (False, True):
        p = torch.nn.Parameter(torch.randn(5, dtype=D))
        optimizer = torch.optim.SGD([p], lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
        step = SGDStep(lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=nesterov)
        w, buffers = {"p": p.detach().clone()}, {}
        for k in range(3):
            g = torch.full((5,), float(k + 1), dtype=D)
            p.grad = g.clone()
            optimizer.step()
            w, buffers = step(w, [g], buffers)
            assert torch.allclose(w["p"], p.detach(), rtol=1e-14)


@pytest.mark.parametrize("solver", ["neumann", "cg"])
def test_implicit_agrees_with_the_closed_form_on_a_quadratic(solver):
    """L_train = w'Hw/2 - w'Ba, L_valid = |w - t|^2/2 + c'a: hypergradient = c + B'(H + decay I)^-1
    (w - t)."""
    generator = torch.Generator().manual_seed(0)
    n, m = 6, 3
    root = torch.randn(n, n, generator=generator, dtype=D)
    hessian = root @ root.T / n + torch.eye(n, dtype=D)
    cross = torch.randn(n, m, generator=generator, dtype=D)
    target = torch.randn(n, generator=generator, dtype=D)
    c = torch.randn(m, generator=generator, dtype=D)
    w = torch.randn(n, generator=generator, dtype=D)
    a = torch.randn(m, generator=generator, dtype=D)
    decay = 0.05

    def train(p, q):
        return 0.5 * p["w"] @ hessian @ p["w"] - p["w"] @ cross @ q["a"]

    def valid(p, q):
        return 0.5 * ((p["w"] - target) ** 2).sum() + c @ q["a"]

    expected = c + cross.T @ torch.linalg.solve(hessian + decay * torch.eye(n, dtype=D), w - target)
    gradient = Implicit(solver=solver, steps=400 if solver == "neumann" else n)
    found = gradient(train, valid, {"w": w}, {"a": a}, inner=SGDStep(lr=0.2, weight_decay=decay))
    assert torch.allclose(found["a"], expected, rtol=1e-9)


@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_random_state_and_masks(gradient):
    """Dropout masks are the same in all passes of one step, and the random state is left as it
    was."""
    train, valid, params, alphas = closures(dropout=0.5)
    masks = []

    def watched(loss):
        def inner_loss(p, a):
            masks.append(torch.get_rng_state())
            return loss(p, a)

        return inner_loss

    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = gradient(watched(train), watched(valid), params, alphas, inner=momentum_step(params))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(state, before) for state in masks)
    again = gradient(train, valid, params, alphas, inner=momentum_step(params))
    assert all(torch.equal(first[k], again[k]) for k in first)


def test_finite_difference_with_dropout_agrees_with_exact():
    """Fresh masks at w+ and w- would make the difference mostly noise."""
    train, valid, params, alphas = closures(dropout=0.5)
    inner = momentum_step(params)
    exact = Unrolled(mode="exact")(train, valid, params, alphas, inner=inner)
    assert relative_error(Unrolled()(train, valid, params, alphas, inner=inner), exact) < 1e-5


@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_inputs_are_left_alone_and_keys_are_those_of_alphas(gradient):
    train, valid, params, alphas = closures()
    before = {k: v.clone() for k, v in {**params, **alphas}.items()}
    grads = gradient(train, valid, params, alphas, inner=momentum_step(params))
    assert list(grads) == list(alphas)
    assert all(g.shape == alphas[k].shape and not g.requires_grad for k, g in grads.items())
    assert all(
        torch.equal(before[k], v) and v.grad is None for k, v in {**params, **alphas}.items()
    )


@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_alphas_that_no_loss_reads_have_gradient_zero(gradient):
    extra = {"a": TOY[1]["a"], "unused": torch.ones(3, dtype=D)}
    grads = gradient(toy_train, toy_valid, TOY[0], extra, inner=SGDStep(lr=0.1))
    assert torch.equal(grads["unused"], torch.zeros(3, dtype=D))


def test_finite_difference_where_the_validation_loss_ignores_the_weights():
    grads = Unrolled()(
        toy_train, lambda p, a: 3.0 * a["a"] + 0.0 * p["w"], *TOY, inner=SGDStep(lr=0.1)
    )
    assert grads["a"].item() == 3.0


def test_finite_difference_refuses_a_validation_gradient_that_is_not_finite():
    def broken(p, a):
        return a["a"] * torch.sqrt(p["w"] - p["w"].detach())  # value 0, slope infinite

    with pytest.raises(FloatingPointError, match="not finite"):
        Unrolled()(toy_train, broken, *TOY, inner=SGDStep(lr=0.1))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Unrolled(mode="exakt"), "mode must be"),
        (lambda: Unrolled(steps=2), "needs mode='exact'"),
        (lambda: Unrolled(epsilon=0.0), "epsilon must be positive"),
        (lambda: Unrolled(steps=0, mode="exact"), "steps must be at least 1"),
        (lambda: Implicit(solver="lu"), "solver must be"),
        (lambda: Implicit(steps=0), "steps must be at least 1"),
        (lambda: Implicit(damping=-1.0), "damping"),
        (lambda: Implicit(lr=0.0), "lr must be positive"),
        (lambda: Unrolled()(toy_train, toy_valid, *TOY), r"inner=SGDStep\(lr="),
        (
            lambda: FirstOrder()(toy_train, lambda p, a: a["a"] * torch.ones(2), *TOY),
            "must be a scalar",
        ),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()


@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_an_architecture_step_changes_neither_buffers_nor_the_weight_steps_randomness(gradient):
    """Two searches, one of which takes alpha steps of length zero, see the same weight steps."""

    def weights_after(with_alpha_step):
        torch.manual_seed(0)
        search = Search(TwoChoices(dropout=0.5), gradient=gradient, seed=0)
        for group in search.alpha_optimizer.param_groups:
            group["lr"] = 0.0
        for k in range(3):
            loss = loss_on(batch(k))
            buffers = {n: b.clone() for n, b in search.supernet.named_buffers()}
            state = torch.get_rng_state()
            if with_alpha_step:
                search.alpha_step(loss, loss)
            assert torch.equal(torch.get_rng_state(), state)
            assert all(torch.equal(b, buffers[n]) for n, b in search.supernet.named_buffers())
            search.step(loss)
        return search.supernet.state_dict()

    one, other = weights_after(True), weights_after(False)
    assert all(torch.equal(one[k], other[k]) for k in one)
    changed = [k for k in one if k.endswith("running_mean") and one[k].abs().sum() > 0]
    assert changed  # the weight steps do update the statistics
