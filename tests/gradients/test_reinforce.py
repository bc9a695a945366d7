"""REINFORCE against the expectation it estimates, and against the truth by enumeration."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn

from gradnas import (
    AlphaOptimizer,
    BinaryGates,
    Choice,
    FirstOrder,
    GumbelSoftmax,
    Reinforce,
    Search,
    Softmax,
)
from gradnas.randomness import generator_for

NAMES = ("first", "second", "third")


class Fixed(nn.Module):
    """One of three functions of a place, given by the seed."""

    def __init__(self, seed):
        super().__init__()
        generator = generator_for(seed)
        self.register_buffer("turn", torch.linalg.qr(torch.randn(4, 4, generator=generator))[0])
        self.register_buffer("shift", torch.randn(4, generator=generator))

    def forward(self, x):
        return torch.tanh(x @ self.turn + self.shift)


class Puzzle(nn.Module):
    """27 architectures: three places, three functions each, and a scale to learn."""

    def __init__(self, seed):
        super().__init__()
        self.places = nn.ModuleList(
            Choice({f"f{k}": Fixed(100 * seed + 10 * place + k) for k in range(3)}, name=name)
            for place, name in enumerate(NAMES)
        )
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x):
        for place in self.places:
            x = place(x)
        return self.scale * x


def truth(seed):
    """Data, and the loss of each of the 27 architectures with its best scale: found by
    enumeration."""
    torch.manual_seed(seed)
    puzzle = Puzzle(seed)
    x = torch.randn(64, 4, generator=generator_for(seed, 1))
    outputs = {}
    for picks in itertools.product(range(3), repeat=3):
        y = x
        for place, k in zip(puzzle.places, picks, strict=True):
            y = place.operations[f"f{k}"](y)
        outputs[picks] = y
    hidden = tuple(torch.randint(3, (3,), generator=generator_for(seed, 2)).tolist())
    target = 1.3 * outputs[hidden] + 0.1 * torch.randn(64, 4, generator=generator_for(seed, 3))
    losses = {}
    for picks, y in outputs.items():
        scale = (y * target).sum() / y.square().sum()
        losses[tuple(f"f{k}" for k in picks)] = (scale * y - target).square().mean().item()
    return puzzle, x, target, losses


@pytest.mark.slow
@pytest.mark.parametrize(
    ("gradient", "lr", "steps"),
    [(Reinforce(samples=6, baseline_decay=0.9), 0.1, 120), (FirstOrder(), 0.05, 400)],
    ids=repr,
)
@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_27_architectures_is_found(gradient, lr, steps, seed):
    puzzle, x, target, losses = truth(seed)
    best = min(losses, key=lambda picks: losses[picks])
    alphas = AlphaOptimizer(lr=lr, betas=(0.0, 0.999), weight_decay=0.0)
    search = Search(puzzle, BinaryGates("two"), gradient, alphas=alphas, seed=seed)

    def loss(net):
        return (net(x) - target).square().mean()

    for _ in range(steps):
        search.step(loss, loss)
    found = tuple(search.result().choices[name] for name in NAMES)
    place = sorted(losses.values()).index(losses[found]) + 1
    print(f"seed {seed}, {type(gradient).__name__}: {found} is number {place} of 27")
    assert found == best


@pytest.mark.slow
def test_the_estimate_is_the_gradient_of_the_expected_reward():
    """Mean over many samples against d/d alpha of sum_a p(a) r(a), in float64; with any
    baseline."""
    generator = generator_for(3)
    alphas = {"a": torch.randn(3, generator=generator, dtype=torch.float64).requires_grad_()}
    reward = torch.tensor([0.3, -1.0, 2.0], dtype=torch.float64)
    expected = torch.autograd.grad(-(torch.softmax(alphas["a"], 0) * reward).sum(), alphas["a"])[0]
    n = 20_000
    picks = torch.multinomial(
        torch.softmax(alphas["a"], 0).detach(), n, replacement=True, generator=generator
    ).tolist()
    for baseline in (0.0, 0.7):
        log_p = torch.log_softmax(alphas["a"], 0)
        found, _ = Reinforce().estimate(
            [log_p[k] for k in picks], [reward[k].item() for k in picks], alphas, baseline
        )
        assert torch.allclose(found["a"], expected, atol=0.03)


def test_the_baseline_is_formed_before_its_batch():
    """Advantages are against the mean of the steps before; then the batch enters with its share."""
    alphas = {"a": torch.zeros(2, dtype=torch.float64, requires_grad=True)}
    log_p = torch.log_softmax(alphas["a"], 0)
    gradient = Reinforce(samples=2, baseline_decay=0.9)
    grads, baseline = gradient.estimate([log_p[0], log_p[1]], [1.0, 3.0], alphas, 0.5)
    slope = torch.tensor([0.5, -0.5], dtype=torch.float64)  # d log p_0 / d alpha
    assert torch.allclose(grads["a"], -((1.0 - 0.5) * slope + (3.0 - 0.5) * -slope) / 2)
    assert baseline == pytest.approx(0.9 * 0.5 + 0.1 * 2.0)
    log_p = torch.log_softmax(alphas["a"], 0)
    grads, baseline = gradient.estimate([log_p[0], log_p[1]], [1.0, 3.0], alphas, None)
    assert torch.allclose(grads["a"], -((1.0 - 3.0) * slope + (3.0 - 1.0) * -slope) / 2)
    assert baseline == 2.0


def test_any_function_is_a_reward_and_the_baseline_is_saved():
    """Not a tensor, not differentiable; the baseline goes on after a reload."""
    puzzle, x, target, _ = truth(0)
    search = Search(
        puzzle, GumbelSoftmax(temperature=1.0, temperature_end=1.0), Reinforce(samples=3)
    )
    seen = []

    def reward(net):
        seen.append(tuple(rows[0][0] for rows in net.draw.active.values()))
        return 1.0 if seen[-1][0] == 2 else 2.0

    for _ in range(5):
        search.step(lambda net: (net(x) - target).square().mean(), reward)
    assert (
        len(seen) == 15
        and search.rewards.baseline is not None
        and -2.0 <= search.rewards.baseline <= -1.0
    )
    other = Search(
        truth(0)[0], GumbelSoftmax(temperature=1.0, temperature_end=1.0), Reinforce(samples=3)
    )
    other.load_state_dict(copy.deepcopy(search.state_dict()))
    assert other.rewards.baseline == search.rewards.baseline
    for one in (search, other):
        one.step(lambda net: (net(x) - target).square().mean(), reward)
    assert other.rewards.baseline == search.rewards.baseline
    assert all(torch.equal(a, other.alphas[name]) for name, a in search.alphas.items())


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Reinforce(samples=0), "samples must be at least 1"),
        (lambda: Reinforce(baseline_decay=1.0), "baseline_decay must be in"),
        (lambda: Reinforce(reward="speed"), "reward must be 'loss' or 'accuracy'"),
        (
            lambda: Search(Puzzle(0), Softmax(), Reinforce()),
            "Softmax samples none; use BinaryGates",
        ),
        (lambda: Reinforce()(None, None, {}, {}), "use it in a Search"),
    ],
)
def test_refusals(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
