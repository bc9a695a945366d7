"""What a search cannot follow is refused with a sentence, at construction or in the first step."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from cases import TwoChoices, batch, loss_on
from torch import nn
from torch.autograd.function import once_differentiable

import gradnas
from gradnas import Choice, FirstOrder, Implicit, Reinforce, Search, Unrolled

EXACT = [Unrolled(mode="exact"), Implicit(steps=2)]
X = torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(0))


@dataclass(frozen=True)
class Sampling(gradnas.gradients.ArchitectureGradient):
    """A gradient of one's own that asks for samples, and does not say what to do with them."""

    num_samples: int = 3

    def __call__(self, train_loss, valid_loss, params, alphas, inner=None):
        raise AssertionError


class OwnReinforce(Reinforce):
    """... and one that does."""

    def estimate(self, log_probs, rewards, alphas, baseline):
        grads, baseline = super().estimate(log_probs, rewards, alphas, baseline)
        return {name: 2 * grad for name, grad in grads.items()}, baseline


def lazy():
    return nn.Sequential(
        Choice({"a": nn.Linear(3, 3), "b": nn.Identity()}, name="c"), nn.LazyLinear(2)
    )


def of_some(params):
    return torch.optim.SGD(params[2:], lr=0.1)


def of_one_more(params):
    return torch.optim.SGD([*params, nn.Parameter(torch.zeros(7))], lr=0.1)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"weights": torch.optim.AdamW([nn.Parameter(torch.zeros(1))])},
            r"weights=lambda params: torch.optim.AdamW\(params",
        ),
        ({"weights": 0.1}, r"weights must be a WeightOptimizer\(...\) or a function"),
        ({"weights": lambda params: None}, "must return a torch.optim.Optimizer, not NoneType"),
        ({"weights": torch.optim.LBFGS}, "LBFGS evaluates the loss several times"),
        ({"weights": of_some}, "was not given 'stem.weight', 'stem.bias', which would never move"),
        ({"weights": of_one_more}, r"1 trainable parameters that are not of the network .*\(7,\)"),
        ({"alphas": lambda params: torch.optim.Adam(params)}, r"alphas must be AlphaOptimizer\("),
        ({"alphas": 0.1}, r"alphas must be AlphaOptimizer\("),
        (
            {"gradient": Sampling(), "relaxation": gradnas.BinaryGates()},
            "Sampling samples networks .* make Sampling a subclass of gradnas.Reinforce",
        ),
    ],
)
def test_settings_that_cannot_be_followed(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Search(TwoChoices(), **settings)


def test_an_optimiser_class_and_frozen_weights_are_no_reason_to_refuse():
    net = TwoChoices()
    net.stem.requires_grad_(False)
    search = Search(net, weights=lambda params: torch.optim.AdamW(net.parameters()))
    before = net.head.weight.detach().clone()
    search.step(loss_on(batch(0)), loss_on(batch(1)))
    assert not torch.equal(before, net.head.weight)
    Search(TwoChoices(), weights=torch.optim.AdamW).step(loss_on(batch(0)), loss_on(batch(1)))


def test_the_weights_optimiser_is_not_for_alphas():
    net = TwoChoices()
    supernet = gradnas.Search(net).supernet

    def everything(params):
        return torch.optim.SGD(supernet.parameters(), lr=0.1)

    with pytest.raises(ValueError, match="given the alpha of choice 'first'"):
        Search(supernet, weights=everything)


def test_ones_own_estimate():
    search = Search(TwoChoices(), gradnas.BinaryGates(), OwnReinforce(samples=2))
    assert search.step(loss_on(batch(0)), loss_on(batch(1))).valid_loss is not None


def test_lazy_modules():
    with pytest.raises(ValueError, match=r"'1' \(LazyLinear\) does not know its shape yet"):
        Search(lazy())
    net = lazy()
    net(torch.zeros(2, 3))
    Search(net)


@pytest.mark.parametrize(
    ("losses", "sentence"),
    [
        ((loss_on(batch(0)), lambda net: net(batch(0)[0]).sum().item()), "validation loss must be"),
        ((loss_on(batch(0)), lambda net: None), "validation loss .* got None .does the function"),
        ((lambda net: 1.5, loss_on(batch(0))), r"train loss .* got 1.5 .*leave out .item\(\)"),
        ((lambda net: None, None), "train loss must be a scalar tensor, got None"),
        (
            (lambda net: net(batch(0)[0]).sum().detach(), None),
            "train loss has no gradient in the weights",
        ),
        (
            (loss_on(batch(0)), lambda net: net(batch(0)[0]).sum().detach()),
            "validation loss has no gradient in the alphas",
        ),
    ],
)
@pytest.mark.parametrize("gradient", [FirstOrder(), Unrolled()])
def test_losses_that_are_none(losses, sentence, gradient):
    search = Search(TwoChoices(), gradient=gradient)
    with pytest.raises(ValueError, match=sentence):
        search.step(*losses)


def test_rewards_may_be_any_number_and_nothing_else():
    search = Search(TwoChoices(), gradnas.BinaryGates(), Reinforce(samples=2))
    train = loss_on(batch(0))
    assert search.step(train, lambda net: -0.5).valid_loss == -0.5
    with pytest.raises(ValueError, match="is a number, not None"):
        search.step(train, lambda net: None)
    with pytest.raises(ValueError, match=r"a tensor of shape \(8, 5\)"):
        search.step(train, lambda net: net(batch(0)[0]))


def test_a_sampled_operation_without_weights_moves_none():
    net = Choice({"linear": nn.Linear(3, 3), "skip": nn.Identity()}, name="c")
    search = Search(net, gradnas.GumbelSoftmax(temperature=1.0, temperature_end=1.0))
    with torch.no_grad():
        search.alphas["c"].copy_(torch.tensor([-50.0, 50.0]))
    before = net.operations["linear"].weight.detach().clone()
    search.step(lambda net: net(torch.ones(2, 3)).sum())
    assert torch.equal(before, net.operations["linear"].weight) and search.steps == 1


@pytest.mark.parametrize("size", ["2", "8"])
def test_processes_that_know_nothing_of_each_other(monkeypatch, size):
    monkeypatch.setenv("WORLD_SIZE", size)
    with pytest.raises(ValueError, match=f"one of {size} processes .*init_process_group"):
        Search(TwoChoices())
    monkeypatch.setenv("WORLD_SIZE", "1")
    Search(TwoChoices())


# ---- second derivatives --------------------------------------------------------------------------


class Attention(nn.Module):
    def forward(self, x):
        return F.scaled_dot_product_attention(x[:, None], x[:, None], x[:, None])[:, 0]


class Distances(nn.Module):
    def forward(self, x):
        return torch.cdist(x, 0.5 * x.detach())


class SquareOnce(torch.autograd.Function):
    """A square whose backward is a constant to autograd."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        return 2 * grad * ctx.saved_tensors[0]


class Through(nn.Module):
    """Any function of one input as a module."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def between(module: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    choice = Choice({"a": nn.Linear(8, 8), "b": nn.Identity()}, name="c")
    return nn.Sequential(nn.Linear(8, 8), choice, module)


def mean_square(net):
    return net(X).square().mean()


def transcription(net):
    log_probs = net(X).log_softmax(-1).transpose(0, 1)
    targets = torch.ones(4, 2, dtype=torch.long)
    return F.ctc_loss(log_probs, targets, torch.full((4,), 5), torch.full((4,), 2))


WITHOUT_SECOND = [
    (Attention(), mean_square, "flash_attention"),
    (nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True), mean_square, "flash_attention"),
    (Distances(), mean_square, "cdist"),
    (nn.Identity(), transcription, "ctc_loss"),
    (Through(SquareOnce.apply), mean_square, "SquareOnce"),
    (Through(SquareOnce.apply), lambda net: net(X).sum(), "SquareOnce"),
]


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize(("module", "loss", "what"), WITHOUT_SECOND)
def test_without_second_derivatives(gradient, module, loss, what):
    """... the last two gave a hypergradient without one of its terms."""
    search = Search(between(module), gradient=gradient)
    with pytest.raises(ValueError, match=rf"{what}.*use Unrolled\(mode='finite_difference'\)"):
        search.step(loss, loss)
    Search(between(module), gradient=Unrolled()).step(loss, loss)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch.compile itself
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("gradient", [FirstOrder(), Unrolled(epsilon=0.1), *EXACT])
def test_a_compiled_part(backend, gradient):
    """What torch has compiled it differentiates once; once, as it is without."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    torch.manual_seed(1)
    part = nn.Sequential(nn.Linear(8, 8), nn.Tanh())
    compiled = Search(between(torch.compile(part, backend=backend)), gradient=gradient)
    if gradient.differentiates_twice:
        with pytest.raises(ValueError, match=r"use Unrolled\(mode='finite_difference'\)"):
            compiled.step(mean_square, mean_square)
        return
    grads = []
    for search in (compiled, Search(between(part), gradient=gradient)):
        inner = search.weight_step.inner_step(gradient)
        grads.append(search.alpha_step.gradient(mean_square, mean_square, {}, inner)[0]["c"])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert torch.allclose(*grads, rtol=1e-3)
    compiled.step(mean_square, mean_square)


# ---- a network that is changed after Search(...) was made ----------------------------------------


def of_two() -> nn.Sequential:
    choice = gradnas.Choice({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)}, name="c")
    return nn.Sequential(nn.Linear(4, 4), choice, nn.Linear(4, 3))


def other_operation(net: nn.Sequential) -> None:
    net[1].operations["a"] = nn.Linear(4, 4)


def other_layer(net: nn.Sequential) -> None:
    net[0] = nn.Linear(4, 4)


def other_tensors(net: nn.Sequential) -> None:
    net.load_state_dict({k: v + 1 for k, v in net.state_dict().items()}, assign=True)


def one_operation_more(net: nn.Sequential) -> None:
    net[1].operations["z"] = nn.Identity()


def one_operation_less(net: nn.Sequential) -> None:
    del net[1].operations["b"]


def other_order(net: nn.Sequential) -> None:
    net[1].operations = nn.ModuleDict(dict(reversed(net[1].operations.items())))


def frozen_since(net: nn.Sequential) -> None:
    net[0].weight.requires_grad_(False)


def freed_since(net: nn.Sequential) -> None:
    net[0].bias.requires_grad_(True)


@pytest.mark.parametrize("gradient", [gradnas.FirstOrder(), gradnas.Unrolled()])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_operation, r"the weight 1\.operations\.a\.weight was put into the network"),
        (other_layer, r"the weight 0\.weight was put into the network"),
        (other_tensors, r"the weight 0\.weight was put into the network"),
        (one_operation_more, "had the operations a, b when .* has a, b, z now"),
        (one_operation_less, "had the operations a, b when .* has a now"),
        (other_order, "had the operations a, b when .* has b, a now"),
        (frozen_since, r"the weight 0\.weight was frozen"),
        (freed_since, r"the weight 0\.bias was put into the network, or freed"),
    ],
)
def test_what_would_not_learn_is_refused(change, words, gradient):
    net = of_two()
    net[0].bias.requires_grad_(False)
    search = gradnas.Search(net, gradient=gradient)
    x, y = torch.randn(8, 4), torch.randint(3, (8,))

    def loss(own):
        return F.cross_entropy(own(x), y)

    search.step(loss, loss)
    change(net)
    with pytest.raises(ValueError, match=words):
        search.step(loss, loss)


def test_other_values_in_the_same_weights_are_taken():
    net = of_two()
    search = gradnas.Search(net)
    x, y = torch.randn(8, 4), torch.randint(3, (8,))

    def loss(own):
        return F.cross_entropy(own(x), y)

    search.step(loss, loss)
    net.load_state_dict({k: torch.zeros_like(v) for k, v in net.state_dict().items()})
    reports = search.step(loss, loss)
    assert reports.train_loss.item() == pytest.approx(torch.tensor(3.0).log().item())
    net[2].bias.data.fill_(1.0)
    assert not net[2].bias.equal(torch.zeros(3))
    search.step(loss, loss)
    assert (net[2].bias > 0.5).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"relaxation": gradnas.Softmax}, "relaxation must be an object such as Softmax()"),
        ({"relaxation": "softmax"}, "relaxation must be an object .* not 'softmax'"),
        ({"relaxation": None}, "relaxation must be an object"),
        ({"gradient": FirstOrder}, "gradient must be an object such as FirstOrder()"),
        ({"gradient": "first-order"}, "gradient must be an object"),
        ({"terms": gradnas.BetaDecay()}, "terms must be a list of them"),
        ({"terms": None}, "terms must be a list of them"),
        ({"stabilizers": gradnas.AuxiliarySkip()}, "stabilizers must be a list of them"),
        ({"cost": "1e6"}, "cost must be an ExpectedCost"),
        ({"epochs": 1.5}, "epochs must be a whole number, not 1.5"),
    ],
)
def test_what_is_no_method_is_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        gradnas.Search(of_two(), **settings)
