"""Every relaxation and gradient over every awkward module, and its derived networks."""

from __future__ import annotations

import pytest
import torch
from awkward import AWKWARD, Awkward
from cases import GRADIENTS, RELAXATIONS, name_of
from torch import Tensor, nn

from gradnas import Choice, GumbelSoftmax, Search, Unrolled, WeightOptimizer
from gradnas.gradients import ArchitectureGradient
from gradnas.relaxations import Relaxation
from gradnas.search.sampling import WEIGHT_NOISE
from gradnas.spaces.your_module import ModuleSupernet

pytestmark = pytest.mark.slow  # many combinations, or whole runs

LR = 0.1


def listed(cases: list[Awkward]) -> list:
    """For parametrize, by name."""
    params = []
    for case in cases:
        params.append(pytest.param(case, id=case.name))
    return params


SEARCHED = listed([case for case in AWKWARD if case.refused is None])
REFUSED = listed([case for case in AWKWARD if case.refused is not None])

ONE_AT_A_TIME = [
    relaxation
    for relaxation in RELAXATIONS
    if isinstance(relaxation, GumbelSoftmax) and relaxation.hard
]

# The first gradient in every run of the tests, the others where there is time.
SOME_QUICK = [GRADIENTS[0]]
SOME_QUICK += [pytest.param(gradient, marks=pytest.mark.slow) for gradient in GRADIENTS[1:]]


def made(case: Awkward) -> nn.Module:
    torch.manual_seed(0)
    return case.make()


def search_over(case: Awkward, relaxation: Relaxation, gradient: ArchitectureGradient) -> Search:
    plain_sgd = WeightOptimizer(lr=LR, lr_end=LR, momentum=0.0, weight_decay=0.0, clip_norm=None)
    return Search(made(case), relaxation, gradient, weights=plain_sgd, epochs=2)


def close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if not one.is_floating_point():
        return torch.equal(one, other)
    size = max(1.0, other.abs().max().item())
    return (one.double() - other.double()).abs().max().item() <= tolerance * size


def compare_with_plain_training(case: Awkward, search: Search, steps: int = 2) -> None:
    """Steps of the search; after each, weights and buffers are those of SGD on the same path."""
    twin = ModuleSupernet(made(case))
    # Told apart by identity, as an optimiser does: the twin's slots are as the factory made them.
    plain: dict[str, nn.Parameter] = dict(twin.net.named_parameters())
    start = {name: tensor.detach().clone() for name, tensor in plain.items()}
    had_gradient: set[str] = set()
    for step in range(steps):
        noise = search.passes.noise(WEIGHT_NOISE)
        search.step(case.loss_on(step), case.loss_on(10 + step))
        tables = {name: alpha.detach() for name, alpha in search.alphas.items()}
        draw = search.passes.path(tables, noise)

        loss = case.loss_on(step)(lambda *inputs, draw=draw: twin(*inputs, draw=draw))
        learning = [name for name, tensor in plain.items() if tensor.requires_grad]
        grads = torch.autograd.grad(loss, [plain[name] for name in learning], allow_unused=True)
        for name, grad in zip(learning, grads, strict=True):
            if grad is not None:
                plain[name].data.sub_(LR * grad)
                if grad.abs().max() > 1e-5:
                    had_gradient.add(name)

        found = search.supernet.net.state_dict()
        for name, tensor in twin.net.state_dict().items():
            assert close(found[name], tensor, case.tolerance), name
    # The module still holds what the optimiser trains, and that has moved.
    held = dict(search.supernet.net.named_parameters())
    for name, tensor in plain.items():
        assert isinstance(held[name], nn.Parameter), name
        assert held[name].requires_grad == tensor.requires_grad, name
        if tensor.requires_grad:
            assert search.params[f"net.{name}"] is held[name], name
        if name in had_gradient:
            assert not torch.equal(held[name].detach(), start[name]), name


def decisions(search: Search) -> list[dict[str, str]]:
    """The best decision; and the first operation everywhere, the second everywhere, and so on."""
    names = search.supernet.names
    found = [dict(search.result().choices)]
    for column in range(max(len(operations) for operations in names.values())):
        found.append({name: row[min(column, len(row) - 1)] for name, row in names.items()})
    return found


@torch.no_grad()
def compare_derived(case: Awkward, search: Search) -> None:
    """Every derived network is the supernet with one-hot mixing weights."""
    supernet = search.supernet
    x, _ = case.batch(3)
    for decision in decisions(search):
        derived = supernet.derived(decision)
        assert not any(isinstance(module, Choice) for module in derived.modules())
        copied = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
        mixture = supernet(x, draw=supernet.one_hot_draw(decision))
        supernet.load_state_dict(copied)
        assert close(derived(x), mixture, case.tolerance), decision


@pytest.mark.parametrize("gradient", SOME_QUICK, ids=name_of)
@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=name_of)
@pytest.mark.parametrize("case", SEARCHED)
def test_weights_learn_as_in_plain_training_and_derived_networks_are_the_one_hot_supernet(
    case, relaxation, gradient
):
    if gradient.differentiates_twice and relaxation.once_differentiable:
        return
    if gradient.differentiates_twice and case.no_second is not None:
        with pytest.raises(ValueError, match=case.no_second):
            search_over(case, relaxation, gradient).step(case.loss_on(0), case.loss_on(1))
        return
    if case.no_difference is not None and gradient == Unrolled():
        with pytest.raises(ValueError, match=case.no_difference):
            search_over(case, relaxation, gradient)
        return
    search = search_over(case, relaxation, gradient)
    compare_with_plain_training(case, search)
    compare_derived(case, search)


@pytest.mark.parametrize("gradient", GRADIENTS[:2], ids=name_of)
@pytest.mark.parametrize("relaxation", RELAXATIONS, ids=name_of)
@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case, relaxation, gradient):
    """At once, in a step, or at the latest when the network is derived."""
    if case.refused_mixed and relaxation in ONE_AT_A_TIME:
        return
    with pytest.raises(ValueError, match=case.refused):
        search = search_over(case, relaxation, gradient)
        for step in range(8):  # a sampled path may leave the operation out for a while
            search.step(case.loss_on(step), case.loss_on(10 + step))
        search.result().derive()
