"""Terms of the alphas' loss: the papers' numbers, and what a search makes of them."""

from __future__ import annotations

import math

import pytest
import torch
from cases import GRADIENTS, TwoChoices, batch, loss_on, name_of

from gradnas import (
    BetaDecay,
    BinaryGates,
    Dirichlet,
    DirichletKL,
    FirstOrder,
    PartialChannels,
    Reinforce,
    Search,
    Sigmoid,
    Softmax,
    ZeroOne,
)
from gradnas.search.capture import CapturedStep
from gradnas.search.sampling import ALPHA_NOISE
from gradnas.search.terms import check_terms


def test_beta_decay_is_the_mean_smooth_maximum_and_pulls_by_softmax():
    alpha = torch.zeros(6, 5, dtype=torch.float64, requires_grad=True)
    value = BetaDecay().value({"cell": alpha})
    assert math.isclose(value.item(), math.log(5))
    (grad,) = torch.autograd.grad(value, alpha)
    assert torch.allclose(grad, torch.full_like(alpha, 1 / 30))
    one = torch.tensor([1.0, 0, 0, 0, 0], dtype=torch.float64)
    assert math.isclose(BetaDecay().value({"a": one}).item(), 1.9048324414)
    # One step of the pull divides the ratio of two of exp(alpha) by exp(rate * (p_1 - p_2)): the
    # paper's form of the decay.
    alpha = torch.tensor([0.8, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(BetaDecay().value({"a": alpha}), alpha)
    p = torch.softmax(alpha.detach(), 0)
    assert torch.allclose(grad, p)
    two = {"a": torch.zeros(2, 3), "b": torch.ones(1, 2)}
    rows = (2 * math.log(3) + 1 + math.log(2)) / 3
    assert math.isclose(BetaDecay().value(two).item(), rows, rel_tol=1e-6)


def test_beta_decay_rises_from_zero():
    weights = [BetaDecay(end=50.0).weight_at(e / 100) for e in (0, 1, 99)]
    assert weights == pytest.approx([0.0, 0.5, 49.5])
    with pytest.raises(ValueError, match="end must be at least 0"):
        BetaDecay(end=-1.0)


def test_zero_one_by_its_formula():
    half = torch.zeros(14, 7, dtype=torch.float64, requires_grad=True)
    sure = torch.full((14, 7), 60.0, dtype=torch.float64)
    for form, right in (("l2", -0.25), ("l1", -0.5)):
        term = ZeroOne(form=form)
        value = term.value({"normal": half})
        assert value.item() == 0.0 and torch.autograd.grad(value, half)[0].abs().max() == 0.0
        assert math.isclose(term.value({"normal": sure}).item(), right)
    alpha = torch.tensor([[0.3, -1.2]], dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(ZeroOne().value({"a": alpha}), alpha)
    s = torch.sigmoid(alpha.detach())
    assert torch.allclose(grad, -2 * (s - 0.5) * s * (1 - s) / 2)


def test_divergence_from_the_uniform_dirichlet():
    alpha = torch.tensor([[1.0, 0, 0, 0, 0], [0.0, 0, 0, 0, 0]], dtype=torch.float64)
    assert math.isclose(DirichletKL().value({"a": alpha}).item(), 0.326105, abs_tol=1e-6)
    alpha = torch.tensor([[0.4, -2.0, 1.3], [0.1, 0.2, -0.3]], dtype=torch.float64)
    c = torch.nn.functional.elu(alpha) + 1
    torch_kl = torch.distributions.kl_divergence(
        torch.distributions.Dirichlet(c), torch.distributions.Dirichlet(torch.ones_like(c))
    ).sum()
    assert torch.allclose(DirichletKL().value({"a": alpha}), torch_kl)
    assert torch.isfinite(DirichletKL().value({"a": torch.full((1, 3), -40.0)}))


def alpha_gradient(search: Search, seed: int = 0) -> dict[str, torch.Tensor]:
    step = search.alpha_step
    losses = loss_on(batch(seed, dtype=torch.float64)), loss_on(batch(1, dtype=torch.float64))
    inner = search.weight_step.inner_step(step.method) if step.method.needs_inner_step else None
    return step.gradient(*losses, search.passes.noise(ALPHA_NOISE), inner)[0]


@pytest.mark.parametrize("gradient", GRADIENTS, ids=name_of)
def test_every_gradient_has_that_of_the_term_added(gradient):
    torch.manual_seed(0)
    net = TwoChoices().double()
    plain = Search(net, gradient=gradient, epochs=10)
    with_term = Search(net, gradient=gradient, epochs=10, terms=[BetaDecay(end=3.0)])
    plain.schedule.epoch = with_term.schedule.epoch = 4
    without = alpha_gradient(plain)
    found = alpha_gradient(with_term)
    for name, alpha in with_term.alphas.items():
        pull = 3.0 * 0.4 / 2 * torch.softmax(alpha.detach(), -1)  # two tables of one row
        assert torch.allclose(found[name] - without[name], pull, atol=1e-9)


def test_rewards_have_the_term_too():
    torch.manual_seed(0)
    net = TwoChoices().double()
    step = loss_on(batch(0, dtype=torch.float64))
    moved = []
    for terms in ((), (BetaDecay(end=1e3),)):
        search = Search(net, BinaryGates("two"), Reinforce(samples=2), epochs=2, terms=terms)
        search.schedule.epoch = 1
        grads, _, _ = search.rewards.gradient(step)
        moved.append(search.terms.added_to(grads, search.alphas))
    for name, alpha in search.alphas.items():
        pull = 500.0 / 2 * torch.softmax(alpha.detach(), -1)
        assert torch.allclose(moved[1][name] - moved[0][name], pull)


def test_what_does_not_fit_is_refused():
    net = TwoChoices()
    for terms, relaxation, sentence in (
        ([ZeroOne()], Softmax(), r"share a one: use relaxation=Sigmoid\(\)"),
        ([BetaDecay()], Sigmoid(), "nothing competes"),
        ([DirichletKL()], Softmax(), r"use relaxation=Dirichlet\(\)"),
        ([BetaDecay(), BetaDecay(end=1.0)], Softmax(), "BetaDecay is given twice"),
        (["beta"], Softmax(), "must be AlphaTerms"),
    ):
        with pytest.raises(ValueError, match=sentence):
            Search(net, relaxation, terms=terms)
    search = Search(net, terms=[BetaDecay()])
    with pytest.raises(ValueError, match="say how long it is"):
        search.step(loss_on(batch(0)), loss_on(batch(1)))
    Search(net, Dirichlet(), terms=[DirichletKL()])


def test_beta_decay_is_refused_where_alphas_that_fall_together_are_seen():
    """A Dirichlet distribution sees their level; gates that learn about two put theirs back."""
    net = TwoChoices()
    for relaxation, sentence in (
        (Dirichlet(), r"lowers all alphas of an edge together.*use DirichletKL\(\)"),
        (PartialChannels(2, inner=Dirichlet()), r"use DirichletKL\(\)"),
        (BinaryGates("two"), r"BinaryGates\(mode='two'\) takes back what a step changes"),
    ):
        with pytest.raises(ValueError, match=sentence):
            check_terms([BetaDecay()], relaxation, FirstOrder())
    # Without a rule that takes back, nothing acts on some alphas alone.
    check_terms([BetaDecay()], BinaryGates("recompute"), FirstOrder())
    Search(net, BinaryGates("two"), Reinforce(samples=2), terms=[BetaDecay()])


def test_a_state_belongs_to_its_terms():
    torch.manual_seed(0)
    search = Search(TwoChoices(), epochs=2, terms=[BetaDecay(end=5.0)])
    state = search.state_dict()
    with pytest.raises(ValueError, match=r"the terms BetaDecay\(end=5.0\), this one has none"):
        Search(TwoChoices(), epochs=2).load_state_dict(state)


def test_a_captured_step_follows_the_weight_of_a_term():
    results = []
    for captured in (False, True):
        torch.manual_seed(0)
        search = Search(TwoChoices(), epochs=3, terms=[BetaDecay(end=50.0)])
        step = CapturedStep(search, lambda net, x, y: (loss_on((x, y))(net), {}), capture=False)
        for epoch in range(3):
            for k in range(2):
                train, valid = batch(10 * epoch + k), batch(100 + k)
                if captured:
                    step(train, valid)
                else:
                    search.step(loss_on(train), loss_on(valid))
            search.finish_epoch()
        results.append(torch.cat([alpha.detach() for alpha in search.alphas.values()]))
    assert torch.allclose(*results, atol=1e-6)
